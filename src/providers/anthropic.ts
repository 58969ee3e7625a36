/**
 * Claude. Needs `@anthropic-ai/sdk`.
 *
 * @module fieldstream/anthropic
 */

import { type LLMError, UsageError } from '../errors.ts'
import type { FinishReason, StreamEvent, Usage } from '../events.ts'
import { fromBatches, type Provider, type ProviderContext, type StreamEvents } from '../provider.ts'
import {
  canCallAsJson,
  type ImagePart,
  type LLMRequest,
  type LLMWarning,
  type Message,
  type OutputFormat,
  type ToolChoice,
} from '../request.ts'
import type { JsonSchema } from '../schema.ts'
import type { Tool } from '../tool.ts'
import {
  EventMapper,
  type Json,
  type MapperContext,
  missingCall,
  protocolError,
  toObject,
  toText,
} from '../wire/event-mapper.ts'
import type { WireLimits } from '../wire/event-reader.ts'
import { guardedFetch } from '../wire/guarded-fetch.ts'
import {
  checkInput,
  dropped,
  foreign,
  ownMetadata,
  splitInstructions,
  toBase64,
  toOutputInstruction,
  toResultText,
  toSettings,
  unstreamed,
} from '../wire/request-body.ts'
import { clientOf, environment, loadSdk, requireApiKey } from '../wire/sdk-client.ts'
import { mapSdkStream, readSdkStream } from '../wire/sdk-stream.ts'
import { type StrictRules, strictSchemaFor } from '../wire/strict-schema.ts'
import { messageIn, toHttpError } from '../wire/transport-errors.ts'
import { count, toUsage } from '../wire/usage.ts'

export type { WireLimits }

/** Any client of the official SDKs: `Anthropic`, `AnthropicBedrock`, `AnthropicVertex`, `AnthropicFoundry` … */
export interface AnthropicClient {
  /** The SDK's own. */
  readonly messages: { create(body: never, options?: never): PromiseLike<unknown> }
  /** Used instead of `messages.create()` where it is there: it takes fields that the SDK does not know yet. */
  post?(path: string, options?: never): PromiseLike<unknown>
}

/** Which Claude to ask, and how to reach it. */
export interface AnthropicOptions {
  /** E.g. `'claude-sonnet-4-5'`; passed on as it is. */
  readonly model: string
  /**
   * An SDK client that is already set up. Without one, `@anthropic-ai/sdk` is loaded at the first request. Its `fetch` stays as
   * it is, so that redirects, compression and the length of error bodies are its own affair.
   */
  readonly client?: AnthropicClient | undefined
  /** Default: the environment variable `ANTHROPIC_API_KEY`. */
  readonly apiKey?: string | undefined
  /** Default: `ANTHROPIC_BASE_URL`, else the public service. */
  readonly baseURL?: string | undefined
  /** Used instead of the global `fetch`, for proxies and tests. */
  readonly fetch?: typeof globalThis.fetch | undefined
  /**
   * `'node'` sends requests with Node's own HTTP client and its global agents, not with `fetch`: less CPU for each event where many
   * answers stream at once, but other settings for proxies and TLS. A `fetch` given here goes before. Default `'fetch'`.
   */
  readonly transport?: 'fetch' | 'node' | undefined
  /** Sent with every request, e.g. `{ 'anthropic-beta': '…' }`. */
  readonly headers?: Readonly<Record<string, string>> | undefined
  /** Tokens to generate at most where a request does not say; the API requires a number. Default 8192, beside a budget for reasoning. */
  readonly maxTokens?: number | undefined
  /** Whether tool arguments are sent while they are written, not value by value. Turn it off for gateways that refuse the flag. Default true. */
  readonly eagerInputStreaming?: boolean | undefined
  /**
   * Whether the model can be made to call a tool. Set it to false for models that refuse: a forced call then goes through
   * JSON text, unless the request says otherwise with `toolInput`. Default true.
   */
  readonly forcedTools?: boolean | undefined
  /** Bounds on what is read. Default: those of `WireLimits`. */
  readonly limits?: WireLimits | undefined
}

const providerName = 'anthropic'

const anthropicOptions: readonly (keyof AnthropicOptions)[] = [
  'model',
  'client',
  'apiKey',
  'baseURL',
  'fetch',
  'transport',
  'headers',
  'maxTokens',
  'eagerInputStreaming',
  'forcedTools',
  'limits',
]

