import { type Provider, StreamingLLMClient, tool, xmlTools } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { gemini } from 'fieldstream/gemini'
import { ollama } from 'fieldstream/ollama'
import { openai, openaiChat } from 'fieldstream/openai'
import { replayFetch, simulate, type SimulateOptions } from 'fieldstream/testing'
import { z } from 'zod'

const answer = tool({ name: 'answer', input: z.object({ message: z.string(), route: z.string() }) })

// Simulated answers in each service's wire format. Real clients need no `fetch`, but the service's key.
const payload = { message: 'Which size?', route: 'product' }
const from = (provider: SimulateOptions['provider']) => replayFetch(simulate(payload, { provider }))
const inTags = replayFetch(simulate(payload, { provider: 'ollama', toolInput: 'xml', tool: answer }))

const providers: Provider[] = [
  anthropic({ model: 'claude-haiku-4-5', fetch: from('anthropic') }),
  openai({ model: 'gpt-5-mini', fetch: from('openai') }),
  openaiChat({
    model: 'llama-3.3-70b',
    name: 'groq',
    baseURL: 'https://api.groq.com/openai/v1',
    fetch: from('openai-chat'),
  }),
  ollama({ model: 'llama3.2', fetch: from('ollama') }),
  gemini({ model: 'gemini-2.5-flash', fetch: from('gemini') }),
  xmlTools(ollama({ model: 'gemma2', fetch: inTags })), // a model that has no tools of its own
]

for (const provider of providers) {
  const client = new StreamingLLMClient({ provider })
  const stream = client.stream({
    messages: [{ role: 'user', content: 'Chips, please' }],
    tools: [answer],
    toolChoice: answer,
    fields: { message: 'message' },
  })
  let channel = ''
  let deltas = 0
  for await (const event of stream) {
    if (event.type === 'start') channel = event.toolInput
    if (event.type === 'field-delta') deltas++
  }
  const { toolCalls } = await stream.final()
  console.log(provider.name, channel, deltas > 1 ? 'streamed' : 'whole', toolCalls[0].input.route)
}
