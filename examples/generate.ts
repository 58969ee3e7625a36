/** The same answer with and without a callback, from one provider or another: `node generate.ts ollama`. */
import { nonStreaming, type ResponseEvent, StreamingLLMClient } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { ollama } from 'fieldstream/ollama'
import { replayFetch, simulate } from 'fieldstream/testing'

// Without a key (or OLLAMA_HOST), answers in the provider's wire format go through the real SDK. Nothing else differs.
const isHome = process.argv[2] === 'ollama'
const isLive = Boolean(process.env[isHome ? 'OLLAMA_HOST' : 'ANTHROPIC_API_KEY'])
const fortune = 'The cup stands for a friend who has been silent. Write first.'
const source = simulate(fortune, { provider: isHome ? 'ollama' : 'anthropic', delayMs: 5 })
const fetch = isLive ? undefined : replayFetch([source, source, source])

// To change provider is to change this line.
const provider = isHome ? ollama({ model: 'llama3.2', fetch }) : anthropic({ model: 'claude-haiku-4-5', fetch })

const client = new StreamingLLMClient({ provider, onError: ({ code }) => console.log(` (${code}) `) })
const request = { messages: [{ role: 'user', content: 'What does the cup mean?' }], maxTokens: 200 } as const

/** Shows what comes. One that throws, as here once, is reported to `onError`, and the answer goes on. */
let deltas = 0
function show(event: ResponseEvent): void {
  if (event.type !== 'text-delta') return
  process.stdout.write(event.delta)
  if (++deltas === 2) throw new Error('the listener has its own troubles')
}

const whole = await client.generate(request)
console.log('in one piece:', whole.text)

const streamed = await client.generate(request, { onEvent: show })
console.log(`\nstreamed: ${deltas > 2 ? 'many deltas' : 'one delta'}, the same text: ${streamed.text === whole.text}`)

// For a model that streams badly, or not at all: the callback hears of it all at once.
deltas = 0
const plain = new StreamingLLMClient({ provider: nonStreaming(provider) })
const { text } = await plain.generate(request, { onEvent: show })
console.log(`\nnot streamed: ${deltas > 2 ? 'many deltas' : 'one delta'}, the same text: ${text === whole.text}`)
