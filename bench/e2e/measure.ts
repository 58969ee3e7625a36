/** One contestant on one wire protocol in a process of its own: does what the parent asks for, and answers with figures. */
import { isDeepStrictEqual } from 'node:util'
import { promiseHooks } from 'node:v8'
import type { Ask, Contestant, Sink } from './contestant.ts'
import { loadContestant } from './contestants.ts'
import {
  argumentsOf,
  deltaChars,
  fieldTextOf,
  type JobName,
  type Order,
  sharedNow,
  textOffset,
  toPrompt,
  type WireName,
} from './job.ts'

/** What the parent may ask for, by name, and what it is answered with. */
export interface Commands {
  open(contestant: string, wire: WireName, address: string): Promise<{ milliseconds: number }>
  check(): Promise<string>
  warmUp(job: JobName, pace: Order['pace'], milliseconds: number): Promise<void>
  burst(job: JobName, pace: Order['pace'], milliseconds: number): Promise<number>
  paced(job: JobName, streams: number): Promise<PacedResult>
  requests(count: number): Promise<RequestsResult>
  promises(job: JobName, pace: Order['pace'], count: number): Promise<number>
  openStreams(pace: 'hold' | 'paced', count: number): Promise<MemoryResult>
  manyRuns(runs: number, samples: number): Promise<number[]>
}

export interface PacedResult {
  /** Of the whole process, per event. */
  readonly cpu: number
  readonly p50: number
  readonly p99: number
  /** Events that no text came of. */
  readonly lost: number
  /** Most memory that the process had, in bytes. */
  readonly memory: number
}

export interface RequestsResult {
  /** Milliseconds from the call to the first text. */
  readonly firstDelta: number
  /** CPU, in microseconds. */
  readonly cpu: number
}

export interface MemoryResult {
  /** On the heap and beside it, after a collection, per stream. */
  readonly bytes: number
  readonly resident: number
}

let contestant: Contestant
let wireName: WireName
let ask: Ask
let address: string
let lastId = process.pid * 100_000

const ignored: Sink = { onText: () => undefined, onArguments: () => undefined }

function gives(): 'fields' | 'arguments' {
  return contestant.givesArguments?.includes(wireName) ? 'arguments' : 'fields'
}

function order(job: JobName, pace: Order['pace']): Order {
  return { id: ++lastId, job, pace }
}

function askOnce(job: JobName, pace: Order['pace'], sink: Sink = ignored): Promise<unknown> {
  return ask(toPrompt(order(job, pace)), sink)
}

/** Lets the paced answers that have begun go on. */
function go(): Promise<Response> {
  return fetch(`${address}/go`)
}

function eventsOf(job: JobName): number {
  return Math.ceil(argumentsOf(job).length / deltaChars)
}

function cpuSince(before: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(before)
  return user + system
}

function percentile(sorted: Float64Array, share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN
}

/** Notes when each piece of the arguments of a `text-N` came through. */
class Arrivals implements Sink {
  readonly times: Float64Array
  readonly #onFirst: () => void
  #hasBegun = false
  #length = 0
  #pieces = 0

  constructor(pieces: number, onFirst: () => void) {
    this.times = new Float64Array(pieces)
    this.#onFirst = onFirst
  }

  onArguments(piece: string): void {
    if (gives() === 'arguments') this.#advance(piece.length)
    else this.#begin()
  }

