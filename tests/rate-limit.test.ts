import { getEventListeners } from 'node:events'
import {
  type Limiter,
  type LLMError,
  type Middleware,
  type Provider,
  type RateLimitOptions,
  rateLimit,
  retry,
  StreamError,
  StreamingLLMClient,
  timeout,
} from 'fieldstream'
import fc from 'fast-check'
import { RateLimiterMemory, RateLimiterRedis } from 'rate-limiter-flexible'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { hasRedis, startRedis } from './redis-server.ts'
import { collect, finish, rejectionOf, scriptedProvider, start, text, thrownBy, turn } from './support.ts'

const messages = [{ role: 'user', content: 'Hello' }] as const

/** A provider whose answers each take as long as told, with account of when they began and how many were under way. */
function timedProvider(msOf: () => number = () => 0) {
  const account = { starts: [] as number[], asked: [] as unknown[], now: 0, most: 0 }
  const provider = scriptedProvider(async function* ({ signal }) {
    account.starts.push(Date.now())
    account.most = Math.max(account.most, ++account.now)
    let isOver = false
    const over = (): void => {
      if (!isOver) account.now--
      isOver = true
    }
    signal.addEventListener('abort', over)
    try {
      yield [start, text('Hi')]
      const ms = msOf()
      if (ms > 0) await new Promise((resolve) => setTimeout(resolve, ms))
      yield [finish('stop')]
    } finally {
      over()
    }
  })
  const counted: Provider = {
    ...provider,
    stream: (request, context) => {
      account.asked.push(request.metadata?.['n'])
      return provider.stream(request, context)
    },
  }
  return { account, provider: counted }
}

function clientOf(provider: Provider, ...middleware: Middleware[]): StreamingLLMClient {
  return new StreamingLLMClient({ provider, middleware })
}

/** A provider whose answers never end. */
const endless = (): Provider =>
  scriptedProvider(async function* () {
    yield [start, text('Hi')]
    await new Promise(() => undefined)
  })

/** Most events in any stretch of this length. */
function mostIn(times: readonly number[], length: number): number {
  let most = 0
  for (let from = 0, to = 0; to < times.length; to++) {
    while (times[to]! - times[from]! >= length) from++
    most = Math.max(most, to - from + 1)
  }
  return most
}

const errorOf = async (promise: Promise<unknown>): Promise<LLMError> => (await rejectionOf(promise)) as LLMError

