import Anthropic from '@anthropic-ai/sdk'
import {
  askMessages,
  FieldExtractorRegistry,
  type FieldEvent,
  LimitError,
  OutputError,
  type StreamEvent,
  StreamError,
  summaryParts,
  ToolStreamAccumulator,
} from 'fieldstream'
import { toStreamEvents } from 'fieldstream/anthropic'
import { replayFetch, simulate } from 'fieldstream/testing'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { call, finish, input, inputEnd, inputStart, pieces, reasoning, start, text, thrownBy } from './support.ts'

const fields = () =>
  new FieldExtractorRegistry([
    { field: 'title', path: 'title' },
    { field: 'item', path: 'items[{n}]' },
    { field: 'all', path: 'items' },
  ])

/** Pushes all, and returns the field events of all. */
function pushAll(accumulator: ToolStreamAccumulator, events: readonly StreamEvent[]): FieldEvent[] {
  return events.flatMap((event) => accumulator.push(event))
}

const anyPayload = fc.record(
  {
    title: fc.string({ unit: 'binary' }),
    items: fc.array(fc.string({ unit: 'binary' }), { maxLength: 3 }),
    // See the keys of json-corpus.ts: `JSON.parse` may read keys wrongly once it has met a backslash in one.
    other: fc.jsonValue().filter((value) => !JSON.stringify(value).includes('\\\\')),
  },
  { requiredKeys: [] },
)

