import { checkFunctions, checkNumbers, checkOptions } from '../check-options.ts'
import { type LLMError, PolicyError } from '../errors.ts'
import type { Target } from '../events.ts'
import type { Middleware } from '../middleware.ts'
import { isWanted, type NextAttempt, streamAttempts } from './attempt-sequence.ts'
import { RetryBudget } from './retry-budget.ts'

/** Times in milliseconds. */
export interface RetryOptions {
  /** Most attempts for one request, the first included. Default 3. */
  readonly attempts?: number | undefined
  /** The wait before the second attempt is random and at most this; it doubles each time. Default 500, and 1,000 where the service is busy. */
  readonly baseDelay?: number | undefined
  /** Longest random wait. Default 8,000. */
  readonly maxDelay?: number | undefined
  /** Longest wait that a service may ask for with Retry-After; where it asks for more, there is no retry. Default 60,000. */
  readonly maxRetryAfter?: number | undefined
  /**
   * How many retries a target has in reserve, over all requests: one that fails for everybody is not asked three times as
   * often. A success fills it up by a fifth, or by what its own retries took; a timeout costs two. Default 100; `false` is no bound.
   */
  readonly budget?: number | false | undefined
  /**
   * Which errors another attempt may cure. Default: those with `retryable`. Asked about what the provider reports; what is wrong
   * with a complete answer (`invalid_json`, `schema_mismatch`, `no_payload` …) is found later.
   */
  readonly retryOn?: ((error: LLMError) => boolean) | undefined
  /** Gives a number from 0 to 1 for the waits, for tests. Default `Math.random`. */
  readonly random?: (() => number) | undefined
}

const names: readonly (keyof RetryOptions)[] = [
  'attempts',
  'baseDelay',
  'maxDelay',
  'maxRetryAfter',
  'budget',
  'retryOn',
  'random',
]

const leastDelay = 50

/**
 * Makes further attempts when one fails before anything of it could be seen; later only where the request has
 * `onInterrupted: 'restart'`. Waits at random between attempts ("full jitter"), and as long as a service asks, or a little
 * longer. SDKs do not retry beneath it.
 *
 * A run that fails ends with the error of its last attempt, whose `attempts` has those before. Where the reserve is used up it is
 * a `PolicyError` `retry_budget_exhausted` with that error as its cause.
 *
 * @throws UsageError for options that make no sense.
 *
 * @example
 * ```ts
 * import { retry, StreamingLLMClient } from 'fieldstream'
 * import { anthropic } from 'fieldstream/anthropic'
 *
 * const client = new StreamingLLMClient({
 *   provider: anthropic({ model: 'claude-haiku-4-5' }),
 *   middleware: [retry({ attempts: 4, maxRetryAfter: 20_000 })],
 * })
 * ```
 */
export function retry(options: RetryOptions = {}): Middleware {
  checkOptions('retry()', options, names)
  const { attempts = 3, baseDelay, maxDelay = 8000, maxRetryAfter = 60_000, budget = 100 } = options
  const { retryOn = isRetryable, random = Math.random } = options
  checkNumbers('retry()', { attempts }, { min: 1, isWhole: true })
  checkNumbers('retry()', { baseDelay, maxDelay, maxRetryAfter })
  checkNumbers('retry()', { budget }, { mayBeOff: true })
  checkFunctions('retry()', { retryOn, random })
  const reserve = budget === false ? undefined : new RetryBudget(budget)

  /** How long to wait after the `failures`th failure; `undefined` for longer than is sensible. */
  function delayAfter({ code, retryAfterMs }: LLMError, failures: number): number | undefined {
    // Never earlier than asked, and not all at once.
    if (retryAfterMs !== undefined)
      return retryAfterMs > maxRetryAfter
        ? undefined
        : retryAfterMs + random() * Math.max(retryAfterMs / 10, leastDelay)
    const base = baseDelay ?? (code === 'rate_limited' || code === 'overloaded' ? 1000 : 500)
    return Math.max(Math.min(leastDelay, base), random() * Math.min(maxDelay, base * 2 ** (failures - 1)))
  }

  return (next) => (request, context) => {
    const failures: LLMError[] = []
    /** What the retries of this request took out of the reserve. */
    const taken: { readonly target: string; readonly cost: number }[] = []
    return streamAttempts(request, context, {
      open: (attemptContext) => next(request, attemptContext),
      onFailure(error, mayContinue): NextAttempt | undefined {
        failures.push(error)
        if (!mayContinue || failures.length >= attempts || !isWanted('retryOn', retryOn, error, context))
          return undefined
        const delayMs = delayAfter(error, failures.length)
        if (delayMs === undefined || delayMs >= (context.deadline?.remainingMs ?? Infinity)) return undefined
        const target = keyOf(error)
        const cost = error.code === 'timeout' ? 2 : 1
        if (reserve && !reserve.take(target, cost)) {
          throw new PolicyError(
            'retry_budget_exhausted',
            'The attempt failed, and too many others did of late for yet another: see `cause`. The reserve is `budget` of retry().',
            failures,
          )
        }
        taken.push({ target, cost })
        return { next: 'retry', delayMs }
      },
      onSuccess(target) {
        if (taken.length === 0) reserve?.give(keyOf(target))
        for (const { target: failed, cost } of taken.splice(0)) reserve?.give(failed, cost)
      },
    })
  }
}

function isRetryable({ retryable }: LLMError): boolean {
  return retryable
}

function keyOf({ provider = '', model = '' }: Partial<Target>): string {
  return `${provider}\n${model}`
}
