import type { LLMError } from './errors.ts'
import type { StreamEvent, Target, ToolInputChannel } from './events.ts'
import type { LLMRequest, LLMWarning } from './request.ts'

/** Limits of time for one attempt, in milliseconds; `false` is none. Time in which nobody asks for more does not count. */
export interface AttemptTimeouts {
  /** Until the response begins. Default 60,000. */
  readonly firstByte?: number | false | undefined
  /** Until the first text, reasoning or tool call. Default 120,000. */
  readonly firstOutput?: number | false | undefined
  /** Between two reads of the response. Default 60,000. */
  readonly idle?: number | false | undefined
  /** Between two pieces of the answer; what only keeps a connection alive is none. Default 120,000. */
  readonly progress?: number | false | undefined
}

/** An attempt that failed and was followed by another. */
export interface AttemptFailure {
  /** Counted from 1. */
  readonly attempt: number
  /** The target that failed; `undefined` where nobody was asked yet. */
  readonly provider: string | undefined
  /** The model that was asked; `undefined` where nobody was yet. */
  readonly model: string | undefined
  /** Why. */
  readonly error: LLMError
  /** Whether the same target is tried again, or another one. */
  readonly next: 'retry' | 'fallback'
  /** Until the next attempt, in milliseconds. */
  readonly delayMs: number
}

/** One request to one model. */
export interface AskedTarget extends Target {
  /** Counted from 1. */
  readonly attempt: number
  /** Whether it stands in for a target that failed, or did of late. */
  readonly isFallback: boolean
  /** Whether the answer is asked for as a stream, or in one piece. */
  readonly isStreamed: boolean
}

/** What a provider or middleware is told about the run besides the request; to be passed on with what it adds. */
export interface ProviderContext {
  /** Fires when the run is over for any reason; the provider closes its connection. Fresh for each run. */
  readonly signal: AbortSignal
  /** The number of the attempt that is to be made, counted from 1. */
  readonly attempt: number
  /** The client's provider; one made of others has their names joined. `onAsked` tells which of them is asked. */
  readonly target?: Target | undefined
  /** Whether who is to be asked stands in for a target that failed, or did of late. */
  readonly isFallback?: boolean | undefined
  /** Limits of each attempt, where they are not the default. */
  readonly timeouts?: AttemptTimeouts | undefined
  /** Whether answers are to be streamed. Default true; else providers are asked to `generate`. */
  readonly streaming?: boolean | undefined
  /** Limits of the whole run. */
  readonly deadline?: Deadline | undefined
  /** Whether reasoning is shown to anybody: where it is not, an attempt that only thought can be repeated unseen. */
  readonly showsReasoning?: boolean | undefined
  /** To be told of an attempt that failed when another is to follow. */
  readonly onAttemptFailed?: ((failure: AttemptFailure) => void) | undefined
  /** To be told of each request to a model, when it is made. */
  readonly onAsked?: ((asked: AskedTarget) => void) | undefined
  /** To be told when the answer to a request begins, be it with nothing but the head of the response. */
  readonly onFirstByte?: (() => void) | undefined
  /** To be told how long the request waited for its turn, in milliseconds. */
  readonly onQueued?: ((milliseconds: number) => void) | undefined
  /** To be told that something of the user's, a function or a store, failed where the run goes on without it; `name` is what it is called. */
  readonly onConsumerError?: ((name: string, cause: unknown) => void) | undefined
  /**
   * Calls back once the run is over, or in a run of several steps the step, with the error it ended with: without one the answer
   * was complete and valid. Nobody waits for the callback, which must not throw.
   */
  readonly afterEnd?: ((callback: (error: LLMError | undefined) => void) => void) | undefined
}

/** When a run has to be over. */
export interface Deadline {
  /** Milliseconds that are left; `Infinity` where there is no limit. */
  readonly remainingMs: number
  /** Sets how many milliseconds the run may take from its beginning on; `false` is no limit. */
  limit(total: number | false): void
  /** Sets how many milliseconds validators may take. */
  limitValidation(milliseconds: number | false): void
}

