import { type Contestant, SnapshotReader } from '../e2e/contestant.ts'
import { apiKey, model, schema, toolName, type WireName } from '../e2e/job.ts'
import { load } from './load.ts'

const protocols: Partial<
  Record<
    WireName,
    { readonly api: string; readonly provider: string; readonly path: string; readonly toolChoice: object }
  >
> = {
  anthropic: {
    api: 'anthropic-messages',
    provider: 'anthropic',
    path: '',
    toolChoice: { type: 'tool', name: toolName },
  },
  openai: {
    api: 'openai-responses',
    provider: 'openai',
    path: '/v1',
    toolChoice: { type: 'function', name: toolName },
  },
  'openai-chat': {
    api: 'openai-completions',
    provider: 'openai',
    path: '/v1',
    toolChoice: { type: 'function', function: { name: toolName } },
  },
}

interface Event {
  readonly type: string
  readonly contentIndex: number
  readonly partial: { readonly content: readonly { readonly arguments?: unknown }[] }
  readonly toolCall?: { readonly arguments: unknown }
  readonly error?: { readonly errorMessage?: string }
}

const packages = ['@earendil-works/pi-ai']

export const piAi: Contestant = {
  name: 'pi-ai, partial objects',
  kind: 'other',
  packages: { anthropic: packages, openai: packages, 'openai-chat': packages },
  async open(wire, address) {
    const { stream } = await load('@earendil-works/pi-ai/compat')
    const { api, provider, path, toolChoice } = protocols[wire]!
    const described = {
      id: model,
      name: model,
      api,
      provider,
      baseUrl: address + path,
      reasoning: false,
      input: ['text'],
      cost: { input: 0, output: 0, cacheRead: 0, cacheWrite: 0 },
      contextWindow: 200_000,
      maxTokens: 8192,
    }
    const tools = [{ name: toolName, description: 'Answer', parameters: schema }]
    return async (prompt, sink) => {
      const reader = new SnapshotReader(sink)
      const context = { messages: [{ role: 'user', content: prompt, timestamp: 0 }], tools }
      let payload: unknown
      for await (const event of stream!(described, context, { apiKey, toolChoice }) as AsyncIterable<Event>) {
        if (event.type === 'toolcall_delta') reader.read(event.partial.content[event.contentIndex]?.arguments)
        else if (event.type === 'toolcall_end') payload = event.toolCall?.arguments
        else if (event.type === 'error') throw new Error(event.error?.errorMessage)
      }
      return payload
    }
  },
}
