import { UsageError } from '../errors.ts'
import type {
  AssistantMessage,
  ImagePart,
  Message,
  ProviderPart,
  TextPart,
  ToolCallPart,
  ToolResultPart,
  UserMessage,
} from '../request.ts'

/** JSON that holds no tag, whatever its texts hold. */
export function toTaglessJson(value: unknown): string {
  return JSON.stringify(value).replaceAll('<', '\\u003c')
}

export function toolCallsOf(messages: readonly Message[]): ToolCallPart[] {
  return messages.flatMap(({ role, content }) =>
    role === 'assistant' && typeof content !== 'string' ? content.filter((part) => part.type === 'tool-call') : [],
  )
}

/** The conversation with its calls and their results as text. */
export function toTextMessages(messages: readonly Message[]): Message[] {
  const names = new Map(toolCallsOf(messages).map(({ toolCallId, toolName }) => [toolCallId, toolName]))
  const converted: Message[] = []
  let results: ToolResultPart[] = []
  // Some APIs insist that roles alternate, so what the user says next goes into the same message.
  const addResults = (following: UserMessage['content'] = []): void => {
    if (results.length > 0) converted.push(toResultsMessage(results, names, following))
    results = []
  }
  for (const message of messages) {
    if (message.role === 'tool') results.push(...message.content)
    else if (message.role === 'user' && results.length > 0) addResults(message.content)
    else {
      addResults()
      converted.push(message.role === 'assistant' ? toAssistantMessage(message) : message)
    }
  }
  addResults()
  return converted
}

function toAssistantMessage({ role, content }: AssistantMessage): AssistantMessage {
  if (typeof content === 'string') return { role, content }
  return {
    role,
    content: content.map((part, i) => {
      const previous = content[i - 1]?.type
      if (part.type === 'tool-call') {
        const { toolName: name, input = {} } = part
        const separator = previous === 'text' || previous === 'tool-call' ? '\n' : ''
        const call = toTaglessJson({ name, arguments: input })
        return { type: 'text', text: `${separator}<tool_call>\n${call}\n</tool_call>` }
      }
      return part.type === 'text' && previous === 'tool-call' ? { ...part, text: `\n${part.text}` } : part
    }),
  }
}

function toResultsMessage(
  results: readonly ToolResultPart[],
  names: ReadonlyMap<string, string>,
  following: UserMessage['content'],
): UserMessage {
  const more: readonly (TextPart | ImagePart | ProviderPart)[] =
    typeof following === 'string' ? [{ type: 'text', text: following }] : following
  const parts = results.map((result, i): TextPart => {
    const { toolCallId, toolName = names.get(toolCallId), metadata } = result
    const isLast = i === results.length - 1 && more.length === 0
    const text = `<tool_response>\n${toResultJson(result, toolName)}\n</tool_response>${isLast ? '' : '\n'}`
    return { type: 'text', text, ...(metadata && { metadata }) }
  })
  return { role: 'user', content: [...parts, ...more] }
}

function toResultJson({ toolCallId, output = null, isError }: ToolResultPart, name: string | undefined): string {
  try {
    return toTaglessJson(isError ? { name, error: output } : { name, content: output })
  } catch (cause) {
    throw new UsageError('invalid_argument', `The output of tool call "${toolCallId}" cannot be sent as JSON.`, {
      phase: 'request',
      cause,
    })
  }
}
