import type { WireName } from './wires.ts'

/** What somebody holds in hand who took an answer for complete. */
export interface Taken {
  readonly text: string
  /** The arguments of its calls. Where pieces are handed out only, they are joined and parsed, as users do. */
  readonly inputs: readonly unknown[]
  /** What is said about it, without an error. */
  readonly flag?: string | undefined
}

/** One way to read a stream without this library. */
export interface Rival {
  readonly name: string
  /** The packages it is made of. */
  readonly packages: readonly string[]
  readonly wire: WireName
  /** Fails where it says that something is wrong. */
  read(baseURL: string): Promise<Taken>
}

type Json = Record<string, unknown>
type Events = AsyncIterable<Json>

const model = 'model-a'
const apiKey = 'planted-key'
const schema = {
  type: 'object',
  properties: { message: { type: 'string' }, count: { type: 'number' } },
  additionalProperties: true,
} as const
const messages = [{ role: 'user' as const, content: 'planted prompt' }]
const chatTools = [{ type: 'function' as const, function: { name: 'ask', parameters: schema } }]
const responsesTools = [{ type: 'function' as const, name: 'ask', parameters: schema, strict: false }]
const anthropicTools = [{ name: 'ask', input_schema: schema }]

/** Not known to the compiler, since it need not be installed. */
async function load(name: string): Promise<Record<string, (...args: unknown[]) => unknown>> {
  return (await import(name)) as Record<string, (...args: unknown[]) => unknown>
}

class Joined {
  text = ''
  readonly #calls = new Map<unknown, string>()

  call(key: unknown, piece: unknown): void {
    this.#calls.set(key, (this.#calls.get(key) ?? '') + ((piece as string | undefined) ?? ''))
  }

  /** Why the answer ended early, where the stream says so. */
  flag: string | undefined

