import type { StreamEvent, ToolInputChannel } from '../events.ts'
import type { StreamFunction } from '../middleware.ts'
import { fromBatches, type ProviderContext, batchesOf } from '../provider.ts'
import type { LLMRequest } from '../request.ts'

/** A way to have tools called that goes through the text of an answer. */
export interface TextChannel {
  readonly name: Exclude<ToolInputChannel, 'native'>
  /**
   * The request that asks for calls as text: it offers no tools.
   *
   * @throws UsageError `unsupported` where the channel cannot do what the request asks.
   */
  toRequest(request: LLMRequest): LLMRequest
  /** Reads one answer to `request`, which is the original one. */
  createReader(request: LLMRequest): TextChannelReader
}

/** Tells the calls in an answer's text from the rest, as it streams. */
export interface TextChannelReader {
  /**
   * Maps one event of the provider to those a native call would bring.
   *
   * @throws OutputError where a call is malformed; `out` has what came before.
   */
  read(event: StreamEvent, out: StreamEvent[]): void
  /** Gives out what was held back to be told apart, once nothing more comes. */
  release(out: StreamEvent[]): void
}

/** The channels, each loaded when first used: few applications need any. */
const loaders: Readonly<Record<TextChannel['name'], () => Promise<TextChannel>>> = {
  json: async () => (await import('./json-channel.ts')).jsonChannel,
  xml: async () => (await import('./xml-channel.ts')).xmlChannel,
}

/** Those that are loaded: to import one again takes longer than all else that a channel does for a request. */
const channels: Partial<Record<TextChannel['name'], TextChannel>> = {}

/** Streams through a channel: whoever reads the events sees tool calls, and `start` names the channel. */
export function throughChannel(stream: StreamFunction, name: TextChannel['name']): StreamFunction {
  return (request, context) => fromBatches(() => readBatches(stream, name, request, context))
}

async function* readBatches(
  stream: StreamFunction,
  name: TextChannel['name'],
  request: LLMRequest,
  context: ProviderContext,
): AsyncGenerator<StreamEvent[], void, undefined> {
  const channel = (channels[name] ??= await loaders[name]())
  const events = stream(channel.toRequest(request), context)
  let reader = channel.createReader(request)
  let out: StreamEvent[] = []
  try {
    for await (const batch of batchesOf(events)) {
      for (const event of batch) {
        // What the failed attempt had begun is no part of the new one.
        if (event.type === 'restart') reader = channel.createReader(request)
        reader.read(event.type === 'start' ? { ...event, toolInput: name } : event, out)
      }
      const read = out
      out = []
      // Also where it is empty: that something came counts, for limits of time and for metrics.
      yield read
    }
  } catch (error) {
    // What the reader itself found wrong comes after what it had read of the same batch.
    reader.release(out)
    if (out.length > 0) yield out
    throw error
  }
}
