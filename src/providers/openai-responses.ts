import { UsageError } from '../errors.ts'
import type { FinishReason, StreamEvent, Usage } from '../events.ts'
import { fromBatches, type Provider, type ProviderContext, type StreamEvents } from '../provider.ts'
import type { LLMRequest, LLMWarning, Message, ToolChoice } from '../request.ts'
import type { Tool } from '../tool.ts'
import { EventMapper, type Json, type MapperContext, protocolError, toObject, toText } from '../wire/event-mapper.ts'
import { mapSdkStream, readSdkStream } from '../wire/sdk-stream.ts'
import { dropped, foreign, ownMetadata, toInputText, toSettings, unstreamed } from '../wire/request-body.ts'
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
  toCustomInput,
  toImageUrl,
  toJsonFormat,
  toParameters,
  toReportedError,
} from './openai-connection.ts'

/** Any client of the official SDK with the Responses API. */
export interface OpenAIClient {
  /** The SDK's own. */
  readonly responses: { create(body: never, options?: never): PromiseLike<unknown> }
}

/** Which model of OpenAI's to ask through the Responses API, and how to reach it. */
export interface OpenAIOptions extends OpenAIConnection<OpenAIClient> {
  /** Asks for summaries of what the model thinks, where a request sets `reasoning`; they arrive as reasoning. Default: none. */
  readonly reasoningSummary?: 'auto' | 'concise' | 'detailed' | undefined
  /** The role of system messages inside the conversation. Default `'developer'`. */
  readonly systemRole?: 'developer' | 'system' | undefined
  /** Whether the service keeps the response. Default: the service's own. Without it, reasoning comes encrypted, to be sent back. */
  readonly store?: boolean | undefined
}

const providerName = 'openai'

const openaiOptions: readonly (keyof OpenAIOptions)[] = [
  ...connectionOptions,
  'reasoningSummary',
  'systemRole',
  'store',
]

/**
 * OpenAI's models through the Responses API.
 *
 * A custom tool is one whose `definition` is `{ openai: { type: 'custom', name } }`; the free text it is called with arrives as
 * the arguments `{ input: text }`.
 *
 * @throws UsageError where `model` is missing, or `client` comes with options that only a client made here would use. A
 * missing key or SDK is a `UsageError` of the first request.
 *
 * @example
 * ```ts
 * import { StreamingLLMClient } from 'fieldstream'
 * import { openai } from 'fieldstream/openai'
 *
 * const client = new StreamingLLMClient({ provider: openai({ model: 'gpt-5-mini' }) })
 * ```
 */
export function openai(options: OpenAIOptions): Provider {
  const clientFor = clientOf<OpenAIClient, OpenAIOptions>(options, {
    caller: 'openai',
    exampleModel: 'gpt-5-mini',
    known: openaiOptions,
    choices: { reasoningSummary: ['auto', 'concise', 'detailed'], systemRole: ['developer', 'system'] },
    makesClient,
    isClient: (client) => typeof (client as Partial<OpenAIClient>).responses?.create === 'function',
    clientExample: 'new OpenAI()',
    load: () => loadClient('openai', options),
  })
  const { model, headers, limits } = options

  function answer(request: LLMRequest, { signal }: ProviderContext, streaming: boolean): StreamEvents {
    return fromBatches(() => {
      const warnings: LLMWarning[] = []
      let customTools: ReadonlySet<string> | undefined
      return readSdkStream({
        provider: providerName,
        signal,
        limits,
        streaming,
        warnings,
        requestIdHeader: 'x-request-id',
        toReportedError: reported,
        toBody: () => toRequestBody(request, options, warnings),
        send: async (body) => {
          customTools = customToolsIn(body['tools'])
          const client = await clientFor()
          const sent = { signal, maxRetries: 0, ...(headers && { headers }) }
          return { call: client.responses.create((streaming ? body : unstreamed(body)) as never, sent as never) }
        },
        createMapper: (requestId) =>
          new ResponsesEventMapper(customTools, { model, raw: request.raw, requestId, warnings }),
      })
    })
  }

  return {
    name: providerName,
    model,
    stream: (request, context) => answer(request, context, true),
    generate: (request, context) => answer(request, context, false),
  }
}

