import { checkOptions } from './check-options.ts'
import { UsageError } from './errors.ts'
import type { OutputFormat } from './request.ts'
import {
  isStandardSchema,
  type JsonSchema,
  readObjectSchema,
  type SchemaInput,
  type SchemaOutput,
  type StandardSchema,
  type Validate,
} from './schema.ts'

/** What the `output` of a request takes. */
export type OutputDefinition = StandardSchema | OutputFormat | JsonSchema

const outputOptions = ['name', 'description', 'strict', 'schema', 'jsonSchema', 'validate']

/** What describes an output, but for its schema. */
export interface OutputOptions {
  /** 1 to 64 letters, digits, `_` and `-`. Default `'output'`. */
  readonly name?: string | undefined
  /** What it is, for the model. Default: the schema alone tells. */
  readonly description?: string | undefined
  /** Whether the provider must hold the model to the schema: `true` fails where it cannot. Default: it holds what it can, and warns of the rest. */
  readonly strict?: boolean | undefined
}

/**
 * Describes the output of a request in more detail than a schema alone, which `output` takes as well. `schema` is a Standard
 * Schema as for `tool()`: the output is checked with it, and typed by it.
 *
 * @throws UsageError where the name or the schema cannot be used.
 *
 * @example
 * ```ts
 * import { outputFormat, StreamingLLMClient } from 'fieldstream'
 * import { anthropic } from 'fieldstream/anthropic'
 * import { z } from 'zod'
 *
 * const client = new StreamingLLMClient({ provider: anthropic({ model: 'claude-haiku-4-5' }) })
 * const report = outputFormat({ name: 'report', schema: z.object({ title: z.string() }), strict: true })
 * const { output } = await client.generate({ messages: [{ role: 'user', content: 'Report!' }], output: report })
 * ```
 */
export function outputFormat<Schema extends StandardSchema>(
  options: OutputOptions & {
    readonly schema: Schema
    /** JSON Schema to send, for schemas that cannot produce one (zod 3). */
    readonly jsonSchema?: JsonSchema | undefined
  },
): OutputFormat<SchemaInput<Schema>, SchemaOutput<Schema>>
/**
 * Describes the output by a plain JSON Schema. It tells the model what to write; the output is only known to be a JSON object
 * unless `validate` checks more (Ajv, for example).
 *
 * @throws UsageError where the name or the schema cannot be used.
 */
export function outputFormat<Output = Record<string, unknown>>(
  options: OutputOptions & {
    readonly schema: JsonSchema
    /** Returns the output, changed or not, or the issues found in it. */
    readonly validate?: Validate<Output> | undefined
  },
): OutputFormat<unknown, Output>
export function outputFormat(
  options: OutputOptions & {
    readonly schema: StandardSchema | JsonSchema
    readonly jsonSchema?: JsonSchema | undefined
    readonly validate?: Validate<unknown> | undefined
  },
): OutputFormat {
  checkOptions('outputFormat()', options, outputOptions)
  const { name = 'output', description, strict } = options
  if (typeof name !== 'string' || !/^[\w-]{1,64}$/.test(name)) {
    throw new UsageError(
      'invalid_argument',
      `The name of an output is 1 to 64 letters, digits, "_" or "-"; got ${JSON.stringify(name)}.`,
    )
  }
  const { jsonSchema, validate } = readObjectSchema(
    { owner: 'the output', schema: 'schema', jsonSchema: 'jsonSchema' },
    options,
  )
  return { name, description, strict, schema: jsonSchema, validate }
}

/** The format that the `output` of a request means. */
export function toOutputFormat(output: OutputDefinition): OutputFormat {
  const { name, schema } = (output as Partial<OutputFormat> | null) ?? {}
  // No JSON Schema has these keywords.
  const isFormat = !isStandardSchema(output) && name !== undefined && schema !== undefined
  if (!isFormat && isStandardSchema(schema)) {
    throw new UsageError(
      'invalid_argument',
      '`output` takes a schema as it is: pass the one in `schema` itself, or outputFormat({ schema }) for its details.',
    )
  }
  return outputFormat(isFormat ? (output as OutputFormat) : { schema: output as JsonSchema })
}
