import { FieldExtractorRegistry, ToolStreamAccumulator } from 'fieldstream'
import { toStreamEvents } from 'fieldstream/openai'
import { replayFetch, simulate } from 'fieldstream/testing'
import OpenAI from 'openai'

// A simulated answer. A real SDK client needs neither.
const fetch = replayFetch(simulate({ message: 'Which size?', route: 'product' }, { provider: 'openai' }))
const sdk = new OpenAI({ apiKey: 'none', fetch })

const accumulator = new ToolStreamAccumulator({
  fields: new FieldExtractorRegistry([{ field: 'message', path: 'message' }]),
})
const stream = await sdk.responses.create({
  model: 'gpt-5-mini',
  input: 'Chips, please',
  tools: [{ type: 'function', name: 'answer', parameters: { type: 'object' }, strict: false }],
  tool_choice: { type: 'function', name: 'answer' },
  stream: true,
})
for await (const event of toStreamEvents(stream)) {
  for (const field of accumulator.push(event)) if (field.type === 'field-delta') process.stdout.write(field.delta)
}
if (!accumulator.isComplete) throw accumulator.error ?? new Error('The answer is not complete.')
console.log()
console.log(accumulator.toolCalls[0]?.input) // whole JSON; checking it against a schema is yours
