/** Fastify 5. */
import { EventSourceParserStream } from 'eventsource-parser/stream'
import Fastify from 'fastify'
import { isLLMError, type ResponseEvent, StreamingLLMClient } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { replayFetch, simulate } from 'fieldstream/testing'
import { Readable } from 'node:stream'
import { z } from 'zod'

// Without a key, this answer goes through the real SDK in Anthropic's wire format. A real client needs no `fetch`.
const simulated = { reasoning: 'Twelve guests.', reply: 'Six bags for "twelve":\n<3 kinds>, and dips 🎉' }
const client = new StreamingLLMClient({
  provider: anthropic({
    model: 'claude-haiku-4-5',
    fetch: process.env['ANTHROPIC_API_KEY'] ? undefined : replayFetch(simulate(simulated, { delayMs: 20 })),
  }),
  onMetrics: ({ outcome }) => console.log('run:', outcome),
})
const asked = z.object({ question: z.string().min(1).max(2000) })
const answer = z.object({ reasoning: z.string(), reply: z.string() })

const app = Fastify()

app.post('/answer', async (request, reply) => {
  const body = asked.safeParse(request.body)
  if (!body.success) return reply.code(400).send()
  const left = new AbortController()
  reply.raw.on('close', () => left.abort('the client left'))
  const messages = [{ role: 'user' as const, content: body.data.question }]
  const stream = client.stream({ messages, output: answer, fields: { reply: 'reply' }, signal: left.signal })
  reply.headers({ 'content-type': 'text/event-stream', 'cache-control': 'no-cache, no-transform' })
  return reply.send(Readable.from(serverSentEvents(stream))) // Fastify reads it no faster than the client
})

/** What the user may see, and how it ended. */
async function* serverSentEvents(stream: AsyncIterable<ResponseEvent>): AsyncGenerator<string> {
  const line = (event: string, data: object) => `event: ${event}\ndata: ${JSON.stringify(data)}\n\n`
  try {
    for await (const event of stream) {
      if (event.type === 'field-delta') yield line('delta', { field: event.field, text: event.delta })
      if (event.type === 'finish') yield line('finish', {})
    }
  } catch (error) {
    yield line('failed', { code: isLLMError(error) ? error.code : 'unknown' })
  }
}

// -------------------------------------------------------------------------------------------- what follows only tries it

const address = await app.listen({ port: 0, host: '127.0.0.1' })
await ask('How many chips?')
await ask('And if I leave?', 1)
await app.close()

/** What a page does; leaves after so many deltas. */
async function ask(question: string, leaveAfter = Infinity): Promise<void> {
  const response = await fetch(`${address}/answer`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ question }),
  })
  let reply = ''
  let deltas = 0
  const events = response.body!.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream())
  for await (const { event, data } of events) {
    if (event !== 'delta') console.log(event, data)
    else reply += (JSON.parse(data) as { text: string }).text
    if (event === 'delta' && ++deltas === leaveAfter) break
  }
  console.log(leaveAfter < Infinity ? 'left early' : reply)
}
