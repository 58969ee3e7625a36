import { checkFunctions, checkNumbers } from './check-options.ts'
import { ConsumerError, UsageError } from './errors.ts'
import { addUsage, type ToolCallEvent } from './events.ts'
import type { AssistantMessage, LLMRequest, ToolMessage } from './request.ts'
import type { LLMResponse, RunResponse } from './response.ts'
import type { BetweenSteps } from './response-stream.ts'
import type { ToolApproval, ToolRunSettings } from './tools/tool-runner.ts'

/** How `client.run()` runs tools. */
export interface ToolRunOptions<Call = Omit<ToolCallEvent, 'type'>, Step = LLMResponse> {
  /** Most answers of the model; the tools that the last of them calls still run. Default 5. */
  readonly maxSteps?: number | undefined
  /** Whether the run ends where the model would be asked again: gets the steps so far, after the tools of the last one have run. */
  readonly stopWhen?: ((steps: readonly Step[]) => boolean | Promise<boolean>) | undefined
  /** Most tools that run at a time. Default 5. */
  readonly toolConcurrency?: number | undefined
  /**
   * Whether a call may run whose tool has `needsApproval`; a `reason` for which it may not goes to the model. There is no limit of
   * time to the answer but the request's `signal`; that of the context fires when the run is over, and nobody needs the answer.
   */
  readonly onToolApproval?:
    ((call: Call, context: { readonly signal: AbortSignal }) => ToolApproval | Promise<ToolApproval>) | undefined
  /** What becomes of a tool that fails: `'send'`, the default, tells the model and goes on; `'throw'` ends the run. */
  readonly onToolError?: 'send' | 'throw' | undefined
}

export const runOptions: readonly string[] = [
  'maxSteps',
  'stopWhen',
  'toolConcurrency',
  'onToolApproval',
  'onToolError',
] satisfies (keyof ToolRunOptions)[]

/** The options of a run, and what is left of the request without them. */
export function splitRunOptions(request: object): { readonly options: ToolRunOptions; readonly rest: object } {
  const options: Record<string, unknown> = {}
  const rest: Record<string, unknown> = {}
  for (const [name, value] of Object.entries((request as object | undefined) ?? {}))
    (runOptions.includes(name) ? options : rest)[name] = value
  return { options, rest }
}

type Answer = RunResponse['steps'][number]

/** The steps of one run: what the model answered, what its tools gave, and what it is to be asked next. */
export class ToolSteps {
  readonly #maxSteps: number
  readonly #stopWhen: ToolRunOptions['stopWhen']
  readonly #settings: ToolRunSettings
  #request: LLMRequest
  readonly #steps: Answer[] = []
  readonly #messages: (AssistantMessage | ToolMessage)[] = []

  /** @throws UsageError for options that make no sense. */
  constructor(request: LLMRequest, options: ToolRunOptions) {
    const { maxSteps = 5, toolConcurrency = 5, stopWhen, onToolApproval, onToolError = 'send' } = options
    checkNumbers('run()', { maxSteps, toolConcurrency }, { min: 1, isWhole: true })
    checkFunctions('run()', { stopWhen, onToolApproval })
    if (!['send', 'throw'].includes(onToolError))
      throw new UsageError('invalid_argument', "`onToolError` of run() must be 'send' or 'throw'.")
    const asking = request.tools?.find((tool) => tool.needsApproval !== undefined)
    if (asking && !onToolApproval) {
      throw new UsageError(
        'invalid_argument',
        `Tool "${asking.name}" has \`needsApproval\`, so run() needs \`onToolApproval\` to ask.`,
      )
    }
    this.#request = request
    this.#maxSteps = maxSteps
    this.#stopWhen = stopWhen
    this.#settings = { concurrency: toolConcurrency, onToolError, onToolApproval }
  }

  /** What follows an answer: the end, or the tools that it calls. */
  after(response: Answer): RunResponse | BetweenSteps {
    this.#steps.push(response)
    this.#messages.push(...response.messages)
    const { tools = [] } = this.#request
    const runnable = new Set(tools.filter((tool) => tool.execute !== undefined).map(({ name }) => name))
    if (!response.toolCalls.some(({ toolName }) => runnable.has(toolName))) return this.#result(response)
    return async (context) => {
      const { messages } = this.#request
      // Loaded when first used: few applications need it.
      const { runTools } = await import('./tools/tool-runner.ts')
      const content = await runTools(response.toolCalls, this.#settings, { ...context, tools, messages })
      this.#messages.push({ role: 'tool', content })
      // The others are the application's to answer.
      const isAnswered = content.length === response.toolCalls.length
      if (!isAnswered || this.#steps.length >= this.#maxSteps || (await this.#isStopped()))
        return { response: this.#result(response) }
      this.#request = toNextRequest(this.#request, [...messages, ...response.messages, { role: 'tool', content }])
      return { request: this.#request }
    }
  }

  async #isStopped(): Promise<boolean> {
    try {
      return (await this.#stopWhen?.([...this.#steps])) === true
    } catch (cause) {
      throw new ConsumerError('consumer_error', '`stopWhen` of run() threw. See `cause`.', { phase: 'tool', cause })
    }
  }

  #result(response: Answer): RunResponse {
    const usage = this.#steps.map((step) => step.usage).reduce(addUsage)
    return { ...response, usage, messages: [...this.#messages], steps: [...this.#steps] }
  }
}

/** A call that is forced is forced once: else the model could never answer. */
function toNextRequest(request: LLMRequest, messages: LLMRequest['messages']): LLMRequest {
  const { toolChoice, toolInput } = request
  if (toolChoice !== 'required' && typeof toolChoice !== 'object') return { ...request, messages }
  return { ...request, messages, toolChoice: 'auto', ...(toolInput === 'json' && { toolInput: 'auto' }) }
}
