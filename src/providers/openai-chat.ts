import { UsageError } from '../errors.ts'
import type { FinishReason, StreamEvent, Usage } from '../events.ts'
import { fromBatches, type Provider, type ProviderContext, type StreamEvents } from '../provider.ts'
import type { LLMRequest, LLMWarning, Message, OutputFormat, ToolChoice } from '../request.ts'
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
import { mapSdkStream, readSdkStream } from '../wire/sdk-stream.ts'
import { ThinkTagSplitter } from '../wire/think-tags.ts'
import {
  dropped,
  foreign,
  ownMetadata,
  toInputText,
  toOutputInstruction,
  toSettings,
  unstreamed,
} from '../wire/request-body.ts'
import { clientOf } from '../wire/sdk-client.ts'
import { count, toUsage } from '../wire/usage.ts'
import {
  CallInput,
  connectionOptions,
  loadClient,
  makesClient,
  toOutputText,
  checkReasoning,
  type OpenAIConnection,
  ownDefinition,
  setOwn,
  toCustomInput,
  toImageUrl,
  toJsonFormat,
  toParameters,
  toReportedError,
} from './openai-connection.ts'

/** Any client of the official SDK with Chat Completions. */
export interface OpenAIChatClient {
  /** The SDK's own. */
  readonly chat: { readonly completions: { create(body: never, options?: never): PromiseLike<unknown> } }
}

/** Which model to ask through Chat Completions, and what its server can do. */
export interface OpenAIChatOptions extends OpenAIConnection<OpenAIChatClient> {
  /**
   * The service's name in events and errors, and the key of `providerOptions` and metadata: give each service its own, so
   * that none is sent what only another understands. Default `'openai-chat'`.
   */
  readonly name?: string | undefined
  /** Asks for the count of tokens. Turn it off for servers that refuse `stream_options`. Default true. */
  readonly includeUsage?: boolean | undefined
  /** What the service calls the bound on tokens; older servers know only `'max_tokens'`. Default `'max_completion_tokens'`. */
  readonly maxTokensName?: 'max_completion_tokens' | 'max_tokens' | undefined
  /** Whether the server takes a JSON Schema for `output`. Else it is asked for some JSON object, and the model told the schema. Default true. */
  readonly jsonSchema?: boolean | undefined
  /** The role of system messages. Default `'system'`, which every server knows. */
  readonly systemRole?: 'developer' | 'system' | undefined
  /** Takes `<think>…</think>` at the beginning of the text for reasoning. Default true. */
  readonly thinkTags?: boolean | undefined
  /** Sends the model's reasoning back in the field it came in. Turn it off for servers that refuse it. Default true. */
  readonly sendReasoning?: boolean | undefined
}

const defaultName = 'openai-chat'

const openaiChatOptions: readonly (keyof OpenAIChatOptions)[] = [
  ...connectionOptions,
  'name',
  'includeUsage',
  'maxTokensName',
  'jsonSchema',
  'systemRole',
  'thinkTags',
  'sendReasoning',
]

/**
 * Chat Completions: OpenAI's, and with `baseURL` those of any server that speaks them.
 *
 * A custom tool is one whose `definition` is `{ 'openai-chat': { type: 'custom', custom: { name } } }`; the free text it is
 * called with arrives as the arguments `{ input: text }`.
 *
 * @throws UsageError where `model` is missing, or `client` comes with options that only a client made here would use. A
 * missing key or SDK is a `UsageError` of the first request.
 *
 * @example
 * ```ts
 * import { StreamingLLMClient } from 'fieldstream'
 * import { openaiChat } from 'fieldstream/openai'
 *
 * const provider = openaiChat({
 *   name: 'openrouter',
 *   model: 'meta-llama/llama-3.3-70b-instruct',
 *   baseURL: 'https://openrouter.ai/api/v1',
 *   apiKey: process.env['OPENROUTER_API_KEY'],
 * })
 * const client = new StreamingLLMClient({ provider })
 * ```
 */
