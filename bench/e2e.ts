/**
 * `npm run bench:e2e`: from a socket to the text of fields, side by side with the SDKs and with other clients. Each contestant has a
 * process of its own; they take turns, and every figure is a median within one run.
 */
import { existsSync } from 'node:fs'
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import type { Contestant } from './e2e/contestant.ts'
import { contestantIds, loadContestant } from './e2e/contestants.ts'
import { importTimes } from './e2e/import-time.ts'
import { argumentsOf, deltaChars, wireNames, wireTitles, type WireName } from './e2e/job.ts'
import type { PacedResult, RequestsResult } from './e2e/measure.ts'
import { Runner, startServer, TookTooLong } from './e2e/processes.ts'
import {
  endProgress,
  machine,
  median,
  showProgress,
  type Table,
  toFigure,
  toMarkdown,
  toText,
  versionOf,
  writeSections,
} from './report.ts'

const { values: flags } = parseArgs({
  options: {
    only: { type: 'string', multiple: true, default: [] },
    part: { type: 'string', multiple: true, default: [] },
    contestants: { type: 'string' },
    quick: { type: 'boolean', default: false },
    write: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
  },
})
const { quick } = flags

/** What one contestant is measured at on one wire; `undefined` where it is not. */
type Figures<Figure> = Map<string, Partial<Record<WireName, Figure | string>>>

interface Result {
  readonly title: string
  readonly note: string
  readonly table: Table
  /** Cases in which somebody else who is no floor is ahead. */
  readonly behind: readonly string[]
  /** For `--json`. */
  readonly figures: unknown
}

function listOf<Name extends string>(given: readonly string[], all: readonly Name[], flag: string): readonly Name[] {
  const names = given.flatMap((text) => text.split(','))
  const wrong = names.find((name) => !(all as readonly string[]).includes(name))
  if (wrong !== undefined) throw new Error(`${flag} ${wrong}: choose from ${all.join(', ')}.`)
  return names.length === 0 ? all : (names as Name[])
}

// ------------------------------------------------------------------------------------------------------------ contestants

const contestants = new Map<string, Contestant>()
/** Why some are left out. */
const leftOut: string[] = []
const marks = new Map<string, string>()
const marksNote = '(t): the text is not that of the fields, (p): the payload is not the one sent.'

function installPeers(): boolean {
  const folder = fileURLToPath(new URL('peers', import.meta.url))
  if (existsSync(`${folder}/node_modules/.package-lock.json`)) return true
  showProgress('installing what is only compared with (bench/peers)')
  const { status, stderr } = spawnSync(
    'npm',
    ['ci', '--prefix', folder, '--ignore-scripts', '--no-audit', '--no-fund'],
    {
      encoding: 'utf8',
      shell: process.platform === 'win32',
    },
  )
  if (status === 0) return true
  const reason = stderr.split('\n').find((line) => line.startsWith('npm error')) ?? 'npm failed'
  leftOut.push(`pi-ai, TanStack AI and LangChain are left out, since bench/peers could not be installed: ${reason}`)
  return false
}

const peerPackages = ['@tanstack/', '@langchain/', '@earendil-works/']
const peerIds = ['pi-ai', 'tanstack', 'langchain']

async function loadContestants(): Promise<void> {
  const ids = listOf(flags.contestants === undefined ? [] : [flags.contestants], contestantIds, '--contestants')
  const hasPeers = ids.some((id) => peerIds.includes(id)) && installPeers()
  for (const id of ids) if (hasPeers || !peerIds.includes(id)) contestants.set(id, await loadContestant(id))
}

function speaks({ kind, packages }: Contestant, wire: WireName): boolean {
  return kind === 'floor' || packages[wire] !== undefined
}

const wires = listOf(flags.only, wireNames, '--only')
/** What takes long is measured with other clients on two protocols, unless others are asked for; with ours and the SDKs on all. */
const comparedWires = flags.only.length > 0 ? wires : wires.slice(0, 2)

