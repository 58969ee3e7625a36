import { fallback, nonStreaming, type Provider, StreamingLLMClient, timeout } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import type { Context } from 'hono'
import { streamSSE } from 'hono/streaming'
import { z } from 'zod'
import { limitBody, readBody } from '../shared/read-body.ts'
import { appWithPage, listen, type Running } from '../shared/serve.ts'
import { withoutKey } from '../shared/simulated-model.ts'
import type { Emit } from './events.ts'
import { openSessions, type Session, type Sessions } from './sessions.ts'
import { simulatedAnswer } from './simulated.ts'
import { takeTurn } from './turn.ts'

const sessionId = z.string().regex(/^[\w-]{8,64}$/, 'must be 8 to 64 letters, digits, _ or -')
const chatRequest = z.strictObject({
  session_id: sessionId,
  message: z.string().trim().min(1).max(2000),
  /** How many messages the page has seen, so that an answer never counts for a question of another tab. */
  turn: z.int().min(0).optional(),
})

const isBusy = 'This conversation is being answered already, perhaps in another tab.'
const wentOn = 'This conversation went on elsewhere. Here it is as it stands now.'
const isUnreadable = 'Conversations cannot be read at present.'

export interface Options {
  readonly port?: number | undefined
  /** The model. Default: Claude, simulated without a key. */
  readonly provider?: Provider | undefined
  readonly sessions?: Sessions | undefined
  readonly log?: ((line: string) => void) | undefined
}

export async function start({
  port = 3000,
  provider = anthropic({ model: 'claude-haiku-4-5', fetch: withoutKey('ANTHROPIC_API_KEY', simulatedAnswer) }),
  sessions = openSessions(process.env['REDIS_URL'] ?? new URL('.data/', import.meta.url)),
  log = console.warn,
}: Options = {}): Promise<Running> {
  const client = new StreamingLLMClient({
    // A stream that fails is followed by a call that does not stream; the next request streams again.
    provider: fallback([provider, nonStreaming(provider)], { coolDown: 0 }),
    middleware: [timeout({ firstOutput: 20_000, idle: 20_000, total: 60_000 })],
    onAttempt: ({ error, next }) => log(`attempt failed: ${error.code}, then ${next}`),
    onError: (error) => log(`no answer: ${error.code}`),
  })
  // A Redis that is down says so at each attempt to reach it.
  let lastFault: string | undefined
  sessions.on('error', (error: unknown) => {
    if (String(error) !== lastFault) log(`sessions: ${String(error)}`)
    lastFault = String(error)
  })
  /** One run at a time for each session, since each begins with what the one before has saved. */
  const runs = new Map<string, AbortController>()

  const app = await appWithPage(new URL('./', import.meta.url))
  app.use('/rs/*', limitBody(16_384))
  app.onError((error, context) => {
    log(`${context.req.path}: ${error.message}`)
    return context.json({ error: 'Something went wrong.' }, 500)
  })

  /** Lets a message in where it can be answered, else says why not. */
  async function admit(context: Context): Promise<Admitted | Response> {
    const asked = await readBody(context, chatRequest)
    if (asked instanceof Response) return asked
    const { session_id: id, message, turn } = asked
    if (runs.has(id)) return context.json({ error: isBusy }, 409)
    const controller = new AbortController()
    runs.set(id, controller)
    const session = await read(id)
    const isCurrent = turn === undefined || turn === session?.messages.length
    if (session && isCurrent) return { id, message, controller, session }
    runs.delete(id)
    return session ? context.json({ error: wentOn }, 409) : context.json({ error: isUnreadable }, 503)
  }

  /** `undefined` where the store fails. */
  async function read(id: string): Promise<Session | undefined> {
    try {
      return (await sessions.get(id)) ?? { messages: [] }
    } catch (error) {
      log(`session not read: ${String(error)}`)
      return undefined
    }
  }

  async function answerTo({ id, message, controller, session }: Admitted, emit?: Emit) {
    const { signal } = controller
    try {
      const turn = await takeTurn(client, session, message, signal, emit)
      signal.throwIfAborted()
      const saved = await sessions.set(id, turn.session).catch((error: unknown) => {
        log(`session not saved: ${String(error)}`)
        return false
      })
      return { outcome: turn.outcome, saved, message: turn.reply }
    } catch (error) {
      if (!signal.aborted) log(`turn failed: ${String(error)}`)
      return { outcome: signal.aborted ? 'stopped' : 'failed', saved: false } as const
    } finally {
      runs.delete(id)
    }
  }

  app.post('/rs/chat/stream', async (context) => {
    const admitted = await admit(context)
    if (admitted instanceof Response) return admitted
    return streamSSE(context, async (sse) => {
      sse.onAbort(() => admitted.controller.abort('the customer has left'))
      const emit: Emit = (event, data) => sse.writeSSE({ event, data: JSON.stringify(data) })
      await emit('ack', { session_id: admitted.id })
      const { outcome, saved } = await answerTo(admitted, emit)
      await emit('end', { outcome, saved })
    })
  })

  // The same without a stream.
  app.post('/rs/chat', async (context) => {
    const admitted = await admit(context)
    if (admitted instanceof Response) return admitted
    context.req.raw.signal.addEventListener('abort', () => admitted.controller.abort('the customer has left'))
    return context.json({ session_id: admitted.id, ...(await answerTo(admitted)) })
  })

  app.get('/rs/chat/:session', async (context) => {
    const id = context.req.param('session')
    if (!sessionId.safeParse(id).success) return context.json({ error: 'This is no session.' }, 400)
    const session = await read(id)
    if (!session) return context.json({ error: isUnreadable }, 503)
    return context.json({ session_id: id, messages: session.messages, answering: runs.has(id) })
  })

  app.post('/rs/chat/:session/stop', (context) => {
    const run = runs.get(context.req.param('session'))
    run?.abort('the customer pressed stop')
    return context.json({ stopped: run !== undefined })
  })

  const running = await listen(app, port)
  return {
    ...running,
    async close() {
      for (const run of runs.values()) run.abort('the server is closing')
      await running.close()
      await sessions.disconnect()
    },
  }
}

/** A message that is being answered. */
interface Admitted {
  readonly id: string
  readonly message: string
  readonly session: Session
  readonly controller: AbortController
}
