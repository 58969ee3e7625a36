import {
  type BatchOptions,
  type FieldDeltaEvent,
  LLMError,
  outputFormat,
  type ResponseEvent,
  retry,
  StreamError,
  StreamingLLMClient,
  tool,
} from 'fieldstream'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import { DeltaBatcher, type TextOrFieldDelta } from '../src/delta-batcher.ts'
import {
  call,
  collect,
  collectUntilError,
  finish,
  input,
  inputEnd,
  inputStart,
  pieces,
  reasoning,
  rejectionOf,
  scriptedProvider,
  start,
  streamOf,
  text,
  thrownBy,
  turn,
} from './support.ts'

/** The deltas that come of these. */
function joined(options: BatchOptions, deltas: readonly string[], { flush = true } = {}): string[] {
  const events: TextOrFieldDelta[] = []
  const batcher = new DeltaBatcher(options, (event) => events.push(event))
  let length = 0
  for (const delta of deltas) batcher.push({ type: 'text-delta', delta, length: (length += delta.length) })
  if (flush) batcher.flush()
  batcher.end()
  return events.map(({ delta }) => delta)
}

const letters = (value: string): string[] => value.split('')

describe('what ends a wait', () => {
  test('so many characters', () => {
    expect(joined({ chars: 5 }, ['ab', 'cd', 'efgh', 'i'])).toEqual(['abcdefgh', 'i'])
  })

  test('so many deltas', () => {
    expect(joined({ deltas: 5 }, letters('abcdefghijkl'))).toEqual(['abcde', 'fghij', 'kl'])
  })

  test.each<[string, string, string[]]>([
    ['words', 'It is late, go home.', ['It ', 'is ', 'late, ', 'go ', 'home.']],
    ['contractions and numbers', "Don't pay 3.14 or 1,000 now", ["Don't ", 'pay ', '3.14 ', 'or ', '1,000 ', 'now']],
    ['Hindi', 'नमस्ते दुनिया कैसे', ['नमस्ते ', 'दुनिया ', 'कैसे']],
    ['emoji', 'Hi 👨‍👩‍👧 you 👍🏽 there', ['Hi 👨‍👩‍👧 ', 'you 👍🏽 ', 'there']],
    ['Chinese', '你好，世界', ['你好，', '世界']],
    ['no words', '...!', ['...!']],
  ])('a word: %s', (_, value, expected) => {
    expect(joined({ at: 'word' }, letters(value))).toEqual(expected)
    expect(joined({ at: 'word' }, [value])).toHaveLength(Math.min(expected.length, 2))
  })

  test('a word in a script without spaces', () => {
    const words = joined({ at: 'word' }, letters('今天的天气很好我们去公园散步'))
    expect(words.length).toBeGreaterThan(4)
  })

  test.each<[string, string, string[]]>([
    ['English', 'It is late. Go home! Now? Yes', ['It is late. ', 'Go home! ', 'Now? ', 'Yes']],
    ['numbers', 'Pay 3.14 now. 20 of them left. Go', ['Pay 3.14 now. 20 of them left. ', 'Go']],
    ['quotes', '“Stop!” He left. “Why?”', ['“Stop!” ', 'He left. ', '“Why?”']],
    ['Chinese', '你好。今天很好！“走吗？”走。好', ['你好。', '今天很好！“', '走吗？”', '走。', '好']],
    ['Hindi', 'यह अच्छा है। मैं जाता हूँ। ठीक', ['यह अच्छा है। ', 'मैं जाता हूँ। ', 'ठीक']],
    ['lines', 'One\nTwo\n\nThree', ['One\n', 'Two\n', '\n', 'Three']],
  ])('a sentence: %s', (_, value, expected) => {
    expect(joined({ at: 'sentence' }, letters(value))).toEqual(expected)
  })

  test('delivers a sentence as soon as the next one begins', () => {
    expect(joined({ at: 'sentence' }, ['Hello.', ' '], { flush: false })).toEqual([])
    expect(joined({ at: 'sentence' }, ['Hello.', ' ', 'W'], { flush: false })).toEqual(['Hello. '])
    expect(joined({ at: 'sentence' }, ['你好。', '再'], { flush: false })).toEqual(['你好。'])
  })

  test('a skin tone stays with what it colours', () => {
    expect(joined({ at: 'sentence' }, ['a', '?🏽', 'a'])).toEqual(['a?🏽a'])
  })

  test('whichever comes first', () => {
    expect(joined({ at: 'sentence', chars: 10 }, ['Hi. ', 'Th', 'is is long', ' a'])).toEqual([
      'Hi. ',
      'This is long',
      ' a',
    ])
    expect(joined({ at: 'sentence', deltas: 3 }, ['A. ', 'B', 'c', 'd', 'e'])).toEqual(['A. ', 'Bcd', 'e'])
  })

  describe('so much time', () => {
    beforeEach(() => {
      vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
    })
    afterEach(() => {
      const timers = vi.getTimerCount()
      vi.useRealTimers()
      expect(timers).toBe(0)
    })

    test('since the first character that waits, for each text by itself', () => {
      const seen: [number, string][] = []
      const from = performance.now()
      const batcher = new DeltaBatcher({ maxWait: 100, at: 'sentence' }, ({ delta }) =>
        seen.push([performance.now() - from, delta]),
      )
      let length = 0
      const push = (delta: string, path?: string): void => {
        if (!path) length += delta.length
        batcher.push(
          path
            ? { type: 'field-delta', field: 'f', path, params: {}, delta, length: 100, toolCallId: '1', toolName: 't' }
            : { type: 'text-delta', delta, length },
        )
      }
      push('Hello')
      vi.advanceTimersByTime(60)
      push('field', 'a')
      vi.advanceTimersByTime(20)
      push('. W')
      vi.advanceTimersByTime(300)
      push('Late')
      vi.advanceTimersByTime(99)
      expect(seen).toEqual([
        [80, 'Hello. '],
        [160, 'field'],
        [180, 'W'],
      ])
      batcher.end()
      vi.advanceTimersByTime(1000)
      expect(seen).toHaveLength(3)
    })
  })
})