function isQuick(wire: WireName): (contestant: Contestant) => boolean {
  return ({ kind }) => kind !== 'other' || comparedWires.includes(wire)
}

/** Starts everybody who speaks a protocol, has them checked and calls `run`. */
async function withRunners(
  wire: WireName,
  run: (runners: ReadonlyMap<string, Runner>) => Promise<void>,
  only?: (contestant: Contestant) => boolean,
): Promise<void> {
  const runners = new Map<string, Runner>()
  try {
    for (const [id, contestant] of contestants) {
      if (!speaks(contestant, wire) || only?.(contestant) === false) continue
      const runner = new Runner()
      try {
        await runner.ask('open', [id, wire, server.address])
        const key = `${id} ${wire}`
        if (!marks.has(key)) marks.set(key, await runner.ask('check', []))
        runners.set(id, runner)
      } catch (error) {
        runner.stop()
        leftOut.push(`${contestant.name} is left out on ${wireTitles[wire]}: ${String(error).split('\n')[0]!}`)
      }
    }
    await run(runners)
  } finally {
    for (const runner of runners.values()) runner.stop()
  }
}

/** Parts in which those who are compared with take long, and take one turn only. */
const slowParts: readonly string[] = ['paced', 'growth', 'latency']

/** Lets them take turns; who takes too long once is not asked again. */
async function inTurns<Figure>(
  wire: WireName,
  rounds: number,
  measure: (runner: Runner) => Promise<Figure>,
  reduce: (measured: readonly Figure[]) => Figure,
  figures: Figures<Figure>,
  prepare?: (runner: Runner, contestant: Contestant) => Promise<unknown>,
  only?: (contestant: Contestant) => boolean,
): Promise<void> {
  const run = async (runners: ReadonlyMap<string, Runner>): Promise<void> => {
    const measured = new Map<string, Figure[]>()
    for (let round = 0; round < rounds; round++) {
      for (const [id, runner] of runners) {
        const sofar = measured.get(id) ?? []
        if (round > 0 && sofar.length === 0) continue
        // What is many times slower need not be known so well.
        if (round > 0 && slowParts.includes(part) && contestants.get(id)!.kind === 'other') continue
        showProgress(`${part}, ${wireTitles[wire]}, round ${round + 1} of ${rounds}: ${contestants.get(id)!.name}`)
        measured.set(id, sofar)
        try {
          if (round === 0) await prepare?.(runner, contestants.get(id)!)
          sofar.push(await measure(runner))
        } catch (error) {
          measured.set(id, [])
          const row = figures.get(id) ?? {}
          row[wire] = error instanceof TookTooLong ? 'given up' : 'failed'
          figures.set(id, row)
          if (!(error instanceof TookTooLong)) leftOut.push(`${part}, ${id}, ${wire}: ${String(error).split('\n')[0]!}`)
        }
      }
    }
    for (const [id, results] of measured) {
      if (results.length === 0) continue
      const row = figures.get(id) ?? {}
      row[wire] = reduce(results)
      figures.set(id, row)
    }
  }
  await withRunners(wire, run, only)
}

/** It takes seconds until the engine has optimized what runs for microseconds; who is far behind stays there. */
function warmUp(runner: Runner, { kind }: Contestant): Promise<void> {
  return runner.ask('warmUp', ['answer', 'burst', kind === 'other' ? 800 : quick ? 2000 : 3000])
}

// ---------------------------------------------------------------------------------------------------------------- tables

const isNumber = (value: unknown): value is number => typeof value === 'number'

function numbersOf<Figure>(figures: Figures<Figure>, value: (figure: Figure) => number): Figures<number> {
  return new Map(
    [...figures].map(([id, row]) => [
      id,
      Object.fromEntries(
        Object.entries(row).map(([wire, figure]) => [wire, typeof figure === 'string' ? figure : value(figure)]),
      ),
    ]),
  )
}

