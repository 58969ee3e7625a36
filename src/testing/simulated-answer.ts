import type { FinishReason } from '../events.ts'

/** An answer in no provider's terms yet. */
export interface SimulatedAnswer {
  readonly model: string
  readonly text: string
  readonly reasoning: string
  /** Arguments as text. */
  readonly calls: readonly { readonly tool: string; readonly inputText: string }[]
  readonly finishReason: Exclude<FinishReason, 'other'>
  readonly inputTokens: number
  readonly deltaChars: number
}