/**
 * Claude through the Messages API.
 *
 * @throws UsageError where `model` is missing, or `client` comes with options that only a client made here would use. A
 * missing key or SDK is a `UsageError` of the first request.
 *
 * @example
 * ```ts
 * import { StreamingLLMClient } from 'fieldstream'
 * import { anthropic } from 'fieldstream/anthropic'
 *
 * const client = new StreamingLLMClient({ provider: anthropic({ model: 'claude-sonnet-4-5' }) })
 * ```
 */
export function anthropic(options: AnthropicOptions): Provider {
  const clientFor = clientOf<AnthropicClient, AnthropicOptions>(options, {
    caller: 'anthropic',
    exampleModel: 'claude-sonnet-4-5',
    known: anthropicOptions,
    makesClient: ['apiKey', 'baseURL', 'fetch', 'transport'],
    isClient: (client) => typeof (client as Partial<AnthropicClient>).messages?.create === 'function',
    clientExample: 'new Anthropic()',
    load: () => loadClient(options),
  })
  const { model, headers, limits } = options
  if (options.maxTokens !== undefined && !(Number.isInteger(options.maxTokens) && options.maxTokens > 0)) {
    throw new UsageError('invalid_argument', '`maxTokens` of anthropic() must be a positive whole number.')
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
        requestIdHeader: 'request-id',
        toReportedError,
        toBody: () => toRequestBody(request, options, warnings),
        send: async (body) => {
          const sent = streaming ? body : unstreamed(body)
          return { call: send(await clientFor(), sent, { signal, maxRetries: 0, ...(headers && { headers }) }) }
        },
        createMapper: (requestId) => new AnthropicEventMapper({ model, raw: request.raw, requestId, warnings }),
      })
    })
  }

  return {
    name: providerName,
    model,
    toolInput(request) {
      const isRefused = request.reasoning !== undefined || options.forcedTools === false
      return isRefused && canCallAsJson(request) ? 'json' : 'native'
    },
    stream: (request, context) => answer(request, context, true),
    generate: (request, context) => answer(request, context, false),
  }
}

/**
 * Maps the SDK's raw stream, `await client.messages.create({ …, stream: true })`, to events for a `ToolStreamAccumulator`.
 *
 * @throws StreamError `stream_truncated` where the stream ends without `message_stop`, which the SDK does not notice.
 *
 * @example
 * ```ts
 * import Anthropic from '@anthropic-ai/sdk'
 * import { ToolStreamAccumulator } from 'fieldstream'
 * import { toStreamEvents } from 'fieldstream/anthropic'
 *
 * const accumulator = new ToolStreamAccumulator()
 * const sdkStream = await new Anthropic().messages.create({
 *   model: 'claude-haiku-4-5',
 *   max_tokens: 1000,
 *   messages: [{ role: 'user', content: 'Hello' }],
 *   stream: true,
 * })
 * for await (const event of toStreamEvents(sdkStream)) accumulator.push(event)
 * console.log(accumulator.toolCalls)
 * ```
 */
export function toStreamEvents(stream: AsyncIterable<{ readonly type: string }>): StreamEvents {
  return mapSdkStream(stream, {
    caller: 'toStreamEvents',
    call: 'client.messages.create({ …, stream: true })',
    provider: providerName,
    toReportedError,
    createMapper: () => new AnthropicEventMapper({ model: '' }),
  })
}

async function loadClient({ apiKey, baseURL, fetch, transport }: AnthropicOptions): Promise<AnthropicClient> {
  const { ANTHROPIC_API_KEY, ANTHROPIC_BASE_URL } = environment()
  const isOwnServer = Boolean(fetch || baseURL || ANTHROPIC_BASE_URL)
  const key = requireApiKey('anthropic', 'Anthropic', 'ANTHROPIC_API_KEY', apiKey ?? ANTHROPIC_API_KEY, isOwnServer)
  const sdk = await loadSdk<{ Anthropic: new (options: object) => AnthropicClient }>(
    'anthropic',
    '@anthropic-ai/sdk@1',
    () => import('@anthropic-ai/sdk'),
  )
  return new sdk.Anthropic({ apiKey: key, ...(baseURL && { baseURL }), fetch: guardedFetch({ fetch, transport }) })
}

