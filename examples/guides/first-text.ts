import { StreamingLLMClient } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { replayFetch, simulate } from 'fieldstream/testing'

// A simulated answer. A real client needs no `fetch`, but the environment variable ANTHROPIC_API_KEY.
const fetch = replayFetch(simulate('Salted crisps, made this morning.', { delayMs: 20 }))

const client = new StreamingLLMClient({ provider: anthropic({ model: 'claude-haiku-4-5', fetch }) })
const stream = client.stream({
  system: 'You advise the customers of a small shop.',
  messages: [{ role: 'user', content: 'What is good today?' }],
})

for await (const text of stream.textStream) process.stdout.write(text)

const { finishReason, usage } = await stream.final()
console.log(`\n${finishReason}, ${usage.outputTokens > 0 ? 'tokens counted' : 'no tokens'}`)
