import {
  askMessages,
  type AssistantMessage,
  type FinishReason,
  FieldExtractorRegistry,
  isLLMError,
  type LLMError,
  type LLMResponse,
  type Metrics,
  type Middleware,
  outputFormat,
  type OutputIssue,
  type Provider,
  type ResponseEvent,
  type ResponseStream,
  type Snapshot,
  StreamingLLMClient,
  summaryParts,
  tool,
  type ToolMessage,
  type Usage,
} from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { gemini } from 'fieldstream/gemini'
import { ollama } from 'fieldstream/ollama'
import { openai, openaiChat } from 'fieldstream/openai'
import * as v from 'valibot'
import { toStandardJsonSchema } from '@valibot/to-json-schema'
import { expectTypeOf, test } from 'vitest'
import { z } from 'zod'

const classify = tool({
  name: 'classify_and_assess',
  input: z.object({
    route: z.enum(['product', 'general']),
    ask_slots: z.array(z.object({ slot: z.string(), message: z.string(), options: z.array(z.string()) })),
    simple_response: z.object({ message: z.string() }).optional(),
    budget: z.union([z.object({ max: z.number() }), z.null()]),
    count: z.string().transform(Number),
  }),
})
const answer = tool({
  name: 'answer',
  input: z.object({
    summary_message_part_1: z.string(),
    summary_message_part_2: z.string(),
    by_id: z.record(z.string(), z.number()),
  }),
})
const untyped = tool({ name: 'untyped', input: { type: 'object', properties: { a: { type: 'string' } } } })

declare const provider: Provider
const client = new StreamingLLMClient({ provider })
const messages = [{ role: 'user', content: 'Hello' }] as const

test('events are typed by the fields and tools of the request', async () => {
  const stream = client.stream({
    messages,
    tools: [classify],
    toolChoice: classify,
    fields: { ask: 'ask_slots[*].message', slot: 'ask_slots[0]', route: 'route', max: { path: 'budget.max' } },
  })
  for await (const event of stream) {
    if (event.type === 'field-delta') {
      expectTypeOf(event.field).toEqualTypeOf<'ask' | 'slot' | 'route' | 'max'>()
      expectTypeOf(event.delta).toEqualTypeOf<string>()
    }
    if (event.type === 'field-end' && event.field === 'route')
      expectTypeOf(event.value).toEqualTypeOf<'product' | 'general'>()
    if (event.type === 'field-end' && event.field === 'max') expectTypeOf(event.value).toEqualTypeOf<number>()
    if (event.type === 'field-end' && event.field === 'slot') {
      expectTypeOf(event.value).toEqualTypeOf<{ slot: string; message: string; options: string[] }>()
    }
    if (event.type === 'tool-call') {
      expectTypeOf(event.toolName).toEqualTypeOf<'classify_and_assess'>()
      expectTypeOf(event.input.count).toEqualTypeOf<number>()
    }
  }
})

test('a forced tool gives at least one call, typed by what its schema returns', async () => {
  const { toolCalls } = await client.stream({ messages, tools: [classify, answer], toolChoice: classify }).final()
  expectTypeOf(toolCalls[0].input.count).toEqualTypeOf<number>()
  expectTypeOf(toolCalls[0].toolName).toEqualTypeOf<'classify_and_assess'>()
})

test('a choice of tools gives calls that their name tells apart', async () => {
  const { toolCalls } = await client.stream({ messages, tools: [classify, answer] }).final()
  const [first] = toolCalls
  expectTypeOf(first).extract<undefined>().toEqualTypeOf<undefined>()
  if (first?.toolName === 'answer') expectTypeOf(first.input.by_id).toEqualTypeOf<Record<string, number>>()
})

test('field() is typed by the path, as the model writes it', () => {
  const stream = client.stream({ messages, tools: [classify, answer] })
  expectTypeOf(stream.field('route')).resolves.toEqualTypeOf<'product' | 'general' | undefined>()
  expectTypeOf(stream.field('count')).resolves.toEqualTypeOf<string | undefined>()
  expectTypeOf(stream.field('simple_response.message')).resolves.toEqualTypeOf<string | undefined>()
  expectTypeOf(stream.field('ask_slots[*].options[0]')).resolves.toEqualTypeOf<string | undefined>()
  expectTypeOf(stream.field('by_id.some_key')).resolves.toEqualTypeOf<number | undefined>()
  expectTypeOf(stream.field('summary_message_part_{part}')).resolves.toEqualTypeOf<string | undefined>()
  // @ts-expect-error -- no tool has this path
  void stream.field('rout')
  // @ts-expect-error -- a list has no member of that name
  void stream.field('ask_slots.message')
})

