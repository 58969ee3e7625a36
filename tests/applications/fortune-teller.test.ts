import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { setTimeout as wait } from 'node:timers/promises'
import { EventSourceParserStream } from 'eventsource-parser/stream'
import { nonStreaming, type Provider, StreamingLLMClient } from 'fieldstream'
import { ollama } from 'fieldstream/ollama'
import { openai } from 'fieldstream/openai'
import { type Recording, replayFetch, type ReplayRequest, simulate, type SimulateOptions } from 'fieldstream/testing'
import { afterAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { interpret, type Report } from '../../examples/fortune-teller/interpret.ts'
import { type Options, providers, start } from '../../examples/fortune-teller/server.ts'
import { sticks } from '../../examples/fortune-teller/sticks.ts'
import { TaskQueue } from '../../examples/fortune-teller/tasks.ts'
import type { Running } from '../../examples/shared/serve.ts'

const report: Report = {
  verdict: '吉',
  sections: [
    { title: '签诗本意', body: '说的是水到渠成。有些缘分早已种下，你未必记得，可它在长着呢！如今怎样呢？只须认得它。' },
    { title: '所问之事', body: '先把手上最要紧的一件事做成样子，看见是迟早的 🎋。' },
  ],
  advice: ['今晚早睡'],
}

const folder = mkdtempSync(join(tmpdir(), 'fortune-'))
afterAll(() => rmSync(folder, { recursive: true }))
let folders = 0

type Answer = (request: ReplayRequest) => Recording

const answered = (payload: string | object = report, options: SimulateOptions = {}): Answer =>
  simulate(payload, { provider: 'openai', deltaChars: 2, ...options })

const providerOf = (fetch: typeof globalThis.fetch): Provider => openai({ model: 'gpt-5-mini', fetch })

/** The application, with a model that answers as told. */
async function open(
  answer: Answer = answered(),
  options: Options = {},
): Promise<Running & { readonly logged: string[] }> {
  const logged: string[] = []
  const running = await start({
    folder: join(folder, String(folders++)),
    provider: providerOf(replayFetch(answer)),
    log: (message) => logged.push(message),
    ...options,
  })
  onTestFinished(() => running.close())
  return { ...running, logged }
}

function post(
  running: Running,
  body: unknown = { stick: 2, question: '要不要换工作？' },
  query = '',
): Promise<Response> {
  const text = typeof body === 'string' ? body : JSON.stringify(body)
  return fetch(`${running.address}/tasks${query}`, { method: 'POST', body: text })
}

async function submit(running: Running, query = ''): Promise<string> {
  const response = await post(running, undefined, query)
  expect(response.status).toBe(202)
  return ((await response.json()) as { readonly id: string }).id
}

interface Told {
  readonly seq: number
  readonly event: string
  readonly data: Readonly<Record<string, unknown>>
}

/** What a reader is told until the end, or until it leaves. */
async function read(
  running: Running,
  id: string,
  after = 0,
  isEnough: (told: Told) => boolean = () => false,
): Promise<Told[]> {
  const leaving = new AbortController()
  const response = await fetch(`${running.address}/tasks/${id}/events`, {
    headers: after > 0 ? { 'last-event-id': String(after) } : {},
    signal: leaving.signal,
  })
  expect(response.headers.get('content-type')).toContain('text/event-stream')
  const told: Told[] = []
  const events = response.body!.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream())
  for await (const { id: seq, event, data } of events) {
    told.push({ seq: Number(seq), event: event!, data: JSON.parse(data) as Told['data'] })
    if (isEnough(told.at(-1)!)) break
  }
  leaving.abort()
  return told
}

const named = (told: readonly Told[], event: string): Told['data'][] =>
  told.filter((one) => one.event === event).map(({ data }) => data)

const namesOf = (told: readonly Told[]): string[] => told.map(({ event }) => event)

