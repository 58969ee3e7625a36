import { ConsumerError, type LLMError, UsageError } from './errors.ts'
import { mergeEvent } from './event-queue.ts'
import type { ResponseEvent } from './events.ts'

/** How much of a run is kept for those who come late or return. */
export interface ReplayOptions {
  /**
   * Most events to keep. Deltas that nobody has seen yet merge and count as one; what was seen is kept as it was, so that its
   * `seq` stays a place to go on from.
   */
  readonly events: number
}

interface Waiter {
  resolve(result: IteratorResult<ResponseEvent, undefined>): void
  reject(error: unknown): void
}

/**
 * The events of one run for any number of readers, each at its own place. All get the same events: deltas merge only behind
 * the reader that is furthest on, and what was handed out never changes again. So whoever has seen the event with number `seq`
 * has seen all that stands before it here and nothing that stands after it, and can go on from there.
 */
export class EventLog {
  readonly #capacity: number
  /** What is kept; none of it changes any more. Those before `#head` are dropped. */
  #events: ResponseEvent[] = []
  #head = 0
  /** How many events were removed from the front of `#events`. */
  #removed = 0
  /** The newest deltas, which nobody has seen, one for each channel; they follow `#events`. */
  readonly #growing = new Map<string, ResponseEvent>()
  readonly #readers = new Set<LogReader>()
  /** Whether nobody keeps up, so that what arrives is to merge. */
  #isMerging = true
  /** Numbers of the newest event, and of the newest that is not kept any more. */
  #newest: number
  #dropped: number
  #end: { readonly error?: LLMError | undefined } | undefined

  /** `begun` is the number of the newest event that came before there was a log. */
  constructor(capacity: number, begun = 0) {
    this.#capacity = capacity
    this.#newest = begun
    this.#dropped = begun
  }

  get hasReaders(): boolean {
    return this.#readers.size > 0
  }