test('a path that cannot exist in the tools of the request is a compile error', () => {
  // @ts-expect-error -- misspelt
  client.stream({ messages, tools: [classify], fields: { ask: 'ask_slot[*].message' } })
  // @ts-expect-error -- misspelt, in the long form
  client.stream({ messages, tools: [classify], fields: { ask: { path: 'ask_slots[*].mesage' } } })
  // @ts-expect-error -- no such option
  client.stream({ messages, tools: [classify], fields: { ask: { path: 'route', delivery: 'complete' } } })
  client.stream({ messages, tools: [classify], fields: { ask: { path: 'route', deliver: 'complete', tool: 'x' } } })
  // @ts-expect-error -- a string has no members
  client.stream({ messages, tools: [classify], fields: { ask: 'route.name' } })
  // @ts-expect-error -- of another tool
  client.stream({ messages, tools: [answer], fields: { ask: 'ask_slots[*].message' } })
  client.stream({ messages, tools: [answer], fields: { part: 'summary_message_part_{n}', any: '*', value: 'by_id.x' } })
  client.stream({ messages, tools: [untyped], fields: { anything: 'goes[0].here' } })
  client.stream({ messages, fields: { anything: 'goes.too' } })
})

test('a tool that the request does not offer cannot be forced', () => {
  // @ts-expect-error -- not among the tools
  client.stream({ messages, tools: [answer], toolChoice: classify })
})

test('a registry types the names of its fields', async () => {
  const fields = new FieldExtractorRegistry([askMessages, summaryParts])
  const stream = client.stream({ messages, tools: [classify, answer], fields })
  expectTypeOf(stream.fields).parameter(0).toEqualTypeOf<'ask_message' | 'summary_part'>()
  for await (const event of stream) {
    if (event.type === 'field-end') {
      expectTypeOf(event.field).toEqualTypeOf<'ask_message' | 'summary_part'>()
      expectTypeOf(event.value).toEqualTypeOf<string>()
    }
  }
  const other = new StreamingLLMClient({ provider, fields }).stream({ messages, tools: [classify] })
  expectTypeOf(other.fields).parameter(0).toEqualTypeOf<'ask_message' | 'summary_part'>()
})

test('listeners are typed by the event they hear', () => {
  client
    .stream({ messages, tools: [classify], fields: { route: 'route' } })
    .on('text-delta', (event) => expectTypeOf(event.delta).toEqualTypeOf<string>())
    .on('field-end', (event) => expectTypeOf(event.value).toEqualTypeOf<'product' | 'general'>())
    .on('error', (error) => expectTypeOf(error.retryable).toEqualTypeOf<boolean>())
    // @ts-expect-error -- no event of that name
    .on('field-detla', () => undefined)
})

test('map gives its type to the value', async () => {
  const stream = client.stream({
    messages,
    tools: [classify],
    fields: { count: { path: 'count', map: (value): number => Number(value) } },
  })
  for await (const event of stream) if (event.type === 'field-end') expectTypeOf(event.value).toEqualTypeOf<number>()
})

const report = z.object({ title: z.string(), count: z.string().transform(Number) })

test('output is typed by what its schema returns, its fields by what the model writes', async () => {
  const stream = client.stream({ messages, output: report, fields: { title: 'title', count: 'count' } })
  for await (const event of stream) {
    if (event.type === 'field-end' && event.field === 'count') expectTypeOf(event.value).toEqualTypeOf<string>()
    if (event.type === 'field-delta') expectTypeOf(event.toolName).toEqualTypeOf<string | undefined>()
  }
  expectTypeOf(stream.field('count')).resolves.toEqualTypeOf<string | undefined>()
  const { output } = await stream.final()
  expectTypeOf(output).toEqualTypeOf<{ title: string; count: number }>()
  // @ts-expect-error -- misspelt
  client.stream({ messages, output: report, fields: { title: 'titel' } })
  // @ts-expect-error -- misspelt
  void stream.field('titel')
})

