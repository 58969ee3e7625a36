import { StreamError } from '../errors.ts'
import type { StreamEvent } from '../events.ts'
import type { LLMWarning } from '../request.ts'
import { CharacterJoiner } from './character-joiner.ts'
import { emptyEvent, endOfEvents } from './event-reader.ts'

/** JSON off the wire or on it. */
export type Json = Record<string, unknown>

/** What a mapper is told besides the events. */
export interface MapperContext {
  /** The model that was asked for: some services do not say which one answers. */
  readonly model: string
  readonly requestId?: string | undefined
  /** Also emit the events as they came. Default false. */
  readonly raw?: boolean | undefined
  /** What was found while the request was made. */
  readonly warnings?: readonly LLMWarning[] | undefined
}

/** Makes the pieces of an answer events. */
export interface EventParser<Piece> {
  /** Throws where a piece is none. */
  parse(piece: Piece): unknown
}

/** Turns one answer's wire events into `StreamEvent`s, whoever decoded them. A provider fills in `map`. */
export abstract class EventMapper {
  readonly provider: string
  readonly #context: MapperContext
  readonly #characters = new CharacterJoiner()
  #failure: unknown
  #hasStarted = false
  /** Whether the terminal evidence was seen, with all it needs. Nothing is to be pushed after that. */
  isFinished = false
  /**
   * Whether the terminal evidence was seen, but what belongs to the answer may still follow, at once or never (the count of
   * tokens). Whoever reads waits for it for a moment, then calls `end()`.
   */
  mayEnd = false

  constructor(provider: string, context: MapperContext) {
    this.provider = provider
    this.#context = context
  }

  /** Whether anything of an answer has come. */
  get hasStarted(): boolean {
    return this.#hasStarted
  }

  /** Says that the answer has begun, if that was not said yet; `model` and `responseId` as the service names them. */
  protected start(model: unknown, responseId: unknown, out: StreamEvent[]): void {
    if (this.#hasStarted) return
    this.#hasStarted = true
    const { requestId, warnings = [] } = this.#context
    out.push({
      type: 'start',
      provider: this.provider,
      model: typeof model === 'string' && model !== '' ? model : this.#context.model,
      responseId: typeof responseId === 'string' && responseId !== '' ? responseId : undefined,
      requestId,
      toolInput: 'native',
      ...(warnings.length > 0 && { warnings }),
    })
  }

  /** Maps one event; throws an `LLMError` where it is wrong. */
  protected abstract map(event: Json, out: StreamEvent[]): void

  /** Maps the end of the stream, for protocols that need it to know that an answer is complete; sets `isFinished` then. */
  protected mapEnd?(out: StreamEvent[]): void

  /** Gives out what was held back to be told apart, once nothing more comes. */
  protected mapRest?(out: StreamEvent[]): void

  /**
   * Maps the pieces of one read. Each is parsed when it is needed, not earlier: where one is wrong, returns what came before it;
   * `hasEnded` throws then. What follows the end of the answer is ignored, with a warning.
   */
  push<Piece>(pieces: readonly Piece[], parser: EventParser<Piece>): StreamEvent[] {
    return this.#collect((mapped) => {
      let next = 0
      while (!this.isFinished && next < pieces.length) {
        const event = parser.parse(pieces[next++]!)
        if (event === emptyEvent) continue
        if (event === endOfEvents) this.#complete(mapped)
        else {
          if (this.#context.raw) mapped.push({ type: 'raw', value: event })
          this.map(toObject(this.provider, event, 'an event'), mapped)
        }
      }
      if (next < pieces.length && this.#saysMore(pieces.slice(next), parser))
        mapped.splice(mapped.length - 1, 0, dataAfterEnd)
    })
  }

  /** Whether there is more than signs of life. */
  #saysMore<Piece>(pieces: readonly Piece[], parser: EventParser<Piece>): boolean {
    const ignored: StreamEvent[] = []
    try {
      for (const piece of pieces) {
        const event = parser.parse(piece)
        if (event !== endOfEvents && event !== emptyEvent) this.map(toObject(this.provider, event, 'an event'), ignored)
      }
    } catch {
      return true
    }
    return ignored.length > 0
  }

  /** To be asked after each push, before more is waited for. */
  hasEnded(): boolean {
    if (this.#failure) throw this.#failure
    return this.isFinished
  }

  /** To be called where nothing more comes, and then `hasEnded`, which throws where the evidence is missing. */
  end(): StreamEvent[] {
    return this.#collect((mapped) => this.#complete(mapped))
  }

  /** To be called where the stream fails: what had come and was not yet given out. */
  rest(): StreamEvent[] {
    return [...this.#collect((mapped) => this.mapRest?.(mapped)), ...this.#characters.release()]
  }

  #complete(mapped: StreamEvent[]): void {
    this.mapEnd?.(mapped)
    if (!this.isFinished) throw this.#truncated()
  }

  #collect(fill: (mapped: StreamEvent[]) => void): StreamEvent[] {
    const mapped: StreamEvent[] = []
    try {
      fill(mapped)
    } catch (error) {
      if (mapped.length === 0) throw error
      this.#failure = error
    }
    return this.#characters.join(mapped)
  }

  #truncated(): StreamError {
    const { provider } = this
    const facts = { retryable: true, phase: 'stream', provider } as const
    return this.#hasStarted
      ? new StreamError('stream_truncated', `The answer of ${provider} ended before it was complete.`, {
          ...facts,
          reason: 'end',
        })
      : new StreamError('empty_response', `${provider} answered with nothing.`, facts)
  }
}

const dataAfterEnd: StreamEvent = {
  type: 'warning',
  warning: {
    code: 'data-after-end',
    message: 'The service went on after the end of its answer. What came then was ignored.',
  },
}

export function protocolError(provider: string, problem: string): StreamError {
  return new StreamError('stream_protocol', `${provider} broke its protocol: ${problem}.`, {
    retryable: true,
    phase: 'stream',
    provider,
  })
}

/** For an answer that is said to end with calls, and has none: they were lost on the way, or are in a form not known. */
export function missingCall(provider: string): StreamError {
  return protocolError(provider, 'the answer ended for a tool call to be made, but there is none')
}

export function toObject(provider: string, value: unknown, what: string): Json {
  if (typeof value !== 'object' || value === null) throw protocolError(provider, `${what} is not an object`)
  return value as Json
}

export function toText(provider: string, value: unknown, what: string): string {
  if (typeof value !== 'string') throw protocolError(provider, `${what} is not a string`)
  return value
}
