import type { StreamingLLMClient } from 'fieldstream'
import { type Product, toCard } from './catalogue.ts'
import { type Emit, toDelta } from './events.ts'
import type { Ask } from './prompts.ts'
import { classification, finalAnswer } from './tools.ts'

type Client = StreamingLLMClient

/** Step 1: what the customer may see as it is written, the reasoning in one piece. Without `emit` nothing is streamed. */
export async function classify(client: Client, ask: Ask, onIntent: (intent: string) => void, emit?: Emit) {
  if (!emit) return (await client.generate({ ...classification, ...ask })).toolCalls[0].input
  await emit('classification_start', {})
  const stream = client.stream({ ...classification, ...ask })
  // The shop can search while the rest is still being written.
  const known = Promise.all([stream.field('route'), stream.field('product_intent')])
  known.then(([route, intent]) => route === 'product' && onIntent(intent ?? '')).catch(() => undefined) // the loop throws it
  for await (const event of stream) {
    if (event.type === 'progress') await emit('classification_progress', { ratio: event.ratio })
    if (event.type !== 'field-delta' && event.type !== 'field-end') continue
    if (event.field !== 'reasoning') await emit(`${event.field}_delta`, toDelta(event))
    else if (event.type === 'field-end') await emit('classification_reasoning', { reasoning: event.value })
  }
  return (await stream.final()).toolCalls[0].input
}

/** Step 2: the three parts as they are written; ids, cards and quick replies each when it is complete. */
export async function answer(client: Client, ask: Ask, found: readonly Product[], emit?: Emit) {
  if (!emit) return (await client.generate({ ...finalAnswer, ...ask })).toolCalls[0].input
  await emit('final_answer.start', {})
  const stream = client.stream({ ...finalAnswer, ...ask })
  // A stream that breaks begins anew, and what was complete comes again.
  const told = new Set<string>()
  const isNew = (what: string): boolean => !told.has(what) && !!told.add(what)
  for await (const event of stream) {
    if (event.type !== 'field-delta' && event.type !== 'field-end') continue
    const part = Number(event.params['part'])
    if (event.field === 'part' && (event.type === 'field-delta' || isNew(`part ${part} ${event.value}`)))
      await emit('final_answer.delta', { part, ...toDelta(event) })
    if (event.type === 'field-delta') continue
    if (event.field === 'quick_reply' && isNew(`reply ${event.value}`))
      await emit('final_answer.quick_reply', { text: event.value })
    const card = event.field === 'product_card' && toCard(event.value, found)
    if (card && isNew(`card ${card.id}`)) await emit('final_answer.product_card', card)
    if (event.field === 'product_id' && found.some(({ id }) => id === event.value) && isNew(`id ${event.value}`))
      await emit('final_answer.product_id', { product_id: event.value })
  }
  return (await stream.final()).toolCalls[0].input
}
