import { type ResponseEvent, type ResponseStream, retry, StreamError, type StreamEvent, tool } from 'fieldstream'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
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
  until,
} from './support.ts'

const fields = { a: 'a', b: 'b' }
const restart: StreamEvent = {
  type: 'restart',
  attempt: 2,
  reason: { code: 'connection', message: 'It broke off.' },
  from: { provider: 'scripted', model: 'scripted-1' },
  to: { provider: 'scripted', model: 'scripted-1' },
}

/** What a client knows that takes in events one after the other. */
class Client {
  readonly texts: Record<string, string> = {}
  /** Its texts at each event that is no delta. */
  readonly stages: unknown[] = []
  prose = ''
  seq = 0

  take(event: ResponseEvent): void {
    expect(event.seq).toBeGreaterThan(this.seq)
    this.seq = event.seq
    if (!('delta' in event)) {
      const { metrics: _, ...fact } = { metrics: undefined, ...event }
      this.stages.push({ ...this.texts }, fact)
      return
    }
    const place =
      event.type === 'field-delta'
        ? `${event.toolCallId} ${event.path}`
        : `${event.type} ${'toolCallId' in event ? event.toolCallId : ''}`
    this.texts[place] = (this.texts[place] ?? '') + event.delta
    if (event.type === 'text-delta' || event.type === 'reasoning-delta')
      for (const letter of event.delta) this.prose += event.type[0]! + letter
  }

  get view(): unknown {
    return { texts: this.texts, stages: this.stages, prose: this.prose }
  }
}

/** One attempt's answer: two calls written side by side between text and thoughts. */
const attempt = fc
  .record({
    values: fc.array(fc.string({ unit: 'grapheme', maxLength: 12 }), { minLength: 4, maxLength: 4 }),
    texts: fc.array(fc.tuple(fc.boolean(), fc.string({ minLength: 1, maxLength: 4 })), { maxLength: 8 }),
    size: fc.integer({ min: 1, max: 7 }),
    order: fc.infiniteStream(fc.nat(2)),
  })
  .map(({ values: [a, b, c, d], texts, size, order }) => {
    const lanes = [
      ['1', { a, b }],
      ['2', { a: c, b: d }],
    ].map(([id, value]) => [
      inputStart(id as string),
      ...pieces(JSON.stringify(value), size).map((delta) => input(id as string, delta)),
      inputEnd(id as string),
    ])
    lanes.push(texts.map(([isText, delta]) => (isText ? text(delta) : reasoning(delta))))
    const events: StreamEvent[] = []
    while (lanes.some((lane) => lane.length > 0)) {
      const lane = lanes[order.next().value as number]!
      if (lane.length > 0) events.push(lane.shift()!)
    }
    return events
  })

const script = fc
  .record({
    failed: fc.option(fc.tuple(attempt, fc.nat(40))),
    whole: attempt,
    reads: fc.infiniteStream(fc.integer({ min: 1, max: 6 })),
  })
  .map(({ failed, whole, reads }) => {
    const first = failed ? [start, ...failed[0].slice(0, failed[1]), restart] : []
    const events = [...first, start, ...whole, finish()]
    const batches: StreamEvent[][] = []
    while (events.length > 0) batches.push(events.splice(0, reads.next().value as number))
    return batches
  })

const steps = fc.array(
  fc.record({
    who: fc.nat(3),
    what: fc.oneof(
      { weight: 6, arbitrary: fc.integer({ min: 1, max: 6 }) },
      { weight: 2, arbitrary: fc.constant('turn' as const) },
      { weight: 2, arbitrary: fc.constant('leave' as const) },
    ),
  }),
  { maxLength: 60 },
)

