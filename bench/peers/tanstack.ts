import { type Contestant, SnapshotReader } from '../e2e/contestant.ts'
import { apiKey, model, schema, toolName, type WireName } from '../e2e/job.ts'
import { load } from './load.ts'

async function adapterOf(wire: WireName, address: string): Promise<unknown> {
  switch (wire) {
    case 'anthropic':
      return (await load('@tanstack/ai-anthropic'))['createAnthropicChat']!(model, apiKey, { baseURL: address })
    case 'openai':
      return (await load('@tanstack/ai-openai'))['createOpenaiChat']!(model, apiKey, { baseURL: `${address}/v1` })
    case 'openai-chat':
      return (await load('@tanstack/ai-openai'))['createOpenaiChatCompletions']!(model, apiKey, {
        baseURL: `${address}/v1`,
      })
    default:
      return (await load('@tanstack/ai-ollama'))['createOllamaChat']!(model, address)
  }
}

const choices: Partial<Record<WireName, object>> = {
  anthropic: { tool_choice: { type: 'tool', name: toolName }, max_tokens: 8192 },
  openai: { tool_choice: { type: 'function', name: toolName } },
  'openai-chat': { tool_choice: { type: 'function', function: { name: toolName } } },
}

interface Chunk {
  readonly type: string
  readonly delta?: string
  readonly input?: unknown
  readonly message?: string
}

export const tanstack: Contestant = {
  name: 'TanStack AI, partial objects',
  kind: 'other',
  packages: {
    anthropic: ['@tanstack/ai', '@tanstack/ai-anthropic'],
    openai: ['@tanstack/ai', '@tanstack/ai-openai'],
    'openai-chat': ['@tanstack/ai', '@tanstack/ai-openai'],
    ollama: ['@tanstack/ai', '@tanstack/ai-ollama'],
  },
  async open(wire, address) {
    const { chat, parsePartialJSON } = await load('@tanstack/ai')
    const adapter = await adapterOf(wire, address)
    const isText = wire === 'ollama'
    const tools = isText ? [] : [{ name: toolName, description: 'Answer', inputSchema: schema }]
    const modelOptions = isText ? { format: schema } : choices[wire]
    const piecesIn = isText ? 'TEXT_MESSAGE_CONTENT' : 'TOOL_CALL_ARGS'
    return async (prompt, sink) => {
      const reader = new SnapshotReader(sink)
      let text = ''
      let payload: unknown
      const messages = [{ role: 'user', content: prompt }]
      for await (const chunk of chat!({ adapter, messages, tools, modelOptions }) as AsyncIterable<Chunk>) {
        if (chunk.type === 'RUN_ERROR') throw new Error(chunk.message)
        if (chunk.type === piecesIn) reader.read(parsePartialJSON!((text += chunk.delta ?? '')))
        else if (chunk.type === 'TOOL_CALL_END') payload = chunk.input
      }
      return isText ? (JSON.parse(text) as unknown) : payload
    }
  },
}
