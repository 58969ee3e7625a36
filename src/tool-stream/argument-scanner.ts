import { LimitError, OutputError } from '../errors.ts'
import { childPath, type Match, type MatchSet, type PathNode, rootMatches } from './field-path.ts'

/** Bounds on the arguments of one tool call, and on the output. */
export interface ScannerLimits {
  /** Deepest nesting of arrays and objects. Default 256. */
  readonly maxDepth?: number | undefined
  /** Longest text, in UTF-16 code units. Default 16,777,216. */
  readonly maxInputLength?: number | undefined
}

/** A place in the document that registered paths lead to or through. */
export class Place {
  readonly matchSet: MatchSet
  readonly #parent: Place | undefined
  readonly #key: string | number
  #path: string | undefined

  constructor(parent: Place | undefined, key: string | number, matchSet: MatchSet) {
    this.#parent = parent
    this.#key = key
    this.matchSet = matchSet
  }

  /** What of the registered paths it matches. */
  get matches(): readonly Match[] {
    return this.matchSet.matches
  }

  /** Concrete path, e.g. `ask_slots[0].message`. Made when first asked for: most places never are. */
  get path(): string {
    return (this.#path ??= this.#parent ? childPath(this.#parent.path, this.#key) : '')
  }
}

export interface ScannerSink {
  /** More characters of a string, decoded: never empty; half a surrogate pair only where the string itself holds one. */
  onText(place: Place, text: string): void
  /** The string closed; what was handed out, joined, is its value. */
  onTextEnd(place: Place): void
  /** Any other value closed; `parsed` is what `JSON.parse` makes of it. */
  onValue(place: Place, parsed: unknown): void
}

/** An open array or object. */
interface Container {
  readonly isArray: boolean
  /** Its place where registered paths lead into it; otherwise what it holds is only checked. */
  readonly place: Place | undefined
  /** Index of the element being read, where that matters. */
  index: number
  /** Keys met that registered paths lead through. A list while it is short, which is faster. */
  seen: string[] | Set<string> | undefined
}

// All containers that no path leads into are alike.
const plainArray: Container = { isArray: true, place: undefined, index: 0, seen: undefined }
const plainObject: Container = { isArray: false, place: undefined, index: 0, seen: undefined }

/** A registered array or object, whose text is collected until it closes. */
interface Capture {
  readonly place: Place
  /** How many containers are open around it. */
  readonly depth: number
  text: string
  /** Where its text begins in the chunk being read. */
  start: number
}

// What is expected next.
const Value = 0
const FirstElement = 1
const FirstKey = 2
const Key = 3
const Colon = 4
const AfterValue = 5
const InString = 6
const InEscape = 7
const InUnicode = 8
const InNumber = 9
const InLiteral = 10

// The part of a number just read (RFC 8259, section 6). A number may end after an odd one.
const Minus = 0
const Zero = 1
const Point = 2
const Integer = 3
const Exponent = 4
const Fraction = 5
const ExponentSign = 6
const ExponentDigits = 7

const QUOTE = 0x22
const BACKSLASH = 0x5c
const COMMA = 0x2c
const COLON = 0x3a
const OPEN_BRACKET = 0x5b
const CLOSE_BRACKET = 0x5d
const OPEN_BRACE = 0x7b
const CLOSE_BRACE = 0x7d
const SMALL_U = 0x75

/** What the character after a backslash stands for, by its code. */
const escapes: (string | undefined)[] = []
for (const [letter, character] of Object.entries({
  '"': '"',
  '\\': '\\',
  '/': '/',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
})) {
  escapes[letter.charCodeAt(0)] = character
}

/**
 * Reads one JSON text in pieces, each character once. Strings at registered paths are handed out decoded as they arrive, other
 * registered values when they close. The grammar is checked as strictly as `JSON.parse` checks it, at the character that
 * breaks it.
 */
export class ArgumentScanner {
  readonly #sink: ScannerSink
  readonly #root: Place
  readonly #maxDepth: number
  readonly #maxInputLength: number

  /** All that was written; a rope, so it is not looked into while it grows. */
  #text = ''
  /** How much of it lies before the chunk being read. */
  #base = 0
  #state = Value
  #failure: OutputError | LimitError | undefined

  /** The open containers, from the root down. */
  readonly #containers: Container[] = []
  /** The innermost of them. */
  #container: Container | undefined
  readonly #captures: Capture[] = []
  /** The member whose key was just read, if registered paths lead to it. */
  #member: Place | undefined
  /** The registered string, number or literal being read. */
  #value: Place | undefined

