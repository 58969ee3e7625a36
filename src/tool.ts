import { checkOptions } from './check-options.ts'
import { UsageError } from './errors.ts'
import type { Message } from './request.ts'
import {
  type JsonSchema,
  readObjectSchema,
  type SchemaInput,
  type SchemaOutput,
  type StandardSchema,
  type Validate,
} from './schema.ts'

/** What a tool is told about the call it runs for. */
export interface ToolContext {
  /** Fires where nobody waits for the tool any more: it ran out of time, or the run is over. */
  readonly signal: AbortSignal
  /** The same whenever this call is spoken of, e.g. to do it only once. */
  readonly toolCallId: string
  /** The conversation that the model answered with the call. */
  readonly messages: readonly Message[]
}

/** What running a tool gives: of a generator, what it returns. */
export type ToolOutput<Returned> =
  Returned extends AsyncGenerator<unknown, infer Output, unknown>
    ? Output
    : Returned extends Generator<unknown, infer Output, unknown>
      ? Awaited<Output>
      : Awaited<Returned>

/** A function the model may call. Make one with `tool()`. */
export interface Tool<Name extends string = string, Input = unknown, Output = unknown, Result = unknown> {
  /** What the model calls it by. */
  readonly name: Name
  /** What it does and when to call it, for the model. */
  readonly description?: string | undefined
  /** Sent to the provider. */
  readonly inputSchema: JsonSchema
  /** Checks complete arguments, and may change them; absent where any object will do. */
  readonly validate?: Validate<Output> | undefined
  /** Asks the provider to constrain the model to the schema. */
  readonly strict?: boolean | undefined
  /** The definition to send instead of the usual one, by provider name. */
  readonly definition?: Readonly<Record<string, Readonly<Record<string, unknown>>>> | undefined
  /** Runs the tool, where `client.run()` is asked to; takes checked arguments. */
  execute?(input: Output, context: ToolContext): unknown
  /** Most milliseconds that it may run; `false` is no limit. Set by `tool()`: 60,000 by default. */
  readonly timeout?: number | false | undefined
  /** Whether the application is asked before it runs. */
  needsApproval?(input: Output, context: ToolContext): boolean | Promise<boolean>
  /** Never present at run time: carries the types of the arguments before and after validation, and of what `execute` gives. */
  readonly '~types'?: { readonly input: Input; readonly output: Output; readonly result: Result } | undefined
}

const toolOptions = [
  'name',
  'description',
  'strict',
  'definition',
  'input',
  'inputSchema',
  'validate',
  'execute',
  'timeout',
  'needsApproval',
]

const defaultTimeout = 60_000
/** The longest delay that timers take. */
const maxTimeout = 2_147_483_647

/** What describes a tool, but for its schema. */
export interface ToolOptions<Name extends string> {
  /** 1 to 64 letters, digits, `_` and `-`, which every provider accepts. */
  readonly name: Name
  /** What it does and when to call it, for the model. Default: nothing but its name tells. */
  readonly description?: string | undefined
  /** Asks the provider to constrain the model to the schema. Default: the provider's own. */
  readonly strict?: boolean | undefined
  /** For tools a provider knows by itself: the definition to send, by provider name, e.g. `{ anthropic: { type: 'web_search_20250305', name: 'web_search' } }`. */
  readonly definition?: Readonly<Record<string, Readonly<Record<string, unknown>>>> | undefined
}

/** How a tool runs. */
export interface ToolExecution<Input, Returned> {
  /**
   * Runs the tool, for `client.run()`: returns its output, which must be JSON, or a promise of it. A generator, async or not,
   * tells of its progress with what it yields, and returns the output. What it throws goes back to the model by its `message`.
   */
  readonly execute?: ((input: Input, context: ToolContext) => Returned) | undefined
  /** Most milliseconds that it may run, waiting for approval not included. Default 60,000; `false` is no limit. */
  readonly timeout?: number | false | undefined
  /** Whether `onToolApproval` of the run is asked before it runs: always, or where the function says so. Default false. */
  readonly needsApproval?: boolean | ((input: Input, context: ToolContext) => boolean | Promise<boolean>) | undefined
}

/**
 * Describes a tool. `input` is a Standard Schema with JSON Schema support (zod 4, ArkType, Valibot through
 * `toStandardJsonSchema`): arguments are checked with it, and typed by it. With `execute`, `client.run()` runs it.
 *
 * @throws UsageError where the name or the schema cannot be used.
 *
 * @example
 * ```ts
 * const search = tool({
 *   name: 'search_products',
 *   description: 'Finds products by words.',
 *   input: z.object({ words: z.string(), limit: z.number().optional() }),
 * })
 * ```
 */
export function tool<const Name extends string, Schema extends StandardSchema, Returned = never>(
  options: ToolOptions<Name> & {
    readonly input: Schema
    /** JSON Schema to send, for schemas that cannot produce one (zod 3). */
    readonly inputSchema?: JsonSchema | undefined
  } & ToolExecution<SchemaOutput<Schema>, Returned>,
): Tool<Name, SchemaInput<Schema>, SchemaOutput<Schema>, ToolOutput<Returned>>
/**
 * Describes a tool by a plain JSON Schema, or without a schema. The schema tells the model what to write; arguments are only
 * known to be a JSON object unless `validate` checks more (Ajv, for example).
 *
 * @throws UsageError where the name or the schema cannot be used.
 */
export function tool<const Name extends string, Output = Record<string, unknown>, Returned = never>(
  options: ToolOptions<Name> & {
    readonly input?: JsonSchema | undefined
    /** Returns the arguments, changed or not, or the issues found in them. */
    readonly validate?: Validate<Output> | undefined
  } & ToolExecution<Output, Returned>,
): Tool<Name, unknown, Output, ToolOutput<Returned>>
export function tool(
  options: ToolOptions<string> & {
    readonly input?: StandardSchema | JsonSchema | undefined
    readonly inputSchema?: JsonSchema | undefined
    readonly validate?: Tool['validate']
  } & ToolExecution<unknown, unknown>,
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
  return { name, description, strict, definition, inputSchema: jsonSchema, validate, ...readExecution(name, options) }
}

function readExecution(
  name: string,
  { execute, timeout, needsApproval = false }: ToolExecution<unknown, unknown>,
): Pick<Tool, 'execute' | 'timeout' | 'needsApproval'> {
  const expect = (isSo: boolean, message: string): void => {
    if (!isSo) throw new UsageError('invalid_argument', `${message.replace('%', `tool "${name}"`)}.`)
  }
  expect(execute === undefined || typeof execute === 'function', '`execute` of % must be a function')
  const isTime = typeof timeout === 'number' && timeout > 0 && timeout <= maxTimeout
  expect(
    timeout === undefined || timeout === false || isTime,
    `\`timeout\` of % must be a number of milliseconds from 1 to ${maxTimeout}, or false for none`,
  )
  expect(['boolean', 'function'].includes(typeof needsApproval), '`needsApproval` of % must be a boolean or a function')
  expect(
    execute !== undefined || (timeout === undefined && needsApproval === false),
    '`timeout` and `needsApproval` of % are for a tool with `execute`',
  )
  if (!execute) return {}
  return {
    execute,
    timeout: timeout ?? defaultTimeout,
    ...(needsApproval !== false && {
      needsApproval: typeof needsApproval === 'function' ? needsApproval : () => true,
    }),
  }
}