export function openaiChat(options: OpenAIChatOptions): Provider {
  const clientFor = clientOf<OpenAIChatClient, OpenAIChatOptions>(options, {
    caller: 'openaiChat',
    exampleModel: 'gpt-5-mini',
    known: openaiChatOptions,
    choices: { maxTokensName: ['max_completion_tokens', 'max_tokens'], systemRole: ['developer', 'system'] },
    makesClient,
    isClient: ({ chat }: { chat?: Partial<OpenAIChatClient['chat']> }) =>
      typeof chat?.completions?.create === 'function',
    clientExample: 'new OpenAI()',
    load: () => loadClient('openaiChat', options),
  })
  const { model, headers, limits, name = defaultName, thinkTags } = options
  if (typeof name !== 'string' || name === '')
    throw new UsageError('invalid_argument', "`name` of openaiChat() must be the service's name, e.g. 'openrouter'.")

  function answer(request: LLMRequest, { signal }: ProviderContext, streaming: boolean): StreamEvents {
    return fromBatches(() => {
      const warnings: LLMWarning[] = []
      return readSdkStream({
        provider: name,
        signal,
        limits,
        streaming,
        warnings,
        requestIdHeader: 'x-request-id',
        toReportedError: (error) => toReportedError(name, error),
        toBody: () => toRequestBody(request, options, warnings),
        send: async (body) => {
          const client = await clientFor()
          const sent = { signal, maxRetries: 0, ...(headers && { headers }) }
          return { call: client.chat.completions.create((streaming ? body : unstreamed(body)) as never, sent as never) }
        },
        createMapper: (requestId) =>
          new ChatEventMapper(name, thinkTags, { model, raw: request.raw, requestId, warnings }),
      })
    })
  }

  return {
    name,
    model,
    stream: (request, context) => answer(request, context, true),
    generate: (request, context) => answer(request, context, false),
  }
}

/**
 * Maps the SDK's raw stream, `await client.chat.completions.create({ …, stream: true })`, to events for a
 * `ToolStreamAccumulator`.
 *
 * @throws StreamError `stream_truncated` where the stream ends without a `finish_reason`, which the SDK does not notice.
 *
 * @example
 * ```ts
 * import OpenAI from 'openai'
 * import { ToolStreamAccumulator } from 'fieldstream'
 * import { toChatStreamEvents } from 'fieldstream/openai'
 *
 * const accumulator = new ToolStreamAccumulator()
 * const sdkStream = await new OpenAI().chat.completions.create({
 *   model: 'gpt-5-mini',
 *   messages: [{ role: 'user', content: 'Hello' }],
 *   stream: true,
 * })
 * for await (const event of toChatStreamEvents(sdkStream)) accumulator.push(event)
 * console.log(accumulator.toolCalls)
 * ```
 */
export function toChatStreamEvents(
  stream: AsyncIterable<object>,
  { name = defaultName, thinkTags }: Pick<OpenAIChatOptions, 'name' | 'thinkTags'> = {},
): StreamEvents {
  return mapSdkStream(stream, {
    caller: 'toChatStreamEvents',
    call: 'client.chat.completions.create({ …, stream: true })',
    provider: name,
    toReportedError: (error) => toReportedError(name, error),
    createMapper: () => new ChatEventMapper(name, thinkTags, { model: '' }),
  })
}

// ---------------------------------------------------------------------------------------------------------------- request

function toRequestBody(request: LLMRequest, options: OpenAIChatOptions, warnings: LLMWarning[]): Json {
  const { tools, toolChoice, output, reasoning } = request
  const {
    name = defaultName,
    includeUsage = true,
    maxTokensName = 'max_completion_tokens',
    jsonSchema = true,
  } = options
  checkReasoning(name, reasoning)
  const streamOptions = {
    ...(includeUsage && { include_usage: true }),
    // Padding against eavesdroppers who count bytes. Only the public service has it, and others may refuse the option.
    ...(!options.baseURL && !options.client && { include_obfuscation: false }),
  }
  const body: Json = {
    model: options.model,
    messages: toMessages(request, name, options, warnings),
    stream: true,
    ...toSettings(request, { maxTokens: maxTokensName, temperature: 'temperature', topP: 'top_p', stop: 'stop' }),
  }
  if (Object.keys(streamOptions).length > 0) body['stream_options'] = streamOptions
  if (output) body['response_format'] = toResponseFormat(name, output, jsonSchema, warnings)
  if (reasoning && 'effort' in reasoning) body['reasoning_effort'] = reasoning.effort
  if (tools && tools.length > 0) {
    body['tools'] = tools.map((tool) => toTool(tool, name))
    if (toolChoice !== undefined) body['tool_choice'] = toToolChoice(toolChoice, tools, name)
  }
  return { ...body, ...request.providerOptions?.[name] }
}

