import { isDeepStrictEqual } from 'node:util'
import fc from 'fast-check'
import { describe, expect, test, vi } from 'vitest'
import { LimitError, OutputError } from '../src/errors.ts'
import { ArgumentScanner } from '../src/tool-stream/argument-scanner.ts'
import { FieldExtractorRegistry } from '../src/tool-stream/field-extractor-registry.ts'
import { parseFieldPath } from '../src/tool-stream/field-path.ts'
import {
  canGoOn,
  cutAt,
  cuts,
  type Delivery,
  documents,
  exactPath,
  hardDocuments,
  type Outcome,
  parses,
  readAll,
  recordingScanner,
  seededRandom,
  testSuite,
  wildcardPaths,
  type WrittenDocument,
} from './json-corpus.ts'

const depth = 4
const everywhere = wildcardPaths(depth)

/** Every way to cut a text in two, and the text in single characters; of a very long text, some of them. */
function* splits(text: string): Generator<string[]> {
  const step = text.length > 1000 ? Math.ceil(text.length / 20) : 1
  for (let i = 0; i <= text.length; i += step) yield cutAt(text, [i])
  yield text.split('')
}

function stepsOf(path: string): (string | number)[] {
  return parseFieldPath(path).map((segment) => {
    if (segment.kind === 'key') return segment.key
    if (segment.kind === 'index') return segment.index
    throw new Error(`${path} is not the path of one place`)
  })
}

function valueAt(root: unknown, steps: readonly (string | number)[]): unknown {
  let value = root
  for (const step of steps) value = Object.getOwnPropertyDescriptor(value, step)!.value as unknown
  return value
}

/** Pieces of a string that nobody could make more of: none empty, no surrogate pair torn. */
function expectSoundDeltas({ deltas, value }: Delivery): void {
  deltas!.forEach((delta, i) => {
    expect(delta).not.toBe('')
    const next = deltas![i + 1] ?? ''
    expect(/[\ud800-\udbff]$/.test(delta) && /^[\udc00-\udfff]/.test(next)).toBe(false)
    if ((value as string).isWellFormed()) expect(delta.isWellFormed()).toBe(true)
  })
}

/** That what was handed out is what `JSON.parse` finds at the registered places, each once, in the order in which they close. */
function expectDeliveries(
  closed: readonly Delivery[],
  root: unknown,
  places: readonly { steps: readonly (string | number)[] }[],
): void {
  expect(closed.map(({ path }) => stepsOf(path))).toEqual(places.map(({ steps }) => steps))
  for (const [i, delivery] of closed.entries()) {
    const expected = valueAt(root, places[i]!.steps)
    // Tells 0 from -0 and an own `__proto__` from a prototype.
    expect(isDeepStrictEqual(delivery.value, expected), `${delivery.path} of ${JSON.stringify(root)}`).toBe(true)
    expect(delivery.deltas === undefined).toBe(typeof expected !== 'string')
    if (delivery.deltas) expectSoundDeltas(delivery)
  }
}

function rejection(outcome: Outcome): OutputError {
  const { error } = outcome as { error: unknown }
  expect(error).toBeInstanceOf(OutputError)
  return error as OutputError
}

const problems = [
  'expected a value',
  'expected a value or `]`',
  'expected a key in double quotes',
  'expected a key in double quotes or `}`',
  'expected `:`',
  'expected `,` or `]`',
  'expected `,` or `}`',
  'expected nothing after the value',
  'expected `true`',
  'expected `false`',
  'expected `null`',
  'expected a digit',
  'a number does not begin with 0',
  'a control character in a string must be escaped',
  'not a known escape',
  'expected four hexadecimal digits',
  'the text ends before the value does',
]

