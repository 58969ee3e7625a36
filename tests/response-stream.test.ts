import { getEventListeners } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import {
  AbortedError,
  ConsumerError,
  isLLMError,
  LimitError,
  type LLMError,
  type Middleware,
  OutputError,
  type ResponseEvent,
  type StreamEvent,
  StreamingLLMClient,
  StreamError,
  tool,
  ToolError,
  UsageError,
} from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { replayFetch, simulate, type ReplayOptions, type ReplaySource } from 'fieldstream/testing'
import fc from 'fast-check'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { z } from 'zod'
import {
  call,
  collect,
  collectUntilError,
  finish,
  input,
  inputEnd,
  inputStart,
  pieces,
  reasoning,
  rejectionOf,
  scriptedProvider,
  start,
  streamOf,
  text,
  thrownBy,
  turn,
} from './support.ts'

const unhandled: unknown[] = []
const onUnhandled = (error: unknown): void => void unhandled.push(error)

beforeAll(() => void process.on('unhandledRejection', onUnhandled))
afterAll(() => void process.off('unhandledRejection', onUnhandled))
afterEach(async () => {
  await turn()
  expect(unhandled.splice(0), 'nothing is rejected behind the back of the test').toEqual([])
})

const messages = [{ role: 'user', content: 'Hello' }] as const

/** Takes any object. */
const answer = tool({ name: 'answer', description: 'Answers' })

function clientOf(source: ReplaySource | readonly ReplaySource[], options?: ReplayOptions): StreamingLLMClient {
  return new StreamingLLMClient({
    provider: anthropic({ model: 'claude-sonnet-4-5', fetch: replayFetch(source, options) }),
  })
}

type Of<Type extends ResponseEvent['type']> = Extract<ResponseEvent, { readonly type: Type }>

function ofType<Type extends ResponseEvent['type']>(events: readonly ResponseEvent[], type: Type): Of<Type>[] {
  return events.filter((event) => event.type === type) as Of<Type>[]
}

function joined(events: readonly ResponseEvent[], type: 'text-delta' | 'reasoning-delta' | 'tool-input-delta'): string {
  return ofType(events, type)
    .map(({ delta }) => delta)
    .join('')
}

/** The text of each field, by path. */
function fieldTexts(events: readonly ResponseEvent[]): Record<string, string> {
  const texts: Record<string, string> = {}
  for (const { path, delta } of ofType(events, 'field-delta')) texts[path] = (texts[path] ?? '') + delta
  return texts
}

function expectGrowingNumbers(events: readonly ResponseEvent[]): void {
  for (let i = 1; i < events.length; i++) expect(events[i]!.seq).toBeGreaterThan(events[i - 1]!.seq)
}

describe('what a field delivers', () => {
  const fields = {
    question: 'ask_slots[*].message',
    option: 'ask_slots[*].options[{option}]',
    simple: 'simple_response.message',
    part: 'summary_part_{part}',
    first_id: 'product_ids[0]',
    ids: 'product_ids',
    card: { path: 'cards[*]', deliver: 'complete' },
    title: { path: 'cards[*].title', deliver: 'complete' },
    score: 'score',
  } as const

  const anyText = fc.oneof(fc.string({ unit: 'binary', maxLength: 40 }), fc.string({ unit: 'grapheme', maxLength: 40 }))
  const payloads = fc.record(
    {
      reasoning: anyText,
      ask_slots: fc.array(fc.record({ message: anyText, options: fc.array(anyText, { maxLength: 3 }) }), {
        maxLength: 3,
      }),
      simple_response: fc.record({ message: anyText }),
      summary_part_1: anyText,
      summary_part_2: anyText,
      product_ids: fc.array(anyText, { maxLength: 3 }),
      cards: fc.array(fc.record({ title: anyText, price: fc.double({ noDefaultInfinity: true, noNaN: true }) }), {
        maxLength: 2,
      }),
      score: fc.oneof(fc.double({ noDefaultInfinity: true, noNaN: true }), fc.boolean(), fc.constant(null)),
    },
    { requiredKeys: ['reasoning'] },
  )
  type Payload = typeof payloads extends fc.Arbitrary<infer P> ? P : never

  interface Expected {
    readonly field: string
    readonly path: string
    readonly params: Record<string, string>
    readonly value: unknown
    readonly streams: boolean
  }

  /** What the fields of a payload are, worked out by hand. */
  function* expectedOf(payload: Payload): Generator<Expected> {
    const of = (field: string, path: string, value: unknown, params = {}): Expected => ({
      field,
      path,
      params,
      value,
      streams: typeof value === 'string' && field !== 'title',
    })
    for (const [i, { message, options }] of (payload.ask_slots ?? []).entries()) {
      yield of('question', `ask_slots[${i}].message`, message)
      for (const [o, option] of options.entries())
        yield of('option', `ask_slots[${i}].options[${o}]`, option, { option: String(o) })
    }
    if (payload.simple_response) yield of('simple', 'simple_response.message', payload.simple_response.message)
    for (const part of ['1', '2'] as const) {
      const value = payload[`summary_part_${part}`]
      if (value !== undefined) yield of('part', `summary_part_${part}`, value, { part })
    }
    if (payload.product_ids?.[0] !== undefined) yield of('first_id', 'product_ids[0]', payload.product_ids[0])
    if (payload.product_ids) yield of('ids', 'product_ids', payload.product_ids)
    for (const [i, card] of (payload.cards ?? []).entries()) {
      yield of('card', `cards[${i}]`, card)
      yield of('title', `cards[${i}].title`, card.title)
    }
    if (payload.score !== undefined) yield of('score', 'score', payload.score)
  }

  /** JSON, with what JavaScript would leave as it is escaped too. */
  const escaped = (json: string): string =>
    json.replace(/[^\0-~]/g, (half) => `\\u${half.charCodeAt(0).toString(16).padStart(4, '0')}`)

  test('is exact, however the answer is written and cut', async () => {
    await fc.assert(
      fc.asyncProperty(
        payloads,
        fc.record({ escapes: fc.boolean(), indent: fc.constantFrom(undefined, 2) }),
        fc.integer({ min: 1, max: 24 }),
        fc.oneof(fc.constantFrom(undefined, 1, 'random' as const), fc.integer({ min: 2, max: 400 })),
        fc.integer(),
        async (drawn, { escapes, indent }, deltaChars, chunks, seed) => {
          const json = JSON.stringify(drawn, null, indent)
          const payload = JSON.parse(json) as Payload
          const source = simulate(escapes ? escaped(json) : json, { tool: 'answer', deltaChars })
          const stream = clientOf(source, { chunks, seed }).stream({ messages, tools: [answer], fields })
          const events: ResponseEvent[] = await collect(stream)

          const deltas = ofType(events, 'field-delta')
          const ends = ofType(events, 'field-end')
          const expected = [...expectedOf(payload)]
          const named = ({ field, path }: { field: string; path: string }): string => `${field} at ${path}`
          expect(ends.map(named).sort()).toEqual(expected.map(named).sort())
          for (const { field, path, params, value, streams } of expected) {
            const end = ends.find((event) => event.field === field && event.path === path)!
            expect(end).toMatchObject({ params, value, valid: undefined, toolName: 'answer' })
            const own = deltas.filter((event) => event.field === field && event.path === path)
            if (!streams) expect(own).toEqual([])
            else expect(own.map(({ delta }) => delta).join('')).toBe(value)
            let length = 0
            for (const event of own) {
              expect(event.delta).not.toBe('')
              expect(event.delta.isWellFormed()).toBe(true)
              expect(event.length).toBe((length += event.delta.length))
              expect(event.params).toEqual(params)
              expect(event.seq).toBeLessThan(end.seq)
            }
          }

          expectGrowingNumbers(events)
          expect(joined(events, 'tool-input-delta')).toBe(escapes ? escaped(json) : json)
          expect(events.slice(-2).map(({ type }) => type)).toEqual(['tool-call', 'finish'])
          expect(ofType(events, 'tool-call')).toHaveLength(1)
          expect(ofType(events, 'tool-call')[0]!.input).toStrictEqual(payload)
          const response = await stream.final()
          expect(response.toolCalls[0]!.input).toStrictEqual(payload)
        },
      ),
      { numRuns: 120 },
    )
  })

  test('comes from each of several calls, and all calls come after the last field', async () => {
    const other = tool({ name: 'other' })
    const calls = [
      { tool: 'answer', input: { score: 1 } },
      { tool: 'other', input: { score: 'two' } },
      { tool: 'answer', input: { score: 'three' } },
    ]
    const events: ResponseEvent[] = await collect(
      clientOf(simulate(calls, { text: 'Let me see.', deltaChars: 2 })).stream({
        messages,
        tools: [answer, other],
        fields: { score: 'score', otherScore: { path: 'score', tool: 'other' } },
      }),
    )
    expect(ofType(events, 'field-end').map(({ field, toolName, value }) => [field, toolName, value])).toEqual([
      ['score', 'answer', 1],
      ['score', 'other', 'two'],
      ['otherScore', 'other', 'two'],
      ['score', 'answer', 'three'],
    ])
    expect(events.slice(-4).map(({ type }) => type)).toEqual(['tool-call', 'tool-call', 'tool-call', 'finish'])
    expect(ofType(events, 'tool-call').map(({ toolName, input }) => ({ tool: toolName, input }))).toEqual(calls)
    expect(joined(events, 'text-delta')).toBe('Let me see.')
  })

  test('is changed by `map`, and comes only when it closes', async () => {
    const events: ResponseEvent[] = await collect(
      clientOf(simulate({ title: 'chips', more: 1 })).stream({
        messages,
        tools: [answer],
        fields: { title: { path: 'title', map: (value) => String(value).toUpperCase() } },
      }),
    )
    expect(ofType(events, 'field-delta')).toEqual([])
    expect(ofType(events, 'field-end').map(({ value }) => value)).toEqual(['CHIPS'])
    expect(ofType(events, 'tool-call')[0]!.input).toEqual({ title: 'chips', more: 1 })
  })
})

/** A whole answer, one event to a read. */
const reads = (...events: readonly StreamEvent[]): StreamEvent[][] => events.map((event) => [event])

