import {
  type AttemptFailure,
  cache,
  ConnectionError,
  fallback,
  HttpError,
  type LLMError,
  LLMTimeoutError,
  type Middleware,
  OutputError,
  PolicyError,
  type Provider,
  rateLimit,
  type ResponseEvent,
  retry,
  type RetryOptions,
  StreamError,
  type StreamEvent,
  timeout,
  tool,
  UsageError,
  xmlTools,
} from 'fieldstream'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { z } from 'zod'
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
} from './support.ts'

const overloaded = (retryAfterMs?: number): HttpError =>
  new HttpError('overloaded', 'Busy.', { retryable: true, status: 529, retryAfterMs })
const badRequest = (): HttpError => new HttpError('bad_request', 'No.', { status: 400 })
const cut = (): StreamError => new StreamError('stream_truncated', 'Cut.', { retryable: true })

const hello: StreamEvent[][] = [[start], [text('Hel')], [text('lo'), finish('stop')]]

/** A provider that plays the next script at each attempt, the last one again and again. An error ends its script. */
function attempts(...scripts: readonly (readonly (readonly StreamEvent[] | Error)[])[]): Provider & {
  readonly times: number[]
} {
  const times: number[] = []
  const played: Script = async function* () {
    const script = scripts[Math.min(times.length, scripts.length - 1)]!
    times.push(performance.now())
    for (const step of script) {
      if (step instanceof Error) throw step
      yield step
    }
    await Promise.resolve()
  }
  return Object.assign(scriptedProvider(played), { times })
}

/** A provider whose reads never come. */
const silent = (...batches: readonly StreamEvent[][]): Provider =>
  scriptedProvider(async function* () {
    yield* batches
    await new Promise(() => undefined)
  })

const named = (provider: Provider, name: string): Provider => ({
  name,
  model: `${name}-1`,
  async *stream(request, context) {
    for await (const event of provider.stream(request, context))
      yield event.type === 'start' ? { ...event, provider: name, model: `${name}-1` } : event
  },
})

/** What a consumer shows who follows the rule of `length`. */
function shownBy(events: readonly ResponseEvent[]): string {
  let shown = ''
  for (const event of events) {
    if (event.type === 'text-delta') shown = shown.slice(0, event.length - event.delta.length) + event.delta
  }
  return shown
}

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
})
afterEach(() => {
  expect(vi.getTimerCount(), 'no timer is left behind').toBe(0)
  vi.useRealTimers()
})

/** Lets time pass until the promise settles. */
async function settled<Value>(promise: Promise<Value>): Promise<Value> {
  let isDone = false
  const done = promise.finally(() => (isDone = true))
  done.catch(() => undefined)
  for (let i = 0; i < 10_000 && !isDone; i++) await vi.advanceTimersByTimeAsync(50)
  return done
}