test('output with tools may be missing, and fields are of either', async () => {
  const stream = client.stream({
    messages,
    tools: [classify],
    output: report,
    fields: { title: 'title', route: 'route' },
  })
  for await (const event of stream) {
    if (event.type === 'field-end' && event.field === 'title') expectTypeOf(event.value).toEqualTypeOf<string>()
    if (event.type === 'field-end' && event.field === 'route')
      expectTypeOf(event.value).toEqualTypeOf<'product' | 'general'>()
  }
  expectTypeOf((await stream.final()).output).toEqualTypeOf<{ title: string; count: number } | undefined>()
  const none = client.stream({ messages, tools: [classify], toolChoice: 'none', output: report })
  expectTypeOf((await none.final()).output).toEqualTypeOf<{ title: string; count: number }>()
  // @ts-expect-error -- neither has it
  client.stream({ messages, tools: [classify], output: report, fields: { title: 'titel' } })
})

test('outputFormat() and JSON Schemas give their types', async () => {
  const format = outputFormat({ name: 'report', schema: report, strict: true })
  const stream = client.stream({ messages, output: format, fields: { title: 'title' } })
  expectTypeOf((await stream.final()).output).toEqualTypeOf<{ title: string; count: number }>()
  // @ts-expect-error -- misspelt
  client.stream({ messages, output: format, fields: { title: 'titel' } })
  const plain = client.stream({ messages, output: { properties: { a: {} } }, fields: { any: 'a.b' } })
  expectTypeOf((await plain.final()).output).toEqualTypeOf<Record<string, unknown>>()
  const checked = outputFormat({ schema: { properties: {} }, validate: () => ({ value: 5 }) })
  expectTypeOf((await client.stream({ messages, output: checked }).final()).output).toEqualTypeOf<number>()
  expectTypeOf((await client.stream({ messages }).final()).output).toEqualTypeOf<undefined>()
})

test('what a validator found can be read of any error of ours', () => {
  const error: unknown = undefined
  if (isLLMError(error)) expectTypeOf(error.issues).toEqualTypeOf<readonly OutputIssue[] | undefined>()
})

const weather = tool({
  name: 'weather',
  input: z.object({ city: z.string(), days: z.string().transform(Number) }),
  needsApproval: ({ days }) => days > 3,
  async execute(input, { signal, toolCallId }) {
    expectTypeOf(input).toEqualTypeOf<{ city: string; days: number }>()
    expectTypeOf(signal).toEqualTypeOf<AbortSignal>()
    expectTypeOf(toolCallId).toEqualTypeOf<string>()
    return Promise.resolve({ degrees: 21 })
  },
})
const search = tool({
  name: 'search',
  input: z.object({ words: z.string() }),
  async *execute() {
    yield await Promise.resolve('half way')
    return ['found']
  },
})
const count = tool({
  name: 'count',
  input: z.object({ to: z.number() }),
  *execute({ to }) {
    yield 1
    return Promise.resolve({ sum: to })
  },
})

test('tools that run give their outputs types', async () => {
  const run = client.run({
    messages,
    tools: [weather, search, count, answer],
    toolChoice: weather,
    fields: { city: 'city' },
    output: report,
    onToolApproval: ({ toolName, input }) => toolName !== 'weather' || input.days < 9,
    stopWhen: (steps) => steps.at(-1)?.toolCalls.some(({ toolName }) => toolName === 'search') ?? false,
  })
  for await (const event of run) {
    if (event.type === 'tool-result' && event.toolName === 'weather')
      expectTypeOf(event.output).toEqualTypeOf<{ degrees: number }>()
    if (event.type === 'tool-result' && event.toolName === 'search')
      expectTypeOf(event.output).toEqualTypeOf<string[]>()
    if (event.type === 'tool-result' && event.toolName === 'count')
      expectTypeOf(event.output).toEqualTypeOf<{ sum: number }>()
    if (event.type === 'tool-error')
      expectTypeOf(event.toolName).toEqualTypeOf<'weather' | 'search' | 'count' | 'answer'>()
    if (event.type === 'field-end') expectTypeOf(event.value).toEqualTypeOf<string>()
  }
  const { toolCalls, steps, output } = await run.final()
  expectTypeOf(toolCalls[0]).extract<undefined>().toEqualTypeOf<undefined>()
  expectTypeOf(steps[0]!.toolCalls).toEqualTypeOf(toolCalls)
  expectTypeOf(output).toEqualTypeOf<{ title: string; count: number } | undefined>()
  run.on('tool-progress', ({ toolCallId }) => expectTypeOf(toolCallId).toEqualTypeOf<string>())
  // @ts-expect-error -- misspelt
  client.run({ messages, tools: [weather], fields: { city: 'town' } })
  // @ts-expect-error -- the schema has no such member
  tool({ name: 'wrong', input: z.object({ a: z.string() }), execute: ({ b }) => String(b) })
})

