import { AbortedError, ConsumerError, type ErrorCode, type LLMError } from './errors.ts'
import type { FinishReason, Metrics, StreamEvent, Target, Usage } from './events.ts'
import type { AskedTarget, AttemptFailure } from './provider.ts'
import { callGuarded } from './guarded-call.ts'
import type { LLMRequest } from './request.ts'
import { keepAlive } from './timers.ts'

/** Which run a hook is told of. */
export interface RunIdentity extends Target {
  /** A UUID, the same in all that is told of one run. */
  readonly runId: string
  /** That of the request: what the application knows the run by. */
  readonly metadata: LLMRequest['metadata']
}

/** The first of an answer that was worth waiting for. */
export interface FirstDelta extends RunIdentity {
  /** The number of the attempt it came in, counted from 1. */
  readonly attempt: number
  /** What it was. */
  readonly kind: 'text' | 'reasoning' | 'tool-input'
  /** When, in milliseconds since the run began. */
  readonly timeMs: number
}

/** A target is asked that stands in for another. */
export interface FallbackUse extends RunIdentity {
  /** The number of the attempt, counted from 1. */
  readonly attempt: number
  /** What the target before it failed with; `undefined` where that failed in an earlier run. */
  readonly error: LLMError | undefined
}

/** A run that ended well. */
export interface RunFinish extends RunIdentity {
  /** The provider's id of the answer; `undefined` where it gives none. */
  readonly responseId: string | undefined
  /** The provider's id of the HTTP request, for its support; `undefined` where it gives none. */
  readonly requestId: string | undefined
  /** How the answer ended. */
  readonly finishReason: FinishReason
  /** Tokens, of all steps of `client.run()`. */
  readonly usage: Omit<Usage, 'raw'>
  /** As on the response. */
  readonly metrics: Metrics
}

/** A run that is over, and how long it took. */
export interface RunMeasured extends RunIdentity {
  /** Whether the answer was complete and valid, the run failed, or somebody cancelled it. */
  readonly outcome: 'success' | 'error' | 'aborted'
  /** Of the error that the run ended with. */
  readonly code: ErrorCode | undefined
  /** What was measured until the end, whichever it was. */
  readonly metrics: Metrics
}

/** A limit of `alerts` that passed. */
export interface RunAlert extends RunIdentity {
  /** The limit that passed. */
  readonly alert: keyof Alerts
  /** What it was set to, in milliseconds. */
  readonly limitMs: number
}

/** In milliseconds since the run began; what they are for had not come by then. */
export interface Alerts {
  /** The beginning of an answer, be it from a cache. Default: no alert. */
  readonly timeToFirstByteMs?: number | undefined
}

/**
 * For logs and monitoring. A hook is told what happened, in an object without any text of the prompt or the answer; nobody waits
 * for it, and one that throws or rejects is reported to `onError` and changes nothing else.
 */
export interface ClientHooks {
  /** The run begins. */
  readonly onStart?: ((run: RunIdentity) => void) | undefined
  /** The first text, reasoning or tool arguments arrived. */
  readonly onFirstDelta?: ((first: FirstDelta) => void) | undefined
  /** The answer is one that was given before, or is being given to an equal request. */
  readonly onCacheHit?: ((run: RunIdentity) => void) | undefined
  /** A target is asked that stands in for another. */
  readonly onFallback?: ((use: FallbackUse) => void) | undefined
  /** Hears of every attempt that failed and is followed by another. */
  readonly onAttempt?: ((failure: AttemptFailure & Pick<RunIdentity, 'runId' | 'metadata'>) => void) | undefined
  /** The answer is complete and valid. */
  readonly onFinish?: ((finish: RunFinish) => void) | undefined
  /** Hears of every run that fails, cancelled ones excepted, of listeners that throw, of tools that fail, and of a cache's store. */
  readonly onError?: ((error: LLMError, run: RunIdentity) => void) | undefined
  /** The run is over, however it ended. */
  readonly onMetrics?: ((run: RunMeasured) => void) | undefined
  /** One of the client's `alerts` passed its limit. Comes at that moment, and the run goes on. */
  readonly onAlert?: ((alert: RunAlert) => void) | undefined
}

export const hookNames = [
  'onStart',
  'onFirstDelta',
  'onCacheHit',
  'onFallback',
  'onAttempt',
  'onFinish',
  'onError',
  'onMetrics',
  'onAlert',
] as const satisfies (keyof ClientHooks)[]

/** Tells the hooks of one run. */
export class RunHooks {
  readonly #hooks: ClientHooks
  readonly #alerts: Alerts
  #target: Target
  readonly #metadata: LLMRequest['metadata']
  #attempt = 1
  #hasAsked = false
  #runId: string | undefined
  #startedAt: number | undefined
  #lastFailure: AttemptFailure | undefined
  #hasDelta: boolean
  #alertTimer: ReturnType<typeof setTimeout> | undefined

