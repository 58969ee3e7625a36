import Anthropic from '@anthropic-ai/sdk'
import { isLLMError, StreamingLLMClient } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { replayFetch, simulate } from 'fieldstream/testing'
import { z } from 'zod'

type Fetch = typeof globalThis.fetch
type Show = (text: string) => void

const messages = [{ role: 'user' as const, content: 'Chips for twelve? Answer in JSON: {"reasoning", "reply"}' }]

async function before(fetch: Fetch, show: Show): Promise<unknown> {
  const sdk = new Anthropic({ apiKey: 'none', fetch, maxRetries: 0 })
  let [text, shown] = ['', '']
  const stream = await sdk.messages.create({ model: 'claude-haiku-4-5', max_tokens: 1024, messages, stream: true })
  for await (const event of stream) {
    if (event.type !== 'content_block_delta' || event.delta.type !== 'text_delta') continue
    text += event.delta.text
    const reply = (/"reply":\s*"((?:[^"\\]|\\.)*)/.exec(text)?.[1] ?? '').replaceAll('\\n', '\n').replaceAll('\\"', '"')
    show(reply.slice(shown.length))
    shown = reply
  }
  return { reply: shown }
}

async function after(fetch: Fetch, show: Show): Promise<unknown> {
  const client = new StreamingLLMClient({ provider: anthropic({ model: 'claude-haiku-4-5', fetch }) })
  const output = z.object({ reasoning: z.string(), reply: z.string() })
  const stream = client.stream({ messages, output, fields: { reply: 'reply' } })
  for await (const delta of stream.fields('reply')) show(delta)
  return (await stream.final()).output
}

// ------------------------------------------------------------------------------------ both, on the same text, without a key

const reasoning = 'They like it short.'
const answers: Record<string, string> = {
  plain: JSON.stringify({ reasoning, reply: 'Six bags.' }),
  'quotes and newlines': JSON.stringify({ reasoning, reply: '"Six"\nbags.' }),
  'other escapes': String.raw`{"reasoning": "", "reply": "Six \u201cbags\u201d in C:\\new"}`,
  'the key deeper down': `{"meta": {"reply": "draft"}, "reasoning": "", "reply": "Six bags."}`,
  cut: '{"reasoning": "", "reply": "Six ba',
}
for (const [name, text] of Object.entries(answers))
  for (const run of [before, after]) {
    let shown = ''
    const result = await run(replayFetch(simulate(text, { deltaChars: 3 })), (more) => (shown += more)).then(
      () => 'complete',
      (error: unknown) => `error ${isLLMError(error) ? error.code : (error as Error).name}`,
    )
    console.log(`${name.padEnd(19)} ${run.name.padEnd(6)} ${JSON.stringify(shown)} ${result}`)
  }