/** A model that answers only when let, and counts who asks. */
function gated(answer: Answer = answered()) {
  const gate = Promise.withResolvers<undefined>()
  const inner = replayFetch(answer)
  const seen = { running: 0, most: 0, aborted: 0 }
  const fetch: typeof globalThis.fetch = async (input, init) => {
    seen.most = Math.max(seen.most, ++seen.running)
    const left = new Promise<never>((_, reject) =>
      init!.signal!.addEventListener('abort', () => {
        seen.aborted++
        reject(init!.signal!.reason as Error)
      }),
    )
    await Promise.race([gate.promise, left]).finally(() => seen.running--)
    return inner(input, init)
  }
  return { open: () => gate.resolve(undefined), seen, provider: providerOf(fetch) }
}

describe('a task', () => {
  test('is told in order: its place, the text as it is written, each section, the report', async () => {
    const running = await open()
    const told = await read(running, await submit(running))
    expect(told.map(({ seq }) => seq)).toEqual(told.map((_, i) => i + 1))
    expect(told[0]).toMatchObject({ event: 'status', data: { status: 'queued', position: 1 } })
    expect(told[1]).toMatchObject({ event: 'status', data: { status: 'running' } })
    const shown = namesOf(told).filter((name) => name !== 'progress')
    expect(shown.join(' ').replace(/(llm_streaming ?)+/g, '* ')).toBe(
      'status status section_start * section section_start * section done',
    )
    expect(named(told, 'section_start')).toEqual([
      { section: 0, title: '签诗本意' },
      { section: 1, title: '所问之事' },
    ])
    expect(named(told, 'section')).toEqual(report.sections.map((section, i) => ({ section: i, ...section })))
    expect(named(told, 'done')).toEqual([{ report }])
    expect(told.at(-1)!.event).toBe('done')
  })

  test('streams text that joins to the report, with all of it so far and a count of tokens', async () => {
    const running = await open()
    const deltas = named(await read(running, await submit(running)), 'llm_streaming')
    let text = ''
    let tokens = 0
    for (const delta of deltas) {
      text += delta['token'] as string
      expect(delta['partial_text']).toBe(text)
      expect(delta['total_tokens']).toBeGreaterThan(tokens)
      tokens = delta['total_tokens'] as number
    }
    for (const [i, { body }] of report.sections.entries()) {
      const own = deltas.filter(({ section }) => section === i)
      expect(own.map(({ token }) => token).join('')).toBe(body)
    }
    expect(text).toBe(report.sections.map(({ body }) => body).join(''))
  })

  test('sends a piece of text every five tokens of the model, or where a sentence ends', async () => {
    const running = await open(answered(report, { deltaChars: 1 }))
    const deltas = named(await read(running, await submit(running)), 'llm_streaming')
    const tokens = deltas.filter(({ section }) => section === 0).map(({ token }) => token as string)
    expect(tokens.slice(0, 3)).toEqual(['说的是水到', '渠成。', '有些缘分早'])
    for (const end of ['。', '！', '？'])
      expect(tokens.some((token) => token.length < 5 && token.endsWith(end))).toBe(true)
    for (const token of tokens) expect(token.length === 5 || /[。！？]$/.test(token)).toBe(true)
  })

  test('says how far it is: only forwards, and 1 only for a report that is valid', async () => {
    const running = await open()
    const told = await read(running, await submit(running))
    const ratios = named(told, 'progress').map(({ ratio }) => ratio as number)
    expect(ratios.length).toBeGreaterThan(5)
    expect(ratios).toEqual([...new Set(ratios)].sort((a, b) => a - b))
    expect(ratios.at(-1)).toBe(1)
    expect(namesOf(told).slice(-2)).toEqual(['progress', 'done'])
    const broken = await open(answered({ ...report, verdict: 'unheard of' }))
    const failed = await read(broken, await submit(broken))
    expect(named(failed, 'failed')).toEqual([{ code: 'schema_mismatch', message: expect.any(String) as string }])
    expect(named(failed, 'progress').at(-1)!['ratio']).toBeLessThan(1)
  })

  test('goes on for who comes back with the number of the last event: exactly the rest, from any place', async () => {
    const running = await open(answered(report, { delayMs: 1 }))
    const id = await submit(running)
    const first = await read(running, id, 0, ({ event }) => event === 'llm_streaming')
    const rest = await read(running, id, first.at(-1)!.seq)
    const all = await read(running, id)
    expect([...first, ...rest]).toEqual(all)
    for (let seq = 1; seq < all.length; seq++) expect(await read(running, id, seq)).toEqual(all.slice(seq))
    for (const seq of [all.length, 9999]) {
      const headers = { 'last-event-id': String(seq) }
      expect((await fetch(`${running.address}/tasks/${id}/events`, { headers })).status).toBe(204)
    }
    const headers = { 'last-event-id': 'nonsense' }
    expect(await (await fetch(`${running.address}/tasks/${id}/events`, { headers })).text()).toContain('id: 1\n')
  })

  test('has any number of readers, who are told the same', async () => {
    const { open: letGo, provider } = gated(answered(report, { delayMs: 1 }))
    const running = await open(undefined, { provider })
    const id = await submit(running)
    const readers = Promise.all(Array.from({ length: 12 }, () => read(running, id)))
    letGo()
    const [one, ...others] = await readers
    expect(named(one!, 'done')).toEqual([{ report }])
    for (const other of others) expect(other).toEqual(one)
  })

  test('is finished when nobody reads it, and found again after a restart', async () => {
    const own = join(folder, 'kept')
    const { open: letGo, provider } = gated()
    const first = await start({ folder: own, provider })
    const id = await submit(first)
    await read(first, id, 0, ({ data }) => data['status'] === 'running')
    letGo()
    const all = await read(first, id)
    await first.close()
    const second = await open(undefined, { folder: own })
    const asked = { id, stick: sticks[1], question: '要不要换工作？' }
    expect(await (await fetch(`${second.address}/tasks/${id}`)).json()).toEqual(asked)
    expect(await read(second, id)).toEqual([all.at(-1)])
    const headers = { 'last-event-id': String(all.length) }
    expect((await fetch(`${second.address}/tasks/${id}/events`, { headers })).status).toBe(204)
  })

  test('that was not finished when the server stopped is kept as such', async () => {
    const own = join(folder, 'stopped')
    const first = await start({ folder: own, provider: gated().provider })
    const id = await submit(first)
    await first.close()
    const second = await open(undefined, { folder: own })
    expect(named(await read(second, id), 'failed')).toMatchObject([{ code: 'cancelled' }])
  })

  test('carries whatever a model writes: line breaks, lines of the protocol, tags', async () => {
    const body = 'a\n\nevent: done\ndata: {"report":null}\n\r\n: b\u2028<script>alert(1)</script>\u0000 "。\\'
    const hostile: Report = { ...report, sections: [{ title: 'id: 7\n\ndata: x', body }] }
    const running = await open(answered(hostile))
    const told = await read(running, await submit(running))
    expect(told.map(({ seq }) => seq)).toEqual(told.map((_, i) => i + 1))
    expect(named(told, 'done')).toEqual([{ report: hostile }])
    expect(named(told, 'llm_streaming').at(-1)!['partial_text']).toBe(body)
  })
})

