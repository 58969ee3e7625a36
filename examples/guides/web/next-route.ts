/** For Next.js: as `app/api/answer/route.ts`. It needs web standards only, so other frameworks of their kind take it too. */
import { EventSourceParserStream } from 'eventsource-parser/stream'
import { isLLMError, type ResponseEvent, StreamingLLMClient } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { replayFetch, simulate } from 'fieldstream/testing'
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

export async function POST(request: Request): Promise<Response> {
  const body = asked.safeParse(await request.json().catch(() => undefined))
  if (!body.success) return new Response(null, { status: 400 })
  const messages = [{ role: 'user' as const, content: body.data.question }]
  const stream = client.stream({ messages, output: answer, fields: { reply: 'reply' }, signal: request.signal })
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
}

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

// --------------------------------------------------------------------------------- only where this file is run by itself

if (process.argv[1]?.endsWith('next-route.ts')) void tryIt()

async function tryIt(): Promise<void> {
  await ask('How many chips?')
  await ask('And if I leave?', 1)
}

/** What a page does; leaves after so many deltas. */
async function ask(question: string, leaveAfter = Infinity): Promise<void> {
  const request = new Request('http://localhost/api/answer', { method: 'POST', body: JSON.stringify({ question }) })
  const response = await POST(request)
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
