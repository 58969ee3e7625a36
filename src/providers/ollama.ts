/**
 * Models served by Ollama. Needs `ollama`.
 *
 * @module fieldstream/ollama
 */

import { type LLMError, UsageError } from '../errors.ts'
import type { FinishReason, StreamEvent, Usage } from '../events.ts'
import { fromBatches, notStreamed, type Provider, type ProviderContext, type StreamEvents } from '../provider.ts'
import {
  type AssistantMessage,
  canCallAsJson,
  type ImagePart,
  type LLMRequest,
  type LLMWarning,
  type Message,
  type ToolResultPart,
  type UserMessage,
} from '../request.ts'
import type { Tool } from '../tool.ts'
import { EventMapper, type Json, type MapperContext, protocolError, toObject, toText } from '../wire/event-mapper.ts'
import type { WireLimits } from '../wire/event-reader.ts'
import { jsonLines } from '../wire/json-lines.ts'
import { readText } from '../wire/read-text.ts'
import { guardedFetch } from '../wire/guarded-fetch.ts'
import {
  checkInput,
  dropped,
  foreign,
  ownMetadata,
  toOutputInstruction,
  toResultText,
  toSettings,
  unstreamed,
} from '../wire/request-body.ts'
import { clientOf, environment, loadSdk, requireApiKey } from '../wire/sdk-client.ts'
import { mapSdkStream, readSdkStream } from '../wire/sdk-stream.ts'
import { type ThinkTag, ThinkTagSplitter } from '../wire/think-tags.ts'
import { messageIn, toHttpError } from '../wire/transport-errors.ts'
import { count, toUsage } from '../wire/usage.ts'

export type { WireLimits }

/** An `Ollama` of the official SDK, or anything with its `chat`. */
export interface OllamaClient {
  /** The SDK's own. */
  chat(request: never): PromiseLike<unknown>
}

/** Which model of an Ollama server to ask, and how to reach it. */
export interface OllamaOptions {
  /** E.g. `'llama3.2'`, which the server must have. */
  readonly model: string
  /**
   * An SDK client that is already set up: its host, headers and `fetch` are used, while the instance itself stays as it is.
   * Without one, `ollama` is loaded at the first request. Whether its `fetch` follows redirects, or asks for compression, is its
   * own affair.
   */
  readonly client?: OllamaClient | undefined
  /** Address of the server. Default: the environment variable `OLLAMA_HOST`, else `http://127.0.0.1:11434`. */
  readonly host?: string | undefined
  /** For `https://ollama.com` and gateways. Default there: the environment variable `OLLAMA_API_KEY`. */
  readonly apiKey?: string | undefined
  /** Used instead of the global `fetch`, for proxies and tests. */
  readonly fetch?: typeof globalThis.fetch | undefined
  /**
   * `'node'` sends requests with Node's own HTTP client and its global agents, not with `fetch`: less CPU for each event where many
   * answers stream at once, but other settings for proxies and TLS. A `fetch` given here goes before. Default `'fetch'`.
   */
  readonly transport?: 'fetch' | 'node' | undefined
  /** Sent with every request. */
  readonly headers?: Readonly<Record<string, string>> | undefined
  /**
   * How the model marks thinking that the server leaves in its text. Content that begins with `<think>` is always reasoning up
   * to `</think>`. `'unopened'`: all content is, up to `</think>`, since the model's template writes the opening tag itself.
   * `'opened'`: none other is. Default `'opened'`, but where `think: true` is asked for and the server does not tell
   * thinking apart, content is held back until `</think>`, a tool call or the end shows what it was.
   */
  readonly thinkTag?: 'opened' | 'unopened' | undefined
  /** Bounds on what is read. Default: those of `WireLimits`. */
  readonly limits?: WireLimits | undefined
}

const providerName = 'ollama'

const ollamaOptions: readonly (keyof OllamaOptions)[] = [
  'model',
  'client',
  'host',
  'apiKey',
  'fetch',
  'transport',
  'headers',
  'thinkTag',
  'limits',
]

