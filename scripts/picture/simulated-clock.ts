interface Timer {
  readonly due: number
  readonly order: number
  readonly fire: () => void
}

/** Turns of the event loop after which nothing but time can bring anything. */
const idleTurns = 20

/** Whether a file is being read, such as a module that is loaded when it is first used. */
const isReading = (): boolean => process.getActiveResourcesInfo().some((name) => name.startsWith('FS'))

/** Time that passes only while everybody waits for it, in place of `setTimeout` and `performance.now()`. */
export class SimulatedClock {
  /** Milliseconds. */
  now = 0
  #order = 0
  readonly #timers = new Set<Timer>()

  /** Runs a program on this clock, to its end. */
  async drive(program: () => Promise<unknown>): Promise<void> {
    const { setTimeout, clearTimeout } = globalThis
    const now = performance.now.bind(performance)
    Object.assign(globalThis, {
      setTimeout: (callback: (...args: unknown[]) => void, delay = 0, ...args: unknown[]) => {
        const timer = { due: this.now + delay, order: this.#order++, fire: () => callback(...args) }
        this.#timers.add(timer)
        return Object.assign(timer, { ref: () => timer, unref: () => timer })
      },
      clearTimeout: (timer: Timer) => void this.#timers.delete(timer),
    })
    performance.now = () => this.now
    let isOver = false
    const ended = program().finally(() => (isOver = true))
    try {
      while (!isOver) {
        for (let turn = 0; turn < idleTurns; turn = isReading() ? 0 : turn + 1)
          await new Promise((resolve) => setImmediate(resolve))
        this.#advance()
      }
      await ended
    } finally {
      Object.assign(globalThis, { setTimeout, clearTimeout })
      performance.now = now
    }
  }

  #advance(): void {
    const [next] = [...this.#timers].sort((a, b) => a.due - b.due || a.order - b.order)
    if (!next) return
    this.#timers.delete(next)
    this.now = Math.max(this.now, next.due)
    next.fire()
  }
}
