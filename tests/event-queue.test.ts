import type { ResponseEvent } from 'fieldstream'
import fc from 'fast-check'
import { describe, expect, test, vi } from 'vitest'
import { EventQueue } from '../src/event-queue.ts'
import { collect, collectUntilError, rejectionOf, turn } from './support.ts'

type Delta = Extract<ResponseEvent, { readonly delta: string }>

let seq = 0
const text = (delta: string): ResponseEvent => ({ type: 'text-delta', delta, length: ++seq, seq })
/** One delta of text for each letter. */
const texts = (letters: string): ResponseEvent[] => letters.split('').map(text)
const reasoning = (delta: string): ResponseEvent => ({ type: 'reasoning-delta', delta, seq: ++seq })
const input = (toolCallId: string, delta: string): ResponseEvent => ({
  type: 'tool-input-delta',
  toolCallId,
  delta,
  seq: ++seq,
})
const field = (toolCallId: string, path: string, delta: string): ResponseEvent => ({
  type: 'field-delta',
  field: 'f',
  path,
  params: {},
  delta,
  length: ++seq,
  toolCallId,
  toolName: 't',
  seq,
})
const inputEnd = (toolCallId: string): ResponseEvent => ({ type: 'tool-input-end', toolCallId, seq: ++seq })

function queueOf({
  accepts = (_: ResponseEvent): _ is ResponseEvent => true,
  pull = () => undefined,
  leave = () => undefined,
}: {
  accepts?: (event: ResponseEvent) => event is ResponseEvent
  pull?: () => void
  leave?: () => void
} = {}): EventQueue<ResponseEvent> {
  return new EventQueue(accepts, pull, leave)
}

function pushBatch(queue: EventQueue<ResponseEvent>, events: readonly ResponseEvent[]): void {
  queue.startBatch()
  for (const event of events) queue.push(event)
  queue.endBatch()
}

const isDelta = (event: ResponseEvent): event is Delta => 'delta' in event

/** The texts that deltas belong to. */
function textOf(event: Delta): string {
  return JSON.stringify(
    event.type === 'field-delta'
      ? [event.toolCallId, event.path]
      : [event.type, 'toolCallId' in event ? event.toolCallId : ''],
  )
}

/** Of each text how much came before each other event, and at the end. */
function progressOf(events: readonly ResponseEvent[]): unknown[] {
  const texts: Record<string, string> = {}
  const progress: unknown[] = []
  for (const event of events) {
    if (isDelta(event)) texts[textOf(event)] = (texts[textOf(event)] ?? '') + event.delta
    else progress.push({ ...texts }, event)
  }
  return [...progress, texts]
}

/** What was said and thought, in order. */
const proseOf = (events: readonly ResponseEvent[]): string =>
  events
    .filter(({ type }) => type === 'text-delta' || type === 'reasoning-delta')
    .flatMap((event) => (event as Delta).delta.split('').map((letter) => `${event.type} ${letter}`))
    .join()