describe('retry()', () => {
  const retried = (provider: Provider, options: RetryOptions = {}, request = {}) =>
    streamOf(provider, request, { middleware: [retry(options)] })

  test('leaves no trace of attempts that failed before anything could be seen', async () => {
    const provider = attempts([overloaded()], [[start], cut()], ...[hello])
    const events = await settled(collect(retried(provider)))
    expect(events).toEqual([
      expect.objectContaining({ type: 'start', attempt: 3, seq: 1 }),
      expect.objectContaining({ type: 'text-delta', delta: 'Hel' }),
      expect.objectContaining({ type: 'text-delta', delta: 'lo' }),
      expect.objectContaining({ type: 'finish', metrics: expect.objectContaining({ attempts: 3 }) as unknown }),
    ])
  })

  test('repeats what ended without saying that it was complete', async () => {
    const provider = attempts([[start]], [], hello)
    await expect(settled(retried(provider).final())).resolves.toMatchObject({ text: 'Hello', metrics: { attempts: 3 } })
  })

  test('tells `onAttempt` of each attempt that another follows', async () => {
    const failures: AttemptFailure[] = []
    const provider = attempts([overloaded()], [cut()], hello)
    const stream = streamOf(
      provider,
      {},
      { middleware: [retry({ random: () => 0.5 })], onAttempt: (failure) => failures.push(failure) },
    )
    await settled(stream.final())
    expect(failures).toEqual([
      expect.objectContaining({ attempt: 1, provider: 'scripted', next: 'retry', delayMs: 500 }),
      expect.objectContaining({ attempt: 2, model: 'scripted-1', next: 'retry', delayMs: 500 }),
    ])
    expect(failures.map(({ error }) => error.code)).toEqual(['overloaded', 'stream_truncated'])
  })

  test.each<[string, Error]>([
    ['an error that says so', badRequest()],
    ['a malformed answer', new OutputError('invalid_json', 'No JSON.')],
    ['an error of somebody else', new Error('no')],
  ])('does not repeat %s', async (_, error) => {
    const provider = attempts([error], hello)
    await rejectionOf(settled(retried(provider).final()))
    expect(provider.times).toHaveLength(1)
  })

  test('repeats what `retryOn` says, and nothing else', async () => {
    const provider = attempts([badRequest()], [cut()], hello)
    const error = await rejectionOf(
      settled(retried(provider, { retryOn: ({ code }) => code === 'bad_request' }).final()),
    )
    expect(error).toMatchObject({ code: 'stream_truncated', attempt: 2 })
  })

  test('ends with the error of the last attempt, which has those before', async () => {
    const provider = attempts([overloaded()], [cut()], [[start], cut()], hello)
    const error = (await rejectionOf(settled(retried(provider).final()))) as LLMError
    expect(error).toBeInstanceOf(StreamError)
    expect(error).toMatchObject({ code: 'stream_truncated', attempt: 3, provider: 'scripted' })
    expect(error.attempts?.map(({ attempt, error: { code } }) => [attempt, code])).toEqual([
      [1, 'overloaded'],
      [2, 'stream_truncated'],
    ])
    expect(Object.keys(error)).not.toContain('attempts')
  })

  test('does not repeat an attempt of which something was seen', async () => {
    for (const seen of [text('Hel'), inputStart('1')]) {
      const provider = attempts([[start, seen], cut()], hello)
      const { error, items } = await settled(collectUntilError(retried(provider, {}, { tools: [answer] })))
      expect(items.length).toBe(2)
      expect(error).toMatchObject({ code: 'stream_truncated', attempt: 1 })
      expect(provider.times).toHaveLength(1)
    }
  })

  test('repeats an attempt that only thought where nobody was shown its thoughts', async () => {
    const thought = [[start, reasoning('Hm')], cut()]
    const unseen = attempts(thought, hello)
    await expect(
      settled(
        retried(unseen)
          .on('text-delta', () => undefined)
          .final(),
      ),
    ).resolves.toMatchObject({ reasoning: '' })
    const looped = attempts(thought, hello)
    expect((await settled(collectUntilError(retried(looped)))).error).toMatchObject({ code: 'stream_truncated' })
    const listened = attempts(thought, hello)
    await rejectionOf(
      settled(
        retried(listened)
          .on('reasoning-delta', () => undefined)
          .final(),
      ),
    )
    expect([unseen, looped, listened].map(({ times }) => times.length)).toEqual([2, 1, 1])
  })

  test('leaves the source of an attempt that is waited for when the run ends', async () => {
    const reads: (() => void)[] = []
    const provider = scriptedProvider(async function* () {
      yield [start, text('Hel')]
      await new Promise<void>((resolve) => reads.push(resolve))
      yield [text('lo')]
      yield [finish('stop')]
    })
    const stream = retried(provider)
    const final = rejectionOf(stream.on('text-delta', () => undefined).final())
    while (reads.length === 0) await turn()
    stream.abort()
    expect(await final).toMatchObject({ code: 'aborted' })
    reads[0]!()
    await turn()
    expect(provider.isClosed).toBe(true)
  })

  test('counts of a run that is cancelled between two attempts those that were made', async () => {
    const stream = retried(attempts([cut()]))
    stream.on('text-delta', () => undefined)
    await vi.advanceTimersByTimeAsync(1)
    stream.abort()
    expect((await rejectionOf(stream.final())) as LLMError).toMatchObject({ code: 'aborted', metrics: { attempts: 1 } })
  })

  test('shows of a run that fails unseen what its last attempt brought', async () => {
    const provider = attempts([[start, reasoning('a')], cut()], [[start, reasoning('b')], cut()])
    const error = (await rejectionOf(settled(retried(provider, { attempts: 2 }).final()))) as LLMError
    expect(error.partial).toMatchObject({ reasoning: 'b' })
  })

  test('waits at random, at most twice as long each time, up to the longest', async () => {
    const provider = attempts([cut()])
    await rejectionOf(settled(retried(provider, { attempts: 8, random: () => 1, maxDelay: 4000 }).final()))
    expect(gaps(provider.times)).toEqual([500, 1000, 2000, 4000, 4000, 4000, 4000])
    const busy = attempts([overloaded()])
    await rejectionOf(settled(retried(busy, { attempts: 3, random: () => 1 }).final()))
    expect(gaps(busy.times)).toEqual([1000, 2000])
    const lucky = attempts([cut()])
    await rejectionOf(settled(retried(lucky, { random: () => 0 }).final()))
    expect(gaps(lucky.times), 'but never hammers').toEqual([50, 50])
  })

  test('spreads its waits evenly', async () => {
    const delays: number[] = []
    for (let i = 0; i < 400; i++) {
      const provider = attempts([cut()], hello)
      const onAttempt = ({ delayMs }: AttemptFailure): void => void delays.push(delayMs)
      await settled(streamOf(provider, {}, { middleware: [retry()], onAttempt }).final())
    }
    expect(delays.every((delay) => delay >= 50 && delay <= 500)).toBe(true)
    const mean = delays.reduce((sum, delay) => sum + delay, 0) / delays.length
    expect(mean).toBeGreaterThan(200)
    expect(mean).toBeLessThan(305)
  })

  test('waits as long as the service asks, or a little longer, never less', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 0, max: 60_000 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        async (ms, random) => {
          const delays: number[] = []
          const provider = attempts([overloaded(ms)], hello)
          const onAttempt = ({ delayMs }: AttemptFailure): void => void delays.push(delayMs)
          await settled(streamOf(provider, {}, { middleware: [retry({ random: () => random })], onAttempt }).final())
          expect(delays).toHaveLength(1)
          expect(delays[0]).toBeGreaterThanOrEqual(ms)
          expect(delays[0]).toBeLessThanOrEqual(Math.max(ms * 1.1, ms + 50))
          expect(gaps(provider.times)[0]).toBeGreaterThanOrEqual(ms)
        },
      ),
      { numRuns: 20 },
    )
  })

  test('gives up at once where the service asks for more than is sensible', async () => {
    const provider = attempts([overloaded(60_001)], hello)
    expect(await rejectionOf(settled(retried(provider).final()))).toMatchObject({
      code: 'overloaded',
      retryAfterMs: 60_001,
    })
    expect(provider.times).toHaveLength(1)
    const patient = attempts([overloaded(60_001)], hello)
    await settled(retried(patient, { maxRetryAfter: 90_000 }).final())
    expect(patient.times).toHaveLength(2)
  })

  test('makes no attempt that the deadline would cut short before it begins', async () => {
    const provider = attempts([overloaded(2000)], hello)
    const stream = streamOf(provider, {}, { middleware: [retry(), timeout({ total: 1000 })] })
    expect(await rejectionOf(settled(stream.final()))).toMatchObject({ code: 'overloaded' })
    expect(provider.times).toHaveLength(1)
  })

  test('asks a service that fails for everybody hardly more often than without it', async () => {
    const provider = attempts([cut()])
    const client = { middleware: [retry()] }
    const codes: string[] = []
    await settled(
      Promise.all(
        Array.from({ length: 1000 }, async () => {
          codes.push(((await rejectionOf(streamOf(provider, {}, client).final())) as LLMError).code)
        }),
      ),
    )
    expect(provider.times.length).toBeLessThanOrEqual(1100)
    expect(new Set(codes)).toEqual(new Set(['retry_budget_exhausted']))
  })

  test('says that the reserve is used up, with the error that would have been repeated', async () => {
    const provider = attempts([overloaded()])
    const error = await rejectionOf(settled(retried(provider, { budget: 0 }).final()))
    expect(error).toBeInstanceOf(PolicyError)
    expect(error).toMatchObject({ code: 'retry_budget_exhausted', cause: { code: 'overloaded' }, provider: 'scripted' })
  })

  test('fills the reserve with every success, and gives back what a success took', async () => {
    const middleware = [retry({ budget: 1 })]
    const run = (...scripts: (readonly (readonly StreamEvent[] | Error)[])[]): Promise<unknown> =>
      settled(streamOf(attempts(...scripts), {}, { middleware }).final())
    await run([cut()], hello)
    await run([cut()], hello)
    await rejectionOf(run([cut()]))
    expect(await rejectionOf(run([cut()], hello))).toMatchObject({ code: 'retry_budget_exhausted' })
    for (let i = 0; i < 5; i++) await run(hello)
    await run([cut()], hello)
  })

  test('ends its wait when the run is cancelled', async () => {
    const provider = attempts([overloaded(30_000)], hello)
    const controller = new AbortController()
    const stream = retried(provider, {}, { signal: controller.signal })
    const final = stream.final()
    await vi.advanceTimersByTimeAsync(1000)
    controller.abort('enough')
    expect(await rejectionOf(final)).toMatchObject({ name: 'AbortError', reason: 'enough' })
    await vi.advanceTimersByTimeAsync(0)
    expect(vi.getTimerCount()).toBe(0)
  })

  test.each([
    [{ attempts: 0 }, '`attempts` of retry() must be a whole number from 1'],
    [{ attempts: 1.5 }, '`attempts`'],
    [{ baseDelay: Number.NaN }, '`baseDelay`'],
    [{ maxDelay: 2 ** 31 }, '`maxDelay` of retry() must be a number from 0 to 2147483647'],
    [{ maxRetryAfter: -1 }, '`maxRetryAfter`'],
    [{ budget: true as unknown as number }, '`budget` of retry() must be a number from 0 to 2147483647, or false'],
    [{ retryOn: 'all' as never }, '`retryOn` of retry() must be a function'],
    [{ retries: 3 } as RetryOptions, 'no option `retries`'],
  ])('refuses %o', (options, message) => {
    expect(thrownBy(() => retry(options))).toMatchObject({ code: 'invalid_argument' })
    expect(() => retry(options)).toThrow(message)
  })
})

