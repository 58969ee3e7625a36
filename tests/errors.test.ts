import { inspect } from 'node:util'
import { runInNewContext } from 'node:vm'
import {
  AbortedError,
  ConnectionError,
  ConsumerError,
  HttpError,
  isLLMError,
  LimitError,
  LLMError,
  LLMTimeoutError,
  OutputError,
  StreamError,
  tool,
  ToolError,
  UsageError,
} from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { replayFetch } from 'fieldstream/testing'
import { describe, expect, test, vi } from 'vitest'
import { z } from 'zod'
import {
  call,
  collectUntilError,
  finish,
  input,
  inputStart,
  reasoning,
  rejectionOf,
  start,
  streamOf,
  text,
  thrownBy,
} from './support.ts'

const facts = { retryable: true, phase: 'stream', provider: 'p', model: 'm', status: 503, requestId: 'r' } as const

const oneOfEach: [string, LLMError][] = [
  ['LLMError', new LLMError('server_error', 'Message.', facts)],
  ['AbortError', new AbortedError('enough', facts)],
  ['TimeoutError', new LLMTimeoutError('timeout', 'Message.', facts)],
  ['ConnectionError', new ConnectionError('connection', 'Message.', facts)],
  ['HttpError', new HttpError('overloaded', 'Message.', facts)],
  ['StreamError', new StreamError('stream_truncated', 'Message.', facts)],
  ['OutputError', new OutputError('invalid_json', 'Message.', facts)],
  ['LimitError', new LimitError('maxDepth', 5, 'Too deep', facts)],
  ['ToolError', new ToolError('tool_not_found', 'tool', 'Message.', facts)],
  ['ConsumerError', new ConsumerError('consumer_error', 'Message.', facts)],
  ['UsageError', new UsageError('invalid_argument', 'Message.', facts)],
]

describe('an error', () => {
  test('of the call itself belongs to the request, wherever nothing else is said', () => {
    const phaseOf = (options?: { phase?: 'connect' }) => new UsageError('invalid_argument', 'Message.', options).phase
    expect([phaseOf(), phaseOf({}), phaseOf({ phase: 'connect' })]).toEqual(['request', 'request', 'connect'])
    expect(thrownBy(() => tool({ name: '' }))).toMatchObject({ phase: 'request' })
  })

  test.each(oneOfEach)('%s has its name, its place in the family and its facts', (name, error) => {
    expect(error.name).toBe(name)
    expect(error).toBeInstanceOf(Error)
    expect(error).toBeInstanceOf(LLMError)
    expect(error).toMatchObject(facts)
    expect(error.stack).toContain(`${name}: ${error.message}`)
    expect(isLLMError(error)).toBe(true)
    expect(LLMError.isInstance(error)).toBe(true)
  })

  test.each(oneOfEach)('%s is written as JSON with its facts', (name, error) => {
    expect(JSON.parse(JSON.stringify(error))).toMatchObject({
      name,
      message: error.message,
      code: error.code,
      ...facts,
    })
  })

  test("of the browser's kind is recognised as such by its name", () => {
    expect(new AbortedError('x').name).toBe(new DOMException('', 'AbortError').name)
    expect(new LLMTimeoutError('timeout', 'x').name).toBe(new DOMException('', 'TimeoutError').name)
  })

  test('is not retryable unless it says so, and has no facts it was not given', () => {
    const error = new StreamError('stream_truncated', 'Message.')
    expect(Object.keys(error).sort()).toEqual(['code', 'retryable'])
    expect(error.retryable).toBe(false)
    expect('partial' in error).toBe(false)
    expect('cause' in error).toBe(false)
  })

  test('keeps its cause', () => {
    const cause = new TypeError('fetch failed')
    expect(new ConnectionError('connection', 'Message.', { cause }).cause).toBe(cause)
  })

  test('over a limit names the option to raise', () => {
    const error = new LimitError('maxDepth', 5, 'Too deep')
    expect(error).toMatchObject({ code: 'limit_exceeded', limit: 'maxDepth', max: 5 })
    expect(error.message).toBe('Too deep: over the limit of 5. Raise `maxDepth` if this is expected.')
  })

  test('is told from foreign ones', () => {
    for (const foreign of [
      new Error('x'),
      new DOMException('x', 'AbortError'),
      { code: 'aborted' },
      'aborted',
      null,
      undefined,
      7,
    ])
      expect(isLLMError(foreign)).toBe(false)
  })

  test('is recognised across copies of the package', async () => {
    vi.resetModules()
    const copy = await import('fieldstream')
    expect(copy.LLMError).not.toBe(LLMError)
    const [ours, theirs] = [new AbortedError('x'), new copy.AbortedError('x')]
    expect(ours instanceof copy.LLMError).toBe(false)
    expect(copy.isLLMError(ours)).toBe(true)
    expect(isLLMError(theirs)).toBe(true)
    expect(LLMError.isInstance(theirs)).toBe(true)
  })

  test('of another copy of the package passes through a run as it is', async () => {
    vi.resetModules()
    const copy = await import('fieldstream')
    const theirs = new copy.HttpError('overloaded', 'Busy.', { retryable: true })
    const provider = {
      name: 'p',
      model: 'm',
      stream: () => {
        throw theirs
      },
    }
    const error = await rejectionOf(streamOf(provider).final())
    expect(error).toBe(theirs)
    expect(error).toMatchObject({ provider: 'p', model: 'm', attempt: 1, partial: { text: '', toolCalls: [] } })
  })

  test('is recognised across realms', () => {
    const foreign = runInNewContext(
      `Object.assign(new Error('x'), { [Symbol.for('fieldstream.LLMError')]: true })`,
    ) as unknown
    expect(foreign instanceof Error).toBe(false)
    expect(isLLMError(foreign)).toBe(true)
  })
})

