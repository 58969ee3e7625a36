import fc from 'fast-check'
import {
  FieldExtractorRegistry,
  isLLMError,
  outputFormat,
  type ResponseEvent,
  type StreamEvent,
  StreamingLLMClient,
  type StreamRequest,
  tool,
  ToolStreamAccumulator,
} from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { replayFetch, simulate } from 'fieldstream/testing'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { cutAt, cuts } from './json-corpus.ts'
import {
  call,
  collect,
  collectUntilError,
  finish,
  reasoning,
  rejectionOf,
  scriptedProvider,
  start,
  streamOf,
  text,
  thrownBy,
} from './support.ts'

const anyString = fc.string({ unit: 'binary' })
const anyReport = fc.record({ title: anyString, sections: fc.array(fc.record({ body: anyString }), { maxLength: 3 }) })
const report = z.object({ title: z.string(), sections: z.array(z.object({ body: z.string() })) })
const fields = { title: 'title', body: 'sections[*].body', section: 'sections[{n}]' }
const answer = tool({ name: 'answer', input: z.object({ title: z.string() }) })
const messages = [{ role: 'user', content: 'Hello' }] as const

/** An answer of text in these pieces. */
const written = (chunks: readonly string[], end: StreamEvent = finish('stop')): StreamEvent[] => [
  start,
  ...chunks.filter((chunk) => chunk !== '').map(text),
  end,
]

const run = (events: readonly StreamEvent[], request: Partial<StreamRequest> = {}) =>
  streamOf([events], { output: report, ...request })

const failureOf = (events: readonly StreamEvent[], request: Partial<StreamRequest> = {}): Promise<unknown> =>
  rejectionOf(run(events, request).final())

describe('the output of a request', () => {
  test('is delivered once and whole, its fields as they are written, however it is cut', async () => {
    await fc.assert(
      fc.asyncProperty(anyReport, fc.constantFrom(0, 2), cuts, async (payload, indent, places) => {
        const whole = JSON.stringify(payload, undefined, indent)
        const chunks = cutAt(
          whole,
          places.map((place) => Math.floor(place * whole.length)),
        )
        const stream = run(written(chunks), { fields })
        const events = await collect(stream)
        const response = await stream.final()
        expect(response.output).toEqual(payload)
        expect(response.text).toBe(whole)
        expect(response.toolCalls).toEqual([])
        expect(response.messages[0]!.content).toEqual([{ type: 'text', text: whole }])
        expect(textOf(events)).toBe(whole)
        const joined = new Map<string, string>()
        for (const event of events) {
          if (event.type !== 'field-delta') continue
          expect(event.toolCallId).toBeUndefined()
          expect(event.toolName).toBeUndefined()
          joined.set(event.path, (joined.get(event.path) ?? '') + event.delta)
        }
        const values = Object.fromEntries(
          events.flatMap((event) =>
            event.type === 'field-end' ? [[`${event.field} ${event.path}`, event.value]] : [],
          ),
        )
        expect(values).toEqual({
          'title title': payload.title,
          ...Object.fromEntries(payload.sections.map(({ body }, i) => [`body sections[${i}].body`, body])),
          ...Object.fromEntries(payload.sections.map((section, i) => [`section sections[${i}]`, section])),
        })
        expect(joined.get('title') ?? '').toBe(payload.title)
        for (const [i, { body }] of payload.sections.entries())
          expect(joined.get(`sections[${i}].body`) ?? '').toBe(body)
      }),
    )
  })

  test('and any cut of it is an error, whatever a provider says of its end', async () => {
    const whole = JSON.stringify({ title: 'A "title"', sections: [{ body: 'x' }] })
    for (let length = 0; length < whole.length; length++) {
      expect(await failureOf(written([whole.slice(0, length)]))).toMatchObject({
        code: length === 0 ? 'no_payload' : 'invalid_json',
      })
    }
  })

  test('is joined where it comes in several parts of text', async () => {
    const events = [start, reasoning('hm'), text('{"title":"a",'), { type: 'part-end', kind: 'text' } as const]
    const stream = run([...events, reasoning('hm'), text('"sections":[]}'), finish('stop')])
    expect((await stream.final()).output).toEqual({ title: 'a', sections: [] })
  })

  test('is what its schema makes of it', async () => {
    const output = z.object({ n: z.string().transform(Number) })
    expect((await run(written(['{"n":"5"}']), { output }).final()).output).toEqual({ n: 5 })
    const late = z.object({ n: z.string().refine((n) => Promise.resolve(n === '5')) })
    expect((await run(written(['{"n":"5"}']), { output: late }).final()).output).toEqual({ n: '5' })
    expect(await failureOf(written(['{"n":"6"}']), { output: late })).toMatchObject({ code: 'schema_mismatch' })
  })

  test('is only known to be an object where a plain JSON Schema describes it, unless it is checked', async () => {
    const schema = { properties: { n: { type: 'number' } } }
    expect((await run(written(['{"n":"x"}']), { output: schema }).final()).output).toEqual({ n: 'x' })
    const refusing = outputFormat({ schema, validate: () => ({ issues: [{ message: 'no', path: ['n'] }] }) })
    expect(await failureOf(written(['{"n":"x"}']), { output: refusing })).toMatchObject({
      code: 'schema_mismatch',
      message: 'The output is against its schema at: n. See `issues`.',
      issues: [{ path: 'n', message: 'no' }],
    })
    const failing = outputFormat({ schema, validate: () => JSON.parse('{') as never })
    expect(await failureOf(written(['{"n":"x"}']), { output: failing })).toMatchObject({ code: 'validator_error' })
  })

  test('reaches the provider as a format, with its details', async () => {
    const provider = scriptedProvider([written(['{"title":"a","sections":[]}'])])
    await streamOf(provider, { output: report }).final()
    expect(provider.requests[0]!.output).toMatchObject({ name: 'output', schema: { type: 'object' } })
    await streamOf(provider, {
      output: outputFormat({ name: 'report', description: 'A report', strict: true, schema: report }),
    }).final()
    expect(provider.requests[1]!.output).toMatchObject({ name: 'report', description: 'A report', strict: true })
  })

  test('goes through a provider', async () => {
    const payload = { title: 'Chips 🎉', sections: [{ body: 'Salted' }] }
    const provider = anthropic({ model: 'x', fetch: replayFetch(simulate(JSON.stringify(payload))) })
    const stream = new StreamingLLMClient({ provider }).stream({ messages, output: report, fields })
    let title = ''
    for await (const delta of stream.fields('title')) title += delta
    expect(title).toBe(payload.title)
    expect((await stream.final()).output).toEqual(payload)
  })
})

