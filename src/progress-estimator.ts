import { type LLMRequest, forcedTool } from './request.ts'
import { type JsonSchema, resolveReference } from './schema.ts'

/** Characters of a piece of prose that nothing is known of: a string in a payload, and a whole answer in plain text. */
const usualString = 40
const usualText = 400
/** Elements of an array that nothing is known of. */
const usualElements = 3
const maxDepth = 6
/** Most sizes to remember. */
const maxSizes = 1000
/** Later answers count as one in so many, so that the mean follows a change. */
const memory = 8

/** What was learned of a size. */
export interface SeenSize {
  readonly size: number
  /** How much it varies: 0 where it is always the same, 1 where anything is to be expected. */
  readonly spread: number
}

interface Statistics {
  /** Of logarithms: sizes vary by factors, and one long answer must not make all others seem short. */
  mean: number
  deviation: number
  count: number
}

/** How long the texts of earlier answers were; shared by the runs of a client. */
export type SizeStatistics = Map<string, Statistics>

class SeenSizes {
  readonly #statistics: SizeStatistics

  constructor(statistics: SizeStatistics) {
    this.#statistics = statistics
  }

  /** The size of a member of a payload, or of a whole text; `undefined` where there was none. */
  get(name: string | undefined, member?: string): SeenSize | undefined {
    const seen = this.#statistics.get(keyOf(name, member))
    return seen && { size: Math.expm1(seen.mean), spread: Math.min(seen.deviation, 1) }
  }

  add(size: number, name: string | undefined, member?: string): void {
    const key = keyOf(name, member)
    const logarithm = Math.log1p(size)
    const { mean, deviation, count } = this.#statistics.get(key) ?? { mean: logarithm, deviation: 0, count: 0 }
    if (count === 0 && this.#statistics.size >= maxSizes) this.#statistics.delete(this.#statistics.keys().next().value!)
    const weight = Math.min(count + 1, memory)
    this.#statistics.set(key, {
      mean: mean + (logarithm - mean) / weight,
      deviation: deviation + (Math.abs(logarithm - mean) - deviation) / weight,
      count: weight,
    })
  }
}

function keyOf(name: string | undefined, member: string | undefined): string {
  return JSON.stringify([name, member])
}

/** A text with a size to expect. */
interface OpenText {
  /** Characters so far. */
  readonly written: number
  /** How many more to expect. */
  readonly remaining: number
  write(delta: string): void
  close(): void
  learn(): void
}

/**
 * Estimates how much of an answer is written: by the sizes seen before, what its schemas demand, and what of them has closed.
 * Counts the characters of text and tool arguments.
 */
export class ProgressEstimator {
  readonly #request: LLMRequest
  readonly #sizes: SeenSizes
  readonly #calls = new Map<string, OpenText>()
  readonly #text: OpenText

  constructor(request: LLMRequest, statistics: SizeStatistics) {
    const sizes = new SeenSizes(statistics)
    this.#request = request
    this.#sizes = sizes
    this.#text = request.output
      ? new OpenPayload(undefined, request.output.schema, sizes)
      : new OpenProse(sizes, forcedTool(request) ? 0 : usualText)
  }

