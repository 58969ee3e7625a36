import { StreamingLLMClient, tool } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { replayFetch, simulate } from 'fieldstream/testing'
import { z } from 'zod'

const answer = tool({
  name: 'answer',
  input: z.object({
    summary_part_1: z.string(),
    summary_part_2: z.string(),
    cards: z.array(z.object({ id: z.string(), price: z.number(), reason: z.string() })),
    tags: z.array(z.string()),
  }),
})

// A simulated answer. A real client needs no `fetch`, but the environment variable ANTHROPIC_API_KEY.
const payload = {
  summary_part_1: 'Three bags "Sweet Chilli" 🌶️ are plenty.',
  summary_part_2: 'Dips beside them.',
  cards: [{ id: 'chips-1', price: -1, reason: 'stays crunchy' }],
  tags: ['party', 'snacks'],
}
const fetch = replayFetch(simulate(payload, { deltaChars: 12 }))
const client = new StreamingLLMClient({ provider: anthropic({ model: 'claude-haiku-4-5', fetch }) })

const stream = client.stream({
  messages: [{ role: 'user', content: 'Chips for twenty people, please' }],
  tools: [answer],
  toolChoice: answer,
  fields: {
    summary: 'summary_part_{part}', // what the braces stand for is in `params.part`
    reason: 'cards[{index}].reason',
    price: { path: 'cards[*].price', schema: z.number().positive() }, // checked when it closes
    card: 'cards[*]', // an object: complete, when it closes
    tags: { path: 'tags', map: (value) => (value as string[]).join(', ') },
  },
})

for await (const event of stream) {
  if (event.type === 'field-delta' && event.field === 'summary') {
    // `length` is where the text of this path stands after the delta.
    console.log(`part ${event.params['part']} to ${event.length}:`, JSON.stringify(event.delta))
  }
  if (event.type === 'field-end') {
    const { field, path, params, value, valid } = event
    console.log(field, path, JSON.stringify(params), valid === false ? 'not valid:' : 'is', JSON.stringify(value))
  }
}
