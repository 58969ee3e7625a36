import { UsageError } from '../errors.ts'
import type {
  LLMRequest,
  LLMWarning,
  Message,
  OutputFormat,
  ProviderMetadata,
  ToolCallPart,
  ToolResultPart,
} from '../request.ts'
import type { Json } from './event-mapper.ts'

// What the bodies of requests are made of, whoever they go to.

export function toBase64(data: Uint8Array | string): string {
  if (typeof data === 'string') return data
  let binary = ''
  // In slices: spreading a whole picture would overflow the stack.
  for (let i = 0; i < data.length; i += 8192) binary += String.fromCharCode(...data.subarray(i, i + 8192))
  return btoa(binary)
}

/** @throws UsageError where `value` is no JSON; `what` is the subject of its sentence. */
export function toJsonText(value: unknown, what: string): string {
  try {
    return JSON.stringify(value) ?? ''
  } catch (cause) {
    throw new UsageError('invalid_argument', `${what} cannot be sent as JSON.`, { cause })
  }
}

/** The arguments of an earlier call as text. */
export function toInputText({ input, toolCallId }: ToolCallPart): string {
  return toJsonText(input, `The input of tool call "${toolCallId}"`)
}

/** Throws where the arguments of an earlier call are no JSON: here, and not when all is sent, it is known which call it was. */
export function checkInput(call: ToolCallPart): void {
  toInputText(call)
}

/** A tool's result as text. */
export function toResultText({ output, toolCallId }: ToolResultPart): string {
  return typeof output === 'string' ? output : toJsonText(output, `The output of tool call "${toolCallId}"`)
}

type Setting = 'maxTokens' | 'temperature' | 'topP' | 'stop'

/** The settings of a request that it has, under a service's own names. */
export function toSettings(request: LLMRequest, names: Readonly<Partial<Record<Setting, string>>>): Json {
  const settings: Json = {}
  for (const [setting, name] of Object.entries(names) as [Setting, string][]) {
    const value = request[setting]
    if (value !== undefined && !(Array.isArray(value) && value.length === 0)) settings[name] = value
  }
  return settings
}

/** A conversation for services that take instructions before it: its leading system messages, after `system`, are such. */
export function splitInstructions({ system, messages }: LLMRequest): {
  readonly instructions: string[]
  readonly conversation: readonly Message[]
} {
  const leading = messages.findIndex(({ role }) => role !== 'system')
  const end = leading < 0 ? messages.length : leading
  const instructions = messages.slice(0, end).map(({ content }) => content as string)
  if (system !== undefined) instructions.unshift(system)
  return { instructions, conversation: messages.slice(end) }
}

/** The same request for an answer in one piece. */
export function unstreamed({ stream_options: _, ...body }: Json): Json {
  return { ...body, stream: false }
}

/** Asks for an output in words, where the service cannot be given its schema otherwise. */
export function toOutputInstruction({ schema, description }: OutputFormat): string {
  const task = 'Answer with one JSON object that fits this JSON Schema, and nothing else, no code fence either'
  return `${task}${description === undefined ? '' : ` (${description})`}: ${JSON.stringify(schema)}`
}

export function dropped(what: string): LLMWarning {
  return { code: 'dropped-content', message: `${what} was not sent.` }
}

/** Said of a part in another provider's own form. */
export function foreign(provider: string): LLMWarning {
  return dropped(`Content that only ${provider} understands`)
}

/** Metadata under a provider's name; `undefined` where there is nothing in it but nulls and empty text. */
export function ownMetadata(provider: string, members: Json): ProviderMetadata | undefined {
  const present = Object.entries(members).filter(([, value]) => value !== null && value !== undefined && value !== '')
  return present.length > 0 ? { [provider]: Object.fromEntries(present) } : undefined
}
