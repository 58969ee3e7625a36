import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { UsageError } from '../src/errors.ts'
import { type FieldExtractor, FieldExtractorRegistry } from 'fieldstream'
import { childPath, type MatchSet, parseFieldPath, rootMatches } from '../src/tool-stream/field-path.ts'

const key = (name: string) => ({ kind: 'key', key: name })
const index = (at: number) => ({ kind: 'index', index: at })
const anyKey = (prefix = '', capture?: string, suffix = '') => ({ kind: 'any-key', prefix, suffix, capture })
const anyIndex = (capture?: string) => ({ kind: 'any-index', capture })

describe('reading a path', () => {
  test.each([
    ['a', [key('a')]],
    ['a.b', [key('a'), key('b')]],
    ['a[0]', [key('a'), index(0)]],
    ['a[999999999]', [key('a'), index(999_999_999)]],
    ['[3]', [index(3)]],
    ['a[*].b', [key('a'), anyIndex(), key('b')]],
    ['a[*][*]', [key('a'), anyIndex(), anyIndex()]],
    ['*', [anyKey()]],
    ['*.*', [anyKey(), anyKey()]],
    ['a[{row}].b', [key('a'), anyIndex('row'), key('b')]],
    ['part_{n}', [anyKey('part_', 'n')]],
    ['{n}_part', [anyKey('', 'n', '_part')]],
    ['a_{n}_z', [anyKey('a_', 'n', '_z')]],
    ['{any}.{other}', [anyKey('', 'any'), anyKey('', 'other')]],
    ['["any key"]', [key('any key')]],
    ['a["b.c"][0]["*"].d', [key('a'), key('b.c'), index(0), key('*'), key('d')]],
    ['["quote \\" and ] and \\u00e9"]', [key('quote " and ] and é')]],
    ['[""]', [key('')]],
    ['["0"]', [key('0')]],
    ['0', [key('0')]],
    ['__proto__.constructor', [key('__proto__'), key('constructor')]],
    ['ключ.鍵-1/$', [key('ключ'), key('鍵-1/$')]],
  ])('%s', (path, segments) => {
    expect(parseFieldPath(path)).toEqual(segments)
  })

  test.each([
    ['', 0],
    ['.', 0],
    ['.a', 0],
    ['a.', 2],
    ['a..b', 2],
    ['a.[0]', 2],
    ['a[0]b', 4],
    ['["a"]b', 5],
    ['a[', 1],
    ['a[0', 1],
    ['a[]', 2],
    ['a[01]', 2],
    ['a[-1]', 2],
    ['a[1.5]', 2],
    ['a[1000000000]', 2],
    ['a[b]', 2],
    ['a[ 0]', 2],
    ['a[**]', 2],
    ['a["b]', 1],
    ['a["b"', 5],
    ['a["b"c]', 5],
    ['["\\x"]', 1],
    ['["a\nb"]', 1],
    ['a]', 1],
    ['a b', 1],
    ['a"b"', 1],
    ['a*', 1],
    ['*a', 0],
    ['a.**', 2],
    ['a{', 1],
    ['a{b', 1],
    ['a.b{c.d}', 3],
    ['a}', 1],
    ['a{}', 1],
    ['a{1b}', 1],
    ['a{b-c}', 1],
    ['a[{}]', 2],
    ['a[{b c}]', 2],
    ['{a}{b}', 0],
    ['*{a}', 0],
    ['{a}.b.{a}', 6],
    ['{a}[{a}]', 4],
  ])('%j is refused, with the place of the fault', (path, position) => {
    expect(() => parseFieldPath(path)).toThrow(UsageError)
    expect(() => parseFieldPath(path)).toThrow(expect.objectContaining({ code: 'invalid_argument' }))
    expect(() => parseFieldPath(path)).toThrow(`Invalid field path ${JSON.stringify(path)} at character ${position}: `)
  })

  test.each([undefined, null, 3, ['a'], { path: 'a' }])('what is no string is refused: %j', (path) => {
    expect(() => parseFieldPath(path as unknown as string)).toThrow(UsageError)
  })

  test('a concrete path reads back as the place it was made for, whatever the keys', () => {
    const keys = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.constantFrom(
        '',
        '*',
        '{n}',
        'a.b',
        'a b',
        '[0]',
        '"',
        '\\',
        ']',
        '__proto__',
        '0',
        '\ud83c',
        '\u2028',
        '\n',
        'a}',
      ),
    )
    fc.assert(
      fc.property(fc.array(fc.oneof(keys, fc.nat({ max: 999_999_999 })), { minLength: 1, maxLength: 6 }), (steps) => {
        const path = steps.reduce<string>(childPath, '')
        expect(parseFieldPath(path)).toEqual(steps.map((step) => (typeof step === 'number' ? index(step) : key(step))))
      }),
      { numRuns: 1000 },
    )
  })

  test('concrete paths are as short as they can be', () => {
    expect(['a', 'b', 0, 'any key', 1, 'c'].reduce<string>(childPath, '')).toBe('a.b[0]["any key"][1].c')
    expect(['', 'x'].reduce<string>(childPath, '')).toBe('[""].x')
  })
})