describe('a run', () => {
  const hello = reads(start, text('Hel'), text('lo'), finish('stop'))

  test('sends nothing before its stream is used', async () => {
    const provider = scriptedProvider(hello)
    const stream = streamOf(provider)
    const loop = stream[Symbol.asyncIterator]()
    expect(stream.snapshot()).toEqual({ text: '', reasoning: '', toolCalls: [], messages: [] })
    await turn()
    expect(provider.requests).toHaveLength(0)
    await loop.next()
    expect(provider.requests).toHaveLength(1)
  })

  test('is read by a plain loop alone at the pace of the loop', async () => {
    const provider = scriptedProvider(hello)
    let seen = 0
    for await (const event of streamOf(provider)) {
      seen++
      if (event.type === 'finish') break
      // The body is busy; nobody reads ahead of it.
      await turn()
      expect(provider.pulls).toBe(seen)
    }
    expect(seen).toBe(4)
  })

  test('hands out all events of one read before it reads again', async () => {
    const provider = scriptedProvider([[start, text('a'), text('b')], [text('c')], [finish('stop')]])
    const pulls: [string, number][] = []
    for await (const event of streamOf(provider)) if (event.type !== 'finish') pulls.push([event.type, provider.pulls])
    expect(pulls).toEqual([
      ['start', 1],
      ['text-delta', 1],
      ['text-delta', 1],
      ['text-delta', 2],
    ])
  })

  test.each([
    ['on()', (stream) => stream.on('text-delta', () => undefined)],
    ['once()', (stream) => stream.once('text-delta', () => undefined)],
    ['final()', (stream) => stream.final()],
    ['field()', (stream) => stream.field('a')],
  ] as [string, (stream: ReturnType<typeof streamOf>) => unknown][])(
    '%s starts it by itself, in the next microtask',
    async (_, use) => {
      const provider = scriptedProvider(hello)
      const stream = streamOf(provider)
      use(stream)
      expect(provider.requests).toHaveLength(0)
      await Promise.resolve()
      expect(provider.requests).toHaveLength(1)
      await turn()
      expect(provider.isClosed).toBe(true)
      expect((await stream.final()).text).toBe('Hello')
      expect(provider.requests).toHaveLength(1)
    },
  )

  test('shows everything to a loop, to views, to listeners and to final() alike', async () => {
    const stream = clientOf(simulate({ title: 'chips' }, { text: 'Hello', deltaChars: 1 })).stream({
      messages,
      tools: [answer],
      fields: { title: 'title' },
    })
    const heard: ResponseEvent[] = []
    for (const type of ['start', 'text-delta', 'tool-input-start', 'tool-input-delta', 'field-delta'] as const)
      stream.on(type, (event) => heard.push(event))
    for (const type of ['field-end', 'tool-input-end', 'tool-call', 'finish'] as const)
      stream.on(type, (event) => heard.push(event))
    const [response, looped, texts, titles] = await Promise.all([
      stream.final(),
      collect<ResponseEvent>(stream),
      collect(stream.textStream),
      collect(stream.fields('title')),
    ])
    expect(heard).toHaveLength(heard.at(-1)!.seq)
    expectGrowingNumbers(heard)
    expectGrowingNumbers(looped)
    for (const type of ['text-delta', 'tool-input-delta'] as const)
      expect(joined(looped, type)).toBe(joined(heard, type))
    expect(fieldTexts(looped)).toEqual({ title: 'chips' })
    expect(fieldTexts(heard)).toEqual({ title: 'chips' })
    expect(texts.join('')).toBe('Hello')
    expect(titles.join('')).toBe('chips')
    expect(looped.filter(({ type }) => !type.endsWith('-delta'))).toEqual(
      heard.filter(({ type }) => !type.endsWith('-delta')),
    )
    expect(response.text).toBe('Hello')
    expect(response.toolCalls).toEqual([
      { toolCallId: 'toolu_simulated_1', toolName: 'answer', input: { title: 'chips' } },
    ])
    expect(response.metrics).toEqual(ofType(heard, 'finish')[0]!.metrics)
  })

  test('is looped over once', async () => {
    const stream = streamOf(hello)
    await collect(stream)
    const again = thrownBy(() => stream[Symbol.asyncIterator]())
    expect(again).toBeInstanceOf(ConsumerError)
    expect(again).toMatchObject({ code: 'stream_consumed', phase: 'consume' })
    expect((again as Error).message).toContain('looped over once')
    expect(thrownBy(() => stream.toReadableStream())).toMatchObject({ code: 'stream_consumed' })
  })

  test('is not looped over twice at a time either, and the second attempt does not harm the first', async () => {
    const stream = streamOf(hello)
    const loop = stream[Symbol.asyncIterator]()
    expect(thrownBy(() => stream[Symbol.asyncIterator]())).toMatchObject({ code: 'stream_consumed' })
    expect(await collect(loop)).toHaveLength(4)
  })

  test.each([
    ['loop', (stream) => stream[Symbol.asyncIterator]()],
    ['fields()', (stream) => stream.fields('a')],
    ['textStream', (stream) => stream.textStream],
    ['toReadableStream()', (stream) => stream.toReadableStream()],
  ] as [string, (stream: ReturnType<typeof streamOf>) => unknown][])(
    'cannot be followed by a %s once it has begun, which would miss events',
    async (_, follow) => {
      const stream = streamOf(hello, { fields: { a: 'a' } })
      await new Promise((resolve) => stream.once('start', resolve))
      const error = thrownBy(() => follow(stream)) as LLMError
      expect(error).toBeInstanceOf(ConsumerError)
      expect(error.code).toBe('stream_consumed')
      expect(error.message).toContain('before the first event')
      expect((await stream.final()).text).toBe('Hello')
    },
  )

  test('gives the same final() each time, also after its end', async () => {
    const stream = streamOf(hello)
    const first = stream.final()
    expect(stream.final()).toBe(first)
    const response = await first
    expect(stream.final()).toBe(first)
    expect(await stream.final()).toBe(response)

    const failing = streamOf(reads(start))
    const rejected = failing.final()
    const error = await rejectionOf(rejected)
    expect(error).toMatchObject({ code: 'stream_truncated' })
    expect(failing.final()).toBe(rejected)
    expect(await rejectionOf(failing.final())).toBe(error)
  })

  test('tells final() its outcome when that is asked for only after the end', async () => {
    const stream = streamOf(hello)
    await collect(stream)
    expect((await stream.final()).text).toBe('Hello')

    const failing = streamOf(reads(start))
    const { error } = await collectUntilError(failing)
    expect(await rejectionOf(failing.final())).toBe(error)
  })

  test('that fails with its promises dropped is no unhandled rejection, and onError hears of it once', async () => {
    const onError = vi.fn()
    const stream = streamOf(reads(start), {}, { onError })
    void stream.final()
    void stream.field('a')
    stream[Symbol.asyncIterator]()
    await turn()
    expect(onError).toHaveBeenCalledOnce()
    expect(onError.mock.calls[0]![0]).toMatchObject({ code: 'stream_truncated' })
  })

  test('that fails with something else than an LLMError ends with one, its cause the other', async () => {
    const bug = new RangeError('secret words')
    const onError = vi.fn()
    const stream = streamOf(
      async function* () {
        yield await Promise.resolve([start, text('Hel')])
        throw bug
      },
      {},
      { onError },
    )
    const error = await rejectionOf(stream.final())
    expect(error).toBeInstanceOf(StreamError)
    expect(error).toMatchObject({ code: 'provider_error', phase: 'stream', cause: bug, partial: { text: 'Hel' } })
    expect((error as Error).message).not.toContain('secret')
    const run = { runId: expect.any(String) as string, provider: 'scripted', model: 'scripted-1' }
    expect(onError.mock.calls).toEqual([[error, run]])
  })

  test.each([
    [
      'throws at once',
      () => {
        throw new Error('no')
      },
    ],
    ['is no stream', () => undefined],
    [
      'has a source that throws at once',
      () => ({
        batches: () => ({
          next: () => {
            throw new Error('no')
          },
        }),
      }),
    ],
    [
      'has a source that cannot be left',
      () => ({
        batches: () => ({
          next: () => Promise.reject(new Error('no')),
          return: () => {
            throw new Error('stay')
          },
        }),
      }),
    ],
    ['reads what is no list', () => ({ batches: () => ({ next: () => Promise.resolve({ done: false, value: 7 }) }) })],
  ])('ends with an error where the provider %s', async (_, stream) => {
    const provider = { name: 'broken', model: 'broken-1', stream: stream as never }
    expect(await rejectionOf(streamOf(provider).final())).toMatchObject({ code: 'provider_error', provider: 'broken' })
    expect((await collectUntilError(streamOf(provider))).error).toMatchObject({ code: 'provider_error' })
  })

  test('lets its source end by itself after the evidence', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    try {
      let isDone = false
      const provider = scriptedProvider(async function* () {
        yield await Promise.resolve([start, text('Hello'), finish('stop')])
        isDone = true
      })
      await streamOf(provider).final()
      await turn()
      expect(isDone).toBe(true)
      expect(provider.isClosed).toBe(true)
      expect(vi.getTimerCount()).toBe(0)
      expect(provider.signal!.aborted).toBe(false)
    } finally {
      vi.useRealTimers()
    }
  })

  test('leaves a source that goes on after the evidence', async () => {
    const provider = scriptedProvider(reads(start, finish('stop'), text('more'), text('and more')))
    await streamOf(provider).final()
    await turn()
    expect(provider.pulls).toBe(3)
    expect(provider.isClosed).toBe(true)
  })

  test('closes a source that does not end within a second after the evidence', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    try {
      const provider = scriptedProvider(async function* ({ signal }) {
        yield await Promise.resolve([start, finish('stop')])
        await new Promise((_, reject) => signal.addEventListener('abort', () => reject(new Error('closed'))))
      })
      await streamOf(provider).final()
      await vi.advanceTimersByTimeAsync(999)
      expect(provider.isClosed).toBe(false)
      await vi.advanceTimersByTimeAsync(1)
      expect(provider.isClosed).toBe(true)
    } finally {
      vi.useRealTimers()
    }
  })

  test('takes nothing after the evidence', async () => {
    const stream = streamOf([[start, text('Hello'), finish('stop'), text(' again'), inputStart('1'), start]])
    const events = await collect(stream)
    expect(events.map(({ type }) => type)).toEqual(['start', 'text-delta', 'finish'])
    expect((await stream.final()).text).toBe('Hello')

    const slow = tool({ name: 'answer', validate: (value: unknown) => turn().then(() => ({ value: value as object })) })
    const checked = await collect(streamOf([[start, ...call('1', '{}'), finish(), text('more')]], { tools: [slow] }))
    expect(checked.map(({ type }) => type)).not.toContain('text-delta')
  })

  test('is not taken for cut by a read that a listener asked for just before the evidence', async () => {
    const slow = tool({ name: 'answer', validate: (value: unknown) => turn().then(() => ({ value: value as object })) })
    const stream = streamOf([[start, ...call('1', '{"a":1}'), finish()]], { tools: [slow] })
    const texts = stream.textStream
    stream.on('tool-input-end', () => texts.next())
    expect((await stream.final()).toolCalls[0]!.input).toEqual({ a: 1 })
  })

  test('measures itself', async () => {
    const before = performance.now()
    const { metrics } = await streamOf(
      [[start, text('Hello')], [...call('1', '{"a":"b"}')], [reasoning('Hm'), finish()]],
      { tools: [answer], fields: { a: 'a' } },
    ).final()
    expect(metrics).toMatchObject({ chunks: 3, characters: 16 })
    const { timeToFirstEventMs, timeToFirstTextMs, timeToFirstFieldMs, durationMs } = metrics
    expect(durationMs).toBeLessThanOrEqual(performance.now() - before)
    const times = [0, timeToFirstEventMs!, timeToFirstTextMs!, timeToFirstFieldMs!, durationMs]
    expect(times).toEqual([...times].sort((a, b) => a - b))
  })
})

