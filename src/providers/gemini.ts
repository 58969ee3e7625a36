/**
 * Gemini, through the Gemini API or Vertex AI. Needs `@google/genai`.
 *
 * @module fieldstream/gemini
 */

import { type ErrorCode, describeError, type LLMError, LLMTimeoutError, OutputError, UsageError } from '../errors.ts'
import type { FinishReason, StreamEvent, Usage } from '../events.ts'
import { fromBatches, type Provider, type ProviderContext, type StreamEvents } from '../provider.ts'
import {
  canCallAsJson,
  type ImagePart,
  type LLMRequest,
  type LLMWarning,
  type Message,
  type OutputFormat,
  type ToolResultPart,
} from '../request.ts'
import type { JsonSchema } from '../schema.ts'
import { EventMapper, type Json, type MapperContext, protocolError, toObject, toText } from '../wire/event-mapper.ts'
import { readText } from '../wire/read-text.ts'
import type { WireLimits } from '../wire/event-reader.ts'
import { guardedFetch } from '../wire/guarded-fetch.ts'
import {
  checkInput,
  dropped,
  foreign,
  ownMetadata,
  splitInstructions,
  toBase64,
  toJsonText,
  toSettings,
} from '../wire/request-body.ts'
import { clientOf, environment, loadSdk, requireApiKey } from '../wire/sdk-client.ts'
import { mapSdkStream, readSdkStream } from '../wire/sdk-stream.ts'
import { type StrictRules, strictSchemaFor } from '../wire/strict-schema.ts'
import { errorIn, type HttpFailure, messageIn, toHttpError } from '../wire/transport-errors.ts'
import { count, toUsage } from '../wire/usage.ts'

export type { WireLimits }

/** Any client of the official SDK: `new GoogleGenAI({ … })`, for the Gemini API or Vertex AI. */
export interface GeminiClient {
  /** The SDK's own. */
  readonly models: {
    /** For answers that stream. */
    generateContentStream(parameters: never): PromiseLike<unknown>
    /** For answers in one piece: `generate()` without `onEvent`, and `nonStreaming()`. */
    generateContent?(parameters: never): PromiseLike<unknown>
  }
  /** Whether it speaks to Vertex AI, as the SDK sets it. */
  readonly vertexai?: boolean | undefined
}

/** Which Gemini to ask, and how to reach it. */
export interface GeminiOptions {
  /** E.g. `'gemini-2.5-flash'`; passed on as it is. */
  readonly model: string
  /**
   * An SDK client that is already set up. Without one, `@google/genai` is loaded at the first request. Whether its `fetch` follows
   * redirects, or asks for compression, is its own affair.
   */
  readonly client?: GeminiClient | undefined
  /** Default: the environment variable `GOOGLE_API_KEY`, else `GEMINI_API_KEY`. Vertex AI works without one. */
  readonly apiKey?: string | undefined
  /** Whether to use Vertex AI. Default: where `project` or `location` is set, or the environment says `GOOGLE_GENAI_USE_VERTEXAI=true`. */
  readonly vertexai?: boolean | undefined
  /** The Google Cloud project, for Vertex AI. Default: `GOOGLE_CLOUD_PROJECT`. */
  readonly project?: string | undefined
  /** The region, for Vertex AI. Default: `GOOGLE_CLOUD_LOCATION`, else `'global'`. */
  readonly location?: string | undefined
  /** E.g. `'v1beta'`. Default: the SDK's own. */
  readonly apiVersion?: string | undefined
  /** Default: the public service. */
  readonly baseURL?: string | undefined
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
   * Whether tool arguments are sent while they are written, which Vertex AI does and the Gemini API does not: there each call
   * comes whole. Default: on Vertex AI, from Gemini 3 on.
   */
  readonly streamToolArguments?: boolean | undefined
  /** Bounds on what is read. Default: those of `WireLimits`. */
  readonly limits?: WireLimits | undefined
}

const providerName = 'gemini'
const requestIdHeader = 'x-request-id'

const geminiOptions: readonly (keyof GeminiOptions)[] = [
  'model',
  'client',
  'apiKey',
  'vertexai',
  'project',
  'location',
  'apiVersion',
  'baseURL',
  'fetch',
  'transport',
  'headers',
  'streamToolArguments',
  'limits',
]

/**
 * Gemini through the Gemini API or Vertex AI. Where tool arguments would come in one piece, a forced call goes through JSON
 * text held to the tool's schema, unless the request says otherwise with `toolInput`.
 *
 * @throws UsageError where `model` is missing, or options contradict each other. A missing key or SDK is a `UsageError` of
 * the first request.
 *
 * @example
 * ```ts
 * import { StreamingLLMClient } from 'fieldstream'
 * import { gemini } from 'fieldstream/gemini'
 *
 * const client = new StreamingLLMClient({ provider: gemini({ model: 'gemini-2.5-flash' }) })
 * ```
 */
