import { toStandardJsonSchema } from '@valibot/to-json-schema'
import { outputFormat, StreamingLLMClient } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { replayFetch, simulate } from 'fieldstream/testing'
import * as v from 'valibot'
import { z } from 'zod'

// Simulated answers. A real client needs no `fetch`, but the environment variable ANTHROPIC_API_KEY.
const report = { title: 'Crisps', sections: [{ body: 'Salted ones sell.' }, { body: 'Paprika follows.' }] }
const fetch = replayFetch(simulate(report))
const client = new StreamingLLMClient({ provider: anthropic({ model: 'claude-haiku-4-5', fetch }) })
const messages = [{ role: 'user', content: 'Report on crisps' }] as const

// zod 4 (ArkType likewise): checked and typed.
const zodReport = z.object({ title: z.string(), sections: z.array(z.object({ body: z.string() })) })
const stream = client.stream({ messages, output: zodReport, fields: { body: 'sections[*].body' } })
for await (const delta of stream.fields('body')) process.stdout.write(delta)
console.log('\nzod:', (await stream.final()).output.sections.length)

// Valibot: checked and typed, once it can describe itself as JSON Schema.
const valibotReport = toStandardJsonSchema(
  v.object({ title: v.string(), sections: v.array(v.object({ body: v.string() })) }),
)
const { output } = await client.stream({ messages, output: valibotReport }).final()
console.log('valibot:', output.title)

// JSON Schema: only tells the model what to write. What comes is some JSON object, unless `validate` says more.
const schema = { type: 'object', properties: { title: { type: 'string' } }, required: ['title'] }
const checked = outputFormat({
  schema,
  validate: (value) => {
    const { title } = value as { title?: unknown }
    return typeof title === 'string' ? { value: { title } } : { issues: [{ message: 'no title', path: ['title'] }] }
  },
})
console.log('JSON Schema:', (await client.stream({ messages, output: checked }).final()).output.title)
