import { UsageError } from '../errors.ts'
import type { LLMWarning } from '../request.ts'
import { type JsonSchema, resolveReference } from '../schema.ts'

/** What a provider can hold a model to. */
export interface StrictRules {
  /** Whether it enforces a keyword that narrows a value, such as `minimum`. The others are told to the model in words. */
  enforces(keyword: string, value: unknown): boolean
  /** Whether every property must be required. */
  readonly needsAllRequired: boolean
  readonly takesRecursion: boolean
}

/** What strict mode cannot do for a schema. */
export interface StrictProblem {
  /** Where in the schema, e.g. `properties.price`; `''` for the root. */
  readonly path: string
  readonly reason: string
  /** Whether the schema cannot be sent as strict at all. Otherwise a constraint is left out, and the rest holds. */
  readonly isBlocking: boolean
}

/** Keywords that change nothing about what is accepted, and that not every provider takes. */
const annotations = new Set([
  '$schema',
  '$id',
  'id',
  '$comment',
  'default',
  'examples',
  'deprecated',
  'readOnly',
  'writeOnly',
  'contentEncoding',
  'contentMediaType',
])

/** Keywords that decide which properties or elements there are: left out, others would be forbidden, or anything allowed. */
const structural = new Set(['allOf', 'patternProperties', 'prefixItems', '$dynamicRef', '$recursiveRef'])

/**
 * The schema in the form that strict modes take: objects closed where they do not say, `oneOf` as `anyOf`, and constraints
 * that the provider does not enforce as words in the description. It is sent in place of the original, against which the
 * answer is still checked.
 */
export function toStrictSchema(
  schema: JsonSchema,
  rules: StrictRules,
): { readonly schema: JsonSchema; readonly problems: readonly StrictProblem[] } {
  const problems: StrictProblem[] = []
  // The first of each place: others only follow from it.
  const block = (path: string, reason: string): void => {
    if (!problems.some((known) => known.isBlocking && known.path === path))
      problems.push({ path, reason, isBlocking: true })
  }
  if (schema['anyOf'] !== undefined || schema['oneOf'] !== undefined) block('', 'the root is a union')
  if (!rules.takesRecursion && isRecursive(schema, schema)) block('', 'it refers to itself')
  const strict = convert(schema, '')
  return { schema: strict as JsonSchema, problems }

  function convert(node: unknown, path: string): unknown {
    if (typeof node !== 'object' || node === null || Array.isArray(node)) {
      block(path, 'it allows anything')
      return node
    }
    const keywords = Object.entries(node).filter(([keyword]) => !annotations.has(keyword))
    if ('$ref' in node) return convertReference(node, keywords, path)
    const strictNode: Record<string, unknown> = {}
    const left: string[] = []
    for (const [keyword, value] of keywords) {
      const inner = path === '' ? keyword : `${path}.${keyword}`
      switch (keyword) {
        case 'required':
          if (!Array.isArray(value)) throw malformed(inner, 'a list of names')
          strictNode[keyword] = value
          break
        case 'type':
        case 'title':
        case 'description':
          strictNode[keyword] = value
          break
        case 'enum':
        case 'const':
          if ([value].flat().some((item) => typeof item === 'object' && item !== null))
            block(path, `\`${keyword}\` holds more than plain values`)
          strictNode[keyword] = value
          break
        case 'items':
          strictNode[keyword] = convert(value, inner)
          break
        case 'anyOf':
        case 'oneOf':
          if (!Array.isArray(value)) throw malformed(inner, 'a list of schemas')
          strictNode['anyOf'] = (value as unknown[]).map((item, i) => convert(item, `${inner}[${i}]`))
          break
        case 'properties':
        case '$defs':
        case 'definitions':
          if (typeof value !== 'object' || value === null) throw malformed(inner, 'an object of schemas')
          strictNode[keyword] = Object.fromEntries(
            Object.entries(value as object).map(([key, item]) => [key, convert(item, `${inner}.${key}`)]),
          )
          break
        case 'additionalProperties':
          if (value !== false)
            block(path, 'an object is open to other properties: list them, or use a list of { key, value }')
          break
        default:
          if (structural.has(keyword)) block(path, `it uses \`${keyword}\``)
          else if (rules.enforces(keyword, value)) strictNode[keyword] = value
          // What zod says of every integer, and no model goes beyond.
          else if (Math.abs(Number(value)) !== Number.MAX_SAFE_INTEGER) left.push(keyword)
      }
    }
    check(node as JsonSchema, strictNode, path)
    if (left.length > 0) {
      const constraints = node as JsonSchema
      const words = left.map((keyword) => `${keyword}: ${JSON.stringify(constraints[keyword])}`).join(', ')
      const { description } = strictNode
      strictNode['description'] = typeof description === 'string' ? `${description}\n\n{${words}}` : `{${words}}`
      for (const keyword of left) {
        // A pattern beside a format spells the format out.
        if (keyword === 'pattern' && 'format' in strictNode) continue
        problems.push({ path, reason: `\`${keyword}\` is not enforced`, isBlocking: false })
      }
    }
    return strictNode
  }

  function convertReference(node: { $ref: unknown }, keywords: [string, unknown][], path: string): unknown {
    const { $ref } = node
    if (typeof $ref !== 'string' || !$ref.startsWith('#')) block(path, 'it refers to another document')
    if (keywords.some(([keyword]) => !['$ref', 'title', 'description'].includes(keyword)))
      block(path, 'something else stands beside `$ref`')
    // Providers refuse any neighbour of a reference.
    return { $ref }
  }

  /** Closes objects, and looks at what belongs together. */
  function check(node: JsonSchema, strictNode: Record<string, unknown>, path: string): void {
    const { type, properties, required = [], anyOf } = strictNode
    if (type === undefined && anyOf === undefined && !('enum' in strictNode) && !('const' in strictNode))
      block(path, 'it allows anything')
    if ([type].flat().includes('array') && node['items'] === undefined) block(path, 'an array does not say of what')
    if (anyOf !== undefined && properties !== undefined) block(path, 'a union stands beside `properties`')
    if (![type].flat().includes('object')) return
    strictNode['additionalProperties'] = false
    if (properties === undefined) {
      block(path, 'an object does not list its properties')
      return
    }
    const optional = Object.keys(properties as object).filter((key) => !(required as unknown[]).includes(key))
    if (rules.needsAllRequired && optional.length > 0)
      block(path, `a property is optional (${optional.join(', ')}): make it nullable instead`)
  }
}

