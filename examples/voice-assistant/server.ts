import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { isLLMError, type Provider, type RateLimitOptions } from 'fieldstream'
import type { SimulateOptions } from 'fieldstream/testing'
import { streamSSE } from 'hono/streaming'
import { Keyv } from 'keyv'
import { z } from 'zod'
import { limitBody, readBody } from '../shared/read-body.ts'
import { appWithPage, listen, type Running } from '../shared/serve.ts'
import { SqliteStore } from '../shared/sqlite-store.ts'
import { apologyFor } from './apology.ts'
import { createAssistant } from './assistant.ts'
import { createModels } from './models.ts'
import { AnswerMetrics, type Log, logToConsole } from './observe.ts'
import { streamAnswer } from './stream-answer.ts'

export interface Options {
  readonly port?: number | undefined
  /** Where answers are kept. */
  readonly folder?: string | undefined
  /** How fast simulated models are. */
  readonly pace?: SimulateOptions | undefined
  /** Instead of Gemini and Ollama. */
  readonly provider?: Provider | undefined
  readonly limit?: Partial<RateLimitOptions> | undefined
  readonly log?: Log | undefined
}

const Question = z.strictObject({ user: z.string().trim().min(1).max(100), text: z.string().trim().min(1).max(2000) })
const Debug = z.strictObject({ fails: z.boolean(), when: z.enum(['before', 'middle']).default('before') })

export async function start({
  port = 3000,
  folder = fileURLToPath(new URL('.data/', import.meta.url)),
  pace,
  provider,
  limit,
  log = logToConsole,
}: Options = {}): Promise<Running> {
  const models = provider ? { provider, faults: undefined } : createModels(pace)
  const answers = openAnswers(folder, log)
  const assistant = createAssistant({ provider: models.provider, answers, limit, log })
  const metrics = new AnswerMetrics()
  const app = await appWithPage(new URL('./', import.meta.url))

  app.post('/assistant/stream', limitBody(16_384), async (context) => {
    const question = await readBody(context, Question)
    if (question instanceof Response) return question
    // Whoever leaves stops the answer.
    const { signal } = context.req.raw
    const events = streamAnswer(assistant, question, signal, (answer) => metrics.onAnswered(answer))
    try {
      const first = await events.next()
      return streamSSE(context, async (sse) => {
        // Goes on when the last event is on its way, so a slow reader slows the model down.
        for (let { value, done } = first; !done; { value, done } = await events.next())
          await sse.writeSSE({ event: value!.event, data: JSON.stringify(value!.data) })
      })
    } catch (error) {
      if (!isLLMError(error)) throw error
      const { status, message } = apologyFor(error)
      return Response.json({ error: message }, { status, ...(status === 429 && { headers: { 'retry-after': '30' } }) })
    }
  })

  app.get('/metrics', async (context) =>
    context.body(await metrics.toText(), 200, { 'content-type': metrics.contentType }),
  )

  app.get('/debug/gemini', (context) => context.json({ fault: models.faults?.fault ?? null }))
  app.post('/debug/gemini', limitBody(1024), async (context) => {
    if (!models.faults) return context.json({ error: 'Only a simulated Gemini fails on demand.' }, 404)
    const debug = await readBody(context, Debug)
    if (debug instanceof Response) return debug
    models.faults.fault = debug.fails ? debug.when : 'never'
    return context.json({ fault: models.faults.fault })
  })

  const running = await listen(app, port)
  return {
    ...running,
    async close() {
      await running.close()
      await answers.disconnect()
    },
  }
}

/** A cache can be done without, and so can its file. */
function openAnswers(folder: string, log: Log): Keyv {
  // With `throwOnErrors`, cache() hears of what fails, and tells the log.
  const open = (store?: SqliteStore): Keyv => new Keyv({ ...(store && { store }), throwOnErrors: true })
  try {
    mkdirSync(folder, { recursive: true })
    return open(new SqliteStore(join(folder, 'answers.sqlite')))
  } catch (error) {
    log('cache_failed', { operation: 'open', message: String(error) })
    return open()
  }
}
