/**
 * Spans and metrics. Needs `@opentelemetry/api`.
 *
 * @module fieldstream/telemetry
 */

import type { Attributes, Context, Histogram, Meter, Span, Tracer } from '@opentelemetry/api'
import { checkOptions } from '../check-options.ts'
import { isLLMError, UsageError } from '../errors.ts'
import type { ProviderFinishEvent, StartEvent, StreamEvent, Target, Usage } from '../events.ts'
import type { Middleware } from '../middleware.ts'
import { batchesOf, fromBatches, type ProviderContext, toBatches } from '../provider.ts'
import type { LLMRequest } from '../request.ts'

/** Where spans and measurements go, and what is put on them. */
export interface TelemetryOptions {
  /** Makes the spans. Default: the global provider's tracer `fieldstream`. */
  readonly tracer?: Tracer | undefined
  /** Makes the histograms. Default: the global provider's meter `fieldstream`. */
  readonly meter?: Meter | undefined
  /**
   * `gen_ai.provider.name` by the name of the provider, where the same API is another's: `{ anthropic: 'aws.bedrock' }`.
   */
  readonly providerNames?: Readonly<Record<string, string>> | undefined
  /** Put on every span, by what the host knows of a request. */
  readonly attributes?: ((request: LLMRequest) => Attributes) | undefined
}

type OpenTelemetry = typeof import('@opentelemetry/api')

/** Bounds of the histograms' buckets, as the conventions advise. */
const secondBounds = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
const tokenBounds = Array.from({ length: 14 }, (_, power) => 4 ** power)

/** What the conventions call a service, where that is not its provider's name. */
const conventionalNames: Readonly<Record<string, string>> = { gemini: 'gcp.gemini' }

/**
 * Spans and metrics by OpenTelemetry's semantic conventions for generative AI, which are still in development: a client span
 * `chat {model}`, and the histograms `gen_ai.client.operation.duration`, `gen_ai.client.operation.time_to_first_chunk` (the
 * beginning of the response) and `gen_ai.client.token.usage`. Nothing of the prompt or the answer is recorded. `error.type` is
 * the error's `code`; a run that was cancelled has it too (`aborted`), but not the status of an error.
 *
 * As the first of the middleware it covers what the run waits for and repeats, and knows whether the answer was valid; after
 * `retry()` there is a span for each attempt. In `client.run()` there is one for each step, and none for the tools between them.
 * Answers from a cache have no tokens, since nobody pays for them again. A tracer, meter or `attributes` that throws changes
 * nothing of the run; the client's `onError` hears of it.
 *
 * @throws UsageError for options that make no sense; `missing_dependency` (when first used) without `@opentelemetry/api`.
 *
 * @example
 * ```ts
 * import { StreamingLLMClient } from 'fieldstream'
 * import { anthropic } from 'fieldstream/anthropic'
 * import { telemetry } from 'fieldstream/telemetry'
 *
 * const client = new StreamingLLMClient({
 *   provider: anthropic({ model: 'claude-haiku-4-5' }),
 *   middleware: [telemetry({ attributes: ({ metadata }) => ({ 'app.tenant': String(metadata?.['tenant']) }) })],
 * })
 * ```
 */
export function telemetry(options: TelemetryOptions = {}): Middleware {
  checkOptions('telemetry()', options, [
    'tracer',
    'meter',
    'providerNames',
    'attributes',
  ] satisfies (keyof TelemetryOptions)[])
  const { tracer, meter, providerNames, attributes } = options
  checkMethod('tracer', tracer, 'startSpan')
  checkMethod('meter', meter, 'createHistogram')
  if (attributes !== undefined && typeof attributes !== 'function')
    throw new UsageError('invalid_argument', '`attributes` of telemetry() must be a function.')
  if (providerNames !== undefined && (typeof providerNames !== 'object' || providerNames === null))
    throw new UsageError(
      'invalid_argument',
      "`providerNames` of telemetry() must be an object, e.g. { anthropic: 'aws.bedrock' }.",
    )
  const names = { ...conventionalNames, ...providerNames }
  let instruments: Promise<Instruments> | undefined

  return (next) => (request, context) =>
    fromBatches(async function* () {
      instruments ??= loadInstruments(options).catch((error: unknown) => {
        // Each run is to fail with an error of its own.
        instruments = undefined
        throw error
      })
      let operation: Operation
      try {
        operation = new Operation(
          await instruments,
          names,
          request,
          context,
          attributesOf(request, attributes, context),
        )
      } catch (error) {
        if (isLLMError(error)) throw error
        reportFailure(context, error)
        yield* batchesOf(next(request, context))
        return
      }
      const batches = operation.within(() => toBatches(next(request, operation.context)))
      let isLeft = true
      try {
        for (;;) {
          const { done, value } = await operation.within(() => batches.next())
          if (done) break
          operation.onBatch(value)
          yield value
        }
        isLeft = false
      } catch (error) {
        isLeft = false
        operation.onError(error)
        throw error
      } finally {
        operation.onLeft(isLeft)
        if (isLeft) await batches.return?.()
      }
    })
}