describe('field()', () => {
  const read = async (script: readonly (readonly StreamEvent[])[], path: string): Promise<unknown> =>
    streamOf(script, { tools: [answer] }).field(path)

  test('resolves the moment its value closes, long before the answer does', async () => {
    const gate = Promise.withResolvers<undefined>()
    const stream = streamOf(
      async function* () {
        yield [start, inputStart('1'), input('1', '{"route":"prod')]
        yield [input('1', 'uct","rest":"')]
        await gate.promise
        yield [input('1', '…"}'), inputEnd('1'), finish()]
      },
      { tools: [answer] },
    )
    const final = stream.final()
    expect(await stream.field('route')).toBe('product')
    let isOver = false
    void final.then(() => (isOver = true))
    await turn()
    expect(isOver).toBe(false)
    gate.resolve(undefined)
    await final
  })

  test('resolves with a value that closes in the read that breaks the answer', async () => {
    const stream = streamOf([[start, inputStart('1'), input('1', '{"route":"product",}')]], { tools: [answer] })
    expect(await stream.field('route')).toBe('product')
    expect(await rejectionOf(stream.final())).toMatchObject({ code: 'invalid_json' })
  })

  test.each([
    ['a string', '{"a":{"b":"\\ud83d\\ude00 \\n"}}', 'a.b', '😀 \n'],
    ['an empty string', '{"a":{"b":""}}', 'a.b', ''],
    ['a number', '{"a":[1,-2.5e3]}', 'a[1]', -2500],
    ['an object', '{"a":{"b":[{"c":null}]}}', 'a', { b: [{ c: null }] }],
    ['null', '{"a":null}', 'a', null],
    ['the first of many', '{"a":[{"b":1},{"b":2}]}', 'a[*].b', 1],
    ['undefined where it never comes', '{"a":{"c":1}}', 'a.b', undefined],
    ['undefined where something else stands on the way', '{"a":"b"}', 'a.b', undefined],
  ])('resolves with %s', async (_, json, path, value) => {
    expect(await read([[start, ...call('1', json), finish()]], path)).toStrictEqual(value)
    expect(
      await read(
        reads(start, inputStart('1'), ...json.split('').map((c) => input('1', c)), inputEnd('1'), finish()),
        path,
      ),
    ).toStrictEqual(value)
  })

  test('looks into every call', async () => {
    expect(await read([[start, ...call('1', '{"a":1}'), ...call('2', '{"b":2}'), finish()]], 'b')).toBe(2)
    const interleaved = [inputStart('1'), inputStart('2'), input('1', '{"a"'), input('2', '{"b":'), input('1', ':1}')]
    expect(await read([[start, ...interleaved, input('2', '2}'), inputEnd('1'), inputEnd('2'), finish()]], 'b')).toBe(2)
  })

  test('resolves with a value that closed before it was asked for', async () => {
    const gate = Promise.withResolvers<undefined>()
    const stream = streamOf(
      async function* () {
        yield [start, inputStart('1'), input('1', '{"route":"product","slots":["a","b')]
        await gate.promise
        yield [input('1', 'c"]}'), inputEnd('1'), finish()]
      },
      { tools: [answer] },
    )
    void stream.final()
    await turn()
    expect(await stream.field('route')).toBe('product')
    const slots = stream.field('slots')
    const second = stream.field('slots[1]')
    gate.resolve(undefined)
    expect(await slots).toEqual(['a', 'bc'])
    expect(await second).toBe('bc')
    expect(await stream.field('route')).toBe('product')
    expect(await stream.field('nothing')).toBeUndefined()
  })

  test('misses and doubles nothing when a listener asks for it', async () => {
    const json = '{"a":"one","b":[{"c":"two"},{"c":"three"}]}'
    for (const type of ['tool-input-start', 'tool-input-delta', 'field-delta', 'field-end', 'tool-call'] as const) {
      for (const size of [1, 2, 5, json.length]) {
        const stream = streamOf(
          reads(
            start,
            inputStart('1'),
            ...pieces(json, size).map((piece) => input('1', piece)),
            inputEnd('1'),
            finish(),
          ),
          { tools: [answer], fields: { a: 'a' } },
        )
        const found = await new Promise<unknown>((resolve) =>
          stream.once(type, () => resolve(Promise.all(['a', 'b', 'b[1].c'].map((path) => stream.field(path))))),
        )
        expect(found, `${type}, ${size}`).toEqual(['one', [{ c: 'two' }, { c: 'three' }], 'three'])
      }
    }
  })

  test('rejects where the run fails before its value closed, and only then', async () => {
    const script = [[start, inputStart('1'), input('1', '{"a":"one","b":"tw')]]
    const stream = streamOf(script, { tools: [answer] })
    const [a, b, final] = [stream.field('a'), stream.field('b'), stream.final()]
    expect(await a).toBe('one')
    expect(await rejectionOf(b)).toBe(await rejectionOf(final))
    expect(await stream.field('a')).toBe('one')
    expect(await rejectionOf(stream.field('b'))).toMatchObject({ code: 'stream_truncated' })
  })

  test('throws at once, and sends nothing, where its path cannot be', () => {
    const provider = scriptedProvider([])
    const stream = streamOf(provider, { tools: [tool({ name: 'answer', input: z.object({ a: z.string() }) })] })
    for (const path of ['b', 'a..b', 'a[', '']) {
      expect(thrownBy(() => void stream.field(path))).toBeInstanceOf(UsageError)
    }
    expect(provider.requests).toEqual([])
  })
})

describe('a view', () => {
  const json = '{"a":"one","list":["two","three"]}'
  const script = reads(
    start,
    text('Hi '),
    text('you'),
    inputStart('1'),
    ...pieces(json, 3).map((piece) => input('1', piece)),
    inputEnd('1'),
    finish(),
  )
  const request = { tools: [answer], fields: { a: 'a', item: 'list[*]' } }

  test('of a field gives its text and nothing else; of all its places, one after the other', async () => {
    expect((await collect(streamOf(script, request).fields('a'))).join('')).toBe('one')
    expect((await collect(streamOf(script, request).fields('item'))).join('')).toBe('twothree')
    expect(() => streamOf(script, request).fields('nothing')).toThrow(
      'The request has no field "nothing". Its fields: a, item.',
    )
  })

  test('of the text gives the plain text and nothing else', async () => {
    expect(await collect(streamOf(script, request).textStream)).toEqual(['Hi ', 'you'])
  })

  test('of its own reads no more than it must', async () => {
    const provider = scriptedProvider(script)
    const texts = streamOf(provider, request).textStream
    expect(provider.pulls).toBe(0)
    expect(await texts.next()).toEqual({ value: 'Hi ', done: false })
    await turn()
    expect(provider.pulls).toBe(2)
  })

  test('fails as the run does', async () => {
    const stream = streamOf(reads(start, text('Hi')), request)
    const [texts, titles] = await Promise.all([
      collectUntilError(stream.textStream),
      collectUntilError(stream.fields('a')),
    ])
    expect(texts.items).toEqual(['Hi'])
    expect(texts.error).toMatchObject({ code: 'stream_truncated' })
    expect(titles.error).toBe(texts.error)
  })

  test('that is the only one cancels the run when it is left', async () => {
    const provider = scriptedProvider(script)
    const stream = streamOf(provider, request)
    for await (const delta of stream.textStream) {
      expect(delta).toBe('Hi ')
      break
    }
    expect(provider.signal!.aborted).toBe(true)
    expect(await rejectionOf(stream.final())).toMatchObject({ code: 'aborted', reason: 'consumer_return' })
  })

  test.each([
    ['another view', (stream) => collect(stream.fields('a')).then((deltas) => deltas.join(''))],
    ['the loop', (stream) => collect(stream).then((events) => fieldTexts(events)['a'])],
    ['final()', (stream) => stream.final().then(({ toolCalls }) => (toolCalls[0]!.input as { a: string }).a)],
    ['a listener', (stream) => new Promise((resolve) => stream.on('field-end', ({ value }) => resolve(value)))],
  ] as [string, (stream: ReturnType<typeof streamOf>) => Promise<unknown>][])(
    'can be left while %s goes on',
    async (_, follow) => {
      const stream = streamOf(script, request)
      const texts = stream.textStream
      const followed = follow(stream)
      await texts.next()
      await texts.return!()
      expect(await followed).toBe('one')
      expect(await texts.next()).toEqual({ value: undefined, done: true })
    },
  )

  test('does not hold back the others by not being read', async () => {
    const stream = streamOf(script, request)
    const unread = stream.fields('item')
    expect((await collect(stream.fields('a'))).join('')).toBe('one')
    expect((await collect(unread)).join('')).toBe('twothree')
  })
})

