/**
 * `npm run bench:profile -- --only ollama --contestant loop`: where the CPU time of one contestant of `bench:e2e` goes, per event, by
 * file and by function. `--job text-6` has the requests in view; `--paced 200` so many answers at once, an event every 10 ms each.
 */
import { Session } from 'node:inspector/promises'
import { parseArgs } from 'node:util'
import { loadContestant } from './e2e/contestants.ts'
import { argumentsOf, deltaChars, type JobName, type Order, toPrompt, type WireName } from './e2e/job.ts'
import { startServer } from './e2e/processes.ts'
import { toText } from './report.ts'

const { values: flags } = parseArgs({
  options: {
    only: { type: 'string', default: 'anthropic' },
    contestant: { type: 'string', default: 'loop' },
    job: { type: 'string' },
    paced: { type: 'string' },
    seconds: { type: 'string', default: '5' },
    rows: { type: 'string', default: '40' },
  },
})
const streams = Number(flags.paced ?? 1)
const job = (flags.job ?? (flags.paced === undefined ? 'answer' : 'text-158')) as JobName
const seconds = Number(flags.seconds)
const server = await startServer()
const contestant = await loadContestant(flags.contestant)
const ask = await contestant.open(flags.only as WireName, server.address)

let id = 0
/** Has one answered, or as many at once as are to be paced. */
async function askAll(pace: Order['pace']): Promise<void> {
  let begun = 0
  const asked = Array.from({ length: pace === 'paced' ? streams : 1 }, () => {
    let hasBegun = false
    // They wait for each other after their first event.
    const onPiece = (): void => {
      if (!hasBegun && ++begun === streams && pace === 'paced') void fetch(`${server.address}/go`)
      hasBegun = true
    }
    return ask(toPrompt({ id: ++id, job, pace }), { onText: onPiece, onArguments: onPiece })
  })
  await Promise.all(asked)
}

async function askFor(milliseconds: number, pace: Order['pace']): Promise<number> {
  const end = performance.now() + milliseconds
  let answers = 0
  for (; performance.now() < end; answers += pace === 'paced' ? streams : 1) await askAll(pace)
  return answers
}

await askFor(2000, 'burst')
const session = new Session()
session.connect()
await session.post('Profiler.enable')
await session.post('Profiler.setSamplingInterval', { interval: 200 })
await session.post('Profiler.start')
const answers = await askFor(seconds * 1000, flags.paced === undefined ? 'burst' : 'paced')
const { profile } = await session.post('Profiler.stop')
server.stop()

/** Microseconds by name. */
type Times = Map<string, number>
const byFunction: Times = new Map()
const byFile: Times = new Map()
/** What the library's functions take with all that they call. */
const inclusive: Times = new Map()
const nodes = new Map(profile.nodes.map((node) => [node.id, node]))
const callers = new Map(profile.nodes.flatMap(({ id, children = [] }) => children.map((child) => [child, id] as const)))
let total = 0
for (const [i, sample] of (profile.samples ?? []).entries()) {
  const { functionName } = nodes.get(sample)!.callFrame
  if (functionName === '(idle)') continue
  const time = profile.timeDeltas![i]!
  add(byFile, fileOf(sample) || functionName, time)
  add(byFunction, nameOf(sample), time)
  const stack = new Set<string>()
  for (let at: number | undefined = sample; at !== undefined; at = callers.get(at))
    if (fileOf(at).startsWith('src/')) stack.add(nameOf(at))
  for (const name of stack) add(inclusive, name, time)
  total += time
}

function fileOf(node: number): string {
  return nodes.get(node)!.callFrame.url.replace(/^.*?\/(?=src\/|bench\/|node_modules\/|internal)/, '')
}

function nameOf(node: number): string {
  const { functionName, url, lineNumber } = nodes.get(node)!.callFrame
  return url === '' ? functionName : `${functionName || '(anonymous)'} ${fileOf(node)}:${lineNumber + 1}`
}

function add(times: Times, name: string, time: number): void {
  times.set(name, (times.get(name) ?? 0) + time)
}

const events = answers * Math.ceil(argumentsOf(job).length / deltaChars)
function table(title: string, times: Times): string {
  const rows = [...times].sort(([, a], [, b]) => b - a).slice(0, Number(flags.rows))
  return toText([
    [title, 'ns per event', '%'],
    ...rows.map(([name, time]) => [name, ((time * 1000) / events).toFixed(0), ((time / total) * 100).toFixed(1)]),
  ])
}

console.log(
  `${contestant.name}, ${flags.only}: ${((total * 1000) / events).toFixed(0)} ns per event, ${(total / answers).toFixed(0)} µs per answer\n`,
)
console.log(table('file', byFile))
console.log()
console.log(table('function', byFunction))
console.log()
console.log(table('function, with what it calls', inclusive))
process.exit()
