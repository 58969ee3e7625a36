import { fallback, retry, StreamingLLMClient, timeout } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { ollama } from 'fieldstream/ollama'
import { replayFetch, simulate } from 'fieldstream/testing'

// A service that is overloaded, and another one. Real clients need no `fetch`.
const overloaded = replayFetch({
  status: 529,
  body: '{"type":"error","error":{"type":"overloaded_error","message":"…"}}',
})
const answers = replayFetch(simulate('At nine.', { provider: 'ollama' }))

const client = new StreamingLLMClient({
  provider: fallback(
    anthropic({ model: 'claude-haiku-4-5', fetch: overloaded }),
    ollama({ model: 'llama3.2', fetch: answers }),
  ),
  middleware: [retry({ attempts: 2 }), timeout({ firstByte: 10_000, total: 60_000 })],
  onAttempt: ({ attempt, provider, error, next }) =>
    console.log(`attempt ${attempt}: ${provider} ${error.code}, ${next}`),
})

const { text, provider, metrics } = await client
  .stream({ messages: [{ role: 'user', content: 'When do you open?' }] })
  .final()
console.log(text, provider, metrics.attempts, metrics.fallbackUsed)
