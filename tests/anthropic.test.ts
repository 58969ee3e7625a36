import Anthropic from '@anthropic-ai/sdk'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { inspect } from 'node:util'
import {
  HttpError,
  isLLMError,
  type LLMError,
  type Message,
  outputFormat,
  type StreamEvent,
  StreamingLLMClient,
  type StreamRequest,
  tool,
  ToolStreamAccumulator,
  UsageError,
} from 'fieldstream'
import { anthropic, type AnthropicClient, type AnthropicOptions, toStreamEvents } from 'fieldstream/anthropic'
import { type Recording, replayFetch, type ReplaySource, simulate } from 'fieldstream/testing'
import { afterEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import { z } from 'zod'

const key = 'sk-ant-planted-key'
const prompt = 'planted prompt'
const output = 'planted output'
const providersWords = `planted words that quote: ${prompt}`
const messages: Message[] = [{ role: 'user', content: prompt }]
const ask = tool({
  name: 'ask',
  description: 'Asks the user',
  input: { properties: { message: { type: 'string' } } },
})

afterEach(() => {
  vi.unstubAllEnvs()
})

/** A body of server-sent events. */
function wire(...events: unknown[]): string {
  return events
    .map((event) => {
      const { type } = (event ?? {}) as { type?: string }
      return `event: ${type ?? 'message'}\ndata: ${typeof event === 'string' ? event : JSON.stringify(event)}\n\n`
    })
    .join('')
}

const start = {
  type: 'message_start',
  message: { id: 'msg_1', type: 'message', role: 'assistant', model: 'm', content: [], usage: { input_tokens: 7 } },
}
const textStart = { type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } }
const textDelta = { type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: output } }
const blockStop = { type: 'content_block_stop', index: 0 }
const callStart = {
  type: 'content_block_start',
  index: 0,
  content_block: { type: 'tool_use', id: 'call_1', name: 'ask', input: {} },
}
const callDelta = {
  type: 'content_block_delta',
  index: 0,
  delta: { type: 'input_json_delta', partial_json: `{"message":"${output}"}` },
}
const stopped = (reason: string | null) => ({ type: 'message_delta', delta: { stop_reason: reason }, usage: {} })
const end = { type: 'message_stop' }
const overloaded = { type: 'error', error: { type: 'overloaded_error', message: providersWords } }

function clientOf(fetch: typeof globalThis.fetch, options: Partial<AnthropicOptions> = {}) {
  return new StreamingLLMClient({ provider: anthropic({ model: 'model-a', apiKey: key, fetch, ...options }) })
}

/** Runs one request to its end, over whatever the fetch or the source answers. */
async function watch(answer: ReplaySource | typeof globalThis.fetch, options: Partial<AnthropicOptions> = {}) {
  const isFetch = typeof answer === 'function' && ('requests' in answer || answer.name === 'fetch')
  const client = clientOf(isFetch ? (answer as typeof globalThis.fetch) : replayFetch(answer as ReplaySource), options)
  return watchClient(client)
}

async function watchClient(client: StreamingLLMClient) {
  const stream = client.stream({ messages, tools: [ask] })
  const events = []
  let error: unknown
  try {
    for await (const event of stream) events.push(event)
  } catch (caught) {
    error = caught
  }
  const response = await stream.final().catch(() => undefined)
  const text = events.map((event) => (event.type === 'text-delta' ? event.delta : '')).join('')
  if (error !== undefined) expectQuiet(error)
  return { events, text, response, error: error as LLMError }
}

/** That an error can be logged: nothing planted is in it, save in what loggers do not print. */
function expectQuiet(error: unknown): void {
  expect(isLLMError(error), String(error)).toBe(true)
  const { message, stack } = error as LLMError
  const printed = [message, stack, inspect(error, { depth: Infinity }), JSON.stringify(error)].join('\n')
  expect(printed).not.toContain('planted')
}

/** The body of the request that goes out. */
async function bodyOf(request: Partial<StreamRequest>, options: Partial<AnthropicOptions> = {}) {
  const fetch = replayFetch(simulate('Fine.'))
  const stream = clientOf(fetch, options).stream({ messages: [{ role: 'user', content: 'Hello' }], ...request })
  // An answer without the call that a choice of tool asks for is an error; here only the question counts.
  const failure = await stream.final().then(
    () => undefined,
    (error: unknown) => error,
  )
  if (fetch.requests.length === 0) throw failure
  return fetch.requests[0]!.body as Record<string, unknown> & { messages: { role: string; content: unknown }[] }
}