/** What each of some clients ends with, who read, leave and return as the steps say; `undefined` who could not go on. */
async function follow(
  stream: ResponseStream,
  clients: readonly Client[],
  plan: readonly { who: number; what: number | 'turn' | 'leave' }[],
): Promise<(Client | undefined)[]> {
  const lost = new Set<Client>()
  const open = new Map<Client, AsyncIterableIterator<ResponseEvent, undefined>>()
  const eventsOf = (client: Client) => {
    let events = open.get(client)
    if (!events && !lost.has(client)) {
      try {
        open.set(client, (events = stream.subscribe({ from: client.seq })))
      } catch (error) {
        expect(error).toMatchObject({ code: 'stream_consumed', phase: 'consume' })
        lost.add(client)
      }
    }
    return events
  }
  for (const { who, what } of plan) {
    const client = clients[who % clients.length]!
    if (what === 'turn') await turn()
    else if (what === 'leave') {
      await open.get(client)?.return?.()
      open.delete(client)
    } else {
      for (let i = 0; i < what; i++) {
        const next = await eventsOf(client)?.next()
        if (next && !next.done) client.take(next.value)
      }
    }
  }
  for (const client of clients) for await (const event of eventsOf(client) ?? []) client.take(event)
  return clients.map((client) => (lost.has(client) ? undefined : client))
}

async function expectedOf(batches: StreamEvent[][]): Promise<unknown> {
  const client = new Client()
  for await (const event of streamOf(batches, { fields, onInterrupted: 'restart' })) client.take(event)
  return client.view
}

describe('a client that leaves anywhere and returns with its last number', () => {
  test('ends with exactly what one has that stayed, however many there are and however slow', async () => {
    await fc.assert(
      fc.asyncProperty(script, steps, fc.boolean(), fc.boolean(), async (batches, plan, isDriven, isHeard) => {
        const stream = streamOf(batches, { fields, onInterrupted: 'restart', replay: { events: 1e6 }, keepAlive: true })
        const heard: ResponseEvent[] = []
        if (isHeard) stream.on('field-delta', (event) => void heard.push(event))
        if (isDriven) void stream.final()
        const clients = Array.from({ length: 4 }, () => new Client())
        const views = (await follow(stream, clients, plan)).map((client) => client?.view)
        const expected = await expectedOf(batches)
        for (const view of views) expect(view).toEqual(expected)
        // What was heard of by a listener is a place to go on from, too.
        for (const event of heard) {
          const rest = await collect(stream.subscribe({ from: event.seq }))
          const lengths = new Client()
          for (const other of heard) if (other.seq <= event.seq) lengths.take(other)
          for (const other of rest) if (other.type === 'field-delta') lengths.take(other)
          const all = new Client()
          for (const other of heard) all.take(other)
          expect(lengths.texts).toEqual(all.texts)
        }
      }),
      { numRuns: 150 },
    )
  })

  test('is told so where too little is kept, and never has a gap', async () => {
    let told = 0
    await fc.assert(
      fc.asyncProperty(script, steps, fc.integer({ min: 1, max: 12 }), async (batches, plan, events) => {
        const stream = streamOf(batches, { fields, onInterrupted: 'restart', replay: { events }, keepAlive: true })
        const clients = Array.from({ length: 3 }, () => new Client())
        const views = (await follow(stream, clients, plan)).map((client) => client?.view)
        const expected = await expectedOf(batches)
        for (const view of views) {
          if (view === undefined) told++
          else expect(view).toEqual(expected)
        }
      }),
      { numRuns: 150 },
    )
    expect(told).toBeGreaterThan(10)
  })

  test('may have been the loop, or have read lines of JSON', async () => {
    await fc.assert(
      fc.asyncProperty(script, fc.nat(30), fc.boolean(), fc.boolean(), async (batches, count, isSlow, isLines) => {
        const stream = streamOf(batches, { fields, onInterrupted: 'restart', replay: { events: 1e6 }, keepAlive: true })
        const client = new Client()
        if (isSlow) await stream.final().then(turn)
        if (isLines) {
          const reader = stream.toReadableStream().getReader()
          for (let i = 0; i < count; i++) {
            const { value } = await reader.read()
            if (value) client.take(JSON.parse(new TextDecoder().decode(value)) as ResponseEvent)
          }
          await reader.cancel()
        } else {
          let left = count
          for await (const event of stream) {
            client.take(event)
            if (--left <= 0) break
          }
        }
        for await (const event of stream.subscribe({ from: client.seq })) client.take(event)
        expect(JSON.parse(JSON.stringify(client.view))).toEqual(JSON.parse(JSON.stringify(await expectedOf(batches))))
      }),
      { numRuns: 100 },
    )
  })
})

const answer = (letters: string): StreamEvent[][] => [
  [start],
  ...letters.split('').map((letter) => [text(letter)]),
  [finish('stop')],
]
const textOf = (events: readonly ResponseEvent[]): string =>
  events.map((event) => (event.type === 'text-delta' ? event.delta : '')).join('')

