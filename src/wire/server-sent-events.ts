import { createParser } from 'eventsource-parser'
import { StreamError } from '../errors.ts'
import {
  defaultMaxEventLength,
  defaultMaxStrayLines,
  emptyEvent,
  endOfEvents,
  EventReader,
  eventTooLong,
  type Framing,
  type WireLimits,
} from './event-reader.ts'
import { errorIn } from './transport-errors.ts'

/** Data that ends a stream of OpenAI's and of whoever follows them. No JSON begins so. */
const endMarker = '[DONE]'

/** Most characters kept of lines that are no part of an event, and may be a report of an error. */
const maxStrayLength = 65_536

/**
 * Reads server-sent events; one whose blank line never came is not an event (WHATWG HTML, section 9.2.6). A report of an error
 * that stands between events, as gateways write it (`error: {…}`, `{"error": …}` in one line or many), counts as an event.
 */
export class ServerSentEventReader extends EventReader {
  readonly #parser
  readonly #maxEventLength: number
  readonly #maxStrayLines: number
  /** The beginning of a line whose end has not come. */
  #line = ''
  #stray = ''
  #strayLines = 0
  #hasFields = false

  constructor(body: ReadableStream<Uint8Array>, limits: WireLimits = {}) {
    super(body)
    const { maxEventLength = defaultMaxEventLength, maxStrayLines = defaultMaxStrayLines } = limits
    this.#maxEventLength = maxEventLength
    this.#maxStrayLines = maxStrayLines
    this.#parser = createParser({
      maxBufferSize: maxEventLength,
      onEvent: (event) => {
        this.#stray = ''
        this.#strayLines = 0
        const { data } = event
        this.events.push(data === '' ? emptyEvent : data.startsWith(endMarker) ? endOfEvents : event)
      },
      onError: ({ type, field, value, line }) => {
        if (type === 'max-buffer-size-exceeded') throw eventTooLong(maxEventLength)
        // Anything else is a line the format says to ignore.
        this.#readStray(field === 'error' ? `{"error":${value ?? ''}}` : (line ?? ''))
      },
    })
  }

  /** Whole lines only: of a line in pieces the parser would not tell what it ignores. */
  protected override feed(text: string): void {
    // Most reads hold whole lines.
    if (this.#line === '' && this.#hasFields && text.endsWith('\n')) {
      this.#parser.feed(text)
      return
    }
    const newline = text.lastIndexOf('\n') + 1
    // Most services end their lines in LF only: no need to search all of the text for CR.
    const end = newline + text.slice(newline).lastIndexOf('\r') + 1
    if (end > 0) {
      const lines = this.#line + text.slice(0, end)
      this.#line = ''
      this.#hasFields ||= /^(?:data|event|id)\b/m.test(lines)
      this.#parser.feed(lines)
    }
    this.#line += text.slice(end)
    if (this.#line.length > this.#maxEventLength) throw eventTooLong(this.#maxEventLength)
  }

  /** Ends the last line, but not the event it may belong to. */
  protected override end(): boolean {
    const isCut = this.#line !== '' && !this.#line.startsWith(':')
    if (isCut) this.#parser.feed(`${this.#line}\n`)
    return isCut || this.#hasFields
  }

  #readStray(line: string): void {
    const isFull = this.#stray.length > maxStrayLength
    if (!isFull) this.#stray += line
    const first = this.#stray.trimStart().charAt(0)
    const isReport = first === '{' || first === '['
    if (!isReport) this.#stray = ''
    if (!isReport || isFull) {
      this.#countStray()
      return
    }
    const isClosed = /[}\]]\s*$/.test(line)
    const error = isClosed ? errorIn(this.#stray) : undefined
    if (error === undefined) return
    this.#stray = ''
    this.#strayLines = 0
    this.events.push({ data: JSON.stringify({ error }) })
  }

  #countStray(): void {
    if (++this.#strayLines <= this.#maxStrayLines) return
    throw new StreamError(
      'stream_protocol',
      `More than ${this.#maxStrayLines} lines in a row are no part of an event. Check the base URL, and any gateway in between, or raise \`maxStrayLines\`.`,
      { retryable: true, phase: 'stream' },
    )
  }
}

export const serverSentEvents: Framing = {
  name: 'an event stream',
  contentType: 'text/event-stream',
  open: (body, limits) => new ServerSentEventReader(body, limits),
}