describe('a run that fails', () => {
  test('adds to its error what it knows, and leaves what the error knew', async () => {
    const provider = {
      name: 'scripted',
      model: 'scripted-1',
      stream: () => {
        throw new HttpError('overloaded', 'Busy.', { provider: 'gateway', status: 529 })
      },
    }
    expect(await rejectionOf(streamOf(provider).final())).toMatchObject({
      provider: 'gateway',
      model: 'scripted-1',
      status: 529,
      attempt: 1,
    })
  })

  test('keeps what had arrived in `partial`, which stays as it was', async () => {
    const stream = streamOf([[start, reasoning('Hm'), text('Hel'), inputStart('1'), input('1', '{"a":"b')]], {
      tools: [tool({ name: 'answer' })],
    })
    const error = (await rejectionOf(stream.final())) as LLMError
    expect(error.partial).toEqual({
      text: 'Hel',
      reasoning: 'Hm',
      toolCalls: [{ toolCallId: '1', toolName: 'answer', inputText: '{"a":"b', input: { a: 'b' }, complete: false }],
      messages: [],
    })
    expect(error.partial).toBe(error.partial)
  })

  test('keeps the tokens counted until then', async () => {
    const usage = { inputTokens: 9, outputTokens: 1, totalTokens: 10, cacheReadTokens: 0, cacheWriteTokens: 0, raw: {} }
    const error = await rejectionOf(streamOf([[start, { type: 'usage', usage }, text('Hel')]]).final())
    expect(error).toMatchObject({ usage: { totalTokens: 10 } })
  })
})