  /** Arguments that do not parse are an error to whoever parses them; who was told that they were cut does not try. */
  taken(): Taken {
    if (this.flag !== undefined) return { text: this.text, inputs: [], flag: this.flag }
    return { text: this.text, inputs: [...this.#calls.values()].map((text) => JSON.parse(text || '{}') as unknown) }
  }
}

async function anthropicClient(baseURL: string) {
  const { default: Anthropic } = await import('@anthropic-ai/sdk')
  return new Anthropic({ apiKey, baseURL, maxRetries: 0 })
}

async function openaiClient(baseURL: string) {
  const { default: OpenAI } = await import('openai')
  return new OpenAI({ apiKey, baseURL, maxRetries: 0 })
}

const anthropicRequest = { model, max_tokens: 100, messages, tools: anthropicTools }
const responsesRequest = { model, input: 'planted prompt', tools: responsesTools }
const chatRequest = { model, messages, tools: chatTools }

const sdks: readonly Rival[] = [
  {
    name: 'Anthropic',
    packages: ['@anthropic-ai/sdk'],
    wire: 'anthropic',
    async read(baseURL) {
      const joined = new Joined()
      const client = await anthropicClient(baseURL)
      for await (const event of await client.messages.create({ ...anthropicRequest, stream: true })) {
        if (event.type === 'message_delta' && event.delta.stop_reason === 'max_tokens') joined.flag = 'max_tokens'
        if (event.type === 'content_block_start' && event.content_block.type === 'tool_use')
          joined.call(event.index, '')
        if (event.type !== 'content_block_delta') continue
        if (event.delta.type === 'text_delta') joined.text += event.delta.text
        if (event.delta.type === 'input_json_delta') joined.call(event.index, event.delta.partial_json)
      }
      return joined.taken()
    },
  },
  {
    name: 'Anthropic, helper',
    packages: ['@anthropic-ai/sdk'],
    wire: 'anthropic',
    async read(baseURL) {
      const client = await anthropicClient(baseURL)
      const message = await client.messages.stream(anthropicRequest).finalMessage()
      return {
        text: message.content.map((block) => (block.type === 'text' ? block.text : '')).join(''),
        inputs: message.content.flatMap((block) => (block.type === 'tool_use' ? [block.input] : [])),
        flag: message.stop_reason === 'max_tokens' ? 'max_tokens' : undefined,
      }
    },
  },
  {
    name: 'OpenAI Responses',
    packages: ['openai'],
    wire: 'openai',
    async read(baseURL) {
      const joined = new Joined()
      const client = await openaiClient(baseURL)
      for await (const event of await client.responses.create({ ...responsesRequest, stream: true })) {
        if (event.type === 'response.incomplete' || event.type === 'response.failed') joined.flag = event.type
        if (event.type === 'response.output_text.delta') joined.text += event.delta
        if (event.type === 'response.output_item.added' && event.item.type === 'function_call')
          joined.call(event.output_index, '')
        if (event.type === 'response.function_call_arguments.delta') joined.call(event.output_index, event.delta)
      }
      return joined.taken()
    },
  },
  {
    name: 'OpenAI Responses, helper',
    packages: ['openai'],
    wire: 'openai',
    async read(baseURL) {
      const client = await openaiClient(baseURL)
      const response = await client.responses.stream(responsesRequest).finalResponse()
      if (response.status !== 'completed') return { text: response.output_text, inputs: [], flag: response.status }
      return {
        text: response.output_text,
        inputs: response.output.flatMap((item) =>
          item.type === 'function_call' ? [JSON.parse(item.arguments || '{}') as unknown] : [],
        ),
      }
    },
  },
  {
    name: 'OpenAI Chat',
    packages: ['openai'],
    wire: 'openai-chat',
    async read(baseURL) {
      const joined = new Joined()
      const client = await openaiClient(baseURL)
      for await (const { choices } of await client.chat.completions.create({ ...chatRequest, stream: true })) {
        joined.text += choices[0]?.delta.content ?? ''
        if (choices[0]?.finish_reason === 'length') joined.flag = 'length'
        for (const call of choices[0]?.delta.tool_calls ?? []) joined.call(call.index, call.function?.arguments)
      }
      return joined.taken()
    },
  },
  {
    name: 'OpenAI Chat, helper',
    packages: ['openai'],
    wire: 'openai-chat',
    async read(baseURL) {
      const client = await openaiClient(baseURL)
      const { choices } = await client.chat.completions.stream(chatRequest).finalChatCompletion()
      const { message, finish_reason: reason } = choices[0]!
      if (reason === 'length') return { text: message.content ?? '', inputs: [], flag: reason }
      return {
        text: message.content ?? '',
        inputs: (message.tool_calls ?? []).map((call) =>
          call.type === 'function' ? (JSON.parse(call.function.arguments || '{}') as unknown) : call,
        ),
      }
    },
  },
  {
    name: 'Ollama',
    packages: ['ollama'],
    wire: 'ollama',
    async read(baseURL) {
      const { Ollama } = await import('ollama')
      let text = ''
      const inputs: unknown[] = []
      const chunks = await new Ollama({ host: baseURL }).chat({ model, messages, stream: true })
      for await (const { message, done_reason: reason } of chunks) {
        if (reason === 'length') return { text, inputs: [], flag: reason }
        text += message.content
        for (const call of message.tool_calls ?? []) {
          const input = call.function.arguments as unknown
          inputs.push(typeof input === 'string' ? JSON.parse(input) : input)
        }
      }
      return { text, inputs }
    },
  },
  {
    name: 'Gemini',
    packages: ['@google/genai'],
    wire: 'gemini',
    async read(baseURL) {
      const { GoogleGenAI } = await import('@google/genai')
      const client = new GoogleGenAI({ apiKey, vertexai: false, httpOptions: { baseUrl: baseURL } })
      let text = ''
      let flag: string | undefined
      const inputs: unknown[] = []
      for await (const { candidates } of await client.models.generateContentStream({
        model,
        contents: 'planted prompt',
      })) {
        const [candidate] = candidates ?? []
        for (const part of candidate?.content?.parts ?? []) {
          text += part.text ?? ''
          if (part.functionCall) inputs.push(part.functionCall.args)
        }
        const reason = candidate?.finishReason as string | undefined
        if (reason && reason !== 'STOP') flag = reason
      }
      return { text, inputs, flag }
    },
  },
]

/** The Vercel AI SDK over one of its providers. */
function aiSdk(
  wire: WireName,
  provider: string,
  name: string,
  create: (module: Json, baseURL: string) => unknown,
): Rival {
  return {
    name: `AI SDK, ${name}`,
    packages: ['ai', provider],
    wire,
    async read(baseURL) {
      const [{ streamText, jsonSchema, tool }, module] = await Promise.all([load('ai'), load(provider)])
      const result = streamText!({
        model: create(module, baseURL),
        prompt: 'planted prompt',
        tools: { ask: tool!({ inputSchema: jsonSchema!(schema) }) },
        maxRetries: 0,
        onError: () => undefined,
      }) as { readonly fullStream: Events }
      let text = ''
      let flag: string | undefined
      const inputs: unknown[] = []
      for await (const part of result.fullStream) {
        if (part['type'] === 'error') throw part['error']
        if (part['type'] === 'text-delta') text += part['text'] as string
        if (part['type'] === 'tool-call' && part['invalid'] !== true) inputs.push(part['input'])
        if (part['type'] === 'tool-call' && part['invalid'] === true) flag = 'invalid'
        if (part['type'] === 'finish' && !['stop', 'tool-calls'].includes(part['finishReason'] as string))
          flag = part['finishReason'] as string
      }
      return { text, inputs, flag }
    },
  }
}

type Create = (options: object) => (model: string) => unknown

export const rivals: readonly Rival[] = [
  ...sdks,
  aiSdk('anthropic', '@ai-sdk/anthropic', 'Anthropic', ({ createAnthropic }, baseURL) =>
    (createAnthropic as Create)({ apiKey, baseURL })(model),
  ),
  aiSdk('openai', '@ai-sdk/openai', 'OpenAI', ({ createOpenAI }, baseURL) =>
    (createOpenAI as Create)({ apiKey, baseURL })(model),
  ),
  aiSdk('gemini', '@ai-sdk/google', 'Google', ({ createGoogleGenerativeAI }, baseURL) =>
    (createGoogleGenerativeAI as Create)({ apiKey, baseURL })(model),
  ),
]
