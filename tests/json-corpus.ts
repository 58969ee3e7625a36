import fc from 'fast-check'
import { ArgumentScanner, type ScannerLimits } from '../src/tool-stream/argument-scanner.ts'
import { FieldExtractorRegistry } from '../src/tool-stream/field-extractor-registry.ts'

/** What a scanner handed out of one place. */
export interface Delivery {
  readonly path: string
  /** The pieces of a string; `undefined` for any other value. */
  readonly deltas: string[] | undefined
  /** Unset while a string is open. */
  value?: unknown
  /** How many characters had been written when it closed. */
  closedAt?: number
}

/** A scanner that keeps what it hands out, in order of arrival: a string counts from its first piece or its end. */
export function recordingScanner(
  paths: readonly string[],
  limits?: ScannerLimits,
): { scanner: ArgumentScanner; deliveries: Delivery[]; closed: Delivery[] } {
  const root = new FieldExtractorRegistry(paths.map((path) => ({ field: path, path }))).compile('tool')
  const deliveries: Delivery[] = []
  const closed: Delivery[] = []
  let open: Delivery | undefined
  const openString = (path: string) => {
    if (!open) deliveries.push((open = { path, deltas: [] }))
    return open
  }
  const close = (delivery: Delivery, value: unknown) => {
    delivery.value = value
    delivery.closedAt = scanner.text.length
    closed.push(delivery)
  }
  const scanner = new ArgumentScanner(
    root,
    {
      onText: (place, text) => openString(place.path).deltas!.push(text),
      onTextEnd(place) {
        const delivery = openString(place.path)
        open = undefined
        close(delivery, delivery.deltas!.join(''))
      },
      onValue(place, parsed) {
        const delivery: Delivery = { path: place.path, deltas: undefined }
        deliveries.push(delivery)
        close(delivery, parsed)
      },
    },
    limits,
  )
  return { scanner, deliveries, closed }
}

/** `text` cut at the given places; equal places give empty pieces. */
export function cutAt(text: string, places: readonly number[]): string[] {
  const ends = [...places].sort((a, b) => a - b)
  return [...ends, text.length].map((end, i) => text.slice(ends[i - 1] ?? 0, end))
}

/** What happens to text that is read in pieces. */
export type Outcome = { readonly value: unknown } | { readonly error: unknown; readonly byWrite: boolean }

export function readAll(scanner: ArgumentScanner, chunks: readonly string[]): Outcome {
  let byWrite = true
  try {
    for (const chunk of chunks) scanner.write(chunk)
    byWrite = false
    return { value: scanner.end() }
  } catch (error) {
    return { error, byWrite }
  }
}