const gaps = (times: readonly number[]): number[] => times.slice(1).map((time, i) => Math.round(time - times[i]!))

const answer = tool({ name: 'answer' })

describe('fallback()', () => {
  const down = (error: Error = overloaded()): Provider & { readonly times: number[] } => attempts([error])

  test('asks the next provider where one fails, unseen, and says who answers', async () => {
    const failures: AttemptFailure[] = []
    const provider = fallback(named(down(), 'first'), named(attempts(hello), 'second'))
    const stream = streamOf(provider, {}, { onAttempt: (failure) => failures.push(failure) })
    const events = await collect(stream)
    expect(events[0]).toMatchObject({ type: 'start', provider: 'second', model: 'second-1', attempt: 2 })
    expect(await stream.final()).toMatchObject({ provider: 'second', model: 'second-1', metrics: { attempts: 2 } })
    expect(failures).toEqual([expect.objectContaining({ attempt: 1, provider: 'first', next: 'fallback', delayMs: 0 })])
  })

  test.each<[string, Error]>([
    ['no connection', new ConnectionError('connection', 'No.')],
    ['a key that is refused', new HttpError('authentication', 'No.', { status: 401 })],
    ['a model that is gone', new HttpError('not_found', 'No.', { status: 404 })],
    ['an account without credit', new HttpError('quota_exhausted', 'No.', { status: 402 })],
    ['a service that is too slow', new LLMTimeoutError('timeout', 'No.', { phase: 'first_byte' })],
    ['a page instead of a stream', new StreamError('unexpected_content_type', 'No.')],
    ['somebody else’s error', new Error('no')],
  ])('moves on after %s', async (_, error) => {
    await expect(streamOf(fallback(down(error), attempts(hello))).final()).resolves.toMatchObject({ text: 'Hello' })
  })

  test.each<[string, Error]>([
    ['a request that is wrong', badRequest()],
    ['an answer that is malformed', new OutputError('invalid_json', 'No.')],
  ])('stays with %s', async (_, error) => {
    const second = attempts(hello)
    expect(await rejectionOf(streamOf(fallback(down(error), second)).final())).toBe(error)
    expect(second.times).toHaveLength(0)
  })

  test('moves on after what `fallbackOn` says, and nothing else', async () => {
    const options = { fallbackOn: ({ code }: LLMError) => code === 'bad_request' }
    await streamOf(fallback([down(badRequest()), attempts(hello)], options)).final()
    expect(await rejectionOf(streamOf(fallback([down(), attempts(hello)], options)).final())).toMatchObject({
      code: 'overloaded',
    })
  })

  test('moves on from an answer with nothing in it, but takes it from the last', async () => {
    const empty = attempts([[start, reasoning('Hm'), finish('stop')]])
    const stream = streamOf(fallback(empty, attempts(hello))).on('text-delta', () => undefined)
    await expect(stream.final()).resolves.toMatchObject({ text: 'Hello' })
    await expect(streamOf(fallback(down(), empty)).final()).resolves.toMatchObject({ text: '', finishReason: 'stop' })
  })

  test('says what all of them failed with', async () => {
    const error = (await rejectionOf(
      streamOf(fallback(named(down(cut()), 'first'), named(down(overloaded(3000)), 'second'))).final(),
    )) as PolicyError
    expect(error).toBeInstanceOf(PolicyError)
    expect(error).toMatchObject({
      code: 'attempts_exhausted',
      status: 529,
      provider: 'second',
      retryable: true,
      attempt: 2,
    })
    expect(error.errors.map(({ code }) => code)).toEqual(['stream_truncated', 'overloaded'])
    expect(error.cause).toBe(error.errors[1])
    expect(error.message).toBe(
      'All 2 providers failed: first with stream_truncated, second with overloaded. See `errors`.',
    )
  })

  test('says with the phase of the last of them how far it came', async () => {
    const broken = attempts([
      [start],
      new StreamError('stream_truncated', 'Cut.', { phase: 'stream', retryable: true }),
    ])
    expect(await rejectionOf(streamOf(fallback(down(), broken)).final())).toMatchObject({
      code: 'attempts_exhausted',
      phase: 'stream',
    })
  })

  test('asks a target that failed last for a while, then with one request only', async () => {
    const first = attempts([overloaded()], [overloaded()], hello)
    const second = attempts(hello)
    const provider = fallback([first, second], { coolDown: 10_000 })
    const run = (): Promise<unknown> => streamOf(provider).final()
    await run()
    await run()
    expect([first.times.length, second.times.length]).toEqual([1, 2])
    await vi.advanceTimersByTimeAsync(10_000)
    // All at once: only one tries the first again, which fails.
    await Promise.all([run(), run(), run()])
    expect([first.times.length, second.times.length]).toEqual([2, 5])
    await vi.advanceTimersByTimeAsync(10_000)
    await run()
    await run()
    expect([first.times.length, second.times.length]).toEqual([4, 5])
  })

  test('cools down as long as the service asks', async () => {
    const first = attempts([overloaded(50_000)], hello)
    const provider = fallback(first, attempts(hello))
    await streamOf(provider).final()
    await vi.advanceTimersByTimeAsync(49_000)
    await streamOf(provider).final()
    expect(first.times).toHaveLength(1)
    await vi.advanceTimersByTimeAsync(1000)
    await streamOf(provider).final()
    expect(first.times).toHaveLength(2)
  })

  test('asks those that cool down all the same where no other is left', async () => {
    const first = attempts([overloaded()], hello)
    const second = attempts([overloaded()])
    const provider = fallback(first, second)
    await rejectionOf(streamOf(provider).final())
    await streamOf(provider).final()
    expect([first.times.length, second.times.length]).toEqual([2, 1])
  })

  test('is tried again as a whole by retry()', async () => {
    const first = attempts([cut()], [cut()], hello)
    const second = attempts([cut()], [cut()])
    const stream = streamOf(fallback([first, second], { coolDown: 0 }), {}, { middleware: [retry()] })
    expect(await settled(stream.final())).toMatchObject({ text: 'Hello', metrics: { attempts: 5 } })
    expect([first.times.length, second.times.length]).toEqual([3, 2])
  })

  test('can be made of others of its kind', async () => {
    const inner = fallback(named(down(), 'a'), named(down(), 'b'))
    const events = await collect(streamOf(fallback(inner, named(attempts(hello), 'c'))))
    expect(events[0]).toMatchObject({ type: 'start', provider: 'c', attempt: 3 })
  })

  test.each([
    [() => fallback(attempts(hello), undefined as never)],
    [() => fallback([attempts(hello)])],
    [() => fallback([attempts(hello), {} as never])],
  ])('needs two providers', (make) => {
    expect(thrownBy(make)).toMatchObject({ code: 'invalid_argument' })
    expect(make).toThrow('fallback() takes two providers or more')
  })

  test('does not hold against a target what goes wrong after the end of its answer', async () => {
    const first = attempts([...hello, cut()])
    const second = attempts([[start, text('other'), finish('stop')]])
    const provider = fallback(first, second)
    for (let n = 1; n <= 2; n++) {
      expect(await settled(streamOf(provider).final())).toMatchObject({ text: 'Hello' })
      await vi.advanceTimersByTimeAsync(10)
      expect([first, second].map(({ times }) => times.length)).toEqual([n, 0])
    }
  })

  test('counts all attempts where one that is made of others answers with nothing', async () => {
    const empty = attempts([[start, finish('stop')]])
    const provider = fallback(fallback(attempts([overloaded()]), empty), attempts(hello))
    const failed: number[] = []
    const stream = streamOf(provider, {}, { onAttempt: ({ attempt }) => failed.push(attempt) })
    expect((await settled(stream.final())).metrics.attempts).toBe(3)
    expect(failed).toEqual([1, 2])
  })
})

