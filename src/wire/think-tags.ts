import type { StreamEvent } from '../events.ts'

/**
 * How reasoning inside content begins: with `<think>` only; unannounced, so that content is reasoning up to `</think>`; or
 * either, in which case content without the opening tag is held back until it is clear.
 */
export type ThinkTag = 'opened' | 'unopened' | 'either'

const opening = '<think>'
const closing = '</think>'

/** What content is that no tag opens. */
const unannounced = { opened: 'text', unopened: 'reasoning', either: 'undecided' } as const

/**
 * Tells reasoning from text where a model writes both as content. Only what stands first can be reasoning:
 *
 * 1. Content that begins with `<think>`, white space aside, is reasoning up to `</think>`.
 * 2. Other content is text (`opened`), reasoning up to `</think>` (`unopened`), or held back until `</think>` makes it
 *    reasoning, or a call or the end makes it text (`either`).
 * 3. A first `</think>` in text that no `<think>` precedes is left out of it, and `hasStrayTag` says so.
 * 4. After that any tag is text, as it is once reasoning came apart from content, except where content begins with it.
 *
 * Neither tags nor the white space after them are part of anything.
 */
export class ThinkTagSplitter {
  #tag: ThinkTag
  #out: StreamEvent[] = []
  #state: 'beginning' | 'undecided' | 'reasoning' | 'gap' | 'text' | 'verbatim' = 'beginning'
  #afterGap: 'reasoning' | 'verbatim' = 'verbatim'
  /** What may yet turn out to be a tag. */
  #held = ''
  /** What may yet turn out to be reasoning, or white space before a tag. */
  #undecided: string[] = []
  #isApart = false
  hasStrayTag = false

  constructor(tag: ThinkTag) {
    this.#tag = tag
  }

  /** Takes the next content. */
  write(content: string, out: StreamEvent[]): void {
    if (content === '') return
    this.#out = out
    const isClear = this.#state === 'text' && this.#held === '' && !content.includes('<')
    if (isClear || this.#state === 'verbatim') {
      this.#emit('text-delta', content)
      return
    }
    let rest: string | undefined = this.#held + content
    this.#held = ''
    while (rest !== undefined && rest !== '') rest = this.#step(rest)
  }

  /** Reasoning came apart from content, so content need not be searched for it. */
  separate(out: StreamEvent[]): void {
    if (this.#isApart) return
    this.#isApart = true
    this.release(out)
    this.#tag = 'opened'
    if (this.#state !== 'beginning' && this.#state !== 'gap') this.#state = 'verbatim'
  }

  /** Gives out what is held back: something else follows, or nothing. */
  release(out: StreamEvent[]): void {
    this.#out = out
    this.#decide('text-delta')
    this.#emit(this.#state === 'reasoning' ? 'reasoning-delta' : 'text-delta', this.#held)
    this.#held = ''
    if (this.#state === 'undecided') this.#state = 'text'
  }

  /** Takes what it can of `text`, and returns the rest for the state that follows; holds back what is not clear yet. */
  #step(text: string): string | undefined {
    switch (this.#state) {
      case 'beginning': {
        const trimmed = text.trimStart()
        if (trimmed.length < text.length) this.#undecided.push(text.slice(0, text.length - trimmed.length))
        if (trimmed.startsWith(opening)) return this.#skip(trimmed, opening, 'reasoning')
        if (trimmed.startsWith(closing)) return this.#skip(trimmed, closing, 'verbatim')
        if (opening.startsWith(trimmed) || closing.startsWith(trimmed)) {
          this.#held = trimmed
          return undefined
        }
        this.#state = this.#isApart ? 'verbatim' : unannounced[this.#tag]
        return this.#undecided.splice(0).join('') + trimmed
      }
      case 'gap': {
        const trimmed = text.trimStart()
        if (trimmed !== '') this.#state = this.#afterGap
        return trimmed
      }
      case 'verbatim':
        this.#emit('text-delta', text)
        return undefined
      default:
        return this.#seek(text, this.#state)
    }
  }

  #skip(text: string, tag: string, next: 'reasoning' | 'verbatim'): string {
    this.#undecided = []
    this.#state = 'gap'
    this.#afterGap = next
    return text.slice(tag.length)
  }

  /** Looks for the closing tag. */
  #seek(text: string, state: 'undecided' | 'reasoning' | 'text'): string | undefined {
    const at = text.indexOf(closing)
    const openedAt = state === 'text' ? text.indexOf(opening) : -1
    if (openedAt >= 0 && (at < 0 || openedAt < at)) {
      this.#state = 'verbatim'
      return text
    }
    const clear = at >= 0 ? at : text.length - overlap(text)
    const before = text.slice(0, clear)
    if (state === 'undecided') this.#undecided.push(before)
    else this.#emit(state === 'reasoning' ? 'reasoning-delta' : 'text-delta', before)
    if (at < 0) {
      this.#held = text.slice(clear)
      return undefined
    }
    if (state === 'undecided') this.#decide('reasoning-delta')
    if (state === 'text') this.hasStrayTag = true
    return this.#skip(text.slice(at), closing, 'verbatim')
  }

  #decide(type: 'text-delta' | 'reasoning-delta'): void {
    this.#emit(type, this.#undecided.splice(0).join(''))
  }

  #emit(type: 'text-delta' | 'reasoning-delta', delta: string): void {
    if (delta !== '') this.#out.push({ type, delta })
  }
}

/** How many characters at the end may be the beginning of a tag. */
function overlap(text: string): number {
  for (let length = Math.min(closing.length - 1, text.length); length > 0; length--) {
    const end = text.slice(-length)
    if (closing.startsWith(end) || opening.startsWith(end)) return length
  }
  return 0
}
