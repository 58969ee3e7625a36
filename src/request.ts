import type { ToolInputChannel } from './events.ts'
import type { JsonSchema, Validate } from './schema.ts'
import type { Tool } from './tool.ts'

/** Data for one provider's eyes, by provider name. Other providers ignore it. */
export type ProviderMetadata = Readonly<Record<string, Readonly<Record<string, unknown>>>>

export interface TextPart {
  readonly type: 'text'
  readonly text: string
  /** E.g. `{ anthropic: { cache_control: … } }`: merged into what is sent for this part. */
  readonly metadata?: ProviderMetadata | undefined
}

/** A picture: its bytes (or base64) with a media type, or an address the provider fetches. */
export type ImagePart = { readonly type: 'image'; readonly metadata?: ProviderMetadata | undefined } & (
  { readonly data: Uint8Array | string; readonly mediaType: string } | { readonly url: string }
)

/** The model's thinking, with the signature its provider wants back. */
export interface ReasoningPart {
  readonly type: 'reasoning'
  readonly text: string
  readonly metadata?: ProviderMetadata | undefined
}

export interface ToolCallPart {
  readonly type: 'tool-call'
  readonly toolCallId: string
  readonly toolName: string
  /** The arguments as the model wrote them, parsed. */
  readonly input: unknown
  readonly metadata?: ProviderMetadata | undefined
}

export interface ToolResultPart {
  readonly type: 'tool-result'
  readonly toolCallId: string
  readonly toolName?: string | undefined
  /** Text as it is; anything else is sent as JSON. */
  readonly output: unknown
  readonly isError?: boolean | undefined
  readonly metadata?: ProviderMetadata | undefined
}

/** Content in a provider's own form, e.g. a server tool's result or a document. Sent only to that provider. */
export interface ProviderPart {
  readonly type: 'provider'
  readonly provider: string
  readonly value: Readonly<Record<string, unknown>>
}

export interface SystemMessage {
  readonly role: 'system'
  readonly content: string
}

export interface UserMessage {
  readonly role: 'user'
  readonly content: string | readonly (TextPart | ImagePart | ProviderPart)[]
}

export interface AssistantMessage {
  readonly role: 'assistant'
  readonly content: string | readonly (TextPart | ReasoningPart | ToolCallPart | ProviderPart)[]
}

/** Results of tool calls, to follow the assistant message that made the calls. */
export interface ToolMessage {
  readonly role: 'tool'
  readonly content: readonly ToolResultPart[]
}

export type Message = SystemMessage | UserMessage | AssistantMessage | ToolMessage

/** `'required'` means some tool; a tool (or its name in an object) means that one. */
export type ToolChoice = 'auto' | 'none' | 'required' | { readonly name: string }

/** How much the model should think: an effort, or a budget of tokens. */
export type Reasoning = { readonly effort: 'low' | 'medium' | 'high' } | { readonly budgetTokens: number }

/** Something that did not stop the request, but that its author should know. */
export interface LLMWarning {
  /**
   * `'unsupported'`: the provider has no means to do all that an option asks, and does less. `'not-streamed'`: the answer was
   * asked for as a stream, and came in one piece. `'data-after-end'`: the service went on after it had said that the answer was
   * complete, which was ignored.
   */
  readonly code: 'data-after-end' | 'dropped-content' | 'not-streamed' | 'unsupported'
  readonly message: string
}

/** What an answer that is JSON text must look like. Made of the `output` of a `StreamRequest`; `outputFormat()` sets its details. */
export interface OutputFormat<Input = unknown, Output = unknown> {
  /** What the provider calls the format: 1 to 64 letters, digits, `_` and `-`. */
  readonly name: string
  readonly description?: string | undefined
  /** Sent to the provider. Describes an object. */
  readonly schema: JsonSchema
  /** Whether the provider must hold the model to the schema: `true` fails where it cannot, unset warns. */
  readonly strict?: boolean | undefined
  /** Checks the complete output, and may change it; absent where any object will do. */
  readonly validate?: Validate<Output> | undefined
  /** Never present at run time: carries the types of the output before and after validation. */
  readonly '~types'?: { readonly input: Input; readonly output: Output } | undefined
}

/** A request as providers and middleware see it. `client.stream()` takes a `StreamRequest`, which adds fields and a signal. */
export interface LLMRequest {
  readonly messages: readonly Message[]
  /** Instructions that stand before the conversation. */
  readonly system?: string | undefined
  readonly tools?: readonly Tool[] | undefined
  /** Default `'auto'` when there are tools. */
  readonly toolChoice?: ToolChoice | undefined
  /** Makes the text of the answer JSON of this form. */
  readonly output?: OutputFormat | undefined
  /** Which channel carries tool calls. Default `'auto'`: the one in which the provider streams arguments for this request. */
  readonly toolInput?: 'auto' | ToolInputChannel | undefined
  /** Most tokens to generate. Each provider has its own default. */
  readonly maxTokens?: number | undefined
  readonly temperature?: number | undefined
  readonly topP?: number | undefined
  /** Texts that end the answer where the model writes them. */
  readonly stop?: readonly string[] | undefined
  readonly reasoning?: Reasoning | undefined
  /**
   * What becomes of an attempt that fails when some of its output was seen already. Default `'fail'`. `'restart'` lets `retry()`
   * and `fallback()` begin anew, after a `restart` event.
   */
  readonly onInterrupted?: 'fail' | 'restart' | undefined
  /** For middleware: whose request it is, and the like. No provider gets it. */
  readonly metadata?: Readonly<Record<string, unknown>> | undefined
  /** By provider name, passed through as they are: `{ anthropic: { top_k: 5 } }`. */
  readonly providerOptions?: Readonly<Record<string, Readonly<Record<string, unknown>>>> | undefined
  /** Whether `cache()` may give an answer that it has, and keep a new one. Default true. */
  readonly cache?: boolean | undefined
  /** Also emit the provider's own events, as `raw`. Default false. */
  readonly raw?: boolean | undefined
}

/** The tool that the model has to call, where the request leaves it no choice. */
export function forcedTool({ tools = [], toolChoice }: LLMRequest): Tool | undefined {
  if (typeof toolChoice === 'object') return tools.find(({ name }) => name === toolChoice.name)
  return toolChoice === 'required' && tools.length === 1 ? tools[0] : undefined
}

/** Whether a request forces a call whose arguments could as well be asked for as JSON text. */
export function canCallAsJson(request: LLMRequest): boolean {
  const tool = forcedTool(request)
  return tool !== undefined && tool.definition === undefined && request.output === undefined
}