test('a stream runs no tools, so that it has no events of theirs', () => {
  // @ts-expect-error -- only run() runs tools
  client.stream({ messages, tools: [weather] }).on('tool-result', () => undefined)
})

test('a function that takes any stream or response takes every one there is', async () => {
  const pipe = (stream: ResponseStream): ResponseStream => stream
  const save = (response: LLMResponse): LLMResponse => response
  const streams = [
    pipe(client.stream({ messages })),
    pipe(client.stream({ messages, tools: [classify] })),
    pipe(client.stream({ messages, tools: [classify, answer], toolChoice: classify, fields: { route: 'route' } })),
    pipe(client.stream({ messages, tools: [untyped], toolChoice: 'required' })),
    pipe(client.stream({ messages, output: report, fields: { count: { path: 'count', map: Number } } })),
    pipe(client.stream({ messages, tools: [answer], output: report })),
    pipe(client.stream({ messages, tools: [classify], fields: new FieldExtractorRegistry([askMessages]) })),
    pipe(client.run({ messages })),
    pipe(client.run({ messages, tools: [weather, answer], fields: { city: 'city' } })),
    pipe(client.run({ messages, tools: [search], output: report, fields: { title: 'title' } })),
  ]
  for (const stream of streams) save(await stream.final())
  save(await client.stream({ messages, tools: [classify], toolChoice: classify }).final())
  save(await client.run({ messages, tools: [weather], output: report }).final())
  save(await client.generate({ messages, tools: [classify, answer], output: report }))
  expectTypeOf(streams[0]!.field('any.path')).resolves.toEqualTypeOf<unknown>()
})

test('one answer is one message of the assistant, a run has the results of its tools beside', async () => {
  const { messages: said } = await client.stream({ messages }).final()
  expectTypeOf(said).toEqualTypeOf<readonly AssistantMessage[]>()
  expectTypeOf((await client.generate({ messages })).messages).toEqualTypeOf<readonly AssistantMessage[]>()
  const run = await client.run({ messages, tools: [weather] }).final()
  expectTypeOf(run.messages).toEqualTypeOf<readonly (AssistantMessage | ToolMessage)[]>()
  expectTypeOf(run.steps[0]!.messages).toEqualTypeOf<readonly AssistantMessage[]>()
})

test('an event is known by its type, and a switch can name them all', async () => {
  const label = (event: ResponseEvent): string => {
    switch (event.type) {
      case 'start':
        expectTypeOf(event.attempt).toEqualTypeOf<number>()
        return event.toolInput
      case 'text-delta':
      case 'field-delta':
        return event.delta.slice(0, event.length)
      case 'reasoning-delta':
      case 'tool-input-delta':
        return event.delta
      case 'tool-input-start':
        return event.toolName
      case 'tool-input-end':
        return event.toolCallId
      case 'field-end':
        expectTypeOf(event.value).toEqualTypeOf<unknown>()
        return event.params['part'] ?? event.field
      case 'tool-call':
        expectTypeOf(event.input).toEqualTypeOf<unknown>()
        return event.toolName
      case 'tool-progress':
      case 'tool-result':
        return event.toolName
      case 'tool-error':
        return event.error.code
      case 'progress':
        return event.ratio.toFixed(2)
      case 'restart':
        return `${event.from.model} ${event.to.model} ${event.shown[0]?.length ?? 0}`
      case 'finish':
        expectTypeOf(event.metrics).toEqualTypeOf<Metrics>()
        return event.finishReason
      case 'raw':
        return String(event.value)
      default:
        event satisfies never
        return event
    }
  }
  for await (const event of client.run({ messages, tools: [weather], fields: { city: 'city' } })) {
    expectTypeOf(event.seq).toEqualTypeOf<number>()
    label(event)
  }
})

