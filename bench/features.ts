/**
 * What each feature costs, as a multiple of the same answer streamed without it: in CPU time of the whole process, the official
 * SDK included, and in bytes of a bundle. Medians of rounds in which all take turns, within one run.
 */
import { parseArgs } from 'node:util'
import {
  cache,
  type ClientOptions,
  fallback,
  rateLimit,
  type ResponseStream,
  retry,
  StreamingLLMClient,
  type StreamRequest,
  timeout,
  tool,
} from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { telemetry } from 'fieldstream/telemetry'
import { replayFetch, simulate } from 'fieldstream/testing'
import { endProgress, machine, median, showProgress, type Table, toMarkdown, toText, writeSections } from './report.ts'
import { workloads } from './workloads.ts'

const { values: flags } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    write: { type: 'boolean', default: false },
    /** The times only. */
    json: { type: 'boolean', default: false },
  },
})
const rounds = flags.quick ? 15 : 40
/** Answers that one figure is measured over. */
const answersPerRound = 8
/** Most that an answer from the cache may cost. */
const mostForHit = 0.05

const { text, paths } = workloads.find(({ name }) => name === 'b')!
const payload = JSON.parse(text) as object
const answer = tool({ name: 'answer', input: { type: 'object' } })
const request = {
  messages: [{ role: 'user', content: 'Say it' }],
  tools: [answer],
  toolChoice: answer,
  fields: Object.fromEntries(paths.map((path) => [path, path])),
} satisfies Partial<StreamRequest>

const provider = () =>
  anthropic({ model: 'claude-haiku-4-5', fetch: replayFetch(simulate(payload, { deltaChars: 8 })) })

type Ask = () => Promise<unknown>

async function read(stream: ResponseStream): Promise<void> {
  let length = 0
  for await (const event of stream) if (event.type === 'field-delta') length += event.delta.length
  if (length === 0) throw new Error('Nothing was streamed.')
}

function asking(options: Partial<ClientOptions> = {}, more: Partial<StreamRequest> = {}): Ask {
  const client = new StreamingLLMClient({ provider: provider(), ...options })
  return () => read(client.stream({ ...request, ...more }) as ResponseStream)
}

const stored = new Map<string, string>()
const ignore = (): void => undefined
const running = new StreamingLLMClient({ provider: provider() })
const whole = new StreamingLLMClient({ provider: provider() })

const variants: Readonly<Record<string, Ask>> = {
  'nothing of it': asking(),
  'timeout()': asking({ middleware: [timeout({ idle: 30_000 })] }),
  'retry()': asking({ middleware: [retry()] }),
  'fallback()': asking({ provider: fallback(provider(), provider()) }),
  'rateLimit()': asking({ middleware: [rateLimit({ requests: 1_000_000, per: 1000, concurrency: 4 })] }),
  'cache(), an answer that is kept': asking({
    middleware: [cache({ store: { get: ignore, set: ignore } })],
  }),
  'cache(), an answer that was kept': asking({ middleware: [cache({ store: stored })] }),
  'telemetry(), nobody listening': asking({ middleware: [telemetry()] }),
  'all hooks': asking(
    Object.fromEntries(['onStart', 'onFirstDelta', 'onFinish', 'onMetrics'].map((name) => [name, ignore])),
  ),
  'batch: a word': asking({}, { batch: { at: 'word' } }),
  'batch: 80 characters': asking({}, { batch: { chars: 80 } }),
  'progress: true': asking({}, { progress: true }),
  "onInterrupted: 'restart'": asking({}, { onInterrupted: 'restart' }),
  'replay, read by two': async () => {
    const stream = running.stream({ ...request, replay: { events: 5000 } }) as ResponseStream
    await Promise.all([
      read(stream),
      (async () => {
        for await (const event of stream.subscribe()) ignore.call(event)
      })(),
    ])
  },
  'run(), no tool to run': () => read(running.run(request) as ResponseStream),
  'generate(), in one piece': () => whole.generate(request),
}

async function cpuOf(ask: Ask): Promise<number> {
  const before = process.cpuUsage()
  for (let i = 0; i < answersPerRound; i++) await ask()
  const { user, system } = process.cpuUsage(before)
  return (user + system) / answersPerRound
}

const times = new Map(Object.keys(variants).map((name) => [name, [] as number[]]))
for (let round = 0; round < rounds + 5; round++) {
  // The first rounds warm up.
  for (const [name, ask] of Object.entries(variants)) {
    const time = await cpuOf(ask)
    if (round >= 5) times.get(name)!.push(time)
  }
  if (process.stderr.isTTY) showProgress(`${round + 1} of ${rounds + 5}`)
}
endProgress()

const base = median(times.get('nothing of it')!)
const ratios = Object.fromEntries([...times].map(([name, measured]) => [name, median(measured) / base]))
if (flags.json) console.log(JSON.stringify(ratios))
else await report()

async function report(): Promise<void> {
  const note = `One forced tool call of ${text.length} characters in deltas of 8, ${Math.round(base)} µs of CPU without any feature.`
  const costs: Table = [
    ['', 'CPU'],
    ...Object.entries(ratios).map(([name, ratio]) => [name, `${ratio.toFixed(ratio < 0.1 ? 3 : 2)}×`]),
  ]
  const hit = ratios['cache(), an answer that was kept']!
  const verdict = `An answer from the cache is meant to cost ${mostForHit}× at most: ${hit <= mostForHit ? 'reached' : 'missed'} (${hit.toFixed(3)}×).`
  console.log(`${machine()}. ${note}\n\n${toText(costs)}\n\n${verdict}`)
  if (flags.write) {
    await writeSections({ 'bench:features': [note, toMarkdown(costs), verdict, `${machine()}.`].join('\n\n') })
  }
}