/**
 * A model served by Ollama, through its own API (`/api/chat`). Its own tool calls come in one piece, so their fields come at
 * once, and cannot be forced. A forced call therefore goes through JSON text held to the tool's schema; with
 * `toolInput: 'native'`, or where several tools could be meant, a choice of tool only narrows what the model is offered, and
 * `start` carries a warning.
 *
 * @throws UsageError where `model` is missing, or `client` comes with options that only a client made here would use. A
 * missing key or SDK is a `UsageError` of the first request.
 *
 * @example
 * ```ts
 * import { StreamingLLMClient } from 'fieldstream'
 * import { ollama } from 'fieldstream/ollama'
 *
 * const client = new StreamingLLMClient({ provider: ollama({ model: 'llama3.2' }) })
 * ```
 */
export function ollama(options: OllamaOptions): Provider {
  const clientFor = clientOf<OllamaClient, OllamaOptions>(options, {
    caller: 'ollama',
    exampleModel: 'llama3.2',
    known: ollamaOptions,
    choices: { thinkTag: ['opened', 'unopened'] },
    makesClient: ['host', 'apiKey', 'fetch', 'transport'],
    isClient: (client) => typeof (client as Partial<OllamaClient>).chat === 'function',
    clientExample: 'new Ollama()',
    load: () => loadClient(options),
  })
  const { model, limits } = options

  function answer(request: LLMRequest, { signal }: ProviderContext, streaming: boolean): StreamEvents {
    return fromBatches(() => {
      const warnings: LLMWarning[] = []
      let tag: ThinkTag = options.thinkTag ?? 'opened'
      return readSdkStream({
        provider: providerName,
        signal,
        limits,
        streaming,
        warnings,
        framing: jsonLines,
        requestIdHeader: 'x-request-id',
        toReportedError,
        toBody: () => toRequestBody(request, options, warnings),
        send: async (body) => {
          if (body['think'] === true) tag = options.thinkTag ?? 'either'
          return send(await clientFor(), streaming ? body : unstreamed(body), signal, options)
        },
        createMapper: (requestId) =>
          new OllamaEventMapper(tag, streaming && !warnings.includes(notStreamed), {
            model,
            raw: request.raw,
            requestId,
            warnings,
          }),
      })
    })
  }

  return {
    name: providerName,
    model,
    // The server may have to load the model first.
    timeouts: { firstByte: 600_000, firstOutput: 600_000 },
    // Its own calls come in one piece, and cannot be forced.
    toolInput: (request) => (canCallAsJson(request) ? 'json' : 'native'),
    stream: (request, context) => answer(request, context, true),
    generate: (request, context) => answer(request, context, false),
  }
}

/**
 * Maps the SDK's stream, `await client.chat({ …, stream: true })` or `client.generate(…)`, to events for a
 * `ToolStreamAccumulator`. Leaving it aborts the SDK's stream, which the SDK itself does not.
 *
 * The SDK leaves out lines that are no JSON, so that a stream with damage inside looks whole; `ollama()` notices.
 *
 * @throws UsageError where it is no stream, or an option makes no sense.
 *
 * @example
 * ```ts
 * import { Ollama } from 'ollama'
 * import { ToolStreamAccumulator } from 'fieldstream'
 * import { toStreamEvents } from 'fieldstream/ollama'
 *
 * const accumulator = new ToolStreamAccumulator()
 * const sdkStream = await new Ollama().chat({
 *   model: 'llama3.2',
 *   messages: [{ role: 'user', content: 'Hello' }],
 *   stream: true,
 * })
 * for await (const event of toStreamEvents(sdkStream)) accumulator.push(event)
 * console.log(accumulator.toolCalls)
 * ```
 */
export function toStreamEvents(
  stream: AsyncIterable<object>,
  options: Pick<OllamaOptions, 'thinkTag'> = {},
): StreamEvents {
  return mapSdkStream(stream, {
    caller: 'toStreamEvents',
    call: 'client.chat({ …, stream: true })',
    restate: (given: SdkIterator) => Object.assign(iterate(given), { controller: given.abortController }),
    provider: providerName,
    toReportedError,
    createMapper: () => new OllamaEventMapper(options.thinkTag ?? 'opened', true, { model: '' }),
  })
}