describe('a request becomes what the Messages API takes', () => {
  test('the least there can be', async () => {
    expect(await bodyOf({})).toEqual({
      model: 'model-a',
      max_tokens: 8192,
      messages: [{ role: 'user', content: 'Hello' }],
      stream: true,
    })
  })

  test('`system` and leading system messages stand before the conversation, later ones in it', async () => {
    const body = await bodyOf({
      system: 'One.',
      messages: [
        { role: 'system', content: 'Two.' },
        { role: 'system', content: 'Three.' },
        { role: 'user', content: 'Hello' },
        { role: 'system', content: 'Four.' },
      ],
    })
    expect(body['system']).toBe('One.\n\nTwo.\n\nThree.')
    expect(body.messages).toEqual([
      { role: 'user', content: 'Hello' },
      { role: 'system', content: 'Four.' },
    ])
  })

  test('turns keep their order and their text', async () => {
    const turns: Message[] = [
      { role: 'user', content: 'Hello' },
      { role: 'assistant', content: 'Hi.' },
      {
        role: 'user',
        content: [{ type: 'text', text: 'Why?', metadata: { anthropic: { cache_control: { type: 'ephemeral' } } } }],
      },
    ]
    expect((await bodyOf({ messages: turns })).messages).toEqual([
      { role: 'user', content: 'Hello' },
      { role: 'assistant', content: 'Hi.' },
      { role: 'user', content: [{ type: 'text', text: 'Why?', cache_control: { type: 'ephemeral' } }] },
    ])
  })

  test('pictures go as bytes, base64 or an address', async () => {
    const bytes = Uint8Array.from({ length: 20_001 }, (_, i) => i % 256)
    const body = await bodyOf({
      messages: [
        {
          role: 'user',
          content: [
            { type: 'image', data: bytes, mediaType: 'image/png' },
            { type: 'image', data: 'aGVsbG8=', mediaType: 'image/jpeg' },
            { type: 'image', url: 'https://example.com/a.png' },
          ],
        },
      ],
    })
    expect(body.messages[0]!.content).toEqual([
      {
        type: 'image',
        source: { type: 'base64', media_type: 'image/png', data: Buffer.from(bytes).toString('base64') },
      },
      { type: 'image', source: { type: 'base64', media_type: 'image/jpeg', data: 'aGVsbG8=' } },
      { type: 'image', source: { type: 'url', url: 'https://example.com/a.png' } },
    ])
  })

  test('tool results, and what the user says after them, are one user turn', async () => {
    const body = await bodyOf({
      messages: [
        { role: 'user', content: 'Hello' },
        {
          role: 'assistant',
          content: [
            { type: 'text', text: '' },
            { type: 'tool-call', toolCallId: 'call_1', toolName: 'ask', input: { message: 'Sure?' } },
            { type: 'tool-call', toolCallId: 'call_2', toolName: 'ask', input: {} },
            { type: 'tool-call', toolCallId: 'call_3', toolName: 'ask', input: {} },
          ],
        },
        {
          role: 'tool',
          content: [
            { type: 'tool-result', toolCallId: 'call_1', output: 'Yes.' },
            { type: 'tool-result', toolCallId: 'call_2', output: { answer: ['no'] }, isError: true },
          ],
        },
        { role: 'tool', content: [{ type: 'tool-result', toolCallId: 'call_3', output: undefined }] },
        { role: 'user', content: 'Go on.' },
        { role: 'user', content: [{ type: 'text', text: 'Quickly.' }] },
        { role: 'assistant', content: 'Done.' },
        { role: 'user', content: 'Thanks.' },
      ],
    })
    expect(body.messages.slice(1)).toEqual([
      {
        role: 'assistant',
        content: [
          { type: 'tool_use', id: 'call_1', name: 'ask', input: { message: 'Sure?' } },
          { type: 'tool_use', id: 'call_2', name: 'ask', input: {} },
          { type: 'tool_use', id: 'call_3', name: 'ask', input: {} },
        ],
      },
      {
        role: 'user',
        content: [
          { type: 'tool_result', tool_use_id: 'call_1', content: 'Yes.' },
          { type: 'tool_result', tool_use_id: 'call_2', content: '{"answer":["no"]}', is_error: true },
          { type: 'tool_result', tool_use_id: 'call_3', content: '' },
          { type: 'text', text: 'Go on.' },
          { type: 'text', text: 'Quickly.' },
        ],
      },
      { role: 'assistant', content: 'Done.' },
      { role: 'user', content: 'Thanks.' },
    ])
  })

  test('a system message after tool results stays one', async () => {
    const body = await bodyOf({
      messages: [
        { role: 'user', content: 'Hello' },
        { role: 'assistant', content: [{ type: 'tool-call', toolCallId: 'call_1', toolName: 'ask', input: {} }] },
        { role: 'tool', content: [{ type: 'tool-result', toolCallId: 'call_1', output: 'Yes.' }] },
        { role: 'system', content: 'Be brief.' },
      ],
    })
    expect(body.messages.slice(2)).toEqual([
      { role: 'user', content: [{ type: 'tool_result', tool_use_id: 'call_1', content: 'Yes.' }] },
      { role: 'system', content: 'Be brief.' },
    ])
  })

  test('a tool result that JSON cannot say is named, and nothing is sent', async () => {
    const circular: Record<string, unknown> = {}
    circular['self'] = circular
    for (const output of [{ count: 1n }, circular]) {
      const failure = bodyOf({
        messages: [{ role: 'tool', content: [{ type: 'tool-result', toolCallId: 'call_1', output }] }],
      })
      await expect(failure).rejects.toMatchObject({
        name: 'UsageError',
        code: 'invalid_argument',
        message: expect.stringContaining('call_1') as string,
      })
    }
  })

  test('an answer that said nothing is left out, since the API takes no empty turn', async () => {
    const fetch = replayFetch([simulate(''), simulate('Fine.')])
    const client = clientOf(fetch)
    const response = await client.stream({ messages }).final()
    expect(response).toMatchObject({ text: '', finishReason: 'stop' })
    await client.stream({ messages: [...messages, ...response.messages, { role: 'user', content: 'And?' }] }).final()
    expect((fetch.requests[1]!.body as { messages: unknown }).messages).toEqual([
      { role: 'user', content: prompt },
      { role: 'user', content: 'And?' },
    ])
  })

  test('thinking goes back with its signature; what is not for this provider is dropped, and `start` says so', async () => {
    const fetch = replayFetch(simulate('Fine.'))
    const stream = clientOf(fetch).stream({
      messages: [
        { role: 'user', content: 'Hello' },
        {
          role: 'assistant',
          content: [
            { type: 'reasoning', text: 'Signed.', metadata: { anthropic: { signature: 'abc' } } },
            { type: 'reasoning', text: 'Unsigned.' },
            { type: 'reasoning', text: 'Foreign.', metadata: { other: { signature: 'abc' } } },
            { type: 'provider', provider: 'anthropic', value: { type: 'redacted_thinking', data: 'xyz' } },
            { type: 'provider', provider: 'other', value: { type: 'item' } },
            { type: 'text', text: 'Hi.', metadata: { other: { id: 1 } } },
          ],
        },
        { role: 'user', content: 'Why?' },
      ],
    })
    const warned: unknown[] = []
    for await (const event of stream) if (event.type === 'start') warned.push(...(event.warnings ?? []))
    const dropped = (what: string) => ({ code: 'dropped-content', message: expect.stringContaining(what) as string })
    expect(warned).toEqual([dropped('Reasoning'), dropped('Reasoning'), dropped('other')])
    expect((await stream.final()).warnings).toEqual(warned)
    expect((fetch.requests[0]!.body as { messages: { content: unknown }[] }).messages[1]!.content).toEqual([
      { type: 'thinking', thinking: 'Signed.', signature: 'abc' },
      { type: 'redacted_thinking', data: 'xyz' },
      { type: 'text', text: 'Hi.' },
    ])
  })

  test('without anything dropped there are no warnings', async () => {
    const { events, response } = await watch(simulate('Fine.'))
    expect(events[0]).not.toHaveProperty('warnings')
    expect(response!.warnings).toEqual([])
  })

  test('tools go with their schemas, streamed eagerly unless that is turned off', async () => {
    const search = tool({ name: 'search', definition: { anthropic: { type: 'web_search_20250305', name: 'search' } } })
    const strict = tool({ name: 'strict', input: { properties: {} }, strict: true })
    const schema = { type: 'object', properties: { message: { type: 'string' } } }
    expect((await bodyOf({ tools: [ask, strict, search] }))['tools']).toEqual([
      { name: 'ask', description: 'Asks the user', input_schema: schema, eager_input_streaming: true },
      { name: 'strict', input_schema: { type: 'object', properties: {} }, strict: true, eager_input_streaming: true },
      { type: 'web_search_20250305', name: 'search' },
    ])
    expect((await bodyOf({ tools: [ask] }, { eagerInputStreaming: false }))['tools']).toEqual([
      { name: 'ask', description: 'Asks the user', input_schema: schema },
    ])
    expect(await bodyOf({ tools: [] })).not.toHaveProperty('tools')
  })

  test.for([
    [undefined, undefined],
    ['auto', { type: 'auto' }],
    ['none', { type: 'none' }],
    ['required', { type: 'any' }],
    [ask, { type: 'tool', name: 'ask' }],
    [{ name: 'ask' }, { type: 'tool', name: 'ask' }],
  ] as const)('tool choice %j', async ([toolChoice, expected]) => {
    expect((await bodyOf({ tools: [ask], toolChoice }))['tool_choice']).toEqual(expected)
  })

  test('the usual settings have their own names', async () => {
    const settings = { maxTokens: 5, temperature: 0, topP: 0.5, stop: ['END'] }
    expect(await bodyOf(settings)).toMatchObject({
      max_tokens: 5,
      temperature: 0,
      top_p: 0.5,
      stop_sequences: ['END'],
    })
    expect(await bodyOf({ stop: [] })).not.toHaveProperty('stop_sequences')
    expect((await bodyOf({}, { maxTokens: 100 }))['max_tokens']).toBe(100)
    expect((await bodyOf({ maxTokens: 5 }, { maxTokens: 100 }))['max_tokens']).toBe(5)
  })

  test('reasoning is an effort or a budget, and cannot go with a tool that is forced natively', async () => {
    expect(await bodyOf({ reasoning: { effort: 'low' } })).toMatchObject({
      thinking: { type: 'adaptive' },
      output_config: { effort: 'low' },
    })
    expect((await bodyOf({ reasoning: { budgetTokens: 2000 } }))['thinking']).toEqual({
      type: 'enabled',
      budget_tokens: 2000,
    })
    expect(await bodyOf({ reasoning: { effort: 'low' }, tools: [ask], toolChoice: 'auto' })).toHaveProperty('thinking')
    for (const toolChoice of [ask, 'required'] as const) {
      const failure = bodyOf({ reasoning: { effort: 'low' }, tools: [ask], toolChoice, toolInput: 'native' })
      await expect(failure).rejects.toMatchObject({ name: 'UsageError', code: 'unsupported' })
    }
  })

  test('a tool that cannot be forced natively is called through JSON text', async () => {
    const format = {
      type: 'json_schema',
      schema: {
        type: 'object',
        properties: { message: { type: 'string' } },
        additionalProperties: false,
        description: 'Asks the user',
      },
    }
    for (const toolChoice of [ask, 'required'] as const) {
      const body = await bodyOf({ reasoning: { effort: 'low' }, tools: [ask], toolChoice })
      expect(body).toMatchObject({ thinking: { type: 'adaptive' }, output_config: { effort: 'low', format } })
      expect(body).not.toHaveProperty('tools')
      expect(body).not.toHaveProperty('tool_choice')
      expect(body['system']).toContain('the tool "ask"')
      expect(body['system']).toContain('Asks the user')
    }
    const forced = { tools: [ask], toolChoice: ask } as const
    expect((await bodyOf(forced, { forcedTools: false }))['output_config']).toEqual({ format })
    expect(await bodyOf({ ...forced, toolInput: 'native' }, { forcedTools: false })).toHaveProperty('tool_choice')
    expect(await bodyOf(forced)).toHaveProperty('tool_choice')
    expect(await bodyOf({ tools: [ask] }, { forcedTools: false })).toHaveProperty('tools')
    const search = tool({ name: 'search', definition: { anthropic: { type: 'web_search_20250305', name: 'search' } } })
    expect(await bodyOf({ tools: [search], toolChoice: search }, { forcedTools: false })).toHaveProperty('tool_choice')
  })

  test('output is a format of the API, closed as it wants it', async () => {
    const body = await bodyOf({ output: z.object({ title: z.string(), size: z.int().optional(), mail: z.email() }) })
    expect(body['output_config']).toMatchObject({
      format: {
        type: 'json_schema',
        schema: { required: ['title', 'mail'], additionalProperties: false, properties: { size: { type: 'integer' } } },
      },
    })
    expect(body).not.toHaveProperty('system')
  })

  test('what the API does not enforce of an output is a warning, or an error where it must', async () => {
    const price = z.object({ price: z.number().min(1) })
    const warningsOf = async (output: NonNullable<StreamRequest['output']>) => {
      const { warnings } = await clientOf(replayFetch(simulate('{"price":2}')))
        .stream({ messages, output })
        .final()
      return warnings
    }
    expect(await warningsOf(price)).toEqual([
      {
        code: 'unsupported',
        message: 'Anthropic cannot hold the model to all of the schema: `minimum` is not enforced (properties.price).',
      },
    ])
    expect(await warningsOf(outputFormat({ schema: price, strict: false }))).toEqual([])
    await expect(bodyOf({ output: outputFormat({ schema: price, strict: true }) })).rejects.toMatchObject({
      name: 'UsageError',
      code: 'unsupported',
    })
  })

  test('an output that the API does not take is asked for in words', async () => {
    const record = z.object({ prices: z.record(z.string(), z.number()) })
    const fetch = replayFetch(simulate('{"prices":{"a":1}}'))
    const response = await clientOf(fetch).stream({ messages, system: 'Be brief.', output: record }).final()
    const body = fetch.requests[0]!.body as Record<string, unknown>
    expect(body).not.toHaveProperty('output_config')
    expect(body['system']).toContain('Be brief.')
    expect(body['system']).toContain('"additionalProperties":{"type":"number"}')
    expect(response.output).toEqual({ prices: { a: 1 } })
    expect(response.warnings[0]!.message).toContain('open to other properties (properties.prices)')
  })

  test("the provider's own options pass as they are, and win", async () => {
    const body = await bodyOf({
      temperature: 1,
      providerOptions: { anthropic: { top_k: 5, temperature: 0.1, metadata: { user_id: 'u' } }, other: { top_k: 9 } },
    })
    expect(body).toMatchObject({ top_k: 5, temperature: 0.1, metadata: { user_id: 'u' } })
    expect(body).not.toHaveProperty('other')
  })

  test('key and headers go where they belong', async () => {
    const fetch = replayFetch(simulate('Fine.'))
    await clientOf(fetch, { headers: { 'anthropic-beta': 'one,two' }, baseURL: 'https://gateway.example/base' })
      .stream({ messages })
      .final()
    const { url, method, headers } = fetch.requests[0]!
    expect([method, url]).toEqual(['POST', 'https://gateway.example/base/v1/messages'])
    expect(headers.get('authorization')).toBe(`Bearer ${key}`)
    expect(headers.get('anthropic-beta')).toBe('one,two')
  })

  test('`raw` brings every event of the wire, in order', async () => {
    const sent = [start, { type: 'ping' }, textStart, textDelta, blockStop, stopped('end_turn'), end]
    const stream = clientOf(replayFetch(wire(...sent))).stream({ messages, raw: true })
    const raw: unknown[] = []
    for await (const event of stream) if (event.type === 'raw') raw.push(event.value)
    expect(raw).toEqual(sent)
  })
})

