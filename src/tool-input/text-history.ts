import { UsageError } from '../errors.ts'
import type { Message, TextPart, ToolCallPart, ToolResultPart, UserMessage } from '../request.ts'

type UserParts = Exclude<UserMessage['content'], string>

/** The conversation without tools: calls become text of the assistant, as `renderCall` writes it, results text of the user. */
export function toTextHistory(
  messages: readonly Message[],
  renderCall: (call: ToolCallPart) => string,
): readonly Message[] {
  const names = new Map<string, string>()
  const converted: Message[] = []
  for (const message of messages) {
    if (message.role === 'assistant' && typeof message.content !== 'string') {
      const content = message.content.map((part) => {
        if (part.type !== 'tool-call') return part
        names.set(part.toolCallId, part.toolName)
        return { type: 'text' as const, text: renderCall(part) }
      })
      converted.push({ role: 'assistant', content })
    } else if (message.role === 'tool') {
      addUserParts(
        converted,
        message.content.map((part) => toText(part, part.toolName ?? names.get(part.toolCallId))),
      )
    } else if (message.role === 'user' && converted.at(-1)?.role === 'user') {
      const { content } = message
      addUserParts(converted, typeof content === 'string' ? [{ type: 'text', text: content }] : content)
    } else converted.push(message)
  }
  return converted
}

/** Goes on in the user's turn, or begins it: results, and what the user adds to them, are one. */
function addUserParts(converted: Message[], parts: UserParts): void {
  const last = converted.at(-1)
  if (last?.role !== 'user') {
    converted.push({ role: 'user', content: parts })
    return
  }
  const before: UserParts = typeof last.content === 'string' ? [{ type: 'text', text: last.content }] : last.content
  converted[converted.length - 1] = { role: 'user', content: [...before, ...parts] }
}

function toText({ toolCallId, output, isError, metadata }: ToolResultPart, toolName: string | undefined): TextPart {
  const call = toolName === undefined ? 'a tool' : `tool "${toolName}"`
  const text = `${isError ? 'Error' : 'Result'} of ${call}: ${toOutputText(toolCallId, output)}`
  return { type: 'text', text, ...(metadata && { metadata }) }
}

function toOutputText(toolCallId: string, output: unknown): string {
  if (typeof output === 'string') return output
  try {
    return JSON.stringify(output) ?? ''
  } catch (cause) {
    throw new UsageError('invalid_argument', `The output of tool call "${toolCallId}" cannot be sent as JSON.`, {
      cause,
    })
  }
}