/** That a rejection says where, at the first character that no JSON could have there, and quotes nothing. */
function expectRejectionOf(text: string, outcome: Outcome, position = rejection(outcome).position): void {
  const error = rejection(outcome)
  expect(error.code).toBe('invalid_json')
  expect(error.position).toBe(position)
  const [, at, problem] = /^The text is not valid JSON at character (\d+): (.*)$/s.exec(error.message) ?? []
  expect(Number(at)).toBe(position)
  expect(problems).toContain(problem)
  expect((outcome as { byWrite: boolean }).byWrite).toBe(position! < text.length)
}

describe('what it returns', () => {
  test.each(hardDocuments)('end() gives what JSON.parse gives, however the text is cut: %j', (text) => {
    const root: unknown = JSON.parse(text)
    for (const chunks of splits(text)) {
      for (const paths of [[], everywhere]) {
        const { scanner } = recordingScanner(paths)
        const outcome = readAll(scanner, chunks)
        expect(isDeepStrictEqual(outcome, { value: root }), JSON.stringify(outcome)).toBe(true)
        expect(scanner.text).toBe(text)
        expect(scanner.isComplete).toBe(true)
      }
    }
  })

  test('end() gives what JSON.parse gives for any way of writing JSON, repeated keys included', () => {
    fc.assert(
      fc.property(documents(depth, { uniqueKeys: false }), cuts, ({ text }, places) => {
        const chunks = cutAt(
          text,
          places.map((place) => Math.round(place * text.length)),
        )
        const { scanner } = recordingScanner([])
        expect(isDeepStrictEqual(readAll(scanner, chunks), { value: JSON.parse(text) as unknown })).toBe(true)
      }),
      { numRuns: 1000 },
    )
  })

  test('it is complete once the value is, and not before', () => {
    for (const text of hardDocuments) {
      const { scanner } = recordingScanner([])
      for (let i = 0; i < text.length; i++) {
        // The prefix alone is JSON exactly where the scanner says so: also `12` of `123`.
        expect(scanner.isComplete).toBe(parses(text.slice(0, i)))
        scanner.write(text[i]!)
      }
      expect(scanner.isComplete).toBe(true)
    }
  })

  test('10,000 levels need no stack', () => {
    const levels = 10_000
    for (const [open, inner, close] of [
      ['[', '', ']'],
      ['{"a":', '"x"', '}'],
      ['[{"a":', 'null', '}]'],
    ] as const) {
      const text = open.repeat(levels) + inner + close.repeat(levels)
      for (const paths of [[], ['a', 'a.a.a', '[*]']]) {
        for (const chunks of [[text], text.match(/.{1,7}/gs)!, cutAt(text, [open.length * levels]), text.split('')]) {
          const { scanner } = recordingScanner(paths, { maxDepth: 2 * levels })
          expect(readAll(scanner, chunks)).toHaveProperty('value')
        }
      }
    }
  })
})