test('field events have the names of the fields, and of no others', async () => {
  for await (const event of client.stream({ messages, tools: [classify], fields: { ask: 'ask_slots[*].message' } })) {
    // @ts-expect-error -- no field has this name
    if (event.type === 'field-delta') expectTypeOf(event.field === 'ask_message')
    if (event.type !== 'field-end') continue
    expectTypeOf(event.params).toEqualTypeOf<Readonly<Record<string, string>>>()
    expectTypeOf(event.valid).toEqualTypeOf<boolean | undefined>()
    // @ts-expect-error -- a string is no number
    expectTypeOf(event.value * 2)
  }
})

test('paths are read as they are when a request is made', () => {
  const places = tool({
    name: 'places',
    input: z.object({
      'a key': z.object({ b: z.boolean() }),
      pair: z.tuple([z.string(), z.number()]),
      rows: z.array(z.array(z.number())),
      maybe: z.object({ deep: z.array(z.string()).nullable() }).nullish(),
      kind: z.discriminatedUnion('type', [
        z.object({ type: z.literal('text'), text: z.string() }),
        z.object({ type: z.literal('price'), price: z.number() }),
      ]),
      anything: z.unknown(),
    }),
  })
  const stream = client.stream({ messages, tools: [places] })
  expectTypeOf(stream.field('["a key"].b')).resolves.toEqualTypeOf<boolean | undefined>()
  expectTypeOf(stream.field('pair[1]')).resolves.toEqualTypeOf<number | undefined>()
  expectTypeOf(stream.field('rows[*][0]')).resolves.toEqualTypeOf<number | undefined>()
  expectTypeOf(stream.field('rows[{row}][{column}]')).resolves.toEqualTypeOf<number | undefined>()
  expectTypeOf(stream.field('maybe.deep[*]')).resolves.toEqualTypeOf<string | undefined>()
  expectTypeOf(stream.field('kind.price')).resolves.toEqualTypeOf<number | undefined>()
  expectTypeOf(stream.field('kind.type')).resolves.toEqualTypeOf<'text' | 'price' | undefined>()
  expectTypeOf(stream.field('anything.at[0].all')).resolves.toEqualTypeOf<unknown>()
  const path: string = 'known.later'
  expectTypeOf(stream.field(path)).resolves.toEqualTypeOf<unknown>()
  const row: number = 1
  expectTypeOf(stream.field(`rows[${row}][0]`)).resolves.toEqualTypeOf<number | undefined>()
  // @ts-expect-error -- no member of the union has it
  void stream.field('kind.size')
  // @ts-expect-error -- a key with a space is quoted
  void stream.field('["a kez"].b')
  // @ts-expect-error -- a list is not an object
  void stream.field('rows.length')
})

test('the views of a stream are typed', () => {
  const stream = client.stream({ messages, tools: [classify], fields: { route: 'route' } })
  expectTypeOf(stream.textStream).toEqualTypeOf<AsyncIterableIterator<string, undefined>>()
  expectTypeOf(stream.fields('route')).toEqualTypeOf<AsyncIterableIterator<string, undefined>>()
  expectTypeOf(stream.snapshot()).toEqualTypeOf<Snapshot>()
  expectTypeOf(stream.toReadableStream()).toEqualTypeOf<ReadableStream<Uint8Array>>()
  expectTypeOf(stream.subscribe({ from: 3 })).toExtend<AsyncIterable<ResponseEvent>>()
  // @ts-expect-error -- no field has this name
  stream.fields('rout')
  // @ts-expect-error -- a number, the `seq` of an event
  stream.subscribe({ from: 'start' })
})

test('final() and generate() give the same type', async () => {
  const request = { messages, tools: [classify], toolChoice: classify } as const
  const response = await client.stream(request).final()
  expectTypeOf(client.generate(request)).resolves.toEqualTypeOf(response)
  expectTypeOf(response.finishReason).toEqualTypeOf<FinishReason>()
  expectTypeOf(response.usage).toEqualTypeOf<Usage>()
  expectTypeOf(response.output).toEqualTypeOf<undefined>()
  expectTypeOf(response.toolCalls[0].input.route).toEqualTypeOf<'product' | 'general'>()
  const { toolCalls } = await client.stream({ messages, tools: [classify, answer], toolChoice: 'required' }).final()
  expectTypeOf(toolCalls[0].toolName).toEqualTypeOf<'classify_and_assess' | 'answer'>()
  // @ts-expect-error -- a response is not to be changed
  response.text = ''
  await client.generate(request, {
    onEvent: (event) => {
      if (event.type === 'tool-call') expectTypeOf(event.input.route).toEqualTypeOf<'product' | 'general'>()
    },
  })
})

