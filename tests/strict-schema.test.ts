import { UsageError } from 'fieldstream'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { strictRules as openaiStrictRules } from '../src/providers/openai-connection.ts'
import { type StrictRules, strictSchemaFor, toStrictSchema } from '../src/wire/strict-schema.ts'
import { thrownBy } from './support.ts'

const plainRules: StrictRules = { enforces: () => false, needsAllRequired: false, takesRecursion: false }
const object = (properties: object, more: object = {}) => ({ type: 'object', properties, ...more })

/** What is wrong, as `path: reason`, with `!` where it blocks. */
function problemsOf(schema: Record<string, unknown>, rules: StrictRules = plainRules): string[] {
  return toStrictSchema(schema, rules).problems.map(
    ({ path, reason, isBlocking }) => `${isBlocking ? '!' : ''}${path}: ${reason}`,
  )
}

test('objects are closed at every depth, and nothing else changes', () => {
  const inner = object({ b: { type: 'string', title: 'B' } }, { required: ['b'] })
  const schema = object(
    {
      list: { type: 'array', items: inner, description: 'All' },
      either: { anyOf: [inner, { type: 'null' }] },
      nullable: { type: ['object', 'null'], properties: {} },
      word: { enum: ['x', 1, null] },
      ref: { $ref: '#/$defs/inner' },
    },
    { $defs: { inner } },
  )
  const closed = { ...inner, additionalProperties: false }
  const { schema: strict, problems } = toStrictSchema(schema, plainRules)
  expect(problems).toEqual([])
  expect(strict).toEqual({
    type: 'object',
    properties: {
      list: { type: 'array', items: closed, description: 'All' },
      either: { anyOf: [closed, { type: 'null' }] },
      nullable: { type: ['object', 'null'], properties: {}, additionalProperties: false },
      word: { enum: ['x', 1, null] },
      ref: { $ref: '#/$defs/inner' },
    },
    $defs: { inner: closed },
    additionalProperties: false,
  })
  expect(inner).not.toHaveProperty('additionalProperties')
})

test('a union of zod is one that strict modes take', () => {
  const union = z.discriminatedUnion('k', [z.object({ k: z.literal('a') }), z.object({ k: z.literal('b') })])
  const schema = z.object({ u: union, n: z.int(), mail: z.email() })['~standard'].jsonSchema.input({
    target: 'draft-2020-12',
  })
  const rules = { ...plainRules, enforces: (keyword: string) => keyword === 'format' }
  const { schema: strict, problems } = toStrictSchema(schema, rules)
  expect(problems).toEqual([])
  expect(strict).toMatchObject({ properties: { u: { anyOf: [{ type: 'object' }, { type: 'object' }] } } })
  expect(JSON.stringify(strict)).not.toMatch(/oneOf|\$schema|9007199254740991/)
})

test('a constraint that is not enforced is told in words', () => {
  const schema = object({
    price: { type: 'number', minimum: 1, maximum: 9, description: 'In euros' },
    name: { type: 'string', maxLength: 3 },
  })
  expect(toStrictSchema(schema, plainRules).schema).toMatchObject({
    properties: {
      price: { type: 'number', description: 'In euros\n\n{minimum: 1, maximum: 9}' },
      name: { type: 'string', description: '{maxLength: 3}' },
    },
  })
  expect(problemsOf(schema)).toEqual([
    'properties.price: `minimum` is not enforced',
    'properties.price: `maximum` is not enforced',
    'properties.name: `maxLength` is not enforced',
  ])
  expect(problemsOf(schema, openaiStrictRules).filter((problem) => !problem.startsWith('!'))).toEqual([
    'properties.name: `maxLength` is not enforced',
  ])
})

