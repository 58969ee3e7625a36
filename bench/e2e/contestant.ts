import { textFields, type WireName } from './job.ts'

/** Takes what a contestant hands out while an answer is written. */
export interface Sink {
  /** New text of string fields. */
  onText(piece: string): void
  /** New text of the arguments, from who knows no fields. */
  onArguments(piece: string): void
}

/** Asks once and reads the answer to its end. Resolves with the payload, where the contestant makes one. */
export type Ask = (prompt: string, sink: Sink) => Promise<unknown>

/** One way to read a streamed tool call. */
export interface Contestant {
  readonly name: string
  readonly kind: 'floor' | 'raw' | 'ours' | 'other'
  /** Where it hands out the text of the arguments as it comes, not that of fields. */
  readonly givesArguments?: readonly WireName[]
  /** What it is made of, for the list of versions and the time it takes to load. */
  readonly packages: Partial<Record<WireName, readonly string[]>>
  /** Loads what is needed, and makes the client that all requests share. */
  open(wire: WireName, address: string): Promise<Ask>
}

/** Hands out what is new in the string fields of a snapshot. */
export class SnapshotReader {
  readonly #sink: Sink
  readonly #lengths = textFields.map(() => 0)

  constructor(sink: Sink) {
    this.#sink = sink
  }

  read(snapshot: unknown): void {
    if (typeof snapshot !== 'object' || snapshot === null) return
    for (let i = 0; i < textFields.length; i++) {
      const text = (snapshot as Record<string, unknown>)[textFields[i]!]
      if (typeof text !== 'string' || text.length <= this.#lengths[i]!) continue
      this.#sink.onText(text.slice(this.#lengths[i]))
      this.#lengths[i] = text.length
    }
  }
}
