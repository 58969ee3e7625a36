import type { Deadline } from '../provider.ts'
import { keepAlive } from '../timers.ts'

const defaultTotal = 600_000
const defaultValidation = 5000

/** The limits of one run, on a clock that nobody sets. */
export class RunDeadline implements Deadline {
  readonly #startedAt = performance.now()
  readonly #onExpired: (total: number) => void
  #total: number | false = false
  #timer: ReturnType<typeof setTimeout> | undefined
  #isOver = false
  validation: number | false = defaultValidation

  constructor(onExpired: (total: number) => void) {
    this.#onExpired = onExpired
    this.limit(defaultTotal)
  }

  get remainingMs(): number {
    return this.#total === false ? Infinity : Math.max(0, this.#startedAt + this.#total - performance.now())
  }

  limit(total: number | false): void {
    clearTimeout(this.#timer)
    this.#total = total
    if (total === false || this.#isOver) return
    this.#timer = setTimeout(() => this.#onExpired(total), this.remainingMs)
    // What is waited for keeps the process alive; a limit alone must not.
    keepAlive(this.#timer, false)
  }

  limitValidation(milliseconds: number | false): void {
    this.validation = milliseconds
  }

  /** Takes the timer away, once the run is over. */
  end(): void {
    this.#isOver = true
    clearTimeout(this.#timer)
  }
}