/**
 * Maps the SDK's raw stream, `await client.responses.create({ …, stream: true })`, to events for a `ToolStreamAccumulator`.
 *
 * @throws StreamError `stream_truncated` where the stream ends without its last event, which the SDK does not notice.
 *
 * @example
 * ```ts
 * import OpenAI from 'openai'
 * import { ToolStreamAccumulator } from 'fieldstream'
 * import { toStreamEvents } from 'fieldstream/openai'
 *
 * const accumulator = new ToolStreamAccumulator()
 * const sdkStream = await new OpenAI().responses.create({ model: 'gpt-5-mini', input: 'Hello', stream: true })
 * for await (const event of toStreamEvents(sdkStream)) accumulator.push(event)
 * console.log(accumulator.toolCalls)
 * ```
 */
export function toStreamEvents(stream: AsyncIterable<{ readonly type: string }>): StreamEvents {
  return mapSdkStream(stream, {
    caller: 'toStreamEvents',
    call: 'client.responses.create({ …, stream: true })',
    provider: providerName,
    toReportedError: reported,
    createMapper: () => new ResponsesEventMapper(undefined, { model: '' }),
  })
}

const reported = (error: unknown) => toReportedError(providerName, error)

// ---------------------------------------------------------------------------------------------------------------- request

function toRequestBody(request: LLMRequest, options: OpenAIOptions, warnings: LLMWarning[]): Json {
  const { system, stop, tools, toolChoice, output, reasoning } = request
  const { store, reasoningSummary } = options
  if (stop && stop.length > 0) {
    throw new UsageError(
      'unsupported',
      "OpenAI's Responses API cannot stop at a text: leave out `stop`, or use openaiChat().",
    )
  }
  checkReasoning(providerName, reasoning)
  const body: Json = {
    model: options.model,
    input: toInput(request, options, warnings),
    stream: true,
    // Padding against eavesdroppers who count bytes; it doubles what is read.
    stream_options: { include_obfuscation: false },
    ...toSettings(request, { maxTokens: 'max_output_tokens', temperature: 'temperature', topP: 'top_p' }),
  }
  if (system !== undefined) body['instructions'] = system
  if (output) body['text'] = { format: { type: 'json_schema', ...toJsonFormat(providerName, output, warnings) } }
  if (reasoning) body['reasoning'] = { ...reasoning, ...(reasoningSummary && { summary: reasoningSummary }) }
  if (store !== undefined) body['store'] = store
  if (store === false) body['include'] = ['reasoning.encrypted_content']
  if (tools && tools.length > 0) {
    body['tools'] = tools.map(toTool)
    if (toolChoice !== undefined) body['tool_choice'] = toToolChoice(toolChoice, tools)
  }
  return { ...body, ...request.providerOptions?.[providerName] }
}

function toTool(tool: Tool): Json {
  const { name, description, strict } = tool
  return (
    ownDefinition(providerName, tool) ?? {
      type: 'function',
      name,
      ...(description !== undefined && { description }),
      parameters: toParameters(providerName, tool),
      // Left out it would be true here, and schemas that are not made for it be refused.
      strict: strict ?? false,
    }
  )
}

function toToolChoice(choice: ToolChoice, tools: readonly Tool[]): unknown {
  if (typeof choice !== 'object') return choice
  const { name } = choice
  const tool = tools.find((candidate) => candidate.name === name)
  const { type = 'function' } = (tool && ownDefinition(providerName, tool)) ?? {}
  return type === 'function' || type === 'custom' ? { type, name } : { type }
}

function customToolsIn(tools: unknown): ReadonlySet<string> {
  const names = new Set<string>()
  for (const tool of Array.isArray(tools) ? (tools as (Json | null)[]) : [])
    if (tool?.['type'] === 'custom' && typeof tool['name'] === 'string') names.add(tool['name'])
  return names
}

