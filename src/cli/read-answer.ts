import { Buffer } from 'node:buffer'
import { bodyOf, type Exchange } from './observe.ts'
import type { CallPiece, EventFacts, Json, Protocol } from './protocols.ts'

/** One event of a body, or one of its lines. */
export interface WireEvent {
  readonly name: string | undefined
  readonly data: Json | undefined
  readonly text: string
  /** The index of the byte after it. */
  readonly end: number
  /** Whether the blank line, or the end of the line, that closes it is there. */
  readonly isClosed: boolean
  readonly facts: EventFacts
}

/** A call put together as its places say. */
export interface WireCall {
  readonly place: number | undefined
  readonly ids: readonly string[]
  readonly names: readonly string[]
  readonly pieces: number
  readonly text: string
}

/** What a body says, read byte by byte and by nothing of the library. */
export interface WireAnswer {
  readonly events: readonly WireEvent[]
  /** Of a body that is one piece of JSON instead of events. */
  readonly whole: Json | undefined
  readonly usesCarriageReturns: boolean
  readonly comments: number
  /** Lines that are neither a field of an event nor a comment, and not empty. */
  readonly strayLines: number
  readonly isValidUtf8: boolean
  /** How many reads begin within a character. */
  readonly splitCharacters: number
  readonly text: string
  /** Events that bring a piece of the text. */
  readonly textEvents: number
  readonly finishReason: string | undefined
  readonly usage: Json | undefined
  readonly model: string | undefined
  readonly errors: readonly unknown[]
  readonly evidence: readonly string[]
  /** The index of the event that completes the evidence. */
  readonly lastNeeded: number
  readonly calls: readonly WireCall[]
  /** How many pieces of calls say nothing of their place. */
  readonly unplaced: number
}

export function readAnswer(protocol: Protocol, exchange: Exchange): WireAnswer {
  const bytes = bodyOf(exchange)
  // One character for each byte, so that places in the text are places in the body.
  const body = bytes.toString('latin1')
  const found = protocol.isLines ? readLines(body) : readServerSentEvents(body)
  const events = found.events.map(({ data: text, ...event }): WireEvent => {
    const data = parseObject(text)
    return { ...event, text, data, facts: protocol.read(data, text) }
  })
  const all = events.map(({ facts }) => facts)
  const evidence = protocol.evidence.filter((part) => all.some(({ ending }) => ending?.includes(part)))
  const pieces = all.flatMap(({ calls = [] }) => calls)
  const isWhole = events.every(({ data }) => data === undefined)
  const whole = isWhole ? parseObject(bytes.toString()) : undefined
  const errors = [...all, ...(whole ? [protocol.read(whole, '')] : [])].flatMap(({ error }) => error ?? [])
  return {
    events,
    whole,
    usesCarriageReturns: body.includes('\r\n'),
    comments: found.comments,
    strayLines: found.strayLines,
    isValidUtf8: isUtf8(bytes),
    splitCharacters: splitCharacters(exchange),
    text: all.map(({ text = '' }) => text).join(''),
    textEvents: all.filter(({ text }) => text !== undefined).length,
    finishReason: all.findLast(({ finishReason }) => finishReason !== undefined)?.finishReason,
    usage: all.findLast(({ usage }) => usage !== undefined)?.usage,
    model: all.find(({ model }) => model !== undefined)?.model,
    errors,
    evidence,
    lastNeeded: lastNeeded(protocol, all),
    calls: putTogether(protocol, pieces),
    unplaced: protocol.placeName === undefined ? 0 : pieces.filter(({ place }) => place === undefined).length,
  }
}

/** When the read came in which a byte stands. */
export function timeOf({ reads }: Exchange, end: number): number {
  let length = 0
  for (const { at, bytes } of reads) {
    length += bytes.length
    if (length >= end) return at
  }
  return reads.at(-1)?.at ?? 0
}

export function isComplete(protocol: Protocol, { evidence }: WireAnswer): boolean {
  return protocol.neededEvidence.every((part) => evidence.includes(part))
}

