import type { JsonSchema } from './schema.ts'
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
  if (!segment || schema === true) return true
  if (schema === false) return false
  if (typeof schema !== 'object' || schema === null || references > maxReferences) return true
  const { $ref, anyOf, oneOf, allOf, type } = schema as Record<string, unknown>
  if (typeof $ref === 'string') return mayHave(resolve($ref, root), segments, root, references + 1)
  for (const union of [anyOf, oneOf]) {
    if (Array.isArray(union)) return union.some((member) => mayHave(member, segments, root, references + 1))
  }
  if (Array.isArray(allOf)) return allOf.every((member) => mayHave(member, segments, root, references + 1))
  const isKey = segment.kind === 'key' || segment.kind === 'any-key'
  const types = type === undefined ? undefined : [type].flat()
  if (types && !types.includes(isKey ? 'object' : 'array')) return false
  const members = isKey
    ? membersAt(schema as Record<string, unknown>, segment)
    : elementsAt(schema as Record<string, unknown>, segment)
  return members.some((member) => mayHave(member, rest, root, references))
}

function membersAt(
  schema: Record<string, unknown>,
  segment: Extract<PathSegment, { kind: 'key' | 'any-key' }>,
): unknown[] {
  const { properties, patternProperties, additionalProperties } = schema
  const known = Object.entries((properties ?? {}) as Record<string, unknown>)
  const members = known.filter(([key]) => matches(segment, key)).map(([, member]) => member)
  // Without `additionalProperties` a schema allows any; but one that lists its properties means those.
  if (patternProperties !== undefined) members.push(true)
  if (additionalProperties !== undefined ? additionalProperties !== false : known.length === 0)
    members.push(additionalProperties ?? true)
  return members
}

function matches(segment: Extract<PathSegment, { kind: 'key' | 'any-key' }>, key: string): boolean {
  return segment.kind === 'key' ? key === segment.key : key.startsWith(segment.prefix) && key.endsWith(segment.suffix)
}

function elementsAt(
  schema: Record<string, unknown>,
  segment: Extract<PathSegment, { kind: 'index' | 'any-index' }>,
): unknown[] {
  const { items, prefixItems } = schema
  const elements: unknown[] = []
  if (Array.isArray(prefixItems))
    elements.push(...(segment.kind === 'index' ? prefixItems.slice(segment.index, segment.index + 1) : prefixItems))
  elements.push(items ?? true)
  return elements
}

function resolve(reference: string, root: JsonSchema): unknown {
  if (!reference.startsWith('#')) return true
  let target: unknown = root
  for (const step of reference.slice(1).split('/').filter(Boolean)) {
    const key = decodeURIComponent(step).replaceAll('~1', '/').replaceAll('~0', '~')
    target =
      typeof target === 'object' && target !== null && Object.hasOwn(target, key)
        ? (target as Record<string, unknown>)[key]
        : true
  }
  return target
}