describe('an error status is an error one can act on', () => {
  const failure = (status: number, type: string, headers: Record<string, string> = {}): Recording => ({
    status,
    headers: { 'content-type': 'application/json', 'request-id': 'req_1', ...headers },
    body: JSON.stringify({ type: 'error', error: { type, message: providersWords }, request_id: 'req_1' }),
  })

  test.for([
    [400, 'invalid_request_error', 'bad_request', false],
    [401, 'authentication_error', 'authentication', false],
    [402, 'billing_error', 'quota_exhausted', false],
    [403, 'permission_error', 'permission', false],
    [404, 'not_found_error', 'not_found', false],
    [408, 'timeout_error', 'request_timeout', true],
    [409, 'conflict_error', 'conflict', true],
    [413, 'request_too_large', 'request_too_large', false],
    [418, 'teapot_error', 'http_error', false],
    [422, 'invalid_request_error', 'bad_request', false],
    [429, 'rate_limit_error', 'rate_limited', true],
    [500, 'api_error', 'server_error', true],
    [502, 'api_error', 'server_error', true],
    [503, 'api_error', 'overloaded', true],
    [504, 'timeout_error', 'server_error', true],
    [529, 'overloaded_error', 'overloaded', true],
  ] as const)('%i %s', async ([status, providerCode, code, retryable]) => {
    const { error, events } = await watch(failure(status, providerCode))
    expect(error).toBeInstanceOf(HttpError)
    expect(error).toMatchObject({
      name: 'HttpError',
      code,
      retryable,
      status,
      providerCode,
      phase: 'connect',
      provider: 'anthropic',
      model: 'model-a',
      requestId: 'req_1',
      attempt: 1,
    })
    expect(error.providerMessage).toBe(providersWords)
    expect(error.message).toContain(String(status))
    expect(events).toEqual([])
  })

  test('the server has the last word on whether to try again', async () => {
    expect((await watch(failure(429, 'rate_limit_error', { 'x-should-retry': 'false' }))).error.retryable).toBe(false)
    expect((await watch(failure(400, 'invalid_request_error', { 'x-should-retry': 'true' }))).error.retryable).toBe(
      true,
    )
  })

  const inNineSeconds = new Date(Date.UTC(2030, 0, 1, 0, 0, 9)).toUTCString()
  const serverNow = new Date(Date.UTC(2030, 0, 1)).toUTCString()
  test.for([
    [{ 'retry-after-ms': '120' }, 120],
    [{ 'retry-after-ms': '120.5', 'retry-after': '7' }, 120.5],
    [{ 'retry-after-ms': 'soon', 'retry-after': '7' }, 7000],
    [{ 'retry-after': '7' }, 7000],
    [{ 'retry-after': '0' }, 0],
    [{ 'retry-after': '1.5' }, 1500],
    [{ 'retry-after': inNineSeconds, date: serverNow }, 9000],
    [{ 'retry-after': serverNow, date: inNineSeconds }, undefined],
    [{ 'retry-after': '-5' }, undefined],
    [{ 'retry-after': '1e99' }, undefined],
    [{ 'retry-after': 'soon' }, undefined],
    [{}, undefined],
  ] as const)('how long to wait: %j', async ([headers, expected]) => {
    expect((await watch(failure(429, 'rate_limit_error', headers))).error.retryAfterMs).toBe(expected)
  })

  test('a date without a server clock counts from now', async () => {
    const { error } = await watch(
      failure(429, 'rate_limit_error', { 'retry-after': new Date(Date.now() + 60_000).toUTCString() }),
    )
    expect(error.retryAfterMs).toBeGreaterThan(50_000)
    expect(error.retryAfterMs).toBeLessThanOrEqual(60_000)
  })

  test('a body that is no JSON changes nothing', async () => {
    const { error } = await watch({ status: 502, headers: { 'content-type': 'text/html' }, body: `<h1>${output}</h1>` })
    expect(error).toMatchObject({ code: 'server_error', status: 502, retryable: true })
    expect(error.providerMessage).toBeUndefined()
    expect(error.message).not.toContain('providerMessage')
  })

  test('the SDK does not retry by itself', async () => {
    const fetch = replayFetch(failure(500, 'api_error'))
    const sdk = new Anthropic({ apiKey: key, fetch, maxRetries: 5 })
    await watch(fetch)
    const client = new StreamingLLMClient({ provider: anthropic({ model: 'model-a', client: sdk }) })
    expect((await watchClient(client)).error.code).toBe('server_error')
    expect(fetch.requests.length).toBe(2)
  })
})

