import {
  type ClientOptions,
  type JsonSchema,
  type StreamEvent,
  StreamingLLMClient,
  type StreamRequest,
  tool,
} from 'fieldstream'
import { replayFetch } from 'fieldstream/testing'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { toBatches } from '../src/provider.ts'
import { subjects } from './conformance/subjects/index.ts'
import { hasRecordings, recordingsIn } from './recordings.ts'
import {
  call,
  collect,
  finish,
  input,
  inputEnd,
  inputStart,
  pieces,
  rejectionOf,
  scriptedProvider,
  start,
  streamOf,
  text,
  thrownBy,
} from './support.ts'

const answer = tool({
  name: 'answer',
  input: {
    type: 'object',
    properties: {
      route: { enum: ['product', 'general'] },
      message: { type: 'string' },
      tags: { type: 'array', items: { type: 'string', maxLength: 10 } },
      note: { type: 'string' },
    },
    required: ['route', 'message', 'tags'],
  },
})

const written = (value: unknown, size = 4, id = '1'): StreamEvent[][] => [
  [start, inputStart(id)],
  ...pieces(JSON.stringify(value), size).map((delta) => [input(id, delta)]),
  [inputEnd(id), finish()],
]

interface Told {
  /** After each delta, what was said and what was so. */
  readonly points: readonly { readonly ratio: number; readonly truth: number }[]
  readonly ratios: readonly number[]
  readonly types: readonly string[]
}

async function tell(
  script: StreamEvent[][],
  request: Partial<StreamRequest> = {},
  client?: (provider: ClientOptions['provider']) => StreamingLLMClient,
): Promise<Told> {
  const provider = scriptedProvider(script)
  const messages = [{ role: 'user' as const, content: 'Hello' }]
  const asked = { messages, progress: true, ...request } as StreamRequest
  const stream = (client?.(provider) ?? new StreamingLLMClient({ provider })).stream(asked)
  const points: { ratio: number; characters: number }[] = []
  const ratios: number[] = []
  const types: string[] = []
  let characters = 0
  const count = ({ type, delta }: { type: string; delta: string }): void => {
    types.push(type)
    characters += delta.length
    points.push({ ratio: ratios.at(-1) ?? 0, characters })
  }
  stream.on('text-delta', count).on('tool-input-delta', count)
  stream.on('progress', ({ ratio }) => {
    types.push('progress')
    ratios.push(ratio)
    if (points.length > 0 && ratio < 1) points.at(-1)!.ratio = ratio
  })
  stream.on('tool-call', ({ type }) => types.push(type)).on('finish', ({ type }) => types.push(type))
  await stream.final()
  return { points: points.map(({ ratio, characters: at }) => ({ ratio, truth: at / characters })), ratios, types }
}

const errorOf = ({ points }: Told): number =>
  points.reduce((sum, { ratio, truth }) => sum + Math.abs(ratio - truth), 0) / points.length

const value = fc.record(
  {
    route: fc.constantFrom('product', 'general'),
    message: fc.string({ maxLength: 400 }),
    tags: fc.array(fc.string({ maxLength: 10 })),
    note: fc.string(),
    more: fc.string(),
  },
  { requiredKeys: ['route', 'message', 'tags'] },
)