  #inKey = false
  /** Whether the key or string being read holds an escape. */
  #escaped = false
  /** Raw text of a key that matters, or of a registered number, read in earlier chunks. */
  #token = ''
  /** A high surrogate at the end of what arrived, waiting for its other half. */
  #held = ''
  #unicode = 0
  #unicodeDigits = 0
  #numberPart = Minus
  #literal = 'null'
  #literalIndex = 0

  /** Where, counted from the start, nothing but closing brackets were missing last. */
  #balancedLength = 0
  /** Where the escape being read begins. */
  #escapeStart = 0

  constructor(root: PathNode, sink: ScannerSink, limits: ScannerLimits = {}) {
    this.#root = new Place(undefined, '', rootMatches(root))
    this.#sink = sink
    this.#maxDepth = limits.maxDepth ?? 256
    this.#maxInputLength = limits.maxInputLength ?? 16_777_216
  }

  /** All that was written. */
  get text(): string {
    return this.#text
  }

  /** True once a whole value was read and nothing but white space followed. */
  get isComplete(): boolean {
    if (this.#failure || this.#containers.length > 0) return false
    return this.#state === AfterValue || (this.#state === InNumber && this.#numberPart % 2 === 1)
  }

  /** Reads the next piece. Throws where it breaks the grammar or a limit; what lies before that point was handed out. */
  write(chunk: string): void {
    if (this.#failure) throw this.#failure
    const end = this.#base + chunk.length
    if (end > this.#maxInputLength) {
      throw (this.#failure = new LimitError('maxInputLength', this.#maxInputLength, 'The JSON text is too long', {
        phase: 'stream',
      }))
    }
    this.#text += chunk
    const i = this.#state === InString ? this.#readString(chunk, 0) : 0
    if (i < chunk.length) this.#read(chunk, i)
    this.#base = end
    if (this.#captures.length > 0) this.#collect(chunk)
  }

  /** Says that the text is whole, and returns what `JSON.parse` makes of it. Throws where it is not whole. */
  end(): unknown {
    if (this.#failure) throw this.#failure
    if (this.#state === InNumber && this.#containers.length === 0 && this.#numberPart % 2 === 1) this.#endNumber(0)
    if (!this.isComplete) this.#fail(0, 'the text ends before the value does')
    return JSON.parse(this.#text)
  }

  /**
   * The longest part that can be closed into JSON without inventing or changing anything, closed: open strings as far as they
   * go; keys without a value, unfinished escapes, numbers and literals left out. `undefined` where not even a value has begun.
   */
  closedText(): string | undefined {
    const inString = !this.#inKey && this.#state >= InString && this.#state <= InUnicode
    const length = !inString
      ? this.#balancedLength
      : this.#state !== InString
        ? this.#escapeStart
        : this.#failure
          ? this.#base
          : this.#text.length
    if (length === 0) return undefined
    let closed = this.#text.slice(0, length)
    if (inString) closed = `${withoutOpenSurrogate(closed)}"`
    for (let depth = this.#containers.length; depth-- > 0;) closed += this.#containers[depth]!.isArray ? ']' : '}'
    return closed
  }

  /** Adds the chunk to the registered containers that stay open, as far as it lies in them. */
  #collect(chunk: string): void {
    for (const capture of this.#captures) {
      capture.text += capture.start === 0 ? chunk : chunk.slice(capture.start)
      capture.start = 0
    }
  }

  #read(chunk: string, from: number): void {
    const length = chunk.length
    let i = from
    while (i < length) {
      const state = this.#state
      if (state >= InString) {
        if (state === InString) i = this.#readString(chunk, i)
        else if (state === InNumber) i = this.#readNumber(chunk, i)
        else if (state === InLiteral) i = this.#readLiteral(chunk, i)
        else i = this.#readEscapes(chunk, i, i)
        continue
      }
      const code = chunk.charCodeAt(i)
      if (code <= 0x20 && (code === 0x20 || code === 0x0a || code === 0x0d || code === 0x09)) {
        i++
        continue
      }
      switch (state) {
        case FirstElement:
        case Value:
          if (code !== CLOSE_BRACKET || state === Value) {
            i = this.#startValue(chunk, code, i)
            continue
          }
          this.#closeContainer(chunk, i)
          break
        case FirstKey:
        case Key:
          if (code === QUOTE) {
            this.#inKey = true
            this.#state = InString
            i = this.#readString(chunk, i + 1)
            continue
          }
          if (code === CLOSE_BRACE && state === FirstKey) this.#closeContainer(chunk, i)
          else
            this.#fail(i, state === Key ? 'expected a key in double quotes' : 'expected a key in double quotes or `}`')
          break
        case Colon:
          if (code !== COLON) this.#fail(i, 'expected `:`')
          this.#state = Value
          break
        case AfterValue: {
          const container = this.#container ?? this.#fail(i, 'expected nothing after the value')
          const { isArray } = container
          if (code === COMMA) {
            if (isArray) {
              this.#state = Value
              if (container.place) container.index++
            } else this.#state = Key
          } else if (code === (isArray ? CLOSE_BRACKET : CLOSE_BRACE)) this.#closeContainer(chunk, i)
          else this.#fail(i, isArray ? 'expected `,` or `]`' : 'expected `,` or `}`')
          break
        }
      }
      i++
    }
  }

  /**
   * Begins the value whose first character is `code`, at index `i` of the chunk. Like all that begins or reads on in something
   * it returns the index of the first character it did not use.
   */
  #startValue(chunk: string, code: number, i: number): number {
    const container = this.#container
    let place: Place | undefined
    if (!container) place = this.#root
    else if (container.place) {
      if (container.isArray) {
        const matchSet = container.place.matchSet.element(container.index)
        if (matchSet) place = new Place(container.place, container.index, matchSet)
      } else place = this.#member
    }
    const value = place?.matchSet.isRegistered ? place : undefined
    switch (code) {
      case QUOTE:
        this.#value = value
        this.#state = InString
        return this.#readString(chunk, i + 1)
      case OPEN_BRACE:
      case OPEN_BRACKET: {
        const depth = this.#containers.length
        if (depth === this.#maxDepth) {
          throw (this.#failure = new LimitError('maxDepth', this.#maxDepth, 'The JSON text is nested too deeply', {
            phase: 'stream',
          }))
        }
        const isArray = code === OPEN_BRACKET
        const leadsOn = place && (isArray ? place.matchSet.leadsIntoArrays : place.matchSet.leadsIntoObjects)
        const opened = leadsOn ? { isArray, place, index: 0, seen: undefined } : isArray ? plainArray : plainObject
        this.#containers.push(opened)
        this.#container = opened
        if (value) this.#captures.push({ place: value, depth, text: '', start: i })
        this.#balancedLength = this.#base + i + 1
        this.#state = isArray ? FirstElement : FirstKey
        return i + 1
      }
      case 0x2d: // -
        return this.#startNumber(value, Minus, chunk, i)
      case 0x30: // 0
        return this.#startNumber(value, Zero, chunk, i)
      case 0x74: // t
        return this.#startLiteral(value, 'true', chunk, i)
      case 0x66: // f
        return this.#startLiteral(value, 'false', chunk, i)
      case 0x6e: // n
        return this.#startLiteral(value, 'null', chunk, i)
      default:
        if (code < 0x31 || code > 0x39)
          this.#fail(i, this.#state === FirstElement ? 'expected a value or `]`' : 'expected a value')
        return this.#startNumber(value, Integer, chunk, i)
    }
  }

