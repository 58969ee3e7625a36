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
  /** The newest events while all are deltas of one channel (a text, or a call and its fields), one for each of its fields. */
  readonly #tail = new Map<string, Event>()
  #tailChannel = ''
  /** Whether events that arrive are to merge, because others wait already. */
  #isMerging = false
  /** Whether the consumer did something else since the last batch came. */
  #isLate = false
  #batch = 0
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
    if (this.#isLate) this.#mergeWaiting()
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
    this.#isMerging = this.#next < this.#events.length || this.#tail.size > 0
  }

  push(event: ResponseEvent): void {
    if (this.#end || !this.#accepts(event)) return
    const waiter = this.#waiters.shift()
    if (waiter) waiter.resolve({ value: event, done: false })
    else if (this.#isMerging) this.#merge(event)
    else this.#events.push(event)
  }

  endBatch(): void {
    if (this.#events.length - this.#next < 2) return
    const batch = ++this.#batch
    afterThisTurn(() => {
      if (batch === this.#batch) this.#isLate = true
    })
  }

  /** No more events come. Those that wait are still handed out, then the error is thrown or the iteration ends. */
  finish(error?: unknown): void {
    if (this.#end) return
    const waiter = this.#waiters.shift()
    this.#end = waiter ? {} : { error }
    if (error === undefined) waiter?.resolve({ value: undefined, done: true })
    else waiter?.reject(error)
    for (const { resolve } of this.#waiters.splice(0)) resolve({ value: undefined, done: true })
  }

  /** Drops what waits, and ends with `error`, or without one. */
  close(error?: unknown): void {
    this.#events = []
    this.#next = 0
    this.#tail.clear()
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
    for (const [key, event] of this.#tail) {
      this.#tail.delete(key)
      return event
    }
    return undefined
  }

  #mergeWaiting(): void {
    this.#isLate = false
    const waiting = this.#events.slice(this.#next).concat(...this.#tail.values())
    this.#events = []
    this.#next = 0
    this.#tail.clear()
    for (const event of waiting) this.#merge(event)
  }

  #merge(event: Event): void {
    const channel = channelOf(event)
    if (channel !== this.#tailChannel) {
      this.#events.push(...this.#tail.values())
      this.#tail.clear()
      this.#tailChannel = channel
    }
    if (channel === '') {
      this.#events.push(event)
      return
    }
    const key = event.type === 'field-delta' ? `${event.path}\n${event.field}` : ''
    const before = this.#tail.get(key)
    // Taken out and put back at the end, so that numbers keep growing along the queue.
    this.#tail.delete(key)
    this.#tail.set(
      key,
      before && 'delta' in before && 'delta' in event ? { ...event, delta: before.delta + event.delta } : event,
    )
  }
}

/** Which text an event's delta continues, be it itself or a field of it; `''` for events that are no deltas. */
function channelOf(event: ResponseEvent): string {
  switch (event.type) {
    case 'text-delta':
    case 'reasoning-delta':
      return event.type
    case 'tool-input-delta':
    case 'field-delta':
      return `tool ${event.toolCallId}`
    default:
      return ''
  }
}
