import fc from 'fast-check'
import {
  type ClientOptions,
  fallback,
  isLLMError,
  type LLMError,
  StreamError,
  type StreamEvent,
  tool,
} from 'fieldstream'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { WaitHistogram } from '../src/wait-histogram.ts'
import {
  call,
  collect,
  finish,
  rejectionOf,
  scriptedProvider,
  start,
  streamOf,
  text,
  thrownBy,
  usage,
} from './support.ts'

const answer = tool({ name: 'answer' })
const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/

const wait = (milliseconds: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, milliseconds))

/** A read after each wait. */
const paced = (...reads: readonly [number, StreamEvent[]][]) =>
  async function* () {
    for (const [milliseconds, events] of reads) {
      await wait(milliseconds)
      yield events
    }
  }

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

const failing = {
  // eslint-disable-next-line @typescript-eslint/require-await -- fails before there is anything
  ...scriptedProvider(async function* () {
    throw new StreamError('stream_truncated', 'Cut.', { retryable: true })
  }),
  name: 'first',
  model: 'first-1',
}
const other = (events: readonly (readonly StreamEvent[])[] = [[start, text('Hi'), finish('stop')]]) => ({
  ...scriptedProvider(events),
  name: 'second',
  model: 'second-1',
})

describe('metrics', () => {
  test('tell when what came', async () => {
    const stream = streamOf(
      paced(
        [100, []],
        [20, [start]],
        [30, [text('Hello')]],
        [50, call('1', '{"a":"b","c":["d"').slice(0, 2)],
        [200, [...call('1', ',"e"]}').slice(1), finish()]],
      ),
      { tools: [answer], fields: { a: 'a', c: 'c[*]' } },
    )
    const final = stream.final()
    await vi.runAllTimersAsync()
    const { metrics } = await final
    expect(metrics).toEqual({
      timeToFirstByteMs: 100,
      timeToFirstEventMs: 120,
      timeToFirstTextMs: 150,
      timeToFirstFieldMs: 200,
      fields: { a: { firstMs: 200, lastMs: 200 }, c: { firstMs: 200, lastMs: 400 } },
      durationMs: 400,
      attempts: 1,
      fallbackUsed: false,
      queuedMs: 0,
      cached: false,
      chunks: 4,
      chunkGaps: { p50Ms: expect.closeTo(50, -0.3) as number, p95Ms: expect.any(Number) as number, maxMs: 200 },
      characters: 28,
      outputTokensPerSecond: usage.outputTokens / 0.4,
    })
    expect(Math.abs(metrics.chunkGaps!.p95Ms / 200 - 1)).toBeLessThan(0.05)
  })

  test('do not count what the consumer takes', async () => {
    const stream = streamOf(paced([10, [start]], [10, [text('a')]], [10, [text('b')]], [10, [finish('stop')]]))
    const done = (async () => {
      for await (const _ of stream) await wait(500)
    })()
    await vi.runAllTimersAsync()
    await done
    expect((await stream.final()).metrics.chunkGaps!.maxMs).toBeLessThanOrEqual(10)
  })

  test('know neither a first byte nor a speed of an answer from a cache', async () => {
    const stream = streamOf(
      scriptedProvider([]),
      {},
      {
        middleware: [
          () =>
            async function* () {
              await wait(5)
              yield { ...start, cached: true } as StreamEvent
              yield text('Hello')
              yield finish('stop')
            },
        ],
      },
    )
    const final = stream.final()
    await vi.runAllTimersAsync()
    expect((await final).metrics).toMatchObject({
      cached: true,
      durationMs: 5,
      timeToFirstByteMs: undefined,
      outputTokensPerSecond: undefined,
    })
  })

  test('are on the error of a run that fails, where nobody prints them', async () => {
    const error = await rejectionOf(streamOf([[start, text('secret')]]).final())
    expect(isLLMError(error) && error.metrics).toMatchObject({ chunks: 1, characters: 6, attempts: 1 })
    expect(Object.keys(error as object)).not.toContain('metrics')
    expect(JSON.stringify(error)).not.toContain('timeToFirst')
  })

  test('and on that of one that was cancelled', async () => {
    const stream = streamOf(paced([10, [start, text('Hello')]], [10_000, [finish('stop')]]))
    const final = rejectionOf(stream.final())
    await vi.advanceTimersByTimeAsync(50)
    stream.abort()
    expect(((await final) as LLMError).metrics).toMatchObject({ timeToFirstByteMs: 10, durationMs: 50 })
  })
})

