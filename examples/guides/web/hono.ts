/** Hono, here on Node; the route is the same on its other runtimes. */
import { serve } from '@hono/node-server'
import { EventSourceParserStream } from 'eventsource-parser/stream'
import { isLLMError, StreamingLLMClient } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { replayFetch, simulate } from 'fieldstream/testing'
import { Hono } from 'hono'
import { streamSSE } from 'hono/streaming'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
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

const app = new Hono()

app.post('/answer', async (context) => {
  const body = asked.safeParse(await context.req.json().catch(() => undefined))
  if (!body.success) return context.body(null, 400)
  const messages = [{ role: 'user' as const, content: body.data.question }]
  return streamSSE(context, async (sse) => {
    const stream = client.stream({ messages, output: answer, fields: { reply: 'reply' } })
    sse.onAbort(() => stream.abort('the client left'))
    const write = (event: string, data: object) => sse.writeSSE({ event, data: JSON.stringify(data) })
    try {
      for await (const event of stream) {
        // Waiting for each write, the loop reads no faster than the client.
        if (event.type === 'field-delta') await write('delta', { field: event.field, text: event.delta })
        if (event.type === 'finish') await write('finish', {})
      }
    } catch (error) {
      await write('failed', { code: isLLMError(error) ? error.code : 'unknown' })
    }
  })
})

// -------------------------------------------------------------------------------------------- what follows only tries it

const server = serve({ fetch: app.fetch, port: 0, hostname: '127.0.0.1' })
await once(server, 'listening')
const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
await ask('How many chips?')
await ask('And if I leave?', 1)
server.close()

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
