import Anthropic from '@anthropic-ai/sdk'
import {
  type LLMError,
  type Message,
  outputFormat,
  StreamingLLMClient,
  type StreamRequest,
  tool,
  ToolStreamAccumulator,
} from 'fieldstream'
import { anthropic, type AnthropicClient, type AnthropicOptions, toStreamEvents } from 'fieldstream/anthropic'
import { replayFetch, type ReplaySource, simulate } from 'fieldstream/testing'
import { afterEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import { z } from 'zod'
import { rejectionOf } from './support.ts'
import { ask, expectQuiet, key, messages, output, watchClient as watchRun, words } from './conformance/run.ts'

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
const stopped = (reason: string | null) => ({ type: 'message_delta', delta: { stop_reason: reason }, usage: {} })
const end = { type: 'message_stop' }
const overloaded = { type: 'error', error: { type: 'overloaded_error', message: words } }

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
  const { error, ...run } = await watchRun(client, { tools: [ask], fields: undefined })
  return { ...run, error: error as LLMError }
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

  test('tools go with their schemas, streamed eagerly unless that is turned off', async () => {
    const search = tool({ name: 'search', definition: { anthropic: { type: 'web_search_20250305', name: 'search' } } })
    const strict = tool({ name: 'strict', input: { properties: {} }, strict: true })
    const schema = { type: 'object', properties: { message: { type: 'string' } } }
    const closed = { type: 'object', properties: {}, additionalProperties: false }
    expect((await bodyOf({ tools: [ask, strict, search] }))['tools']).toEqual([
      { name: 'ask', description: 'Asks the user', input_schema: schema, eager_input_streaming: true },
      { name: 'strict', input_schema: closed, strict: true, eager_input_streaming: true },
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

  test('a strict tool goes in the form that the API takes, or not at all', async () => {
    const strict = (price: z.ZodType) =>
      tool({ name: 'order', strict: true, input: z.object({ lines: z.array(z.object({ id: z.string(), price })) }) })
    const sent = (await bodyOf({ tools: [strict(z.number())] }))['tools'] as Record<string, unknown>[]
    expect(sent[0]).toMatchObject({
      strict: true,
      input_schema: {
        properties: { lines: { items: { required: ['id', 'price'], additionalProperties: false } } },
        additionalProperties: false,
      },
    })
    const failure = (await rejectionOf(bodyOf({ tools: [strict(z.number().min(1))] }))) as LLMError
    expect(failure).toMatchObject({ name: 'UsageError', code: 'unsupported' })
    expect(failure.message).toContain('`minimum` is not enforced (properties.lines.items.properties.price)')
    const loose = tool({ name: 'order', strict: false, input: z.object({ id: z.string().min(1) }) })
    expect((await bodyOf({ tools: [loose] }))['tools']).toMatchObject([
      { strict: false, input_schema: { properties: { id: { minLength: 1 } } } },
    ])
  })

  test('a budget for reasoning leaves room for the answer', async () => {
    const reasoning = { budgetTokens: 16_000 }
    expect(await bodyOf({ reasoning })).toMatchObject({
      max_tokens: 24_192,
      thinking: { type: 'enabled', budget_tokens: 16_000 },
    })
    expect(await bodyOf({ reasoning, maxTokens: 16_001 })).toMatchObject({ max_tokens: 16_001 })
    expect(await bodyOf({ reasoning }, { maxTokens: 20_000 })).toMatchObject({ max_tokens: 20_000 })
    for (const [request, options] of [
      [{ reasoning, maxTokens: 16_000 }, {}],
      [{ reasoning }, { maxTokens: 8192 }],
      [{ reasoning: { budgetTokens: 1023 } }, {}],
    ] as const)
      expect(await rejectionOf(bodyOf(request, options))).toMatchObject({ name: 'UsageError', code: 'unsupported' })
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
    expect(response.warnings[0]!.message).toContain(
      'open to other properties: list them, or use a list of { key, value } (properties.prices)',
    )
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
})

describe('an error inside the stream is the same error as its status', () => {
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

describe('an event that breaks the protocol is an error, and what is merely new is not', () => {
  test('why the model refused is in `providerMessage`', async () => {
    const refused = (details: unknown) => ({
      type: 'message_delta',
      delta: { stop_reason: 'refusal', stop_details: details },
      usage: {},
    })
    const details = { type: 'refusal', category: 'x', explanation: words }
    const told = await watch(wire(start, textStart, textDelta, blockStop, refused(details), end))
    expect(told.error).toMatchObject({ name: 'OutputError', code: 'refused', providerMessage: words })
    expect(told.error.message).not.toContain(words)
    for (const none of [null, undefined, { explanation: null }]) {
      const untold = await watch(wire(start, textStart, textDelta, blockStop, refused(none), end))
      expect(untold.error).toMatchObject({ code: 'refused' })
      expect(untold.error.providerMessage).toBeUndefined()
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

  test('a text cut by its token limit resolves and says so', async () => {
    for (const body of [
      wire(start, textStart, textDelta, blockStop, stopped('max_tokens'), end),
      wire(start, textStart, textDelta, stopped('model_context_window_exceeded'), end),
    ]) {
      const { response } = await watch(body)
      expect(response).toMatchObject({ text: output, finishReason: 'length' })
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

  test("a client whose events come in another framing is read through the SDK's own iterator", async () => {
    const binary = new Response('\0\0', { headers: { 'content-type': 'application/vnd.amazon.eventstream' } })
    const post = vi.fn(() =>
      Object.assign(Promise.resolve(iterate(...goodAnswer)), { asResponse: () => Promise.resolve(binary) }),
    )
    const create = vi.fn()
    const sdk = { messages: { create }, post }
    const client = new StreamingLLMClient({ provider: anthropic({ model: 'model-a', client: sdk }) })
    expect((await watchClient(client)).response!.text).toBe(output)
    expect(post).toHaveBeenCalledOnce()
    expect(create).not.toHaveBeenCalled()
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

  test('a key or header that HTTP cannot carry is named, not printed', async () => {
    for (const options of [{ apiKey: `${key}\nx` }, { apiKey: `${key}’` }, { headers: { 'x-a': `${key}\0` } }]) {
      const { error } = await watch(simulate('Fine.'), options)
      expect(error).toMatchObject({ name: 'UsageError', code: 'invalid_argument', retryable: false })
    }
    const sdk = new Anthropic({ apiKey: `${key}\nx`, fetch: replayFetch(simulate('Fine.')) })
    const client = new StreamingLLMClient({ provider: anthropic({ model: 'model-a', client: sdk }) })
    expect((await watchClient(client)).error.name).toBe('UsageError')
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