/** Provider parts of a user message that are content; anything else is an item of its own. */
const contentTypes = new Set<unknown>(['input_text', 'input_image', 'input_file', 'input_audio'])

function toInput(request: LLMRequest, options: OpenAIOptions, warnings: LLMWarning[]): Json[] {
  const { messages, tools = [] } = request
  const input: Json[] = []
  const customCalls = new Set<string>()
  const customTools = customToolsIn(tools.map(toTool))
  for (const message of messages) {
    switch (message.role) {
      case 'system':
        input.push({ role: options.systemRole ?? 'developer', content: message.content })
        break
      case 'user':
        input.push(...toUserItems(message.content, warnings))
        break
      case 'assistant':
        input.push(...toAssistantItems(message.content, customTools, customCalls, warnings))
        break
      case 'tool':
        for (const part of message.content) {
          const type = customCalls.has(part.toolCallId) ? 'custom_tool_call_output' : 'function_call_output'
          input.push({
            type,
            call_id: part.toolCallId,
            output: toOutputText(part),
            ...part.metadata?.[providerName],
          })
        }
    }
  }
  return input
}

function toUserItems(content: Extract<Message, { role: 'user' }>['content'], warnings: LLMWarning[]): Json[] {
  if (typeof content === 'string') return [{ role: 'user', content }]
  const items: Json[] = []
  const parts: Json[] = []
  for (const part of content) {
    switch (part.type) {
      case 'text':
        parts.push({ type: 'input_text', text: part.text, ...part.metadata?.[providerName] })
        break
      case 'image':
        parts.push({
          type: 'input_image',
          image_url: toImageUrl(part),
          detail: 'auto',
          ...part.metadata?.[providerName],
        })
        break
      case 'provider':
        if (part.provider !== providerName) warnings.push(foreign(part.provider))
        else (contentTypes.has(part.value['type']) ? parts : items).push(part.value)
    }
  }
  if (parts.length > 0) items.push({ role: 'user', content: parts })
  return items
}

function toAssistantItems(
  content: Extract<Message, { role: 'assistant' }>['content'],
  customTools: ReadonlySet<string>,
  customCalls: Set<string>,
  warnings: LLMWarning[],
): Json[] {
  if (typeof content === 'string') return content === '' ? [] : [{ role: 'assistant', content }]
  const items: Json[] = []
  for (const part of content) {
    const own = part.type === 'provider' ? undefined : part.metadata?.[providerName]
    switch (part.type) {
      case 'text': {
        const { id, annotations = [], status = 'completed', ...rest } = (own ?? {}) as Json
        const last = items.at(-1)
        const piece = { type: 'output_text', text: part.text, annotations }
        if (id === undefined) {
          if (part.text !== '') items.push({ role: 'assistant', content: part.text })
        } else if (last?.['type'] === 'message' && last['id'] === id) {
          Object.assign(last, { status, content: [...(last['content'] as Json[]), piece] })
        } else items.push({ type: 'message', id, role: 'assistant', status, ...rest, content: [piece] })
        break
      }
      case 'reasoning':
        // A whole item, which the API takes back only as it was.
        if (own?.['type'] === 'reasoning') items.push(own)
        else warnings.push(dropped('Reasoning that is not of openai'))
        break
      case 'tool-call': {
        const call = { call_id: part.toolCallId, name: part.toolName }
        if (own?.['type'] === 'custom_tool_call' || (!own && customTools.has(part.toolName))) {
          customCalls.add(part.toolCallId)
          items.push({ type: 'custom_tool_call', ...call, input: toCustomInput(part.input), ...own })
        } else {
          items.push({ type: 'function_call', ...call, arguments: toInputText(part), ...own })
        }
        break
      }
      case 'provider':
        if (part.provider === providerName) items.push(part.value)
        else warnings.push(foreign(part.provider))
    }
  }
  return items
}

// ----------------------------------------------------------------------------------------------------------------- events

const incompleteReasons: ReadonlyMap<unknown, FinishReason> = new Map(
  Object.entries({
    max_output_tokens: 'length',
    content_filter: 'content-filter',
    max_messages: 'pause',
  } as const),
)