describe('an output that is not usable is an error', () => {
  test.each<[string, StreamEvent[], object]>([
    ['cut', written(['{"title":"a'], finish('length')), { code: 'output_truncated', position: 11 }],
    ['cut where it parses', written(['{"title":"a","sections":[]}'], finish('length')), { code: 'output_truncated' }],
    ['cut before it began', written([], finish('length')), { code: 'output_truncated' }],
    ['empty', written([]), { code: 'no_payload' }],
    ['blank', written([' \n']), { code: 'no_payload' }],
    ['prose', written(['Sure! Here']), { code: 'invalid_json' }],
    ['more than one value', written(['{"title":"a","sections":[]}', ' {}']), { code: 'invalid_json' }],
    [
      'a list',
      written(['[]']),
      { code: 'schema_mismatch', message: 'The output must be a JSON object, and is an array.' },
    ],
    [
      'against its schema',
      written(['{"title":1,"sections":[]}']),
      { code: 'schema_mismatch', issues: [{ path: 'title' }] },
    ],
    ['refused', written(['{"ti'], finish('refusal')), { code: 'refused' }],
    ['filtered', written([], finish('content-filter')), { code: 'content_filtered' }],
  ])('%s', async (_, events, expected) => {
    const failure = await failureOf(events)
    expect(failure).toMatchObject(expected)
    expect((failure as Error).message).not.toMatch(/Sure|Here/)
  })

  test('at once where it cannot become JSON any more', async () => {
    const { items, error } = await collectUntilError(
      run([start, text('{"title":"a",}'), text('"sections":[]}'), finish('stop')], { fields }),
    )
    expect(error).toMatchObject({ code: 'invalid_json', position: 13 })
    expect((error as Error).message).toBe(
      'The output is not valid JSON at character 13: expected a key in double quotes',
    )
    expect(items.map(({ type }) => type)).toEqual(['start', 'text-delta', 'field-delta', 'field-end'])
  })

  test('with what the provider said of it, out of sight', async () => {
    const end = { ...finish('refusal'), explanation: 'planted words' } as StreamEvent
    const failure = await failureOf(written([], end))
    expect(failure).toMatchObject({ code: 'refused', providerMessage: 'planted words' })
    expect(JSON.stringify(failure)).not.toContain('planted')
    const filtered = { ...finish('content-filter'), explanation: 'planted words' } as StreamEvent
    expect(await failureOf(written([], filtered))).toMatchObject({ providerMessage: 'planted words' })
  })

  test('and carries what there is', async () => {
    const failure = await failureOf([start, text('{"title":"Chips","sections":[{"body":"Sal')])
    expect(failure).toMatchObject({ code: 'stream_truncated', position: 41 })
    if (!isLLMError(failure)) throw failure
    expect(failure.partial!.output).toEqual({ title: 'Chips', sections: [{ body: 'Sal' }] })
  })

  test('where it repeats a key that a field was read from', async () => {
    const repeating = written(['{"title":"a","title":"b","sections":[]}'])
    expect(await failureOf(repeating, { fields })).toMatchObject({ code: 'invalid_json', position: 19 })
    expect((await run(repeating).final()).output).toMatchObject({ title: 'b' })
  })

  test('where it is over a limit', async () => {
    const stream = streamOf([written(['{"title":"too long"}'])], { output: report }, { limits: { maxInputLength: 5 } })
    expect(await rejectionOf(stream.final())).toMatchObject({ code: 'limit_exceeded', limit: 'maxInputLength' })
  })
})

