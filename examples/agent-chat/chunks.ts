import type { Run } from './answer.ts'
import type { ChunkMetadata } from './protocol.ts'

type RunEvent = Run extends AsyncIterable<infer Event> ? Event : never

/** The text that an event adds to the message; a result is told by its summary. */
export function textOf(event: RunEvent): string {
  if (event.type === 'text-delta') return event.delta
  if (event.type === 'tool-result') return `\n\n${(event.output as { readonly summary: string }).summary}\n\n`
  return event.type === 'tool-error' ? `\n\n${event.error.message}\n\n` : ''
}

/** What an event is to a front end; `undefined` for those that it does not need. */
export function metadataOf(event: RunEvent): ChunkMetadata | undefined {
  switch (event.type) {
    case 'start':
      return { type: 'start', provider: event.provider, model: event.model, tool_input: event.toolInput }
    case 'text-delta':
      return { type: 'text' }
    case 'tool-call':
    case 'tool-result':
    case 'tool-error':
      return { type: event.type, tool_call_id: event.toolCallId, tool: event.toolName }
    case 'tool-progress':
      return { type: event.type, tool_call_id: event.toolCallId, tool: event.toolName, value: event.value }
    case 'finish':
      return {
        type: 'finish',
        time_to_first_byte_ms: event.metrics.timeToFirstByteMs,
        output_tokens: event.usage.outputTokens,
      }
    default:
      return undefined
  }
}
