import fc from 'fast-check'
import KeyvRedis from '@keyv/redis'
import {
  cache,
  type CacheOptions,
  ConsumerError,
  fallback,
  type LLMError,
  type LLMRequest,
  type LLMResponse,
  type Middleware,
  rateLimit,
  retry,
  StreamError,
  type StreamEvent,
  StreamingLLMClient,
  type StreamRequest,
  tool,
  UsageError,
} from 'fieldstream'
import { Keyv } from 'keyv'
import { afterEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import { z } from 'zod'
import { hasRedis, startRedis } from './redis-server.ts'
import {
  call,
  collect,
  collectUntilError,
  finish,
  input,
  inputEnd,
  inputStart,
  reasoning,
  rejectionOf,
  type Script,
  scriptedProvider,
  start,
  streamOf,
  text,
  thrownBy,
  turn,
  until,
} from './support.ts'

afterEach(() => void vi.useRealTimers())

const answer = tool({ name: 'answer', input: z.object({ text: z.string() }) })
const other = tool({ name: 'other', input: z.object({}).loose() })
const hello: readonly (readonly StreamEvent[])[] = [[start, text('Hel')], [text('lo '), text('you')], [finish('stop')]]

/** A client with a cache, its provider, and what went wrong. */
function cached(script: Script, options: CacheOptions = {}, around: readonly Middleware[] = []) {
  const provider = scriptedProvider(script)
  const errors: { readonly error: unknown; readonly operation: string }[] = []
  const middleware = [
    ...around,
    cache({
      store: new Map<string, string>(),
      onError: (error, operation) => errors.push({ error, operation }),
      ...options,
    }),
  ]
  /** What the client's `onError` is told. */
  const told: LLMError[] = []
  const client = new StreamingLLMClient({ provider, middleware, onError: (error) => told.push(error) })
  const ask = (request: Partial<StreamRequest> = {}) =>
    client.stream({ messages: [{ role: 'user', content: 'Hello' }], ...request })
  return { provider, errors, told, ask }
}

/** Waits until what follows a success is done. */
const stored = async (): Promise<void> => {
  for (let i = 0; i < 5; i++) await turn()
}

/** The answer without what differs between two runs. */
const comparable = ({ metrics: _, ...response }: LLMResponse): unknown => response

describe('an answer that was given before', () => {
  test('comes again from memory, each part in one delta, marked, without a call', async () => {
    const provider = scriptedProvider(hello)
    const options = { middleware: [cache()] }
    const first = await streamOf(provider, {}, options).final()
    const client = new StreamingLLMClient({ provider, ...options })
    expect(first.metrics.cached).toBe(false)
    await stored()
    const { pulls } = provider
    const stream = client.stream({ messages: [{ role: 'user', content: 'Hello' }] })
    const events = await collect(stream)
    const again = await stream.final()
    expect(events.map(({ type }) => type)).toEqual(['start', 'text-delta', 'finish'])
    expect(events[0]).toMatchObject({ cached: true, attempt: 1 })
    expect(events[1]).toMatchObject({ delta: 'Hello you' })
    expect(again.metrics).toMatchObject({ cached: true, attempts: 1 })
    expect(comparable(again)).toEqual(comparable(first))
    expect(provider.pulls).toBe(pulls)
  })

  test('comes in one delta whatever the deltas are batched by', async () => {
    const { ask } = cached([[start, text('One. '), text('Two. Th')], [text('ree.')], [finish('stop')]], {}, [retry()])
    const deltasOf = async (request: Partial<StreamRequest> = {}): Promise<string[]> =>
      (await collect(ask(request))).flatMap((event) => (event.type === 'text-delta' ? [event.delta] : []))
    const batches: StreamRequest['batch'][] = [{ at: 'sentence' }, { at: 'word' }, { chars: 4 }, { deltas: 3 }]
    expect((await deltasOf({ batch: { at: 'sentence' } })).length).toBeGreaterThan(1)
    await stored()
    for (const batch of batches) expect(await deltasOf({ batch })).toEqual(['One. Two. Three.'])
  })

  test('comes with its calls in order, those written in turns joined', async () => {
    const { ask, provider } = cached([
      [
        start,
        reasoning('a'),
        reasoning('b'),
        { type: 'part-end', kind: 'reasoning', metadata: { scripted: { sign: 1 } } },
      ],
      [text('x'), inputStart('1'), input('1', '{"te')],
      [inputStart('2', 'other'), input('2', '{'), input('1', 'xt":"🎉"}'), inputEnd('1')],
      [input('2', '}'), inputEnd('2'), finish()],
    ])
    const request = { tools: [answer, other], fields: { text: { path: 'text', tool: 'answer' } } }
    const first = await ask(request).final()
    await stored()
    const stream = ask(request)
    const deltas = (await collect(stream)).filter((event) => 'delta' in event)
    expect(deltas.map(({ type, delta }) => `${type} ${delta}`)).toEqual([
      'reasoning-delta ab',
      'text-delta x',
      'tool-input-delta {"text":"🎉"}',
      'field-delta 🎉',
      'tool-input-delta {}',
    ])
    expect(comparable(await stream.final())).toEqual(comparable(first))
    expect(provider.requests).toHaveLength(1)
  })

  test('of an attempt that followed others is the whole story', async () => {
    let attempts = 0
    const provider = scriptedProvider(async function* () {
      await turn()
      yield [start, text('bad')]
      if (++attempts === 1) throw new StreamError('stream_truncated', 'cut', { retryable: true })
      yield [text('ter'), finish('stop')]
    })
    const client = new StreamingLLMClient({
      provider,
      middleware: [cache({ store: new Map() }), retry({ baseDelay: 0 })],
    })
    const run = () => client.stream({ messages: [{ role: 'user', content: 'Hello' }], onInterrupted: 'restart' })
    expect((await collect(run())).some(({ type }) => type === 'restart')).toBe(true)
    await stored()
    const events = await collect(run())
    expect(events.map(({ type }) => type)).toEqual(['start', 'text-delta', 'finish'])
    expect(events[0]).toMatchObject({ cached: true, attempt: 1 })
  })

  test.each<[string, Script, Partial<StreamRequest>]>([
    ['was cut', [[start, text('Hel'), finish('length')]], {}],
    ['was refused', [[start, text('No'), finish('refusal')]], {}],
    ['is to go on', [[start, text('Wait'), finish('pause')]], {}],
    ['is empty', [[start, finish('stop')]], {}],
    ['is against its schema', [[start, ...call('1', '{"text":5}'), finish()]], { tools: [answer] }],
    ['has no evidence', [[start, text('Hello')]], {}],
    ['is asked for with raw events', hello, { raw: true }],
    ['is asked for without a cache', hello, { cache: false }],
    [
      'is not to be had from JSON',
      [
        [
          start,
          { type: 'part', part: { type: 'provider', provider: 'scripted', value: { bytes: new Uint8Array(2) } } },
          text('x'),
          finish('stop'),
        ],
      ],
      {},
    ],
    ['is too long', hello, { metadata: { maxLength: 5 } }],
  ])('is not kept where it %s', async (_, script, request) => {
    const set = vi.fn()
    const { ask, provider, errors } = cached(script, {
      store: { get: () => undefined, set },
      ...(request.metadata && { maxLength: 5 }),
    })
    await rejectionOf(ask(request).final())
    await stored()
    await rejectionOf(ask(request).final())
    expect(set).not.toHaveBeenCalled()
    expect(provider.requests).toHaveLength(2)
    expect(errors).toEqual([])
  })

  test('is not kept where the run was cancelled', async () => {
    const set = vi.fn()
    const { ask } = cached(hello, { store: { get: () => undefined, set } })
    for await (const event of ask()) if (event.type === 'text-delta') break
    await stored()
    expect(set).not.toHaveBeenCalled()
  })
})

describe('the key', () => {
  /** Whether the second request is answered from the cache of the first. */
  async function isShared(
    first: Partial<StreamRequest>,
    second: Partial<StreamRequest>,
    options: CacheOptions = {},
  ): Promise<boolean> {
    const { ask, provider } = cached(hello, options)
    await ask(first).final()
    await stored()
    await ask(second).final()
    return provider.requests.length === 1
  }
  const picture = (data: Uint8Array): Partial<StreamRequest> => ({
    messages: [{ role: 'user', content: [{ type: 'image', data, mediaType: 'image/png' }] }],
  })
  const described = (description: string) =>
    tool({ name: 'answer', description, input: z.object({ text: z.string() }) })
  test.each<[string, Partial<StreamRequest>, Partial<StreamRequest>]>([
    ['messages', {}, { messages: [{ role: 'user', content: 'Bye' }] }],
    ['pictures', picture(new Uint8Array([1, 2])), picture(new Uint8Array([1, 3]))],
    ['system', {}, { system: 'Be brief.' }],
    ['tools', {}, { tools: [answer] }],
    ["a tool's description", { tools: [described('a')] }, { tools: [described('b')] }],
    [
      "a tool's schema",
      { tools: [answer] },
      { tools: [tool({ name: 'answer', input: z.object({ text: z.number() }) })] },
    ],
    ['toolChoice', { tools: [answer] }, { tools: [answer], toolChoice: 'none' }],
    ['toolInput', { tools: [answer] }, { tools: [answer], toolInput: 'xml' }],
    ['maxTokens', {}, { maxTokens: 5 }],
    ['temperature', { temperature: 0 }, { temperature: 1 }],
    ['topP', {}, { topP: 0.5 }],
    ['stop', {}, { stop: ['END'] }],
    ['reasoning', {}, { reasoning: { effort: 'low' } }],
    ['providerOptions', {}, { providerOptions: { scripted: { seed: 1 } } }],
  ])('tells apart: %s', async (_, first, second) => {
    expect(await isShared(first, second)).toBe(false)
    expect(await isShared(first, first)).toBe(true)
  })

  test('is the same in whatever order options are written, and whatever no model sees', async () => {
    const one = { providerOptions: { scripted: { a: 1, b: undefined, c: [1, { d: 2, e: 3 }] } }, metadata: { id: 1 } }
    const two = {
      metadata: { id: 2 },
      onInterrupted: 'restart',
      providerOptions: { scripted: { c: [1, { e: 3, d: 2 }], a: 1 } },
    } as const
    expect(await isShared(one, two)).toBe(true)
  })

  test('tells apart output schemas', async () => {
    const { ask, provider } = cached([[start, text('{"a":1}'), finish('stop')]])
    await ask({ output: z.object({ a: z.number() }) }).final()
    await stored()
    await ask({ output: z.object({ a: z.number().max(5) }) }).final()
    expect(provider.requests).toHaveLength(2)
  })

  test('tells apart providers and models that share a store', async () => {
    const store = new Map<string, string>()
    const one = scriptedProvider(hello)
    const model = { ...scriptedProvider(hello), model: 'scripted-2' }
    const name = { ...scriptedProvider(hello), name: 'written' }
    for (const provider of [one, model, name, fallback(one, model)]) {
      await streamOf(provider, {}, { middleware: [cache({ store })] }).final()
      await stored()
    }
    expect(store.size).toBe(4)
  })

  test('tells tenants apart, also where `key` replaces all else', async () => {
    const scope = ({ metadata }: LLMRequest): unknown => metadata?.['tenant']
    const of = (tenant?: string): Partial<StreamRequest> => ({ metadata: { tenant } })
    for (const options of [{ scope }, { scope, key: () => 'same' }]) {
      expect(await isShared(of('a'), of('b'), options)).toBe(false)
      expect(await isShared(of('a'), of('a'), options)).toBe(true)
      // Nobody knows whose it is.
      expect(await isShared(of(), of(), options)).toBe(false)
    }
    expect(await isShared({}, {}, { scope: 'all' })).toBe(true)
  })

  test('can be added to, replaced, or withheld', async () => {
    const bye: Partial<StreamRequest> = { messages: [{ role: 'user', content: 'Bye' }] }
    expect(await isShared({}, bye, { key: () => 'same' })).toBe(true)
    expect(
      await isShared(
        { metadata: { v: 1 } },
        { metadata: { v: 2 } },
        { key: (parts, { metadata }) => ({ ...parts, metadata }) },
      ),
    ).toBe(false)
    expect(await isShared({}, {}, { key: () => undefined })).toBe(false)
  })

  test.each<[string, CacheOptions, Partial<StreamRequest>]>([
    [
      '`key` throws',
      {
        key: () => {
          throw new Error('no')
        },
      },
      {},
    ],
    [
      '`scope` throws',
      {
        scope: () => {
          throw new Error('no')
        },
      },
      {},
    ],
    ['`scope` is no text', { scope: () => 5 }, {}],
    ['a request holds what has no equal', {}, { providerOptions: { scripted: { hook: () => 1 } } }],
    ['a request holds an instance', {}, { providerOptions: { scripted: { map: new Map() } } }],
  ])('costs no answer where %s', async (_, options, request) => {
    const { ask, errors, told, provider } = cached(hello, options)
    for (let i = 0; i < 2; i++) expect((await ask(request).final()).text).toBe('Hello you')
    expect(errors.map(({ operation }) => operation)).toEqual(['key', 'key'])
    expect(told[0]).toMatchObject({ message: '`key of cache()` failed; the run goes on. See `cause`.' })
    expect(provider.requests).toHaveLength(2)
  })
})

describe('a store that does not do its work costs no answer', () => {
  const fails = (): never => {
    throw new Error('down')
  }
  test.each<[string, CacheOptions['store'], string[]]>([
    ['throws', { get: fails, set: fails }, ['get', 'set']],
    [
      'rejects',
      { get: () => Promise.reject(new Error('down')), set: () => Promise.reject(new Error('down')) },
      ['get', 'set'],
    ],
  ])('%s', async (_, store, operations) => {
    const { ask, errors, told } = cached(hello, { store })
    expect((await ask().final()).text).toBe('Hello you')
    await stored()
    expect(errors.map(({ operation }) => operation)).toEqual(operations)
    expect(told.map(({ message }) => message)).toEqual(
      operations.map((operation) => `\`store.${operation} of cache()\` failed; the run goes on. See \`cause\`.`),
    )
    expect(told.map(({ cause }) => cause)).toEqual(errors.map(({ error }) => error))
    // A hook that fails is no concern of the run either.
    expect((await cached(hello, { store, onError: fails }).ask().final()).text).toBe('Hello you')
  })

  test.each<[string, () => unknown]>([
    ['a promise', () => new Promise(() => undefined)],
    ["a promise that is not the engine's", () => ({ then: () => undefined })],
  ])('hangs with %s: one limit for both ways', async (_, hanging) => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
    const get = vi.fn(hanging)
    const set = vi.fn(hanging)
    const { ask, errors } = cached(hello, { store: { get, set } })
    const final = ask().final()
    // The key is hashed elsewhere.
    while (get.mock.calls.length === 0) await turn()
    await vi.advanceTimersByTimeAsync(249)
    expect(errors).toEqual([])
    await vi.advanceTimersByTimeAsync(1)
    expect((await final).text).toBe('Hello you')
    await vi.advanceTimersByTimeAsync(0)
    expect(errors.map(({ operation }) => operation)).toEqual(['get', 'set'])
    expect(errors[0]!.error).toMatchObject({ name: 'TimeoutError', timeoutMs: 250 })
    // It has had its time.
    expect(set).not.toHaveBeenCalled()
    expect(vi.getTimerCount()).toBe(0)
  })

  test('hangs while the run is cancelled: no call is made afterwards', async () => {
    const got = Promise.withResolvers<undefined>()
    const { ask, provider } = cached(hello, { store: { get: () => got.promise, set: () => undefined } })
    const stream = ask()
    const failed = rejectionOf(stream.final())
    await stored()
    stream.abort()
    got.resolve(undefined)
    expect(await failed).toMatchObject({ code: 'aborted' })
    await stored()
    expect(provider.requests).toHaveLength(0)
  })

  test('hangs only in writing: nobody waits', async () => {
    const { ask } = cached(hello, { store: { get: () => undefined, set: () => new Promise(() => undefined) } })
    expect((await ask().final()).text).toBe('Hello you')
  })

  const good = { version: 1, events: [start, text('x'), finish('stop')] as unknown[] }
  const withEvents = (...events: unknown[]): string => JSON.stringify({ ...good, events })
  test.each<[string, unknown]>([
    ['a number', 5],
    ['an object', { version: 1, events: [] }],
    ['no JSON', '{"version":1,'],
    ['JSON null', 'null'],
    ['no version', JSON.stringify({ ...good, version: undefined })],
    ['an end of no time', JSON.stringify({ ...good, expires: 'soon' })],
    ['no events', withEvents()],
    ['no finish', withEvents(start, text('x'))],
    ['something after the finish', withEvents(start, finish('stop'), text('x'))],
    ['two starts', withEvents(start, start, text('x'), finish('stop'))],
    ['no start', withEvents(text('x'), finish('stop'))],
    ['an event of another kind', withEvents(start, { type: 'restart' }, finish('stop'))],
    ['a delta without text', withEvents(start, { type: 'text-delta' }, finish('stop'))],
    ['an answer that was cut', withEvents(start, text('x'), finish('length'))],
    ['a finish without usage', withEvents(start, text('x'), { ...finish('stop'), usage: {} })],
    ['a call of a tool that is not offered', withEvents(start, ...call('1', '{}', 'gone'), finish())],
    ['a call that is not whole', withEvents(start, inputStart('1'), input('1', '{"text":"x"}'), finish())],
    ['arguments that are no JSON', withEvents(start, ...call('1', '{"text"'), finish())],
    ['arguments of nobody', withEvents(start, input('1', '{}'), finish())],
    ['an event that is none', withEvents(start, null, finish('stop'))],
  ])('holds junk: %s', async (_, junk) => {
    const { ask, provider, errors, told } = cached(hello, { store: { get: () => junk, set: () => undefined } })
    const response = await ask({ tools: [answer] }).final()
    expect(response.text).toBe('Hello you')
    expect(provider.requests).toHaveLength(1)
    expect(errors).toEqual([{ operation: 'get', error: expect.any(ConsumerError) as unknown }])
    expect(told.map(({ cause }) => cause)).toEqual([errors[0]!.error])
  })

  test.each<[string, unknown]>([
    ['nothing', undefined],
    ['null', null],
    ['what is left where it cannot delete', ''],
    ['an answer of another version', JSON.stringify({ ...good, version: 2, events: 'x' })],
    ['an answer that is too old', JSON.stringify({ ...good, expires: 1 })],
  ])('has %s, which is nothing to report', async (_, entry) => {
    const { ask, provider, told } = cached(hello, { store: { get: () => entry, set: () => undefined } })
    expect((await ask().final()).text).toBe('Hello you')
    expect(provider.requests).toHaveLength(1)
    expect(told).toEqual([])
  })

  test.each<[string, number, CacheOptions]>([
    ['an hour', 3_600_000, {}],
    ['`ttl`', 500, { ttl: 500 }],
  ])('takes no heed of the time: an answer is still good for %s only', async (_, ttl, options) => {
    vi.useFakeTimers({ toFake: ['Date'] })
    const { ask } = cached(hello, options)
    const isCached = async (): Promise<boolean> => {
      const { metrics } = await ask().final()
      await stored()
      return metrics.cached
    }
    expect(await isCached()).toBe(false)
    vi.setSystemTime(Date.now() + ttl - 1)
    expect(await isCached()).toBe(true)
    vi.setSystemTime(Date.now() + 1)
    expect(await isCached()).toBe(false)
    // The new answer took the place of the old.
    expect(await isCached()).toBe(true)
  })

  test('takes no heed of the time, and has none to heed with `ttl: false`', async () => {
    vi.useFakeTimers({ toFake: ['Date'] })
    const { ask } = cached(hello, { ttl: false })
    await ask().final()
    await stored()
    vi.setSystemTime(Date.now() * 2)
    expect((await ask().final()).metrics.cached).toBe(true)
  })

  test('and what junk is tested with is good but for its fault', async () => {
    const { ask, provider } = cached(hello, { store: { get: () => JSON.stringify(good), set: () => undefined } })
    expect((await ask().final()).text).toBe('x')
    expect(provider.requests).toHaveLength(0)
  })

  test('an answer of the cache is validated like any other', async () => {
    const entry = withEvents(start, ...call('1', '{"text":5}'), finish())
    const { ask } = cached(hello, { store: { get: () => entry, set: () => undefined } })
    expect(await rejectionOf(ask({ tools: [answer] }).final())).toMatchObject({ code: 'schema_mismatch' })
  })

  test.each([
    ['deleted', new Map<string, string>()],
    ['overwritten where the store cannot delete', undefined],
  ])('an answer that its validator refuses by now is asked for anew: %s', async (_, map) => {
    const entries = new Map<string, string>()
    const store = map ?? {
      get: (key: string) => entries.get(key),
      set: (key: string, value: string) => entries.set(key, value),
    }
    let isStrict = false
    const rule = z.object({ text: z.string() }).refine(() => !isStrict)
    const script = [[start, ...call('1', '{"text":"x"}'), finish()]]
    const { ask, provider, errors } = cached(script, { store })
    const request = { tools: [tool({ name: 'answer', input: rule })] }
    await ask(request).final()
    await stored()
    isStrict = true
    expect(await rejectionOf(ask(request).final())).toMatchObject({ code: 'schema_mismatch' })
    await stored()
    isStrict = false
    expect((await ask(request).final()).metrics.cached).toBe(false)
    expect(provider.requests).toHaveLength(2)
    expect(errors).toEqual([])
  })
})