describe('snapshot()', () => {
  const after = async (inputText: string): Promise<unknown> => {
    const stream = streamOf(
      [
        [start, reasoning('Hm.'), text('Hello'), inputStart('1'), ...(inputText === '' ? [] : [input('1', inputText)])],
        [],
      ],
      { tools: [answer] },
    )
    const loop = stream[Symbol.asyncIterator]()
    await loop.next()
    const { toolCalls, ...rest } = stream.snapshot()
    expect(rest).toEqual({ text: 'Hello', reasoning: 'Hm.', messages: [] })
    expect(toolCalls).toMatchObject([{ toolCallId: '1', toolName: 'answer', inputText, complete: false }])
    await loop.return!()
    return toolCalls[0]!.input
  }

  test.each([
    ['nothing', '', undefined],
    ['an opening brace', '{', {}],
    ['a key', '{"a":1,"ro', { a: 1 }],
    ['a key without its value', '{"a":1,"route":', { a: 1 }],
    ['a string', '{"a":"pro', { a: 'pro' }],
    ['a string in an escape', '{"a":"pro\\u00', { a: 'pro' }],
    ['a string in a surrogate pair', '{"a":"pro\ud83d', { a: 'pro' }],
    ['a number', '{"a":1,"b":12', { a: 1 }],
    ['a literal', '{"a":1,"b":tru', { a: 1 }],
    ['a list', '{"a":[{"b":"c"},{"b":"d', { a: [{ b: 'c' }, { b: 'd' }] }],
  ])('shows what is there in the middle of %s', async (_, inputText, expected) => {
    expect(await after(inputText)).toEqual(expected)
  })

  test('shows the whole after the end, and does not change what was shown before', async () => {
    const stream = streamOf(reads(start, text('Hel'), text('lo'), ...call('1', '{"a":1}'), finish()), {
      tools: [answer],
    })
    const shown: unknown[] = []
    for await (const _ of stream) shown.push(stream.snapshot())
    const whole = { toolCallId: '1', toolName: 'answer', inputText: '{"a":1}', input: { a: 1 }, complete: true }
    expect(stream.snapshot()).toEqual({ text: 'Hello', reasoning: '', toolCalls: [whole], messages: [] })
    expect(shown[1]).toEqual({ text: 'Hel', reasoning: '', toolCalls: [], messages: [] })
    expect(shown.at(-1)).toEqual(stream.snapshot())
  })
})

describe('toReadableStream()', () => {
  const script = reads(start, text('One\n'), text('two 😀'), finish('stop'))

  test('is the events as lines of JSON', async () => {
    const events: unknown[] = await collect(streamOf(script))
    const lines = (await new Response(streamOf(script).toReadableStream()).text()).split('\n')
    expect(lines.pop()).toBe('')
    const received = lines.map((line) => JSON.parse(line) as { metrics?: unknown })
    for (const list of [events, received]) for (const event of list) delete (event as { metrics?: unknown }).metrics
    expect(received).toEqual(events)
  })

  test('reads nothing ahead of its reader', async () => {
    const provider = scriptedProvider(script)
    const reader = streamOf(provider).toReadableStream().getReader()
    await turn()
    expect(provider.requests).toHaveLength(0)
    for (let read = 1; read <= 3; read++) {
      await reader.read()
      await turn()
      expect(provider.pulls).toBe(read)
    }
    await reader.cancel()
  })

  test('cancels the run when it is cancelled, also in the middle of a read', async () => {
    for (const readsFirst of [0, 1]) {
      const provider = scriptedProvider(async function* () {
        yield await Promise.resolve([start])
        await new Promise(() => undefined)
      })
      const stream = streamOf(provider)
      const reader = stream.toReadableStream().getReader()
      await reader.read()
      const pending = readsFirst === 0 ? undefined : reader.read()
      await reader.cancel()
      expect(provider.signal!.aborted).toBe(true)
      expect(await pending).toEqual(pending && { value: undefined, done: true })
      expect(await rejectionOf(stream.final())).toMatchObject({ code: 'aborted', reason: 'consumer_return' })
    }
  })

  test('fails where the run fails', async () => {
    const reader = streamOf(reads(start, text('Hel')))
      .toReadableStream()
      .getReader()
    await reader.read()
    await reader.read()
    expect(await rejectionOf(reader.read())).toMatchObject({ code: 'stream_truncated' })
  })

  test('cancels the run where an event cannot be written as JSON', async () => {
    const provider = scriptedProvider(reads(start, inputStart('1'), input('1', '{"a":1}'), inputEnd('1'), finish()))
    const fields = { a: { path: 'a', map: (value: unknown) => BigInt(value as number) } }
    const stream = streamOf(provider, { tools: [answer], fields })
    await expect(new Response(stream.toReadableStream()).text()).rejects.toThrow(TypeError)
    expect(provider.isClosed).toBe(true)
    expect(await rejectionOf(stream.final())).toMatchObject({ code: 'aborted' })
  })
})

describe('a listener', () => {
  const script = reads(start, text('a'), text('b'), text('c'), finish('stop'))

  test('hears what it asked for until it is taken off; `once` hears one event', async () => {
    const stream = streamOf(script)
    const [always, until, once, never] = [vi.fn(), vi.fn(), vi.fn(), vi.fn()]
    stream
      .on('text-delta', always)
      .on('text-delta', until)
      .once('text-delta', once)
      .on('text-delta', never)
      .once('text-delta', never)
      .off('text-delta', never)
    stream.on('text-delta', ({ delta }) => delta === 'b' && stream.off('text-delta', until))
    stream.off('finish', never)
    await stream.final()
    const deltas = (listener: typeof always): unknown[] =>
      listener.mock.calls.map(([event]) => (event as { delta: string }).delta)
    expect([always, until, once, never].map(deltas)).toEqual([['a', 'b', 'c'], ['a', 'b'], ['a'], []])
  })

  test('for errors hears the one the run ends with, also when it comes late', async () => {
    const stream = streamOf(reads(start))
    const [early, late] = [vi.fn(), vi.fn()]
    stream.on('error', early)
    const error = await rejectionOf(stream.final())
    stream.on('error', late).once('error', late)
    await turn()
    expect(early.mock.calls).toEqual([[error]])
    expect(late.mock.calls).toEqual([[error], [error]])
    const left = vi.fn()
    stream.on('error', left).off('error', left)
    await turn()
    expect(left).not.toHaveBeenCalled()
  })

  test('that throws or rejects is reported to onError, and stops neither the run nor the others', async () => {
    const onError = vi.fn()
    const fault = new Error('listener')
    const heard = vi.fn()
    const stream = streamOf(script, {}, { onError })
    stream
      .on('start', () => {
        throw fault
      })
      .on('start', heard)
      .on('text-delta', () => Promise.reject(fault))
      .once('finish', () => {
        throw fault
      })
      // As promises of other libraries are.
      .on('finish', () => ({ then: (_: unknown, reject: (error: Error) => void) => reject(fault) }))
    expect((await stream.final()).text).toBe('abc')
    await turn()
    expect(heard).toHaveBeenCalledOnce()
    expect(onError).toHaveBeenCalledTimes(6)
    for (const [error] of onError.mock.calls as [LLMError][]) {
      expect(error).toBeInstanceOf(ConsumerError)
      expect(error).toMatchObject({ code: 'consumer_error', cause: fault })
    }
  })

  test('and an onError that throws too harm nothing', async () => {
    const onError = vi.fn(() => {
      throw new Error('hook')
    })
    const stream = streamOf(script, {}, { onError })
    stream.on('text-delta', () => {
      throw new Error('listener')
    })
    expect((await stream.final()).text).toBe('abc')
    expect(onError).toHaveBeenCalledTimes(3)

    const failing = streamOf(reads(start), {}, { onError })
    failing.on('error', () => {
      throw new Error('listener')
    })
    expect(await rejectionOf(failing.final())).toMatchObject({ code: 'stream_truncated' })
  })
})