/** What is only to be watched goes on without those who watch. */
function reportFailure({ onConsumerError }: ProviderContext, cause: unknown): void {
  onConsumerError?.('telemetry()', cause)
}

interface Instruments {
  readonly api: OpenTelemetry
  readonly tracer: Tracer
  readonly duration: Histogram
  readonly timeToFirstChunk: Histogram
  readonly tokenUsage: Histogram
}

async function loadInstruments(options: TelemetryOptions): Promise<Instruments> {
  const api = await loadApi()
  const { tracer = api.trace.getTracer('fieldstream'), meter = api.metrics.getMeter('fieldstream') } = options
  const inSeconds = { unit: 's', advice: { explicitBucketBoundaries: secondBounds } }
  return {
    api,
    tracer,
    duration: meter.createHistogram('gen_ai.client.operation.duration', {
      description: 'GenAI operation duration.',
      ...inSeconds,
    }),
    timeToFirstChunk: meter.createHistogram('gen_ai.client.operation.time_to_first_chunk', {
      description: 'Time to receive the first chunk.',
      ...inSeconds,
    }),
    tokenUsage: meter.createHistogram('gen_ai.client.token.usage', {
      description: 'Number of input and output tokens used.',
      unit: '{token}',
      advice: { explicitBucketBoundaries: tokenBounds },
    }),
  }
}

async function loadApi(): Promise<OpenTelemetry> {
  try {
    return await import('@opentelemetry/api')
  } catch (cause) {
    throw new UsageError(
      'missing_dependency',
      'telemetry() needs OpenTelemetry: `npm install @opentelemetry/api`, and an SDK that exports what it records.',
      { cause },
    )
  }
}

/** One answer, from the request to its end. */
class Operation {
  readonly context: ProviderContext
  readonly #instruments: Instruments
  readonly #names: Readonly<Record<string, string>>
  readonly #span: Span
  readonly #spanContext: Context
  readonly #outer: ProviderContext
  readonly #endsWithRun: boolean
  readonly #startedAt = performance.now()
  #isStreamed = true
  #firstByteAt: number | undefined
  #finishedAt: number | undefined
  #target: Target
  #start: StartEvent | undefined
  #finish: ProviderFinishEvent | undefined
  #hasEnded = false
  #hasFailed = false

