import type { ErrorCode, FinishReason, Provider, StreamEvent, StreamRequest, Usage } from 'fieldstream'
import type { WireLimits } from 'fieldstream/anthropic'
import type { SimulateOptions } from 'fieldstream/testing'
import type { RecordedAnswer } from '../recordings.ts'
import type { Supports } from './supports.ts'

/** JSON off the wire or on it. */
export type Json = Record<string, unknown>

/** How a provider is reached; anything else is an option of its own. */
export interface Connection {
  readonly model?: string
  readonly client?: object
  readonly apiKey?: string | undefined
  readonly baseURL?: string
  readonly fetch?: typeof globalThis.fetch
  readonly headers?: Readonly<Record<string, string>>
  readonly limits?: WireLimits
  readonly [option: string]: unknown
}

export interface ExpectedCall {
  /** `undefined` where the service gives none. */
  readonly id: string | undefined
  readonly name: string
  /** `undefined` where the service sends values, not text: what arrived, ended where it is open, must then say `input`. */
  readonly inputText: string | undefined
  /** `undefined` where the text is no JSON. */
  readonly input: unknown
}

/** What a body says, read in the simplest way there is, by code that shares nothing with the library. */
export interface ExpectedAnswer {
  readonly text: string
  readonly reasoning: string
  readonly calls: readonly ExpectedCall[]
  /** As the service wrote it. */
  readonly usage: Json | undefined
  /** The same as `Usage` counts it, as far as there is no doubt. */
  readonly counts: Partial<Usage>
  readonly finishReason: FinishReason | undefined
  readonly providerFinishReason: string | undefined
  readonly id: string | undefined
  readonly model: string | undefined
  /** Whether the terminal evidence is there. */
  readonly isComplete: boolean
  /** Facts of the error, where what the service said is not an answer. */
  readonly failure: { readonly name: string; readonly code: ErrorCode; readonly [fact: string]: unknown } | undefined
  /** What the service said about it. */
  readonly providerMessage?: string | undefined
  /** How many warnings come with the answer. Default 0. */
  readonly warnings?: number
}

/** What is known of a model beforehand, where that decides how its answer is read. */
export interface Variant {
  readonly name: string
  readonly options?: Connection
  readonly request?: Partial<StreamRequest>
}

export interface Reading {
  readonly variant: Variant
  /** Whether the body broke off where it ends, in place of ending there. */
  readonly isBroken: boolean
}

/** An error that the service reports in place of the rest of an answer. */
export interface ReportedError {
  readonly name: string
  /** What follows the beginning of an answer. */
  readonly body: string
  /** Facts of the error. */
  readonly expected: { readonly code: ErrorCode; readonly status: number; readonly [fact: string]: unknown }
  /** Whether the SDK's own iterator sees it too. */
  readonly overSdk: boolean
}

/** How a service writes. */
export interface Wire {
  readonly contentType: string
  readonly requestIdHeader: string
  /** A body of these events; of a string, an event with that text. */
  write(...events: readonly unknown[]): string
  /** The beginning of an answer: so far it says `planted output`, after at most 7 tokens of input. */
  readonly begun: readonly unknown[]
  /** What completes it. */
  readonly rest: readonly unknown[]
  /** The mark after the last event that is none itself. */
  readonly farewell?: string
  /** What completes it where it reached its token limit. */
  readonly limit: readonly unknown[]
  /** Whole answers that call `ask` and reached their token limit. */
  readonly callsAtLimit: readonly (readonly unknown[])[]
  /** The same events, framed in every way the format allows. */
  framings(body: string): string[]
  /** Whether nothing counts after the evidence. Where the end of the body is the evidence, all does. */
  readonly isOverAtEvidence: boolean
  /** What says nothing but that somebody is there. */
  readonly signsOfLife: readonly string[]
  /** What breaks the protocol after `begun`, by name. */
  readonly breaches: Readonly<Record<string, readonly unknown[]>>
  /** What JSON under status 200 is that is no error. */
  readonly jsonCode: ErrorCode
  /** Bodies under status 200 that are no answer, besides pages and other JSON. */
  readonly noAnswers: readonly (readonly [name: string, body: string, code: ErrorCode])[]
}

