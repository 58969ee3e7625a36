import { createParser, type EventSourceMessage } from 'eventsource-parser'
import { LimitError, StreamError } from '../errors.ts'

export interface WireLimits {
  /** Longest single event, in characters. Default 67,108,864: images travel in events. */
  readonly maxEventLength?: number | undefined
}

/** How long the rest of a finished answer is read, so that its connection can be used again. */
const drainMs = 1000

/**
 * Reads a response body as server-sent events, all events of one network read at a time. Bytes that are no UTF-8 are an
 * error; an event whose blank line never came is not an event (WHATWG HTML, section 9.2.6).
 */
export class ServerSentEventReader {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>
  readonly #decoder = new TextDecoder('utf-8', { fatal: true })
  readonly #parser
  #events: EventSourceMessage[] = []
  #failure: unknown
  #isDone = false

  constructor(body: ReadableStream<Uint8Array>, { maxEventLength = 67_108_864 }: WireLimits = {}) {
    this.#reader = body.getReader()
    this.#parser = createParser({
      maxBufferSize: maxEventLength,
      onEvent: (event) => void this.#events.push(event),
      onError: (error) => {
        if (error.type === 'max-buffer-size-exceeded') {
          throw new LimitError('maxEventLength', maxEventLength, 'An event of the stream is too long', {
            phase: 'stream',
          })
        }
        // Anything else is a line the format says to ignore.
      },
    })
  }

  /** The events that the next reads complete, at least one; `undefined` at the end of the body. */
  async read(): Promise<readonly EventSourceMessage[] | undefined> {
    this.#events = []
    do {
      if (this.#failure) throw this.#failure
      const { done, value } = await this.#reader.read()
      this.#isDone = done
      if (done) return undefined
      try {
        this.#parser.feed(this.#decode(value))
      } catch (error) {
        // Thrown next time, after the events before it.
        this.#failure = error
      }
    } while (this.#events.length === 0)
    return this.#events
  }

  #decode(bytes: Uint8Array): string {
    try {
      return this.#decoder.decode(bytes, { stream: true })
    } catch {
      throw new StreamError('stream_protocol', 'The stream holds bytes that are not UTF-8.', {
        retryable: true,
        phase: 'stream',
      })
    }
  }

  /** Closes the connection. */
  cancel(): void {
    if (!this.#isDone) this.#reader.cancel().catch(() => undefined)
  }

  /** Reads on in the background for at most a second, then closes: a connection read to its end can serve again. */
  drain(): void {
    if (this.#isDone) return
    const timer = setTimeout(() => this.cancel(), drainMs)
    // Not there in browsers, where nothing is kept alive by a timer.
    ;(timer as { unref?: () => void }).unref?.()
    const next = (): Promise<void> => this.#reader.read().then(({ done }) => (done ? undefined : next()))
    next()
      .catch(() => undefined)
      .finally(() => clearTimeout(timer))
  }
}