/** Sends the request as `messages.create()` does, but for its warnings about models, which it prints to the console. */
function send(client: AnthropicClient, body: Json, options: Json): PromiseLike<unknown> {
  return client.post
    ? client.post('/v1/messages', { ...options, body, stream: body['stream'] } as never)
    : client.messages.create(body as never, options as never)
}

/** The error for `{ type, message }` that came after the response had begun. */
function toReportedError(error: unknown): LLMError {
  const { type } = (error ?? {}) as Json
  const providerCode = typeof type === 'string' ? type : undefined
  return toHttpError({
    provider: providerName,
    status: errorStatuses.get(providerCode) ?? 500,
    providerCode,
    providerMessage: messageIn(error),
    inStream: true,
  })
}

// ---------------------------------------------------------------------------------------------------------------- request

function toRequestBody(request: LLMRequest, options: AnthropicOptions, warnings: LLMWarning[]): Json {
  const { tools, toolChoice, output, reasoning } = request
  const { instructions, conversation } = splitInstructions(request)
  const outputSchema = output && strictSchemaFor(output, strictRules, 'Anthropic', warnings)
  if (output && !outputSchema) instructions.push(toOutputInstruction(output))
  const forced = toolChoice === 'required' || typeof toolChoice === 'object'
  if (reasoning && forced) {
    throw new UsageError(
      'unsupported',
      "Anthropic does not think when a tool is forced natively: leave out `reasoning`, or `toolInput: 'native'` where one tool is forced, or set `toolChoice: 'auto'`.",
    )
  }
  const body: Json = {
    model: options.model,
    max_tokens: toMaxTokens(request, options),
    messages: toMessages(conversation, warnings),
    stream: true,
    ...toSettings(request, { temperature: 'temperature', topP: 'top_p', stop: 'stop_sequences' }),
  }
  if (instructions.length > 0) body['system'] = instructions.join('\n\n')
  if (reasoning) body['thinking'] = toThinking(reasoning)
  const outputConfig = {
    ...(reasoning && 'effort' in reasoning && { effort: reasoning.effort }),
    ...(outputSchema && { format: toFormat(outputSchema, output) }),
  }
  if (Object.keys(outputConfig).length > 0) body['output_config'] = outputConfig
  if (tools && tools.length > 0) {
    body['tools'] = tools.map((tool) => toTool(tool, options.eagerInputStreaming ?? true))
    if (toolChoice !== undefined) body['tool_choice'] = toToolChoice(toolChoice)
  }
  return { ...body, ...request.providerOptions?.[providerName] }
}

/** Thinking counts towards the bound, so that a budget has to leave room for the answer. */
function toMaxTokens({ maxTokens, reasoning }: LLMRequest, options: AnthropicOptions): number {
  const bound = maxTokens ?? options.maxTokens
  if (!reasoning || !('budgetTokens' in reasoning)) return bound ?? 8192
  const { budgetTokens } = reasoning
  if (budgetTokens < 1024 || (bound !== undefined && bound <= budgetTokens)) {
    throw new UsageError(
      'unsupported',
      'Anthropic takes a `budgetTokens` of at least 1024 and less than `maxTokens`, which bounds thinking and answer together.',
    )
  }
  return bound ?? budgetTokens + 8192
}

function toThinking(reasoning: NonNullable<LLMRequest['reasoning']>): Json {
  return 'budgetTokens' in reasoning ? { type: 'enabled', budget_tokens: reasoning.budgetTokens } : { type: 'adaptive' }
}

const formats = ['date-time', 'time', 'date', 'duration', 'email', 'hostname', 'uri', 'ipv4', 'ipv6', 'uuid']

/** What the API's structured outputs enforce, as the SDK's own helper has it (`transformJSONSchema`). */
const strictRules: StrictRules = {
  enforces: (keyword, value) =>
    (keyword === 'format' && formats.includes(value as string)) ||
    (keyword === 'minItems' && (value === 0 || value === 1)),
  needsAllRequired: false,
  takesRecursion: false,
}

function toFormat(schema: JsonSchema, { description }: OutputFormat): Json {
  // The API has no other place for a description.
  return { type: 'json_schema', schema: description === undefined ? schema : { description, ...schema } }
}

