import type { Metrics, Usage } from './events.ts'
import type { AttemptFailure } from './provider.ts'
import type { Snapshot } from './snapshot.ts'

/** Stable identifiers of everything that can go wrong. Switch on these, never on a message. */
export type ErrorCode =
  // AbortedError
  | 'aborted'
  // LLMTimeoutError
  | 'timeout'
  // ConnectionError
  | 'connection'
  | 'unexpected_redirect'
  // HttpError
  | 'bad_request'
  | 'authentication'
  | 'permission'
  | 'not_found'
  | 'request_timeout'
  | 'conflict'
  | 'request_too_large'
  | 'rate_limited'
  | 'quota_exhausted'
  | 'server_error'
  | 'overloaded'
  | 'http_error'
  | 'streaming_unsupported'
  // StreamError
  | 'stream_truncated'
  | 'stream_protocol'
  | 'provider_error'
  | 'unexpected_content_type'
  | 'empty_response'
  // OutputError
  | 'output_truncated'
  | 'refused'
  | 'content_filtered'
  | 'no_payload'
  | 'invalid_json'
  | 'schema_mismatch'
  | 'validator_error'
  // LimitError
  | 'limit_exceeded'
  | 'queue_full'
  // ToolError
  | 'tool_not_found'
  | 'tool_execution_failed'
  | 'tool_output_not_serializable'
  | 'tool_denied'
  // PolicyError
  | 'attempts_exhausted'
  | 'retry_budget_exhausted'
  // ConsumerError
  | 'consumer_error'
  | 'stream_consumed'
  // UsageError
  | 'invalid_argument'
  | 'unsupported'
  | 'missing_dependency'

/** Where in the life of a request an error arose; of a timeout, which limit it was. */
export type ErrorPhase =
  | 'request'
  | 'queue'
  | 'connect'
  | 'first_byte'
  | 'first_output'
  | 'idle'
  | 'progress'
  | 'total'
  | 'stream'
  | 'finalize'
  | 'validate'
  | 'tool'
  | 'consume'

/** Facts an error may carry. Default of each: not known. */
export interface LLMErrorOptions {
  /** Whether the same request may succeed later. Default false. */
  retryable?: boolean | undefined
  /** Where in the life of the request it arose. */
  phase?: ErrorPhase | undefined
  /** The provider that was asked. */
  provider?: string | undefined
  /** The model that was asked. */
  model?: string | undefined
  /** HTTP status. */
  status?: number | undefined
  /** The provider's id of the HTTP request. */
  requestId?: string | undefined
  /** The provider's own error type or code, as it was sent. */
  providerCode?: string | undefined
  /** The provider's own explanation. Kept out of `message` and `inspect()`: it may quote the prompt. */
  providerMessage?: string | undefined
  /** How long the provider asked to wait, in milliseconds. */
  retryAfterMs?: number | undefined
  /** Which attempt failed, counted from 1. */
  attempt?: number | undefined
  /** The tool whose call was being written. */
  toolName?: string | undefined
  /** The id of that call. */
  toolCallId?: string | undefined
  /** Offset in the call's argument text, or in the output, in UTF-16 code units. */
  position?: number | undefined
  /** A foreign error without request or response text in it. */
  cause?: unknown
}

const brand = Symbol.for('fieldstream.LLMError')

/**
 * Base of every error fieldstream reports.
 *
 * `message` never holds a key, a prompt or model output. What did arrive before the failure is in `partial`,
 * which is not enumerable, so loggers and `inspect()` do not print it.
 */