export function gemini(options: GeminiOptions): Provider {
  const clientFor = clientOf<GeminiClient, GeminiOptions>(options, {
    caller: 'gemini',
    exampleModel: 'gemini-2.5-flash',
    known: geminiOptions,
    makesClient: ['apiKey', 'vertexai', 'project', 'location', 'apiVersion', 'baseURL', 'fetch', 'transport'],
    isClient: (candidate) => typeof (candidate as Partial<GeminiClient>).models?.generateContentStream === 'function',
    clientExample: "new GoogleGenAI({ apiKey: '…' })",
    load: () => loadClient(options),
  })
  const { model, client, limits } = options
  if (options.vertexai === false && (options.project ?? options.location) !== undefined) {
    throw new UsageError('invalid_argument', 'gemini() got `project` or `location`, which only Vertex AI has.')
  }

  function answer(request: LLMRequest, { signal }: ProviderContext, streaming: boolean): StreamEvents {
    return fromBatches(() => {
      const warnings: LLMWarning[] = []
      return readSdkStream({
        provider: providerName,
        signal,
        limits,
        streaming,
        warnings,
        requestIdHeader,
        toReportedError,
        toBody: () => {
          const isVertex = client ? client.vertexai === true : usesVertex(options)
          const asked = streaming ? options : { ...options, streamToolArguments: false }
          return toParameters(request, asked, isVertex, warnings)
        },
        send: async (parameters) => send(await clientFor(), parameters, options, signal, streaming),
        createMapper: (requestId) => new GeminiEventMapper({ model, raw: request.raw, requestId, warnings }),
      })
    })
  }

  return {
    name: providerName,
    model,
    toolInput(request) {
      const isVertex = client ? client.vertexai === true : usesVertex(options)
      return !streamsArguments(options, isVertex) && canCallAsJson(request) ? 'json' : 'native'
    },
    stream: (request, context) => answer(request, context, true),
    generate: (request, context) => answer(request, context, false),
  }
}

/**
 * Maps the SDK's own stream, `await client.models.generateContentStream({ … })`, to events for a `ToolStreamAccumulator`. Set
 * `automaticContinuation: false`, else the SDK may hide a cut, and `abortSignal`, since leaving its stream closes nothing.
 *
 * @throws StreamError `stream_truncated` where the stream ends without a finish reason, which the SDK does not notice.
 *
 * @example
 * ```ts
 * import { GoogleGenAI } from '@google/genai'
 * import { ToolStreamAccumulator } from 'fieldstream'
 * import { toStreamEvents } from 'fieldstream/gemini'
 *
 * const accumulator = new ToolStreamAccumulator()
 * const sdkStream = await new GoogleGenAI({}).models.generateContentStream({
 *   model: 'gemini-2.5-flash',
 *   contents: 'Hello',
 * })
 * for await (const event of toStreamEvents(sdkStream)) accumulator.push(event)
 * console.log(accumulator.toolCalls)
 * ```
 */
export function toStreamEvents(stream: AsyncIterable<object>): StreamEvents {
  return mapSdkStream(stream, {
    caller: 'toStreamEvents',
    call: 'client.models.generateContentStream({ … })',
    restate: restated,
    provider: providerName,
    toReportedError,
    createMapper: () => new GeminiEventMapper({ model: '' }),
  })
}

function usesVertex({ vertexai, project, location }: GeminiOptions): boolean {
  const { GOOGLE_GENAI_USE_ENTERPRISE: enterprise, GOOGLE_GENAI_USE_VERTEXAI: vertex } = environment()
  return vertexai ?? ((project ?? location) !== undefined || (enterprise ?? vertex)?.toLowerCase() === 'true')
}

async function loadClient(options: GeminiOptions): Promise<GeminiClient> {
  const { project, location, apiVersion, baseURL, fetch } = options
  const isVertex = usesVertex(options)
  const { GOOGLE_API_KEY, GEMINI_API_KEY, GOOGLE_GEMINI_BASE_URL } = environment()
  let apiKey = options.apiKey
  if (!isVertex) {
    apiKey ??= GOOGLE_API_KEY || GEMINI_API_KEY
    const isOwnServer = Boolean(fetch || baseURL || GOOGLE_GEMINI_BASE_URL)
    apiKey = requireApiKey('gemini', 'Gemini', 'GEMINI_API_KEY', apiKey, isOwnServer)
  }
  const sdk = await loadSdk<{ GoogleGenAI: new (options: object) => GeminiClient }>(
    'gemini',
    '@google/genai@3',
    () => import('@google/genai'),
  )
  return new sdk.GoogleGenAI({
    vertexai: isVertex,
    ...(apiKey && { apiKey }),
    ...(project && { project }),
    ...(location && { location }),
    ...(apiVersion && { apiVersion }),
    ...(baseURL && { httpOptions: { baseUrl: baseURL } }),
  })
}

interface Parameters {
  readonly model: string
  readonly contents: readonly Json[]
  readonly config: Json
}

/** What is needed of an SDK client to take its `fetch` along. */
interface ApiClient {
  getFetch?(): typeof globalThis.fetch | undefined
  readonly clientOptions?: { readonly httpOptions?: { readonly retryOptions?: unknown } }
}

