import {
  FieldExtractorRegistry,
  isLLMError,
  type LLMError,
  type ResponseEvent,
  StreamingLLMClient,
  type StreamAccumulator,
  type StreamRequest,
  tool,
  ToolStreamAccumulator,
  UsageError,
} from 'fieldstream'
import { toStandardJsonSchema } from '@valibot/to-json-schema'
import * as v from 'valibot'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { call, collect, finish, rejectionOf, scriptedProvider, start, streamOf, thrownBy } from './support.ts'

const messages = [{ role: 'user', content: 'Hello' }] as const
const classify = tool({ name: 'classify', input: z.object({ route: z.enum(['product', 'support']) }) })

/** Checks that a call is refused before anything is sent, and returns what its author is told. */
function complaintOf(action: () => unknown): string {
  const error = thrownBy(action) as LLMError
  expect(error).toBeInstanceOf(UsageError)
  expect(error).toMatchObject({ code: 'invalid_argument', retryable: false })
  expect(error.message).toMatch(/\.$/)
  return error.message
}

describe('a client', () => {
  test.each([
    ['nothing', undefined],
    ['no provider', {}],
    ['a name as provider', { provider: 'anthropic' }],
    ['a function as provider', { provider: () => undefined }],
  ])('made with %s is told what a provider looks like', (_, options) => {
    expect(complaintOf(() => new StreamingLLMClient(options as never))).toContain('`provider`, e.g.')
  })

  test.each([[['title']], ['title'], [7]])('made with %j as fields is told what fields look like', (fields) => {
    const complaint = complaintOf(
      () => new StreamingLLMClient({ provider: scriptedProvider([]), fields: fields as never }),
    )
    expect(complaint).toContain('maps names to paths')
  })

  test('made with a malformed path is told where it is malformed', () => {
    const complaint = complaintOf(
      () => new StreamingLLMClient({ provider: scriptedProvider([]), fields: { title: 'cards[.title' } }),
    )
    expect(complaint).toContain('"cards[.title"')
    expect(complaint).toMatch(/character \d+/)
  })

  test('made with middleware that is no list is told so', () => {
    const complaint = complaintOf(
      () => new StreamingLLMClient({ provider: scriptedProvider([]), middleware: (() => undefined) as never }),
    )
    expect(complaint).toContain('`middleware`')
  })
})

