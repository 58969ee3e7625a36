import type { ToolInputChannel } from './events.ts'
import type { JsonSchema, Validate } from './schema.ts'
import type { Tool } from './tool.ts'

/** Data for one provider's eyes, by provider name. Other providers ignore it. */
export type ProviderMetadata = Readonly<Record<string, Readonly<Record<string, unknown>>>>

/** Text, in a message of several parts. */
export interface TextPart {
  readonly type: 'text'
  /** The text as it is. */
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
  /** What the model thought, as far as the provider shows it. */
  readonly text: string
  /** What the provider wants to see again with it, e.g. a signature. */
  readonly metadata?: ProviderMetadata | undefined
}

/** A call that the model made. */
export interface ToolCallPart {
  readonly type: 'tool-call'
  /** The id that its result names. */
  readonly toolCallId: string
  /** The tool that was called. */
  readonly toolName: string
  /** The arguments as the model wrote them, parsed. */
  readonly input: unknown
  /** What the provider wants to see again with this call. */
  readonly metadata?: ProviderMetadata | undefined
}

/** What a tool gave, for the model. */
export interface ToolResultPart {
  readonly type: 'tool-result'
  /** The call that it answers. */
  readonly toolCallId: string
  /** The tool that ran. Needed by services that match results by name; default: that of the call. */
  readonly toolName?: string | undefined
  /** Text as it is; anything else is sent as JSON. */
  readonly output: unknown
  /** Whether the tool failed, and `output` says how. Default false. */
  readonly isError?: boolean | undefined
  /** Merged into what is sent for this part. */
  readonly metadata?: ProviderMetadata | undefined
}

/** Content in a provider's own form, e.g. a server tool's result or a document. Sent only to that provider. */
export interface ProviderPart {
  readonly type: 'provider'
  /** The name of the provider that understands it. */
  readonly provider: string
  /** The block as it goes over the wire. */
  readonly value: Readonly<Record<string, unknown>>
}

/** Instructions between the turns of a conversation; those before it go into `system`. */
export interface SystemMessage {
  readonly role: 'system'
  /** The instructions. */
  readonly content: string
}

/** What the user said or showed. */
export interface UserMessage {
  readonly role: 'user'
  /** Text, or parts in order. */
  readonly content: string | readonly (TextPart | ImagePart | ProviderPart)[]
}

/** What the model said. `messages` of a response has it ready for the next turn. */
export interface AssistantMessage {
  readonly role: 'assistant'
  /** Text, or its parts in the order in which they were written. */
  readonly content: string | readonly (TextPart | ReasoningPart | ToolCallPart | ProviderPart)[]
}

/** Results of tool calls, to follow the assistant message that made the calls. */
export interface ToolMessage {
  readonly role: 'tool'
  /** One result for each call of the message before. */
  readonly content: readonly ToolResultPart[]
}

/** One turn of a conversation, or instructions between its turns. */
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
   * complete, which was ignored. `'dropped-content'`: a part of the messages, or of the answer,
   * could not be passed on and was left out.
   */
  readonly code: 'data-after-end' | 'dropped-content' | 'not-streamed' | 'unsupported'
  /** What happened, in a sentence. */
  readonly message: string
}

/** What an answer that is JSON text must look like. Made of the `output` of a `StreamRequest`; `outputFormat()` sets its details. */
export interface OutputFormat<Input = unknown, Output = unknown> {
  /** What the provider calls the format: 1 to 64 letters, digits, `_` and `-`. */
  readonly name: string
  /** What it is, for the model. */
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
  /** The conversation so far, oldest first. */
  readonly messages: readonly Message[]
  /** Instructions that stand before the conversation. Default: none. */
  readonly system?: string | undefined
  /** The functions that the model may call. Default: none. */
  readonly tools?: readonly Tool[] | undefined
  /** Whether, and what, the model must call. Default `'auto'` when there are tools. */
  readonly toolChoice?: ToolChoice | undefined
  /** Makes the text of the answer JSON of this form. Default: plain text. */
  readonly output?: OutputFormat | undefined
  /** Which channel carries tool calls. Default `'auto'`: the one in which the provider streams arguments for this request. */
  readonly toolInput?: 'auto' | ToolInputChannel | undefined
  /** Most tokens to generate. Each provider has its own default. */
  readonly maxTokens?: number | undefined
  /** How freely the model chooses: a number from 0 to 1, or to 2, as the service has it. Default: the service's own. */
  readonly temperature?: number | undefined
  /** The share of likely words the model chooses among, a number from 0 to 1. Default: the service's own. */
  readonly topP?: number | undefined
  /** Texts that end the answer where the model writes them. Default: none. */
  readonly stop?: readonly string[] | undefined
  /** How much the model should think. Default: the service's own. */
  readonly reasoning?: Reasoning | undefined
  /**
   * What becomes of an attempt that fails when some of its output was seen already. Default `'fail'`. `'restart'` lets `retry()`
   * and `fallback()` begin anew, after a `restart` event.
   */
  readonly onInterrupted?: 'fail' | 'restart' | undefined
  /** For middleware: whose request it is, and the like. No provider gets it. Default: none. */
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