describe('a slow consumer', () => {
  const fields = { a: 'a', b: 'b' }
  const prose = 'The quick brown fox jumps over the lazy dog. '.repeat(20)
  const json = JSON.stringify({ a: prose, b: prose })

  test('gets fewer deltas and the same text', async () => {
    // All bytes come in one read.
    const source = simulate(json, { tool: 'answer', text: prose, reasoning: prose, deltaChars: 3 })
    const stream = clientOf(source, { chunks: 1_000_000 }).stream({ messages, tools: [answer], fields })
    const events: ResponseEvent[] = []
    for await (const event of stream) {
      events.push(event)
      await turn()
    }
    expect(events.length).toBeLessThan(25)
    expectGrowingNumbers(events)
    expect(joined(events, 'text-delta')).toBe(prose)
    expect(joined(events, 'reasoning-delta')).toBe(prose)
    expect(joined(events, 'tool-input-delta')).toBe(json)
    expect(fieldTexts(events)).toEqual({ a: prose, b: prose })
    for (const path of ['a', 'b']) {
      let length = 0
      for (const event of ofType(events, 'field-delta').filter((event) => event.path === path))
        expect(event.length).toBe((length += event.delta.length))
    }
  })

  test('that keeps up gets every delta as it came', async () => {
    const source = simulate(json, { tool: 'answer', text: prose, deltaChars: 3 })
    const stream = clientOf(source, { chunks: 1_000_000 }).stream({ messages, tools: [answer], fields })
    const events: ResponseEvent[] = await collect(stream)
    expect(ofType(events, 'text-delta')).toHaveLength(prose.length / 3)
    expect(ofType(events, 'tool-input-delta')).toHaveLength(Math.ceil(json.length / 3))
    expect(events.map(({ seq }) => seq)).toEqual(events.map((_, i) => i + 1))
  })

  test('gets each text merged to the end of a stall, however many deltas came, and everything in order', async () => {
    const rounds = 500
    const gate = Promise.withResolvers<undefined>()
    const provider = scriptedProvider(async function* () {
      yield [start]
      for (let i = 0; i < rounds; i++) yield [reasoning('r')]
      for (let i = 0; i < rounds; i++) yield [text('t')]
      yield [inputStart('1'), inputStart('2'), input('1', '{"a":"'), input('2', '{"b":"')]
      // Two calls are written at the same time.
      for (let i = 0; i < rounds; i++) yield [input('1', 'x'), input('2', 'y')]
      yield [input('1', '","b":"')]
      for (let i = 0; i < rounds; i++) yield [input('1', 'z'), input('2', 'y')]
      yield [input('2', '"}'), inputEnd('2'), input('1', '"}'), inputEnd('1')]
      gate.resolve(undefined)
      await turn()
      yield [finish()]
    })
    const stream = streamOf(provider, { tools: [answer], fields })
    const loop = stream[Symbol.asyncIterator]()
    const final = stream.final()
    await gate.promise
    const events = await collect(loop)
    await final

    expectGrowingNumbers(events)
    expect(events.length).toBeLessThan(40)
    expect(joined(events, 'reasoning-delta')).toBe('r'.repeat(rounds))
    expect(joined(events, 'text-delta')).toBe('t'.repeat(rounds))
    const types = events.map(({ type }) => type)
    expect(types.lastIndexOf('reasoning-delta')).toBeLessThan(types.indexOf('text-delta'))
    expect(types.lastIndexOf('text-delta')).toBeLessThan(types.indexOf('tool-input-start'))
    for (const [id, path, value] of [
      ['1', 'a', 'x'.repeat(rounds)],
      ['1', 'b', 'z'.repeat(rounds)],
      ['2', 'b', 'y'.repeat(2 * rounds)],
    ] as const) {
      const own = events.filter((event) => 'path' in event && event.toolCallId === id && event.path === path)
      expect(own.pop()).toMatchObject({ type: 'field-end', value })
      expect(own.map((event) => ('delta' in event ? event.delta : '(no delta)')).join('')).toBe(value)
      expect(own.at(-1)).toMatchObject({ length: value.length })
    }
    expect(types.slice(-3)).toEqual(['tool-call', 'tool-call', 'finish'])
  })

  test('keeps the order of text and thinking that alternate', async () => {
    const order = 'ttrtrrrttr'.repeat(3).split('')
    const stream = streamOf([
      [start],
      ...order.map((kind, i) => [(kind === 't' ? text : reasoning)(`${i} `)]),
      [finish('stop')],
    ])
    const loop = stream[Symbol.asyncIterator]()
    await stream.final()
    const events = await collect(loop)
    expect(events.flatMap((event) => ('delta' in event ? [event.delta] : [])).join('')).toBe(
      order.map((_, i) => `${i} `).join(''),
    )
  })

  test('costs no more than the text while it stalls', async () => {
    const stream = streamOf(
      [
        [start, inputStart('1'), input('1', '{"a":"')],
        ...Array.from({ length: 5000 }, () => [input('1', 'x')]),
        [input('1', '"}'), inputEnd('1'), finish()],
      ],
      { tools: [answer], fields },
    )
    const [loop, view] = [stream[Symbol.asyncIterator](), stream.fields('a')]
    await stream.final()
    const deltas = await collect(view)
    expect(deltas.length).toBeLessThan(3)
    expect(deltas.join('')).toBe('x'.repeat(5000))
    expect((await collect(loop)).length).toBeLessThan(15)
  })
})

describe('an answer that is not whole', () => {
  const fields = { a: 'a' }
  const request = { tools: [answer], fields }

  /** What a loop and final() make of a script: no call, and the same error in both. */
  async function failureOf(
    script: Parameters<typeof streamOf>[0],
    more: Parameters<typeof streamOf>[1] = request,
  ): Promise<{ error: LLMError; events: ResponseEvent[] }> {
    const stream = streamOf(script, more)
    const { items, error } = await collectUntilError(stream)
    expect(isLLMError(error)).toBe(true)
    expect(await rejectionOf(stream.final())).toBe(error)
    expect(items.map(({ type }) => type)).not.toContain('tool-call')
    expect(items.map(({ type }) => type)).not.toContain('finish')
    return { error: error as LLMError, events: items }
  }

  test('but cut at any byte is an error, never a payload', async () => {
    const { body } = simulate(
      { a: 'bc', d: [1] },
      { tool: 'answer', deltaChars: 5 },
    )({
      body: { stream: true },
      url: '',
      method: 'POST',
      headers: new Headers(),
    })
    const bytes = new TextEncoder().encode(body as string)
    for (let end = 1; end < bytes.length; end += 3) {
      const stream = clientOf(bytes.slice(0, end), { chunks: 1000 }).stream({ messages, tools: [answer], fields })
      const error = await rejectionOf(stream.final())
      expect(error).toBeInstanceOf(StreamError)
      expect(['stream_truncated', 'empty_response']).toContain((error as LLMError).code)
      expect((error as LLMError).retryable).toBe(true)
    }
    const whole = clientOf(bytes, { chunks: 1000 }).stream({ messages, tools: [answer], fields })
    expect((await whole.final()).toolCalls[0]!.input).toEqual({ a: 'bc', d: [1] })
  })

  test('is an error even where its arguments are', async () => {
    const { error, events } = await failureOf(reads(start, ...call('1', '{"a":"b"}')))
    expect(error).toBeInstanceOf(StreamError)
    expect(error).toMatchObject({ code: 'stream_truncated', retryable: true, phase: 'stream', provider: 'scripted' })
    expect(ofType(events, 'field-end').map(({ value }) => value)).toEqual(['b'])
    expect(error.partial).toEqual({
      text: '',
      reasoning: '',
      toolCalls: [{ toolCallId: '1', toolName: 'answer', inputText: '{"a":"b"}', input: { a: 'b' }, complete: true }],
      messages: [],
    })
  })

  test.each([
    ['before the arguments', [inputStart('1')], ''],
    ['within the arguments', [inputStart('1'), input('1', '{"a":"b"')], '{"a":"b"'],
    ['after the arguments', call('1', '{"a":"b"}'), '{"a":"b"}'],
  ])('at the token limit is an error %s', async (_, events, inputText) => {
    const { error } = await failureOf(reads(start, ...events, finish('length')))
    expect(error).toBeInstanceOf(OutputError)
    expect(error).toMatchObject({ code: 'output_truncated', retryable: false, toolName: 'answer', toolCallId: '1' })
    expect(error.message).toContain('maxTokens')
    expect(error.partial!.toolCalls[0]!.inputText).toBe(inputText)
    expect(error.usage).toMatchObject({ totalTokens: 30 })
  })

  test('at the token limit names the call that was cut', async () => {
    const events = [inputStart('1'), input('1', '{"a":'), inputStart('2', 'other'), input('2', '{}'), inputEnd('2')]
    const { error } = await failureOf(reads(start, ...events, finish('length')), {
      tools: [answer, tool({ name: 'other' })],
    })
    expect(error).toMatchObject({ toolCallId: '1', toolName: 'answer' })
  })

  test('at the token limit is an error where a tool was asked for and not reached', async () => {
    const forced = { ...request, toolChoice: answer }
    expect((await failureOf(reads(start, text('Let me'), finish('length')), forced)).error).toMatchObject({
      code: 'output_truncated',
      partial: { text: 'Let me' },
    })
  })

  test.each(['required', answer] as const)(
    'is an error where a tool was asked for and not called',
    async (toolChoice) => {
      const { error } = await failureOf(reads(start, text('No.'), finish('stop')), { ...request, toolChoice })
      expect(error).toBeInstanceOf(OutputError)
      expect(error).toMatchObject({ code: 'no_payload', retryable: false, partial: { text: 'No.' } })
    },
  )

  test.each([
    ['refusal', 'refused'],
    ['content-filter', 'content_filtered'],
  ] as const)('by %s is an error, with and without calls', async (reason, code) => {
    for (const events of [[text('I can')], call('1', '{"a":"b"}')]) {
      const { error } = await failureOf(reads(start, ...events, finish(reason)))
      expect(error).toBeInstanceOf(OutputError)
      expect(error).toMatchObject({ code, retryable: false, usage: { totalTokens: 30 } })
    }
  })

  test.each([
    ['{"a":"SECRET",}', 14, 'SECRET'],
    ["{'a':1}", 1, undefined],
    ['{"a":NaN}', 5, undefined],
    ['{"a":"SECRET"} and more', 15, 'SECRET'],
    ['{"a":"SECRET"}{"a":"c"}', 14, 'SECRET'],
    ['{"a":"SECRET"', 13, 'SECRET'],
    ['// {"a":1}', 0, undefined],
    ['{"a":"SECRET\n"}', 12, 'SECRET'],
  ])('but malformed is an error that says where, and what was shown stays shown: %j', async (json, position, shown) => {
    const { error, events } = await failureOf(reads(start, ...call('1', json), finish()))
    expect(error).toBeInstanceOf(OutputError)
    expect(error).toMatchObject({ code: 'invalid_json', toolName: 'answer', toolCallId: '1', position })
    expect(error.message).toContain(`character ${position}`)
    expect(error.message).not.toContain('SECRET')
    expect(error.partial!.toolCalls[0]!.inputText).toBe(json)
    expect(fieldTexts(events)['a']).toBe(shown)
  })

  test.each([
    ['an array', '[{"a":1}]'],
    ['a string', '"{\\"a\\":1}"'],
    ['a number', '7'],
    ['null', 'null'],
    ['a boolean', 'true'],
  ])('whose arguments are %s is an error', async (kind, json) => {
    const { error } = await failureOf(reads(start, ...call('1', json), finish()))
    expect(error).toMatchObject({ code: 'schema_mismatch', toolName: 'answer' })
    expect(error.message).toContain(kind === 'null' ? 'null' : kind)
  })

  test('but nests deeper than its limit is an error that names the limit', async () => {
    const error = await rejectionOf(
      streamOf(reads(start, ...call('1', '{"a":[[[1]]]}'), finish()), request, { limits: { maxDepth: 3 } }).final(),
    )
    expect(error).toBeInstanceOf(LimitError)
    expect(error).toMatchObject({ code: 'limit_exceeded', limit: 'maxDepth', max: 3 })
  })

  test('calls a tool that was not offered, and is an error before its arguments', async () => {
    const { error, events } = await failureOf(reads(start, inputStart('1', 'drop_tables'), input('1', '{'), finish()))
    expect(error).toBeInstanceOf(ToolError)
    expect(error).toMatchObject({ code: 'tool_not_found', toolName: 'drop_tables' })
    expect(events.map(({ type }) => type)).toEqual(['start'])
  })

  test.each(['__proto__', 'constructor', 'toString', 'no\nname'])('does not find the tool %j either', async (name) => {
    const { error } = await failureOf(reads(start, ...call('1', '{}', name), finish()))
    expect(error).toMatchObject({ code: 'tool_not_found', toolName: name })
  })

  test('calls another tool than the one it was to call, and is an error', async () => {
    const more = { tools: [answer, tool({ name: 'other' })], toolChoice: answer }
    const { error } = await failureOf(reads(start, ...call('1', '{}', 'other'), finish()), more)
    expect(error).toMatchObject({ code: 'tool_not_found', toolName: 'other' })
  })

  test('broken by its provider is an error', async () => {
    for (const events of [
      [input('1', '{}')],
      [inputEnd('1')],
      [inputStart('1'), inputStart('1')],
      [...call('1', '{}'), input('1', '{}')],
      [inputStart('1'), input('1', '{}'), finish()],
    ]) {
      const { error } = await failureOf(reads(start, ...events, finish()))
      expect(error).toMatchObject({ code: 'stream_protocol', retryable: true })
    }
  })
})

