import { defaultMaxEventLength, EventReader, eventTooLong, type Framing, type WireLimits } from './event-reader.ts'

/** Reads a body that is one JSON value, an answer in one piece. */
export class JsonBodyReader extends EventReader {
  readonly #maxLength: number
  readonly #pieces: string[] = []
  #length = 0

  constructor(body: ReadableStream<Uint8Array>, { maxEventLength = defaultMaxEventLength }: WireLimits = {}) {
    super(body)
    this.#maxLength = maxEventLength
  }

  protected override feed(text: string): void {
    this.#length += text.length
    if (this.#length > this.#maxLength) throw eventTooLong(this.#maxLength)
    this.#pieces.push(text)
  }

  protected override end(): boolean {
    const data = this.#pieces.join('').trim()
    // What does not begin as an object or a list is not cut, but something else.
    const isCut = /^[[{]/.test(data) && !isJson(data)
    if (data !== '' && !isCut) this.events.push({ data })
    return isCut
  }
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

export const jsonBody: Framing = {
  name: 'JSON',
  contentType: 'json',
  open: (body, limits) => new JsonBodyReader(body, limits),
}
