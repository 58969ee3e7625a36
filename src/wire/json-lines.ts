import { defaultMaxEventLength, EventReader, eventTooLong, type Framing, type WireLimits } from './event-reader.ts'

/** Reads lines of JSON; empty ones say nothing. Lines end in LF or CRLF. */
export class JsonLineReader extends EventReader {
  readonly #maxLength: number
  /** The pieces of the line being read: joined once, so that a long line in short reads costs no more than its length. */
  #pieces: string[] = []
  #length = 0

  constructor(body: ReadableStream<Uint8Array>, { maxEventLength = defaultMaxEventLength }: WireLimits = {}) {
    super(body)
    this.#maxLength = maxEventLength
  }

  protected override feed(text: string): void {
    let start = 0
    for (let end; (end = text.indexOf('\n', start)) >= 0; start = end + 1) {
      this.#add(text.slice(start, end))
      this.#complete()
    }
    this.#add(text.slice(start))
  }

  /** The last line may lack its end, if it is whole: no part of an object is an object. */
  protected override end(): boolean {
    const line = this.#pieces.join('')
    try {
      JSON.parse(line)
    } catch {
      return line.trim() !== ''
    }
    this.#complete()
    return false
  }

  #add(piece: string): void {
    if (piece === '') return
    this.#length += piece.length
    if (this.#length > this.#maxLength) throw eventTooLong(this.#maxLength)
    this.#pieces.push(piece)
  }

  #complete(): void {
    const line = this.#pieces.length === 1 ? this.#pieces[0]! : this.#pieces.join('')
    const data = line.trim()
    this.#pieces.length = 0
    this.#length = 0
    if (data !== '') this.events.push({ data })
  }
}

export const jsonLines: Framing = {
  name: 'lines of JSON',
  // Also `application/json`, which some servers call their lines.
  contentType: 'json',
  open: (body, limits) => new JsonLineReader(body, limits),
}
