import { StreamingLLMClient, tool } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { replayFetch, simulate } from 'fieldstream/testing'
import { z } from 'zod'

const report = tool({
  name: 'write_report',
  input: z.object({ title: z.string(), body: z.string(), verdict: z.enum(['good', 'bad']) }),
})

// Without a key, an answer in Anthropic's wire format goes through the real SDK. Nothing else differs.
const body = 'The harbour was quiet that morning, and nobody had yet seen the letter.'
const fetch = process.env['ANTHROPIC_API_KEY']
  ? undefined
  : replayFetch(simulate({ title: 'The letter', body, verdict: 'good' }, { delayMs: 5 }))

const client = new StreamingLLMClient({ provider: anthropic({ model: 'claude-haiku-4-5', fetch }) })

const stream = client.stream({
  messages: [{ role: 'user', content: 'Write the report' }],
  tools: [report],
  toolChoice: report,
  fields: { body: 'body' },
  replay: { events: 2000 }, // for who comes late or returns
  keepAlive: true, // nobody has to stay for the answer to be finished
  progress: true,
})

// A browser reads a little, and loses its connection.
let seen = ''
let last = 0
for await (const event of stream.subscribe()) {
  last = event.seq // e.g. the `id:` of a server-sent event
  if (event.type === 'field-delta') seen += event.delta
  if (seen.length > 20) break
}
const left = seen.length

// It comes back with the number of its last event (`Last-Event-ID`), and misses nothing.
for await (const event of stream.subscribe({ from: last })) {
  if (event.type === 'field-delta') seen += event.delta
  if (event.type === 'progress' && event.ratio === 1) console.log('100 %')
}
console.log(left < seen.length ? 'came back' : 'stayed', '-', seen)

// Another one comes when all is over.
let late = ''
for await (const event of stream.subscribe()) if (event.type === 'field-delta') late += event.delta
console.log('came late -', late)
