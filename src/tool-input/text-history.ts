import { UsageError } from '../errors.ts'
import type { AssistantMessage, Message, TextPart, ToolCallPart, ToolResultPart, UserMessage } from '../request.ts'

/** How a channel writes calls and results in the text of a conversation. */
export interface TextHistoryStyle {
  /** @throws TypeError where the input is no JSON, as `writeResult` does of a result. */
  writeCall(call: ToolCallPart): string
  writeResult(result: ToolResultPart, toolName: string | undefined): string
}

/** The calls that the assistant made in a conversation. */
function toolCallsOf(messages: readonly Message[]): ToolCallPart[] {
  return messages.flatMap(({ role, content }) =>
    role === 'assistant' && typeof content !== 'string' ? content.filter((part) => part.type === 'tool-call') : [],
  )
}

/** A number for `prefix` that no call of the conversation has in its id, the same whenever the same request is made. */
export function nextCallNumber(messages: readonly Message[], prefix: string): number {
  const calls = toolCallsOf(messages)
  // The count alone would repeat ids where earlier messages were left out.
  const numbers = calls.map(({ toolCallId }) =>
    toolCallId.startsWith(prefix) ? Number(/^\d+$/.exec(toolCallId.slice(prefix.length))) : 0,
  )
  return Math.max(calls.length, ...numbers) + 1
}

/** The conversation without tools: calls are text of the assistant, results text of the user. */
export function toTextHistory(messages: readonly Message[], style: TextHistoryStyle): Message[] {
  const names = new Map(toolCallsOf(messages).map(({ toolCallId, toolName }) => [toolCallId, toolName]))
  const converted: Message[] = []
  let results: TextPart[] = []
  // Some APIs insist that roles alternate, so what the user says next goes into the same message.
  const addResults = (following: UserMessage['content'] = []): void => {
    const more = typeof following === 'string' ? [{ type: 'text' as const, text: following }] : following
    const isLast = (i: number): boolean => i === results.length - 1 && more.length === 0
    const lines = results.map((result, i) => (isLast(i) ? result : { ...result, text: `${result.text}\n` }))
    if (lines.length > 0) converted.push({ role: 'user', content: [...lines, ...more] })
    results = []
  }
  for (const message of messages) {
    if (message.role === 'tool') {
      for (const result of message.content) results.push(toTextPart(result, names, style))
    } else if (message.role === 'user' && results.length > 0) addResults(message.content)
    else {
      addResults()
      converted.push(message.role === 'assistant' ? toTextMessage(message, style) : message)
    }
  }
  addResults()
  return converted
}

/** Each call in a paragraph of its own. */
function toTextMessage({ role, content }: AssistantMessage, style: TextHistoryStyle): AssistantMessage {
  if (typeof content === 'string') return { role, content }
  return {
    role,
    content: content.map((part, i) => {
      const previous = content[i - 1]?.type
      if (part.type === 'tool-call') {
        const separator = previous === 'text' || previous === 'tool-call' ? '\n' : ''
        const text = written(() => style.writeCall(part), `The input of tool call "${part.toolCallId}"`)
        return { type: 'text', text: separator + text }
      }
      return part.type === 'text' && previous === 'tool-call' ? { ...part, text: `\n${part.text}` } : part
    }),
  }
}

function toTextPart(result: ToolResultPart, names: ReadonlyMap<string, string>, style: TextHistoryStyle): TextPart {
  const { toolCallId, toolName = names.get(toolCallId), metadata } = result
  const text = written(() => style.writeResult(result, toolName), `The output of tool call "${toolCallId}"`)
  return { type: 'text', text, ...(metadata && { metadata }) }
}

function written(write: () => string, what: string): string {
  try {
    return write()
  } catch (cause) {
    throw new UsageError('invalid_argument', `${what} cannot be sent as JSON.`, { cause })
  }
}
