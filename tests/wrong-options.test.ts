import { describe, expect, test } from 'vitest'
import Anthropic from '@anthropic-ai/sdk'
import {
  askMessages,
  FieldExtractorRegistry,
  simpleResponses,
  StreamingLLMClient,
  ToolStreamAccumulator,
  tool,
  UsageError,
} from 'fieldstream'
import { anthropic, type WireLimits } from 'fieldstream/anthropic'
import { gemini } from 'fieldstream/gemini'
import { ollama } from 'fieldstream/ollama'
import { openai, openaiChat } from 'fieldstream/openai'
import { replayFetch, simulate } from 'fieldstream/testing'
import { z } from 'zod'
import { scriptedProvider, streamOf } from './support.ts'

/** What a caller without types is told. */
function complaint(call: (wrong: never) => unknown, wrong: unknown): string {
  try {
    call(wrong as never)
  } catch (error) {
    expect(error).toBeInstanceOf(UsageError)
    return (error as UsageError).message
  }
  throw new Error('nothing was thrown')
}

const request = (wrong: object): string =>
  complaint((value) => streamOf([], value), { messages: [{ role: 'user', content: 'Hello' }], ...wrong })

describe('an option nobody would read is refused, with those there are', () => {
  test.each<[string, (wrong: never) => unknown, unknown, string]>([
    [
      'anthropic()',
      anthropic,
      { model: 'x', baseUrl: 'http://localhost' },
      'no option `baseUrl`. Its options: model, client, apiKey, baseURL',
    ],
    ['anthropic() without options', anthropic, undefined, 'takes an object of options: model'],
    ['openai() without options', openai, undefined, 'takes an object of options: model'],
    ['openaiChat() without options', openaiChat, undefined, 'takes an object of options: model'],
    [
      'the client',
      (options) => new StreamingLLMClient(options),
      { provider: scriptedProvider([]), timeout: 5 },
      'no option `timeout`',
    ],
    [
      'the client’s limits',
      (options) => new StreamingLLMClient(options),
      { provider: scriptedProvider([]), limits: { maxDeph: 3 } },
      'no option `maxDeph`',
    ],
    ['tool() with a schema elsewhere', tool, { name: 't', parameters: z.object({}) }, 'goes into `input`'],
    ['tool() without options', tool, undefined, 'takes an object of options: name'],
    [
      'an extractor',
      (extractor) => new FieldExtractorRegistry([extractor]),
      { field: 'x', path: 'x', delivery: 'complete' },
      'no option `delivery`',
    ],
    ['the accumulator', (options) => new ToolStreamAccumulator(options), { field: [] }, 'no option `field`'],
    ['replayFetch()', (options) => replayFetch('x', options), { chunk: 5 }, 'no option `chunk`'],
    ['simulate()', (options) => simulate('x', options), { delay: 5 }, 'no option `delay`'],
  ])('%s', (_, call, wrong, expected) => {
    expect(complaint(call, wrong)).toContain(expected)
  })
})

describe('the options of run()', () => {
  const client = new StreamingLLMClient({ provider: scriptedProvider([]) })
  const messages = [{ role: 'user', content: 'Hello' }] as const
  test.each([
    ['stream()', (wrong: never) => client.stream(wrong)],
    ['run()', (wrong: never) => client.run(wrong)],
  ])('a wrong option of %s is refused with those there are', (name, call) => {
    const message = complaint(call, { messages, maxStep: 3 })
    expect(message).toContain('no option `maxStep`. Its options: messages, system')
    expect(message.includes('maxSteps, stopWhen, toolConcurrency, onToolApproval, onToolError')).toBe(name === 'run()')
  })

  test('belong to run()', async () => {
    const wrong = { messages, maxSteps: 3 } as never
    const expected = '`maxSteps` is an option of run(), which runs tools: client.run({ maxSteps: … }).'
    expect(complaint((value) => client.stream(value), wrong)).toBe(expected)
    await expect(client.generate(wrong)).rejects.toMatchObject({ code: 'invalid_argument', message: expected })
  })

  test.each([undefined, null, 5])('are not looked for in %s', (wrong) => {
    expect(complaint((value) => client.stream(value), wrong)).toContain('A request takes an object of options')
    expect(complaint((value) => client.run(value), wrong)).toMatch(/A request takes|`messages` must hold/)
  })
})

