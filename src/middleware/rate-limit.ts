import type PQueue from 'p-queue'
import { checkNumbers, checkOptions, maxTimerMs } from '../check-options.ts'
import { AbortedError, ConnectionError, ConsumerError, LimitError, LLMTimeoutError, UsageError } from '../errors.ts'
import type { Middleware } from '../middleware.ts'
import { batchesOf, fromBatches, type ProviderContext } from '../provider.ts'
import { sleep } from '../timers.ts'
import type { LLMRequest } from '../request.ts'

/** Counts requests where all machines see it, e.g. a `RateLimiterRedis` of `rate-limiter-flexible`. */
export interface Limiter {
  /** Resolves where one more is allowed; rejects with `{ msBeforeNext }` where it is not, and with anything else where it cannot tell. */
  consume(key: string): Promise<unknown>
}

/** Times in milliseconds. */
export interface RateLimitOptions {
  /** Most requests to begin in any stretch of `per`. Default: any number. */
  readonly requests?: number | undefined
  /** The stretch of time for `requests`, in milliseconds. Required beside `requests`; no default. */
  readonly per?: number | undefined
  /** Most answers to be under way at once, in this process. An answer is until it ends, fails or is left. Default: any number. */
  readonly concurrency?: number | undefined
  /** Most requests of one key to wait for their turn. Default 1,000. */
  readonly queue?: number | undefined
  /** Longest wait. Default `false`: as long as the run may take (`total` of `timeout()`). */
  readonly maxWait?: number | false | undefined
  /**
   * Counts instead of `requests` and `per`; which stretches of time it counts over is its own matter. One that counts in fixed
   * windows may let twice as many begin around the end of one. Windows of one k-th of the time, each with n / (k + 1) points
   * rounded down, never let more than n begin in any stretch of it: for 30 in 60 s, `{ points: 5, duration: 12 }`.
   */
  readonly limiter?: Limiter | undefined
  /** Whose limit a request counts against, e.g. `({ metadata }) => String(metadata?.userId)`. Default: one limit for all. */
  readonly key?: ((request: LLMRequest) => string) | undefined
  /** Most keys in use at once; none is forgotten while its requests count. Default 10,000. */
  readonly keys?: number | undefined
}

const names: readonly (keyof RateLimitOptions)[] = [
  'requests',
  'per',
  'concurrency',
  'queue',
  'maxWait',
  'limiter',
  'key',
  'keys',
]

/** A limiter that says "now" when it means "soon" is not asked again at once. */
const leastPauseMs = 25

type Settings = Pick<RateLimitOptions, 'requests' | 'per' | 'concurrency' | 'limiter'> & {
  readonly queue: number
  readonly maxWait: number | false
}

/**
 * Lets requests begin no faster than a service allows; the others wait, first come, first served. A wait ends at once when the
 * run does. It counts toward `total` of `timeout()`, and is `metrics.queuedMs`. Put it after `retry()`, so that each attempt
 * counts. It needs `p-queue`, also where a `limiter` counts: those it holds back wait here.
 *
 * The run fails with a `LimitError` `queue_full` where too many wait already, and with an `LLMTimeoutError` of the phase `queue`
 * after `maxWait`. `retry()` repeats neither.
 *
 * @throws UsageError for options that make no sense.
 *
 * @example
 * ```ts
 * import { rateLimit, StreamingLLMClient } from 'fieldstream'
 * import { anthropic } from 'fieldstream/anthropic'
 *
 * const client = new StreamingLLMClient({
 *   provider: anthropic({ model: 'claude-haiku-4-5' }),
 *   middleware: [rateLimit({ requests: 30, per: 60_000, concurrency: 10 })],
 * })
 * ```
 */