describe('what one request comes to', () => {
  test('is no reason to spare a target others', async () => {
    const unsupported = new UsageError('unsupported', 'Not here.', { phase: 'request' })
    const first = attempts([unsupported], hello)
    const second = attempts(hello)
    const provider = fallback(first, second)
    await streamOf(provider).final()
    await streamOf(provider).final()
    expect([first.times.length, second.times.length]).toEqual([2, 1])
  })

  test('is its own error where it cannot be sent to anybody', async () => {
    const wrong = new UsageError('invalid_argument', 'No JSON.')
    const second = attempts(hello)
    expect(await rejectionOf(streamOf(fallback(attempts([wrong]), second)).final())).toBe(wrong)
    expect(second.times).toHaveLength(0)
  })

  test('is a reason to spare a target that breaks off in the middle', async () => {
    const first = attempts([[start, text('a')], cut()])
    const second = attempts(hello)
    const provider = fallback(first, second)
    expect(await rejectionOf(streamOf(provider).final())).toMatchObject({ code: 'stream_truncated' })
    await streamOf(provider).final()
    expect([first.times.length, second.times.length]).toEqual([1, 1])
  })

  test('is enough to trust a target again once something of it is seen', async () => {
    const first = attempts([overloaded()], hello)
    const second = attempts(hello)
    const provider = fallback([first, second], { coolDown: 1000 })
    await streamOf(provider).final()
    await vi.advanceTimersByTimeAsync(1000)
    for await (const event of streamOf(provider)) if (event.type === 'text-delta') break
    await streamOf(provider).final()
    expect([first.times.length, second.times.length]).toEqual([3, 1])
  })

  test('is over for the next attempt when its owner ends it on hearing of a failure', async () => {
    const second = attempts(hello)
    const ended = streamOf(fallback(attempts([overloaded()]), second), {}, { onAttempt: () => ended.abort('enough') })
    expect(await rejectionOf(ended.final())).toMatchObject({ reason: 'enough' })
    const provider = attempts([overloaded(3000)], hello)
    const waiting = streamOf(provider, {}, { middleware: [retry()], onAttempt: () => waiting.abort('enough') })
    expect(await rejectionOf(waiting.final())).toMatchObject({ reason: 'enough' })
    await turn()
    expect(vi.getTimerCount()).toBe(0)
    expect([second.times.length, provider.times.length]).toEqual([0, 1])
  })

  test('names in an error the provider whose answer was empty', async () => {
    const empty = named(attempts([[start, finish('stop')]]), 'first')
    const failures: AttemptFailure[] = []
    const stream = streamOf(fallback(empty, attempts(hello)), {}, { onAttempt: (failure) => failures.push(failure) })
    await stream.final()
    expect(failures).toMatchObject([{ provider: 'first', model: 'first-1', error: { code: 'empty_response' } }])
  })

  test('is not hidden by a function of the user that throws', async () => {
    const told: LLMError[] = []
    const onError = (error: LLMError): void => void told.push(error)
    const no = (): never => {
      throw new Error('no')
    }
    const retrying = streamOf(attempts([overloaded()]), {}, { middleware: [retry({ retryOn: no })], onError })
    expect(await rejectionOf(retrying.final())).toMatchObject({ code: 'overloaded', status: 529 })
    const falling = fallback([attempts([overloaded()]), attempts(hello)], { fallbackOn: no })
    expect(await rejectionOf(streamOf(falling, {}, { onError }).final())).toMatchObject({ code: 'overloaded' })
    const hooked = fallback(attempts([overloaded()]), attempts(hello))
    await streamOf(hooked, {}, { onError, onAttempt: no }).final()
    expect(told.map(({ code, message }) => [code, message])).toEqual([
      ['consumer_error', '`retryOn` failed; the run goes on. See `cause`.'],
      ['overloaded', 'Busy.'],
      ['consumer_error', '`fallbackOn` failed; the run goes on. See `cause`.'],
      ['overloaded', 'Busy.'],
      ['consumer_error', '`onAttempt` failed; the run goes on. See `cause`.'],
    ])
    expect(() => fallback([attempts(hello), attempts(hello)], { fallbackOn: 'all' as never })).toThrow(
      'must be a function',
    )
  })

  test('is not told to another run that fails with the same error', async () => {
    const error = cut()
    const first = (await rejectionOf(streamOf(attempts([[start, text('secret')], error])).final())) as LLMError
    const second = (await rejectionOf(streamOf(attempts([[start, text('b')], error])).final())) as LLMError
    expect([first.partial?.text, second.partial?.text]).toEqual(['secret', 'b'])
    expect([first.metrics?.characters, second.metrics?.characters]).toEqual([6, 1])
    expect(second).toBeInstanceOf(StreamError)
    expect(second).toMatchObject({ name: 'StreamError', code: 'stream_truncated', message: 'Cut.' })
  })
})