/** An open output item. */
interface Item {
  readonly content: Json
  readonly call?: CallInput | undefined
  /** Content parts whose text has come in deltas; what `done` events repeat then is no news. */
  readonly told: Set<string>
  /** The text part being written, and what of it has to be kept. */
  part?: { annotations: unknown[]; hasText: boolean } | undefined
  /** The part of a summary last written to. */
  summary?: unknown
}

/** Maps `ResponseStreamEvent`s, from our own decoding or an SDK's. */
class ResponsesEventMapper extends EventMapper {
  /** By output index: some servers give one item several ids. */
  readonly #items = new Map<unknown, Item>()
  /** Names of the caller's custom tools; where they are not known, those that the response repeats. */
  #customTools: ReadonlySet<string> | undefined
  readonly #knowsTools: boolean
  #hasCalls = false
  #refusal = ''

  constructor(customTools: ReadonlySet<string> | undefined, context: MapperContext) {
    super(providerName, context)
    this.#customTools = customTools
    this.#knowsTools = customTools !== undefined
  }

  protected override map(event: Json, out: StreamEvent[]): void {
    const { type, output_index: index } = event
    switch (type) {
      case 'response.created':
      case 'response.queued':
      case 'response.in_progress':
        this.#start(toObject(providerName, event['response'], 'a response'), out)
        return
      case 'response.output_item.added':
        this.#add(index, toObject(providerName, event['item'], 'an output item'), out)
        return
      case 'response.content_part.added': {
        const item = this.#item(index)
        const { type: kind } = toObject(providerName, event['part'], 'a content part')
        if (kind === 'output_text' && item.content['type'] === 'message') {
          this.#endPart(item, undefined, out)
          item.part = { annotations: [], hasText: false }
        }
        return
      }
      case 'response.output_text.delta':
      case 'response.output_text.done':
        this.#text('text-delta', this.#item(index), partName('text', event['content_index']), event, out)
        return
      case 'response.reasoning_summary_text.delta':
      case 'response.reasoning_summary_text.done': {
        const part = partName('summary', event['summary_index'])
        this.#text('reasoning-delta', this.#item(index), part, event, out)
        return
      }
      case 'response.reasoning_text.delta':
      case 'response.reasoning_text.done': {
        const part = partName('reasoning', event['content_index'])
        this.#text('reasoning-delta', this.#item(index), part, event, out)
        return
      }
      case 'response.output_text.annotation.added':
        this.#item(index).part?.annotations.push(event['annotation'])
        return
      case 'response.refusal.delta':
        this.#refusal += toText(providerName, event['delta'], 'a refusal')
        return
      case 'response.refusal.done':
        this.#refusal = toText(providerName, event['refusal'], 'a refusal')
        return
      case 'response.function_call_arguments.delta':
      case 'response.custom_tool_call_input.delta':
        this.#item(index).call?.write(event['delta'], out)
        return
      case 'response.function_call_arguments.done':
        settle(this.#item(index).call, event['arguments'], out)
        return
      case 'response.custom_tool_call_input.done':
        settle(this.#item(index).call, event['input'], out)
        return
      case 'response.output_item.done':
        this.#done(index, toObject(providerName, event['item'], 'an output item'), out)
        return
      case 'response.completed':
      case 'response.incomplete':
      case 'response.failed':
        this.#end(type, toObject(providerName, event['response'], 'a response'), out)
        return
      case 'error':
        throw reported(event['error'] ?? { ...event, type: undefined })
      default:
        // Gateways report errors without a type; `keepalive`, the progress of hosted tools and what is newer are no news.
        if (type !== undefined) return
        if (Array.isArray(event['output'])) for (const part of eventsOf(event)) this.map(part, out)
        else if (event['error']) throw reported(event['error'])
    }
  }

  #start({ id, model, tools }: Json, out: StreamEvent[]): void {
    if (!this.#knowsTools && Array.isArray(tools)) this.#customTools = customToolsIn(tools)
    this.start(model, id, out)
  }

  #item(index: unknown): Item {
    const item = this.#items.get(index)
    if (!item) throw protocolError(providerName, 'something arrived for an output item that is not open')
    return item
  }

  #add(index: unknown, content: Json, out: StreamEvent[]): Item {
    if (this.#items.has(index)) throw protocolError(providerName, 'an output item began twice')
    // Some servers leave out the beginning.
    this.#start({}, out)
    const isCustom = content['type'] === 'custom_tool_call'
    const { name } = content
    // Of the custom calls only the caller's are: a service may run its own.
    const isCall = isCustom ? (this.#customTools?.has(name as string) ?? true) : content['type'] === 'function_call'
    const call = isCall ? new CallInput(providerName, isCustom) : undefined
    if (call) {
      this.#hasCalls = true
      const toolCallId = toText(providerName, content['call_id'], 'the id of a tool call')
      call.start(toolCallId, toText(providerName, name, 'the name of a tool'), out)
    }
    const item: Item = { content, call, told: new Set() }
    this.#items.set(index, item)
    return item
  }

  #text(type: 'text-delta' | 'reasoning-delta', item: Item, part: string, event: Json, out: StreamEvent[]): void {
    const isDelta = 'delta' in event
    if (!isDelta && item.told.has(part)) return
    const delta = toText(providerName, isDelta ? event['delta'] : event['text'], 'a text')
    if (delta === '') return
    if (type === 'text-delta') (item.part ??= { annotations: [], hasText: true }).hasText = true
    else if (item.summary !== part) {
      // Headings of one part would run into the end of the part before.
      if (item.summary !== undefined) out.push({ type, delta: '\n\n' })
      item.summary = part
    }
    item.told.add(part)
    out.push({ type, delta })
  }

  #endPart(item: Item, done: Json | undefined, out: StreamEvent[]): void {
    if (!item.part) return
    const { id, phase, status } = { ...item.content, ...done }
    const { annotations } = item.part
    item.part = undefined
    const kept = {
      id,
      phase,
      ...(annotations.length > 0 && { annotations }),
      ...(typeof status === 'string' && !['completed', 'in_progress'].includes(status) && { status }),
    }
    out.push({ type: 'part-end', kind: 'text', metadata: ownMetadata(providerName, kept) })
  }