/** Text of what is hard to cut: pairs, joiners, marks, ends of sentences, scripts without spaces. */
const characters = fc.constantFrom(
  ...[
    'a',
    'B',
    'z',
    '1',
    ' ',
    ' ',
    '\n',
    '\r',
    '.',
    '.',
    '!',
    '?',
    ',',
    "'",
    '"',
    '(',
    ')',
    '-',
    '。',
    '！',
    '？',
    '”',
    '।',
  ],
  ...[
    '你',
    '好',
    '字',
    'か',
    'カ',
    'न',
    'म',
    'स',
    '्',
    'ते',
    'א',
    'é',
    'e\u0301',
    '\u0301',
    '\u200d',
    '👍',
    '🏽',
    '👩',
    '🇩',
    '🇪',
    '\ufe0f',
    '𝐀',
  ],
  ...['\ud83d', '\udc4d'],
)
const texts = fc.array(characters, { maxLength: 80 }).map((all) => all.join(''))
/** A text, cut anywhere. */
const chunked = fc.tuple(texts, fc.infiniteStream(fc.integer({ min: 1, max: 6 }))).map(([value, sizes]) => {
  const chunks: string[] = []
  for (let from = 0; from < value.length;) {
    const size = sizes.next().value as number
    chunks.push(value.slice(from, from + size))
    from += size
  }
  return chunks
})
const options = fc
  .record({
    chars: fc.option(fc.integer({ min: 1, max: 30 }), { nil: undefined }),
    deltas: fc.option(fc.integer({ min: 1, max: 12 }), { nil: undefined }),
    at: fc.constantFrom('word' as const, 'sentence' as const, undefined),
  })
  .filter((given) => Object.values(given).some((option) => option !== undefined))

const placesOf = (all: readonly string[]): number[] => {
  let at = 0
  return all.map((piece) => (at += piece.length))
}

