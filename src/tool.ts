import { checkOptions } from './check-options.ts'
import { UsageError } from './errors.ts'
import {
  isStandardSchema,
  type JsonSchema,
  type SchemaInput,
  type SchemaOutput,
  type StandardResult,
  type StandardSchema,
} from './schema.ts'

/** A function the model may call. Make one with `tool()`. */
export interface Tool<Name extends string = string, Input = unknown, Output = unknown> {
  readonly name: Name
  readonly description?: string | undefined
  /** Sent to the provider. */
  readonly inputSchema: JsonSchema
  /** Checks complete arguments, and may change them; absent where any object will do. */
  readonly validate?: ((input: unknown) => StandardResult<Output> | Promise<StandardResult<Output>>) | undefined
  /** Asks the provider to constrain the model to the schema. */
  readonly strict?: boolean | undefined
  /** The definition to send instead of the usual one, by provider name. */
  readonly definition?: Readonly<Record<string, Readonly<Record<string, unknown>>>> | undefined
  /** Never present at run time: carries the types of the arguments before and after validation. */
  readonly '~types'?: { readonly input: Input; readonly output: Output } | undefined
}

const toolOptions = ['name', 'description', 'strict', 'definition', 'input', 'inputSchema', 'validate']

/** What describes a tool, but for its schema. */
export interface ToolOptions<Name extends string> {
  /** 1 to 64 letters, digits, `_` and `-`, which every provider accepts. */
  readonly name: Name
  /** What it does and when to call it, for the model. */
  readonly description?: string | undefined
  /** Asks the provider to constrain the model to the schema. Default: the provider's own. */
  readonly strict?: boolean | undefined
  /** For tools a provider knows by itself: the definition to send, by provider name, e.g. `{ anthropic: { type: 'web_search_20250305', name: 'web_search' } }`. */
  readonly definition?: Readonly<Record<string, Readonly<Record<string, unknown>>>> | undefined
}

/**
 * Describes a tool. `input` is a Standard Schema with JSON Schema support (zod 4, ArkType, Valibot through
 * `toStandardJsonSchema`): arguments are checked with it, and typed by it.
 *
 * @throws UsageError where the name or the schema cannot be used.
 */
export function tool<const Name extends string, Schema extends StandardSchema>(
  options: ToolOptions<Name> & {
    readonly input: Schema
    /** JSON Schema to send, for schemas that cannot produce one (zod 3). */
    readonly inputSchema?: JsonSchema | undefined
  },
): Tool<Name, SchemaInput<Schema>, SchemaOutput<Schema>>
/**
 * Describes a tool by a plain JSON Schema, or without a schema. The schema tells the model what to write; arguments are only
 * known to be a JSON object unless `validate` checks more (Ajv, for example).
 */
export function tool<const Name extends string, Output = Record<string, unknown>>(
  options: ToolOptions<Name> & {
    readonly input?: JsonSchema | undefined
    /** Returns the arguments, changed or not, or the issues found in them. */
    readonly validate?: ((input: unknown) => StandardResult<Output> | Promise<StandardResult<Output>>) | undefined
  },
): Tool<Name, unknown, Output>
export function tool(
  options: ToolOptions<string> & {
    readonly input?: StandardSchema | JsonSchema | undefined
    readonly inputSchema?: JsonSchema | undefined
    readonly validate?: Tool['validate']
  },
): Tool {
  checkOptions('tool()', options, toolOptions, ' The schema of its arguments goes into `input`.')
  const { name, description, strict, definition, input = {} } = options
  if (typeof name !== 'string' || !/^[\w-]{1,64}$/.test(name)) {
    throw new UsageError(
      'invalid_argument',
      `A tool's name is 1 to 64 letters, digits, "_" or "-"; got ${JSON.stringify(name)}.`,
    )
  }
  if (!isStandardSchema(input) && (typeof input !== 'object' || input === null || Array.isArray(input))) {
    throw new UsageError(
      'invalid_argument',
      `The \`input\` of tool "${name}" must be a Standard Schema (zod 4, Valibot, ArkType) or a JSON Schema object.`,
    )
  }
  if (!isStandardSchema(input) && options.inputSchema !== undefined) {
    throw new UsageError(
      'invalid_argument',
      `\`inputSchema\` of tool "${name}" is the JSON Schema of a Standard Schema in \`input\`. A schema alone goes into \`input\`.`,
    )
  }
  if (options.validate !== undefined && typeof options.validate !== 'function') {
    throw new UsageError('invalid_argument', `\`validate\` of tool "${name}" must be a function.`)
  }
  const inputSchema = isStandardSchema(input)
    ? (options.inputSchema ?? toJsonSchema(name, input))
    : { type: 'object', ...input }
  if (inputSchema['type'] !== 'object') {
    throw new UsageError(
      'invalid_argument',
      `The \`input\` of tool "${name}" must describe an object: models call tools with named arguments. Wrap anything else, a union too: { value: … }.`,
    )
  }
  return {
    name,
    description,
    strict,
    definition,
    inputSchema,
    validate: isStandardSchema(input) ? (value) => input['~standard'].validate(value) : options.validate,
  }
}

function toJsonSchema(name: string, schema: StandardSchema): JsonSchema {
  const { vendor, jsonSchema } = schema['~standard']
  if (!jsonSchema) {
    throw new UsageError(
      'invalid_argument',
      `The schema of tool "${name}" (${vendor}) cannot describe itself as JSON Schema. Use zod 4, ArkType, or Valibot with \`toStandardJsonSchema\` of @valibot/to-json-schema; or pass the JSON Schema as \`inputSchema\`.`,
    )
  }
  try {
    const { $schema: _, ...described } = jsonSchema.input({ target: 'draft-2020-12' })
    return described
  } catch (cause) {
    throw new UsageError(
      'invalid_argument',
      `The schema of tool "${name}" (${vendor}) holds something JSON Schema cannot say. Simplify it, or pass the JSON Schema as \`inputSchema\`.`,
      { cause },
    )
  }
}
