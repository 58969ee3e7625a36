import type { FieldTimes, Metrics, Usage } from './events.ts'
import { WaitHistogram } from './wait-histogram.ts'

/** What others know of a run. */
export interface RunFigures {
  readonly attempts: number
  readonly cached: boolean
  /** `undefined` where it is not known, or was not generated in this run. */
  readonly usage: Usage | undefined
}

/** Takes the times of one run: one look at the clock for each read and each chunk, none for an event. */
export class RunMetrics {
  readonly #startedAt = performance.now()
  #firstByteAt: number | undefined
  #firstEventAt: number | undefined
  #firstTextAt: number | undefined
  #firstFieldAt: number | undefined
  readonly #fields = new Map<string, { firstMs: number; lastMs: number }>()
  /** When the chunk that is being read was asked for, and when it came. */
  #readAt = this.#startedAt
  #chunkAt = this.#startedAt
  #waits: WaitHistogram | undefined
  #chunks = 0
  /** Whether the next chunk is the first of an answer: what passes before it is no gap. */
  #isBeginning = true
  #characters = 0
  #queuedMs = 0
  #fallbackUsed = false

  onStep(): void {
    this.#isBeginning = true
  }

  onRead(): void {
    this.#readAt = performance.now()
  }

  onChunk(): void {
    this.#chunkAt = performance.now()
    this.#chunks++
    if (this.#isBeginning) {
      this.#isBeginning = false
      return
    }
    this.#waits ??= new WaitHistogram()
    this.#waits.add(this.#chunkAt - this.#readAt)
  }

  onQueued(milliseconds: number): void {
    this.#queuedMs += milliseconds
  }

  onFirstByte(): void {
    this.#firstByteAt ??= performance.now()
  }

  onFallback(): void {
    this.#fallbackUsed = true
  }

  onEvent(): void {
    this.#firstEventAt ??= this.#chunkAt
  }

  onText(): void {
    this.#firstTextAt ??= this.#chunkAt
  }

  onField(field: string): void {
    this.#firstFieldAt ??= this.#chunkAt
    const time = this.#chunkAt - this.#startedAt
    const times = this.#fields.get(field)
    if (times) times.lastMs = time
    else this.#fields.set(field, { firstMs: time, lastMs: time })
  }

  onCharacters(count: number): void {
    this.#characters += count
  }

  take({ attempts, cached, usage }: RunFigures): Metrics {
    const since = (time: number | undefined): number | undefined =>
      time === undefined ? undefined : time - this.#startedAt
    const durationMs = performance.now() - this.#startedAt
    const activeMs = durationMs - this.#queuedMs
    const fields: Record<string, FieldTimes> = Object.fromEntries(
      Array.from(this.#fields, ([field, times]) => [field, { ...times }]),
    )
    return {
      timeToFirstByteMs: since(this.#firstByteAt),
      timeToFirstEventMs: since(this.#firstEventAt),
      timeToFirstTextMs: since(this.#firstTextAt),
      timeToFirstFieldMs: since(this.#firstFieldAt),
      fields,
      durationMs,
      attempts,
      fallbackUsed: this.#fallbackUsed,
      queuedMs: this.#queuedMs,
      cached,
      chunks: this.#chunks,
      chunkGaps: this.#waits && {
        p50Ms: this.#waits.percentile(0.5),
        p95Ms: this.#waits.percentile(0.95),
        maxMs: this.#waits.maxMs,
      },
      characters: this.#characters,
      outputTokensPerSecond: usage && !cached && activeMs > 0 ? (usage.outputTokens / activeMs) * 1000 : undefined,
    }
  }
}