export function rateLimit(options: RateLimitOptions): Middleware {
  checkOptions('rateLimit()', options, names)
  const {
    requests,
    per,
    concurrency,
    queue = 1000,
    maxWait = false,
    limiter,
    key = () => 'all',
    keys = 10_000,
  } = options
  checkNumbers('rateLimit()', { requests, concurrency, keys }, { min: 1, isWhole: true })
  checkNumbers('rateLimit()', { per }, { min: 1 })
  checkNumbers('rateLimit()', { queue }, { isWhole: true })
  checkNumbers('rateLimit()', { maxWait }, { min: 1, mayBeOff: true })
  expect(limiter === undefined || typeof limiter?.consume === 'function', '`limiter` must have a `consume(key)`')
  expect(typeof key === 'function', '`key` must be a function')
  expect(
    (requests === undefined) === (per === undefined),
    '`requests` and `per` go together: { requests: 30, per: 60_000 }',
  )
  expect(limiter === undefined || requests === undefined, '`limiter` counts by itself: leave out `requests` and `per`')
  const isLimited = requests !== undefined || limiter !== undefined || concurrency !== undefined
  expect(isLimited, 'there must be something to limit: `requests` and `per`, `concurrency` or a `limiter`')
  const settings: Settings = { requests, per, concurrency, limiter, queue, maxWait }
  const lines = new Map<string, Line>()
  let loading: Promise<typeof PQueue> | undefined

  function nameOf(request: LLMRequest): string {
    let name: unknown
    try {
      name = key(request)
    } catch (cause) {
      const message = '`key` of rateLimit() threw, so nothing was sent. See `cause`.'
      throw new ConsumerError('consumer_error', message, { phase: 'queue', cause })
    }
    expect(typeof name === 'string', '`key` must return a string')
    return name as string
  }

  function lineOf(name: string, Queue: typeof PQueue): Line {
    let line = lines.get(name)
    if (line) return line
    if (lines.size >= keys) {
      for (const [other, { isIdle }] of lines) if (isIdle) lines.delete(other)
      if (lines.size >= keys)
        throw new LimitError('keys', keys, 'Requests of too many keys count at once', {
          code: 'queue_full',
          phase: 'queue',
        })
    }
    lines.set(name, (line = new Line(name, settings, Queue)))
    return line
  }

  return (next) => (request, context) =>
    fromBatches(async function* () {
      const name = nameOf(request)
      const Queue = await (loading ??= loadQueue())
      const leave = await lineOf(name, Queue).enter(context)
      try {
        for await (const batch of batchesOf(next(request, context))) {
          // Whoever stops reading here has the whole answer.
          if (batch.at(-1)?.type === 'finish') leave()
          yield batch
        }
      } finally {
        leave()
      }
    })
}

/** The requests of one key. */
class Line {
  readonly #key: string
  readonly #settings: Settings
  /** Holds each request from its turn to its end. */
  readonly #slots: PQueue
  /** Where a limiter said no: one after the other asks it again. */
  readonly #gate: PQueue
  #closedUntil = 0
  #waiting = 0
  #lastStart = -Infinity