function tableOf<Figure>(
  figures: Figures<Figure>,
  cell: (figure: Figure, wire: WireName, id: string) => string,
): Table {
  const shown = wires.filter((wire) => [...figures.values()].some((row) => row[wire] !== undefined))
  return [
    ['', ...shown.map((wire) => wireTitles[wire])],
    ...[...contestants.keys()].flatMap((id) => {
      const row = figures.get(id)
      if (!row) return []
      const cells = shown.map((wire) => {
        const figure = row[wire]
        const mark = marks.get(`${id} ${wire}`)
        const text = typeof figure === 'string' ? figure : figure === undefined ? '' : cell(figure, wire, id)
        return mark && text !== '' ? `(${mark}) ${text}` : text
      })
      return [[contestants.get(id)!.name, ...cells]]
    }),
  ]
}

function of(figures: Figures<number>, id: string, wire: WireName): number {
  const value = figures.get(id)?.[wire]
  return isNumber(value) ? value : Number.NaN
}

/** Where the better of the two ways to use the client is behind somebody, beyond what two runs differ by. */
function behindIn(figures: Figures<number>, tolerance = 1.05, slack = 0): string[] {
  return wires.flatMap((wire) => {
    const ours = Math.min(...['loop', 'listener'].map((id) => of(figures, id, wire)).filter((n) => !Number.isNaN(n)))
    return [...figures].flatMap(([id, row]) => {
      const value = row[wire]
      const { kind, name } = contestants.get(id)!
      if (!isNumber(value) || kind === 'floor' || kind === 'ours') return []
      if (!(ours > value * tolerance + slack)) return []
      return [`${wireTitles[wire]}: ${name} ${toFigure(value)} against ${toFigure(ours)}`]
    })
  })
}

function ratios(figures: Figures<number>): (value: number, wire: WireName) => string {
  return (value, wire) => {
    const against = ['floor', 'raw'].map((id) => `${toFigure(value / of(figures, id, wire))}×`)
    return `${toFigure(value)} µs, ${against.join(' / ')}`
  }
}

const againstNote = 'Each cell: the figure, then its ratio to the floor and to the raw SDK.'

// ----------------------------------------------------------------------------------------------------------------- parts

interface PartRun {
  readonly title: string
  run(): Promise<Omit<Result, 'title'>>
}

const milliseconds = quick ? 100 : 250

function pacedPart(
  title: string,
  streams: number,
  job: 'text-158' | 'text-108',
  rounds: number,
  only?: (wire: WireName) => (contestant: Contestant) => boolean,
): PartRun {
  return {
    title,
    async run() {
      const figures: Figures<PacedResult> = new Map()
      for (const wire of wires) {
        await inTurns<PacedResult>(
          wire,
          rounds,
          (runner) => runner.ask('paced', [job, streams]),
          (all) => ({
            cpu: median(all.map(({ cpu }) => cpu)),
            p50: median(all.map(({ p50 }) => p50)),
            p99: median(all.map(({ p99 }) => p99)),
            lost: all.reduce((sum, { lost }) => sum + lost, 0),
            memory: Math.max(...all.map(({ memory }) => memory)),
          }),
          figures,
          warmUp,
          only?.(wire),
        )
      }
      const cpu = numbersOf(figures, (figure) => figure.cpu)
      const latencies = numbersOf(figures, (figure) => figure.p99)
      const table = tableOf(figures, (figure, wire) => {
        const ratio = `${toFigure(figure.cpu / of(cpu, 'raw', wire))}×`
        const lost = figure.lost > 0 ? `; ${figure.lost} lost` : ''
        return `${toFigure(figure.cpu)} µs, ${ratio}; ${toFigure(figure.p99)} ms; ${toFigure(figure.memory / 1e6)} MB${lost}`
      })
      return {
        note: `${streams} answers of ${Number(job.slice(5))} events each at once, an event every 10 ms each. Each cell: CPU per event, its ratio to the raw SDK; latency from the server’s write to the new text, p99; most memory of the process. Lost: events of which no text came; none where nothing is said.`,
        table,
        behind: [
          ...behindIn(cpu).map((text) => `CPU per event, ${text} µs`),
          ...behindIn(latencies, 1.1, 1).map((text) => `latency p99, ${text} ms`),
        ],
        figures: Object.fromEntries(figures),
      }
    },
  }
}

