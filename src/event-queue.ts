import type { ResponseEvent } from './events.ts'

interface Waiter<Event> {
  resolve(result: IteratorResult<Event, undefined>): void
  reject(error: unknown): void
}

/** Runs `callback` once what is running now, and all promises that are ready, are through. */
const afterThisTurn: (callback: () => void) => void =
  typeof setImmediate === 'function' ? setImmediate : (callback) => setTimeout(callback, 0)

/**
 * Events on their way to one consumer. While it keeps up it gets each as it came; what has to wait for it merges, delta by
 * delta, so that a slow consumer catches up and a stalled one costs no more than the text itself.
 */
export class EventQueue<Event extends ResponseEvent> implements AsyncIterableIterator<Event, undefined> {
  readonly #accepts: (event: ResponseEvent) => event is Event
  readonly #pull: () => void
  readonly #leave: () => void

  readonly #waiters: Waiter<Event>[] = []
  #events: Event[] = []
  #next = 0
  /** The newest deltas, one for each channel, to which more may be joined; they follow `#events`. */
  readonly #growing = new Map<string, Event>()
  /** Whether what arrives is to merge, because the consumer is behind. */
  #isMerging = false
  #end: { readonly error?: unknown } | undefined

  constructor(accepts: (event: ResponseEvent) => event is Event, pull: () => void, leave: () => void) {
    this.#accepts = accepts
    this.#pull = pull
    this.#leave = leave
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  /** Whether the consumer waits for something. */
  get isWaiting(): boolean {
    return this.#waiters.length > 0
  }

  next(): Promise<IteratorResult<Event, undefined>> {
    const event = this.#shift()
    if (event) return Promise.resolve({ value: event, done: false })
    if (this.#end) {
      const { error } = this.#end
      this.#end = {}
      return error === undefined ? Promise.resolve({ value: undefined, done: true }) : Promise.reject(error)
    }
    return new Promise((resolve, reject) => {
      this.#waiters.push({ resolve, reject })
      this.#pull()
    })
  }

  /** The consumer leaves. */
  return(): Promise<IteratorResult<Event, undefined>> {
    this.close()
    this.#leave()
    return Promise.resolve({ value: undefined, done: true })
  }

  /** Announces the events of one read. */
  startBatch(): void {
    this.#isMerging = this.#next < this.#events.length || this.#growing.size > 0
  }

  push(event: ResponseEvent): void {
    if (this.#end || !this.#accepts(event)) return
    const waiter = this.#waiters.shift()
    if (waiter) waiter.resolve({ value: event, done: false })
    else if (this.#isMerging) this.#merge(event)
    else this.#events.push(event)
  }

  endBatch(): void {
    // A consumer that keeps up has taken the whole batch before this turn is over.
    if (!this.#isMerging && this.#events.length > 1) afterThisTurn(() => this.#mergeWaiting())
  }

  /** No more events come. Those that wait are still handed out, then the error is thrown or the iteration ends. */
  finish(error?: unknown): void {
    if (this.#end) return
    const waiter = this.#waiters.shift()
    this.#end = waiter ? {} : { error }
    if (error === undefined) waiter?.resolve({ value: undefined, done: true })
    else waiter?.reject(error)
    for (const other of this.#waiters.splice(0)) other.resolve({ value: undefined, done: true })
  }

  /** Drops what waits, and ends with `error`, or without one. */
  close(error?: unknown): void {
    this.#events = []
    this.#next = 0
    this.#growing.clear()
    this.finish(error)
  }

  #shift(): Event | undefined {
    if (this.#next < this.#events.length) {
      const event = this.#events[this.#next++]!
      if (this.#next === this.#events.length) {
        this.#events = []
        this.#next = 0
      }
      return event
    }
    for (const [channel, event] of this.#growing) {
      this.#growing.delete(channel)
      return event
    }
    return undefined
  }

  #mergeWaiting(): void {
    const waiting = [...this.#events.slice(this.#next), ...this.#growing.values()]
    this.#events = []
    this.#next = 0
    this.#growing.clear()
    this.#isMerging = true
    for (const event of waiting) this.#merge(event)
  }

  #merge(event: Event): void {
    mergeEvent(event, this.#events, this.#growing)
  }
}

/** Joins an event to the newest of its channel in `growing`, whose events follow `events`; both lists, joined, stay in order of `seq`. */
export function mergeEvent<Event extends ResponseEvent>(
  event: Event,
  events: Event[],
  growing: Map<string, Event>,
): void {
  const channel = channelOf(event)
  const before = channel && growing.get(channel)
  // Deltas of different channels may overtake each other; no delta overtakes any other event.
  if (!channel || (before && before.type !== event.type)) {
    events.push(...growing.values())
    growing.clear()
  }
  if (!channel) {
    events.push(event)
    return
  }
  // Taken out and put back at the end, so that numbers keep growing along the queue.
  growing.delete(channel)
  const isMore = before && before.type === event.type && 'delta' in before && 'delta' in event
  growing.set(channel, isMore ? { ...event, delta: before.delta + event.delta } : event)
}

/** Where an event's delta belongs, among deltas whose order matters; `undefined` for events that are no deltas. Of `progress` only the newest counts. */
function channelOf(event: ResponseEvent): string | undefined {
  switch (event.type) {
    case 'text-delta':
    case 'reasoning-delta':
      return 'prose'
    case 'tool-input-delta':
      return `input ${event.toolCallId}`
    case 'field-delta':
      return `field ${event.path}\n${event.toolCallId ?? ''}\n${event.field}`
    case 'progress':
      return 'progress'
    default:
      return undefined
  }
}
