import { checkNumbers, checkOptions } from '../check-options.ts'
import { UsageError } from '../errors.ts'
import type { ToolInputChannel } from '../events.ts'
import { anthropicWire } from './anthropic-frames.ts'
import { geminiWire } from './gemini-frames.ts'
import { ollamaWire } from './ollama-frames.ts'
import { openaiChatWire, openaiWire } from './openai-frames.ts'
import type { Recording, ReplayRequest } from './replay.ts'
import { membersOf, type SimulatedAnswer, type SimulatedWire } from './simulated-answer.ts'

/** Who sends answers how. */
const wires = {
  anthropic: anthropicWire,
  openai: openaiWire,
  'openai-chat': openaiChatWire,
  ollama: ollamaWire,
  gemini: geminiWire,
} satisfies Record<string, SimulatedWire>

/** A call that a simulated model makes. A string as input is sent as it is, to try what is not JSON. */
export interface SimulatedCall {
  /** The name of the tool. */
  readonly tool: string
  /** Its arguments: an object, or a string that is sent as it stands. */
  readonly input: unknown
}

/** How the answer is written, and how fast. */
export interface SimulateOptions {
  /** Whose wire format. Default `'anthropic'`. */
  readonly provider?: keyof typeof wires | undefined
  /**
   * What carries calls. Default: what the request asks for, which is the provider's own calls, or JSON text where it asks for
   * that of a given schema. Nothing in a request tells that calls are read out of text: pass `'xml'` and `tool` for
   * `xmlTools()` and for requests with `toolInput: 'xml'`.
   */
  readonly toolInput?: ToolInputChannel | undefined
  /** The tool whose arguments the payload is. Default: the one the request forces, or the only one it has. */
  readonly tool?: string | { readonly name: string } | undefined
  /** Characters of each delta. Default 8. */
  readonly deltaChars?: number | undefined
  /** Milliseconds between deltas. Default 0. */
  readonly delayMs?: number | undefined
  /** Milliseconds before the first event, as a model takes to begin. Default 0. */
  readonly firstDelayMs?: number | undefined
  /** Text that the model writes before it calls a tool. Default: none. */
  readonly text?: string | undefined
  /** What the model thinks before it answers. Default: nothing. */
  readonly reasoning?: string | undefined
  /** Default: `'tool-calls'` after calls, else `'stop'`. */
  readonly finishReason?: SimulatedAnswer['finishReason'] | undefined
  /** The prompt tokens that the answer reports. Default 100. */
  readonly inputTokens?: number | undefined
}

const simulateOptions: readonly string[] = [
  'provider',
  'toolInput',
  'tool',
  'deltaChars',
  'delayMs',
  'firstDelayMs',
  'text',
  'reasoning',
  'finishReason',
  'inputTokens',
] satisfies (keyof SimulateOptions)[]

const finishReasons: readonly string[] = [
  'stop',
  'length',
  'tool-calls',
  'refusal',
  'content-filter',
  'pause',
] satisfies SimulatedAnswer['finishReason'][]

/**
 * Makes a model's answer in a provider's wire format, for `replayFetch`, as a stream or, for a request that does not ask for one,
 * in one piece: an object is the arguments of a tool call, a list of
 * calls several, a string plain text, or, with `tool`, the arguments' text as it stands.
 *
 * @throws UsageError (when the request comes) where the tool is neither named nor clear from the request.
 *
 * @example
 * ```ts
 * const fetch = replayFetch(simulate({ title: 'Chips' }, { tool: 'answer', deltaChars: 4, delayMs: 20 }))
 * const client = new StreamingLLMClient({ provider: anthropic({ model, apiKey: 'none', fetch }) })
 * ```
 */