describe('with tools beside it', () => {
  const both = { tools: [answer], output: report, fields: { title: 'title' } }

  test.each(['I will look that up.', '{"title":"draft"', '', '{"title":"a","title":"b"'])(
    'text before a call is not judged: %j',
    async (before) => {
      const stream = run([start, text(before), ...call('1', '{"title":"chips"}'), finish()], both)
      const watched = stream.field('title')
      const response = await stream.final()
      expect(response.output).toBeUndefined()
      expect(response.toolCalls).toEqual([{ toolCallId: '1', toolName: 'answer', input: { title: 'chips' } }])
      expect(response.text).toBe(before)
      expect(await watched).toMatch(/chips|draft|a/)
      expect(await stream.field('title')).toBe('chips')
    },
  )

  test('an answer without calls is the output', async () => {
    const { output, toolCalls } = await run(written(['{"title":"a","sections":[]}']), both).final()
    expect(output).toEqual({ title: 'a', sections: [] })
    expect(toolCalls).toEqual([])
    expect(await failureOf(written(['I do not know.']), both)).toMatchObject({ code: 'invalid_json' })
    expect(await failureOf(written(['I do'], finish('length')), both)).toMatchObject({ code: 'output_truncated' })
    expect(await failureOf(written([]), both)).toMatchObject({ code: 'no_payload' })
  })

  test('text that is no JSON is judged at the end only', async () => {
    const { items, error } = await collectUntilError(run(written(['I do', ' not know.']), both))
    expect(items.filter(({ type }) => type === 'text-delta')).toHaveLength(2)
    expect(error).toMatchObject({ code: 'invalid_json', position: 0 })
    // Where the tools may not be called, there is nothing to wait for.
    const none = await collectUntilError(run(written(['I do', ' not know.']), { ...both, toolChoice: 'none' }))
    expect(none.items.filter(({ type }) => type === 'text-delta')).toHaveLength(1)
  })

  test('a field that cannot be checked ends its events at once, and the run once it is known to matter', async () => {
    const schema = z.string().refine(() => Promise.resolve(true))
    const request = { ...both, fields: { checked: { path: 'title', schema }, section: 'sections[*]' } }
    const chunks = [start, text('{"title":"a",'), text('"sections":[{"body":"x"}]}')]
    const { items, error } = await collectUntilError(run([...chunks, finish('stop')], request))
    expect(error).toMatchObject({ code: 'validator_error' })
    expect(items.filter(({ type }) => type === 'field-end')).toEqual([])
  })

  test('a call that is forced is still missed', async () => {
    const failure = await failureOf(written(['{"title":"a","sections":[]}']), { ...both, toolChoice: answer })
    expect(failure).toMatchObject({ code: 'no_payload', message: 'The model answered without calling tool "answer".' })
  })

  test('a field of one tool is not read from the output', async () => {
    const request = {
      tools: [answer],
      output: report,
      fields: { mine: { path: 'title', tool: 'answer' }, any: 'title' },
    }
    const ends = (events: ResponseEvent[]) =>
      events.flatMap((event) => (event.type === 'field-end' ? [event.field] : []))
    expect(ends(await collect(run(written(['{"title":"a","sections":[]}']), request)))).toEqual(['any'])
    expect(ends(await collect(run([start, ...call('1', '{"title":"a"}'), finish()], request)))).toEqual(['mine', 'any'])
  })
})

