/** A JSON Schema document. */
export type JsonSchema = Readonly<Record<string, unknown>>

/** What a Standard Schema's `validate` returns (standardschema.dev, version 1). */
export type StandardResult<Output> =
  { readonly value: Output; readonly issues?: undefined } | { readonly issues: readonly StandardIssue[] }

export interface StandardIssue {
  readonly message: string
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
