import { attemptOf } from './attempts/attempt.ts'
import { checkFunctions, checkNumbers, checkOptions } from './check-options.ts'
import { checkBatch, checkReplay, checkRequest } from './check-request.ts'
import type { BatchOptions } from './delta-batcher.ts'
import { UsageError } from './errors.ts'
import type { ReplayOptions } from './event-log.ts'
import type {
  CheckedFields,
  EventOf,
  FieldDefinition,
  FieldName,
  Fields,
  OutputOf,
  PayloadInput,
  RunEventOf,
  ToolCallOf,
  ToolCallResult,
  ToolCallsOf,
} from './field-types.ts'
import { composeMiddleware, type Middleware, type StreamFunction } from './middleware.ts'
import { type OutputDefinition, toOutputFormat } from './output-format.ts'
import { leavesOf, type Provider } from './provider.ts'
import type { AssistantMessage, LLMRequest, ToolChoice } from './request.ts'
import type { SizeStatistics } from './progress-estimator.ts'
import { eventTypes } from './events.ts'
import type { LLMResponse, RunResponse } from './response.ts'
import { ResponseStream, type RunOptions } from './response-stream.ts'
import { type Alerts, type ClientHooks, hookNames } from './run-hooks.ts'
import type { JsonSchema } from './schema.ts'
import { schemaHasPath } from './schema-path.ts'
import { splitRunOptions, type ToolRunOptions, ToolSteps } from './tool-steps.ts'
import { FieldExtractorRegistry } from './tool-stream/field-extractor-registry.ts'
import { parseFieldPath } from './tool-stream/field-path.ts'
import {
  type AccumulatorLimits,
  type AccumulatorOptions,
  type StreamAccumulator,
  ToolStreamAccumulator,
  checkAccumulatorLimits,
} from './tool-stream/tool-stream-accumulator.ts'
import type { Tool } from './tool.ts'

/** What a client is made of. Only `provider` is required. */
export interface ClientOptions<DefaultFields extends Fields = Fields> extends ClientHooks {
  /** The model to ask, e.g. `anthropic({ model })`. */
  readonly provider: Provider
  /** What stands between client and provider; the first listed is the outermost. Default: nothing. */
  readonly middleware?: readonly Middleware[] | undefined
  /** Fields of requests that name none of their own. Default: none. */
  readonly fields?: DefaultFields | undefined
  /** Bounds on the tool calls and the output of each answer. Default: those of `AccumulatorLimits`. */
  readonly limits?: AccumulatorLimits | undefined
  /** Fewer, larger deltas, for requests that do not say otherwise. Default: each as it comes. */
  readonly batch?: BatchOptions | undefined
  /** Makes what turns tool arguments and output into field events, one for each run. Default: a `ToolStreamAccumulator`. */
  readonly accumulator?: ((options: AccumulatorOptions) => StreamAccumulator) | undefined
  /** When `onAlert` is called. Default: never. */
  readonly alerts?: Alerts | undefined
  /** For requests that say nothing about `replay`. Default: no event is kept. */
  readonly replay?: ReplayOptions | undefined
}

/** One request: what the model is asked, and what of its answer is to be streamed. */
export interface StreamRequest<
  Tools extends readonly Tool[] = readonly Tool[],
  Definitions extends Fields = Fields,
  Choice extends ToolChoice = ToolChoice,
  Output extends OutputDefinition | undefined = OutputDefinition | undefined,
> extends Omit<LLMRequest, 'tools' | 'toolChoice' | 'output'> {
  /** The functions that the model may call. Default: none. */
  readonly tools?: Tools | undefined
  /** Whether, and what, the model must call. Default `'auto'`: that is for the model to say. */
  readonly toolChoice?: Choice | undefined
  /** Makes the answer an object of this schema (a Standard Schema, or a JSON Schema), unless the model calls a tool instead. Default: plain text. */
  readonly output?: Output
  /** The fields to stream: by name a path, or a path with options; or a registry. Default: those of the client. */
  readonly fields?: Definitions | undefined
  /** Whether a field that closes against its own `schema` stops the run. Default `'continue'`, where `field-end` says `valid: false`. */
  readonly onInvalid?: 'continue' | 'abort' | undefined
  /**
   * Joins the deltas of the text, and of each field, into fewer, larger ones, e.g. `{ at: 'sentence', maxWait: 300 }`; each is
   * delivered before any event that is no delta. Other deltas and `raw` come as ever. `false` where the client's is not wanted. Default: that of the client, else none.
   */
  readonly batch?: BatchOptions | false | undefined
  /** How many events to keep for consumers that `subscribe()` late or return. Default: that of the client, else none; `false` for none. */
  readonly replay?: ReplayOptions | false | undefined
  /** Lets a run that has begun finish when all its consumers have left, also the loop. Default false. */
  readonly keepAlive?: boolean | undefined
  /** Also emit `progress`, an estimate of how much of the answer is written. Default false. */
  readonly progress?: boolean | undefined
  /** Cancels the run: every loop and promise then ends with an `AbortedError`. */
  readonly signal?: AbortSignal | undefined
}