function toResponseFormat(provider: string, output: OutputFormat, jsonSchema: boolean, warnings: LLMWarning[]): Json {
  if (jsonSchema) return { type: 'json_schema', json_schema: toJsonFormat(provider, output, warnings) }
  if (output.strict) {
    throw new UsageError('unsupported', 'Without `jsonSchema` openaiChat() cannot hold a model to a `strict` output.')
  }
  return { type: 'json_object' }
}

function toTool(tool: Tool, provider: string): Json {
  const { name, description, strict } = tool
  return (
    ownDefinition(provider, tool) ?? {
      type: 'function',
      function: {
        name,
        ...(description !== undefined && { description }),
        parameters: toParameters(provider, tool),
        ...(strict !== undefined && { strict }),
      },
    }
  )
}

function isCustom(tool: Tool | undefined, provider: string): boolean {
  return tool !== undefined && ownDefinition(provider, tool)?.['type'] === 'custom'
}

function toToolChoice(choice: ToolChoice, tools: readonly Tool[], provider: string): unknown {
  if (typeof choice !== 'object') return choice
  const { name } = choice
  const tool = tools.find((candidate) => candidate.name === name)
  return isCustom(tool, provider) ? { type: 'custom', custom: { name } } : { type: 'function', function: { name } }
}

function toMessages(
  { system, messages, tools = [], output }: LLMRequest,
  name: string,
  { systemRole = 'system', sendReasoning = true, jsonSchema = true }: OpenAIChatOptions,
  warnings: LLMWarning[],
): Json[] {
  const converted: Json[] = []
  const customTools = new Set(tools.filter((tool) => isCustom(tool, name)).map((tool) => tool.name))
  const instructions = [system, output && !jsonSchema ? toOutputInstruction(output) : undefined].filter(Boolean)
  if (instructions.length > 0) converted.push({ role: systemRole, content: instructions.join('\n\n') })
  for (const message of messages) {
    switch (message.role) {
      case 'system':
        converted.push({ role: systemRole, content: message.content })
        break
      case 'user':
        converted.push({ role: 'user', content: toUserContent(message.content, name, warnings) })
        break
      case 'assistant': {
        const answer = toAssistantMessage(message.content, name, customTools, sendReasoning, warnings)
        if (answer) converted.push(answer)
        break
      }
      case 'tool':
        for (const part of message.content)
          converted.push({
            role: 'tool',
            tool_call_id: part.toolCallId,
            content: toOutputText(part),
            ...part.metadata?.[name],
          })
    }
  }
  return converted
}

function toUserContent(
  content: Extract<Message, { role: 'user' }>['content'],
  name: string,
  warnings: LLMWarning[],
): string | Json[] {
  if (typeof content === 'string') return content
  const parts: Json[] = []
  for (const part of content) {
    switch (part.type) {
      case 'text':
        parts.push({ type: 'text', text: part.text, ...part.metadata?.[name] })
        break
      case 'image':
        parts.push({ type: 'image_url', image_url: { url: toImageUrl(part) }, ...part.metadata?.[name] })
        break
      case 'provider':
        if (part.provider === name) parts.push(part.value)
        else warnings.push(foreign(part.provider))
    }
  }
  return parts
}

