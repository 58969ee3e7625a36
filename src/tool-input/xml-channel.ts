import { UsageError } from '../errors.ts'
import type { ProviderFinishEvent, StreamEvent } from '../events.ts'
import type { LLMRequest } from '../request.ts'
import type { Tool } from '../tool.ts'
import type { TextChannel, TextChannelReader } from './channel.ts'
import { nextCallNumber, type TextHistoryStyle, toTextHistory } from './text-history.ts'
import { callIdPrefix, ToolCallTagReader } from './tool-call-tags.ts'

/** Tool calls in the text of the answer, in the tags that Hermes and Qwen models were trained on. */
export const xmlChannel: TextChannel = {
  name: 'xml',
  toRequest,
  createReader: (request) => new XmlChannelReader(request),
}

/** JSON that holds no tag, whatever its texts hold. */
function toTaglessJson(value: unknown): string {
  return JSON.stringify(value).replaceAll('<', '\\u003c')
}

const style: TextHistoryStyle = {
  writeCall: ({ toolName: name, input = {} }) =>
    `<tool_call>\n${toTaglessJson({ name, arguments: input })}\n</tool_call>`,
  writeResult: ({ output = null, isError }, name) =>
    `<tool_response>\n${toTaglessJson(isError ? { name, error: output } : { name, content: output })}\n</tool_response>`,
}

/** The tools that may be called. */
function offeredTools({ tools = [], toolChoice }: LLMRequest): readonly Tool[] {
  if (toolChoice === 'none') return []
  return typeof toolChoice === 'object' ? tools.filter(({ name }) => name === toolChoice.name) : tools
}

function toRequest(original: LLMRequest): LLMRequest {
  const { tools: _, toolChoice, ...request } = original
  const offered = offeredTools(original)
  const textRequest: LLMRequest = { ...request, messages: toTextHistory(request.messages, style), toolInput: 'native' }
  if (offered.length === 0) return textRequest
  if (request.output)
    throw unsupported(
      '`output` and tools that are called as XML would both be the text of the answer. Ask for them in two requests, or make the output the input of a tool.',
    )
  const builtIn = offered.find(({ definition }) => definition)
  if (builtIn)
    throw unsupported(
      `The tool "${builtIn.name}" has a \`definition\`, which only a provider's native tool calls can use. Leave it out, or do not call tools as XML.`,
    )
  return { ...textRequest, system: [request.system, toInstructions(offered, toolChoice)].filter(Boolean).join('\n\n') }
}

function unsupported(message: string): UsageError {
  return new UsageError('unsupported', message)
}

function toInstructions(tools: readonly Tool[], toolChoice: LLMRequest['toolChoice']): string {
  const demand =
    typeof toolChoice === 'object'
      ? `In this answer you must call the function "${toolChoice.name}".`
      : toolChoice === 'required'
        ? 'In this answer you must call at least one function.'
        : 'Call a function only where it helps.'
  return [
    '# Tools',
    '',
    'You can call functions. Their signatures stand within <tools></tools>, each a JSON object in a line of its own:',
    '<tools>',
    ...tools.map(({ name, description, inputSchema: parameters }) =>
      toTaglessJson({ type: 'function', function: { name, description, parameters } }),
    ),
    '</tools>',
    '',
    'To call a function, write a JSON object with its name, then its arguments, within <tool_call></tool_call>:',
    '<tool_call>',
    '{"name": "the-function", "arguments": {"an-argument": "its value"}}',
    '</tool_call>',
    'Write nothing else within the tags, and no code fence around them. For several calls write several <tool_call></tool_call>. After the last one end your answer; the results come back within <tool_response></tool_response>.',
    demand,
  ].join('\n')
}

class XmlChannelReader implements TextChannelReader {
  readonly #tags: ToolCallTagReader | undefined
  readonly #strictTools: readonly string[]

  constructor(request: LLMRequest) {
    const offered = offeredTools(request)
    // Where nothing may be called, tags are text like any other.
    if (offered.length > 0) this.#tags = new ToolCallTagReader(offered, nextCallNumber(request.messages, callIdPrefix))
    this.#strictTools = offered.filter(({ strict }) => strict).map(({ name }) => name)
  }

  read(event: StreamEvent, out: StreamEvent[]): void {
    const tags = this.#tags
    switch (event.type) {
      case 'start':
        out.push(event)
        if (this.#strictTools.length > 0)
          out.push({
            type: 'warning',
            warning: {
              code: 'unsupported',
              message: `Tool calls as XML cannot be held to a schema: \`strict\` of ${this.#strictTools.join(', ')} has no effect.`,
            },
          })
        return
      case 'text-delta':
        if (tags) tags.write(event.delta, out)
        else out.push(event)
        return
      case 'part-end':
        if (event.kind === 'text') tags?.release(out)
        // Else it would end, or mark with its metadata, a part that holds nothing of it.
        if (event.kind !== 'text' || (tags?.isInText ?? true)) out.push(event)
        return
      case 'reasoning-delta':
      case 'part':
        tags?.release(out)
        out.push(event)
        return
      case 'finish':
        this.#finish(event, out)
        return
      default:
        out.push(event)
    }
  }

  release(out: StreamEvent[]): void {
    this.#tags?.release(out)
  }

  #finish(event: ProviderFinishEvent, out: StreamEvent[]): void {
    const { finishReason, usage } = event
    const error = this.#tags?.cutError
    // The other reasons say better why there is no whole call, and the accumulator says it.
    if (error && !['length', 'refusal', 'content-filter'].includes(finishReason)) {
      out.push({ type: 'usage', usage })
      throw error
    }
    this.#tags?.release(out)
    out.push(finishReason === 'stop' && this.#tags?.hasCall ? { ...event, finishReason: 'tool-calls' } : event)
  }
}