describe('progress', () => {
  test('only grows, ends with 1 just before the end, and is at most a hundred events', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(value, { minLength: 1, maxLength: 3 }),
        fc.integer({ min: 1, max: 40 }),
        async (values, size) => {
          const script = [
            [start, text('Well, let me see.')],
            ...values.flatMap((one, i) => written(one, size, String(i)).slice(0, -1)),
            [...values.map((_, i) => inputEnd(String(i))), finish()],
          ].map((batch) => batch.filter(({ type }, i) => i === 0 || type !== 'start'))
          const { ratios, types } = await tell(script, { tools: [answer] })
          for (const [i, ratio] of ratios.entries()) expect(ratio).toBeGreaterThan(ratios[i - 1] ?? 0)
          expect(ratios.indexOf(1)).toBe(ratios.length - 1)
          expect(ratios.length).toBeLessThanOrEqual(100)
          expect(types.slice(-2 - values.length)).toEqual(['progress', ...values.map(() => 'tool-call'), 'finish'])
        },
      ),
      { numRuns: 100 },
    )
  })

  test('is not said where it is not asked for, and not finished where the answer fails', async () => {
    const types = async (request: Partial<StreamRequest>, script: StreamEvent[][]) => {
      const seen: number[] = []
      const stream = streamOf(script, request).on('progress', ({ ratio }) => seen.push(ratio))
      await rejectionOf(stream.final())
      return seen
    }
    const script = written({ route: 'product', message: 'Hello', tags: [] })
    expect(await types({ tools: [answer] }, script)).toEqual([])
    const cut = await types({ tools: [answer], progress: true }, script.slice(0, -1))
    expect(cut.length).toBeGreaterThan(3)
    expect(Math.max(...cut)).toBeLessThan(1)
    const invalid = tool({
      name: 'answer',
      input: { type: 'object' },
      validate: () => ({ issues: [{ message: 'no' }] }),
    })
    expect(await types({ tools: [invalid], progress: true }, script)).not.toContain(1)
  })

  test('does not go back where an attempt begins anew', async () => {
    const again: StreamEvent = {
      type: 'restart',
      attempt: 2,
      reason: { code: 'connection', message: 'It broke off.' },
      from: { provider: 'scripted', model: 'scripted-1' },
      to: { provider: 'scripted', model: 'scripted-1' },
    }
    const first = written({ route: 'product', message: 'x'.repeat(200), tags: [] }).slice(0, -3)
    const { ratios } = await tell([...first, [again], ...written({ route: 'product', message: 'x', tags: [] })], {
      tools: [answer],
      onInterrupted: 'restart',
    })
    for (const [i, ratio] of ratios.entries()) expect(ratio).toBeGreaterThan(ratios[i - 1] ?? 0)
    expect(ratios.at(-1)).toBe(1)
  })

  test('knows from the schema what is left', async () => {
    const { points } = await tell(
      written({ route: 'product', message: 'm'.repeat(60), tags: ['one', 'two', 'three'] }),
      {
        tools: [answer],
      },
    )
    // After the route, most is to come; where the tags begin, not much.
    expect(points[4]!.ratio).toBeLessThan(0.25)
    expect(points.at(-6)!.ratio).toBeGreaterThan(0.55)
  })

  test('learns from the answers of the same client how long those of a tool are', async () => {
    const value = { route: 'product', message: 'm'.repeat(900), tags: ['one'] }
    const first = await tell(written(value), { tools: [answer] })
    let provider = scriptedProvider([])
    const client = new StreamingLLMClient({
      provider: { name: 's', model: 's', stream: (...all) => provider.stream(...all) },
    })
    const reuse = (next: ClientOptions['provider']): StreamingLLMClient => {
      provider = next as typeof provider
      return client
    }
    await tell(written(value), { tools: [answer] }, reuse)
    const later = await tell(written(value), { tools: [answer] }, reuse)
    expect(errorOf(first)).toBeGreaterThan(0.1)
    expect(errorOf(later)).toBeLessThan(0.02)
    // And the length of texts.
    const prose: StreamEvent[][] = [
      [start],
      ...pieces('t'.repeat(3000), 10).map((delta) => [text(delta)]),
      [finish('stop')],
    ]
    await tell(prose, {}, reuse)
    expect(errorOf(await tell(prose, {}, reuse))).toBeLessThan(0.02)
  })

  test('counts an output as it does arguments', async () => {
    const script: StreamEvent[][] = [
      [start],
      ...pieces(JSON.stringify({ route: 'product', message: 'm'.repeat(60), tags: ['one', 'two', 'three'] }), 5).map(
        (delta) => [text(delta)],
      ),
      [finish('stop')],
    ]
    const told = await tell(script, { output: answer.inputSchema })
    expect(errorOf(told)).toBeLessThan(0.2)
    expect(told.ratios.at(-1)).toBe(1)
  })

  test('waits with everything else, as one event', async () => {
    const stream = streamOf(written({ route: 'product', message: 'm'.repeat(900), tags: [] }), {
      tools: [answer],
      progress: true,
    })
    const loop = stream[Symbol.asyncIterator]()
    await stream.final()
    const events = await collect(loop)
    expect(events.filter(({ type }) => type === 'progress').length).toBeLessThanOrEqual(3)
    expect(events.length).toBeLessThan(10)
  })

  test('takes true or false', () => {
    expect(thrownBy(() => streamOf([call('1', '{}')], { progress: 'yes' as never }))).toMatchObject({
      code: 'invalid_argument',
    })
  })
})

