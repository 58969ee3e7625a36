import { checkNumbers, checkOptions } from '../check-options.ts'
import { limitRun, type Middleware } from '../middleware.ts'
import type { AttemptTimeouts } from '../provider.ts'

/** In milliseconds; `false` is no limit. */
export interface TimeoutOptions extends AttemptTimeouts {
  /** The whole run: attempts, waits between them, and validation; of `client.run()` each step, its tools not included. Default 600,000. */
  readonly total?: number | false | undefined
  /** Validators that answer later. Default 5,000. */
  readonly validate?: number | false | undefined
}

const names: readonly (keyof TimeoutOptions)[] = ['firstByte', 'firstOutput', 'idle', 'progress', 'total', 'validate']

/**
 * Sets the limits of time. They hold without it too, with their defaults; where among the middleware it stands makes no
 * difference. A limit that runs out is an `LLMTimeoutError` whose `phase` names it (`first_byte`, `first_output`, `idle`,
 * `progress`, `total`, `validate`), retryable for the first four, which hold for each attempt.
 *
 * @throws UsageError for limits that are no positive number of milliseconds a timer can keep.
 *
 * @example
 * ```ts
 * import { StreamingLLMClient, timeout } from 'fieldstream'
 * import { anthropic } from 'fieldstream/anthropic'
 *
 * const client = new StreamingLLMClient({
 *   provider: anthropic({ model: 'claude-haiku-4-5' }),
 *   middleware: [timeout({ firstByte: 20_000, idle: 15_000, total: 120_000 })],
 * })
 * ```
 */
export function timeout(options: TimeoutOptions = {}): Middleware {
  checkOptions('timeout()', options, names)
  checkNumbers('timeout()', options, { min: 1, mayBeOff: true })
  const { total, validate, ...limits } = options
  const timeouts = defined(limits)
  const runLimits = { total, validate }
  const middleware: Middleware = (next) => (request, context) => {
    // Within middleware of somebody's own, the client does not see them.
    limitRun(context, runLimits)
    return next(request, { ...context, timeouts: { ...context.timeouts, ...timeouts } })
  }
  return Object.assign(middleware, { runLimits })
}

/** Those limits that are set, so that others stand beside them. */
export function defined(timeouts: AttemptTimeouts = {}): AttemptTimeouts {
  return Object.fromEntries(Object.entries(timeouts).filter(([, limit]) => limit !== undefined))
}
