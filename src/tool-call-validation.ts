import { isLLMError, type LLMError, type LLMErrorOptions, OutputError, ToolError } from './errors.ts'
import type { FinishReason, ToolCallEvent } from './events.ts'
import type { LLMRequest, OutputFormat, ToolChoice } from './request.ts'
import { issuePath, type JsonSchema, type StandardIssue, type StandardResult, type Validate } from './schema.ts'
import type { AccumulatedToolCall } from './tool-stream/tool-stream-accumulator.ts'
import type { Tool } from './tool.ts'

/** Throws where the model calls a tool that the request does not let it call. A request without tools has set no rule. */
export function checkOffered(toolName: string, { tools, toolChoice }: LLMRequest): void {
  const isOffered =
    !tools ||
    (typeof toolChoice === 'object' ? toolChoice.name === toolName : tools.some(({ name }) => name === toolName))
  if (isOffered) return
  const name = /^[\w-]{1,64}$/.test(toolName) ? `"${toolName}"` : 'with a name no tool can have'
  throw new ToolError('tool_not_found', toolName, `The model called a tool ${name} that the request does not offer.`, {
    phase: 'stream',
  })
}

/** Throws where the request forces a call and there is none. */
export function checkForced(
  calls: readonly AccumulatedToolCall[],
  toolChoice: ToolChoice | undefined,
  finishReason: FinishReason,
): void {
  if (calls.length > 0 || !(toolChoice === 'required' || typeof toolChoice === 'object')) return
  const what = typeof toolChoice === 'object' ? `tool "${toolChoice.name}"` : 'a tool'
  throw finishReason === 'length'
    ? new OutputError(
        'output_truncated',
        `The answer reached its token limit before it called ${what}. Raise \`maxTokens\`.`,
        { phase: 'finalize' },
      )
    : new OutputError('no_payload', `The model answered without calling ${what}.`, { phase: 'finalize' })
}

/** The finished call, its input as the tool's schema returns it; at once where the schema answers at once. */
export function validateToolCall(
  { toolCallId, toolName, input }: AccumulatedToolCall,
  tool: Tool | undefined,
): ToolCallEvent | Promise<ToolCallEvent> {
  const toEvent = (value: unknown): ToolCallEvent => ({ type: 'tool-call', toolCallId, toolName, input: value })
  const checked = validate(input, tool?.validate, {
    validator: `The validator of tool "${toolName}"`,
    value: `The arguments of tool "${toolName}" are`,
    schema: tool?.inputSchema,
    facts: { toolName, toolCallId },
  })
  return checked instanceof Promise ? watched(checked.then(toEvent)) : toEvent(checked)
}

/** The output as its schema returns it; at once where the schema answers at once. */
export function validateOutput(output: unknown, { validate: validator, schema }: OutputFormat): unknown {
  return validate(output, validator, {
    validator: 'The validator of the output',
    value: 'The output is',
    schema,
    facts: {},
  })
}

/** How messages speak of what is checked. */
interface Checked {
  readonly validator: string
  readonly value: string
  readonly schema: JsonSchema | undefined
  readonly facts: Pick<LLMErrorOptions, 'toolName' | 'toolCallId'>
}

function validate(value: unknown, validator: Validate<unknown> | undefined, checked: Checked): unknown {
  const read = (result: StandardResult<unknown>): unknown => {
    // What is neither, such as the boolean of a bare predicate, must not pass for consent.
    if (typeof result !== 'object' || !('issues' in result || 'value' in result))
      throw new TypeError('a validator returns { value } or { issues }')
    if (result.issues) throw schemaMismatch(result.issues, checked)
    return result.value
  }
  const failed = (cause: unknown): LLMError =>
    isLLMError(cause)
      ? cause
      : new OutputError('validator_error', `${checked.validator} failed. See \`cause\`.`, {
          phase: 'validate',
          cause,
          ...checked.facts,
        })
  try {
    const result = validator ? validator(value) : { value }
    if (!(result instanceof Promise)) return read(result)
    return watched(
      result.then(read).catch((cause: unknown) => {
        throw failed(cause)
      }),
    )
  } catch (cause) {
    throw failed(cause)
  }
}

/** The same promise. Nobody looks at it where the validator of another call throws at once. */
function watched<Value>(promise: Promise<Value>): Promise<Value> {
  promise.catch(() => undefined)
  return promise
}

function schemaMismatch(issues: readonly StandardIssue[], { value, schema, facts }: Checked): OutputError {
  const known = propertyNames(schema)
  const places = new Set(issues.map((issue) => issuePath(issue, (key) => (known.has(key) ? key : '*')) || 'the whole'))
  return new OutputError(
    'schema_mismatch',
    `${value} against its schema at: ${[...places].slice(0, 8).join(', ')}. See \`issues\`.`,
    {
      phase: 'validate',
      ...facts,
      issues: issues.map((issue) => ({ path: issuePath(issue), message: issue.message })),
    },
  )
}

/** The names a schema gives to members. Other keys in an answer are the model's own words. */
function propertyNames(schema: unknown, found = new Set<string>()): Set<string> {
  if (typeof schema !== 'object' || schema === null) return found
  for (const [key, value] of Object.entries(schema)) {
    if (key === 'properties') for (const name of Object.keys(value as object)) found.add(name)
    propertyNames(value, found)
  }
  return found
}
