import { AsyncLocalStorage } from 'node:async_hooks'
import {
  type Context,
  context,
  type ContextManager,
  ROOT_CONTEXT,
  SpanKind,
  SpanStatusCode,
  trace,
  type Tracer,
} from '@opentelemetry/api'
import {
  AggregationTemporality,
  InMemoryMetricExporter,
  MeterProvider,
  PeriodicExportingMetricReader,
} from '@opentelemetry/sdk-metrics'
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base'
import {
  cache,
  type ClientOptions,
  fallback,
  type Middleware,
  nonStreaming,
  type Provider,
  retry,
  StreamError,
  type StreamEvent,
  StreamingLLMClient,
  type StreamRequest,
  tool,
} from 'fieldstream'
import { telemetry, type TelemetryOptions } from 'fieldstream/telemetry'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import {
  call,
  collect,
  finish,
  rejectionOf,
  type Script,
  scriptedProvider,
  start,
  streamOf,
  text,
  thrownBy,
  turn,
} from './support.ts'

/** What SDKs for Node bring along: the active context follows asynchronous calls. */
class AsyncContexts implements ContextManager {
  readonly #storage = new AsyncLocalStorage<Context>()
  active(): Context {
    return this.#storage.getStore() ?? ROOT_CONTEXT
  }
  with<A extends unknown[], F extends (...args: A) => ReturnType<F>>(
    active: Context,
    call: F,
    thisArg?: ThisParameterType<F>,
    ...args: A
  ): ReturnType<F> {
    return this.#storage.run(active, () => call.apply(thisArg, args))
  }
  bind<Target>(_: Context, target: Target): Target {
    return target
  }
  enable(): this {
    return this
  }
  disable(): this {
    return this
  }
}

beforeAll(() => void context.setGlobalContextManager(new AsyncContexts()))
afterAll(() => context.disable())

/** A telemetry middleware over the real SDK, and what it exported. */
function recorder(options: TelemetryOptions = {}) {
  const spans = new InMemorySpanExporter()
  const tracer = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(spans)] }).getTracer('test')
  const exporter = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE)
  const reader = new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 3_600_000 })
  const meter = new MeterProvider({ readers: [reader] }).getMeter('test')
  return {
    middleware: telemetry({ tracer, meter, ...options }),
    tracer,
    get spans() {
      return spans.getFinishedSpans()
    },
    /** The points of each histogram. */
    async metrics() {
      await reader.forceFlush()
      const all = exporter.getMetrics().flatMap(({ scopeMetrics }) => scopeMetrics.flatMap(({ metrics }) => metrics))
      return Object.fromEntries(
        all.map(({ descriptor, dataPoints }) => [
          descriptor.name,
          dataPoints.map(({ attributes, value }) => {
            const { count, sum, buckets } = value as { count: number; sum: number; buckets: { boundaries: number[] } }
            return { unit: descriptor.unit, attributes, count, sum, boundaries: buckets.boundaries }
          }),
        ]),
      )
    },
  }
}

async function run(
  script: Script | Provider,
  middleware: readonly Middleware[],
  request: Partial<StreamRequest> = {},
  options: Partial<ClientOptions> = {},
): Promise<unknown> {
  const error = await rejectionOf(streamOf(script, request, { middleware, ...options }).final())
  await turn()
  return error
}

const whole: StreamEvent[][] = [[], [start], [text('secret answer')], [finish('stop')]]
const cut = (): Script =>
  // eslint-disable-next-line @typescript-eslint/require-await -- fails at once
  async function* () {
    yield [start]
    throw new StreamError('stream_truncated', 'The stream was cut.', { retryable: true })
  }

const common = {
  'gen_ai.operation.name': 'chat',
  'gen_ai.provider.name': 'scripted',
  'gen_ai.request.model': 'scripted-1',
  'gen_ai.response.model': 'scripted-1',
}