describe('the queue', () => {
  test('runs a few at a time, in order, and tells the others their place', async () => {
    const { open: letGo, provider, seen } = gated()
    const running = await open(undefined, { provider, concurrency: 2 })
    const ids: string[] = []
    for (let i = 0; i < 5; i++) ids.push(await submit(running))
    await vi.waitFor(() => expect(seen.running).toBe(2))
    letGo()
    const told = await Promise.all(ids.map((id) => read(running, id)))
    const places = told.map((one) => named(one, 'status').map(({ status, position }) => position ?? status))
    expect(places.map((own) => own.at(-1))).toEqual(Array.from({ length: 5 }, () => 'running'))
    expect(places.map((own) => own.slice(0, -1))).toEqual([[1], [1], [1], [2, 1], [3, 2, 1]])
    expect(told.map((one) => one.at(-1)!.event)).toEqual(Array.from({ length: 5 }, () => 'done'))
    expect(seen.most).toBe(2)
  })

  test('lets go of a task that is cancelled, running or waiting, and goes on with the others', async () => {
    const { open: letGo, provider, seen } = gated()
    const running = await open(undefined, { provider, concurrency: 1 })
    const [active, waiting, last] = [await submit(running), await submit(running), await submit(running)]
    await vi.waitFor(() => expect(seen.running).toBe(1))
    const cancel = (id: string): Promise<Response> => fetch(`${running.address}/tasks/${id}`, { method: 'DELETE' })
    expect((await cancel(waiting)).status).toBe(204)
    const ended = await read(running, waiting)
    expect(namesOf(ended)).toEqual(['status', 'failed'])
    expect(named(ended, 'failed')).toEqual([{ code: 'cancelled', message: '已停止解签。' }])
    expect(seen.aborted).toBe(0)
    await cancel(active)
    expect(named(await read(running, active), 'failed')).toMatchObject([{ code: 'cancelled' }])
    expect(seen.aborted).toBe(1)
    letGo()
    const told = await read(running, last)
    expect(named(told, 'status').map(({ position }) => position)).toEqual([2, 1, undefined])
    expect(named(told, 'done')).toEqual([{ report }])
    // Neither what is over nor what never was minds.
    expect([(await cancel(last)).status, (await cancel('unknown')).status]).toEqual([204, 204])
    expect(await read(running, last)).toEqual(told)
  })

  test('tells no more of a task that was cancelled in the middle of its text', async () => {
    const running = await open(answered(report, { delayMs: 5 }))
    const id = await submit(running)
    await read(running, id, 0, ({ event }) => event === 'llm_streaming')
    await fetch(`${running.address}/tasks/${id}`, { method: 'DELETE' })
    const told = await read(running, id)
    expect(namesOf(told)).toContain('llm_streaming')
    expect(namesOf(told)).not.toContain('done')
    expect(told.at(-1)).toMatchObject({ event: 'failed', data: { code: 'cancelled' } })
    await wait(20)
    expect(await read(running, id)).toEqual(told)
  })

  test('takes no more than may wait', async () => {
    const { open: letGo, provider } = gated()
    const running = await open(undefined, { provider, concurrency: 1, maxWaiting: 1 })
    await submit(running)
    const last = await submit(running)
    const refused = await post(running)
    expect(refused.status).toBe(503)
    expect(await refused.json()).toEqual({ error: '问签的人太多，请稍后再来。' })
    letGo()
    expect((await read(running, last)).at(-1)!.event).toBe('done')
  })

  test('serves two hundred at once', async () => {
    const running = await open(answered(report, { deltaChars: 12, delayMs: 1 }), { concurrency: 100 })
    const all = await Promise.all(
      Array.from({ length: 200 }, async (_, i) => {
        const question = `第${i}问`
        const response = await post(running, { stick: (i % 12) + 1, question })
        const { id } = (await response.json()) as { readonly id: string }
        const told = await read(running, id)
        const asked = (await (await fetch(`${running.address}/tasks/${id}`)).json()) as { readonly question: string }
        expect(asked.question).toBe(question)
        return told
      }),
    )
    for (const told of all) {
      expect(named(told, 'llm_streaming').at(-1)!['partial_text']).toBe(
        report.sections.map(({ body }) => body).join(''),
      )
      expect(named(told, 'done')).toEqual([{ report }])
    }
    expect(running.logged).toEqual([])
  })
})