describe('a schema', () => {
  const marker = 'SECRET-VALUE'
  const strict = tool({
    name: 'answer',
    input: z.object({ route: z.enum(['product', 'support']), items: z.array(z.object({ count: z.number() })) }),
  })

  test('that is violated is an error with the issues, their paths and no values', async () => {
    const json = JSON.stringify({ route: marker, items: [{ count: 1 }, { count: marker }] })
    const stream = streamOf([[start, ...call('1', json), finish()]], { tools: [strict] })
    const { items, error } = await collectUntilError(stream)
    expect(ofType(items, 'tool-call')).toEqual([])
    expect(error).toBeInstanceOf(OutputError)
    expect(error).toMatchObject({ code: 'schema_mismatch', phase: 'validate', toolName: 'answer', toolCallId: '1' })
    expect((error as OutputError).issues!.map(({ path }) => path)).toEqual(['route', 'items[1].count'])
    expect((error as Error).message).toContain('route, items[1].count')
    expect((error as Error).message).not.toContain(marker)
    expect((error as LLMError).partial!.toolCalls[0]!.input).toEqual(JSON.parse(json))
    expect((error as LLMError).usage).toMatchObject({ totalTokens: 30 })
  })

  test('that transforms: the call has its output, the conversation what the model wrote', async () => {
    const transforming = tool({
      name: 'answer',
      input: z.object({
        date: z.string().transform((date) => ({ year: Number(date.slice(0, 4)) })),
        n: z.number().default(3),
      }),
    })
    const stream = streamOf([[start, ...call('1', '{"date":"2026-11-21"}'), finish()]], { tools: [transforming] })
    const events = await collect(stream)
    const { toolCalls, messages } = await stream.final()
    expect(ofType(events, 'tool-call')[0]!.input).toEqual({ date: { year: 2026 }, n: 3 })
    expect(toolCalls[0]!.input).toEqual({ date: { year: 2026 }, n: 3 })
    expect(messages).toEqual([
      {
        role: 'assistant',
        content: [{ type: 'tool-call', toolCallId: '1', toolName: 'answer', input: { date: '2026-11-21' } }],
      },
    ])
  })

  const script = [[start, ...call('1', '{"a":1}'), finish()]]
  const validatedBy = (validate: unknown): { tools: ReturnType<typeof tool>[] } => ({
    tools: [tool({ name: 'answer', validate: validate as () => { value: unknown } })],
  })

  test.each([
    [
      'throws',
      () => {
        throw new Error('oops')
      },
    ],
    ['rejects', () => Promise.reject(new Error('oops'))],
  ])('whose validator %s is a typed error', async (_, validate) => {
    const error = await rejectionOf(streamOf(script, validatedBy(validate)).final())
    expect(error).toBeInstanceOf(OutputError)
    expect(error).toMatchObject({
      code: 'validator_error',
      phase: 'validate',
      toolName: 'answer',
      cause: new Error('oops'),
    })
  })

  // A bare predicate, such as a function compiled by Ajv, must not pass for a validator that agrees.
  test.each([true, false, undefined, null, 7, {}])(
    'whose validator answers %j, now or later, is an error and never consent',
    async (result) => {
      for (const validate of [() => result, () => Promise.resolve(result)]) {
        const stream = streamOf(script, validatedBy(validate))
        const { items, error } = await collectUntilError(stream)
        expect(ofType(items, 'tool-call')).toEqual([])
        expect(error).toMatchObject({ code: 'validator_error', toolName: 'answer' })
      }
    },
  )

  test('may take its time; nothing is delivered before it agrees', async () => {
    const gate = Promise.withResolvers<{ value: unknown }>()
    const stream = streamOf(
      script,
      validatedBy(() => gate.promise),
    )
    const types: string[] = []
    const loop = (async () => {
      for await (const { type } of stream) types.push(type)
    })()
    await turn()
    expect(types).toEqual(['start', 'tool-input-start', 'tool-input-delta', 'tool-input-end'])
    gate.resolve({ value: 'checked' })
    await loop
    expect(types.slice(-2)).toEqual(['tool-call', 'finish'])
    expect((await stream.final()).toolCalls[0]!.input).toBe('checked')
  })

  test('of one call that fails keeps every call back, be they checked now or later', async () => {
    const fail = { issues: [{ message: 'no', path: ['a'] }] }
    for (const [first, second] of [
      [{ value: 1 }, fail],
      [Promise.resolve({ value: 1 }), fail],
      [Promise.resolve(fail), fail],
      [Promise.resolve(fail), Promise.resolve({ value: 1 })],
    ]) {
      let calls = 0
      const stream = streamOf(
        [[start, ...call('1', '{"a":1}'), ...call('2', '{"a":2}'), finish()]],
        validatedBy(() => (calls++ === 0 ? first : second)),
      )
      const { items, error } = await collectUntilError(stream)
      expect(ofType(items, 'tool-call')).toEqual([])
      expect(error).toMatchObject({ code: 'schema_mismatch' })
      await turn()
    }
  })

  test('is not needed: any object is an answer then', async () => {
    const response = await streamOf([[start, ...call('1', '{"__proto__":{"x":1},"a":[]}'), finish()]], {
      tools: [answer],
    }).final()
    const { input } = response.toolCalls[0]!
    expect(Object.keys(input as object)).toEqual(['__proto__', 'a'])
    expect(({} as { x?: unknown }).x).toBeUndefined()
  })

  test('decides whether no arguments are enough', async () => {
    const empty = [[start, ...call('1', ''), finish()]]
    const optional = tool({ name: 'answer', input: z.object({ a: z.string().optional() }) })
    expect((await streamOf(empty, { tools: [optional] }).final()).toolCalls[0]!.input).toEqual({})
    expect((await streamOf(empty, { tools: [answer] }).final()).toolCalls[0]!.input).toEqual({})
    expect(await rejectionOf(streamOf(empty, { tools: [strict] }).final())).toMatchObject({ code: 'schema_mismatch' })
    // No text, and no word of the provider that this is a call: not an empty one.
    expect(
      await rejectionOf(streamOf([[start, ...call('1', ''), finish('stop')]], { tools: [answer] }).final()),
    ).toMatchObject({ code: 'invalid_json' })
  })

  test('is checked for each of two calls of one tool', async () => {
    const counting = tool({ name: 'answer', input: z.object({ a: z.number() }) })
    const script = (second: string): StreamEvent[][] => [
      [start, ...call('1', '{"a":1}'), ...call('2', second), finish()],
    ]
    const response = await streamOf(script('{"a":2}'), { tools: [counting] }).final()
    expect(response.toolCalls).toEqual([
      { toolCallId: '1', toolName: 'answer', input: { a: 1 } },
      { toolCallId: '2', toolName: 'answer', input: { a: 2 } },
    ])
    expect(await rejectionOf(streamOf(script('{"a":"2"}'), { tools: [counting] }).final())).toMatchObject({
      code: 'schema_mismatch',
      toolCallId: '2',
    })
  })

  describe('of a field', () => {
    const fields = { route: { path: 'route', schema: z.enum(['product', 'support']) }, rest: 'rest' }
    const wrong = reads(
      start,
      inputStart('1'),
      input('1', `{"route":"${marker}",`),
      input('1', '"rest":"…"}'),
      inputEnd('1'),
      finish(),
    )

    test('is checked when the field closes; the run goes on', async () => {
      for (const onInvalid of [undefined, 'continue' as const]) {
        const stream = streamOf(wrong, { tools: [answer], fields, onInvalid })
        const ends = ofType(await collect(stream), 'field-end')
        expect(ends.map(({ field, valid }) => [field, valid])).toEqual([
          ['route', false],
          ['rest', undefined],
        ])
        expect((await stream.final()).toolCalls).toHaveLength(1)
      }
      const right = reads(start, ...call('1', '{"route":"product"}'), finish())
      expect(ofType(await collect(streamOf(right, { tools: [answer], fields })), 'field-end')).toMatchObject([
        { valid: true },
      ])
    })

    test('leaves the value as the model wrote it, and `map` is what changes it', async () => {
      const script = reads(start, ...call('1', '{"a":"5"}'), finish())
      const schema = z.string().transform(Number)
      const stream = streamOf(script, {
        fields: { plain: { path: 'a', schema }, mapped: { path: 'a', schema, map: (value) => [value] } },
      })
      expect(ofType(await collect(stream), 'field-end').map(({ value }) => value)).toEqual(['5', ['5']])
    })

    test("stops the run with `onInvalid: 'abort'`, after the field was shown and before anything else is paid for", async () => {
      const provider = scriptedProvider(wrong)
      const { items, error } = await collectUntilError(
        streamOf(provider, { tools: [answer], fields, onInvalid: 'abort' }),
      )
      expect(items.at(-1)).toMatchObject({ type: 'field-end', field: 'route', value: marker, valid: false })
      expect(error).toMatchObject({ code: 'schema_mismatch', issues: [{ path: 'route' }] })
      expect((error as Error).message).not.toContain(marker)
      expect(provider.pulls).toBe(3)
      expect(provider.signal!.aborted).toBe(true)
    })

    test('must answer at once, and must not throw', async () => {
      const script = reads(start, ...call('1', '{"a":"b"}'), finish())
      for (const definition of [
        { path: 'a', schema: z.string().refine(() => Promise.resolve(true)) },
        {
          path: 'a',
          schema: {
            '~standard': { version: 1 as const, vendor: 'own', validate: () => Promise.reject(new Error('late')) },
          },
        },
        {
          path: 'a',
          map: () => {
            throw new Error('oops')
          },
        },
      ]) {
        const { items, error } = await collectUntilError(
          streamOf(script, { tools: [answer], fields: { a: definition } }),
        )
        expect(error).toMatchObject({ code: 'validator_error', toolName: 'answer', toolCallId: '1' })
        expect((error as Error).message).toContain('field "a"')
        expect(ofType(items, 'field-end')).toEqual([])
      }
    })
  })
})

