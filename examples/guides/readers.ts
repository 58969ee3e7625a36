import { cache, StreamingLLMClient } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { replayFetch, simulate } from 'fieldstream/testing'

const text = 'Salt takes the water. Cold water takes the salt.'
// A simulated answer. A real client needs no `fetch`, but the environment variable ANTHROPIC_API_KEY.
const replay = replayFetch(simulate(text, { delayMs: 5 }))
const client = new StreamingLLMClient({
  provider: anthropic({ model: 'claude-haiku-4-5', fetch: replay }),
  middleware: [cache({ store: new Map<string, string>() })], // without `store` in memory, with lru-cache
  batch: { at: 'sentence', maxWait: 2000 },
})
const messages = [{ role: 'user', content: 'How do I get rid of red wine?' }] as const

const stream = client.stream({ messages, replay: { events: 2000 } })
const read = async (name: string, from = 0) => {
  for await (const event of stream.subscribe({ from })) {
    if (event.type === 'text-delta') console.log(`${name}: ${event.delta.trim()}`)
    if (name === 'leaves' && event.type === 'text-delta') return event.seq
  }
  return 0
}
const [seq] = await Promise.all([read('leaves'), read('stays')])
await read('comes back', seq)

await new Promise((resolve) => setTimeout(resolve, 50)) // the answer is kept after it was given
const again = await client.stream({ messages }).final()
console.log(`cached: ${again.metrics.cached}, requests: ${replay.requests.length}`)
