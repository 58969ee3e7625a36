import { type JsonSchema, resolveReference } from '../schema.ts'
import { parseJson } from './json-text.ts'

/** The JSON types a parameter may have; `undefined` where its schema does not say. */
export type ParameterTypes = ReadonlySet<string> | undefined

// Deeper than any honest chain of references.
const maxReferences = 64

export function parameterTypes(schema: JsonSchema, key: string): ParameterTypes {
  const properties = schema['properties']
  return typesOf((properties as Record<string, unknown> | undefined)?.[key], schema, 0)
}

function typesOf(schema: unknown, root: JsonSchema, references: number): ParameterTypes {
  if (typeof schema !== 'object' || schema === null || references > maxReferences) return undefined
  const { type, enum: values, anyOf, oneOf, allOf, $ref, ...rest } = schema as Record<string, unknown>
  if (type !== undefined) return new Set([type].flat().map(String))
  if ('const' in rest) return new Set([typeName(rest['const'])])
  if (Array.isArray(values)) return new Set(values.map(typeName))
  const each = (schemas: readonly unknown[]) => schemas.map((part) => typesOf(part, root, references + 1))
  const either = anyOf ?? oneOf
  if (Array.isArray(either)) {
    const types = each(either)
    return types.includes(undefined) ? undefined : new Set(types.flatMap((known) => [...known!]))
  }
  if (Array.isArray(allOf)) return each(allOf).find((known) => known !== undefined)
  return typeof $ref === 'string' ? typesOf(resolveReference($ref, root), root, references + 1) : undefined
}

function typeName(value: unknown): string {
  return value === null ? 'null' : Array.isArray(value) ? 'array' : typeof value
}

// Chat templates show earlier calls to Qwen3-Coder in Python's spelling, so it writes it too.
const pythonLiterals: Readonly<Record<string, string>> = { True: 'true', False: 'false', None: 'null' }

/**
 * The JSON text of a parameter's value, which the model wrote as JSON or, where it may be a string, as text; `undefined` where
 * it is neither. Text that could be both is a string only where its schema leaves no other reading.
 */
export function toJsonText(text: string, types: ParameterTypes): string | undefined {
  const trimmed = text.trim()
  const json = types && Object.hasOwn(pythonLiterals, trimmed) ? pythonLiterals[trimmed]! : trimmed
  const value = parseJson(json)
  if (!types) return value === undefined ? JSON.stringify(text) : json
  if (!types.has('string')) return value === undefined ? undefined : json
  const type = typeName(value)
  const isOther = type !== 'string' && (types.has(type) || (type === 'number' && types.has('integer')))
  return isOther ? json : JSON.stringify(text)
}
