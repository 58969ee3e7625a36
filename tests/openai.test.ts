import OpenAI, { AzureOpenAI } from 'openai'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { inspect } from 'node:util'
import {
  isLLMError,
  type LLMError,
  type Message,
  type Provider,
  type StreamEvent,
  StreamingLLMClient,
  type StreamRequest,
  type Tool,
  tool,
  ToolStreamAccumulator,
  UsageError,
} from 'fieldstream'
import {
  openai,
  openaiChat,
  type OpenAIChatOptions,
  type OpenAIOptions,
  toChatStreamEvents,
  toStreamEvents,
} from 'fieldstream/openai'
import { type Recording, replayFetch, type ReplaySource, simulate } from 'fieldstream/testing'
import { afterEach, describe, expect, onTestFinished, test, vi } from 'vitest'

const key = 'sk-planted-key'
const prompt = 'planted prompt'
const output = 'planted output'
const providersWords = `planted words that quote: ${prompt}`
const messages: Message[] = [{ role: 'user', content: prompt }]
const ask = tool({
  name: 'ask',
  description: 'Asks the user',
  input: { properties: { message: { type: 'string' } } },
})
const custom = tool({
  name: 'custom',
  definition: {
    openai: { type: 'custom', name: 'custom' },
    'openai-chat': { type: 'custom', custom: { name: 'custom' } },
  },
})

afterEach(() => {
  vi.unstubAllEnvs()
})

type Api = 'openai' | 'openai-chat'
type Options = Partial<OpenAIOptions> & Partial<OpenAIChatOptions>
const apis: Api[] = ['openai', 'openai-chat']

function providerOf(api: Api, options: Options = {}): Provider {
  return api === 'openai'
    ? openai({ model: 'model-a', ...(options as Partial<OpenAIOptions>) })
    : openaiChat({ model: 'model-a', ...(options as Partial<OpenAIChatOptions>) })
}

function clientOf(api: Api, fetch: typeof globalThis.fetch, options: Options = {}) {
  return new StreamingLLMClient({ provider: providerOf(api, { apiKey: key, fetch, ...options }) })
}

/** A body of server-sent events. */
function wire(...events: unknown[]): string {
  return events.map((event) => `data: ${typeof event === 'string' ? event : JSON.stringify(event)}\n\n`).join('')
}

const response = (members: object = {}) => ({ id: 'resp_1', model: 'm', status: 'in_progress', ...members })
const created = { type: 'response.created', response: response() }
const message = { id: 'msg_1', type: 'message', role: 'assistant', status: 'in_progress', content: [] }
const messageAdded = { type: 'response.output_item.added', output_index: 0, item: message }
const textDelta = { type: 'response.output_text.delta', output_index: 0, content_index: 0, delta: output }
const messageDone = {
  type: 'response.output_item.done',
  output_index: 0,
  item: { ...message, status: 'completed', content: [{ type: 'output_text', text: output, annotations: [] }] },
}
const usage = { input_tokens: 7, output_tokens: 3, total_tokens: 10 }
const completed = { type: 'response.completed', response: response({ status: 'completed', usage }) }
const incomplete = (reason: string) => ({
  type: 'response.incomplete',
  response: response({ status: 'incomplete', incomplete_details: { reason }, usage }),
})
const callItem = { id: 'fc_1', type: 'function_call', call_id: 'call_1', name: 'ask', arguments: '', status: 'x' }
const callAdded = { type: 'response.output_item.added', output_index: 1, item: callItem }
const callDelta = (delta: unknown) => ({ type: 'response.function_call_arguments.delta', output_index: 1, delta })
const callDone = (text: unknown) => ({
  type: 'response.output_item.done',
  output_index: 1,
  item: { ...callItem, arguments: text, status: 'completed' },
})
const goodResponse = [created, messageAdded, textDelta, messageDone, completed]

const chunk = (delta: object, finishReason: string | null = null, rest: object = {}) => ({
  id: 'chat_1',
  model: 'm',
  choices: [{ index: 0, delta, finish_reason: finishReason }],
  ...rest,
})
const chatUsage = { prompt_tokens: 7, completion_tokens: 3, total_tokens: 10 }
const usageChunk = { id: 'chat_1', model: 'm', choices: [], usage: chatUsage }
const said = chunk({ content: output })
const stop = chunk({}, 'stop')
const done = '[DONE]'
const goodChat = [said, stop, usageChunk, done]
const call = (members: object) => chunk({ tool_calls: [members] })

const good: Record<Api, unknown[]> = { openai: goodResponse, 'openai-chat': goodChat }
/** The beginning of an answer, with some text of it. */
const begun: Record<Api, unknown[]> = { openai: [created, messageAdded, textDelta], 'openai-chat': [said] }

/** Runs one request to its end, over whatever the fetch or the source answers. */
async function watch(
  api: Api,
  answer: ReplaySource | typeof globalThis.fetch,
  options: Options = {},
  tools: Tool[] = [ask],
) {
  const isFetch = typeof answer === 'function' && 'requests' in answer
  const fetch = isFetch ? (answer as typeof globalThis.fetch) : replayFetch(answer as ReplaySource)
  return watchClient(clientOf(api, fetch, options), tools)
}

async function watchClient(client: StreamingLLMClient, tools: Tool[] = [ask]) {
  const stream = client.stream({ messages, tools, fields: { any: '*' } })
  const events = []
  let error: unknown
  try {
    for await (const event of stream) events.push(event)
  } catch (caught) {
    error = caught
  }
  const result = await stream.final().catch(() => undefined)
  const text = events.map((event) => (event.type === 'text-delta' ? event.delta : '')).join('')
  if (error !== undefined) expectQuiet(error)
  return { events, text, response: result, error: error as LLMError }
}