  /** Whether a reader waits for something. */
  get isWaitedFor(): boolean {
    for (const reader of this.#readers) if (reader.isWaiting) return true
    return false
  }

  /**
   * Reads on behind the event with the number `from`: what is kept, then what comes.
   *
   * @throws ConsumerError where something in between is not kept any more; UsageError where there was no such event.
   */
  read(from: number, pull: () => void, leave: () => void): LogReader {
    if (from > this.#newest) {
      throw new UsageError(
        'invalid_argument',
        `\`from\` is ${from}, but the newest event of this run has the number ${this.#newest}. Is it from another run?`,
      )
    }
    // Without a replay nothing is kept on purpose, though a slow reader may still hold something.
    const dropped = this.#capacity === 0 ? this.#newest : this.#dropped
    if (from < dropped) {
      throw new ConsumerError(
        'stream_consumed',
        `The events after number ${from} are asked for, but those up to number ${dropped} are not kept any more. Subscribe before the first event, or keep more with \`replay: { events }\` (now ${this.#capacity}); \`final()\`, \`field()\` and \`snapshot()\` work at any time.`,
        { phase: 'consume' },
      )
    }
    for (const event of this.#growing.values()) if (event.seq <= from) this.#freezeNext()
    const reader: LogReader = new LogReader(this.#placeAfter(from), {
      take: () => this.#take(reader),
      end: () => this.#end,
      pull,
      leave: () => {
        if (!this.#readers.delete(reader)) return
        this.#drop()
        leave()
      },
    })
    this.#readers.add(reader)
    return reader
  }

  /** Announces the events of one read of the network. */
  startBatch(): void {
    this.#isMerging = true
    for (const reader of this.#readers)
      if (reader.place === this.#length && this.#growing.size === 0) this.#isMerging = false
  }

  /** `isSeen` says that somebody else is handed the event as it is. */
  push(event: ResponseEvent, isSeen: boolean): void {
    this.#newest = event.seq
    if (this.#capacity === 0 && this.#readers.size === 0) {
      this.#dropped = event.seq
      return
    }
    if (this.#isMerging && !isSeen && !this.isWaitedFor) mergeEvent(event, this.#events, this.#growing)
    else {
      this.#events.push(...this.#growing.values(), event)
      this.#growing.clear()
    }
    for (const reader of this.#readers) reader.serve()
    this.#drop()
  }

  /** No more events come. What is kept can still be read, also by those who come later. */
  finish(error?: LLMError): void {
    this.#end = { error }
    for (const reader of this.#readers) reader.serve()
  }

  /** As `finish`, but who is reading gets nothing more. */
  close(error: LLMError): void {
    this.#end = { error }
    const readers = [...this.#readers]
    this.#readers.clear()
    for (const reader of readers) reader.close()
    this.#drop()
  }

  /** How many places there are before the deltas that may still grow. */
  get #length(): number {
    return this.#removed + this.#events.length
  }

  /** Where the first event after number `from` stands. */
  #placeAfter(from: number): number {
    let low = this.#head
    let high = this.#events.length
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.#events[middle]!.seq <= from) low = middle + 1
      else high = middle
    }
    return this.#removed + low
  }

  #take(reader: LogReader): ResponseEvent | undefined {
    if (reader.place === this.#length) this.#freezeNext()
    const event = this.#events[reader.place - this.#removed]
    if (!event) return undefined
    reader.place++
    this.#drop()
    return event
  }

  /** Lets no more join the oldest of the deltas that may still grow. */
  #freezeNext(): void {
    for (const [channel, event] of this.#growing) {
      this.#growing.delete(channel)
      this.#events.push(event)
      return
    }
  }

  /** Drops the oldest, down to the capacity, except what a reader has still to get. */
  #drop(): void {
    let excess = this.#events.length - this.#head + this.#growing.size - this.#capacity
    if (excess <= 0) return
    let end = Math.min(this.#events.length, this.#head + excess)
    for (const { place } of this.#readers) end = Math.min(end, place - this.#removed)
    if (end > this.#head) {
      this.#dropped = this.#events[end - 1]!.seq
      excess -= end - this.#head
      this.#head = end
    }
    if (this.#readers.size === 0) {
      for (const [channel, event] of this.#growing) {
        if (excess-- <= 0) break
        this.#growing.delete(channel)
        this.#dropped = event.seq
      }
    }
    // Not each time: it takes as long as there are events left.
    if (this.#head * 2 > this.#events.length) {
      this.#events = this.#events.slice(this.#head)
      this.#removed += this.#head
      this.#head = 0
    }
  }
}

/** What a reader needs of its log. */
interface Access {
  take(): ResponseEvent | undefined
  end(): { readonly error?: LLMError | undefined } | undefined
  pull(): void
  leave(): void
}

/** One consumer of a log. */
export class LogReader implements AsyncIterableIterator<ResponseEvent, undefined> {
  /** Which event is next, counted from the first that the log ever held. */
  place: number
  readonly #log: Access
  readonly #waiters: Waiter[] = []
  /** Whether it gets nothing more but the error, and whether it got that. */
  #isClosed = false
  #isOver = false

  constructor(place: number, log: Access) {
    this.place = place
    this.#log = log
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  get isWaiting(): boolean {
    return this.#waiters.length > 0
  }

  next(): Promise<IteratorResult<ResponseEvent, undefined>> {
    return new Promise((resolve, reject) => {
      this.#waiters.push({ resolve, reject })
      this.serve()
      if (this.isWaiting) this.#log.pull()
    })
  }

  /** The consumer leaves. */
  return(): Promise<IteratorResult<ResponseEvent, undefined>> {
    this.#isClosed = this.#isOver = true
    this.serve()
    this.#log.leave()
    return Promise.resolve({ value: undefined, done: true })
  }

  /** Drops what was still to be read. */
  close(): void {
    this.#isClosed = true
    this.serve()
  }

  /** Hands out what there is to whoever waits. */
  serve(): void {
    while (this.#waiters.length > 0) {
      const value = this.#isClosed ? undefined : this.#log.take()
      const end = this.#log.end()
      if (!value && !end && !this.#isClosed) return
      const waiter = this.#waiters.shift()!
      if (value) waiter.resolve({ value, done: false })
      else if (end?.error && !this.#isOver) waiter.reject(end.error)
      else waiter.resolve({ value: undefined, done: true })
      if (!value) this.#isOver = true
    }
  }
}