test('waits in any number take the same memory, and their percentiles are within 5 %', () => {
  fc.assert(
    fc.property(
      fc.array(fc.double({ min: 0.02, max: 1e6, noNaN: true }), { minLength: 1, maxLength: 200 }),
      fc.constantFrom(0.5, 0.95),
      (waits, share) => {
        const histogram = new WaitHistogram()
        for (const milliseconds of waits) histogram.add(milliseconds)
        const exact = [...waits].sort((a, b) => a - b)[Math.ceil(share * waits.length) - 1]!
        expect(Math.abs(histogram.percentile(share) / exact - 1)).toBeLessThan(0.05)
        expect(histogram.maxMs).toBe(Math.max(...waits))
      },
    ),
  )
  const none = new WaitHistogram()
  none.add(0)
  expect([none.percentile(0.5), none.maxMs]).toEqual([0, 0])
})

describe('hooks', () => {
  /** Every hook, writing down what it is told. */
  function recorded(): { told: [string, unknown][]; hooks: Partial<ClientOptions> } {
    const told: [string, unknown][] = []
    const names = [
      'onStart',
      'onFirstDelta',
      'onCacheHit',
      'onFallback',
      'onAttempt',
      'onFinish',
      'onMetrics',
      'onAlert',
    ]
    const hooks: Record<string, unknown> = Object.fromEntries(
      names.map((name) => [name, (fact: unknown) => told.push([name, fact])]),
    )
    hooks['onError'] = (error: LLMError, run: object) => told.push(['onError', { code: error.code, ...run }])
    return { told, hooks }
  }

  test('hear of a run in order, under one id, and nothing of what is said', async () => {
    const { told, hooks } = recorded()
    const stream = streamOf(
      paced([10, [start, text('secret ')]], [10, [text('answer')]], [10, [finish('stop')]]),
      { messages: [{ role: 'user', content: 'secret question' }], metadata: { user: 'ann' } },
      hooks,
    )
    const final = stream.final()
    await vi.runAllTimersAsync()
    const { metrics } = await final
    const runId = expect.stringMatching(uuid) as string
    const run = { runId, metadata: { user: 'ann' }, provider: 'scripted', model: 'scripted-1' }
    const { raw: _, ...tokens } = usage
    expect(told).toEqual([
      ['onStart', run],
      ['onFirstDelta', { ...run, attempt: 1, kind: 'text', timeMs: 10 }],
      [
        'onFinish',
        { ...run, responseId: 'response-1', requestId: undefined, finishReason: 'stop', usage: tokens, metrics },
      ],
      ['onMetrics', { ...run, outcome: 'success', code: undefined, metrics }],
    ])
    expect(new Set(told.map(([, fact]) => (fact as { runId: string }).runId)).size).toBe(1)
    expect(JSON.stringify(told)).not.toContain('secret')
  })

  test('hear of a fallback and of what it is for', async () => {
    const { told, hooks } = recorded()
    const stream = streamOf(fallback(failing, other()), {}, hooks)
    expect((await stream.final()).metrics).toMatchObject({ fallbackUsed: true, attempts: 2 })
    expect(told.map(([name]) => name)).toEqual([
      'onStart',
      'onAttempt',
      'onFallback',
      'onFirstDelta',
      'onFinish',
      'onMetrics',
    ])
    const { runId } = told[0]![1] as { runId: string }
    expect(told[1]![1]).toMatchObject({ runId, attempt: 1, provider: 'first', next: 'fallback' })
    expect(told[2]![1]).toEqual({
      runId,
      provider: 'second',
      model: 'second-1',
      attempt: 2,
      error: expect.objectContaining({ code: 'stream_truncated' }) as LLMError,
    })
  })

  test('hear of a fallback whose reason lies in an earlier run', async () => {
    const provider = fallback(failing, other())
    await streamOf(provider).final()
    const { told, hooks } = recorded()
    expect((await streamOf(provider, {}, hooks).final()).metrics).toMatchObject({ fallbackUsed: true, attempts: 1 })
    expect(told.find(([name]) => name === 'onFallback')![1]).toMatchObject({ provider: 'second', error: undefined })
  })

  test('hear of an answer from a cache', async () => {
    const { told, hooks } = recorded()
    const cached = { ...start, cached: true } as StreamEvent
    await streamOf([[cached, text('Hello'), finish('stop')]], {}, hooks).final()
    expect(told.map(([name]) => name)).toEqual(['onStart', 'onCacheHit', 'onFirstDelta', 'onFinish', 'onMetrics'])
  })

  test('hear of a failure, and of the end of a run that was cancelled', async () => {
    const failed = recorded()
    await rejectionOf(streamOf([[start]], {}, failed.hooks).final())
    expect(failed.told.map(([name]) => name)).toEqual(['onStart', 'onError', 'onMetrics'])
    expect(failed.told[1]![1]).toMatchObject({ code: 'stream_truncated', runId: expect.stringMatching(uuid) as string })
    expect(failed.told[2]![1]).toMatchObject({ outcome: 'error', code: 'stream_truncated', metrics: { chunks: 1 } })

    const { told, hooks } = recorded()
    const stream = streamOf(paced([1000, [start]]), {}, hooks)
    const final = rejectionOf(stream.final())
    await vi.advanceTimersByTimeAsync(10)
    stream.abort()
    await final
    expect(told.map(([name]) => name)).toEqual(['onStart', 'onMetrics'])
    expect(told[1]![1]).toMatchObject({ outcome: 'aborted', code: 'aborted' })
  })

  test('that throw or reject change nothing', async () => {
    const { hooks } = recorded()
    const bad = Object.keys(hooks).map((name, i) => [
      name,
      i % 2
        ? () => Promise.reject(new Error('hook'))
        : () => {
            throw new Error('hook')
          },
    ])
    const options = { ...(Object.fromEntries(bad) as Partial<ClientOptions>), alerts: { timeToFirstByteMs: 1 } }
    const cached = { ...start, cached: true } as StreamEvent
    const stream = streamOf(fallback(failing, other([[cached, text('Hello'), finish('stop')]])), {}, options)
    const events = collect(stream)
    await vi.runAllTimersAsync()
    expect((await events).map(({ type }) => type)).toEqual(['start', 'text-delta', 'finish'])
    expect(await rejectionOf(streamOf([[start]], {}, options).final())).toMatchObject({ code: 'stream_truncated' })
  })

  test('cost no id and no timer where there are none', async () => {
    const id = vi.spyOn(crypto, 'randomUUID')
    await streamOf([[start, text('Hello'), finish('stop')]]).final()
    await rejectionOf(streamOf([[start]]).final())
    expect(id).not.toHaveBeenCalled()
    id.mockRestore()
  })

  test.each([
    [{ onStart: 'log' as never }, '`onStart` must be a function.'],
    [{ onAlert: 1 as never }, '`onAlert` must be a function.'],
    [{ alerts: { timeToFirstByteMs: 500 } }, '`alerts` needs `onAlert`'],
    [{ alerts: { timeToFirstByteMs: 0 }, onAlert: () => undefined }, '`timeToFirstByteMs`'],
    [{ alerts: { firstByte: 500 } as never, onAlert: () => undefined }, 'has no option `firstByte`'],
  ] satisfies [Partial<ClientOptions>, string][])('are refused where they are none: %j', (options, message) => {
    expect(thrownBy(() => streamOf([], {}, options))).toMatchObject({
      code: 'invalid_argument',
      message: expect.stringContaining(message) as string,
    })
  })
})