describe('a service that refuses to stream', () => {
  test('is still asked to stream other kinds of request', async () => {
    const refused = (): Error => new HttpError('streaming_unsupported', 'No.', { status: 400 })
    const asked: string[] = []
    const script = async function* (how: string, fails: boolean) {
      asked.push(how)
      await Promise.resolve()
      if (fails) throw refused()
      for (const batch of hello) yield* batch
    }
    const provider: Provider = {
      name: 'partly',
      model: 'partly-1',
      stream: ({ tools = [] }) => script('stream', tools.length > 0),
      generate: () => script('generate', false),
    }
    const run = (tools: ReturnType<typeof tool>[]): Promise<unknown> => streamOf(provider, { tools }).final()
    await run([])
    await run([answer])
    await run([answer])
    await run([])
    expect(asked).toEqual(['stream', 'stream', 'generate', 'generate', 'stream'])
    await vi.advanceTimersByTimeAsync(600_000)
    await run([answer])
    expect(asked.slice(5)).toEqual(['stream', 'generate'])
  })

  test('is not asked once more when the run is over', async () => {
    const refusal = Promise.withResolvers<never>()
    const asked: string[] = []
    const provider: Provider = {
      name: 'refusing',
      model: 'refusing-1',
      stream: () =>
        (async function* () {
          asked.push('stream')
          await refusal.promise
        })(),
      generate: () => {
        asked.push('generate')
        return scriptedProvider(hello).stream({ messages: [] }, { signal: new AbortController().signal, attempt: 1 })
      },
    }
    const stream = streamOf(provider)
    const final = rejectionOf(stream.final())
    await turn()
    stream.abort()
    refusal.reject(new HttpError('streaming_unsupported', 'No.', { status: 400 }))
    expect(await final).toMatchObject({ code: 'aborted' })
    await turn()
    expect(asked).toEqual(['stream'])
  })
})

