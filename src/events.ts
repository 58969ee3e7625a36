import type { ErrorCode, OutputIssue } from './errors.ts'
import type { LLMWarning, ProviderMetadata, ProviderPart } from './request.ts'

/**
 * How an answer ended. `'length'` means a token limit; `'pause'` that the provider wants the conversation sent back to go on;
 * `'other'` a reason this version does not know (`providerFinishReason` has it).
 */
export type FinishReason = 'stop' | 'length' | 'tool-calls' | 'refusal' | 'content-filter' | 'pause' | 'other'

/** Tokens of one answer. `raw` is what the provider reported, under its own names. */
export interface Usage {
  /** All prompt tokens, those read from or written to a cache included. */
  readonly inputTokens: number
  /** All generated tokens, reasoning included. */
  readonly outputTokens: number
  /** Prompt and answer together. */
  readonly totalTokens: number
  /** Prompt tokens that the provider had in its own cache; 0 where it does not say. */
  readonly cacheReadTokens: number
  /** Prompt tokens that the provider put there; 0 where it does not say. */
  readonly cacheWriteTokens: number
  /** Generated tokens that were reasoning; `undefined` where the provider does not say. */
  readonly reasoningTokens?: number | undefined
  /** What the provider reported, under its own names; empty where several answers were added up. */
  readonly raw: Record<string, unknown>
}

/** The tokens of two answers. What each provider reported is not added up. */
export function addUsage(a: Usage, b: Usage): Usage {
  const isKnown = a.reasoningTokens !== undefined || b.reasoningTokens !== undefined
  return {
    inputTokens: a.inputTokens + b.inputTokens,
    outputTokens: a.outputTokens + b.outputTokens,
    totalTokens: a.totalTokens + b.totalTokens,
    cacheReadTokens: a.cacheReadTokens + b.cacheReadTokens,
    cacheWriteTokens: a.cacheWriteTokens + b.cacheWriteTokens,
    ...(isKnown && { reasoningTokens: (a.reasoningTokens ?? 0) + (b.reasoningTokens ?? 0) }),
    raw: {},
  }
}

/** What carries tool calls: the provider's own protocol, JSON text held to the tool's schema, or tags in plain text. */
export type ToolInputChannel = 'native' | 'json' | 'xml'

/** The answer has begun: the provider named its model and response. */
export interface StartEvent {
  readonly type: 'start'
  /** The provider that answers: of a `fallback()`, the one that was asked. */
  readonly provider: string
  /** The model as the provider named it. */
  readonly model: string
  /** The provider's id of the answer; absent where it gives none. */
  readonly responseId?: string | undefined
  /** The provider's id of the HTTP request, for its support. */
  readonly requestId?: string | undefined
  /** The channel that carries the tool calls of this answer. */
  readonly toolInput: ToolInputChannel
  /** Which attempt this is, counted from 1. */
  readonly attempt?: number | undefined
  /** Whether the answer is one that was given before, or is being given to an equal request: nobody pays for it again. */
  readonly cached?: boolean | undefined
  /** What the provider cannot do as it was asked; absent where there is nothing. */
  readonly warnings?: readonly LLMWarning[] | undefined
}

/** A piece of the plain text of the answer. */
export interface TextDeltaEvent {
  readonly type: 'text-delta'
  /** The next characters. */
  readonly delta: string
}

/** A piece of the model's thinking, where the provider shows it. */
export interface ReasoningDeltaEvent {
  readonly type: 'reasoning-delta'
  /** The next characters. */
  readonly delta: string
}

/** The model begins to write a call. */
export interface ToolInputStartEvent {
  readonly type: 'tool-input-start'
  /** As the provider gave it, or made up where it gives none; unique within the answer. */
  readonly toolCallId: string
  /** As the model wrote it; not yet known to be a tool of the request. */
  readonly toolName: string
}

/** The next piece of the arguments' JSON text, as it came. */
export interface ToolInputDeltaEvent {
  readonly type: 'tool-input-delta'
  /** That of the `tool-input-start`. */
  readonly toolCallId: string
  /** The next characters of the JSON text, undecoded. */
  readonly delta: string
}

