import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { isLLMError, type LLMError, StreamingLLMClient, type StreamRequest, tool } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { type Recording, recordFetch, type ReplayOptions, replayFetch, simulate } from 'fieldstream/testing'
import { describe, expect, onTestFinished, test, vi } from 'vitest'

const url = 'https://example.com/v1/messages'

/** The reads a body arrives in, as text. */
async function readsOf(response: Response): Promise<string[]> {
  const reader = response.body!.getReader()
  const reads: string[] = []
  for (let read; !(read = await reader.read()).done;) reads.push(Buffer.from(read.value).toString('latin1'))
  return reads
}

async function sizesOf(body: string | Uint8Array | Recording, options?: ReplayOptions): Promise<number[]> {
  const reads = await readsOf(await replayFetch(body, options)(url))
  return reads.map(({ length }) => length)
}

describe('replayFetch answers as a network would', () => {
  test('text, bytes and recordings, whole', async () => {
    const text = 'data: 1\n\ndata: Gäste\n\n'
    expect(await (await replayFetch(text)(url)).text()).toBe(text)
    expect(await (await replayFetch(new TextEncoder().encode(text))(url)).text()).toBe(text)
    expect(await (await replayFetch({ body: text })(url)).text()).toBe(text)
    const bytes = Uint8Array.of(0xff, 0x00, 0xfe)
    expect(await (await replayFetch(bytes)(url)).bytes()).toEqual(bytes)
  })

  test('status and headers are the recording’s, else those of a good stream', async () => {
    const stream = await replayFetch('data: 1\n\n')(url)
    expect([stream.status, stream.headers.get('content-type')]).toEqual([200, 'text/event-stream'])
    const lines = await replayFetch('{"a":1}\n')(url)
    expect(lines.headers.get('content-type')).toBe('application/x-ndjson')
    const failed = await replayFetch({
      body: 'no',
      status: 503,
      headers: { 'Content-Type': 'text/plain', 'X-A': 'b' },
    })(url)
    expect([failed.status, failed.headers.get('content-type'), failed.headers.get('x-a')]).toEqual([
      503,
      'text/plain',
      'b',
    ])
    const empty = await replayFetch({ body: '', status: 204 })(url)
    expect([empty.status, empty.body]).toEqual([204, null])
  })

  test('by default each read is one event or line, however its lines end', async () => {
    expect(await readsOf(await replayFetch('a: 1\nb: 2\n\nc: 3\n\nrest')(url))).toEqual([
      'a: 1\nb: 2\n\n',
      'c: 3\n\n',
      'rest',
    ])
    expect(await readsOf(await replayFetch('a: 1\r\nb: 2\r\n\r\nc: 3\r\n\r\n')(url))).toEqual([
      'a: 1\r\nb: 2\r\n\r\n',
      'c: 3\r\n\r\n',
    ])
    expect(await readsOf(await replayFetch('{"a":1}\n{"b":2}\n')(url))).toEqual(['{"a":1}\n', '{"b":2}\n'])
    expect(await readsOf(await replayFetch('')(url))).toEqual([])
  })

  test('reads are as recorded, or as asked for', async () => {
    const recording = { body: 'x'.repeat(100), reads: [10, 20] }
    expect(await sizesOf(recording)).toEqual([10, 20, 70])
    expect(await sizesOf(recording, { chunks: 30 })).toEqual([30, 30, 30, 10])
    expect(await sizesOf(recording, { chunks: [1, 0, 98] })).toEqual([1, 1, 98])
    expect(await sizesOf('ä', { chunks: 1 })).toEqual([1, 1])
  })

  test('random reads are small, and the same for the same seed', async () => {
    const body = 'x'.repeat(10_000)
    const sizes = await sizesOf(body, { chunks: 'random', seed: 7 })
    expect(sizes.reduce((sum, size) => sum + size)).toBe(10_000)
    expect(Math.max(...sizes)).toBeLessThanOrEqual(64)
    expect(new Set(sizes).size).toBeGreaterThan(30)
    expect(await sizesOf(body, { chunks: 'random', seed: 7 })).toEqual(sizes)
    expect(await sizesOf(body, { chunks: 'random', seed: 8 })).not.toEqual(sizes)
  })

  test('a list answers each request with its next entry, and fails after the last', async () => {
    const fetch = replayFetch(['one', { body: 'two' }, () => 'three'])
    for (const expected of ['one', 'two', 'three']) expect(await (await fetch(url)).text()).toBe(expected)
    await expect(fetch(url)).rejects.toThrow('3 recordings and got request 4')
    const always = replayFetch('same')
    for (let i = 0; i < 3; i++) expect(await (await always(url)).text()).toBe('same')
  })

  test('requests are kept, and a function can answer by them', async () => {
    const fetch = replayFetch(({ method, body }) => `${method} ${JSON.stringify(body)}`)
    const asked = await fetch(url, { method: 'POST', body: '{"a":[1]}', headers: { 'X-Key': 'k' } })
    expect(await asked.text()).toBe('POST {"a":[1]}')
    await fetch(new Request(`${url}/2`, { method: 'PUT', body: 'no JSON' }))
    await fetch(new URL(`${url}/3`))
    expect(fetch.requests.map(({ url: asked, method, body }) => [asked, method, body])).toEqual([
      [url, 'POST', { a: [1] }],
      [`${url}/2`, 'PUT', 'no JSON'],
      [`${url}/3`, 'GET', undefined],
    ])
    expect(fetch.requests[0]!.headers.get('x-key')).toBe('k')
  })

  test('reads take the time recorded, or asked for', async () => {
    const elapsed = async (options?: ReplayOptions, delay = 40) => {
      const from = performance.now()
      await sizesOf({ body: 'abc', reads: [1, 1, 1], delays: [0, delay, 0] }, options)
      return performance.now() - from
    }
    expect(await elapsed()).toBeGreaterThan(35)
    expect(await elapsed({ delayMs: 20 })).toBeGreaterThan(50)
    expect(await elapsed({ delayMs: 0 }, 60_000)).toBeLessThan(1000)
  })

  test('an aborted signal ends it with the reason, and is let go of in the end', async () => {
    const never = replayFetch('data: 1\n\n', { delayMs: 60_000 })
    await expect(never(url, { signal: AbortSignal.abort('early') })).rejects.toBe('early')
    await expect(never(new Request(url, { signal: AbortSignal.abort('early') }))).rejects.toBe('early')

    const controller = new AbortController()
    const { signal } = controller
    const added = vi.spyOn(signal, 'addEventListener')
    const removed = vi.spyOn(signal, 'removeEventListener')
    const response = await never(url, { signal })
    setTimeout(() => controller.abort('late'), 5)
    await expect(response.text()).rejects.toBe('late')

    const calm = new AbortController()
    const addedLater = vi.spyOn(calm.signal, 'addEventListener')
    const removedLater = vi.spyOn(calm.signal, 'removeEventListener')
    await (await replayFetch('a')(url, { signal: calm.signal })).text()
    const left = await replayFetch('a')(url, { signal: calm.signal })
    await left.body!.cancel()
    expect([added.mock.calls.length, removed.mock.calls.length]).toEqual([1, 1])
    expect([addedLater.mock.calls.length, removedLater.mock.calls.length]).toEqual([2, 2])
  })
})