describe("onInterrupted: 'restart'", () => {
  const restarted = (provider: Provider, request = {}) =>
    streamOf(provider, { onInterrupted: 'restart', ...request }, { middleware: [retry()] })

  test('says so before anything of the new attempt is seen, and does not show again what it repeats', async () => {
    const provider = attempts(
      [[start], [text('Hello wo')], cut()],
      [[start], [text('Hel'), text('lo world'), finish('stop')]],
    )
    const stream = restarted(provider)
    const events = await settled(collect(stream))
    expect(events).toEqual([
      expect.objectContaining({ type: 'start', attempt: 1 }),
      expect.objectContaining({ type: 'text-delta', delta: 'Hello wo', length: 8 }),
      {
        type: 'restart',
        attempt: 2,
        reason: { code: 'stream_truncated', message: 'Cut.' },
        from: { provider: 'scripted', model: 'scripted-1' },
        to: { provider: 'scripted', model: 'scripted-1' },
        shown: [{ field: undefined, path: undefined, length: 8 }],
        seq: 3,
      },
      expect.objectContaining({ type: 'start', attempt: 2 }),
      expect.objectContaining({ type: 'text-delta', delta: 'rld', length: 11 }),
      expect.objectContaining({ type: 'finish' }),
    ])
    expect(await stream.final()).toMatchObject({ text: 'Hello world', metrics: { attempts: 2 } })
  })

  test('is no part of the outcome where the new attempt fails unseen', async () => {
    const provider = attempts([[start], [text('Hel')], cut()], [overloaded()], [[start], cut()])
    const { items, error } = await settled(collectUntilError(restarted(provider)))
    expect(items.map(({ type }) => type)).toEqual(['start', 'text-delta'])
    expect(error).toMatchObject({ code: 'stream_truncated', attempt: 3, partial: { text: 'Hel' } })
    expect((error as LLMError).metrics?.attempts, 'but was asked for').toBe(3)
  })

  test('knows the calls of two attempts by the order in which they begin, not by who writes first', async () => {
    const provider = attempts(
      [[start, inputStart('1'), inputStart('2'), input('2', '{"a":"two'), input('1', '{"a":"one')], cut()],
      [
        [start, inputStart('8'), inputStart('9'), input('8', '{"a":"one, more"}'), input('9', '{"a":"twofold"}')],
        [inputEnd('8'), inputEnd('9'), finish('tool-calls')],
      ],
    )
    const events = await settled(collect(restarted(provider, { tools: [answer], fields: { a: 'a' } })))
    const after = events.slice(events.findIndex(({ type }) => type === 'restart') + 1)
    expect(after.filter(({ type }) => type === 'field-delta')).toMatchObject([
      { toolCallId: '8', delta: ', more', length: 9 },
      { toolCallId: '9', delta: 'fold', length: 7 },
    ])
  })

  test('asks no more where a service fails after the end of its answer', async () => {
    const provider = attempts([...hello, cut()], [[start, text('other'), finish('stop')]])
    const stream = restarted(provider)
    expect(await settled(stream.final())).toMatchObject({ text: 'Hello' })
    await vi.advanceTimersByTimeAsync(60_000)
    expect(provider.times).toHaveLength(1)
  })

  test('says in fallback() who goes on', async () => {
    const provider = fallback(named(attempts([[start, text('a')], cut()]), 'first'), named(attempts(hello), 'second'))
    const events = await settled(collect(streamOf(provider, { onInterrupted: 'restart' })))
    expect(events.find(({ type }) => type === 'restart')).toMatchObject({
      from: { provider: 'first', model: 'first-1' },
      to: { provider: 'second', model: 'second-1' },
    })
  })

  test('never puts two attempts into one result', async () => {
    const provider = attempts(
      [[start, reasoning('one'), ...call('1', '{"a":"x","b":"old"}'), inputStart('2'), input('2', '{"a"')], cut()],
      [[start, reasoning('two'), ...call('9', '{"a":"xy"}'), finish('tool-calls')]],
    )
    const stream = restarted(provider, { tools: [answer], fields: { a: 'a', b: 'b' } })
    const values = stream.field('b' as never)
    const events = await settled(collect(stream))
    expect(await stream.final()).toMatchObject({
      reasoning: 'two',
      toolCalls: [{ toolCallId: '9', input: { a: 'xy' } }],
      messages: [
        {
          content: [
            { type: 'reasoning', text: 'two' },
            { type: 'tool-call', toolCallId: '9' },
          ],
        },
      ],
    })
    expect(await values, 'a value that closed in the first attempt').toBe('old')
    const after = events.slice(events.findIndex(({ type }) => type === 'restart') + 1)
    expect(after.filter(({ type }) => type === 'field-delta')).toEqual([
      expect.objectContaining({ field: 'a', delta: 'y', length: 2, toolCallId: '9' }),
    ])
    expect(after.filter(({ type }) => type === 'field-end')).toEqual([
      expect.objectContaining({ field: 'a', value: 'xy' }),
    ])
  })

  test('shows whoever follows `length` the final text, whatever the attempts', async () => {
    const words = fc.array(fc.constantFrom('a', 'b', '\ud83d\ude00', '\ud83d\ude01'), { maxLength: 6 })
    await fc.assert(
      fc.asyncProperty(
        fc.array(words, { minLength: 1, maxLength: 3 }),
        fc.integer({ min: 1, max: 3 }),
        async (texts, size) => {
          const scripts = texts.map((parts, i) => {
            const all = parts.join('')
            const pieces = (all.match(new RegExp(`.{1,${size}}`, 'gsu')) ?? []).map((piece) => [text(piece)])
            return [[start], ...pieces, ...(i < texts.length - 1 ? [cut()] : [[finish('stop')]])]
          })
          const stream = restarted(attempts(...scripts))
          const events = await settled(collect(stream))
          const last = texts.at(-1)!.join('')
          const { text: final } = await stream.final()
          expect(final).toBe(last)
          expect(shownBy(events)).toBe(last)
          for (const event of events) if (event.type === 'text-delta') expect(event.delta.isWellFormed()).toBe(true)
        },
      ),
      { numRuns: 300 },
    )
  })

  test('names what was last seen, however deep the attempts are nested', async () => {
    const first = named(attempts([[start, text('a')], cut()], hello), 'first')
    const second = named(attempts([[start, text('b')], cut()]), 'second')
    const provider = fallback([first, second], { coolDown: 0 })
    const events = await settled(collect(restarted(provider)))
    expect(
      events.flatMap((event) => (event.type === 'restart' ? [[event.from.provider, event.to.provider]] : [])),
    ).toEqual([
      ['first', 'second'],
      ['second', 'first'],
    ])
  })

  test('moves on from an answer that is empty after all, however deep the attempts are nested', async () => {
    const cutShort = attempts([[start, text('a')], cut()])
    const empty = attempts([[start, finish('stop')]])
    const provider = fallback(fallback(cutShort, empty), attempts(hello))
    expect(await settled(streamOf(provider, { onInterrupted: 'restart' }).final())).toMatchObject({ text: 'Hello' })
  })

  test('has the number of the attempt that is seen next, where others failed unseen in between', async () => {
    const cutShort = attempts([[start, text('a')], cut()])
    const provider = fallback(cutShort, fallback(attempts([overloaded()]), attempts(hello)))
    const events = await settled(collect(streamOf(provider, { onInterrupted: 'restart' })))
    expect(events.flatMap((event) => ('attempt' in event ? [[event.type, event.attempt]] : []))).toEqual([
      ['start', 1],
      ['restart', 3],
      ['start', 3],
    ])
  })

  test('reads the tags of the new attempt afresh in xmlTools()', async () => {
    const first = attempts([[start], [text('Well <tool_call>{"name":"answer","argu')], cut()])
    const second = attempts([
      [start],
      [text('Well <tool_call>{"name":"answer","arguments":{"q":"x"}}</tool_call>')],
      [finish('stop')],
    ])
    const stream = restarted(xmlTools(fallback(first, second)), { tools: [answer] })
    const events = await settled(collect(stream))
    expect(await stream.final()).toMatchObject({ toolCalls: [{ toolName: 'answer', input: { q: 'x' } }] })
    expect(shownBy(events)).toBe('Well')
  })

  test('cannot be had of views that could not say what is void', () => {
    const stream = restarted(attempts(hello), { fields: { a: 'a' } })
    expect(() => stream.textStream).toThrow('`textStream` and `fields()` cannot say which text is void')
    expect(thrownBy(() => stream.fields('a'))).toMatchObject({ code: 'invalid_argument' })
  })

  test('is not had of middleware that does not retry', async () => {
    const provider = attempts([[start, text('a')], cut()], hello)
    const { error } = await collectUntilError(streamOf(provider, { onInterrupted: 'restart' }))
    expect(error).toMatchObject({ code: 'stream_truncated' })
  })
})

