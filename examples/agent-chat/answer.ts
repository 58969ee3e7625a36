import type { Message } from 'fieldstream'
import type { Agent } from './agents.ts'
import { metadataOf, textOf } from './chunks.ts'
import type { ChatMessage, ChunkMetadata, StreamFrame } from './protocol.ts'

export type Run = ReturnType<typeof startRun>

/** Begins to answer a conversation. The run belongs to no client: any number may watch it, leave, and come back. */
export function startRun({ client, instructions, tools }: Agent, messages: readonly Message[]) {
  return client.run({
    system: instructions,
    messages,
    tools,
    batch: { chars: 24, maxWait: 80 },
    replay: { events: 20_000 }, // for who comes back
    keepAlive: true, // nobody has to stay
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
