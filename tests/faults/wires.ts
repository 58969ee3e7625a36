import type { Provider } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { gemini } from 'fieldstream/gemini'
import { ollama } from 'fieldstream/ollama'
import { openai, openaiChat } from 'fieldstream/openai'
import { simulate, type SimulateOptions } from 'fieldstream/testing'

export type WireName = 'anthropic' | 'openai' | 'openai-chat' | 'ollama' | 'gemini'

/** What no error and no log may say holds the word `planted`. */
export const planted = {
  key: 'planted-key',
  prompt: 'planted prompt',
  text: 'planted text: Grüße, 你好 😀.',
  words: 'planted words of the service',
} as const

/** The arguments of the one call in the usual answer. */
export const usualInput = { message: 'planted message: "ja", 你好 😀', count: 12 }

/** Options of a provider that do not depend on which it is. */
export interface WireOptions {
  readonly baseURL?: string
  readonly fetch?: typeof globalThis.fetch
  readonly client?: object
  readonly limits?: { readonly maxEventLength?: number }
}

/** How one service writes, as far as faults need to know. */
export interface Wire {
  readonly name: WireName
  create(options: WireOptions): Provider
  readonly contentType: string
  readonly requestIdHeader: string
  /** One event with this data; of a string, with that text. */
  event(data: unknown): string
  /** What keeps a connection alive and is no part of an answer. */
  readonly alive: string
  /** Begins an answer of which nothing can be seen yet. */
  readonly prelude: readonly string[]
  /** Says in the stream that the service is overloaded. */
  readonly overloaded: string
  /** The body of an error status; `code` is the provider's own word for it where it has one. */
  failure(status: number, code?: string): string
  /** How many frames at the end of an answer come after its terminal evidence. */
  readonly framesAfterEvidence: number
  /** Whether an answer is complete at its evidence; else at the end of its body. */
  readonly isOverAtEvidence: boolean
}

/** The frames of an answer in a wire's own form. */
export function framesOf(
  wire: Pick<Wire, 'name'>,
  payload: Parameters<typeof simulate>[0],
  options: SimulateOptions = {},
): string[] {
  const request = {
    url: '/models/model-a:streamGenerateContent',
    method: 'POST',
    headers: new Headers(),
    body: { stream: true },
  }
  const { body, reads } = simulate(payload, { provider: wire.name, deltaChars: 6, ...options })(request)
  const bytes = Buffer.from(body as string)
  let start = 0
  return (reads ?? []).map((length) => bytes.subarray(start, (start += length)).toString())
}

function serverSentEvent(data: unknown): string {
  const text = typeof data === 'string' ? data : JSON.stringify(data)
  const { type } = (typeof data === 'object' ? (data ?? {}) : {}) as { type?: unknown }
  return `${typeof type === 'string' ? `event: ${type}\n` : ''}data: ${text}\n\n`
}

const { words } = planted

const anthropicTypes: Partial<Record<number, string>> = { 429: 'rate_limit_error', 529: 'overloaded_error' }
const anthropicWire: Wire = {
  name: 'anthropic',
  create: (options) => anthropic({ model: 'model-a', apiKey: planted.key, ...(options as object) }),
  contentType: 'text/event-stream',
  requestIdHeader: 'request-id',
  // The SDK passes over events without a name.
  event: (data) => (typeof data === 'string' ? 'event: content_block_delta\n' : '') + serverSentEvent(data),
  alive: serverSentEvent({ type: 'ping' }),
  prelude: framesOf({ name: 'anthropic' }, 'x').slice(0, 2),
  overloaded: serverSentEvent({ type: 'error', error: { type: 'overloaded_error', message: words } }),
  failure: (status, code = anthropicTypes[status] ?? 'api_error') =>
    JSON.stringify({ type: 'error', error: { type: code, message: words } }),
  framesAfterEvidence: 0,
  isOverAtEvidence: true,
}

const openaiWire: Wire = {
  name: 'openai',
  create: (options) => openai({ model: 'model-a', apiKey: planted.key, ...(options as object) }),
  contentType: 'text/event-stream',
  requestIdHeader: 'x-request-id',
  event: serverSentEvent,
  alive: ': alive\n\n',
  prelude: framesOf({ name: 'openai' }, 'x').slice(0, 2),
  overloaded: serverSentEvent({ type: 'error', error: { type: 'server_error', code: 503, message: words } }),
  failure: (_, code) => JSON.stringify({ error: { type: code ?? 'error', code: code ?? null, message: words } }),
  framesAfterEvidence: 0,
  isOverAtEvidence: true,
}

const openaiChatWire: Wire = {
  ...openaiWire,
  name: 'openai-chat',
  create: (options) => openaiChat({ model: 'model-a', apiKey: planted.key, ...(options as object) }),
  prelude: framesOf({ name: 'openai-chat' }, 'x').slice(0, 1),
  overloaded: serverSentEvent({ error: { type: 'server_error', code: 503, message: words } }),
  // The count of tokens, and the farewell.
  framesAfterEvidence: 2,
}

function line(data: unknown): string {
  return `${typeof data === 'string' ? data : JSON.stringify(data)}\n`
}

const ollamaWire: Wire = {
  name: 'ollama',
  create: ({ baseURL, ...options }) =>
    ollama({ model: 'model-a', apiKey: planted.key, ...(baseURL && { host: baseURL }), ...(options as object) }),
  contentType: 'application/x-ndjson',
  requestIdHeader: 'x-request-id',
  event: line,
  alive: '\n',
  prelude: [line({ model: 'model-a', message: { role: 'assistant', content: '' }, done: false })],
  // The service has no other word for it: a line with a text, and its status in the head of a response only.
  overloaded: line({ error: words }),
  failure: () => JSON.stringify({ error: words }),
  framesAfterEvidence: 0,
  isOverAtEvidence: true,
}

const googleStatuses: Partial<Record<number, string>> = {
  400: 'INVALID_ARGUMENT',
  401: 'UNAUTHENTICATED',
  403: 'PERMISSION_DENIED',
  404: 'NOT_FOUND',
  429: 'RESOURCE_EXHAUSTED',
  500: 'INTERNAL',
  503: 'UNAVAILABLE',
}
const geminiFailure: Wire['failure'] = (status, code = googleStatuses[status] ?? 'UNKNOWN') =>
  JSON.stringify({ error: { code: status, message: words, status: code } })
const geminiWire: Wire = {
  name: 'gemini',
  create: (options) => gemini({ model: 'model-a', apiKey: planted.key, vertexai: false, ...(options as object) }),
  contentType: 'text/event-stream',
  requestIdHeader: 'x-request-id',
  event: (data) => `data: ${typeof data === 'string' ? data : JSON.stringify(data)}\r\n\r\n`,
  alive: ': alive\r\n\r\n',
  prelude: [
    `data: ${JSON.stringify({ usageMetadata: { promptTokenCount: 7 }, modelVersion: 'm', responseId: 'r' })}\r\n\r\n`,
  ],
  overloaded: `data: ${geminiFailure(503)}\r\n\r\n`,
  failure: geminiFailure,
  framesAfterEvidence: 0,
  isOverAtEvidence: false,
}

export const wires: readonly Wire[] = [anthropicWire, openaiWire, openaiChatWire, ollamaWire, geminiWire]