  constructor(
    instruments: Instruments,
    names: Readonly<Record<string, string>>,
    request: LLMRequest,
    context: ProviderContext,
    attributes: Attributes,
  ) {
    const { api, tracer } = instruments
    this.#instruments = instruments
    this.#names = names
    this.#target = context.target ?? { provider: '', model: '' }
    this.#outer = context
    this.#endsWithRun = context.afterEnd !== undefined
    this.#span = tracer.startSpan(this.#spanName, {
      kind: api.SpanKind.CLIENT,
      attributes: { ...attributes, ...this.#targetAttributes },
    })
    this.#spanContext = api.trace.setSpan(api.context.active(), this.#span)
    this.context = {
      ...context,
      onAsked: (asked) => {
        const { provider, model, isStreamed } = asked
        this.#target = { provider, model }
        this.#isStreamed = isStreamed
        this.#safely(() => {
          this.#span.updateName(this.#spanName)
          this.#span.setAttributes({ ...this.#targetAttributes, 'gen_ai.request.stream': isStreamed })
        })
        context.onAsked?.(asked)
      },
      onFirstByte: () => {
        if (this.#isStreamed) this.#firstByteAt ??= performance.now()
        context.onFirstByte?.()
      },
    }
    context.afterEnd?.((error) => this.end(error))
  }

  /** What is called here has the span as its parent: an instrumented `fetch`, a database that a cache asks. */
  within<Result>(call: () => Result): Result {
    return this.#instruments.api.context.with(this.#spanContext, call)
  }

  onBatch(batch: readonly StreamEvent[]): void {
    for (const event of batch) {
      if (event.type === 'start') this.#start = event
      else if (event.type === 'finish') {
        this.#finish = event
        this.#finishedAt = performance.now()
      }
    }
  }

  /** The source has ended, or nobody reads on. Where that ends the run, how it ended is told by itself. */
  onLeft(isLeft: boolean): void {
    if (this.#endsWithRun && (!isLeft || this.#finish || this.#outer.signal.aborted)) return
    this.end(isLeft && !this.#finish ? leftEarly : undefined)
  }

  /** The source failed. What goes wrong after the evidence takes nothing from the answer. */
  onError(error: unknown): void {
    if (!this.#finish) this.end(error)
  }

  end(error: unknown): void {
    if (this.#hasEnded) return
    this.#hasEnded = true
    const endedAt = this.#finishedAt !== undefined && error === undefined ? this.#finishedAt : performance.now()
    const facts: Attributes = { 'gen_ai.operation.name': 'chat', ...this.#targetAttributes }
    if (this.#start) facts['gen_ai.response.model'] = this.#start.model
    this.#safely(() => this.#recordFirstChunk(facts))
    this.#safely(() => this.#recordTokens(facts))
    if (error !== undefined) facts['error.type'] = errorType(error)
    this.#safely(() => this.#describeSpan(facts, error))
    this.#safely(() => this.#instruments.duration.record((endedAt - this.#startedAt) / 1000, facts, this.#spanContext))
    this.#safely(() => this.#span.end())
  }

  #recordFirstChunk(facts: Attributes): void {
    if (this.#firstByteAt === undefined) return
    const seconds = (this.#firstByteAt - this.#startedAt) / 1000
    this.#instruments.timeToFirstChunk.record(seconds, facts, this.#spanContext)
    this.#span.setAttribute('gen_ai.response.time_to_first_chunk', seconds)
  }

  #recordTokens(facts: Attributes): void {
    if (!this.#finish || this.#start?.cached) return
    const { usage } = this.#finish
    const { tokenUsage } = this.#instruments
    tokenUsage.record(usage.inputTokens, { ...facts, 'gen_ai.token.type': 'input' }, this.#spanContext)
    tokenUsage.record(usage.outputTokens, { ...facts, 'gen_ai.token.type': 'output' }, this.#spanContext)
    this.#span.setAttributes(usageAttributes(usage))
  }

  #describeSpan(facts: Attributes, error: unknown): void {
    const span = this.#span
    span.setAttributes(facts)
    if (this.#start?.responseId !== undefined) span.setAttribute('gen_ai.response.id', this.#start.responseId)
    if (this.#finish) span.setAttribute('gen_ai.response.finish_reasons', [this.#finish.finishReason])
    if (error === undefined || facts['error.type'] === 'aborted') return
    // Our messages hold nothing of the prompt or the answer; of others' that is not known.
    const message = isLLMError(error) ? { message: error.message } : {}
    span.setStatus({ code: this.#instruments.api.SpanStatusCode.ERROR, ...message })
  }

  /** Uses what others made. The first that fails of one answer is told of. */
  #safely(action: () => void): void {
    try {
      action()
    } catch (cause) {
      if (!this.#hasFailed) reportFailure(this.#outer, cause)
      this.#hasFailed = true
    }
  }

  get #spanName(): string {
    return `chat ${this.#target.model}`.trim()
  }

  get #targetAttributes(): Attributes {
    const { provider, model } = this.#target
    return { 'gen_ai.provider.name': this.#names[provider] ?? provider, 'gen_ai.request.model': model }
  }
}

const leftEarly = new DOMException('Nobody read on.', 'AbortError')

function errorType(error: unknown): string {
  if (isLLMError(error)) return error.code
  if (error === leftEarly) return 'aborted'
  return error instanceof Error ? error.name : '_OTHER'
}

function attributesOf(
  request: LLMRequest,
  ofHost: TelemetryOptions['attributes'],
  { onConsumerError }: ProviderContext,
): Attributes {
  const { maxTokens, temperature, topP, stop, output } = request
  let hostAttributes: Attributes | undefined
  try {
    hostAttributes = ofHost?.(request)
  } catch (cause) {
    onConsumerError?.('attributes of telemetry()', cause)
  }
  return {
    ...hostAttributes,
    'gen_ai.operation.name': 'chat',
    'gen_ai.output.type': output ? 'json' : 'text',
    ...(maxTokens !== undefined && { 'gen_ai.request.max_tokens': maxTokens }),
    ...(temperature !== undefined && { 'gen_ai.request.temperature': temperature }),
    ...(topP !== undefined && { 'gen_ai.request.top_p': topP }),
    ...(stop && { 'gen_ai.request.stop_sequences': [...stop] }),
  }
}

function usageAttributes(usage: Usage): Attributes {
  const { inputTokens, outputTokens, cacheReadTokens, cacheWriteTokens, reasoningTokens } = usage
  return {
    'gen_ai.usage.input_tokens': inputTokens,
    'gen_ai.usage.output_tokens': outputTokens,
    'gen_ai.usage.cache_read.input_tokens': cacheReadTokens,
    'gen_ai.usage.cache_creation.input_tokens': cacheWriteTokens,
    ...(reasoningTokens !== undefined && { 'gen_ai.usage.reasoning.output_tokens': reasoningTokens }),
  }
}

function checkMethod(name: 'tracer' | 'meter', value: unknown, method: string): void {
  if (value === undefined || typeof (value as Record<string, unknown> | null)?.[method] === 'function') return
  throw new UsageError(
    'invalid_argument',
    `\`${name}\` of telemetry() must be one of OpenTelemetry, e.g. from its provider's \`get${name === 'tracer' ? 'Tracer' : 'Meter'}()\`.`,
  )
}