describe('several consumers', () => {
  test('get the same events, each at its own pace, without a replay', async () => {
    const stream = streamOf(answer('abcdef'))
    const fast = stream.subscribe()
    const slow = stream.subscribe()
    const events = await collect(fast)
    expect(await collect(slow)).toEqual(events)
    expect(events.filter(({ type }) => type === 'text-delta')).toHaveLength(6)
  })

  test('who nobody is ahead of gets what waited in one piece', async () => {
    const stream = streamOf(answer('abcdef'))
    const slow = stream.subscribe()
    await stream.final()
    const events = await collect(slow)
    expect(events.map(({ type, seq }) => [type, seq])).toEqual([
      ['start', 1],
      ['text-delta', 7],
      ['finish', 8],
    ])
    expect(textOf(events)).toBe('abcdef')
  })

  test('go on when one leaves, and the last one cancels the run', async () => {
    const provider = scriptedProvider(answer('abcdef'))
    const stream = streamOf(provider)
    const [one, two] = [stream.subscribe(), stream.subscribe()]
    const loop = stream[Symbol.asyncIterator]()
    await one.next()
    await two.next()
    await loop.next()
    await loop.return!()
    await one.return!()
    expect((await two.next()).done).toBe(false)
    expect(provider.isClosed).toBe(false)
    await two.return!()
    await until(() => provider.isClosed)
    expect(await rejectionOf(stream.final())).toMatchObject({ code: 'aborted', reason: 'consumer_return' })
  })

  test('all hear of an error, also who comes later, after what came before it', async () => {
    const stream = streamOf([[start, text('ab')]], { replay: { events: 10 } })
    const early = collectUntilError(stream.subscribe())
    expect((await early).error).toMatchObject({ code: 'stream_truncated' })
    const late = await collectUntilError(stream.subscribe())
    expect(late).toEqual(await early)
    expect(textOf(late.items)).toBe('ab')
  })

  test('end at once where the run is aborted; who comes later still gets what was kept', async () => {
    const stream = streamOf([[start], [text('a')], [text('b')]], { replay: { events: 10 } })
    const events = stream.subscribe()
    await events.next()
    await events.next()
    stream.abort('stop')
    expect(await rejectionOf(events.next())).toMatchObject({ code: 'aborted', reason: 'stop' })
    expect(await events.next()).toEqual({ done: true, value: undefined })
    const late = await collectUntilError(stream.subscribe())
    expect(textOf(late.items)).toBe('a')
    expect(late.error).toMatchObject({ code: 'aborted' })
  })

  test('see the reasoning, and may ask several times at once', async () => {
    let showsReasoning: boolean | undefined
    const provider = scriptedProvider(answer('ab'))
    const stream = streamOf({
      ...provider,
      stream(request, context) {
        showsReasoning = context.showsReasoning
        return provider.stream(request, context)
      },
    })
    const events = stream.subscribe()
    const all = await Promise.all(Array.from({ length: 6 }, () => events.next()))
    expect(all.map(({ value }) => value?.type)).toEqual([
      'start',
      'text-delta',
      'text-delta',
      'finish',
      undefined,
      undefined,
    ])
    expect(showsReasoning).toBe(true)
  })
})

describe('keepAlive', () => {
  test.each(['the loop', 'the only subscriber', 'the only view'])(
    'lets the run finish when %s has left',
    async (who) => {
      const provider = scriptedProvider(answer('abcdef'))
      let isOver = false
      const stream = streamOf(provider, { keepAlive: true, replay: { events: 100 } })
      const events =
        who === 'the loop'
          ? stream[Symbol.asyncIterator]()
          : who === 'the only view'
            ? stream.textStream
            : stream.subscribe()
      await events.next()
      await events.return!()
      await until(() => provider.isClosed)
      expect(textOf(await collect(stream.subscribe()))).toBe('abcdef')
      const { text: whole } = await stream.final()
      isOver = true
      expect([whole, isOver]).toEqual(['abcdef', true])
    },
  )

  test.each(['the loop', 'the only subscriber', 'the only view', 'the reader of its lines'])(
    'begins no run that %s left before it began; who comes later begins it',
    async (who) => {
      const provider = scriptedProvider(answer('abc'))
      const stream = streamOf(provider, { keepAlive: true, replay: { events: 100 } })
      if (who === 'the loop') await stream[Symbol.asyncIterator]().return!()
      else if (who === 'the only view') await stream.textStream.return!()
      else if (who === 'the only subscriber') await stream.subscribe().return!()
      else await stream.toReadableStream().cancel()
      await turn()
      expect(provider.requests).toHaveLength(0)
      expect((await stream.final()).text).toBe('abc')
    },
  )

  test('lets a run finish that had begun when its loop left, before anything came', async () => {
    const provider = scriptedProvider(answer('abc'))
    const loop = streamOf(provider, { keepAlive: true })[Symbol.asyncIterator]()
    const first = loop.next()
    await loop.return!()
    await first
    await until(() => provider.isClosed)
    expect(provider.isClosed).toBe(true)
  })

  test('still obeys abort()', async () => {
    const stream = streamOf(answer('abc'), { keepAlive: true })
    for await (const _ of stream) break
    stream.abort('stop')
    expect(await rejectionOf(stream.final())).toMatchObject({ code: 'aborted', reason: 'stop' })
  })
})