  #startNumber(place: Place | undefined, part: number, chunk: string, i: number): number {
    this.#value = place
    if (place) this.#token = chunk.charAt(i)
    this.#numberPart = part
    this.#state = InNumber
    return this.#readNumber(chunk, i + 1)
  }

  #startLiteral(place: Place | undefined, literal: string, chunk: string, i: number): number {
    this.#value = place
    this.#literal = literal
    this.#literalIndex = 1
    this.#state = InLiteral
    return this.#readLiteral(chunk, i + 1)
  }

  #closeContainer(chunk: string, i: number): void {
    this.#containers.pop()
    const depth = this.#containers.length
    this.#container = depth === 0 ? undefined : this.#containers[depth - 1]
    this.#balancedLength = this.#base + i + 1
    this.#state = AfterValue
    if (this.#captures.length === 0) return
    const capture = this.#captures[this.#captures.length - 1]!
    if (capture.depth === depth) {
      this.#captures.pop()
      this.#sink.onValue(capture.place, JSON.parse(capture.text + chunk.slice(capture.start, i + 1)))
    }
  }

  /** Reads on in a key or string. */
  #readString(chunk: string, from: number): number {
    const place = this.#value
    const i = endOfRun(chunk, from)
    if (i === chunk.length) {
      // Most deltas lie wholly inside one string, and are handed on as they are.
      if (place) this.#handOut(place, from === 0 ? chunk : chunk.slice(from), isHighSurrogate(chunk.charCodeAt(i - 1)))
      else if (this.#inKey && this.#container!.place) this.#token += from === 0 ? chunk : chunk.slice(from)
      return i
    }
    if (chunk.charCodeAt(i) !== QUOTE) return this.#readEscapes(chunk, from, i)
    if (this.#inKey) this.#endKey(chunk, from, i)
    else this.#endString(place, place ? chunk.slice(from, i) : '', i)
    return i + 1
  }

  /** The same for text with escapes; what lies before `runEnd` is known to be plain. */
  #readEscapes(chunk: string, from: number, runEnd: number): number {
    const length = chunk.length
    const place = this.#value
    let state = this.#state
    let text = ''
    // Whether `text` ends with the first half of a surrogate pair.
    let isHalf = false
    // Where the characters begin that `text` does not hold yet.
    let runStart = from
    let i = runEnd
    for (;;) {
      if (state === InString) {
        i = endOfRun(chunk, i)
        if (place && i > runStart) {
          text += chunk.slice(runStart, i)
          isHalf = isHighSurrogate(chunk.charCodeAt(i - 1))
        }
        if (i === length) break
        const code = chunk.charCodeAt(i)
        if (code === QUOTE) {
          if (this.#inKey) this.#endKey(chunk, from, i)
          else this.#endString(place, text, i)
          return i + 1
        }
        if (code !== BACKSLASH)
          this.#failInString(state, text, isHalf, i, 'a control character in a string must be escaped')
        this.#escapeStart = this.#base + i
        this.#escaped = true
        state = InEscape
        i++
      }
      if (i === length) break
      const code = chunk.charCodeAt(i)
      if (state === InUnicode) {
        const digit = hexDigit(code)
        if (digit < 0) this.#failInString(state, text, isHalf, i, 'expected four hexadecimal digits')
        this.#unicode = this.#unicode * 16 + digit
        i++
        if (++this.#unicodeDigits < 4) continue
        if (place) text += String.fromCharCode(this.#unicode)
        isHalf = isHighSurrogate(this.#unicode)
        state = InString
        runStart = i
      } else if (code === SMALL_U) {
        state = InUnicode
        this.#unicode = 0
        this.#unicodeDigits = 0
        i++
      } else {
        const character = escapes[code]
        if (character === undefined) this.#failInString(state, text, isHalf, i, 'not a known escape')
        state = InString
        runStart = i++
        // A quote, backslash or slash stands for itself, and begins the next run; a letter stands for something else.
        if (code > BACKSLASH) {
          if (place) text += character
          isHalf = false
          runStart = i
        }
      }
    }
    this.#state = state
    if (place) this.#handOut(place, text, isHalf)
    else if (this.#inKey && this.#container!.place) this.#token += chunk.slice(from)
    return i
  }

  #endKey(chunk: string, from: number, i: number): void {
    const container = this.#container!
    if (container.place) {
      const { matchSet } = container.place
      // Cutting out every key would make objects of many keys 15 % slower.
      if (this.#escaped || matchSet.mayLeadOn(this.#token.length + i - from)) {
        const raw = this.#token + chunk.slice(from, i)
        const key = this.#escaped ? (JSON.parse(`"${raw}"`) as string) : raw
        const member = matchSet.member(key)
        this.#member = member && new Place(container.place, key, member)
        // `JSON.parse` lets the last one win, but what was handed out of the first cannot be taken back.
        if (member && !remember(container, key)) this.#failForRepeatedKey(i)
      } else this.#member = undefined
      this.#token = ''
    }
    this.#escaped = false
    this.#inKey = false
    this.#state = Colon
  }

  #endString(place: Place | undefined, text: string, i: number): void {
    this.#balancedLength = this.#base + i + 1
    this.#escaped = false
    this.#state = AfterValue
    if (!place) return
    this.#value = undefined
    if (this.#held !== '') {
      text = this.#held + text
      this.#held = ''
    }
    if (text !== '') this.#sink.onText(place, text)
    this.#sink.onTextEnd(place)
  }

  /** Hands out `text`, but for the first half of a surrogate pair at its end, whose other half may still come. */
  #handOut(place: Place, text: string, isHalf: boolean): void {
    if (text === '') return
    if (this.#held !== '') {
      text = this.#held + text
      this.#held = ''
    }
    if (isHalf) {
      this.#held = text.slice(-1)
      if (text.length === 1) return
      text = text.slice(0, -1)
    }
    this.#sink.onText(place, text)
  }

  #readNumber(chunk: string, from: number): number {
    let part = this.#numberPart
    let i = from
    for (; i < chunk.length; i++) {
      const code = chunk.charCodeAt(i)
      if (code >= 0x30 && code <= 0x39) {
        if (part === Minus) part = code === 0x30 ? Zero : Integer
        else if (part === Point) part = Fraction
        else if (part === Exponent || part === ExponentSign) part = ExponentDigits
        else if (part === Zero) this.#fail(i, 'a number does not begin with 0')
      } else if (code === 0x2e && (part === Zero || part === Integer)) part = Point
      else if ((code === 0x65 || code === 0x45) && (part === Zero || part === Integer || part === Fraction))
        part = Exponent
      else if ((code === 0x2b || code === 0x2d) && part === Exponent) part = ExponentSign
      else if (part % 2 === 1) {
        if (this.#value) this.#token += chunk.slice(from, i)
        this.#endNumber(i)
        return i
      } else this.#fail(i, 'expected a digit')
    }
    this.#numberPart = part
    if (this.#value) this.#token += chunk.slice(from, i)
    return i
  }

  #endNumber(i: number): void {
    const text = this.#token
    this.#token = ''
    // Of a text that the grammar allows, `Number` makes the same as `JSON.parse`.
    this.#endScalar(this.#value && Number(text), i)
  }

  #readLiteral(chunk: string, from: number): number {
    const literal = this.#literal
    let i = from
    let index = this.#literalIndex
    for (; i < chunk.length && index < literal.length; i++, index++) {
      if (chunk.charCodeAt(i) !== literal.charCodeAt(index)) this.#fail(i, `expected \`${literal}\``)
    }
    this.#literalIndex = index
    if (index === literal.length) this.#endScalar(literal === 'null' ? null : literal === 'true', i)
    return i
  }

  #endScalar(parsed: unknown, i: number): void {
    const place = this.#value
    this.#value = undefined
    this.#balancedLength = this.#base + i
    this.#state = AfterValue
    if (place) this.#sink.onValue(place, parsed)
  }

  #failInString(state: number, text: string, isHalf: boolean, i: number, problem: string): never {
    this.#state = state
    if (this.#value) this.#handOut(this.#value, text, isHalf)
    return this.#fail(i, problem)
  }

  #failForRepeatedKey(i: number): never {
    const position = this.#base + i
    throw (this.#failure = new OutputError(
      'invalid_json',
      `The text is ambiguous at character ${position}: a key on the way to a field is repeated`,
      { phase: 'stream', position },
    ))
  }

  /** Stops for good at index `i` of the chunk. The message says what was expected, never what was there. */
  #fail(i: number, problem: string): never {
    this.#base += i
    throw (this.#failure = new OutputError(
      'invalid_json',
      `The text is not valid JSON at character ${this.#base}: ${problem}`,
      {
        phase: 'stream',
        position: this.#base,
      },
    ))
  }
}

