import type { JsonSchema } from '../schema.ts'
import type { Tool } from '../tool.ts'
import { type CallOutput, type CallReader, isWhiteSpace } from './call-reader.ts'
import { JsonValueEnd } from './json-text.ts'
import { ParameterText } from './parameter-text.ts'
import { type ParameterTypes, parameterTypes, toJsonText } from './parameter-types.ts'

const parameterTag = '<parameter='
const closingTag = '</function>'

/** A call, from what follows `<function=` to `</function>`. */
export class FunctionCallReader implements CallReader {
  readonly #output: CallOutput
  readonly #tools: ReadonlyMap<string, Tool>
  readonly #isWrapped: boolean
  readonly holdsInput = false
  state: CallReader['state'] = 'undecided'
  #expects: 'name' | 'body' | 'end' | 'input' | 'key' | 'json-value' | 'json-text' | 'value' = 'name'
  #name = ''
  #schema: JsonSchema = {}
  /** A tag as far as it has come. */
  #tag = ''
  #json = new JsonValueEnd()
  #hasParameters = false
  #key = ''
  #types: ParameterTypes
  #value = new ParameterText(() => undefined)
  /** A value, or what follows one that was handed on as it came, until its parameter ends. */
  #collected = ''
  #valueForm: 'string' | 'json' | 'collected' = 'collected'

  /** Outside `<tool_call>` tags only a name among `tools` makes it a call. */
  constructor(output: CallOutput, tools: ReadonlyMap<string, Tool>, isWrapped: boolean) {
    this.#output = output
    this.#tools = tools
    this.#isWrapped = isWrapped
  }

  read(chunk: string, from: number): number {
    let i = from
    while (i < chunk.length && (this.state === 'undecided' || this.state === 'started')) {
      switch (this.#expects) {
        case 'name':
          i = this.#readName(chunk[i]!, i)
          break
        case 'body':
        case 'end':
          i = this.#readTag(chunk[i]!, i)
          break
        case 'key':
          i = this.#readKey(chunk[i]!, i)
          break
        case 'json-value':
          i = this.#startJsonValue(chunk[i]!, i)
          break
        case 'input':
        case 'json-text':
          i = this.#readJson(chunk, i)
          break
        case 'value':
          i = this.#readValue(chunk, i)
      }
    }
    return i
  }

  #readName(character: string, i: number): number {
    if (character !== '>') {
      if (!/[\w.:-]/.test(character)) return this.#fail(i, '')
      this.#name += character
      return i + 1
    }
    if (this.#name === '' || !(this.#isWrapped || this.#tools.has(this.#name))) return this.#fail(i, '')
    this.#schema = this.#tools.get(this.#name)?.inputSchema ?? {}
    this.#expects = 'body'
    return i + 1
  }

  /** Reads what begins the arguments, or what ends the call. */
  #readTag(character: string, i: number): number {
    if (this.#tag === '') {
      if (isWhiteSpace(character)) return i + 1
      if (character === '{' && this.#expects === 'body') {
        this.#start()
        this.#expects = 'input'
        return i
      }
    }
    const tag = this.#tag + character
    const tags = this.#expects === 'body' ? [parameterTag, closingTag] : [closingTag]
    if (!tags.some((known) => known.startsWith(tag))) return this.#fail(i, 'its arguments are not followed by its end')
    this.#tag = tag
    if (tag === parameterTag || tag === closingTag) {
      this.#start()
      this.#onTag(tag)
    }
    return i + 1
  }

  #onTag(tag: typeof parameterTag | typeof closingTag): void {
    if (tag === parameterTag) {
      this.#key = ''
      this.#expects = 'key'
    } else {
      if (this.#hasParameters) this.#output.input('}')
      this.state = 'ended'
      this.#output.end()
    }
  }

  #start(): void {
    this.#tag = ''
    if (this.state === 'started') return
    this.state = 'started'
    this.#output.start(this.#name)
  }

  #readKey(character: string, i: number): number {
    if (character !== '>') {
      if ('<\r\n'.includes(character)) return this.#fail(i, 'the name of a parameter is not closed')
      this.#key += character
      return i + 1
    }
    this.#types = parameterTypes(this.#schema, this.#key)
    this.#output.input(`${this.#hasParameters ? ',' : '{'}${JSON.stringify(this.#key)}:`)
    this.#hasParameters = true
    this.#collected = ''
    if (this.#types?.has('string') && this.#types.size === 1) {
      this.#valueForm = 'string'
      this.#output.input('"')
      this.#value = new ParameterText((text) => this.#output.input(JSON.stringify(text).slice(1, -1)))
    } else {
      this.#valueForm = 'collected'
      this.#value = new ParameterText((text) => void (this.#collected += text))
    }
    this.#expects = this.#types && !this.#types.has('string') ? 'json-value' : 'value'
    return i + 1
  }

  /** An array or object that can be nothing else streams as it is written. */
  #startJsonValue(character: string, i: number): number {
    if (isWhiteSpace(character)) return i + 1
    if (character === '{' || character === '[') {
      this.#valueForm = 'json'
      this.#json = new JsonValueEnd()
      this.#expects = 'json-text'
    } else this.#expects = 'value'
    return i
  }

  #readJson(chunk: string, from: number): number {
    const end = this.#json.read(chunk, from)
    this.#output.input(chunk.slice(from, end))
    if (this.#json.isFound) this.#expects = this.#expects === 'input' ? 'end' : 'value'
    return end
  }

  #readValue(chunk: string, from: number): number {
    const end = this.#value.read(chunk, from)
    const { next } = this.#value
    if (next === undefined) return end
    if (this.#valueForm === 'string') this.#output.input('"')
    else if (this.#valueForm === 'json') {
      if (this.#collected.trim() !== '') return this.#fail(end, 'a parameter goes on after its value')
    } else {
      const json = toJsonText(this.#collected, this.#types)
      if (json === undefined) return this.#fail(end, 'a parameter that is no string is not JSON')
      this.#output.input(json)
    }
    this.#onTag(next)
    return end
  }

  #fail(i: number, problem: string): number {
    if (this.state === 'started') throw this.#output.malformed(problem)
    this.state = 'no-call'
    return i
  }
}