describe('timeout()', () => {
  const limited = (provider: Provider, options: Parameters<typeof timeout>[0], middleware: Middleware[] = []) =>
    streamOf(provider, {}, { middleware: [...middleware, timeout(options)] })

  test.each([
    ['first_byte', silent(), 60_000],
    ['first_output', silent([], [start]), 120_000],
    ['first_output', chatty([start]), 120_000],
    ['idle', silent([start, text('a')]), 60_000],
    ['progress', chatty([start, text('a')]), 120_000],
  ])('ends an attempt in the phase %s by default', async (phase, provider, timeoutMs) => {
    const begun = performance.now()
    const idle = phase === 'first_output' ? { idle: 200_000 } : {}
    const error = await rejectionOf(settled(limited(provider, idle).final()))
    expect(error).toBeInstanceOf(LLMTimeoutError)
    expect(error).toMatchObject({
      name: 'TimeoutError',
      code: 'timeout',
      phase,
      timeoutMs,
      retryable: true,
      attempt: 1,
    })
    expect(performance.now() - begun).toBeGreaterThanOrEqual(timeoutMs)
    expect(performance.now() - begun).toBeLessThan(timeoutMs + 1000)
    expect((error as LLMError).message).toMatch(/raise `\w+` of timeout\(\)/)
  })

  test('holds with its defaults where nobody asked for it', async () => {
    expect(await rejectionOf(settled(streamOf(silent()).final()))).toMatchObject({ phase: 'first_byte' })
  })

  test('takes a provider at its word that it needs longer, and the user at his', async () => {
    const slow = { ...silent(), timeouts: { firstByte: 90_000 } }
    expect(await rejectionOf(settled(streamOf(slow).final()))).toMatchObject({ timeoutMs: 90_000 })
    expect(await rejectionOf(settled(limited(slow, { firstByte: 10 }).final()))).toMatchObject({ timeoutMs: 10 })
  })

  test('closes the connection of an attempt that is out of time, and lets retry() make another', async () => {
    let signal: AbortSignal | undefined
    let count = 0
    const provider = scriptedProvider(async function* (context) {
      if (count++ > 0) {
        yield* hello
        return
      }
      signal = context.signal
      await new Promise(() => undefined)
    })
    const stream = limited(provider, { firstByte: 100 }, [retry()])
    expect(await settled(stream.final())).toMatchObject({ text: 'Hello', metrics: { attempts: 2 } })
    expect(signal?.aborted).toBe(true)
  })

  test('ends also where the source cannot be left', async () => {
    const stuck: Provider = {
      name: 'stuck',
      model: 'stuck-1',
      stream: () =>
        ({
          batches: () => ({
            next: () => new Promise(() => undefined),
            return: () => {
              throw new Error('stay')
            },
          }),
        }) as never,
    }
    expect(await rejectionOf(settled(limited(stuck, { firstByte: 50 }).final()))).toMatchObject({ phase: 'first_byte' })
  })

  test('does not count the time in which nobody asks for more', async () => {
    const provider = scriptedProvider([[start], [text('a')], [text('b')], [finish('stop')]])
    const seen: string[] = []
    for await (const { type } of limited(provider, { firstOutput: 100, idle: 100, progress: 100 })) {
      seen.push(type)
      await vi.advanceTimersByTimeAsync(5000)
    }
    expect(seen).toEqual(['start', 'text-delta', 'text-delta', 'finish'])
  })

  test('lets a slow answer go on that keeps coming', async () => {
    const provider = scriptedProvider(async function* () {
      yield [start]
      for (let i = 0; i < 50; i++) {
        await new Promise((resolve) => setTimeout(resolve, 90))
        yield [text('a')]
      }
      yield [finish('stop')]
    })
    await expect(settled(limited(provider, { idle: 100, progress: 100 }).final())).resolves.toMatchObject({
      text: 'a'.repeat(50),
    })
  })

  test('reads what has come before it ends an attempt, where the process itself stood still', async () => {
    let wake!: () => void
    const provider = scriptedProvider(async function* () {
      yield [start, text('a')]
      await new Promise<void>((resolve) => (wake = resolve))
      yield [text('b'), finish('stop')]
    })
    const final = limited(provider, { idle: 100 }).final()
    await vi.advanceTimersByTimeAsync(50)
    // The clock goes on while no timer can fire.
    const now = performance.now()
    const clock = vi.spyOn(performance, 'now').mockImplementation(() => now + 30_000)
    await vi.advanceTimersByTimeAsync(60)
    clock.mockRestore()
    wake()
    await expect(settled(final)).resolves.toMatchObject({ text: 'ab' })
  })

  test.each([
    ['outermost', [timeout({ total: 1500 }), retry({ random: () => 1 })]],
    ['innermost', [retry({ random: () => 1 }), timeout({ total: 1500 })]],
  ])('limits the whole run, waits between attempts included, when it stands %s', async (_, middleware) => {
    const failing = attempts([cut()])
    let count = 0
    const provider: Provider = { ...failing, stream: (...args) => (count++ === 0 ? failing : silent()).stream(...args) }
    const begun = performance.now()
    const error = await rejectionOf(settled(streamOf(provider, {}, { middleware }).final()))
    expect(error).toMatchObject({ name: 'TimeoutError', phase: 'total', timeoutMs: 1500, retryable: false })
    expect(performance.now() - begun).toBeLessThan(1600)
  })

  test('limits validation', async () => {
    const slow = tool({
      name: 'answer',
      input: {
        '~standard': {
          version: 1,
          vendor: 'test',
          validate: () => new Promise<never>(() => undefined),
          jsonSchema: { input: () => ({ type: 'object' }), output: () => ({ type: 'object' }) },
        },
      } as never,
    })
    const stream = streamOf([[start, ...call('1', '{}'), finish('tool-calls')]], { tools: [slow] })
    const error = await rejectionOf(settled(stream.final()))
    expect(error).toMatchObject({ name: 'TimeoutError', phase: 'validate', timeoutMs: 5000 })
  })

  const lookingUp = cache({ store: { get: () => new Promise(() => undefined), set: () => undefined }, timeout: 5000 })
  test.each<[string, Middleware]>([
    ['cache()', lookingUp],
    ['rateLimit()', rateLimit({ requests: 1, per: 5000 })],
    ['a follower of an equal request', cache({ store: new Map<string, string>() })],
  ])('limits the run wherever it stands, while %s before it waits', async (_, before) => {
    const provider = scriptedProvider(async function* () {
      yield [start, text('a')]
      await new Promise((resolve) => setTimeout(resolve, 2000))
      yield [finish('stop')]
    })
    const first = streamOf(provider, {}, { middleware: [before] }).final()
    // The key of a cache is hashed elsewhere.
    await turn()
    const begun = performance.now()
    const limitedRun = streamOf(provider, {}, { middleware: [before, timeout({ total: 80 })] }).final()
    expect(await rejectionOf(settled(limitedRun))).toMatchObject({ phase: 'total', timeoutMs: 80 })
    expect(performance.now() - begun).toBeLessThan(1000)
    await settled(first)
  })

  test('limits validation wherever it stands, also of an answer from a cache', async () => {
    const store = new Map<string, string>()
    let isSlow = false
    const rule = z.object({}).refine(() => !isSlow || new Promise<boolean>(() => undefined))
    const provider = scriptedProvider([[start, ...call('1', '{}'), finish('tool-calls')]])
    const ask = () =>
      streamOf(
        provider,
        { tools: [tool({ name: 'answer', input: rule })] },
        { middleware: [cache({ store }), timeout({ validate: 50 })] },
      ).final()
    await settled(ask())
    isSlow = true
    expect(await rejectionOf(settled(ask()))).toMatchObject({ phase: 'validate', timeoutMs: 50 })
  })

  test('can be switched off', async () => {
    const off = { firstByte: false, firstOutput: false, idle: false, progress: false, total: false } as const
    const stream = limited(silent(), off)
    const final = stream.final()
    await vi.advanceTimersByTimeAsync(10_000_000)
    expect(vi.getTimerCount()).toBe(0)
    stream.abort()
    await rejectionOf(final)
  })

  test.each([[0], [-1], [Number.NaN], [Infinity], [2 ** 31], ['5'], [true]])('refuses %s', (limit) => {
    expect(() => timeout({ idle: limit as number })).toThrow(
      '`idle` of timeout() must be a number from 1 to 2147483647, or false for none.',
    )
  })
})

/** A provider that after these events gives signs of life only. */
function chatty(...batches: readonly StreamEvent[][]): Provider {
  return scriptedProvider(async function* () {
    yield* batches
    for (;;) {
      await new Promise((resolve) => setTimeout(resolve, 1000))
      yield []
    }
  })
}
