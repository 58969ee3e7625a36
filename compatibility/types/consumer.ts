// What `npm run check:types` compiles against the packed library: every entry, as an application uses it.
import {
  askMessages,
  cache,
  fallback,
  FieldExtractorRegistry,
  isLLMError,
  type LLMResponse,
  type Message,
  type Middleware,
  outputFormat,
  type Provider,
  rateLimit,
  type ResponseStream,
  retry,
  StreamingLLMClient,
  timeout,
  tool,
  ToolStreamAccumulator,
  xmlTools,
} from 'fieldstream'
import { anthropic, toStreamEvents } from 'fieldstream/anthropic'
import { gemini } from 'fieldstream/gemini'
import { ollama } from 'fieldstream/ollama'
import { openai, openaiChat } from 'fieldstream/openai'
import { telemetry } from 'fieldstream/telemetry'
import { recordFetch, type ReplayRequest, replayFetch, simulate } from 'fieldstream/testing'
import { z } from 'zod'

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
function isType<Wanted>() {
  return function <Actual>(_value: Actual, ..._wrong: Equal<Wanted, Actual> extends true ? [] : [wanted: Wanted]) {}
}

const classify = tool({
  name: 'classify',
  input: z.object({
    route: z.enum(['product', 'general']),
    ask_slots: z.array(z.object({ message: z.string(), options: z.array(z.string()) })),
    price: z.string().transform(Number).optional(),
  }),
  execute: ({ route }) => ({ done: route }),
})
const untyped = tool({ name: 'untyped', input: { type: 'object', properties: { a: { type: 'string' } } } })

const shorten: Middleware = (next) => (request, context) => next({ ...request, maxTokens: 5 }, context)
const fetch = replayFetch(simulate({ route: 'product' }), { chunks: 'random', seed: 1 })
const recorded = recordFetch({ fetch })
const providers: Provider[] = [
  anthropic({ model: 'm', fetch, apiKey: undefined }),
  openai({ model: 'm', fetch: recorded }),
  openaiChat({ model: 'm', baseURL: 'http://127.0.0.1' }),
  ollama({ model: 'm', host: 'http://127.0.0.1' }),
  xmlTools(gemini({ model: 'm', vertexai: false })),
]
const client = new StreamingLLMClient({
  provider: fallback(providers[0]!, providers[1]!),
  middleware: [cache(), rateLimit({ requests: 3, per: 1000 }), retry(), timeout({ idle: 5 }), telemetry(), shorten],
  onError: (error) => void error.code,
})
const messages: Message[] = [{ role: 'user', content: 'Hello' }]
const given: { signal: AbortSignal | undefined } = { signal: undefined }

export async function use(): Promise<void> {
  const request = {
    ...given,
    messages,
    tools: [classify],
    toolChoice: classify,
    fields: { ask: 'ask_slots[*].message', route: { path: 'route', deliver: 'complete' } },
  } as const
  const stream = client.stream(request)
  for await (const event of stream) {
    if (event.type === 'field-delta') isType<'ask' | 'route'>()(event.field)
    if (event.type === 'field-end' && event.field === 'route') isType<'product' | 'general'>()(event.value)
    if (event.type === 'tool-call') isType<number | undefined>()(event.input.price)
  }
  isType<string | undefined>()(await stream.field('ask_slots[0].options[*]'))
  isType<'product' | 'general'>()((await stream.final()).toolCalls[0].input.route)
  const any: ResponseStream = stream
  any.on('text-delta', ({ delta }) => isType<string>()(delta)).on('error', (error) => void error.retryable)
  isType<ReadableStream<Uint8Array>>()(stream.toReadableStream())

  const run = client.run({ messages, tools: [classify, untyped], maxSteps: 3, stopWhen: (steps) => steps.length > 2 })
  for await (const event of run) {
    if (event.type === 'tool-result' && event.toolName === 'classify')
      isType<{ done: 'product' | 'general' }>()(event.output)
  }
  const report = outputFormat({ name: 'report', schema: z.object({ title: z.string() }) })
  const { output } = await client.generate({ messages, output: report }, { onEvent: ({ type }) => void type })
  isType<{ title: string }>()(output)
  const response: LLMResponse = await run.final()
  void response

  // @ts-expect-error -- no such path
  client.stream({ messages, tools: [classify], fields: { ask: 'ask_slots.message' } })
  // @ts-expect-error -- no such path
  void stream.field('rout')
  // @ts-expect-error -- no such option
  anthropic({ model: 'm', baseUrl: '' })

  const fields = new FieldExtractorRegistry([askMessages])
  const accumulator = new ToolStreamAccumulator({ fields })
  async function* none(): AsyncGenerator<{ type: string }> {}
  for await (const event of toStreamEvents(none())) for (const found of accumulator.push(event)) void found.path
  const requests: readonly ReplayRequest[] = fetch.requests
  void requests
  const failure: unknown = undefined
  if (isLLMError(failure)) isType<boolean>()(failure.retryable)
}
