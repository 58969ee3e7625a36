import {
  AbortedError,
  asLLMError,
  describeError,
  isLLMError,
  type LLMError,
  LLMTimeoutError,
  StreamError,
  unfinished,
  UsageError,
} from '../errors.ts'
import type { StreamEvent } from '../events.ts'
import type { StreamFunction } from '../middleware.ts'
import {
  type AttemptTimeouts,
  type Batches,
  fromBatches,
  leave,
  notStreamed,
  type Provider,
  type ProviderContext,
  type StreamEvents,
  toBatches,
} from '../provider.ts'
import type { LLMRequest } from '../request.ts'
import { keepAlive } from '../timers.ts'
import { withToolInput } from '../tool-input/with-tool-input.ts'
import { defined } from './timeout.ts'

type Limit = keyof AttemptTimeouts
type Pending = Pick<PromiseWithResolvers<IteratorResult<readonly StreamEvent[], undefined>>, 'resolve' | 'reject'>

const defaults = { firstByte: 60_000, firstOutput: 120_000, idle: 60_000, progress: 120_000 } as const

/** Which kinds of request a provider was found to refuse to stream, and until when that is taken for granted. */
const unstreamed = new WeakMap<Provider, Map<string, number>>()
const unstreamedMs = 600_000

/** Some services refuse to stream only tool calls, or only structured output. */
function kindOf({ tools = [], output }: LLMRequest): string {
  return `${tools.length > 0} ${output !== undefined}`
}

/**
 * One attempt at a provider: tools called through the channel that the request needs, limits of time kept, and the target named
 * in `start` and in every error. Where the service refuses to stream, the same attempt is answered in one piece. A provider made
 * of others does this for each of them itself.
 */
export function attemptOf(provider: Provider): StreamFunction {
  if (provider.members) return (request, context) => provider.stream(request, context)
  return withToolInput(provider, (request, context) => {
    return fromBatches(() => new Attempt(provider, request, context))
  })
}

/** How far an attempt has come. */
type Stage = 'sent' | 'answering' | 'writing' | 'over'

/** What may run out in each stage, and since when. */
const limitsOf: Readonly<Record<Stage, readonly Limit[]>> = {
  sent: ['firstByte', 'firstOutput'],
  answering: ['firstOutput', 'idle'],
  writing: ['idle', 'progress'],
  over: [],
}

const phases = { firstByte: 'first_byte', firstOutput: 'first_output', idle: 'idle', progress: 'progress' } as const
const problems: Readonly<Record<Limit, string>> = {
  firstByte: 'did not begin to answer',
  firstOutput: 'sent nothing of an answer',
  idle: 'fell silent',
  progress: 'kept its connection open, but wrote nothing more',
}

/** A timer this late means that the whole process stood still: what has come meanwhile is to be read first. */
const lateMs = 1000

/**
 * Reads a provider's events against the clock. The clock stands still while nobody asks for more, so that a slow consumer is
 * not taken for a slow service; and one timer serves many reads, since most never come near a limit.
 */
class Attempt implements Batches {
  readonly #provider: Provider
  readonly #request: LLMRequest
  readonly #context: ProviderContext
  readonly #timeouts: AttemptTimeouts
  readonly #controller = new AbortController()
  #source: Batches | undefined
  #pending: Pending | undefined
  #stage: Stage = 'sent'
  #hasStarted = false
  /** Whether the answer is to come in one piece, and thus late. */
  #isWhole: boolean

  /** Milliseconds spent in waiting, without the wait under way; and what they were at the last byte and piece of the answer. */
  #waited = 0
  #waitingSince = 0
  #lastByte = 0
  #lastOutput = 0
  #timer: ReturnType<typeof setTimeout> | undefined
  #timerDue = 0

  constructor(provider: Provider, request: LLMRequest, context: ProviderContext) {
    this.#provider = provider
    this.#request = request
    this.#context = context
    this.#isWhole =
      context.streaming === false || (unstreamed.get(provider)?.get(kindOf(request)) ?? 0) > performance.now()
    this.#timeouts = { ...defaults, ...defined(provider.timeouts), ...defined(context.timeouts) }
  }