/** What a schema would say of a value: names and types. */
function schemaOf(value: unknown): JsonSchema {
  if (Array.isArray(value)) return { type: 'array', ...(value.length > 0 && { items: schemaOf(value[0]) }) }
  if (value === null) return { type: 'null' }
  if (typeof value !== 'object') return { type: typeof value }
  const members = Object.entries(value).map(([key, member]) => [key, schemaOf(member)] as const)
  return { type: 'object', properties: Object.fromEntries(members), required: Object.keys(value) }
}

interface Recorded {
  readonly name: string
  readonly kind: 'text' | 'tool arguments'
  readonly script: StreamEvent[][]
  readonly request: Partial<StreamRequest>
}

/** The recorded answers that say something of progress: whole, and in several pieces. */
async function recordedAnswers(): Promise<Recorded[]> {
  const found: Recorded[] = []
  for (const subject of subjects) {
    for (const recording of recordingsIn(subject.folders)) {
      const provider = subject.create({ apiKey: 'none', fetch: replayFetch(recording) })
      const script: StreamEvent[][] = []
      const source = toBatches(
        provider.stream(
          { messages: [{ role: 'user', content: 'Hello' }] },
          { signal: new AbortController().signal, attempt: 1 },
        ),
      )
      try {
        for (let read = await source.next(); !read.done; read = await source.next()) script.push([...read.value])
        const { toolCalls } = await streamOf(script).final()
        const deltas = script.flat().filter(({ type }) => type === 'text-delta' || type === 'tool-input-delta')
        if (deltas.length < 5) continue
        const inputs = new Map(toolCalls.map(({ toolName, input: value }) => [toolName, value]))
        const tools = [...inputs].map(([name, value]) =>
          tool({ name, input: schemaOf(value), validate: (v) => ({ value: v }) }),
        )
        const kind = tools.length > 0 ? 'tool arguments' : 'text'
        found.push({ name: recording.name, kind, script, request: tools.length > 0 ? { tools } : {} })
      } catch {
        // Cut, refused or broken on purpose.
      }
    }
  }
  return found
}

test.skipIf(!hasRecordings)('how far off it is on the recorded answers', async () => {
  const answers = await recordedAnswers()
  expect(answers.length).toBeGreaterThan(60)
  for (const kind of ['tool arguments', 'text'] as const) {
    const some = answers.filter((one) => one.kind === kind)
    const first: number[] = []
    for (const { script, request } of some) first.push(errorOf(await tell(script, request)))
    // With what the other answers of this kind have taught, never the one that is measured.
    const later: number[] = []
    for (const { name, script, request } of some) {
      let provider = scriptedProvider([])
      const client = new StreamingLLMClient({
        provider: { name: 's', model: 's', stream: (...all) => provider.stream(...all) },
      })
      const names = new Set(request.tools?.map((one) => one.name))
      const others = some.filter(
        (one) => one.name !== name && (kind === 'text' || one.request.tools?.some((t) => names.has(t.name))),
      )
      for (const other of others.slice(-20)) {
        provider = scriptedProvider(other.script)
        await client
          .stream({ messages: [{ role: 'user', content: 'Hello' }], progress: true, ...other.request })
          .final()
      }
      if (others.length === 0) continue
      later.push(errorOf(await tell(script, request, (next) => ((provider = next as typeof provider), client))))
    }
    const mean = (errors: number[]) => errors.reduce((sum, error) => sum + error, 0) / errors.length
    const median = (errors: number[]) => errors.toSorted((a, b) => a - b)[errors.length >> 1]!
    console.info(
      `progress, ${kind}: mean absolute error ${mean(first).toFixed(3)} (median ${median(first).toFixed(3)}) over ${first.length} recordings at first sight; ${mean(later).toFixed(3)} (median ${median(later).toFixed(3)}) over ${later.length} when others were seen before`,
    )
    expect(mean(first)).toBeLessThan(0.3)
    expect(mean(later)).toBeLessThan(kind === 'text' ? 0.3 : 0.2)
  }
})