test('tools are typed by any Standard Schema, by a validator, or not at all', async () => {
  const size = tool({
    name: 'size',
    input: toStandardJsonSchema(v.object({ width: v.number(), unit: v.optional(v.string()) })),
    execute: ({ width }) => width * 2,
  })
  const checked = tool({ name: 'checked', input: { type: 'object' }, validate: () => ({ value: { id: 7 } }) })
  for await (const event of client.run({ messages, tools: [size, checked, untyped] })) {
    if (event.type === 'tool-result' && event.toolName === 'size') expectTypeOf(event.output).toEqualTypeOf<number>()
    if (event.type !== 'tool-call') continue
    if (event.toolName === 'size') expectTypeOf(event.input.unit).toEqualTypeOf<string | undefined>()
    if (event.toolName === 'checked') expectTypeOf(event.input).toEqualTypeOf<{ id: number }>()
    if (event.toolName === 'untyped') expectTypeOf(event.input).toEqualTypeOf<Record<string, unknown>>()
  }
  // @ts-expect-error -- a name is needed
  tool({ input: z.object({}) })
  // @ts-expect-error -- milliseconds, or false
  tool({ name: 'slow', input: z.object({}), timeout: 'never' })
})

test('providers take their own options, and no others', () => {
  expectTypeOf(anthropic({ model: 'm', maxTokens: 5, headers: { a: 'b' } })).toEqualTypeOf<Provider>()
  expectTypeOf(openai({ model: 'm', store: true, systemRole: 'developer' })).toEqualTypeOf<Provider>()
  expectTypeOf(openaiChat({ model: 'm', baseURL: 'http://x', name: 'x' })).toEqualTypeOf<Provider>()
  expectTypeOf(ollama({ model: 'm', host: 'http://x' })).toEqualTypeOf<Provider>()
  expectTypeOf(gemini({ model: 'm', vertexai: true, project: 'p', location: 'l' })).toEqualTypeOf<Provider>()
  // @ts-expect-error -- a model is needed
  anthropic({})
  // @ts-expect-error -- misspelt
  anthropic({ model: 'm', baseUrl: 'http://x' })
  // @ts-expect-error -- Ollama has no key of its own, but a host
  ollama({ model: 'm', baseURL: 'http://x' })
  // @ts-expect-error -- of Chat Completions
  openai({ model: 'm', includeUsage: true })
  // @ts-expect-error -- no client of an SDK
  gemini({ model: 'm', client: {} })
  client.stream({ messages, providerOptions: { anthropic: { top_k: 5 } } })
  // @ts-expect-error -- options are kept by the name of a provider
  client.stream({ messages, providerOptions: { top_k: 5 } })
})

test('a request that is put together may leave things undefined', () => {
  const given: { readonly maxTokens: number | undefined; readonly signal: AbortSignal | undefined } = {
    maxTokens: undefined,
    signal: undefined,
  }
  const fields = Math.random() > 2 ? { route: 'route' } : undefined
  client.stream({ ...given, messages, tools: [classify], fields, system: undefined, batch: undefined })
  new StreamingLLMClient({ provider, fields: undefined, middleware: undefined, onError: undefined })
  anthropic({ model: 'm', apiKey: process.env['KEY'], fetch: undefined, client: undefined })
  // @ts-expect-error -- misspelt
  client.stream({ messages, maxToken: 5 })
})

test('middleware and hooks are typed by what they are told', () => {
  const shorten: Middleware = (next) => (request, context) => {
    expectTypeOf(request.maxTokens).toEqualTypeOf<number | undefined>()
    expectTypeOf(context.signal).toEqualTypeOf<AbortSignal>()
    return next({ ...request, maxTokens: 5 }, context)
  }
  new StreamingLLMClient({
    provider,
    middleware: [shorten],
    onError: (error, { runId }) => {
      expectTypeOf(error).toEqualTypeOf<LLMError>()
      expectTypeOf(runId).toEqualTypeOf<string>()
    },
    // @ts-expect-error -- no hook of that name
    onFinished: () => undefined,
  })
})