const clientOptions: readonly string[] = [
  'provider',
  'middleware',
  'fields',
  'limits',
  'batch',
  'accumulator',
  'alerts',
  ...hookNames,
  'replay',
] satisfies (keyof ClientOptions)[]

/**
 * Asks a model, and streams the fields of its answer while it is written.
 *
 * @example
 * ```ts
 * const client = new StreamingLLMClient({ provider: anthropic({ model: 'claude-haiku-4-5' }) })
 *
 * const stream = client.stream({
 *   messages: [{ role: 'user', content: 'I want chips for a party' }],
 *   tools: [answer],
 *   toolChoice: answer,
 *   fields: { question: 'ask_slots[*].message' },
 * })
 * for await (const event of stream) {
 *   if (event.type === 'field-delta') show(event.delta)
 * }
 * const { toolCalls, usage } = await stream.final()
 * ```
 */
// eslint-disable-next-line @typescript-eslint/no-generated-empty-object-type -- a client without fields has no names of fields
export class StreamingLLMClient<const DefaultFields extends Fields = Record<never, never>> {
  readonly #options: ClientOptions<DefaultFields>
  readonly #fields: FieldExtractorRegistry
  readonly #stream: StreamFunction
  readonly #seenSizes: SizeStatistics = new Map()

  /**
   * Makes nothing but the client: no SDK is loaded and nothing is sent before a stream is read.
   *
   * @throws UsageError where an option is missing or malformed.
   */
  constructor(options: ClientOptions<DefaultFields>) {
    const provider = (options as Partial<ClientOptions> | undefined)?.provider
    if (typeof provider?.stream !== 'function') {
      throw new UsageError(
        'invalid_argument',
        "StreamingLLMClient needs a `provider`, e.g. new StreamingLLMClient({ provider: anthropic({ model: 'claude-sonnet-4-5' }) }).",
      )
    }
    checkOptions('StreamingLLMClient', options, clientOptions)
    const { middleware = [], accumulator, alerts } = options
    if (!Array.isArray(middleware)) throw new UsageError('invalid_argument', '`middleware` must be a list.')
    const functions = { accumulator, ...Object.fromEntries(hookNames.map((name) => [name, options[name]])) }
    for (const [name, option] of Object.entries<unknown>(functions)) {
      if (option !== undefined && typeof option !== 'function')
        throw new UsageError('invalid_argument', `\`${name}\` must be a function.`)
    }
    checkAccumulatorLimits(options.limits)
    checkBatch(options.batch)
    if (alerts !== undefined) checkAlerts(alerts, options)
    checkReplay(options.replay)
    this.#options = options
    this.#fields = toRegistry(options.fields)
    this.#stream = composeMiddleware(middleware, attemptOf(provider))
  }