function toTool(tool: Tool, eager: boolean): Json {
  const { name, description, inputSchema: schema, strict, definition } = tool
  return (
    definition?.[providerName] ?? {
      name,
      input_schema: (strict && strictSchemaFor({ schema, strict }, strictRules, 'Anthropic', [])) || schema,
      ...(description !== undefined && { description }),
      ...(strict !== undefined && { strict }),
      // Without it each value arrives at once when it is complete.
      ...(eager && { eager_input_streaming: true }),
    }
  )
}

function toToolChoice(choice: ToolChoice): Json {
  if (typeof choice === 'object') return { type: 'tool', name: choice.name }
  return { type: choice === 'required' ? 'any' : choice }
}

function toMessages(messages: readonly Message[], warnings: LLMWarning[]): Json[] {
  const converted: { role: string; content: string | Json[] }[] = []
  let previous: Message['role'] | undefined
  for (const message of messages) {
    const content = typeof message.content === 'string' ? message.content : toBlocks(message.content, warnings)
    const last = converted.at(-1)
    const isUsers = message.role === 'tool' || message.role === 'user'
    if (previous === 'tool' && isUsers && last && Array.isArray(last.content)) {
      // Results, and what the user adds to them, are one turn.
      last.content.push(...(typeof content === 'string' ? [{ type: 'text', text: content }] : content))
    } else if (message.role !== 'assistant' || content.length > 0) {
      // The API refuses an empty turn, which an answer may be.
      previous = message.role
      converted.push({ role: message.role === 'tool' ? 'user' : message.role, content })
    }
  }
  return converted
}

function toBlocks(parts: Exclude<Message['content'], string>, warnings: LLMWarning[]): Json[] {
  const blocks: Json[] = []
  for (const part of parts) {
    const kept = part.type === 'provider' ? undefined : part.metadata?.[providerName]
    switch (part.type) {
      case 'text':
        // The API refuses empty text, which an answer that only calls tools may hold.
        if (part.text !== '') blocks.push({ type: 'text', text: part.text, ...kept })
        break
      case 'image':
        blocks.push({ type: 'image', source: toImageSource(part), ...kept })
        break
      case 'reasoning':
        if (kept?.['signature']) blocks.push({ type: 'thinking', thinking: part.text, ...kept })
        else warnings.push(dropped('Reasoning without a signature of anthropic'))
        break
      case 'tool-call':
        checkInput(part)
        blocks.push({ type: 'tool_use', id: part.toolCallId, name: part.toolName, input: part.input, ...kept })
        break
      case 'tool-result':
        blocks.push({
          type: 'tool_result',
          tool_use_id: part.toolCallId,
          content: toResultText(part),
          ...(part.isError && { is_error: true }),
          ...kept,
        })
        break
      case 'provider':
        if (part.provider === providerName) blocks.push(part.value)
        else warnings.push(foreign(part.provider))
        break
    }
  }
  return blocks
}

function toImageSource(part: ImagePart): Json {
  if ('url' in part) return { type: 'url', url: part.url }
  return {
    type: 'base64',
    media_type: part.mediaType,
    data: toBase64(part.data),
  }
}

// ----------------------------------------------------------------------------------------------------------------- events

const finishReasons: ReadonlyMap<unknown, FinishReason> = new Map(
  Object.entries({
    end_turn: 'stop',
    stop_sequence: 'stop',
    max_tokens: 'length',
    model_context_window_exceeded: 'length',
    tool_use: 'tool-calls',
    refusal: 'refusal',
    pause_turn: 'pause',
    compaction: 'pause',
  } as const),
)

/** HTTP statuses of the errors that may arrive inside a stream. */
const errorStatuses: ReadonlyMap<unknown, number> = new Map(
  Object.entries({
    invalid_request_error: 400,
    authentication_error: 401,
    billing_error: 402,
    permission_error: 403,
    not_found_error: 404,
    request_too_large: 413,
    rate_limit_error: 429,
    api_error: 500,
    timeout_error: 504,
    overloaded_error: 529,
  } as const),
)

/** What the model writes itself; other blocks are of the service's own tools. */
const ownBlocks = new Set<unknown>(['text', 'thinking', 'tool_use'])

/** An open content block. `json` is what `input_json_delta`s brought so far. */
interface Block {
  readonly content: Json
  json: string
}