export class LLMError extends Error {
  /** What went wrong, in a word that later versions keep. Switch on this. */
  readonly code: ErrorCode
  /** True where the same request may succeed later. Decided where the error is born. */
  readonly retryable: boolean
  /** Where in the life of the request it arose; of a timeout, which limit ran out. */
  declare readonly phase?: ErrorPhase
  /** The provider that was asked, where one was. */
  declare readonly provider?: string
  /** The model that was asked, where one was. */
  declare readonly model?: string
  /** HTTP status, also for errors that the provider reported inside a stream. */
  declare readonly status?: number
  /** The provider's id of the HTTP request, for its support. */
  declare readonly requestId?: string
  /** The provider's own error type or code, as it was sent. */
  declare readonly providerCode?: string
  /** The provider's own explanation. Not enumerable, since it may quote the prompt. */
  declare readonly providerMessage?: string
  /** How long the provider asked to wait, in milliseconds. */
  declare readonly retryAfterMs?: number
  /** Which attempt failed, counted from 1. */
  declare readonly attempt?: number
  /** The tool call that was being written, or that is not usable. */
  declare readonly toolName?: string
  /** The id of that call. */
  declare readonly toolCallId?: string
  /** Offset in that call's argument text, or in the output, in UTF-16 code units, where it broke or stopped. */
  declare readonly position?: number
  /** Tokens reported before the failure; `undefined` where the provider had reported none. */
  declare readonly usage?: Usage
  /** Of an `OutputError`: what the validator found. Not enumerable, since its messages may quote the answer. */
  declare readonly issues?: readonly OutputIssue[]
  /** The attempts before this one, where there were several. Not enumerable. */
  declare readonly attempts?: readonly AttemptFailure[]
  /** Of the run that ended with it: what was measured until then. Not enumerable. */
  declare readonly metrics?: Metrics
  /** What had arrived: texts, raw arguments and their best-effort value. Never validated, never complete. */
  declare readonly partial?: Snapshot

  /** For a provider or middleware of one's own, which had better use the class that fits. Default for `retryable`: false. */
  constructor(code: ErrorCode, message: string, options: LLMErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.code = code
    this.retryable = options.retryable ?? false
    Object.defineProperty(this, brand, { value: true })
    describeError(this, options)
  }

  /** True for errors of any copy of fieldstream, also across ESM, CJS and realms. */
  static isInstance(error: unknown): error is LLMError {
    return isLLMError(error)
  }

  /** The facts without `partial`, `cause` and the provider's own words. */
  toJSON(): Record<string, unknown> {
    return { ...(this as object), name: this.name, message: this.message }
  }
}

/**
 * True for errors of any copy of fieldstream, also across ESM, CJS and realms.
 *
 * @example
 * ```ts
 * try {
 *   await stream.final()
 * } catch (error) {
 *   if (!isLLMError(error)) throw error
 *   show(error.code === 'rate_limited' ? `Try again in ${error.retryAfterMs} ms` : error.message)
 * }
 * ```
 */
export function isLLMError(error: unknown): error is LLMError {
  return typeof error === 'object' && error !== null && brand in error
}

/** An error of anybody's as one of ours. */
export function asLLMError(error: unknown, phase: ErrorPhase): LLMError {
  if (isLLMError(error)) return error
  return new StreamError('provider_error', 'The provider, or what stands before it, failed. See `cause`.', {
    phase,
    cause: error,
  })
}

/** An error as another run may have it: without the facts named, since it adds its own. What is no error of ours stays as it is. */
export function copyError<E>(error: E, without: readonly string[] = []): E {
  if (!isLLMError(error)) return error
  const facts = Object.getOwnPropertyDescriptors(error) as PropertyDescriptorMap
  for (const name of without) Reflect.deleteProperty(facts, name)
  const stack = { value: error.stack, configurable: true, writable: true }
  const copy = Object.setPrototypeOf(new Error(error.message), Object.getPrototypeOf(error) as object) as E & LLMError
  return Object.defineProperties(copy, { ...facts, stack })
}

/** The error for a source that ends before its `finish`. */
export function unfinished(provider: string): StreamError {
  const message = `${provider} ended its answer without saying that it is complete.`
  return new StreamError('stream_truncated', message, { retryable: true, phase: 'stream' })
}

/**
 * Adds facts that only an outer layer knows (provider, model, attempt, partial …); those already set stay.
 */
