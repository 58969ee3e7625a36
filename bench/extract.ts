/**
 * Deltas in, field text and the final payload out: what that costs here and with other libraries, as a multiple of one
 * `JSON.parse` of the whole text. Every time is the median of rounds in which all take turns, so that a change in the
 * machine's speed hits all alike.
 */
import { isDeepStrictEqual, parseArgs } from 'node:util'
import { JSONParser } from '@streamparser/json'
import { parsePartialJson } from 'ai'
import { parse as parseRiver } from 'jsonriver'
import { parse as parsePartial } from 'partial-json'
import { Assembler } from 'stream-json/assembler.js'
import { jsonParser, type Token } from 'stream-json/parser.js'
import { getManyValues, isMany } from 'stream-chain/defs.js'
import { ArgumentScanner } from '../src/tool-stream/argument-scanner.ts'
import { FieldExtractorRegistry } from '../src/tool-stream/field-extractor-registry.ts'
import { parseFieldPath, type PathSegment } from '../src/tool-stream/field-path.ts'
import { loadStreamingJsonParser, piVersion } from './peers/pi-json.ts'
import { machine, median, showProgress, endProgress, toMarkdown, toText, versionOf, writeSections } from './report.ts'
import { inDeltas, type Workload, workloads } from './workloads.ts'

const { values: flags } = parseArgs({
  options: {
    /** Workloads and delta sizes, e.g. `b/16,c/16`. */
    only: { type: 'string' },
    quick: { type: 'boolean', default: false },
    write: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
  },
})

const deltaSizes = [4, 16, 64]
const targets: Readonly<Record<string, number>> = {
  'a/16': 5,
  'b/16': 5,
  'c/16': 3.5,
  'd/16': 3.5,
  'b/4': 8.5,
  'b/64': 4.5,
}
/** A single run that takes longer, in milliseconds, is given up. */
const patience = 2000
/** Milliseconds to measure one workload at one delta size. */
const measuringTime = flags.quick ? 1500 : 5000

/** Takes what an extractor hands out; strings piece by piece. Where it lies is left out: not all know. */
interface Sink {
  onText(place: unknown, piece: string): void
  onTextEnd(): void
  onValue(place: unknown, value: unknown): void
}

type Step = string | number
type Path = readonly PathSegment[]

/** Reads the deltas, hands out the fields and returns the payload; calls `check` now and then, which throws when time is up. */
type Extract = (deltas: readonly string[], paths: readonly Path[], sink: Sink, check: () => void) => unknown

interface Contestant {
  readonly name: string
  readonly packageName?: string
  readonly version?: string
  readonly givesFields: boolean
  readonly extract: Extract
}

class OutOfPatience extends Error {}

function stepMatches(segment: PathSegment, step: Step): boolean {
  switch (segment.kind) {
    case 'key':
      return step === segment.key
    case 'index':
      return step === segment.index
    case 'any-key':
      return typeof step === 'string' && step.startsWith(segment.prefix) && step.endsWith(segment.suffix)
    case 'any-index':
      return typeof step === 'number'
  }
}

function matches(paths: readonly Path[], depth: number, stepAt: (index: number) => Step | undefined): boolean {
  for (const path of paths) {
    if (path.length !== depth) continue
    // The last step first: it rules out most.
    let i = depth - 1
    while (i >= 0 && stepMatches(path[i]!, stepAt(i)!)) i--
    if (i < 0) return true
  }
  return false
}

function entriesOf(value: unknown): [Step, unknown][] {
  if (Array.isArray(value)) return [...value.entries()]
  return typeof value === 'object' && value !== null ? Object.entries(value) : []
}

/** The values at the paths, in the order in which they close. */
function fieldsOf(value: unknown, paths: readonly Path[], steps: readonly Step[] = []): unknown[] {
  const inner = entriesOf(value).flatMap(([step, child]) => fieldsOf(child, paths, [...steps, step]))
  return matches(paths, steps.length, (i) => steps[i]) ? [...inner, value] : inner
}

