import { z } from 'zod'

const id = z.string().regex(/^[\w-]{1,64}$/, 'must be 1 to 64 letters, digits, "_" or "-"')

/** What a client may send. */
export const clientFrame = z.discriminatedUnion('type', [
  z.object({
    type: z.literal('join'),
    conversation_id: id,
    /** The newest message that the client has, and the `seq` of the last chunk it got of it. Without it, it gets them all. */
    seen: z.object({ message_id: id, seq: z.int().min(0) }).optional(),
  }),
  z.object({
    type: z.literal('message'),
    conversation_id: id,
    agent: id,
    content: z.string().trim().min(1).max(4000),
    /** Chosen by a client that sends again what it does not know to have arrived: the same message is taken once. */
    message_id: id.optional(),
  }),
  z.object({ type: z.literal('stream_cancel'), message_id: id }),
])

/** What a frame is about, as far as that can be told of one that is malformed. */
export const subject = z
  .object({ conversation_id: id.optional().catch(undefined), message_id: id.optional().catch(undefined) })
  .catch({})

export type ClientFrame = z.infer<typeof clientFrame>

export interface ChatMessage {
  readonly message_id: string
  readonly conversation_id: string
  readonly role: 'user' | 'assistant'
  /** Who writes it, or is to answer it. */
  readonly agent: string
  readonly content: string
  readonly status: 'streaming' | 'complete' | 'cancelled' | 'failed'
  readonly error?: { readonly code: string; readonly message: string } | undefined
  readonly created_at: string
}

/** What a chunk is, beside its text. */
export type ChunkMetadata =
  | { readonly type: 'start'; readonly provider: string; readonly model: string; readonly tool_input: string }
  | { readonly type: 'text' }
  | { readonly type: 'tool-call' | 'tool-result' | 'tool-error'; readonly tool_call_id: string; readonly tool: string }
  | { readonly type: 'tool-progress'; readonly tool_call_id: string; readonly tool: string; readonly value: unknown }
  | { readonly type: 'finish'; readonly time_to_first_byte_ms: number | undefined; readonly output_tokens: number }
  | { readonly type: 'cancelled' }
  | { readonly type: 'failed'; readonly error: ChatMessage['error'] }

export interface StreamFrame {
  readonly type: 'message_stream'
  readonly message_id: string
  /** Joined, the chunks of a message are its `content`. */
  readonly chunk: string
  readonly is_final: boolean
  /** `seq` only grows: whoever comes back says the last that it has seen. */
  readonly metadata: ChunkMetadata & { readonly seq: number }
}

export interface AgentDescription {
  readonly id: string
  readonly name: string
  readonly task: string
  readonly provider: string
  readonly model: string
  readonly is_simulated: boolean
}

/** How quickly an agent's provider answers, in milliseconds; of the last run, where it does not say otherwise. */
export interface AgentLatency {
  readonly agent: string
  readonly runs: number
  readonly first_byte_ms: number | undefined
  readonly first_byte_median_ms: number | undefined
  readonly chunk_p95_ms: number | undefined
  /** Whether the last run took longer than the limit to begin, or one under way does. */
  readonly is_slow: boolean
  /** How many did. */
  readonly alerts: number
}

/** With the ids of the frame that it answers. */
export interface ErrorFrame extends z.infer<typeof subject> {
  readonly type: 'error'
  readonly code: 'bad_request' | 'busy' | 'failed'
  readonly reason: string
}

export type ServerFrame =
  | { readonly type: 'agents'; readonly agents: readonly AgentDescription[]; readonly limit_ms: number }
  | { readonly type: 'latency'; readonly agents: readonly AgentLatency[] }
  | { readonly type: 'message_new' | 'message_update'; readonly message: ChatMessage }
  | StreamFrame
  | ErrorFrame