/** That an error can be logged: nothing planted is in it, save in what loggers do not print. */
function expectQuiet(error: unknown): void {
  expect(isLLMError(error), String(error)).toBe(true)
  const { message: words, stack } = error as LLMError
  const printed = [words, stack, inspect(error, { depth: Infinity }), JSON.stringify(error)].join('\n')
  expect(printed).not.toContain('planted')
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

interface Body extends Record<string, unknown> {
  readonly input: unknown[]
  readonly messages: unknown[]
}

/** The body of the request that goes out. */
async function bodyOf(api: Api, request: Partial<StreamRequest>, options: Options = {}): Promise<Body> {
  const fetch = replayFetch(simulate('Fine.', { provider: api }))
  const stream = clientOf(api, fetch, options).stream({ messages: [{ role: 'user', content: 'Hello' }], ...request })
  // An answer without the call that a choice of tool asks for is an error; here only the question counts.
  const failure = await stream.final().then(
    () => undefined,
    (error: unknown) => error,
  )
  if (fetch.requests.length === 0) throw failure
  return fetch.requests[0]!.body as Body
}

const conversation: Message[] = [
  { role: 'system', content: 'Be brief.' },
  {
    role: 'user',
    content: [
      { type: 'text', text: 'Look.' },
      { type: 'image', data: Uint8Array.of(1, 2, 3), mediaType: 'image/png' },
      { type: 'image', data: 'aGVsbG8=', mediaType: 'image/jpeg' },
      { type: 'image', url: 'https://example.com/a.png' },
    ],
  },
  {
    role: 'assistant',
    content: [
      { type: 'text', text: 'Hm.' },
      { type: 'tool-call', toolCallId: 'call_1', toolName: 'ask', input: { message: 'Sure?' } },
      { type: 'tool-call', toolCallId: 'call_2', toolName: 'custom', input: { input: 'free text' } },
    ],
  },
  {
    role: 'tool',
    content: [
      { type: 'tool-result', toolCallId: 'call_1', output: { answer: 'yes' } },
      { type: 'tool-result', toolCallId: 'call_2', output: 'broken', isError: true },
    ],
  },
  { role: 'assistant', content: '' },
  { role: 'assistant', content: 'Done.' },
  { role: 'user', content: 'Thanks.' },
]

describe('a request becomes what the API takes', () => {
  test('the least there can be', async () => {
    expect(await bodyOf('openai', {})).toEqual({
      model: 'model-a',
      input: [{ role: 'user', content: 'Hello' }],
      stream: true,
      stream_options: { include_obfuscation: false },
    })
    expect(await bodyOf('openai-chat', {})).toEqual({
      model: 'model-a',
      messages: [{ role: 'user', content: 'Hello' }],
      stream: true,
      stream_options: { include_usage: true, include_obfuscation: false },
    })
  })

  test('a conversation, for Responses', async () => {
    const body = await bodyOf('openai', { system: 'One.', messages: conversation, tools: [ask, custom] })
    expect(body['instructions']).toBe('One.')
    expect(body.input).toEqual([
      { role: 'developer', content: 'Be brief.' },
      {
        role: 'user',
        content: [
          { type: 'input_text', text: 'Look.' },
          { type: 'input_image', image_url: 'data:image/png;base64,AQID', detail: 'auto' },
          { type: 'input_image', image_url: 'data:image/jpeg;base64,aGVsbG8=', detail: 'auto' },
          { type: 'input_image', image_url: 'https://example.com/a.png', detail: 'auto' },
        ],
      },
      { role: 'assistant', content: 'Hm.' },
      { type: 'function_call', call_id: 'call_1', name: 'ask', arguments: '{"message":"Sure?"}' },
      { type: 'custom_tool_call', call_id: 'call_2', name: 'custom', input: 'free text' },
      { type: 'function_call_output', call_id: 'call_1', output: '{"answer":"yes"}' },
      { type: 'custom_tool_call_output', call_id: 'call_2', output: '{"error":"broken"}' },
      { role: 'assistant', content: 'Done.' },
      { role: 'user', content: 'Thanks.' },
    ])
    const system = await bodyOf('openai', { messages: conversation }, { systemRole: 'system' })
    expect(system.input[0]).toEqual({ role: 'system', content: 'Be brief.' })
  })

  test('a conversation, for Chat', async () => {
    const body = await bodyOf('openai-chat', { system: 'One.', messages: conversation, tools: [ask, custom] })
    const first = { id: 'call_1', type: 'function', function: { name: 'ask', arguments: '{"message":"Sure?"}' } }
    const second = { id: 'call_2', type: 'custom', custom: { name: 'custom', input: 'free text' } }
    expect(body.messages).toEqual([
      { role: 'system', content: 'One.' },
      { role: 'system', content: 'Be brief.' },
      {
        role: 'user',
        content: [
          { type: 'text', text: 'Look.' },
          { type: 'image_url', image_url: { url: 'data:image/png;base64,AQID' } },
          { type: 'image_url', image_url: { url: 'data:image/jpeg;base64,aGVsbG8=' } },
          { type: 'image_url', image_url: { url: 'https://example.com/a.png' } },
        ],
      },
      { role: 'assistant', content: 'Hm.', tool_calls: [first, second] },
      { role: 'tool', tool_call_id: 'call_1', content: '{"answer":"yes"}' },
      { role: 'tool', tool_call_id: 'call_2', content: '{"error":"broken"}' },
      { role: 'assistant', content: 'Done.' },
      { role: 'user', content: 'Thanks.' },
    ])
    const developer = await bodyOf('openai-chat', { messages: conversation }, { systemRole: 'developer' })
    expect(developer.messages[0]).toEqual({ role: 'developer', content: 'Be brief.' })
  })

  test.for(apis)('%s: what is for somebody else is dropped, and `start` says so', async (api) => {
    const fetch = replayFetch(simulate('Fine.', { provider: api }))
    const stream = clientOf(api, fetch).stream({
      messages: [
        {
          role: 'user',
          content: [
            { type: 'provider', provider: 'other', value: { type: 'document' } },
            { type: 'provider', provider: api, value: { type: 'input_file', file_id: 'file_1' } },
          ],
        },
        {
          role: 'assistant',
          content: [
            { type: 'reasoning', text: 'Foreign.', metadata: { other: { signature: 'abc' } } },
            { type: 'provider', provider: 'other', value: { type: 'item' } },
            { type: 'text', text: 'Hi.', metadata: { other: { id: 1 } } },
          ],
        },
      ],
    })
    const { warnings } = await stream.final()
    expect(warnings.map(({ code }) => code)).toEqual(Array(3).fill('dropped-content'))
    const body = fetch.requests[0]!.body as Body
    expect(body.input ?? body.messages).toEqual([
      { role: 'user', content: [{ type: 'input_file', file_id: 'file_1' }] },
      { role: 'assistant', content: 'Hi.' },
    ])
  })

  test('tools go with their schemas, strict only where asked for', async () => {
    const strict = tool({ name: 'strict', strict: true })
    const search = tool({ name: 'search', definition: { openai: { type: 'web_search' } } })
    const parameters = { type: 'object', properties: { message: { type: 'string' } } }
    expect((await bodyOf('openai', { tools: [ask, strict, custom, search] }))['tools']).toEqual([
      { type: 'function', name: 'ask', description: 'Asks the user', parameters, strict: false },
      { type: 'function', name: 'strict', parameters: { type: 'object' }, strict: true },
      { type: 'custom', name: 'custom' },
      { type: 'web_search' },
    ])
    expect((await bodyOf('openai-chat', { tools: [ask, strict, custom] }))['tools']).toEqual([
      { type: 'function', function: { name: 'ask', description: 'Asks the user', parameters } },
      { type: 'function', function: { name: 'strict', parameters: { type: 'object' }, strict: true } },
      { type: 'custom', custom: { name: 'custom' } },
    ])
    expect((await bodyOf('openai', { tools: [search], toolChoice: search }))['tool_choice']).toEqual({
      type: 'web_search',
    })
    for (const api of apis) expect(await bodyOf(api, { tools: [] })).not.toHaveProperty('tools')
  })

  test.for([
    [undefined, undefined, undefined],
    ['auto', 'auto', 'auto'],
    ['none', 'none', 'none'],
    ['required', 'required', 'required'],
    [ask, { type: 'function', name: 'ask' }, { type: 'function', function: { name: 'ask' } }],
    [{ name: 'custom' }, { type: 'custom', name: 'custom' }, { type: 'custom', custom: { name: 'custom' } }],
  ] as const)('tool choice %j', async ([toolChoice, forResponses, forChat]) => {
    const request = { tools: [ask, custom], toolChoice }
    expect((await bodyOf('openai', request))['tool_choice']).toEqual(forResponses)
    expect((await bodyOf('openai-chat', request))['tool_choice']).toEqual(forChat)
  })

  test('the usual settings have their own names', async () => {
    const settings = { maxTokens: 5, temperature: 0, topP: 0.5, reasoning: { effort: 'low' } } as const
    expect(await bodyOf('openai', settings)).toMatchObject({
      max_output_tokens: 5,
      temperature: 0,
      top_p: 0.5,
      reasoning: { effort: 'low' },
    })
    expect(await bodyOf('openai-chat', { ...settings, stop: ['END'] })).toMatchObject({
      max_completion_tokens: 5,
      temperature: 0,
      top_p: 0.5,
      reasoning_effort: 'low',
      stop: ['END'],
    })
    const older = await bodyOf('openai-chat', settings, { maxTokensName: 'max_tokens' })
    expect(older).toHaveProperty('max_tokens', 5)
    expect(older).not.toHaveProperty('max_completion_tokens')
    expect((await bodyOf('openai', settings, { reasoningSummary: 'auto' }))['reasoning']).toEqual({
      effort: 'low',
      summary: 'auto',
    })
    expect(await bodyOf('openai', {}, { store: false })).toMatchObject({
      store: false,
      include: ['reasoning.encrypted_content'],
    })
    for (const api of apis) expect(await bodyOf(api, { stop: [] })).not.toHaveProperty('stop')
  })

  test('what the API cannot do is said, not left out', async () => {
    const unsupported = { name: 'UsageError', code: 'unsupported' }
    await expect(bodyOf('openai', { stop: ['END'] })).rejects.toMatchObject(unsupported)
    for (const api of apis)
      await expect(bodyOf(api, { reasoning: { budgetTokens: 100 } })).rejects.toMatchObject(unsupported)
  })

  test('the count of tokens can be left out, and padding is spoken of only to the public service', async () => {
    const options = { baseURL: 'https://gateway.example/v1' }
    expect((await bodyOf('openai-chat', {}, options))['stream_options']).toEqual({ include_usage: true })
    expect(await bodyOf('openai-chat', {}, { ...options, includeUsage: false })).not.toHaveProperty('stream_options')
  })

  test.for(apis)("%s: the provider's own options pass as they are, and win", async (api) => {
    const body = await bodyOf(api, {
      temperature: 1,
      providerOptions: { [api]: { seed: 5, temperature: 0.1 }, other: { seed: 9 } },
    })
    expect(body).toMatchObject({ seed: 5, temperature: 0.1 })
    expect(body).not.toHaveProperty('other')
  })

  test('a service of another name has its own options, metadata and errors', async () => {
    const options = { name: 'gateway' }
    const body = await bodyOf('openai-chat', { providerOptions: { gateway: { seed: 5 } } }, options)
    expect(body).toHaveProperty('seed', 5)
    const { error } = await watch('openai-chat', wire(said), options)
    expect(error).toMatchObject({ provider: 'gateway', code: 'stream_truncated' })
  })

  test.for([
    ['openai', '/v1/responses'],
    ['openai-chat', '/v1/chat/completions'],
  ] as const)('%s: key and headers go where they belong', async ([api, path]) => {
    const fetch = replayFetch(simulate('Fine.', { provider: api }))
    const options = { headers: { 'x-a': 'b' }, baseURL: 'https://gateway.example/v1' }
    await clientOf(api, fetch, options).stream({ messages }).final()
    const { url, method, headers } = fetch.requests[0]!
    expect([method, url]).toEqual(['POST', `https://gateway.example${path}`])
    expect(headers.get('authorization')).toBe(`Bearer ${key}`)
    expect(headers.get('x-a')).toBe('b')
  })

  test.for(apis)('%s: `raw` brings every event of the wire, in order', async (api) => {
    const stream = clientOf(api, replayFetch(wire(...good[api]))).stream({ messages, raw: true })
    const raw: unknown[] = []
    for await (const event of stream) if (event.type === 'raw') raw.push(event.value)
    expect(raw).toEqual(good[api].filter((event) => event !== done))
  })
})

describe.each(apis)('%s: an error is one that can be acted on', (api) => {
  const failure = (status: number, error: object, headers: Record<string, string> = {}): Recording => ({
    status,
    headers: { 'content-type': 'application/json', 'x-request-id': 'req_1', ...headers },
    body: JSON.stringify({ error: { message: providersWords, ...error } }),
  })

  test.for([
    [400, { type: 'invalid_request_error', code: 'context_length_exceeded' }, 'bad_request', false],
    [401, { type: 'invalid_request_error', code: 'invalid_api_key' }, 'authentication', false],
    [403, { type: 'permission_error', code: null }, 'permission', false],
    [404, { type: 'invalid_request_error', code: 'model_not_found' }, 'not_found', false],
    [429, { type: 'tokens', code: 'rate_limit_exceeded' }, 'rate_limited', true],
    [429, { type: 'insufficient_quota', code: 'insufficient_quota' }, 'quota_exhausted', false],
    [500, { type: 'server_error', code: null }, 'server_error', true],
    [503, { type: 'server_error', code: 'overloaded' }, 'overloaded', true],
  ] as const)('status %i %j', async ([status, error, code, retryable]) => {
    const { error: caught, events } = await watch(api, failure(status, error, { 'retry-after': '7' }))
    expect(caught).toMatchObject({ name: 'HttpError', code, retryable, status, phase: 'connect', provider: api })
    expect(caught).toMatchObject({ providerCode: error.code ?? error.type, requestId: 'req_1', retryAfterMs: 7000 })
    expect(caught.providerMessage).toBe(providersWords)
    expect(events).toEqual([])
  })

  test('the SDK does not retry by itself', async () => {
    const fetch = replayFetch(failure(500, {}))
    const sdk = new OpenAI({ apiKey: key, fetch, maxRetries: 5 })
    await watch(api, fetch)
    await watchClient(new StreamingLLMClient({ provider: providerOf(api, { client: sdk }) }))
    expect(fetch.requests.length).toBe(2)
  })

  test.for<[unknown, string, number]>([
    [{ code: 'rate_limit_exceeded' }, 'rate_limited', 429],
    [{ code: 'insufficient_quota', type: 'insufficient_quota' }, 'quota_exhausted', 429],
    [{ type: 'invalid_request_error', code: 'tool_use_failed', status_code: 400 }, 'bad_request', 400],
    [{ code: 502 }, 'server_error', 502],
    [{ code: '503' }, 'overloaded', 503],
    [{ type: 'server_error' }, 'server_error', 500],
    [{}, 'server_error', 500],
  ])('reported in the stream: %j', async ([report, code, status]) => {
    const error = { ...(report as { code?: unknown }), message: providersWords }
    const shapes = [
      wire({ error }),
      `event: error\n${wire({ error })}`,
      `event: error\n${wire({ type: 'error', error })}`,
      `error: ${JSON.stringify(error)}\n\n`,
      `${JSON.stringify({ error })}\n`,
      ...(api === 'openai'
        ? [
            ...('code' in error ? [wire({ ...error, type: 'error' })] : []),
            wire({ type: 'response.failed', response: response({ error }) }),
          ]
        : [wire({ ...said, choices: [], error })]),
    ]
    for (const shape of shapes) {
      const body = wire(...begun[api]) + shape
      for (const chunks of [body.length, 1]) {
        const { error: caught, text, response: result } = await watch(api, replayFetch(body, { chunks }))
        expect(caught, shape).toMatchObject({ name: 'HttpError', phase: 'stream', code, status })
        expect(caught.providerMessage).toBe(providersWords)
        expect(text).toBe(output)
        expect(result).toBeUndefined()
      }
    }
    // The SDK's own iterator throws it.
    const sdk = new OpenAI({ apiKey: key, fetch: replayFetch(wire(...begun[api], { type: 'error', error })) })
    const { error: thrown } = await read(await sdkEvents(api, sdk))
    expectQuiet(thrown)
    expect(thrown).toMatchObject({ name: 'HttpError', code, status })
  })

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
    ['only comments and a farewell', { body: ': hello\n\ndata: [DONE]\n\n' }, 'empty_response'],
    ['an event that is no JSON', { body: `data: {"${output}\n\n` }, 'stream_protocol'],
    ['null', { body: 'data: null\n\n' }, 'stream_protocol'],
  ])('no stream of an answer: %s', async ([, recording, code]) => {
    const { error, response: result } = await watch(api, recording)
    expect(error).toMatchObject({ name: 'StreamError', code, retryable: true, provider: api })
    expect(result).toBeUndefined()
  })

  test('an error as JSON under status 200 is that error', async () => {
    const body = JSON.stringify({ error: { code: 'invalid_api_key', message: providersWords } })
    const { error } = await watch(api, { body, headers: { 'content-type': 'application/json' } })
    expect(error).toMatchObject({ code: 'authentication', retryable: false })
  })

  test('`[DONE]` before the end of the answer is no end', async () => {
    const { error, text } = await watch(api, wire(...begun[api], done))
    expect(error).toMatchObject({ code: 'stream_truncated', retryable: true })
    expect(text).toBe(output)
  })

  test('nothing after the end counts', async () => {
    for (const rest of [wire({ error: { code: 500 } }), wire(...begun[api]), `data: {"${output}\n\n`]) {
      for (const chunks of [10_000, 1]) {
        const { response: result } = await watch(api, replayFetch(wire(...good[api]) + rest, { chunks }))
        expect(result).toMatchObject({ text: output, finishReason: 'stop', usage: { inputTokens: 7 } })
      }
    }
  })

  test('nothing is ever written to the console', async () => {
    const methods = (['log', 'info', 'warn', 'error', 'debug', 'trace'] as const).map((name) => vi.spyOn(console, name))
    onTestFinished(() => methods.forEach((method) => method.mockRestore()))
    for (const body of [wire(...good[api]), wire(`{"${output}`), wire(...begun[api], { error: {} })])
      await watch(api, body)
    for (const method of methods) expect(method).not.toHaveBeenCalled()
  })
})