export function parses(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

const continuations = [
  ...['', '0', '"', '":0', ':0', '"":0', 'n"', 'n":0'],
  ...['0000"', '000"', '00"', '0"'].flatMap((digits) => [digits, `${digits}:0`]),
  ...['rue', 'ue', 'e', 'alse', 'lse', 'se', 'ull', 'll', 'l'],
]

/** Whether `prefix` can go on to be JSON. Found by trying, so that `JSON.parse` is the judge. */
export function canGoOn(prefix: string): boolean {
  let brackets = ''
  let inString = false
  for (let i = 0; i < prefix.length; i++) {
    if (inString && prefix[i] === '\\') i++
    else if (prefix[i] === '"') inString = !inString
    else if (inString) continue
    else if (prefix[i] === '[') brackets = `]${brackets}`
    else if (prefix[i] === '{') brackets = `}${brackets}`
    else if (prefix[i] === ']' || prefix[i] === '}') brackets = brackets.slice(1)
  }
  return continuations.some((continuation) => parses(prefix + continuation + brackets))
}

/** Every path of up to `depth` steps, so that whatever a document holds is handed out. */
export function wildcardPaths(depth: number): string[] {
  let level = ['']
  const paths: string[] = []
  for (let i = 0; i < depth; i++) {
    level = level.flatMap((path) => [path === '' ? '*' : `${path}.*`, `${path}[*]`])
    paths.push(...level)
  }
  return paths
}

/** The path that leads to exactly one place, every key quoted. */
export function exactPath(steps: readonly (string | number)[]): string {
  return steps.map((step) => `[${JSON.stringify(step)}]`).join('')
}

/** A document, its values listed in the order in which they close. */
export interface WrittenDocument {
  readonly text: string
  readonly places: readonly WrittenPlace[]
}

export interface WrittenPlace {
  readonly steps: readonly (string | number)[]
  readonly text: string
  /** Index after its last character. */
  readonly end: number
}

type WrittenValue =
  string | { readonly elements: readonly WrittenValue[] } | { readonly members: readonly [string, WrittenValue][] }

function writeDocument(root: WrittenValue, gaps: readonly string[]): WrittenDocument {
  const places: WrittenPlace[] = []
  let text = ''
  let gap = 0
  const put = (piece: string) => {
    text += piece + gaps[gap++ % gaps.length]!
  }
  const write = (value: WrittenValue, steps: readonly (string | number)[]): void => {
    const start = text.length
    let end: number
    if (typeof value === 'string') {
      end = start + value.length
      put(value)
    } else {
      const isArray = 'elements' in value
      put(isArray ? '[' : '{')
      const entries = isArray ? value.elements.map((element, i) => [i, element] as const) : value.members
      for (const [i, [key, child]] of entries.entries()) {
        if (i > 0) put(',')
        if (typeof key === 'string') {
          put(key)
          put(':')
        }
        write(child, [...steps, typeof key === 'string' ? (JSON.parse(key) as string) : key])
      }
      end = text.length + 1
      put(isArray ? ']' : '}')
    }
    places.push({ steps, text: text.slice(start, end), end })
  }
  put('')
  write(root, [])
  return { text, places }
}

const whiteSpace = fc.constantFrom('', '', '', ' ', '\n', '\t', '\r', '\r\n  ')

/** Pieces of string content as they can be written, between them every rule that strings have. */
const stringPieces = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.string({ unit: 'grapheme', maxLength: 6 }).map((text) => JSON.stringify(text).slice(1, -1)),
  },
  {
    weight: 2,
    arbitrary: fc.constantFrom(
      '\\"',
      '\\\\',
      '\\/',
      '\\b',
      '\\f',
      '\\n',
      '\\r',
      '\\t',
      '/',
      '\u007f',
      '\u2028',
      '{',
      ']',
      ',',
    ),
  },
  {
    weight: 2,
    arbitrary: fc.constantFrom(
      '\\ud83c\\udf89',
      '\\uD83C\\uDF89',
      '🎉',
      '\ud83c\\udf89',
      '\\ud83c\udf89',
      '下',
      '\\u4e0B',
    ),
  },
  { weight: 1, arbitrary: fc.constantFrom('\\ud83c', '\ud83c', '\\uDF89', '\udf89') },
  { weight: 1, arbitrary: fc.nat({ max: 0xffff }).map((code) => `\\u${code.toString(16).padStart(4, '0')}`) },
)
const strings = fc.array(stringPieces, { maxLength: 5 }).map((pieces) => `"${pieces.join('')}"`)
const keys = fc.oneof(
  // Without backslashes: after {"a":0,"\\\\":0}, the JSON.parse of Node 24.21 reads the key of {"a":0,"\\n":0} as a backslash.
  { weight: 2, arbitrary: strings.filter((text) => !(JSON.parse(text) as string).includes('\\')) },
  {
    weight: 3,
    arbitrary: fc.constantFrom(
      '"a"',
      '"b"',
      '""',
      '"0"',
      '"10"',
      '"-1"',
      '"__proto__"',
      '"constructor"',
      '"toString"',
      '"\\u0061b"',
      '"a.b"',
      '"[0]"',
      '"*"',
      '"x y"',
    ),
  },
)
const scalars = fc.oneof(
  { weight: 4, arbitrary: strings },
  {
    weight: 2,
    arbitrary: fc.constantFrom(
      '0',
      '-0',
      '-0.0',
      '1',
      '-12',
      '1e400',
      '-1E400',
      '1E+2',
      '5e-324',
      '0.1e1',
      '9007199254740993',
      '1'.repeat(200),
    ),
  },
  { weight: 1, arbitrary: fc.double({ noNaN: true, noDefaultInfinity: true }).map(String) },
  { weight: 2, arbitrary: fc.constantFrom('true', 'false', 'null') },
)