describe('an answer without calls', () => {
  test.each(['stop', 'length', 'pause', 'other'] as const)('resolves with its finish reason: %s', async (reason) => {
    const response = await streamOf([[start, reasoning('Hm.'), text('Hello'), finish(reason)]], {
      tools: [answer],
    }).final()
    expect(response).toMatchObject({
      text: 'Hello',
      reasoning: 'Hm.',
      toolCalls: [],
      finishReason: reason,
      providerFinishReason: reason,
      provider: 'scripted',
      model: 'scripted-1',
      responseId: 'response-1',
      warnings: [],
    })
    expect(response.messages).toEqual([
      {
        role: 'assistant',
        content: [
          { type: 'reasoning', text: 'Hm.' },
          { type: 'text', text: 'Hello' },
        ],
      },
    ])
  })

  test('keeps in its message what the provider wants to see again, part by part', async () => {
    const part: StreamEvent = { type: 'part', part: { type: 'provider', provider: 'scripted', value: { n: 1 } } }
    const { messages, warnings } = await streamOf(
      [
        [
          start,
          reasoning('Hm'),
          reasoning('.'),
          { type: 'part-end', kind: 'reasoning', metadata: { scripted: { signature: 's' } } },
        ],
        [text('One'), { type: 'part-end', kind: 'text' }, text('Two'), part, text('Three')],
        [{ type: 'warning', warning: { code: 'dropped-content', message: 'one' } }],
        [
          inputStart('1'),
          input('1', '{"a":1}'),
          { type: 'tool-input-end', toolCallId: '1', metadata: { scripted: { id: 7 } } },
          finish(),
        ],
      ],
      { tools: [answer] },
    ).final()
    expect(messages[0]!.content).toEqual([
      { type: 'reasoning', text: 'Hm.', metadata: { scripted: { signature: 's' } } },
      { type: 'text', text: 'One' },
      { type: 'text', text: 'Two' },
      { type: 'provider', provider: 'scripted', value: { n: 1 } },
      { type: 'text', text: 'Three' },
      { type: 'tool-call', toolCallId: '1', toolName: 'answer', input: { a: 1 }, metadata: { scripted: { id: 7 } } },
    ])
    expect(warnings).toEqual([{ code: 'dropped-content', message: 'one' }])
  })
})

/** Hangs after its first events, and does not listen to its signal. */
const hanging = (...events: readonly StreamEvent[]) =>
  scriptedProvider(async function* () {
    yield events
    await new Promise(() => undefined)
  })

describe('a cancelled run', () => {
  const reason = { why: 'enough' }

  /** That loop and promises ended with the one error, and the connection is told. */
  async function expectAborted(stream: ReturnType<typeof streamOf>, expected: unknown): Promise<AbortedError> {
    const error = await rejectionOf(stream.final())
    expect(error).toBeInstanceOf(AbortedError)
    expect(error).toMatchObject({ name: 'AbortError', code: 'aborted', retryable: false })
    expect((error as AbortedError).reason).toBe(expected)
    expect(await rejectionOf(stream.field('never'))).toBe(error)
    return error as AbortedError
  }

  test('before its start sends nothing', async () => {
    const provider = scriptedProvider([[start, finish('stop')]])
    const stream = streamOf(provider)
    const loop = stream[Symbol.asyncIterator]()
    stream.abort(reason)
    const error = await expectAborted(stream, reason)
    expect(await collectUntilError(loop)).toEqual({ items: [], error })
    expect(provider.requests).toEqual([])
  })

  test('says so in its message where nothing else was said', async () => {
    const stream = streamOf([[start]])
    stream.abort()
    expect((await expectAborted(stream, 'abort() was called')).message).toContain('abort() was called')
  })

  test('ends at once, even while a provider hangs and ignores its signal', async () => {
    const provider = hanging(start, text('Hello'))
    const stream = streamOf(provider)
    const loop = stream[Symbol.asyncIterator]()
    const final = stream.final()
    const field = stream.field('a')
    await loop.next()
    await loop.next()
    const next = loop.next()
    await turn()
    stream.abort(reason)
    const error = await expectAborted(stream, reason)
    expect(await Promise.all([final, field, next].map(rejectionOf))).toEqual([error, error, error])
    expect(await loop.next()).toEqual({ value: undefined, done: true })
    expect(error.partial).toMatchObject({ text: 'Hello' })
    expect(provider.signal!.aborted).toBe(true)
    expect(provider.signal!.reason).toBe(error)
  })

  test('shows no more of what had come', async () => {
    const provider = hanging(start, ...pieces('Hello', 1).map(text))
    const stream = streamOf(provider)
    const loop = stream[Symbol.asyncIterator]()
    await loop.next()
    stream.abort(reason)
    expect(await collectUntilError(loop)).toMatchObject({ items: [], error: { code: 'aborted' } })
  })

  test('by a listener shows nothing more to anybody, not even of the same delta', async () => {
    const heard: string[] = []
    const stream = streamOf([[start, ...call('1', '{"a":"b","c":"d"}'), finish()]], {
      tools: [answer],
      fields: { a: 'a', c: 'c' },
    })
    for (const type of ['tool-input-delta', 'field-delta', 'field-end', 'tool-call', 'finish', 'error'] as const)
      stream.on(type, () => heard.push(type))
    stream.once('field-delta', () => stream.abort(reason)).on('field-delta', () => heard.push('too late'))
    const error = await expectAborted(stream, reason)
    await turn()
    expect(heard).toEqual(['tool-input-delta', 'field-delta', 'error'])
    expect((error as LLMError).partial!.toolCalls[0]!.inputText).toBe('{"a":"b","c":"d"}')
  })

  test.each(['tool-call', 'finish'] as const)(
    'by a listener for %s comes too late to change the outcome',
    async (type) => {
      const stream = streamOf([[start, ...call('1', '{"a":1}'), finish()]], { tools: [answer] })
      const error = vi.fn()
      stream.on(type, () => stream.abort(reason)).on('error', error)
      const events = collect(stream)
      expect((await stream.final()).toolCalls[0]!.input).toEqual({ a: 1 })
      expect((await events).at(-1)!.type).toBe('finish')
      expect(await stream.field('a')).toBe(1)
      await turn()
      expect(error).not.toHaveBeenCalled()
    },
  )

  test('stays as it ended, however often it is cancelled, and whenever', async () => {
    const whole = streamOf([[start, text('Hello'), finish('stop')]])
    const response = await whole.final()
    whole.abort(reason)
    expect(await whole.final()).toBe(response)

    const stream = streamOf(hanging(start))
    void stream.final()
    await turn()
    stream.abort(reason)
    stream.abort('again')
    const error = await expectAborted(stream, reason)
    stream.abort('again')
    expect(await rejectionOf(stream.final())).toBe(error)
  })

  test('while a validator takes its time ends at once, be it by abort() or by the signal', async () => {
    const slow = tool({ name: 'answer', validate: () => new Promise<never>(() => undefined) })
    const controller = new AbortController()
    for (const cancel of [
      (stream: ReturnType<typeof streamOf>) => stream.abort(reason),
      () => controller.abort(reason),
    ]) {
      const script = [[start, ...call('1', '{}'), finish()]]
      const stream = streamOf(script, { tools: [slow], signal: controller.signal })
      const final = stream.final()
      await turn()
      cancel(stream)
      expect(await rejectionOf(final)).toMatchObject({ code: 'aborted', reason, phase: 'validate' })
    }
    expect(getEventListeners(controller.signal, 'abort')).toHaveLength(0)
  })

  describe('by a signal', () => {
    test('that had fired already sends nothing', async () => {
      const provider = scriptedProvider([[start, finish('stop')]])
      const stream = streamOf(provider, { signal: AbortSignal.abort(reason) })
      const { items, error } = await collectUntilError(stream)
      expect(items).toEqual([])
      expect(await expectAborted(stream, reason)).toBe(error)
      expect(provider.requests).toEqual([])
    })

    test('that fires before the start sends nothing', async () => {
      const controller = new AbortController()
      const provider = scriptedProvider([[start, finish('stop')]])
      const stream = streamOf(provider, { signal: controller.signal })
      controller.abort(reason)
      await expectAborted(stream, reason)
      expect(provider.requests).toEqual([])
    })

    test('in the middle ends the loop with the error', async () => {
      const controller = new AbortController()
      const provider = hanging(start, text('Hello'))
      const stream = streamOf(provider, { signal: controller.signal })
      const collected = collectUntilError(stream)
      await turn()
      controller.abort(reason)
      const { items, error } = await collected
      expect(items.map(({ type }) => type)).toEqual(['start', 'text-delta'])
      expect(await expectAborted(stream, reason)).toBe(error)
      expect(provider.signal!.aborted).toBe(true)
    })

    test('keeps the reason of a timeout', async () => {
      const signal = AbortSignal.timeout(1)
      const error = await rejectionOf(streamOf(hanging(start), { signal }).final())
      expect(error).toMatchObject({ name: 'AbortError', reason: { name: 'TimeoutError' } })
    })

    test('through the SDK stops the request', async () => {
      const controller = new AbortController()
      const stream = clientOf(simulate('Hello there', { delayMs: 60_000 })).stream({
        messages,
        signal: controller.signal,
      })
      stream.on('start', () => controller.abort(reason))
      expect(await rejectionOf(stream.final())).toMatchObject({ code: 'aborted', reason, provider: 'anthropic' })
    })

    test.each([
      ['is never used', () => undefined],
      ['is looped over to its end', (stream) => collect(stream)],
      ['fails', (stream) => rejectionOf(stream.final()), [[start]]],
      ['is aborted', (stream) => (void stream.final(), turn().then(() => stream.abort())), hanging(start)],
      [
        'is left',
        async (stream) => {
          for await (const _ of stream) break
        },
      ],
      [
        'has its only view left',
        async (stream) => {
          for await (const _ of stream.textStream) break
        },
      ],
    ] as [string, (stream: ReturnType<typeof streamOf>) => unknown, Parameters<typeof streamOf>[0]?][])(
      'is rid of its listener when the run %s',
      async (_, use, script = reads(start, text('Hello'), text('you'), finish('stop'))) => {
        const { signal } = new AbortController()
        await use(streamOf(script, { signal }))
        expect(getEventListeners(signal, 'abort')).toHaveLength(0)
      },
    )

    test('has one listener while the run goes on', async () => {
      const { signal } = new AbortController()
      const stream = streamOf(hanging(start), { signal })
      await stream[Symbol.asyncIterator]().next()
      expect(getEventListeners(signal, 'abort')).toHaveLength(1)
      stream.abort()
    })
  })

  describe('by leaving its loop', () => {
    const leaving: [string, (stream: ReturnType<typeof streamOf>) => Promise<unknown>][] = [
      [
        'break',
        async (stream) => {
          for await (const _ of stream) break
        },
      ],
      [
        'return',
        async (stream) => {
          for await (const event of stream) return event
          return undefined
        },
      ],
      [
        'an error in its body',
        async (stream) => {
          const fault = new Error('body')
          const error = await rejectionOf(
            (async () => {
              for await (const _ of stream) throw fault
            })(),
          )
          expect(error).toBe(fault)
        },
      ],
    ]
    test.each(leaving)('with %s closes the connection, and final() says why', async (_, leave) => {
      const provider = hanging(start, text('Hello'))
      const stream = streamOf(provider)
      const final = stream.final()
      await leave(stream)
      expect(provider.signal!.aborted).toBe(true)
      expect(await rejectionOf(final)).toMatchObject({ code: 'aborted', reason: 'consumer_return' })
    })

    test('after the end changes nothing', async () => {
      const stream = streamOf([[start, text('Hello'), finish('stop')]])
      for await (const { type } of stream) if (type === 'finish') break
      expect((await stream.final()).text).toBe('Hello')
    })

    test('answers a read that is waiting', async () => {
      const stream = streamOf(hanging(start))
      const loop = stream[Symbol.asyncIterator]()
      await loop.next()
      const [first, second] = [loop.next(), loop.next()]
      await loop.return!()
      expect(await Promise.all([first, second])).toEqual([
        { value: undefined, done: true },
        { value: undefined, done: true },
      ])
    })
  })
})

