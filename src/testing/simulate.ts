import { checkOptions } from '../check-options.ts'
import { UsageError } from '../errors.ts'
import type { FinishReason } from '../events.ts'
import { anthropicFrames, stopReasons } from './anthropic-frames.ts'
import type { Recording, ReplayRequest } from './replay.ts'

/** A call that a simulated model makes. A string as input is sent as it is, to try what is not JSON. */
export interface SimulatedCall {
  readonly tool: string
  readonly input: unknown
}

export interface SimulateOptions {
  /** Whose wire format. Default `'anthropic'`. */
  readonly provider?: 'anthropic' | undefined
  /** The tool whose arguments the payload is. Default: the one the request forces, or the only one it has. */
  readonly tool?: string | { readonly name: string } | undefined
  /** Characters of each delta. Default 8. */
  readonly deltaChars?: number | undefined
  /** Milliseconds between deltas. Default 0. */
  readonly delayMs?: number | undefined
  /** Milliseconds before the first event, as a model takes to begin. Default 0. */
  readonly firstDelayMs?: number | undefined
  /** Text that the model writes before it calls a tool. */
  readonly text?: string | undefined
  /** What the model thinks before it answers. */
  readonly reasoning?: string | undefined
  /** Default: `'tool-calls'` after calls, else `'stop'`. */
  readonly finishReason?: Exclude<FinishReason, 'other'> | undefined
  readonly inputTokens?: number | undefined
}

const simulateOptions: readonly string[] = [
  'provider',
  'tool',
  'deltaChars',
  'delayMs',
  'firstDelayMs',
  'text',
  'reasoning',
  'finishReason',
  'inputTokens',
] satisfies (keyof SimulateOptions)[]

const finishReasons = Object.keys(stopReasons)

/**
 * Makes a model's answer in a provider's wire format, for `replayFetch`: an object is the arguments of a tool call, a list of
 * calls several, a string plain text, or, with `tool`, the arguments' text as it stands.
 *
 * @throws UsageError (when the request comes) where the tool is neither named nor clear from the request.
 */
export function simulate(
  payload: string | object | readonly SimulatedCall[],
  options: SimulateOptions = {},
): (request: ReplayRequest) => Recording {
  checkOptions('simulate()', options, simulateOptions)
  const { tool, deltaChars = 8, delayMs = 0, firstDelayMs = 0, text, reasoning = '', inputTokens = 100 } = options
  if (!Number.isInteger(deltaChars) || deltaChars < 1)
    throw new UsageError('invalid_argument', '`deltaChars` must be a positive whole number.')
  if (options.provider !== undefined && (options.provider as string) !== 'anthropic')
    throw new UsageError('invalid_argument', "`provider` of simulate() must be 'anthropic'.")
  if (options.finishReason !== undefined && !finishReasons.includes(options.finishReason))
    throw new UsageError(
      'invalid_argument',
      `\`finishReason\` of simulate() must be one of: ${finishReasons.join(', ')}.`,
    )
  return ({ body }) => {
    const request = (typeof body === 'object' && body !== null ? body : {}) as Record<string, unknown>
    const isText = typeof payload === 'string' && tool === undefined
    const calls = isText ? [] : toCalls(payload, toolName(tool) ?? requestedTool(request))
    const { finishReason = calls.length > 0 ? 'tool-calls' : 'stop' } = options
    const model = typeof request['model'] === 'string' ? request['model'] : 'simulated'
    const answer = {
      model,
      text: text ?? (isText ? payload : ''),
      reasoning,
      calls,
      finishReason,
      inputTokens,
      deltaChars,
    }
    const frames = anthropicFrames(answer)
    const encoder = new TextEncoder()
    return {
      body: frames.map(({ frame }) => frame).join(''),
      reads: frames.map(({ frame }) => encoder.encode(frame).length),
      delays: frames.map(({ isDelta }, i) => (i === 0 ? firstDelayMs : isDelta ? delayMs : 0)),
      headers: { 'content-type': 'text/event-stream', 'request-id': 'req_simulated' },
    }
  }
}

function toolName(tool: SimulateOptions['tool']): string | undefined {
  return typeof tool === 'object' ? tool.name : tool
}

function toCalls(payload: string | object, tool: string | undefined): { tool: string; inputText: string }[] {
  if (Array.isArray(payload)) {
    return (payload as readonly SimulatedCall[]).map(({ tool: name, input }) => ({
      tool: name,
      inputText: toText(input),
    }))
  }
  if (tool === undefined) {
    throw new UsageError(
      'invalid_argument',
      "simulate() cannot tell which tool the payload is for: pass `tool`, or force one with the request's `toolChoice`.",
    )
  }
  return [{ tool, inputText: toText(payload) }]
}

function toText(input: unknown): string {
  return typeof input === 'string' ? input : JSON.stringify(input)
}

/** The tool a request leaves no choice about. */
function requestedTool(request: Record<string, unknown>): string | undefined {
  const choice = request['tool_choice'] as { name?: unknown } | undefined
  if (typeof choice?.name === 'string') return choice.name
  const tools = (request['tools'] ?? []) as { name?: unknown }[]
  return tools.length === 1 && typeof tools[0]?.name === 'string' ? tools[0].name : undefined
}