describe('what a model is asked', () => {
  test('is the stick and the question, and the answer is streamed', async () => {
    const replay = replayFetch(answered())
    const running = await open(undefined, { provider: providerOf(replay) })
    await read(running, await submit(running))
    const { body } = replay.requests[0]!
    expect(body).toMatchObject({ stream: true, tool_choice: { name: 'write_report' } })
    expect(JSON.stringify(body)).toContain(
      `第2签《春水行舟》，上吉。\\n${sticks[1]!.poem.join('，')}。\\n所问：要不要换工作？`,
    )
  })

  test('is the same, in one piece, where nobody listens', async () => {
    const replay = replayFetch(answered())
    const running = await open(undefined, { provider: providerOf(replay) })
    const told = await read(running, await submit(running, '?stream=false'))
    expect(namesOf(told)).toEqual(['status', 'status', 'done'])
    expect(told.at(-1)!.data).toEqual({ report })
    expect((replay.requests[0]!.body as { readonly stream?: boolean }).stream).not.toBe(true)
  })

  test('goes to a provider that cannot stream as well: the same events, at once', async () => {
    const replay = replayFetch(answered())
    const running = await open(undefined, { provider: nonStreaming(providerOf(replay)) })
    const told = await read(running, await submit(running))
    expect((replay.requests[0]!.body as { readonly stream?: boolean }).stream).not.toBe(true)
    expect(named(told, 'llm_streaming').at(-1)!['partial_text']).toBe(report.sections.map(({ body }) => body).join(''))
    expect(named(told, 'section')).toHaveLength(2)
    expect(named(told, 'done')).toEqual([{ report }])
  })

  test('goes to Ollama at home: the same events, as it is written', async () => {
    const replay = replayFetch(answered(report, { provider: 'ollama' }))
    const running = await open(undefined, { provider: ollama({ model: 'qwen3:4b', fetch: replay }) })
    const told = await read(running, await submit(running))
    expect(named(told, 'llm_streaming').length).toBeGreaterThan(5)
    expect(named(told, 'done')).toEqual([{ report }])
  })

  test('goes to Ollama where the environment says so', async () => {
    const replay = replayFetch(answered(report, { provider: 'ollama' }))
    const service = createServer((request, response) => {
      void (async () => {
        const body = (await request.toArray()).join('')
        const { headers, body: answer } = await replay(`http://ollama${request.url!}`, { method: 'POST', body })
        response.setHeader('content-type', headers.get('content-type')!)
        for await (const chunk of answer!) response.write(chunk)
        response.end()
      })()
    }).listen(0, '127.0.0.1')
    await once(service, 'listening')
    onTestFinished(() => void service.close())
    vi.stubEnv('LLM_PROVIDER', 'ollama')
    vi.stubEnv('OLLAMA_HOST', `http://127.0.0.1:${(service.address() as AddressInfo).port}`)
    onTestFinished(() => void vi.unstubAllEnvs())
    const running = await start({ folder: join(folder, 'ollama') })
    onTestFinished(() => running.close())
    expect(named(await read(running, await submit(running)), 'done')).toEqual([{ report }])
    expect(replay.requests).toHaveLength(1)
  })

  test('is answered without a key, by a simulation that knows the stick and the question', async () => {
    vi.stubEnv('OPENAI_API_KEY', '')
    vi.stubEnv('LLM_PROVIDER', '')
    onTestFinished(() => void vi.unstubAllEnvs())
    const running = await open(undefined, { provider: providers.openai(0) })
    const told = await read(running, await submit(running))
    const { sections } = (told.at(-1)!.data as { readonly report: Report }).report
    expect(sections.map(({ title }) => title)).toEqual(['签诗本意', '所问之事', '时机', '如何去做'])
    expect(sections[0]!.body).toContain(sticks[1]!.poem[0])
    expect(sections[1]!.body).toContain('事业')
  })
})

