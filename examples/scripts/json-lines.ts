// All events of an answer as lines of JSON, for pipes: json-lines.ts "Chips for a party" | jq 'select(.type == "field-end")'
import { pipeline } from 'node:stream/promises'
import { isLLMError, StreamingLLMClient, tool } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { replayFetch, simulate } from 'fieldstream/testing'
import { z } from 'zod'

const content = process.argv.slice(2).join(' ')
if (content === '') {
  console.error('Usage: json-lines.ts <question>')
  process.exit(2)
}

const plan = tool({
  name: 'plan',
  input: z.object({ route: z.enum(['product', 'support']), questions: z.array(z.object({ message: z.string() })) }),
})

const answer = { route: 'product', questions: [{ message: 'How many guests?' }, { message: 'Salty or\n"sweet"?' }] }
const client = new StreamingLLMClient({
  provider: anthropic({
    model: 'claude-haiku-4-5',
    // Without a key, an answer in Anthropic's wire format goes through the real SDK. Nothing else differs.
    fetch: process.env['ANTHROPIC_API_KEY'] ? undefined : replayFetch(simulate(answer, { delayMs: 10 })),
  }),
})

const stream = client.stream({
  messages: [{ role: 'user', content }],
  tools: [plan],
  toolChoice: plan,
  fields: { question: 'questions[*].message', route: 'route' },
})

try {
  await pipeline(stream.toReadableStream(), process.stdout, { end: false })
} catch (error) {
  // Who reads has seen enough (`| head`): the run was cancelled, and that is no error.
  if ((error as NodeJS.ErrnoException).code === 'EPIPE') process.exit(0)
  if (!isLLMError(error)) throw error
  console.error(JSON.stringify(error))
  process.exitCode = 1
}
