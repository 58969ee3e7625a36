import type { Metrics } from 'fieldstream'
import type { AgentLatency } from './protocol.ts'

const kept = 50
/** Those who watch are told together of what changes within this time. */
const reportEveryMs = 100

interface Measured {
  runs: number
  alerts: number
  isSlow: boolean
  last: Metrics | undefined
  /** Times to the first byte, the newest last. */
  recent: number[]
}

/** How quickly each provider answers, for whoever watches. */
export class LatencyMonitor {
  readonly limitMs: number
  readonly #onChange: () => void
  readonly #agents = new Map<string, Measured>()
  #timer: ReturnType<typeof setTimeout> | undefined

  constructor(limitMs: number, onChange: () => void) {
    this.limitMs = limitMs
    this.#onChange = onChange
  }

  /** The first byte of a run is overdue. */
  onAlert(agent: string): void {
    const measured = this.#of(agent)
    measured.alerts++
    measured.isSlow = true
    this.#changed()
  }

  /** A run is over. */
  onMetrics(agent: string, metrics: Metrics): void {
    const measured = this.#of(agent)
    const { timeToFirstByteMs } = metrics
    measured.runs++
    measured.last = metrics
    measured.isSlow = timeToFirstByteMs === undefined || timeToFirstByteMs > this.limitMs
    if (timeToFirstByteMs !== undefined) measured.recent = [...measured.recent, timeToFirstByteMs].slice(-kept)
    this.#changed()
  }

  report(): AgentLatency[] {
    return Array.from(this.#agents, ([agent, { runs, alerts, isSlow, last, recent }]) => ({
      agent,
      runs,
      first_byte_ms: last?.timeToFirstByteMs,
      first_byte_median_ms: recent.toSorted((a, b) => a - b)[recent.length >> 1],
      chunk_p95_ms: last?.chunkGaps?.p95Ms,
      is_slow: isSlow,
      alerts,
    }))
  }

  #changed(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined
      this.#onChange()
    }, reportEveryMs).unref()
  }

  #of(agent: string): Measured {
    let measured = this.#agents.get(agent)
    if (!measured)
      this.#agents.set(agent, (measured = { runs: 0, alerts: 0, isSlow: false, last: undefined, recent: [] }))
    return measured
  }
}
