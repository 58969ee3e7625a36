import { createAnthropic } from '@ai-sdk/anthropic'
import { Output, parsePartialJson, streamText, type ToolSet } from 'ai'
import { isLLMError, StreamingLLMClient, tool } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { type Recording, replayFetch, type ReplayRequest, simulate } from 'fieldstream/testing'
import { z } from 'zod'

type Fetch = typeof globalThis.fetch

const input = z.object({ reply: z.string(), topics: z.array(z.string()) })
const prompt = 'Chips for twelve?'

// -------------------------------------------------------------------- an object: `streamText()` with `output`, or `streamObject()`

async function objectBefore(fetch: Fetch, show: (text: string) => void): Promise<unknown> {
  const model = createAnthropic({ apiKey: 'none', fetch })('claude-haiku-4-5')
  const schema = Output.object({ schema: input })
  const { partialOutputStream, output } = streamText({
    model,
    prompt,
    output: schema,
    maxRetries: 0,
    onError: () => {},
  })
  let shown = ''
  for await (const partial of partialOutputStream) {
    const reply = partial.reply ?? ''
    show(reply.slice(shown.length)) // each part is the whole object so far
    shown = reply
  }
  return output
}

async function objectAfter(fetch: Fetch, show: (text: string) => void): Promise<unknown> {
  const client = new StreamingLLMClient({ provider: anthropic({ model: 'claude-haiku-4-5', fetch }) })
  const messages = [{ role: 'user' as const, content: prompt }]
  const stream = client.stream({ messages, output: input, fields: { reply: 'reply' } })
  for await (const delta of stream.fields('reply')) show(delta)
  return (await stream.final()).output
}

// ------------------------------------------------------------------------------- a tool's arguments: `streamText()` with tools

async function toolBefore(fetch: Fetch, show: (text: string) => void): Promise<unknown> {
  const model = createAnthropic({ apiKey: 'none', fetch })('claude-haiku-4-5')
  const tools: ToolSet = { answer: { inputSchema: input } }
  const toolChoice = { type: 'tool', toolName: 'answer' } as const
  const { stream } = streamText({ model, prompt, tools, toolChoice, maxRetries: 0, onError: () => {} })
  let [raw, shown, payload]: [string, string, unknown] = ['', '', undefined]
  for await (const part of stream) {
    if (part.type === 'tool-input-delta') {
      raw += part.delta
      const { value } = await parsePartialJson(raw)
      const reply = (value as { reply?: string } | undefined)?.reply ?? ''
      show(reply.slice(shown.length))
      shown = reply
    }
    if (part.type === 'tool-call') payload = part.input
    if (part.type === 'error') throw part.error
  }
  return payload
}

async function toolAfter(fetch: Fetch, show: (text: string) => void): Promise<unknown> {
  const client = new StreamingLLMClient({ provider: anthropic({ model: 'claude-haiku-4-5', fetch }) })
  const answer = tool({ name: 'answer', input })
  const messages = [{ role: 'user' as const, content: prompt }]
  const stream = client.stream({ messages, tools: [answer], toolChoice: answer, fields: { reply: 'reply' } })
  for await (const delta of stream.fields('reply')) show(delta)
  return (await stream.final()).toolCalls[0].input
}

// ------------------------------------------------------------------------------------ both, on the same bytes, without a key

const payload = { reply: 'Six bags. 🎉', topics: ['chips'] }
const whole = simulate(payload, { deltaChars: 3 })
const cut =
  (end: string) =>
  (request: ReplayRequest): Recording => {
    const { body, headers } = whole(request)
    return { body: String(body).slice(0, String(body).indexOf(end)), headers }
  }
const answers = {
  whole,
  'cut in the reply': cut('ags'),
  'cut before its end': cut('event: message_delta'),
  'against the schema': simulate({ ...payload, topics: 'chips' }, { deltaChars: 3 }),
}
for (const [name, answer] of Object.entries(answers))
  for (const run of [objectBefore, objectAfter, toolBefore, toolAfter]) {
    let shown = ''
    const result = await run(replayFetch(answer), (text) => (shown += text)).then(
      (value) => JSON.stringify(value) ?? 'nothing',
      (error: unknown) => `error ${isLLMError(error) ? error.code : (error as Error).name}`,
    )
    console.log(`${name.padEnd(18)} ${run.name.padEnd(12)} ${JSON.stringify(shown)} ${result}`)
  }