function values(depth: number, uniqueKeys: boolean): fc.Arbitrary<WrittenValue> {
  if (depth === 0) return scalars
  const child = values(depth - 1, uniqueKeys)
  const member = fc.tuple(keys, child)
  const members = uniqueKeys
    ? fc.uniqueArray(member, { maxLength: 5, selector: ([key]) => JSON.parse(key) as string })
    : fc.array(member, { maxLength: 5 })
  return fc.oneof(
    { weight: 2, arbitrary: scalars },
    { weight: 2, arbitrary: fc.array(child, { maxLength: 5 }).map((elements) => ({ elements })) },
    { weight: 3, arbitrary: members.map((entries) => ({ members: entries })) },
  )
}

/** Documents of up to `depth` levels in any way of writing them. */
export function documents(depth: number, { uniqueKeys }: { uniqueKeys: boolean }): fc.Arbitrary<WrittenDocument> {
  return fc
    .tuple(values(depth, uniqueKeys), fc.array(whiteSpace, { minLength: 1, maxLength: 7 }))
    .map(([value, gaps]) => writeDocument(value, gaps))
}

/** Where to cut a text, as fractions of its length. */
export const cuts = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 12 })

/** Valid documents that between them hold every difficulty; none repeats a key. */
export const hardDocuments: readonly string[] = [
  String.raw`{"escapes":"\"\\\/\b\f\n\r\t","plain":"/\u007f","both":["a\\","\\\"","\\\\u0041","\n\n"]}`,
  String.raw`{"lower":"\u00e9\u4e0b\u5348","upper":"\u00E9\u4E0B\u5348","mixed":"\u00eF\uFfFf\u0000\u001f"}`,
  `{"raw":"🎉下午茶 é","escaped":"\\ud83c\\udf89","upper":"\\uD83C\\uDF89","half":["\ud83c\\udf89","\\ud83c\udf89"],"after":"x🎉\\ud83c\\udf89y"}`,
  `{"high":"\\ud83c","low":"\\udf89","rawHigh":"a\ud83c","rawLow":"\udf89b","swapped":"\\udf89\\ud83c","twice":"\\ud83c\\ud83c\\udf89","cut":"\ud83c\\n","before":["\\ud83cx","\\ud83c\\\\u0041"]}`,
  String.raw`{"__proto__":{"__proto__":"x","constructor":[1]},"constructor":{"prototype":null},"toString":"y","hasOwnProperty":false}`,
  String.raw`{"10":"ten","9":"nine","-1":"a","01":"b","4294967295":["c"],"1e3":0,"0":{"1":"x","0":"y"}}`,
  String.raw`{"":"empty","a":{"":{"":[""]}},"\u0061b":1,"\ud83c\udf89":"k","a\nb":"m","\"":"\""}`,
  `[-0,0,-0.0,0e0,1e400,-1e400,1E+2,1e-2,1E22,0.1,-1.5e-7,5e-324,9007199254740993,${'7'.repeat(200)},0.${'3'.repeat(200)},-1e-${'0'.repeat(20)}1]`,
  ' \t\r\n[ \t1\r\n,\n"a" \t, { "b" \r:\n[ ] , "c":{ \t} } ,\ttrue\n,false ,null ]\r\n\t ',
  '[[[],{}],[[[["deep"]]]],{"a":[{"b":{"c":[true]}}]},"",[""],[[]]]',
  '{"ask_slots":[{"slot":"budget","message":"Under ₹100?\\n\\"Sure\\" 🍿","options":["a","b"]},{"message":"","n":1.50}],"simple_response":{"message":"ok"}}',
  '"a string \\ud83c\\udf89 alone"',
  '-12.5e+3',
  ' true ',
]