describe('what waits', () => {
  const anyEvent = fc.oneof(
    { weight: 2, arbitrary: fc.constant(text) },
    { weight: 2, arbitrary: fc.constant(reasoning) },
    { weight: 3, arbitrary: fc.constantFrom('1', '2').map((id) => (delta: string) => input(id, delta)) },
    {
      weight: 6,
      arbitrary: fc.tuple(fc.constantFrom('1', '2'), fc.constantFrom('a', 'b')).map(
        ([id, path]) =>
          (delta: string) =>
            field(id, path, delta),
      ),
    },
    { weight: 1, arbitrary: fc.constant((_: string) => inputEnd('1')) },
  )

  test('merges without losing, doubling or reordering anything, however the consumer dawdles', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.record({
            batch: fc.array(anyEvent, { maxLength: 12 }),
            // Events that do not come with a read, as those after a slow validator do.
            alone: fc.array(anyEvent, { maxLength: 2 }),
            reads: fc.nat(8),
            waits: fc.boolean(),
          }),
          { maxLength: 12 },
        ),
        async (steps) => {
          seq = 0
          const queue = queueOf()
          const sent: ResponseEvent[] = []
          const received: Promise<IteratorResult<ResponseEvent, undefined>>[] = []
          const make = (maker: (delta: string) => ResponseEvent): ResponseEvent => {
            const event = maker(String.fromCharCode(97 + (sent.length % 26)))
            sent.push(event)
            return event
          }
          for (const { batch, alone, reads, waits } of steps) {
            pushBatch(queue, batch.map(make))
            for (let i = 0; i < reads; i++) received.push(queue.next())
            if (waits) await turn()
            for (const maker of alone) queue.push(make(maker))
          }
          queue.finish()
          const results = await Promise.all(received)
          const events = [
            ...results.flatMap(({ value }) => (value === undefined ? [] : [value])),
            ...(await collect(queue)),
          ]

          expect(progressOf(events)).toEqual(progressOf(sent))
          expect(proseOf(events)).toEqual(proseOf(sent))
          for (let i = 1; i < events.length; i++) expect(events[i]!.seq).toBeGreaterThan(events[i - 1]!.seq)
          const ends = new Map<number, string>()
          for (const event of sent) if (isDelta(event)) ends.set(event.seq, textOf(event))
          for (const event of events) {
            if (!isDelta(event)) continue
            // Number and length are those of the newest delta in it.
            expect(ends.get(event.seq)).toBe(textOf(event))
            if (event.type === 'field-delta') expect(event.length).toBe(event.seq)
          }
        },
      ),
      { numRuns: 300 },
    )
  })

  test('is as many events as there are texts, however many deltas come', async () => {
    const queue = queueOf()
    for (let i = 0; i < 1000; i++) {
      pushBatch(queue, [
        input('1', 'x'),
        input('2', 'y'),
        field('1', 'a', 'z'),
        field('1', 'b', 'z'),
        field('2', 'a', 'z'),
      ])
      pushBatch(queue, [text('t')])
      if (i % 100 === 0) await turn()
    }
    queue.finish()
    const events = await collect(queue)
    expect(events.length).toBeLessThan(12)
    expect(events.filter(isDelta).reduce((sum, { delta }) => sum + delta.length, 0)).toBe(6000)
  })

  test('is as many events as text and thinking take turns', async () => {
    const queue = queueOf()
    pushBatch(queue, [text('waiting')])
    for (let turns = 0; turns < 5; turns++)
      for (let i = 0; i < 100; i++) pushBatch(queue, [turns % 2 === 0 ? text('t') : reasoning('r')])
    queue.finish()
    expect((await collect(queue)).map(({ type }) => type.slice(0, 1)).join('')).toBe('ttrtrt')
  })

  test('stays as it is until the consumer lets a turn pass', async () => {
    const queue = queueOf()
    pushBatch(queue, texts('abcdef'))
    const taken = [await queue.next(), await queue.next()]
    expect(taken.map(({ value }) => (value as Delta).delta)).toEqual(['a', 'b'])
    await turn()
    expect((await queue.next()).value).toMatchObject({ delta: 'cdef' })
  })

  test('is not touched by a timer after it was taken', async () => {
    const queue = queueOf()
    pushBatch(queue, texts('ab'))
    await queue.next()
    await queue.next()
    await turn()
    pushBatch(queue, texts('cd'))
    queue.finish()
    expect((await collect(queue)).map((event) => (event as Delta).delta)).toEqual(['c', 'd'])
  })

  test('does not change the events of other consumers', async () => {
    const [slow, fast] = [queueOf(), queueOf()]
    const events = texts('abc')
    for (const queue of [slow, fast]) pushBatch(queue, [text('-')])
    for (const event of events) for (const queue of [slow, fast]) pushBatch(queue, [event])
    expect(events.map((event) => (event as Delta).delta)).toEqual(['a', 'b', 'c'])
    slow.finish()
    expect((await collect(slow)).map((event) => (event as Delta).delta)).toEqual(['-', 'abc'])
  })
})

describe('a consumer', () => {
  test('that waits gets events in the order it asked, and what it asked for first', async () => {
    const pull = vi.fn()
    const queue = queueOf({ pull })
    const asked = [queue.next(), queue.next()]
    expect(queue.isWaiting).toBe(true)
    expect(pull).toHaveBeenCalledTimes(2)
    pushBatch(queue, texts('abc'))
    expect(queue.isWaiting).toBe(false)
    expect((await Promise.all(asked)).map(({ value }) => (value as Delta).delta)).toEqual(['a', 'b'])
    expect((await queue.next()).value).toMatchObject({ delta: 'c' })
    expect(pull).toHaveBeenCalledTimes(2)
  })

  test('gets only what it accepts, and goes on waiting past the rest', async () => {
    const queue = queueOf({ accepts: (event): event is ResponseEvent => event.type === 'tool-input-end' })
    const asked = queue.next()
    pushBatch(queue, [text('a'), reasoning('b')])
    expect(queue.isWaiting).toBe(true)
    pushBatch(queue, [inputEnd('1')])
    expect((await asked).value).toMatchObject({ type: 'tool-input-end' })
  })

  test('gets what waits before the error, and the error once', async () => {
    const queue = queueOf()
    const error = new Error('cut')
    pushBatch(queue, [text('a')])
    queue.finish(error)
    queue.finish()
    queue.push(text('too late'))
    expect(await collectUntilError(queue)).toMatchObject({ items: [{ delta: 'a' }], error })
    expect(await queue.next()).toEqual({ value: undefined, done: true })
  })

  test('that asked more than once gets the error once, and the end then', async () => {
    const queue = queueOf()
    const error = new Error('cut')
    const asked = [queue.next(), queue.next(), queue.next()]
    queue.finish(error)
    expect(await rejectionOf(asked[0]!)).toBe(error)
    for (const next of [...asked.slice(1), queue.next()]) expect(await next).toEqual({ value: undefined, done: true })
  })

  test('of a closed queue gets nothing of what waited', async () => {
    const queue = queueOf()
    const error = new Error('aborted')
    pushBatch(queue, texts('abc'))
    pushBatch(queue, texts('def'))
    queue.close(error)
    await turn()
    expect(await collectUntilError(queue)).toEqual({ items: [], error })
  })

  test('that leaves ends its own waiting, and is not asked again', async () => {
    const leave = vi.fn()
    const queue = queueOf({ leave })
    const asked = queue.next()
    expect(await queue.return()).toEqual({ value: undefined, done: true })
    expect(await asked).toEqual({ value: undefined, done: true })
    expect(leave).toHaveBeenCalledOnce()
    pushBatch(queue, [text('a')])
    queue.finish(new Error('cut'))
    expect(await queue.next()).toEqual({ value: undefined, done: true })
  })
})