// `ArgumentScanner` takes compiled paths, which a client compiles once.
const compiled = new Map<readonly Path[], ReturnType<FieldExtractorRegistry['compile']>>()

const fieldstream: Extract = (deltas, paths, sink, check) => {
  const scanner = new ArgumentScanner(compiled.get(paths)!, sink)
  for (const delta of deltas) scanner.write(delta)
  check()
  return scanner.end()
}

const floor: Extract = (deltas) => {
  let text = ''
  for (const delta of deltas) text += delta
  return JSON.parse(text)
}

/** The bare tokenizer and the assembler, without Node streams, which would cost more. */
const streamJson: Extract = (deltas, paths, sink, check) => {
  const tokenize = jsonParser({ streamKeys: false, streamNumbers: false })
  const assembler = new Assembler()
  const { stack } = assembler
  const stepOf = (container: unknown, key: unknown) => (Array.isArray(container) ? container.length : key) as Step
  const stepAt = (i: number) =>
    2 * i < stack.length ? stepOf(stack[2 * i], stack[2 * i + 1]) : stepOf(assembler.current, assembler.key)
  let isField = false
  let captured = -1
  const take = (token: Token) => {
    switch (token.name) {
      case 'startString':
        isField = matches(paths, assembler.depth, stepAt)
        return
      case 'stringChunk':
        if (isField) sink.onText(undefined, token.value)
        return
      case 'endString':
        if (isField) sink.onTextEnd()
        isField = false
        return
      case 'startObject':
      case 'startArray':
        if (captured < 0 && assembler.depth > 0 && matches(paths, assembler.depth, stepAt)) captured = assembler.depth
        assembler.consume(token)
        return
      case 'endObject':
      case 'endArray': {
        const closed = assembler.current
        assembler.consume(token)
        if (assembler.depth === captured) {
          captured = -1
          sink.onValue(undefined, closed)
        }
        return
      }
      default:
        assembler.consume(token)
    }
  }
  for (const delta of deltas) {
    const output = tokenize(delta)
    if (isMany(output)) for (const token of getManyValues<Token>(output)) take(token)
  }
  check()
  return assembler.current
}

const streamParser: Extract = (deltas, paths, sink, check) => {
  // Its paths know no prefixes, so a capture in a key becomes `*` and is looked at again below.
  const selectors = paths.map((path) =>
    ['$', ...path.map((segment) => (segment.kind === 'key' ? segment.key : '*'))].join('.'),
  )
  const parser = new JSONParser({ paths: ['$', ...selectors], emitPartialTokens: true, emitPartialValues: true })
  let payload: unknown
  let length = 0
  parser.onValue = ({ value, key, stack, partial }) => {
    if (stack.length === 0) {
      if (!partial) payload = value
      return
    }
    if (partial && typeof value !== 'string') return
    if (!matches(paths, stack.length, (i) => (i === stack.length - 1 ? key : stack[i + 1]!.key))) return
    if (typeof value !== 'string') {
      sink.onValue(undefined, value)
      return
    }
    if (value.length > length) sink.onText(undefined, value.slice(length))
    length = value.length
    if (partial) return
    sink.onTextEnd()
    length = 0
  }
  for (const [i, delta] of deltas.entries()) {
    parser.write(delta)
    if (i % 64 === 0) check()
  }
  return payload
}

/** Hands out what is new in a value that grows at its end only, as snapshots of unfinished JSON do. */
class SnapshotReader {
  readonly #paths: readonly Path[]
  readonly #sink: Sink
  /** How much was handed out of the string that is open. */
  #length = 0
  /** Where the last field closed. It stays last in the snapshot until the next value begins. */
  #closed: readonly Step[] = []

  constructor(paths: readonly Path[], sink: Sink) {
    this.#paths = paths
    this.#sink = sink
  }

