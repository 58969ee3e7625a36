import { isWhiteSpace } from './call-reader.ts'

const closingTag = '</parameter>'
const nextTags = ['<parameter=', '</function>'] as const
const tagsAfterClosing = [...nextTags, closingTag]

/**
 * Tells the text of `<parameter=key>` from the tags that end it: `</parameter>` counts only before the next parameter or the
 * end of the function, so that the text may hold anything else. One newline at each end is not part of it.
 */
export class ParameterText {
  readonly #write: (text: string) => void
  #atStart = true
  /** A newline that is not text if the closing tag follows. */
  #newline = ''
  /** The closing tag, with the white space after it, if it is one. */
  #closing = ''
  /** A tag as far as it has come. */
  #tag = ''
  /** The tag after the closing one, once it is read. */
  next: (typeof nextTags)[number] | undefined

  constructor(write: (text: string) => void) {
    this.#write = write
  }

  /** Reads on from an index, and returns that of the first character after the `next` tag. */
  read(chunk: string, from: number): number {
    let i = from
    while (i < chunk.length && this.next === undefined) {
      if (this.#tag !== '') i = this.#readTag(chunk[i]!, i)
      else if (this.#closing !== '') i = this.#readAfterClosing(chunk[i]!, i)
      else i = this.#readText(chunk, i)
    }
    return i
  }

  #readText(chunk: string, from: number): number {
    const character = chunk[from]!
    if (character === '\n') {
      if (this.#newline !== '\r') this.#release()
      this.#newline = this.#atStart ? '' : `${this.#newline}\n`
      this.#atStart = false
    } else if (character === '\r') {
      this.#release()
      this.#newline = '\r'
    } else if (character === '<') {
      if (this.#newline === '\r') this.#release()
      this.#tag = '<'
    } else {
      this.#release()
      this.#atStart = false
      let end = from + 1
      while (end < chunk.length && !'<\n\r'.includes(chunk[end]!)) end++
      this.#write(chunk.slice(from, end))
      return end
    }
    return from + 1
  }

  #readTag(character: string, i: number): number {
    const tag = this.#tag + character
    const tags: readonly string[] = this.#closing === '' ? [closingTag] : tagsAfterClosing
    if (!tags.some((known) => known.startsWith(tag))) {
      this.#release()
      return i
    }
    this.#tag = tag
    if (tag === closingTag) {
      this.#tag = ''
      if (this.#closing !== '') {
        // The closing tag before this one was text then, with the white space after it, but for the last newline.
        const newline = /\r?\n$/.exec(this.#closing)?.[0] ?? ''
        this.#closing = this.#closing.slice(0, this.#closing.length - newline.length)
        this.#release()
        this.#newline = newline
      }
      this.#closing = closingTag
    } else this.next = nextTags.find((known) => known === tag)
    return i + 1
  }

  #readAfterClosing(character: string, i: number): number {
    if (isWhiteSpace(character)) this.#closing += character
    else if (character === '<') this.#tag = '<'
    else {
      this.#release()
      return i
    }
    return i + 1
  }

  /** What was held back is text. */
  #release(): void {
    const text = this.#newline + this.#closing + this.#tag
    this.#newline = this.#closing = this.#tag = ''
    if (text === '') return
    this.#atStart = false
    this.#write(text)
  }
}
