import {
  AbortedError,
  type ErrorCode,
  HttpError,
  isLLMError,
  type LLMError,
  LLMTimeoutError,
  StreamError,
  UsageError,
} from '../errors.ts'

import { toConnectionError, toSafeCause } from './connection-errors.ts'

/** What is known of a response with an error status, or of an error a provider reported inside a stream. */
export interface HttpFailure {
  readonly provider: string
  readonly status: number
  /** Default: what the status, or else the provider's code, stands for. */
  readonly code?: ErrorCode | undefined
  /** The provider's own error type or code. */
  readonly providerCode?: string | undefined
  readonly providerMessage?: string | undefined
  /** What of the request the provider says is at fault. */
  readonly parameter?: string | undefined
  readonly headers?: Headers | undefined
  readonly requestId?: string | undefined
  /** Whether it arrived after the response had begun. */
  readonly inStream?: boolean | undefined
}

const statusCodes: Partial<Record<number, ErrorCode>> = {
  400: 'bad_request',
  401: 'authentication',
  402: 'quota_exhausted',
  403: 'permission',
  404: 'not_found',
  408: 'request_timeout',
  409: 'conflict',
  413: 'request_too_large',
  422: 'bad_request',
  429: 'rate_limited',
  503: 'overloaded',
  529: 'overloaded',
}

/** Reasons that a status hides: an account without credit is not a matter of waiting. */
const reasonCodes: ReadonlyMap<unknown, ErrorCode> = new Map(
  Object.entries({
    insufficient_quota: 'quota_exhausted',
    billing_hard_limit_reached: 'quota_exhausted',
  } as const),
)

const hints: Partial<Record<ErrorCode, string>> = {
  authentication: 'Check the API key.',
  permission: 'The API key may not use this model or feature.',
  not_found: 'Check the model name and the base URL.',
  quota_exhausted: 'The account has no credit left.',
  rate_limited: 'Wait, or ask for a higher limit.',
  overloaded: 'Try again later.',
  streaming_unsupported: 'Ask for the answer in one piece, with `nonStreaming()`.',
}

/** What to do about refusals that services word alike. */
const reasonHints: readonly (readonly [RegExp, string])[] = [
  [/tool_choice|forc\w+ tool/i, "If the model cannot be forced to call a tool, set `toolInput: 'json'`."],
  [
    /support\w* (?:\w+ )?tools?\b|tools? .*not support/i,
    'If the model has no tools of its own, wrap the provider in `xmlTools()`.',
  ],
  [/\bimages?\b|vision/i, 'If the model does not see pictures, leave them out, or use one that does.'],
]

/** What of an explanation is searched for a reason: searching takes longer than it is long, and the reason is named first. */
function searched(words = ''): string {
  return words.slice(0, 1000)
}

/** Statuses under which a service may say that it does not stream. */
const refusals = new Set([400, 403, 404, 405, 406, 415, 422, 501])

