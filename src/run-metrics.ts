import type { Metrics } from './events.ts'

/** Takes the times of one run. */
export class RunMetrics {
  readonly #startedAt = performance.now()
  #firstEventAt: number | undefined
  #firstTextAt: number | undefined
  #firstFieldAt: number | undefined
  #chunks = 0
  #characters = 0
  #queuedMs = 0

  onChunk(): void {
    this.#chunks++
  }

  onQueued(milliseconds: number): void {
    this.#queuedMs += milliseconds
  }

  onEvent(): void {
    this.#firstEventAt ??= performance.now()
  }

  onText(): void {
    this.#firstTextAt ??= performance.now()
  }

  onField(): void {
    this.#firstFieldAt ??= performance.now()
  }

  onCharacters(count: number): void {
    this.#characters += count
  }

  take({ attempts, cached }: Pick<Metrics, 'attempts' | 'cached'>): Metrics {
    const since = (time: number | undefined): number | undefined =>
      time === undefined ? undefined : time - this.#startedAt
    return {
      timeToFirstEventMs: since(this.#firstEventAt),
      timeToFirstTextMs: since(this.#firstTextAt),
      timeToFirstFieldMs: since(this.#firstFieldAt),
      durationMs: performance.now() - this.#startedAt,
      attempts,
      queuedMs: this.#queuedMs,
      cached,
      chunks: this.#chunks,
      characters: this.#characters,
    }
  }
}