export function describeError<E extends LLMError>(
  error: E,
  facts: LLMErrorOptions & {
    usage?: Usage | undefined
    partial?: (() => Snapshot) | undefined
    attempts?: readonly AttemptFailure[] | undefined
    metrics?: Metrics | undefined
  },
): E {
  if (facts.usage && error.usage === undefined) {
    // Whatever a service put beside its numbers is not for logs.
    const { raw, ...usage } = facts.usage
    Object.defineProperty(error, 'usage', {
      value: Object.defineProperty(usage, 'raw', { value: raw }),
      enumerable: true,
      configurable: true,
    })
  }
  for (const name of [
    'phase',
    'provider',
    'model',
    'status',
    'requestId',
    'providerCode',
    'retryAfterMs',
    'attempt',
    'toolName',
    'toolCallId',
    'position',
  ] as const) {
    const value = facts[name]
    if (value !== undefined && error[name] === undefined) {
      Object.defineProperty(error, name, { value, enumerable: true, configurable: true })
    }
  }
  if (facts.providerMessage !== undefined && error.providerMessage === undefined) {
    Object.defineProperty(error, 'providerMessage', { value: facts.providerMessage, configurable: true })
  }
  if (facts.attempts && facts.attempts.length > 0 && !('attempts' in error)) {
    Object.defineProperty(error, 'attempts', { value: facts.attempts, configurable: true })
  }
  if (facts.metrics && !('metrics' in error)) {
    Object.defineProperty(error, 'metrics', { value: facts.metrics, configurable: true })
  }
  const { partial } = facts
  if (partial && !('partial' in error)) {
    let snapshot: Snapshot | undefined
    Object.defineProperty(error, 'partial', { get: () => (snapshot ??= partial()), configurable: true })
  }
  return error
}

/** The host's own word, or the name of an error of its making, e.g. `TimeoutError`. */
function reasonWords(reason: unknown): string {
  if (typeof reason === 'string') return `: ${reason}`
  try {
    const { name } = (reason ?? {}) as { name?: unknown }
    return typeof name === 'string' && name !== 'AbortError' ? ` (${name})` : ''
  } catch {
    // Anything can be a reason, also what throws when it is looked at.
    return ''
  }
}

/** The run was cancelled: by a signal, by `abort()`, or because the consumer left. `name` is `'AbortError'`. */
export class AbortedError extends LLMError {
  /** What was given to `abort()`, or the signal's reason, or `'consumer_return'` where the loop was left. */
  declare readonly reason: unknown

  /** For a provider of one's own, where the context's signal fired; the client makes all others. */
  constructor(reason: unknown, options: LLMErrorOptions = {}) {
    super('aborted', `The run was aborted${reasonWords(reason)}`, options)
    // Not enumerable: a reason is the host's own value and may hold anything.
    Object.defineProperty(this, 'reason', { value: reason })
  }
}

/** Time ran out; `phase` says for what. `name` is `'TimeoutError'`. */
export class LLMTimeoutError extends LLMError {
  /** The limit in milliseconds; `undefined` where an SDK's own ran out. */
  declare readonly timeoutMs?: number

  /** `options.phase` says which limit ran out, `options.timeoutMs` what it was set to. */
  constructor(code: ErrorCode, message: string, options: LLMErrorOptions & { timeoutMs?: number | undefined } = {}) {
    super(code, message, options)
    if (options.timeoutMs !== undefined) this.timeoutMs = options.timeoutMs
  }
}

/** Why there is no connection. */
export type ConnectionFailure = 'refused' | 'dns' | 'tls' | 'reset' | 'closed' | 'unknown'

/** No usable connection: it could not be made, was lost, or led elsewhere. */
export class ConnectionError extends LLMError {
  /** What kept it from being made, or ended it. */
  readonly reason: ConnectionFailure

  /** For a provider of one's own. `code` is `connection` or `unexpected_redirect`. */
  constructor(
    code: ErrorCode,
    message: string,
    options: LLMErrorOptions & { reason?: ConnectionFailure | undefined } = {},
  ) {
    super(code, message, options)
    this.reason = options.reason ?? 'unknown'
  }
}

/** The provider answered with an HTTP error status. */
export class HttpError extends LLMError {}

/** The stream broke, was cut, or said something that cannot be. */
export class StreamError extends LLMError {
  /** Of a stream that was cut: whether it ended as if whole, or its connection broke. */
  declare readonly reason?: 'end' | 'reset'

