import { checkFunctions, checkNumbers, checkOptions } from '../check-options.ts'
import { type ErrorCode, type LLMError, PolicyError, UsageError } from '../errors.ts'
import type { StreamFunction } from '../middleware.ts'
import type { Provider } from '../provider.ts'
import { attemptOf } from './attempt.ts'
import { isWanted, type NextAttempt, streamAttempts } from './attempt-sequence.ts'

/** How long a target that failed stands back, and which errors count. Times in milliseconds. */
export interface FallbackOptions {
  /** How long a target that failed is asked last, in milliseconds; longer where it asks for that itself. Default 30,000. */
  readonly coolDown?: number | undefined
  /**
   * Which errors another target may cure. Default: all but those of the request itself (`bad_request`, `invalid_argument`, `request_too_large`), of
   * the answer (an `OutputError`), of a limit of ours, and of the run (cancelled, out of time).
   */
  readonly fallbackOn?: ((error: LLMError) => boolean) | undefined
}

interface Member {
  readonly stream: StreamFunction
  /** Before this time, on the clock of `performance.now()`, others are asked first. */
  coolUntil: number
}

const incurable = new Set<ErrorCode>([
  'aborted',
  'invalid_argument',
  'bad_request',
  'request_too_large',
  'output_truncated',
  'refused',
  'content_filtered',
  'no_payload',
  'invalid_json',
  'schema_mismatch',
  'validator_error',
  'limit_exceeded',
  'tool_not_found',
  'consumer_error',
  'stream_consumed',
])

/**
 * A provider made of providers: asks the first, and the next where that fails before anything of its answer could be seen
 * (later only where the request has `onInterrupted: 'restart'`), also where the answer is empty. A target that failed is
 * asked last for a while; after that one request tries it again, and the others follow when it succeeds.
 *
 * Where all fail, the run ends with a `PolicyError` `attempts_exhausted`: `errors` has all of them, `cause` the last.
 *
 * @throws UsageError where there are fewer than two providers.
 *
 * @example
 * ```ts
 * import { fallback, StreamingLLMClient } from 'fieldstream'
 * import { gemini } from 'fieldstream/gemini'
 * import { ollama } from 'fieldstream/ollama'
 *
 * const provider = fallback(gemini({ model: 'gemini-2.5-flash' }), ollama({ model: 'llama3.2' }))
 * const client = new StreamingLLMClient({ provider })
 * ```
 */
export function fallback(first: Provider, second: Provider, ...others: Provider[]): Provider
/**
 * As above, of a list, with options.
 *
 * @throws UsageError where there are fewer than two providers, or an option makes no sense.
 */
export function fallback(providers: readonly Provider[], options?: FallbackOptions): Provider
export function fallback(
  first: Provider | readonly Provider[],
  second: Provider | FallbackOptions = {},
  ...others: Provider[]
): Provider {
  const isList = Array.isArray(first)
  const providers = (isList ? first : [first, second, ...others]) as readonly Provider[]
  const options = isList ? (second as FallbackOptions) : {}
  const areProviders = providers.every(
    (provider: unknown) => typeof (provider as Provider | null)?.stream === 'function',
  )
  if (!areProviders || providers.length < 2) {
    throw new UsageError(
      'invalid_argument',
      'fallback() takes two providers or more, or a list of them and options, e.g. fallback(gemini({ … }), ollama({ … })).',
    )
  }
  checkOptions('fallback()', options, ['coolDown', 'fallbackOn'] satisfies (keyof FallbackOptions)[])
  const { coolDown = 30_000, fallbackOn = isCurableElsewhere } = options
  checkNumbers('fallback()', { coolDown })
  checkFunctions('fallback()', { fallbackOn })
  const members = providers.map((provider): Member => ({ stream: attemptOf(provider), coolUntil: 0 }))

  /** Those that may work first, in the order given; then the others, beginning with the one that failed longest ago. */
  function order(): Member[] {
    const now = performance.now()
    const isCool = ({ coolUntil }: Member): boolean => coolUntil > now
    return [
      ...members.filter((member) => !isCool(member)),
      ...members.filter(isCool).sort((a, b) => a.coolUntil - b.coolUntil),
    ]
  }

  return {
    // Of what it is made; `start` names the one that answers.
    name: providers.map(({ name }) => name).join('|'),
    model: providers.map(({ model }) => model).join('|'),
    members: providers,
    stream(request, context) {
      const waiting = order()
      const errors: LLMError[] = []
      let current: Member
      return streamAttempts(request, context, {
        open(attemptContext) {
          current = waiting.shift()!
          // Whoever tries a target again holds off the others until it is known how that ends.
          if (current.coolUntil > 0) current.coolUntil = performance.now() + coolDown
          const isFallback = context.isFallback === true || current !== members[0]
          return current.stream(request, { ...attemptContext, isFallback })
        },
        onVisible: () => void (current.coolUntil = 0),
        onFailure(error, mayContinue): NextAttempt | undefined {
          errors.push(error)
          const isCurable = isWanted('fallbackOn', fallbackOn, error, context)
          const now = performance.now()
          // What this one request may not ask of a target is no fault of the target.
          const isFault = isCurable && error.phase !== 'request'
          current.coolUntil = isFault
            ? now + Math.max(coolDown, error.retryAfterMs ?? 0)
            : Math.min(current.coolUntil, now)
          if (!mayContinue || !isCurable) return undefined
          if (waiting.length > 0) return { next: 'fallback', delayMs: 0 }
          throw exhausted(errors)
        },
        refusesEmpty: () => waiting.length > 0,
      })
    },
  }
}

function isCurableElsewhere({ code, phase }: LLMError): boolean {
  return !incurable.has(code) && phase !== 'total'
}

function exhausted(errors: readonly LLMError[]): PolicyError {
  const retryable = errors.filter((error) => error.retryable)
  const { phase, provider, model, status, requestId, attempt, providerCode, providerMessage } = errors.at(-1)!
  const waits = retryable.map(({ retryAfterMs }) => retryAfterMs ?? 0)
  return new PolicyError(
    'attempts_exhausted',
    `All ${errors.length} providers failed: ${errors.map(({ provider: name, code }) => `${name ?? 'one'} with ${code}`).join(', ')}. See \`errors\`.`,
    errors,
    {
      retryable: retryable.length > 0,
      phase,
      provider,
      model,
      status,
      requestId,
      attempt,
      providerCode,
      providerMessage,
      retryAfterMs: Math.min(...waits) > 0 && waits.length > 0 ? Math.min(...waits) : undefined,
    },
  )
}