/** What the SDK's stream is besides an iterable. */
interface SdkIterator extends AsyncIterable<unknown> {
  abort?(): void
  readonly abortController?: AbortController
}

/** The fields of the SDK's client that are used; its types call them protected. */
interface SdkClient extends OllamaClient {
  fetch?: typeof globalThis.fetch
  readonly config?: { readonly host?: unknown }
}

async function loadClient({ host, apiKey, fetch, transport, headers }: OllamaOptions): Promise<OllamaClient> {
  const { OLLAMA_HOST, OLLAMA_API_KEY } = environment()
  const sdk = await loadSdk<{ Ollama: new (options: never) => OllamaClient }>(
    'ollama',
    'ollama@0.6',
    // This entry of the SDK has no access to files; the other takes any text for a picture's path first.
    () => import('ollama/browser'),
  )
  let client: SdkClient
  try {
    client = new sdk.Ollama({ host: host ?? OLLAMA_HOST, fetch: guardedFetch({ fetch, transport }) } as never)
  } catch {
    // The cause is left out: it quotes the address, which may hold a password.
    throw new UsageError(
      'invalid_argument',
      "The host of Ollama is no address: pass `host` to ollama(), or set OLLAMA_HOST, e.g. 'http://127.0.0.1:11434'.",
    )
  }
  const isHosted = /^https:\/\/ollama\.com(:443)?(\/|$)/.test(String(client.config?.host))
  const isAuthorized = Object.keys(headers ?? {}).some((name) => name.toLowerCase() === 'authorization')
  const needsNone = !isHosted || fetch !== undefined || isAuthorized
  requireApiKey('ollama', 'ollama.com', 'OLLAMA_API_KEY', apiKey || OLLAMA_API_KEY, needsNone)
  return client
}

/** Made once: to note where it is thrown would take longer than all else that is done for a request. */
const readElsewhere = new Error('The response is read elsewhere.')

/**
 * Sends the request as the SDK does, and takes the response from under it: its reading skips lines that are no JSON, keeps
 * connections open, and prints to the console what it cannot read. A client with no `fetch` to
 * take it from is read through its iterator.
 */
async function send(
  client: SdkClient,
  body: Json,
  signal: AbortSignal,
  { apiKey, headers }: OllamaOptions,
): Promise<{ readonly call: PromiseLike<unknown> }> {
  let response: Response | undefined
  const { fetch } = client
  const take = async (input: string, init: RequestInit = {}): Promise<Response> => {
    const sent = new Headers(init.headers)
    if (apiKey) sent.set('authorization', `Bearer ${apiKey}`)
    for (const [name, value] of Object.entries(headers ?? {})) sent.set(name, value)
    // `fetch` refuses an address with a password in it, and quotes it.
    response ??= await fetch!(withoutPassword(input, sent), { ...init, headers: sent, signal })
    throw readElsewhere
  }
  // One of its own for each request, since the SDK's only means to abort a request aborts all of its instance.
  const derived =
    typeof fetch === 'function' ? (Object.create(client, { fetch: { value: take } }) as SdkClient) : client
  let answer: unknown
  signal.throwIfAborted()
  const aborted = abortOf(signal)
  try {
    answer = await Promise.race([derived.chat(body as never), aborted.promise])
  } catch (error) {
    if (!response) throw toSdkError(error)
  } finally {
    aborted.forget()
  }
  if (!response) {
    const isStream = typeof (answer as Partial<SdkIterator> | undefined)?.[Symbol.asyncIterator] === 'function'
    return { call: Promise.resolve(isStream ? iterate(answer as SdkIterator, signal) : answer) }
  }
  const taken = response
  return { call: Object.assign(Promise.resolve(), { asResponse: () => checkStatus(taken) }) }
}

