import { AssistantMessageBuilder } from './assistant-message.ts'
import type { BatchOptions, DeltaBatcher, TextOrFieldDelta } from './delta-batcher.ts'
import { checkOptions } from './check-options.ts'
import { consumed, Consumers, type Listener } from './consumers.ts'
import {
  AbortedError,
  copyError,
  describeError,
  type ErrorPhase,
  asLLMError,
  isLLMError,
  type LLMError,
  type LLMErrorOptions,
  LLMTimeoutError,
  OutputError,
  StreamError,
  unfinished,
  UsageError,
} from './errors.ts'
import type { ReplayOptions } from './event-log.ts'
import {
  addUsage,
  type FieldEndEvent,
  type Metrics,
  type ProviderFinishEvent,
  type ResponseEvent,
  type RestartEvent,
  type StartEvent,
  type StreamEvent,
  type ToolCallEvent,
  type ToolEvent,
  type ToolInputDeltaEvent,
  type Usage,
} from './events.ts'
import type { CheckedPath, ValueAt } from './field-types.ts'
import type { StreamFunction } from './middleware.ts'
import type { LLMRequest, LLMWarning } from './request.ts'
import { RunDeadline } from './attempts/run-deadline.ts'
import { type AttemptFailure, type Batches, leave, type ProviderContext, toBatches } from './provider.ts'
import { keepAlive } from './timers.ts'
import { type Alerts, type ClientHooks, RunHooks } from './run-hooks.ts'
import type { ProgressEstimator, SizeStatistics } from './progress-estimator.ts'
import type { ShownTexts } from './shown-text.ts'
import { RunMetrics } from './run-metrics.ts'
import type { LLMResponse, RunResponse } from './response.ts'
import type { Snapshot } from './snapshot.ts'
import { FieldWatcher } from './tool-stream/field-watcher.ts'
import type { StreamAccumulator } from './tool-stream/tool-stream-accumulator.ts'
import { checkForced, checkOffered, validateOutput, validateToolCall } from './tool-call-validation.ts'

/** Where a consumer that comes late, or returns, begins. */
export interface SubscribeOptions {
  /** The `seq` of the last event that the consumer has seen, counted from 1. Default 0: it has seen none. */
  readonly from?: number | undefined
}

/**
 * What is to be done between two steps. Its `signal` fires when the run is over.
 *
 * @internal
 */
export type BetweenSteps = (context: {
  readonly signal: AbortSignal
  readonly emit: (event: ToolEvent) => void
  readonly onError: (error: LLMError) => void
}) => Promise<{ readonly request: LLMRequest } | { readonly response: RunResponse }>

/**
 * What a run needs; made by the client.
 *
 * @internal
 */
export interface RunOptions {
  /** The way to the model through all middleware. */
  readonly stream: StreamFunction
  /** What the model is asked. */
  readonly request: LLMRequest
  /** The name of the client's provider. */
  readonly provider: string
  /** The model of the client's provider. */
  readonly model: string
  /** Called for the run, and again for each attempt that begins anew. */
  readonly createAccumulator: () => StreamAccumulator
  /** The names of the fields that may be reported. */
  readonly fieldNames: ReadonlySet<string>
  /** As on `StreamRequest`. */
  readonly onInvalid: 'continue' | 'abort'
  /** Whether providers are asked to stream. Default true. */
  readonly streaming?: boolean | undefined
  /** As on `StreamRequest`, that of the client included. */
  readonly batch: BatchOptions | undefined
  /** Says what follows an answer that is complete and valid: the end of the run, or more. Default: the end. */
  readonly afterStep?: ((response: RunResponse['steps'][number]) => RunResponse | BetweenSteps) | undefined
  /** The caller's own signal. */
  readonly signal: AbortSignal | undefined
  /** As on `StreamRequest`, that of the client included. */
  readonly replay: ReplayOptions | undefined
  /** As on `StreamRequest`. */
  readonly keepAlive: boolean
  /** What the estimates of `progress` learn from; absent where none are wanted. */
  readonly seenSizes: SizeStatistics | undefined
  /** Throws where a path cannot exist in the schemas of the tools and the output. */
  readonly checkPath: (path: string) => void
  /** Those of the client. */
  readonly hooks: ClientHooks
  /** Those of the client. */
  readonly alerts: Alerts
}

/** How long the source of a complete answer may take to end. */
const graceMs = 1000

/** Once loaded, a run that needs them begins as soon as any other. */
let parts: typeof import('./optional-parts.ts') | undefined

async function loadParts(): Promise<void> {
  parts = await import('./optional-parts.ts')
}

/** What listeners can hear: each event under its type, and the error a run ends with. */
export type Listenable<Event> = {
  [Type in (Event & { readonly type: string })['type']]: Extract<Event, { readonly type: Type }>
} & {
  /** What the run ended with; comes once, after the last event. */
  error: LLMError
}