  onText(piece: string): void {
    if (this.#length === 0) this.#length = textOffset
    this.#advance(piece.length)
  }

  #advance(characters: number): void {
    this.#begin()
    this.#length += characters
    const now = sharedNow()
    const end = Math.min(Math.floor(this.#length / deltaChars), this.times.length)
    while (this.#pieces < end) this.times[this.#pieces++] = now
  }

  #begin(): void {
    if (this.#hasBegun) return
    this.#hasBegun = true
    this.#onFirst()
  }
}

/** Pieces that come before any text, or come at once to begin with. */
const piecesBefore = 8
/** Ends after the text does. */
const piecesAfter = 1

const commands: Commands = {
  async open(id, wire, serverAddress) {
    const start = performance.now()
    contestant = await loadContestant(id)
    wireName = wire
    address = serverAddress
    ask = await contestant.open(wire, serverAddress)
    return { milliseconds: performance.now() - start }
  },

  async check() {
    let marks = ''
    for (const job of ['answer', 'prose-5000', 'text-50'] as const) {
      const expected = JSON.parse(argumentsOf(job)) as unknown
      let text = ''
      let given = ''
      const sink: Sink = { onText: (piece) => void (text += piece), onArguments: (piece) => void (given += piece) }
      const payload = await askOnce(job, 'burst', sink)
      const isRight = gives() === 'fields' ? text === fieldTextOf(expected) : given === argumentsOf(job)
      if (!isRight && !marks.includes('t')) marks += 't'
      if (contestant.kind !== 'raw' && !isDeepStrictEqual(payload, expected) && !marks.includes('p')) marks += 'p'
    }
    return marks
  },

  async warmUp(job, pace, milliseconds) {
    const end = performance.now() + milliseconds
    do await askOnce(job, pace)
    while (performance.now() < end)
  },

  async burst(job, pace, milliseconds) {
    const end = performance.now() + milliseconds
    const before = process.cpuUsage()
    let answers = 0
    do {
      await askOnce(job, pace)
      answers++
    } while (performance.now() < end)
    return cpuSince(before) / answers / eventsOf(job)
  },

  async paced(job, streams) {
    const pieces = eventsOf(job)
    const orders = Array.from({ length: streams }, () => order(job, 'paced'))
    let before = process.cpuUsage()
    let begun = 0
    const arrivals = orders.map(
      () =>
        new Arrivals(pieces, () => {
          // What it takes to open them is measured elsewhere.
          if (++begun < streams) return
          before = process.cpuUsage()
          void go()
        }),
    )
    await Promise.all(orders.map((each, i) => ask(toPrompt(each), arrivals[i]!)))
    const cpu = cpuSince(before) / streams / (pieces - piecesBefore)
    const latencies: number[] = []
    let lost = 0
    for (const [i, { id }] of orders.entries()) {
      const sent = (await (await fetch(`${address}/times/${id}`)).json()) as number[]
      for (let piece = piecesBefore; piece < pieces - piecesAfter; piece++) {
        const arrived = arrivals[i]!.times[piece]!
        if (arrived === 0) lost++
        else latencies.push(arrived - sent[piece]!)
      }
    }
    const sorted = Float64Array.from(latencies).sort()
    const memory = process.resourceUsage().maxRSS * 1024
    return { cpu, p50: percentile(sorted, 0.5), p99: percentile(sorted, 0.99), lost, memory }
  },

  async requests(count) {
    const times: number[] = []
    const before = process.cpuUsage()
    for (let i = 0; i < count; i++) {
      let first: number | undefined
      const onFirst = (): void => void (first ??= performance.now())
      const start = performance.now()
      await askOnce('text-6', 'burst', { onText: onFirst, onArguments: onFirst })
      times.push((first ?? Number.NaN) - start)
    }
    return { firstDelta: median(times), cpu: cpuSince(before) / count }
  },

  async promises(job, pace, count) {
    let made = 0
    const stop = promiseHooks.onInit(() => made++) as () => void
    for (let i = 0; i < count; i++) await askOnce(job, pace)
    stop()
    return made / count / eventsOf(job)
  },

  async openStreams(pace, count) {
    await askOnce('text-50', 'burst')
    const used = (): number => {
      globalThis.gc!()
      const { heapUsed, external } = process.memoryUsage()
      return heapUsed + external
    }
    const before = used()
    const residentBefore = process.memoryUsage.rss()
    const { promise: allBegun, resolve } = Promise.withResolvers<undefined>()
    let begun = 0
    for (let i = 0; i < count; i++) {
      let hasBegun = false
      const onFirst = (): void => {
        if (!hasBegun && ++begun === count) resolve(undefined)
        hasBegun = true
      }
      const prompt = toPrompt(order(pace === 'hold' ? 'text-50' : 'text-3000', pace))
      // They do not end by themselves; the process does.
      ask(prompt, { onText: onFirst, onArguments: onFirst }).catch(() => undefined)
    }
    await allBegun
    if (pace === 'paced') await go()
    await new Promise((done) => setTimeout(done, 2000))
    const bytes = (used() - before) / count
    return { bytes, resident: (process.memoryUsage.rss() - residentBefore) / count }
  },

  async manyRuns(runs, samples) {
    const sizes: number[] = []
    // What optimized code takes is there after the first.
    for (let sample = -1; sample < samples; sample++) {
      for (let i = 0; i < runs / samples; i += 8)
        await Promise.all(Array.from({ length: 8 }, () => askOnce('text-20', 'burst')))
      globalThis.gc!()
      await new Promise((done) => setTimeout(done, 50))
      globalThis.gc!()
      if (sample >= 0) sizes.push(process.memoryUsage().heapUsed)
    }
    return sizes
  },
}

process.on('message', ({ command, given }: { command: keyof Commands; given: never[] }) => {
  const all = commands as unknown as Record<string, (...given: never[]) => Promise<unknown>>
  all[command]!(...given).then(
    (result) => process.send!({ result }),
    (error: unknown) =>
      process.send!({ error: error instanceof Error ? (error.stack ?? error.message) : String(error) }),
  )
})
process.on('disconnect', () => process.exit())
