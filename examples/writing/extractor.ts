import { FieldExtractorRegistry, StreamingLLMClient, summaryParts, tool } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { replayFetch, simulate } from 'fieldstream/testing'
import { z } from 'zod'

/** What the front end of a shop knows by these names, whichever tool the model calls. */
export const shopFields = new FieldExtractorRegistry([
  summaryParts, // built in: { field: 'summary_part', path: 'summary_message_part_{part}' }
  // The index of the element is in `event.params.index`.
  { field: 'reason', path: 'offers[{index}].reason' },
  // Every key of an object: `event.params.label` is `size`, `diet` …
  { field: 'choice', path: 'choices.{label}', deliver: 'complete' },
  // Checked when it closes: `valid` and `issues` on `field-end`.
  { field: 'picture', path: 'offers[*].picture', deliver: 'complete', schema: z.url() },
  // Changed before anybody sees it, as the whole value.
  { field: 'price', path: 'offers[*].cents', map: (cents) => `${(Number(cents) / 100).toFixed(2)} €` },
  // Only in calls of this tool: others may have a `title` that is nobody's business.
  { field: 'headline', path: 'title', tool: 'answer_customer' },
])

const answer = tool({
  name: 'answer_customer',
  input: z.object({
    title: z.string(),
    summary_message_part_1: z.string(),
    offers: z.array(z.object({ reason: z.string(), picture: z.string(), cents: z.number() })),
    choices: z.record(z.string(), z.string()),
  }),
})
const note = tool({ name: 'note_for_staff', input: z.object({ title: z.string() }) })

if (import.meta.main) {
  // Without a key, an answer in Anthropic's wire format goes through the real SDK. Nothing else differs.
  const calls = [
    { tool: 'note_for_staff', input: { title: 'Asks for much' } },
    {
      tool: 'answer_customer',
      input: {
        title: 'Chips for twelve',
        summary_message_part_1: 'Three large bags will do.',
        offers: [
          { reason: 'Crunchy.', picture: 'https://shop.example/1.png', cents: 299 },
          { reason: 'Mild.', picture: 'to follow', cents: 350 },
        ],
        choices: { size: 'large', diet: 'any' },
      },
    },
  ]
  const fetch = process.env['ANTHROPIC_API_KEY'] ? undefined : replayFetch(simulate(calls))

  const client = new StreamingLLMClient({
    provider: anthropic({ model: 'claude-haiku-4-5', fetch }),
    fields: shopFields,
  })
  const stream = client.stream({
    messages: [{ role: 'user', content: 'Chips for twelve people, and note it for the staff' }],
    tools: [answer, note],
    toolChoice: 'required',
  })
  for await (const event of stream) {
    if (event.type !== 'field-end') continue // `field-delta` has brought the strings before
    const { field, params, value, valid } = event
    console.log(field, params, value, valid === false ? '(against its schema)' : '')
  }
}