export function simulate(
  payload: string | object | readonly SimulatedCall[],
  options: SimulateOptions = {},
): (request: ReplayRequest) => Recording {
  checkOptions('simulate()', options, simulateOptions)
  const { tool, deltaChars = 8, delayMs = 0, firstDelayMs = 0, text, reasoning = '', inputTokens = 100 } = options
  if (typeof payload !== 'string' && (typeof payload !== 'object' || (payload as unknown) === null))
    throw new UsageError('invalid_argument', 'simulate() takes an object, a list of calls or a string.')
  checkNumbers('simulate()', { deltaChars }, { min: 1, isWhole: true })
  checkNumbers('simulate()', { delayMs, firstDelayMs, inputTokens })
  if (options.provider !== undefined && !Object.hasOwn(wires, options.provider))
    throw new UsageError(
      'invalid_argument',
      `\`provider\` of simulate() must be one of: ${Object.keys(wires).join(', ')}.`,
    )
  if (options.finishReason !== undefined && !finishReasons.includes(options.finishReason))
    throw new UsageError(
      'invalid_argument',
      `\`finishReason\` of simulate() must be one of: ${finishReasons.join(', ')}.`,
    )
  const wire: SimulatedWire = wires[options.provider ?? 'anthropic']
  return (request) => {
    const body = membersOf(request.body)
    const asked = wire.read(body)
    const channel = options.toolInput ?? (asked.isJson && asked.tools.length === 0 ? 'json' : 'native')
    const isText = typeof payload === 'string' && tool === undefined
    const onlyTool = toolName(tool) ?? (asked.tools.length === 1 ? asked.tools[0] : undefined)
    // JSON text does not name the tool.
    const named = channel === 'json' ? (onlyTool ?? '') : onlyTool
    const calls = isText ? [] : toCalls(payload, named, asked.tools.length > 0)
    const isNative = channel === 'native'
    const written = isText ? [payload] : isNative ? [] : calls.map((call) => writeCall[channel](call))
    const answer: SimulatedAnswer = {
      model: typeof body['model'] === 'string' ? body['model'] : 'simulated',
      text: [...(text === undefined ? [] : [text]), ...written].join('\n'),
      reasoning,
      calls: isNative ? calls : [],
      finishReason: options.finishReason ?? (isNative && calls.length > 0 ? 'tool-calls' : 'stop'),
      inputTokens,
      deltaChars,
    }
    const headers = { [wire.requestIdHeader]: 'req_simulated' }
    const frames = wire.frames(answer, request)
    if (!wire.streams(request)) {
      const delays = [firstDelayMs + delayMs * frames.filter(({ isDelta }) => isDelta).length]
      const body = JSON.stringify(wire.whole(answer, request))
      return { body, reads: [], delays, headers: { 'content-type': 'application/json', ...headers } }
    }
    const encoder = new TextEncoder()
    return {
      body: frames.map(({ frame }) => frame).join(''),
      reads: frames.map(({ frame }) => encoder.encode(frame).length),
      delays: frames.map(({ isDelta }, i) => (i === 0 ? firstDelayMs : isDelta ? delayMs : 0)),
      headers: { 'content-type': wire.contentType, ...headers },
    }
  }
}

interface Call {
  readonly tool: string
  readonly inputText: string
}

/** How a model writes a call as text. */
const writeCall: Record<Exclude<ToolInputChannel, 'native'>, (call: Call) => string> = {
  json: ({ inputText }) => inputText,
  xml: ({ tool, inputText }) =>
    `<tool_call>\n{"name": ${JSON.stringify(tool)}, "arguments": ${inputText}}\n</tool_call>`,
}

function toolName(tool: SimulateOptions['tool']): string | undefined {
  return typeof tool === 'object' ? tool.name : tool
}

function toCalls(payload: string | object, tool: string | undefined, hasTools: boolean): Call[] {
  if (Array.isArray(payload)) {
    return (payload as readonly SimulatedCall[]).map(({ tool: name, input }) => ({
      tool: name,
      inputText: toText(input),
    }))
  }
  if (tool === undefined) {
    throw new UsageError(
      'invalid_argument',
      hasTools
        ? "simulate() cannot tell which tool the payload is for: pass `tool`, or force one with the request's `toolChoice`."
        : "simulate() cannot tell which tool the payload is for, since the request offers none: pass `tool`, and `toolInput: 'xml'` where tools are called in the text (`xmlTools()`, `toolInput: 'xml'`).",
    )
  }
  return [{ tool, inputText: toText(payload) }]
}

function toText(input: unknown): string {
  return typeof input === 'string' ? input : JSON.stringify(input)
}