/**
 * Sends the request through the SDK, and hands out the response that its stream would read: the SDK's reading is slow, and does
 * not close a connection it leaves. Of a client that takes no `fetch`, the SDK's own stream.
 */
async function send(
  client: GeminiClient,
  { model, contents, config }: Parameters,
  options: GeminiOptions,
  signal: AbortSignal,
  streaming: boolean,
): Promise<{ call: PromiseLike<unknown> }> {
  const { apiClient } = client as { apiClient?: ApiClient }
  const baseFetch = options.client
    ? (apiClient?.getFetch?.bind(apiClient)() ?? globalThis.fetch)
    : guardedFetch(options)
  const { headers: ownHeaders, retryOptions: _, ...httpOptions } = (config['httpOptions'] ?? {}) as Json
  const method = streaming ? 'generateContentStream' : 'generateContent'
  if (!client.models[method])
    throw new UsageError('unsupported', `The \`client\` of gemini() has no \`models.${method}()\`.`)
  let hasSent = false
  const answer: { response?: Response } = {}
  const fetch: typeof globalThis.fetch = async (input, init) => {
    hasSent = true
    const response = await baseFetch(input, init)
    // Asked by the SDK, which would keep neither headers nor anything but a message that may quote the prompt.
    if (!response.ok) throw await toStatusError(response)
    answer.response = response
    // Where it does not stream, the SDK reads the response before it returns.
    return streaming ? response : new Response('{}', { headers: { 'content-type': 'application/json' } })
  }
  let given: unknown
  signal.throwIfAborted()
  try {
    given = await client.models[method]({
      model,
      contents,
      config: {
        ...config,
        abortSignal: signal,
        // One request is one call: anything else hides a cut, and a second bill.
        automaticContinuation: false,
        httpOptions: {
          ...httpOptions,
          headers: { ...options.headers, ...(ownHeaders as object | undefined) },
          ...(apiClient?.clientOptions?.httpOptions?.retryOptions !== undefined && { retryOptions: { attempts: 1 } }),
          ...(apiClient?.getFetch && { fetch }),
        },
      },
    } as never)
  } catch (error) {
    if (!hasSent && error instanceof Error && / (only|not) supported (in|for) /.test(error.message)) {
      throw new UsageError('unsupported', 'The SDK refuses an option of this request. See `cause`.', { cause: error })
    }
    if ((error as Error | undefined)?.name === 'AbortError' && !signal.aborted) {
      // The SDK has one name for both.
      throw new LLMTimeoutError('timeout', 'Gemini did not answer within the timeout that was set on its client.', {
        retryable: true,
        phase: 'connect',
      })
    }
    throw toApiError(error, false)
  }
  const { response } = answer
  if (response) return { call: Object.assign(Promise.resolve(given), { asResponse: () => Promise.resolve(response) }) }
  return { call: Promise.resolve(streaming ? restated(given as AsyncIterable<unknown>) : given) }
}

/** The same chunks; an error that the service reported is given in full. */
async function* restated(chunks: AsyncIterable<unknown>): AsyncGenerator<unknown, void, undefined> {
  try {
    yield* chunks
  } catch (error) {
    throw toApiError(error, true)
  }
}