describe('equal requests at the same time', () => {
  /** A script that goes on when it is told to. */
  function stepwise() {
    const steps = Array.from({ length: 4 }, () => Promise.withResolvers<undefined>())
    const script: Script = async function* ({ signal }) {
      const aborted = new Promise<never>((_, reject) => {
        signal.addEventListener('abort', () => reject(new Error('aborted')))
      })
      aborted.catch(() => undefined)
      yield [start, text('a')]
      for (const [i, { promise }] of steps.entries()) {
        await Promise.race([promise, aborted])
        yield i === 3 ? [text('e'), finish('stop')] : [text('bcd'[i]!)]
      }
    }
    return { steps, script }
  }
  const textOf = (events: readonly { type: string; delta?: string }[]): string =>
    events.map((event) => (event.type === 'text-delta' ? event.delta : '')).join('')

  test('cost one call, and each sees it live', async () => {
    const { steps, script } = stepwise()
    const set = vi.fn()
    const { ask, provider } = cached(script, { store: { get: () => undefined, set } })
    const seen: string[][] = [[], [], []]
    const run = (i: number) => {
      const stream = ask()
      stream.on('text-delta', ({ delta }) => seen[i]!.push(delta))
      return stream.final()
    }
    const finals = [run(0), run(1)]
    await until(() => seen[1]!.length === 1)
    steps[0]!.resolve(undefined)
    await until(() => seen[1]!.length === 2)
    expect(seen).toEqual([['a', 'b'], ['a', 'b'], []])
    finals.push(run(2))
    await until(() => seen[2]!.length === 1)
    for (const step of steps) step.resolve(undefined)
    const responses = await Promise.all(finals)
    expect(responses.map((response) => response.text)).toEqual(['abcde', 'abcde', 'abcde'])
    // What the last one missed came joined.
    expect(seen).toEqual([
      ['a', 'b', 'c', 'd', 'e'],
      ['a', 'b', 'c', 'd', 'e'],
      ['ab', 'c', 'd', 'e'],
    ])
    expect(provider.requests).toHaveLength(1)
    await stored()
    expect(set).toHaveBeenCalledTimes(1)
  })

  test('are marked as cached but for the first, which alone waited for its turn', async () => {
    const hits = vi.fn()
    const limit = rateLimit({ requests: 1, per: 300 })
    const provider = scriptedProvider(hello)
    const middleware = [cache({ store: new Map<string, string>() }), limit]
    const client = new StreamingLLMClient({ provider, middleware, onCacheHit: hits })
    const ask = (content = 'Hello') => client.stream({ messages: [{ role: 'user', content }] })
    await ask('First').final()
    const streams = [ask(), ask()]
    const starts = streams.map(async (stream) => (await collect(stream))[0])
    const responses = await Promise.all(streams.map((stream) => stream.final()))
    // Which of them began the call is a matter of luck.
    const [leader, follower] = responses.sort((a, b) => Number(a.metrics.cached) - Number(b.metrics.cached))
    const marks = (await Promise.all(starts)).map((event) => event?.type === 'start' && event.cached)
    expect(marks.sort()).toEqual([false, true])
    expect(leader!.metrics).toMatchObject({ cached: false, outputTokensPerSecond: expect.any(Number) as number })
    expect(leader!.metrics.queuedMs).toBeGreaterThan(0)
    expect(follower!.metrics).toMatchObject({ cached: true, queuedMs: 0, outputTokensPerSecond: undefined })
    expect(hits).toHaveBeenCalledTimes(1)
    expect(provider.requests).toHaveLength(2)
  })

  test('the others go on when the first leaves, and what they get is kept', async () => {
    const { steps, script } = stepwise()
    const set = vi.fn()
    const { ask, provider } = cached(script, { store: { get: () => undefined, set } })
    const first = ask()
    const second = ask()
    const [failed, final] = [rejectionOf(first.final()), second.final()]
    await until(() => first.snapshot().text === 'a' && second.snapshot().text === 'a')
    first.abort('stop')
    expect(await failed).toMatchObject({ code: 'aborted' })
    expect(provider.isClosed).toBe(false)
    for (const step of steps) step.resolve(undefined)
    expect((await final).text).toBe('abcde')
    await stored()
    expect(set).toHaveBeenCalledTimes(1)
    expect(provider.requests).toHaveLength(1)
  })

  test('no more than the same time: who comes after the end gets what is kept, though the source is not closed yet', async () => {
    const closing = Promise.withResolvers<undefined>()
    const { ask, provider } = cached(async function* () {
      yield* hello
      await closing.promise
    })
    await ask().final()
    await stored()
    expect(provider.isClosed).toBe(false)
    expect((await ask().final()).metrics.cached).toBe(true)
    closing.resolve(undefined)
    await until(() => provider.isClosed)
  })

  test('the call is cancelled when all have left, and the next request makes its own', async () => {
    const { script } = stepwise()
    const { ask, provider } = cached(script)
    const streams = [ask(), ask()]
    const failed = streams.map((stream) => rejectionOf(stream.final()))
    await until(() => streams.every((stream) => stream.snapshot().text === 'a'))
    for (const stream of streams) stream.abort()
    await Promise.all(failed)
    await until(() => provider.isClosed)
    expect(provider.isClosed).toBe(true)
    const next = ask()
    const late = rejectionOf(next.final())
    await until(() => next.snapshot().text === 'a')
    expect(provider.requests).toHaveLength(2)
    next.abort()
    await late
  })

  test('a slow first does not hold up the second', async () => {
    const { steps, script } = stepwise()
    const { ask } = cached(script)
    for (const step of steps) step.resolve(undefined)
    const loop = ask()[Symbol.asyncIterator]()
    await loop.next()
    expect((await ask().final()).text).toBe('abcde')
    const rest = await collect({ [Symbol.asyncIterator]: () => loop })
    expect(textOf(rest as { type: string; delta?: string }[])).toBe('abcde')
  })

  test('each makes its own call where the first fails before anything was seen', async () => {
    let calls = 0
    const digest = vi.spyOn(crypto.subtle, 'digest')
    const script: Script = async function* () {
      const isFirst = ++calls === 1
      yield [start]
      // Once the others know that they ask for the same.
      while (digest.mock.settledResults.filter(({ type }) => type === 'fulfilled').length < 3) await turn()
      await stored()
      if (isFirst) throw new StreamError('stream_truncated', 'cut', { retryable: true })
      yield [text('x'), finish('stop')]
    }
    const { ask, provider } = cached(script)
    const results = await Promise.all([ask(), ask(), ask()].map(async (stream) => collectUntilError(stream)))
    expect(results[0]!.error).toMatchObject({ code: 'stream_truncated' })
    for (const { items, error } of results.slice(1)) {
      expect(error).toBeUndefined()
      expect(items.map(({ type }) => type)).toEqual(['start', 'text-delta', 'finish'])
      expect(items[0], 'which is the second that is made for it').toMatchObject({ attempt: 2 })
      expect(items[2]).toMatchObject({ metrics: { attempts: 2 } })
    }
    expect(provider.requests).toHaveLength(3)
  })

  test('each counts its own attempts', async () => {
    const cut = new StreamError('stream_truncated', 'cut', { retryable: true, attempt: 1 })
    const failures: unknown[] = []
    // Who comes second follows, and keys take their time.
    const [begun, joined] = [Promise.withResolvers<undefined>(), Promise.withResolvers<undefined>()]
    const shared = cache({ store: new Map() })((_, { onAttemptFailed }) =>
      (async function* () {
        begun.resolve(undefined)
        yield { ...start, attempt: 1 }
        yield text('x')
        await joined.promise
        const { provider, model } = start as { provider: string; model: string }
        onAttemptFailed?.({ attempt: 1, provider, model, error: cut, next: 'retry', delayMs: 0 })
        throw cut
      })(),
    )
    const ask = (attempt: number) => {
      const request: LLMRequest = { messages: [{ role: 'user', content: 'Hello' }] }
      const onAttemptFailed = (failure: { attempt: number }): unknown => failures.push(failure.attempt)
      const { signal } = new AbortController()
      const target = { provider: 'p', model: 'm' }
      return collectUntilError(shared(request, { signal, attempt, target, onAttemptFailed }))
    }
    const first = ask(1)
    await begun.promise
    const second = ask(3)
    setTimeout(joined.resolve, 50)
    const outcomes = await Promise.all([first, second])
    expect(outcomes.map(({ items }) => items[0])).toMatchObject([{ attempt: 1 }, { attempt: 3 }])
    expect(outcomes.map(({ error }) => (error as StreamError).attempt)).toEqual([1, 3])
    expect(failures).toEqual([1, 3])
  })

  test('each gets the error, as its own, where some was seen', async () => {
    const heard = [Promise.withResolvers<undefined>(), Promise.withResolvers<undefined>()]
    const { ask, provider } = cached(async function* () {
      yield [start, text('x')]
      await Promise.all(heard.map(({ promise }) => promise))
      throw new StreamError('stream_truncated', 'cut', { retryable: true })
    })
    const streams = heard.map(({ resolve }) => ask().once('text-delta', () => resolve(undefined)))
    const errors = await Promise.all(streams.map((stream) => rejectionOf(stream.final())))
    expect(errors[0]).not.toBe(errors[1])
    for (const error of errors) {
      expect(error).toBeInstanceOf(StreamError)
      expect(error).toMatchObject({ code: 'stream_truncated', retryable: true, partial: { text: 'x' } })
      expect(Object.keys(error as object)).not.toContain('stack')
    }
    expect(provider.requests).toHaveLength(1)
  })

  test('who is behind in an answer that outgrows its limit is told so, and gets nothing with a gap', async () => {
    const { steps, script } = stepwise()
    const { ask } = cached(script, { maxLength: 2 })
    const slow = ask()[Symbol.asyncIterator]()
    await slow.next()
    const final = ask().final()
    await stored()
    for (const step of steps) step.resolve(undefined)
    expect((await final).text).toBe('abcde')
    const { items, error } = await collectUntilError({ [Symbol.asyncIterator]: () => slow })
    expect(textOf(items as { type: string; delta?: string }[])).toBe('a')
    expect(error).toMatchObject({ code: 'limit_exceeded', limit: 'maxLength' })
  })

  test('share no call where only one allows a restart', async () => {
    const { steps, script } = stepwise()
    const { ask, provider } = cached(script, { store: { get: () => undefined, set: () => undefined } })
    const both = Promise.all([ask().final(), ask({ onInterrupted: 'restart' }).final()])
    await stored()
    for (const step of steps) step.resolve(undefined)
    await both
    expect(provider.requests).toHaveLength(2)
  })

  test('an answer that outgrows its limit is not shared with those who come late', async () => {
    const { steps, script } = stepwise()
    const { ask, provider } = cached(script, { maxLength: 2 })
    const streams = [ask(), ask()]
    const finals = streams.map((stream) => stream.final())
    await until(() => streams.every((stream) => stream.snapshot().text === 'a'))
    steps[0]!.resolve(undefined)
    steps[1]!.resolve(undefined)
    await until(() => streams.every((stream) => stream.snapshot().text === 'abc'))
    const late = ask().final()
    await until(() => provider.requests.length === 2)
    for (const step of steps) step.resolve(undefined)
    for (const { text: whole } of await Promise.all([...finals, late])) expect(whole).toBe('abcde')
    expect(provider.requests).toHaveLength(2)
  })
})

