import { EventEmitter } from 'eventemitter3'
import { AbortedError, ConsumerError, type LLMError, UsageError } from './errors.ts'
import { EventLog, type ReplayOptions } from './event-log.ts'
import { EventQueue } from './event-queue.ts'
import { eventTypes, type ResponseEvent } from './events.ts'
import { callGuarded } from './guarded-call.ts'

const listenable: ReadonlySet<string> = new Set([...eventTypes, 'error'])

export type Listener = (event: never) => unknown

export interface ConsumersOptions {
  readonly replay: ReplayOptions | undefined
  /** Reads on, for a consumer that waits. */
  readonly pull: () => void
  /** Told of a listener that throws or rejects; `what` names it. */
  readonly onThrown: (what: string, cause: unknown) => void
}

/** Those who hear of a run: its loop and views, subscribers and listeners. */
export class Consumers {
  readonly #pull: () => void
  readonly #onThrown: ConsumersOptions['onThrown']
  readonly #emitter = new EventEmitter()
  readonly #guarded = new Map<string, Map<Listener, Listener>>()
  readonly #queues = new Set<EventQueue<ResponseEvent>>()
  /** For subscribers; absent where there are none, and nobody may come later. */
  #log: EventLog | undefined
  /** The number of the newest event. */
  #newest = 0
  #end: { readonly error?: LLMError | undefined } | undefined

  constructor({ replay, pull, onThrown }: ConsumersOptions) {
    this.#pull = pull
    this.#onThrown = onThrown
    if (replay) this.#log = new EventLog(replay.events)
  }

  /** Whether somebody waits for an event. */
  get areWaiting(): boolean {
    if (this.#log?.isWaitedFor) return true
    for (const queue of this.#queues) if (queue.isWaiting) return true
    return false
  }

  get hasSubscribers(): boolean {
    return this.#log?.hasReaders === true
  }

  /** Whether there is a loop or view. */
  get hasQueues(): boolean {
    return this.#queues.size > 0
  }

  /** Whether somebody may hear of events of this type, now or later; loops and views apart. */
  mayHear(type: ResponseEvent['type']): boolean {
    return this.#log !== undefined || this.#emitter.listenerCount(type) > 0
  }

  /**
   * The events from the first on, for a loop or view.
   *
   * @throws ConsumerError `stream_consumed` where the run had begun.
   */
  queue<Event extends ResponseEvent>(
    accepts: (event: ResponseEvent) => event is Event,
    leave: () => void,
  ): EventQueue<Event> {
    if (this.#newest > 0) throw consumed('The run had begun when this was asked for')
    const queue = new EventQueue<Event>(accepts, this.#pull, () => {
      this.#queues.delete(queue)
      leave()
    })
    if (this.#end) queue.finish(this.#end.error)
    else this.#queues.add(queue)
    return queue
  }

  /**
   * The events after that with the number `from`, for one reader of several.
   *
   * @throws as `EventLog.read`.
   */
  subscribe(from: number, leave: () => void): AsyncIterableIterator<ResponseEvent, undefined> {
    if (!this.#log) {
      this.#log = new EventLog(0, this.#newest)
      if (this.#end) this.#log.finish(this.#end.error)
    }
    return this.#log.read(from, this.#pull, leave)
  }

  /** @throws UsageError where there is no event of that type, or `listener` is no function. */
  listen(method: 'on' | 'once', type: string, listener: Listener): void {
    if (!listenable.has(type) || typeof listener !== 'function')
      throw new UsageError(
        'invalid_argument',
        `\`${method}\` takes an event (${[...listenable].join(', ')}) and a function.`,
      )
    const guarded = this.#guard(type, listener)
    this.#emitter[method](type, guarded as () => void)
    const error = this.#end?.error
    if (type !== 'error' || !error) return
    queueMicrotask(() => {
      // Unless it was taken off meanwhile.
      if (this.#emitter.listeners('error').includes(guarded as () => void)) guarded(error as never)
    })
  }

  off(type: string, listener: Listener): void {
    this.#emitter.off(type, this.#guard(type, listener) as () => void)
    this.#guarded.get(type)?.delete(listener)
  }

  /** Announces the events of one read. */
  startBatch(): void {
    for (const queue of this.#queues) queue.startBatch()
    this.#log?.startBatch()
  }

  emit(event: ResponseEvent): void {
    this.#newest = event.seq
    for (const queue of this.#queues) queue.push(event)
    this.#log?.push(event, this.#emitter.listenerCount(event.type) > 0)
    this.#emitter.emit(event.type, event)
  }

  endBatch(): void {
    for (const queue of this.#queues) queue.endBatch()
  }

  /** No more events come. */
  finish(): void {
    this.#end = {}
    for (const queue of this.#queues) queue.finish()
    this.#log?.finish()
  }

  /** No more events come. What waits is still handed out, but not where the run was stopped. */
  fail(error: LLMError): void {
    this.#end = { error }
    const isStopped = error instanceof AbortedError
    for (const queue of this.#queues) {
      if (isStopped) queue.close(error)
      else queue.finish(error)
    }
    if (isStopped) this.#log?.close(error)
    else this.#log?.finish(error)
    this.#emitter.emit('error', error)
  }

  /** The listener with its faults caught; the same for the same, so that `off` finds it. */
  #guard(type: string, listener: Listener): Listener {
    let known = this.#guarded.get(type)
    if (!known) this.#guarded.set(type, (known = new Map<Listener, Listener>()))
    let guarded = known.get(listener)
    if (guarded) return guarded
    const report = (cause: unknown): void => this.#onThrown(`A listener for "${type}"`, cause)
    guarded = (event) => {
      // The listener before this one may have stopped the run.
      if (!this.#end?.error || type === 'error') callGuarded(listener, event, report)
    }
    known.set(listener, guarded)
    return guarded
  }
}

export function consumed(problem: string): ConsumerError {
  return new ConsumerError(
    'stream_consumed',
    `${problem}. Loops and views must be asked for before the first event; \`final()\`, \`field()\` and \`snapshot()\` work at any time.`,
    { phase: 'consume' },
  )
}
