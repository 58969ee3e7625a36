import { OutputError } from '../errors.ts'
import type { StreamEvent } from '../events.ts'
import type { Tool } from '../tool.ts'
import { type CallOutput, type CallReader, isWhiteSpace } from './call-reader.ts'
import { FunctionCallReader } from './function-call-reader.ts'
import { JsonCallReader } from './json-call-reader.ts'

const openingTag = '<tool_call>'
const functionTag = '<function='
const closingTag = '</tool_call>'

/** Begins the ids of calls, which tags do not have. */
export const callIdPrefix = 'call_xml_'

/** Most characters that are held while they may be text or the beginning of a call, up to arguments before a name. */
const maxUndecided = 4096

/** A call that was begun. */
interface OpenCall {
  readonly toolCallId: string
  readonly toolName: string
  /** Characters of its arguments so far. */
  length: number
}

/**
 * Tells the tool calls in a text from the rest, in pieces and each character once. It knows
 * `<tool_call>{"name": …, "arguments": …}</tool_call>`, one or several in a tag, and `<function=name>` with parameters or JSON,
 * with or without `<tool_call>` around it.
 *
 * - What only looks like a call is text. It is one as soon as a name is followed by arguments or the end; from then on a broken
 *   form is an error. `<function=…>` without `<tool_call>` needs the name of one of `tools`; in `<tool_call>` any name will do.
 * - White space next to calls is not text, unless there is text on both sides: then that before the later text is kept.
 * - A missing `</tool_call>` after a whole call is forgiven: models stop before it.
 */
export class ToolCallTagReader {
  readonly #tools: ReadonlyMap<string, Tool>
  #callNumber: number
  /** `'opened'` after `<tool_call>`, `'between'` after a call in it. */
  #place: 'outside' | 'opened' | 'between' = 'outside'
  /** What is text if it turns out not to begin a call. */
  #held = ''
  /** A tag as far as it has come. */
  #tag = ''
  /** White space that is not text if a call follows. */
  #space = ''
  #isAfterCall = false
  /** Whether a whole call was read. */
  hasCall = false
  #hasText = false
  #reader: CallReader | undefined
  #call: OpenCall | undefined
  #out: StreamEvent[] = []
  /** What waits to be given out as one delta. */
  #pending = ''
  #pendingType: 'text-delta' | 'tool-input-delta' = 'text-delta'
  readonly #output: CallOutput