describe('an accumulator', () => {
  test('follows interleaved calls as if each were alone', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(anyPayload, fc.integer({ min: 1, max: 9 })), { minLength: 1, maxLength: 4 }),
        fc.infiniteStream(fc.nat()),
        (payloads, choices) => {
          const texts = payloads.map(([payload]) => JSON.stringify(payload))
          const alone = payloads.map(([, size], i) => [
            inputStart(`id ${i}`, `tool ${i}`),
            ...pieces(texts[i]!, size).map((piece) => input(`id ${i}`, piece)),
            inputEnd(`id ${i}`),
          ])
          const rest = alone.map((events) => [...events])
          const mixed: StreamEvent[] = []
          while (rest.some((events) => events.length > 0)) {
            const open = rest.filter((events) => events.length > 0)
            mixed.push(open[choices.next().value! % open.length]!.shift()!)
          }

          const accumulator = new ToolStreamAccumulator({ fields: fields() })
          const events = pushAll(accumulator, [start, ...mixed, finish()])
          for (const [i, own] of alone.entries()) {
            const expected = pushAll(new ToolStreamAccumulator({ fields: fields() }), own)
            expect(events.filter(({ toolCallId }) => toolCallId === `id ${i}`)).toEqual(expected)
            expect(expected.every(({ toolName }) => toolName === `tool ${i}`)).toBe(true)
          }
          expect(accumulator.error).toBeUndefined()
          expect(accumulator.isComplete).toBe(true)
          // In the order in which they began.
          const begun = mixed.flatMap((event) => (event.type === 'tool-input-start' ? [event.toolCallId] : []))
          expect(accumulator.toolCalls).toEqual(
            begun.map((toolCallId) => {
              const i = Number(toolCallId.slice(3))
              const inputText = texts[i]!
              return { toolCallId, toolName: `tool ${i}`, inputText, input: JSON.parse(inputText) as unknown }
            }),
          )
        },
      ),
      { numRuns: 200 },
    )
  })

  test('works over a stream of the SDK, without the client', async () => {
    const payload = { ask_slots: [{ message: 'Sweet or salty?' }], summary_message_part_1: 'Chips' }
    const sdk = new Anthropic({
      apiKey: 'none',
      fetch: replayFetch(simulate(payload, { tool: 'classify', deltaChars: 3 })),
    })
    const accumulator = new ToolStreamAccumulator({ fields: new FieldExtractorRegistry([askMessages, summaryParts]) })
    const shown: Record<string, string> = {}
    const stream = await sdk.messages.create({ model: 'any', max_tokens: 1, messages: [], stream: true })
    for await (const event of toStreamEvents(stream)) {
      for (const fieldEvent of accumulator.push(event)) {
        if (fieldEvent.type === 'field-delta')
          shown[fieldEvent.path] = (shown[fieldEvent.path] ?? '') + fieldEvent.delta
      }
    }
    expect(shown).toEqual({ 'ask_slots[0].message': 'Sweet or salty?', summary_message_part_1: 'Chips' })
    expect(accumulator.isComplete).toBe(true)
    expect(accumulator.toolCalls.map(({ input }) => input)).toEqual([payload])
  })

  test('holds the calls back until the evidence, all of them', () => {
    const accumulator = new ToolStreamAccumulator()
    for (const event of [start, text('Hi'), reasoning('Hm'), ...call('1', '{"a":1}'), ...call('2', '{}')]) {
      expect(accumulator.push(event)).toEqual([])
      expect(accumulator.isComplete).toBe(false)
      expect(accumulator.toolCalls).toEqual([])
    }
    accumulator.push(finish())
    expect(accumulator.isComplete).toBe(true)
    expect(accumulator.toolCalls.map(({ input }) => input)).toEqual([{ a: 1 }, {}])
  })

  test('is complete without calls too', () => {
    const accumulator = new ToolStreamAccumulator()
    pushAll(accumulator, [start, text('Hi'), finish('length')])
    expect(accumulator).toMatchObject({ isComplete: true, toolCalls: [], error: undefined })
  })

  test('stays complete, whatever follows the evidence', () => {
    const accumulator = new ToolStreamAccumulator({ fields: fields() })
    pushAll(accumulator, [...call('1', '{"a":1}'), finish()])
    const { toolCalls } = accumulator
    expect(
      pushAll(accumulator, [
        input('1', 'x'),
        inputStart('1'),
        inputEnd('9'),
        ...call('2', '{"title":"x"}'),
        finish('refusal'),
      ]),
    ).toEqual([])
    expect(accumulator).toMatchObject({ isComplete: true, error: undefined })
    expect(accumulator.toolCalls).toBe(toolCalls)
  })

  test('takes no text as no arguments, where the provider says it called', () => {
    const accumulator = new ToolStreamAccumulator()
    pushAll(accumulator, [...call('1', ''), finish()])
    expect(accumulator.toolCalls).toEqual([{ toolCallId: '1', toolName: 'answer', input: {}, inputText: '' }])
    expect(accumulator.snapshot().toolCalls[0]).toMatchObject({ inputText: '', input: undefined, complete: true })
  })

  test('reports the fields of each place with their text, numbers and captures', () => {
    const events = pushAll(new ToolStreamAccumulator({ fields: fields() }), [
      inputStart('1'),
      input('1', '{"items":["a'),
      input('1', 'b",7]}'),
    ])
    const at = { path: 'items[0]', params: { n: '0' }, toolCallId: '1', toolName: 'answer' }
    expect(events).toEqual([
      { type: 'field-delta', field: 'item', delta: 'a', length: 1, ...at },
      { type: 'field-delta', field: 'item', delta: 'b', length: 2, ...at },
      { type: 'field-end', field: 'item', value: 'ab', valid: undefined, ...at },
      { type: 'field-end', field: 'item', value: 7, valid: undefined, ...at, path: 'items[1]', params: { n: '1' } },
      { type: 'field-end', field: 'all', value: ['ab', 7], valid: undefined, ...at, path: 'items', params: {} },
    ])
  })

  test('says whether the schema of a field accepts its value', () => {
    const registry = new FieldExtractorRegistry([{ field: 'title', path: 'title', schema: z.string().max(3) }])
    const validOf = (json: string): unknown[] =>
      pushAll(new ToolStreamAccumulator({ fields: registry }), call('1', json)).flatMap((event) =>
        event.type === 'field-end' ? [event.valid] : [],
      )
    expect(validOf('{"title":"abc"}')).toEqual([true])
    expect(validOf('{"title":"abcd"}')).toEqual([false])
    expect(validOf('{"title":7}')).toEqual([false])
  })
})