describe('an error inside the stream is the same error as its status', () => {
  test.for([
    ['invalid_request_error', 'bad_request', 400, false],
    ['authentication_error', 'authentication', 401, false],
    ['billing_error', 'quota_exhausted', 402, false],
    ['permission_error', 'permission', 403, false],
    ['not_found_error', 'not_found', 404, false],
    ['request_too_large', 'request_too_large', 413, false],
    ['rate_limit_error', 'rate_limited', 429, true],
    ['api_error', 'server_error', 500, true],
    ['timeout_error', 'server_error', 504, true],
    ['overloaded_error', 'overloaded', 529, true],
    ['brand_new_error', 'server_error', 500, true],
  ] as const)('%s', async ([providerCode, code, status, retryable]) => {
    const event = { type: 'error', error: { type: providerCode, message: providersWords } }
    const { error } = await watch({ body: wire(event), headers: { 'request-id': 'req_1' } })
    expect(error).toMatchObject({ name: 'HttpError', code, status, retryable, providerCode, phase: 'stream' })
    expect(error.requestId).toBe('req_1')
    expect(error.providerMessage).toBe(providersWords)

    // The SDK's own iterator throws it.
    const sdk = new Anthropic({ apiKey: key, fetch: replayFetch(wire(start, event)) })
    const failed = await read(toStreamEvents(await sdk.messages.create({ ...sdkRequest })))
    expectQuiet(failed.error)
    expect(failed.error).toMatchObject({ name: 'HttpError', code, status, retryable, providerCode })
    expect((failed.error as LLMError).providerMessage).toBe(providersWords)
  })

  test('what came before it is delivered, also where both came in one read', async () => {
    const body = wire(start, textStart, textDelta, overloaded)
    for (const chunks of [body.length, 1]) {
      const { error, text, response } = await watch(replayFetch(body, { chunks }))
      expect(error).toMatchObject({ code: 'overloaded', phase: 'stream' })
      expect(text).toBe(output)
      expect(error.partial!.text).toBe(output)
      expect(error.usage).toMatchObject({ inputTokens: 7 })
      expect(response).toBeUndefined()
    }
  })

  test('an error that says nothing about itself is one of the server', async () => {
    for (const event of [{ type: 'error' }, { type: 'error', error: output }, { type: 'error', error: { type: 5 } }]) {
      const { error } = await watch(wire(start, event))
      expect(error).toMatchObject({ code: 'server_error', retryable: true })
      expect(error.providerCode).toBeUndefined()
    }
  })
})