describe('what it hands out', () => {
  test.each(hardDocuments)(
    'every registered value arrives once, in the order they close, however the text is cut: %j',
    (text) => {
      const root: unknown = JSON.parse(text)
      const whole = recordingScanner(everywhere)
      readAll(whole.scanner, [text])
      // With the whole text in one piece a string is one delta at most.
      for (const { deltas } of whole.closed) expect(deltas?.length ?? 0).toBeLessThanOrEqual(1)
      for (const chunks of splits(text)) {
        const { scanner, closed } = recordingScanner(everywhere)
        readAll(scanner, chunks)
        expectDeliveries(
          closed,
          root,
          whole.closed.map(({ path }) => ({ steps: stepsOf(path) })),
        )
      }
    },
  )

  const cutDocument = fc.tuple(documents(depth, { uniqueKeys: true }), cuts).map(([document, places]) => ({
    document,
    chunks: cutAt(
      document.text,
      places.map((place) => Math.round(place * document.text.length)),
    ),
  }))

  test('with every path registered, every value of any document arrives once, in the order they close', () => {
    fc.assert(
      fc.property(cutDocument, ({ document, chunks }) => {
        const { scanner, closed } = recordingScanner(everywhere)
        expect(readAll(scanner, chunks)).toHaveProperty('value')
        expectDeliveries(
          closed,
          JSON.parse(document.text),
          document.places.filter(({ steps }) => steps.length > 0),
        )
      }),
      { numRuns: 1000 },
    )
  })

  test('with some places registered, exactly those arrive', () => {
    const withSome = cutDocument.chain((cut) => {
      const places = cut.document.places.filter(({ steps }) => steps.length > 0)
      return fc.tuple(fc.constant(cut), fc.subarray(places))
    })
    fc.assert(
      fc.property(withSome, ([{ document, chunks }, places]) => {
        const { scanner, closed } = recordingScanner(places.map(({ steps }) => exactPath(steps)))
        expect(readAll(scanner, chunks)).toHaveProperty('value')
        expectDeliveries(closed, JSON.parse(document.text), places)
      }),
      { numRuns: 1000 },
    )
  })

  /** Where a value is known to have ended: a number only at the character after it. */
  function knownEnd({ text }: WrittenDocument, place: { text: string; end: number }): number {
    return /^[-\d]/.test(place.text) ? Math.min(place.end + 1, text.length) : place.end
  }

  test('a value arrives with the character that closes it', () => {
    fc.assert(
      fc.property(documents(depth, { uniqueKeys: true }), (document) => {
        const { scanner, closed } = recordingScanner(everywhere)
        readAll(scanner, document.text.split(''))
        const places = document.places.filter(({ steps }) => steps.length > 0)
        expect(closed.map(({ closedAt }) => closedAt)).toEqual(places.map((place) => knownEnd(document, place)))
      }),
    )
  })

  test('a character arrives as soon as it is known, half a surrogate pair once nothing can complete it', () => {
    for (const content of [
      String.raw`a\"\\\/\b\f\n\r\tz`,
      String.raw`\u00e9\u4E0bx\ud83c\udf89y\ud83cz\udf89`,
      'é🎉\\ud83c\udf89\ud83c\\udf89\ud83c\ud83c\\n\udf89\ud83c\\u00e9',
    ]) {
      const { scanner, deliveries } = recordingScanner(['text'])
      scanner.write('{"text":"')
      for (let i = 1; i <= content.length; i++) {
        scanner.write(content[i - 1]!)
        let known = content.slice(0, i)
        while (!parses(`"${known}"`)) known = known.slice(0, -1)
        const expected = (JSON.parse(`"${known}"`) as string).replace(/[\ud800-\udbff]$/, '')
        expect(deliveries[0]?.deltas!.join('') ?? '').toBe(expected)
      }
    }
  })

  test('a piece that lies inside one string is handed on whole', () => {
    const { scanner, deliveries } = recordingScanner(['text'])
    for (const chunk of ['{"text":"', 'first ', 'second ', '', 'third', '"}']) scanner.write(chunk)
    expect(deliveries).toEqual([expect.objectContaining({ path: 'text', deltas: ['first ', 'second ', 'third'] })])
  })

  test('what lies before a fault arrives, and nothing after it', () => {
    const { scanner, deliveries } = recordingScanner(['a', 'b', 'c'])
    expect(() => scanner.write('{"a":1,"b":"good\\n\ud83c\u0007bad","c":2}')).toThrow(OutputError)
    expect(deliveries).toEqual([expect.objectContaining({ path: 'a', value: 1 }), { path: 'b', deltas: ['good\n'] }])
  })

  test('one value at several registered paths is one delivery', () => {
    const { scanner, closed } = recordingScanner(['a.b', 'a.*', 'a.{name}', '*.b', 'a'])
    readAll(scanner, ['{"a":{"b":"x"},"c":{"b":[1]}}'])
    expect(closed.map(({ path, value }) => [path, value])).toEqual([
      ['a.b', 'x'],
      ['a', { b: 'x' }],
      ['c.b', [1]],
    ])
  })

  test('keys of every length arrive where one path names a key and another takes any', () => {
    const { scanner, closed } = recordingScanner(['a.b', '*.{name}', 'a.a_key_of_more_than_thirty_one_characters'])
    readAll(scanner, ['{"a":{"b":1,"longer":2,"a_key_of_more_than_thirty_one_characters":3}}'])
    expect(closed.map(({ value }) => value)).toEqual([1, 2, 3])
  })

  test('paths into a value of another kind lead nowhere', () => {
    for (const text of [
      '{"a":"x"}',
      '{"a":[{"b":1}]}',
      '{"a":{"0":1}}',
      '{"a":null}',
      '[{"a":{"b":1}}]',
      '"a"',
      '{"A":{"b":1}}',
    ]) {
      const { scanner, closed } = recordingScanner(['a.b', 'a[0].c', 'a[1]'])
      readAll(scanner, [text])
      expect(closed).toEqual([])
    }
  })
})