/** One message; `undefined` where nothing was said, since servers refuse an empty turn. */
function toAssistantMessage(
  content: Extract<Message, { role: 'assistant' }>['content'],
  name: string,
  customTools: ReadonlySet<string>,
  sendReasoning: boolean,
  warnings: LLMWarning[],
): Json | undefined {
  if (typeof content === 'string') return content === '' ? undefined : { role: 'assistant', content }
  const message: Json = {}
  let text = ''
  // Where the model's own content was a list of parts, it stays one.
  const parts: Json[] = []
  const details: unknown[] = []
  const calls: Json[] = []
  for (const part of content) {
    const own = part.type === 'provider' ? undefined : part.metadata?.[name]
    switch (part.type) {
      case 'text':
        text += part.text
        if (part.text !== '') parts.push({ type: 'text', text: part.text })
        Object.assign(message, own)
        break
      case 'reasoning': {
        if (!own) {
          warnings.push(dropped(`Reasoning that is not of ${name}`))
          break
        }
        if (!sendReasoning) break
        const { field, reasoning_details: ownDetails = [] } = own
        details.push(...(ownDetails as unknown[]))
        if (field === 'think') text += `<think>${part.text}</think>`
        else if (field === 'thinking') parts.push({ type: 'thinking', thinking: [{ type: 'text', text: part.text }] })
        else if (typeof field === 'string') message[field] = ((message[field] ?? '') as string) + part.text
        break
      }
      case 'tool-call': {
        const { type, ...rest } = own ?? {}
        const call =
          type === 'custom' || customTools.has(part.toolName)
            ? { type: 'custom', custom: { name: part.toolName, input: toCustomInput(part.input) } }
            : {
                type: 'function',
                function: {
                  name: part.toolName,
                  arguments: toInputText(part),
                },
              }
        calls.push({ id: part.toolCallId, ...call, ...rest })
        break
      }
      case 'provider':
        if (part.provider === name) parts.push(part.value)
        else warnings.push(foreign(part.provider))
    }
  }
  if (details.length > 0) message['reasoning_details'] = details
  if (calls.length > 0) message['tool_calls'] = calls
  const isList = parts.some(({ type }) => type !== 'text')
  if (!isList && text === '' && Object.keys(message).length === 0) return undefined
  return { role: 'assistant', content: isList ? parts : text === '' ? null : text, ...message }
}

// ----------------------------------------------------------------------------------------------------------------- events

/** OpenAI's reasons, and those that other servers have for the same. */
const finishReasons: ReadonlyMap<unknown, FinishReason> = new Map(
  Object.entries({
    stop: 'stop',
    eos: 'stop',
    end_turn: 'stop',
    stop_sequence: 'stop',
    length: 'length',
    max_tokens: 'length',
    model_length: 'length',
    tool_calls: 'tool-calls',
    function_call: 'tool-calls',
    tool_use: 'tool-calls',
    content_filter: 'content-filter',
    sensitive: 'content-filter',
    safety: 'content-filter',
    refusal: 'refusal',
  } as const),
)

/** Reasons with which a server says that it failed, though it sends no error. */
const failures: ReadonlyMap<unknown, { readonly code: string }> = new Map(
  Object.entries({
    error: { code: 'server_error' },
    network_error: { code: 'server_error' },
    abort: { code: 'server_error' },
    insufficient_system_resource: { code: 'overloaded' },
  } as const),
)

/** Stands for the index of a `function_call`, which has none. */
const onlyCall = 'function_call'

/** Fields for reasoning, by preference: a server may send the same text in several. */
const reasoningFields = ['reasoning_content', 'reasoning'] as const

interface Call {
  readonly input: CallInput
  readonly isCustom: boolean
  id: string | undefined
  name: string | undefined
  /** What the server put beside id and arguments, such as a signature. */
  readonly rest: Json
}

/** Maps `ChatCompletionChunk`s, from our own decoding or an SDK's. */
class ChatEventMapper extends EventMapper {
  readonly #calls: Call[] = []
  readonly #callsById = new Map<string, Call>()
  /** The newest call of each index: servers reuse them, or leave them out. */
  readonly #callsByIndex = new Map<unknown, Call>()
  #responseId: string | undefined
  #usage: Json | undefined
  #reason: string | undefined
  #refusal = ''
  #hasChoice = false
  /** The part being written. */
  #open: 'text' | 'reasoning' | undefined
  /** The field that the reasoning being written came in. */
  #reasoningField: string | undefined
  #details: Json[] = []
  #annotations: unknown[] = []
  readonly #thinking: ThinkTagSplitter | undefined

