/**
 * `npm run bench:guard`: holds the ratios that matter to the bounds of `guard.json`, in a quick run. What misses a bound is measured
 * once more, since a machine that does other things at the same time makes single runs wrong.
 */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { toFigure, toText } from './report.ts'

interface Bounds {
  /** How far beyond its bound a figure may be in a quick run. */
  readonly tolerance: number
  /** Multiples of one `JSON.parse`. */
  readonly extraction: Readonly<Record<string, number>>
  /** CPU per event, as a multiple of the raw SDK's. */
  readonly burst: Readonly<Record<string, number>>
  /** CPU per event of 300 KB, as a multiple of that of 10 KB. */
  readonly growth: Readonly<Record<string, number>>
  /** CPU of an answer from the cache, as a multiple of one that is streamed. */
  readonly cacheHit: number
}

const bounds = JSON.parse(readFileSync(new URL('guard.json', import.meta.url), 'utf8')) as Bounds

type Figures = Readonly<Record<string, number>>

function run(file: string, given: readonly string[], execArgv: readonly string[]): unknown {
  const root = fileURLToPath(new URL('..', import.meta.url))
  const { status, stdout } = spawnSync(
    process.execPath,
    [...execArgv, `bench/${file}`, '--quick', '--json', ...given],
    { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] },
  )
  if (status !== 0) throw new Error(`bench/${file} failed.`)
  return JSON.parse(stdout)
}

const useSources = ['--import', './scripts/use-sources.ts']

function runE2e(
  part: 'burst' | 'growth',
  wires: readonly string[],
  contestants: string,
): Record<string, Record<string, number>> {
  const given = ['--part', part, '--only', wires.join(','), '--contestants', contestants]
  const figures = run('e2e.ts', given, useSources) as Record<string, Record<string, Record<string, number>>>
  return figures[part]!
}

/** Each measures what is named, and gives a figure for each of the names. */
const suites: readonly {
  readonly title: string
  readonly bounds: Figures
  readonly measure: (names: readonly string[]) => Figures
}[] = [
  {
    title: 'extraction, × JSON.parse',
    bounds: bounds.extraction,
    measure: (names) => run('extract.ts', ['--only', names.join(',')], ['--expose-gc']) as Figures,
  },
  {
    title: 'burst, × raw SDK',
    bounds: bounds.burst,
    measure: (wires) => {
      const { raw, loop, listener } = runE2e('burst', wires, 'raw,loop,listener')
      return Object.fromEntries(wires.map((wire) => [wire, Math.min(loop![wire]!, listener![wire]!) / raw![wire]!]))
    },
  },
  {
    title: 'growth, 300 KB ÷ 10 KB',
    bounds: bounds.growth,
    measure: (wires) => runE2e('growth', wires, 'loop')['loop']!,
  },
  {
    title: 'answer from the cache',
    bounds: { anthropic: bounds.cacheHit },
    measure: () => ({
      anthropic: (run('features.ts', [], useSources) as Figures)['cache(), an answer that was kept']!,
    }),
  },
]

const rows: string[][] = [['', '', 'bound', 'measured', '']]
const missed: string[] = []
for (const { title, bounds: each, measure } of suites) {
  const isMissed = (name: string, figures: Figures) => !(figures[name]! <= each[name]! * bounds.tolerance)
  const first = measure(Object.keys(each))
  const again = Object.keys(each).filter((name) => isMissed(name, first))
  const figures = again.length === 0 ? first : { ...first, ...better(first, measure(again)) }
  for (const [name, bound] of Object.entries(each)) {
    const isOver = isMissed(name, figures)
    rows.push([title, name, toFigure(bound), toFigure(figures[name]!), isOver ? 'MISSED' : ''])
    if (isOver)
      missed.push(
        `${title}, ${name}: ${toFigure(figures[name]!)} is more than ${toFigure(bound)} × ${bounds.tolerance}`,
      )
  }
}
console.log(toText(rows))
if (missed.length > 0) {
  console.error(`\nSlower than bench/guard.json allows:\n${missed.map((text) => `- ${text}`).join('\n')}`)
  process.exit(1)
}
console.log(`\nAll within ${bounds.tolerance}× of their bounds.`)

function better(a: Figures, b: Figures): Figures {
  return Object.fromEntries(Object.entries(b).map(([name, figure]) => [name, Math.min(figure, a[name]!)]))
}