describe('field() reads the output', () => {
  test('as soon as the value closes', async () => {
    const chunks = ['{"title":"chi', 'ps","sec', 'tions":[]}']
    let whatCame = 0
    const provider = scriptedProvider(async function* () {
      await Promise.resolve()
      yield [start]
      for (const chunk of chunks) {
        whatCame++
        yield [text(chunk)]
        await new Promise((resolve) => setTimeout(resolve, 5))
      }
      yield [finish('stop')]
    })
    const stream = streamOf(provider, { output: report })
    expect(await stream.field('title')).toBe('chips')
    expect(whatCame).toBe(2)
    expect(await stream.field('sections')).toEqual([])
    expect(await stream.field('sections[0]')).toBeUndefined()
    await stream.final()
    expect(await stream.field('title')).toBe('chips')
  })

  test('when it is asked for by a listener, at any delta', async () => {
    const whole = '{"title":"chips","sections":[]}'
    for (let at = 0; at < whole.length; at++) {
      const stream = run(written(whole.split('')))
      let count = 0
      const asked = new Promise((resolve) => {
        stream.on('text-delta', () => {
          if (count++ === at) resolve(stream.field('title'))
        })
      })
      expect(await asked).toBe('chips')
      expect((await stream.final()).output).toEqual({ title: 'chips', sections: [] })
    }
  })

  test('and does not count what was repeated before it was asked for', async () => {
    const stream = run(written(['{"title":"a",', '"title":"b",', '"sections":[]}']))
    let count = 0
    const asked = new Promise<unknown>((resolve) => {
      stream.on('text-delta', () => {
        if (++count === 2) resolve(rejectionOf(stream.field('title')))
      })
    })
    expect(await asked).toMatchObject({ code: 'invalid_json' })
  })

  test('and a repeated key fails the run, or the late question', async () => {
    const repeating = written(['{"title":"a",', '"title":"b","sections":[]}'])
    const early = run(repeating)
    void early.field('title')
    expect(await rejectionOf(early.final())).toMatchObject({ code: 'invalid_json' })
    const late = run(repeating)
    await late.final()
    expect(await rejectionOf(late.field('title'))).toMatchObject({ code: 'invalid_json' })
  })
})

describe('an accumulator without the client', () => {
  const push = (accumulator: ToolStreamAccumulator, events: readonly StreamEvent[]) =>
    events.flatMap((event) => accumulator.push(event))

  test('reads the text where it is told to', () => {
    const registry = new FieldExtractorRegistry([{ field: 'title', path: 'title' }])
    const accumulator = new ToolStreamAccumulator({ fields: registry, output: 'required' })
    expect(push(accumulator, [start, text('{"title":"a')])).toMatchObject([{ type: 'field-delta', delta: 'a' }])
    expect(accumulator.output).toBeUndefined()
    expect(accumulator.snapshot().output).toEqual({ title: 'a' })
    expect(push(accumulator, [text('"}'), finish('stop')])).toMatchObject([{ type: 'field-end', value: 'a' }])
    expect(accumulator.isComplete).toBe(true)
    expect(accumulator.output).toEqual({ title: 'a' })
    const plain = new ToolStreamAccumulator({ fields: registry })
    expect(push(plain, written(['{"title":"a"}']))).toEqual([])
    expect(plain.output).toBeUndefined()
  })
})

describe('what cannot be an output is refused', () => {
  test.each<[unknown, string]>([
    ['report', 'The `schema` of the output must be a Standard Schema'],
    [null, 'The `schema` of the output must be a Standard Schema'],
    [z.array(z.string()), 'must describe an object'],
    [{ type: 'array' }, 'must describe an object'],
    [z.object({ date: z.date() }), 'holds something JSON Schema cannot say'],
  ])('%#', (output, message) => {
    expect(String(thrownBy(() => streamOf([], { output: output as never })))).toContain(message)
  })

  test('by its details', () => {
    expect(String(thrownBy(() => outputFormat({ name: 'a b', schema: report })))).toContain('1 to 64 letters')
    expect(String(thrownBy(() => outputFormat({ schema: report, title: 'x' } as never)))).toContain('no option `title`')
    expect(String(thrownBy(() => outputFormat({ schema: report, validate: 1 } as never)))).toContain(
      'must be a function',
    )
    expect(String(thrownBy(() => new ToolStreamAccumulator({ output: true as never })))).toContain("'required' or")
  })

  test('and a path that it does not have', () => {
    const complaint = (request: Partial<StreamRequest>) => String(thrownBy(() => streamOf([], request)))
    expect(complaint({ output: report, fields: { x: 'titel' } })).toContain(
      'The path "titel" cannot exist in the output (title, sections).',
    )
    expect(complaint({ output: report, tools: [answer], fields: { x: 'titel' } })).toContain(
      'cannot exist in the arguments of "answer" (title) or the output (title, sections).',
    )
    expect(complaint({ output: report, fields: { x: { path: 'title', tool: 'answer' } } })).toContain(
      'is for the tool "answer", which the request does not have',
    )
    expect(String(thrownBy(() => streamOf([], { output: report }).field('titel')))).toContain('cannot exist')
  })
})

function textOf(events: readonly ResponseEvent[]): string {
  return events.map((event) => (event.type === 'text-delta' ? event.delta : '')).join('')
}
