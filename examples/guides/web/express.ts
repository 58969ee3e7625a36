/** Express 5. */
import { EventSourceParserStream } from 'eventsource-parser/stream'
import express from 'express'
import { isLLMError, type ResponseEvent, StreamingLLMClient } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { replayFetch, simulate } from 'fieldstream/testing'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { pipeline } from 'node:stream/promises'
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

const app = express()

app.post('/answer', express.json(), async (request, response) => {
  const body = asked.safeParse(request.body)
  if (!body.success) return void response.sendStatus(400)
  const left = new AbortController()
  response.on('close', () => left.abort('the client left'))
  const messages = [{ role: 'user' as const, content: body.data.question }]
  const stream = client.stream({ messages, output: answer, fields: { reply: 'reply' }, signal: left.signal })
  response.set({ 'content-type': 'text/event-stream', 'cache-control': 'no-cache, no-transform' }).flushHeaders()
  // Reads no faster than the client. That it left is no failure of the server.
  await pipeline(serverSentEvents(stream), response).catch(() => response.destroy())
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

const server = app.listen(0, '127.0.0.1')
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