/**
 * One answer while it is written. `for await` reads it at the loop's own pace, and leaving the loop cancels the run; `on()`,
 * `final()` and `field()` start the run by themselves. Any of them can be combined, if asked for before the first event.
 *
 * @example
 * ```ts
 * const stream = client.stream({ messages, tools: [answer], fields: { title: 'title' } })
 * stream.on('field-delta', ({ delta }) => show(delta))
 * const route = await stream.field('route')
 * const { toolCalls } = await stream.final()
 * ```
 */
export class ResponseStream<
  /** The events of this request. */
  Event = ResponseEvent,
  /** The tool calls of its response. */
  Calls extends readonly unknown[] = readonly Omit<ToolCallEvent, 'type'>[],
  /** The arguments of its tools and its output, as the model writes them. */
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- a function that takes any stream takes one of any input
  Input = any,
  /** The names of its fields. */
  Name extends string = string,
  /** The output of its response. */
  Output = unknown,
  Response = LLMResponse<Calls, Output>,
> implements AsyncIterable<Event> {
  readonly #options: RunOptions
  /** Of the step under way. */
  #controller = new AbortController()
  readonly #consumers: Consumers
  readonly #watchers = new Set<FieldWatcher>()
  /** The attempts that failed, and what of them was seen. */
  #failures: AttemptFailure[] = []
  #shown: ShownTexts | undefined
  #batcher: DeltaBatcher | undefined
  /** Whether the batch that is being read is a whole answer of before: nothing of it has to wait for more. */
  #isReplayed = false
  #progress: ProgressEstimator | undefined
  /** The last that was said of it, in hundredths. */
  #percent = 0
  #accumulator: StreamAccumulator
  #message = new AssistantMessageBuilder()
  #warnings: LLMWarning[] = []

  #request: LLMRequest
  /** What is to be done before the next step, as soon as a consumer wants more. */
  #between: BetweenSteps | undefined
  /** While it is done. */
  #betweenController: AbortController | undefined
  /** The number of the last attempt in this step for which a provider was asked; 0 before the first, and where others ask. */
  #asked = 0
  /** Of the steps before this one. */
  #attemptsBefore = 0
  #usageBefore: Usage | undefined

  #source: Batches | undefined
  #isReading = false
  /** Whether the run goes on by itself, not only when a consumer pulls. */
  #isDriven = false
  #hasLoop = false
  #hasFinished = false
  #seq = 0
  #textLength = 0
  /** What is wrong with the output in the eyes of `field()`. */
  #watchError: LLMError | undefined

  #response: LLMResponse | RunResponse | undefined
  #error: LLMError | undefined
  #isSettled = false
  #final: Promise<unknown> | undefined
  #settle: (() => void)[] = []

  #start: StartEvent | undefined
  #usage: Usage | undefined
  #metrics = new RunMetrics()
  readonly #hooks: RunHooks
  #deadline: RunDeadline | undefined
  #validationTimer: ReturnType<typeof setTimeout> | undefined
  /** Whether the step under way is complete and valid in the end. */
  #isValid = Promise.withResolvers<boolean>()

  /** @internal */
  constructor(options: RunOptions) {
    this.#options = options
    this.#request = options.request
    this.#accumulator = options.createAccumulator()
    const { hooks, alerts, provider, model, request } = options
    this.#hooks = new RunHooks(hooks, alerts, { provider, model }, request.metadata)
    this.#consumers = new Consumers({
      replay: options.replay,
      pull: () => this.#read(),
      onThrown: (what, cause) => this.#hooks.onThrown(what, cause),
    })
  }

  /**
   * All events. One loop per stream; leaving it early cancels the run, unless there are subscribers or the request has
   * `keepAlive`.
   */
  [Symbol.asyncIterator](): AsyncIterableIterator<Event, undefined> {
    if (this.#hasLoop) throw consumed('A stream is looped over once')
    const left = (): void => this.#onLeft(true)
    // Where a consumer may return, all get the same events, so that each `seq` means the same place to all of them.
    const events = this.#options.replay
      ? this.#consumers.subscribe(0, left)
      : this.#consumers.queue((_event): _event is ResponseEvent => true, left)
    this.#hasLoop = true
    return events as AsyncIterableIterator<unknown, undefined> as AsyncIterableIterator<Event, undefined>
  }

  /**
   * All events for one consumer of several: those after the event with the number `from` (default 0, all), as far as `replay`
   * keeps them, then those to come. Leaving cancels the run only where nobody else is left to read it and the request has no
   * `keepAlive`.
   *
   * @throws ConsumerError `stream_consumed` where an event after `from` is not kept any more; UsageError where the run had no
   * event `from`.
   */
  subscribe(options: SubscribeOptions = {}): AsyncIterableIterator<Event, undefined> {
    checkOptions('subscribe()', options, ['from'])
    const { from = 0 } = options
    if (!Number.isInteger(from) || from < 0)
      throw new UsageError('invalid_argument', '`from` of subscribe() must be the `seq` of an event, or 0.')
    const events = this.#consumers.subscribe(from, () => this.#onLeft(false))
    return events as AsyncIterableIterator<unknown, undefined> as AsyncIterableIterator<Event, undefined>
  }

  /**
   * Calls `listener` with every event of a type, and starts the run. A listener that throws is reported to the client's `onError`.
   *
   * @throws UsageError where there is no event of that type, or `listener` is no function.
   */
  on<Type extends keyof Listenable<Event> & string>(
    type: Type,
    listener: (event: Listenable<Event>[Type]) => unknown,
  ): this {
    return this.#listen('on', type, listener)
  }

  /**
   * As `on`, for the next event of the type only.
   *
   * @throws as `on`.
   */
  once<Type extends keyof Listenable<Event> & string>(
    type: Type,
    listener: (event: Listenable<Event>[Type]) => unknown,
  ): this {
    return this.#listen('once', type, listener)
  }

  /** Takes a listener off. */
  off<Type extends keyof Listenable<Event> & string>(
    type: Type,
    listener: (event: Listenable<Event>[Type]) => unknown,
  ): this {
    this.#consumers.off(type, listener)
    return this
  }

  /**
   * The complete, validated answer; starts the run. Always the same promise.
   *
   * @throws LLMError (as a rejection) for whatever kept the answer from being complete; `error.partial` holds what arrived.
   */
  final(): Promise<Response> {
    this.#final ??= new Promise<unknown>((resolve, reject) => {
      this.#onSettled(() => (this.#response ? resolve(this.#response) : reject(this.#error)))
    })
    // Who also loops sees the error there; an unwatched promise must not bring the process down.
    this.#final.catch(() => undefined)
    this.#drive()
    return this.#final as Promise<Response>
  }

  /**
   * The value at a path of the tool arguments or the output, as soon as it closes in any of them; `undefined` where the whole
   * answer does not have it. Starts the run. The value is not validated yet.
   *
   * @throws UsageError where the path is malformed or cannot exist; LLMError (as a rejection) where the run fails first.
   */
  field<const Path extends string>(path: Path & CheckedPath<Path, Input>): Promise<ValueAt<Input, Path> | undefined> {
    this.#options.checkPath(path)
    const promise = new Promise<unknown>((resolve, reject) => {
      // Values in what has come already count only when all of it was read: it may repeat a key.
      const found: unknown[] = []
      let isLate = true
      const watcher = new FieldWatcher(path, (value) => (isLate ? found.push(value) : resolve(value)))
      this.#watchers.add(watcher)
      try {
        for (const { toolCallId, inputText } of this.#accumulator.snapshot().toolCalls)
          watcher.write(toolCallId, inputText)
        const error = this.#isOutput ? this.#watchOutput(watcher, this.#message.text) : undefined
        if (error && this.#hasFinished) throw error
        isLate = false
        if (found.length > 0 && !error) resolve(found[0])
      } catch (error) {
        reject(error)
        this.#fail(error)
      }
      this.#onSettled(() => (this.#response ? resolve(undefined) : reject(this.#error)))
    })
    promise.catch(() => undefined)
    this.#drive()
    return promise as Promise<ValueAt<Input, Path> | undefined>
  }

  /**
   * The text of one field as it is written; of all its places, one after the other.
   *
   * @throws UsageError where the request has no such field; ConsumerError `stream_consumed` where the run had begun before.
   */
  fields(name: Name): AsyncIterableIterator<string, undefined> {
    if (!this.#options.fieldNames.has(name)) {
      const known = [...this.#options.fieldNames].join(', ') || 'none'
      throw new UsageError('invalid_argument', `The request has no field "${name}". Its fields: ${known}.`)
    }
    return this.#deltas(
      (event): event is Extract<ResponseEvent, { type: 'field-delta' }> =>
        event.type === 'field-delta' && event.field === name,
    )
  }

  /** The plain text of the answer as it is written, without reasoning and tool arguments. */
  get textStream(): AsyncIterableIterator<string, undefined> {
    return this.#deltas((event): event is Extract<ResponseEvent, { type: 'text-delta' }> => event.type === 'text-delta')
  }

  /** What has arrived so far, put together on demand. Nothing in it is validated. */
  snapshot(): Snapshot {
    const messages = this.#request.messages.slice(this.#options.request.messages.length)
    return { text: this.#message.text, reasoning: this.#message.reasoning, ...this.#accumulator.snapshot(), messages }
  }

  /** Stops the run: closes the connection, and ends every loop and promise with an `AbortedError` that carries `reason`. */
  abort(reason?: unknown): void {
    this.#abort(reason ?? 'abort() was called')
  }

  /**
   * The events as lines of JSON in UTF-8, e.g. for `new Response(…)`. Fails where the run fails; cancelling it cancels the run.
   *
   * @throws ConsumerError `stream_consumed` where the stream is looped over already, or the run had begun before.
   */
  toReadableStream(): ReadableStream<Uint8Array> {
    const events = this[Symbol.asyncIterator]()
    const encoder = new TextEncoder()
    return new ReadableStream(
      {
        async pull(controller) {
          try {
            const { value, done } = await events.next()
            if (done) controller.close()
            else controller.enqueue(encoder.encode(`${JSON.stringify(value)}\n`))
          } catch (error) {
            // A value that `map` or a schema made may not be JSON.
            await events.return?.()
            throw error
          }
        },
        async cancel() {
          await events.return?.()
        },
      },
      // Reads nothing ahead of its reader.
      { highWaterMark: 0 },
    )
  }

  // ------------------------------------------------------------------------------------------------------------ consumers

  /** A consumer left; `isLoop` says that it was the one that by default owns the run. */
  #onLeft(isLoop: boolean): void {
    const hasOthers = this.#consumers.hasSubscribers || (!isLoop && (this.#isDriven || this.#consumers.hasQueues))
    if (hasOthers) return
    if (!this.#options.keepAlive) this.abort('consumer_return')
    // What has not begun is not begun for nobody.
    else if (this.#isReading || this.#source || this.#seq > 0) this.#drive()
  }

  #deltas(
    accepts: (event: ResponseEvent) => event is Extract<ResponseEvent, { delta: string }>,
  ): AsyncIterableIterator<string, undefined> {
    if (this.#options.request.onInterrupted === 'restart')
      throw new UsageError(
        'invalid_argument',
        "`textStream` and `fields()` cannot say which text is void after a `restart`: loop over the events, or leave out `onInterrupted: 'restart'`.",
      )
    // Leaving the only view there is cancels the run; others may go on without this one.
    const events = this.#consumers.queue(accepts, () => this.#onLeft(false))
    return {
      [Symbol.asyncIterator]() {
        return this
      },
      async next() {
        const { value, done } = await events.next()
        return done ? { value: undefined, done } : { value: value.delta, done: false }
      },
      async return() {
        await events.return()
        return { value: undefined, done: true }
      },
    }
  }

  #listen(method: 'on' | 'once', type: string, listener: Listener): this {
    this.#consumers.listen(method, type, listener)
    this.#drive()
    return this
  }

  #onSettled(callback: () => void): void {
    if (this.#isSettled) callback()
    else this.#settle.push(callback)
  }

  // ------------------------------------------------------------------------------------------------------------------ run

  /** Lets the run go on by itself, from the next microtask on: what is asked for in the same breath misses nothing. */
  #drive(): void {
    if (this.#isDriven || this.#isSettled) return
    this.#isDriven = true
    queueMicrotask(() => this.#read())
  }

  readonly #onSignal = (): void => this.#abort(this.#options.signal?.reason)

  #abort(reason: unknown): void {
    if (!this.#isSettled) this.#fail(new AbortedError(reason, { phase: this.#phase }))
  }

  get #phase(): ErrorPhase {
    if (this.#between || this.#betweenController) return 'tool'
    if (this.#hasFinished) return 'validate'
    return this.#start ? 'stream' : 'connect'
  }

  /** Reads the next batch, unless one is on its way. Callbacks, not `await`: an abort must not wait for a read that hangs. */
  #read(): void {
    if (this.#isReading || this.#isSettled) return
    if (this.#hasFinished) {
      this.#goOn()
      return
    }
    this.#isReading = true
    try {
      if (this.#needsParts && !parts) {
        loadParts().then(
          () => this.#readOn(),
          (error: unknown) => this.#fail(error),
        )
        return
      }
      this.#source ??= this.#open()
      this.#metrics.onRead()
      this.#source.next().then(this.#onResult, this.#onReadError)
    } catch (error) {
      this.#fail(error)
    }
  }

  // Made once, not for every read.
  readonly #onResult = ({ done, value }: IteratorResult<readonly StreamEvent[], unknown>): void =>
    this.#onBatch(done ? undefined : value)
  readonly #onReadError = (error: unknown): void => this.#fail(error)

  #readOn(): void {
    this.#isReading = false
    this.#read()
  }

  get #needsParts(): boolean {
    const { batch, seenSizes, request } = this.#options
    return batch !== undefined || seenSizes !== undefined || request.onInterrupted === 'restart'
  }

  #open(): Batches {
    const { signal, provider, model, batch } = this.#options
    if (signal?.aborted) throw new AbortedError(signal.reason, { phase: this.#phase })
    // Not earlier: a stream that nobody uses leaves no listener behind.
    signal?.addEventListener('abort', this.#onSignal)
    if (this.#attemptsBefore === 0) {
      this.#metrics = new RunMetrics()
      this.#hooks.begin()
    }
    if (batch && parts) this.#batcher ??= new parts.DeltaBatcher(batch, (event) => this.#emitJoined(event))
    this.#shown = this.#request.onInterrupted === 'restart' && parts ? new parts.ShownTexts() : undefined
    this.#progress = this.#createEstimator()
    this.#deadline = new RunDeadline((total) => this.#fail(outOfTime(total)))
    const { promise: isValid } = this.#isValid
    const context: ProviderContext = {
      signal: this.#controller.signal,
      target: { provider, model },
      ...(this.#options.streaming === false && { streaming: false }),
      attempt: 1,
      deadline: this.#deadline,
      showsReasoning: this.#hasLoop || this.#consumers.mayHear('reasoning-delta'),
      onAttemptFailed: (failure) => this.#onAttemptFailed(failure),
      onAsked: (asked) => {
        this.#asked = asked.attempt
        if (asked.isFallback) this.#metrics.onFallback()
        this.#hooks.onAsked(asked)
      },
      onFirstByte: () => {
        this.#metrics.onFirstByte()
        this.#hooks.onFirstByte()
      },
      onQueued: (milliseconds) => this.#metrics.onQueued(milliseconds),
      onConsumerError: (name, cause) => this.#hooks.onThrown(`\`${name}\``, cause),
      afterEnd: (callback) => void isValid.then((isSo) => callback(isSo ? undefined : this.#error)),
    }
    return toBatches(this.#options.stream(this.#request, context))
  }

  #onAttemptFailed(failure: AttemptFailure): void {
    if (this.#isSettled) return
    this.#failures.push(failure)
    this.#hooks.onAttemptFailed(failure)
  }

  #onBatch(batch: readonly StreamEvent[] | undefined): void {
    if (this.#isSettled || this.#hasFinished) return
    if (!batch) {
      this.#fail(unfinished(this.#options.provider))
      return
    }
    this.#metrics.onChunk()
    this.#hooks.onBatch(batch)
    this.#isReplayed = batch.at(-1)?.type === 'finish' && batch.some((event) => event.type === 'start' && event.cached)
    this.#consumers.startBatch()
    try {
      for (const event of batch) {
        this.#onEvent(event)
        if (this.#isSettled || this.#hasFinished) break
      }
    } catch (error) {
      this.#fail(error)
    }
    // Not earlier: whoever asks for more in the middle of a batch is not to read beyond its end.
    this.#isReading = false
    this.#consumers.endBatch()
    if (this.#isWanted()) this.#read()
  }

  #isWanted(): boolean {
    return this.#isDriven || this.#consumers.areWaiting
  }

  #onEvent(event: StreamEvent): void {
    this.#message.push(event)
    if (this.#batcher && endsDeltas(event)) this.#batcher.flush()
    switch (event.type) {
      case 'start':
        this.#start ??= event
        this.#warnings.push(...(event.warnings ?? []))
        this.#emit({ ...event, attempt: event.attempt ?? 1, cached: event.cached ?? false, seq: ++this.#seq })
        return
      case 'text-delta':
        this.#metrics.onText()
        this.#metrics.onCharacters(event.delta.length)
        // Before any listener hears of it: one that asks for another `field()` reads the text as it is by now.
        if (this.#isOutput) for (const watcher of this.#watchers) this.#watchOutput(watcher, event.delta)
        this.#textLength += event.delta.length
        this.#emitDelta({ type: 'text-delta', delta: event.delta, length: this.#textLength })
        this.#accumulate(event)
        this.#progress?.write(undefined, event.delta)
        this.#emitProgress()
        return
      case 'reasoning-delta':
        this.#metrics.onCharacters(event.delta.length)
        this.#emit({ type: 'reasoning-delta', delta: event.delta, seq: ++this.#seq })
        return
      case 'tool-input-start':
        checkOffered(event.toolName, this.#request)
        this.#shown?.startCall(event.toolCallId)
        this.#emit({ ...event, seq: ++this.#seq })
        this.#progress?.startCall(event.toolCallId, event.toolName)
        this.#accumulate(event)
        return
      case 'tool-input-delta':
        this.#metrics.onCharacters(event.delta.length)
        this.#emit({ type: 'tool-input-delta', toolCallId: event.toolCallId, delta: event.delta, seq: ++this.#seq })
        this.#accumulate(event)
        this.#progress?.write(event.toolCallId, event.delta)
        this.#emitProgress()
        return
      case 'tool-input-end':
        this.#emit({ type: 'tool-input-end', toolCallId: event.toolCallId, seq: ++this.#seq })
        this.#accumulate(event)
        this.#progress?.endCall(event.toolCallId)
        this.#emitProgress()
        return
      case 'usage':
        this.#usage = event.usage
        return
      case 'warning':
        this.#warnings.push(event.warning)
        return
      case 'raw':
        this.#emit({ ...event, seq: ++this.#seq })
        return
      case 'finish':
        this.#usage = event.usage
        this.#batcher?.flush()
        this.#emitCut()
        this.#accumulate(event)
        this.#batcher?.flush()
        // Whoever heard of the last deltas may have stopped the run.
        if (!this.#isSettled) this.#complete(event)
        return
      case 'restart':
        this.#restart(event)
        return
      case 'part':
      case 'part-end':
        return
      default:
        event satisfies never
    }
  }

  #accumulate(event: StreamEvent): void {
    const accumulator = this.#accumulator
    const { onInvalid } = this.#options
    const fieldEvents = accumulator.push(event)
    // Before any listener hears of the fields: one that asks for another `field()` reads what the accumulator has by now.
    const watchError = event.type === 'tool-input-delta' ? this.#watch(event) : undefined
    for (const fieldEvent of fieldEvents) {
      this.#metrics.onField(fieldEvent.field)
      if (fieldEvent.type === 'field-delta') this.#emitDelta(fieldEvent)
      else {
        this.#batcher?.flush()
        this.#emitCut(fieldEvent)
        this.#emit({ ...fieldEvent, seq: ++this.#seq })
      }
      if (fieldEvent.type === 'field-end' && fieldEvent.valid === false && onInvalid === 'abort')
        throw invalidField(fieldEvent)
    }
    const error = accumulator.error ?? watchError
    if (error) throw error
  }

  /** Forgets the attempt that failed, except what a consumer has seen of it. */
  #restart(event: RestartEvent): void {
    this.#reset()
    this.#progress = this.#createEstimator()
    this.#emit({ ...event, shown: this.#shown?.restart() ?? [], seq: ++this.#seq })
  }

  /** Begins to put an answer together. */
  #reset(): void {
    this.#accumulator = this.#options.createAccumulator()
    this.#message = new AssistantMessageBuilder()
    this.#warnings = []
    this.#start = undefined
    this.#usage = undefined
    this.#watchError = undefined
    this.#textLength = 0
    for (const watcher of this.#watchers) watcher.restart()
  }

  /** Takes back what was shown of a value, or of the text, that turned out shorter in the attempt after. */
  #emitCut(closed?: FieldEndEvent): void {
    const cut = this.#shown?.end(closed)
    if (cut) this.#emit({ ...cut, seq: ++this.#seq })
  }

  #emitDelta(event: TextOrFieldDelta): void {
    // Nothing waits any more once a listener has stopped the run.
    if (this.#isSettled) return
    if (this.#batcher && !this.#isReplayed) this.#batcher.push(event)
    else this.#emitJoined(event)
  }

  #emitJoined(event: TextOrFieldDelta): void {
    const shown = this.#shown ? this.#shown.show(event) : event
    if (shown) this.#emit({ ...shown, seq: ++this.#seq })
  }

  #createEstimator(): ProgressEstimator | undefined {
    const { seenSizes, request } = this.#options
    return seenSizes && parts && new parts.ProgressEstimator(request, seenSizes)
  }

  /** Says how far the answer is, in whole hundredths: a hundred events for the longest. */
  #emitProgress(): void {
    if (!this.#progress) return
    const percent = Math.min(Math.floor(this.#progress.ratio * 100), 99)
    if (percent <= this.#percent) return
    this.#percent = percent
    this.#emit({ type: 'progress', ratio: percent / 100, seq: ++this.#seq })
  }

  #watch({ toolCallId, delta }: ToolInputDeltaEvent): LLMError | undefined {
    if (this.#watchers.size === 0) return undefined
    try {
      for (const watcher of this.#watchers) watcher.write(toolCallId, delta)
      return undefined
    } catch (error) {
      if (isLLMError(error)) return error
      throw error
    }
  }

  /** Whether the text is the output, as far as is known. */
  get #isOutput(): boolean {
    return this.#request.output !== undefined && (!this.#hasFinished || this.#accumulator.output !== undefined)
  }

  /** As `#watch`, for text; but what is wrong with it counts only once it is known to be the output. */
  #watchOutput(watcher: FieldWatcher, delta: string): LLMError | undefined {
    try {
      watcher.write(undefined, delta)
      return undefined
    } catch (error) {
      if (!isLLMError(error)) throw error
      this.#watchError ??= error
      return error
    }
  }

  #emit(event: ResponseEvent): void {
    // A listener may have stopped the run in the middle of what one delta brings.
    if (this.#error) return
    this.#metrics.onEvent()
    this.#consumers.emit(event)
  }

  // --------------------------------------------------------------------------------------------------------------- ending

  /** Takes the terminal evidence. Where every validator answers at once, so does this. */
  #complete(finish: ProviderFinishEvent): void {
    this.#hasFinished = true
    if (this.#source) void this.#endByItself(this.#source, this.#controller)
    const { toolCalls, output } = this.#accumulator
    const { tools, toolChoice, output: format } = this.#request
    if (this.#isOutput && this.#watchError) throw this.#watchError
    checkForced(toolCalls, toolChoice, finish.finishReason)
    const checkedOutput = format && output !== undefined ? validateOutput(output, format) : undefined
    const checked = toolCalls.map((call) =>
      validateToolCall(
        call,
        tools?.find(({ name }) => name === call.toolName),
      ),
    )
    if ([checkedOutput, ...checked].some((result) => result instanceof Promise)) {
      this.#limitValidation()
      Promise.all([checkedOutput, ...checked].map((result) => Promise.resolve(result))).then(
        ([value, ...calls]) => this.#succeed(finish, calls as ToolCallEvent[], value),
        (error: unknown) => this.#fail(error),
      )
    } else this.#succeed(finish, checked as ToolCallEvent[], checkedOutput)
  }

  #limitValidation(): void {
    const timeoutMs = this.#deadline?.validation ?? false
    if (timeoutMs === false) return
    this.#validationTimer = setTimeout(() => this.#fail(validationTooLong(timeoutMs)), timeoutMs)
  }

  #succeed(finish: ProviderFinishEvent, calls: readonly ToolCallEvent[], output: unknown): void {
    if (this.#isSettled) return
    const { finishReason, providerFinishReason, usage } = finish
    const metrics = this.#takeMetrics(this.#usageSoFar)
    const inputs = new Map(this.#accumulator.toolCalls.map(({ toolCallId, input }) => [toolCallId, input]))
    const { provider, model } = this.#options
    const response: RunResponse['steps'][number] = {
      text: this.#message.text,
      reasoning: this.#message.reasoning,
      toolCalls: calls.map(({ type: _, ...call }) => call),
      output,
      finishReason,
      providerFinishReason,
      usage,
      metrics,
      provider: this.#start?.provider ?? provider,
      model: this.#start?.model ?? model,
      responseId: this.#start?.responseId,
      requestId: this.#start?.requestId,
      messages: [this.#message.build(inputs)],
      warnings: this.#warnings,
    }
    this.#endStep(true)
    const next = this.#options.afterStep?.(response) ?? response
    if (typeof next !== 'function') {
      this.#settleWith(next, calls)
      return
    }
    this.#between = next
    for (const call of calls) this.#emit({ ...call, seq: ++this.#seq })
    if (this.#isWanted()) this.#read()
  }

  #settleWith(response: LLMResponse | RunResponse, calls: readonly ToolCallEvent[]): void {
    const { finishReason, providerFinishReason, usage, metrics } = response
    this.#response = response
    // Settled before anybody hears of it, so that a listener's abort() cannot undo what others were told.
    this.#end()
    if (this.#progress) {
      this.#progress.learn()
      this.#emit({ type: 'progress', ratio: 1, seq: ++this.#seq })
    }
    for (const call of calls) this.#emit({ ...call, seq: ++this.#seq })
    this.#emit({ type: 'finish', finishReason, providerFinishReason, usage, metrics, seq: ++this.#seq })
    this.#consumers.finish()
    this.#hooks.onFinish(this.#response)
  }

  #takeMetrics(usage: Usage | undefined): Metrics {
    return this.#metrics.take({
      attempts: this.#attemptsBefore + (Math.max(this.#asked, this.#start?.attempt ?? 0) || this.#attempt),
      cached: this.#start?.cached ?? false,
      usage,
    })
  }

  /** Does what stands between two steps, once. */
  #goOn(): void {
    const between = this.#between
    if (!between) return
    this.#between = undefined
    const controller = new AbortController()
    this.#betweenController = controller
    const emit = (event: ToolEvent): void => this.#emit({ ...event, seq: ++this.#seq })
    between({ signal: controller.signal, emit, onError: (error) => this.#hooks.onError(error) }).then(
      (outcome) => {
        if (this.#isSettled) return
        this.#betweenController = undefined
        if ('request' in outcome) this.#beginStep(outcome.request)
        else this.#settleWith(outcome.response, [])
      },
      (error: unknown) => this.#fail(error),
    )
  }

  #beginStep(request: LLMRequest): void {
    this.#attemptsBefore += this.#attempt
    this.#asked = 0
    this.#metrics.onStep()
    this.#usageBefore = this.#usageSoFar
    this.#request = request
    this.#reset()
    this.#failures = []
    this.#controller = new AbortController()
    this.#isValid = Promise.withResolvers()
    this.#source = undefined
    this.#hasFinished = false
    if (this.#isWanted()) this.#read()
  }

  get #usageSoFar(): Usage | undefined {
    const before = this.#usageBefore
    return before && this.#usage ? addUsage(before, this.#usage) : (this.#usage ?? before)
  }

  #fail(cause: unknown): void {
    if (this.#isSettled) return
    const { provider, model } = this.#options
    let error = asLLMError(cause, this.#phase)
    // Another run may have failed with the same: what arrived there is its own.
    if ('partial' in error) error = copyError(error, ['partial', 'attempts', 'attempt', 'usage', 'metrics'])
    if (!(error instanceof AbortedError)) {
      // What came before the failure is heard of before it; whoever hears of it may end the run by himself.
      this.#batcher?.flush()
      if (this.#isSettled) return
    }
    const metrics = this.#takeMetrics(this.#usageSoFar)
    this.#error = describeError(error, {
      provider,
      model,
      attempt: this.#attempt,
      usage: this.#usageSoFar,
      attempts: this.#failures,
      metrics,
      partial: () => this.snapshot(),
      ...(error instanceof StreamError && this.#breakingPoint()),
    })
    this.#end()
    this.#consumers.fail(error)
    this.#hooks.onFailed(error, metrics)
  }

  /** The number of the attempt under way. */
  get #attempt(): number {
    return this.#start?.attempt ?? (this.#failures.at(-1)?.attempt ?? 0) + 1
  }

  /** Where in which call's arguments, or in the output, a stream broke off. */
  #breakingPoint(): Pick<LLMErrorOptions, 'toolName' | 'toolCallId' | 'position'> | undefined {
    const call = this.#accumulator.snapshot().toolCalls.findLast(({ complete }) => !complete)
    if (call) return { toolName: call.toolName, toolCallId: call.toolCallId, position: call.inputText.length }
    return this.#request.output && { position: this.#message.text.length }
  }

  #end(): void {
    this.#isSettled = true
    this.#endStep(false)
    this.#batcher?.end()
    this.#betweenController?.abort(this.#error)
    this.#options.signal?.removeEventListener('abort', this.#onSignal)
    if (!this.#hasFinished) {
      this.#controller.abort(this.#error)
      void leave(this.#source)
    }
    for (const callback of this.#settle.splice(0)) callback()
    this.#watchers.clear()
  }

  /** What holds for one step only ends with it. */
  #endStep(isValid: boolean): void {
    this.#deadline?.end()
    clearTimeout(this.#validationTimer)
    this.#isValid.resolve(isValid)
  }

  /** Asks once more after the evidence, so that a provider can keep its connection and a middleware do its last work. */
  async #endByItself(source: Batches, controller: AbortController): Promise<void> {
    const timer = setTimeout(() => controller.abort(), graceMs)
    keepAlive(timer, false)
    try {
      const { done } = await source.next()
      if (!done) await source.return?.()
    } catch {
      // The run has its evidence already.
    } finally {
      clearTimeout(timer)
    }
  }
}

/** Whether deltas that wait are to be heard of before an event. Those of another kind do not end them, nor does what is no event. */
function endsDeltas({ type }: StreamEvent): boolean {
  switch (type) {
    case 'start':
    case 'reasoning-delta':
    case 'tool-input-start':
    case 'tool-input-end':
    case 'restart':
      return true
    default:
      return false
  }
}

function outOfTime(timeoutMs: number): LLMTimeoutError {
  return new LLMTimeoutError(
    'timeout',
    `The run was not over within ${timeoutMs} ms. If it needs longer, raise \`total\` of timeout().`,
    { phase: 'total', timeoutMs },
  )
}

function validationTooLong(timeoutMs: number): LLMTimeoutError {
  return new LLMTimeoutError(
    'timeout',
    `The answer was not validated within ${timeoutMs} ms. If it needs longer, raise \`validate\` of timeout().`,
    { phase: 'validate', timeoutMs },
  )
}

function invalidField({ field, path, issues = [], toolName, toolCallId }: FieldEndEvent): OutputError {
  return new OutputError(
    'schema_mismatch',
    `The value of field "${field}" is against its schema; the run was stopped.`,
    {
      phase: 'validate',
      toolName,
      toolCallId,
      issues: issues.map((issue) => ({
        ...issue,
        path: issue.path === '' || issue.path.startsWith('[') ? path + issue.path : `${path}.${issue.path}`,
      })),
    },
  )
}
