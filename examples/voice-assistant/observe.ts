import type { Metrics } from 'fieldstream'
import { Counter, Histogram, Registry } from 'prom-client'

export type Log = (event: string, facts: Readonly<Record<string, unknown>>) => void

/** One line of JSON for each event. */
export const logToConsole: Log = (event, facts) => {
  console.log(JSON.stringify({ time: new Date().toISOString(), event, ...facts }))
}

export class AnswerMetrics {
  readonly #registry = new Registry()
  readonly #latency = new Histogram({
    name: 'llm_stream_latency_ms',
    help: 'From the question to the end of its complete answer',
    labelNames: ['provider', 'cached'],
    buckets: [10, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000],
    registers: [this.#registry],
  })
  readonly #length = new Histogram({
    name: 'llm_stream_response_length',
    help: 'Characters of complete answers',
    labelNames: ['provider'],
    buckets: [50, 100, 200, 400, 800, 1600, 3200, 6400],
    registers: [this.#registry],
  })
  readonly #cacheHits = new Counter({
    name: 'llm_stream_cache_hit',
    help: 'Answers that came from the cache',
    registers: [this.#registry],
  })

  readonly contentType = this.#registry.contentType

  onAnswered({
    provider,
    length,
    metrics: { durationMs, cached },
  }: {
    readonly provider: string
    readonly length: number
    readonly metrics: Metrics
  }): void {
    this.#latency.observe({ provider, cached: String(cached) }, durationMs)
    this.#length.observe({ provider }, length)
    if (cached) this.#cacheHits.inc()
  }

  /** In the text format of Prometheus. */
  toText(): Promise<string> {
    return this.#registry.metrics()
  }
}