async function sdkEvents(api: Api, sdk: OpenAI) {
  return api === 'openai'
    ? toStreamEvents(await sdk.responses.create({ model: 'a', input: '', stream: true }))
    : toChatStreamEvents(await sdk.chat.completions.create({ model: 'a', messages: [], stream: true }))
}

describe('Responses: what breaks the protocol is an error, and what is merely new is not', () => {
  test.for<[string, unknown[]]>([
    ['text for an item that never began', [{ ...textDelta, output_index: 5 }]],
    ['text for an item that has ended', [messageDone, textDelta]],
    ['an item that begins twice', [messageAdded]],
    ['an item that never ends', [completed]],
    ['a call that never ends', [messageDone, callAdded, callDelta('{}'), completed]],
    ['text that is no string', [{ ...textDelta, delta: 5 }]],
    ['arguments that are no string', [callAdded, callDelta(5)]],
    ['a call without id', [{ ...callAdded, item: { ...callItem, call_id: undefined } }]],
    ['a call without name', [{ ...callAdded, item: { ...callItem, name: undefined } }]],
    ['two calls with one id', [callAdded, callDone('{}'), callAdded]],
    ['an item that is none', [{ type: 'response.output_item.added', output_index: 9 }]],
    ['arguments that are not what their pieces were', [callAdded, callDelta('{}'), callDone('{"a":1}')]],
    [
      'arguments that end otherwise than their pieces',
      [
        callAdded,
        callDelta('{}'),
        { type: 'response.function_call_arguments.done', output_index: 1, arguments: '{ }' },
      ],
    ],
    ['an end for a reason not known', [messageDone, incomplete('steered')]],
    ['an end without a response', [messageDone, { type: 'response.completed' }]],
  ])('%s', async ([, events]) => {
    const body = wire(created, messageAdded, textDelta, ...events)
    for (const chunks of [body.length, 1]) {
      const { error, text, response: result } = await watch('openai', replayFetch(body, { chunks }))
      expect(error).toMatchObject({ name: 'StreamError', code: 'stream_protocol', retryable: true })
      expect(text).toBe(output)
      expect(result).toBeUndefined()
    }
  })

  test('new events and items are tolerated, and new items kept for the next turn', async () => {
    const dream = { id: 'dr_1', type: 'dream', story: 'Once' }
    const body = wire(
      created,
      { type: 'keepalive' },
      { type: 'response.output_item.added', output_index: 2, item: { ...dream, story: '' } },
      { type: 'response.dream.delta', output_index: 2, delta: 'Once' },
      { type: 'response.output_item.done', output_index: 2, item: dream },
      ...goodResponse.slice(1),
    )
    const { response: result } = await watch('openai', body)
    expect(result!.messages[0]!.content).toEqual([
      { type: 'provider', provider: 'openai', value: dream },
      { type: 'text', text: output, metadata: { openai: { id: 'msg_1' } } },
    ])
  })

  test('whole arguments, texts and items serve where no pieces came', async () => {
    const argumentsDone = {
      type: 'response.function_call_arguments.done',
      output_index: 1,
      arguments: '{"message":"a"}',
    }
    for (const events of [
      [messageAdded, { ...textDelta, type: 'response.output_text.done', delta: undefined, text: output }, messageDone],
      [messageDone],
    ].map((some) => some.map((event) => JSON.parse(JSON.stringify(event)) as unknown))) {
      for (const calls of [[callAdded, argumentsDone, callDone('{"message":"a"}')], [callDone('{"message":"a"}')]]) {
        const { response: result } = await watch('openai', wire(created, ...events, ...calls, completed))
        expect(result).toMatchObject({ text: output, toolCalls: [{ input: { message: 'a' } }] })
      }
    }
  })

  test.for([
    ['max_output_tokens', undefined, 'length'],
    ['max_messages', undefined, 'pause'],
    ['content_filter', 'content_filtered', undefined],
  ] as const)('left incomplete: %s', async ([reason, code, finishReason]) => {
    for (const events of [[messageDone], []]) {
      const body = wire(created, messageAdded, textDelta, ...events, incomplete(reason))
      const { error, response: result } = await watch('openai', body)
      expect(error?.code).toBe(code)
      expect(result?.finishReason).toBe(finishReason)
    }
  })

  test('a call at the token limit is never an answer, even where its arguments parse', async () => {
    for (const events of [[callAdded], [callAdded, callDelta('{}')], [callAdded, callDelta('{}'), callDone('{}')]]) {
      const { error } = await watch('openai', wire(created, ...events, incomplete('max_output_tokens')))
      expect(error).toMatchObject({ code: 'output_truncated', toolName: 'ask', toolCallId: 'call_1' })
    }
  })

  test('of two calls at the token limit the one that was cut is named, and the other known to be whole', async () => {
    const second = { ...callItem, call_id: 'call_2', arguments: '{}', status: 'incomplete' }
    const cut = { type: 'response.output_item.done', output_index: 2, item: second }
    const body = wire(created, callAdded, callDone('{}'), cut, incomplete('max_output_tokens'))
    const { error } = await watch('openai', body)
    expect(error).toMatchObject({ code: 'output_truncated', toolCallId: 'call_2' })
    expect(error.partial!.toolCalls.map(({ complete }) => complete)).toEqual([true, false])
  })

  test('the free text of a custom tool arrives as a field, and goes back as free text', async () => {
    const item = { id: 'ctc_1', type: 'custom_tool_call', call_id: 'call_9', name: 'custom', input: '' }
    const text = 'SELECT "a"\n\t\\ 🎉'
    const place = { type: 'response.custom_tool_call_input.delta', output_index: 0 }
    const body = wire(
      created,
      { type: 'response.output_item.added', output_index: 0, item },
      ...Array.from({ length: text.length }, (_, i) => ({ ...place, delta: text[i] })),
      { type: 'response.custom_tool_call_input.done', output_index: 0, input: text },
      { type: 'response.output_item.done', output_index: 0, item: { ...item, input: text, status: 'completed' } },
      completed,
    )
    const fetch = replayFetch([body, simulate('Fine.', { provider: 'openai' })])
    const { events, response: result } = await watch('openai', fetch, {}, [ask, custom])
    expect(events.map((event) => (event.type === 'field-delta' ? event.delta : '')).join('')).toBe(text)
    expect(result!.toolCalls).toEqual([{ toolCallId: 'call_9', toolName: 'custom', input: { input: text } }])
    const results: Message = { role: 'tool', content: [{ type: 'tool-result', toolCallId: 'call_9', output: 'ok' }] }
    await clientOf('openai', fetch)
      .stream({ messages: [...messages, ...result!.messages, results] })
      .final()
    expect((fetch.requests[1]!.body as Body).input.slice(1)).toEqual([
      { ...item, input: text, status: 'completed' },
      { type: 'custom_tool_call_output', call_id: 'call_9', output: 'ok' },
    ])
    // One that the request does not offer is the service's own.
    const { response: other } = await watch('openai', body)
    expect(other).toMatchObject({ toolCalls: [], finishReason: 'stop' })
  })
})