/** The arguments of one call are written. Nothing is validated yet: see `tool-call`. */
export interface ToolInputEndEvent {
  readonly type: 'tool-input-end'
  /** That of the `tool-input-start`. */
  readonly toolCallId: string
  /** What the provider needs to see again with this call next turn. */
  readonly metadata?: ProviderMetadata | undefined
}

/** A provider's event as it came, when the request asked for `raw`. */
export interface RawEvent {
  readonly type: 'raw'
  /** The parsed JSON of one event on the wire. */
  readonly value: unknown
}

/**
 * Ends the text or reasoning that was being written, and attaches what the provider needs to see again with it next turn
 * (a signature, citations). For providers; consumers do not get it.
 */
export interface PartEndEvent {
  readonly type: 'part-end'
  /** Which of the two it ends. */
  readonly kind: 'text' | 'reasoning'
  /** By provider name. Absent where there is nothing to be seen again. */
  readonly metadata?: ProviderMetadata | undefined
}

/** A block that only its provider understands, kept in order for the next turn. For providers; consumers do not get it. */
export interface PartEvent {
  readonly type: 'part'
  /** The block as it goes into the next turn's messages. */
  readonly part: ProviderPart
}

/** Tokens known so far, so that an answer that fails still has a count. For providers; consumers do not get it. */
export interface UsageEvent {
  readonly type: 'usage'
  /** All that is known by now, not what was added. */
  readonly usage: Usage
}

/** Something a consumer should know that is no error. Collected into the response's `warnings`. */
export interface WarningEvent {
  readonly type: 'warning'
  /** As it will stand in the response. */
  readonly warning: LLMWarning
}

/** The provider's terminal evidence was seen. A provider yields nothing after it, and never yields it without the evidence. */
export interface ProviderFinishEvent {
  readonly type: 'finish'
  /** How the answer ended, in the words that all providers share. */
  readonly finishReason: FinishReason
  /** The provider's own word for it. */
  readonly providerFinishReason: string
  /** The tokens of the whole answer. */
  readonly usage: Usage
  /** Why it was refused or filtered, in the words of the provider or the model; goes into the error's `providerMessage`. */
  readonly explanation?: string | undefined
}

/** A target that was asked. */
export interface Target {
  /** The provider's `name`. */
  readonly provider: string
  /** The provider's `model`. */
  readonly model: string
}

/**
 * The attempt whose output was seen failed, and another one has begun: all that was shown is void, and what follows counts from
 * zero. Comes only where the request has `onInterrupted: 'restart'`.
 */
export interface RestartEvent {
  readonly type: 'restart'
  /** The number of the new attempt, counted from 1. */
  readonly attempt: number
  /** What ended the attempt before: the `code` and the `message` of its error. */
  readonly reason: { readonly code: string; readonly message: string }
  /** The target whose attempt failed. */
  readonly from: Target
  /** The target that is asked now; the same where the attempt is repeated. */
  readonly to: Target
}

/** What providers and middleware yield: the vocabulary every wire protocol is mapped to. */
export type StreamEvent =
  | StartEvent
  | TextDeltaEvent
  | ReasoningDeltaEvent
  | ToolInputStartEvent
  | ToolInputDeltaEvent
  | ToolInputEndEvent
  | PartEndEvent
  | PartEvent
  | UsageEvent
  | WarningEvent
  | RawEvent
  | RestartEvent
  | ProviderFinishEvent

/** The next characters of a string field. All deltas of one `path`, joined, are its final value. */
export interface FieldDeltaEvent<Field extends string = string> {
  readonly type: 'field-delta'
  /** The name the field was registered under. */
  readonly field: Field
  /** Where it stands in the arguments or the output, e.g. `ask_slots[0].message`. */
  readonly path: string
  /** What the path's captures matched. */
  readonly params: Readonly<Record<string, string>>
  /** Empty only where, after a `restart`, a value ends before what was shown of it; half a surrogate pair only where the value itself holds one. */
  readonly delta: string
  /** Characters (UTF-16 code units) of this field so far in this call or output, this delta included. Starts anew after `restart`. */
  readonly length: number
  /** The call it stands in; `undefined` in the output. */
  readonly toolCallId: string | undefined
  /** The tool that is called; `undefined` in the output. */
  readonly toolName: string | undefined
}

