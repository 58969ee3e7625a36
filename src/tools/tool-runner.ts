import { ConsumerError, type LLMError, LLMTimeoutError, ToolError } from '../errors.ts'
import type { ToolCallEvent, ToolEvent } from '../events.ts'
import type { Message, ToolResultPart } from '../request.ts'
import type { Tool, ToolContext } from '../tool.ts'

/** The application's answer to the question whether a tool may run; with a `reason`, for the model, where it may not. */
export type ToolApproval = boolean | { readonly approved: boolean; readonly reason?: string | undefined }

type Call = Omit<ToolCallEvent, 'type'>

/** How tools are run. */
export interface ToolRunSettings {
  /** Most tools that run at a time. */
  readonly concurrency: number
  /** What becomes of a tool that fails: its error goes to the model, or ends the run. */
  readonly onToolError: 'send' | 'throw'
  readonly onToolApproval:
    ((call: Call, context: { readonly signal: AbortSignal }) => ToolApproval | Promise<ToolApproval>) | undefined
}

/** What the tools of one step run in. */
export interface ToolRunContext {
  readonly tools: readonly Tool[]
  /** The conversation that the model answered. */
  readonly messages: readonly Message[]
  /** Fires when the run is over: no tool is begun after that. */
  readonly signal: AbortSignal
  readonly emit: (event: ToolEvent) => void
  /** Hears of each tool that failed. */
  readonly onError: (error: LLMError) => void
}

/**
 * Runs the calls whose tools have an `execute`, side by side, and returns what the model is told of each, in the order of the
 * calls. Waits for no tool that does not heed its signal.
 *
 * @throws ToolError or LLMTimeoutError of the first that fails, where that is to end the run; ConsumerError where a question of
 * approval fails.
 */
export async function runTools(
  calls: readonly Call[],
  settings: ToolRunSettings,
  context: ToolRunContext,
): Promise<ToolResultPart[]> {
  const slots = new Slots(settings.concurrency)
  const results = calls.flatMap((call) => {
    const tool = context.tools.find(({ name }) => name === call.toolName)
    return tool?.execute ? [new ToolRun(call, tool, settings, context).result(slots)] : []
  })
  return Promise.all(results)
}

/** One call of a tool, from the question whether it may run to its result. */
class ToolRun {
  readonly #call: Call
  readonly #tool: Tool
  readonly #settings: ToolRunSettings
  readonly #context: ToolRunContext
  readonly #controller = new AbortController()
  /** Rejects when nobody is to wait for the tool any more. */
  readonly #stopped = Promise.withResolvers<never>()
  #notJson: ToolError | undefined

  constructor(call: Call, tool: Tool, settings: ToolRunSettings, context: ToolRunContext) {
    this.#call = call
    this.#tool = tool
    this.#settings = settings
    this.#context = context
    this.#stopped.promise.catch(() => undefined)
  }

  async result(slots: Slots): Promise<ToolResultPart> {
    const { signal } = this.#context
    const onAbort = (): void => this.#stop(signal.reason)
    if (signal.aborted) onAbort()
    else signal.addEventListener('abort', onAbort)
    try {
      const refusal = await this.#refusal()
      if (refusal) return this.#failed(refusal, refusal.message)
      await slots.take()
      try {
        return await this.#run()
      } finally {
        slots.give()
      }
    } finally {
      signal.removeEventListener('abort', onAbort)
    }
  }