describe('no error shows what was asked or answered', () => {
  const marker = 'PLANTED-MARKER'

  /** Everything a logger could print of an error. */
  function printed(error: unknown): string {
    const own = Object.values(error as object) as unknown[]
    return [
      inspect(error, { depth: Infinity, showHidden: false }),
      inspect(error, { depth: Infinity, compact: false }),
      JSON.stringify(error),
      JSON.stringify({ error, own }),
      String(error),
      (error as Error).stack,
      (error as Error).message,
    ].join('\n')
  }

  const answer = tool({ name: 'answer', input: z.object({ a: z.enum(['x']), b: z.literal(1).optional() }) })
  const request = {
    messages: [{ role: 'user', content: marker }],
    system: marker,
    tools: [answer, tool({ name: 'other' })],
    fields: { a: { path: 'a', schema: z.enum(['x']) } },
  } as const
  const json = JSON.stringify({ a: marker, b: marker })

  test.each([
    ['a cut answer', [start, text(marker), reasoning(marker), inputStart('1'), input('1', json)], {}],
    ['a truncated answer', [start, ...call('1', json), finish('length')], {}],
    ['a refusal', [start, text(marker), finish('refusal')], {}],
    ['malformed JSON', [start, ...call('1', `${json}${marker}`), finish()], {}],
    ['malformed JSON of a key', [start, ...call('1', `{${marker}:1}`), finish()], {}],
    ['a value against the schema', [start, ...call('1', json), finish()], {}],
    ['a field against its schema', [start, ...call('1', json), finish()], { onInvalid: 'abort' }],
    ['arguments that are no object', [start, ...call('1', JSON.stringify(marker)), finish()], {}],
    ['a tool that was not offered', [start, ...call('1', '{}', `${marker} is no name`), finish()], {}],
    ['a missing call', [start, text(marker), finish('stop')], { toolChoice: 'required' }],
    ['a broken protocol', [start, inputStart('1'), input('1', json), input('2', marker)], {}],
    ['a limit', [start, ...call('1', `{"a":[[["${marker}"]]]}`), finish()], {}],
  ] as const)('after %s', async (_, events, more) => {
    const { error } = await collectUntilError(streamOf([events], { ...request, ...more }, { limits: { maxDepth: 3 } }))
    expect(isLLMError(error)).toBe(true)
    expect(printed(error)).not.toContain(marker)
    // It is there for who asks.
    if (events.some((event) => JSON.stringify(event).includes(marker))) {
      expect(JSON.stringify([(error as LLMError).partial, (error as ToolError).toolName])).toContain(marker)
    }
  })

  test('after an abort, whatever its reason holds', async () => {
    const stream = streamOf([[start, text(marker)]], request)
    stream.abort({ marker })
    const error = await rejectionOf(stream.final())
    expect((error as AbortedError).reason).toEqual({ marker })
    expect(printed(error)).not.toContain(marker)
  })

  test('after issues whose messages quote a value, which are kept out of sight', () => {
    const error = new OutputError('schema_mismatch', 'Message.', { issues: [{ path: 'a', message: `got ${marker}` }] })
    expect(error.issues).toEqual([{ path: 'a', message: `got ${marker}` }])
    expect(printed(error)).not.toContain(marker)
  })

  test('after an explanation of the provider, which is kept out of sight', async () => {
    const body = JSON.stringify({ type: 'error', error: { type: 'invalid_request_error', message: `Bad: ${marker}` } })
    const provider = anthropic({
      model: 'm',
      apiKey: `key-${marker}`,
      fetch: replayFetch({ body, status: 400, headers: { 'content-type': 'application/json' } }),
    })
    const error = await rejectionOf(streamOf(provider, request).final())
    expect(error).toMatchObject({ code: 'bad_request', status: 400 })
    expect((error as LLMError).providerMessage).toBe(`Bad: ${marker}`)
    expect(printed(error)).not.toContain(marker)
  })

  test('of usage, where a path or a tool is wrong', () => {
    const error = thrownBy(() =>
      streamOf([], { ...request, messages: [{ role: 'user' as const, content: marker }, null as never] }),
    )
    expect(error).toBeInstanceOf(UsageError)
    expect(printed(error)).not.toContain(marker)
  })
})
