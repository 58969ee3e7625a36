/** For Cloudflare Workers and others that take an object with `fetch`. */
import { EventSourceParserStream } from 'eventsource-parser/stream'
import { isLLMError, type ResponseEvent, StreamingLLMClient } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { replayFetch, simulate } from 'fieldstream/testing'
import { z } from 'zod'

interface Env {
  readonly ANTHROPIC_API_KEY?: string
}

const asked = z.object({ question: z.string().min(1).max(2000) })
const answer = z.object({ reasoning: z.string(), reply: z.string() })

const worker = {
  async fetch(request: Request, env: Env): Promise<Response> {
    const body = asked.safeParse(await request.json().catch(() => undefined))
    if (!body.success) return new Response(null, { status: 400 })
    const messages = [{ role: 'user' as const, content: body.data.question }]
    const stream = clientOf(env).stream({
      messages,
      output: answer,
      fields: { reply: 'reply' },
      signal: request.signal,
    })
    const lines = serverSentEvents(stream)
    const shown = new ReadableStream<Uint8Array>(
      {
        async pull(controller) {
          const next = await lines.next()
          if (next.done) controller.close()
          else controller.enqueue(new TextEncoder().encode(next.value))
        },
        cancel: () => stream.abort('the client left'),
      },
      { highWaterMark: 0 }, // reads no faster than the client
    )
    const headers = { 'content-type': 'text/event-stream', 'cache-control': 'no-cache, no-transform' }
    return new Response(shown, { headers })
  },
}
export default worker

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

// Secrets come with the request. Without a key, this answer goes through the real SDK in Anthropic's wire format.
const simulated = { reasoning: 'Twelve guests.', reply: 'Six bags for "twelve":\n<3 kinds>, and dips 🎉' }
let client: StreamingLLMClient | undefined
function clientOf({ ANTHROPIC_API_KEY: apiKey }: Env): StreamingLLMClient {
  client ??= new StreamingLLMClient({
    provider: anthropic({
      model: 'claude-haiku-4-5',
      apiKey: apiKey ?? 'none',
      fetch: apiKey ? undefined : replayFetch(simulate(simulated, { delayMs: 20 })),
    }),
    onMetrics: ({ outcome }) => console.log('run:', outcome),
  })
  return client
}

// --------------------------------------------------------------------------------- only where this file is run by itself

if (globalThis.process?.argv?.[1]?.endsWith('worker.ts')) void tryIt()

async function tryIt(): Promise<void> {
  await ask('How many chips?')
  await ask('And if I leave?', 1)
}

/** What a page does; leaves after so many deltas. */
async function ask(question: string, leaveAfter = Infinity): Promise<void> {
  const request = new Request('http://localhost/answer', { method: 'POST', body: JSON.stringify({ question }) })
  const response = await worker.fetch(request, {})
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
