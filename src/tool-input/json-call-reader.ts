import { type CallOutput, type CallReader, isWhiteSpace } from './call-reader.ts'
import { JsonStringDecoder, JsonValueEnd, parseJson } from './json-text.ts'

const malformed = 'the object with its name and arguments is not well-formed'

type TextKind = 'key' | 'name' | 'input' | 'encoded-input' | 'null-input' | 'other'

/**
 * Reads `{"name": …, "arguments": {…}}` (Hermes, Qwen), also with `parameters` (Llama) or with the arguments as JSON in a
 * string. The text of the arguments is handed on as it is written; members of other names are passed over.
 */
export class JsonCallReader implements CallReader {
  readonly #output: CallOutput
  state: CallReader['state'] = 'undecided'
  #expects: 'object' | 'first-key' | 'key' | 'colon' | 'value' | 'text' | 'after-value' = 'object'
  /** What the text being read is. */
  #kind: TextKind = 'other'
  #end = new JsonValueEnd()
  readonly #decoder = new JsonStringDecoder()
  /** What has come of a key, a name or a `null`. */
  #token = ''
  #key: unknown
  #name: string | undefined
  #hasInput = false
  /** Arguments that came before the name. */
  #heldInput = ''

  constructor(output: CallOutput) {
    this.#output = output
  }

  get holdsInput(): boolean {
    return this.#hasInput && this.state === 'undecided'
  }

  read(chunk: string, from: number): number {
    let i = from
    while (i < chunk.length && (this.state === 'undecided' || this.state === 'started'))
      i = this.#expects === 'text' ? this.#readText(chunk, i) : this.#readMark(chunk[i]!, i)
    return i
  }

  #readMark(character: string, i: number): number {
    if (isWhiteSpace(character)) return i + 1
    switch (this.#expects) {
      case 'object':
        this.#expects = 'first-key'
        return i + 1
      case 'first-key':
      case 'key':
        if (character === '"') {
          this.#startText('key')
          return i
        }
        if (character !== '}' || this.#expects === 'key') return this.#fail(i)
        break
      case 'colon':
        if (character !== ':') return this.#fail(i)
        this.#expects = 'value'
        return i + 1
      case 'value':
        return this.#startValue(character, i)
      default:
        if (character === ',') {
          this.#expects = 'key'
          return i + 1
        }
        if (character !== '}') return this.#fail(i)
    }
    if (this.#name === undefined) return this.#fail(i)
    if (this.state === 'undecided') this.#start(this.#name)
    this.state = 'ended'
    this.#output.end()
    return i + 1
  }

  #startValue(character: string, i: number): number {
    // Otherwise a missing value would pass for no arguments.
    if (',:}]'.includes(character)) return this.#fail(i)
    if (this.#key === 'name') {
      if (this.#name !== undefined) return this.#fail(i)
      this.#startText('name')
    } else if (this.#key === 'arguments' || this.#key === 'parameters') {
      if (this.#hasInput) return this.#fail(i)
      this.#hasInput = true
      if (this.#name !== undefined) this.#start(this.#name)
      this.#startText(character === '"' ? 'encoded-input' : character === 'n' ? 'null-input' : 'input')
    } else this.#startText('other')
    return i
  }

  #startText(kind: TextKind): void {
    this.#kind = kind
    this.#expects = 'text'
    this.#end = new JsonValueEnd()
    this.#token = ''
  }

  #readText(chunk: string, from: number): number {
    if (this.#kind === 'encoded-input') {
      const { text, end } = this.#decoder.read(chunk, from)
      this.#input(text)
      if (this.#decoder.state === 'broken') return this.#fail(end)
      if (this.#decoder.state === 'ended') this.#expects = 'after-value'
      return end
    }
    const end = this.#end.read(chunk, from)
    if (this.#kind === 'input') this.#input(chunk.slice(from, end))
    else if (this.#kind !== 'other') this.#token += chunk.slice(from, end)
    return this.#end.isFound ? this.#endText(end) : end
  }

  #endText(i: number): number {
    this.#expects = 'after-value'
    if (this.#kind === 'key') {
      this.#expects = 'colon'
      this.#key = parseJson(this.#token)
      if (this.#key === undefined) return this.#fail(i)
    } else if (this.#kind === 'name') {
      const name = parseJson(this.#token)
      if (typeof name !== 'string' || name === '') return this.#fail(i)
      this.#name = name
      if (this.#hasInput) this.#start(name)
    } else if (this.#kind === 'null-input' && this.#token !== 'null') return this.#fail(i)
    return i
  }

  #start(name: string): void {
    this.state = 'started'
    this.#output.start(name)
    this.#input(this.#heldInput)
  }

  #input(text: string): void {
    if (this.state === 'started') this.#output.input(text)
    else this.#heldInput += text
  }

  #fail(i: number): number {
    if (this.state === 'started') throw this.#output.malformed(malformed)
    this.state = 'no-call'
    return i
  }
}