describe('a request', () => {
  const complaint = (request: unknown): string => {
    const provider = scriptedProvider([])
    const client = new StreamingLLMClient({ provider })
    const message = complaintOf(() => client.stream(request as StreamRequest))
    expect(provider.requests).toEqual([])
    return message
  }

  test.each([
    [undefined, 'A request takes an object of options'],
    [null, 'A request takes an object of options'],
    ['Hello', 'A request takes an object of options'],
    [{}, '`messages` must hold at least one message'],
    [{ messages: [] }, '`messages` must hold at least one message'],
    [{ messages: 'Hello' }, '`messages` must hold at least one message'],
    [{ messages: [{ role: 'human', content: 'Hello' }] }, "`role` of messages[0] must be 'system'"],
    [{ messages: [...messages, undefined] }, '`role` of messages[1]'],
    [{ messages: [{ role: 'user' }] }, '`content` of messages[0] must be a string or a list'],
    [{ messages: [{ role: 'user', content: { text: 'Hello' } }] }, '`content` of messages[0]'],
    [{ messages: [{ role: 'tool', content: '42' }] }, 'list of `tool-result` parts'],
    [{ messages, prompt: 'Hello' }, 'A request has no option `prompt`. Its options: messages, system'],
    [{ messages, max_tokens: 5 }, 'What only one provider knows goes into `providerOptions`'],
    [{ messages, tools: classify }, '`tools` must be a list'],
    [{ messages, tools: [null] }, 'must be made with tool()'],
    [{ messages, tools: [{ name: 'x', input_schema: {} }] }, 'must be made with tool()'],
    [{ messages, tools: [classify, classify] }, 'Two tools have the name "classify"'],
    [
      { messages, toolChoice: 'any' },
      "'auto', 'none', 'required' or one of the request's tools, of which there are none",
    ],
    [{ messages, tools: [classify], toolChoice: { name: 'other' } }, "one of the request's tools (classify)"],
    [{ messages, tools: [classify], toolChoice: 'classify' }, "one of the request's tools (classify)"],
    [{ messages, tools: [classify], toolChoice: null }, "one of the request's tools (classify)"],
    [{ messages, toolChoice: 'required' }, "`toolChoice: 'required'` needs `tools`"],
    [{ messages, maxTokens: 0 }, '`maxTokens` must be a positive whole number'],
    [{ messages, maxTokens: 1.5 }, '`maxTokens`'],
    [{ messages, maxTokens: NaN }, '`maxTokens`'],
    [{ messages, maxTokens: '100' }, '`maxTokens`'],
    [{ messages, onInvalid: 'stop' }, "`onInvalid` must be 'continue' or 'abort'"],
    [{ messages, signal: new AbortController() }, '`signal` must be an AbortSignal'],
    [{ messages, providerOptions: { top_k: 5 } }, '{ scripted: { top_k: … } }'],
    [{ messages, fields: ['route'] }, 'maps names to paths'],
    [{ messages, fields: { route: 'route..x' } }, 'Invalid field path "route..x" at character'],
    [{ messages, fields: { '': 'route' } }, 'needs a `field`'],
    [
      { messages, fields: { route: { path: 'route', deliver: 'late' } } },
      "`deliver` of field \"route\" is 'delta' or 'complete'",
    ],
    [
      { messages, fields: { route: { path: 'route', schema: {} } } },
      '`schema` of field "route" must be a Standard Schema',
    ],
    [{ messages, fields: { route: { path: 'route', map: String, deliver: 'delta' } } }, 'cannot have both'],
    [
      { messages, tools: [classify], fields: { rout: 'rout' } },
      'The path "rout" cannot exist in the arguments of "classify" (route)',
    ],
    [
      { messages, tools: [classify], fields: { route: { path: 'route', tool: 'other' } } },
      'for the tool "other", which the request does not have',
    ],
  ])('%j is refused, and its author told what to change', (request, words) => {
    expect(complaint(request)).toContain(words)
  })

  test("goes to the provider as it is, without what is the client's own", async () => {
    const provider = scriptedProvider([[start, finish('stop')]])
    const client = new StreamingLLMClient({ provider })
    const request = {
      messages,
      system: 'Be brief.',
      tools: [classify],
      toolChoice: 'auto',
      maxTokens: 100,
      temperature: 0.5,
      topP: 0.9,
      stop: ['END'],
      reasoning: { effort: 'low' },
      providerOptions: { scripted: { top_k: 5 } },
      raw: true,
    } as const
    await client
      .stream({ ...request, fields: { route: 'route' }, onInvalid: 'abort', signal: new AbortController().signal })
      .final()
    expect(provider.requests).toEqual([request])
  })

  test('is sent once, however its answer is read', async () => {
    const provider = scriptedProvider([[start, ...call('1', '{"route":"product"}', 'classify'), finish()]])
    const stream = streamOf(provider, { tools: [classify] })
    stream.on('tool-call', () => undefined)
    await Promise.all([collect(stream), stream.final(), stream.field('route')])
    expect(provider.requests).toHaveLength(1)
  })
})

