import type { FinishReason } from '../events.ts'
import type { ReplayRequest } from './replay.ts'

/** An answer in no provider's terms yet. */
export interface SimulatedAnswer {
  readonly model: string
  readonly text: string
  readonly reasoning: string
  /** Arguments as text. */
  readonly calls: readonly { readonly tool: string; readonly inputText: string }[]
  readonly finishReason: Exclude<FinishReason, 'other'>
  readonly inputTokens: number
  readonly deltaChars: number
}

/** One event or line of a body, and whether it carries a piece of the answer. */
export interface Frame {
  readonly frame: string
  readonly isDelta: boolean
}

/** One way of sending answers. */
export interface SimulatedWire {
  readonly contentType: string
  /** Response header with the id of the request. */
  readonly requestIdHeader: string
  frames(answer: SimulatedAnswer, request: ReplayRequest): Frame[]
  /** Whether a request asks for a stream. */
  streams(request: ReplayRequest): boolean
  /** The answer in one piece. */
  whole(answer: SimulatedAnswer, request: ReplayRequest): Json
  /** What a request's body asks for. */
  read(body: Json): RequestedAnswer
}

/** What a request leaves no choice about. */
export interface RequestedAnswer {
  /** The names of the tools offered, or of the one that is forced. */
  readonly tools: readonly string[]
  /** Whether the text must be JSON of a given schema. */
  readonly isJson: boolean
}

export type Json = Readonly<Record<string, unknown>>

/** Cuts a text as services do, which never cut a character in half. */
export function split(text: string, size: number): string[] {
  const pieces: string[] = []
  for (let start = 0, end; start < text.length; start = end) {
    end = start + size
    if (isHighSurrogate(text.charCodeAt(end - 1))) end++
    pieces.push(text.slice(start, end))
  }
  return pieces
}

function isHighSurrogate(code: number): boolean {
  return (code & 0xfc00) === 0xd800
}

/** Four characters to a token, as a rule of thumb. */
export function countTokens({ text, reasoning, calls }: Pick<SimulatedAnswer, 'text' | 'reasoning' | 'calls'>): number {
  return Math.ceil(calls.reduce((total, { inputText }) => total + inputText.length, text.length + reasoning.length) / 4)
}

/** Whether a request says that it wants a stream, for services that do not stream unless asked. */
export function asksForStream({ body }: ReplayRequest): boolean {
  return membersOf(body)['stream'] === true
}

/** Arguments as services parse them; what is no JSON stays as it is. */
export function parsedInput(inputText: string): unknown {
  try {
    return JSON.parse(inputText || '{}')
  } catch {
    return inputText
  }
}

/** The members of a part of a request, which may not be there. */
export function membersOf(value: unknown): Json {
  return typeof value === 'object' && value !== null ? (value as Json) : {}
}

/** The name of the one tool chosen, else those of all; wire formats differ in whether names stand in a `function`. */
export function namesOf(choice: unknown, tools: unknown): string[] {
  const chosen = nameIn(choice)
  return chosen === undefined
    ? (Array.isArray(tools) ? tools.map(nameIn) : []).filter((name) => name !== undefined)
    : [chosen]
}

function nameIn(value: unknown): string | undefined {
  const { name, function: named } = membersOf(value)
  return typeof name === 'string' ? name : named === undefined ? undefined : nameIn(named)
}