  /**
   * For a provider of one's own: `stream_truncated` for a stream without its end, `stream_protocol` for one that contradicts
   * itself.
   */
  constructor(code: ErrorCode, message: string, options: LLMErrorOptions & { reason?: StreamError['reason'] } = {}) {
    super(code, message, options)
    if (options.reason !== undefined) this.reason = options.reason
  }
}

/** One fault a validator found. `message` is the validator's and may quote the value. */
export interface OutputIssue {
  /** Where in the value, in the notation of field paths; `''` for the value itself. */
  readonly path: string
  /** The validator's own words. */
  readonly message: string
}

/** The model's answer is not usable: cut, refused, malformed or against its schema. */
export class OutputError extends LLMError {
  /** `options.issues` is what a validator found. */
  constructor(
    code: ErrorCode,
    message: string,
    options: LLMErrorOptions & { issues?: readonly OutputIssue[] | undefined } = {},
  ) {
    super(code, message, options)
    if (options.issues) Object.defineProperty(this, 'issues', { value: options.issues })
  }
}

/** Something grew beyond an option. `limit` is the option's name. */
export class LimitError extends LLMError {
  /** The option to raise, e.g. `maxInputLength`. */
  readonly limit: string
  /**
   * What it was set to, in the option's own unit: characters, events, tool calls, requests in the queue, its number in each
   * case.
   */
  readonly max: number

  /** The message is `message` and what to do; the code `limit_exceeded` unless `options` say otherwise. */
  constructor(
    limit: string,
    max: number,
    message: string,
    options: LLMErrorOptions & { code?: 'limit_exceeded' | 'queue_full' | undefined } = {},
  ) {
    super(
      options.code ?? 'limit_exceeded',
      `${message}: over the limit of ${max}. Raise \`${limit}\` if this is expected.`,
      options,
    )
    this.limit = limit
    this.max = max
  }
}

/** The model called a tool in a way the request does not allow, or a tool that ran failed. */
export class ToolError extends LLMError {
  /** As the model wrote it. Not enumerable, since it may be anything. */
  declare readonly toolName: string

  /** `toolName` is the tool as the model wrote it. */
  constructor(code: ErrorCode, toolName: string, message: string, options: LLMErrorOptions = {}) {
    super(code, message, options)
    Object.defineProperty(this, 'toolName', { value: toolName })
  }
}

/** No further attempt could be made. `cause` is the error of the last one, whose status and provider this error has. */
export class PolicyError extends LLMError {
  /** The error of each attempt, in order. Not enumerable. */
  declare readonly errors: readonly LLMError[]

  /** `errors` is one for each attempt, in order; the last becomes the `cause`. */
  constructor(code: ErrorCode, message: string, errors: readonly LLMError[], options: LLMErrorOptions = {}) {
    super(code, message, { ...options, cause: errors.at(-1) })
    Object.defineProperty(this, 'errors', { value: errors })
  }
}

/** The application's own code failed (a listener threw), or asked for a stream in a way it cannot be had. */
export class ConsumerError extends LLMError {}

/** The call itself was wrong; thrown before anything is sent. */
export class UsageError extends LLMError {
  /** For a provider or middleware of one's own: `invalid_argument`, `unsupported` or `missing_dependency`. */
  constructor(code: ErrorCode, message: string, options: LLMErrorOptions = {}) {
    super(code, message, { ...options, phase: options.phase ?? 'request' })
  }
}

// Names are set on the prototypes, so that minified bundles keep them and instances stay small.
const names: [new (...args: never[]) => LLMError, string][] = [
  [LLMError, 'LLMError'],
  [AbortedError, 'AbortError'],
  [LLMTimeoutError, 'TimeoutError'],
  [ConnectionError, 'ConnectionError'],
  [HttpError, 'HttpError'],
  [StreamError, 'StreamError'],
  [OutputError, 'OutputError'],
  [LimitError, 'LimitError'],
  [ToolError, 'ToolError'],
  [PolicyError, 'PolicyError'],
  [ConsumerError, 'ConsumerError'],
  [UsageError, 'UsageError'],
]
for (const [constructor, name] of names) {
  Object.defineProperty(constructor.prototype, 'name', { value: name, configurable: true, writable: true })
}