describe('fields', () => {
  const script = [[start, ...call('1', '{"title":"a","body":"b"}'), finish()]]
  const any = tool({ name: 'answer' })
  const ended = async (stream: AsyncIterable<unknown>): Promise<unknown[]> =>
    ((await collect(stream)) as ResponseEvent[]).flatMap((event) => (event.type === 'field-end' ? [event.field] : []))

  test('of a client serve requests that name none; those of a request stand in their place', async () => {
    const client = new StreamingLLMClient({ provider: scriptedProvider(script), fields: { title: 'title' } })
    expect(await ended(client.stream({ messages, tools: [any] }))).toEqual(['title'])
    expect(await ended(client.stream({ messages, tools: [any], fields: { text: 'body' } }))).toEqual(['text'])
    expect(await ended(client.stream({ messages, tools: [any], fields: {} }))).toEqual([])
  })

  test('of a client need not be in the tools of every request', async () => {
    const client = new StreamingLLMClient({
      provider: scriptedProvider([[start, finish('stop')]]),
      fields: { title: 'title' },
    })
    await client.stream({ messages, tools: [classify] }).final()
  })

  test('may be a registry, of the client or of a request', async () => {
    const registry = new FieldExtractorRegistry([
      { field: 'text', path: 'title' },
      { field: 'text', path: 'body' },
    ])
    const provider = scriptedProvider(script)
    expect(
      await ended(new StreamingLLMClient({ provider, fields: registry }).stream({ messages, tools: [any] })),
    ).toEqual(['text', 'text'])
    expect(
      await ended(new StreamingLLMClient({ provider }).stream({ messages, tools: [any], fields: registry })),
    ).toEqual(['text', 'text'])
  })

  test('are read of a tool alone where they name it', async () => {
    const other = tool({ name: 'other' })
    const both = [[start, ...call('1', '{"title":"a"}'), ...call('2', '{"title":"b"}', 'other'), finish()]]
    const stream = streamOf(both, { tools: [any, other], fields: { title: { path: 'title', tool: 'other' } } })
    const ends = (await collect(stream)).filter(({ type }) => type === 'field-end')
    expect(ends).toMatchObject([{ value: 'b', toolName: 'other' }])
  })
})