/** Maps `RawMessageStreamEvent`s, from our own decoding or an SDK's. */
class AnthropicEventMapper extends EventMapper {
  readonly #blocks = new Map<unknown, Block>()
  #usage: Json = {}
  #stopReason: string | undefined
  #explanation: string | undefined
  #hasCalls = false

  constructor(context: MapperContext) {
    super(providerName, context)
  }

  protected override map(event: Json, out: StreamEvent[]): void {
    switch (event['type']) {
      case 'message_start': {
        if (this.hasStarted) throw protocolError(providerName, 'a second answer began')
        const { id, model, usage } = toObject(providerName, event['message'], 'a message')
        this.start(model, id, out)
        this.#mergeUsage(usage, out)
        return
      }
      case 'content_block_start':
        this.#start(event['index'], toObject(providerName, event['content_block'], 'a content block'), out)
        return
      case 'content_block_delta':
        this.#delta(this.#block(event['index']), toObject(providerName, event['delta'], 'a delta'), out)
        return
      case 'content_block_stop': {
        const block = this.#block(event['index'])
        this.#blocks.delete(event['index'])
        this.#stop(block, out)
        return
      }
      case 'message_delta': {
        const { stop_reason: reason, stop_details: details } = toObject(providerName, event['delta'], 'a delta')
        if (typeof reason === 'string') this.#stopReason = reason
        const { explanation } = (details ?? {}) as Json
        if (typeof explanation === 'string') this.#explanation = explanation
        this.#mergeUsage(event['usage'], out)
        return
      }
      case 'message_stop':
        this.#finish(out)
        return
      case 'message':
        for (const part of eventsOf(event)) this.map(part, out)
        return
      case 'error':
        throw toReportedError(event['error'])
      default:
      // `ping`, and events newer than this version, which the API asks clients to ignore.
    }
  }