/**
 * Texts for each rule of nst/JSONTestSuite, by its three groups. Rules about bytes that are not UTF-8 do not apply to
 * strings; their decoded forms are here instead.
 */
export const testSuite: Readonly<Record<'accepted' | 'rejected' | 'either', readonly string[]>> = {
  accepted: [
    // Arrays
    ...[
      '[[]   ]',
      '[""]',
      '[]',
      '["a"]',
      '[false]',
      '[null, 1, "1", {}]',
      '[null]',
      '[1\n]',
      ' [1]',
      '[1,null,null,null,2]',
      '[2] ',
    ],
    // Numbers
    ...[
      '[123e65]',
      '[0e+1]',
      '[0e1]',
      '[ 4]',
      `[-0.${'0'.repeat(77)}1]`,
      '[20e1]',
      '[-0]',
      '[-123]',
      '[-1]',
      '[1E22]',
      '[1E-2]',
      '[1E+2]',
    ],
    ...['[123e45]', '[123.456e78]', '[1e-2]', '[1e+2]', '[123]', '[123.456789]'],
    // Objects
    ...[
      '{"asd":"sdf", "dfg":"fgh"}',
      '{"asd":"sdf"}',
      '{"a":"b","a":"c"}',
      '{"a":"b","a":"b"}',
      '{}',
      '{"":0}',
      '{"foo\\u0000bar": 42}',
    ],
    ...[
      '{ "min": -1.0e+28, "max": 1.0e+28 }',
      `{"x":[{"id": "${'x'.repeat(40)}"}], "id": "${'x'.repeat(40)}"}`,
      '{"a":[]}',
    ],
    ...['{"title":"\\u041f\\u043e\\u043b\\u0442\\u043e\\u0440\\u0430" }', '{\n"a": "b"\n}'],
    // Strings
    ...[
      '["\\u0060\\u012a\\u12AB"]',
      '["\\uD801\\udc37"]',
      '["\\ud83d\\ude39\\ud83d\\udc8d"]',
      '["\\"\\\\\\/\\b\\f\\n\\r\\t"]',
    ],
    ...[
      '["\\\\u0000"]',
      '["\\""]',
      '["a/*b*/c/*d//e"]',
      '["\\\\a"]',
      '["\\\\n"]',
      '["\\u0012"]',
      '["\\uFFFF"]',
      '["asd"]',
      '[ "asd"]',
    ],
    ...[
      '["\\uDBFF\\uDFFF"]',
      '["new\\u00A0line"]',
      '["\udbff\udfff"]',
      '["\uffff"]',
      '["\\u0000"]',
      '["\\u002c"]',
      '["π"]',
      '["\u{1bfff}"]',
    ],
    ...[
      '["asd "]',
      '" "',
      '["\\uD834\\uDd1e"]',
      '["\\u0821"]',
      '["\\u0123"]',
      '["\u2028"]',
      '["\u2029"]',
      '["\\u0061\\u30af\\u30EA\\u30b9"]',
    ],
    ...[
      '["new\\u000Aline"]',
      '["\u007f"]',
      '["\\uA66D"]',
      '["\\u005C"]',
      '["⍂㈴⍂"]',
      '["\\u200B"]',
      '["\\u2064"]',
      '["\\uFDD0"]',
      '["\\uFFFE"]',
    ],
    ...[
      '["\\u0022"]',
      '["\\uD83F\\uDFFE"]',
      '["€𝄞"]',
      '["a\u007fa"]',
      '["\\uDBFF\\uDFFE"]',
      '["\\ufeff"]',
      '["\ufeff"]',
    ],
    // Structure
    ...['false', '42', '-0.1', 'null', '"asd"', 'true', '""', '["a"]\n', '[true]', ' [] '],
  ],
  rejected: [
    // Arrays
    ...[
      '[1 true]',
      '["": 1]',
      '[""],',
      '[,1]',
      '[1,,2]',
      '["x",,]',
      '["x"]]',
      '["",]',
      '["x"',
      '[x',
      '[3[4]]',
      '[1:2]',
      '[,]',
      '[-]',
    ],
    ...[
      '[   , ""]',
      '["a",\n4\n,1,',
      '[1,]',
      '[1,,]',
      '["\u000ba"\\f]',
      '[*]',
      '[""',
      '[1,',
      '[1,\n1\n,1',
      '[{}',
      '[a\u00e5]',
      '[\u00ff]',
    ],
    // Literals
    ...[
      '[fals]',
      '[nul]',
      '[tru]',
      '[True]',
      '[TRUE]',
      '[nulL]',
      '[falsee]',
      '[truetrue]',
      '[ false, nul',
      '[ true, fals',
      '[ false, tru',
      '["x", truth]',
    ],
    // Numbers
    ...[
      '123\u0000',
      '[++1234]',
      '[+1]',
      '[+Inf]',
      '[-01]',
      '[-1.0.]',
      '[-2.]',
      '[-NaN]',
      '[.-1]',
      '[.2e-3]',
      '[0.1.2]',
      '[0.3e+]',
      '[0.3e]',
    ],
    ...[
      '[0.e1]',
      '[0E+]',
      '[0E]',
      '[0e+]',
      '[0e]',
      '[1.0e+]',
      '[1.0e-]',
      '[1.0e]',
      '[1 000.0]',
      '[1eE2]',
      '[2.e+3]',
      '[2.e-3]',
      '[2.e3]',
    ],
    ...[
      '[9.e+]',
      '[1+2]',
      '[0x1]',
      '[0x42]',
      '[Inf]',
      '[Infinity]',
      '[0e+-1]',
      '[-123.123foo]',
      '[1.]',
      '[-Infinity]',
      '[-foo]',
      '[- 1]',
    ],
    ...[
      '[-012]',
      '[-.123]',
      '[-1x]',
      '[1ea]',
      '[1e\u00e5]',
      '[１]',
      '[.123]',
      '[012]',
      '[NaN]',
      '[1.2a-3]',
      '[1.8011670033376514H-308]',
      '[00]',
    ],
    ...['[-]', '-', '1.', '1e', '1e+', '01', '[0\u00e5]', '[1_000]', '[1n]', '[--1]', '[1e5.5]', '[1-]', '[1.5-2]'],
    // Objects
    ...[
      '{[: "x"}\n',
      '{"x", null}',
      '{"x"::"b"}',
      '{🇨🇭}',
      '{"a":"a" 123}',
      "{key: 'value'}",
      '{"a":',
      '{"a"',
      '{"a" b}',
      '{:"b"}',
      '{1:1}',
    ],
    ...[
      '{9999E9999:1}',
      '{null:null,null:null}',
      '{"id":0,,,,,}',
      "{'a':0}",
      '{"id":0,}',
      '{"a":"b"}/**/',
      '{"a":"b"}/**//',
      '{"a":"b"}//',
    ],
    ...[
      '{"a":"b"}/',
      '{"a":"b",,"c":"d"}',
      '{a: "b"}',
      '{"a":"a',
      '{ "foo" : "bar", "a" }',
      '{"a":"b"}#',
      '{"\\u00e":0}',
      '{"a\nb":0}',
      '{"a":}',
      '{,"a":0}',
    ],
    // Strings
    ...[
      '["\\uD800\\"]',
      '["\\uD800\\u"]',
      '["\\uD800\\u1"]',
      '["\\uD800\\u1x"]',
      '[é]',
      '["\\x00"]',
      '["\\\\\\"]',
      '["\\\t"]',
      '["\\🌀"]',
      '["\\"]',
    ],
    ...[
      '["\\u00A"]',
      '["\\uD834\\uDd"]',
      '["\\uD800\\uD800\\x"]',
      '["\\u\u00e5"]',
      '["\\a"]',
      '["\\uqqqq"]',
      '["\\\u00e5"]',
      '[\\u0020"asd"]',
      '[\\n]',
    ],
    ...[
      '"',
      "['single quote']",
      'abc',
      '["\\',
      '["a\u0000a"]',
      '["new\nline"]',
      '["\t"]',
      '["\u001f"]',
      '"\\UA66D"',
      '""x',
      '["\\u{41}"]',
      '["\\u 041"]',
    ],
    ...[
      '["\\u-001"]',
      '["\\u004G"]',
      '["\\u@041"]',
      '["\\u`041"]',
      '["\\u004/"]',
      '["\\u004:"]',
      '["\\0"]',
      '["\\\'"]',
      '["\\v"]',
      '["\\\u0000"]',
      '["\\u0\u0660\u0660\u0660"]',
    ],
    // Structure
    ...[
      '',
      ' ',
      '<.>',
      '[<null>]',
      '[1]x',
      '[1]]',
      '["asd]',
      'aå',
      '1]',
      '{"x": true,',
      '[][]',
      ']',
      'ï»{}',
      '\ufeff',
      '[',
      '{}}',
      '{"":',
    ],
    ...[
      '{"a":/*comment*/"b"}',
      '{"a": true} "x"',
      "['",
      '[,',
      '[{',
      '["a',
      '["a"',
      '{',
      '{]',
      '{,',
      '{[',
      '{"a',
      "{'a'",
      '["\\{["\\{["\\{["\\{',
    ],
    ...[
      '*',
      '{"a":"b"}#{}',
      '[\\u000A""]',
      '[1',
      '{"asd":"asd"',
      'å',
      '[\u2060]',
      '[\f]',
      '[\u000b1]',
      '\u00a0[]',
      '[\u00a0]',
      '[]\u2028',
      '[1}',
      '{"a":1]',
    ],
    ...[
      '[\u0000]',
      '[]\u0000',
      '1 2',
      '"a" "b"',
      'nulll',
      'tru',
      't',
      '{"a":1 "b":2}',
      '[1 2]',
      '["a" "b"]',
      '[}',
      '{)',
      ',',
      ':',
      '}',
    ],
    '['.repeat(100_000),
    '[{"":'.repeat(50_000) + '\n',
  ],
  either: [
    ...[
      '[123.456e-789]',
      `[0.4e00669999999999999999999999999999999999999999999999999999999999999999]`,
      '[-1e+9999]',
      '[1.5e+9999]',
    ],
    ...[
      '[-123123e100000]',
      '[123123e100000]',
      '[123e-10000000]',
      '[-123123123123123123123123123123]',
      '[100000000000000000000]',
    ],
    ...[
      '[-237462374673276894279832749832423479823246327846]',
      '{"\\uDFAA":0}',
      '["\\uDADA"]',
      '["\\uD888\\u1234"]',
      '["\\uD800\\n"]',
    ],
    ...[
      '["\\uDd1ea"]',
      '["\\uD800\\uD800"]',
      '["\\ud800"]',
      '["\\ud800abc"]',
      '["\\uDd1e\\uD834"]',
      '["\\uDFAA"]',
      '["日ш\ufffd"]',
    ],
    ...['["\ud800"]', '["\udfaa"]', '["\udd1e\ud834"]', '\ufeff{}', '\ufeff', '\ufffe[]', '["\ufffd\ufffd"]'],
    '['.repeat(500) + ']'.repeat(500),
  ],
}

/** A generator of numbers that gives the same ones on every run. */
export function seededRandom(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below
  }
}