/** The error for the SDK's `ApiError`, whose message holds the service's whole answer as JSON; anything else as it is. */
function toApiError(error: unknown, inStream: boolean): unknown {
  const { name, status, message } = (error ?? {}) as { name?: unknown; status?: unknown; message?: unknown }
  if (name !== 'ApiError' || typeof status !== 'number') return error
  return toServiceError(errorIn(String(message).replace(/^[^{]*/, '')), { status, inStream })
}

async function toStatusError({ status, headers, body }: Response): Promise<LLMError> {
  const requestId = headers.get(requestIdHeader) ?? undefined
  return toServiceError(errorIn(body ? await readText(body) : ''), { status, headers, requestId })
}

/** The error for `{ code, status, message }` that came after the response had begun. */
function toReportedError(error: unknown): LLMError {
  const { code, status } = toMembers(error)
  const known = typeof code === 'number' && code >= 400 ? code : errorStatuses.get(status)
  return toServiceError(error, { status: known ?? 500, inStream: true })
}

function toServiceError(
  error: unknown,
  facts: Pick<HttpFailure, 'status' | 'headers' | 'requestId' | 'inStream'>,
): LLMError {
  const { status: providerCode, details } = toMembers(error)
  const members = Array.isArray(details) ? details.map(toMembers) : []
  // The service answers a wrong key with 400.
  const code: ErrorCode | undefined = members.some(({ reason }) => reason === 'API_KEY_INVALID')
    ? 'authentication'
    : undefined
  const failure = toHttpError({
    ...facts,
    provider: providerName,
    code,
    providerCode: typeof providerCode === 'string' ? providerCode : undefined,
    providerMessage: messageIn(error),
  })
  const seconds = members
    .map(({ retryDelay }) => typeof retryDelay === 'string' && /^(\d+(?:\.\d+)?)s$/.exec(retryDelay)?.[1])
    .find((found) => typeof found === 'string')
  return describeError(failure, { retryAfterMs: seconds === undefined ? undefined : Number(seconds) * 1000 })
}

function toMembers(value: unknown): Json {
  return typeof value === 'object' && value !== null ? (value as Json) : {}
}

// ---------------------------------------------------------------------------------------------------------------- request

/** Begins the ids given to calls that came without one. They are not sent. */
const madeUpIdPrefix = 'gemini-call-'

function toParameters(
  request: LLMRequest,
  options: GeminiOptions,
  isVertex: boolean,
  warnings: LLMWarning[],
): Parameters {
  const { tools, output, reasoning } = request
  const { model } = options
  const own = request.providerOptions?.[providerName]
  if (typeof own?.['candidateCount'] === 'number' && own['candidateCount'] > 1) {
    throw new UsageError('unsupported', 'fieldstream reads one candidate: leave out `candidateCount`.')
  }
  const { instructions, conversation } = splitInstructions(request)
  const contents = toContents(conversation, model, warnings)
  if (contents.length === 0) {
    throw new UsageError('invalid_argument', 'Gemini needs a message with content that is no system message.')
  }
  const config: Json = toSettings(request, {
    maxTokens: 'maxOutputTokens',
    temperature: 'temperature',
    topP: 'topP',
    stop: 'stopSequences',
  })
  if (instructions.length > 0) config['systemInstruction'] = instructions.join('\n\n')
  if (reasoning) config['thinkingConfig'] = { includeThoughts: true, ...toThinking(reasoning, model) }
  if (output)
    Object.assign(config, {
      responseMimeType: 'application/json',
      responseJsonSchema: toResponseSchema(output, warnings),
    })
  if (tools && tools.length > 0) Object.assign(config, toTools(request, options, isVertex))
  return { model, contents, config: { ...config, ...own } }
}

/** Tokens that Google's own compatibility layer takes the efforts for, where a model has no levels. */
const effortBudgets = { low: 1024, medium: 8192, high: 24_576 }

/** The `3` of `gemini-3.1-pro-preview`, with or without a path before it. */
function generationOf(model: string): number | undefined {
  const [, generation] = /(?:^|\/)gemini-(\d+)/.exec(model) ?? []
  return generation === undefined ? undefined : Number(generation)
}

function toThinking(reasoning: NonNullable<LLMRequest['reasoning']>, model: string): Json {
  if ('budgetTokens' in reasoning) return { thinkingBudget: reasoning.budgetTokens }
  // Models before Gemini 3 refuse a level.
  if ((generationOf(model) ?? 3) < 3) return { thinkingBudget: effortBudgets[reasoning.effort] }
  return { thinkingLevel: reasoning.effort.toUpperCase() }
}

function streamsArguments({ streamToolArguments, model }: GeminiOptions, isVertex: boolean): boolean {
  return streamToolArguments ?? (isVertex && (generationOf(model) ?? 0) >= 3)
}

const enforced = new Set(['format', 'minItems', 'maxItems', 'minimum', 'maximum'])

/** What the API holds a model to (ai.google.dev, "Structured outputs"). It ignores the rest. */
const strictRules: StrictRules = {
  enforces: (keyword) => enforced.has(keyword),
  needsAllRequired: false,
  takesRecursion: true,
}

function toResponseSchema(output: OutputFormat, warnings: LLMWarning[]): JsonSchema {
  const { schema, description } = output
  const sent = strictSchemaFor(output, strictRules, 'Gemini', warnings) ?? schema
  // The API has no other place for a description.
  return description === undefined ? sent : { description, ...sent }
}

function toTools({ tools = [], toolChoice }: LLMRequest, options: GeminiOptions, isVertex: boolean): Json {
  const functionDeclarations: Json[] = []
  const others: Json[] = []
  for (const { name, description, inputSchema, definition } of tools) {
    const own = definition?.[providerName]
    // Google's own tools have no name, but a member each.
    if (own && typeof own['name'] !== 'string') others.push(own)
    else {
      functionDeclarations.push(
        own ?? { name, ...(description !== undefined && { description }), parametersJsonSchema: inputSchema },
      )
    }
  }
  const functionCallingConfig: Json = {}
  if (typeof toolChoice === 'object') {
    Object.assign(functionCallingConfig, { mode: 'ANY', allowedFunctionNames: [toolChoice.name] })
  } else if (toolChoice === 'none') functionCallingConfig['mode'] = 'NONE'
  else if (toolChoice === 'required') functionCallingConfig['mode'] = 'ANY'
  // What `ANY` always does, and `AUTO` never: keeping the model to the schema.
  else if (tools.some(({ strict }) => strict)) functionCallingConfig['mode'] = 'VALIDATED'
  else if (toolChoice === 'auto') functionCallingConfig['mode'] = 'AUTO'
  const isStreamed = streamsArguments(options, isVertex)
  if (isStreamed && !isVertex) {
    throw new UsageError(
      'unsupported',
      'Only Vertex AI streams tool arguments: leave out `streamToolArguments`, or set `vertexai`.',
    )
  }
  if (isStreamed && functionDeclarations.length > 0 && toolChoice !== 'none') {
    functionCallingConfig['streamFunctionCallArguments'] = true
  }
  return {
    tools: [...(functionDeclarations.length > 0 ? [{ functionDeclarations }] : []), ...others],
    ...(Object.keys(functionCallingConfig).length > 0 && { toolConfig: { functionCallingConfig } }),
  }
}

function toContents(messages: readonly Message[], model: string, warnings: LLMWarning[]): Json[] {
  const contents: { role: 'user' | 'model'; parts: Json[] }[] = []
  /** Results name the tool, which only the call may tell. */
  const toolNames = new Map<string, string>()
  let previous: Message['role'] | undefined
  for (const message of messages) {
    if (message.role === 'system') {
      throw new UsageError('unsupported', 'Gemini takes system messages only before all others.')
    }
    const parts =
      typeof message.content === 'string'
        ? message.content === ''
          ? []
          : [{ text: message.content }]
        : toParts(message.content, toolNames, warnings)
    // The API refuses an empty turn, which an answer may be.
    if (parts.length === 0) continue
    if (message.role === 'assistant' && (generationOf(model) ?? 3) >= 3) signCalls(parts)
    // Results of one turn's calls are one turn; what the user adds is another.
    if (message.role === 'tool' && previous === 'tool') contents.at(-1)!.parts.push(...parts)
    else contents.push({ role: message.role === 'assistant' ? 'model' : 'user', parts })
    previous = message.role
  }
  return contents
}

/**
 * Gemini 3 refuses a turn whose first call has no signature. One that it did not make itself (another provider's, or one that
 * came as JSON text) says so (ai.google.dev, "Thought signatures").
 */
function signCalls(parts: Json[]): void {
  const first = parts.findIndex((part) => 'functionCall' in part)
  if (first >= 0) parts[first] = { thoughtSignature: 'skip_thought_signature_validator', ...parts[first] }
}

function toParts(
  parts: Exclude<Message['content'], string>,
  toolNames: Map<string, string>,
  warnings: LLMWarning[],
): Json[] {
  const converted: Json[] = []
  for (const part of parts) {
    const own = part.type === 'provider' ? undefined : part.metadata?.[providerName]
    switch (part.type) {
      case 'text':
        // Empty text may carry a signature.
        if (part.text !== '' || own) converted.push({ text: part.text, ...own })
        break
      case 'image':
        converted.push({ ...toImage(part), ...own })
        break
      case 'reasoning':
        if (own) converted.push({ text: part.text, thought: true, ...own })
        else warnings.push(dropped('Reasoning that is not of gemini'))
        break
      case 'tool-call':
        checkInput(part)
        toolNames.set(part.toolCallId, part.toolName)
        converted.push({
          functionCall: { ...toWireId(part.toolCallId), name: part.toolName, args: part.input ?? {} },
          ...own,
        })
        break
      case 'tool-result': {
        const name = part.toolName ?? toolNames.get(part.toolCallId)
        if (name === undefined) {
          throw new UsageError(
            'invalid_argument',
            `Gemini needs the tool's name with a result: set \`toolName\` for call "${part.toolCallId}", or send the call.`,
          )
        }
        converted.push({
          functionResponse: {
            ...toWireId(part.toolCallId),
            name,
            response: { [part.isError ? 'error' : 'output']: toOutput(part) },
          },
          ...own,
        })
        break
      }
      case 'provider':
        if (part.provider === providerName) converted.push(part.value)
        else warnings.push(foreign(part.provider))
        break
    }
  }
  return converted
}

function toWireId(toolCallId: string): { id?: string } {
  return toolCallId.startsWith(madeUpIdPrefix) ? {} : { id: toolCallId }
}

function toOutput({ output, toolCallId }: ToolResultPart): unknown {
  // Here, and not when all is sent, it is known which call it was.
  toJsonText(output, `The output of tool call "${toolCallId}"`)
  return output ?? ''
}

const imageTypes: ReadonlyMap<unknown, string> = new Map(
  Object.entries({
    png: 'image/png',
    jpg: 'image/jpeg',
    jpeg: 'image/jpeg',
    webp: 'image/webp',
    gif: 'image/gif',
    heic: 'image/heic',
    heif: 'image/heif',
  } as const),
)

function toImage(part: ImagePart): Json {
  if ('url' in part) {
    const [, dataType, data] = /^data:([^;,]+);base64,(.*)$/s.exec(part.url) ?? []
    if (dataType !== undefined) return { inlineData: { mimeType: dataType, data } }
    const [, extension = ''] = /\.(\w+)(?:[?#].*)?$/s.exec(part.url) ?? []
    const mimeType = imageTypes.get(extension.toLowerCase())
    return { fileData: { fileUri: part.url, ...(mimeType && { mimeType }) } }
  }
  return {
    inlineData: {
      mimeType: part.mediaType,
      data: toBase64(part.data),
    },
  }
}

// ----------------------------------------------------------------------------------------------------------------- events

const finishReasons: ReadonlyMap<unknown, FinishReason> = new Map(
  Object.entries({
    STOP: 'stop',
    MAX_TOKENS: 'length',
    SAFETY: 'content-filter',
    RECITATION: 'content-filter',
    BLOCKLIST: 'content-filter',
    PROHIBITED_CONTENT: 'content-filter',
    SPII: 'content-filter',
    IMAGE_SAFETY: 'content-filter',
    IMAGE_PROHIBITED_CONTENT: 'content-filter',
    IMAGE_RECITATION: 'content-filter',
  } as const),
)

/** Reasons that say the model wrote something that is no call of a tool. */
const malformed = new Set([
  'MALFORMED_FUNCTION_CALL',
  'MALFORMED_RESPONSE',
  'UNEXPECTED_TOOL_CALL',
  'TOO_MANY_TOOL_CALLS',
])

/** HTTP statuses of the errors that may arrive inside a stream (google.rpc.Code). */
const errorStatuses: ReadonlyMap<unknown, number> = new Map(
  Object.entries({
    INVALID_ARGUMENT: 400,
    FAILED_PRECONDITION: 400,
    OUT_OF_RANGE: 400,
    UNAUTHENTICATED: 401,
    PERMISSION_DENIED: 403,
    NOT_FOUND: 404,
    ABORTED: 409,
    RESOURCE_EXHAUSTED: 429,
    CANCELLED: 499,
    INTERNAL: 500,
    UNAVAILABLE: 503,
    DEADLINE_EXCEEDED: 504,
  } as const),
)

/** A call whose arguments may still be coming. */
interface OpenCall {
  readonly toolCallId: string
  /** The service's own id. */
  readonly id: unknown
  readonly pieces: PartialArguments
  /** The other members of its parts: signatures. */
  metadata: Json
}

/** Maps `GenerateContentResponse`s, from our own decoding or the SDK's. */
class GeminiEventMapper extends EventMapper {
  #usage: Json = {}
  #finishReason: string | undefined
  #blockReason: string | undefined
  #responseId: string | undefined
  #calls = 0
  #call: OpenCall | undefined
  /** The kind of the part being written. */
  #writing: 'text' | 'reasoning' | undefined

  constructor(context: MapperContext) {
    super(providerName, context)
  }

  protected override map(chunk: Json, out: StreamEvent[]): void {
    const { error, candidates, promptFeedback, usageMetadata } = chunk
    if (error !== undefined && error !== null) throw toReportedError(error)
    const isAnswer = [candidates, promptFeedback, usageMetadata, chunk['responseId']].some(
      (member) => member !== undefined && member !== null,
    )
    // Something newer than this version, or somebody else's.
    if (!isAnswer) return
    this.#start(chunk, out)
    if (usageMetadata) this.#countTokens(toObject(providerName, usageMetadata, 'a count of tokens'), out)
    const { blockReason } = toMembers(promptFeedback)
    if (typeof blockReason === 'string') this.#blockReason = blockReason
    if (candidates === undefined || candidates === null) return
    if (!Array.isArray(candidates)) throw protocolError(providerName, 'the candidates are not a list')
    for (const member of candidates) {
      const candidate = toObject(providerName, member, 'a candidate')
      if (candidate['index'] === undefined || candidate['index'] === 0) this.#candidate(candidate, out)
    }
  }

  /** There is no last event: old models give a finish reason with each chunk. */
  protected override mapEnd(out: StreamEvent[]): void {
    const reason = this.#finishReason ?? this.#blockReason
    if (reason === undefined) return
    this.#endPart(out)
    const call = this.#call
    // The last call's end is sometimes missing, the finish reason never.
    if (call && reason === 'STOP' && !call.pieces.isInString) this.#endCall(call, out)
    const facts = { phase: 'finalize', provider: providerName, providerCode: reason } as const
    if (malformed.has(reason)) {
      throw new OutputError(
        'invalid_json',
        `The model called a tool in a way that cannot be used: ${reason}. Try again, or simplify the tool's schema.`,
        facts,
      )
    }
    const isBlocked = this.#finishReason === undefined
    const finishReason = isBlocked ? 'content-filter' : (finishReasons.get(reason) ?? 'other')
    if (finishReason === 'other' && this.#calls > 0) {
      throw new OutputError(
        'output_truncated',
        `The answer ended early, with ${reason}, so its tool calls are not known to be whole.`,
        facts,
      )
    }
    this.isFinished = true
    out.push({
      type: 'finish',
      finishReason: finishReason === 'stop' && this.#calls > 0 ? 'tool-calls' : finishReason,
      providerFinishReason: reason,
      usage: usageOf(this.#usage),
    })
  }

  #start({ responseId, modelVersion }: Json, out: StreamEvent[]): void {
    if (!this.hasStarted && typeof responseId === 'string') this.#responseId = responseId
    this.start(modelVersion, responseId, out)
  }

  /** Each chunk has running totals. Some say nothing of tokens, and some take back what one before said. */
  #countTokens(usage: Json, out: StreamEvent[]): void {
    this.#usage = 'totalTokenCount' in usage ? usage : { ...this.#usage, ...usage }
    out.push({ type: 'usage', usage: usageOf(this.#usage) })
  }

  #candidate({ content, finishReason }: Json, out: StreamEvent[]): void {
    if (content !== undefined && content !== null) {
      const { parts = [] } = toObject(providerName, content, 'the content')
      if (!Array.isArray(parts)) throw protocolError(providerName, 'the parts of an answer are not a list')
      for (const part of parts) this.#part(toObject(providerName, part, 'a part'), out)
    }
    if (typeof finishReason === 'string') this.#finishReason = finishReason
  }

  #part(part: Json, out: StreamEvent[]): void {
    if (part['functionCall'] !== undefined) this.#functionCall(part, out)
    else if (part['text'] !== undefined) this.#text(part, out)
    else if (Object.keys(part).length > 0) {
      // Server tools, their results, pictures, parts newer than this version: kept for the next turn.
      this.#endPart(out)
      out.push({ type: 'part', part: { type: 'provider', provider: providerName, value: part } })
    }
  }

  #text({ text, thought, ...rest }: Json, out: StreamEvent[]): void {
    const delta = toText(providerName, text, 'a text')
    const kind = thought === true ? 'reasoning' : 'text'
    const hasMetadata = Object.keys(rest).length > 0
    if (delta === '' && !hasMetadata) return
    // What has a signature must go back as the part it was.
    if (this.#writing !== kind || hasMetadata) this.#endPart(out)
    this.#writing = kind
    if (delta !== '') out.push({ type: kind === 'text' ? 'text-delta' : 'reasoning-delta', delta })
    if (hasMetadata) this.#endPart(out, rest)
  }

  #endPart(out: StreamEvent[], metadata: Json = {}): void {
    const kind = this.#writing
    if (!kind) return
    this.#writing = undefined
    out.push({
      type: 'part-end',
      kind,
      metadata: ownMetadata(providerName, kind === 'reasoning' ? { thought: true, ...metadata } : metadata),
    })
  }

  #functionCall({ functionCall, ...rest }: Json, out: StreamEvent[]): void {
    const { id, name, args, partialArgs = [], willContinue } = toObject(providerName, functionCall, 'a tool call')
    let call = this.#call
    const isNamed = name !== undefined && name !== ''
    if (isNamed && !(call && id !== undefined && id === call.id)) {
      if (call) {
        if (call.pieces.isInString)
          throw protocolError(providerName, 'a tool call began inside the arguments of another')
        this.#endCall(call, out)
      }
      call = this.#startCall(id, toText(providerName, name, 'the name of a tool'), out)
    }
    if (!Array.isArray(partialArgs)) throw protocolError(providerName, 'the pieces of arguments are not a list')
    if (!call) {
      if (args === undefined && partialArgs.length === 0) return
      throw protocolError(providerName, 'arguments came for a tool call that had not begun')
    }
    Object.assign(call.metadata, rest)
    const { toolCallId, pieces } = call
    const write = (delta: string): void => {
      if (delta !== '') out.push({ type: 'tool-input-delta', toolCallId, delta })
    }
    if (args !== undefined && args !== null) {
      if (pieces.hasBegun) throw protocolError(providerName, 'arguments came both in pieces and whole')
      write(JSON.stringify(toObject(providerName, args, 'the arguments of a tool call')))
    }
    for (const piece of partialArgs) write(pieces.write(toObject(providerName, piece, 'a piece of arguments')))
    if (willContinue !== true) this.#endCall(call, out)
  }

  #startCall(id: unknown, toolName: string, out: StreamEvent[]): OpenCall {
    this.#endPart(out)
    const number = ++this.#calls
    const toolCallId =
      typeof id === 'string' && id !== ''
        ? id
        : `${madeUpIdPrefix}${(this.#responseId ??= crypto.randomUUID())}-${number}`
    this.#call = { toolCallId, id, pieces: new PartialArguments(), metadata: {} }
    out.push({ type: 'tool-input-start', toolCallId, toolName })
    return this.#call
  }

  #endCall({ toolCallId, pieces, metadata }: OpenCall, out: StreamEvent[]): void {
    const delta = pieces.end()
    if (delta !== '') out.push({ type: 'tool-input-delta', toolCallId, delta })
    out.push({ type: 'tool-input-end', toolCallId, metadata: ownMetadata(providerName, metadata) })
    this.#call = undefined
  }
}