  #stop(reason: unknown): void {
    // First, so that it counts and not what the tool makes of its signal.
    this.#stopped.reject(reason)
    this.#controller.abort(reason)
  }

  get #toolContext(): ToolContext {
    return { signal: this.#controller.signal, toolCallId: this.#call.toolCallId, messages: this.#context.messages }
  }

  /** Why the tool must not run. */
  async #refusal(): Promise<ToolError | undefined> {
    const { name } = this.#tool
    try {
      const { input } = this.#call
      if (!(await this.#tool.needsApproval?.(input, this.#toolContext))) return undefined
      const answer = await this.#settings.onToolApproval?.(this.#call, { signal: this.#context.signal })
      const { approved, reason } = typeof answer === 'object' ? answer : { approved: answer, reason: undefined }
      // A caller without types may have answered anything.
      if ((approved as unknown) === true) return undefined
      const words = reason === undefined ? '.' : `: ${reason}`
      return this.#error('tool_denied', `The call of tool "${name}" was not approved${words}`)
    } catch (cause) {
      throw new ConsumerError(
        'consumer_error',
        `It could not be found out whether tool "${name}" may run. See \`cause\`.`,
        {
          phase: 'tool',
          toolName: name,
          toolCallId: this.#call.toolCallId,
          cause,
        },
      )
    }
  }

  async #run(): Promise<ToolResultPart> {
    const { signal } = this.#context
    const { name, timeout = false } = this.#tool
    // Whoever waits in line may have waited until the run was over.
    signal.throwIfAborted()
    let outOfTime: LLMTimeoutError | undefined
    const timer =
      timeout === false ? undefined : setTimeout(() => this.#stop((outOfTime = this.#outOfTime(timeout))), timeout)
    try {
      const output = await this.#execute()
      const text = this.#serialized(output)
      const { toolCallId, toolName } = this.#call
      this.#context.emit({ type: 'tool-result', toolCallId, toolName, output })
      // As it is now: the tool may go on changing what it returned.
      return this.#part({ output: typeof output === 'string' ? output : JSON.parse(text) })
    } catch (cause) {
      signal.throwIfAborted()
      if (outOfTime) return this.#failed(outOfTime, outOfTime.message)
      if (this.#notJson && cause === this.#notJson) return this.#failed(this.#notJson, this.#notJson.message)
      const error = this.#error('tool_execution_failed', `Tool "${name}" failed. See \`cause\`.`, cause)
      return this.#failed(error, wordsOf(cause))
    } finally {
      clearTimeout(timer)
    }
  }

  async #execute(): Promise<unknown> {
    const stopped = this.#stopped.promise
    const returned = this.#tool.execute!(this.#call.input, this.#toolContext)
    if (!isGenerator(returned)) return Promise.race([returned, stopped])
    try {
      for (;;) {
        this.#controller.signal.throwIfAborted()
        const { done, value } = await Promise.race([nextOf(returned), stopped])
        if (done) return value
        this.#serialized(value)
        const { toolCallId, toolName } = this.#call
        this.#context.emit({ type: 'tool-progress', toolCallId, toolName, value })
      }
    } catch (error) {
      // Nobody waits for its last words.
      close(returned).catch(() => undefined)
      throw error
    }
  }

  /** The value as JSON; `null` where a tool returns nothing. */
  #serialized(value: unknown): string {
    try {
      return value === undefined ? 'null' : JSON.stringify(value, refuseWhatIsLost)
    } catch (cause) {
      const { name } = this.#tool
      throw (this.#notJson = this.#error(
        'tool_output_not_serializable',
        `Tool "${name}" gave a value that is not JSON (a bigint, function, symbol, Map, Set, number that is not finite, cycle, or an object like a Response or a Promise, of which nothing would be left).`,
        cause,
      ))
    }
  }

  /** Tells everybody but the model, who is told by the part, that the tool failed. */
  #failed(error: ToolError | LLMTimeoutError, words: string): ToolResultPart {
    const { toolCallId, toolName } = this.#call
    const { code, message } = error
    this.#context.emit({ type: 'tool-error', toolCallId, toolName, error: { code, message } })
    const isDenied = code === 'tool_denied'
    if (this.#settings.onToolError === 'throw' && !isDenied) throw error
    if (!isDenied) this.#context.onError(error)
    return this.#part({ output: words, isError: true })
  }

  #part(result: Pick<ToolResultPart, 'output' | 'isError'>): ToolResultPart {
    const { toolCallId, toolName } = this.#call
    return { type: 'tool-result', toolCallId, toolName, ...result }
  }

  #error(code: ToolError['code'], message: string, cause?: unknown): ToolError {
    return new ToolError(code, this.#tool.name, message, { phase: 'tool', toolCallId: this.#call.toolCallId, cause })
  }

  #outOfTime(timeoutMs: number): LLMTimeoutError {
    const { name: toolName } = this.#tool
    return new LLMTimeoutError(
      'timeout',
      `Tool "${toolName}" did not finish within ${timeoutMs} ms. If it needs longer, raise its \`timeout\`.`,
      { phase: 'tool', toolName, toolCallId: this.#call.toolCallId, timeoutMs },
    )
  }
}

/** How many may do something at the same time; the others wait in line. */
class Slots {
  #free: number
  readonly #line: (() => void)[] = []

  constructor(count: number) {
    this.#free = count
  }

  take(): Promise<void> {
    if (this.#free > 0) {
      this.#free--
      return Promise.resolve()
    }
    return new Promise((resolve) => this.#line.push(resolve))
  }

  give(): void {
    const next = this.#line.shift()
    if (next) next()
    else this.#free++
  }
}

type AnyGenerator = AsyncGenerator<unknown, unknown, undefined> | Generator<unknown, unknown, undefined>

/** Iterators that are no generators, e.g. those of a list, have no `throw`. */
function isGenerator(value: unknown): value is AnyGenerator {
  const { next, return: leave, throw: fail } = (value ?? {}) as Partial<AnyGenerator>
  const areThere = [next, leave, fail].every((method) => typeof method === 'function')
  return areThere && (Symbol.asyncIterator in (value as object) || Symbol.iterator in (value as object))
}

/** What a generator that is not async yields or returns may be a promise. */
async function nextOf(generator: AnyGenerator): Promise<IteratorResult<unknown, unknown>> {
  const { done, value } = await generator.next()
  return { done, value: await value } as IteratorResult<unknown, unknown>
}

async function close(generator: AnyGenerator): Promise<void> {
  await generator.return(undefined)
}

/** What a tool that failed says to the model. */
function wordsOf(cause: unknown): string {
  if (typeof cause === 'string') return cause
  return cause instanceof Error && cause.message !== '' ? cause.message : 'The tool failed.'
}

/** For `JSON.stringify`, which would leave these out or write something else. */
function refuseWhatIsLost(_key: string, value: unknown): unknown {
  const isLost =
    typeof value === 'function' ||
    typeof value === 'symbol' ||
    (typeof value === 'number' && !Number.isFinite(value)) ||
    value instanceof Map ||
    value instanceof Set ||
    isOpaque(value)
  if (isLost) throw new TypeError('not JSON')
  return value
}

/** Whether JSON would have nothing of an object that does hold something: a class's, with no members of its own. */
function isOpaque(value: unknown): boolean {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false
  const prototype: unknown = Object.getPrototypeOf(value)
  const isPlain = prototype === null || Object.getPrototypeOf(prototype) === null
  if (isPlain || Object.values(value).some((member) => member !== undefined)) return false
  // A boxed number or text has none either, and is written as what it holds.
  return JSON.stringify(value) === '{}'
}