  #done(index: unknown, done: Json, out: StreamEvent[]): void {
    const item = this.#items.get(index) ?? this.#add(index, done, out)
    this.#items.delete(index)
    switch (done['type']) {
      case 'message':
        this.#content(item, done['content'], out)
        this.#endPart(item, done, out)
        return
      case 'reasoning':
        this.#reasoning(item, done, out)
        out.push({ type: 'part-end', kind: 'reasoning', metadata: { [providerName]: done } })
        return
      case 'function_call':
      case 'custom_tool_call': {
        const { call } = item
        if (!call) break
        const { type, call_id: _, name: __, arguments: whole, input, ...rest } = done
        settle(call, type === 'function_call' ? whole : input, out)
        // A call that a token limit cut stays open.
        if (done['status'] === 'incomplete') return
        call.end(ownMetadata(providerName, type === 'function_call' ? rest : { type, ...rest }), out)
        return
      }
    }
    // Calls of hosted tools, their results, items newer than this version: kept for the next turn.
    out.push({ type: 'part', part: { type: 'provider', provider: providerName, value: done } })
  }

  /** What a whole message holds that no delta brought. */
  #content(item: Item, content: unknown, out: StreamEvent[]): void {
    const parts = Array.isArray(content) ? (content as (Json | null)[]) : []
    for (const [i, part] of parts.entries()) {
      if (part?.['type'] === 'refusal' && this.#refusal === '')
        this.#refusal = toText(providerName, part['refusal'], 'a refusal')
      if (part?.['type'] !== 'output_text') continue
      this.#text('text-delta', item, `text ${i}`, part, out)
      const { annotations } = part
      // All of them again, or for the first time.
      if (item.part && parts.length === 1 && Array.isArray(annotations)) item.part.annotations = annotations
    }
  }

  #reasoning(item: Item, { summary, content }: Json, out: StreamEvent[]): void {
    for (const [name, parts] of [
      ['summary', summary],
      ['reasoning', content],
    ] as const) {
      for (const [i, part] of (Array.isArray(parts) ? (parts as (Json | null)[]) : []).entries())
        if (typeof part?.['text'] === 'string') this.#text('reasoning-delta', item, `${name} ${i}`, part, out)
    }
  }

  #end(type: string, response: Json, out: StreamEvent[]): void {
    this.#start(response, out)
    const usage = usageOf((response['usage'] ?? {}) as Json)
    if (response['usage']) out.push({ type: 'usage', usage })
    if (type === 'response.failed') throw reported(response['error'])
    const details = (response['incomplete_details'] ?? {}) as Json
    const reason = typeof details['reason'] === 'string' ? details['reason'] : type.slice('response.'.length)
    const finishReason =
      this.#refusal !== ''
        ? 'refusal'
        : type === 'response.completed'
          ? this.#hasCalls
            ? 'tool-calls'
            : 'stop'
          : incompleteReasons.get(reason)
    if (!finishReason) throw protocolError(providerName, 'the answer was left incomplete, for a reason not known')
    for (const item of this.#items.values()) {
      if (finishReason === 'tool-calls' || finishReason === 'stop')
        throw protocolError(providerName, 'the answer ended inside an output item')
      this.#endPart(item, undefined, out)
    }
    this.isFinished = true
    const explanation = this.#refusal === '' ? undefined : this.#refusal
    out.push({ type: 'finish', finishReason, providerFinishReason: reason, usage, explanation })
  }
}