describe('a fault', () => {
  /** What an accumulator makes of events the last of which is at fault. */
  function faultOf(events: readonly StreamEvent[], accumulator = new ToolStreamAccumulator({ fields: fields() })) {
    const found: FieldEvent[] = []
    for (const [i, event] of events.entries()) {
      expect(accumulator.error).toBeUndefined()
      found.push(...accumulator.push(event))
      if (i < events.length - 1) continue
      expect(accumulator.error).toBeDefined()
    }
    expect(accumulator).toMatchObject({ isComplete: false, toolCalls: [] })
    for (const next of [input('1', ' '), finish(), text('x')])
      expect(thrownBy(() => accumulator.push(next))).toBe(accumulator.error)
    expect(accumulator).toMatchObject({ isComplete: false, toolCalls: [] })
    return { error: accumulator.error!, found, accumulator }
  }

  test('does not lose what came before it in the same delta; every later push throws it', () => {
    const { error, found, accumulator } = faultOf([
      inputStart('1'),
      input('1', '{"items":["a","b'),
      input('1', 'c"],"title":"d\n"}'),
    ])
    expect(error).toBeInstanceOf(OutputError)
    expect(error).toMatchObject({ code: 'invalid_json', position: 30, toolName: 'answer', toolCallId: '1' })
    expect(error.message).toBe(
      'The arguments of tool "answer" are not valid JSON at character 30: a control character in a string must be escaped',
    )
    expect(found.map((event) => (event.type === 'field-delta' ? event.delta : event.value))).toEqual([
      'a',
      'a',
      'b',
      'c',
      'bc',
      ['a', 'bc'],
      'd',
    ])
    expect(accumulator.snapshot().toolCalls[0]).toMatchObject({
      input: { items: ['a', 'bc'], title: 'd' },
      complete: false,
    })
  })

  test.each([
    ['of arguments for an unknown call', [input('1', '{}')]],
    ['of arguments for a closed call', [...call('1', '{}'), input('1', ' ')]],
    ['of an end without a beginning', [inputEnd('1')]],
    ['of a second call with the same id', [inputStart('1'), inputStart('1')]],
    ['of a second call with the id of one that ended', [...call('1', '{}'), inputStart('1')]],
    ['of evidence while arguments are open', [inputStart('1'), input('1', '{}'), finish()]],
  ])("%s is the provider's, and may not happen again", (_, events) => {
    const { error } = faultOf(events)
    expect(error).toBeInstanceOf(StreamError)
    expect(error).toMatchObject({ code: 'stream_protocol', retryable: true, phase: 'stream' })
  })

  test.each(['__proto__', 'constructor', ''])('does not follow from the id %j', (id) => {
    const accumulator = new ToolStreamAccumulator()
    pushAll(accumulator, [...call(id, '{"a":1}'), finish()])
    expect(accumulator.toolCalls).toMatchObject([{ toolCallId: id, input: { a: 1 } }])
  })

  test.each([
    ['refusal', 'refused'],
    ['content-filter', 'content_filtered'],
  ] as const)('is any answer that ended by %s', (reason, code) => {
    expect(faultOf([...call('1', '{}'), finish(reason)]).error).toMatchObject({ code, retryable: false })
    expect(faultOf([text('I'), finish(reason)]).error).toMatchObject({ code })
  })

  test.each(['{"a":', '{"a":1}', ''])(
    'is an answer cut by its token limit, whether its arguments parse or not: %j',
    (json) => {
      for (const events of [call('1', json), call('1', json).slice(0, -1)]) {
        expect(faultOf([...events, finish('length')]).error).toMatchObject({
          code: 'output_truncated',
          toolName: 'answer',
          toolCallId: '1',
          position: json.length,
        })
      }
    },
  )

  test('is a call whose text is not all of a JSON object', () => {
    expect(faultOf([...call('1', '{"a":1'), finish()]).error).toMatchObject({ code: 'invalid_json', position: 6 })
    expect(faultOf([...call('1', ' '), finish()]).error).toMatchObject({ code: 'invalid_json' })
    expect(faultOf([...call('1', ''), finish('stop')]).error).toMatchObject({ code: 'invalid_json' })
    expect(faultOf([...call('1', '[]'), finish()]).error).toMatchObject({ code: 'schema_mismatch' })
  })

  test('in one call spoils the others', () => {
    faultOf([...call('1', '{}'), ...call('2', '{"a":'), ...call('3', '{}'), finish()])
  })

  test('is one call more than `maxToolCalls`', () => {
    const limits = { maxToolCalls: 2 }
    const events = [...call('1', '{}'), ...call('2', '{}')]
    const { error } = faultOf([...events, inputStart('3')], new ToolStreamAccumulator({ limits }))
    expect(error).toBeInstanceOf(LimitError)
    expect(error).toMatchObject({ code: 'limit_exceeded', limit: 'maxToolCalls', max: 2 })
    expect(error.message).toContain('Raise `maxToolCalls`')
    const accumulator = new ToolStreamAccumulator({ limits })
    pushAll(accumulator, [...events, finish()])
    expect(accumulator.toolCalls).toHaveLength(2)
  })

  test('is one call more than 256, unless that limit is raised', () => {
    const events = Array.from({ length: 256 }, (_, i) => call(String(i), '{}')).flat()
    faultOf([...events, inputStart('one more')])
    const accumulator = new ToolStreamAccumulator({ limits: { maxToolCalls: 1000 } })
    pushAll(accumulator, [...events, ...call('one more', '{}'), finish()])
    expect(accumulator.toolCalls).toHaveLength(257)
  })

  test('is an argument text over `maxInputLength` or nested over `maxDepth`', () => {
    const limited = () => new ToolStreamAccumulator({ limits: { maxInputLength: 8, maxDepth: 2 } })
    expect(faultOf([inputStart('1'), input('1', '{"a":'), input('1', '1234')], limited()).error).toMatchObject({
      limit: 'maxInputLength',
      max: 8,
    })
    expect(faultOf([inputStart('1'), input('1', '{"a":[[')], limited()).error).toMatchObject({
      limit: 'maxDepth',
      max: 2,
    })
    const accumulator = limited()
    pushAll(accumulator, [...call('1', '{"a":[]}'), finish()])
    expect(accumulator.isComplete).toBe(true)
  })

  test("of a field's own schema or map names the field, not the value", () => {
    for (const extractor of [
      {
        map: () => {
          throw new Error('oops')
        },
      },
      {
        schema: {
          '~standard': {
            version: 1 as const,
            vendor: 'own',
            validate: () => {
              throw new Error('oops')
            },
          },
        },
      },
      {
        schema: { '~standard': { version: 1 as const, vendor: 'own', validate: () => Promise.resolve({ value: 1 }) } },
      },
    ]) {
      const registry = new FieldExtractorRegistry([{ field: 'title', path: 'title', ...extractor }])
      const { error } = faultOf(
        [inputStart('1'), input('1', '{"title":"SECRET"}')],
        new ToolStreamAccumulator({ fields: registry }),
      )
      expect(error).toMatchObject({
        code: 'validator_error',
        phase: 'validate',
        toolCallId: '1',
        cause: expect.any(Error) as Error,
      })
      expect(error.message).toContain('field "title"')
      expect(error.message).not.toContain('SECRET')
    }
  })
})

