/** Server-sent events by `node:http`: who loses the connection comes back and misses nothing. */
import { EventSourceParserStream } from 'eventsource-parser/stream'
import { isLLMError, StreamingLLMClient } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { replayFetch, simulate } from 'fieldstream/testing'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { z } from 'zod'

// Without a key, this answer goes through the real SDK in Anthropic's wire format. A real client needs no `fetch`.
const simulated = { reasoning: 'Twelve guests.', reply: 'Six bags for "twelve":\n<3 kinds>, and dips 🎉' }
const client = new StreamingLLMClient({
  provider: anthropic({
    model: 'claude-haiku-4-5',
    fetch: process.env['ANTHROPIC_API_KEY'] ? undefined : replayFetch(simulate(simulated, { delayMs: 50 })),
  }),
  onMetrics: ({ outcome }) => console.log('run:', outcome),
})
const answer = z.object({ reasoning: z.string(), reply: z.string() })
const heartbeatMs = 15_000 // less than what proxies wait
const graceMs = 100 // for who left to come back; ten seconds or more in an application
const keptMs = 600_000

function begin(question: string) {
  return client.stream({
    messages: [{ role: 'user', content: question }],
    output: answer,
    fields: { reply: 'reply' },
    replay: { events: 5000 }, // for who comes back
    keepAlive: true, // who leaves may come back
  })
}

const runs = new Map<string, { readonly stream: ReturnType<typeof begin>; readers: number }>()

/** Sends what comes after the event with the number `from`. */
async function send(id: string, from: number, response: ServerResponse): Promise<void> {
  const run = runs.get(id)
  if (!run) throw new Error('no such run')
  const events = run.stream.subscribe({ from }) // throws where the events after `from` are not kept any more
  const left = new AbortController()
  run.readers++
  response.on('close', () => {
    left.abort()
    void events.return?.()
    run.readers--
    setTimeout(() => run.readers === 0 && run.stream.abort('nobody came back'), graceMs)
  })
  const write = async (message: string) => {
    if (!response.write(message)) await once(response, 'drain', { signal: left.signal })
  }
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache, no-transform' })
  const heartbeat = setInterval(() => response.write(':\n\n'), heartbeatMs)
  try {
    for await (const event of events) {
      const delta = event.type === 'field-delta' && { field: event.field, text: event.delta }
      if (delta) await write(`id: ${event.seq}\nevent: delta\ndata: ${JSON.stringify(delta)}\n\n`)
      if (event.type === 'finish') await write(`id: ${event.seq}\nevent: finish\ndata: {}\n\n`)
    }
  } catch (error) {
    const code = isLLMError(error) ? error.code : 'unknown'
    if (!left.signal.aborted) await write(`event: failed\ndata: ${JSON.stringify({ code })}\n\n`)
  } finally {
    clearInterval(heartbeat)
    response.end()
  }
}

const server = createServer((request, response) => {
  void answerTo(request, response).catch(() => {
    if (response.headersSent) response.destroy()
    else response.writeHead(204).end() // tells an `EventSource` not to come back
  })
})

async function answerTo(request: IncomingMessage, response: ServerResponse): Promise<void> {
  if (request.method !== 'POST') {
    return send(request.url!.split('/')[2]!, Number(request.headers['last-event-id'] ?? 0), response)
  }
  let question = ''
  for await (const part of request.setEncoding('utf8')) {
    question += String(part)
    if (question.length > 2000) throw new Error('too long')
  }
  const id = crypto.randomUUID()
  const run = { stream: begin(question), readers: 0 }
  runs.set(id, run)
  setTimeout(() => (run.stream.abort('too late'), runs.delete(id)), keptMs).unref()
  response.end(id)
}

// ---------------------------------------------------------------------------------------------- what follows only tries it

server.listen(0, '127.0.0.1')
await once(server, 'listening')
const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}/answers`

const id = await (await fetch(address, { method: 'POST', body: 'How many chips?' })).text()
const first = await read(id, '0', 2)
const rest = await read(id, first.last)
console.log(first.reply !== '' && rest.reply !== '' ? 'lost the connection and came back' : 'read at once')
console.log(first.reply + rest.reply)
console.log('a second time, whole:', (await read(id, '0')).reply === simulated.reply)

const another = await (await fetch(address, { method: 'POST', body: 'And if I leave for good?' })).text()
await read(another, '0', 1)
console.log('unknown:', (await fetch(`${address}/no-such-id`)).status)
console.log('not kept:', (await fetch(`${address}/${id}`, { headers: { 'last-event-id': '123456' } })).status)
server.close()

/** What an `EventSource` does; loses the connection after so many deltas. */
async function read(id: string, last: string, deltas = Infinity) {
  const response = await fetch(`${address}/${id}`, { headers: { 'last-event-id': last } })
  let reply = ''
  for await (const message of response
    .body!.pipeThrough(new TextDecoderStream())
    .pipeThrough(new EventSourceParserStream())) {
    last = message.id ?? last
    if (message.event === 'delta') reply += (JSON.parse(message.data) as { text: string }).text
    else console.log(message.event, message.data)
    if (message.event === 'delta' && --deltas === 0) break
  }
  return { last, reply }
}
