import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { request as httpRequest } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { fallback } from 'fieldstream'
import { gemini } from 'fieldstream/gemini'
import { ollama } from 'fieldstream/ollama'
import { type Recording, replayFetch, type ReplayRequest, simulate } from 'fieldstream/testing'
import { beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import { readEvents } from '../../examples/shared/read-events.ts'
import type { Running } from '../../examples/shared/serve.ts'
import { type Options, start } from '../../examples/voice-assistant/server.ts'
import { simulatedAnswer } from '../../examples/voice-assistant/simulated.ts'
import { until } from '../support.ts'

interface Told {
  readonly event: string
  readonly data: Readonly<Record<string, unknown>>
}

interface Logged {
  readonly event: string
  readonly facts: Readonly<Record<string, unknown>>
}

interface Started extends Running {
  readonly logged: readonly Logged[]
  readonly folder: string
}

const sky = 'Why is the sky blue?'
const egg = 'How long do I boil an egg?'
const stain = 'How do I get rid of a stain?'
const said = 'One. Two. Three. Four. Five.'

beforeEach(() => {
  vi.stubEnv('GEMINI_API_KEY', undefined)
})

function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'voice-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  return folder
}

async function run({ folder = newFolder(), ...options }: Options = {}): Promise<Started> {
  const logged: Logged[] = []
  const log: Options['log'] = (event, facts) => logged.push({ event, facts })
  const running = await start({ port: 0, folder, pace: { firstDelayMs: 0, delayMs: 0 }, log, ...options })
  onTestFinished(() => running.close())
  return { ...running, logged, folder }
}

function post({ address }: Running, text: string, user = 'anna', signal?: AbortSignal): Promise<Response> {
  const body = JSON.stringify({ user, text })
  return fetch(`${address}/assistant/stream`, { method: 'POST', body, signal: signal ?? null })
}

async function ask(running: Running, text: string, user?: string): Promise<Told[]> {
  const response = await post(running, text, user)
  expect(response.headers.get('content-type')).toBe('text/event-stream')
  return toldIn(response)
}

async function toldIn(response: Response): Promise<Told[]> {
  const told: Told[] = []
  for await (const event of readEvents(response)) told.push(event as Told)
  return told
}

const chunksOf = (events: readonly Told[]) =>
  events.filter(({ event }) => event === 'stream_chunk').map(({ data }) => data as { chunk: string; length: number })

/** What a front end shows in the end: each chunk begins at `length - chunk.length`. */
const textOf = (events: readonly Told[]): string =>
  chunksOf(events).reduce((text, { chunk, length }) => text.slice(0, length - chunk.length) + chunk, '')

const setFault = ({ address }: Running, body: object): Promise<Response> =>
  fetch(`${address}/debug/gemini`, { method: 'POST', body: JSON.stringify(body) })

/** A Gemini of its own wire, and how often it was asked. */
function scriptedGemini(answer: (request: ReplayRequest) => string | Recording) {
  const replay = replayFetch((request) => {
    const said = answer(request)
    return typeof said === 'string' ? simulate(said, { provider: 'gemini' })(request) : said
  })
  return { replay, provider: gemini({ model: 'gemini-2.5-flash', apiKey: 'none', fetch: replay }) }
}

/** The first `reads` events of an answer, and no more. */
function cut(answer: string, provider: 'gemini' | 'ollama', reads: number) {
  return (request: ReplayRequest): Recording => {
    const recording = simulate(answer, { provider })(request)
    const length = recording.reads!.slice(0, reads).reduce((sum, read) => sum + read, 0)
    return { ...recording, body: Buffer.from(recording.body).subarray(0, length).toString() }
  }
}

/** A Gemini that the first time says something and is then silent, with what it learns of who asks. */
function pausingGemini(said: string) {
  const state = { asked: 0, left: 0 }
  const fetch: typeof globalThis.fetch = async (...request) => {
    const whole = await replayFetch(simulate(said, { provider: 'gemini' }))(...request)
    if (state.asked++ > 0) return whole
    request[1]?.signal?.addEventListener('abort', () => state.left++)
    const withoutEnd = new TransformStream<Uint8Array, Uint8Array>({
      transform(bytes, controller) {
        if (new TextDecoder().decode(bytes).includes('finishReason')) return new Promise(() => undefined)
        controller.enqueue(bytes)
        return undefined
      },
    })
    return new Response(whole.body!.pipeThrough(withoutEnd), whole)
  }
  return { state, provider: gemini({ model: 'gemini-2.5-flash', apiKey: 'none', fetch }) }
}