/** The fields that a place matches, each with what its captures took. */
function fieldsAt(paths: Record<string, string>, steps: readonly (string | number)[]): Record<string, unknown> {
  const registry = new FieldExtractorRegistry(Object.entries(paths).map(([field, path]) => ({ field, path })))
  let found: MatchSet | undefined = rootMatches(registry.compile('tool'))
  for (const step of steps) found = typeof step === 'number' ? found?.element(step) : found?.member(step)
  return Object.fromEntries(
    (found?.matches ?? []).flatMap(({ node, params }) => node.extractors.map(({ field }) => [field, params])),
  )
}

describe('matching', () => {
  test('a place matches every path that leads to it, with the captures of each', () => {
    const paths = {
      exact: 'a.b',
      any: 'a.*',
      capture: 'a.{k}',
      both: '{x}.{y}',
      affixed: 'a.b{rest}',
      other: 'b.a',
      above: 'a',
    }
    expect(fieldsAt(paths, ['a', 'b'])).toEqual({ exact: {}, any: {}, capture: { k: 'b' }, both: { x: 'a', y: 'b' } })
    expect(fieldsAt(paths, ['a', 'bc'])).toEqual({
      any: {},
      capture: { k: 'bc' },
      both: { x: 'a', y: 'bc' },
      affixed: { rest: 'c' },
    })
    expect(fieldsAt(paths, ['a'])).toEqual({ above: {} })
    expect(fieldsAt(paths, ['a', 'b', 'c'])).toEqual({})
    expect(fieldsAt(paths, ['c'])).toEqual({})
  })

  test('indexes match by number, any index or a capture', () => {
    const paths = { third: 'a[2]', any: 'a[*]', capture: 'a[{i}]', nested: 'a[{i}][{j}].k' }
    expect(fieldsAt(paths, ['a', 2])).toEqual({ third: {}, any: {}, capture: { i: '2' } })
    expect(fieldsAt(paths, ['a', 10])).toEqual({ any: {}, capture: { i: '10' } })
    expect(fieldsAt(paths, ['a', 1, 0, 'k'])).toEqual({ nested: { i: '1', j: '0' } })
  })

  test('a capture takes at least one character, and the beginning and end do not overlap', () => {
    expect(fieldsAt({ part: 'part_{n}' }, ['part_12'])).toEqual({ part: { n: '12' } })
    expect(fieldsAt({ part: 'part_{n}' }, ['part_'])).toEqual({})
    expect(fieldsAt({ part: 'aba{n}ba' }, ['ababa'])).toEqual({})
    expect(fieldsAt({ part: 'aba{n}ba' }, ['aba-ba'])).toEqual({ part: { n: '-' } })
    expect(fieldsAt({ part: '{n}' }, [''])).toEqual({})
    expect(fieldsAt({ part: '*' }, [''])).toEqual({ part: {} })
  })

  test('a key is never an index, nor an index a key', () => {
    const paths = { key: 'a["0"]', index: 'a[0]', anyKey: 'a.*', anyIndex: 'a[*]' }
    expect(fieldsAt(paths, ['a', '0'])).toEqual({ key: {}, anyKey: {} })
    expect(fieldsAt(paths, ['a', 0])).toEqual({ index: {}, anyIndex: {} })
  })

  test('every element and member gets its own captures, whatever was met before', () => {
    const paths = [
      { field: 'x', path: '[{row}].{key}' },
      { field: 'y', path: '[*].b' },
    ]
    const root = rootMatches(new FieldExtractorRegistry(paths).compile('tool'))
    const paramsAt = (row: number, key: string) =>
      root
        .element(row)
        ?.member(key)
        ?.matches.map(({ params }) => params)
    expect(paramsAt(0, 'a')).toEqual([{ row: '0', key: 'a' }])
    expect(paramsAt(1, 'a')).toEqual([{ row: '1', key: 'a' }])
    expect(paramsAt(1, 'b')).toEqual([{ row: '1', key: 'b' }, {}])
    expect(paramsAt(0, 'a')).toEqual([{ row: '0', key: 'a' }])
  })

  test('names that objects inherit are keys and captures like others', () => {
    const paths = { prototype: '__proto__.constructor', any: '{__proto__}.{constructor}' }
    const fields = fieldsAt(paths, ['__proto__', 'constructor'])
    expect(fields['prototype']).toEqual({})
    expect(Object.entries(fields['any'] as object)).toEqual([
      ['__proto__', '__proto__'],
      ['constructor', 'constructor'],
    ])
    expect(fieldsAt({ a: 'a' }, ['toString'])).toEqual({})
    expect(fieldsAt({ a: 'a' }, ['__proto__'])).toEqual({})
  })

  test('params cannot be changed by who receives them', () => {
    expect(fieldsAt({ any: '{a}', none: 'x' }, ['x'])).toSatisfy((fields: object) =>
      Object.values(fields).every(Object.isFrozen),
    )
  })
})