describe('in process', () => {
  beforeEach(async () => {
    // Loaded here, since fake time does not wait for it.
    await import('p-queue')
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'performance', 'Date'] })
  })
  afterEach(async () => {
    await turn()
    const timers = vi.getTimerCount()
    vi.useRealTimers()
    expect(timers, 'no timer is left behind').toBe(0)
  })

  const pass = async (milliseconds: number): Promise<void> => {
    for (let i = 0; i < 3; i++) await turn()
    await vi.advanceTimersByTimeAsync(milliseconds)
    for (let i = 0; i < 3; i++) await turn()
  }

  const randomFrom = (seed: number) => {
    let state = seed
    return (): number => (state = (state * 48_271) % 2_147_483_647) / 2_147_483_647
  }

  /** Asks for an hour, in bursts and lulls, on the whole somewhat less than allowed; resolves when all have begun. */
  async function arrivals(random: () => number, account: { starts: unknown[] }, ask: (n: number) => Promise<unknown>) {
    const answers: Promise<unknown>[] = []
    const until = Date.now() + 3_600_000
    while (Date.now() < until) {
      const burst = random() < 0.2 ? Math.ceil(random() * 60) : Math.ceil(random() * 3)
      for (let i = 0; i < burst; i++) answers.push(ask(answers.length))
      await vi.advanceTimersByTimeAsync(random() * 40_000)
    }
    for (let i = 0; i < 2000 && account.starts.length < answers.length; i++) await vi.advanceTimersByTimeAsync(1000)
    await vi.advanceTimersByTimeAsync(60_000)
    return (await Promise.all(answers)).length
  }

  test.each([1, 2, 3])('keeps the limit over any window of an hour of random arrivals (%i)', async (seed) => {
    const random = randomFrom(seed)
    const { account, provider } = timedProvider(() => random() * 20_000)
    const client = clientOf(provider, rateLimit({ requests: 30, per: 60_000, concurrency: 8 }))
    const n = await arrivals(random, account, (i) => client.stream({ messages, metadata: { n: i } }).final())
    expect(account.starts.length).toBe(n)
    expect(n).toBeGreaterThan(300)
    expect(mostIn(account.starts, 60_000)).toBe(30)
    expect(account.most).toBe(8)
    expect(account.asked, 'first come, first served').toEqual(Array.from({ length: n }, (_, i) => i))
  })

  test('says how long a request waited', async () => {
    const { provider } = timedProvider()
    const client = clientOf(provider, rateLimit({ requests: 1, per: 1000 }))
    const all = Promise.all([1, 2, 3].map(() => client.stream({ messages }).final()))
    await pass(0)
    await pass(3000)
    expect((await all).map(({ metrics }) => metrics.queuedMs)).toEqual([0, 1000, 2000])
  })

  test('lets a request that waits go as soon as it is aborted, and the next move up', async () => {
    const { account, provider } = timedProvider()
    const client = clientOf(provider, rateLimit({ requests: 1, per: 1000, queue: 2 }))
    const first = client.stream({ messages, metadata: { n: 1 } }).final()
    const second = client.stream({ messages, metadata: { n: 2 } })
    const secondFinal = errorOf(second.final())
    const third = client.stream({ messages, metadata: { n: 3 } }).final()
    await first
    await pass(10)
    second.abort('gone')
    expect(await secondFinal).toMatchObject({ code: 'aborted', reason: 'gone' })
    // Its place is free again.
    const fourth = client.stream({ messages, metadata: { n: 4 } }).final()
    await pass(2000)
    await Promise.all([third, fourth])
    expect(account.asked).toEqual([1, 3, 4])
    expect(account.starts[1]! - account.starts[0]!).toBe(1000)
  })

  test('refuses those for whom there is no room', async () => {
    const { account, provider } = timedProvider()
    const client = clientOf(provider, rateLimit({ requests: 1, per: 1000, queue: 1 }), retry())
    const results = [1, 2, 3].map(() => client.stream({ messages }).final())
    const error = await errorOf(results[2]!)
    expect(error).toMatchObject({ name: 'LimitError', code: 'queue_full', limit: 'queue', max: 1, phase: 'queue' })
    expect(error.retryable).toBe(false)
    await pass(1000)
    await Promise.all(results.slice(0, 2))
    expect(account.starts).toHaveLength(2)
    const none = clientOf(provider, rateLimit({ concurrency: 1, queue: 0 }))
    await none.stream({ messages }).final()
    await none.stream({ messages }).final()
  })

  test('ends the wait after `maxWait`, be it that nobody ever leaves', async () => {
    const client = clientOf(
      endless(),
      rateLimit({ concurrency: 1, maxWait: 500 }),
      timeout({ idle: false, progress: false }),
    )
    const holder = client.stream({ messages })
    holder.final().catch(() => undefined)
    const waiting = errorOf(client.stream({ messages }).final())
    await pass(500)
    expect(await waiting).toMatchObject({ name: 'TimeoutError', phase: 'queue', timeoutMs: 500, retryable: false })
    holder.abort()
    await pass(0)
  })

  test('the time of the whole run goes on while it waits', async () => {
    const { account, provider } = timedProvider()
    const client = clientOf(provider, timeout({ total: 500 }), rateLimit({ requests: 1, per: 1000 }))
    await client.stream({ messages }).final()
    const late = errorOf(client.stream({ messages }).final())
    await pass(500)
    expect(await late).toMatchObject({ name: 'TimeoutError', phase: 'total' })
    await pass(2000)
    expect(account.starts).toHaveLength(1)
  })

  test('begins nothing when the time is over, though no timer has said so yet', async () => {
    const { account, provider } = timedProvider()
    const limited = rateLimit({ concurrency: 1 })(provider.stream)
    const context = {
      signal: new AbortController().signal,
      attempt: 1,
      deadline: { remainingMs: 0, limit: () => undefined, limitValidation: () => undefined },
    }
    expect(await errorOf(collect(limited({ messages }, context)))).toMatchObject({ code: 'timeout', phase: 'queue' })
    expect(account.asked).toEqual([])
    await expect(collect(limited({ messages }, { ...context, deadline: undefined }))).resolves.toHaveLength(3)
  })

  describe('frees its place', () => {
    const broken = (): Provider =>
      scriptedProvider(async function* () {
        yield [start, text('Hi')]
        await Promise.reject(new StreamError('stream_truncated', 'Cut.'))
      })
    const refusing = (): Provider => ({
      ...broken(),
      stream: () => {
        throw new Error('no')
      },
    })
    test.each<[string, Provider, (stream: ReturnType<StreamingLLMClient['stream']>) => Promise<unknown>]>([
      ['at the end', timedProvider().provider, (stream) => stream.final()],
      ['when the stream fails', broken(), (stream) => rejectionOf(stream.final())],
      ['when it never begins', refusing(), (stream) => rejectionOf(stream.final())],
      [
        'when the loop is left',
        endless(),
        async (stream) => {
          for await (const event of stream) if (event.type === 'text-delta') break
        },
      ],
      [
        'when it is aborted',
        endless(),
        async (stream) => {
          stream.on('text-delta', () => stream.abort())
          await rejectionOf(stream.final())
        },
      ],
      [
        'when its listener stops it at once',
        endless(),
        async (stream) => {
          stream.on('start', () => stream.abort())
          await rejectionOf(stream.final())
        },
      ],
    ])('%s', async (_, provider, use) => {
      const client = clientOf(
        provider,
        rateLimit({ concurrency: 1, queue: 0 }),
        timeout({ idle: false, progress: false }),
      )
      for (let i = 0; i < 3; i++) {
        await use(client.stream({ messages }))
        await pass(0)
      }
      // The last one got its turn too: else it had been refused.
      const stream = client.stream({ messages })
      const error = errorOf(stream.final())
      await pass(0)
      stream.abort()
      expect((await error)?.code).not.toBe('queue_full')
    })

    test('when nobody reads on after the end', async () => {
      const { provider } = timedProvider()
      const limited = rateLimit({ concurrency: 1, queue: 0 })(provider.stream)
      for (let i = 0; i < 3; i++) {
        const reads = limited({ messages }, { signal: new AbortController().signal, attempt: 1 }).batches!()
        await reads.next()
        expect((await reads.next()).value).toMatchObject([{ type: 'finish' }])
        await turn()
      }
    })

    test('though what stands beneath ignores the abort', async () => {
      const deaf: Middleware = () => () => ({
        [Symbol.asyncIterator]: () => ({ next: () => new Promise(() => undefined) }),
      })
      const client = clientOf(endless(), rateLimit({ concurrency: 1, queue: 0 }), deaf)
      for (let i = 0; i < 3; i++) {
        const stream = client.stream({ messages })
        const error = errorOf(stream.final())
        await pass(0)
        stream.abort('enough')
        expect(await error).toMatchObject({ code: 'aborted' })
        await pass(0)
      }
    })
  })

  test('counts each attempt where it stands after retry()', async () => {
    const starts: number[] = []
    const provider = scriptedProvider(async function* () {
      starts.push(Date.now())
      if (starts.length < 3) await Promise.reject(new StreamError('stream_truncated', 'Cut.', { retryable: true }))
      yield [start, text('Hi'), finish('stop')]
    })
    const client = clientOf(provider, retry({ baseDelay: 0 }), rateLimit({ requests: 1, per: 1000 }))
    const answer = client.stream({ messages }).final()
    for (let i = 0; i < 5; i++) await pass(1000)
    expect((await answer).metrics.attempts).toBe(3)
    expect(starts.map((time) => time - starts[0]!)).toEqual([0, 1000, 2000])
  })

  test('leaves no listener on a signal it was given', async () => {
    const { signal } = new AbortController()
    const limited = rateLimit({ concurrency: 1 })(scriptedProvider([[start], [finish('stop')]]).stream)
    const reads = limited({ messages }, { signal, attempt: 1 }).batches!()
    await reads.next()
    expect(getEventListeners(signal, 'abort')).toHaveLength(1)
    await reads.return!()
    expect(getEventListeners(signal, 'abort')).toHaveLength(0)
  })

  describe('by key', () => {
    const perUser = (options: RateLimitOptions = {}) =>
      rateLimit({ requests: 1, per: 1000, queue: 0, key: ({ metadata }) => String(metadata?.['user']), ...options })
    const ask = (client: StreamingLLMClient, user: string) => client.stream({ messages, metadata: { user } }).final()

    test('users do not use up each other', async () => {
      const client = clientOf(timedProvider().provider, perUser())
      await ask(client, 'a')
      await ask(client, 'b')
      expect(await errorOf(ask(client, 'a'))).toMatchObject({ code: 'queue_full', limit: 'queue' })
      await pass(1000)
      await ask(client, 'a')
    })

    test('as many are kept as told, and none is forgotten while it counts', async () => {
      const client = clientOf(timedProvider().provider, perUser({ keys: 2 }))
      await ask(client, 'a')
      await pass(500)
      await ask(client, 'b')
      expect(await errorOf(ask(client, 'c'))).toMatchObject({ code: 'queue_full', limit: 'keys', max: 2 })
      await pass(500)
      await ask(client, 'c')
      expect(await errorOf(ask(client, 'b'))).toMatchObject({ code: 'queue_full', limit: 'queue' })
    })

    test('a running answer counts', async () => {
      const client = clientOf(
        endless(),
        rateLimit({ concurrency: 1, keys: 1, key: ({ metadata }) => String(metadata?.['user']) }),
      )
      const stream = client.stream({ messages, metadata: { user: 'a' } })
      stream.final().catch(() => undefined)
      await pass(0)
      expect(await errorOf(ask(client, 'b'))).toMatchObject({ code: 'queue_full', limit: 'keys' })
      stream.abort()
      await pass(0)
    })

    test('a `key` that throws is named, and its error is the cause', async () => {
      const { account, provider } = timedProvider()
      const cause = new Error('no user')
      const key = (): never => {
        throw cause
      }
      const client = clientOf(provider, retry(), perUser({ key }))
      expect(await errorOf(ask(client, 'a'))).toMatchObject({
        name: 'ConsumerError',
        code: 'consumer_error',
        message: '`key` of rateLimit() threw, so nothing was sent. See `cause`.',
        phase: 'queue',
        cause,
      })
      expect(account.starts).toEqual([])
    })

    test('a key that is no string is an error', async () => {
      const client = clientOf(timedProvider().provider, perUser({ key: (() => undefined) as never }))
      expect(await errorOf(ask(client, 'a'))).toMatchObject({ name: 'UsageError', code: 'invalid_argument' })
    })
  })

  test('any mix of ends, aborts and arrivals keeps both limits and loses no place', async () => {
    const step = fc.record({ wait: fc.nat(400), lasts: fc.nat(900), abortAfter: fc.option(fc.nat(1500)) })
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
        let lasts = 0
        const { account, provider } = timedProvider(() => lasts)
        const client = clientOf(provider, rateLimit({ requests: 3, per: 1000, concurrency: 2 }))
        const answers: Promise<unknown>[] = []
        for (const { wait, lasts: next, abortAfter } of steps) {
          lasts = next
          const controller = new AbortController()
          answers.push(rejectionOf(client.stream({ messages, signal: controller.signal }).final()))
          if (abortAfter !== null) setTimeout(() => controller.abort(), abortAfter)
          await vi.advanceTimersByTimeAsync(wait)
        }
        await vi.advanceTimersByTimeAsync(60_000)
        for (const error of await Promise.all(answers))
          expect((error as LLMError | undefined)?.code ?? 'aborted').toBe('aborted')
        expect(mostIn(account.starts, 1000)).toBeLessThanOrEqual(3)
        expect(account.most).toBeLessThanOrEqual(2)
        expect(account.now).toBe(0)
        lasts = 0
        await client.stream({ messages }).final()
      }),
      { numRuns: 40 },
    )
  })

  describe('with a limiter', () => {
    test('asks it again when it says so, one after the other, in order', async () => {
      const { account, provider } = timedProvider()
      const memory = new RateLimiterMemory({ points: 2, duration: 1 })
      const consume = vi.spyOn(memory, 'consume')
      const client = clientOf(provider, rateLimit({ limiter: memory }))
      const all = Promise.all([0, 1, 2, 3, 4, 5].map((n) => client.stream({ messages, metadata: { n } }).final()))
      for (let i = 0; i < 40; i++) await pass(100)
      await all
      expect(account.asked).toEqual([0, 1, 2, 3, 4, 5])
      expect(mostIn(account.starts, 1000)).toBe(2)
      expect(consume.mock.calls.length).toBeLessThan(20)
      expect(consume).toHaveBeenCalledWith('all')
    })

    test.each([1, 2, 3])(
      'short windows keep a limit over any stretch of an hour, one long window does not (%i)',
      async (seed) => {
        const mostOf = async (windows: { points: number; duration: number }): Promise<number> => {
          const { account, provider } = timedProvider()
          const limiter = new RateLimiterMemory(windows)
          const client = clientOf(provider, timeout({ total: false }), rateLimit({ limiter }))
          const n = await arrivals(randomFrom(seed), account, () => client.stream({ messages }).final())
          expect(account.starts).toHaveLength(n)
          return mostIn(account.starts, 60_000)
        }
        expect(await mostOf({ points: 5, duration: 12 })).toBeLessThanOrEqual(30)
        expect(await mostOf({ points: 30, duration: 60 })).toBeGreaterThan(30)
      },
    )

    test('refuses nobody whom the limiter allows, and whoever it does not where there is no room', async () => {
      const client = clientOf(
        timedProvider().provider,
        rateLimit({ limiter: new RateLimiterMemory({ points: 3, duration: 1 }), queue: 0 }),
      )
      const results = [1, 2, 3, 4].map(() => client.stream({ messages }).final())
      expect(await errorOf(results[3]!)).toMatchObject({ code: 'queue_full' })
      await Promise.all(results.slice(0, 3))
      await pass(2000)
    })

    test('a limiter that hangs hangs nobody', async () => {
      const limiter: Limiter = { consume: () => new Promise(() => undefined) }
      const client = clientOf(timedProvider().provider, rateLimit({ limiter, maxWait: 100, concurrency: 1 }))
      const errors = [1, 2].map(() => errorOf(client.stream({ messages }).final()))
      await pass(100)
      for (const error of errors) expect(await error).toMatchObject({ code: 'timeout', phase: 'queue' })
    })

    test('a limiter that breaks is named', async () => {
      const cause = new Error('down')
      const client = clientOf(
        timedProvider().provider,
        rateLimit({ limiter: { consume: () => Promise.reject(cause) }, concurrency: 1 }),
      )
      for (let i = 0; i < 2; i++)
        expect(await errorOf(client.stream({ messages }).final())).toMatchObject({
          code: 'connection',
          phase: 'queue',
          cause,
        })
    })

    test('who left takes no turn and holds up nobody', async () => {
      const { account, provider } = timedProvider()
      const limiter = new RateLimiterMemory({ points: 1, duration: 1 })
      const client = clientOf(provider, rateLimit({ limiter, concurrency: 2, queue: 2 }))
      await client.stream({ messages, metadata: { n: 0 } }).final()
      const gone = client.stream({ messages, metadata: { n: 1 } })
      const error = errorOf(gone.final())
      const next = client.stream({ messages, metadata: { n: 2 } }).final()
      await pass(500)
      gone.abort()
      expect(await error).toMatchObject({ code: 'aborted' })
      await pass(1000)
      await next
      expect(account.asked).toEqual([0, 2])
      // Its memory is kept by a timer.
      await pass(1000)
    })
  })
})

