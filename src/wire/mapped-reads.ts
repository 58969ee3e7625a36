import { isLLMError, type LLMError } from '../errors.ts'
import type { StreamEvent } from '../events.ts'
import type { Batches } from '../provider.ts'
import type { EventMapper, EventParser } from './event-mapper.ts'

/** What one read of an answer brings; `undefined` at the end. */
type Read<Piece> = Promise<readonly Piece[] | undefined>

/** An answer that has begun. */
export interface OpenAnswer<Piece = unknown> extends EventParser<Piece> {
  readonly mapper: EventMapper
  read(): Read<Piece>
  /** Called once, when nothing more is read; `isComplete` says that the terminal evidence came. */
  close(isComplete: boolean): void
}

/** Where answers come from. */
export interface AnswerSource {
  /** Fires where the answer is given up: iterators then just end. */
  readonly signal: AbortSignal
  open(): OpenAnswer | Promise<OpenAnswer>
  /** What an answer ends with that fails with `error`, before or after it has begun. */
  toError(error: unknown, answer: OpenAnswer | undefined): LLMError
}

/** How long what may still follow the terminal evidence is waited for, all in all. */
const restMs = 1000

const over: IteratorResult<never, undefined> = { done: true, value: undefined }

/**
 * Maps an answer, read by read, until it is complete. The first batch is empty, and says that the service answers. No generator:
 * each of its layers costs several promises for every read, which is what a paced answer mostly consists of.
 */
export class MappedReads implements Batches {
  readonly #source: AnswerSource
  #answer: OpenAnswer | undefined
  #failure: LLMError | undefined
  /** Whether there is nothing more to read; what is left to say comes before the end. */
  #isAtEnd = false
  #isOver = false
  #left = restMs

  constructor(source: AnswerSource) {
    this.#source = source
  }

  next(): Promise<IteratorResult<readonly StreamEvent[], undefined>> {
    const failure = this.#failure
    this.#failure = undefined
    if (failure) return Promise.reject(failure)
    if (this.#isOver) return Promise.resolve(over)
    try {
      const answer = this.#answer
      if (!answer) return this.#open()
      if (answer.mapper.hasEnded() || this.#isAtEnd) return Promise.resolve(this.#end())
      return (answer.mapper.mayEnd ? this.#readRest(answer) : answer.read()).then(this.#onRead, this.#onError)
    } catch (error) {
      return new Promise((resolve) => resolve(this.#onError(error)))
    }
  }

  return(): Promise<IteratorResult<readonly StreamEvent[], undefined>> {
    return Promise.resolve(this.#end())
  }

  async #open(): Promise<IteratorResult<readonly StreamEvent[], undefined>> {
    try {
      const answer = await this.#source.open()
      this.#answer = answer
      if (!this.#isOver) return { done: false, value: [] }
      // Whoever asked has left meanwhile.
      answer.close(false)
      return over
    } catch (error) {
      return this.#onError(error)
    }
  }

  readonly #onRead = (pieces: readonly unknown[] | undefined): IteratorResult<readonly StreamEvent[], undefined> => {
    const answer = this.#answer!
    if (this.#isOver) return over
    try {
      if (pieces) return { done: false, value: answer.mapper.push(pieces, answer) }
      this.#source.signal.throwIfAborted()
      this.#isAtEnd = true
      return { done: false, value: answer.mapper.end() }
    } catch (error) {
      return this.#onError(error)
    }
  }

  /** Gives out what had come, then throws. */
  readonly #onError = (cause: unknown): IteratorResult<readonly StreamEvent[], undefined> => {
    const failure = this.#source.toError(cause, this.#answer)
    // Whoever left waits for nothing.
    if (this.#isOver) return over
    const rest = this.#answer?.mapper.rest() ?? []
    this.#end()
    if (rest.length === 0) throw failure
    this.#failure = failure
    return { done: false, value: rest }
  }

  #end(): IteratorResult<never, undefined> {
    const answer = this.#isOver ? undefined : this.#answer
    this.#isOver = true
    answer?.close(answer.mapper.isFinished)
    return over
  }

  /** Waits a moment for what may follow the evidence. A connection that breaks then has lost nothing that counts. */
  async #readRest(answer: OpenAnswer): Read<unknown> {
    const { signal } = this.#source
    const from = performance.now()
    let timer: ReturnType<typeof setTimeout> | undefined
    const tooLate = new Promise<undefined>((resolve) => (timer = setTimeout(resolve, this.#left, undefined)))
    try {
      const rest = answer.read().catch((error: unknown) => {
        if (signal.aborted || isLLMError(error)) throw error
        return undefined
      })
      // Nobody looks at it any more where it comes too late.
      rest.catch(() => undefined)
      return await Promise.race([rest, tooLate])
    } finally {
      clearTimeout(timer)
      this.#left -= performance.now() - from
    }
  }
}
