/** Interprets fortune sticks: questions wait in a queue, each is answered as a stream of events, and its report is kept. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { inspect } from 'node:util'
import { isLLMError, OutputError, type Provider, retry, StreamingLLMClient } from 'fieldstream'
import { ollama } from 'fieldstream/ollama'
import { openai } from 'fieldstream/openai'
import type { Context } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import { streamSSE } from 'hono/streaming'
import Keyv from 'keyv'
import { z } from 'zod'
import { appWithPage, listen, type Running } from '../shared/serve.ts'
import { withoutKey } from '../shared/simulated-model.ts'
import { SqliteStore } from '../shared/sqlite-store.ts'
import { interpret, type Question } from './interpret.ts'
import { simulatedReport } from './simulated.ts'
import { drawStick, type Stick, sticks } from './sticks.ts'
import { Task, type TaskEvent, TaskQueue } from './tasks.ts'

export interface Options {
  readonly port?: number
  /** Where reports are kept. */
  readonly folder?: string
  readonly provider?: Provider
  /** How many tasks run at a time, and how many may wait. */
  readonly concurrency?: number
  readonly maxWaiting?: number
  readonly log?: (message: string) => void
}

const { env } = process

/** In production and at home: everything else is the same. */
export const providers = {
  openai: (delayMs = 25) =>
    openai({
      model: env['OPENAI_MODEL'] ?? 'gpt-5-mini',
      fetch: withoutKey('OPENAI_API_KEY', simulatedReport, { provider: 'openai', deltaChars: 2, delayMs }),
    }),
  ollama: () => ollama({ model: env['OLLAMA_MODEL'] ?? 'qwen3:4b' }),
}

/** What is kept of a task that is over. */
interface Kept {
  readonly asked: Question
  readonly last: TaskEvent
}

const toTask = z.object(
  {
    stick: z
      .int('请先求一支签')
      .transform((number) => sticks.find((stick) => stick.number === number))
      .pipe(z.custom<Stick>((stick) => stick !== undefined, '没有这支签')),
    question: z.string('请写下所问之事').trim().min(1, '请写下所问之事').max(200, '问题请不超过二百字'),
  },
  '请求须是 JSON：{ "stick": 签号, "question": "所问之事" }',
)

export async function start({
  port = 0,
  folder = fileURLToPath(new URL('.data/', import.meta.url)),
  provider = env['LLM_PROVIDER'] === 'ollama' ? providers.ollama() : providers.openai(),
  concurrency = 2,
  maxWaiting = 200,
  log = console.error,
}: Options = {}): Promise<Running> {
  const client = new StreamingLLMClient({
    provider,
    middleware: [retry()],
    onError: ({ code, message }, { runId }) => log(`run ${runId}: ${code}: ${message}`),
  })
  mkdirSync(folder, { recursive: true })
  const store = new SqliteStore(join(folder, 'reports.sqlite'))
  const reports = new Keyv<Kept>({ store, namespace: 'task' }).on('error', (error) => log(`store: ${String(error)}`))
  const queue = new TaskQueue(concurrency)
  const tasks = new Map<string, Task>()
  const underway = new Set<Promise<void>>()

  async function carryOut(task: Task, isStreamed: boolean): Promise<void> {
    const { asked, signal } = task
    const tell = isStreamed ? task.tell : undefined
    try {
      const report = await queue.run(task, () => interpret(client, asked, { tell, signal }))
      task.end('done', { report })
    } catch (error) {
      task.end('failed', signal.aborted ? { code: 'cancelled', message: '已停止解签。' } : describe(error))
      // The client's own errors are in the log by now.
      if (!signal.aborted && !isLLMError(error)) log(`task ${task.id}: ${inspect(error)}`)
    }
    // For a while, readers who lost their connection can still have all of it; what could not be kept stays here.
    if (await reports.set(task.id, { asked, last: task.last! }))
      setTimeout(() => tasks.delete(task.id), 300_000).unref()
  }

  const app = await appWithPage(new URL('.', import.meta.url))
  app.post('/sticks', (context) => context.json(drawStick()))

  const refuseFlood = (context: Context): Response => context.json({ error: '请求太大了。' }, 413)
  app.post('/tasks', bodyLimit({ maxSize: 10_000, onError: refuseFlood }), async (context) => {
    const asked = toTask.safeParse(await context.req.json().catch(() => undefined))
    if (!asked.success) return context.json({ error: asked.error.issues[0]!.message }, 400)
    if (queue.waiting >= maxWaiting) return context.json({ error: '问签的人太多，请稍后再来。' }, 503)
    const task = new Task(asked.data)
    tasks.set(task.id, task)
    const work = carryOut(task, context.req.query('stream') !== 'false').finally(() => underway.delete(work))
    underway.add(work)
    return context.json({ id: task.id }, 202)
  })

  app.get('/tasks/:id', async (context) => {
    const id = context.req.param('id')
    const asked = (tasks.get(id) ?? (await reports.get(id)))?.asked
    return asked ? context.json({ id, ...asked }) : context.json({ error: '找不到这次问签。' }, 404)
  })

  app.get('/tasks/:id/events', async (context) => {
    const id = context.req.param('id')
    const seen = z.coerce.number().int().min(0).catch(0).parse(context.req.header('last-event-id'))
    const task = tasks.get(id)
    const last = task ? task.last : (await reports.get(id))?.last
    if (!task && !last) return context.json({ error: '找不到这次问签。' }, 404)
    // Ends the visits of an `EventSource`, which comes back for more.
    if (last && last.seq <= seen) return context.body(null, 204)
    return streamSSE(context, async (stream) => {
      const left = new AbortController()
      stream.onAbort(() => left.abort())
      try {
        for await (const { seq, event, data } of task?.eventsAfter(seen, left.signal) ?? [last!])
          await stream.writeSSE({ id: String(seq), event, data: JSON.stringify(data), retry: 1000 })
      } catch (error) {
        if (!left.signal.aborted) throw error
      }
    })
  })

  app.delete('/tasks/:id', (context) => {
    tasks.get(context.req.param('id'))?.cancel()
    return context.body(null, 204)
  })

  const running = await listen(app, port)
  return {
    ...running,
    async close() {
      for (const task of tasks.values()) task.cancel()
      await Promise.all([...underway, running.close()])
      store.disconnect()
    },
  }
}

function describe(error: unknown): { readonly code: string; readonly message: string } {
  if (!isLLMError(error)) return { code: 'internal', message: '解签出了差错，请再试一次。' }
  const { code, retryable } = error
  if (retryable) return { code, message: '解签中断了，请稍后再试一次。' }
  if (code === 'refused' || code === 'content_filtered') return { code, message: '这一签没能解成，请换个说法再问。' }
  if (error instanceof OutputError) return { code, message: '解签出了差错，请再试一次。' }
  return { code, message: '解签的服务眼下用不了，请稍后再来。' }
}