describe.skipIf(!hasRedis)('shared between machines, on a Redis', () => {
  test('two processes together keep the limit', async () => {
    const redis = await startRedis()
    try {
      const { account, provider } = timedProvider()
      // Each with its own connection and queue, as on two machines.
      const clients = [1, 2].map(() => {
        const limiter = new RateLimiterRedis({
          storeClient: redis.connect(),
          points: 5,
          duration: 1,
          keyPrefix: 'test',
        })
        return clientOf(provider, rateLimit({ limiter }))
      })
      const answers = Array.from({ length: 16 }, (_, n) =>
        clients[n % 2]!.stream({ messages, metadata: { n } }).final(),
      )
      const metrics = (await Promise.all(answers)).map(({ metrics: { queuedMs } }) => queuedMs)
      expect(account.starts).toHaveLength(16)
      // Five in each of its windows, which begin at the first request: sixteen need a fourth.
      const [first, last] = [account.starts[0]!, account.starts.at(-1)!]
      expect(last - first).toBeGreaterThan(2900)
      expect(mostIn(account.starts, 900)).toBeLessThanOrEqual(5)
      expect(Math.max(...metrics)).toBeGreaterThan(2900)
      for (const parity of [0, 1]) {
        const own = account.asked.filter((n) => Number(n) % 2 === parity)
        expect(own).toEqual([...own].sort((a, b) => Number(a) - Number(b)))
      }
    } finally {
      await redis.stop()
    }
  })
})

