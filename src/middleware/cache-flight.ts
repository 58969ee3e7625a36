import { AbortedError, copyError, describeError, isLLMError, LimitError } from '../errors.ts'
import type { StreamEvent } from '../events.ts'
import { type Batches, leave, type ProviderContext, type StreamEvents, toBatches } from '../provider.ts'
import { continues, isDelta } from './cache-entry.ts'

/** A place in the log: an event, and how much of its delta was read. */
interface Place {
  readonly index: number
  readonly offset: number
}

/** What one read brought, and the end of the log after it. */
interface Reading {
  readonly batch: readonly StreamEvent[]
  readonly end: Place
}

/**
 * One call that several runs read. Whoever is at its end reads on; whoever is behind catches up from the log, which is kept once
 * for all, its deltas joined. It is cancelled when the last of its readers leaves.
 */
export class Flight {
  readonly #controller = new AbortController()
  readonly #source: Batches
  readonly #readers = new Set<ProviderContext>()
  /** Where whoever began it counts its attempts from. Others may have made more before, or fewer. */
  readonly #attempt: number
  readonly #maxLength: number
  readonly #onOver: () => void
  #log: StreamEvent[] = []
  #length = 0
  /** Where the attempt begins that counts. */
  #first = 0
  #isTooLong = false
  #reading: Promise<Reading | undefined> | undefined
  #isOver = false
  #error: { readonly cause: unknown } | undefined

  constructor(
    open: (context: ProviderContext) => StreamEvents,
    context: ProviderContext,
    maxLength: number,
    onOver: () => void,
  ) {
    this.#attempt = context.attempt
    this.#maxLength = maxLength
    this.#onOver = onOver
    this.#source = toBatches(
      open({
        ...context,
        signal: this.#controller.signal,
        onAttemptFailed: (failure) => {
          for (const reader of this.#readers)
            reader.onAttemptFailed?.({ ...failure, attempt: failure.attempt + reader.attempt - this.#attempt })
        },
      }),
    )
  }

  /** What there is so far of the attempt that counts. */
  get events(): readonly StreamEvent[] {
    return this.#isTooLong ? [] : this.#log.slice(this.#first)
  }

  /** Everything from the beginning, then live. */
  async *read(context: ProviderContext): AsyncGenerator<readonly StreamEvent[], void, undefined> {
    const { signal } = context
    const shift = context.attempt - this.#attempt
    const aborted = Promise.withResolvers<never>()
    // Nobody may be waiting for it.
    aborted.promise.catch(() => undefined)
    const onAbort = (): void => {
      aborted.reject(new AbortedError(signal.reason))
      this.#leave(context)
    }
    this.#readers.add(context)
    signal.addEventListener('abort', onAbort)
    try {
      if (signal.aborted) onAbort()
      let place: Place = { index: this.#first, offset: 0 }
      for (;;) {
        if (this.#isBehind(place)) {
          if (this.#isTooLong) throw tooLong(this.#maxLength)
          const batch = this.#since(place)
          place = this.#end
          yield renumbered(batch, shift)
          continue
        }
        const reading = await Promise.race([this.#next(), aborted.promise])
        if (!reading) return
        place = reading.end
        yield renumbered(reading.batch, shift)
      }
    } catch (error) {
      if (!isLLMError(error) || error.attempt === undefined || shift === 0) throw error
      throw describeError(copyError(error, ['attempt']), { attempt: error.attempt + shift })
    } finally {
      signal.removeEventListener('abort', onAbort)
      this.#leave(context)
    }
  }

  async #next(): Promise<Reading | undefined> {
    if (this.#error) throw copyError(this.#error.cause)
    if (this.#isOver) return undefined
    if (!this.#reading) return (this.#reading = this.#take())
    return this.#reading.catch((cause: unknown) => {
      throw copyError(cause)
    })
  }

  async #take(): Promise<Reading | undefined> {
    try {
      const { done, value } = await this.#source.next()
      this.#reading = undefined
      if (done) {
        this.#over()
        return undefined
      }
      for (const event of value) this.#push(event)
      return { batch: value, end: this.#end }
    } catch (cause) {
      // A copy, since each run adds its own facts to its error.
      this.#error = { cause: copyError(cause) }
      this.#over()
      throw cause
    }
  }

  #push(event: StreamEvent): void {
    // What is known too early, and comes again with the end.
    if (event.type === 'usage') return
    // The answer is complete: who comes now comes after it, though the source may take its time to end.
    if (event.type === 'finish') this.#onOver()
    if (isDelta(event)) this.#length += event.delta.length
    if (this.#length > this.#maxLength && !this.#isTooLong) {
      this.#isTooLong = true
      this.#first = this.#log.length
      this.#log = []
      // Nobody new can read it.
      this.#onOver()
    }
    if (this.#isTooLong) {
      // Only the place of its end is still needed, by those who are there.
      this.#first++
      return
    }
    const last = this.#log.at(-1)
    if (isDelta(event) && continues(last, event))
      this.#log[this.#log.length - 1] = { ...last, delta: last.delta + event.delta }
    else this.#log.push(event)
    if (event.type === 'restart') {
      this.#first = this.#log.length
      this.#length = 0
    }
  }

  get #end(): Place {
    if (this.#isTooLong) return { index: this.#first, offset: 0 }
    const last = this.#log.at(-1)
    return last && isDelta(last)
      ? { index: this.#log.length - 1, offset: last.delta.length }
      : { index: this.#log.length, offset: 0 }
  }

  #isBehind({ index, offset }: Place): boolean {
    const end = this.#end
    return index < end.index || offset < end.offset
  }

  #since({ index, offset }: Place): readonly StreamEvent[] {
    const [next, ...others] = this.#log.slice(index)
    if (!next || offset === 0 || !isDelta(next)) return next ? [next, ...others] : []
    const delta = next.delta.slice(offset)
    return delta === '' ? others : [{ ...next, delta }, ...others]
  }

  #over(): void {
    this.#isOver = true
    this.#onOver()
  }

  #leave(context: ProviderContext): void {
    if (!this.#readers.delete(context) || this.#readers.size > 0 || this.#isOver) return
    this.#over()
    this.#controller.abort(context.signal.reason)
    void leave(this.#source)
  }
}

/** The events as a run gets them that counts its attempts otherwise. */
function renumbered(batch: readonly StreamEvent[], shift: number): readonly StreamEvent[] {
  if (shift === 0) return batch
  return batch.map((event) =>
    event.type === 'start' || event.type === 'restart' ? { ...event, attempt: (event.attempt ?? 1) + shift } : event,
  )
}

function tooLong(maxLength: number): LimitError {
  return new LimitError('maxLength', maxLength, 'The answer of an equal request, whose call this one shares, grew')
}