/** A promise that rejects when the signal fires, until it is forgotten. */
function abortOf(signal: AbortSignal): { readonly promise: Promise<never>; forget(): void } {
  let forget = (): void => undefined
  const promise = new Promise<never>((_, reject) => {
    const onAbort = (): void => reject(signal.reason)
    signal.addEventListener('abort', onAbort)
    forget = () => signal.removeEventListener('abort', onAbort)
  })
  return { promise, forget: () => forget() }
}

function withoutPassword(address: string, headers: Headers): string {
  if (!address.includes('@')) return address
  const url = new URL(address)
  if (url.username === '' && url.password === '') return address
  const pair = new TextEncoder().encode(`${decodeURIComponent(url.username)}:${decodeURIComponent(url.password)}`)
  if (!headers.has('authorization')) headers.set('authorization', `Basic ${btoa(String.fromCharCode(...pair))}`)
  url.username = ''
  url.password = ''
  return url.href
}

async function checkStatus(response: Response): Promise<Response> {
  if (response.ok) return response
  const { status, headers, body } = response
  let error: unknown
  try {
    error = body && (JSON.parse(await readText(body)) as unknown)
  } catch {
    // Not JSON, or cut: the status says enough.
  }
  throw toHttpError({
    provider: providerName,
    status,
    providerMessage: wordsOf(error),
    headers,
    requestId: headers.get('x-request-id') ?? undefined,
  })
}

/** Reads the SDK's stream, and aborts it when it is left: the SDK would keep the connection, and the model go on writing. */
async function* iterate(stream: SdkIterator, signal?: AbortSignal): AsyncGenerator<unknown, void, undefined> {
  const events = stream[Symbol.asyncIterator]()
  const abort = (): void => stream.abort?.()
  signal?.addEventListener('abort', abort)
  let last: unknown
  let isOver = false
  try {
    signal?.throwIfAborted()
    for (;;) {
      const { done, value } = (await events.next()) as IteratorResult<unknown, undefined>
      isOver = done === true
      if (isOver) return
      yield (last = value)
    }
  } catch (error) {
    if (signal?.aborted) throw error
    isOver = true
    const { message, name } = (error ?? {}) as { message?: unknown; name?: unknown }
    // This is how the SDK says that the evidence is missing, and, below, what the server reported.
    if (message === 'Did not receive done or success response in stream.') return
    throw name === 'Error' && typeof message === 'string' ? toReportedError(message) : toSdkError(error)
  } finally {
    signal?.removeEventListener('abort', abort)
    if ((last as Json | undefined)?.['done'] === true) {
      // Only asked once more does the SDK forget the stream.
      if (!isOver) events.next().catch(() => undefined)
    } else if (!isOver) {
      abort()
      events.return?.()?.catch(() => undefined)
    }
  }
}

/** Turns the SDK's error for an HTTP status into ours. Its class is not exported. */
function toSdkError(error: unknown): unknown {
  const { status_code: status, error: words } = (error ?? {}) as { status_code?: unknown; error?: unknown }
  if (typeof status !== 'number') return error
  return toHttpError({ provider: providerName, status, providerMessage: wordsOf(words) })
}

/** The error for what the server reported after the response had begun: a sentence, without a code. */
function toReportedError(error: unknown): LLMError {
  return toHttpError({ provider: providerName, status: 500, providerMessage: wordsOf(error), inStream: true })
}

/** The sentence in `"…"`, `{ error: "…" }` or `{ error: { message: "…" } }`. */
function wordsOf(error: unknown): string | undefined {
  if (typeof error === 'string') return error
  const { error: inner } = (error ?? {}) as Json
  return typeof inner === 'string' ? inner : messageIn(error)
}

// ---------------------------------------------------------------------------------------------------------------- request

