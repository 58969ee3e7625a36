import { jsonSchema, type LanguageModel, Output, parsePartialJson, streamText, tool, type ToolSet } from 'ai'
import { type Contestant, SnapshotReader } from './contestant.ts'
import { apiKey, model, schema, toolName, type WireName, wireNames } from './job.ts'

const packages: Contestant['packages'] = {
  anthropic: ['ai', '@ai-sdk/anthropic'],
  openai: ['ai', '@ai-sdk/openai'],
  'openai-chat': ['ai', '@ai-sdk/openai'],
  gemini: ['ai', '@ai-sdk/google'],
}

async function modelOf(wire: WireName, address: string): Promise<LanguageModel> {
  switch (wire) {
    case 'anthropic':
      return (await import('@ai-sdk/anthropic')).createAnthropic({ apiKey, baseURL: `${address}/v1` })(model)
    case 'openai':
      return (await import('@ai-sdk/openai')).createOpenAI({ apiKey, baseURL: `${address}/v1` }).responses(model)
    case 'openai-chat':
      return (await import('@ai-sdk/openai')).createOpenAI({ apiKey, baseURL: `${address}/v1` }).chat(model)
    default:
      return (await import('@ai-sdk/google')).createGoogleGenerativeAI({ apiKey, baseURL: `${address}/v1beta` })(model)
  }
}

function fail({ error }: { readonly error: unknown }): never {
  throw error
}

function asking(name: string, withSnapshots: boolean): Contestant {
  return {
    name,
    kind: 'other',
    ...(!withSnapshots && { givesArguments: wireNames }),
    packages: withSnapshots
      ? packages
      : Object.fromEntries(Object.entries(packages).filter(([wire]) => wire !== 'gemini')),
    async open(wire, address) {
      const languageModel = await modelOf(wire, address)
      const inputSchema = jsonSchema<Record<string, unknown>>(schema)
      if (wire === 'gemini') {
        return async (prompt, sink) => {
          const reader = new SnapshotReader(sink)
          const output = Output.object({ schema: inputSchema })
          const result = streamText({ model: languageModel, prompt, output, maxRetries: 0, onError: fail })
          for await (const partial of result.partialOutputStream) reader.read(partial)
          return result.output
        }
      }
      const tools = { [toolName]: tool({ inputSchema }) } as ToolSet
      return async (prompt, sink) => {
        const reader = new SnapshotReader(sink)
        const toolChoice = { type: 'tool' as const, toolName }
        const result = streamText({ model: languageModel, prompt, tools, toolChoice, maxRetries: 0, onError: fail })
        let text = ''
        let payload: unknown
        for await (const part of result.stream) {
          if (part.type === 'error') throw part.error
          if (part.type === 'tool-call') payload = part.input
          if (part.type !== 'tool-input-delta') continue
          if (!withSnapshots) sink.onArguments(part.delta)
          else reader.read((await parsePartialJson((text += part.delta))).value)
        }
        return payload
      }
    },
  }
}

export const aiSdk = asking('AI SDK, partial objects', true)
export const aiSdkDeltas = asking('AI SDK, deltas, no fields', false)
