import { existsSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  cache,
  fallback,
  type LLMError,
  retry,
  StreamingLLMClient,
  type StreamRequest,
  timeout,
  tool,
  xmlTools,
} from 'fieldstream'
import { describe, expect, onTestFinished, test } from 'vitest'
import { SectionWords } from '../examples/writing/accumulator.ts'
import { type DeskAnswer, type DeskService, startDesk } from '../examples/writing/desk-service.ts'
import { shopFields } from '../examples/writing/extractor.ts'
import { maskAddresses, observe, type Observation } from '../examples/writing/middleware.ts'
import { desk, type Frame, toEvents } from '../examples/writing/provider.ts'
import { sqliteStore } from '../examples/writing/store.ts'
import {
  call,
  collect,
  finish,
  pieces,
  rejectionOf,
  scriptedProvider,
  start,
  streamOf,
  text,
  thrownBy,
  turn,
  until,
} from './support.ts'

const messages = [{ role: 'user', content: 'Hello' }] as const

describe('the middleware of the page', () => {
  test('masks addresses wherever they stand, and leaves the rest as it is', async () => {
    const provider = scriptedProvider([[start, text('Hi'), finish('stop')]])
    const bytes = new Uint8Array([64, 65])
    const given = {
      system: 'You are anna.b+c@shop.example.',
      messages: [
        {
          role: 'user',
          content: [
            { type: 'text', text: 'Ask b@x.org, not @home' },
            { type: 'image', data: bytes, mediaType: 'image/png' },
          ],
        },
        {
          role: 'assistant',
          content: [{ type: 'tool-call', toolCallId: '1', toolName: 'mail', input: { to: ['c@x.org'] } }],
        },
        { role: 'tool', content: [{ type: 'tool-result', toolCallId: '1', output: { sent: null, by: 'c@x.org' } }] },
      ],
    } as const
    await streamOf(provider, given, { middleware: [maskAddresses] }).final()
    expect(provider.requests[0]).toMatchObject({
      system: 'You are [address].',
      messages: [
        { role: 'user', content: [{ text: 'Ask [address], not @home' }, { data: bytes }] },
        { role: 'assistant', content: [{ input: { to: ['[address]'] } }] },
        { role: 'tool', content: [{ output: { sent: null, by: '[address]' } }] },
      ],
    })
    expect(given.system).toContain('anna')
  })

  test('is as quick with a long text as its length', () => {
    const timeOf = (length: number): number => {
      const request = { messages: [{ role: 'user', content: 'a'.repeat(length) }] } as const
      const from = performance.now()
      void maskAddresses(() => ({ [Symbol.asyncIterator]: () => [][Symbol.iterator]() as never }))(request, {} as never)
      return performance.now() - from
    }
    timeOf(10_000)
    // Were it quadratic, the longer one would take a hundred times as long.
    expect(timeOf(100_000)).toBeLessThan(40 * Math.max(timeOf(10_000), 1))
  })

  test.each<[string, Observation['outcome'], (observed: Observation[]) => Promise<unknown>]>([
    [
      'complete',
      'complete',
      (seen) =>
        streamOf(
          [[start], [text('Hi')], [finish('stop')]],
          {},
          { middleware: [observe((one) => void seen.push(one))] },
        ).final(),
    ],
    [
      'cut',
      'failed',
      (seen) =>
        rejectionOf(
          streamOf([[start], [text('Hi')]], {}, { middleware: [observe((one) => void seen.push(one))] }).final(),
        ),
    ],
    [
      'left',
      'left',
      async (seen) => {
        for await (const event of streamOf(
          [[start], [text('Hi')], [finish('stop')]],
          {},
          { middleware: [observe((one) => void seen.push(one))] },
        ))
          if (event.type === 'text-delta') break
      },
    ],
    [
      'aborted while it waits',
      'left',
      async (seen) => {
        const endless = scriptedProvider(async function* () {
          yield [start]
          await new Promise(() => undefined)
        })
        const stream = streamOf(endless, {}, { middleware: [observe((one) => void seen.push(one))] })
        stream.on('start', () => setImmediate(() => stream.abort()))
        await rejectionOf(stream.final())
      },
    ],
  ])('observes once an answer that is %s', async (_, outcome, run) => {
    const seen: Observation[] = []
    await run(seen)
    await turn()
    expect(seen).toEqual([{ attempt: 1, firstEvent: expect.any(Number) as number, outcome }])
  })
})