describe('an option of the wrong kind is refused before anything is sent', () => {
  test.each<[string, (wrong: never) => unknown, unknown, string]>([
    ['client', (client) => anthropic({ model: 'x', client }), {}, 'must be an SDK client'],
    ['maxTokens', (maxTokens) => anthropic({ model: 'x', maxTokens }), -1, 'positive whole number'],
    ['inputSchema alone', tool, { name: 't', inputSchema: { type: 'object' } }, 'A schema alone goes into `input`'],
    ['validate', tool, { name: 't', validate: true }, '`validate` of tool "t" must be a function'],
    ['members without a schema around them', tool, { name: 't', input: { a: z.string() } }, 'z.object({ a: … })'],
    ['a union', tool, { name: 't', input: { anyOf: [], type: 'array' } }, 'Wrap anything else'],
    ['extractors', (extractors) => new FieldExtractorRegistry(extractors), { x: 'a' }, 'takes a list of extractors'],
    [
      'map',
      (map) => new FieldExtractorRegistry([{ field: 'x', path: 'x', map }]),
      'up',
      '`map` of field "x" must be a function',
    ],
    [
      'schema',
      (schema) => new FieldExtractorRegistry([{ field: 'x', path: 'x', schema }]),
      null,
      'must be a Standard Schema',
    ],
    [
      'fields of the accumulator',
      (fields) => new ToolStreamAccumulator({ fields }),
      [askMessages],
      'must be a FieldExtractorRegistry',
    ],
    [
      'limits',
      (limits) => new ToolStreamAccumulator({ limits }),
      { maxDepth: -1 },
      '`maxDepth` in `limits` must be a positive number',
    ],
    [
      'onError',
      (onError) => new StreamingLLMClient({ provider: scriptedProvider([]), onError }),
      'x',
      '`onError` must be a function',
    ],
    ['finishReason', (finishReason) => simulate('x', { finishReason }), 'zz', '`finishReason` of simulate()'],
    ['provider', (provider) => simulate('x', { provider }), 'mistral', '`provider` of simulate()'],
    ['a payload', simulate, undefined, 'simulate() takes an object'],
    ['delayMs', (delayMs) => simulate('x', { delayMs }), -1, '`delayMs` of simulate() must be a number from 0'],
    ['deltaChars', (deltaChars) => simulate('x', { deltaChars }), '8', '`deltaChars` of simulate() must be a whole'],
    ['a source', replayFetch, undefined, 'replayFetch() takes a body'],
    ['a source of a list', replayFetch, ['x', { status: 200 }], 'replayFetch() takes a body'],
    ['chunks', (chunks) => replayFetch('x', { chunks }), 0, '`chunks` of replayFetch() must be a whole number from 1'],
    ['sizes', (chunks) => replayFetch('x', { chunks }), [3, 1.5], '`chunks` of replayFetch()'],
    ['thinkTag', (thinkTag) => ollama({ model: 'x', thinkTag }), 'x', "must be 'opened' or 'unopened'"],
    ['name', (name) => openaiChat({ model: 'x', name }), '', "must be the service's name"],
    ['role', (systemRole) => openai({ model: 'x', systemRole }), 'user', "must be 'developer' or 'system'"],
    ['event', (type) => streamOf([]).on(type, () => undefined), 'text_delta', 'takes an event (start, text-delta'],
    ['listener', (listener) => streamOf([]).on('text-delta', listener), undefined, 'and a function'],
  ])('%s', (_, call, wrong, expected) => {
    expect(complaint(call, wrong)).toContain(expected)
  })

  test.each([
    [{ reasoning: 'high' }, '`reasoning` must be { effort'],
    [{ stop: 'END' }, '`stop` must be a list'],
    [{ temperature: 'hot' }, '`temperature` must be a number'],
    [{ system: ['x'] }, '`system` must be a string'],
    [{ fields: { x: null } }, 'Field "x" must be a path'],
    [{ fields: { x: {} } }, 'Field "x" needs a `path`'],
    [{ messages: [{ role: 'system', content: 'x' }] }, 'add a user message'],
    [{ output: { a: z.string() } }, 'Wrap the members in one, e.g. z.object({ a: … })'],
    [{ output: { schema: z.object({}) } }, 'or outputFormat({ schema })'],
    [{ toolChoice: 't', tools: [tool({ name: 't' })] }, '(t): the tool itself, or { name }'],
  ])('%j in a request', (wrong, expected) => {
    expect(request(wrong)).toContain(expected)
  })
})

