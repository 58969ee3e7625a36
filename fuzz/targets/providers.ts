import { inspect } from 'node:util'
import { type ErrorCode, isLLMError, type LLMError, StreamingLLMClient } from 'fieldstream'
import { replayFetch } from 'fieldstream/testing'
import type { Subject } from '../../tests/conformance/subject.ts'
import { subjects } from '../../tests/conformance/subjects/index.ts'
import { seededRandom } from '../../tests/json-corpus.ts'
import { recordingsIn } from '../../tests/recordings.ts'
import { RunTrace } from '../../tests/trace/run-trace.ts'
import { mutate, mutateJson } from '../mutate.ts'
import { expectSame, type FuzzInput, type FuzzTarget, pick, type Random, toBytes, toByteText } from '../target.ts'

/** Longest recording that is used whole; of others, the first and the last events. */
const maxLength = 20_000

/** How long an answer may take that is there already. */
const hangMs = 5000

interface Outcome {
  readonly text: string
  readonly reasoning: string
  readonly calls: readonly (readonly [name: string, inputText: string])[]
  readonly error: ErrorCode | undefined
  readonly input: readonly unknown[] | undefined
}

async function outcomeOf(subject: Subject, body: Uint8Array, random: Random): Promise<Outcome> {
  const chunks = Array.from({ length: 20 }, () => 1 + random(pick(random, [2, 50, 2000])))
  const headers = { 'content-type': subject.wire.contentType }
  const provider = subject.create({ apiKey: 'none', fetch: replayFetch({ body, headers }, { chunks }) })
  const stream = new StreamingLLMClient({ provider }).stream({
    messages: [{ role: 'user', content: 'Hello' }],
    fields: { any: '*' },
  })
  const broken: string[] = []
  const trace = new RunTrace((violation) => broken.push(violation))
  let [text, reasoning] = ['', '']
  const calls = new Map<string, [name: string, inputText: string]>()
  let error: LLMError | undefined
  try {
    for await (const event of stream) {
      trace.onEvent(event)
      if (event.type === 'text-delta') text += event.delta
      else if (event.type === 'reasoning-delta') reasoning += event.delta
      else if (event.type === 'tool-input-start') calls.set(event.toolCallId, [event.toolName, ''])
      else if (event.type === 'tool-input-delta') calls.get(event.toolCallId)![1] += event.delta
    }
    trace.onEnd()
  } catch (thrown) {
    if (!isLLMError(thrown)) throw thrown
    error = thrown
    // Where a service writes text among its counts, that is shown.
    if (error.usage) Object.defineProperty(error, 'usage', { value: { ...error.usage, raw: {} } })
    trace.onError(error)
    expectForeign(thrown.cause)
  }
  if (broken.length > 0) throw new Error(broken.join('; '))
  const response = await stream.final().catch((thrown: unknown) => {
    if (thrown !== error) throw thrown
    return undefined
  })
  if (response && response.text !== text) throw new Error('the text of the response is not what was streamed')
  const input = response?.toolCalls.map((call) => call.input)
  return { text, reasoning, calls: [...calls.values()], error: error?.code, input }
}

/** That a fault of the library does not pass for one of the service. */
function expectForeign(cause: unknown): void {
  if (cause instanceof Error && !isLLMError(cause) && /^\s+at .*\/src\//m.test(cause.stack?.split('\n')[1] ?? ''))
    throw new Error(`The library failed: ${inspect(cause)}`)
}

function withinTime<Value>(promise: Promise<Value>): Promise<Value> {
  let timer: ReturnType<typeof setTimeout>
  const tooLate = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`it takes more than ${hangMs} ms`)), hangMs)
  })
  return Promise.race([promise, tooLate]).finally(() => clearTimeout(timer))
}

/** The events of a body, each with the line ends that follow it. */
function eventsIn(body: string, isLines: boolean): string[] {
  return body.match(isLines ? /[^\n]*\n|[^\n]+$/g : /[^]*?(?:\r\n\r\n|\n\n|$)/g)?.filter((event) => event !== '') ?? []
}

/** An event with something changed in its JSON. */
function changeEvent(event: string, random: Random): string {
  const start = event.indexOf('{')
  const end = event.lastIndexOf('}') + 1
  if (start < 0) return event
  try {
    const changed = mutateJson(JSON.parse(event.slice(start, end)), random)
    return event.slice(0, start) + JSON.stringify(changed) + event.slice(end)
  } catch {
    return event
  }
}

