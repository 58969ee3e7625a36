import { StreamError } from '../errors.ts'
import type { StreamEvent } from '../events.ts'

/** JSON off the wire or on it. */
export type Json = Record<string, unknown>

/** Turns one answer's wire events into `StreamEvent`s, whoever decoded them. A provider fills in `map`. */
export abstract class EventMapper {
  readonly provider: string
  readonly #emitsRaw: boolean
  #failure: unknown
  /** Whether anything of an answer has come. */
  protected hasStarted = false
  /** Whether the terminal evidence was seen, with all it needs. Nothing is to be pushed after that. */
  isFinished = false

  constructor(provider: string, emitsRaw = false) {
    this.provider = provider
    this.#emitsRaw = emitsRaw
  }

  /** Maps one event; throws an `LLMError` where it is wrong. */
  protected abstract map(event: Json, out: StreamEvent[]): void

  /** Where an event is wrong, returns what came before it; `hasEnded` throws then. */
  push(events: Iterable<unknown>): StreamEvent[] {
    const mapped: StreamEvent[] = []
    try {
      for (const event of events) {
        if (this.#emitsRaw) mapped.push({ type: 'raw', value: event })
        this.map(toObject(this.provider, event, 'an event'), mapped)
        if (this.isFinished) break
      }
    } catch (error) {
      if (mapped.length === 0) throw error
      this.#failure = error
    }
    return mapped
  }

  /** To be asked after each push, before more is waited for. */
  hasEnded(): boolean {
    if (this.#failure) throw this.#failure
    return this.isFinished
  }

  /** The error of a stream that ended before `isFinished`. */
  truncated(): StreamError {
    const { provider } = this
    const facts = { retryable: true, phase: 'stream', provider } as const
    return this.hasStarted
      ? new StreamError('stream_truncated', `The stream of ${provider} ended before the answer was complete.`, facts)
      : new StreamError('empty_response', `${provider} answered with an empty stream.`, facts)
  }
}

export function protocolError(provider: string, problem: string): StreamError {
  return new StreamError('stream_protocol', `${provider} broke its protocol: ${problem}.`, {
    retryable: true,
    phase: 'stream',
    provider,
  })
}

export function toObject(provider: string, value: unknown, what: string): Json {
  if (typeof value !== 'object' || value === null) throw protocolError(provider, `${what} is not an object`)
  return value as Json
}

export function toText(provider: string, value: unknown, what: string): string {
  if (typeof value !== 'string') throw protocolError(provider, `${what} is not a string`)
  return value
}