/** A real server on the loopback. */
async function serve(answer: (response: ServerResponse) => unknown): Promise<string> {
  const server = createServer((_, response) => void answer(response))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

describe('recordFetch keeps what replayFetch gives back', () => {
  const answer = simulate({ message: 'Gäste 🎉' }, { tool: 'ask', deltaChars: 3 })
  const { body } = answer({ url, method: 'POST', headers: new Headers(), body: { stream: true } }) as { body: string }
  const bytes = Buffer.from(body)

  /** Sends the bytes in thirds, one of which ends inside a character. */
  async function sendSlowly(response: ServerResponse): Promise<void> {
    response.writeHead(200, {
      'content-type': 'text/event-stream',
      'request-id': 'req_1',
      'set-cookie': 'secret=1',
      'anthropic-organization-id': 'secret',
    })
    const cut = bytes.indexOf('🎉') + 2
    for (const part of [bytes.subarray(0, 50), bytes.subarray(50, cut), bytes.subarray(cut)]) {
      response.write(part)
      await pause(50)
    }
    response.end()
  }

  test('the same bytes in the same reads, in the same time, and nothing about the account', async () => {
    const seen: Recording[] = []
    const fetch = recordFetch({ onRecording: (recording) => seen.push(recording) })
    const response = await fetch(await serve(sendSlowly))
    const reads = await readsOf(response)
    expect(reads.join('')).toBe(bytes.toString('latin1'))

    expect(fetch.recordings).toEqual(seen)
    const recording = JSON.parse(JSON.stringify(seen[0])) as Recording
    expect(recording.body).toBe(body)
    expect(recording.headers).toEqual({ 'content-type': 'text/event-stream', 'request-id': 'req_1' })
    expect(JSON.stringify(recording)).not.toContain('secret')
    expect(recording.delays!.reduce((sum, delay) => sum + delay)).toBeGreaterThan(25)
    expect(reads.length).toBeGreaterThan(1)
    expect(await readsOf(await replayFetch(recording, { delayMs: 0 })(url))).toEqual(reads)
  })

  test('through the SDK and the client, twice the same', async () => {
    const baseURL = await serve(sendSlowly)
    const fetch = recordFetch()
    const run = async (fetch: typeof globalThis.fetch) => {
      const client = new StreamingLLMClient({
        provider: anthropic({ model: 'model-a', apiKey: 'secret', baseURL, fetch }),
      })
      const stream = client.stream({ messages: [{ role: 'user', content: 'secret' }], fields: { message: 'message' } })
      const events = []
      for await (const event of stream) events.push(event.type === 'finish' ? { ...event, metrics: undefined } : event)
      return events
    }
    const events = await run(fetch)
    await vi.waitFor(() => expect(fetch.recordings.length).toBe(1))
    expect(events.at(-2)).toMatchObject({ type: 'tool-call', input: { message: 'Gäste 🎉' } })
    expect(await run(replayFetch(fetch.recordings[0]!))).toEqual(events)
    expect(JSON.stringify(fetch.recordings)).not.toContain('secret')
  })

  test('errors, empty answers, bytes that are no text, and what broke or was left', async () => {
    const kinds: ((response: ServerResponse) => unknown)[] = [
      (response) => response.writeHead(429, { 'retry-after': '7', 'content-type': 'application/json' }).end('{}'),
      (response) => response.writeHead(204).end(),
      (response) => response.writeHead(200).end(Buffer.of(0xff, 0xfe)),
      (response) => response.writeHead(200).write('left', () => setTimeout(() => response.destroy(), 20)),
    ]
    const fetch = recordFetch()
    for (const kind of kinds) await (await fetch(await serve(kind))).text().catch(() => undefined)
    const { body: endless } = await fetch(await serve((response) => response.writeHead(200).write('endless')))
    const reader = endless!.getReader()
    await reader.read()
    await reader.cancel()

    expect(fetch.recordings).toMatchObject([
      { status: 429, headers: { 'retry-after': '7', 'content-type': 'application/json' }, body: '{}' },
      { status: 204, body: '' },
      { status: 200, body: Uint8Array.of(0xff, 0xfe) },
      { status: 200, body: 'left' },
      { status: 200, body: 'endless' },
    ])
    const replayed = await replayFetch(fetch.recordings[1]!)(url)
    expect(replayed.status).toBe(204)
    expect(await (await replayFetch(fetch.recordings[2]!)(url)).bytes()).toEqual(Uint8Array.of(0xff, 0xfe))
  })

  test('the fetch it is given is the one that asks', async () => {
    const inner = replayFetch('data: 1\n\n')
    const fetch = recordFetch({ fetch: inner })
    expect(await (await fetch(url, { method: 'POST', body: '{}' })).text()).toBe('data: 1\n\n')
    expect(inner.requests[0]!.method).toBe('POST')
    expect(fetch.recordings[0]!.body).toBe('data: 1\n\n')
  })
})

describe('simulate writes as the service does', () => {
  const ask = tool({ name: 'ask', input: { properties: { message: { type: 'string' } } } })
  const search = tool({ name: 'search', input: {} })

  async function run(source: ReturnType<typeof simulate>, request: Partial<StreamRequest> = {}) {
    const provider = anthropic({ model: 'model-a', fetch: replayFetch(source) })
    const stream = new StreamingLLMClient({ provider }).stream({
      messages: [{ role: 'user', content: 'Hello' }],
      fields: { message: 'message' },
      ...request,
    })
    const deltas: string[] = []
    stream.on('text-delta', ({ delta }) => deltas.push(delta))
    stream.on('field-delta', ({ delta }) => deltas.push(delta))
    const settled = await stream.final().then(
      (response) => ({ response, error: undefined }),
      (error: unknown) => ({ response: undefined, error: error as LLMError }),
    )
    return { ...settled, deltas }
  }

  test('a string is text', async () => {
    const { response, deltas } = await run(simulate('Good morning!', { deltaChars: 5, inputTokens: 12 }))
    expect(deltas).toEqual(['Good ', 'morni', 'ng!'])
    expect(response).toMatchObject({
      text: 'Good morning!',
      finishReason: 'stop',
      toolCalls: [],
      model: 'model-a',
      requestId: 'req_simulated',
      usage: { inputTokens: 12, outputTokens: 4 },
    })
  })

  test('an object is the arguments of the tool that is named, forced, or the only one', async () => {
    const payload = { message: 'Wie viele?', count: 3 }
    const calls = [{ toolName: 'ask', input: payload }]
    expect((await run(simulate(payload, { tool: 'ask' }))).response!.toolCalls).toMatchObject(calls)
    expect((await run(simulate(payload, { tool: ask }))).response!.toolCalls).toMatchObject(calls)
    expect((await run(simulate(payload), { tools: [ask] })).response!.toolCalls).toMatchObject(calls)
    const forced = await run(simulate(payload), { tools: [search, ask], toolChoice: ask })
    expect(forced.response!.toolCalls).toMatchObject(calls)
    expect(forced.response!.finishReason).toBe('tool-calls')
    expect(forced.deltas.join('')).toBe('Wie viele?')
  })

  test('a payload that could be for several tools is refused with what to do', async () => {
    const { error } = await run(simulate({ message: 'Hello' }), { tools: [ask, search] })
    expect(error).toMatchObject({ name: 'UsageError', code: 'invalid_argument' })
    expect(error!.message).toContain("pass `tool`, or force one with the request's `toolChoice`")
    expect(() => simulate('Hello', { deltaChars: 0 })).toThrow('`deltaChars`')
    expect(() => simulate('Hello', { deltaChars: 1.5 })).toThrow('`deltaChars`')
  })

  test('a call in the text is asked for by name, since the request does not show its tools', async () => {
    const request = { tools: [ask], toolChoice: ask, toolInput: 'xml' } as const
    const { error } = await run(simulate({ message: 'Hello' }), request)
    expect(error).toMatchObject({ name: 'UsageError', code: 'invalid_argument' })
    expect(error!.message).toContain("since the request offers none: pass `tool`, and `toolInput: 'xml'`")
    expect(error!.message).not.toContain('toolChoice')
    const { response } = await run(simulate({ message: 'Hello' }, { toolInput: 'xml', tool: ask }), request)
    expect(response!.toolCalls).toMatchObject([{ toolName: 'ask', input: { message: 'Hello' } }])
  })

  test('a list is several calls, after the text', async () => {
    const source = simulate(
      [
        { tool: 'ask', input: { message: 'One?' } },
        { tool: 'search', input: {} },
        { tool: 'ask', input: '{"message":"Two?"}' },
      ],
      { text: 'Let me see.', deltaChars: 100 },
    )
    const { response, deltas } = await run(source)
    expect(response!.text).toBe('Let me see.')
    expect(response!.toolCalls.map(({ toolName, input }) => [toolName, input])).toEqual([
      ['ask', { message: 'One?' }],
      ['search', {}],
      ['ask', { message: 'Two?' }],
    ])
    expect(new Set(response!.toolCalls.map(({ toolCallId }) => toolCallId)).size).toBe(3)
    expect(deltas).toEqual(['Let me see.', 'One?', 'Two?'])
  })

  test('arguments as text are sent as they stand, be they wrong', async () => {
    const { error, deltas } = await run(simulate('{"message":"Hello", oops', { tool: 'ask' }))
    expect(error).toMatchObject({ name: 'OutputError', code: 'invalid_json', toolName: 'ask' })
    expect(deltas.join('')).toBe('Hello')
    expect((await run(simulate('{"message":"Hel', { tool: 'ask' }))).error!.code).toBe('invalid_json')
    expect((await run(simulate('[1]', { tool: 'ask' }))).error!.code).toBe('schema_mismatch')
    expect((await run(simulate('', { tool: 'ask' }))).response!.toolCalls).toMatchObject([{ input: {} }])
  })

  test('thinking comes first, signed', async () => {
    const { response } = await run(simulate('Yes.', { reasoning: 'Let me think.' }))
    expect(response).toMatchObject({ reasoning: 'Let me think.', text: 'Yes.' })
    expect(response!.messages[0]!.content).toEqual([
      {
        type: 'reasoning',
        text: 'Let me think.',
        metadata: { anthropic: { signature: expect.stringMatching(/./) as string } },
      },
      { type: 'text', text: 'Yes.' },
    ])
  })

  test('an answer can end in every way', async () => {
    expect((await run(simulate('Yes', { finishReason: 'length' }))).response!.finishReason).toBe('length')
    expect((await run(simulate('Yes', { finishReason: 'pause' }))).response!.finishReason).toBe('pause')
    expect((await run(simulate({}, { tool: 'ask', finishReason: 'length' }))).error!.code).toBe('output_truncated')
    const refused = await run(simulate('I can', { finishReason: 'refusal', reasoning: 'Hm.' }))
    expect(refused.error).toMatchObject({ name: 'OutputError', code: 'refused' })
    expect(isLLMError(refused.error) && refused.error.partial).toMatchObject({ text: 'I can', reasoning: 'Hm.' })
  })

  test('one character at a time, and never half of one', async () => {
    const message = 'Gäste: 👨‍👩‍👧 飲茶 "quoted" \\ \n\u0000'
    const characters = Array.from(message)
    expect((await run(simulate(message, { deltaChars: 1 }))).deltas).toEqual(characters)
    const { deltas, response } = await run(simulate({ message }, { tool: 'ask', deltaChars: 1 }))
    expect(deltas).toEqual(characters)
    expect(response?.toolCalls).toMatchObject([{ input: { message } }])
    for (const deltaChars of [2, 3, 7, 1000]) {
      const { deltas } = await run(simulate(message, { deltaChars }))
      expect(deltas.join('')).toBe(message)
      expect(deltas.every((delta) => delta.isWellFormed())).toBe(true)
    }
  })

  test('it takes the time it is told to', async () => {
    const from = performance.now()
    const { response } = await run(simulate('abcd', { deltaChars: 1, delayMs: 10, firstDelayMs: 30 }))
    expect(performance.now() - from).toBeGreaterThan(60)
    expect(response!.metrics.timeToFirstEventMs).toBeGreaterThan(25)
    expect(response!.metrics.durationMs).toBeGreaterThan(60)
  })
})
