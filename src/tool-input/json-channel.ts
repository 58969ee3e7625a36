import { UsageError } from '../errors.ts'
import type { StreamEvent } from '../events.ts'
import { forcedTool, type LLMRequest } from '../request.ts'
import type { Tool } from '../tool.ts'
import type { TextChannel, TextChannelReader } from './channel.ts'
import { nextCallNumber, type TextHistoryStyle, toTextHistory } from './text-history.ts'

/**
 * A forced call as an answer that is JSON of the tool's schema: for models whose native calls come whole, or cannot be forced.
 * The model calls nothing else and writes nothing beside it.
 */
export const jsonChannel: TextChannel = {
  name: 'json',
  toRequest(request) {
    const { tools: _, toolChoice: __, messages, ...rest } = request
    const withoutTools: LLMRequest = {
      ...rest,
      toolInput: 'native',
      messages: toTextHistory(messages, style),
    }
    const tool = toolOf(request)
    if (!tool) return withoutTools
    const { name, description, inputSchema: schema, strict } = tool
    const instructions = [request.system, toInstruction(tool)].filter((text) => text !== undefined)
    return { ...withoutTools, system: instructions.join('\n\n'), output: { name, description, schema, strict } }
  },
  createReader(request) {
    const tool = toolOf(request)
    return tool
      ? new JsonChannelReader(tool.name, `${callIdPrefix}${nextCallNumber(request.messages, callIdPrefix)}`)
      : plainReader
  },
}

/** The tool whose arguments the answer is; `undefined` where none is to be called. */
function toolOf(request: LLMRequest): Tool | undefined {
  if (request.toolChoice === 'none') return undefined
  const tool = forcedTool(request)
  if (!tool) {
    throw unsupported(
      "calls one tool, which the request must name in `toolChoice`. Name one, or use `toolInput: 'native'` or 'xml'",
    )
  }
  if (tool.definition) {
    throw unsupported(
      `cannot call tool "${tool.name}": one with a \`definition\` of its own is called natively. Use \`toolInput: 'native'\``,
    )
  }
  if (request.output) {
    throw unsupported(
      'makes the answer the arguments of a tool, so that it cannot be an `output` too. Leave one of them out',
    )
  }
  return tool
}

function unsupported(problem: string): UsageError {
  return new UsageError('unsupported', `\`toolInput: 'json'\` ${problem}.`)
}

function toInstruction({ name, description }: Tool): string {
  const task = `Answer with the arguments of a call of the tool "${name}": one JSON object of its schema, and nothing else.`
  return description === undefined ? task : `${task} What the tool does: ${description}`
}

const callIdPrefix = 'call_json_'

const style: TextHistoryStyle = {
  writeCall: ({ input }) => toText(input),
  writeResult: ({ output, isError }, toolName) => {
    const call = toolName === undefined ? 'a tool' : `tool "${toolName}"`
    return `${isError ? 'Error' : 'Result'} of ${call}: ${typeof output === 'string' ? output : toText(output)}`
  },
}

function toText(value: unknown): string {
  return JSON.stringify(value) ?? ''
}

const plainReader: TextChannelReader = {
  read: (event, out) => void out.push(event),
  release: () => undefined,
}

/** Reads the text of an answer as the arguments of one call. */
class JsonChannelReader implements TextChannelReader {
  readonly #toolName: string
  readonly #toolCallId: string
  /** White space before the arguments. */
  #leading = ''
  #isOpen = false

  constructor(toolName: string, toolCallId: string) {
    this.#toolName = toolName
    this.#toolCallId = toolCallId
  }

  read(event: StreamEvent, out: StreamEvent[]): void {
    switch (event.type) {
      case 'text-delta':
        this.#write(event.delta, out)
        return
      case 'part-end':
        // What a provider attaches to a text means nothing on a call.
        if (event.kind !== 'text') out.push(event)
        return
      case 'finish': {
        // Arguments at a token limit may be cut: left open, they are known to be.
        const hasEnded = this.#isOpen && event.finishReason !== 'length'
        if (hasEnded) out.push({ type: 'tool-input-end', toolCallId: this.#toolCallId })
        out.push(hasEnded && event.finishReason === 'stop' ? { ...event, finishReason: 'tool-calls' } : event)
        return
      }
      default:
        out.push(event)
    }
  }

  release(): void {
    // White space alone is nothing to show.
  }

  #write(delta: string, out: StreamEvent[]): void {
    const toolCallId = this.#toolCallId
    if (!this.#isOpen) {
      this.#leading += delta
      if (this.#leading.trim() === '') return
      this.#isOpen = true
      out.push({ type: 'tool-input-start', toolCallId, toolName: this.#toolName })
      delta = this.#leading
    }
    out.push({ type: 'tool-input-delta', toolCallId, delta })
  }
}