/** A field closed: its value is final, though the whole answer is not yet known to be. */
export interface FieldEndEvent<Field extends string = string, Value = unknown> {
  readonly type: 'field-end'
  /** The name the field was registered under. */
  readonly field: Field
  /** Where it stands in the arguments or the output, e.g. `ask_slots[0].message`. */
  readonly path: string
  /** What the path's captures matched, e.g. `{ part: '2' }`. */
  readonly params: Readonly<Record<string, string>>
  /** As the model wrote it, also where a schema would transform it; where it is not invalid, what `map` makes of it. */
  readonly value: Value
  /** Whether the field's own schema accepts the value; `undefined` where it has none. */
  readonly valid: boolean | undefined
  /** What the field's schema found, where `valid` is false; paths are relative to the value, which then is as the model wrote it. */
  readonly issues?: readonly OutputIssue[] | undefined
  /** The call it stands in; `undefined` in the output. */
  readonly toolCallId: string | undefined
  /** The tool that is called; `undefined` in the output. */
  readonly toolName: string | undefined
}

/** What an accumulator reports of the registered fields. */
export type FieldEvent = FieldDeltaEvent | FieldEndEvent

/** A whole call: the evidence was seen, the text parsed with `JSON.parse`, the schema passed. */
export interface ToolCallEvent<Name extends string = string, Input = unknown> {
  readonly type: 'tool-call'
  /** The same as in the events of this call while it was written. */
  readonly toolCallId: string
  /** A tool of the request. */
  readonly toolName: Name
  /** The arguments as the tool's schema returns them. */
  readonly input: Input
}

/** When a field first and last grew, in milliseconds since the run began. */
export interface FieldTimes {
  /** The first of it arrived. */
  readonly firstMs: number
  /** The last of it, or its end, arrived. */
  readonly lastMs: number
}

/** How long the run waited for each chunk after the first, in milliseconds; what its consumer takes does not count. */
export interface ChunkGaps {
  /** Half of the waits were at most this. Within 5 %, as `p95Ms`. */
  readonly p50Ms: number
  /** Nineteen of twenty waits were at most this. */
  readonly p95Ms: number
  /** The longest wait. */
  readonly maxMs: number
}

/** What a tool that runs says on its way. Comes only from `client.run()`, as the other events of tools that run. */
export interface ToolProgressEvent<Name extends string = string> {
  readonly type: 'tool-progress'
  /** That of its `tool-call`. */
  readonly toolCallId: string
  /** The tool that runs. */
  readonly toolName: Name
  /** As the tool yielded it. */
  readonly value: unknown
}

/** A tool has run. */
export interface ToolResultEvent<Name extends string = string, Output = unknown> {
  readonly type: 'tool-result'
  /** That of its `tool-call`. */
  readonly toolCallId: string
  /** The tool that ran. */
  readonly toolName: Name
  /** What it returned. */
  readonly output: Output
}

/** A tool failed, ran out of time, or was not approved. */
export interface ToolErrorEvent<Name extends string = string> {
  readonly type: 'tool-error'
  /** That of its `tool-call`. */
  readonly toolCallId: string
  /** The tool that was called. */
  readonly toolName: Name
  /** Nothing of what the tool itself said: that is the `cause` of the error which `onError` of the client hears. */
  readonly error: { readonly code: ErrorCode; readonly message: string }
}

/** What `client.run()` says of tools that run. */
export type ToolEvent = ToolProgressEvent | ToolResultEvent | ToolErrorEvent