describe('for any text, cut anywhere', () => {
  test('nothing is lost, empty or out of place, and each length is right', () => {
    const word = fc.record({
      field: fc.constantFrom(undefined, 'a', 'b'),
      call: fc.constantFrom('1', '2'),
      delta: texts,
    })
    fc.assert(
      fc.property(options, fc.array(word, { maxLength: 40 }), fc.infiniteStream(fc.nat(9)), (given, words, dice) => {
        const nameOf = (event: TextOrFieldDelta): string =>
          event.type === 'text-delta' ? '' : JSON.stringify([event.toolCallId, event.path])
        const whole = new Map<string, string>()
        const seen = new Map<string, string>()
        const batcher = new DeltaBatcher(given, (event) => {
          const before = seen.get(nameOf(event)) ?? ''
          expect(event.delta).not.toBe('')
          expect(event.length - event.delta.length).toBe(before.length)
          seen.set(nameOf(event), before + event.delta)
        })
        for (const { field, call: toolCallId, delta } of words) {
          if (delta === '') continue
          const event = (length: number): TextOrFieldDelta =>
            field === undefined
              ? { type: 'text-delta', delta, length }
              : { type: 'field-delta', field: 'f', path: field, params: {}, delta, length, toolCallId, toolName: 't' }
          const before = whole.get(nameOf(event(0))) ?? ''
          whole.set(nameOf(event(0)), before + delta)
          batcher.push(event(before.length + delta.length))
          if (dice.next().value === 0) {
            batcher.flush()
            expect(seen).toEqual(whole)
          }
        }
        batcher.flush()
        expect(seen).toEqual(whole)
      }),
    )
  })

  test('no pair or grapheme is cut that was not', () => {
    const graphemes = new Intl.Segmenter('en', { granularity: 'grapheme' })
    fc.assert(
      fc.property(options, chunked, (given, chunks) => {
        const value = chunks.join('')
        const allowed = new Set([
          ...placesOf(chunks),
          ...[...graphemes.segment(value)].map(({ index }) => index),
          value.length,
        ])
        for (const place of placesOf(joined(given, chunks)))
          expect(allowed.has(place), JSON.stringify(chunks)).toBe(true)
      }),
      { numRuns: 1000 },
    )
  })

  test('sentences end where they end in the whole text', () => {
    fc.assert(
      fc.property(chunked, (chunks) => {
        const value = chunks.join('')
        const ends = [...new Intl.Segmenter('en', { granularity: 'sentence' }).segment(value)].map(({ index }) => index)
        for (const place of placesOf(joined({ at: 'sentence' }, chunks)).slice(0, -1)) expect(ends).toContain(place)
      }),
      { numRuns: 1000 },
    )
  })

  test('words end where they end in the whole text, in scripts that show it', () => {
    fc.assert(
      fc.property(chunked, (chunks) => {
        const plain = chunks.map((chunk) => chunk.replace(/[你好字かカ]/gu, 'x')).filter((chunk) => chunk !== '')
        const value = plain.join('')
        const ends = [...new Intl.Segmenter('en', { granularity: 'word' }).segment(value)].map(({ index }) => index)
        for (const place of placesOf(joined({ at: 'word' }, plain)).slice(0, -1)) expect(ends).toContain(place)
      }),
      { numRuns: 1000 },
    )
  })
})

test.each<[BatchOptions, string]>([
  [{ at: 'word' }, 'x'],
  [{ at: 'sentence' }, 'x'],
  [{ at: 'sentence' }, '1. '],
  [{ at: 'word' }, '!'],
  [{ at: 'word' }, '好'],
  [{ chars: 1e9, maxWait: 1e6 }, 'x'],
])('costs no more per character in a long text: %j of "%s"', (given, unit) => {
  const time = (count: number): number => {
    const deltas = pieces(unit.repeat(count), 4)
    const from = performance.now()
    joined(given, deltas)
    return performance.now() - from
  }
  time(20_000)
  const small = Math.min(time(20_000), time(20_000))
  expect(time(320_000)).toBeLessThan(Math.max(small, 5) * 16 * 4)
})