function toRequestBody(request: LLMRequest, options: OllamaOptions, warnings: LLMWarning[]): Json {
  const { system, output, reasoning } = request
  const { options: ownSettings, ...own } = request.providerOptions?.[providerName] ?? {}
  const settings: Json = {
    ...toSettings(request, { maxTokens: 'num_predict', temperature: 'temperature', topP: 'top_p', stop: 'stop' }),
    ...(ownSettings as Json | undefined),
  }
  const messages = toMessages(request.messages, warnings)
  // The server holds the model to the format, but does not show it.
  const instructions = [system, output && toOutputInstruction(output)].filter((text) => text !== undefined)
  if (instructions.length > 0) messages.unshift({ role: 'system', content: instructions.join('\n\n') })
  const tools = toTools(request, warnings)
  return {
    model: options.model,
    messages,
    stream: true,
    ...(tools.length > 0 && { tools }),
    ...(output && { format: output.schema }),
    ...(reasoning && { think: toThink(reasoning, options.model, warnings) }),
    ...(Object.keys(settings).length > 0 && { options: settings }),
    ...own,
  }
}

/** Only gpt-oss has levels; the server refuses them for other models, and has no budget for any. */
function toThink(
  reasoning: NonNullable<LLMRequest['reasoning']>,
  model: string,
  warnings: LLMWarning[],
): true | string {
  if ('budgetTokens' in reasoning) {
    warnings.push({
      code: 'unsupported',
      message: 'Ollama has no budget for reasoning: the model reasons without one.',
    })
    return true
  }
  if (model.includes('gpt-oss')) return reasoning.effort
  warnings.push({
    code: 'unsupported',
    message: "Of Ollama's models only gpt-oss takes an effort: this one reasons as much as it does by itself.",
  })
  return true
}

/** What the choice of tool leaves of the tools, which is all that can be done about it. */
function toTools({ tools = [], toolChoice = 'auto' }: LLMRequest, warnings: LLMWarning[]): Json[] {
  if (toolChoice === 'none') return []
  if (toolChoice !== 'auto') {
    warnings.push({
      code: 'unsupported',
      message: 'Ollama cannot force a tool call: the model may answer without one.',
    })
  }
  const offered = typeof toolChoice === 'object' ? tools.filter(({ name }) => name === toolChoice.name) : tools
  if (offered.some(({ strict, definition }) => strict && !definition?.[providerName])) {
    warnings.push({ code: 'unsupported', message: 'Ollama does not hold a model to the schema of a `strict` tool.' })
  }
  return offered.map(toTool)
}

function toTool({ name, description, inputSchema, definition }: Tool): Json {
  return (
    definition?.[providerName] ?? {
      type: 'function',
      function: { name, ...(description !== undefined && { description }), parameters: inputSchema },
    }
  )
}

function toMessages(messages: readonly Message[], warnings: LLMWarning[]): Json[] {
  const toolNames = new Map<string, string>()
  return messages.flatMap((message): Json[] => {
    if (message.role === 'tool') return message.content.map((part) => toResult(part, toolNames))
    if (typeof message.content === 'string') {
      // An answer may be empty, and says nothing then.
      const isEmpty = message.role === 'assistant' && message.content === ''
      return isEmpty ? [] : [{ role: message.role, content: message.content }]
    }
    if (message.role === 'assistant') return toAnswer(message.content, toolNames, warnings)
    return message.role === 'user' ? [toQuestion(message.content, warnings)] : []
  })
}

function toQuestion(parts: Exclude<UserMessage['content'], string>, warnings: LLMWarning[]): Json {
  const texts: string[] = []
  const images: Uint8Array[] = []
  const own: Json = {}
  for (const part of parts) {
    if (part.type === 'provider') {
      Object.assign(own, ownValue(part, warnings))
      continue
    }
    if (part.type === 'text') texts.push(part.text)
    else images.push(toImageBytes(part))
    Object.assign(own, part.metadata?.[providerName])
  }
  // A message has one text.
  return { role: 'user', content: texts.join('\n'), ...(images.length > 0 && { images }), ...own }
}