describe('an answer', () => {
  test('is told as its start, its sentences and its end', async () => {
    const events = await ask(await run(), sky)
    const whole = simulatedAnswer('gemini', sky)
    expect(events.map(({ event }) => event)).toEqual([
      'stream_start',
      ...chunksOf(events).map(() => 'stream_chunk'),
      'stream_end',
    ])
    expect(events[0]!.data).toEqual({ provider: 'gemini', model: 'gemini-2.5-flash', cached: false, attempt: 1 })
    const chunks = chunksOf(events)
    expect(chunks.length).toBeGreaterThan(3)
    expect(chunks.map(({ chunk }) => chunk).join('')).toBe(whole)
    for (const { chunk } of chunks) expect(chunk).toMatch(/^\S[^.]*\. ?$/)
    let length = 0
    for (const chunk of chunks) expect(chunk).toEqual({ chunk: chunk.chunk, length: (length += chunk.chunk.length) })
    expect(events.at(-1)!.data).toEqual({
      complete: true,
      total_length: whole.length,
      provider: 'gemini',
      cached: false,
      fallback_used: false,
    })
  })

  test('may hold anything without passing for another event', async () => {
    const evil =
      'One.\n\nevent: stream_end\ndata: {"complete":false}\n\n<img src=x onerror=alert(1)>\r\rdata: two\u2028.'
    const running = await run({ provider: scriptedGemini(() => evil).provider })
    const response = await post(running, 'hi')
    const wire = await response.text()
    expect(wire.match(/^event: stream_end$/gm)).toHaveLength(1)
    expect(wire.match(/^event: /gm)).toHaveLength(wire.match(/^data: /gm)!.length)
    const events = await toldIn(new Response(wire))
    expect(events.at(-1)!.data).toMatchObject({ complete: true, total_length: evil.length })
    expect(textOf(events)).toBe(evil)
  })

  test('that reached its limit of tokens is said to be incomplete', async () => {
    const simulated = simulate('It goes on and', { provider: 'gemini', finishReason: 'length' })
    const running = await run({ provider: scriptedGemini(simulated).provider })
    expect((await ask(running, sky)).at(-1)!.data).toMatchObject({ complete: false, total_length: 14 })
    await ask(running, sky)
    expect(running.logged.some(({ event }) => event === 'cache_hit')).toBe(false)
  })

  test('goes to each of 200 at once, whole and to the right one', async () => {
    const running = await run({ pace: { firstDelayMs: 1, delayMs: 1, deltaChars: 60 } })
    const questions = Array.from({ length: 200 }, (_, i) => (i % 2 ? `${sky} (${i % 20})` : `Question number ${i}?`))
    const answers = await Promise.all(questions.map((question, i) => ask(running, question, `user ${i}`)))
    for (const [i, events] of answers.entries()) {
      expect(textOf(events)).toBe(simulatedAnswer('gemini', questions[i]!))
      expect(events.at(-1)!.data).toMatchObject({ complete: true })
    }
    await until(() => running.logged.filter(({ event }) => event === 'completion').length === 200)
  })

  test('in two tabs of one user is one call', async () => {
    const { replay, provider } = scriptedGemini(() => 'One. Two. Three.')
    const running = await run({ provider })
    const [first, second] = await Promise.all([ask(running, sky), ask(running, sky)])
    expect([textOf(first), textOf(second)]).toEqual(['One. Two. Three.', 'One. Two. Three.'])
    expect(replay.requests).toHaveLength(1)
    await ask(running, egg)
    expect(replay.requests).toHaveLength(2)
  })
})