describe('a snapshot', () => {
  test('shows each call as far as it is, in the order in which they began', () => {
    const accumulator = new ToolStreamAccumulator()
    expect(accumulator.snapshot()).toEqual({ toolCalls: [] })
    pushAll(accumulator, [
      inputStart('2', 'b'),
      inputStart('1', 'a'),
      input('1', '{"x":[1,2'),
      input('2', '{"y":"z"}'),
      inputEnd('2'),
    ])
    expect(accumulator.snapshot()).toEqual({
      toolCalls: [
        { toolCallId: '2', toolName: 'b', inputText: '{"y":"z"}', input: { y: 'z' }, complete: true },
        { toolCallId: '1', toolName: 'a', inputText: '{"x":[1,2', input: { x: [1] }, complete: false },
      ],
    })
  })

  test('is complete only where the call ended and its text is whole', () => {
    const completeAfter = (...events: StreamEvent[]): boolean => {
      const accumulator = new ToolStreamAccumulator()
      pushAll(accumulator, [inputStart('1'), ...events])
      return accumulator.snapshot().toolCalls[0]!.complete
    }
    expect(completeAfter(input('1', '{}'))).toBe(false)
    expect(completeAfter(input('1', '{'), inputEnd('1'))).toBe(false)
    expect(completeAfter(input('1', '{}'), inputEnd('1'))).toBe(true)
  })

  test('does not change what comes after it', () => {
    fc.assert(
      fc.property(anyPayload, fc.integer({ min: 1, max: 5 }), (payload, size) => {
        const deltas = pieces(JSON.stringify(payload), size).map((piece) => input('1', piece))
        const [watched, plain] = [
          new ToolStreamAccumulator({ fields: fields() }),
          new ToolStreamAccumulator({ fields: fields() }),
        ]
        for (const event of [inputStart('1'), ...deltas, inputEnd('1'), finish()]) {
          expect(watched.push(event)).toEqual(plain.push(event))
          watched.snapshot()
        }
        expect(watched.toolCalls).toEqual(plain.toolCalls)
        expect(watched.snapshot().toolCalls[0]!.input).toEqual(JSON.parse(JSON.stringify(payload)))
      }),
    )
  })
})
