import type { Message } from './request.ts'

/** One tool call of an unfinished answer. */
export interface PartialToolCall {
  /** The same as in the events of this call. */
  readonly toolCallId: string
  /** As the model wrote it. */
  readonly toolName: string
  /** The JSON text so far. */
  readonly inputText: string
  /** What of it is there: open strings as far as they go, unfinished numbers, literals and keys left out; never validated. */
  readonly input: unknown
  /** Whether the text is whole. It may still be against the tool's schema. */
  readonly complete: boolean
}

/** An answer as far as it has arrived. */
export interface Snapshot {
  /** The plain text so far; `''` before any. */
  readonly text: string
  /** The model's thinking so far; `''` before any. */
  readonly reasoning: string
  /** The calls that have begun, in that order. */
  readonly toolCalls: readonly PartialToolCall[]
  /** What there is of the output, where the request asks for one; as `input` of a partial call. */
  readonly output: unknown
  /** What a run of several steps has finished, results of its tools included: append it to the conversation to go on from there. */
  readonly messages: readonly Message[]
}
