import { type Ask, type Contestant, type Sink, SnapshotReader } from './contestant.ts'
import { apiKey, model, type WireName, wireNames } from './job.ts'
import { bodyOf, pieceOf } from './wire-events.ts'

export const sdkPackages: Readonly<Record<WireName, readonly string[]>> = {
  anthropic: ['@anthropic-ai/sdk'],
  openai: ['openai'],
  'openai-chat': ['openai'],
  ollama: ['ollama'],
  gemini: ['@google/genai'],
}

export async function anthropicClient(address: string) {
  const { default: Anthropic } = await import('@anthropic-ai/sdk')
  return new Anthropic({ apiKey, baseURL: address, maxRetries: 0 })
}

async function openaiClient(address: string) {
  const { default: OpenAI } = await import('openai')
  return new OpenAI({ apiKey, baseURL: `${address}/v1`, maxRetries: 0 })
}

/** Opens an SDK's raw stream. */
export type OpenStream = (prompt: string) => Promise<AsyncIterable<object>>

export async function rawStream(wire: WireName, address: string): Promise<OpenStream> {
  switch (wire) {
    case 'anthropic': {
      const client = await anthropicClient(address)
      return (prompt) => client.messages.create({ ...bodyOf.anthropic(prompt), stream: true })
    }
    case 'openai': {
      const client = await openaiClient(address)
      return (prompt) => client.responses.create({ ...bodyOf.openai(prompt), stream: true })
    }
    case 'openai-chat': {
      const client = await openaiClient(address)
      return (prompt) => client.chat.completions.create({ ...bodyOf['openai-chat'](prompt), stream: true })
    }
    case 'ollama': {
      const { Ollama } = await import('ollama')
      const client = new Ollama({ host: address })
      return (prompt) => client.chat({ ...bodyOf.ollama(prompt), stream: true })
    }
    case 'gemini': {
      const { GoogleGenAI } = await import('@google/genai')
      const client = new GoogleGenAI({ apiKey, vertexai: false, httpOptions: { baseUrl: address } })
      return (prompt) => {
        const { contents, generationConfig } = bodyOf.gemini(prompt)
        return client.models.generateContentStream({ model, contents, config: generationConfig })
      }
    }
  }
}

/** Parses and keeps nothing: the least that an application over the SDK can pay. */
export const rawSdk: Contestant = {
  name: 'raw SDK, no fields',
  kind: 'raw',
  givesArguments: wireNames,
  packages: sdkPackages,
  async open(wire, address) {
    const open = await rawStream(wire, address)
    const toPiece = pieceOf[wire]
    return async (prompt, sink) => {
      for await (const event of await open(prompt)) {
        const piece = toPiece(event)
        if (piece !== undefined) sink.onArguments(piece)
      }
      return undefined
    }
  },
}

const helpers: Partial<Record<WireName, (address: string) => Promise<Ask>>> = {
  async anthropic(address) {
    const client = await anthropicClient(address)
    return async (prompt: string, sink: Sink) => {
      const reader = new SnapshotReader(sink)
      const stream = client.messages.stream(bodyOf.anthropic(prompt))
      stream.on('inputJson', (piece, snapshot) => {
        // The snapshot shows no string before it is whole.
        sink.onArguments(piece)
        reader.read(snapshot)
      })
      const { content } = await stream.finalMessage()
      return content.find((block) => block.type === 'tool_use')?.input
    }
  },
  async openai(address) {
    const client = await openaiClient(address)
    return async (prompt: string, sink: Sink) => {
      const stream = client.responses.stream(bodyOf.openai(prompt))
      stream.on('response.function_call_arguments.delta', ({ delta }) => sink.onArguments(delta))
      const { output } = await stream.finalResponse()
      const call = output.find((item) => item.type === 'function_call')
      return call && (JSON.parse(call.arguments) as unknown)
    }
  },
  async 'openai-chat'(address) {
    const client = await openaiClient(address)
    return async (prompt: string, sink: Sink) => {
      const stream = client.chat.completions.stream(bodyOf['openai-chat'](prompt))
      // Only tools that are made with the SDK's own helpers for schemas have partial objects.
      stream.on('tool_calls.function.arguments.delta', ({ arguments_delta: piece }) => sink.onArguments(piece))
      const { choices } = await stream.finalChatCompletion()
      const call = choices[0]?.message.tool_calls?.[0]
      return call?.type === 'function' ? (JSON.parse(call.function.arguments) as unknown) : undefined
    }
  },
}

export const sdkHelper: Contestant = {
  name: 'SDK helper stream',
  kind: 'other',
  givesArguments: ['openai', 'openai-chat'],
  packages: { anthropic: sdkPackages.anthropic, openai: sdkPackages.openai, 'openai-chat': sdkPackages['openai-chat'] },
  open: (wire, address) => helpers[wire]!(address),
}
