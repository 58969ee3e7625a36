import type { StreamingLLMClient } from 'fieldstream'
import { type Product, search, stillKnown, toCard } from './catalogue.ts'
import type { ChatEvents, ChatMessage, Emit } from './events.ts'
import { type Need, toAnswer, toClassify } from './prompts.ts'
import type { Session } from './sessions.ts'
import { answer, classify } from './stream-to-events.ts'

const sorry = 'I am sorry, I cannot think straight just now. Please ask me again in a moment.'
const whatIDo = 'I can help you to find food and personal care. What are you looking for?'

export interface Turn {
  readonly outcome: ChatEvents['end']['outcome']
  readonly reply: ChatMessage
  /** To be kept, now that the turn is complete. */
  readonly session: Session
}

/**
 * One message of the customer, and what is said to it: a question, a simple response or products. Streamed where there is an
 * `emit`. Rejects only where `signal` is aborted.
 */
export async function takeTurn(
  client: StreamingLLMClient,
  session: Session,
  message: string,
  signal: AbortSignal,
  emit?: Emit,
): Promise<Turn> {
  const tell: Emit = emit ?? (() => Promise.resolve())
  const end = (outcome: Turn['outcome'], said: Omit<ChatMessage, 'role'>, changes: Partial<Session> = {}): Turn => {
    const reply: ChatMessage = { role: 'assistant', ...said }
    return {
      outcome,
      reply,
      session: { ...session, ...changes, messages: [...session.messages, { role: 'user', text: message }, reply] },
    }
  }

  // The message answers what was asked, unless the customer turns out to speak of something else.
  const told = withAnswer(session, message)
  let searched: { readonly intent: string; readonly found: Promise<Product[]> } | undefined
  function searchFor(intent: string): Promise<Product[]> {
    // An answer that had to begin anew may have another intent than the one that was searched for early.
    if (searched?.intent !== intent) {
      const words = [intent, ...Object.values(told?.known ?? {})].join(' ')
      searched = { intent, found: search(words).catch(() => []) }
    }
    return searched.found
  }
  let isClassified = false
  async function onIntent(intent: string): Promise<void> {
    const { length } = await searchFor(intent)
    if (isClassified) return
    await tell('status', { stage: 'searching', message: `${length} products may fit` })
  }

  await tell('status', { stage: 'classifying', message: 'Reading your message' })
  const classified = await orUndefined(
    classify(client, toClassify(session, message, told, signal), (intent) => void onIntent(intent), emit),
    signal,
  )
  isClassified = true
  if (!classified) {
    await tell('simple_response_delta', { delta: sorry, offset: 0, complete: true })
    await tell('classification_complete', { ...nothing, simple_response: { message: sorry } })
    return end('responded', { text: sorry })
  }
  const { reasoning: _, ask_slots, simple_response = { message: whatIDo }, ...plan } = classified
  if (plan.route !== 'product') {
    await tell('classification_complete', { ...plan, ask_slots: [], simple_response })
    return end('responded', { text: simple_response.message })
  }

  const need: Need =
    told?.category === plan.category
      ? told
      : { category: plan.category, known: stillKnown(session.need?.known ?? {}, plan.domain) }
  // Nobody is asked twice, whatever the model thinks.
  const question = ask_slots.slice(0, 1).find(({ slot }) => !(slot in need.known))
  await tell('classification_complete', { ...plan, ask_slots: question ? [question] : [] })
  if (question)
    return end('asked', { text: question.message, options: question.options }, { need, asked: question.slot })

  const found = await searchFor(plan.product_intent)
  await tell('status', { stage: 'answering', message: 'Choosing what suits you' })
  const ask = toAnswer(session, message, { need, found, signal })
  const written = (await orUndefined(answer(client, ask, found, emit), signal)) ?? withoutModel(plan.category, found)
  const cards = written.product_cards.map((card) => toCard(card, found)).filter((card) => card !== undefined)
  const complete = {
    summary_message: [written.summary_message_part_1, written.summary_message_part_2, written.summary_message_part_3]
      .filter((part) => part !== '')
      .join('\n\n'),
    product_ids: [...new Set(written.product_ids)].filter((id) => found.some((product) => product.id === id)),
    product_cards: [...new Map(cards.map((card) => [card.id, card])).values()],
    quick_replies: [...new Set(written.quick_replies)],
  }
  await tell('final_answer.complete', complete)
  const { summary_message: text, product_cards, quick_replies: options } = complete
  return end('answered', { text, product_cards, options }, { need, asked: undefined })
}

/** What is known once the message is taken for an answer. */
function withAnswer({ need, asked }: Session, message: string): Need | undefined {
  return need && asked !== undefined ? { ...need, known: { ...need.known, [asked]: message } } : need
}

/** What a model says; `undefined` where it failed, of which the client's `onError` has heard. */
async function orUndefined<Value>(value: Promise<Value>, signal: AbortSignal): Promise<Value | undefined> {
  try {
    return await value
  } catch (error) {
    if (signal.aborted) throw error
    return undefined
  }
}

/** The plan where the model could not be asked. */
const nothing = {
  route: 'general',
  domain: 'none',
  category: 'none',
  product_intent: '',
  data_strategy: 'none',
  ask_slots: [],
} as const

/** Products are found without a model too. */
function withoutModel(category: string, found: readonly Product[]) {
  const best = found.slice(0, 3)
  return {
    summary_message_part_1:
      best.length > 0 ? `This is what I found for you in ${category}.` : `I found nothing that fits in ${category}.`,
    summary_message_part_2: '',
    summary_message_part_3: '',
    product_ids: best.map(({ id }) => id),
    product_cards: best.map(({ id, description }) => ({ id, reason: description })),
    quick_replies: [],
  }
}