describe('what goes wrong', () => {
  /** An answer of which the connection is lost half way. */
  const cut: Answer = (request) => {
    const { body, reads, ...rest } = answered()(request)
    const kept = reads!.slice(0, reads!.length / 2)
    const bytes = new TextEncoder().encode(body as string)
    return {
      ...rest,
      body: bytes.slice(
        0,
        kept.reduce((sum, size) => sum + size, 0),
      ),
      reads: kept,
    }
  }

  test('a connection that is lost in the middle ends the task with what to do, and not the queue', async () => {
    let asked = 0
    const running = await open((request) => (asked++ === 0 ? cut : answered())(request), { concurrency: 1 })
    const [first, second] = [await submit(running), await submit(running)]
    const told = await read(running, first)
    expect(namesOf(told)).toContain('llm_streaming')
    expect(told.at(-1)).toMatchObject({
      event: 'failed',
      data: { code: 'stream_truncated', message: '解签中断了，请稍后再试一次。' },
    })
    expect(named(await read(running, second), 'done')).toEqual([{ report }])
    expect(running.logged).toEqual([expect.stringMatching(/^run \S+: stream_truncated: /)])
    expect(await (await fetch(`${running.address}/tasks/${first}`)).json()).toMatchObject({
      question: '要不要换工作？',
    })
  })

  test.each([
    [
      'a wrong key',
      { body: '{"error":{"code":"invalid_api_key"}}', status: 401 },
      '解签的服务眼下用不了，请稍后再来。',
    ],
    ['a refusal', answered(report, { finishReason: 'content-filter' }), '这一签没能解成，请换个说法再问。'],
    ['a report that is none', answered({ verdict: '吉' }), '解签出了差错，请再试一次。'],
  ])('%s is told with what helps against it', async (_, answer, message) => {
    const running = await open(typeof answer === 'function' ? answer : () => answer)
    expect((await read(running, await submit(running))).at(-1)).toMatchObject({ event: 'failed', data: { message } })
  })

  test('an error of our own is logged', async () => {
    vi.spyOn(TaskQueue.prototype, 'run').mockRejectedValueOnce(new TypeError('a mistake'))
    onTestFinished(() => void vi.restoreAllMocks())
    const running = await open()
    const id = await submit(running)
    expect(named(await read(running, id), 'failed')).toEqual([
      { code: 'internal', message: '解签出了差错，请再试一次。' },
    ])
    expect(running.logged).toEqual([expect.stringMatching(new RegExp(`^task ${id}: TypeError: a mistake\n +at `))])
  })

  test('a callback that fails does not stop the generation', async () => {
    const heard: string[] = []
    const client = new StreamingLLMClient({
      provider: providerOf(replayFetch(answered())),
      onError: ({ code }) => void heard.push(code),
    })
    const told: string[] = []
    const tell = (event: string): never => {
      told.push(event)
      throw new Error('the connection is gone')
    }
    expect(await interpret(client, { stick: sticks[0]!, question: '安否？' }, { tell })).toEqual(report)
    expect(told.filter((event) => event === 'section')).toHaveLength(2)
    expect(new Set(heard)).toEqual(new Set(['consumer_error']))
    expect(heard).toHaveLength(told.length)
  })

  test('a store that fails is logged, and loses nothing while the server runs', async () => {
    const own = join(folder, 'broken')
    const running = await open(undefined, { folder: own })
    const database = new DatabaseSync(join(own, 'reports.sqlite'))
    database.exec('DROP TABLE entries')
    database.close()
    const id = await submit(running)
    const told = await read(running, id)
    expect(named(told, 'done')).toEqual([{ report }])
    await vi.waitFor(() => expect(running.logged).toEqual([expect.stringContaining('no such table')]))
    expect(await read(running, id)).toEqual(told)
  })

  test.each([
    ['no JSON', '{"stick"', /JSON/],
    ['no object', [], /JSON/],
    ['no stick', { question: '?' }, /求一支签/],
    ['a stick that there is not', { stick: 13, question: '?' }, /没有这支签/],
    ['half a stick', { stick: 1.5, question: '?' }, /求一支签/],
    ['no question', { stick: 1 }, /写下所问/],
    ['a question of another type', { stick: 1, question: 7 }, /写下所问/],
    ['an empty question', { stick: 1, question: ' \n ' }, /写下所问/],
    ['a question that is too long', { stick: 1, question: '问'.repeat(201) }, /二百字/],
  ])('%s is refused with a reason', async (_, body, reason) => {
    const response = await post(await open(), body)
    expect(response.status).toBe(400)
    expect(((await response.json()) as { readonly error: string }).error).toMatch(reason)
  })

  test('a flood, and a task that there is not, are refused', async () => {
    const running = await open()
    const flood = await post(running, { stick: 1, question: 'x'.repeat(20_000) })
    expect(flood.status).toBe(413)
    expect(await flood.json()).toEqual({ error: '请求太大了。' })
    for (const path of ['/tasks/unknown', '/tasks/unknown/events']) {
      const response = await fetch(`${running.address}${path}`)
      expect(response.status).toBe(404)
      expect(await response.json()).toEqual({ error: '找不到这次问签。' })
    }
  })
})

test('every stick is a poem of four lines with seven characters, and any can be drawn', async () => {
  for (const { poem } of sticks) expect(poem.map((line) => line.length)).toEqual([7, 7, 7, 7])
  const running = await open()
  const drawn: unknown = await (await fetch(`${running.address}/sticks`, { method: 'POST' })).json()
  expect(sticks).toContainEqual(drawn)
})