function usageOf(raw: Json): Usage {
  const { thoughtsTokenCount: reasoningTokens } = raw
  const counts = {
    inputTokens: count(raw['promptTokenCount']) + count(raw['toolUsePromptTokenCount']),
    outputTokens: count(raw['candidatesTokenCount']) + count(reasoningTokens),
    cacheReadTokens: count(raw['cachedContentTokenCount']),
    reasoningTokens,
  }
  return toUsage(counts, raw)
}

/** An object or a list whose end has not been written. */
interface Container {
  readonly isList: boolean
  /** Members written. */
  length: number
  readonly keys: Set<string>
}

type Step = string | number

/**
 * Writes Vertex AI's pieces of arguments, `{ jsonPath, stringValue, willContinue }`, as JSON text: what a piece brings is written
 * at once, and what it stands in is closed when a later piece stands outside.
 */
class PartialArguments {
  readonly #containers: Container[] = []
  /** The steps to the innermost container. */
  #steps: Step[] = []
  /** The path of the string being written. */
  #string: string | undefined
  #closedString: string | undefined

  get hasBegun(): boolean {
    return this.#containers.length > 0
  }

  get isInString(): boolean {
    return this.#string !== undefined
  }

  /** The text that one piece adds. */
  write(piece: Json): string {
    const path = toText(providerName, piece['jsonPath'], 'the path of a piece of arguments')
    const { stringValue, willContinue } = piece
    if (this.#string === path) {
      const text = escaped(toText(providerName, stringValue ?? '', 'a piece of a string'))
      return willContinue === true ? text : text + this.#closeString()
    }
    let text = this.#closeString()
    // An end that comes once more.
    if (stringValue === '' && path === this.#closedString) return text
    const value = toValueText(piece)
    if (value === undefined) {
      if (willContinue === true) return text
      throw protocolError(providerName, 'a piece of arguments has no value')
    }
    text += this.#enter(toSteps(path)) + value
    if (stringValue !== undefined) {
      this.#string = path
      if (willContinue !== true) text += this.#closeString()
    }
    return text
  }

  /** The text that completes the arguments. */
  end(): string {
    return this.#closeString() + this.#leave(0)
  }

  #closeString(): string {
    if (this.#string === undefined) return ''
    this.#closedString = this.#string
    this.#string = undefined
    return '"'
  }

  /** Leaves containers that `steps` does not lead through, opens those it does, and names the member. */
  #enter(steps: readonly Step[]): string {
    let text = ''
    if (!this.hasBegun) text += this.#open(steps[0]!)
    let common = 0
    while (common < this.#steps.length && common < steps.length - 1 && this.#steps[common] === steps[common]) common++
    text += this.#leave(common + 1)
    for (let i = common; i < steps.length; i++) {
      text += this.#member(steps[i]!)
      if (i < steps.length - 1) {
        text += this.#open(steps[i + 1]!)
        this.#steps.push(steps[i]!)
      }
    }
    return text
  }

  #open(step: Step): string {
    const isList = typeof step === 'number'
    this.#containers.push({ isList, length: 0, keys: new Set() })
    return isList ? '[' : '{'
  }