/** The official SDK of a service. */
export interface Sdk {
  /** What is imported. */
  readonly module: string
  /** What npm is to install. */
  readonly install: string
  /** An instance that tries again by itself, if it can. */
  create(options: { readonly fetch: typeof globalThis.fetch }): object
  /** Anything with the method that is used. */
  fake(answer: (...args: unknown[]) => Promise<unknown>): object
  /** What `fake` is called with, where `headers` are `{ 'x-a': 'b' }`. */
  readonly called: readonly object[]
  /** A stream of the SDK, mapped. Of a recording its name. */
  events(client: object, recording?: string): Promise<AsyncIterable<StreamEvent>>
  /** The same mapping, over events from anywhere. */
  mapped(events: AsyncIterable<{ readonly type: string }>): AsyncIterable<StreamEvent>
  /** What its iterator may throw, and the code of what that becomes. */
  readonly throws: readonly (readonly [error: unknown, code: ErrorCode])[]
}

/** One way to have a model's answer, with all that the suite must know of it. */
export interface Subject {
  /** The provider's name. */
  readonly name: NonNullable<SimulateOptions['provider']>
  /** The default of `create`. */
  readonly model: string
  create(options: Connection): Provider
  readonly supports: Supports
  /** For each claim that is not `'no'`, what the request sent matches. */
  readonly sends: { readonly [claim in Exclude<keyof Supports, 'toolArguments'>]?: object }
  /** A tool in the service's own terms. */
  readonly ownTool: Json
  /** The recorded streams that are of this wire, by folder. */
  readonly folders: readonly string[]
  /** Default: one, of which nothing is known. */
  variantsOf?(recording: RecordedAnswer): readonly Variant[]
  read(body: string, reading: Reading): ExpectedAnswer
  /** Checks what is sent of an answer when the conversation goes on. */
  expectTurn(
    sent: Json,
    answer: ExpectedAnswer,
    recording: RecordedAnswer,
    toolCalls: readonly { readonly toolCallId: string }[],
  ): void
  /** Recordings to be cut at every byte: short ones that say much. */
  readonly cuts: readonly RecordedAnswer[]
  readonly wire: Wire
  /** The body of an error status. */
  failureBody(status: number, error: Json, words: string): string
  readonly statuses: readonly (readonly [
    status: number,
    error: Json,
    code: ErrorCode,
    isRetryable: boolean,
    providerCode?: string,
  ])[]
  reported(words: string): readonly ReportedError[]
  readonly sdk: Sdk
  readonly key: {
    /** Environment variables that give one. */
    readonly environment: readonly string[]
    /** Other variables that stand in the way of a test without one. */
    readonly others: readonly string[]
    /** Options with which one is needed. */
    readonly neededWith: Connection
    /** The header it goes in, and how. */
    readonly header: string
    readonly prefix: string
  }
  /** Options of which a client is made. */
  readonly makesClient: Readonly<Record<string, unknown>>
}

/** The events of a body of server-sent events, as far as they are whole. */
export function eventsIn(body: string): Json[] {
  const frames = body.replaceAll(/\r\n?/g, '\n').split('\n\n').slice(0, -1)
  return frames.flatMap((frame) => {
    const data = /^data:(.*)$/m.exec(frame)?.[1]?.trim()
    return data?.startsWith('{') ? [JSON.parse(data) as Json] : []
  })
}

/** Arguments that are whole JSON; a call without any is one with none. */
export function parsed(text: string): unknown {
  try {
    return text === '' ? {} : (JSON.parse(text) as unknown)
  } catch {
    return undefined
  }
}

/** A body of server-sent events, framed in every way. */
export function sseFramings(body: string): string[] {
  const lines = body.replaceAll('\r\n', '\n')
  return [
    lines,
    lines.replaceAll('\n', '\r\n'),
    lines.replaceAll('\n', '\r'),
    `\ufeff${lines}`,
    lines.replaceAll(/^data:/gm, ': comment\nid: 1\nretry: 5\nevent: x\ndata:').replaceAll(/^event: (?!x).*\n/gm, ''),
    lines.replaceAll(/^event: .*\n/gm, ''),
    lines.replaceAll('data: {', 'data: {\ndata:    '),
    lines.replaceAll('\n\n', '\n\nevent: ping\ndata:\n\n'),
  ]
}

/** What the strict tool of the suite takes. */
export const strictInput = { properties: { inner: { type: 'object', properties: {} } }, required: ['inner'] }

/** The same as strict modes want it: every object closed, at every depth. */
export const closedInput = {
  properties: { inner: { type: 'object', properties: {}, additionalProperties: false } },
  additionalProperties: false,
}
