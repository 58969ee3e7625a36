import type { ClientOptions, ErrorCode, Provider, RetryOptions, StreamRequest, TimeoutOptions } from 'fieldstream'
import type { FaultServer, FaultServerOptions, Head, Script, Step } from './fault-server.ts'
import { framesOf, planted, usualInput, type Wire, type WireOptions } from './wires.ts'

/** What is promised of a run, and what is observed of it. */
export interface Outcome {
  /** The code of the error, or that the answer is complete. */
  readonly code: ErrorCode | 'complete'
  readonly phase?: string
  readonly reason?: string
  readonly limit?: string
  readonly retryAfterMs?: number
  /** How many attempts are made while the fault persists, where two are allowed. */
  readonly attempts: number
  /** The codes of the warnings that come with the answer. Default: not looked at. */
  readonly warnings?: readonly string[]
}

/** One way in which a fault shows, and what is promised then. */
export interface AnswerCase {
  /** What tells it from the other cases of its row. */
  readonly name?: string
  /** What each request is answered with while the fault persists. */
  readonly script: Script
  readonly onConnection?: FaultServerOptions['onConnection']
  /** What the answer is, if it is not the usual one. */
  readonly expected?: { readonly text?: string; readonly inputs?: readonly unknown[] }
  readonly request?: Partial<StreamRequest>
  readonly timeouts?: TimeoutOptions
  readonly retry?: RetryOptions
  readonly limits?: ClientOptions['limits']
  readonly wireOptions?: WireOptions
  /** Reaches the server in another way than by its address. */
  readonly reach?: (server: FaultServer) => WireOptions
  readonly promised: Outcome
  /** Milliseconds from the first request to the last: at least, at most. */
  readonly spacing?: readonly [number, number]
  /** How long all may take, in milliseconds. */
  readonly within?: number
}

/** Anything else: a check that throws where the promise is not kept. */
export interface CheckCase {
  readonly name?: string
  readonly promised: string
  check(lab: Lab): Promise<void> | void
}

/** Thrown by a check where something took too long, which may be the machine's doing. */
export class LateError extends Error {}

export type Case = AnswerCase | CheckCase

/** One fault of the matrix. */
export interface Row {
  readonly number: number
  readonly title: string
  /** The cases on one wire; none where the wire cannot have the fault. */
  readonly cases?: (lab: Lab) => readonly Case[]
  /** The test that holds the row, where it is not this one. */
  readonly heldBy?: string
}

/** What a row needs to say a fault in a wire's own form. */
export interface Lab {
  readonly wire: Wire
  /** The usual answer: a text, then a call of `ask`. */
  readonly frames: readonly string[]
  /** The frames of it until there is text. */
  readonly begun: readonly string[]
  /** The frames up to and with the terminal evidence. */
  readonly evidence: readonly string[]
  /** The good answer, whole. */
  readonly good: Script
  /** Waits until the consumer has seen text. */
  readonly seen: Step
  head(headers?: Readonly<Record<string, string>>, rest?: Omit<Head, 'headers'>): Step
  answer(...args: Parameters<typeof framesOf> extends [unknown, ...infer Rest] ? Rest : never): string[]
  /** A provider that reaches this address. */
  provider(options: WireOptions): Provider
  /** Starts a server that is stopped after the case. */
  serve(answer: (index: number) => Script, options?: FaultServerOptions): Promise<FaultServer>
}

export function usualFrames(wire: Wire): string[] {
  return framesOf(wire, [{ tool: 'ask', input: usualInput }], { text: planted.text })
}

/** The fault before anything can be seen: retried; and after text was seen: an error, once. */
export function beforeAndAfter(
  { head, wire, begun, seen }: Lab,
  fault: Script,
  promised: Omit<Outcome, 'attempts'>,
  rest: Omit<AnswerCase, 'script' | 'promised' | 'name'> = {},
): AnswerCase[] {
  return [
    {
      name: 'before anything was seen',
      script: [head(), ...wire.prelude, ...fault],
      promised: { ...promised, attempts: 2 },
      ...rest,
    },
    {
      name: 'after text was seen',
      script: [head(), ...begun, seen, ...fault],
      promised: { ...promised, attempts: 1 },
      ...rest,
    },
  ]
}

export const complete: Outcome = { code: 'complete', attempts: 1 }
export const truncated = { code: 'stream_truncated', phase: 'stream' } as const
export const protocol = { code: 'stream_protocol', phase: 'stream' } as const