  /** From 0 to 1, and neither before something is written and while more may come. It may go back. */
  get ratio(): number {
    const calls = [...this.#calls.values()]
    let written = this.#text.written
    let remaining = 0
    for (const call of calls) {
      written += call.written
      remaining += call.remaining
    }
    const expected = calls.length === 0 ? forcedTool(this.#request) : undefined
    if (expected) remaining += new OpenPayload(expected.name, expected.inputSchema, this.#sizes).remaining
    // Who calls tools has said what was to be said.
    else if (calls.length === 0) remaining += this.#text.remaining
    return written === 0 ? 0 : written / (written + Math.max(remaining, 1))
  }

  startCall(toolCallId: string, toolName: string): void {
    const tool = this.#request.tools?.find(({ name }) => name === toolName)
    this.#calls.set(toolCallId, new OpenPayload(toolName, tool?.inputSchema ?? {}, this.#sizes))
  }

  /** The next piece of a call's arguments, or without a call of the text. */
  write(toolCallId: string | undefined, delta: string): void {
    const open = toolCallId === undefined ? this.#text : this.#calls.get(toolCallId)
    open?.write(delta)
  }

  endCall(toolCallId: string): void {
    this.#calls.get(toolCallId)?.close()
  }

  /** Remembers the sizes of an answer that is complete. */
  learn(): void {
    for (const call of this.#calls.values()) call.learn()
    if (this.#calls.size === 0) this.#text.learn()
  }
}

/** Text in no form that is known. */
class OpenProse implements OpenText {
  written = 0
  readonly #sizes: SeenSizes
  readonly #usual: number

  constructor(sizes: SeenSizes, usual: number) {
    this.#sizes = sizes
    this.#usual = usual
  }

  get remaining(): number {
    const seen = this.#sizes.get(undefined)
    // Answers in prose differ by so much that the middle is the best guess for long.
    const vague = Math.sqrt(this.written * (seen?.size ?? this.#usual))
    return seen ? mix(seen, this.written, vague) : vague
  }

  write(delta: string): void {
    this.written += delta.length
  }

  close(): void {
    // It ends with the answer.
  }

  learn(): void {
    this.#sizes.add(this.written, undefined)
  }
}

/** What a member of an object is expected to take, its key and comma included. */
interface Member {
  readonly size: number
  readonly isRequired: boolean
}

/** A JSON object that is being written. Follows its members, not what is in them. */
class OpenPayload implements OpenText {
  written = 0
  readonly #name: string | undefined
  readonly #sizes: SeenSizes
  readonly #members: ReadonlyMap<string, Member>
  /** The sizes of the members that are closed. */
  readonly #closed = new Map<string, number>()
  #isClosed = false

  #depth = 0
  #inString = false
  #isEscaped = false
  /** Where the open member began, the text of its key so far, and its name once that is whole. */
  #from = 0
  #key: string | undefined
  #open: string | undefined

  constructor(name: string | undefined, schema: JsonSchema, sizes: SeenSizes) {
    this.#name = name
    this.#sizes = sizes
    this.#members = membersOf(schema, schema)
  }

  get remaining(): number {
    if (this.#isClosed) return 0
    if (this.#members.size === 0) return toCome(this.written, this.#sizes.get(this.#name), usualString)
    let remaining = 0
    let isPassed = true
    // From the last: models write members in the order of the schema, so what comes before one that is there was left out.
    const unseen: number[] = []
    for (const [member, { size, isRequired }] of [...this.#members].reverse()) {
      const seen = this.#sizes.get(this.#name, member)
      if (member === this.#open) {
        remaining += toCome(this.written - this.#from, seen, size)
        isPassed = false
      } else if (this.#closed.has(member)) isPassed = false
      else unseen.push((seen?.size ?? (isRequired ? size : size / 2)) * (isPassed || isRequired ? 1 : 0.1))
    }
    for (const size of unseen) remaining += size
    return remaining
  }

  write(delta: string): void {
    for (let i = 0; i < delta.length; i++) {
      const character = delta[i]!
      const place = this.written + i
      if (this.#inString) this.#inText(character)
      else if (character === '"') {
        this.#inString = true
        if (this.#depth === 1 && this.#open === undefined) {
          this.#from = place
          this.#key = ''
        }
      } else if (character === '{' || character === '[') this.#depth++
      else if (character === '}' || character === ']') {
        if (--this.#depth === 0) this.#closeMember(place)
      } else if (character === ',' && this.#depth === 1) this.#closeMember(place)
    }
    this.written += delta.length
  }

  close(): void {
    this.#isClosed = true
  }

  learn(): void {
    if (this.#members.size === 0) this.#sizes.add(this.written, this.#name)
    for (const member of this.#members.keys()) this.#sizes.add(this.#closed.get(member) ?? 0, this.#name, member)
  }

  #inText(character: string): void {
    if (!this.#isEscaped && character === '"') {
      this.#inString = false
      if (this.#key !== undefined) this.#open = this.#key
      this.#key = undefined
    } else if (this.#key !== undefined) this.#key += character
    this.#isEscaped = !this.#isEscaped && character === '\\'
  }

  #closeMember(place: number): void {
    if (this.#open !== undefined) this.#closed.set(this.#open, place - this.#from + 1)
    this.#open = undefined
  }
}

/**
 * What is to come of a text. A size that was always the same is taken at its word; one that varies, or is only supposed, is a
 * mean of short and long texts, and the longer this one is, the more may be to come.
 */
function toCome(written: number, seen: SeenSize | undefined, supposed: number): number {
  const size = seen?.size ?? supposed
  const vague = size === 0 ? 0 : (size * size) / (size + written / 2)
  return seen ? mix(seen, written, vague) : vague
}

function mix({ size, spread }: SeenSize, written: number, vague: number): number {
  return (1 - spread) * Math.max(size - written, size / 20) + spread * vague
}

function membersOf(schema: JsonSchema, root: JsonSchema, depth = 0): Map<string, Member> {
  const { properties, required } = schema
  const names = new Set(Array.isArray(required) ? (required as unknown[]) : [])
  const members = Object.entries((properties ?? {}) as Record<string, unknown>)
  return new Map(
    members.map(([key, member]) => [
      key,
      { size: key.length + 4 + sizeOf(member, root, depth), isRequired: names.has(key) },
    ]),
  )
}

/** Characters of JSON that a value of a schema takes, roughly. */
function sizeOf(schema: unknown, root: JsonSchema, depth: number): number {
  if (typeof schema !== 'object' || schema === null || depth > maxDepth) return usualString
  const keywords = schema as Record<string, unknown>
  const of = (part: unknown): number => sizeOf(part, root, depth + 1)
  if ('const' in keywords) return lengthOf(keywords['const'])
  if (Array.isArray(keywords['enum'])) return mean(keywords['enum'].map(lengthOf))
  if (typeof keywords['$ref'] === 'string') return of(resolveReference(keywords['$ref'], root))
  for (const choice of [keywords['anyOf'], keywords['oneOf']]) if (Array.isArray(choice)) return mean(choice.map(of))
  const number = (name: string, otherwise: number): number =>
    typeof keywords[name] === 'number' ? keywords[name] : otherwise
  switch ([keywords['type']].flat()[0] ?? ('properties' in keywords ? 'object' : undefined)) {
    case 'boolean':
    case 'null':
      return 5
    case 'integer':
    case 'number':
      return 4
    case 'array': {
      const count = Math.min(Math.max(usualElements, number('minItems', 0)), number('maxItems', Infinity))
      return 2 + count * (of(keywords['items']) + 2)
    }
    case 'object': {
      const members = membersOf(keywords, root, depth + 1)
      let size = 2
      for (const { size: member, isRequired } of members.values()) size += isRequired ? member : member / 2
      return members.size === 0 ? usualString : size
    }
    default:
      return 2 + Math.min(Math.max(usualString, number('minLength', 0)), number('maxLength', Infinity))
  }
}

function lengthOf(value: unknown): number {
  return JSON.stringify(value)?.length ?? 0
}

function mean(sizes: readonly number[]): number {
  return sizes.reduce((sum, size) => sum + size, 0) / Math.max(sizes.length, 1)
}