describe('a path', () => {
  const accepts = (input: object, path: string): boolean => {
    const one = tool({ name: 'one', input: input as never })
    const error = thrownBy(() => streamOf([], { tools: [one], fields: { field: path } }))
    if (error !== undefined) expect(isLLMError(error) && error.message).toContain(`The path "${path}" cannot exist`)
    return error === undefined
  }

  const zod = z.object({
    name: z.string(),
    maybe: z.object({ inner: z.string() }).optional(),
    nothing: z.object({ inner: z.string() }).nullable(),
    list: z.array(z.object({ message: z.string(), options: z.array(z.string()) })),
    either: z.union([z.object({ left: z.string() }), z.object({ right: z.array(z.number()) })]),
    kind: z.discriminatedUnion('type', [
      z.object({ type: z.literal('a'), a: z.string() }),
      z.object({ type: z.literal('b'), b: z.string() }),
    ]),
    both: z.intersection(z.object({ one: z.string() }), z.object({ two: z.string() })),
    record: z.record(z.string(), z.object({ value: z.number() })),
    pair: z.tuple([z.string(), z.object({ second: z.string() })]),
    loose: z.looseObject({ known: z.string() }),
    anything: z.unknown(),
    part_1: z.string(),
    part_2: z.object({ text: z.string() }),
  })

  test.each([
    'name',
    'maybe.inner',
    'nothing.inner',
    'list',
    'list[0]',
    'list[*].message',
    'list[{n}].options[3]',
    'either.left',
    'either.right[*]',
    'kind.type',
    'kind.a',
    'kind.b',
    'both.one',
    'both.two',
    'record.any',
    'record["any key"].value',
    'record.*.value',
    'pair[0]',
    'pair[1].second',
    'pair[*].second',
    'loose.known',
    'loose.unknown.deep',
    'anything.at[0].all',
    '*',
    'part_{n}',
    'part_{n}.text',
    '*.inner',
  ])('that the schema allows is accepted: %s', (path) => {
    expect(accepts(zod, path)).toBe(true)
  })

  test.each([
    'nam',
    'name.x',
    'name[0]',
    'maybe.x',
    'list.message',
    'list[*].mesage',
    'list[*][0]',
    'list[0].options.x',
    'either.middle',
    'kind.c',
    'both.three',
    'record.any.other',
    'record.any.value.x',
    'pair[0].second',
    'pair[1].third',
    'part_{n}.txt',
    'summary_{n}',
  ])('that the schema cannot have is refused: %s', (path) => {
    expect(accepts(zod, path)).toBe(false)
  })

  test('is followed through references, also of a schema that holds itself', () => {
    const tree = {
      type: 'object',
      properties: {
        root: { $ref: '#/$defs/node' },
        slash: { $ref: '#/$defs/a~1b' },
        outside: { $ref: 'https://example.com' },
      },
      additionalProperties: false,
      $defs: {
        node: {
          type: 'object',
          properties: { text: { type: 'string' }, children: { type: 'array', items: { $ref: '#/$defs/node' } } },
        },
        'a/b': { type: 'object', properties: { deep: {} } },
      },
    }
    expect(accepts(tree, `root${'.children[*]'.repeat(80)}.text`)).toBe(true)
    expect(accepts(tree, 'root.children[0].children[1].txt')).toBe(false)
    expect(accepts(tree, 'slash.deep')).toBe(true)
    expect(accepts(tree, 'slash.shallow')).toBe(false)
    expect(accepts(tree, 'outside.any')).toBe(true)
  })

  test('is refused in a schema that only refers to itself no more than in one that says nothing', () => {
    const loop = {
      type: 'object',
      properties: { a: { $ref: '#/$defs/a' } },
      $defs: { a: { anyOf: [{ $ref: '#/$defs/a' }, { $ref: '#/$defs/a' }] } },
    }
    expect(accepts(loop, 'a.b.c')).toBe(true)
  })

  test.each([
    [
      'beside a union',
      { properties: { a: {} }, anyOf: [{ properties: { b: {} } }, { required: ['a'] }] },
      ['a', 'b'],
      [],
    ],
    [
      'in every part of a combination',
      { allOf: [{ properties: { a: {} } }, { properties: { b: {} } }] },
      ['a', 'b'],
      ['c'],
    ],
    [
      'beside a reference',
      { $ref: '#/$defs/x', properties: { a: {} }, $defs: { x: { properties: { b: {} } } } },
      ['a', 'b'],
      ['c'],
    ],
    [
      'behind a condition',
      { properties: { a: {} }, if: {}, then: { properties: { b: {} } }, else: { properties: { c: {} } } },
      ['a', 'b', 'c'],
      ['d'],
    ],
    ['by a pattern', { properties: { a: { type: 'string' } }, patternProperties: { '^x': {} } }, ['a', 'xb'], []],
    ['where nothing is listed', { properties: {} }, ['a', 'a[0].b'], []],
    ['where everything is allowed', { properties: { a: {} }, additionalProperties: true }, ['a', 'b.c'], []],
    [
      'of one shape',
      { properties: { a: {} }, additionalProperties: { type: 'object', properties: { x: {} } } },
      ['a', 'b.x'],
      ['b.y'],
    ],
    [
      'of a closed list',
      { properties: { a: { type: 'array', prefixItems: [{}, {}], items: false } } },
      ['a[0]', 'a[1]', 'a[*]'],
      ['a[2]'],
    ],
    [
      'of several types',
      { properties: { a: { type: ['array', 'null'], items: { type: 'string' } } } },
      ['a[0]'],
      ['a.b', 'a[0].b'],
    ],
    ['that can never be', { properties: { a: false } }, [], ['a', 'a.b']],
  ])('%s is judged by the whole schema', (_, schema, accepted, refused) => {
    expect(accepted.filter((path) => !accepts(schema, path))).toEqual([])
    expect(refused.filter((path) => accepts(schema, path))).toEqual([])
  })

  test('need be in one of the tools only', () => {
    const other = tool({ name: 'other', input: z.object({ b: z.string() }) })
    const tools = [classify, other]
    expect(thrownBy(() => streamOf([], { tools, fields: { route: 'route', b: 'b' } }))).toBeUndefined()
    expect(complaintOf(() => streamOf([], { tools, fields: { c: 'c' } }))).toContain(
      '"classify" (route) or "other" (b)',
    )
    expect(complaintOf(() => streamOf([], { tools, fields: { b: { path: 'b', tool: 'classify' } } }))).toContain(
      '"classify" (route)',
    )
  })

  test('given to field() is checked in the same way', () => {
    const stream = streamOf([], { tools: [classify] })
    expect(complaintOf(() => stream.field('rout'))).toContain('The path "rout" cannot exist')
    expect(complaintOf(() => stream.field('route.'))).toContain('a key is missing')
  })
})