interface Found {
  readonly events: {
    readonly name: string | undefined
    readonly data: string
    readonly end: number
    readonly isClosed: boolean
  }[]
  readonly comments: number
  readonly strayLines: number
}

const fieldNames: readonly string[] = ['data', 'event', 'id', 'retry']

function readServerSentEvents(body: string): Found {
  const events: Found['events'] = []
  let [comments, strayLines] = [0, 0]
  let name: string | undefined
  let data: string[] = []
  const close = (end: number, isClosed: boolean): void => {
    if (data.length > 0) events.push({ name, data: Buffer.from(data.join('\n'), 'latin1').toString(), end, isClosed })
    name = undefined
    data = []
  }
  for (const { line, end, isClosed } of linesOf(body.startsWith('\u00ef\u00bb\u00bf') ? body.slice(3) : body)) {
    const [, field = '', value = ''] = /^([^:]*):? ?(.*)$/s.exec(line) ?? []
    if (line === '') close(end, isClosed)
    else if (line.startsWith(':')) comments++
    else if (!fieldNames.includes(field)) strayLines++
    else if (field === 'data') data.push(value)
    else if (field === 'event') name = value
  }
  close(body.length, false)
  return { events, comments, strayLines }
}

function readLines(body: string): Found {
  const lines = [...linesOf(body)].filter(({ line }) => line.trim() !== '')
  const events = lines.map(({ line, end, isClosed }) => {
    return { name: undefined, data: Buffer.from(line, 'latin1').toString(), end, isClosed }
  })
  return { events, comments: 0, strayLines: events.filter(({ data }) => parseObject(data) === undefined).length }
}

function* linesOf(body: string): Generator<{ line: string; end: number; isClosed: boolean }> {
  for (let start = 0; start < body.length;) {
    const lineFeed = body.indexOf('\n', start)
    const end = lineFeed < 0 ? body.length : lineFeed + 1
    yield { line: body.slice(start, end).replace(/\r?\n$/, ''), end, isClosed: lineFeed >= 0 }
    start = end
  }
}

function parseObject(text: string): Json | undefined {
  try {
    const value = JSON.parse(text) as unknown
    return typeof value === 'object' && value !== null ? (value as Json) : undefined
  } catch {
    return undefined
  }
}

function isUtf8(bytes: Uint8Array): boolean {
  try {
    new TextDecoder('utf-8', { fatal: true }).decode(bytes)
    return true
  } catch {
    return false
  }
}

function splitCharacters({ reads }: Exchange): number {
  return reads.slice(1).filter(({ bytes: [first = 0] }) => (first & 0xc0) === 0x80).length
}

function lastNeeded({ neededEvidence, endsWithBody }: Protocol, all: readonly EventFacts[]): number {
  const places = neededEvidence.map((part) => {
    const hasPart = ({ ending }: EventFacts): boolean => ending?.includes(part) === true
    return endsWithBody ? all.findLastIndex(hasPart) : all.findIndex(hasPart)
  })
  return places.includes(-1) ? -1 : Math.max(...places)
}

/** Those of one place together, as clients do; where there are no places each is a call. */
function putTogether({ placeName }: Protocol, pieces: readonly CallPiece[]): WireCall[] {
  const groups = new Map<unknown, CallPiece[]>()
  pieces.forEach((piece, i) => {
    const key = placeName === undefined ? `call ${i}` : piece.place
    groups.set(key, [...(groups.get(key) ?? []), piece])
  })
  const distinct = (words: (string | undefined)[]): string[] => [...new Set(words.filter((word) => word !== undefined))]
  return [...groups.values()].map((group) => ({
    place: group[0]!.place,
    ids: distinct(group.map(({ id }) => id)),
    names: distinct(group.map(({ name }) => name)),
    pieces: group.filter(({ arguments: piece }) => piece !== '').length,
    text: group.map(({ arguments: piece }) => piece).join(''),
  }))
}