describe('a place that cannot be gone on from', () => {
  test('is refused, with what to do', async () => {
    const stream = streamOf(answer('abc'))
    await stream.final()
    expect(thrownBy(() => stream.subscribe())).toMatchObject({
      code: 'stream_consumed',
      message: expect.stringMatching(/number 0 .* number 5 are not kept .*`replay: \{ events \}`/) as string,
    })
    expect(await collect(stream.subscribe({ from: 5 }))).toEqual([])
    expect(thrownBy(() => stream.subscribe({ from: 6 }))).toMatchObject({
      code: 'invalid_argument',
      message: expect.stringContaining('another run') as string,
    })
  })

  test.each([{ from: -1 }, { from: 1.5 }, { from: '3' }, { form: 3 }, 3, null])('%j is a wrong option', (options) => {
    expect(thrownBy(() => streamOf([]).subscribe(options as never))).toMatchObject({ code: 'invalid_argument' })
  })

  test.each([{ replay: true }, { replay: { events: 0 } }, { replay: {} }, { replay: { event: 3 } }, { keepAlive: 1 }])(
    '%j is a wrong request',
    (request) => {
      expect(thrownBy(() => streamOf([], request as never))).toMatchObject({ code: 'invalid_argument' })
    },
  )
})

test('no more is kept than asked for, whoever reads', async () => {
  const letters = 'x'.repeat(300)
  const stream = streamOf(answer(letters), {}, { replay: { events: 50 } })
  const events = await collect(stream.subscribe())
  expect(events).toHaveLength(302)
  const newest = events.at(-1)!.seq
  expect(await collect(stream.subscribe({ from: newest - 50 }))).toEqual(events.slice(-50))
  expect(thrownBy(() => stream.subscribe({ from: newest - 51 }))).toMatchObject({ code: 'stream_consumed' })
})

test('a request may keep more than its client does', async () => {
  const stream = streamOf(
    [[start, ...call('1', '{}'), finish()]],
    { replay: { events: 100 } },
    { replay: { events: 1 } },
  )
  await stream.final()
  expect(await collect(stream.subscribe())).toHaveLength(6)
})

test('a request may keep nothing where its client does', async () => {
  const stream = streamOf([[start, text('a'), finish('stop')]], { replay: false }, { replay: { events: 100 } })
  await stream.final()
  expect(thrownBy(() => stream.subscribe())).toMatchObject({ code: 'stream_consumed' })
})

test('who comes in the middle of the last read does not read beyond its end', async () => {
  const slow = tool({ name: 'answer', validate: () => turn().then(() => ({ value: {} })) })
  const provider = scriptedProvider(async function* () {
    yield [start, ...call('1', '{}'), finish()]
    await Promise.resolve()
    throw new StreamError('stream_truncated', 'Reset.', { retryable: true })
  })
  const request = { tools: [slow], replay: { events: 100 } }
  const stream = streamOf(provider, request, { middleware: [retry()] })
  let rest: Promise<ResponseEvent[]> | undefined
  stream.once('start', ({ seq }) => (rest = collect(stream.subscribe({ from: seq }))))
  expect((await stream.final()).toolCalls).toHaveLength(1)
  expect((await rest!).at(-1)).toMatchObject({ type: 'finish' })
})