describe('repeated keys', () => {
  // `!` marks the quote at which it is known.
  test.each([
    ['a', '{"a":1,"a!":2}'],
    ['a', '{"a":1,"\\u0061!":2}'],
    ['a.b', '{"a":{"b":1},"a!":{"c":2}}'],
    ['a.b', '{"a":null,"a!":{"b":1}}'],
    ['*', '{"x":1,"y":2,"x!":3}'],
    ['a[*].b', '{"a":[{"b":1},{"b":2,"c":3,"b!":4}]}'],
    ['*', `{${Array.from({ length: 12 }, (_, i) => `"k${i}":0,`).join('')}"k3!":0}`],
    ['*', `{${Array.from({ length: 12 }, (_, i) => `"k${i}":0,`).join('')}"k11!":0}`],
    ['__proto__', '{"__proto__":1,"__proto__!":2}'],
  ])('a repeated key on the way to %s is refused: %s', (path, marked) => {
    const text = marked.replace('!', '')
    const position = marked.indexOf('!')
    for (const chunks of splits(text)) {
      const error = rejection(readAll(recordingScanner([path]).scanner, chunks))
      expect(error).toMatchObject({ code: 'invalid_json', position })
      expect(error.message).toBe(
        `The text is ambiguous at character ${position}: a key on the way to a field is repeated`,
      )
    }
  })

  test.each([
    ['a', '{"b":1,"b":2,"a":"x","b":3}'],
    ['a.b', '{"a":{"c":1,"b":"x","c":2},"b":0,"b":1}'],
    ['a[*].b', '{"a":[{"b":"x"},{"b":"y"}]}'],
    ['a[0]', '{"a":[{"b":1,"b":2}]}'],
    ['a.b.c', '{"a":{"b":{"c":1}},"x":{"a":{"b":1},"a":{"b":2}}}'],
  ])('elsewhere the last one wins, with only %s registered: %s', (path, text) => {
    for (const chunks of splits(text))
      expect(readAll(recordingScanner([path]).scanner, chunks)).toEqual({ value: JSON.parse(text) as unknown })
  })
})

