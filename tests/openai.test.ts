import OpenAI, { AzureOpenAI } from 'openai'
import {
  type LLMError,
  type Message,
  outputFormat,
  type Provider,
  StreamingLLMClient,
  type StreamRequest,
  type Tool,
  tool,
  ToolStreamAccumulator,
} from 'fieldstream'
import {
  openai,
  openaiChat,
  type OpenAIChatOptions,
  type OpenAIOptions,
  toChatStreamEvents,
  toStreamEvents,
} from 'fieldstream/openai'
import { replayFetch, type ReplaySource, simulate } from 'fieldstream/testing'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { serve, untilClosed } from './conformance/connections.ts'
import { ask, key, messages, output, read, watchClient as watchRun } from './conformance/run.ts'
import { pieces } from './support.ts'

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
const call = (members: object) => chunk({ tool_calls: [members] })

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
  const { error, ...run } = await watchRun(client, { tools })
  return { ...run, error: error as LLMError }
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
    const strict = tool({ name: 'strict', strict: true, input: { properties: {} } })
    const none = { type: 'object', properties: {}, additionalProperties: false }
    const search = tool({ name: 'search', definition: { openai: { type: 'web_search' } } })
    const parameters = { type: 'object', properties: { message: { type: 'string' } } }
    expect((await bodyOf('openai', { tools: [ask, strict, custom, search] }))['tools']).toEqual([
      { type: 'function', name: 'ask', description: 'Asks the user', parameters, strict: false },
      { type: 'function', name: 'strict', parameters: none, strict: true },
      { type: 'custom', name: 'custom' },
      { type: 'web_search' },
    ])
    expect((await bodyOf('openai-chat', { tools: [ask, strict, custom] }))['tools']).toEqual([
      { type: 'function', function: { name: 'ask', description: 'Asks the user', parameters } },
      { type: 'function', function: { name: 'strict', parameters: none, strict: true } },
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
    await expect(bodyOf('openai-chat', { reasoning: { budgetTokens: 1 } }, options)).rejects.toThrow(/^gateway takes/)
    const output = outputFormat({ schema: { properties: { a: {} } }, strict: true })
    await expect(bodyOf('openai-chat', { output }, options)).rejects.toThrow(/^gateway cannot hold/)
    const exact = tool({ name: 'exact', strict: true, input: { properties: { a: {} } } })
    await expect(bodyOf('openai-chat', { tools: [exact] }, options)).rejects.toThrow(/^gateway cannot hold/)
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
})

describe.each(apis)('%s: an error is one that can be acted on', (api) => {
  test('`[DONE]` before the end of the answer is no end', async () => {
    const { error, text } = await watch(api, wire(...begun[api], done))
    expect(error).toMatchObject({ code: 'stream_truncated', retryable: true })
    expect(text).toBe(output)
  })
})

async function sdkEvents(api: Api, sdk: OpenAI) {
  return api === 'openai'
    ? toStreamEvents(await sdk.responses.create({ model: 'a', input: '', stream: true }))
    : toChatStreamEvents(await sdk.chat.completions.create({ model: 'a', messages: [], stream: true }))
}