describe('the provider of the page, over HTTP', () => {
  const order = tool({
    name: 'order',
    input: { type: 'object', properties: { product: { type: 'string' }, pieces: { type: 'number' } } },
  })
  const request = { messages, tools: [order], toolChoice: order, fields: { product: 'product' } } as const
  const frames: Frame[] = [
    { kind: 'begin', id: 'answer-1', model: 'house-2' },
    { kind: 'text', text: 'Well …' },
    { kind: 'call', id: 'call-1', tool: 'order' },
    { kind: 'arguments', id: 'call-1', json: '{"product":"chips 🎉' },
    { kind: 'arguments', id: 'call-1', json: '","pieces":4}' },
    { kind: 'called', id: 'call-1' },
    { kind: 'end', why: 'calls', tokens: { in: 40, out: 12 } },
  ]

  async function deskOf(...answers: DeskAnswer[]): Promise<{ service: DeskService; client: StreamingLLMClient }> {
    const service = await startDesk(answers)
    onTestFinished(() => service.close())
    return { service, client: new StreamingLLMClient({ provider: desk({ model: 'house-2', baseURL: service.url }) }) }
  }
  const errorOf = async (...answers: DeskAnswer[]): Promise<LLMError> =>
    (await rejectionOf((await deskOf(...answers)).client.stream(request).final())) as LLMError

  test('streams, and answers in one piece, with the same result', async () => {
    const { service, client } = await deskOf({ frames }, { frames })
    const stream = client.stream(request)
    const deltas: string[] = []
    stream.on('field-delta', ({ delta }) => deltas.push(delta))
    const streamed = await stream.final()
    const whole = await client.generate(request)
    expect(deltas.join('')).toBe('chips 🎉')
    const result = {
      text: 'Well …',
      toolCalls: [{ toolCallId: 'call-1', toolName: 'order', input: { product: 'chips 🎉', pieces: 4 } }],
      finishReason: 'tool-calls',
      usage: { inputTokens: 40, outputTokens: 12, totalTokens: 52 },
      provider: 'desk',
      model: 'house-2',
      responseId: 'answer-1',
    }
    expect(streamed).toMatchObject(result)
    expect(whole).toMatchObject(result)
    expect(service.requests).toMatchObject([
      { model: 'house-2', stream: true, must_call: 'order', messages: [{ role: 'user', text: 'Hello' }] },
      { stream: false, tools: [{ name: 'order', parameters: order.inputSchema }] },
    ])
  })

  test.each(frames.map((_, length) => length))('cut after %i events, it never looks whole', async (length) => {
    for (const then of ['end', 'reset'] as const) {
      const error = await errorOf({ frames: frames.slice(0, length), then })
      expect(error).toMatchObject({ code: 'stream_truncated', retryable: true, provider: 'desk', reason: then })
      expect(error.partial?.text).toBe(length > 1 ? 'Well …' : '')
    }
    const { client } = await deskOf({ frames: frames.slice(0, length) })
    expect(await rejectionOf(client.generate(request))).toMatchObject({ code: 'stream_truncated', reason: 'end' })
  })

  test.each<[number, string, boolean]>([
    [400, 'bad_request', false],
    [401, 'authentication', false],
    [418, 'http_error', false],
    [429, 'rate_limited', true],
    [500, 'server_error', true],
    [503, 'overloaded', true],
  ])('says what a status of %i means', async (status, code, retryable) => {
    const error = await errorOf({ status, frames: [], headers: { 'retry-after': '7' } })
    expect(error).toMatchObject({ name: 'HttpError', status, code, retryable, retryAfterMs: 7000, phase: 'connect' })
  })

  test('retry() and fallback() take it from there', async () => {
    const { service, client } = await deskOf({ status: 503, frames: [] }, { frames })
    const provider = desk({ model: 'house-2', baseURL: service.url })
    const again = new StreamingLLMClient({ provider, middleware: [retry({ baseDelay: 0 })] })
    expect((await again.stream(request).final()).metrics.attempts).toBe(2)
    await service.close()
    expect(await rejectionOf(client.stream(request).final())).toMatchObject({ code: 'connection', retryable: true })
    const other = scriptedProvider([[start, ...call('1', '{}', 'order'), finish()]])
    const either = new StreamingLLMClient({ provider: fallback(provider, other) })
    expect((await either.stream(request).final()).metrics.fallbackUsed).toBe(true)
  })

  test('a fault within the answer, and what is no JSON, are typed and quote nothing', async () => {
    const fault: Frame = { kind: 'fault', code: 'gpu_lost', temporary: true }
    expect(await errorOf({ frames: [...frames.slice(0, 2), fault] })).toMatchObject({
      code: 'provider_error',
      providerCode: 'gpu_lost',
      retryable: true,
    })
    const { client } = await deskOf({ frames: [{ kind: 'text', toJSON: () => undefined } as never] })
    const error = (await rejectionOf(client.stream(request).final())) as LLMError
    expect(error).toMatchObject({ code: 'stream_protocol' })
    expect(error.cause).toBeUndefined()
  })

  test('closes its connection when it is left, and when the caller aborts', async () => {
    const silent = { frames: frames.slice(0, 4), then: 'silence' } as const
    const { service, client } = await deskOf(silent, silent)
    for await (const event of client.stream(request)) if (event.type === 'field-delta') break
    await until(() => service.open === 0)
    expect(service.open).toBe(0)
    const stream = client.stream(request)
    // When it waits for what never comes.
    stream.on('field-delta', () => void setTimeout(() => stream.abort(), 50))
    expect(await rejectionOf(stream.final())).toMatchObject({ code: 'aborted' })
    await until(() => service.open === 0)
    expect(service.open).toBe(0)
  })

  test.each([
    ['silence', 'idle'],
    ['signs of life', 'progress'],
  ] as const)('after %s it is the limit `%s` that runs out', async (then, phase) => {
    const { service } = await deskOf({ frames: frames.slice(0, 4), then })
    const provider = desk({ model: 'house-2', baseURL: service.url })
    const client = new StreamingLLMClient({ provider, middleware: [timeout({ idle: 300, progress: 900 })] })
    expect(await rejectionOf(client.stream(request).final())).toMatchObject({ code: 'timeout', phase })
  })

  test.each<[string, Partial<StreamRequest>]>([
    ['output', { output: { type: 'object', properties: {} } }],
    ['reasoning', { reasoning: { effort: 'low' } }],
    ['stop', { stop: ['.'] }],
    ['topP', { topP: 0.5 }],
    ['raw', { raw: true }],
    ['toolInput', { tools: [order], toolChoice: order, toolInput: 'json' }],
    ['a picture', { messages: [{ role: 'user', content: [{ type: 'image', url: 'https://x.example/1.png' }] }] }],
  ])('refuses before anything is sent what it cannot do: %s', async (_, options) => {
    const { service, client } = await deskOf()
    expect(await rejectionOf(client.stream({ messages, ...options }).final())).toMatchObject({ code: 'unsupported' })
    expect(service.requests).toEqual([])
  })

  test('is a provider like others: tools can be called through its text', async () => {
    const tags = '<tool_call>{"name":"order","arguments":{"product":"chips","pieces":1}}</tool_call>'
    const answer: Frame[] = [
      frames[0]!,
      ...pieces(tags, 5).map((part): Frame => ({ kind: 'text', text: part })),
      { kind: 'end', why: 'done', tokens: { in: 1, out: 1 } },
    ]
    const { service } = await deskOf({ frames: answer })
    const provider = xmlTools(desk({ model: 'house-2', baseURL: service.url }))
    const { toolCalls } = await new StreamingLLMClient({ provider }).stream(request).final()
    expect(toolCalls[0].input).toEqual({ product: 'chips', pieces: 1 })
  })

  test('takes what it does not know for nothing', () => {
    expect(toEvents({ kind: 'weather' } as never)).toEqual([])
  })
})