/** What a sentence says of a thing that is not to be had. */
const refusal =
  /(?:\bnot|n['’]t) (?:\w+ ){0,2}(?:support|available|allow|enabled|implemented|permitted|possible)|\bunsupported\b|\bunavailable\b|\bdisabled\b|\bverified to\b/i

/** Whether a service would rather answer in one piece. */
function refusesStream({ status, parameter, providerCode = '', providerMessage = '' }: HttpFailure): boolean {
  const words = `${providerCode.slice(0, 100).replaceAll('_', ' ')}. ${searched(providerMessage)}`
  return refusals.has(status) && (parameter === 'stream' || saysNotToStream(words))
}

function saysNotToStream(words: string): boolean {
  return words
    .split(/[.!?\n]/)
    .some((sentence) => /(?<!non[- ]?)\bstream(?:ing|ed)?\b/i.test(sentence) && refusal.test(sentence))
}

const retryableCodes = new Set<ErrorCode>(['request_timeout', 'conflict', 'rate_limited', 'server_error', 'overloaded'])

/** The error for an HTTP status. The provider's words go to `providerMessage`, since they may quote the prompt. */
export function toHttpError(failure: HttpFailure): HttpError {
  const { provider, status, providerCode, providerMessage, headers, requestId, inStream } = failure
  const code =
    failure.code ??
    reasonCodes.get(providerCode) ??
    (refusesStream(failure) ? 'streaming_unsupported' : undefined) ??
    statusCodes[status] ??
    (status >= 500 ? 'server_error' : 'http_error')
  const what = inStream ? `${provider} reported an error in its answer` : `${provider} answered with an error`
  const isRefusal = code !== 'streaming_unsupported' && [400, 404, 422].includes(status)
  const reason = isRefusal ? reasonHints.find(([pattern]) => pattern.test(searched(providerMessage))) : undefined
  const hint = reason?.[1] ?? hints[code]
  const where = providerMessage === undefined ? '' : ' Its explanation is in `providerMessage`.'
  const shouldRetry = headers?.get('x-should-retry')
  return new HttpError(
    code,
    `${what}: ${status}${providerCode ? ` ${providerCode}` : ''}.${hint ? ` ${hint}` : ''}${where}`,
    {
      retryable: shouldRetry === 'true' || (shouldRetry !== 'false' && retryableCodes.has(code)),
      phase: inStream ? 'stream' : 'connect',
      provider,
      status,
      requestId,
      providerCode,
      providerMessage,
      retryAfterMs: headers ? retryAfterMs(headers) : undefined,
    },
  )
}

/** `retry-after-ms`, else `retry-after` in seconds or as a date (RFC 9110, section 10.2.3); `undefined` where neither makes sense. */
function retryAfterMs(headers: Headers): number | undefined {
  const milliseconds = headers.get('retry-after-ms')
  if (milliseconds !== null && /^\d+(\.\d+)?$/.test(milliseconds)) return Number(milliseconds)
  const after = headers.get('retry-after')
  if (after === null) return undefined
  if (/^\d+(\.\d+)?$/.test(after)) return Number(after) * 1000
  // The server's own clock where it shows it: ours may be off.
  const wait = Date.parse(after) - (Date.parse(headers.get('date') ?? '') || Date.now())
  return wait > 0 ? wait : undefined
}

/** Wraps what `fetch`, an SDK or a body threw; errors of ours pass as they are. */
export function toTransportError(
  error: unknown,
  provider: string,
  signal: AbortSignal,
  phase: 'connect' | 'stream',
): LLMError {
  if (isLLMError(error)) return error
  // SDKs wrap what the `fetch` they were given threw.
  const { cause } = (error ?? {}) as { cause?: unknown }
  if (isLLMError(cause)) return cause
  if (signal.aborted) return new AbortedError(signal.reason, { phase })
  const sdkError = (error ?? {}) as {
    name?: unknown
    status?: unknown
    type?: unknown
    code?: unknown
    headers?: unknown
    requestID?: unknown
    error?: unknown
    constructor?: { name?: string }
  }
  // Not `instanceof`: there may be several copies of an SDK. Minifiers change the one name, some SDKs never set the other.
  const kind = `${String(sdkError.name)} ${sdkError.constructor?.name ?? ''}`
  if (typeof sdkError.status === 'number') {
    // Their message and body are left behind: both may quote the prompt.
    const headers = sdkError.headers instanceof Headers ? sdkError.headers : undefined
    return toHttpError({
      provider,
      status: sdkError.status,
      // The one that says more comes first: some services have a code beside their type.
      providerCode: firstString(sdkError.code, sdkError.type),
      providerMessage: messageIn(sdkError.error),
      parameter: parameterIn(sdkError.error),
      headers,
      requestId: firstString(sdkError.requestID),
      inStream: phase === 'stream',
    })
  }
  if (kind.includes('Timeout')) {
    return new LLMTimeoutError('timeout', `${provider} did not answer in time.`, { retryable: true, phase, provider })
  }
  if (phase === 'stream' && error instanceof SyntaxError) {
    // An SDK's own reading. The message of such an error quotes the answer.
    return new StreamError('stream_protocol', `${provider} broke its protocol: what it sent is not JSON.`, {
      retryable: true,
      phase,
      provider,
    })
  }
  if (phase === 'stream') {
    return new StreamError('stream_truncated', `The connection to ${provider} broke before the answer was complete.`, {
      retryable: true,
      phase,
      provider,
      reason: 'reset',
      cause: toSafeCause(error),
    })
  }
  if (error instanceof TypeError && /headers?\b.*invalid|invalid.*\bheader|bytestring/is.test(error.message)) {
    // Thrown before anything is sent, with the value, which may be the key, in its message.
    return new UsageError(
      'invalid_argument',
      'A header of the request holds characters that HTTP does not allow. Check the API key and `headers`.',
      { provider },
    )
  }
  if ([error, cause].some((one) => one instanceof TypeError && /\bURL\b/.test(one.message))) {
    // Thrown before anything is sent, with the address, which may hold a password, in its message.
    return new UsageError(
      'invalid_argument',
      'The address of the request is none that `fetch` takes. Check `baseURL`: it must be whole, and hold no user and password.',
      { provider },
    )
  }
  return toConnectionError(error, provider, kind.includes('Connection') || error instanceof TypeError)
}

function firstString(...candidates: unknown[]): string | undefined {
  return candidates.find((candidate): candidate is string => typeof candidate === 'string')
}

/** The human sentence in an error body `{ error: { message } }` or `{ message }`. */
export function messageIn(body: unknown): string | undefined {
  // Not by recursion: how deep it goes is the sender's choice.
  while (typeof body === 'object' && body !== null) {
    const { message, error } = body as { message?: unknown; error?: unknown }
    if (typeof message === 'string') return message
    body = error
  }
  return undefined
}

/** The member of the request that an error body `{ error: { param } }` or `{ param }` names. */
export function parameterIn(body: unknown): string | undefined {
  while (typeof body === 'object' && body !== null) {
    const { param, error } = body as { param?: unknown; error?: unknown }
    if (typeof param === 'string') return param
    body = error
  }
  return undefined
}

/** The `error` of a body that is JSON, or of the first object in its list; `undefined` where it has none. */
export function errorIn(text: string): unknown {
  try {
    const body = JSON.parse(text) as unknown
    const { error } = ((Array.isArray(body) ? (body as unknown[])[0] : body) ?? {}) as { error?: unknown }
    return error ?? undefined
  } catch {
    return undefined
  }
}