describe('FieldExtractorRegistry', () => {
  const fieldsOf = (registry: FieldExtractorRegistry, toolName: string) =>
    [...registry.compile(toolName).keys.values()].flatMap(({ extractors }) => extractors.map(({ field }) => field))

  test('a tool gets the extractors for any tool and its own', () => {
    const registry = new FieldExtractorRegistry([
      { field: 'any', path: 'a' },
      { field: 'mine', path: 'b', tool: 'mine' },
      { field: 'other', path: 'c', tool: 'other' },
    ])
    expect(fieldsOf(registry, 'mine')).toEqual(['any', 'mine'])
    expect(fieldsOf(registry, 'third')).toEqual(['any'])
  })

  test('extractors may share a place or a name', () => {
    const registry = new FieldExtractorRegistry([
      { field: 'x', path: 'a' },
      { field: 'y', path: 'a' },
      { field: 'x', path: 'b' },
      { field: 'x', path: 'a', tool: 'mine' },
    ])
    expect(fieldsOf(registry, 'mine')).toEqual(['x', 'y', 'x', 'x'])
    expect(registry.extractors).toHaveLength(4)
  })

  test('what is registered later counts', () => {
    const registry = new FieldExtractorRegistry([{ field: 'x', path: 'a' }])
    expect(fieldsOf(registry, 'tool')).toEqual(['x'])
    expect(registry.register({ field: 'y', path: 'c' })).toBe(registry)
    expect(fieldsOf(registry, 'tool')).toEqual(['x', 'y'])
  })

  const schema = { '~standard': { version: 1, vendor: 'test', validate: (value: unknown) => ({ value }) } } as const

  test.each<[string, object]>([
    ['needs a `field`', { field: '', path: 'a' }],
    ['needs a `field`', { path: 'a' }],
    ['Invalid field path "a."', { field: 'x', path: 'a.' }],
    ['Field "x" needs a `path`', { field: 'x' }],
    ["`deliver` of field \"x\" is 'delta' or 'complete'", { field: 'x', path: 'a', deliver: 'never' }],
    ['cannot have both `map` and', { field: 'x', path: 'a', deliver: 'delta', map: (value: unknown) => value }],
    ['must be a Standard Schema', { field: 'x', path: 'a', schema: { parse: () => 1 } }],
  ])('an extractor that cannot work is refused: %s', (message, extractor) => {
    const register = () => new FieldExtractorRegistry([extractor as FieldExtractor])
    expect(register).toThrow(UsageError)
    expect(register).toThrow(expect.objectContaining({ code: 'invalid_argument' }))
    expect(register).toThrow(message)
  })

  test('the same field twice on the same path is refused, and leaves the registry as it was', () => {
    const registry = new FieldExtractorRegistry([{ field: 'x', path: 'a' }])
    expect(() => registry.register({ field: 'x', path: 'a', deliver: 'complete' })).toThrow(
      'Field "x" is already registered for the path "a"',
    )
    expect(registry.extractors).toEqual([{ field: 'x', path: 'a' }])
  })

  test('every option that works is taken', () => {
    const map = (value: unknown) => value
    const registry = new FieldExtractorRegistry([
      { field: 'x', path: 'a', deliver: 'delta', schema },
      { field: 'y', path: 'a', deliver: 'complete', map, tool: 'tool' },
      { field: 'z', path: 'a', map },
    ])
    expect(fieldsOf(registry, 'tool')).toEqual(['x', 'y', 'z'])
  })
})