test('the extractors of the page are for the tool they name', async () => {
  const script = [
    [start, ...call('1', '{"title":"a"}', 'answer_customer'), ...call('2', '{"title":"b"}', 'other'), finish()],
  ]
  const events = await collect(streamOf(script, { fields: shopFields }))
  expect(events.flatMap((event) => (event.type === 'field-end' ? [[event.field, event.value]] : []))).toEqual([
    ['headline', 'a'],
  ])
})

describe('the accumulator of the page', () => {
  const report = '# One\nTwo words\nand more\n## Two\n\n### Three\nlast'
  const found = [
    ['One', 4],
    ['Two', 0],
    ['Three', 1],
  ]

  test('counts the same however the text is cut', async () => {
    for (let size = 1; size <= report.length; size++) {
      const script = [[start, ...pieces(report, size).map(text), finish('stop')]]
      const stream = streamOf(script, { fields: { section: '{heading}' } }, { accumulator: () => new SectionWords() })
      const sections = (await collect(stream)).flatMap((event) =>
        event.type === 'field-end' ? [[event.path, event.value]] : [],
      )
      expect(sections).toEqual(found)
    }
  })

  test('hears of a section as soon as the next begins', async () => {
    const script = [[start, text('# A\nx\n# B\n')], [text('y')], [finish('stop')]]
    const types = (await collect(streamOf(script, {}, { accumulator: () => new SectionWords() }))).map(
      ({ type }) => type,
    )
    expect(types).toEqual(['start', 'text-delta', 'field-end', 'text-delta', 'field-end', 'finish'])
  })
})