describe('content that no provider would be sent is refused', () => {
  test.each([
    [
      'user',
      { type: 'image_url', image_url: 'x' },
      "has the type 'image_url'; a user message takes 'text', 'image', 'provider'",
    ],
    ['user', null, 'has no type'],
    ['user', { type: 'image', image: 'x' }, 'must have the form { data, mediaType } or { url }'],
    ['user', { type: 'text' }, 'must have the form { text }'],
    ['assistant', { type: 'tool_use', id: '1' }, "has the type 'tool_use'"],
    ['assistant', { type: 'tool-call' }, 'must have the form { toolCallId, toolName, input }'],
    ['tool', { type: 'text', text: 'x' }, "a tool message takes 'tool-result'"],
    ['user', { type: 'constructor' }, "has the type 'constructor'"],
  ])('in a message of the %s: %j', (role, part, expected) => {
    expect(request({ messages: [{ role, content: [part] }] })).toContain(`messages[0].content[0]`)
    expect(request({ messages: [{ role, content: [part] }] })).toContain(expected)
  })
})

test('a registry that serves several tools may be given to a request for one of them', () => {
  const asks = tool({ name: 'ask', input: z.object({ ask_slots: z.array(z.object({ message: z.string() })) }) })
  const fields = new FieldExtractorRegistry([askMessages, simpleResponses])
  expect(() => streamOf([], { tools: [asks], fields })).not.toThrow()
  expect(() => streamOf([], { tools: [asks], fields: { x: 'simple_response.message' } })).toThrow('cannot exist')
})

test('a reference with a character that should have been encoded leads where it can only mean', () => {
  const $defs = { '100%': { type: 'object', properties: { a: {} } } }
  const share = tool({ name: 'share', input: { properties: { part: { $ref: '#/$defs/100%' } }, $defs } })
  expect(() => streamOf([], { tools: [share], fields: { x: 'part.a' } })).not.toThrow()
  expect(() => streamOf([], { tools: [share], fields: { x: 'part.b' } })).toThrow('cannot exist')
})

test('the keys of a record, which are the model’s words, stay out of the message', async () => {
  const record = tool({ name: 'record', input: z.object({ prices: z.record(z.string(), z.number()) }) })
  const provider = anthropic({ model: 'x', fetch: replayFetch(simulate({ prices: { 'card 4111': 'x' } })) })
  const failure = await new StreamingLLMClient({ provider })
    .stream({ messages: [{ role: 'user', content: 'Hello' }], tools: [record] })
    .final()
    .catch((error: unknown) => error)
  expect((failure as Error).message).toContain('at: prices.*. See')
  expect(failure).toMatchObject({ code: 'schema_mismatch', issues: [{ path: 'prices.card 4111' }] })
})