describe('middleware', () => {
  const script = [[start, text('Hello'), finish('stop')]]

  test('stands in the order it is listed, the first outermost', async () => {
    const log: string[] = []
    const logging =
      (name: string): Middleware =>
      (next) =>
      (request, context) => ({
        async *[Symbol.asyncIterator]() {
          log.push(`${name} in`)
          for await (const event of next(request, context)) {
            if (event.type === 'text-delta') log.push(`${name} ${event.delta}`)
            yield event
          }
          log.push(`${name} out`)
        },
      })
    const stream = streamOf(script, {}, { middleware: [logging('a'), logging('b')] })
    expect(log).toEqual([])
    await stream.final()
    await turn()
    expect(log).toEqual(['a in', 'b in', 'b Hello', 'a Hello', 'b out', 'a out'])
  })

  test('may change the request', async () => {
    const provider = scriptedProvider(script)
    const louder: Middleware = (next) => (request, context) => next({ ...request, system: 'LOUD' }, context)
    await streamOf(provider, { system: 'quiet' }, { middleware: [louder] }).final()
    expect(provider.requests).toMatchObject([{ system: 'LOUD', messages }])
  })

  test('may change the events', async () => {
    const louder: Middleware = (next) => (request, context) => ({
      async *[Symbol.asyncIterator]() {
        for await (const event of next(request, context))
          yield event.type === 'text-delta' ? { ...event, delta: event.delta.toUpperCase() } : event
      },
    })
    expect((await streamOf(script, {}, { middleware: [louder] }).final()).text).toBe('HELLO')
  })

  test('may answer by itself', async () => {
    const provider = scriptedProvider(script)
    const cached: Middleware = () =>
      async function* () {
        yield* await Promise.resolve([start, text('Cached'), finish('stop')])
      }
    const stream = streamOf(provider, {}, { middleware: [cached] })
    expect((await collect(stream)).map(({ type }) => type)).toEqual(['start', 'text-delta', 'finish'])
    expect((await stream.final()).text).toBe('Cached')
    expect(provider.requests).toEqual([])
  })

  test('may be a plain generator: a loop still reads at its own pace, and leaving it closes the connection', async () => {
    const plain: Middleware = (next) =>
      async function* (request, context) {
        yield* next(request, context)
      }
    const provider = scriptedProvider(reads(start, text('Hello'), text('you'), finish('stop')))
    const seen: string[] = []
    for await (const { type } of streamOf(provider, {}, { middleware: [plain] })) {
      seen.push(type)
      if (seen.length === 2) break
    }
    expect(seen).toEqual(['start', 'text-delta'])
    await turn()
    expect(provider.isClosed).toBe(true)

    const failing = streamOf(reads(start), {}, { middleware: [plain] })
    expect(await rejectionOf(failing.final())).toMatchObject({ code: 'stream_truncated' })
  })

  test('that fails ends the run with a typed error', async () => {
    const bug = new Error('bug')
    const broken: Middleware = () => () => {
      throw bug
    }
    expect(await rejectionOf(streamOf(script, {}, { middleware: [broken] }).final())).toMatchObject({
      code: 'provider_error',
      cause: bug,
    })
  })

  test('is given a signal of its own for each run', async () => {
    const signals: AbortSignal[] = []
    const watching: Middleware = (next) => (request, context) => {
      expect(context.attempt).toBe(1)
      signals.push(context.signal)
      return next(request, context)
    }
    const { signal } = new AbortController()
    const client = new StreamingLLMClient({ provider: scriptedProvider(script), middleware: [watching] })
    await client.stream({ messages, signal }).final()
    await client.stream({ messages, signal }).final()
    expect(new Set([...signals, signal]).size).toBe(3)
  })
})

describe('over a real connection', () => {
  let server: Server
  let baseURL: string
  let sockets = 0
  let closed = Promise.withResolvers<undefined>()

  const frames = (() => {
    const { body, reads } = simulate('Hello there, and welcome.', { deltaChars: 2 })({
      url: '',
      method: 'POST',
      headers: new Headers(),
      body: { stream: true },
    })
    let end = 0
    return reads!.map((length) => (body as string).slice(end, (end += length)))
  })()

  beforeAll(async () => {
    server = createServer((request, response) => {
      request.resume()
      request.socket.once('close', () => closed.resolve(undefined))
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      const { 'x-then': then } = request.headers
      if (then) {
        response.write(frames.slice(0, 6).join(''))
        if (then === 'nonsense') response.write('data: {nonsense}\n\n')
      } else {
        // The end of the body comes after the evidence, as from a real service.
        response.write(frames.join(''))
        setTimeout(() => response.end(), 5)
      }
    })
    server.on('connection', () => sockets++)
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    baseURL = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  })

  afterAll(() => {
    server.closeAllConnections()
    server.close()
  })

  const clientWith = (headers: Record<string, string> = {}): StreamingLLMClient =>
    new StreamingLLMClient({
      provider: anthropic({ model: 'claude-sonnet-4-5', apiKey: 'none', baseURL, headers }),
    })

  test.each([
    ['abort()', 'silence', (stream) => stream.once('text-delta', () => stream.abort()).final()],
    [
      'break',
      'silence',
      async (stream) => {
        for await (const { type } of stream) if (type === 'text-delta') break
        return stream.final()
      },
    ],
    ['a broken stream', 'nonsense', (stream) => stream.final()],
  ] as [string, string, (stream: ReturnType<typeof streamOf>) => Promise<unknown>][])(
    '%s closes it within 100 ms',
    async (_, then, end) => {
      closed = Promise.withResolvers()
      const stream = clientWith({ 'x-then': then }).stream({ messages })
      expect(isLLMError(await rejectionOf(end(stream)))).toBe(true)
      const before = performance.now()
      await closed.promise
      expect(performance.now() - before).toBeLessThan(100)
    },
  )

  test('a finished answer leaves it open for the next request', async () => {
    const client = clientWith()
    await client.stream({ messages }).final()
    // Long enough for the end of the body, which final() does not wait for.
    await new Promise((resolve) => setTimeout(resolve, 40))
    const before = sockets
    expect((await client.stream({ messages }).final()).text).toBe('Hello there, and welcome.')
    expect(sockets).toBe(before)
  })
})