describe('the store of the page', () => {
  function storeIn(name: string, options?: { most: number }) {
    const file = join(tmpdir(), `fieldstream-${process.pid}-${name}.sqlite`)
    const store = sqliteStore(file, options)
    onTestFinished(() => {
      if (thrownBy(() => store.close()) === undefined) expect(existsSync(file)).toBe(true)
      for (const ending of ['', '-wal', '-shm']) rmSync(file + ending, { force: true })
    })
    return { file, store }
  }

  test('keeps what it is given until its time is over, also for another process', () => {
    const { file, store } = storeIn('ttl')
    store.set('a', 'A', 60_000)
    store.set('b', 'B')
    store.set('c', 'C', -1)
    store.set('a', 'A2', 60_000)
    const other = sqliteStore(file)
    expect(['a', 'b', 'c', 'd'].map((key) => other.get(key))).toEqual(['A2', 'B', undefined, undefined])
    other.close()
  })

  test('forgets the oldest of too many', () => {
    const { store } = storeIn('most', { most: 2 })
    for (const key of ['a', 'b', 'a', 'c']) store.set(key, key)
    expect(['a', 'b', 'c'].map((key) => store.get(key))).toEqual(['a', undefined, 'c'])
  })

  test('costs no answer when it fails', async () => {
    const { file, store } = storeIn('broken')
    store.close()
    writeFileSync(file, 'no database')
    const failed: string[] = []
    const client = new StreamingLLMClient({
      provider: scriptedProvider([[start, text('Hi'), finish('stop')]]),
      middleware: [cache({ store, onError: (_, operation) => void failed.push(operation) })],
    })
    expect((await client.stream({ messages }).final()).text).toBe('Hi')
    await until(() => failed.length === 2)
    expect(failed).toEqual(['get', 'set'])
  })
})
