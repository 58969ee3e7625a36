/** WebSocket, by `ws`: one connection, questions one after the other, Stop. */
import { isLLMError, StreamingLLMClient } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { replayFetch, simulate } from 'fieldstream/testing'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { WebSocketServer } from 'ws'
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
const answer = z.object({ reasoning: z.string(), reply: z.string() })
const incoming = z.discriminatedUnion('type', [
  z.object({ type: z.literal('ask'), question: z.string().min(1).max(2000) }),
  z.object({ type: z.literal('stop') }),
])

/** Answers one question. A `send` that waits until the message is written lets the loop read no faster than the client. */
async function reply(question: string, signal: AbortSignal, send: (message: object) => Promise<void>): Promise<void> {
  const messages = [{ role: 'user' as const, content: question }]
  try {
    for await (const event of client.stream({ messages, output: answer, fields: { reply: 'reply' }, signal })) {
      if (event.type === 'field-delta') await send({ type: 'delta', field: event.field, text: event.delta })
      if (event.type === 'finish') await send({ type: 'finish' })
    }
  } catch (error) {
    await send({ type: 'failed', code: isLLMError(error) ? error.code : 'unknown' })
  }
}

const server = new WebSocketServer({ port: 0, host: '127.0.0.1', maxPayload: 16_384 })
server.on('connection', (socket) => {
  let run: AbortController | undefined
  const send = (message: object) =>
    new Promise<void>((resolve, reject) =>
      socket.send(JSON.stringify(message), (error) => (error ? reject(error) : resolve())),
    )
  socket.on('close', () => run?.abort('the client left'))
  socket.on('error', () => socket.terminate())
  socket.on('message', (data: Buffer) => {
    const message = incoming.safeParse(parse(data.toString()))
    if (!message.success) return socket.close(1008, 'not understood')
    if (message.data.type === 'stop') return run?.abort('the user pressed stop')
    if (run) return void send({ type: 'busy' }).catch(() => undefined)
    run = new AbortController()
    void reply(message.data.question, run.signal, send)
      .catch(() => socket.terminate())
      .finally(() => (run = undefined))
  })
})

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

// ---------------------------------------------------------------------------------------------- what follows only tries it

await once(server, 'listening')
const address = `ws://127.0.0.1:${(server.address() as AddressInfo).port}`
await ask('How many chips?', () => undefined)
await ask('And if I press Stop?', (page) => page.send(JSON.stringify({ type: 'stop' })))
await ask('And if I leave?', (page) => page.close())
server.close()

/** What a page does; `onDelta` is called with each piece of the reply. */
async function ask(question: string, onDelta: (page: WebSocket) => void): Promise<void> {
  const page = new WebSocket(address)
  let text = ''
  page.onopen = () => page.send(JSON.stringify({ type: 'ask', question }))
  page.onmessage = ({ data }) => {
    const message = JSON.parse(String(data)) as { type: string; text?: string; code?: string }
    if (message.type === 'delta') {
      text += message.text ?? ''
      onDelta(page)
      return
    }
    console.log(message.type, message.code ?? text)
    page.close()
  }
  await new Promise((resolve) => (page.onclose = resolve))
}
