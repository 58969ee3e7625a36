import { type JsonSchema, resolveReference } from './schema.ts'
import type { PathSegment } from './tool-stream/field-path.ts'

/**
 * Whether a value that a JSON Schema accepts may have something at a path. Errs towards yes: only what `properties`, `items`
 * and the like rule out is ruled out.
 */
export function schemaHasPath(schema: JsonSchema, segments: readonly PathSegment[]): boolean {
  return mayHave(schema, segments, schema, 0)
}

// Deeper than any honest chain of references; recursive schemas use up a segment on each round.
const maxReferences = 64

function mayHave(schema: unknown, segments: readonly PathSegment[], root: JsonSchema, references: number): boolean {
  const [segment, ...rest] = segments
  if (schema === false) return false
  if (!segment || typeof schema !== 'object' || schema === null || references > maxReferences) return true
  const { type, ...keywords } = schema as Record<string, unknown>
  const isKey = segment.kind === 'key' || segment.kind === 'any-key'
  if (type !== undefined && ![type].flat().includes(isKey ? 'object' : 'array')) return false
  // Each part of a combination may say something of other members.
  const parts = partsOf(keywords, root)
  if (parts.some((part) => mayHave(part, segments, root, references + 1))) return true
  const members = isKey ? membersAt(keywords, segment) : elementsAt(keywords, segment)
  return (members ?? (parts.length === 0 ? [true] : [])).some((member) => mayHave(member, rest, root, references))
}

function partsOf({ $ref, anyOf, oneOf, allOf, then, else: otherwise }: Record<string, unknown>, root: JsonSchema) {
  const parts = [anyOf, oneOf, allOf].flatMap((list: unknown) => (Array.isArray(list) ? (list as unknown[]) : []))
  if (typeof $ref === 'string') parts.push(resolveReference($ref, root))
  return [...parts, ...[then, otherwise].filter((part) => part !== undefined)]
}

/** The schemas of the members a segment means; `undefined` where the schema lists none. */
function membersAt(
  { properties, patternProperties, additionalProperties }: Record<string, unknown>,
  segment: Extract<PathSegment, { kind: 'key' | 'any-key' }>,
): unknown[] | undefined {
  const known = Object.entries((properties ?? {}) as Record<string, unknown>)
  if (known.length === 0 && patternProperties === undefined && additionalProperties === undefined) return undefined
  const members = known.filter(([key]) => matches(segment, key)).map(([, member]) => member)
  if (patternProperties !== undefined) members.push(true)
  // Without `additionalProperties` a schema allows any; but one that lists its properties means those.
  members.push(additionalProperties ?? false)
  return members
}

function matches(segment: Extract<PathSegment, { kind: 'key' | 'any-key' }>, key: string): boolean {
  return segment.kind === 'key' ? key === segment.key : key.startsWith(segment.prefix) && key.endsWith(segment.suffix)
}

/** The schemas of the elements a segment means; `undefined` where the schema describes none. */
function elementsAt(
  { items, prefixItems }: Record<string, unknown>,
  segment: Extract<PathSegment, { kind: 'index' | 'any-index' }>,
): unknown[] | undefined {
  if (items === undefined && prefixItems === undefined) return undefined
  const first = Array.isArray(prefixItems) ? (prefixItems as unknown[]) : []
  if (segment.kind === 'any-index') return [...first, items ?? true]
  return segment.index < first.length ? [first[segment.index]] : [items ?? true]
}