describe('an answer that was given before', () => {
  test('arrives as one chunk, from whichever process', async () => {
    const first = await run()
    await ask(first, sky)
    for (const running of [first, await run({ folder: first.folder })]) {
      const events = await ask(running, ` ${sky}\n`, 'ben')
      const length = simulatedAnswer('gemini', sky).length
      expect(events).toEqual([
        { event: 'stream_start', data: { provider: 'gemini', model: 'gemini-2.5-flash', cached: true, attempt: 1 } },
        { event: 'stream_chunk', data: { chunk: simulatedAnswer('gemini', sky), length } },
        {
          event: 'stream_end',
          data: { complete: true, total_length: length, provider: 'gemini', cached: true, fallback_used: false },
        },
      ])
      expect(running.logged.map(({ event }) => event)).toContain('cache_hit')
    }
  })

  test('is not one that its user left, and the model stops at once', async () => {
    const { state, provider } = pausingGemini('One. Two. Three.')
    const running = await run({ provider })
    const controller = new AbortController()
    const response = await post(running, sky, 'anna', controller.signal)
    const events = readEvents(response)
    await events.next()
    expect((await events.next()).value).toMatchObject({ data: { chunk: 'One. ' } })
    controller.abort()
    await until(() => state.left === 1)
    expect((await ask(running, sky))[0]!.data).toMatchObject({ cached: false })
    expect(state.asked).toBe(2)
    expect(running.logged.map(({ event }) => event)).toEqual(['completion'])
  })

  test('is done without where the cache fails', async () => {
    const running = await run()
    const database = new DatabaseSync(join(running.folder, 'answers.sqlite'))
    database.exec('DROP TABLE entries')
    database.close()
    for (let i = 0; i < 2; i++) {
      const events = await ask(running, sky)
      expect(textOf(events)).toBe(simulatedAnswer('gemini', sky))
      expect(events.at(-1)!.data).toMatchObject({ complete: true, cached: false })
    }
    const failed = running.logged.filter(({ event }) => event === 'cache_failed')
    expect(failed.map(({ facts }) => facts['operation'])).toEqual(expect.arrayContaining(['get', 'set']))
  })

  test('is kept in memory where the file is none', async () => {
    const folder = newFolder()
    writeFileSync(join(folder, 'answers.sqlite'), 'This is no database. '.repeat(100))
    const running = await run({ folder })
    await ask(running, sky)
    expect((await ask(running, sky))[0]!.data).toMatchObject({ cached: true })
    expect(running.logged[0]).toMatchObject({ event: 'cache_failed', facts: { operation: 'open' } })
  })
})

describe('when Gemini fails', () => {
  test('at once, Ollama answers as if nothing had been', async () => {
    const running = await run()
    expect(await (await setFault(running, { fails: true })).json()).toEqual({ fault: 'before' })
    const events = await ask(running, sky)
    expect(events[0]!.data).toEqual({ provider: 'ollama', model: 'llama3.2', cached: false, attempt: 2 })
    expect(events.filter(({ event }) => event === 'stream_start')).toHaveLength(1)
    expect(
      chunksOf(events)
        .map(({ chunk }) => chunk)
        .join(''),
    ).toBe(simulatedAnswer('ollama', sky))
    expect(events.at(-1)!.data).toMatchObject({ complete: true, provider: 'ollama', fallback_used: true })
    expect(running.logged[0]).toMatchObject({
      event: 'fallback',
      facts: { provider: 'ollama', because: 'overloaded' },
    })
  })

  test('in the middle, what was said is replaced, and only the answer that counts is kept and measured', async () => {
    const running = await run()
    await setFault(running, { fails: true, when: 'middle' })
    const events = await ask(running, egg)
    const starts = events.filter(({ event }) => event === 'stream_start').map(({ data }) => data['provider'])
    expect(starts).toEqual(['gemini', 'ollama'])
    const broken = events.slice(
      0,
      events.findLastIndex(({ event }) => event === 'stream_start'),
    )
    expect(chunksOf(broken).length).toBeGreaterThan(0)
    expect(simulatedAnswer('gemini', egg).startsWith(textOf(broken))).toBe(true)
    const whole = simulatedAnswer('ollama', egg)
    expect(textOf(events)).toBe(whole)
    expect(events.at(-1)!.data).toMatchObject({ complete: true, total_length: whole.length, provider: 'ollama' })
    const again = await ask(running, egg)
    expect(chunksOf(again)).toEqual([{ chunk: whole, length: whole.length }])
    const metrics = await (await fetch(`${running.address}/metrics`)).text()
    expect(metrics).toContain(`llm_stream_response_length_sum{provider="ollama"} ${2 * whole.length}\n`)
  })

  test('and works again, it is asked again', async () => {
    const running = await run()
    await setFault(running, { fails: true })
    expect(await (await setFault(running, { fails: false, when: 'middle' })).json()).toEqual({ fault: 'never' })
    expect((await ask(running, sky))[0]!.data).toMatchObject({ provider: 'gemini' })
  })

  test('and Ollama too, the response says so before it begins', async () => {
    const secret = 'key sk-123 is wrong'
    const refusal = { body: JSON.stringify({ error: { code: 401, message: secret } }), status: 401 }
    const refuse = replayFetch({ ...refusal, headers: { 'content-type': 'application/json' } })
    const provider = fallback(
      gemini({ model: 'g', apiKey: 'none', fetch: refuse }),
      ollama({ model: 'o', fetch: refuse }),
    )
    const running = await run({ provider })
    const response = await post(running, sky)
    expect(response.status).toBe(503)
    expect(await response.json()).toEqual({ error: 'Sorry, I cannot think just now. Please ask again in a moment.' })
    expect(running.logged.map(({ event }) => event)).toEqual(['fallback', 'failure'])
    expect(JSON.stringify(running.logged)).not.toContain(secret)
  })

  test('and Ollama too, in the middle, that is the end: nobody is asked twice', async () => {
    const wire = { gemini: replayFetch(cut(said, 'gemini', 2)), ollama: replayFetch(cut(said, 'ollama', 2)) }
    const provider = fallback(
      gemini({ model: 'g', apiKey: 'none', fetch: wire.gemini }),
      ollama({ model: 'o', fetch: wire.ollama }),
    )
    const running = await run({ provider })
    const events = await ask(running, sky)
    expect([wire.gemini.requests.length, wire.ollama.requests.length]).toEqual([1, 1])
    const starts = events.filter(({ event }) => event === 'stream_start').map(({ data }) => data['provider'])
    expect(starts).toEqual(['gemini', 'ollama'])
    const shown = textOf(events)
    expect(shown.length).toBeGreaterThan(0)
    expect(said.startsWith(shown)).toBe(true)
    expect(events.at(-1)).toEqual({
      event: 'stream_end',
      data: {
        complete: false,
        total_length: shown.length,
        provider: 'ollama',
        cached: false,
        error: 'Sorry, I cannot think just now. Please ask again in a moment.',
      },
    })
    expect(running.logged.map(({ event }) => event)).toEqual(['fallback', 'failure'])
  })

  test('only the simulated one does so on demand', async () => {
    const running = await run({ provider: scriptedGemini(() => 'Yes.').provider })
    expect((await setFault(running, { fails: true })).status).toBe(404)
    expect(await (await fetch(`${running.address}/debug/gemini`)).json()).toEqual({ fault: null })
  })
})