  constructor(hooks: ClientHooks, alerts: Alerts, target: Target, metadata: LLMRequest['metadata']) {
    this.#hooks = hooks
    this.#alerts = alerts
    this.#target = target
    this.#metadata = metadata
    this.#hasDelta = !hooks.onFirstDelta && !hooks.onCacheHit
  }

  begin(): void {
    this.#startedAt = performance.now()
    if (this.#hooks.onStart) this.#call('onStart', this.#identity)
    const { timeToFirstByteMs: limitMs } = this.#alerts
    if (limitMs === undefined) return
    this.#alertTimer = setTimeout(() => {
      this.#call('onAlert', { ...this.#identity, alert: 'timeToFirstByteMs', limitMs })
    }, limitMs)
    // Nobody waits for an alert.
    keepAlive(this.#alertTimer, false)
  }

  onAsked(asked: AskedTarget): void {
    const { provider, model, attempt, isFallback } = asked
    this.#target = { provider, model }
    // The same attempt may ask again, for an answer in one piece.
    const isNew = !this.#hasAsked || attempt !== this.#attempt
    this.#hasAsked = true
    this.#attempt = attempt
    if (!isFallback || !isNew || !this.#hooks.onFallback) return
    this.#call('onFallback', { ...this.#identity, attempt, error: this.#lastFailure?.error })
  }

  onFirstByte(): void {
    clearTimeout(this.#alertTimer)
  }

  /** Looks for the first delta, and for the word that the answer comes from a cache. */
  onBatch(batch: readonly StreamEvent[]): void {
    if (this.#alertTimer) clearTimeout(this.#alertTimer)
    if (this.#hasDelta) return
    for (const event of batch) {
      if (event.type === 'start' && event.cached) {
        this.#target = { provider: event.provider, model: event.model }
        this.#call('onCacheHit', this.#identity)
      }
      const kind = kindOf(event)
      if (!kind) continue
      this.#hasDelta = true
      const timeMs = performance.now() - this.#startedAt!
      this.#call('onFirstDelta', { ...this.#identity, attempt: this.#attempt, kind, timeMs })
      return
    }
  }

  onAttemptFailed(failure: AttemptFailure): void {
    this.#lastFailure = failure
    if (this.#hooks.onAttempt) this.#call('onAttempt', { ...failure, runId: this.#id, metadata: this.#metadata })
  }

  /** The answer, as far as hooks are to know it. */
  onFinish(answer: Omit<RunFinish, 'runId' | 'metadata' | 'usage'> & { readonly usage: Usage }): void {
    clearTimeout(this.#alertTimer)
    const { onFinish, onMetrics } = this.#hooks
    const { provider, model, responseId, requestId, finishReason, metrics } = answer
    if (onFinish) {
      const { raw: _, ...usage } = answer.usage
      const [runId, metadata] = [this.#id, this.#metadata]
      this.#call('onFinish', { runId, metadata, provider, model, responseId, requestId, finishReason, usage, metrics })
    }
    if (onMetrics) this.#call('onMetrics', { ...this.#identity, outcome: 'success', code: undefined, metrics })
  }

  onFailed(error: LLMError, metrics: Metrics): void {
    clearTimeout(this.#alertTimer)
    const isAborted = error instanceof AbortedError
    // To cancel is no failure.
    if (!isAborted) this.onError(error)
    // A run that was cancelled before it began took no time.
    if (this.#startedAt === undefined || !this.#hooks.onMetrics) return
    const outcome = isAborted ? 'aborted' : 'error'
    this.#call('onMetrics', { ...this.#identity, outcome, code: error.code, metrics })
  }

  onError(error: LLMError): void {
    const { onError } = this.#hooks
    // A hook for errors that fails has nobody left to tell.
    if (onError)
      callGuarded(
        (run) => onError(error, run),
        this.#identity,
        () => undefined,
      )
  }

  /** Something of the application's threw or failed, without which the run goes on. */
  onThrown(what: string, cause: unknown): void {
    this.onError(
      new ConsumerError('consumer_error', `${what} failed; the run goes on. See \`cause\`.`, {
        phase: 'consume',
        cause,
      }),
    )
  }

  #call<Name extends Exclude<(typeof hookNames)[number], 'onError'>>(
    name: Name,
    fact: Parameters<NonNullable<ClientHooks[Name]>>[0],
  ): void {
    const hook = this.#hooks[name] as ((told: typeof fact) => unknown) | undefined
    if (hook) callGuarded(hook, fact, (cause) => this.onThrown(`\`${name}\``, cause))
  }

  get #id(): string {
    return (this.#runId ??= crypto.randomUUID())
  }

  get #identity(): RunIdentity {
    return { runId: this.#id, metadata: this.#metadata, ...this.#target }
  }
}

function kindOf({ type }: StreamEvent): FirstDelta['kind'] | undefined {
  if (type === 'text-delta') return 'text'
  if (type === 'reasoning-delta') return 'reasoning'
  return type === 'tool-input-delta' ? 'tool-input' : undefined
}
