import type { StreamEvent, ToolInputChannel } from '../events.ts'
import type { StreamFunction } from '../middleware.ts'
import { type Batches, fromBatches, leave, type ProviderContext, toBatches } from '../provider.ts'
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
  return (request, context) => fromBatches(() => new ChannelReads(stream, name, request, context))
}

type Result = IteratorResult<readonly StreamEvent[], undefined>

/** No generator, for the same reason as `MappedReads`. */
class ChannelReads implements Batches {
  readonly #stream: StreamFunction
  readonly #name: TextChannel['name']
  readonly #request: LLMRequest
  readonly #context: ProviderContext
  #source: Batches | undefined
  #reader: TextChannelReader | undefined
  #out: StreamEvent[] = []
  #failure: { readonly error: unknown } | undefined
  #isLeft = false

  constructor(stream: StreamFunction, name: TextChannel['name'], request: LLMRequest, context: ProviderContext) {
    this.#stream = stream
    this.#name = name
    this.#request = request
    this.#context = context
  }

  next(): Promise<Result> {
    const failure = this.#failure
    this.#failure = undefined
    if (failure) return Promise.reject(failure.error)
    return this.#source ? this.#source.next().then(this.#onBatch, this.#onError) : this.#begin()
  }

  async return(): Promise<Result> {
    this.#isLeft = true
    await this.#source?.return?.()
    return { done: true, value: undefined }
  }

  async #begin(): Promise<Result> {
    const channel = (channels[this.#name] ??= await loaders[this.#name]())
    this.#source = toBatches(this.#stream(channel.toRequest(this.#request), this.#context))
    return this.#isLeft ? this.return() : this.next()
  }

  readonly #onBatch = ({ done, value: batch }: IteratorResult<readonly StreamEvent[], unknown>): Result => {
    if (done) return this.#atEnd()
    try {
      for (const event of batch) {
        // What the failed attempt had begun is no part of the new one.
        if (event.type === 'restart') this.#reader = undefined
        this.#reader ??= channels[this.#name]!.createReader(this.#request)
        this.#reader.read(event.type === 'start' ? { ...event, toolInput: this.#name } : event, this.#out)
      }
    } catch (error) {
      void leave(this.#source)
      return this.#onError(error)
    }
    // Also where it is empty: that something came counts, for limits of time and for metrics.
    return { done: false, value: this.#taken() }
  }

  /** A source that ends without evidence: what was held back still came. */
  #atEnd(): Result {
    this.#reader?.release(this.#out)
    return this.#out.length > 0 ? { done: false, value: this.#taken() } : { done: true, value: undefined }
  }

  /** What the reader itself found wrong comes after what it had read of the same batch. */
  readonly #onError = (error: unknown): Result => {
    this.#reader?.release(this.#out)
    if (this.#out.length === 0) throw error
    this.#failure = { error }
    return { done: false, value: this.#taken() }
  }

  #taken(): StreamEvent[] {
    const out = this.#out
    this.#out = []
    return out
  }
}