describe('tool()', () => {
  test.each(['', 'two words', 'ä', 'a.b', 'x'.repeat(65), undefined, 7])('refuses the name %j', (name) => {
    expect(complaintOf(() => tool({ name: name as string }))).toContain('1 to 64 letters, digits')
  })

  test.each(['a', 'classify_and_assess', 'A-1', 'x'.repeat(64)])('takes the name %j', (name) => {
    expect(tool({ name }).name).toBe(name)
  })

  test.each([['string'], [7], [null], [[{ type: 'object' }]], [() => ({})]])('refuses %j as input', (input) => {
    expect(complaintOf(() => tool({ name: 'x', input: input as never }))).toContain('must be a Standard Schema')
  })

  test.each([z.string(), z.array(z.object({})), { type: 'array' }])('refuses an input that is no object', (input) => {
    expect(complaintOf(() => tool({ name: 'x', input: input as never }))).toContain('must describe an object')
  })

  test('refuses a schema that cannot describe itself, and takes it with a JSON Schema beside it', async () => {
    const zod3 = {
      '~standard': {
        version: 1 as const,
        vendor: 'zod',
        validate: (value: unknown) =>
          typeof (value as { a?: unknown }).a === 'string' ? { value } : { issues: [{ message: 'no', path: ['a'] }] },
      },
    }
    const complaint = complaintOf(() => tool({ name: 'x', input: zod3 }))
    expect(complaint).toContain('"x" (zod) cannot describe itself as JSON Schema')
    expect(complaint).toContain('`inputSchema`')

    const inputSchema = { type: 'object', properties: { a: { type: 'string' } } }
    const described = tool({ name: 'x', input: zod3, inputSchema })
    expect(described.inputSchema).toEqual(inputSchema)
    const script = [[start, ...call('1', '{"a":1}', 'x'), finish()]]
    expect(await rejectionOf(streamOf(script, { tools: [described] }).final())).toMatchObject({
      code: 'schema_mismatch',
    })
  })

  test('refuses a schema that JSON Schema cannot express', () => {
    const complaint = complaintOf(() => tool({ name: 'x', input: z.object({ at: z.date() }) }))
    expect(complaint).toContain('holds something JSON Schema cannot say')
    expect(thrownBy(() => tool({ name: 'x', input: z.object({ at: z.date() }) }))).toMatchObject({
      cause: expect.any(Error) as Error,
    })
  })

  const answers = (json: string) => [[start, ...call('1', json, 'x'), finish()]]

  test.each([
    ['zod', z.object({ n: z.string().transform(Number), all: z.boolean().default(true) })],
    [
      'valibot',
      toStandardJsonSchema(
        v.object({ n: v.pipe(v.string(), v.transform(Number)), all: v.optional(v.boolean(), true) }),
      ),
    ],
  ])('takes a schema of %s: sends what goes in, gives what comes out', async (_, input) => {
    const one = tool({ name: 'x', input })
    expect(one.inputSchema).toMatchObject({ type: 'object', properties: { n: { type: 'string' } } })
    expect(one.inputSchema).not.toHaveProperty('$schema')
    expect(one.inputSchema['required']).toEqual(['n'])
    const response = await streamOf(answers('{"n":"42"}'), { tools: [one] }).final()
    expect(response.toolCalls[0]!.input).toEqual({ n: 42, all: true })
    const error = await rejectionOf(streamOf(answers('{"n":42}'), { tools: [one] }).final())
    expect(error).toMatchObject({ code: 'schema_mismatch', issues: [{ path: 'n' }] })
    expect(complaintOf(() => streamOf([], { tools: [one], fields: { m: 'm' } }))).toContain('cannot exist')
  })

  test('takes a plain JSON Schema, which is sent and not checked', async () => {
    const one = tool({ name: 'x', input: { properties: { n: { type: 'number' } }, required: ['n'] } })
    expect(one.inputSchema).toEqual({ type: 'object', properties: { n: { type: 'number' } }, required: ['n'] })
    expect((await streamOf(answers('{"n":"no"}'), { tools: [one] }).final()).toolCalls[0]!.input).toEqual({ n: 'no' })
  })

  test('checks with `validate` what a plain JSON Schema cannot', async () => {
    const one = tool({
      name: 'x',
      input: { properties: { n: { type: 'number' } } },
      validate: (input) =>
        typeof (input as { n?: unknown }).n === 'number'
          ? { value: { doubled: 2 * (input as { n: number }).n } }
          : { issues: [{ message: 'n is no number', path: ['n'] }] },
    })
    expect((await streamOf(answers('{"n":21}'), { tools: [one] }).final()).toolCalls[0]!.input).toEqual({ doubled: 42 })
    expect(await rejectionOf(streamOf(answers('{"n":"no"}'), { tools: [one] }).final())).toMatchObject({
      code: 'schema_mismatch',
      issues: [{ path: 'n', message: 'n is no number' }],
    })
  })
})

