/** AWS Lambda with response streaming, behind a function URL with the invoke mode `RESPONSE_STREAM`. */
import { EventSourceParserStream } from 'eventsource-parser/stream'
import { isLLMError, type ResponseEvent, StreamingLLMClient } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { replayFetch, simulate } from 'fieldstream/testing'
import { PassThrough, Readable, type Writable } from 'node:stream'
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

/** What the runtime of Lambda hands to a function. */
interface FunctionUrlEvent {
  readonly body?: string
  readonly isBase64Encoded: boolean
}
interface Context {
  getRemainingTimeInMillis(): number
}
type Handler = (event: FunctionUrlEvent, responseStream: Writable, context: Context) => Promise<void>
interface LambdaRuntime {
  streamifyResponse(handler: Handler): Handler
  readonly HttpResponseStream: { from(stream: Writable, metadata: object): Writable }
}
const awslambda = (globalThis as { awslambda?: LambdaRuntime }).awslambda ?? standIn()

export const handler = awslambda.streamifyResponse(async (event, responseStream, context) => {
  const headers = { 'content-type': 'text/event-stream', 'cache-control': 'no-cache, no-transform' }
  const body = asked.safeParse(bodyOf(event))
  const response = awslambda.HttpResponseStream.from(responseStream, { statusCode: body.success ? 200 : 400, headers })
  if (!body.success) return void response.end(':\n\n')
  // Two seconds before Lambda ends the function, there is still time to say so.
  const signal = AbortSignal.timeout(Math.max(0, context.getRemainingTimeInMillis() - 2000))
  const messages = [{ role: 'user' as const, content: body.data.question }]
  const stream = client.stream({ messages, output: answer, fields: { reply: 'reply' }, signal })
  response.on('close', () => stream.abort('the client left'))
  await pipeline(serverSentEvents(stream), response) // reads no faster than the response is taken
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

function bodyOf({ body = '', isBase64Encoded }: FunctionUrlEvent): unknown {
  try {
    return JSON.parse(isBase64Encoded ? Buffer.from(body, 'base64').toString() : body)
  } catch {
    return undefined
  }
}

// ------------------------------------------------------------------------------------- only where this is not run by Lambda

/** What Lambda's runtime has as the global `awslambda`. */
function standIn(): LambdaRuntime {
  return { streamifyResponse: (handler) => handler, HttpResponseStream: { from: (stream) => stream } }
}

if (!process.env['AWS_LAMBDA_FUNCTION_NAME']) {
  console.log(await ask('How many chips?', 30_000))
  await ask('And when the time is nearly over?', 2100)
}

/** Calls the function as Lambda does, and reads what it writes. */
async function ask(question: string, remainingMs: number): Promise<string> {
  const written = new PassThrough()
  const event = { body: JSON.stringify({ question }), isBase64Encoded: false }
  const done = handler(event, written, { getRemainingTimeInMillis: () => remainingMs })
  let reply = ''
  const text = Readable.toWeb(written) as ReadableStream<Uint8Array<ArrayBuffer>>
  const events = text.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream())
  for await (const { event, data } of events) {
    if (event === 'delta') reply += (JSON.parse(data) as { text: string }).text
    else console.log(event, data)
  }
  await done
  return reply
}