const sdkRequest = { model: 'model-a', max_tokens: 1, messages: [], stream: true } as {
  model: string
  max_tokens: number
  messages: []
  stream: true
}

async function read(source: AsyncIterable<StreamEvent>) {
  const events: StreamEvent[] = []
  try {
    for await (const event of source) events.push(event)
    return { events, error: undefined }
  } catch (error) {
    return { events, error }
  }
}

describe('what is no stream of an answer is an error, never an empty answer', () => {
  test.for<[string, Recording, string]>([
    [
      'a page',
      { body: `<html>${output}</html>`, headers: { 'content-type': 'text/html; charset=utf-8' } },
      'unexpected_content_type',
    ],
    [
      'JSON that is no error',
      { body: `{"planted":1}`, headers: { 'content-type': 'application/json' } },
      'unexpected_content_type',
    ],
    ['nothing', { body: '' }, 'empty_response'],
    ['no content', { status: 204, body: '' }, 'empty_response'],
    ['only comments and pings', { body: `: hello\n\n${wire({ type: 'ping' })}` }, 'empty_response'],
    ['the protocol of somebody else', { body: 'data: hello\n\n' }, 'stream_protocol'],
  ])('%s', async ([, recording, code]) => {
    const { error, response } = await watch(recording)
    expect(error).toMatchObject({ name: 'StreamError', code, retryable: true, provider: 'anthropic' })
    expect(response).toBeUndefined()
  })

  test('an error as JSON under status 200 is that error', async () => {
    const body = JSON.stringify({ type: 'error', error: { type: 'authentication_error', message: providersWords } })
    const { error } = await watch({ body, headers: { 'content-type': 'application/json', 'request-id': 'req_1' } })
    expect(error).toMatchObject({ code: 'authentication', retryable: false, requestId: 'req_1' })
    expect(error.providerMessage).toBe(providersWords)
  })

  test('a content type in capitals, or none, is no reason to refuse a good stream', async () => {
    const body = wire(start, textStart, textDelta, blockStop, stopped('end_turn'), end)
    const bare = () => new Response(new TextEncoder().encode(body))
    expect(bare().headers.get('content-type')).toBeNull()
    for (const fetch of [
      replayFetch({ body, headers: { 'Content-Type': 'Text/Event-Stream; charset=UTF-8' } }),
      Object.assign(() => Promise.resolve(bare()), { requests: [] }),
    ])
      expect((await watch(fetch)).response!.text).toBe(output)
  })
})

describe('an event that breaks the protocol is an error, and what is merely new is not', () => {
  const answer = (...events: unknown[]) => wire(start, textStart, textDelta, ...events)

  test.for<[string, string]>([
    ['an event that is no JSON', answer(`{"${output}`)],
    ['null', answer('null')],
    ['a number', answer('5')],
    ['a string', answer('"text"')],
    ['a second answer', answer(start)],
    ['a delta for a block that never began', answer({ ...textDelta, index: 3 })],
    ['a delta for a block that has ended', answer(blockStop, textDelta)],
    ['the end of a block that never began', answer({ ...blockStop, index: 3 })],
    ['a block that begins twice', answer(textStart)],
    ['a block that never ends', answer(stopped('end_turn'), end)],
    ['an end without a stop reason', answer(blockStop, stopped(null), end)],
    ['a block without content', answer({ type: 'content_block_start', index: 1 })],
    ['a delta without content', answer({ type: 'content_block_delta', index: 0 })],
    ['text that is no string', answer({ ...textDelta, delta: { type: 'text_delta', text: 5 } })],
    ['an end of the message without a delta', answer(blockStop, { type: 'message_delta' })],
    [
      'arguments that are no string',
      answer(blockStop, callStart, { ...callDelta, delta: { type: 'input_json_delta' } }),
    ],
    [
      'a call without id',
      answer(blockStop, { ...callStart, content_block: { type: 'tool_use', name: 'ask', input: {} } }),
    ],
    [
      'a call without name',
      answer(blockStop, { ...callStart, content_block: { type: 'tool_use', id: 'a', input: {} } }),
    ],
    ['two calls with one id', answer(blockStop, callStart, callDelta, blockStop, callStart)],
  ])('%s', async ([, body]) => {
    for (const chunks of [body.length, 1]) {
      const { error, text, response } = await watch(replayFetch(body, { chunks }))
      expect(error).toMatchObject({ name: 'StreamError', code: 'stream_protocol', retryable: true })
      expect(text).toBe(output)
      expect(response).toBeUndefined()
    }
  })

  test('a beginning without its message is no beginning', async () => {
    const { error } = await watch(wire({ type: 'message_start' }))
    expect(error).toMatchObject({ code: 'stream_protocol' })
  })

  test('bytes that are no UTF-8', async () => {
    const good = new TextEncoder().encode(answer())
    const { error, text } = await watch(
      replayFetch(Uint8Array.of(...good, 0x64, 0xff, 0x0a, 0x0a), { chunks: good.length }),
    )
    expect(error).toMatchObject({ name: 'StreamError', code: 'stream_protocol' })
    expect(text).toBe(output)
  })

  test('an event longer than allowed names the option, after what came before', async () => {
    const body = `${answer()}data: ${'x'.repeat(1000)}`
    for (const chunks of [body.length, 100]) {
      const { error, text } = await watch(replayFetch(body, { chunks }), { limits: { maxEventLength: 400 } })
      expect(error).toMatchObject({ name: 'LimitError', code: 'limit_exceeded', limit: 'maxEventLength', max: 400 })
      expect(text).toBe(output)
    }
  })

  test('new events, blocks, deltas and stop reasons are tolerated, and new blocks kept for the next turn', async () => {
    const body = wire(
      start,
      { type: 'message_news', index: 0, anything: null },
      textStart,
      { type: 'content_block_delta', index: 0, delta: { type: 'mood_delta', mood: 'gl' } },
      { type: 'content_block_delta', index: 0, delta: { type: 'mood_delta', mood: 'ad' } },
      textDelta,
      blockStop,
      { type: 'content_block_start', index: 1, content_block: { type: 'dream', story: 'On', __proto__: null } },
      { type: 'content_block_delta', index: 1, delta: { type: 'dream_delta', story: 'ce', length: 2 } },
      {
        type: 'content_block_delta',
        index: 1,
        delta: JSON.parse('{"type":"dream_delta","__proto__":{"polluted":1}}') as unknown,
      },
      { type: 'content_block_stop', index: 1 },
      stopped('brand_new_reason'),
      end,
    )
    const { response, error } = await watch(body)
    expect(error).toBeUndefined()
    expect(response).toMatchObject({ text: output, finishReason: 'other', providerFinishReason: 'brand_new_reason' })
    const content = response!.messages[0]!.content as unknown as { value: Record<string, unknown> }[]
    expect(content[0]).toEqual({ type: 'text', text: output, metadata: { anthropic: { mood: 'glad' } } })
    expect(content[1]).toMatchObject({ provider: 'anthropic', value: { type: 'dream', story: 'Once', length: 2 } })
    expect(content[1]!.value['polluted']).toBeUndefined()
  })

  test('framing of any kind the format allows', async () => {
    const body = wire(start, textStart, textDelta, blockStop, stopped('end_turn'), end)
    const framings = [
      body.replaceAll('\n', '\r\n'),
      body.replaceAll('\n', '\r'),
      `\ufeff${body}`,
      body.replaceAll('event:', ': comment\nid: 1\nretry: 5\nevent:'),
      body.replaceAll(/^event: .*\n/gm, ''),
      body.replaceAll('data: {', 'data: {\ndata:    '),
      body.replaceAll('event: content_block_stop', 'event: ping\ndata:\n\nevent: content_block_stop'),
    ]
    for (const framing of framings)
      for (const chunks of [framing.length, 1])
        expect(
          (await watch(replayFetch(framing, { chunks }))).response?.text,
          JSON.stringify(framing.slice(0, 90)),
        ).toBe(output)
  })

  test('nothing after the end counts', async () => {
    const whole = wire(start, textStart, textDelta, blockStop, stopped('end_turn'), end)
    for (const rest of [wire(overloaded), wire(callStart), 'data: [DONE]\n\n', `data: {"${output}\n\n`]) {
      for (const chunks of [10_000, 1]) {
        const { response, events } = await watch(replayFetch(whole + rest, { chunks }))
        expect(response).toMatchObject({ text: output, finishReason: 'stop' })
        expect(events.at(-1)!.type).toBe('finish')
        const provider = anthropic({ model: 'model-a', fetch: replayFetch(whole + rest, { chunks }) })
        const direct = await read(provider.stream({ messages }, { signal: new AbortController().signal, attempt: 1 }))
        expect(direct.error).toBeUndefined()
        expect(direct.events.at(-1)!.type).toBe('finish')
      }
    }
  })

  test('a text cut by its token limit resolves and says so', async () => {
    for (const body of [
      wire(start, textStart, textDelta, blockStop, stopped('max_tokens'), end),
      wire(start, textStart, textDelta, stopped('model_context_window_exceeded'), end),
    ]) {
      const { response } = await watch(body)
      expect(response).toMatchObject({ text: output, finishReason: 'length' })
    }
  })

  test('a call at the token limit is never an answer, even where its arguments parse', async () => {
    for (const events of [
      [callStart, blockStop],
      [callStart, callDelta, blockStop],
      [callStart, callDelta],
    ]) {
      const { response, error } = await watch(wire(start, ...events, stopped('max_tokens'), end))
      expect(response).toBeUndefined()
      expect(error).toMatchObject({ code: 'output_truncated', toolName: 'ask', toolCallId: 'call_1' })
    }
  })

  test('a call of a server tool that was cut is left out of the conversation, and a warning says so', async () => {
    const serverCall = (json: string) => [
      {
        type: 'content_block_start',
        index: 0,
        content_block: { type: 'server_tool_use', id: 's', name: 'web', input: {} },
      },
      { type: 'content_block_delta', index: 0, delta: { type: 'input_json_delta', partial_json: json } },
    ]
    for (const events of [[...serverCall('{"a'), blockStop], serverCall('{"a'), serverCall('')]) {
      const { response } = await watch(wire(start, ...events, stopped('max_tokens'), end))
      expect(response!.messages).toEqual([{ role: 'assistant', content: [] }])
      expect(response!.warnings).toMatchObject([{ code: 'dropped-content' }])
    }
  })
})