describe('whoever asks too much', () => {
  test('is told so, while others and what is known go on', async () => {
    const running = await run({ limit: { requests: 2, queue: 0 } })
    await ask(running, sky)
    await ask(running, egg)
    const response = await post(running, stain)
    expect(response.status).toBe(429)
    expect(response.headers.get('retry-after')).toBe('30')
    expect(await response.json()).toEqual({
      error: 'You have asked a lot in the last minute. Give me a moment, then ask again.',
    })
    expect((await ask(running, sky))[0]!.data).toMatchObject({ cached: true })
    expect((await ask(running, stain, 'ben')).at(-1)!.data).toMatchObject({ complete: true })
  })

  test('waits for a turn, but not for long', async () => {
    const running = await run({ limit: { requests: 1, queue: 1, maxWait: 50 } })
    await ask(running, sky)
    expect((await post(running, egg)).status).toBe(429)
    expect(running.logged.at(-1)).toMatchObject({ event: 'failure', facts: { error: { code: 'timeout' } } })
  })

  test('pays once for a question, whoever is asked', async () => {
    const busy = replayFetch({ body: '{"error":{"code":503}}', status: 503 })
    const stand = replayFetch(simulate('Yes.', { provider: 'ollama' }))
    const provider = fallback(gemini({ model: 'g', apiKey: 'none', fetch: busy }), ollama({ model: 'o', fetch: stand }))
    const running = await run({ provider, limit: { requests: 1, queue: 0 } })
    expect(textOf(await ask(running, sky))).toBe('Yes.')
    expect([busy.requests.length, stand.requests.length]).toEqual([1, 1])
    expect((await post(running, egg)).status).toBe(429)
  })
})