  /** Closes all but the outermost `depth` containers. */
  #leave(depth: number): string {
    let text = ''
    while (this.#containers.length > depth) text += this.#containers.pop()!.isList ? ']' : '}'
    this.#steps.length = Math.max(0, Math.min(this.#steps.length, depth - 1))
    return text
  }

  #member(step: Step): string {
    const container = this.#containers.at(-1)!
    const isNext =
      typeof step === 'number'
        ? container.isList && step === container.length
        : !container.isList && !container.keys.has(step)
    // What is written cannot be changed.
    if (!isNext) throw protocolError(providerName, 'the pieces of arguments are out of order')
    const comma = container.length++ > 0 ? ',' : ''
    if (typeof step === 'number') return comma
    container.keys.add(step)
    return `${comma}${JSON.stringify(step)}:`
  }
}

/** A string's inside in JSON. Half a surrogate pair becomes an escape, which its other half completes. */
function escaped(text: string): string {
  return JSON.stringify(text).slice(1, -1)
}

/** The value of a piece as text, that of a string without its end; `undefined` where there is none. */
function toValueText({ stringValue, numberValue, boolValue, nullValue }: Json): string | undefined {
  if (stringValue !== undefined) return `"${escaped(toText(providerName, stringValue, 'a piece of a string'))}`
  if (typeof numberValue === 'number' || typeof boolValue === 'boolean') return String(numberValue ?? boolValue)
  return nullValue === undefined ? undefined : 'null'
}

const stepPattern = /\.([^.[\]]+)|\[(\d+)\]|\['((?:[^'\\]|\\.)*)'\]|\["((?:[^"\\]|\\.)*)"\]/y

/** The steps of a path that names one place (RFC 9535, "normalized" or with dots). */
function toSteps(path: string): Step[] {
  const steps: Step[] = []
  let end = 1
  while (path.startsWith('$') && end < path.length) {
    stepPattern.lastIndex = end
    const match = stepPattern.exec(path)
    if (!match) break
    const [, name, index, single, double] = match
    steps.push(index === undefined ? (name ?? unescaped(single ?? double ?? '')) : Number(index))
    end = stepPattern.lastIndex
    if (end === path.length && typeof steps[0] === 'string') return steps
  }
  throw protocolError(providerName, 'the path of a piece of arguments cannot be read')
}

/** A quoted name's text: JSON's escapes, and those of quotes. */
function unescaped(text: string): string {
  try {
    return JSON.parse(
      `"${text.replace(/\\.|"/gs, (found) => (found === '"' ? '\\"' : found === "\\'" ? "'" : found))}"`,
    ) as string
  } catch {
    throw protocolError(providerName, 'the path of a piece of arguments cannot be read')
  }
}
