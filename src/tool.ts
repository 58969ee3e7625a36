import { checkOptions } from './check-options.ts'
import { UsageError } from './errors.ts'
import {
  type JsonSchema,
  readObjectSchema,
  type SchemaInput,
  type SchemaOutput,
  type StandardSchema,
  type Validate,
} from './schema.ts'

/** A function the model may call. Make one with `tool()`. */
export interface Tool<Name extends string = string, Input = unknown, Output = unknown> {
  readonly name: Name
  readonly description?: string | undefined
  /** Sent to the provider. */
  readonly inputSchema: JsonSchema
  /** Checks complete arguments, and may change them; absent where any object will do. */
  readonly validate?: Validate<Output> | undefined
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
    readonly validate?: Validate<Output> | undefined
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
  const { jsonSchema, validate } = readObjectSchema(
    { owner: `tool "${name}"`, schema: 'input', jsonSchema: 'inputSchema' },
    { schema: input, jsonSchema: options.inputSchema, validate: options.validate },
  )
  return { name, description, strict, definition, inputSchema: jsonSchema, validate }
}
