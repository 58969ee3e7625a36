import { AbortedError, isLLMError, type Message } from 'fieldstream'
import type { Agent } from './agents.ts'
import type { ChatMessage, ChunkMetadata, StreamFrame } from './protocol.ts'

export type Run = ReturnType<typeof startRun>
type RunEvent = Run extends AsyncIterable<infer Event> ? Event : never

/** Begins to answer a conversation. The run belongs to no client: any number may watch it, leave, and come back. */
export function startRun({ client, instructions, tools }: Agent, messages: readonly Message[]) {
  return client.run({
    system: instructions,
    messages,
    tools,
    batch: { chars: 24, maxWait: 80 },
    replay: { events: 20_000 },
    keepAlive: true,
  })
}

/** What a client sees of an answer, from behind the chunk `seq` on, and in the end the message as it is saved. */
export async function* framesOf(run: Run, message_id: string, seq: number, saved: Promise<ChatMessage>) {
  const toFrame = (chunk: string, metadata: ChunkMetadata, is_final = false): StreamFrame => {
    return { type: 'message_stream', message_id, chunk, is_final, metadata: { seq, ...metadata } }
  }
  try {
    for await (const event of run.subscribe({ from: seq })) {
      const metadata = metadataOf(event)
      if (!metadata) continue
      seq = event.seq
      yield toFrame(textOf(event), metadata, event.type === 'finish')
    }
  } catch {
    // How the run ended stands in what is saved, and so does all that a client missed and is not kept any more.
  }
  const message = await saved
  const { status, error } = message
  if (status === 'cancelled' || status === 'failed') yield toFrame('', { type: status, error }, true)
  yield { type: 'message_update', message } as const
}

/** Reads an answer to its end, for the message that is kept of it. */
export async function read(run: Run): Promise<Pick<ChatMessage, 'content' | 'status' | 'error'> & { said: Message[] }> {
  let content = ''
  try {
    for await (const event of run.subscribe()) content += textOf(event)
    return { content, status: 'complete', said: [...(await run.final()).messages] }
  } catch (cause) {
    // The next answer is to know what the user saw of this one.
    const said: Message[] = content === '' ? [] : [{ role: 'assistant', content }]
    if (cause instanceof AbortedError) return { content, status: 'cancelled', said }
    const error = isLLMError(cause) ? { code: cause.code, message: cause.message } : { code: 'internal', message: '' }
    return { content, status: 'failed', error, said }
  }
}

/** The text that an event adds to the message; a result is told by its summary. */
function textOf(event: RunEvent): string {
  if (event.type === 'text-delta') return event.delta
  if (event.type === 'tool-result') return `\n\n${(event.output as { readonly summary: string }).summary}\n\n`
  return event.type === 'tool-error' ? `\n\n${event.error.message}\n\n` : ''
}

/** What an event is to a front end; `undefined` for those that it does not need. */
function metadataOf(event: RunEvent): ChunkMetadata | undefined {
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