  /** The only string that can have grown is last in last in last. */
  grow(snapshot: unknown): void {
    const steps: Step[] = []
    let value = snapshot
    while (typeof value === 'object' && value !== null) {
      const step: Step | undefined = Array.isArray(value) ? value.length - 1 : Object.keys(value).at(-1)
      if (step === undefined || step === -1) return
      steps.push(step)
      value = (value as Record<Step, unknown>)[step]
    }
    if (typeof value !== 'string' || !matches(this.#paths, steps.length, (i) => steps[i])) return
    if (steps.length !== this.#closed.length || steps.some((step, i) => step !== this.#closed[i])) this.#add(value)
  }

  close(value: unknown, steps: readonly Step[]): void {
    if (!matches(this.#paths, steps.length, (i) => steps[i])) return
    this.#closed = steps
    if (typeof value !== 'string') {
      this.#sink.onValue(undefined, value)
      return
    }
    this.#add(value)
    this.#sink.onTextEnd()
    this.#length = 0
  }

  #add(value: string): void {
    if (value.length > this.#length) this.#sink.onText(undefined, value.slice(this.#length))
    this.#length = value.length
  }
}

const river: Extract = async (deltas, paths, sink, check) => {
  const reader = new SnapshotReader(paths, sink)
  let i = 0
  const source: AsyncIterable<string> = {
    [Symbol.asyncIterator]: () => ({
      next() {
        if (i % 64 === 0) check()
        return Promise.resolve(
          i < deltas.length ? { done: false, value: deltas[i++]! } : { done: true, value: undefined },
        )
      },
    }),
  }
  let payload: unknown
  const completeCallback = (value: unknown, path: { segments(): Step[] }) => reader.close(value, path.segments())
  for await (payload of parseRiver(source, { completeCallback })) reader.grow(payload)
  return payload
}

/** With a parser of unfinished JSON, which reads all that there is after each delta. */
function rereading(parse: (text: string) => unknown): Extract {
  return async (deltas, paths, sink, check) => {
    let text = ''
    let handedOut: string[] = []
    let payload: unknown
    for (const delta of deltas) {
      text += delta
      try {
        const snapshot = parse(text)
        payload = snapshot instanceof Promise ? await snapshot : snapshot
      } catch {
        // Some refuse some beginnings; the next delta may bring it further.
        continue
      }
      handedOut = fieldsOf(payload, paths).map((field, k) => {
        if (typeof field !== 'string') return ''
        if (field.length > (handedOut[k]?.length ?? 0)) sink.onText(undefined, field.slice(handedOut[k]?.length ?? 0))
        return field
      })
      check()
    }
    for (const field of fieldsOf(payload, paths)) {
      if (typeof field === 'string') sink.onTextEnd()
      else sink.onValue(undefined, field)
    }
    return payload
  }
}

const StreamingJsonParser = flags.json ? undefined : await loadStreamingJsonParser()

/** It says neither when a string ends nor when a container is whole: those come out at the end, with the one strict parse. */
const piParser: Extract = (deltas, paths, sink, check) => {
  const parser = new StreamingJsonParser!()
  for (const [i, delta] of deltas.entries()) {
    for (const change of parser.append(delta)) {
      const piece = change.kind === 'append' ? change.text : change.value
      const { path } = change
      if (typeof piece === 'string' && matches(paths, path.length, (k) => path[k])) sink.onText(undefined, piece)
    }
    if (i % 64 === 0) check()
  }
  const payload: unknown = JSON.parse(deltas.join(''))
  for (const field of fieldsOf(payload, paths)) {
    if (typeof field === 'string') sink.onTextEnd()
    else sink.onValue(undefined, field)
  }
  return payload
}

const allContestants: readonly Contestant[] = [
  { name: 'concat + JSON.parse (floor)', givesFields: false, extract: floor },
  { name: 'fieldstream', givesFields: true, extract: fieldstream },
  { name: 'stream-json', packageName: 'stream-json', givesFields: true, extract: streamJson },
  ...(StreamingJsonParser
    ? [{ name: 'pi-ai StreamingJsonParser', version: piVersion, givesFields: true, extract: piParser }]
    : []),
  { name: 'jsonriver', packageName: 'jsonriver', givesFields: true, extract: river },
  { name: '@streamparser/json', packageName: '@streamparser/json', givesFields: true, extract: streamParser },
  { name: 'partial-json', packageName: 'partial-json', givesFields: true, extract: rereading(parsePartial) },
  {
    name: 'ai parsePartialJson',
    packageName: 'ai',
    givesFields: true,
    extract: rereading(async (text) => (await parsePartialJson(text)).value),
  },
]

// Others take long, and are not what a guard looks at.
const contestants = flags.json ? allContestants.slice(0, 2) : allContestants

/** Keeps everything, for the check of what is handed out. */
class Recorder implements Sink {
  text = ''
  readonly values: unknown[] = []

  onText(_: unknown, piece: string): void {
    this.text += piece
  }

  onTextEnd(): void {
    // The pieces of all strings are compared as one text.
  }

  onValue(_: unknown, value: unknown): void {
    this.values.push(value)
  }
}

class Counter implements Sink {
  delivered = 0

  onText(): void {
    this.delivered++
  }

  onTextEnd(): void {
    this.delivered++
  }

  onValue(): void {
    this.delivered++
  }
}

type Copy = { readonly text: string; readonly deltas: readonly string[] }

/** One job at one delta size, and what each contestant makes of it. */
class Trial {
  readonly name: string
  readonly #workload: Workload
  readonly #paths: readonly Path[]
  readonly #deltaSize: number
  #copies: readonly Copy[] = []
  readonly #counter = new Counter()
  /** How often the text is read in one measurement, so that it is long enough to time. */
  readonly #repeats: number
  readonly cells = new Map<Contestant, string>()
  readonly ratios = new Map<Contestant, number>()
  nanosecondsPerCharacter = 0

  constructor(workload: Workload, deltaSize: number) {
    this.name = `${workload.name}/${deltaSize}`
    this.#workload = workload
    this.#deltaSize = deltaSize
    this.#paths = workload.paths.map(parseFieldPath)
    this.#repeats = Math.max(3, Math.round(400_000 / workload.text.length))
    const fields = workload.paths.map((path) => ({ field: path, path }))
    compiled.set(this.#paths, new FieldExtractorRegistry(fields).compile('tool'))
  }

  async run(): Promise<void> {
    const { text } = this.#workload
    // Strings that were read before are quicker to read again, so there are several of each.
    this.#copies = Array.from({ length: text.length > 50_000 ? 3 : 16 }, () => ({
      text: JSON.parse(JSON.stringify(text)) as string,
      deltas: inDeltas(text, this.#deltaSize),
    }))
    const quick: Contestant[] = []
    const slow: Contestant[] = []
    for (const contestant of contestants) {
      const milliseconds = await this.#check(contestant)
      if (milliseconds < patience / 20) quick.push(contestant)
      else if (milliseconds < patience) slow.push(contestant)
    }
    // Apart, so that the quick do not pay for collecting what the slow leave behind.
    const parseTime = await this.#measure(quick, 40)
    await this.#measure(slow, 5)
    this.nanosecondsPerCharacter = (parseTime / text.length) * 1e6
    this.#copies = []
  }

  /** Lets the contestants take turns, and `JSON.parse` with them; returns the median time of the latter. */
  async #measure(group: readonly Contestant[], rounds: number): Promise<number> {
    const times = new Map(group.map((contestant) => [contestant, [] as number[]]))
    const parseTimes: number[] = []
    // Only here: a forced collection makes the engine forget part of what it optimized.
    globalThis.gc?.()
    const deadline = performance.now() + measuringTime
    for (let round = 0; round < rounds && (round < 5 || performance.now() < deadline); round++) {
      parseTimes.push(this.#timeParse())
      for (const [contestant, measured] of times) measured.push(await this.#time(contestant))
    }
    // The first rounds warm up.
    const parseTime = median(parseTimes.slice(2))
    for (const [contestant, measured] of times) {
      const ratio = median(measured.slice(2)) / parseTime
      this.ratios.set(contestant, ratio)
      const figure = ratio < 100 ? ratio.toFixed(1) : ratio.toFixed(0)
      this.cells.set(contestant, (this.cells.get(contestant) ?? '') + figure)
    }
    return parseTime
  }

  /** Marks what the contestant gets wrong, and returns how many milliseconds it took. */
  async #check(contestant: Contestant): Promise<number> {
    const { deltas, text } = this.#copies[0]!
    const sink = new Recorder()
    const start = performance.now()
    const check = () => {
      if (performance.now() - start > patience) throw new OutOfPatience()
    }
    try {
      const payload: unknown = await contestant.extract(deltas, this.#paths, sink, check)
      const expected: unknown = JSON.parse(text)
      const fields = fieldsOf(expected, this.#paths)
      const strings = fields.filter((field) => typeof field === 'string')
      const others = fields.filter((field) => typeof field !== 'string')
      const wrong = isDeepStrictEqual(payload, expected) ? '' : 'p'
      const wrongFields = sink.text === strings.join('') && isDeepStrictEqual(sink.values, others) ? '' : 'f'
      const marks = contestant.givesFields ? wrong + wrongFields : wrong
      if (marks !== '') this.cells.set(contestant, `(${marks}) `)
    } catch (error) {
      if (!(error instanceof OutOfPatience)) throw error
      let parseTime = Infinity
      for (let i = 0; i < 5; i++) parseTime = Math.min(parseTime, this.#timeParse())
      this.cells.set(contestant, `> ${Math.floor(patience / parseTime)}×`)
    }
    return performance.now() - start
  }

  #timeParse(): number {
    const start = performance.now()
    for (let i = 0; i < this.#repeats; i++) JSON.parse(this.#copies[i % this.#copies.length]!.text)
    return (performance.now() - start) / this.#repeats
  }

  async #time({ extract }: Contestant): Promise<number> {
    const start = performance.now()
    let done = 0
    do {
      const outcome = extract(
        this.#copies[done % this.#copies.length]!.deltas,
        this.#paths,
        this.#counter,
        () => undefined,
      )
      if (outcome instanceof Promise) await outcome
      // The slow ones need no repeats to be timed.
    } while (++done < this.#repeats && performance.now() - start < 50)
    return (performance.now() - start) / done
  }
}

const names = flags.only?.split(',')
const trials = workloads
  .flatMap((workload) => deltaSizes.map((size) => new Trial(workload, size)))
  .filter(({ name }) => names?.includes(name) ?? true)
for (const [i, trial] of trials.entries()) {
  showProgress(`${trial.name} (${i + 1} of ${trials.length})`)
  await trial.run()
}
endProgress()

const [, ours] = contestants as [Contestant, Contestant]
const note = 'Multiples of one `JSON.parse` of the whole text; workload/characters per delta.'
const legend = `(p): the payload is wrong, (f): the text or values of the fields are wrong; >: given up after ${patience / 1000} s.`
const table = [
  ['', ...trials.map(({ name }) => name)],
  ...contestants.map((contestant) => {
    const version = contestant.version ?? (contestant.packageName && versionOf(contestant.packageName))
    return [
      version === undefined ? contestant.name : `${contestant.name} ${version}`,
      ...trials.map(({ cells }) => cells.get(contestant)!),
    ]
  }),
  ['JSON.parse, ns per character', ...trials.map((trial) => trial.nanosecondsPerCharacter.toFixed(1))],
  [
    'what fieldstream aims at',
    ...trials.map(({ name, ratios }) => {
      const target = targets[name]
      return target === undefined ? '' : `≤ ${target} ${ratios.get(ours)! <= target ? 'yes' : 'no'}`
    }),
  ],
]
if (flags.json)
  console.log(JSON.stringify(Object.fromEntries(trials.map(({ name, ratios }) => [name, ratios.get(ours)]))))
else console.log(`${machine()}. ${note}\n\n${toText(table)}\n\n${legend}`)
if (flags.write) await writeSections({ 'bench:extract': `${note} ${legend}\n\n${toMarkdown(table)}\n\n${machine()}.` })
