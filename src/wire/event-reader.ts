import { LimitError, StreamError } from '../errors.ts'
import { keepAlive } from '../timers.ts'

/** Bounds on what is read from the network before an event is whole. */
export interface WireLimits {
  /** Longest single event, in characters. Default 67,108,864: images travel in events. */
  readonly maxEventLength?: number | undefined
  /** Most lines in a row that are no part of an event, where a format has such. Default 100. */
  readonly maxStrayLines?: number | undefined
}

export const defaultMaxEventLength = 67_108_864
export const defaultMaxStrayLines = 100

/** One event of a body, in whichever framing. */
export interface WireEvent {
  readonly data: string
}

/** What some services send after their last event, to say that nothing more comes. */
export const endOfEvents: WireEvent = { data: '' }

/** How some gateways keep a connection alive. */
export const emptyEvent: WireEvent = { data: '' }

/** How a body is cut into events. */
export interface Framing {
  /** For messages, e.g. `an event stream`. */
  readonly name: string
  /** What a content type of it holds. */
  readonly contentType: string
  open(body: ReadableStream<Uint8Array>, limits: WireLimits | undefined): EventReader
}

/** How long the rest of a finished answer is read, so that its connection can be used again. */
const drainMs = 1000

/** Reads a response body, one network read at a time. Bytes that are no UTF-8 are an error. */
export abstract class EventReader {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>
  readonly #decoder = new TextDecoder('utf-8', { fatal: true })
  #failure: unknown
  #isDone = false
  #hasEvents = false
  /** What the read under way has completed. */
  protected events: WireEvent[] = []

  constructor(body: ReadableStream<Uint8Array>) {
    this.#reader = body.getReader()
  }

  /** Takes the next text, and adds to `events` what it completes. */
  protected abstract feed(text: string): void

  /** Adds to `events` what the end of the body completes. Returns whether the body holds an event that is not complete. */
  protected abstract end(): boolean

  /** The events that the next read of the network completes, if any; `undefined` at the end of the body. */
  read(): Promise<readonly WireEvent[] | undefined> {
    if (this.#failure) return Promise.reject(this.#failure)
    if (this.#isDone) return Promise.resolve(undefined)
    return this.#reader.read().then(this.#take)
  }

  readonly #take = ({ done, value }: ReadableStreamReadResult<Uint8Array>): readonly WireEvent[] => {
    this.events = []
    this.#isDone = done
    try {
      if (!done) this.feed(this.#decode(value))
      else if (this.end() && !this.#hasEvents && this.events.length === 0) throw cutInFirstEvent()
    } catch (error) {
      // Thrown next time, after the events before it.
      this.#failure = error
    }
    this.#hasEvents ||= this.events.length > 0
    return this.events
  }

  #decode(bytes: Uint8Array): string {
    try {
      return this.#decoder.decode(bytes, { stream: true })
    } catch {
      throw new StreamError('stream_protocol', 'The answer holds bytes that are not UTF-8.', {
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
    keepAlive(timer, false)
    const next = (): Promise<void> => this.#reader.read().then(({ done }) => (done ? undefined : next()))
    next()
      .catch(() => undefined)
      .finally(() => clearTimeout(timer))
  }
}

export function eventTooLong(maxEventLength: number): LimitError {
  return new LimitError('maxEventLength', maxEventLength, 'A part of the answer is too long', { phase: 'stream' })
}

/** Not an empty answer: something had begun. */
function cutInFirstEvent(): StreamError {
  return new StreamError('stream_truncated', 'The answer ended before anything of it was whole.', {
    retryable: true,
    phase: 'stream',
    reason: 'end',
  })
}