describe('what cannot be strict is found', () => {
  test.each<[Record<string, unknown>, string]>([
    [object({ r: { type: 'object', additionalProperties: { type: 'number' } } }), '!properties.r: an object is open'],
    [object({}, { additionalProperties: true }), '!: an object is open to other properties'],
    [
      object({ r: { type: 'object', properties: {}, patternProperties: {} } }),
      '!properties.r: it uses `patternProperties`',
    ],
    [object({ r: { type: 'object' } }), '!properties.r: an object does not list its properties'],
    [object({ any: {} }), '!properties.any: it allows anything'],
    [object({ any: true }), '!properties.any: it allows anything'],
    [object({ list: { type: 'array' } }), '!properties.list: an array does not say of what'],
    [object({ pair: { type: 'array', prefixItems: [], items: false } }), '!properties.pair: it uses `prefixItems`'],
    [object({ both: { allOf: [object({}), object({})] } }), '!properties.both: it uses `allOf`'],
    [object({ u: object({ a: {} }, { anyOf: [object({})] }) }), '!properties.u: a union stands beside `properties`'],
    [object({}, { anyOf: [object({})] }), '!: the root is a union'],
    [object({ c: { const: { a: 1 } } }), '!properties.c: `const` holds more than plain values'],
    [object({ ref: { $ref: 'https://example.com/x' } }), '!properties.ref: it refers to another document'],
    [object({ ref: { $ref: '#/$defs/a', minLength: 1 } }), '!properties.ref: something else stands beside `$ref`'],
    [object({ children: { type: 'array', items: { $ref: '#' } } }), '!: it refers to itself'],
    [
      object(
        { a: { $ref: '#/$defs/a' } },
        { $defs: { a: object({ b: { $ref: '#/$defs/b' } }), b: object({ a: { $ref: '#/$defs/a' } }) } },
      ),
      '!: it refers to itself',
    ],
  ])('%j', (schema, expected) => {
    expect(problemsOf(schema).some((problem) => problem.startsWith(expected))).toBe(true)
  })

  test('and two references to the same are no recursion', () => {
    const twice = object({ a: { $ref: '#/$defs/x' }, b: { $ref: '#/$defs/x' } }, { $defs: { x: { type: 'string' } } })
    expect(problemsOf(twice)).toEqual([])
    const tree = object({ children: { type: 'array', items: { $ref: '#' } } }, { required: ['children'] })
    expect(problemsOf(tree, openaiStrictRules)).toEqual([])
  })

  test('where every property must be required, those that are not', () => {
    const schema = object({ a: { type: 'string' }, b: { type: 'string' } }, { required: ['a'] })
    expect(problemsOf(schema)).toEqual([])
    expect(problemsOf(schema, openaiStrictRules)).toEqual(['!: a property is optional (b): make it nullable instead'])
  })
})

test('a record is one problem, with what to use instead', () => {
  const schema = z.object({ prices: z.record(z.string(), z.number()) })
  const error = thrownBy(() =>
    strictSchemaFor(
      { schema: schema['~standard'].jsonSchema.input({ target: 'draft-2020-12' }), strict: true },
      openaiStrictRules,
      'X',
      [],
    ),
  )
  expect((error as Error).message).toBe(
    'X cannot hold the model to the schema: an object is open to other properties: list them, or use a list of { key, value } (properties.prices). Change the schema, or leave out `strict: true`.',
  )
})

test.each<[Record<string, unknown>, string]>([
  [{ properties: null }, '`properties` must be an object of schemas'],
  [{ properties: { a: { anyOf: 'x' } } }, '`properties.a.anyOf` must be a list of schemas'],
  [{ properties: { a: { oneOf: {} } } }, '`properties.a.oneOf` must be a list of schemas'],
  [{ properties: {}, required: null }, '`required` must be a list of names'],
  [{ properties: {}, $defs: 'x' }, '`$defs` must be an object of schemas'],
])('what is no schema is refused: %j', (schema, complaint) => {
  const error = thrownBy(() => toStrictSchema({ type: 'object', ...schema }, plainRules))
  expect(error).toMatchObject({ name: 'UsageError', code: 'invalid_argument' })
  expect((error as Error).message).toContain(complaint)
})

test('what is left out is warned of, refused where it must not be, and silent where nobody minds', () => {
  const warnings: { message: string }[] = []
  const some = object({ price: { type: 'number', minimum: 1 } })
  const none = object({ any: {} })
  expect(strictSchemaFor({ schema: some }, plainRules, 'X', warnings as never[])).toMatchObject({ type: 'object' })
  expect(strictSchemaFor({ schema: none }, plainRules, 'X', warnings as never[])).toBeUndefined()
  expect(warnings.map(({ message }) => message)).toEqual([
    'X cannot hold the model to all of the schema: `minimum` is not enforced (properties.price).',
    'X cannot hold the model to the schema: it allows anything (properties.any).',
  ])
  expect(strictSchemaFor({ schema: none, strict: false }, plainRules, 'X', warnings as never[])).toBeUndefined()
  expect(warnings).toHaveLength(2)
  for (const schema of [some, none]) {
    const error = thrownBy(() => strictSchemaFor({ schema, strict: true }, plainRules, 'X', []))
    expect(error).toBeInstanceOf(UsageError)
    expect(error).toMatchObject({ code: 'unsupported' })
  }
  expect(strictSchemaFor({ schema: object({}), strict: true }, plainRules, 'X', [])).toBeDefined()
})