describe('a key on the way to a field that the model repeats', () => {
  const run = (fields?: Record<string, string>) => {
    const provider = anthropic({ model: 'x', fetch: replayFetch(simulate('{"x":"one","x":"two"}', { tool: 't' })) })
    const client = new StreamingLLMClient({ provider })
    return client.stream({
      messages: [{ role: 'user', content: 'Hello' }],
      tools: [tool({ name: 't' })],
      ...(fields && { fields }),
    })
  }

  test('ends the run where a field reads it, since what was shown cannot be taken back', async () => {
    await expect(run({ x: 'x' }).final()).rejects.toMatchObject({
      code: 'invalid_json',
      message: 'The arguments of tool "t" are ambiguous at character 13: a key on the way to a field is repeated',
    })
  })

  test('ends the run where field() reads it, in time or late', async () => {
    const early = run()
    expect(await early.field('x')).toBe('one')
    await expect(early.final()).rejects.toMatchObject({ code: 'invalid_json' })
    const late = run()
    expect((await late.final()).toolCalls[0]!.input).toEqual({ x: 'two' })
    await expect(late.field('x')).rejects.toMatchObject({ code: 'invalid_json' })
  })
})

test('a stream that breaks inside arguments says where', async () => {
  const [whole] = [
    simulate(
      { message: 'Hello there' },
      { tool: 't', deltaChars: 4 },
    )({ url: '', method: 'POST', headers: new Headers(), body: { stream: true } }),
  ]
  const body = (whole.body as string).slice(0, (whole.body as string).indexOf('event: content_block_stop'))
  const stream = new StreamingLLMClient({ provider: anthropic({ model: 'x', fetch: replayFetch(body) }) }).stream({
    messages: [{ role: 'user', content: 'Hello' }],
  })
  await expect(stream.final()).rejects.toMatchObject({
    code: 'stream_truncated',
    toolName: 't',
    toolCallId: 'toolu_simulated_1',
    position: 25,
  })
})

test('what a field’s schema found is on its event, and in the error of a run that stops for it', async () => {
  const fields = { price: { path: 'price', schema: z.number().positive('must cost something') } }
  const run = (onInvalid: 'abort' | 'continue') => {
    const provider = anthropic({ model: 'x', fetch: replayFetch(simulate({ price: -1 }, { tool: 't' })) })
    return new StreamingLLMClient({ provider }).stream({
      messages: [{ role: 'user', content: 'Hello' }],
      fields,
      onInvalid,
    })
  }
  const ends = []
  for await (const event of run('continue')) if (event.type === 'field-end') ends.push(event)
  expect(ends).toMatchObject([{ valid: false, value: -1, issues: [{ path: '', message: 'must cost something' }] }])
  await expect(run('abort').final()).rejects.toMatchObject({
    issues: [{ path: 'price', message: 'must cost something' }],
  })
})

test('to cancel is no failure to report, and the error says what ran out', async () => {
  const reported: unknown[] = []
  const provider = scriptedProvider(async function* () {
    await new Promise(() => undefined)
    yield []
  })
  const stream = streamOf(provider, { signal: AbortSignal.timeout(5) }, { onError: (error) => reported.push(error) })
  await expect(stream.final()).rejects.toThrow('The run was aborted (TimeoutError)')
  expect(reported).toEqual([])
})

test('a replay that runs out of recordings says so, through the SDK', async () => {
  const provider = anthropic({
    model: 'x',
    client: new Anthropic({ apiKey: 'k', fetch: replayFetch([simulate('Hello')]) }),
  })
  const client = new StreamingLLMClient({ provider })
  const messages = [{ role: 'user', content: 'Hello' }] as const
  await client.stream({ messages }).final()
  await expect(client.stream({ messages }).final()).rejects.toThrow('replayFetch has 1 recordings and got request 2')
})

test.each([anthropic, openai, openaiChat, ollama, gemini])('every limit of the wire can be set: %o', (create) => {
  const limits: Required<WireLimits> = { maxEventLength: 1000, maxStrayLines: 10 }
  expect(create({ model: 'x', apiKey: 'none', limits }).model).toBe('x')
})