describe('strictness', () => {
  test('the groups of the test suite are what JSON.parse makes of them', () => {
    expect(testSuite.accepted.filter((text) => !parses(text))).toEqual([])
    expect(testSuite.rejected.filter((text) => parses(text))).toEqual([])
  })

  const cases = [...testSuite.accepted, ...testSuite.rejected, ...testSuite.either].map((text) => ({
    text,
    title: text.length > 100 ? `${text.slice(0, 40)}… of ${text.length} characters` : JSON.stringify(text),
  }))

  test.each(cases)('accepts and refuses as JSON.parse does, however the text is cut: $title', ({ text }) => {
    const limits = { maxDepth: 200_000 }
    const whole = readAll(recordingScanner([], limits).scanner, [text])
    const isValid = parses(text)
    for (const chunks of splits(text)) {
      const outcome = readAll(recordingScanner([], limits).scanner, chunks)
      if (isValid) expect(outcome).toEqual({ value: JSON.parse(text) as unknown })
      else expectRejectionOf(text, outcome, rejection(whole).position)
    }
    if (isValid) return
    const { position } = rejection(whole)
    if (position! < text.length) expect(canGoOn(text.slice(0, position! + 1))).toBe(false)
    expect(canGoOn(text.slice(0, position))).toBe(true)
    expect(recordingScanner([], limits).scanner.write(text.slice(0, position))).toBeUndefined()
  })

  test('accepts and refuses as JSON.parse does after 20,000 random changes to valid JSON', () => {
    const random = seededRandom(20_251_121)
    const sources = [...hardDocuments, ...testSuite.accepted].filter((text) => text.length < 200)
    const characters = '{}[]",:\\/ubnfrt0159-+.eE \t\n\r\u0000\u001f\u00a0\ufeff\ud83c\udf89\'aAlsx'
    const change = (text: string): string => {
      const i = random(text.length + 1)
      const j = i + random(4)
      const character = characters[random(characters.length)]!
      switch (random(6)) {
        case 0:
          return text.slice(0, i) + text.slice(j)
        case 1:
          return text.slice(0, i) + character + text.slice(i)
        case 2:
          return text.slice(0, i) + character + text.slice(i + 1)
        case 3:
          return text.slice(0, j) + text.slice(i)
        case 4:
          return text.slice(0, i) + text.charAt(i + 1) + text.charAt(i) + text.slice(i + 2)
        default: {
          const other = sources[random(sources.length)]!
          return text.slice(0, i) + other.slice(random(other.length))
        }
      }
    }
    let refused = 0
    for (let round = 0; round < 20_000; round++) {
      let text = sources[random(sources.length)]!
      for (let changes = random(3); changes >= 0; changes--) text = change(text)
      const chunks = cutAt(
        text,
        Array.from({ length: random(5) }, () => random(text.length + 1)),
      )
      const bare = readAll(recordingScanner([]).scanner, chunks)
      const isValid = parses(text)
      if ('value' in bare !== isValid) expect.fail(`${isValid ? 'refused' : 'accepted'} ${JSON.stringify(text)}`)
      if (!isValid) {
        refused++
        const position = rejection(bare).position!
        if (!canGoOn(text.slice(0, position))) expect.fail(`noticed only at ${position}: ${JSON.stringify(text)}`)
        if (position < text.length && canGoOn(text.slice(0, position + 1)))
          expect.fail(`refused at ${position}: ${JSON.stringify(text)}`)
        expectRejectionOf(text, bare)
      }
      // Registered paths change nothing, but for repeated keys.
      const observed = readAll(recordingScanner(everywhere).scanner, chunks)
      if ('error' in observed && rejection(observed).message.endsWith('is repeated')) continue
      if (!isDeepStrictEqual(observed, bare)) expect.fail(`differs with paths: ${JSON.stringify(text)}`)
    }
    // The changes break about as much as they leave whole, or the comparison would be idle.
    expect(refused).toBeGreaterThan(5000)
    expect(refused).toBeLessThan(19_000)
  })

  test('after a fault every further call throws the same error', () => {
    for (const [text, limits] of [
      ['{"a":x', {}],
      ['[[[', { maxDepth: 2 }],
      ['[1,2]', { maxInputLength: 4 }],
    ] as const) {
      const { scanner } = recordingScanner([], limits)
      const { error } = readAll(scanner, [text]) as { error: unknown }
      for (const chunk of ['', ' ', '1}', ']']) expect(() => scanner.write(chunk)).toThrow(error)
      expect(readAll(scanner, [])).toMatchObject({ error })
      expect(scanner.isComplete).toBe(false)
    }
  })

  test('after a text that ended too soon nothing more is read', () => {
    const { scanner } = recordingScanner(['a'])
    const { error } = readAll(scanner, ['{"a":"x']) as { error: unknown }
    expect(error).toMatchObject({ code: 'invalid_json', position: 7, phase: 'stream' })
    expect(() => scanner.write('"}')).toThrow(error)
  })
})

