/** A success without a retry adds this much. */
const gain = 0.2

/** How many retries each target has in reserve: a token bucket that successes fill and retries empty. */
export class RetryBudget {
  readonly #size: number
  readonly #used = new Map<string, number>()

  constructor(size: number) {
    this.#size = size
  }

  /** Takes `cost` out of a target's reserve, if there is as much. */
  take(target: string, cost: number): boolean {
    const used = (this.#used.get(target) ?? 0) + cost
    if (used > this.#size) return false
    this.#used.set(target, used)
    return true
  }

  /** Puts back what a success showed not to be needed. */
  give(target: string, amount = gain): void {
    const used = (this.#used.get(target) ?? 0) - amount
    if (used > 0) this.#used.set(target, used)
    else this.#used.delete(target)
  }
}