const partRuns = {
  burst: {
    title: 'CPU per event, in bursts',
    async run() {
      const figures: Figures<number> = new Map()
      for (const wire of wires) {
        await inTurns(
          wire,
          quick ? 5 : 9,
          (runner) => runner.ask('burst', ['answer', 'burst', milliseconds]),
          median,
          figures,
          warmUp,
        )
      }
      const events = Math.ceil(argumentsOf('answer').length / deltaChars)
      return {
        note: `One forced tool call of 8 KB in ${events} deltas of ${deltaChars} characters, one answer after the other, as fast as the socket takes it. ${againstNote}`,
        table: tableOf(figures, ratios(figures)),
        behind: behindIn(figures).map((text) => `${text} µs`),
        figures: Object.fromEntries(figures),
      }
    },
  },
  paced: pacedPart('200 answers at once, paced', 200, 'text-158', quick ? 1 : 3),
  load: pacedPart('1000 answers at once, paced', 1000, 'text-108', 1, isQuick),
  latency: {
    title: 'Added latency, unloaded',
    async run() {
      const figures: Figures<{ readonly p50: number; readonly p99: number }> = new Map()
      for (const wire of wires) {
        await inTurns<{ readonly p50: number; readonly p99: number }>(
          wire,
          quick ? 1 : 2,
          (runner) => runner.ask('paced', ['text-108', 1]),
          (all) => ({ p50: median(all.map(({ p50 }) => p50)), p99: median(all.map(({ p99 }) => p99)) }),
          figures,
          warmUp,
        )
      }
      const p50 = numbersOf(figures, (figure) => figure.p50)
      const table = tableOf(figures, ({ p50: middle, p99 }, wire, id) => {
        const least = figures.get('floor')?.[wire]
        if (id === 'floor' || typeof least !== 'object') return `${toFigure(middle)}, ${toFigure(p99)} ms`
        return `+${toFigure(Math.max(0, middle - least.p50))}, +${toFigure(Math.max(0, p99 - least.p99))} ms`
      })
      return {
        note: 'One answer, an event every 10 ms: from the server’s write of a delta to its text, p50 and p99; for all but the floor, what is added to the floor’s.',
        table,
        behind: behindIn(p50, 1, 0.03).map((text) => `p50, ${text} ms`),
        figures: Object.fromEntries(figures),
      }
    },
  },
  requests: {
    title: 'A request: to the first text, and what it costs',
    async run() {
      const figures: Figures<RequestsResult> = new Map()
      for (const wire of wires) {
        await inTurns<RequestsResult>(
          wire,
          quick ? 5 : 9,
          (runner) => runner.ask('requests', [quick ? 20 : 100]),
          (all) => ({
            firstDelta: median(all.map(({ firstDelta }) => firstDelta)),
            cpu: median(all.map(({ cpu }) => cpu)),
          }),
          figures,
          (runner) => runner.ask('warmUp', ['text-6', 'burst', milliseconds * 12]),
        )
      }
      const first = numbersOf(figures, ({ firstDelta }) => firstDelta)
      const cpu = numbersOf(figures, (figure) => figure.cpu)
      const table = tableOf(figures, (figure, wire) => {
        const ratio = (value: number, all: Figures<number>) => `${toFigure(value / of(all, 'raw', wire))}×`
        return `${toFigure(figure.firstDelta)} ms, ${ratio(figure.firstDelta, first)}; ${toFigure(figure.cpu / 1000)} ms, ${ratio(figure.cpu, cpu)}`
      })
      return {
        note: 'Requests whose answer has six deltas, on a connection that is open. Each cell: from the call to the first text, and its ratio to the raw SDK; CPU of the whole request, and its ratio.',
        table,
        behind: [
          ...behindIn(first, 1.05).map((text) => `first text, ${text} ms`),
          ...behindIn(cpu, 1.05).map((text) => `CPU per request, ${text} µs`),
        ],
        figures: Object.fromEntries(figures),
      }
    },
  },
  growth: {
    title: 'Growth with the length of the answer',
    async run() {
      const figures: Figures<number> = new Map()
      const patience = quick ? 5000 : 8000
      for (const wire of wires) {
        await inTurns(
          wire,
          quick ? 3 : 5,
          async (runner) => {
            const short = await runner.ask('burst', ['prose-10000', 'burst', milliseconds], patience)
            return (await runner.ask('burst', ['prose-300000', 'burst', milliseconds * 2], patience)) / short
          },
          median,
          figures,
          async (runner) => {
            await runner.ask('warmUp', ['prose-10000', 'burst', milliseconds * 4], patience)
            await runner.ask('warmUp', ['prose-300000', 'burst', milliseconds * 2], patience)
          },
          isQuick(wire),
        )
      }
      return {
        note: `CPU per event of an answer of 300 KB, as a multiple of that of one of 10 KB. Given up: one answer takes more than ${patience / 1000} s.`,
        table: tableOf(figures, (value) => `${toFigure(value)}×`),
        behind: behindIn(figures, 1.15),
        figures: Object.fromEntries(figures),
      }
    },
  },
  promises: {
    title: 'Promises per event',
    async run() {
      const figures: Figures<number> = new Map()
      for (const wire of wires) {
        await inTurns(
          wire,
          1,
          (runner) => runner.ask('promises', ['answer', 'burst', 3]),
          median,
          figures,
          (runner) => runner.ask('warmUp', ['answer', 'burst', milliseconds]),
        )
      }
      return {
        note: 'Promises made while an answer of 8 KB is read in a burst, per event, those of the runtime included.',
        table: tableOf(figures, toFigure),
        behind: behindIn(figures),
        figures: Object.fromEntries(figures),
      }
    },
  },
  import: {
    title: 'Time to load',
    async run() {
      const rows = await importTimes(contestants, wires, quick ? 3 : 5, (name) => showProgress(`import, ${name}`))
      const shown = wires.map((wire) => wireTitles[wire])
      const names = [...new Set(rows.map(({ name }) => name))]
      const table = names.map((name) => [
        name,
        ...wires.map((wire) => {
          const row = rows.find((each) => each.name === name && each.wire === wire)
          return row ? `${toFigure(row.milliseconds)} ms` : ''
        }),
      ])
      return {
        note: 'From `import()` to the module, in a fresh process; what is loaded after the SDK is what it takes beyond that.',
        table: [['', ...shown], ...table],
        behind: [],
        figures: rows,
      }
    },
  },
  memory: {
    title: 'Memory',
    async run() {
      type Memory = { readonly idle: number; readonly active: number; readonly growth: number }
      const figures: Figures<Memory> = new Map()
      const runs = quick ? 2000 : 20_000
      const streams = quick ? 200 : 1000
      const samples = 5
      for (const wire of wires) {
        for (const [id, contestant] of contestants) {
          if (!speaks(contestant, wire) || !isQuick(wire)(contestant)) continue
          // Whether anything leaks is measured where it would be ours, and beside the SDK.
          const isLong = ['raw', 'loop', 'node'].includes(id)
          const fresh = async <Value>(measure: (runner: Runner) => Promise<Value>): Promise<Value> => {
            const runner = new Runner()
            try {
              await runner.ask('open', [id, wire, server.address])
              return await measure(runner)
            } finally {
              runner.stop()
            }
          }
          showProgress(`memory, ${wireTitles[wire]}: ${contestant.name}`)
          try {
            const idle = await fresh((runner) => runner.ask('openStreams', ['hold', streams]))
            const active = await fresh((runner) => runner.ask('openStreams', ['paced', streams], 60_000))
            const sizes = isLong ? await fresh((runner) => runner.ask('manyRuns', [runs, samples], 300_000)) : []
            const row = figures.get(id) ?? {}
            const growth = isLong ? (sizes.at(-1)! - sizes[0]!) / (runs * (1 - 1 / samples)) : Number.NaN
            row[wire] = { idle: idle.bytes, active: active.bytes, growth }
            figures.set(id, row)
          } catch (error) {
            leftOut.push(`memory, ${contestant.name}, ${wireTitles[wire]}: ${String(error).split('\n')[0]!}`)
          }
        }
      }
      const idle = numbersOf(figures, (figure) => figure.idle)
      const kilobytes = (bytes: number) => `${toFigure(bytes / 1000)} kB`
      const table = tableOf(figures, (figure) => {
        const kept = Number.isNaN(figure.growth) ? '' : `; ${Math.round(figure.growth)} B`
        return `${kilobytes(figure.idle)}; ${kilobytes(figure.active)}${kept}`
      })
      return {
        note: `Heap and external memory after a collection, per answer: of ${streams} that wait, and of ${streams} paced ones in the middle. Last, for the SDK and for fieldstream: what each of ${runs} short runs leaves behind on the heap.`,
        table,
        behind: [
          ...behindIn(idle, 1.05).map((text) => `waiting, ${text} bytes`),
          ...behindIn(
            numbersOf(figures, (figure) => figure.active),
            1.05,
          ).map((text) => `active, ${text} bytes`),
        ],
        figures: Object.fromEntries(figures),
      }
    },
  },
} satisfies Record<string, PartRun>