  constructor(name: string, thinkTags: boolean | undefined, context: MapperContext) {
    super(name, context)
    if (thinkTags ?? true) this.#thinking = new ThinkTagSplitter('opened')
  }

  protected override map(chunk: Json, out: StreamEvent[]): void {
    const choices = chunk['choices'] ?? []
    if (!Array.isArray(choices)) throw protocolError(this.provider, 'the choices are not a list')
    const groq = chunk['x_groq'] as Json | null | undefined
    this.#count(chunk['usage'] ?? groq?.['usage'], chunk, out)
    for (const item of choices as unknown[]) {
      const choice = toObject(this.provider, item, 'a choice')
      // Further choices are further answers, which were not asked for.
      if ((choice['index'] ?? 0) !== 0) continue
      this.#count(choice['usage'], chunk, out)
      this.#choice(choice, chunk, out)
    }
    if (chunk['error']) throw toReportedError(this.provider, chunk['error'])
    if (typeof chunk['code'] === 'string' && typeof chunk['message'] === 'string' && !chunk['choices'])
      throw toReportedError(this.provider, chunk)
  }

  #count(usage: unknown, chunk: Json, out: StreamEvent[]): void {
    if (typeof usage !== 'object' || usage === null) return
    this.#start(chunk, out)
    this.#usage = usage as Json
    out.push({ type: 'usage', usage: usageOf(this.#usage) })
  }

  /** Some servers send a first chunk that names nothing yet. */
  #start({ id, model }: Json, out: StreamEvent[]): void {
    if (!this.hasStarted && typeof id === 'string' && id !== '') this.#responseId = id
    this.start(model, id, out)
  }

  #choice({ delta: piece, message, finish_reason: reason }: Json, chunk: Json, out: StreamEvent[]): void {
    // A whole answer is one chunk. Some servers send the message so far with each piece.
    const delta = piece ?? (this.#hasChoice ? undefined : message)
    this.#hasChoice = true
    this.#start(chunk, out)
    if (delta !== undefined && delta !== null) this.#delta(toObject(this.provider, delta, 'a delta'), out)
    if (typeof reason !== 'string' || reason === '') return
    const failure = failures.get(reason)
    if (failure) throw toReportedError(this.provider, chunk['error'] ?? failure)
    // A bound that was reached stays reached, whatever is said later.
    if (!['length', 'content-filter'].includes(finishReasons.get(this.#reason) ?? '')) this.#reason = reason
    this.mayEnd = true
  }

  #delta(delta: Json, out: StreamEvent[]): void {
    const { content, refusal, tool_calls: calls, function_call: only, reasoning_details: details, annotations } = delta
    this.#think(delta, details, out)
    if (typeof content === 'string') this.#content(content, out)
    else if (Array.isArray(content)) for (const part of content as unknown[]) this.#part(part, out)
    else if (content !== undefined && content !== null) throw protocolError(this.provider, 'a text is not a string')
    if (Array.isArray(annotations)) this.#annotations.push(...(annotations as unknown[]))
    if (refusal !== undefined && refusal !== null) this.#refusal += toText(this.provider, refusal, 'a refusal')
    if (!Array.isArray(calls ?? [])) throw protocolError(this.provider, 'the tool calls are not a list')
    for (const call of (calls ?? []) as unknown[]) this.#call(toObject(this.provider, call, 'a tool call'), out)
    // Old servers know one call only; others may repeat there what they also said as a tool call.
    const isOnly = this.#calls.length === 0 || this.#callsByIndex.has(onlyCall)
    if (only !== undefined && only !== null && isOnly)
      this.#call({ index: onlyCall, function: toObject(this.provider, only, 'a function call') }, out)
  }

  // ------------------------------------------------------------------------------------------------------ text, reasoning

  #tell(kind: 'text' | 'reasoning', delta: string, out: StreamEvent[], field?: string): void {
    if (delta === '') return
    if (this.#open !== kind || this.#reasoningField !== field) this.#close(out)
    this.#open = kind
    this.#reasoningField = field
    out.push({ type: kind === 'text' ? 'text-delta' : 'reasoning-delta', delta })
  }

  /** Ends the part being written, with what the server wants to see again. */
  #close(out: StreamEvent[]): void {
    if (this.#open === 'text') {
      out.push({ type: 'part-end', kind: 'text', metadata: this.#takeAnnotations() })
    } else if (this.#open === 'reasoning' || this.#details.length > 0) {
      const kept = {
        field: this.#reasoningField,
        ...(this.#details.length > 0 && { reasoning_details: this.#details }),
      }
      this.#details = []
      out.push({ type: 'part-end', kind: 'reasoning', metadata: ownMetadata(this.provider, kept) })
    }
    this.#open = undefined
    this.#reasoningField = undefined
  }

  #takeAnnotations() {
    const annotations = this.#annotations
    this.#annotations = []
    return annotations.length > 0 ? ownMetadata(this.provider, { annotations }) : undefined
  }

  #content(text: string, out: StreamEvent[]): void {
    if (text === '') return
    if (!this.#thinking) {
      this.#tell('text', text, out)
      return
    }
    this.#split((split) => this.#thinking?.write(text, split), out)
  }

  /** Tells apart what the server left in one text. */
  #split(read: (split: StreamEvent[]) => void, out: StreamEvent[]): void {
    const split: StreamEvent[] = []
    read(split)
    for (const event of split) {
      if (event.type === 'text-delta') this.#tell('text', event.delta, out)
      else if (event.type === 'reasoning-delta') this.#tell('reasoning', event.delta, out, 'think')
    }
  }

  protected override mapRest(out: StreamEvent[]): void {
    this.#split((split) => this.#thinking?.release(split), out)
  }

  /** Some servers send a list of parts where others send a string. */
  #part(value: unknown, out: StreamEvent[]): void {
    const part = toObject(this.provider, value, 'a part of the content')
    switch (part['type']) {
      case 'text':
        this.#content(toText(this.provider, part['text'], 'a text'), out)
        return
      case 'thinking': {
        const pieces = Array.isArray(part['thinking']) ? (part['thinking'] as (Json | null)[]) : []
        for (const piece of pieces)
          if (piece?.['type'] === 'text')
            this.#tell('reasoning', toText(this.provider, piece['text'], 'a text'), out, 'thinking')
        return
      }
      default:
        this.#close(out)
        out.push({ type: 'part', part: { type: 'provider', provider: this.provider, value: part } })
    }
  }

  #think(delta: Json, details: unknown, out: StreamEvent[]): void {
    const field = reasoningFields.find((name) => typeof delta[name] === 'string' && delta[name] !== '')
    const added = Array.isArray(details) ? (details as unknown[]) : []
    // What was said before belongs to a part that has ended.
    if (added.length > 0 && this.#open === 'text') this.#close(out)
    if (field) this.#tell('reasoning', delta[field] as string, out, field)
    for (const item of added) {
      const detail = toObject(this.provider, item, 'a detail of the reasoning')
      const text = detail['text'] ?? detail['summary']
      if (!field && typeof text === 'string') this.#tell('reasoning', text, out)
      this.#keep(detail)
    }
  }

  /** Details come in pieces: those of one index and type are one. */
  #keep(detail: Json): void {
    const last = this.#details.at(-1)
    const continues =
      last?.['type'] === detail['type'] && last?.['index'] === detail['index'] && detail['data'] === undefined
    if (!last || !continues) {
      this.#details.push({ ...detail })
      return
    }
    for (const [name, value] of Object.entries(detail)) {
      if (value === null || value === undefined) continue
      const before = Object.hasOwn(last, name) ? last[name] : undefined
      const isText = (name === 'text' || name === 'summary') && typeof before === 'string' && typeof value === 'string'
      setOwn(last, name, isText ? before + value : value)
    }
  }