describe("an accumulator of one's own", () => {
  test('is made for each run, with the fields and limits of that run, and is what decides', async () => {
    const made: unknown[] = []
    const client = new StreamingLLMClient({
      provider: scriptedProvider([[start, ...call('1', '{"title":"chips"}'), finish()]]),
      fields: { title: 'title' },
      limits: { maxDepth: 7 },
      accumulator(options): StreamAccumulator {
        made.push({ fields: options.fields!.extractors, limits: options.limits })
        const inner = new ToolStreamAccumulator(options)
        return {
          push: (event) =>
            inner
              .push(event)
              .map((fieldEvent) =>
                fieldEvent.type === 'field-end'
                  ? { ...fieldEvent, value: 'CHIPS' }
                  : { ...fieldEvent, delta: fieldEvent.delta.toUpperCase() },
              ),
          get error() {
            return inner.error
          },
          get isComplete() {
            return inner.isComplete
          },
          get toolCalls() {
            return inner.toolCalls.map((call) => ({ ...call, input: { title: 'crisps' } }))
          },
          get output() {
            return inner.output
          },
          snapshot: () => inner.snapshot(),
        }
      },
    })
    const tools = [tool({ name: 'answer' })]
    for (const fields of [undefined, { text: 'title' }]) {
      const stream = client.stream({ messages, tools, fields: fields as { text: 'title' } })
      const events = (await collect(stream)) as ResponseEvent[]
      expect(events.filter(({ type }) => type === 'field-end')).toMatchObject([{ value: 'CHIPS' }])
      expect((await stream.final()).toolCalls[0]!.input).toEqual({ title: 'crisps' })
    }
    expect(made).toEqual([
      { fields: [{ field: 'title', path: 'title' }], limits: { maxDepth: 7 } },
      { fields: [{ field: 'text', path: 'title' }], limits: { maxDepth: 7 } },
    ])
  })
})