/** When what happened, in milliseconds since the run began (monotonic clock), and how much of it. */
export interface Metrics {
  /** Until a service first began to answer; `undefined` where none did, as with an answer from a cache. */
  readonly timeToFirstByteMs: number | undefined
  /** Until the first event of an answer, as a rule its `start`; `undefined` where none came. */
  readonly timeToFirstEventMs: number | undefined
  /** Until the first character of plain text; `undefined` where there was none. */
  readonly timeToFirstTextMs: number | undefined
  /** Until the first event of any field; `undefined` where there was none. */
  readonly timeToFirstFieldMs: number | undefined
  /** By the name of the field, those that were seen. */
  readonly fields: Readonly<Record<string, FieldTimes>>
  /** The whole run, to its end. */
  readonly durationMs: number
  /** How often a provider was asked. */
  readonly attempts: number
  /** Whether a provider was asked that stands in for another. */
  readonly fallbackUsed: boolean
  /** How long the request waited for its turn, behind `rateLimit()`. */
  readonly queuedMs: number
  /** As on `start`: nobody paid for the answer again. Of `client.run()`, that of the last step. */
  readonly cached: boolean
  /** How many network reads, or events where the provider does not hand out reads. */
  readonly chunks: number
  /** Between the chunks of an answer; `undefined` where none had more than one. */
  readonly chunkGaps: ChunkGaps | undefined
  /** Characters of text, reasoning and tool arguments. */
  readonly characters: number
  /** Generated tokens by second, over the whole run but the wait for its turn; `undefined` where nothing was generated, or its tokens are not known. */
  readonly outputTokensPerSecond: number | undefined
}

/** The end of an answer that is complete and valid. Nothing comes after it; a run that fails has none, but its error. */
export interface FinishEvent {
  readonly type: 'finish'
  /** How the answer ended. */
  readonly finishReason: FinishReason
  /** The provider's own word for it. */
  readonly providerFinishReason: string
  /** Tokens, of all steps of `client.run()`. */
  readonly usage: Usage
  /** When what happened in this run. */
  readonly metrics: Metrics
}

/** How much of the answer is written, where the request asked for `progress`. */
export interface ProgressEvent {
  readonly type: 'progress'
  /** Estimated, in hundredths: it only grows, and is 1 only once the answer is complete and valid, just before its `tool-call`s and `finish`. */
  readonly ratio: number
}

/** How much of a field was shown before a `restart`. */
export interface ShownText {
  /** `undefined` for the plain text. */
  readonly field: string | undefined
  /** Where the field stands; `undefined` for the plain text. */
  readonly path: string | undefined
  /** Characters (UTF-16 code units) that were shown. */
  readonly length: number
}

/** A number that only grows, given to each event of one run. A delta that merged with earlier ones has the newest number. */
export interface Sequenced {
  /** Counted from 1. What a consumer that comes back gives to `subscribe()`. */
  readonly seq: number
}

/** What a consumer sees: plain JSON, in order. Prefer the type that `client.stream()` infers. */
export type ResponseEvent<
  Field extends FieldEvent = FieldEvent,
  Call extends ToolCallEvent = ToolCallEvent,
  Run extends ToolEvent = ToolEvent,
> = Sequenced &
  (
    | (StartEvent & { readonly attempt: number; readonly cached: boolean })
    | (TextDeltaEvent & {
        /**
         * Characters (UTF-16 code units) of the text so far, this delta included. Starts anew in each step of `client.run()`, and
         * after `restart`.
         */
        readonly length: number
      })
    | ReasoningDeltaEvent
    | ToolInputStartEvent
    | ToolInputDeltaEvent
    | ToolInputEndEvent
    | (RestartEvent & {
        /** How much of each field, and of the text (`path: undefined`), was shown. */
        readonly shown: readonly ShownText[]
      })
    | Field
    | ProgressEvent
    | Call
    | Run
    | RawEvent
    | FinishEvent
  )

/** The types of events. */
export const eventTypes = [
  'start',
  'text-delta',
  'reasoning-delta',
  'tool-input-start',
  'tool-input-delta',
  'tool-input-end',
  'field-delta',
  'field-end',
  'progress',
  'tool-call',
  'tool-progress',
  'tool-result',
  'tool-error',
  'finish',
  'restart',
  'raw',
] as const satisfies ResponseEvent['type'][]