  /** Calls get ids that count on from `callNumber`. */
  constructor(tools: readonly Tool[], callNumber: number) {
    this.#tools = new Map(tools.map((tool) => [tool.name, tool]))
    this.#callNumber = callNumber
    this.#output = {
      start: (toolName) => {
        this.#flush()
        this.#call = { toolCallId: `${callIdPrefix}${this.#callNumber++}`, toolName, length: 0 }
        this.#held = this.#space = ''
        this.#out.push({ type: 'tool-input-start', toolCallId: this.#call.toolCallId, toolName })
      },
      input: (text) => {
        this.#call!.length += text.length
        this.#write('tool-input-delta', text)
      },
      end: () => {
        this.#flush()
        this.#out.push({ type: 'tool-input-end', toolCallId: this.#call!.toolCallId })
        this.#isAfterCall = this.hasCall = true
      },
      malformed: (problem) =>
        this.#error('invalid_json', `The model wrote a malformed call of tool "${this.#call!.toolName}": ${problem}.`),
    }
  }

  /** Whether the text written last ended as text, with nothing held that may be more. */
  get isInText(): boolean {
    return this.#hasText && !this.#isAfterCall && this.#held === '' && this.#tag === '' && !this.#reader
  }

  /** The error for an answer that ends where it is now; `undefined` where it may. */
  get cutError(): OutputError | undefined {
    const isInNextCall = this.#place === 'between' && (this.#reader ?? !closingTag.startsWith(this.#tag))
    if (this.#reader?.state !== 'started' && !isInNextCall) return undefined
    return this.#error(
      'output_truncated',
      `The model ended its answer in the middle of a call of tool "${this.#call!.toolName}". Ask again, or allow more tokens.`,
    )
  }

  /** Reads the next piece. Where it throws, `out` has what came before. */
  write(text: string, out: StreamEvent[]): void {
    this.#out = out
    try {
      let i = 0
      while (i < text.length) {
        if (this.#reader) i = this.#readCall(this.#reader, text, i)
        else if (this.#tag !== '') i = this.#readTag(text[i]!, i)
        else if (this.#place === 'outside') i = this.#readText(text, i)
        else i = this.#readInside(text[i]!, i)
      }
    } finally {
      this.#flush()
    }
  }

  /** Gives out what is held as text: the answer, or this part of it, ends. */
  release(out: StreamEvent[]): void {
    this.#out = out
    if (this.#reader?.state === 'started') return
    this.#reader = undefined
    if (this.#place === 'between') this.#held = this.#tag = ''
    else if (this.#isAfterCall && closingTag.startsWith(this.#tag)) this.#tag = ''
    this.#giveUp()
    if (!this.#isAfterCall) this.#write('text-delta', this.#space)
    this.#space = ''
    this.#flush()
  }

  #readText(text: string, from: number): number {
    const next = text.indexOf('<', from)
    const end = next === -1 ? text.length : next
    if (end > from) this.#writeText(text.slice(from, end))
    if (next === -1) return end
    this.#tag = '<'
    return end + 1
  }

  #readTag(character: string, i: number): number {
    const tag = this.#tag + character
    const tags = [openingTag, functionTag]
    if (this.#place === 'between' || (this.#place === 'outside' && this.#isAfterCall)) tags.push(closingTag)
    if (!tags.some((known) => known.startsWith(tag))) {
      if (this.#place === 'between') throw this.#notClosed()
      this.#giveUp()
      return i
    }
    this.#tag = tag
    if (tags.includes(tag)) this.#onTag(tag)
    return i + 1
  }

  #onTag(tag: string): void {
    this.#tag = ''
    if (tag === functionTag) {
      this.#reader = new FunctionCallReader(this.#output, this.#tools, this.#place !== 'outside')
      this.#held += tag
    } else if (tag === openingTag) {
      // The one before it opened nothing.
      if (this.#place === 'opened') this.#giveUp()
      this.#held = tag
      this.#place = 'opened'
    } else {
      this.#place = 'outside'
      this.#space = ''
    }
  }

  #readInside(character: string, i: number): number {
    if (character === '<') this.#tag = '<'
    else if (character === '{') {
      this.#reader = new JsonCallReader(this.#output)
      return i
    } else if (!isWhiteSpace(character)) {
      if (this.#place === 'between') throw this.#notClosed()
      this.#giveUp()
      return i
    } else if (this.#place === 'opened') this.#held += character
    return i + 1
  }

  #readCall(reader: CallReader, text: string, from: number): number {
    // Handing over no more than may be held makes the outcome the same however the text is cut.
    const isBounded = reader.state === 'undecided' && !reader.holdsInput
    const room = Math.max(0, maxUndecided - this.#held.length)
    const end = reader.read(isBounded ? text.slice(0, from + room) : text, from)
    if (reader.state === 'ended') {
      this.#reader = undefined
      if (this.#place === 'opened') this.#place = 'between'
      return end
    }
    if (reader.state === 'started') return end
    this.#held += text.slice(from, end)
    const isTooLong = this.#held.length >= maxUndecided && !reader.holdsInput
    if (reader.state === 'no-call' || isTooLong) {
      this.#reader = undefined
      if (this.#place === 'between') throw this.#notClosed()
      this.#giveUp()
    }
    return end
  }

  /** What was held is text. */
  #giveUp(): void {
    const text = this.#held + this.#tag
    this.#held = this.#tag = ''
    this.#place = 'outside'
    if (text !== '') this.#writeText(text)
  }

  #writeText(text: string): void {
    const visible = text.trimEnd()
    if (visible === '') {
      this.#space += text
      return
    }
    const isFirst = this.#isAfterCall && !this.#hasText
    this.#write('text-delta', isFirst ? visible.trimStart() : this.#space + visible)
    this.#space = text.slice(visible.length)
    this.#hasText = true
    this.#isAfterCall = false
  }

  #write(type: 'text-delta' | 'tool-input-delta', text: string): void {
    this.#pendingType = type
    this.#pending += text
  }

  /** A delta for each kind of content, not for each of its lines. */
  #flush(): void {
    const delta = this.#pending
    this.#pending = ''
    if (delta === '') return
    if (this.#pendingType === 'text-delta') this.#out.push({ type: 'text-delta', delta })
    else this.#out.push({ type: 'tool-input-delta', toolCallId: this.#call!.toolCallId, delta })
  }

  #notClosed(): OutputError {
    return this.#output.malformed('something else than `</tool_call>` follows it')
  }

  #error(code: 'invalid_json' | 'output_truncated', message: string): OutputError {
    const { toolName, toolCallId, length: position } = this.#call!
    return new OutputError(code, message, { phase: 'stream', toolName, toolCallId, position })
  }
}