describe('with and without a cache an answer is the same', () => {
  const words = fc.string({
    unit: fc.constantFrom('a', '"', '\\', '\n', '🎉', '\ud83c', 'é'),
    minLength: 1,
    maxLength: 6,
  })
  const part = fc.oneof(
    fc.array(words, { minLength: 1, maxLength: 3 }).map((deltas) => deltas.map(text)),
    fc
      .array(words, { minLength: 1, maxLength: 3 })
      .map((deltas): StreamEvent[] => [
        ...deltas.map(reasoning),
        { type: 'part-end', kind: 'reasoning', metadata: { scripted: { signature: deltas[0] } } },
      ]),
    fc.constant<StreamEvent[]>([{ type: 'warning', warning: { code: 'unsupported', message: 'less' } }]),
    fc.constant<StreamEvent[]>([
      { type: 'usage', usage: (finish() as Extract<StreamEvent, { type: 'finish' }>).usage },
    ]),
    fc.constant<StreamEvent[]>([
      { type: 'part', part: { type: 'provider', provider: 'scripted', value: { a: [1, null] } } },
    ]),
    fc.record({ value: words, size: fc.integer({ min: 1, max: 9 }) }).map(({ value, size }): StreamEvent[] => {
      const json = JSON.stringify({ text: value })
      const deltas = Array.from({ length: Math.ceil(json.length / size) }, (_, i) =>
        json.slice(i * size, (i + 1) * size),
      )
      return [inputStart('?'), ...deltas.map((delta) => input('?', delta)), inputEnd('?')]
    }),
  )
  const script = fc
    .record({ parts: fc.array(part, { maxLength: 6 }), readSize: fc.integer({ min: 1, max: 5 }) })
    .map(({ parts, readSize }) => {
      const numbered = parts.map((events, i) =>
        events.map((event) => ('toolCallId' in event ? { ...event, toolCallId: `call-${i}` } : event)),
      )
      const events = [start, ...numbered.flat(), text('end'), finish('stop')]
      return Array.from({ length: Math.ceil(events.length / readSize) }, (_, i) =>
        events.slice(i * readSize, (i + 1) * readSize),
      )
    })

  test.each<[string, () => CacheOptions['store']]>([
    ['in a Map', () => new Map<string, string>()],
    ['in memory', () => undefined],
    ['in Keyv', () => new Keyv()],
  ])('%s', async (_, storeOf) => {
    await fc.assert(
      fc.asyncProperty(script, async (reads) => {
        const request = { tools: [answer], fields: { text: 'text' } }
        const plain = await streamOf(reads, request).final()
        const provider = scriptedProvider(reads)
        const options = { middleware: [cache({ store: storeOf(), timeout: 5000 })] }
        const client = new StreamingLLMClient({ provider, ...options })
        const ask = () => client.stream({ messages: [{ role: 'user', content: 'Hello' }], ...request })
        const both = await Promise.all([ask().final(), ask().final()])
        await stored()
        const { pulls } = provider
        const stream = ask()
        const events = await collect(stream)
        const hit = await stream.final()
        for (const response of [...both, hit]) expect(comparable(response)).toEqual(comparable(plain))
        expect(hit.metrics.cached).toBe(true)
        expect(provider.pulls).toBe(pulls)
        expect(provider.requests).toHaveLength(1)
        const calls = events.filter(({ type }) => type === 'tool-input-delta')
        expect(calls.length).toBe(plain.toolCalls.length)
      }),
      { numRuns: 60 },
    )
  })
})