describe('an alert', () => {
  const limited = (onAlert: (alert: object) => void): Partial<ClientOptions> => ({
    alerts: { timeToFirstByteMs: 500 },
    onAlert,
  })

  test('comes when the limit passes, not when the answer does', async () => {
    const onAlert = vi.fn()
    const stream = streamOf(paced([2000, [start]], [1, [finish('stop')]]), {}, limited(onAlert))
    const final = stream.final()
    await vi.advanceTimersByTimeAsync(499)
    expect(onAlert).not.toHaveBeenCalled()
    await vi.advanceTimersByTimeAsync(1)
    expect(onAlert.mock.calls).toEqual([
      [
        {
          runId: expect.stringMatching(uuid) as string,
          provider: 'scripted',
          model: 'scripted-1',
          alert: 'timeToFirstByteMs',
          limitMs: 500,
        },
      ],
    ])
    await vi.runAllTimersAsync()
    await final
    expect(onAlert).toHaveBeenCalledTimes(1)
  })

  test('does not come where the response began in time, be it with its head alone', async () => {
    const onAlert = vi.fn()
    const stream = streamOf(paced([499, []], [5000, [start]], [1, [finish('stop')]]), {}, limited(onAlert))
    const final = stream.final()
    await vi.runAllTimersAsync()
    await final
    expect(onAlert).not.toHaveBeenCalled()
  })

  test('does not come after a run is over', async () => {
    const onAlert = vi.fn()
    const failed = rejectionOf(streamOf(failing, {}, limited(onAlert)).final())
    await failed
    const stream = streamOf(paced([2000, [start]]), {}, limited(onAlert))
    const aborted = rejectionOf(stream.final())
    await vi.advanceTimersByTimeAsync(100)
    stream.abort()
    await aborted
    await vi.runAllTimersAsync()
    expect(onAlert).not.toHaveBeenCalled()
  })
})