describe('Chat: servers differ, and the calls are the same', () => {
  const first = { id: 'call_1', type: 'function', function: { name: 'ask', arguments: '' } }
  const twoCalls = [{ message: 'a' }, { message: 'b' }]
  const json = (i: number) => JSON.stringify(twoCalls[i])
  const fn = (i: number, name?: unknown) => ({ function: { arguments: json(i), ...(name !== undefined && { name }) } })

  test.for<[string, unknown[]]>([
    [
      'as OpenAI sends them',
      [
        call({ index: 0, ...first }),
        call({ index: 0, ...fn(0) }),
        call({ index: 1, ...first, id: 'call_2' }),
        call({ index: 1, ...fn(1) }),
      ],
    ],
    [
      'interleaved',
      [
        call({ index: 0, ...first }),
        call({ index: 1, ...first, id: 'call_2' }),
        call({ index: 0, function: { arguments: '{"message":' } }),
        call({ index: 1, ...fn(1) }),
        call({ index: 0, function: { arguments: '"a"}' } }),
      ],
    ],
    ['without an index', [call({ ...first, ...fn(0, 'ask') }), call({ ...first, id: 'call_2' }), call(fn(1))]],
    [
      'all with index -1',
      [call({ index: -1, ...first, ...fn(0, 'ask') }), call({ index: -1, ...first, id: 'call_2', ...fn(1, 'ask') })],
    ],
    [
      'all with index 0, and empty ids later',
      [
        call({ index: 0, ...first }),
        call({ index: 0, id: '', ...fn(0, '') }),
        call({ index: 0, ...first, id: 'call_2' }),
        call({ index: 0, id: null, ...fn(1, null) }),
        call({ index: 0, function: { arguments: null } }),
      ],
    ],
    [
      'in one chunk, with id and name repeated',
      [
        chunk({
          tool_calls: [
            { index: 0, ...first },
            { index: 1, ...first, id: 'call_2' },
          ],
        }),
        call({ index: 1, id: 'call_2', ...fn(1, 'ask') }),
        call({ index: 0, id: 'call_1', ...fn(0, 'ask') }),
      ],
    ],
    [
      'arguments before the name, and the id last',
      [
        call({ index: 0, function: { arguments: '{"message"' } }),
        call({ index: 0, id: 'call_1', function: { name: 'ask', arguments: ':"a"}' } }),
        call({ index: 1, ...first, id: 'call_2', ...fn(1, 'ask') }),
      ],
    ],
  ])('%s', async ([, events]) => {
    for (const reason of ['tool_calls', 'stop', 'function_call']) {
      const { response: result, error } = await watch('openai-chat', wire(...events, chunk({}, reason), done))
      expect(error).toBeUndefined()
      expect(result!.toolCalls).toEqual(
        twoCalls.map((input, i) => ({ toolCallId: `call_${i + 1}`, toolName: 'ask', input })),
      )
      expect(result!.finishReason).toBe('tool-calls')
    }
  })

  test('calls without any id get one', async () => {
    const events = [
      call({ index: 0, id: '', function: { name: 'ask', arguments: '{}' } }),
      call({ index: 1, function: { name: 'ask', arguments: '{}' } }),
    ]
    const { response: result } = await watch('openai-chat', wire(...events, chunk({}, 'tool_calls')))
    const ids = result!.toolCalls.map(({ toolCallId }) => toolCallId)
    expect(new Set(ids).size).toBe(2)
    expect(ids[0]).toContain('chat_1')
  })

  test.for<[string, unknown[]]>([
    ['choices that are no list', [{ ...said, choices: 5 }]],
    ['a choice that is none', [{ ...said, choices: [5] }]],
    ['a delta that is none', [{ ...said, choices: [{ index: 0, delta: 5 }] }]],
    ['text that is no string', [chunk({ content: 5 })]],
    ['a refusal that is no string', [chunk({ refusal: 5 })]],
    ['calls that are no list', [chunk({ tool_calls: 5 })]],
    ['a call that is none', [chunk({ tool_calls: [5] })]],
    ['arguments that are no string', [call({ index: 0, ...first }), call({ index: 0, function: { arguments: 5 } })]],
    ['a call without a name', [call({ index: 0, id: 'call_1', function: { arguments: '{}' } }), stop, done]],
  ])('broken: %s', async ([, events]) => {
    const body = wire(said, ...events)
    for (const chunks of [body.length, 1]) {
      const { error, text } = await watch('openai-chat', replayFetch(body, { chunks }))
      expect(error).toMatchObject({ name: 'StreamError', code: 'stream_protocol' })
      expect(text).toBe(output)
    }
  })

  test.for([
    ['length', undefined, 'length'],
    ['model_length', undefined, 'length'],
    ['content_filter', 'content_filtered', undefined],
    ['brand_new', undefined, 'other'],
    ['insufficient_system_resource', 'overloaded', undefined],
    ['error', 'server_error', undefined],
  ] as const)('ended by %s', async ([reason, code, finishReason]) => {
    const { error, response: result } = await watch(
      'openai-chat',
      wire(said, chunk({}, reason), chunk({}, 'stop'), done),
    )
    expect(error?.code).toBe(code)
    if (reason !== 'brand_new') expect(result?.finishReason).toBe(finishReason)
    else expect((await watch('openai-chat', wire(said, chunk({}, reason), done))).response?.finishReason).toBe('other')
  })

  test('a call at the token limit is never an answer, and those before it are known to be whole', async () => {
    const events = [
      call({ index: 0, ...first, ...fn(0, 'ask') }),
      call({ index: 1, ...first, id: 'call_2', ...fn(1, 'ask') }),
    ]
    const { error } = await watch('openai-chat', wire(...events, chunk({}, 'length'), done))
    expect(error).toMatchObject({ code: 'output_truncated', toolCallId: 'call_2' })
    expect(error.partial!.toolCalls.map(({ complete }) => complete)).toEqual([true, false])
  })

  test('a refusal is an error with the words apart', async () => {
    const { error } = await watch(
      'openai-chat',
      wire(chunk({ refusal: 'planted ' }), chunk({ refusal: 'no.' }), stop, done),
    )
    expect(error).toMatchObject({ name: 'OutputError', code: 'refused' })
    expect(error.providerMessage).toBe('planted no.')
  })

  test.for<[string, string[], string, string]>([
    ['in one piece', ['<think>\nHm.</think>\n\nYes.'], 'Hm.', 'Yes.'],
    [
      'cut everywhere',
      Array.from('<think>a < b</thin</think>\n\nYes. <think>no</think>'),
      'a < b</thin',
      'Yes. <think>no</think>',
    ],
    ['never closed', ['<think>', 'Hm', '.</thi'], 'Hm.</thi', ''],
    ['not at the beginning', ['Yes. <think>Hm.</think>'], '', 'Yes. <think>Hm.</think>'],
    ['something like it', ['<thin', 'ner>'], '', '<thinner>'],
    ['only its beginning', ['\n', '<thi'], '', '\n<thi'],
  ])('<think> text: %s', async ([, pieces, reasoning, text]) => {
    const body = wire(...pieces.map((content) => chunk({ content })), stop, done)
    const { response: result } = await watch('openai-chat', body)
    expect(result).toMatchObject({ reasoning, text })
    const plain = await watch('openai-chat', body, { thinkTags: false })
    expect(plain.response).toMatchObject({ reasoning: '', text: pieces.join('') })
  })

  test('reasoning goes back in the field it came in, with details and signatures put together', async () => {
    const detail = { type: 'reasoning.text', index: 0 }
    const encrypted = { type: 'reasoning.encrypted', index: 1, data: 'xyz' }
    const body = wire(
      chunk({ reasoning: 'Hm', reasoning_details: [{ ...detail, text: 'Hm' }] }),
      chunk({ reasoning: '.', reasoning_details: [{ ...detail, text: '.' }] }),
      chunk({ reasoning_details: [{ ...detail, signature: 'abc' }] }),
      chunk({ content: 'Yes.', annotations: [{ type: 'url_citation' }] }),
      call({ index: 0, ...first, ...fn(0, 'ask'), extra_content: { signature: 's' } }),
      chunk({ reasoning_details: [encrypted] }),
      chunk({}, 'tool_calls'),
      done,
    )
    const fine = simulate('Fine.', { provider: 'openai-chat' })
    const fetch = replayFetch([body, fine, fine])
    const { response: result } = await watch('openai-chat', fetch)
    expect(result!.reasoning).toBe('Hm.')
    const next = { messages: [...messages, ...result!.messages] }
    await clientOf('openai-chat', fetch).stream(next).final()
    const answer = {
      role: 'assistant',
      content: 'Yes.',
      annotations: [{ type: 'url_citation' }],
      tool_calls: [{ ...first, function: { name: 'ask', arguments: json(0) }, extra_content: { signature: 's' } }],
    }
    expect((fetch.requests[1]!.body as Body).messages[1]).toEqual({
      ...answer,
      reasoning: 'Hm.',
      reasoning_details: [{ ...detail, text: 'Hm.', signature: 'abc' }, encrypted],
    })
    await clientOf('openai-chat', fetch, { sendReasoning: false }).stream(next).final()
    expect((fetch.requests[2]!.body as Body).messages[1]).toEqual(answer)
  })

  test('tokens are counted the same, whatever a server calls them', async () => {
    const cases: [object, object][] = [
      [
        { prompt_tokens: 7, completion_tokens: 3 },
        { inputTokens: 7, outputTokens: 3, totalTokens: 10 },
      ],
      // Reasoning beside the answer, not in it.
      [
        {
          prompt_tokens: 7,
          completion_tokens: 3,
          total_tokens: 15,
          completion_tokens_details: { reasoning_tokens: 5 },
        },
        { outputTokens: 8, totalTokens: 15, reasoningTokens: 5 },
      ],
      [{ prompt_tokens: 7, prompt_tokens_details: { cached_tokens: 4 } }, { cacheReadTokens: 4 }],
      [{ prompt_tokens: 7, prompt_cache_hit_tokens: 4 }, { cacheReadTokens: 4 }],
      [{ prompt_tokens: 7, num_cached_tokens: 4 }, { cacheReadTokens: 4 }],
    ]
    for (const [sent, expected] of cases) {
      for (const last of [
        { ...usageChunk, usage: sent },
        { ...usageChunk, usage: null, x_groq: { usage: sent } },
      ]) {
        const { response: result } = await watch('openai-chat', wire(said, stop, last, done))
        expect(result!.usage).toMatchObject({ ...expected, raw: sent })
      }
    }
  })

  test('an error after the finish reason counts, as long as the answer is not over', async () => {
    const { error } = await watch('openai-chat', wire(said, stop, { ...usageChunk, error: { code: 502 } }, done))
    expect(error).toMatchObject({ code: 'server_error', status: 502, usage: { inputTokens: 7 } })
  })
})

