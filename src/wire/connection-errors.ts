import { ConnectionError, type ConnectionFailure } from '../errors.ts'

/** Codes of Node, undici and OpenSSL. */
const reasons: readonly (readonly [RegExp, ConnectionFailure])[] = [
  [/^ECONNREFUSED$/, 'refused'],
  [/^(?:ENOTFOUND$|EAI_)/, 'dns'],
  [/^(?:ERR_TLS_|ERR_SSL_|EPROTO$|HOSTNAME_MISMATCH$|INVALID_CA$|INVALID_PURPOSE$)|CERT|CRL_|SIGNATURE/, 'tls'],
  [/^(?:ECONNRESET|ECONNABORTED)$/, 'reset'],
  [/^(?:EPIPE|UND_ERR_SOCKET)$/, 'closed'],
]

const messages: Readonly<Record<ConnectionFailure, (provider: string) => string>> = {
  refused: (provider) => `${provider} refused the connection. Check the base URL, and that the server is running.`,
  dns: (provider) => `The address of ${provider} could not be found. Check the base URL and the network.`,
  tls: (provider) =>
    `There is no secure connection to ${provider}. Check its certificate, the system's clock, and any proxy in between.`,
  reset: (provider) => `The connection to ${provider} was broken off before it answered. Try again.`,
  closed: (provider) => `${provider} closed the connection before it answered. Try again.`,
  unknown: (provider) => `No connection to ${provider}. Check the base URL and the network.`,
}

/** The error for what kept a request from being answered; `isNetwork` is what is known of it where it has no code. */
export function toConnectionError(error: unknown, provider: string, isNetwork: boolean): ConnectionError {
  const codes = codesIn(error)
  const reason = reasons.find(([pattern]) => codes.some((code) => pattern.test(code)))?.[1]
  const message =
    reason || isNetwork ? messages[reason ?? 'unknown'](provider) : `The request to ${provider} was not sent.`
  return new ConnectionError('connection', `${message} See \`cause\`.`, {
    // A wrong address or certificate stays wrong.
    retryable: (reason !== undefined || isNetwork) && reason !== 'tls' && !codes.includes('ENOTFOUND'),
    phase: 'connect',
    provider,
    reason,
    cause: toSafeCause(error),
  })
}

/** How deep causes are followed; some lead back to themselves. */
const maxDepth = 8

interface Failure {
  readonly name?: unknown
  readonly message?: unknown
  readonly stack?: unknown
  readonly code?: unknown
  readonly cause?: unknown
  readonly errors?: unknown
}

/** The codes of an error and all it was caused by, the outermost first. */
function codesIn(error: unknown, depth = 0): string[] {
  if (typeof error !== 'object' || error === null || depth === maxDepth) return []
  const { code, cause, errors } = error as Failure
  const causes = [cause, ...(Array.isArray(errors) ? (errors as unknown[]) : [])]
  return [...(typeof code === 'string' ? [code] : []), ...causes.flatMap((inner) => codesIn(inner, depth + 1))]
}

/** A copy of a foreign error that can be logged: its name, words and code, and those of its causes, without addresses' secrets. */
export function toSafeCause(error: unknown, depth = 0): Error | undefined {
  if (typeof error !== 'object' || error === null || depth === maxDepth) return undefined
  const { name, message, stack, code, cause, errors } = error as Failure
  const safe = new Error(withoutSecrets(message), { cause: toSafeCause(cause, depth + 1) })
  const facts = {
    name: typeof name === 'string' ? name : 'Error',
    stack: withoutSecrets(stack),
    ...(typeof code === 'string' && { code }),
    ...(Array.isArray(errors) && { errors: errors.map((inner) => toSafeCause(inner, depth + 1)) }),
  }
  for (const [key, value] of Object.entries(facts))
    Object.defineProperty(safe, key, { value, enumerable: key === 'code', configurable: true, writable: true })
  return safe
}

/** Errors of `fetch` quote what they could not read: addresses with a password or key in them, and headers. */
function withoutSecrets(text: unknown): string {
  if (typeof text !== 'string') return ''
  return text
    .slice(0, 10_000)
    .replace(/\b([a-z][a-z0-9+.-]{0,20}:\/\/)[^\s/?#"']*@/gi, '$1…@')
    .replace(/(\b[a-z][a-z0-9+.-]{0,20}:\/\/[^\s?#"']*)[?#][^\s"']*/gi, '$1?…')
    .replace(/\b(bearer|basic)\s+[^\s"',]+/gi, '$1 …')
    .replace(/\b([\w-]*(?:api-?key|authorization|token|cookie)["']?\s*[:=]\s*)[^\s]+/gi, '$1…')
}
