import { StreamingLLMClient, tool } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { replayFetch, simulate } from 'fieldstream/testing'
import { z } from 'zod'

const classify = tool({
  name: 'classify_and_assess',
  description: 'Classify the query and plan the next step',
  input: z.object({
    reasoning: z.string(),
    route: z.enum(['product', 'general', 'support']),
    ask_slots: z.array(z.object({ slot: z.string(), message: z.string(), options: z.array(z.string()) })),
  }),
})

// Without a key, an answer in Anthropic's wire format goes through the real SDK. Nothing else differs.
const fetch = process.env['ANTHROPIC_API_KEY']
  ? undefined
  : replayFetch(
      simulate(
        {
          reasoning: 'Chips for several people: quantity and diet decide.',
          route: 'product',
          ask_slots: [
            { slot: 'guests', message: 'How many guests do you expect? 🎉', options: ['under 10', '10 to 30', 'more'] },
            { slot: 'diet', message: 'Should they be "gluten free"?', options: ['yes', 'no'] },
          ],
        },
        { delayMs: 25 },
      ),
    )

const client = new StreamingLLMClient({ provider: anthropic({ model: 'claude-haiku-4-5', fetch }) })

const stream = client.stream({
  messages: [{ role: 'user', content: 'I want chips for a party' }],
  tools: [classify],
  toolChoice: classify,
  fields: { ask_message: 'ask_slots[*].message' },
})

for await (const event of stream) {
  if (event.type === 'field-delta') process.stdout.write(event.delta) // each character once, as it is written
  if (event.type === 'field-end') process.stdout.write('\n')
}

const { toolCalls } = await stream.final() // complete, parsed, validated: or it rejects
console.log(toolCalls[0].input.route, toolCalls[0].input.ask_slots.length) // typed from the schema