/** What a text may be without being anything else: no tag, no mark. */
const texts = [
  '',
  'x',
  ' ',
  '\n',
  '"',
  '\\',
  '😀',
  '\ud83d',
  '\ude00',
  '\u0000',
  '\u2028',
  '}',
  ',"a":1',
  '__proto__',
  'null',
]

/** Members that hold what the model writes. */
const written = ['text', 'content', 'delta', 'arguments', 'partial_json', 'thinking']

/** Events that say something else, and are still sound: some characters replaced wherever the model wrote them. */
function changeTexts(events: readonly string[], random: Random): string[] {
  const others = new Map(Array.from({ length: 3 }, () => [pick(random, ' eaot,.:1'.split('')), pick(random, texts)]))
  const change = (key: string, value: unknown): unknown =>
    written.includes(key) && typeof value === 'string'
      ? value.replaceAll(/[ eaot,.:1]/g, (character) => others.get(character) ?? character)
      : value
  return events.map((event) => {
    const start = event.indexOf('{')
    const end = event.lastIndexOf('}') + 1
    if (start < 0) return event
    return event.slice(0, start) + JSON.stringify(JSON.parse(event.slice(start, end), change)) + event.slice(end)
  })
}

function changeEvents(events: readonly string[], random: Random): string[] {
  const changed = [...events]
  for (let changes = random(3); changes >= 0; changes--) {
    const i = random(changed.length)
    switch (random(6)) {
      case 0:
        changed.splice(i, 1)
        break
      case 1:
        changed.splice(i, 0, pick(random, events))
        break
      case 2:
        changed.splice(random(changed.length), 0, ...changed.splice(i, 1))
        break
      default:
        if (changed[i] !== undefined) changed[i] = changeEvent(changed[i], random)
    }
  }
  return changed
}

function providerTarget(subject: Subject): FuzzTarget {
  const isLines = subject.wire.contentType.includes('json')
  const { begun, rest, limit, callsAtLimit } = subject.wire
  const bodies = [
    subject.wire.write(...begun, ...rest),
    subject.wire.write(...begun, ...limit),
    ...callsAtLimit.map((events) => subject.wire.write(...events)),
    ...recordingsIn(subject.folders).map(({ body }) => body),
  ]
  const whole = bodies.filter((body) => body.length < maxLength).map((body) => eventsIn(body, isLines))
  const shortened = bodies.map((body) => {
    const events = eventsIn(body, isLines)
    const kept = Math.max(3, Math.floor((events.length * maxLength) / body.length / 2))
    return [...events.slice(0, kept), ...events.slice(Math.max(kept, events.length - kept))]
  })
  const tokens = [
    '\n',
    '\n\n',
    '{',
    '}',
    '"',
    ',',
    'null',
    '\\',
    'data: ',
    '[DONE]',
    '{"error":{"message":"x"}}',
    '\xff',
  ]
  const check = async ({ text, seed, variant }: FuzzInput): Promise<void> => {
    const random = seededRandom(seed)
    const body = toBytes(text)
    const outcome = await outcomeOf(subject, body, random)
    const other = await outcomeOf(subject, body, random)
    if (outcome.error !== 'stream_protocol') expectSame(other, outcome, 'cut otherwise')
    if (outcome.error !== undefined || variant !== 'sound') return
    const expected = readingOf(subject, text)
    if (expected) expectSame({ text: outcome.text, input: outcome.input }, expected, 'what the body says')
  }
  return {
    name: subject.name,
    generate(random) {
      const seed = random(1e9)
      if (random(3) === 0)
        return { text: toByteText(changeTexts(pick(random, whole), random).join('')), seed, variant: 'sound' }
      const events = pick(random, shortened)
      const text = toByteText((random(8) === 0 ? events : changeEvents(events, random)).join(''))
      return { text: random(5) === 0 ? mutate(text, tokens, random) : text, seed }
    },
    check: (input) => withinTime(check(input)),
  }
}

/** What a body says, read independently; `undefined` where that reading, meant for sound bodies, is at a loss. */
function readingOf(subject: Subject, text: string): { text: string; input: unknown[] } | undefined {
  try {
    const body = Buffer.from(text, 'latin1').toString()
    const answer = subject.read(body, { variant: { name: 'fuzz' }, isBroken: false })
    if (!answer.isComplete || answer.failure) return undefined
    return { text: answer.text, input: answer.calls.map(({ input }) => input) }
  } catch {
    return undefined
  }
}

export const providerTargets: readonly FuzzTarget[] = subjects.map(providerTarget)