describe.skipIf(!hasRedis)('over any stretch of time, on a Redis', () => {
  test('short windows keep a limit that one long window does not', async () => {
    const redis = await startRedis()
    // Eight in three seconds, asked for by two machines: one request, then many when its window is nearly over.
    const mostOf = async (windows: { points: number; duration: number }): Promise<number> => {
      const { account, provider } = timedProvider()
      const clients = [1, 2].map(() => {
        const limiter = new RateLimiterRedis({
          storeClient: redis.connect(),
          keyPrefix: `windows-${windows.duration}`,
          ...windows,
        })
        return clientOf(provider, rateLimit({ limiter }))
      })
      await clients[0]!.stream({ messages }).final()
      await new Promise((resolve) => setTimeout(resolve, 2500))
      await Promise.all(Array.from({ length: 14 }, (_, n) => clients[n % 2]!.stream({ messages }).final()))
      expect(account.starts).toHaveLength(15)
      // Between the word of Redis and the start of a request some time passes.
      return mostIn(account.starts, 2900)
    }
    try {
      const [short, long] = await Promise.all([mostOf({ points: 2, duration: 1 }), mostOf({ points: 8, duration: 3 })])
      expect(short).toBeLessThanOrEqual(8)
      expect(long).toBeGreaterThan(8)
    } finally {
      await redis.stop()
    }
  })
})

test.each<[string, unknown]>([
  ['nothing to limit', {}],
  ['no object', undefined],
  ['an unknown option', { requests: 30, per: 60_000, burst: 2 }],
  ['requests without a time', { requests: 30 }],
  ['a time without requests', { per: 60_000, concurrency: 1 }],
  ['no whole number', { requests: 1.5, per: 1000 }],
  ['zero', { concurrency: 0 }],
  ['a negative queue', { concurrency: 1, queue: -1 }],
  ['a wait that no timer keeps', { concurrency: 1, maxWait: 1e12 }],
  ['two counters', { requests: 1, per: 1, limiter: { consume: () => undefined } }],
  ['a limiter that is none', { limiter: {} }],
  ['a key that is none', { concurrency: 1, key: 'user' }],
])('%s is an error at once', (_, options) => {
  expect(thrownBy(() => rateLimit(options as RateLimitOptions))).toMatchObject({
    name: 'UsageError',
    code: 'invalid_argument',
    message: expect.stringContaining('rateLimit()') as unknown,
  })
})