describe('Responses: what breaks the protocol is an error, and what is merely new is not', () => {
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

  test('the one call of an old server is a call like any other', async () => {
    const only = (members: object) => chunk({ content: null, function_call: members })
    const inputText = '{"message":"Sure?"}'
    const characters = pieces(inputText, 1)
    const rest = characters.map((text) => only({ arguments: text }))
    const again = characters.map((text) => only({ name: 'ask', arguments: text }))
    for (const events of [[only({ name: 'ask', arguments: '' }), ...rest], again, [...rest, only({ name: 'ask' })]]) {
      const body = wire(...events, chunk({ function_call: null }, 'function_call'), done)
      const fetch = replayFetch([body, simulate('Fine.', { provider: 'openai-chat' })])
      const { response: result, error, events: told } = await watch('openai-chat', fetch)
      expect(error).toBeUndefined()
      expect(result).toMatchObject({
        finishReason: 'tool-calls',
        toolCalls: [{ toolName: 'ask', input: { message: 'Sure?' } }],
      })
      expect(told.map((event) => (event.type === 'field-delta' ? event.delta : '')).join('')).toBe('Sure?')
      const { toolCallId } = result!.toolCalls[0]
      expect(toolCallId).toContain('chat_1')
      const results: Message = { role: 'tool', content: [{ type: 'tool-result', toolCallId, output: 'ok' }] }
      await clientOf('openai-chat', fetch)
        .stream({ messages: [...messages, ...result!.messages, results] })
        .final()
      expect((fetch.requests[1]!.body as Body).messages.slice(1)).toEqual([
        {
          role: 'assistant',
          content: null,
          tool_calls: [{ id: toolCallId, type: 'function', function: { name: 'ask', arguments: inputText } }],
        },
        { role: 'tool', tool_call_id: toolCallId, content: 'ok' },
      ])
    }
  })

  test('a call that is also told in the old form is one call', async () => {
    const both = { tool_calls: [{ index: 0, id: 'call_1', function: { name: 'ask', arguments: '{}' } }] }
    const body = wire(
      chunk({ ...both, function_call: { name: 'ask', arguments: '{}' } }),
      chunk({ function_call: { arguments: '' } }, 'tool_calls'),
      done,
    )
    expect((await watch('openai-chat', body)).response!.toolCalls).toMatchObject([{ toolCallId: 'call_1', input: {} }])
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
})

const streamHeaders = { 'content-type': 'text/event-stream' }

describe('Chat: a server that says neither `[DONE]` nor goodbye', () => {
  test('is waited for no longer than a second after the finish reason, over our reading and over an iterator', async () => {
    const closed: Promise<unknown>[] = []
    const { baseURL } = await serve((reply) => {
      closed.push(new Promise((resolve) => reply.once('close', resolve)))
      reply.writeHead(200, streamHeaders).write(wire(said, stop))
      setTimeout(() => reply.write(wire(usageChunk)), 50)
    })
    const from = performance.now()
    const sdk = new OpenAI({ apiKey: key, baseURL })
    const [result, events] = await Promise.all([
      clientOf('openai-chat', fetch, { baseURL }).stream({ messages }).final(),
      sdkEvents('openai-chat', sdk).then((iterable) => read(iterable)),
    ])
    expect(performance.now() - from).toBeLessThan(1600)
    expect(result).toMatchObject({ text: output, usage: { inputTokens: 7 } })
    expect(events.events.at(-1)).toMatchObject({ type: 'finish', usage: { inputTokens: 7 } })
    await Promise.all(closed)
    expect(closed.length).toBe(2)
    expect(performance.now() - from).toBeLessThan(3000)
  })

  test('is waited for no longer than that though it goes on and on', async () => {
    const { baseURL } = await serve((reply) => {
      reply.writeHead(200, streamHeaders).write(wire(said, stop))
      const timer = setInterval(() => reply.write(': still here\n\n'), 200)
      reply.once('close', () => clearInterval(timer))
    })
    const from = performance.now()
    expect(await clientOf('openai-chat', fetch, { baseURL }).stream({ messages }).final()).toMatchObject({
      text: output,
    })
    expect(performance.now() - from).toBeLessThan(1600)
  })

  test('and breaks the connection instead has answered all the same', async () => {
    const { baseURL } = await serve((reply, request) => {
      reply
        .writeHead(200, streamHeaders)
        .write(wire(said, stop), () => setTimeout(() => request.socket.resetAndDestroy(), 10))
    })
    const result = await clientOf('openai-chat', fetch, { baseURL }).stream({ messages }).final()
    expect(result).toMatchObject({ text: output, finishReason: 'stop', warnings: [] })
  })

  test('but an aborted signal closes the connection at once', async () => {
    const { baseURL, sockets } = await serve((reply) => reply.writeHead(200, streamHeaders).write(wire(said, stop)))
    const controller = new AbortController()
    const stream = clientOf('openai-chat', fetch, { baseURL }).stream({ messages, signal: controller.signal })
    const final = stream.final()
    await new Promise((resolve) => stream.on('text-delta', resolve))
    await new Promise((resolve) => setTimeout(resolve, 20))
    controller.abort('user pressed stop')
    const from = performance.now()
    await expect(final).rejects.toMatchObject({ name: 'AbortError', reason: 'user pressed stop' })
    expect(performance.now() - from).toBeLessThan(50)
    expect(await untilClosed(sockets[0]!)).toBeLessThan(100)
  })

  test('and one that breaks off after the finish reason has answered', async () => {
    const { baseURL } = await serve((reply, request) => {
      reply.writeHead(200, streamHeaders).write(wire(said, stop), () => request.socket.destroy())
    })
    const client = clientOf('openai-chat', fetch, { baseURL })
    expect((await watchClient(client)).response!.text).toBe(output)
  })
})

describe('simulate() says the same in every format', () => {
  test.for(['stop', 'length', 'refusal', 'content-filter'] as const)('an answer that ends with %s', async (reason) => {
    for (const api of apis) {
      const { response: result, error } = await watch(api, simulate('Text.', { provider: api, finishReason: reason }))
      const codes = { refusal: 'refused', 'content-filter': 'content_filtered' } as Record<string, string>
      expect(error?.code ?? result?.finishReason).toBe(codes[reason] ?? reason)
    }
  })
})