  // ----------------------------------------------------------------------------------------------------------- tool calls

  #call(delta: Json, out: StreamEvent[]): void {
    const { id: givenId, index, type, function: asFunction, custom, ...rest } = delta
    const { name: givenName, arguments: text, input } = (asFunction ?? custom ?? {}) as Json
    const id = typeof givenId === 'string' && givenId !== '' ? givenId : undefined
    const name = typeof givenName === 'string' && givenName !== '' ? givenName : undefined
    const call = this.#find(id, name, index) ?? this.#begin(type === 'custom' || (!asFunction && !!custom))
    if (index !== undefined && index !== null) this.#callsByIndex.set(index, call)
    call.id ??= id
    if (id !== undefined) this.#callsById.set(id, call)
    for (const [key, value] of Object.entries(rest)) setOwn(call.rest, key, value)
    if (call.name === undefined && name !== undefined) {
      call.name = name
      this.#close(out)
      call.id ??= `call_${this.#responseId ?? 'of_no_response'}_${this.#calls.length}`
      call.input.start(call.id, name, out)
    }
    const piece = text ?? input
    if (piece !== undefined && piece !== null) call.input.write(piece, out)
  }

  /** The call that a delta continues; `undefined` where it begins one. */
  #find(id: string | undefined, name: string | undefined, index: unknown): Call | undefined {
    const hasIndex = index !== undefined && index !== null
    if (id !== undefined) {
      const known = this.#callsById.get(id)
      if (known) return known
      // An id may come after the name, but a second one is a second call.
      const nameless = hasIndex ? this.#callsByIndex.get(index) : undefined
      return nameless?.name === undefined && nameless?.id === undefined ? nameless : undefined
    }
    if (hasIndex) return this.#callsByIndex.get(index)
    // With nothing to tell it by, a name begins a call, and anything else goes on with the last.
    return name === undefined ? this.#calls.at(-1) : undefined
  }

  #begin(isCustom: boolean): Call {
    const call: Call = {
      input: new CallInput(this.provider, isCustom),
      isCustom,
      id: undefined,
      name: undefined,
      rest: {},
    }
    this.#calls.push(call)
    return call
  }

  // --------------------------------------------------------------------------------------------------------------- ending

  protected override mapEnd(out: StreamEvent[]): void {
    const reason = this.#reason
    if (reason === undefined) return
    this.mapRest(out)
    this.#close(out)
    const annotations = this.#takeAnnotations()
    if (annotations) out.push({ type: 'part-end', kind: 'text', metadata: annotations })
    this.#close(out)
    const known = finishReasons.get(reason) ?? 'other'
    const hasCalls = this.#calls.length > 0
    if (known === 'tool-calls' && !hasCalls) throw missingCall(this.provider)
    const finishReason = this.#refusal !== '' ? 'refusal' : known === 'stop' && hasCalls ? 'tool-calls' : known
    this.#calls.forEach((call, i) => {
      if (call.name === undefined) throw protocolError(this.provider, 'a tool call has no name')
      // The call that a token limit cut stays open.
      if (finishReason === 'length' && i === this.#calls.length - 1) return
      call.input.end(ownMetadata(this.provider, { ...(call.isCustom && { type: 'custom' }), ...call.rest }), out)
    })
    const explanation = this.#refusal === '' ? undefined : this.#refusal
    const usage = usageOf(this.#usage ?? {})
    this.isFinished = true
    out.push({ type: 'finish', finishReason, providerFinishReason: reason, usage, explanation })
  }
}

function usageOf(raw: Json): Usage {
  const input = (raw['prompt_tokens_details'] ?? {}) as Json
  const output = (raw['completion_tokens_details'] ?? {}) as Json
  const inputTokens = count(raw['prompt_tokens'])
  const reasoningTokens = [output['reasoning_tokens'], raw['reasoning_tokens']].find(
    (value) => typeof value === 'number',
  )
  const completion = count(raw['completion_tokens'])
  const total = count(raw['total_tokens'])
  // Some servers count reasoning beside the answer; their total tells.
  const isBeside = reasoningTokens !== undefined && total === inputTokens + completion + reasoningTokens
  const outputTokens = isBeside ? completion + reasoningTokens : completion
  const counts = {
    inputTokens,
    outputTokens,
    totalTokens: total,
    cacheReadTokens: count(
      input['cached_tokens'],
      raw['prompt_cache_hit_tokens'],
      raw['num_cached_tokens'],
      raw['cache_read_input_tokens'],
    ),
    cacheWriteTokens: count(input['cache_write_tokens'], raw['cache_creation_input_tokens']),
    reasoningTokens,
  }
  return toUsage(counts, raw)
}
