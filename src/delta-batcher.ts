import type { FieldDeltaEvent, TextDeltaEvent } from './events.ts'

/**
 * When deltas that wait are joined and delivered: as soon as one of these is so, and always before the field or text ends. Default of
 * each: it does not matter; one is required.
 */
export interface BatchOptions {
  /** This many characters (UTF-16 code units) wait. */
  readonly chars?: number | undefined
  /** This many deltas wait, as the provider sent them. */
  readonly deltas?: number | undefined
  /**
   * A word or a sentence is complete, which shows when the next one begins; what follows it goes on waiting. By the rules of
   * Unicode for all languages; words in scripts without spaces as far as a dictionary can tell by then.
   */
  readonly at?: 'word' | 'sentence' | undefined
  /** The first character has waited this long, in milliseconds. */
  readonly maxWait?: number | undefined
}

/** A delta with the length of its text so far. */
export type TextOrFieldDelta = (TextDeltaEvent & { readonly length: number }) | FieldDeltaEvent

/** Where text is cut only when a cut is known to be one, a longer text is looked at again only after it has grown by this much. */
const growth = 1.25
const alwaysLookedAt = 256

/** Joins the deltas of the text, and of each field, into fewer. Those of one text stay in order; those of two may change places. */
export class DeltaBatcher {
  readonly #options: BatchOptions
  readonly #emit: (event: TextOrFieldDelta) => void
  readonly #texts = new Map<string, WaitingText>()
  #timer: ReturnType<typeof setTimeout> | undefined

  constructor(options: BatchOptions, emit: (event: TextOrFieldDelta) => void) {
    this.#options = options
    this.#emit = emit
  }

  push(event: TextOrFieldDelta): void {
    const { chars = Infinity, deltas = Infinity, at, maxWait } = this.#options
    const name = nameOf(event)
    let waiting = this.#texts.get(name)
    if (!waiting) this.#texts.set(name, (waiting = new WaitingText()))
    waiting.push(event)
    const isDue = waiting.text.length >= chars || waiting.arrivals.length >= deltas
    const end = isDue ? waiting.text.length : at ? waiting.lookForEnd(at) : 0
    if (end === waiting.text.length) this.#texts.delete(name)
    // Before any listener hears of it, who may end it all.
    else if (maxWait !== undefined) this.#timer ??= setTimeout(this.#onTimer, maxWait)
    if (end > 0) this.#emit(waiting.take(end))
  }

  /** Delivers all that waits. */
  flush(): void {
    const all = [...this.#texts.values()]
    this.#texts.clear()
    for (const waiting of all) this.#emit(waiting.take())
  }

  /** Drops what waits, and the timer. */
  end(): void {
    clearTimeout(this.#timer)
    this.#texts.clear()
  }

  readonly #onTimer = (): void => {
    this.#timer = undefined
    const { maxWait = Infinity } = this.#options
    const now = performance.now()
    let next = Infinity
    const due: WaitingText[] = []
    for (const [name, waiting] of this.#texts) {
      const left = waiting.arrivals[0]!.time + maxWait - now
      if (left > 0) next = Math.min(next, left)
      else {
        this.#texts.delete(name)
        due.push(waiting)
      }
    }
    if (next < Infinity) this.#timer = setTimeout(this.#onTimer, Math.ceil(next))
    for (const waiting of due) this.#emit(waiting.take())
  }
}

/** What has come of one text, and was not yet delivered. */
class WaitingText {
  text = ''
  /** When what of it came: up to which length of the whole text, and the time. */
  arrivals: { readonly length: number; readonly time: number }[] = []
  #newest: TextOrFieldDelta | undefined
  /** Up to which length no end was found. */
  #lookedAt = 0

  push(event: TextOrFieldDelta): void {
    this.text += event.delta
    this.arrivals.push({ length: event.length, time: performance.now() })
    this.#newest = event
  }

  /** How much of it is whole words or sentences. */
  lookForEnd(unit: 'word' | 'sentence'): number {
    const { text } = this
    if (text.length > alwaysLookedAt && text.length < this.#lookedAt * growth) return 0
    this.#lookedAt = text.length
    const end = unit === 'word' ? endOfWords(text) : endOfSentences(text)
    // To the rules of sentences, an emoji's skin tone is a letter of its own.
    const isWhole = end === text.length || segmentsOf(text, 'grapheme').containing(end)!.index === end
    return isWhole ? end : 0
  }

  /** The first `end` characters as one delta; the others go on waiting. */
  take(end = this.text.length): TextOrFieldDelta {
    const newest = this.#newest!
    const rest = this.text.slice(end)
    const event = { ...newest, delta: this.text.slice(0, end), length: newest.length - rest.length }
    this.text = rest
    this.arrivals = this.arrivals.filter(({ length }) => length > event.length)
    this.#lookedAt = 0
    return event
  }
}

function nameOf(event: TextOrFieldDelta): string {
  return event.type === 'text-delta' ? '' : `${event.toolCallId ?? ''}\n${event.path}\n${event.field}`
}

const segmenters = new Map<string, Intl.Segmenter>()

function segmentsOf(text: string, granularity: 'grapheme' | 'word' | 'sentence'): Intl.Segments {
  let segmenter = segmenters.get(granularity)
  // Not the host's language: the same text is cut alike everywhere.
  if (!segmenter) segmenters.set(granularity, (segmenter = new Intl.Segmenter('en', { granularity })))
  return segmenter.segment(text)
}

/** Where the last word begins before which `text` is to be cut whatever follows; 0 where there is no such place. */
function endOfWords(text: string): number {
  const segments = segmentsOf(text, 'word')
  const last = segments.containing(text.length - 1)!
  for (let word = last; word.index > 0;) {
    const before = segments.containing(word.index - 1)!
    // Two words without anything between them: what follows tells where the dictionary parts them.
    if (word.isWordLike && (!before.isWordLike || word.index !== last.index)) return word.index
    word = before
  }
  return 0
}

/** After one of these, what comes before cannot change any more where a sentence ends. */
const decisive = /[\p{Lu}\p{Ll}\p{Lo}\p{Sentence_Terminal}\n\r\u0085\u2028\u2029]/u

/** Where the last sentence begins before which `text` is to be cut whatever follows; 0 where there is no such place. */
function endOfSentences(text: string): number {
  if (/[\n\u0085\u2028\u2029]$/.test(text)) return text.length
  const segments = segmentsOf(text, 'sentence')
  let { index } = segments.containing(text.length - 1)!
  while (index > 0 && !decisive.test(text.slice(index))) ({ index } = segments.containing(index - 1)!)
  return index
}