  /**
   * Prepares a run. Nothing is sent until the stream is read, listened to, or asked for its `final()` answer or a `field()`.
   *
   * @throws UsageError where the request is malformed, a field's path is, or it cannot exist in the schemas of the tools and
   * the output.
   *
   * @example
   * ```ts
   * const stream = client.stream({ messages, tools: [answer], fields: { title: 'title' } })
   * for await (const event of stream) {
   *   if (event.type === 'field-delta') show(event.delta)
   * }
   * ```
   */
  stream<
    const Tools extends readonly Tool[] = readonly [],
    const Definitions extends Fields = DefaultFields,
    const Choice extends 'auto' | 'none' | 'required' | { readonly name: Tools[number]['name'] } = 'auto',
    const Output extends OutputDefinition | undefined = undefined,
  >(
    request: Omit<StreamRequest<Tools, Definitions, Choice, Output>, 'fields'> & {
      readonly fields?: (Definitions & CheckedFields<Definitions, PayloadInput<Tools, Output>>) | undefined
    },
  ): ResponseStream<
    EventOf<Tools, Definitions, Choice, Output>,
    ToolCallsOf<Tools, Choice>,
    PayloadInput<Tools, Output>,
    FieldName<Definitions>,
    OutputOf<Tools, Choice, Output>,
    LLMResponse<ToolCallsOf<Tools, Choice>, OutputOf<Tools, Choice, Output>, AssistantMessage>
  > {
    return new ResponseStream(this.#prepare(request))
  }

  /**
   * Prepares a run in which tools with `execute` are run and the model is told what they gave, until it answers without calling
   * any, calls one that has no `execute`, or the run is stopped. The same stream goes on from step to step: each begins with its
   * `start`, the tools' events follow its `tool-call`s, and there is one `finish`. No tool runs before the whole answer that
   * calls it is complete and valid. A forced `toolChoice` holds for the first step; the limits of timeout() hold for each.
   *
   * @throws UsageError as `stream()`, and where a tool needs an approval that nobody can give.
   *
   * @example
   * ```ts
   * const weather = tool({
   *   name: 'weather',
   *   input: z.object({ city: z.string() }),
   *   execute: ({ city }) => ({ city, celsius: 21 }),
   * })
   * const { text, steps } = await client.run({ messages, tools: [weather], maxSteps: 3 }).final()
   * ```
   */
  run<
    const Tools extends readonly Tool[] = readonly [],
    const Definitions extends Fields = DefaultFields,
    const Choice extends 'auto' | 'none' | 'required' | { readonly name: Tools[number]['name'] } = 'auto',
    const Output extends OutputDefinition | undefined = undefined,
  >(
    request: Omit<StreamRequest<Tools, Definitions, Choice, Output>, 'fields'> & {
      readonly fields?: (Definitions & CheckedFields<Definitions, PayloadInput<Tools, Output>>) | undefined
    } & ToolRunOptions<
        ToolCallResult<ToolCallOf<Tools>>,
        LLMResponse<ToolCallsOf<Tools, 'auto'>, OutputOf<Tools, 'auto', Output> | undefined, AssistantMessage>
      >,
  ): ResponseStream<
    RunEventOf<Tools, Definitions, Output>,
    ToolCallsOf<Tools, 'auto'>,
    PayloadInput<Tools, Output>,
    FieldName<Definitions>,
    OutputOf<Tools, 'auto', Output>,
    RunResponse<ToolCallsOf<Tools, 'auto'>, OutputOf<Tools, 'auto', Output>>
  > {
    const { options, rest } = splitRunOptions(request)
    return new ResponseStream(this.#prepare(rest, options))
  }

  /**
   * The complete answer to a request. With `onEvent` it is streamed, each event told as it comes, and one that `onEvent` throws at
   * does not stop the run (`onError` hears of it); without, it is asked for in one piece where the provider can do so. The
   * response is the same either way.
   *
   * @throws as `stream()` and `final()` do, as a rejection.
   *
   * @example
   * ```ts
   * const { output } = await client.generate({ messages, output: z.object({ title: z.string() }) })
   * show(output.title)
   * ```
   */
  async generate<
    const Tools extends readonly Tool[] = readonly [],
    const Definitions extends Fields = DefaultFields,
    const Choice extends 'auto' | 'none' | 'required' | { readonly name: Tools[number]['name'] } = 'auto',
    const Output extends OutputDefinition | undefined = undefined,
  >(
    request: Omit<StreamRequest<Tools, Definitions, Choice, Output>, 'fields'> & {
      readonly fields?: (Definitions & CheckedFields<Definitions, PayloadInput<Tools, Output>>) | undefined
    },
    options: { readonly onEvent?: ((event: EventOf<Tools, Definitions, Choice, Output>) => void) | undefined } = {},
  ): Promise<LLMResponse<ToolCallsOf<Tools, Choice>, OutputOf<Tools, Choice, Output>, AssistantMessage>> {
    checkOptions('generate()', options, ['onEvent'])
    const { onEvent } = options
    checkFunctions('generate()', { onEvent })
    const stream = new ResponseStream<
      EventOf<Tools, Definitions, Choice, Output>,
      ToolCallsOf<Tools, Choice>,
      PayloadInput<Tools, Output>,
      FieldName<Definitions>,
      OutputOf<Tools, Choice, Output>,
      LLMResponse<ToolCallsOf<Tools, Choice>, OutputOf<Tools, Choice, Output>, AssistantMessage>
    >({
      ...this.#prepare(request),
      // Nobody can come to it later.
      replay: undefined,
      streaming: onEvent !== undefined || leavesOf(this.#options.provider).some((leaf) => !leaf.generate),
    })
    if (onEvent) for (const type of eventTypes) stream.on(type as never, onEvent)
    return stream.final()
  }

  #prepare(given: object, runOptions?: ToolRunOptions): RunOptions {
    const request = given as StreamRequest
    checkRequest(request, this.#options.provider.name, runOptions !== undefined)
    const {
      fields: definitions,
      onInvalid = 'continue',
      batch = this.#options.batch,
      signal,
      replay = this.#options.replay,
      keepAlive = false,
      progress = false,
      output,
      ...options
    } = request
    const format = output === undefined ? undefined : toOutputFormat(output)
    const llmRequest: LLMRequest = { ...options, ...(format && { output: format }) }
    const fields = definitions === undefined ? this.#fields : toRegistry(definitions)
    const payloads = payloadsOf(llmRequest)
    // A registry may serve many requests; fields that a request spells out are for its own tools and output.
    if (definitions !== undefined && !isRegistry(definitions))
      for (const { path, tool } of fields.extractors) checkPath(path, payloads, tool)
    const { provider, accumulator, limits, alerts = {} } = this.#options
    const mayCallTools = (llmRequest.tools ?? []).length > 0 && llmRequest.toolChoice !== 'none'
    const steps = runOptions && new ToolSteps(llmRequest, runOptions)
    return {
      stream: this.#stream,
      request: llmRequest,
      provider: provider.name,
      model: provider.model,
      createAccumulator: () =>
        (accumulator ?? ((given) => new ToolStreamAccumulator(given)))({
          fields,
          limits,
          ...(format && { output: mayCallTools ? 'optional' : 'required' }),
        }),
      fieldNames: new Set(fields.extractors.map(({ field }) => field)),
      onInvalid,
      batch: batch === false ? undefined : batch,
      afterStep: steps && ((response) => steps.after(response)),
      signal,
      replay: replay === false ? undefined : replay,
      keepAlive,
      seenSizes: progress ? this.#seenSizes : undefined,
      checkPath: (path) => checkPath(path, payloads),
      hooks: this.#options,
      alerts,
    }
  }
}

function checkAlerts(alerts: Alerts, { onAlert }: ClientHooks): void {
  checkOptions('`alerts`', alerts, ['timeToFirstByteMs'] satisfies (keyof Alerts)[])
  checkNumbers('StreamingLLMClient', alerts, { min: 1 })
  if (!onAlert) throw new UsageError('invalid_argument', '`alerts` needs `onAlert`, which is to be told.')
}

// Not `instanceof`: there may be two copies of the library, ESM and CommonJS.
function isRegistry(fields: Fields | undefined): fields is FieldExtractorRegistry {
  return typeof (fields as Partial<FieldExtractorRegistry> | null | undefined)?.compile === 'function'
}

function toRegistry(fields: Fields | undefined): FieldExtractorRegistry {
  if (isRegistry(fields)) return fields
  if (fields !== undefined && (typeof fields !== 'object' || Array.isArray(fields))) {
    throw new UsageError(
      'invalid_argument',
      "`fields` maps names to paths, e.g. { ask_message: 'ask_slots[*].message' }, or is a FieldExtractorRegistry.",
    )
  }
  const registry = new FieldExtractorRegistry()
  for (const [field, definition] of Object.entries<FieldDefinition>(fields ?? {})) {
    if (typeof definition !== 'string' && (typeof definition !== 'object' || (definition as unknown) === null))
      throw new UsageError('invalid_argument', `Field "${field}" must be a path, or an object with a \`path\`.`)
    registry.register(typeof definition === 'string' ? { field, path: definition } : { ...definition, field })
  }
  return registry
}

/** What a field may be read from. */
interface Payload {
  /** Unset for the output. */
  readonly toolName: string | undefined
  readonly schema: JsonSchema
}

function payloadsOf({ tools = [], output }: LLMRequest): Payload[] {
  const payloads: Payload[] = tools.map(({ name, inputSchema }) => ({ toolName: name, schema: inputSchema }))
  return output ? [...payloads, { toolName: undefined, schema: output.schema }] : payloads
}

function checkPath(path: string, payloads: readonly Payload[], toolName?: string): void {
  const segments = parseFieldPath(path)
  const readable = payloads.filter((payload) => toolName === undefined || payload.toolName === toolName)
  if (toolName !== undefined && payloads.length > 0 && readable.length === 0) {
    throw new UsageError(
      'invalid_argument',
      `The field with the path "${path}" is for the tool "${toolName}", which the request does not have.`,
    )
  }
  if (readable.length === 0 || readable.some(({ schema }) => schemaHasPath(schema, segments))) return
  const places = readable.map(({ toolName: name, schema }, i) => {
    const members = Object.keys((schema['properties'] as object | undefined) ?? {}).join(', ')
    if (name === undefined) return `the output (${members})`
    return `${i === 0 ? 'the arguments of ' : ''}"${name}" (${members})`
  })
  throw new UsageError('invalid_argument', `The path "${path}" cannot exist in ${places.join(' or ')}.`)
}
