import { cache, StreamingLLMClient } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { replayFetch, simulate } from 'fieldstream/testing'
import { Keyv } from 'keyv'

// Without a key, an answer in Anthropic's wire format goes through the real SDK. Nothing else differs.
const replay = replayFetch(simulate('Red wine stains come out with salt and cold water.', { delayMs: 5 }))
let calls = 0
const fetch = process.env['ANTHROPIC_API_KEY']
  ? undefined
  : (...request: Parameters<typeof replay>) => {
      calls++
      return replay(...request)
    }

const client = new StreamingLLMClient({
  provider: anthropic({ model: 'claude-haiku-4-5', fetch }),
  middleware: [
    cache({
      store: new Keyv(), // new Keyv({ store: new KeyvRedis('redis://localhost:6379') }) shares it between machines
      ttl: 10 * 60_000,
      scope: ({ metadata }) => metadata?.['tenant'], // one tenant never gets the answer of another
      onError: (error, operation) => console.error('cache', operation, error), // the request goes on without
    }),
  ],
})

async function ask(tenant: string): Promise<string> {
  const stream = client.stream({
    messages: [{ role: 'user', content: 'How do I get rid of a red wine stain?' }],
    metadata: { tenant },
  })
  let deltas = 0
  stream.on('text-delta', () => deltas++)
  const { text, metrics } = await stream.final()
  return `${tenant}: ${metrics.cached ? 'cached' : 'paid for'}, in ${deltas === 1 ? 'one delta' : 'many deltas'}: ${text}`
}

console.log(await ask('anna'))
await new Promise((resolve) => setTimeout(resolve, 50)) // the answer is kept after it was given
console.log(await ask('anna'))
console.log(await ask('ben'))
// Equal requests at the same time share one call, and one of them pays for it.
for (const line of await Promise.all([ask('carl'), ask('carl')])) console.log(line)
console.log(`${calls} calls for 5 answers`)
