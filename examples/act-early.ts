/** Acting on a part of an answer while the rest is written, and stopping one that is not worth its tokens. */
import { isLLMError, StreamingLLMClient, tool } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { replayFetch, simulate } from 'fieldstream/testing'
import { z } from 'zod'

const plan = tool({
  name: 'plan_answer',
  input: z.object({
    route: z.enum(['product', 'support']),
    words: z.string(),
    guests: z.number(),
    reply: z.string(),
  }),
})

// Without a key, answers in Anthropic's wire format go through the real SDK. Nothing else differs.
const reply =
  'A party without chips is only a meeting. Let me see what we have for so many people, and what goes with it.'
const answer = { route: 'product', words: 'party chips', guests: 12, reply }
const fetch = process.env['ANTHROPIC_API_KEY']
  ? undefined
  : replayFetch([answer, { ...answer, guests: -3 }, answer].map((payload) => simulate(payload, { delayMs: 10 })))
const client = new StreamingLLMClient({ provider: anthropic({ model: 'claude-haiku-4-5', fetch }) })

const ask = () =>
  client.stream({
    messages: [{ role: 'user', content: 'I want chips for a party of twelve' }],
    tools: [plan],
    toolChoice: plan,
    fields: {
      reply: 'reply',
      guests: { path: 'guests', schema: z.number().positive() }, // checked when it closes, long before the end
    },
    onInvalid: 'abort', // stop paying for an answer that is already wrong
  })

async function search(words: string): Promise<string[]> {
  await new Promise((resolve) => setTimeout(resolve, 30)) // a database, a shop …
  return [`${words}, large`, `${words}, small`]
}

// What has closed is final, though not validated yet: good enough to begin what can be thrown away.
const stream = ask()
let written = 0
stream.on('field-delta', ({ length }) => (written = length))
const route = await stream.field('route')
const found = route === 'product' ? search((await stream.field('words')) ?? '') : Promise.resolve([])
console.log(`${route}: searching, with ${written === 0 ? 'nothing' : 'something'} of the reply written`)
found.then(
  () => console.log(`found while the reply was ${written < reply.length ? 'being written' : 'complete'}`),
  () => undefined, // whoever awaits it below hears of it
)
const { toolCalls } = await stream.final() // now it is known to be complete and valid
console.log(toolCalls[0].input.reply, await found)

const wrong: unknown = await ask()
  .final()
  .catch((error: unknown) => error)
if (isLLMError(wrong)) console.log(`${wrong.code} at ${wrong.issues?.[0]?.path}, nothing of the reply was paid for`)

// A condition of one's own: enough is enough. What had arrived is kept.
const long = ask()
long.on('field-delta', ({ length }) => {
  if (length > 40) long.abort('long enough')
})
const stopped: unknown = await long.final().catch((error: unknown) => error)
if (isLLMError(stopped)) {
  const { words } = stopped.partial?.toolCalls[0]?.input as { words: string }
  console.log(`${stopped.message}, with the words "${words}"`)
}