/** Index of the first character from `i` on that is not plain string content. */
function endOfRun(chunk: string, i: number): number {
  const length = chunk.length
  for (; i < length; i++) {
    const code = chunk.charCodeAt(i)
    if (code === QUOTE || code === BACKSLASH || code < 0x20) break
  }
  return i
}

function isHighSurrogate(code: number): boolean {
  return (code & 0xfc00) === 0xd800
}

/** Whether `key` is new in this container. */
function remember(container: Container, key: string): boolean {
  container.seen ??= []
  if (Array.isArray(container.seen)) {
    if (container.seen.includes(key)) return false
    if (container.seen.push(key) > 8) container.seen = new Set(container.seen)
    return true
  }
  return container.seen.size < container.seen.add(key).size
}

/** `text` without half a surrogate pair at its end, be it raw or an escape whose backslash is not itself escaped. */
function withoutOpenSurrogate(text: string): string {
  if (isHighSurrogate(text.charCodeAt(text.length - 1))) return text.slice(0, -1)
  if (!/\\u[dD][89abAB][0-9a-fA-F]{2}$/.test(text.slice(-6))) return text
  let backslashes = 1
  while (text.charCodeAt(text.length - 6 - backslashes) === BACKSLASH) backslashes++
  return backslashes % 2 === 1 ? text.slice(0, -6) : text
}

function hexDigit(code: number): number {
  if (code >= 0x30 && code <= 0x39) return code - 0x30
  const letter = code | 0x20
  return letter >= 0x61 && letter <= 0x66 ? letter - 0x57 : -1
}
