import type { FinishReason, Metrics, ToolCallEvent, Usage } from './events.ts'
import type { AssistantMessage, LLMWarning, ToolMessage } from './request.ts'

/** A complete answer: every call and the output whole and valid. */
export interface LLMResponse<
  Calls extends readonly unknown[] = readonly Omit<ToolCallEvent, 'type'>[],
  Output = unknown,
  /** One answer is one message; those of `client.run()` have the results of tools between them. */
  Message extends AssistantMessage | ToolMessage = AssistantMessage | ToolMessage,
> {
  /** The plain text of the answer; `''` where there is none. */
  readonly text: string
  /** The model's thinking as far as the provider shows it; `''` where it does not. */
  readonly reasoning: string
  /** The calls in the order the model made them, their `input` as the tool's schema returns it; empty where it made none. */
  readonly toolCalls: Calls
  /** As its schema returns it; `undefined` where the request asks for none, or the model called tools instead. */
  readonly output: Output
  /** How the answer ended. `'length'` only for plain text: anything else that was cut rejects. */
  readonly finishReason: FinishReason
  /** The provider's own word for it. */
  readonly providerFinishReason: string
  /** The tokens that the answer took. */
  readonly usage: Usage
  /** When what happened, and how much of it. */
  readonly metrics: Metrics
  /** The provider that gave the answer: of a `fallback()`, the one that succeeded. */
  readonly provider: string
  /** The model as the provider named it in its answer. */
  readonly model: string
  /** The provider's id of the answer; `undefined` where it gives none. */
  readonly responseId: string | undefined
  /** The provider's id of the HTTP request, for its support; `undefined` where it gives none. */
  readonly requestId: string | undefined
  /** To append to the conversation: signatures, ids and blocks that only the provider understands are kept. */
  readonly messages: readonly Message[]
  /** What did not stop the request, but its author should know; empty where there is nothing. */
  readonly warnings: readonly LLMWarning[]
}

/** The end of a run of several steps: its last answer, with what there was before. */
export interface RunResponse<
  Calls extends readonly unknown[] = readonly Omit<ToolCallEvent, 'type'>[],
  Output = unknown,
> extends LLMResponse<Calls, Output> {
  /** The answer of each step. Their metrics are those of the run up to then, but for `cached`, which is of the step. */
  readonly steps: readonly LLMResponse<Calls, Output | undefined, AssistantMessage>[]
  /** The answers of all steps and the results of their tools, to append to the conversation. */
  readonly messages: readonly (AssistantMessage | ToolMessage)[]
  /** Of all steps, those included whose answer came from a cache: `metrics.cached` of each in `steps` tells which. */
  readonly usage: Usage
}
