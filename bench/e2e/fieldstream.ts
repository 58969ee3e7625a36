import { FieldExtractorRegistry, type Provider, StreamingLLMClient, tool, ToolStreamAccumulator } from 'fieldstream'
import type { Contestant } from './contestant.ts'
import { apiKey, fieldPaths, model, schema, toolName, type WireName } from './job.ts'
import { rawStream, sdkPackages } from './sdks.ts'

type Transport = 'fetch' | 'node'

async function providerOf(wire: WireName, address: string, transport: Transport): Promise<Provider> {
  switch (wire) {
    case 'anthropic':
      return (await import('fieldstream/anthropic')).anthropic({ model, apiKey, baseURL: address, transport })
    case 'openai':
      return (await import('fieldstream/openai')).openai({ model, apiKey, baseURL: `${address}/v1`, transport })
    case 'openai-chat':
      return (await import('fieldstream/openai')).openaiChat({ model, apiKey, baseURL: `${address}/v1`, transport })
    case 'ollama':
      return (await import('fieldstream/ollama')).ollama({ model, host: address, transport })
    case 'gemini':
      return (await import('fieldstream/gemini')).gemini({
        model,
        apiKey,
        vertexai: false,
        baseURL: address,
        transport,
      })
  }
}

const answer = tool({ name: toolName, input: schema })
const fields = new FieldExtractorRegistry(fieldPaths.map((path) => ({ field: path, path })))

/** The complete public client, with events, registry, accumulator and metrics. */
async function streamOf(wire: WireName, address: string, transport: Transport = 'fetch') {
  const client = new StreamingLLMClient({
    provider: await providerOf(wire, address, transport),
    onMetrics: () => undefined,
  })
  return (prompt: string) =>
    client.stream({
      messages: [{ role: 'user', content: prompt }],
      tools: [answer],
      toolChoice: answer,
      maxTokens: 8192,
      fields,
    })
}

const packages = Object.fromEntries(
  Object.entries(sdkPackages).map(([wire, names]) => [wire, [...names, 'fieldstream']]),
)

export const loop: Contestant = {
  name: 'fieldstream, for await',
  kind: 'ours',
  packages,
  async open(wire, address) {
    const ask = await streamOf(wire, address)
    return async (prompt, sink) => {
      let payload: unknown
      for await (const event of ask(prompt)) {
        if (event.type === 'field-delta' && event.field === fieldPaths[0]) sink.onText(event.delta)
        else if (event.type === 'tool-call') payload = event.input
      }
      return payload
    }
  },
}

const listening = (name: string, transport: Transport): Contestant => ({
  name,
  kind: 'ours',
  packages,
  async open(wire, address) {
    const ask = await streamOf(wire, address, transport)
    return async (prompt, sink) => {
      const stream = ask(prompt).on('field-delta', ({ field, delta }) => {
        if (field === fieldPaths[0]) sink.onText(delta)
      })
      return (await stream.final()).toolCalls[0].input
    }
  },
})

export const listener = listening("fieldstream, on('field-delta')", 'fetch')
export const listenerOverNode = listening("fieldstream, on(), transport: 'node'", 'node')

async function mapperOf(wire: WireName) {
  switch (wire) {
    case 'anthropic':
      return (await import('fieldstream/anthropic')).toStreamEvents
    case 'openai':
    case 'openai-chat':
      return (await import('fieldstream/openai')).toStreamEvents
    case 'ollama':
      return (await import('fieldstream/ollama')).toStreamEvents
    case 'gemini':
      return (await import('fieldstream/gemini')).toStreamEvents
  }
}

const { 'openai-chat': _, ...mapped } = packages

export const overSdk: Contestant = {
  name: 'fieldstream over the SDK’s stream',
  kind: 'ours',
  packages: mapped,
  async open(wire, address) {
    const open = await rawStream(wire, address)
    const toEvents = (await mapperOf(wire)) as (stream: AsyncIterable<object>) => ReturnType<Provider['stream']>
    // There the arguments come as the text of the answer.
    const isText = wire === 'ollama' || wire === 'gemini'
    return async (prompt, sink) => {
      const accumulator = new ToolStreamAccumulator({ fields, ...(isText && { output: 'required' }) })
      for await (const event of toEvents(await open(prompt)))
        for (const found of accumulator.push(event))
          if (found.type === 'field-delta' && found.field === fieldPaths[0]) sink.onText(found.delta)
      return isText ? accumulator.output : accumulator.toolCalls[0]?.input
    }
  },
}
