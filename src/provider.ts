import type { StreamEvent, ToolInputChannel } from './events.ts'
import type { LLMRequest } from './request.ts'

/** What a provider is told about the run besides the request. */
export interface ProviderContext {
  /** Fires when the run is over for any reason; the provider closes its connection. Fresh for each run. */
  readonly signal: AbortSignal
  /** Counted from 1. */
  readonly attempt: number
}

/**
 * Events in order. `for await` gives them singly. A source that reads from a network also offers `batches()`,
 * all events of one read at a time, so that an event does not cost a promise; middleware need not.
 */
export interface StreamEvents extends AsyncIterable<StreamEvent> {
  batches?(): AsyncIterator<readonly StreamEvent[], unknown, undefined>
}

/** One model behind one API. */
export interface Provider {
  /** E.g. `'anthropic'`; also the key of `providerOptions` and of provider metadata. */
  readonly name: string
  readonly model: string
  /**
   * The channel that `toolInput: 'auto'` means for a request: `'json'` where a forced call would arrive whole, or be refused.
   * Default: `'native'`.
   */
  toolInput?(request: LLMRequest): ToolInputChannel
  /**
   * Sends the request when first pulled and maps what comes back. Ends after `finish`; fails with an `LLMError`
   * where the connection ends without the protocol's terminal evidence.
   */
  stream(request: LLMRequest, context: ProviderContext): StreamEvents
}

/** Wraps a generator of batches as `StreamEvents`. */
export function fromBatches(batches: () => AsyncGenerator<readonly StreamEvent[], void, undefined>): StreamEvents {
  return {
    batches,
    async *[Symbol.asyncIterator]() {
      for await (const batch of batches()) yield* batch
    },
  }
}

/** The batches of a source, whether it offers them or not. */
export function toBatches(events: StreamEvents): AsyncIterator<readonly StreamEvent[], unknown, undefined> {
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
