import { isLLMError, type LLMError, OutputError, ToolError } from './errors.ts'
import type { FinishReason, ToolCallEvent } from './events.ts'
import type { LLMRequest, ToolChoice } from './request.ts'
import { issuePath, type StandardIssue, type StandardResult } from './schema.ts'
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
  call: AccumulatedToolCall,
  tool: Tool | undefined,
): ToolCallEvent | Promise<ToolCallEvent> {
  const { toolCallId, toolName, input } = call
  const toEvent = (result: StandardResult<unknown>): ToolCallEvent => {
    // What is neither, such as the boolean of a bare predicate, must not pass for consent.
    if (typeof result !== 'object' || !('issues' in result || 'value' in result))
      throw new TypeError('a validator returns { value } or { issues }')
    if (result.issues) throw schemaMismatch(call, result.issues, tool)
    return { type: 'tool-call', toolCallId, toolName, input: result.value }
  }
  const failed = (cause: unknown): LLMError =>
    isLLMError(cause)
      ? cause
      : new OutputError('validator_error', `The validator of tool "${toolName}" failed. See \`cause\`.`, {
          phase: 'validate',
          cause,
          toolName,
          toolCallId,
        })
  try {
    const result = tool?.validate ? tool.validate(input) : { value: input }
    if (!(result instanceof Promise)) return toEvent(result)
    const checked = result.then(toEvent).catch((cause: unknown) => {
      throw failed(cause)
    })
    // Nobody looks at it where the validator of another call throws at once.
    checked.catch(() => undefined)
    return checked
  } catch (cause) {
    throw failed(cause)
  }
}

function schemaMismatch(
  { toolCallId, toolName }: AccumulatedToolCall,
  issues: readonly StandardIssue[],
  tool: Tool | undefined,
): OutputError {
  const known = propertyNames(tool?.inputSchema)
  const places = new Set(issues.map((issue) => issuePath(issue, (key) => (known.has(key) ? key : '*')) || 'the whole'))
  return new OutputError(
    'schema_mismatch',
    `The arguments of tool "${toolName}" are against its schema at: ${[...places].slice(0, 8).join(', ')}. See \`issues\`.`,
    {
      phase: 'validate',
      toolName,
      toolCallId,
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