  constructor(key: string, settings: Settings, Queue: typeof PQueue) {
    const { requests, per, concurrency } = settings
    this.#key = key
    this.#settings = settings
    this.#slots = new Queue({
      concurrency,
      ...(requests !== undefined && { intervalCap: requests, interval: per, strict: true }),
    })
    this.#gate = new Queue({ concurrency: 1 })
  }

  /** Whether a new one would allow the same. */
  get isIdle(): boolean {
    const isEmpty = this.#slots.pending === 0 && this.#slots.size === 0
    // The clock of p-queue.
    return isEmpty && Date.now() - this.#lastStart >= (this.#settings.per ?? 0)
  }

  /** Resolves when a request may begin, with what is to be called when it is over. */
  async enter({ signal, deadline, onQueued }: ProviderContext): Promise<() => void> {
    const { maxWait } = this.#settings
    const from = performance.now()
    const place = new AbortController()
    const entered = Promise.withResolvers<undefined>()
    const over = Promise.withResolvers<undefined>()
    const onAbort = (): void => place.abort(new AbortedError(signal.reason, { phase: 'queue' }))
    const timer = maxWait === false ? undefined : setTimeout(() => place.abort(waitedTooLong(maxWait)), maxWait)
    let isWaiting = false
    let hasTurn = false
    const wait = (): void => {
      if (isWaiting) return
      this.#checkRoom()
      isWaiting = true
      this.#waiting++
    }
    const leave = (): void => {
      signal.removeEventListener('abort', onAbort)
      over.resolve(undefined)
    }

    if (signal.aborted) onAbort()
    else signal.addEventListener('abort', onAbort)
    this.#slots
      .add(
        async () => {
          hasTurn = true
          await this.#ask(wait, place.signal)
          // Its timer may be late.
          if ((deadline?.remainingMs ?? Infinity) <= 0) throw outOfTime()
          this.#lastStart = Date.now()
          entered.resolve(undefined)
          await over.promise
        },
        { signal: place.signal },
      )
      .catch(entered.reject)
    try {
      if (!hasTurn && !place.signal.aborted) wait()
    } catch (error) {
      place.abort(error)
    }
    try {
      await entered.promise
      return leave
    } catch (error) {
      leave()
      throw error
    } finally {
      clearTimeout(timer)
      if (isWaiting) this.#waiting--
      onQueued?.(performance.now() - from)
    }
  }

  #checkRoom(): void {
    const { queue } = this.#settings
    if (this.#waiting < queue) return
    throw new LimitError('queue', queue, 'Too many requests wait for their turn', {
      code: 'queue_full',
      phase: 'queue',
    })
  }

  /** Resolves when the limiter allows one more. */
  async #ask(wait: () => void, signal: AbortSignal): Promise<void> {
    const { limiter } = this.#settings
    if (!limiter) return
    // Where nobody waits, one need not wait for the other's answer.
    const isOpen = this.#gate.pending === 0 && this.#gate.size === 0
    if (isOpen && (await this.#consume(limiter, signal))) return
    wait()
    await this.#gate.add(
      async () => {
        do await sleep(this.#closedUntil - performance.now(), signal)
        while (!(await this.#consume(limiter, signal)))
      },
      { signal },
    )
  }

  async #consume(limiter: Limiter, signal: AbortSignal): Promise<boolean> {
    try {
      await limiter.consume(this.#key)
      return true
    } catch (cause) {
      const { msBeforeNext } = (cause ?? {}) as { msBeforeNext?: unknown }
      if (typeof msBeforeNext !== 'number' || Number.isNaN(msBeforeNext)) throw limiterFailed(cause)
      this.#closedUntil = performance.now() + Math.min(Math.max(msBeforeNext, leastPauseMs), maxTimerMs)
      return false
    } finally {
      // Whose turn is over for other reasons asks and waits no more.
      signal.throwIfAborted()
    }
  }
}

async function loadQueue(): Promise<typeof PQueue> {
  try {
    return (await import('p-queue')).default
  } catch (cause) {
    throw new UsageError('missing_dependency', 'rateLimit() needs p-queue: `npm install p-queue`.', { cause })
  }
}

function expect(isSo: boolean, message: string): void {
  if (!isSo) throw new UsageError('invalid_argument', `In rateLimit(), ${message}.`)
}

function waitedTooLong(timeoutMs: number): LLMTimeoutError {
  return new LLMTimeoutError(
    'timeout',
    `The request waited ${timeoutMs} ms for its turn. If it may wait longer, raise \`maxWait\` of rateLimit().`,
    { phase: 'queue', timeoutMs },
  )
}

function outOfTime(): LLMTimeoutError {
  return new LLMTimeoutError(
    'timeout',
    'The time of the run was over before its turn came, so nothing was sent. If it needs longer, raise `total` of timeout().',
    { phase: 'queue' },
  )
}

function limiterFailed(cause: unknown): ConnectionError {
  return new ConnectionError(
    'connection',
    'The `limiter` of rateLimit() failed: see `cause`. To go on without its store, give it an `insuranceLimiter`.',
    { phase: 'queue', retryable: true, cause },
  )
}
