/** The consumers of one run, all at the same time. */
import { isLLMError, type LLMResponse, type ResponseEvent, type ResponseStream, type RunResponse } from 'fieldstream'
import { pace } from './clock.ts'
import type { ConsumersPlan } from './scenario.ts'
import { eventTypes, View } from './view.ts'

/** What the consumers of a run came to. */
export interface Account {
  readonly outcome: PromiseSettledResult<LLMResponse | RunResponse>
  /** Those who were there from the first event to the end, or to when they left. */
  readonly views: readonly { readonly name: string; readonly view: View; readonly hasLeft: boolean }[]
  readonly late: readonly { readonly from: number; readonly view: View; readonly refusal: unknown }[]
  readonly text: string | undefined
  readonly fieldTexts: string | undefined
  readonly field: PromiseSettledResult<unknown> | undefined
  /** Whether something may have ended the run early. */
  readonly isEnded: boolean
}

async function read(
  events: AsyncIterable<ResponseEvent>,
  view: View,
  {
    leavesAfter,
    isSlow = false,
    isLate = false,
    onEvent,
  }: { leavesAfter?: number | undefined; isSlow?: boolean; isLate?: boolean; onEvent?: () => void },
): Promise<boolean> {
  if (leavesAfter === 0) {
    await events[Symbol.asyncIterator]().return?.()
    return true
  }
  try {
    for await (const event of events) {
      view.take(event)
      onEvent?.()
      if (view.events.length === leavesAfter) return true
      if (isSlow) await pace()
    }
    // Who comes after the last event has nothing more to get.
    if (!view.hasFinished && !isLate) view.faults.push('the loop ends without finish')
  } catch (error) {
    view.error = error
  }
  return false
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<ResponseEvent> {
  const decoder = new TextDecoder()
  for await (const bytes of stream) yield JSON.parse(decoder.decode(bytes)) as ResponseEvent
}

export async function consume(
  stream: ResponseStream,
  plan: ConsumersPlan,
  {
    keepAlive,
    canView,
    canName,
    signal,
  }: { keepAlive: boolean; canView: boolean; canName: boolean; signal: AbortController },
): Promise<Account> {
  const views: { name: string; view: View; hasLeft: boolean }[] = []
  const late: { from: number; view: View; refusal: unknown }[] = []
  const waiting: Promise<unknown>[] = []
  let isEnded = false
  const abort = (): void => {
    isEnded = true
    if (plan.abort?.by === 'signal') signal.abort('enough')
    else stream.abort('enough')
  }
  /** The first consumer that follows the events tells what is to happen at which. */
  const main = new View()
  const onEvent = (): void => {
    const { length } = main.events
    if (plan.abort?.on === 'event' && length === plan.abort.at) abort()
    for (const { after, back } of plan.late) {
      if (after !== length) continue
      const from = main.events[Math.max(0, length - 1 - back)]!.seq
      const view = new View(false)
      const told = { from, view, refusal: undefined as unknown }
      late.push(told)
      try {
        const events = stream.subscribe({ from })
        waiting.push(read(events, view, { isLate: true }))
      } catch (error) {
        told.refusal = error
      }
    }
  }
  const add = (name: string, events: AsyncIterable<ResponseEvent>, how: Parameters<typeof read>[2]): void => {
    const isMain = views.length === 0
    const view = isMain ? main : new View()
    const entry = { name, view, hasLeft: false }
    views.push(entry)
    const reading = read(events, view, { ...how, ...(isMain && { onEvent }) }).then((hasLeft) => {
      entry.hasLeft = hasLeft
      if (hasLeft && !keepAlive) isEnded = true
    })
    waiting.push(reading)
  }

  let final: Promise<LLMResponse> | undefined
  if (plan.isFinalFirst) final = stream.final()
  let text: string | undefined
  let fieldTexts: string | undefined
  const gather = async (deltas: AsyncIterable<string>, set: (all: string) => void): Promise<void> => {
    let all = ''
    try {
      for await (const delta of deltas) set((all += delta))
    } catch {
      // Its end is the run's.
    }
  }
  if (plan.loop) {
    const events = plan.loop.isWeb ? linesOf(stream.toReadableStream()) : stream
    add(plan.loop.isWeb ? 'web stream' : 'loop', events, plan.loop)
  }
  for (const reader of plan.readers) add('reader', stream.subscribe(), reader)
  if (plan.listeners !== 'none') {
    const isMain = views.length === 0
    const view = isMain ? main : new View()
    views.push({ name: 'listeners', view, hasLeft: false })
    for (const type of eventTypes) {
      stream.on(type, (event: ResponseEvent) => {
        view.take(event)
        if (isMain) onEvent()
        if (plan.listeners === 'throwing') throw new Error('The listener has a bug.')
      })
    }
    stream.on('error', (error) => {
      view.error = error
      if (plan.listeners === 'throwing') throw new Error('The listener has a bug.')
    })
  }
  // Last, since they read at once, and do not want to see what a model thinks.
  if (plan.view === 'text' && canView) waiting.push(gather(stream.textStream, (all) => (text = all)))
  if (plan.view === 'fields' && canView && canName)
    waiting.push(gather(stream.fields('message'), (all) => (fieldTexts = all)))
  const field = plan.field && canName ? stream.field('message' as never) : undefined
  if (plan.abort?.on === 'turn') {
    for (let i = 0; i < plan.abort.at; i++) await (i % 2 === 0 ? Promise.resolve() : pace())
    abort()
  }
  if (plan.isFinalFirst) final ??= stream.final()
  else for (let i = 0; i < waiting.length; i++) await waiting[i]
  final ??= stream.final()
  const [outcome] = await Promise.allSettled([final])
  // Late ones come while others are waited for.
  for (let i = 0; i < waiting.length; i++) await waiting[i]
  const [fieldOutcome] = await Promise.allSettled([field])
  return { outcome, views, late, text, fieldTexts, field: field && fieldOutcome, isEnded }
}

export function codeOf({ outcome }: Pick<Account, 'outcome'>): string | undefined {
  if (outcome.status === 'fulfilled') return undefined
  const error = outcome.reason as unknown
  return isLLMError(error) ? error.code : `no LLMError: ${String(error)}`
}