  next(): Promise<IteratorResult<readonly StreamEvent[], undefined>> {
    this.#waitingSince = performance.now()
    if (this.#timer) keepAlive(this.#timer, true)
    else this.#arm()
    return new Promise((resolve, reject) => {
      this.#pending = { resolve, reject }
      this.#read()
    })
  }

  async return(): Promise<IteratorResult<readonly StreamEvent[], undefined>> {
    this.#end()
    this.#controller.abort()
    await this.#source?.return?.()
    return { done: true, value: undefined }
  }

  #read(): void {
    try {
      this.#source ??= this.#start()
      this.#source.next().then(this.#onResult, this.#onError)
    } catch (error) {
      this.#onError(error)
    }
  }

  #start(): Batches {
    const { signal } = this.#context
    if (signal.aborted) throw new AbortedError(signal.reason)
    signal.addEventListener('abort', this.#onAbort)
    return toBatches(this.#ask())
  }

  #ask(): StreamEvents {
    const context = { ...this.#context, signal: this.#controller.signal }
    const { name: provider, model } = this.#provider
    const { attempt, isFallback = false } = context
    context.onAsked?.({ provider, model, attempt, isFallback, isStreamed: !this.#isWhole })
    if (!this.#isWhole) return this.#provider.stream(this.#request, context)
    if (this.#provider.generate) return this.#provider.generate(this.#request, context)
    throw new UsageError(
      'unsupported',
      `${this.#provider.name} has no \`generate\`, so it cannot answer in one piece.`,
      { phase: 'request' },
    )
  }

  /** Asks once more, for the same answer in one piece, where the service refuses nothing but to stream it. */
  #asksAgain(error: unknown): boolean {
    const isRefused = isLLMError(error) && error.code === 'streaming_unsupported'
    // Whoever ended the attempt meanwhile wants no other answer.
    if (!isRefused || this.#stage === 'over' || this.#isWhole || this.#hasStarted || !this.#provider.generate)
      return false
    this.#isWhole = true
    this.#source = toBatches(this.#ask())
    this.#disarm()
    this.#read()
    return true
  }

  /** A provider that does not heed its signal must not hold up whoever reads. */
  readonly #onAbort = (): void => {
    const { reason } = this.#context.signal as { reason: unknown }
    this.#controller.abort(reason)
    if (!this.#pending) return
    this.#onError(new AbortedError(reason))
    // Whoever waits gets the error, and whoever gets an error leaves nothing.
    void leave(this.#source)
  }

  readonly #onResult = (result: IteratorResult<readonly StreamEvent[], unknown>): void => {
    try {
      if (!result.done && !Array.isArray(result.value)) throw notInBatches(this.#provider.name)
      this.#take(result)
    } catch (error) {
      this.#onError(error)
      this.#leave(error)
    }
  }

  #take({ done, value }: IteratorResult<readonly StreamEvent[], unknown>): void {
    const now = performance.now()
    this.#waited += now - this.#waitingSince
    this.#waitingSince = now
    this.#lastByte = this.#waited
    if (done) {
      if (this.#stage !== 'over') throw unfinished(this.#provider.name)
      this.#settle()?.resolve({ done, value: undefined })
      this.#end()
      return
    }
    if (this.#stage === 'sent') this.#context.onFirstByte?.()
    const batch = this.#hasStarted ? value : this.#named(value)
    this.#advance(batch)
    // What came is no event: whoever waits goes on waiting.
    if (batch.length === 0 && this.#pending) this.#read()
    else this.#settle()?.resolve({ done: false, value: batch })
  }

  readonly #onError = (error: unknown): void => {
    if (this.#asksAgain(error)) return
    this.#settle()?.reject(this.#described(asLLMError(error, this.#stage === 'sent' ? 'connect' : 'stream')))
    this.#end()
  }

  #settle(): Pending | undefined {
    const pending = this.#pending
    this.#pending = undefined
    // Nobody waits for anything now, perhaps never again.
    if (this.#timer) keepAlive(this.#timer, false)
    return pending
  }

  #end(): void {
    this.#stage = 'over'
    this.#disarm()
    this.#context.signal.removeEventListener('abort', this.#onAbort)
  }

  #described(error: LLMError): LLMError {
    const { name, model } = this.#provider
    return describeError(error, { provider: name, model, attempt: this.#context.attempt })
  }

  /** Writes the number of the attempt into its `start`. */
  #named(batch: readonly StreamEvent[]): readonly StreamEvent[] {
    return batch.map((event) => {
      if (event.type !== 'start') return event
      this.#hasStarted = true
      const { attempt, streaming } = this.#context
      if (!this.#isWhole || streaming === false) return { ...event, attempt }
      // Not before it is known that this helps.
      const kinds = unstreamed.get(this.#provider) ?? new Map<string, number>()
      unstreamed.set(this.#provider, kinds.set(kindOf(this.#request), performance.now() + unstreamedMs))
      return { ...event, attempt, warnings: [...(event.warnings ?? []), notStreamed] }
    })
  }

  // --------------------------------------------------------------------------------------------------------------- the clock

  #advance(batch: readonly StreamEvent[]): void {
    let stage = this.#stage === 'sent' ? 'answering' : this.#stage
    for (const { type } of batch) {
      if (type === 'finish') stage = 'over'
      else if (isOutput(type)) {
        this.#lastOutput = this.#waited
        stage = 'writing'
      }
    }
    if (stage === this.#stage) return
    this.#stage = stage
    // Other limits hold from now on. A timer that is too early looks again; one that is too late is of no use.
    const left = this.#nearest()?.left
    if (this.#timer && left !== undefined && this.#timerDue <= performance.now() + left) return
    this.#disarm()
    if (batch.length === 0) this.#arm(left)
  }

  #arm(delay = this.#nearest()?.left): void {
    if (delay === undefined) return
    this.#timerDue = performance.now() + delay
    this.#timer = setTimeout(this.#onTimer, delay)
  }

  #disarm(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  readonly #onTimer = (): void => {
    this.#timer = undefined
    if (!this.#pending) return
    const nearest = this.#nearest()
    if (!nearest) return
    if (nearest.left > 0) this.#arm(nearest.left)
    else if (performance.now() - this.#timerDue > lateMs) this.#arm(lateMs)
    else this.#expire(nearest.limit)
  }

  /** The limit that runs out first, and how long it has. */
  #nearest(): { readonly limit: Limit; readonly left: number } | undefined {
    const waited = this.#waited + performance.now() - this.#waitingSince
    const since = { firstByte: 0, firstOutput: 0, idle: this.#lastByte, progress: this.#lastOutput }
    let nearest: { readonly limit: Limit; readonly left: number } | undefined
    for (const limit of limitsOf[this.#stage]) {
      const most = this.#timeouts[limit]
      // It all comes at once, after as long as the model takes to write it.
      if (typeof most !== 'number' || (this.#isWhole && limit !== 'idle')) continue
      const left = Math.ceil(since[limit] + most - waited)
      if (!nearest || left < nearest.left) nearest = { limit, left }
    }
    return nearest
  }

  #expire(limit: Limit): void {
    const timeoutMs = Number(this.#timeouts[limit])
    const error = new LLMTimeoutError(
      'timeout',
      `${this.#provider.name} ${problems[limit]} within ${timeoutMs} ms. If it needs longer, raise \`${limit}\` of timeout().`,
      { retryable: true, phase: phases[limit], timeoutMs },
    )
    this.#onError(error)
    this.#leave(error)
  }

  /** Closes the connection of an attempt that failed for us, not for its provider. */
  #leave(reason: unknown): void {
    this.#controller.abort(reason)
    void leave(this.#source)
  }
}

function notInBatches(provider: string): StreamError {
  return new StreamError('provider_error', `\`batches()\` of ${provider} must yield lists of events.`, {
    phase: 'stream',
  })
}

function isOutput(type: StreamEvent['type']): boolean {
  switch (type) {
    case 'start':
    case 'usage':
    case 'warning':
    case 'raw':
    case 'restart':
    case 'finish':
      return false
    default:
      return true
  }
}
