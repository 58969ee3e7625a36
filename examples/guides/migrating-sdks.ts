import Anthropic from '@anthropic-ai/sdk'
import { isLLMError, StreamingLLMClient, tool } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { openai } from 'fieldstream/openai'
import { type Recording, replayFetch, type ReplayRequest, simulate } from 'fieldstream/testing'
import OpenAI from 'openai'
import { z } from 'zod'

type Fetch = typeof globalThis.fetch
type Show = (text: string) => void

const input = z.object({ reply: z.string(), topics: z.array(z.string()) })
const messages = [{ role: 'user' as const, content: 'Chips for twelve?' }]

// -------------------------------------------------------------------------------------------- Anthropic: `messages.stream()`

async function anthropicBefore(fetch: Fetch, show: Show): Promise<unknown> {
  const sdk = new Anthropic({ apiKey: 'none', fetch, maxRetries: 0 })
  const tools = [{ name: 'answer', input_schema: z.toJSONSchema(input) as { type: 'object' } }]
  const tool_choice = { type: 'tool' as const, name: 'answer' }
  const stream = sdk.messages.stream({ model: 'claude-haiku-4-5', max_tokens: 1024, messages, tools, tool_choice })
  let shown = ''
  stream.on('inputJson', (_, snapshot) => {
    const { reply = '' } = snapshot as { reply?: string }
    show(reply.slice(shown.length)) // strings are in the snapshot once they are closed
    shown = reply
  })
  const { content } = await stream.finalMessage()
  return content.find((block) => block.type === 'tool_use')?.input
}

async function anthropicAfter(fetch: Fetch, show: Show): Promise<unknown> {
  const client = new StreamingLLMClient({ provider: anthropic({ model: 'claude-haiku-4-5', fetch }) })
  const answer = tool({ name: 'answer', input })
  const stream = client.stream({ messages, tools: [answer], toolChoice: answer, fields: { reply: 'reply' } })
  for await (const delta of stream.fields('reply')) show(delta)
  return (await stream.final()).toolCalls[0].input
}

// ----------------------------------------------------------------------------------------------- OpenAI: `responses.stream()`

async function openaiBefore(fetch: Fetch, show: Show): Promise<unknown> {
  const sdk = new OpenAI({ apiKey: 'none', fetch, maxRetries: 0 })
  const format = { type: 'json_schema' as const, name: 'answer', schema: z.toJSONSchema(input), strict: true }
  const stream = sdk.responses.stream({ model: 'gpt-5-mini', input: messages, text: { format } })
  stream.on('response.output_text.delta', ({ delta }) => show(delta)) // JSON, keys and quotes included
  const { output_text } = await stream.finalResponse()
  return JSON.parse(output_text)
}

async function openaiAfter(fetch: Fetch, show: Show): Promise<unknown> {
  const client = new StreamingLLMClient({ provider: openai({ model: 'gpt-5-mini', fetch }) })
  const stream = client.stream({ messages, output: input, fields: { reply: 'reply' } })
  for await (const delta of stream.fields('reply')) show(delta)
  return (await stream.final()).output
}

// ------------------------------------------------------------------------------------ both, on the same bytes, without a key

const payload = { reply: 'Six bags. 🎉', topics: ['chips'] }
const cut =
  (answer: (request: ReplayRequest) => Recording, end: string) =>
  (request: ReplayRequest): Recording => {
    const { body, headers } = answer(request)
    return { body: String(body).slice(0, String(body).indexOf(end)), headers }
  }
for (const provider of ['anthropic', 'openai'] as const) {
  const options = { provider, deltaChars: 3 }
  const whole = simulate(payload, options)
  const answers = {
    whole,
    'cut before its end': cut(whole, provider === 'anthropic' ? 'event: message_stop' : 'event: response.completed'),
    'at the token limit': simulate(payload, { ...options, finishReason: 'length' }),
    'against the schema': simulate({ ...payload, topics: 'chips' }, options),
  }
  const runs = provider === 'anthropic' ? [anthropicBefore, anthropicAfter] : [openaiBefore, openaiAfter]
  for (const [name, answer] of Object.entries(answers))
    for (const run of runs) {
      const shown: string[] = []
      const result = await run(replayFetch(answer), (text) => text !== '' && shown.push(text)).then(
        (value) => JSON.stringify(value) ?? 'nothing',
        (error: unknown) => `error ${isLLMError(error) ? error.code : (error as Error).name}`,
      )
      console.log(`${name.padEnd(18)} ${run.name.padEnd(15)} ${JSON.stringify(shown)} ${result}`)
    }
}