describe('in a stream', () => {
  const answer = tool({
    name: 'answer',
    description: 'Answers',
    input: {
      type: 'object',
      properties: { a: { type: 'string' }, b: { type: 'string' }, n: { type: 'number' } },
    },
  })
  const fields = { a: 'a', b: 'b', n: 'n' }
  const deltasOf = (events: readonly ResponseEvent[], type: 'text-delta' | 'field-delta'): string[] =>
    events.flatMap((event) => (event.type === type ? [event.delta] : []))
  const words = 'Hello there. How are you? Fine.'.split(/(?<= )/).map(text)

  test('the text comes in fewer deltas, and the response is the same', async () => {
    const stream = streamOf([[start], ...words.map((word) => [word]), [finish('stop')]], { batch: { at: 'sentence' } })
    const events = await collect(stream)
    expect(deltasOf(events, 'text-delta')).toEqual(['Hello there. ', 'How are you? ', 'Fine.'])
    expect((await stream.final()).text).toBe('Hello there. How are you? Fine.')
    expect(events.map(({ seq }) => seq)).toEqual(events.map((_, i) => i + 1))
  })

  test('the fields come in fewer deltas, each before its `field-end`', async () => {
    const json = '{"a":"One two three. Four","n":5,"b":"Six"}'
    const script = [
      [start, inputStart('1')],
      ...pieces(json, 1).map((delta) => [input('1', delta)]),
      [inputEnd('1'), finish()],
    ]
    const events = await collect(streamOf(script, { tools: [answer], fields, batch: { at: 'sentence' } }))
    const told = events.flatMap((event) => {
      if (event.type === 'field-delta') return [`${event.field} ${event.delta}`]
      return event.type === 'field-end' ? [`${event.field} =`] : []
    })
    expect(told).toEqual(['a One two three. ', 'a Four', 'a =', 'n =', 'b Six', 'b ='])
  })

  test('nothing that waits is overtaken by an event of another kind', async () => {
    const script = [
      [start, text('Let me'), reasoning('Hm'), text(' see'), ...call('1', '{"a":"x"}'), text('So'), finish()],
    ]
    const events = await collect(streamOf(script, { tools: [answer], fields, batch: { chars: 100 } }))
    expect(events.map((event) => ('delta' in event ? `${event.type} ${event.delta}` : event.type))).toEqual([
      'start',
      'text-delta Let me',
      'reasoning-delta Hm',
      'text-delta  see',
      'tool-input-start',
      'tool-input-delta {"a":"x"}',
      'field-delta x',
      'field-end',
      'tool-input-end',
      'text-delta So',
      'tool-call',
      'finish',
    ])
  })

  test('the client says it for all requests, and a request otherwise', async () => {
    const script = [[start, text('a'), text('b'), text('c'), finish('stop')]]
    const given = { batch: { deltas: 2 } }
    expect(deltasOf(await collect(streamOf(script, {}, given)), 'text-delta')).toEqual(['ab', 'c'])
    expect(deltasOf(await collect(streamOf(script, { batch: { deltas: 3 } }, given)), 'text-delta')).toEqual(['abc'])
    expect(deltasOf(await collect(streamOf(script, { batch: false }, given)), 'text-delta')).toEqual(['a', 'b', 'c'])
  })

  test('views and listeners get the same', async () => {
    const script = [[start, text('a'), text('b'), text('c'), finish('stop')]]
    const stream = streamOf(script, { batch: { deltas: 2 } })
    const heard: string[] = []
    stream.on('text-delta', ({ delta }) => heard.push(delta))
    expect(await collect(stream.textStream)).toEqual(['ab', 'c'])
    expect(heard).toEqual(['ab', 'c'])
  })

  test('what waits is heard of before the error', async () => {
    const script = async function* () {
      yield [start, text('Hello')]
      await Promise.reject(new StreamError('stream_truncated', 'Cut.'))
    }
    const { items, error } = await collectUntilError(streamOf(script, { batch: { chars: 100 } }))
    expect(deltasOf(items, 'text-delta')).toEqual(['Hello'])
    expect(error).toMatchObject({ code: 'stream_truncated' })
    const stream = streamOf(script, { batch: { chars: 100 } })
    stream.on('text-delta', () => stream.abort('enough'))
    expect(await rejectionOf(stream.final())).toMatchObject({ code: 'aborted' })
  })

  test('and not after an abort', async () => {
    const stream = streamOf(
      async function* () {
        yield [start, text('Hello')]
        await new Promise(() => undefined)
      },
      { batch: { chars: 100, maxWait: 5 } },
    )
    const heard: string[] = []
    stream.on('text-delta', ({ delta }) => heard.push(delta))
    const error = rejectionOf(stream.final())
    await turn()
    expect(stream.snapshot().text).toBe('Hello')
    stream.abort()
    expect(await error).toBeInstanceOf(LLMError)
    await new Promise((resolve) => setTimeout(resolve, 20))
    expect(heard).toEqual([])
  })

  test('what waits long enough comes, though nothing else does', async () => {
    const stream = streamOf(
      async function* () {
        yield [start, text('Hel'), text('lo')]
        await new Promise(() => undefined)
      },
      { batch: { chars: 100, maxWait: 10 } },
    )
    for await (const event of stream) {
      if (event.type !== 'text-delta') continue
      expect(event).toMatchObject({ delta: 'Hello', length: 5 })
      break
    }
  })

  test('an attempt that begins anew shows what it does not repeat', async () => {
    let attempt = 0
    const provider = scriptedProvider(async function* () {
      if (++attempt === 1) {
        yield [start, text('Hello '), text('the')]
        await Promise.reject(new StreamError('stream_truncated', 'Cut.', { retryable: true }))
      }
      yield [start, text('Hello '), text('there '), text('you'), finish('stop')]
    })
    const client = new StreamingLLMClient({ provider, middleware: [retry({ baseDelay: 0 })], batch: { deltas: 2 } })
    const events = await collect(
      client.stream({ messages: [{ role: 'user', content: 'Hello' }], onInterrupted: 'restart' }),
    )
    let shown = ''
    for (const event of events)
      if (event.type === 'text-delta') shown = shown.slice(0, event.length - event.delta.length) + event.delta
    expect(shown).toBe('Hello there you')
    expect(events.map((event) => ('delta' in event ? event.delta : event.type))).toEqual([
      'start',
      'Hello the',
      'restart',
      'start',
      're ',
      'you',
      'finish',
    ])
  })

  test('a listener that stops the run at a delta leaves no timer behind', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    onTestFinished(() => void vi.useRealTimers())
    const output = { properties: { a: { type: 'string' } } }
    const slow = outputFormat({ schema: output, validate: () => turn().then(() => ({ value: {} })) })
    const provider = scriptedProvider([[start, text('{"a":"xy'), text('"}')], [finish('stop')]])
    const requests = [{ batch: { maxWait: 60_000 } }, { batch: { chars: 8, maxWait: 60_000 }, fields: { a: 'a' } }]
    for (const request of requests) {
      const stream = streamOf(provider, { output: slow, ...request })
      stream.on('text-delta', () => stream.abort())
      expect(await rejectionOf(stream.final())).toMatchObject({ code: 'aborted' })
      expect(vi.getTimerCount()).toBe(0)
    }
  })

  test('for any answer and chunking, the joined deltas and all other events are those of an unbatched stream', async () => {
    const value = fc.stringMatching(/^[a-z .!?。你好👍\n"]{0,60}$/u)
    const payload = fc.record({ a: value, b: value, n: fc.nat() }, { requiredKeys: [] })
    await fc.assert(
      fc.asyncProperty(payload, value, fc.integer({ min: 1, max: 9 }), options, async (members, prose, size, batch) => {
        const json = JSON.stringify(members)
        const script = [
          [start],
          ...pieces(prose, size).map((delta) => [text(delta)]),
          [inputStart('1')],
          ...pieces(json, size).map((delta) => [input('1', delta)]),
          [inputEnd('1'), finish()],
        ]
        const summary = async (given: BatchOptions | false) => {
          const events = await collect(streamOf(script, { tools: [answer], fields, batch: given }))
          const sums: Record<string, string> = {}
          const lengths: Record<string, number> = {}
          const others: unknown[] = []
          for (const event of events) {
            if (event.type === 'text-delta' || event.type === 'field-delta') {
              const name = event.type === 'text-delta' ? '' : (event as FieldDeltaEvent).path
              sums[name] = (sums[name] ?? '') + event.delta
              lengths[name] = event.length
              expect(event.length).toBe(sums[name].length)
            } else if (event.type === 'field-end') others.push(event.type, event.value, sums[event.path] ?? '')
            else if (event.type !== 'tool-input-delta') others.push(event.type)
          }
          return { sums, lengths, others }
        }
        expect(await summary(batch)).toEqual(await summary(false))
      }),
    )
  })

  test.each<[string, unknown]>([
    ['no object', 5],
    ['nothing', {}],
    ['an unknown member', { tokens: 5 }],
    ['no whole number', { chars: 1.5 }],
    ['zero', { deltas: 0 }],
    ['another unit', { at: 'line' }],
    ['a wait that no timer keeps', { maxWait: 1e12 }],
  ])('%s is an error at once', (_, batch) => {
    const expected = {
      name: 'UsageError',
      code: 'invalid_argument',
      message: expect.stringContaining('`batch`') as unknown,
    }
    expect(thrownBy(() => streamOf([], { batch } as never))).toMatchObject(expected)
    expect(thrownBy(() => streamOf([], {}, { batch } as never))).toMatchObject(expected)
  })
})