/** The events that a whole response would have come in. */
function* eventsOf(response: Json): Generator<Json> {
  yield { type: 'response.created', response }
  for (const [index, item] of (response['output'] as unknown[]).entries()) {
    const { content, ...rest } = toObject(providerName, item, 'an output item')
    const place = { output_index: index }
    yield { ...place, type: 'response.output_item.added', item: rest }
    const parts = rest['type'] === 'message' && Array.isArray(content) ? (content as unknown[]) : []
    for (const [i, value] of parts.entries()) {
      const part = toObject(providerName, value, 'a content part')
      const { annotations } = part
      yield { ...place, type: 'response.content_part.added', part }
      if (part['type'] !== 'output_text') continue
      yield { ...place, type: 'response.output_text.done', content_index: i, text: part['text'] }
      for (const annotation of Array.isArray(annotations) ? (annotations as unknown[]) : [])
        yield { ...place, type: 'response.output_text.annotation.added', annotation }
    }
    yield { ...place, type: 'response.output_item.done', item }
  }
  const { status } = response
  // Anything else is not the end.
  if (typeof status === 'string' && ['completed', 'incomplete', 'failed'].includes(status))
    yield { type: `response.${status}`, response }
}

/** Names a part within its item. The index is the service's word, and may be anything. */
function partName(kind: string, index: unknown): string {
  return typeof index === 'number' ? `${kind} ${index}` : kind
}

/** Compares whole arguments with what the deltas brought; servers that send no deltas bring all of it here. */
function settle(call: CallInput | undefined, whole: unknown, out: StreamEvent[]): void {
  if (!call || whole === undefined || whole === null) return
  const text = toText(providerName, whole, 'the arguments of a tool call')
  if (call.text === '') call.write(text, out)
  else if (call.text !== text)
    throw protocolError(providerName, 'the arguments of a tool call are not what their pieces were')
}

function usageOf(raw: Json): Usage {
  const input = (raw['input_tokens_details'] ?? {}) as Json
  const output = (raw['output_tokens_details'] ?? {}) as Json
  const counts = {
    inputTokens: count(raw['input_tokens']),
    outputTokens: count(raw['output_tokens']),
    totalTokens: count(raw['total_tokens']),
    cacheReadTokens: count(input['cached_tokens']),
    cacheWriteTokens: count(input['cache_write_tokens']),
    reasoningTokens: output['reasoning_tokens'],
  }
  return toUsage(counts, raw)
}
