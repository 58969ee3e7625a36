import { StreamingLLMClient, tool } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { replayFetch, simulate } from 'fieldstream/testing'
import { z } from 'zod'

const stock = tool({
  name: 'check_stock',
  description: 'How many of a product are there, shop by shop',
  input: z.object({ product: z.string() }),
  timeout: 5000,
  // What it yields is progress, what it returns is its output.
  async *execute({ product }, { signal }) {
    const shops = ['Rome', 'Oslo']
    for (const shop of shops) {
      signal.throwIfAborted() // nobody waits any more
      yield await Promise.resolve(`asking ${shop}`)
    }
    return { product, pieces: 12 }
  },
})

const order = tool({
  name: 'place_order',
  description: 'Order a product',
  input: z.object({ product: z.string(), pieces: z.number() }),
  needsApproval: ({ pieces }) => pieces > 10,
  execute: ({ product, pieces }) => ({ ordered: `${pieces} × ${product}` }),
})

// Without a key, three answers in Anthropic's wire format go through the real SDK, one for each step.
const fetch = process.env['ANTHROPIC_API_KEY']
  ? undefined
  : replayFetch([
      simulate({ product: 'chips' }, { tool: stock, text: 'Let me see.', delayMs: 5 }),
      simulate(
        [
          { tool: 'place_order', input: { product: 'chips', pieces: 4 } },
          { tool: 'place_order', input: { product: 'chips', pieces: 40 } },
        ],
        { delayMs: 5 },
      ),
      simulate('Four bags are on their way; forty were too many.', { delayMs: 5 }),
    ])

const client = new StreamingLLMClient({ provider: anthropic({ model: 'claude-haiku-4-5', fetch }) })

const run = client.run({
  messages: [{ role: 'user', content: 'Order chips for a party: 4 bags, and 40 more if you may' }],
  tools: [stock, order],
  maxSteps: 4,
  onToolApproval: ({ toolName }) => ({ approved: false, reason: `${toolName} of more than 10 is for the boss` }),
})

for await (const event of run) {
  if (event.type === 'text-delta') process.stdout.write(event.delta)
  if (event.type === 'tool-call') console.log(`\n[${event.toolName}]`, JSON.stringify(event.input))
  if (event.type === 'tool-progress') console.log(' …', event.value)
  if (event.type === 'tool-result') console.log(' →', JSON.stringify(event.output))
  if (event.type === 'tool-error') console.log(' ✗', event.error.message)
}

const { steps, messages } = await run.final()
console.log(`\n${steps.length} steps, ${messages.length} messages to append`)
