import { AbortedError, asLLMError, type LLMError, StreamError } from '../errors.ts'
import type { RestartEvent, StreamEvent, Target } from '../events.ts'
import {
  type AttemptFailure,
  fromBatches,
  isVisible,
  type ProviderContext,
  type StreamEvents,
  toBatches,
} from '../provider.ts'
import type { LLMRequest } from '../request.ts'

/** What follows a failed attempt. */
export interface NextAttempt {
  readonly next: AttemptFailure['next']
  readonly delayMs: number
}

/** Decides over the attempts at one request. */
export interface AttemptPolicy {
  /** Begins the next attempt. */
  open(context: ProviderContext): StreamEvents
  /**
   * What is to follow; nothing where the error stands.
   *
   * @throws PolicyError instead of `error` where there is more to say.
   */
  onFailure(error: LLMError): NextAttempt | undefined
  /** An answer is complete. */
  onSuccess(target: Target): void
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
  /** The attempt that was seen, and what ended it. */
  let seen: Target | undefined
  let reason: RestartEvent['reason'] | undefined
  for (let { attempt } = context; ; attempt++) {
    let held: StreamEvent[] | undefined = []
    try {
      const events = policy.open({ ...context, attempt })
      for await (let batch of { [Symbol.asyncIterator]: () => toBatches(events) }) {
        if (held) {
          held.push(...batch)
          if (!batch.some((event) => isVisible(event, context))) continue
          if (policy.refusesEmpty?.() && isEmpty(held)) throw emptyAnswer()
          batch = held
          held = undefined
          const target = targetOf(batch)
          if (seen && reason) batch = [{ type: 'restart', attempt, reason, from: seen, to: target }, ...batch]
          seen = target
        }
        // The answer is complete before anybody hears of it.
        if (batch.at(-1)?.type === 'finish') policy.onSuccess(seen!)
        yield batch
      }
      if (held && held.length > 0) yield held
      return
    } catch (cause) {
      const error = asLLMError(cause, 'stream')
      let next: NextAttempt | undefined
      try {
        if (!signal.aborted && (!seen || request.onInterrupted === 'restart')) next = policy.onFailure(error)
      } finally {
        // Whoever hears of the failure hears first of what there was, as if there had been this attempt only.
        if (!next && !seen && held && held.length > 0) yield held
      }
      if (!next) throw error
      attempt = Math.max(attempt, error.attempt ?? 0)
      if (!held) reason = { code: error.code, message: error.message }
      const { provider, model } = error
      context.onAttemptFailed?.({ attempt, provider, model, error, ...next })
      if (next.delayMs > 0) await sleep(next.delayMs, signal)
    }
  }
}

/** Whether an answer is complete, and there is nothing in it. */
function isEmpty(events: readonly StreamEvent[]): boolean {
  const isWanted = ({ type }: StreamEvent): boolean => type === 'text-delta' || type === 'tool-input-start'
  return events.some((event) => event.type === 'finish' && event.finishReason === 'stop') && !events.some(isWanted)
}

function emptyAnswer(): StreamError {
  return new StreamError('empty_response', 'The answer has neither text nor a tool call.', {
    retryable: true,
    phase: 'finalize',
  })
}

function targetOf(batch: readonly StreamEvent[]): Target {
  const start = batch.find((event) => event.type === 'start')
  return { provider: start?.provider ?? '', model: start?.model ?? '' }
}

/** @throws AbortedError as soon as the signal fires. */
function sleep(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => {
      clearTimeout(timer)
      reject(new AbortedError(signal.reason, { phase: 'connect' }))
    }
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', onAbort)
      resolve()
    }, milliseconds)
    signal.addEventListener('abort', onAbort, { once: true })
  })
}
