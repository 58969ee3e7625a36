import { AbortedError, asLLMError, describeError, type LLMError, StreamError } from '../errors.ts'
import type { RestartEvent, StartEvent, StreamEvent, Target } from '../events.ts'
import {
  type AttemptFailure,
  batchesOf,
  fromBatches,
  isVisible,
  type ProviderContext,
  type StreamEvents,
} from '../provider.ts'
import type { LLMRequest } from '../request.ts'
import { sleep } from '../timers.ts'

/** What follows a failed attempt. */
export interface NextAttempt {
  readonly next: AttemptFailure['next']
  readonly delayMs: number
}

/** Decides over the attempts at one request. */
export interface AttemptPolicy {
  /** Begins the next attempt. */
  open(context: ProviderContext): StreamEvents
  /** Something of the attempt can be seen. */
  onVisible?(): void
  /**
   * What is to follow; nothing where the error stands. Without `mayContinue` nothing can: the attempt was seen, or the run is over.
   *
   * @throws PolicyError instead of `error` where there is more to say.
   */
  onFailure(error: LLMError, mayContinue: boolean): NextAttempt | undefined
  /** An answer is complete. */
  onSuccess?(target: Target): void
  /** Whether an answer without any text and call is a failure. */
  refusesEmpty?(): boolean
}

/**
 * Makes attempts until one succeeds or the policy gives up. What an attempt brings is held back until some of it can be seen;
 * so long, the next attempt takes its place without a trace. After that there is a next one only for requests with
 * `onInterrupted: 'restart'`, and a `restart` event comes before whatever can be seen of it.
 */
export function streamAttempts(request: LLMRequest, context: ProviderContext, policy: AttemptPolicy): StreamEvents {
  return fromBatches(() => readAttempts(request, context, policy))
}

async function* readAttempts(
  request: LLMRequest,
  context: ProviderContext,
  policy: AttemptPolicy,
): AsyncGenerator<readonly StreamEvent[], void, undefined> {
  const { signal } = context
  const mayRestart = request.onInterrupted === 'restart'
  /** The target that was seen, and what ended its attempt. */
  let seen: Target | undefined
  let reason: RestartEvent['reason'] | undefined
  for (let { attempt } = context; ; attempt++) {
    let held: StreamEvent[] | undefined = []
    let hasContent = false
    let isComplete = false
    /** The latest that began: what is made of others makes attempts of its own. */
    let begun: StartEvent | undefined
    try {
      const events = policy.open({ ...context, attempt })
      for await (let batch of batchesOf(events)) {
        // What is made of others may begin anew, too.
        if (batch[0]?.type === 'restart') hasContent = false
        hasContent ||= batch.some(isContent)
        begun = batch.findLast((event) => event.type === 'start') ?? begun
        if (!hasContent && batch.some(isStop) && (!seen || mayRestart) && policy.refusesEmpty?.())
          throw describeError(emptyAnswer(), begun ?? seen ?? {})
        if (held) {
          held.push(...batch)
          if (!batch.some((event) => isVisible(event, context))) continue
          batch = held
          held = undefined
          const { provider = '', model = '', attempt: number = attempt } = begun ?? {}
          const to = { provider, model }
          if (seen && reason) batch = [{ type: 'restart', attempt: number, reason, from: seen, to }, ...batch]
          seen = to
          policy.onVisible?.()
        } else if (batch[0]?.type === 'restart') seen = batch[0].to
        // The answer is complete before anybody hears of it.
        if (batch.at(-1)?.type === 'finish') {
          isComplete = true
          policy.onSuccess?.(seen!)
        }
        yield batch
      }
      if (held && held.length > 0) yield held
      return
    } catch (cause) {
      // What goes wrong after the evidence concerns nobody: the attempt did not fail.
      if (isComplete) throw cause
      const error = asLLMError(cause, 'stream')
      let next: NextAttempt | undefined
      try {
        next = policy.onFailure(error, !signal.aborted && (!seen || mayRestart))
      } finally {
        // Whoever hears of the failure hears first of what there was, as if there had been this attempt only.
        if (!next && !seen && held && held.length > 0) yield held
      }
      if (!next) throw error
      attempt = Math.max(attempt, error.attempt ?? 0, begun?.attempt ?? 0)
      if (!held) reason = { code: error.code, message: error.message }
      const { provider, model } = error
      context.onAttemptFailed?.({ attempt, provider, model, error, ...next })
      // Whoever heard of the failure may have ended the run.
      await sleep(next.delayMs, signal).catch((cause: unknown) => {
        throw new AbortedError(cause, { phase: 'connect' })
      })
    }
  }
}

function isContent({ type }: StreamEvent): boolean {
  return type === 'text-delta' || type === 'tool-input-start'
}

function isStop(event: StreamEvent): boolean {
  return event.type === 'finish' && event.finishReason === 'stop'
}

function emptyAnswer(): StreamError {
  return new StreamError('empty_response', 'The answer has neither text nor a tool call.', {
    retryable: true,
    phase: 'finalize',
  })
}

/** Asks a function of the user's whether to go on; one that throws is told of, and does not hide what it was asked about. */
export function isWanted(
  name: string,
  predicate: (error: LLMError) => boolean,
  error: LLMError,
  { onConsumerError }: ProviderContext,
): boolean {
  try {
    return predicate(error)
  } catch (cause) {
    onConsumerError?.(name, cause)
    return false
  }
}