function toAnswer(
  parts: Exclude<AssistantMessage['content'], string>,
  toolNames: Map<string, string>,
  warnings: LLMWarning[],
): Json[] {
  let content = ''
  let thinking = ''
  const calls: Json[] = []
  const own: Json = {}
  for (const part of parts) {
    switch (part.type) {
      case 'text':
        content += part.text
        Object.assign(own, part.metadata?.[providerName])
        break
      case 'reasoning':
        if (part.metadata && !part.metadata[providerName]) warnings.push(dropped('Reasoning of another provider'))
        else {
          thinking += part.text
          Object.assign(own, part.metadata?.[providerName])
        }
        break
      case 'tool-call': {
        checkInput(part)
        toolNames.set(part.toolCallId, part.toolName)
        const { function: ownFunction, ...ownCall } = part.metadata?.[providerName] ?? {}
        calls.push({
          id: part.toolCallId,
          ...ownCall,
          function: { ...(ownFunction as Json | undefined), name: part.toolName, arguments: part.input },
        })
        break
      }
      case 'provider':
        Object.assign(own, ownValue(part, warnings))
    }
  }
  const message = {
    ...(thinking !== '' && { thinking }),
    ...(calls.length > 0 && { tool_calls: calls }),
    ...own,
  }
  return content === '' && Object.keys(message).length === 0 ? [] : [{ role: 'assistant', content, ...message }]
}

/** A part in this provider's own form: members of the message. */
function ownValue(
  { provider, value }: { readonly provider: string; readonly value: Readonly<Json> },
  warnings: LLMWarning[],
): Json {
  if (provider !== providerName) {
    warnings.push(foreign(provider))
    return {}
  }
  const { images } = value
  // The SDK takes text for the path of a file.
  return Array.isArray(images)
    ? { ...value, images: images.map((image: unknown) => (typeof image === 'string' ? fromBase64(image) : image)) }
    : value
}

function toResult(part: ToolResultPart, toolNames: ReadonlyMap<string, string>): Json {
  const { toolCallId, toolName = toolNames.get(toolCallId), isError, metadata } = part
  const text = toResultText(part)
  return {
    role: 'tool',
    // There is no other place to say so.
    content: isError ? `Error: ${text}` : text,
    ...(toolName !== undefined && { tool_name: toolName }),
    tool_call_id: toolCallId,
    ...metadata?.[providerName],
  }
}

function toImageBytes(part: ImagePart): Uint8Array {
  if ('url' in part) {
    throw new UsageError('unsupported', 'Ollama does not fetch pictures: pass the bytes as `data` instead of `url`.')
  }
  return typeof part.data === 'string' ? fromBase64(part.data) : part.data
}

function fromBase64(text: string): Uint8Array {
  let binary: string
  try {
    binary = atob(text)
  } catch {
    throw new UsageError('invalid_argument', 'The `data` of an image must be its bytes, or their base64.')
  }
  return Uint8Array.from(binary, (character) => character.charCodeAt(0))
}

// ----------------------------------------------------------------------------------------------------------------- events

/** Maps the lines of `/api/chat` and `/api/generate`, from our own decoding or an SDK's. */
class OllamaEventMapper extends EventMapper {
  readonly #content: ThinkTagSplitter
  readonly #callIds = new Set<string>()
  /** Tells this answer's calls from those of other turns, where the server gives them no ids. */
  #stamp = ''
  #hasWarned = false

  readonly #streaming: boolean

  constructor(tag: ThinkTag, streaming: boolean, context: MapperContext) {
    super(providerName, context)
    this.#streaming = streaming
    this.#content = new ThinkTagSplitter(tag)
  }

  protected override mapRest(out: StreamEvent[]): void {
    this.#content.release(out)
  }

  protected override map(event: Json, out: StreamEvent[]): void {
    const { error, message, response, done } = event
    if (error !== undefined && error !== null) throw toReportedError(error)
    // `/api/generate` has the members of a message in the event itself.
    const isGenerated = message === undefined && response !== undefined
    if (message === undefined && !isGenerated && done !== true) return
    const isWhole = done === true && !this.hasStarted && saysAnything(message)
    this.#start(event, out)
    // A body of one line: nothing else tells it from a stream.
    if (isWhole && this.#streaming) out.push({ type: 'warning', warning: notStreamed })
    if (isGenerated) this.#write({ ...event, content: response }, out)
    else if (message !== undefined) this.#write(toObject(providerName, message, 'a message'), out)
    if (done === true) this.#finish(event, out)
  }

  #start({ model, created_at: createdAt }: Json, out: StreamEvent[]): void {
    if (this.hasStarted) return
    if (typeof createdAt === 'string') this.#stamp = `_${createdAt.replaceAll(/\D/g, '').slice(0, 24)}`
    this.start(model, undefined, out)
  }