describe('telemetry()', () => {
  test('makes a span of an answer, by the conventions, without a word of it', async () => {
    const recorded = recorder()
    await run(whole, [recorded.middleware], {
      messages: [{ role: 'user', content: 'secret question' }],
      system: 'secret system',
      maxTokens: 100,
      temperature: 0.5,
      topP: 0.9,
      stop: ['END'],
    })
    expect(recorded.spans).toHaveLength(1)
    const span = recorded.spans[0]!
    expect(span).toMatchObject({
      name: 'chat scripted-1',
      kind: SpanKind.CLIENT,
      status: { code: SpanStatusCode.UNSET },
    })
    expect(span.attributes).toEqual({
      ...common,
      'gen_ai.output.type': 'text',
      'gen_ai.request.stream': true,
      'gen_ai.request.max_tokens': 100,
      'gen_ai.request.temperature': 0.5,
      'gen_ai.request.top_p': 0.9,
      'gen_ai.request.stop_sequences': ['END'],
      'gen_ai.response.id': 'response-1',
      'gen_ai.response.finish_reasons': ['stop'],
      'gen_ai.response.time_to_first_chunk': expect.any(Number) as number,
      'gen_ai.usage.input_tokens': 10,
      'gen_ai.usage.output_tokens': 20,
      'gen_ai.usage.cache_read.input_tokens': 0,
      'gen_ai.usage.cache_creation.input_tokens': 0,
    })
    expect(JSON.stringify([span.attributes, span.events, span.status])).not.toContain('secret')
  })

  test('counts tokens and times by the conventions', async () => {
    const { middleware, metrics } = recorder()
    await run(whole, [middleware])
    await run(whole, [middleware])
    const seconds = { unit: 's', boundaries: expect.arrayContaining([0.01, 81.92]) as number[], attributes: common }
    const tokens = { unit: '{token}', count: 2, boundaries: expect.arrayContaining([1, 67108864]) as number[] }
    expect(await metrics()).toEqual({
      'gen_ai.client.operation.duration': [{ ...seconds, count: 2, sum: expect.any(Number) as number }],
      'gen_ai.client.operation.time_to_first_chunk': [{ ...seconds, count: 2, sum: expect.any(Number) as number }],
      'gen_ai.client.token.usage': [
        { ...tokens, sum: 20, attributes: { ...common, 'gen_ai.token.type': 'input' } },
        { ...tokens, sum: 40, attributes: { ...common, 'gen_ai.token.type': 'output' } },
      ],
    })
  })

  test('names the error of a run that fails', async () => {
    const recorded = recorder()
    await run(cut(), [recorded.middleware])
    expect(recorded.spans[0]).toMatchObject({
      status: { code: SpanStatusCode.ERROR, message: 'The stream was cut.' },
      attributes: { ...common, 'error.type': 'stream_truncated' },
    })
    const metrics = await recorded.metrics()
    expect(metrics['gen_ai.client.operation.duration']).toEqual([
      expect.objectContaining({ count: 1, attributes: { ...common, 'error.type': 'stream_truncated' } }),
    ])
    expect(metrics['gen_ai.client.token.usage'] ?? []).toEqual([])
  })

  test('knows of an answer that was complete, and not valid', async () => {
    const strict = tool({
      name: 'answer',
      validate: () => turn().then(() => ({ issues: [{ path: [], message: 'no' }] })),
    })
    const recorded = recorder()
    const error = await run([[start, ...call('1', '{}'), finish()]], [recorded.middleware], { tools: [strict] })
    expect(error).toMatchObject({ code: 'schema_mismatch' })
    expect(recorded.spans).toHaveLength(1)
    expect(recorded.spans[0]!.attributes).toMatchObject({
      'error.type': 'schema_mismatch',
      'gen_ai.usage.output_tokens': 20,
    })
  })

  test('does not take for a failure what goes wrong after the end of an answer that is still being validated', async () => {
    const slow = tool({ name: 'answer', validate: () => turn().then(() => ({ value: {} })) })
    const recorded = recorder()
    const script: Script = async function* () {
      yield [start, ...call('1', '{}'), finish()]
      await Promise.resolve()
      throw new StreamError('stream_truncated', 'Reset.', { retryable: true })
    }
    expect(await run(script, [recorded.middleware], { tools: [slow] })).toBeUndefined()
    expect(recorded.spans).toHaveLength(1)
    expect(recorded.spans[0]!.attributes['error.type']).toBeUndefined()
  })

  test('does not take a cancelled run for a failure', async () => {
    const recorded = recorder()
    const stream = streamOf([[start], [text('a')], [finish('stop')]], {}, { middleware: [recorded.middleware] })
    for await (const _ of stream) break
    await turn()
    expect(recorded.spans).toHaveLength(1)
    expect(recorded.spans[0]).toMatchObject({
      status: { code: SpanStatusCode.UNSET },
      attributes: { 'error.type': 'aborted' },
    })
  })

  test('covers all attempts from outside of retry(), and each of them from inside', async () => {
    const [outer, inner] = [recorder(), recorder()]
    let attempts = 0
    const flaky = scriptedProvider((provided) =>
      attempts++ === 0
        ? (cut() as (given: typeof provided) => AsyncIterable<readonly StreamEvent[]>)(provided)
        : (async function* () {
            await turn()
            yield* whole
          })(),
    )
    expect(await run(flaky, [outer.middleware, retry({ baseDelay: 0 }), inner.middleware])).toBeUndefined()
    expect(outer.spans.map(({ attributes }) => attributes['error.type'])).toEqual([undefined])
    expect(inner.spans.map(({ attributes }) => attributes['error.type'])).toEqual(['stream_truncated', undefined])
  })

  test('names who answered in place of another', async () => {
    const recorded = recorder({ providerNames: { second: 'aws.bedrock' } })
    const answering = { ...start, provider: 'second', model: 'second-1-dated' } as StreamEvent
    const provider = fallback(
      { ...scriptedProvider(cut()), name: 'first', model: 'first-1' },
      { ...scriptedProvider([[answering], [text('Hi'), finish('stop')]]), name: 'second', model: 'second-1' },
    )
    await run(provider, [recorded.middleware])
    expect(recorded.spans[0]).toMatchObject({
      name: 'chat second-1',
      attributes: {
        'gen_ai.provider.name': 'aws.bedrock',
        'gen_ai.request.model': 'second-1',
        'gen_ai.response.model': 'second-1-dated',
      },
    })
  })

  test("uses the conventions' own name of a service", async () => {
    const recorded = recorder()
    await run({ ...scriptedProvider(whole), name: 'gemini' }, [recorded.middleware])
    expect(recorded.spans[0]!.attributes['gen_ai.provider.name']).toBe('gcp.gemini')
  })

  test('counts no tokens of an answer from a cache', async () => {
    const recorded = recorder()
    await run([[{ ...start, cached: true } as StreamEvent, text('Hi'), finish('stop')]], [recorded.middleware])
    expect((await recorded.metrics())['gen_ai.client.token.usage'] ?? []).toEqual([])
    expect(recorded.spans[0]!.attributes).not.toHaveProperty('gen_ai.usage.input_tokens')
  })

  test('counts the tokens of a call that equal requests share once', async () => {
    const recorded = recorder()
    const middleware = [recorded.middleware, cache({ store: new Map<string, string>() })]
    const provider = scriptedProvider(async function* () {
      // Until the others ask too.
      await new Promise((resolve) => setTimeout(resolve, 100))
      yield* whole
    })
    const client = new StreamingLLMClient({ provider, middleware })
    const ask = () => client.stream({ messages: [{ role: 'user', content: 'Hello' }] }).final()
    await Promise.all([ask(), ask(), ask()])
    await turn()
    const points = (await recorded.metrics())['gen_ai.client.token.usage']!
    expect(recorded.spans).toHaveLength(3)
    expect(points.map(({ count }) => count)).toEqual([1, 1])
  })

  test('takes no time to a first chunk of an answer in one piece', async () => {
    const recorded = recorder()
    const provider = scriptedProvider(whole)
    await run(nonStreaming({ ...provider, generate: provider.stream }), [recorded.middleware])
    expect(recorded.spans[0]!.attributes).toMatchObject({
      'gen_ai.request.stream': false,
      'gen_ai.output.type': 'text',
    })
    expect((await recorded.metrics())['gen_ai.client.operation.time_to_first_chunk'] ?? []).toEqual([])
  })

  test('is a child of the span around it, and the parent of those beneath', async () => {
    const recorded = recorder()
    const around = recorded.tracer.startSpan('around')
    const script: Script = async function* () {
      recorded.tracer.startSpan('beneath').end()
      await turn()
      yield* whole
    }
    await context.with(trace.setSpan(ROOT_CONTEXT, around), () => run(script, [recorded.middleware]))
    around.end()
    const [beneath, chat, outside] = recorded.spans
    expect([beneath!.name, chat!.name, outside!.name]).toEqual(['beneath', 'chat scripted-1', 'around'])
    expect(beneath!.parentSpanContext?.spanId).toBe(chat!.spanContext().spanId)
    expect(chat!.parentSpanContext?.spanId).toBe(around.spanContext().spanId)
  })

  test("puts the host's own attributes on the span, and is not harmed where they cannot be had", async () => {
    const recorded = recorder({ attributes: ({ metadata }) => ({ tenant: metadata!['tenant'] as string }) })
    const onError = vi.fn()
    await run(whole, [recorded.middleware], { metadata: { tenant: 'a' } })
    expect(await run(whole, [recorded.middleware], {}, { onError })).toBeUndefined()
    expect(onError.mock.calls.map(([error]) => (error as Error).message)).toEqual([
      '`attributes of telemetry()` failed; the run goes on. See `cause`.',
    ])
    expect(recorded.spans.map(({ attributes }) => attributes['tenant'])).toEqual(['a', undefined])
  })

  const broken = (): never => {
    throw new Error('exporter')
  }
  const brokenSpan = new Proxy({}, { get: () => broken })
  test.each<[string, TelemetryOptions]>([
    ['a tracer', { tracer: { startSpan: broken } as never }],
    ['a span', { tracer: { startSpan: () => brokenSpan } as never }],
    ['a meter', { meter: { createHistogram: broken } as never }],
    ['a histogram', { meter: { createHistogram: () => ({ record: broken }) } as never }],
  ])('is not harmed by %s that throws, and neither ends nor changes a run', async (_, options) => {
    const { middleware } = recorder(options)
    const script = [[start, text('secret answer')], [finish('stop')]]
    const onError = vi.fn<NonNullable<ClientOptions['onError']>>()
    const events = await collect(streamOf(script, {}, { middleware: [middleware], onError }))
    await turn()
    expect(events.map(({ type }) => type)).toEqual(['start', 'text-delta', 'finish'])
    expect(onError.mock.calls.map(([{ code, message }]) => [code, message])).toEqual([
      ['consumer_error', '`telemetry()` failed; the run goes on. See `cause`.'],
    ])
    // What fails for other reasons fails as ever.
    expect(await run([[start]], [middleware])).toMatchObject({ code: 'stream_truncated' })
    const left = streamOf(scriptedProvider([[start, text('a')], [text('b')]]), {}, { middleware: [middleware] })
    for await (const { type } of left) if (type === 'text-delta') break
    await turn()
  })

  test('ends its span, and takes its other measures, where one of them cannot be taken', async () => {
    const recorded = recorder()
    const tracer = {
      startSpan: (...given: Parameters<Tracer['startSpan']>) =>
        Object.assign(recorded.tracer.startSpan(...given), { setAttributes: broken }),
    }
    await run(whole, [recorder({ tracer: tracer as never }).middleware])
    expect(recorded.spans).toHaveLength(1)
  })

  test('changes nothing of what passes, and needs no SDK', async () => {
    const response = await streamOf(whole, {}, { middleware: [telemetry()] }).final()
    expect(response).toMatchObject({
      text: 'secret answer',
      metrics: { chunks: 3, timeToFirstByteMs: expect.any(Number) as number },
    })
  })

  test.each([
    [{ tracer: {} as never }, '`tracer` of telemetry()'],
    [{ meter: 1 as never }, '`meter` of telemetry()'],
    [{ attributes: {} as never }, '`attributes` of telemetry()'],
    [{ providerNames: 'aws.bedrock' as never }, '`providerNames` of telemetry()'],
    [{ exporter: 1 } as never, 'has no option `exporter`'],
  ] satisfies [TelemetryOptions, string][])('refuses options that make no sense: %j', (options, message) => {
    expect(thrownBy(() => telemetry(options))).toMatchObject({
      code: 'invalid_argument',
      message: expect.stringContaining(message) as string,
    })
  })
})