// eslint-disable-next-line @typescript-eslint/require-await
async function* iterate(...events: unknown[]): AsyncGenerator {
  yield* events
}

function structuralClient(events: () => AsyncIterable<unknown>) {
  const create = vi.fn((_body: never, _options?: never) => Promise.resolve(events()))
  return { responses: { create }, chat: { completions: { create } } }
}

describe.each(apis)('%s: any client, any way to give a key', (api) => {
  test('an SDK client that is set up already', async () => {
    const fetch = replayFetch(simulate('Fine.', { provider: api }))
    const sdk = new OpenAI({ apiKey: 'another', fetch, baseURL: 'https://gateway.example' })
    const client = new StreamingLLMClient({ provider: providerOf(api, { client: sdk, headers: { 'x-a': 'b' } }) })
    expect((await client.stream({ messages }).final()).text).toBe('Fine.')
    expect(fetch.requests[0]!.headers.get('authorization')).toBe('Bearer another')
    expect(fetch.requests[0]!.headers.get('x-a')).toBe('b')
  })

  test('a client of Azure', async () => {
    const fetch = replayFetch(simulate('Fine.', { provider: api }))
    const sdk = new AzureOpenAI({ apiKey: 'a', fetch, endpoint: 'https://a.example', apiVersion: '2025-04-01-preview' })
    const client = new StreamingLLMClient({ provider: providerOf(api, { client: sdk }) })
    expect((await client.stream({ messages }).final()).text).toBe('Fine.')
    expect(fetch.requests[0]!.url).toContain('https://a.example/openai/')
  })

  test('anything with the same method; a cut or broken iterator is an error as over our own reading', async () => {
    const sdk = structuralClient(() => iterate(...good[api].filter((event) => event !== done)))
    const { response: result } = await watchClient(
      new StreamingLLMClient({ provider: providerOf(api, { client: sdk }) }),
    )
    expect(result!.text).toBe(output)
    const [body, options] = sdk.responses.create.mock.calls[0]! as unknown[]
    expect(body).toMatchObject({ model: 'model-a', stream: true })
    expect(options).toMatchObject({ maxRetries: 0, signal: expect.any(AbortSignal) as AbortSignal })
    const broken = async function* () {
      yield* begun[api]
      await Promise.resolve()
      throw new TypeError('terminated')
    }
    for (const [events, code] of [
      [() => iterate(), 'empty_response'],
      [() => iterate(...begun[api]), 'stream_truncated'],
      [broken, 'stream_truncated'],
      [() => iterate(null), 'stream_protocol'],
    ] as const) {
      const provider = providerOf(api, { client: structuralClient(events) })
      expect((await watchClient(new StreamingLLMClient({ provider }))).error.code).toBe(code)
    }
  })

  test("aborting one's own SDK stream is an abort, not a cut", async () => {
    const fetch = replayFetch(simulate('Fine.', { provider: api }), { delayMs: 5 })
    const sdk = new OpenAI({ apiKey: key, fetch })
    const stream =
      api === 'openai'
        ? await sdk.responses.create({ model: 'a', input: '', stream: true })
        : await sdk.chat.completions.create({ model: 'a', messages: [], stream: true })
    const accumulator = new ToolStreamAccumulator()
    const run = async () => {
      for await (const event of (api === 'openai' ? toStreamEvents : toChatStreamEvents)(stream as never)) {
        accumulator.push(event)
        if (event.type === 'text-delta') stream.controller.abort('enough')
      }
    }
    await expect(run()).rejects.toMatchObject({ name: 'AbortError', code: 'aborted', reason: 'enough' })
  })

  test('without a key the first request says how to give one, and the next may have it', async () => {
    vi.stubEnv('OPENAI_API_KEY', undefined)
    vi.stubEnv('OPENAI_BASE_URL', undefined)
    const fetch = vi.spyOn(globalThis, 'fetch').mockImplementation(replayFetch(simulate('Fine.', { provider: api })))
    onTestFinished(() => fetch.mockRestore())
    const client = new StreamingLLMClient({ provider: providerOf(api) })
    await expect(client.stream({ messages }).final()).rejects.toMatchObject({
      name: 'UsageError',
      code: 'invalid_argument',
      message: expect.stringContaining('OPENAI_API_KEY') as string,
    })
    expect(fetch).not.toHaveBeenCalled()
    vi.stubEnv('OPENAI_API_KEY', key)
    expect((await client.stream({ messages }).final()).text).toBe('Fine.')
  })

  test('a server of your own needs no key', async () => {
    vi.stubEnv('OPENAI_API_KEY', undefined)
    const fetch = replayFetch(simulate('Fine.', { provider: api }))
    const client = new StreamingLLMClient({ provider: providerOf(api, { fetch, baseURL: 'http://localhost:1/v1' }) })
    expect((await client.stream({ messages }).final()).text).toBe('Fine.')
  })

  test('without the SDK the first request says what to install', async () => {
    vi.doMock('openai', () => {
      throw new Error('Cannot find package')
    })
    onTestFinished(() => {
      vi.doUnmock('openai')
    })
    const { error } = await watch(api, simulate('Fine.', { provider: api }))
    expect(error).toMatchObject({ name: 'UsageError', code: 'missing_dependency', retryable: false })
    expect(error.message).toContain('npm install openai')
  })

  test('a key that HTTP cannot carry is named, not printed', async () => {
    const { error } = await watch(api, simulate('Fine.', { provider: api }), { apiKey: `${key}\nx` })
    expect(error).toMatchObject({ name: 'UsageError', code: 'invalid_argument', retryable: false })
  })

  test('a wrong call is refused at once', () => {
    const client = structuralClient(() => iterate())
    expect(() => providerOf(api, { model: '' })).toThrow(UsageError)
    expect(() => providerOf(api, { client, apiKey: key })).toThrow('`apiKey`')
    expect(() => providerOf(api, { client, baseURL: 'https://example.com' })).toThrow('`baseURL`')
    expect(() => providerOf(api, { client, fetch: replayFetch('') })).toThrow('`fetch`')
  })
})