describe.skipIf(!hasRedis)('on Redis', () => {
  async function redis(): Promise<{ readonly url: string; readonly stop: () => Promise<void> }> {
    const { url, stop } = await startRedis()
    onTestFinished(stop)
    return { url, stop }
  }
  function keyv(url: string): Keyv {
    const redis = new KeyvRedis(url)
    const store = new Keyv({ store: redis })
    store.on('error', () => undefined)
    // At once: there may be no server any more.
    onTestFinished(() => redis.disconnect(true))
    return store
  }

  test('an answer is shared between processes until its time is over', async () => {
    const { url } = await redis()
    const [one, two] = [keyv(url), keyv(url)]
    const script: Script = [[start, text('He"\\\ud83c'), text('llo 🎉'), ...call('1', '{"text":"x"}'), finish()]]
    const first = cached(script, { store: one, ttl: 500, timeout: 5000 })
    const second = cached(script, { store: two, ttl: 500, timeout: 5000 })
    const response = await first.ask({ tools: [answer] }).final()
    await new Promise((resolve) => setTimeout(resolve, 100))
    const again = await second.ask({ tools: [answer] }).final()
    expect(again.metrics.cached).toBe(true)
    expect(comparable(again)).toEqual(comparable(response))
    expect(second.provider.requests).toHaveLength(0)
    await new Promise((resolve) => setTimeout(resolve, 600))
    expect((await second.ask({ tools: [answer] }).final()).metrics.cached).toBe(false)
    // Until the third answer is written too.
    await new Promise((resolve) => setTimeout(resolve, 100))
    expect([...first.errors, ...second.errors]).toEqual([])
  })

  test('a Redis that goes away costs no answer, and little time', async () => {
    const { url, stop } = await redis()
    const { ask, provider } = cached(hello, { store: keyv(url) })
    await ask().final()
    await stop()
    for (let i = 0; i < 2; i++) {
      const { text: whole, metrics } = await ask().final()
      expect(whole).toBe('Hello you')
      expect(metrics.durationMs).toBeLessThan(2000)
    }
    expect(provider.requests).toHaveLength(3)
  })
})

test.each<[string, unknown]>([
  ['takes an object', 5],
  ['no option `stores`', { stores: new Map() }],
  ['`store` of cache() must have `get` and `set`', { store: {} }],
  ['cache({ store: … })', new Map()],
  ['cache({ store: … })', new Keyv()],
  ['`ttl` of cache()', { ttl: 0 }],
  ['`timeout` of cache()', { timeout: '5' }],
  ['`maxLength` of cache()', { maxLength: 0 }],
  ['`scope` of cache()', { scope: '' }],
  ['`key` of cache()', { key: 'x' }],
  ['`onError` of cache()', { onError: true }],
])('says what is wrong: %s', (message, options) => {
  const error = thrownBy(() => cache(options as CacheOptions))
  expect(error).toBeInstanceOf(UsageError)
  expect((error as UsageError).message).toContain(message)
})

test('a request says whether it wants the cache', () => {
  const error = thrownBy(() => streamOf(hello, { cache: 'no' as never }))
  expect(error).toMatchObject({ code: 'invalid_argument', message: '`cache` must be true or false.' })
})