describe('limits', () => {
  test.each(['[', '{"a":', '[{"a":[1,'])('maxDepth holds at the level, and not one deeper: %s', (opening) => {
    for (const paths of [[], everywhere]) {
      const levels = opening.match(/[[{]/g)!.length
      const limits = { maxDepth: 3 * levels }
      expect(readAll(recordingScanner(paths, limits).scanner, [opening.repeat(3)])).toMatchObject({
        error: { code: 'invalid_json' },
      })
      for (const chunks of splits(`${opening.repeat(3)}[`)) {
        const { error } = readAll(recordingScanner(paths, limits).scanner, chunks) as { error: unknown }
        expect(error).toBeInstanceOf(LimitError)
        expect(error).toMatchObject({ code: 'limit_exceeded', limit: 'maxDepth', max: 3 * levels })
      }
    }
  })

  test('siblings do not add to the depth', () => {
    const text = `[${'[{}],'.repeat(50)}[]]`
    expect(readAll(recordingScanner([], { maxDepth: 3 }).scanner, [text])).toHaveProperty('value')
  })

  test('maxDepth is 256 unless set', () => {
    expect(readAll(recordingScanner([]).scanner, ['['.repeat(256) + ']'.repeat(256)])).toHaveProperty('value')
    expect(readAll(recordingScanner([]).scanner, ['['.repeat(257) + ']'.repeat(257)])).toMatchObject({
      error: { limit: 'maxDepth', max: 256 },
    })
  })

  test('maxInputLength holds at the length, and not one character longer', () => {
    const text = '{"a":"xyz"}'
    for (const chunks of splits(text)) {
      expect(readAll(recordingScanner(['a'], { maxInputLength: 11 }).scanner, chunks)).toHaveProperty('value')
      const { error } = readAll(recordingScanner(['a'], { maxInputLength: 10 }).scanner, chunks) as { error: unknown }
      expect(error).toBeInstanceOf(LimitError)
      expect(error).toMatchObject({ code: 'limit_exceeded', limit: 'maxInputLength', max: 10 })
    }
  })

  test('maxInputLength is 16,777,216 unless set', () => {
    const blank = ' '.repeat(16_777_215)
    expect(readAll(recordingScanner([]).scanner, [blank, '1'])).toEqual({ value: 1 })
    expect(readAll(recordingScanner([]).scanner, [blank, '12'])).toMatchObject({ error: { limit: 'maxInputLength' } })
  })
})

describe('closedText', () => {
  test.each([
    ['', undefined],
    ['  ', undefined],
    ['12', undefined],
    ['12 ', '12'],
    ['tru', undefined],
    ['true', 'true'],
    ['"', '""'],
    ['"ab\\', '"ab"'],
    ['"ab\\u00e', '"ab"'],
    ['"ab\\u00e9', '"ab\\u00e9"'],
    ['"ab\ud83c', '"ab"'],
    ['"ab\\ud83c', '"ab"'],
    ['"ab\\\\ud83c', '"ab\\\\ud83c"'],
    ['"ab\\ud83c\\udf8', '"ab"'],
    ['"ab\\ud83c\\', '"ab"'],
    ['[', '[]'],
    ['[1', '[]'],
    ['[1,', '[1]'],
    ['[1 , tru', '[1]'],
    ['[1 , true', '[1 , true]'],
    ['[[{', '[[{}]]'],
    ['{"a', '{}'],
    ['{"a"', '{}'],
    ['{"a":', '{}'],
    ['{"a":{"b":"x', '{"a":{"b":"x"}}'],
    ['{"a":"x","b', '{"a":"x"}'],
    ['{"a":[1,2],"b":nul', '{"a":[1,2]}'],
    ['{"a":1}  ', '{"a":1}'],
  ])('%j closes as %j', (text, closed) => {
    for (const chunks of splits(text)) {
      const { scanner } = recordingScanner(['a'])
      for (const chunk of chunks) scanner.write(chunk)
      expect(scanner.closedText()).toBe(closed)
    }
  })

  /** Whether `part` can be an earlier state of `whole`: nothing invented, changed or torn. */
  function isPartOf(part: unknown, whole: unknown): boolean {
    if (typeof part === 'string' && typeof whole === 'string') {
      return whole.startsWith(part) && (part.isWellFormed() || !whole.slice(0, part.length + 1).isWellFormed())
    }
    if (typeof part !== 'object' || part === null) return Object.is(part, whole)
    if (typeof whole !== 'object' || whole === null || Array.isArray(part) !== Array.isArray(whole)) return false
    return Object.keys(part).every(
      (key) => Object.hasOwn(whole, key) && isPartOf(valueAt(part, [key]), valueAt(whole, [key])),
    )
  }

  function expectPartsToClose(text: string): void {
    const root: unknown = JSON.parse(text)
    for (const paths of [[], everywhere]) {
      const { scanner } = recordingScanner(paths)
      for (const character of text.split('')) {
        scanner.write(character)
        const closed = scanner.closedText()
        if (closed === undefined) continue
        if (!isPartOf(JSON.parse(closed), root)) expect.fail(`${closed} is no part of ${text}`)
      }
      scanner.end()
      expect(isDeepStrictEqual(JSON.parse(scanner.closedText()!), root)).toBe(true)
    }
  }

  test.each(hardDocuments)('every beginning of a document closes into a part of its value: %j', (text) => {
    expectPartsToClose(text)
  })

  test('every beginning of any document closes into a part of its value', () => {
    fc.assert(fc.property(documents(3, { uniqueKeys: true }), ({ text }) => expectPartsToClose(text)))
  })

  test('after a fault, what came before it closes', () => {
    for (const text of testSuite.rejected.filter((each) => each.length < 1000)) {
      const { scanner } = recordingScanner([])
      const { error } = readAll(scanner, [text]) as { error: OutputError }
      const before = recordingScanner([]).scanner
      before.write(text.slice(0, error.position))
      // `12x` tells that 12 is whole; `12` alone does not.
      const closed = scanner.closedText()
      if (closed !== undefined) JSON.parse(closed)
      if (!/\d$/.test(text.slice(0, error.position))) expect(closed).toBe(before.closedText())
    }
  })
})

describe('cost', () => {
  /** How often a scan looks at a character, counted where all of its looking goes through. */
  function looksAt(deltas: readonly string[], paths: readonly string[]): number {
    const root = new FieldExtractorRegistry(paths.map((path) => ({ field: path, path }))).compile('tool')
    const sink = { onText: () => undefined, onTextEnd: () => undefined, onValue: () => undefined }
    const scanner = new ArgumentScanner(root, sink)
    const charCodeAt = vi.spyOn(String.prototype, 'charCodeAt')
    try {
      for (const delta of deltas) scanner.write(delta)
      return charCodeAt.mock.calls.length
    } finally {
      charCodeAt.mockRestore()
    }
  }

  test.each([1, 7, 100])('each character is looked at about once, however long the answer, in deltas of %i', (size) => {
    const perCharacter = [50, 1500].map((items) => {
      const text = JSON.stringify({
        message: 'A "quoted" line\nand 😀 more of it. '.repeat(items),
        items: Array.from({ length: items }, (_, i) => ({ id: i, name: `item ${i}` })),
      })
      const deltas = text.match(new RegExp(`.{1,${size}}`, 'gs'))!
      return looksAt(deltas, ['message', 'items[*].name', 'items']) / text.length
    })
    expect(perCharacter[0]).toBeLessThan(2.5)
    expect(perCharacter[1]! / perCharacter[0]!).toBeLessThan(1.05)
  })
})