/** A real server on the loopback. */
async function serve(api: Api, answer: (request: IncomingMessage, response: ServerResponse) => void) {
  const sockets: Socket[] = []
  const server = createServer((request, reply) => {
    request.resume()
    answer(request, reply)
  })
  server.on('connection', (socket: Socket) => sockets.push(socket))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  const baseURL = `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`
  const provider = providerOf(api, { apiKey: key, baseURL })
  return { client: new StreamingLLMClient({ provider }), sockets, baseURL }
}

const streamHeaders = { 'content-type': 'text/event-stream', 'x-request-id': 'req_1' }

/** Resolves with the milliseconds from now until a socket is closed. */
async function untilClosed(socket: Socket): Promise<number> {
  const from = performance.now()
  if (!socket.destroyed) await new Promise((resolve) => socket.once('close', resolve))
  return performance.now() - from
}

describe.each(apis)('%s: over a real connection', (api) => {
  test('a connection that dies in the middle', async () => {
    const { client } = await serve(api, (request, reply) => {
      reply.writeHead(200, streamHeaders)
      reply.write(wire(...begun[api]), () => setTimeout(() => request.socket.destroy(), 10))
    })
    const { error, text } = await watchClient(client)
    expect(error).toMatchObject({ name: 'StreamError', code: 'stream_truncated', retryable: true, requestId: 'req_1' })
    expect(text).toBe(output)
  })

  test('leaving the loop closes the connection', async () => {
    const { client, sockets } = await serve(api, (_, reply) => {
      reply.writeHead(200, streamHeaders).write(wire(...begun[api]))
    })
    const stream = client.stream({ messages })
    for await (const event of stream) if (event.type === 'text-delta') break
    expect(await untilClosed(sockets[0]!)).toBeLessThan(100)
    await expect(stream.final()).rejects.toMatchObject({ name: 'AbortError', reason: 'consumer_return' })
  })

  test.for(['before headers', 'in the middle', 'after the evidence'])(
    'an aborted signal closes the connection %s',
    async (when) => {
      const arrived = Promise.withResolvers<undefined>()
      const { client, sockets } = await serve(api, (_, reply) => {
        if (when !== 'before headers') reply.writeHead(200, streamHeaders).write(wire(...begun[api]))
        // Where more may follow the evidence, the answer is not there yet.
        if (when === 'after the evidence' && api === 'openai-chat') reply.write(wire(stop))
        arrived.resolve(undefined)
      })
      const controller = new AbortController()
      const stream = client.stream({ messages, signal: controller.signal })
      const final = stream.final()
      await (when === 'before headers' ? arrived.promise : new Promise((resolve) => stream.on('text-delta', resolve)))
      await new Promise((resolve) => setTimeout(resolve, 20))
      controller.abort('user pressed stop')
      const from = performance.now()
      await expect(final).rejects.toMatchObject({ name: 'AbortError', reason: 'user pressed stop' })
      expect(performance.now() - from).toBeLessThan(50)
      expect(await untilClosed(sockets[0]!)).toBeLessThan(100)
    },
  )

  test('the answer is there with its last event, though the server keeps the connection open', async () => {
    const { client, sockets } = await serve(api, (_, reply) => {
      reply.writeHead(200, streamHeaders).write(wire(...good[api]))
    })
    const from = performance.now()
    expect((await client.stream({ messages }).final()).text).toBe(output)
    expect(performance.now() - from).toBeLessThan(500)
    expect(await untilClosed(sockets[0]!)).toBeLessThan(1500)
  })
})