/** A client that is none of the SDK's, as a fake or a gateway's own. */
function structuralClient(events: () => AsyncIterable<unknown>) {
  const create = vi.fn((_body: never, _options?: never) => Promise.resolve(events()))
  return { messages: { create } }
}

// eslint-disable-next-line @typescript-eslint/require-await
async function* iterate(...events: unknown[]): AsyncGenerator {
  yield* events
}

const goodAnswer = [start, textStart, textDelta, blockStop, stopped('end_turn'), end]

describe('any client, any way to give a key', () => {
  test('an SDK client that is set up already', async () => {
    const fetch = replayFetch(simulate('Fine.'))
    const sdk: AnthropicClient = new Anthropic({ apiKey: 'another', fetch, baseURL: 'https://gateway.example' })
    const client = new StreamingLLMClient({
      provider: anthropic({ model: 'model-a', client: sdk, headers: { 'x-a': 'b' } }),
    })
    expect((await client.stream({ messages }).final()).text).toBe('Fine.')
    expect(fetch.requests[0]!.url).toBe('https://gateway.example/v1/messages')
    expect(fetch.requests[0]!.headers.get('authorization')).toBe('Bearer another')
    expect(fetch.requests[0]!.headers.get('x-a')).toBe('b')
  })

  test('anything with `messages.create`', async () => {
    const sdk = structuralClient(() => iterate(...goodAnswer))
    const client = new StreamingLLMClient({
      provider: anthropic({ model: 'model-a', client: sdk, headers: { 'x-a': 'b' } }),
    })
    expect((await watchClient(client)).response!.text).toBe(output)
    const [body, options] = sdk.messages.create.mock.calls[0]! as unknown[]
    expect(body).toMatchObject({ model: 'model-a', stream: true })
    expect(options).toMatchObject({
      maxRetries: 0,
      headers: { 'x-a': 'b' },
      signal: expect.any(AbortSignal) as AbortSignal,
    })
  })

  test("a client whose events come in another framing is read through the SDK's own iterator", async () => {
    const binary = new Response('\0\0', { headers: { 'content-type': 'application/vnd.amazon.eventstream' } })
    const post = vi.fn(() =>
      Object.assign(Promise.resolve(iterate(...goodAnswer)), { asResponse: () => Promise.resolve(binary) }),
    )
    const sdk = { ...structuralClient(() => iterate()), post }
    const client = new StreamingLLMClient({ provider: anthropic({ model: 'model-a', client: sdk }) })
    expect((await watchClient(client)).response!.text).toBe(output)
    expect(post).toHaveBeenCalledOnce()
    expect(sdk.messages.create).not.toHaveBeenCalled()
  })

  test('a cut or broken iterator of a client is an error as over our own reading', async () => {
    const broken = async function* (error: unknown) {
      yield* [start, textStart, textDelta]
      await Promise.resolve()
      throw error
    }
    const partial = goodAnswer.slice(0, 3)
    const cases: [() => AsyncIterable<unknown>, string][] = [
      [() => iterate(), 'empty_response'],
      [() => iterate(...partial), 'stream_truncated'],
      [() => broken(new TypeError('terminated')), 'stream_truncated'],
      [() => broken(undefined), 'stream_truncated'],
      // The SDK's iterator fails so on an event that is no JSON, and the message quotes it.
      [() => broken(new SyntaxError(`Unexpected token in "${output}"`)), 'stream_protocol'],
      [() => iterate(...partial, null), 'stream_protocol'],
    ]
    for (const [events, code] of cases) {
      const sdk = structuralClient(events)
      const client = new StreamingLLMClient({ provider: anthropic({ model: 'model-a', client: sdk }) })
      expect((await watchClient(client)).error.code).toBe(code)
      const overIterator = await read(toStreamEvents(events() as AsyncIterable<{ type: string }>))
      expectQuiet(overIterator.error)
      expect((overIterator.error as LLMError).code).toBe(code)
    }
  })

  test('an iterator that just ends when it is aborted is an abort, not a cut', async () => {
    const controller = new AbortController()
    const ending = async function* () {
      yield start
      await Promise.resolve()
      controller.abort('enough')
    }
    const provider = anthropic({ model: 'model-a', client: structuralClient(ending) })
    const { error } = await read(provider.stream({ messages }, { signal: controller.signal, attempt: 1 }))
    expect(error).toMatchObject({ name: 'AbortError', reason: 'enough' })
  })

  test('a client that cannot send is a connection error, worth another try where the network is to blame', async () => {
    for (const [error, retryable] of [
      [new TypeError('fetch failed'), true],
      [new Error('out of order'), false],
      [undefined, false],
    ] as const) {
      const sdk = { messages: { create: () => Promise.reject(error) } }
      const client = new StreamingLLMClient({ provider: anthropic({ model: 'model-a', client: sdk }) })
      const { error: failure } = await watchClient(client)
      expect(failure).toMatchObject({ name: 'ConnectionError', code: 'connection', retryable, phase: 'connect' })
      expect(failure.cause).toBe(error)
    }
  })

  test("aborting one's own SDK stream is an abort, not a cut", async () => {
    const sdk = new Anthropic({ apiKey: key, fetch: replayFetch(simulate('Fine.'), { delayMs: 5 }) })
    const stream = await sdk.messages.create({ ...sdkRequest })
    const accumulator = new ToolStreamAccumulator()
    const run = async () => {
      for await (const event of toStreamEvents(stream)) {
        accumulator.push(event)
        if (event.type === 'text-delta') stream.controller.abort('enough')
      }
    }
    await expect(run()).rejects.toMatchObject({ name: 'AbortError', code: 'aborted', reason: 'enough' })
    expect(accumulator.isComplete).toBe(false)
  })

  test('the key may come from the environment', async () => {
    vi.stubEnv('ANTHROPIC_API_KEY', 'from-environment')
    const fetch = replayFetch(simulate('Fine.'))
    await new StreamingLLMClient({ provider: anthropic({ model: 'model-a', fetch }) }).stream({ messages }).final()
    expect(fetch.requests[0]!.headers.get('authorization')).toBe('Bearer from-environment')
  })

  test('without a key the first request says how to give one, and the next may have it', async () => {
    vi.stubEnv('ANTHROPIC_API_KEY', undefined)
    vi.stubEnv('ANTHROPIC_BASE_URL', undefined)
    const fetch = vi.spyOn(globalThis, 'fetch').mockImplementation(replayFetch(simulate('Fine.')))
    onTestFinished(() => fetch.mockRestore())
    const client = new StreamingLLMClient({ provider: anthropic({ model: 'model-a' }) })
    await expect(client.stream({ messages }).final()).rejects.toMatchObject({
      name: 'UsageError',
      code: 'invalid_argument',
      retryable: false,
      message: expect.stringContaining('ANTHROPIC_API_KEY') as string,
    })
    expect(fetch).not.toHaveBeenCalled()
    vi.stubEnv('ANTHROPIC_API_KEY', key)
    expect((await client.stream({ messages }).final()).text).toBe('Fine.')
  })

  test('without the SDK the first request says what to install', async () => {
    vi.doMock('@anthropic-ai/sdk', () => {
      throw new Error('Cannot find package')
    })
    onTestFinished(() => {
      vi.doUnmock('@anthropic-ai/sdk')
    })
    const { error } = await watch(simulate('Fine.'))
    expect(error).toMatchObject({ name: 'UsageError', code: 'missing_dependency', retryable: false })
    expect(error.message).toContain('npm install @anthropic-ai/sdk')
  })

  test('a key or header that HTTP cannot carry is named, not printed', async () => {
    for (const options of [{ apiKey: `${key}\nx` }, { apiKey: `${key}’` }, { headers: { 'x-a': `${key}\0` } }]) {
      const { error } = await watch(simulate('Fine.'), options)
      expect(error).toMatchObject({ name: 'UsageError', code: 'invalid_argument', retryable: false })
    }
    const sdk = new Anthropic({ apiKey: `${key}\nx`, fetch: replayFetch(simulate('Fine.')) })
    const client = new StreamingLLMClient({ provider: anthropic({ model: 'model-a', client: sdk }) })
    expect((await watchClient(client)).error.name).toBe('UsageError')
  })

  test('a wrong call of anthropic() is refused at once', () => {
    const client = structuralClient(() => iterate())
    const fetch = replayFetch('')
    expect(() => anthropic({ model: '' })).toThrow(UsageError)
    expect(() => anthropic({} as AnthropicOptions)).toThrow('`model`')
    expect(() => anthropic({ model: 'a', client, apiKey: key })).toThrow('`apiKey`')
    expect(() => anthropic({ model: 'a', client, baseURL: 'https://example.com' })).toThrow('`baseURL`')
    expect(() => anthropic({ model: 'a', client, fetch })).toThrow('`fetch`')
  })

  test('nothing is ever written to the console', async () => {
    const methods = (['log', 'info', 'warn', 'error', 'debug', 'trace'] as const).map((name) => vi.spyOn(console, name))
    onTestFinished(() => methods.forEach((method) => method.mockRestore()))
    const thinking = { providerOptions: { anthropic: { thinking: { type: 'enabled', budget_tokens: 1024 } } } }
    for (const model of ['claude-sonnet-4-5', 'claude-opus-4-6']) {
      for (const body of [wire(...goodAnswer), wire(start, `{"${output}`), wire(start, overloaded)]) {
        const client = new StreamingLLMClient({ provider: anthropic({ model, fetch: replayFetch(body) }) })
        await client
          .stream({ messages, ...thinking })
          .final()
          .catch(expectQuiet)
      }
    }
    for (const method of methods) expect(method).not.toHaveBeenCalled()
    // This is what would have been heard of the SDK's own way.
    const sdk = new Anthropic({ apiKey: key, fetch: replayFetch(wire(...goodAnswer)) })
    methods.forEach((method) => method.mockImplementation(() => undefined))
    await sdk.messages.create({ ...sdkRequest, model: 'claude-sonnet-4-5' })
    expect(methods[2]).toHaveBeenCalled()
  })
})

