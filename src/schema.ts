import { UsageError } from './errors.ts'

/** A JSON Schema document. */
export type JsonSchema = Readonly<Record<string, unknown>>

/** What a Standard Schema's `validate` returns (standardschema.dev, version 1). */
export type StandardResult<Output> =
  { readonly value: Output; readonly issues?: undefined } | { readonly issues: readonly StandardIssue[] }

/** One fault that a Standard Schema found. */
export interface StandardIssue {
  /** The schema's own words, which may quote the value. */
  readonly message: string
  /** The keys that lead to the fault; absent or empty for the value itself. */
  readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined
}

/**
 * The part of Standard Schema, and of its JSON Schema extension, that fieldstream uses: zod 4, ArkType and Valibot (through
 * `toStandardJsonSchema`) fit as they are.
 */
export interface StandardSchema<Input = unknown, Output = Input> {
  readonly '~standard': {
    readonly version: 1
    readonly vendor: string
    validate(value: unknown): StandardResult<Output> | Promise<StandardResult<Output>>
    readonly types?: { readonly input: Input; readonly output: Output } | undefined
    readonly jsonSchema?: { input(options: { readonly target: 'draft-2020-12' }): Record<string, unknown> } | undefined
  }
}

/** What a schema takes, before transforms. */
export type SchemaInput<Schema extends StandardSchema> = NonNullable<Schema['~standard']['types']>['input']
/** What a schema gives, after transforms. */
export type SchemaOutput<Schema extends StandardSchema> = NonNullable<Schema['~standard']['types']>['output']

/** Checks a value, and may change it. */
export type Validate<Output> = (value: unknown) => StandardResult<Output> | Promise<StandardResult<Output>>

// ArkType's schemas are functions, so `typeof` cannot tell.
export function isStandardSchema(schema: unknown): schema is StandardSchema {
  return schema !== null && (typeof schema === 'object' || typeof schema === 'function') && '~standard' in schema
}

/** An issue's path in the notation of field paths, its keys passed through `show`; `''` for the whole value. */
export function issuePath(issue: StandardIssue, show: (key: string) => string = (key) => key): string {
  let path = ''
  for (const step of issue.path ?? []) {
    const key = typeof step === 'object' ? step.key : step
    if (typeof key === 'number') path += `[${key}]`
    else path += `${path === '' ? '' : '.'}${show(String(key))}`
  }
  return path
}

/** What a `$ref` stands for; `true` where it leads out of the document, or nowhere. */
export function resolveReference(reference: string, root: JsonSchema): unknown {
  if (!reference.startsWith('#')) return true
  let target: unknown = root
  for (const step of reference.slice(1).split('/').filter(Boolean)) {
    const key = decoded(step).replaceAll('~1', '/').replaceAll('~0', '~')
    target =
      typeof target === 'object' && target !== null && Object.hasOwn(target, key)
        ? (target as Record<string, unknown>)[key]
        : true
  }
  return target
}

function decoded(step: string): string {
  try {
    return decodeURIComponent(step)
  } catch {
    // A `%` that nobody encoded.
    return step
  }
}

/** The names, for messages, of whatever a schema describes and of the options it came in. */
export interface SchemaNames {
  /** E.g. `tool "search"`. */
  readonly owner: string
  readonly schema: string
  readonly jsonSchema: string
}

/**
 * What to send of a schema of an object, and what to check with.
 *
 * @throws UsageError where it cannot be used.
 */
export function readObjectSchema(
  names: SchemaNames,
  options: {
    readonly schema: StandardSchema | JsonSchema
    readonly jsonSchema?: JsonSchema | undefined
    readonly validate?: Validate<unknown> | undefined
  },
): { readonly jsonSchema: JsonSchema; readonly validate: Validate<unknown> | undefined } {
  const { schema, validate } = options
  const { owner } = names
  if (
    !isStandardSchema(schema) &&
    (typeof schema !== 'object' || (schema as unknown) === null || Array.isArray(schema))
  ) {
    throw new UsageError(
      'invalid_argument',
      `The \`${names.schema}\` of ${owner} must be a Standard Schema (zod 4, Valibot, ArkType) or a JSON Schema object.`,
    )
  }
  if (!isStandardSchema(schema) && options.jsonSchema !== undefined) {
    throw new UsageError(
      'invalid_argument',
      `\`${names.jsonSchema}\` of ${owner} is the JSON Schema of a Standard Schema in \`${names.schema}\`. A schema alone goes into \`${names.schema}\`.`,
    )
  }
  const member = isStandardSchema(schema) ? undefined : Object.keys(schema).find((key) => isStandardSchema(schema[key]))
  if (member !== undefined) {
    throw new UsageError(
      'invalid_argument',
      `The \`${names.schema}\` of ${owner} is no JSON Schema, since its member "${member}" is a schema by itself. Wrap the members in one, e.g. z.object({ ${member}: … }).`,
    )
  }
  if (validate !== undefined && typeof validate !== 'function') {
    throw new UsageError('invalid_argument', `\`validate\` of ${owner} must be a function.`)
  }
  const jsonSchema = isStandardSchema(schema)
    ? (options.jsonSchema ?? toJsonSchema(names, schema))
    : { type: 'object', ...schema }
  if (jsonSchema['type'] !== 'object') {
    throw new UsageError(
      'invalid_argument',
      `The \`${names.schema}\` of ${owner} must describe an object, which is what providers ask models for. Wrap anything else, a union too: { value: … }.`,
    )
  }
  return {
    jsonSchema,
    validate: isStandardSchema(schema) ? (value) => schema['~standard'].validate(value) : validate,
  }
}

function toJsonSchema(names: SchemaNames, schema: StandardSchema): JsonSchema {
  const { vendor, jsonSchema } = schema['~standard']
  if (!jsonSchema) {
    throw new UsageError(
      'invalid_argument',
      `The schema of ${names.owner} (${vendor}) cannot describe itself as JSON Schema. Use zod 4, ArkType, or Valibot with \`toStandardJsonSchema\` of @valibot/to-json-schema; or pass the JSON Schema as \`${names.jsonSchema}\`.`,
    )
  }
  try {
    const { $schema: _, ...described } = jsonSchema.input({ target: 'draft-2020-12' })
    return described
  } catch (cause) {
    throw new UsageError(
      'invalid_argument',
      `The schema of ${names.owner} (${vendor}) holds something JSON Schema cannot say. Simplify it, or pass the JSON Schema as \`${names.jsonSchema}\`.`,
      { cause },
    )
  }
}
