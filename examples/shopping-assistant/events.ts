import type { FieldDeltaEvent, FieldEndEvent } from 'fieldstream'

/** What the server tells the page: the name of each event and its data. */
export interface ChatEvents {
  ack: { readonly session_id: string }
  status: { readonly stage: 'classifying' | 'searching' | 'answering'; readonly message: string }

  classification_start: Record<string, never>
  /** Why the model decides as it does: in one piece, and not for the customer's eyes. */
  classification_reasoning: { readonly reasoning: string }
  classification_progress: { readonly ratio: number }
  ask_message_delta: TextDelta
  simple_response_delta: TextDelta
  classification_complete: {
    readonly route: 'product' | 'general' | 'support'
    readonly domain: string
    readonly category: string
    readonly product_intent: string
    readonly data_strategy: string
    /** One at most: the next waits for its answer. */
    readonly ask_slots: readonly Question[]
    readonly simple_response?: { readonly message: string } | undefined
  }

  'final_answer.start': Record<string, never>
  'final_answer.delta': TextDelta & { readonly part: number }
  'final_answer.product_id': { readonly product_id: string }
  'final_answer.product_card': ProductCard
  'final_answer.quick_reply': { readonly text: string }
  'final_answer.complete': {
    readonly summary_message: string
    readonly product_ids: readonly string[]
    readonly product_cards: readonly ProductCard[]
    readonly quick_replies: readonly string[]
  }

  end: { readonly outcome: 'asked' | 'responded' | 'answered' | 'stopped' | 'failed'; readonly saved: boolean }
}

export interface TextDelta {
  readonly delta: string
  /**
   * Where in its text the delta stands. That is where the text ends, unless the model had to begin anew: then the text goes on from
   * there.
   */
  readonly offset: number
  /** Whether this was the last of its text. */
  readonly complete: boolean
}

export interface Question {
  readonly slot: string
  readonly message: string
  readonly options: readonly string[]
}

export interface ProductCard {
  readonly id: string
  readonly name: string
  readonly category: string
  readonly price: number
  /** Why it suits this customer. */
  readonly reason: string
}

/** One message of a conversation, as it is kept and shown again. */
export interface ChatMessage {
  readonly role: 'user' | 'assistant'
  readonly text: string
  readonly product_cards?: readonly ProductCard[] | undefined
  /** What the customer may choose to say next. */
  readonly options?: readonly string[] | undefined
}

export type Emit = <Name extends keyof ChatEvents>(event: Name, data: ChatEvents[Name]) => Promise<void>

type TextEvent =
  Pick<FieldDeltaEvent, 'type' | 'delta' | 'length'> | Pick<FieldEndEvent<string, string>, 'type' | 'value'>

export function toDelta(event: TextEvent): TextDelta {
  return event.type === 'field-delta'
    ? { delta: event.delta, offset: event.length - event.delta.length, complete: false }
    : { delta: '', offset: event.value.length, complete: true }
}
