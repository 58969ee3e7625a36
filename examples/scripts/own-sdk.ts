// The fields of a stream that is asked for with the SDK itself: no client of this library, only its accumulator.
import Anthropic from '@anthropic-ai/sdk'
import { FieldExtractorRegistry, ToolStreamAccumulator } from 'fieldstream'
import { toStreamEvents } from 'fieldstream/anthropic'
import { replayFetch, simulate } from 'fieldstream/testing'

const content = process.argv.slice(2).join(' ') || 'I want chips for a party'

// Without a key, an answer in Anthropic's wire format goes through the real SDK. Nothing else differs.
const answer = {
  reasoning: 'Quantity decides.',
  ask_slots: [{ message: 'How many guests?' }, { message: 'Salty or sweet?' }],
}
const sdk = process.env['ANTHROPIC_API_KEY']
  ? new Anthropic()
  : new Anthropic({ apiKey: 'none', fetch: replayFetch(simulate(answer, { deltaChars: 3, delayMs: 15 })) })

const question = { type: 'object', properties: { message: { type: 'string' } }, required: ['message'] }
const schema = {
  type: 'object' as const,
  properties: { reasoning: { type: 'string' }, ask_slots: { type: 'array', items: question } },
  required: ['reasoning', 'ask_slots'],
}

const accumulator = new ToolStreamAccumulator({
  fields: new FieldExtractorRegistry([{ field: 'ask_message', path: 'ask_slots[*].message' }]),
})
const stream = await sdk.messages.create({
  model: 'claude-haiku-4-5',
  max_tokens: 1000,
  messages: [{ role: 'user', content }],
  tools: [{ name: 'classify', input_schema: schema }],
  tool_choice: { type: 'tool', name: 'classify' },
  stream: true,
})
for await (const event of toStreamEvents(stream)) {
  for (const field of accumulator.push(event)) {
    if (field.type === 'field-delta') process.stdout.write(field.delta)
    else process.stdout.write('\n')
  }
}
// Only after the end of the message was seen, and the whole text is JSON; checking it against a schema is yours.
if (!accumulator.isComplete) throw accumulator.error ?? new Error('The answer is not complete.')
console.log(accumulator.toolCalls[0]?.input)