  #write({ content, thinking, tool_calls: calls, images }: Json, out: StreamEvent[]): void {
    const reasoning = toText(providerName, thinking ?? '', 'the thinking of a message')
    if (reasoning !== '') {
      this.#content.separate(out)
      out.push({ type: 'reasoning-delta', delta: reasoning })
    }
    this.#content.write(toText(providerName, content ?? '', 'the content of a message'), out)
    if (this.#content.hasStrayTag && !this.#hasWarned) {
      this.#hasWarned = true
      out.push(strayTag)
    }
    if (Array.isArray(images) && images.length > 0) {
      this.#content.release(out)
      out.push({ type: 'part', part: { type: 'provider', provider: providerName, value: { images } } })
    }
    if (calls === undefined || calls === null) return
    if (!Array.isArray(calls)) throw protocolError(providerName, 'the tool calls of a message are no list')
    for (const call of calls) this.#call(toObject(providerName, call, 'a tool call'), out)
  }

  #call({ id, function: called, ...rest }: Json, out: StreamEvent[]): void {
    const { name, arguments: input, ...ownFunction } = toObject(providerName, called, 'the function of a tool call')
    const toolName = toText(providerName, name, 'the name of a tool')
    const toolCallId = typeof id === 'string' && id !== '' ? id : this.#makeCallId()
    this.#callIds.add(toolCallId)
    this.#content.release(out)
    out.push({ type: 'tool-input-start', toolCallId, toolName })
    // Some servers send text, as other protocols do.
    const delta = typeof input === 'string' ? input : JSON.stringify(input ?? {})
    if (delta !== '') out.push({ type: 'tool-input-delta', toolCallId, delta })
    const kept = { ...rest, ...(Object.keys(ownFunction).length > 0 && { function: ownFunction }) }
    out.push({ type: 'tool-input-end', toolCallId, metadata: ownMetadata(providerName, kept) })
  }

  /** The same for the same answer, and another than any call's of the conversation. */
  #makeCallId(): string {
    let number = this.#callIds.size
    let id: string
    do id = `call${this.#stamp}_${number++}`
    while (this.#callIds.has(id))
    return id
  }

  #finish({ done_reason: reason, ...event }: Json, out: StreamEvent[]): void {
    this.#content.release(out)
    const word = typeof reason === 'string' ? reason : ''
    // Servers of old give no reason.
    let finishReason: FinishReason = word === 'length' ? 'length' : word === 'stop' || word === '' ? 'stop' : 'other'
    if (finishReason === 'stop' && this.#callIds.size > 0) finishReason = 'tool-calls'
    this.isFinished = true
    out.push({ type: 'finish', finishReason, providerFinishReason: word, usage: usageOf(event) })
  }
}

function saysAnything(message: unknown): boolean {
  const { content, thinking, tool_calls: calls } = (message ?? {}) as Json
  return Boolean(content || thinking || calls)
}

const strayTag: StreamEvent = {
  type: 'warning',
  warning: {
    code: 'dropped-content',
    message:
      "The model ended its reasoning with `</think>` but nothing had opened it, so that it came as text. Pass `thinkTag: 'unopened'` to ollama().",
  },
}

function usageOf(event: Json): Usage {
  const raw = Object.fromEntries(Object.entries(event).filter(([name]) => /_(count|duration)$/.test(name)))
  // The count of the prompt is left out where all of it was cached.
  return toUsage({ inputTokens: count(raw['prompt_eval_count']), outputTokens: count(raw['eval_count']) }, raw)
}