/**
 * Events in order. `for await` gives them singly. A source that reads from a network also offers `batches()`,
 * all events of one read at a time, so that an event does not cost a promise; middleware need not. An empty batch says that
 * something came which is no event: the head of the response, a part of an event, a sign of life.
 */
export interface StreamEvents extends AsyncIterable<StreamEvent> {
  /** The events of each read as one list. */
  batches?(): Batches
}

/** One model behind one API. */
export interface Provider {
  /** E.g. `'anthropic'`; also the key of `providerOptions` and of provider metadata. */
  readonly name: string
  /** The model that is asked, as its service names it. */
  readonly model: string
  /**
   * The channel that `toolInput: 'auto'` means for a request: `'json'` where a forced call would arrive whole, or be refused.
   * Default: `'native'`.
   */
  toolInput?(request: LLMRequest): ToolInputChannel
  /** The limits of an attempt where this service needs others than the default. */
  readonly timeouts?: AttemptTimeouts | undefined
  /** The providers that this one chooses among; it then takes care of each attempt itself. */
  readonly members?: readonly Provider[] | undefined
  /**
   * Sends the request when first pulled and maps what comes back. Ends after `finish`; fails with an `LLMError`
   * where the connection ends without the protocol's terminal evidence.
   */
  stream(request: LLMRequest, context: ProviderContext): StreamEvents
  /** The same answer in one piece, without streaming; the same events. Asked where the service refuses to stream. */
  generate?(request: LLMRequest, context: ProviderContext): StreamEvents
}

/** Said of an answer that was asked for as a stream. */
export const notStreamed: LLMWarning = {
  code: 'not-streamed',
  message: 'The answer came in one piece: the service, or a gateway before it, does not stream it.',
}

/** Events of one read after the other. */
export type Batches = AsyncIterator<readonly StreamEvent[], unknown, undefined>

/** Wraps a source of batches as `StreamEvents`. */
export function fromBatches(batches: () => Batches): StreamEvents {
  return {
    batches,
    async *[Symbol.asyncIterator]() {
      for await (const batch of { [Symbol.asyncIterator]: batches }) yield* batch
    },
  }
}

/** The batches of a source, to loop over. */
export function batchesOf(events: StreamEvents): AsyncIterable<readonly StreamEvent[], unknown, undefined> {
  return { [Symbol.asyncIterator]: () => toBatches(events) }
}

/** Leaves a source early. Nobody waits for it: it may hang or fail in doing so. */
export async function leave(source: Batches | undefined): Promise<void> {
  try {
    await source?.return?.()
  } catch {
    // Whoever leaves has the outcome already.
  }
}

/** The providers that requests come to in the end. */
export function leavesOf(provider: Provider): readonly Provider[] {
  return provider.members?.flatMap(leavesOf) ?? [provider]
}

/** The batches of a source, whether it offers them or not. */
export function toBatches(events: StreamEvents): Batches {
  if (events.batches) return events.batches()
  const single = events[Symbol.asyncIterator]()
  return {
    next: async () => {
      const { done, value } = (await single.next()) as IteratorResult<StreamEvent, undefined>
      return done ? { done, value: undefined } : { value: [value] }
    },
    return: async () => {
      await single.return?.()
      return { done: true, value: undefined }
    },
  }
}

/** Whether a consumer may see something of an event: an attempt that brought none such can be repeated unseen. */
export function isVisible({ type }: StreamEvent, { showsReasoning = true }: ProviderContext): boolean {
  switch (type) {
    case 'text-delta':
    case 'tool-input-start':
    case 'tool-input-delta':
    case 'tool-input-end':
    case 'restart':
    case 'finish':
      return true
    case 'reasoning-delta':
      return showsReasoning
    default:
      return false
  }
}