describe('Chat: a server that says neither `[DONE]` nor goodbye', () => {
  test('is waited for no longer than a second after the finish reason, over our reading and over an iterator', async () => {
    const closed: Promise<unknown>[] = []
    const { client, baseURL } = await serve('openai-chat', (_, reply) => {
      closed.push(new Promise((resolve) => reply.once('close', resolve)))
      reply.writeHead(200, streamHeaders).write(wire(said, stop))
      setTimeout(() => reply.write(wire(usageChunk)), 50)
    })
    const from = performance.now()
    const sdk = new OpenAI({ apiKey: key, baseURL })
    const [result, events] = await Promise.all([
      client.stream({ messages }).final(),
      sdkEvents('openai-chat', sdk).then((iterable) => read(iterable)),
    ])
    expect(performance.now() - from).toBeLessThan(1600)
    expect(result).toMatchObject({ text: output, usage: { inputTokens: 7 } })
    expect(events.events.at(-1)).toMatchObject({ type: 'finish', usage: { inputTokens: 7 } })
    await Promise.all(closed)
    expect(closed.length).toBe(2)
    expect(performance.now() - from).toBeLessThan(3000)
  })

  test('and one that breaks off after the finish reason has answered', async () => {
    const { client } = await serve('openai-chat', (request, reply) => {
      reply.writeHead(200, streamHeaders).write(wire(said, stop), () => request.socket.destroy())
    })
    expect((await watchClient(client)).response!.text).toBe(output)
  })
})

describe('simulate() says the same in every format', () => {
  test('field events, text, reasoning and calls', async () => {
    const input = { message: 'Wie viele Gäste? 🎉', options: ['few', 'many'] }
    const runs = []
    for (const provider of apis) {
      const { events } = await watch(
        provider,
        simulate(input, { provider, text: 'So:', reasoning: 'Hm.', tool: 'ask' }),
      )
      const told = events.filter(({ type }) => /^(field|text|reasoning|tool-call$)/.test(type))
      runs.push(told.map((event) => JSON.stringify({ ...event, seq: 0, toolCallId: '' })))
    }
    expect(runs[0]!.length).toBeGreaterThan(4)
    expect(runs[1]).toEqual(runs[0])
  })

  test.for(['stop', 'length', 'refusal', 'content-filter'] as const)('an answer that ends with %s', async (reason) => {
    for (const api of apis) {
      const { response: result, error } = await watch(api, simulate('Text.', { provider: api, finishReason: reason }))
      const codes = { refusal: 'refused', 'content-filter': 'content_filtered' } as Record<string, string>
      expect(error?.code ?? result?.finishReason).toBe(codes[reason] ?? reason)
    }
  })
})
