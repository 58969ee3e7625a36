import { type Contestant, SnapshotReader } from '../e2e/contestant.ts'
import { apiKey, model, schema, toolName, type WireName } from '../e2e/job.ts'
import { load } from './load.ts'

interface Chunk {
  readonly tool_calls?: readonly { readonly args: unknown }[]
  concat(chunk: Chunk): Chunk
}

interface Chat {
  bindTools(tools: readonly object[], options: object): Chat
  pipe(next: unknown): Chat
  stream(prompt: string): Promise<AsyncIterable<Chunk>>
}

const chatTool = { type: 'function', function: { name: toolName, description: 'Answer', parameters: schema } }

async function chatOf(wire: WireName, address: string): Promise<Chat> {
  switch (wire) {
    case 'anthropic': {
      const { ChatAnthropic } = await load('@langchain/anthropic')
      const chat = new ChatAnthropic!({
        model,
        apiKey,
        anthropicApiUrl: address,
        maxRetries: 0,
        maxTokens: 8192,
      }) as Chat
      return chat.bindTools([chatTool], { tool_choice: { type: 'tool', name: toolName } })
    }
    case 'openai':
    case 'openai-chat': {
      const { ChatOpenAI } = await load('@langchain/openai')
      const configuration = { baseURL: `${address}/v1` }
      const useResponsesApi = wire === 'openai'
      const chat = new ChatOpenAI!({ model, apiKey, configuration, useResponsesApi, maxRetries: 0 }) as Chat
      return chat.bindTools([chatTool], { tool_choice: toolName })
    }
    default: {
      const { ChatOllama } = await load('@langchain/ollama')
      const { JsonOutputParser } = await load('@langchain/core/output_parsers')
      const chat = new ChatOllama!({ model, baseUrl: address, format: schema, maxRetries: 0 }) as Chat
      return chat.pipe(new JsonOutputParser!())
    }
  }
}

export const langchain: Contestant = {
  name: 'LangChain, partial objects',
  kind: 'other',
  packages: {
    anthropic: ['@langchain/core', '@langchain/anthropic'],
    openai: ['@langchain/core', '@langchain/openai'],
    'openai-chat': ['@langchain/core', '@langchain/openai'],
    ollama: ['@langchain/core', '@langchain/ollama'],
  },
  async open(wire, address) {
    const chat = await chatOf(wire, address)
    return async (prompt, sink) => {
      const reader = new SnapshotReader(sink)
      let whole: Chunk | undefined
      for await (const chunk of await chat.stream(prompt)) {
        // The parser gives the whole each time.
        whole = wire === 'ollama' ? chunk : (whole?.concat(chunk) ?? chunk)
        reader.read(wire === 'ollama' ? whole : whole.tool_calls?.[0]?.args)
      }
      return wire === 'ollama' ? whole : whole?.tool_calls?.[0]?.args
    }
  },
}