type PartName = keyof typeof partRuns
const partNames = Object.keys(partRuns) as PartName[]

// ------------------------------------------------------------------------------------------------------------------ run

const parts = listOf(flags.part, partNames, '--part')
let part: PartName = parts[0]!
const server = await startServer()
const results = new Map<PartName, Result>()
try {
  await loadContestants()
  for (part of parts) {
    const { title } = partRuns[part]
    results.set(part, { title, ...(await partRuns[part].run()) })
    endProgress()
    if (!flags.json) print(results.get(part)!)
    // As soon as it is there: a whole run takes long.
    if (flags.write) await writeSections({ [`bench:e2e ${part}`]: toSection(results.get(part)!) })
  }
} finally {
  server.stop()
}

const wrong = [...marks].filter(([, mark]) => mark !== '')
if (flags.json)
  console.log(JSON.stringify(Object.fromEntries([...results].map(([name, { figures }]) => [name, figures]))))
else {
  if (wrong.length > 0) console.log(`\n${marksNote}`)
  for (const text of new Set(leftOut)) console.log(text)
}
if (flags.write) await writeSections({ 'bench:e2e versions': versions() })
process.exit(0)

function print({ title, note, table, behind }: Result): void {
  console.log(`\n${title} (${machine()})\n\n${note}\n\n${toText(table)}`)
  for (const text of behind) console.log(`not first: ${text}`)
}

function toSection({ note, table, behind }: Result): string {
  const isMarked = table.some((row) => row.some((cell) => /^\([tp]+\)/.test(cell)))
  const ahead = behind.length > 0 ? `Ahead of fieldstream: ${behind.join('; ')}.` : 'Nobody else is ahead.'
  return `${note}${isMarked ? ` ${marksNote}` : ''}\n\n${toMarkdown(table)}\n\n${ahead}\n\n${machine()}${quick ? ', a quick run' : ''}.`
}

function versions(): string {
  const named = [...new Set([...contestants.values()].flatMap(({ packages }) => Object.values(packages).flat()))]
  const listed = named
    .filter((name) => name !== 'fieldstream')
    .sort()
    .map((name) => `${name} ${versionOf(name, peerPackages.some((start) => name.startsWith(start)) ? 'peers' : '..')}`)
  return [`${listed.join(', ')}.`, ...new Set(leftOut)].join('\n\n')
}
