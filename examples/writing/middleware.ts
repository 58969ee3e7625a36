import { type Middleware, retry, StreamingLLMClient } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { replayFetch, simulate } from 'fieldstream/testing'

const address = /(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+/g

/** Changes requests: no e-mail address reaches the model. */
export const maskAddresses: Middleware = (next) => (request, context) =>
  next({ ...request, system: masked(request.system), messages: masked(request.messages) }, context)

function masked<T>(value: T): T
function masked(value: unknown): unknown {
  if (typeof value === 'string') return value.replaceAll(address, '[address]')
  if (Array.isArray(value)) return value.map((item) => masked<unknown>(item))
  // The bytes of an image stay as they are.
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return value
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, masked<unknown>(member)]))
}

export interface Observation {
  readonly attempt: number
  /** Milliseconds from when the answer was asked for; `undefined` where none began. */
  readonly firstEvent: number | undefined
  readonly outcome: 'complete' | 'failed' | 'left'
}

/** Watches answers: when each began, and how it ended. */
export function observe(report: (observation: Observation) => void): Middleware {
  return (next) =>
    async function* (request, context) {
      const from = performance.now()
      let firstEvent: number | undefined
      let outcome: Observation['outcome'] = 'left'
      try {
        for await (const event of next(request, context)) {
          firstEvent ??= performance.now() - from
          // Set before the event is handed on: nobody has to read on after it.
          if (event.type === 'finish') outcome = 'complete'
          yield event
        }
      } catch (error) {
        if (!context.signal.aborted) outcome = 'failed'
        throw error
      } finally {
        report({ attempt: context.attempt, firstEvent, outcome })
      }
    }
}

if (import.meta.main) {
  // Without a key, answers in Anthropic's wire format go through the real SDK: the service is overloaded, then answers.
  const busy = { status: 529, body: '{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}' }
  const replay = replayFetch([busy, simulate('I have written to them.')])
  const client = new StreamingLLMClient({
    provider: anthropic({
      model: 'claude-haiku-4-5',
      fetch: process.env['ANTHROPIC_API_KEY'] ? undefined : replay,
    }),
    middleware: [
      maskAddresses,
      retry({ baseDelay: 10 }),
      // After retry(): one observation for each attempt.
      observe(({ attempt, firstEvent, outcome }) =>
        console.log(`attempt ${attempt}: ${outcome}, ${firstEvent === undefined ? 'no event' : 'begun'}`),
      ),
    ],
  })
  const { text } = await client
    .stream({ messages: [{ role: 'user', content: 'Tell anna@shop.example and ben@shop.example that we open.' }] })
    .final()
  console.log(text)
  for (const { body } of replay.requests.slice(-1))
    console.log('sent:', JSON.stringify((body as { messages: unknown }).messages))
}