  #block(index: unknown): Block {
    const block = this.#blocks.get(index)
    if (!block) throw protocolError(providerName, 'something arrived for a content block that is not open')
    return block
  }

  #start(index: unknown, content: Json, out: StreamEvent[]): void {
    if (this.#blocks.has(index)) throw protocolError(providerName, 'a content block began twice')
    this.#blocks.set(index, { content: { ...content }, json: '' })
    switch (content['type']) {
      // What a start already holds is a first delta.
      case 'text':
        this.#text('text-delta', content['text'] ?? '', out)
        return
      case 'thinking':
        this.#text('reasoning-delta', content['thinking'] ?? '', out)
        return
      case 'tool_use':
        this.#hasCalls = true
        out.push({
          type: 'tool-input-start',
          toolCallId: toText(providerName, content['id'], 'the id of a tool call'),
          toolName: toText(providerName, content['name'], 'the name of a tool'),
        })
    }
  }

  #text(type: 'text-delta' | 'reasoning-delta', text: unknown, out: StreamEvent[]): void {
    const delta = toText(providerName, text, 'a text')
    if (delta !== '') out.push({ type, delta })
  }

  #delta(block: Block, delta: Json, out: StreamEvent[]): void {
    const { content } = block
    switch (delta['type']) {
      case 'text_delta':
        this.#text('text-delta', delta['text'], out)
        return
      case 'thinking_delta':
        this.#text('reasoning-delta', delta['thinking'], out)
        return
      case 'input_json_delta': {
        const json = toText(providerName, delta['partial_json'], 'a piece of arguments')
        if (json === '') return
        block.json += json
        if (content['type'] === 'tool_use')
          out.push({ type: 'tool-input-delta', toolCallId: content['id'] as string, delta: json })
        return
      }
      case 'citations_delta':
        content['citations'] = [...((content['citations'] as unknown[] | null | undefined) ?? []), delta['citation']]
        return
      default:
        // `signature_delta`, `compaction_delta` and what is newer: each member continues the block's member of that name.
        for (const [name, value] of Object.entries(delta)) {
          if (name === 'type') continue
          const before = Object.hasOwn(content, name) ? content[name] : undefined
          Object.defineProperty(content, name, {
            value: typeof before === 'string' && typeof value === 'string' ? before + value : value,
            enumerable: true,
            configurable: true,
            writable: true,
          })
        }
    }
  }

  #stop({ content, json }: Block, out: StreamEvent[]): void {
    switch (content['type']) {
      case 'text': {
        const { type: _, text: __, ...rest } = content
        out.push({ type: 'part-end', kind: 'text', metadata: ownMetadata(providerName, rest) })
        return
      }
      case 'thinking': {
        const { type: _, thinking: __, ...rest } = content
        out.push({ type: 'part-end', kind: 'reasoning', metadata: ownMetadata(providerName, rest) })
        return
      }
      case 'tool_use': {
        const { type: _, id, name: __, input, ...rest } = content
        const toolCallId = id as string
        // A call made from within code execution comes whole with its start.
        if (json === '' && Object.keys((input as object | null | undefined) ?? {}).length > 0) {
          out.push({ type: 'tool-input-delta', toolCallId, delta: JSON.stringify(input) })
        }
        out.push({ type: 'tool-input-end', toolCallId, metadata: ownMetadata(providerName, rest) })
        return
      }
      default: {
        // Server tools, their results, redacted thinking, blocks newer than this version: kept for the next turn.
        let value = content
        if (json !== '') {
          try {
            value = { ...content, input: JSON.parse(json) as unknown }
          } catch {
            out.push(cutBlock)
            return
          }
        }
        out.push({ type: 'part', part: { type: 'provider', provider: providerName, value } })
      }
    }
  }

  #finish(out: StreamEvent[]): void {
    const reason = this.#stopReason
    if (reason === undefined) throw protocolError(providerName, 'the answer ended without a stop reason')
    const finishReason = finishReasons.get(reason) ?? 'other'
    if (finishReason === 'tool-calls' && !this.#hasCalls) throw missingCall(providerName)
    for (const { content } of this.#blocks.values()) {
      // A token limit may cut a block that then never stops; nothing else may.
      if (finishReason !== 'length') throw protocolError(providerName, 'the answer ended inside a content block')
      if (!ownBlocks.has(content['type'])) out.push(cutBlock)
    }
    this.isFinished = true
    const usage = usageOf(this.#usage)
    out.push({ type: 'finish', finishReason, providerFinishReason: reason, usage, explanation: this.#explanation })
  }

  /** `message_delta` repeats running totals, so what is there replaces what was. */
  #mergeUsage(usage: unknown, out: StreamEvent[]): void {
    for (const [name, value] of Object.entries((usage ?? {}) as Json)) if (value !== null) this.#usage[name] = value
    out.push({ type: 'usage', usage: usageOf(this.#usage) })
  }
}

/** The events that a whole message would have come in. */
function* eventsOf({ content, stop_reason: reason, stop_details: details, ...message }: Json): Generator<Json> {
  yield { type: 'message_start', message }
  if (!Array.isArray(content)) throw protocolError(providerName, 'the content of a message is not a list')
  for (const [index, item] of content.entries()) {
    const block = toObject(providerName, item, 'a content block')
    const isCall = block['type'] === 'tool_use'
    yield { type: 'content_block_start', index, content_block: isCall ? { ...block, input: {} } : block }
    if (isCall) {
      const partial_json = JSON.stringify(block['input'] ?? {})
      yield { type: 'content_block_delta', index, delta: { type: 'input_json_delta', partial_json } }
    }
    // A server tool's call that a token limit may have cut stays open, as it does in a stream.
    const mayBeCut = finishReasons.get(reason) === 'length' && index === content.length - 1
    if (!mayBeCut || ownBlocks.has(block['type'])) yield { type: 'content_block_stop', index }
  }
  yield { type: 'message_delta', delta: { stop_reason: reason, stop_details: details }, usage: message['usage'] }
  yield { type: 'message_stop' }
}

/** Said of a server tool's call that a token limit cut: without its input it cannot be sent back. */
const cutBlock: StreamEvent = {
  type: 'warning',
  warning: { code: 'dropped-content', message: 'A server tool call was cut and is left out of `messages`.' },
}

function usageOf(raw: Json): Usage {
  const cacheReadTokens = count(raw['cache_read_input_tokens'])
  const cacheWriteTokens = count(raw['cache_creation_input_tokens'])
  // Anthropic's `input_tokens` are those after the last cache point only.
  const inputTokens = count(raw['input_tokens']) + cacheReadTokens + cacheWriteTokens
  const outputTokens = count(raw['output_tokens'])
  const reasoningTokens = (raw['output_tokens_details'] as Json | undefined)?.['thinking_tokens']
  return toUsage({ inputTokens, outputTokens, cacheReadTokens, cacheWriteTokens, reasoningTokens }, raw)
}