function malformed(path: string, due: string): UsageError {
  return new UsageError('invalid_argument', `The schema is no JSON Schema: \`${path}\` must be ${due}.`)
}

/**
 * What to send so that the provider holds the model to the schema; `undefined` where it cannot. Warns of that, and of every
 * constraint left out, unless `strict` is false.
 *
 * @throws UsageError `unsupported` where `strict` is true and anything is left out.
 */
export function strictSchemaFor(
  { schema, strict }: { readonly schema: JsonSchema; readonly strict?: boolean | undefined },
  rules: StrictRules,
  provider: string,
  warnings: LLMWarning[],
): JsonSchema | undefined {
  const { schema: strictSchema, problems } = toStrictSchema(schema, rules)
  const isBlocked = problems.some(({ isBlocking }) => isBlocking)
  if (problems.length > 0 && strict !== false) {
    const places = problems
      .filter(({ isBlocking }) => isBlocking || !isBlocked)
      .map(({ path, reason }) => (path === '' ? reason : `${reason} (${path})`))
    const message = `${provider} cannot hold the model to ${isBlocked ? 'the schema' : 'all of the schema'}: ${places.slice(0, 8).join('; ')}.`
    if (strict) {
      throw new UsageError('unsupported', `${message} Change the schema, or leave out \`strict: true\`.`)
    }
    warnings.push({ code: 'unsupported', message })
  }
  return isBlocked ? undefined : strictSchema
}

/** Whether a way through references leads back to where it began. */
function isRecursive(node: unknown, root: JsonSchema, open = new Set<unknown>(), done = new Set<unknown>()): boolean {
  if (typeof node !== 'object' || node === null || done.has(node)) return false
  if (open.has(node)) return true
  open.add(node)
  const { $ref } = node as { $ref?: unknown }
  const members = Object.values(node) as unknown[]
  if (typeof $ref === 'string') members.push(resolveReference($ref, root))
  const found = members.some((member) => isRecursive(member, root, open, done))
  done.add(node)
  return found
}
