import { randomUUID } from 'node:crypto'
import { EventEmitter, once } from 'node:events'
import PQueue from 'p-queue'
import type { Question, Tell } from './interpret.ts'

/** What the front end hears of. Counted from 1 within its task, so that a reader can go on where it left. */
export interface TaskEvent {
  readonly seq: number
  readonly event: string
  readonly data: object
}

/** One question, from the queue to its report. All that happened to it is kept, for any number of readers. */
export class Task {
  readonly id = randomUUID()
  readonly asked: Question
  readonly #events: TaskEvent[] = []
  readonly #emitter = new EventEmitter().setMaxListeners(0)
  readonly #controller = new AbortController()
  #isOver = false

  constructor(asked: Question) {
    this.asked = asked
  }

  /** Fires when the task is cancelled. */
  get signal(): AbortSignal {
    return this.#controller.signal
  }

  cancel(): void {
    this.#controller.abort()
  }

  /** What it ended with, once it is over. */
  get last(): TaskEvent | undefined {
    return this.#isOver ? this.#events.at(-1) : undefined
  }

  readonly tell: Tell = (event, data) => {
    this.#events.push({ seq: this.#events.length + 1, event, data })
    this.#emitter.emit('event')
  }

  end(event: 'done' | 'failed', data: object): void {
    this.tell(event, data)
    this.#isOver = true
  }

  /** The events after the one with number `seq`, and those to come until the last. */
  async *eventsAfter(seq: number, signal: AbortSignal): AsyncGenerator<TaskEvent> {
    for (let next = seq; ;) {
      const event = this.#events[next]
      if (event) {
        next++
        yield event
      } else if (this.#isOver) return
      else await once(this.#emitter, 'event', { signal })
    }
  }
}

/** Lets a few tasks run at a time, and tells the others which place in the queue they have. */
export class TaskQueue {
  readonly #queue: PQueue
  readonly #waiting = new Set<Task>()

  constructor(concurrency: number) {
    this.#queue = new PQueue({ concurrency })
  }

  get waiting(): number {
    return this.#waiting.size
  }

  /** @throws what `work` does, or the reason of the task's signal. */
  async run<Result>(task: Task, work: () => Promise<Result>): Promise<Result> {
    this.#waiting.add(task)
    task.tell('status', { status: 'queued', position: this.#waiting.size })
    const begin = (): Promise<Result> => {
      this.#leave(task)
      task.tell('status', { status: 'running' })
      return work()
    }
    return this.#queue.add(begin, { signal: task.signal }).finally(() => this.#leave(task))
  }

  #leave(task: Task): void {
    const before = [...this.#waiting]
    if (!this.#waiting.delete(task)) return
    let position = 0
    for (const other of this.#waiting) {
      position++
      if (before[position - 1] !== other) other.tell('status', { status: 'queued', position })
    }
  }
}
