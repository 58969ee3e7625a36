/** The shortest wait that is told from none, and how finely waits are told apart: classes per doubling. */
const leastMs = 0.01
const perDoubling = 8
/** Enough for two weeks. */
const classes = 256

/** Waits, counted in classes: percentiles within 5 %, in the same memory however many there are. */
export class WaitHistogram {
  readonly #counts = new Uint32Array(classes)
  #count = 0
  #maxMs = 0

  add(milliseconds: number): void {
    const index = milliseconds > leastMs ? Math.floor(Math.log2(milliseconds / leastMs) * perDoubling) : 0
    this.#counts[Math.min(index, classes - 1)]!++
    this.#count++
    if (milliseconds > this.#maxMs) this.#maxMs = milliseconds
  }

  get maxMs(): number {
    return this.#maxMs
  }

  /** The wait that `share` of all do not exceed. */
  percentile(share: number): number {
    let left = Math.ceil(share * this.#count)
    const index = this.#counts.findIndex((count) => (left -= count) <= 0)
    const middle = leastMs * 2 ** ((index + 0.5) / perDoubling)
    return Math.min(middle, this.#maxMs)
  }
}
