const QUOTE = 0x22
const COMMA = 0x2c
const OPEN_BRACKET = 0x5b
const BACKSLASH = 0x5c
const CLOSE_BRACKET = 0x5d
const OPEN_BRACE = 0x7b
const CLOSE_BRACE = 0x7d

/** What `JSON.parse` makes of a text; `undefined` where it is no JSON. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** Finds where a JSON value ends, by its brackets outside strings. Whether it is well-formed is for its reader to say. */
export class JsonValueEnd {
  #depth = 0
  #inString = false
  #isEscaped = false
  isFound = false

  /** Reads on from an index, and returns that of the first character that is not the value's. */
  read(chunk: string, from: number): number {
    for (let i = from; i < chunk.length; i++) {
      const code = chunk.charCodeAt(i)
      if (this.#inString) {
        if (this.#isEscaped) this.#isEscaped = false
        else if (code === BACKSLASH) this.#isEscaped = true
        else if (code === QUOTE) {
          this.#inString = false
          if (this.#depth === 0) return this.#end(i + 1)
        }
      } else if (code === QUOTE) this.#inString = true
      else if (code === OPEN_BRACE || code === OPEN_BRACKET) this.#depth++
      else if (this.#depth === 0) {
        // A number or literal ends before what follows it.
        if (code === COMMA || code === CLOSE_BRACE || code === CLOSE_BRACKET || code <= 0x20) return this.#end(i)
      } else if ((code === CLOSE_BRACE || code === CLOSE_BRACKET) && --this.#depth === 0) return this.#end(i + 1)
    }
    return chunk.length
  }

  #end(index: number): number {
    this.isFound = true
    return index
  }
}

/** Decodes a JSON string in pieces, from its opening quote to its closing one. */
export class JsonStringDecoder {
  #hasBegun = false
  /** The escape being read. */
  #escape = ''
  /** A high surrogate that waits for its other half. */
  #held = ''
  state: 'open' | 'ended' | 'broken' = 'open'

  /** Reads on from an index. `end` is the index of the first character that is not the string's. */
  read(chunk: string, from: number): { readonly text: string; readonly end: number } {
    let text = this.#held
    let i = from
    if (!this.#hasBegun && i < chunk.length) {
      this.#hasBegun = true
      i++
    }
    while (i < chunk.length && this.state === 'open') {
      if (this.#escape !== '') text += this.#readEscape(chunk[i++]!)
      else {
        const start = i
        while (i < chunk.length && chunk.charCodeAt(i) !== QUOTE && chunk.charCodeAt(i) !== BACKSLASH) i++
        text += chunk.slice(start, i)
        if (i === chunk.length) break
        if (chunk.charCodeAt(i++) === BACKSLASH) this.#escape = '\\'
        else this.state = 'ended'
      }
    }
    this.#held = this.state === 'open' && /[\ud800-\udbff]$/.test(text) ? text.slice(-1) : ''
    return { text: text.slice(0, text.length - this.#held.length), end: i }
  }

  #readEscape(character: string): string {
    this.#escape += character
    if (this.#escape.length < (this.#escape[1] === 'u' ? 6 : 2)) return ''
    const decoded = parseJson(`"${this.#escape}"`)
    this.#escape = ''
    if (typeof decoded === 'string') return decoded
    this.state = 'broken'
    return ''
  }
}