/** A real server on the loopback. */
async function serve(answer: (request: IncomingMessage, response: ServerResponse) => void) {
  const sockets: Socket[] = []
  const server = createServer((request, response) => {
    request.resume()
    answer(request, response)
  })
  server.on('connection', (socket: Socket) => sockets.push(socket))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  const baseURL = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const provider = anthropic({ model: 'model-a', apiKey: key, baseURL })
  return { provider, client: new StreamingLLMClient({ provider }), sockets }
}

const streamHeaders = { 'content-type': 'text/event-stream' }

/** Resolves with the milliseconds from now until a socket is closed. */
async function untilClosed(socket: Socket): Promise<number> {
  const from = performance.now()
  if (!socket.destroyed) await new Promise((resolve) => socket.once('close', resolve))
  return performance.now() - from
}

describe('over a real connection', () => {
  test('nobody there', async () => {
    const server = createServer()
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo
    await new Promise((resolve) => server.close(resolve))
    const refused = new StreamingLLMClient({
      provider: anthropic({ model: 'model-a', apiKey: key, baseURL: `http://127.0.0.1:${port}` }),
    })
    const { error } = await watchClient(refused)
    expect(error).toMatchObject({ name: 'ConnectionError', code: 'connection', retryable: true, phase: 'connect' })
    expect(inspect(error, { depth: Infinity })).toContain('ECONNREFUSED')
  })

  test('a connection that dies before the answer', async () => {
    const { client } = await serve((request) => request.socket.destroy())
    const { error } = await watchClient(client)
    expect(error).toMatchObject({ name: 'ConnectionError', code: 'connection', retryable: true, phase: 'connect' })
  })

  test('a connection that dies in the middle', async () => {
    const { client } = await serve((request, response) => {
      response.writeHead(200, { ...streamHeaders, 'request-id': 'req_1' })
      response.write(wire(start, textStart, textDelta), () => setTimeout(() => request.socket.destroy(), 10))
    })
    const { error, text } = await watchClient(client)
    expect(error).toMatchObject({ name: 'StreamError', code: 'stream_truncated', retryable: true, phase: 'stream' })
    expect(error.requestId).toBe('req_1')
    expect(text).toBe(output)
    expect(error.partial!.text).toBe(output)
  })

  test('a body that ends early, by the rules', async () => {
    const { client } = await serve((_, response) => {
      response.writeHead(200, { ...streamHeaders, 'request-id': 'req_1' })
      response.end(wire(start, textStart, textDelta))
    })
    expect((await watchClient(client)).error).toMatchObject({ code: 'stream_truncated', requestId: 'req_1' })
  })

  test('an error status is asked for once', async () => {
    let requests = 0
    const { client } = await serve((_, response) => {
      requests++
      response.writeHead(500, { 'content-type': 'application/json', 'retry-after': '0' }).end('{}')
    })
    expect((await watchClient(client)).error).toMatchObject({ code: 'server_error', retryAfterMs: 0 })
    expect(requests).toBe(1)
  })

  test('an error that came together with text does not wait for more to come', async () => {
    const { client, sockets } = await serve((_, response) => {
      response.writeHead(200, streamHeaders)
      response.write(wire(start, textStart, textDelta, overloaded))
    })
    const from = performance.now()
    const { error, text } = await watchClient(client)
    expect(performance.now() - from).toBeLessThan(500)
    expect(error).toMatchObject({ code: 'overloaded' })
    expect(text).toBe(output)
    expect(await untilClosed(sockets[0]!)).toBeLessThan(100)
  })

  test('leaving the loop closes the connection', async () => {
    const { client, sockets } = await serve((_, response) => {
      response.writeHead(200, streamHeaders)
      response.write(wire(start, textStart, textDelta))
    })
    const stream = client.stream({ messages })
    for await (const event of stream) if (event.type === 'text-delta') break
    expect(await untilClosed(sockets[0]!)).toBeLessThan(100)
    await expect(stream.final()).rejects.toMatchObject({ name: 'AbortError', reason: 'consumer_return' })
  })

  test('leaving a provider without a client closes it too', async () => {
    const { provider, sockets } = await serve((_, response) => {
      response.writeHead(200, streamHeaders)
      response.write(wire(start, textStart, textDelta))
    })
    const context = { signal: new AbortController().signal, attempt: 1 }
    for await (const event of provider.stream({ messages }, context)) if (event.type === 'text-delta') break
    expect(await untilClosed(sockets[0]!)).toBeLessThan(100)
  })

  test.for(['before headers', 'before the first event', 'in the middle'])(
    'an aborted signal closes the connection %s',
    async (when) => {
      const arrived = Promise.withResolvers<undefined>()
      const { client, sockets } = await serve((_, response) => {
        if (when !== 'before headers') response.writeHead(200, streamHeaders).flushHeaders()
        if (when === 'in the middle') response.write(wire(start, textStart, textDelta))
        arrived.resolve(undefined)
      })
      const controller = new AbortController()
      const stream = client.stream({ messages, signal: controller.signal })
      const final = stream.final()
      const seen =
        when === 'in the middle' ? new Promise((resolve) => stream.on('text-delta', resolve)) : arrived.promise
      await seen
      if (when === 'before the first event') await new Promise((resolve) => setTimeout(resolve, 20))
      controller.abort('user pressed stop')
      const from = performance.now()
      await expect(final).rejects.toMatchObject({ name: 'AbortError', reason: 'user pressed stop' })
      expect(performance.now() - from).toBeLessThan(50)
      expect(await untilClosed(sockets[0]!)).toBeLessThan(100)
    },
  )

  test('the answer is there with its last event, though the server keeps the connection open', async () => {
    const { client, sockets } = await serve((_, response) => {
      response.writeHead(200, streamHeaders)
      response.write(wire(...goodAnswer))
    })
    const from = performance.now()
    expect((await client.stream({ messages }).final()).text).toBe(output)
    expect(performance.now() - from).toBeLessThan(500)
    expect(sockets[0]!.destroyed).toBe(false)
    // A body that never ends is not waited for longer than a second.
    expect(await untilClosed(sockets[0]!)).toBeLessThan(1500)
  })

  test('a connection that was lost after the last event changes nothing', async () => {
    const { client } = await serve((request, response) => {
      response.writeHead(200, streamHeaders)
      response.write(wire(...goodAnswer), () => request.socket.destroy())
    })
    expect((await watchClient(client)).response!.text).toBe(output)
  })

  test('the connection serves the next request', async () => {
    const { client, sockets } = await serve((_, response) => {
      response.writeHead(200, streamHeaders)
      response.write(wire(...goodAnswer))
      // The end of the body comes in a packet of its own.
      setTimeout(() => response.end(), 20)
    })
    for (let i = 0; i < 3; i++) {
      expect((await client.stream({ messages }).final()).text).toBe(output)
      await new Promise((resolve) => setTimeout(resolve, 60))
    }
    expect(sockets.length).toBe(1)
  })
})