test('a client that does not read slows the model down', async () => {
  // More than sockets hold.
  const total = 4000
  let pulls = 0
  const part = { candidates: [{ content: { parts: [{ text: `X${'x'.repeat(8189)}. ` }], role: 'model' }, index: 0 }] }
  const frame = new TextEncoder().encode(`data: ${JSON.stringify(part)}\r\n\r\n`)
  const fetch: typeof globalThis.fetch = () => {
    const body = new ReadableStream<Uint8Array>(
      { pull: (controller) => (pulls++ < total ? controller.enqueue(frame) : controller.close()) },
      { highWaterMark: 0 },
    )
    return Promise.resolve(new Response(body, { headers: { 'content-type': 'text/event-stream' } }))
  }
  const { address } = await run({ provider: gemini({ model: 'g', apiKey: 'none', fetch }) })
  const asked = httpRequest(`${address}/assistant/stream`, { method: 'POST' })
  asked.end(JSON.stringify({ user: 'anna', text: 'Tell me everything' }))
  await new Promise((resolve) => asked.once('response', resolve))
  let before = -1
  await vi.waitUntil(
    () => {
      const isStill = pulls === before
      before = pulls
      return isStill
    },
    { interval: 150, timeout: 20_000 },
  )
  asked.destroy()
  expect(pulls).toBeGreaterThan(1)
  expect(pulls).toBeLessThan(total / 2)
})

describe('the log and the metrics', () => {
  test('have a line for each event, and no word of what was said', async () => {
    const lines: string[] = []
    const spy = vi.spyOn(console, 'log').mockImplementation((line: string) => void lines.push(line))
    onTestFinished(() => spy.mockRestore())
    const running = await run({ log: undefined })
    await ask(running, sky)
    await ask(running, sky)
    await setFault(running, { fails: true })
    await ask(running, egg)
    await until(() => lines.length === 5)
    const logged = lines.map((line) => JSON.parse(line) as Record<string, unknown>)
    expect(logged.map(({ event }) => event)).toEqual([
      'completion',
      'cache_hit',
      'completion',
      'fallback',
      'completion',
    ])
    for (const { time, runId } of logged) {
      expect(new Date(time as string).getTime()).toBeGreaterThan(0)
      expect(runId).toMatch(/^[\da-f-]{36}$/)
    }
    expect(lines.join('\n')).not.toMatch(/sky|blue|egg|yolk/i)
    expect(lines.join('')).not.toContain('\n')
  })

  test('are what Prometheus reads', async () => {
    const running = await run()
    for (const question of [sky, sky, egg]) await ask(running, question)
    const response = await fetch(`${running.address}/metrics`)
    expect(response.headers.get('content-type')).toMatch(/^text\/plain; version=/)
    const lines = (await response.text()).split('\n')
    const lengths = 2 * simulatedAnswer('gemini', sky).length + simulatedAnswer('gemini', egg).length
    expect(lines).toEqual(
      expect.arrayContaining([
        'llm_stream_latency_ms_count{provider="gemini",cached="false"} 2',
        'llm_stream_latency_ms_count{provider="gemini",cached="true"} 1',
        'llm_stream_response_length_count{provider="gemini"} 3',
        `llm_stream_response_length_sum{provider="gemini"} ${lengths}`,
        'llm_stream_cache_hit 1',
      ]),
    )
  })
})

describe('a request that makes no sense', () => {
  test.each([
    ['is no JSON', '{"user":', /^The body is not JSON\.$/],
    ['is no object', '[]', /expected object/],
    ['has no user', '{"text":"hi"}', /^user: /],
    ['has no text', '{"user":"anna"}', /^text: /],
    ['has an empty text', '{"user":"anna","text":"  "}', /^text: /],
    ['has a text that is too long', JSON.stringify({ user: 'anna', text: 'x'.repeat(2001) }), /^text: /],
    ['has a user that is none', '{"user":{"$ne":1},"text":"hi"}', /^user: /],
    ['has what it should not', '{"user":"anna","text":"hi","model":"x"}', /"model"/],
  ])('because it %s, is refused with the reason', async (_, body, reason) => {
    const { address } = await run()
    const response = await fetch(`${address}/assistant/stream`, { method: 'POST', body })
    expect(response.status).toBe(400)
    expect(((await response.json()) as { error: string }).error).toMatch(reason)
  })

  test('or is too large, or asks for a fault that there is not', async () => {
    const running = await run()
    const large = { method: 'POST', body: 'x'.repeat(20_000) }
    const refused = await fetch(`${running.address}/assistant/stream`, large)
    expect(refused.status).toBe(413)
    expect(await refused.json()).toEqual({ error: 'The body has more than 16384 bytes.' })
    const response = await setFault(running, { fails: 'yes' })
    expect(response.status).toBe(400)
    expect(((await response.json()) as { error: string }).error).toMatch(/^fails: /)
  })
})
