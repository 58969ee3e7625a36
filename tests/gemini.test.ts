import { GoogleGenAI } from '@google/genai'
import { type LLMError, type Message, StreamingLLMClient, type StreamRequest, tool } from 'fieldstream'
import { gemini, type GeminiClient, type GeminiOptions } from 'fieldstream/gemini'
import { type Recording, replayFetch, type ReplaySource, simulate, type SimulateOptions } from 'fieldstream/testing'
import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import { serve, untilClosed } from './conformance/connections.ts'
import { ask, joined, key, messages, output, watchClient as watchRun, words } from './conformance/run.ts'

const schema = { type: 'object', properties: { message: { type: 'string' } } }

type Json = Record<string, unknown>

beforeEach(() => {
  for (const name of ['GOOGLE_API_KEY', 'GEMINI_API_KEY', 'GOOGLE_GENAI_USE_VERTEXAI', 'GOOGLE_GENAI_USE_ENTERPRISE'])
    vi.stubEnv(name, undefined)
})
afterEach(() => {
  vi.unstubAllEnvs()
})

/** A body of server-sent events, framed as the service does. */
function wire(...events: unknown[]): string {
  return events.map((event) => `data: ${typeof event === 'string' ? event : JSON.stringify(event)}\r\n\r\n`).join('')
}

/** One chunk of an answer. */
function chunk(parts: unknown, finishReason?: string, more: Json = {}) {
  return {
    candidates: [{ content: { role: 'model', parts }, ...(finishReason && { finishReason }), index: 0 }],
    usageMetadata: { promptTokenCount: 7, totalTokenCount: 7 },
    modelVersion: 'm',
    responseId: 'r1',
    ...more,
  }
}

const text = chunk([{ text: output }])
const end = chunk([{ text: '' }], 'STOP')
const call = chunk([{ functionCall: { name: 'ask', args: { message: output } } }])
const unavailable = { error: { code: 503, message: words, status: 'UNAVAILABLE' } }
/** Vertex AI's pieces of one call. */
const pieces = (...partialArgs: Json[]) => [
  chunk([{ functionCall: { name: 'ask', willContinue: true } }]),
  ...partialArgs.map((piece) => chunk([{ functionCall: { partialArgs: [piece], willContinue: true } }])),
]
const callEnd = chunk([{ functionCall: {} }])

function answer(payload: Parameters<typeof simulate>[0], options: SimulateOptions = {}) {
  return simulate(payload, { provider: 'gemini', ...options })
}

function clientOf(fetch: typeof globalThis.fetch, options: Partial<GeminiOptions> = {}) {
  return new StreamingLLMClient({ provider: gemini({ model: 'gemini-2.5-flash', apiKey: key, fetch, ...options }) })
}

/** Runs one request to its end, over whatever the source answers. */
async function watch(source: ReplaySource, options: Partial<GeminiOptions> = {}, chunks?: number) {
  return watchClient(clientOf(replayFetch(source, { chunks }), options))
}

async function watchClient(client: StreamingLLMClient, request: Partial<StreamRequest> = {}) {
  const { error, text: said, ...run } = await watchRun(client, { tools: [ask], fields: undefined, ...request })
  return { ...run, said, input: joined(run.events, 'tool-input-delta'), error: error as LLMError }
}

type Body = Json & { contents: { role: string; parts: Json[] }[]; generationConfig?: Json }

/** The body of the request that goes out. */
async function bodyOf(request: Partial<StreamRequest>, options: Partial<GeminiOptions> = {}) {
  const fetch = replayFetch(answer('Fine.'))
  const stream = clientOf(fetch, options).stream({ messages: [{ role: 'user', content: 'Hello' }], ...request })
  // An answer without the call that a choice of tool asks for is an error; here only the question counts.
  const failure = await stream.final().then(
    () => undefined,
    (error: unknown) => error,
  )
  if (fetch.requests.length === 0) throw failure
  return fetch.requests[0]!.body as Body
}

describe('a request becomes what the API takes', () => {
  test('the least there can be', async () => {
    const fetch = replayFetch(answer('Fine.'))
    await clientOf(fetch, { headers: { 'x-a': 'b' } })
      .stream({ messages: [{ role: 'user', content: 'Hello' }] })
      .final()
    const [{ url, method, headers, body }] = fetch.requests as [(typeof fetch.requests)[0]]
    expect(url).toMatch(/\/models\/gemini-2\.5-flash:streamGenerateContent\?alt=sse$/)
    expect(method).toBe('POST')
    expect(headers.get('x-goog-api-key')).toBe(key)
    expect(headers.get('x-a')).toBe('b')
    expect(body).toEqual({ contents: [{ role: 'user', parts: [{ text: 'Hello' }] }], generationConfig: {} })
  })

  test('`system` and leading system messages stand before the conversation; later ones cannot be sent', async () => {
    const body = await bodyOf({
      system: 'One.',
      messages: [
        { role: 'system', content: 'Two.' },
        { role: 'user', content: 'Hello' },
      ],
    })
    expect(body['systemInstruction']).toMatchObject({ parts: [{ text: 'One.\n\nTwo.' }] })
    expect(body.contents).toHaveLength(1)
    const late: Message[] = [...messages, { role: 'system', content: 'Three.' }]
    await expect(bodyOf({ messages: late })).rejects.toMatchObject({ name: 'UsageError', code: 'unsupported' })
    const none: Message[] = [{ role: 'system', content: 'Only this.' }]
    await expect(bodyOf({ messages: none })).rejects.toMatchObject({ name: 'UsageError', code: 'invalid_argument' })
  })

  test('turns keep their order and their text; empty ones are left out', async () => {
    const body = await bodyOf({
      messages: [
        { role: 'user', content: 'Hello' },
        { role: 'assistant', content: 'Hi.' },
        { role: 'assistant', content: [{ type: 'text', text: '' }] },
        {
          role: 'user',
          content: [{ type: 'text', text: 'Why?', metadata: { gemini: { videoMetadata: { fps: 1 } } } }],
        },
      ],
    })
    expect(body.contents).toEqual([
      { role: 'user', parts: [{ text: 'Hello' }] },
      { role: 'model', parts: [{ text: 'Hi.' }] },
      { role: 'user', parts: [{ text: 'Why?', videoMetadata: { fps: 1 } }] },
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
            { type: 'image', url: 'data:image/gif;base64,aGVsbG8=' },
            { type: 'image', url: 'https://example.com/a.PNG?size=1' },
            { type: 'image', url: 'https://example.com/files/1' },
          ],
        },
      ],
    })
    expect(body.contents[0]!.parts).toEqual([
      { inlineData: { mimeType: 'image/png', data: Buffer.from(bytes).toString('base64') } },
      { inlineData: { mimeType: 'image/jpeg', data: 'aGVsbG8=' } },
      { inlineData: { mimeType: 'image/gif', data: 'aGVsbG8=' } },
      { fileData: { fileUri: 'https://example.com/a.PNG?size=1', mimeType: 'image/png' } },
      { fileData: { fileUri: 'https://example.com/files/1' } },
    ])
  })

  test('tool results name their tool, and are one turn', async () => {
    const body = await bodyOf({
      messages: [
        { role: 'user', content: 'Hello' },
        {
          role: 'assistant',
          content: [
            { type: 'tool-call', toolCallId: 'call_1', toolName: 'ask', input: { message: 'Sure?' } },
            { type: 'tool-call', toolCallId: 'gemini-call-r1-1', toolName: 'ask', input: undefined },
          ],
        },
        { role: 'tool', content: [{ type: 'tool-result', toolCallId: 'call_1', output: { answer: ['yes'] } }] },
        {
          role: 'tool',
          content: [
            { type: 'tool-result', toolCallId: 'gemini-call-r1-1', output: 'No.', isError: true },
            { type: 'tool-result', toolCallId: 'call_0', toolName: 'other', output: undefined },
          ],
        },
        { role: 'user', content: 'Go on.' },
      ],
    })
    expect(body.contents.slice(1)).toEqual([
      {
        role: 'model',
        parts: [
          { functionCall: { id: 'call_1', name: 'ask', args: { message: 'Sure?' } } },
          { functionCall: { name: 'ask', args: {} } },
        ],
      },
      {
        role: 'user',
        parts: [
          { functionResponse: { id: 'call_1', name: 'ask', response: { output: { answer: ['yes'] } } } },
          { functionResponse: { name: 'ask', response: { error: 'No.' } } },
          { functionResponse: { id: 'call_0', name: 'other', response: { output: '' } } },
        ],
      },
      { role: 'user', parts: [{ text: 'Go on.' }] },
    ])
  })

  test('a tool result that cannot be sent is named, and nothing is sent', async () => {
    for (const result of [{ output: { count: 1n }, toolName: 'ask' }, { output: 'Yes.' }]) {
      const failure = bodyOf({
        messages: [{ role: 'tool', content: [{ type: 'tool-result', toolCallId: 'call_1', ...result }] }],
      })
      await expect(failure).rejects.toMatchObject({
        name: 'UsageError',
        code: 'invalid_argument',
        message: expect.stringContaining('call_1') as string,
      })
    }
  })

  test('thoughts go back with their signatures; what is not for this provider is dropped, and `start` says so', async () => {
    const fetch = replayFetch(answer('Fine.'))
    const { events, response } = await watchClient(clientOf(fetch), {
      messages: [
        { role: 'user', content: 'Hello' },
        {
          role: 'assistant',
          content: [
            { type: 'reasoning', text: 'Mine.', metadata: { gemini: { thought: true, thoughtSignature: 'abc' } } },
            { type: 'reasoning', text: 'Foreign.', metadata: { other: { signature: 'abc' } } },
            { type: 'provider', provider: 'gemini', value: { executableCode: { code: '1', language: 'PYTHON' } } },
            { type: 'provider', provider: 'other', value: { type: 'item' } },
            { type: 'text', text: '', metadata: { gemini: { thoughtSignature: 'xyz' } } },
          ],
        },
        { role: 'user', content: 'Why?' },
      ],
    })
    const warned = events.flatMap((event) => (event.type === 'start' ? (event.warnings ?? []) : []))
    const dropped = (what: string) => ({ code: 'dropped-content', message: expect.stringContaining(what) as string })
    expect(warned).toEqual([dropped('Reasoning'), dropped('other')])
    expect(response!.warnings).toEqual(warned)
    expect((fetch.requests[0]!.body as Body).contents[1]!.parts).toEqual([
      { text: 'Mine.', thought: true, thoughtSignature: 'abc' },
      { executableCode: { code: '1', language: 'PYTHON' } },
      { text: '', thoughtSignature: 'xyz' },
    ])
  })

  test("tools go with their schemas; Google's own as they are", async () => {
    const search = tool({ name: 'search', definition: { gemini: { googleSearch: {} } } })
    const own = tool({ name: 'own', definition: { gemini: { name: 'own', description: 'Mine' } } })
    const plain = { name: 'ask', description: 'Asks the user', parametersJsonSchema: schema }
    const body = await bodyOf({ tools: [ask, search, own] })
    expect(body['tools']).toEqual([
      { functionDeclarations: [plain, { name: 'own', description: 'Mine' }] },
      { googleSearch: {} },
    ])
    expect(body).not.toHaveProperty('toolConfig')
    expect(await bodyOf({ tools: [] })).not.toHaveProperty('tools')
  })

  test.for([
    [undefined, undefined],
    ['auto', { mode: 'AUTO' }],
    ['none', { mode: 'NONE' }],
    ['required', { mode: 'ANY' }],
    [ask, { mode: 'ANY', allowedFunctionNames: ['ask'] }],
    [{ name: 'ask' }, { mode: 'ANY', allowedFunctionNames: ['ask'] }],
  ] as const)('tool choice %j', async ([toolChoice, functionCallingConfig]) => {
    const body = await bodyOf({ tools: [ask], toolChoice, toolInput: 'native' })
    expect(body['toolConfig']).toEqual(functionCallingConfig && { functionCallingConfig })
  })

  test('a strict tool is one whose calls are validated', async () => {
    const strict = tool({ name: 'strict', strict: true })
    const modeOf = async (toolChoice?: 'auto' | 'none') =>
      ((await bodyOf({ tools: [ask, strict], toolChoice }))['toolConfig'] as { functionCallingConfig: Json })
        .functionCallingConfig['mode']
    expect([await modeOf(), await modeOf('auto'), await modeOf('none')]).toEqual(['VALIDATED', 'VALIDATED', 'NONE'])
  })

  test('arguments are asked for in pieces where they can be had', async () => {
    const streams = async (options: Partial<GeminiOptions>, request: Partial<StreamRequest> = { tools: [ask] }) =>
      (await bodyOf(request, options))['toolConfig']
    const on = { functionCallingConfig: { streamFunctionCallArguments: true } }
    expect(await streams({ vertexai: true, model: 'gemini-3-flash-preview' })).toEqual(on)
    expect(await streams({ vertexai: true, model: 'gemini-2.5-flash' })).toBeUndefined()
    expect(await streams({ vertexai: true, model: 'tuned', streamToolArguments: true })).toEqual(on)
    expect(await streams({ vertexai: true, model: 'gemini-3-pro', streamToolArguments: false })).toBeUndefined()
    expect(await streams({ vertexai: true, model: 'gemini-3-pro' }, {})).toBeUndefined()
    expect(await streams({ model: 'gemini-3-flash-preview' })).toBeUndefined()
    await expect(streams({ streamToolArguments: true })).rejects.toMatchObject({ code: 'unsupported' })
  })

  test('the usual settings have their own names', async () => {
    const body = await bodyOf({ maxTokens: 5, temperature: 0, topP: 0.5, stop: ['END'] })
    expect(body.generationConfig).toEqual({ maxOutputTokens: 5, temperature: 0, topP: 0.5, stopSequences: ['END'] })
    expect((await bodyOf({ stop: [] })).generationConfig).toEqual({})
  })

  test('reasoning is an effort or a budget, in the terms of the model', async () => {
    const thinking = async (model: string, reasoning: StreamRequest['reasoning']) =>
      (await bodyOf({ reasoning }, { model })).generationConfig!['thinkingConfig']
    const medium = { effort: 'medium' } as const
    expect(await thinking('gemini-3-pro-preview', medium)).toEqual({ includeThoughts: true, thinkingLevel: 'MEDIUM' })
    expect(await thinking('gemini-2.5-pro', medium)).toEqual({ includeThoughts: true, thinkingBudget: 8192 })
    expect(await thinking('gemini-2.5-pro', { budgetTokens: 9 })).toEqual({ includeThoughts: true, thinkingBudget: 9 })
  })

  test('providerOptions go along; what would break the reading does not', async () => {
    const body = await bodyOf({
      temperature: 1,
      providerOptions: {
        gemini: { topK: 5, temperature: 0, automaticContinuation: true, safetySettings: [] },
        other: { topK: 7 },
      },
    })
    expect(body.generationConfig).toEqual({ topK: 5, temperature: 0 })
    expect(body['safetySettings']).toEqual([])
    const two = bodyOf({ providerOptions: { gemini: { candidateCount: 2 } } })
    await expect(two).rejects.toMatchObject({ name: 'UsageError', code: 'unsupported' })
    // The SDK itself knows what the Gemini API has not.
    const refused = bodyOf({ providerOptions: { gemini: { audioTimestamp: true } } })
    await expect(refused).rejects.toMatchObject({ name: 'UsageError', code: 'unsupported', retryable: false })
    const fetch = replayFetch(answer('Fine.'))
    const httpOptions = { headers: { 'x-c': 'd' }, apiVersion: 'v9' }
    await watchClient(clientOf(fetch, { headers: { 'x-a': 'b' } }), { providerOptions: { gemini: { httpOptions } } })
    const { url, headers } = fetch.requests[0]!
    expect([headers.get('x-a'), headers.get('x-c')]).toEqual(['b', 'd'])
    expect(url).toContain('/v9/')
  })
})

describe('an answer becomes events', () => {
  test('text, thoughts, usage and the facts of the answer', async () => {
    const usageMetadata = {
      promptTokenCount: 10,
      cachedContentTokenCount: 4,
      toolUsePromptTokenCount: 1,
      candidatesTokenCount: 20,
      thoughtsTokenCount: 5,
      totalTokenCount: 36,
    }
    const body = wire(chunk([{ text: 'Hm.', thought: true }]), text, chunk([], 'STOP', { usageMetadata }))
    const { response, events } = await watch({ body, headers: { 'x-request-id': 'req_1' } })
    expect(response).toMatchObject({
      text: output,
      reasoning: 'Hm.',
      finishReason: 'stop',
      responseId: 'r1',
      model: 'm',
    })
    expect(response!.usage).toEqual({
      inputTokens: 11,
      outputTokens: 25,
      totalTokens: 36,
      cacheReadTokens: 4,
      cacheWriteTokens: 0,
      reasoningTokens: 5,
      raw: usageMetadata,
    })
    expect(events[0]).toMatchObject({ type: 'start', provider: 'gemini', requestId: 'req_1', toolInput: 'native' })
    expect(events[0]).not.toHaveProperty('warnings')
  })

  test.for([
    ['SAFETY', 'content_filtered'],
    ['PROHIBITED_CONTENT', 'content_filtered'],
    ['BLOCKLIST', 'content_filtered'],
    ['SPII', 'content_filtered'],
    ['RECITATION', 'content_filtered'],
    ['IMAGE_SAFETY', 'content_filtered'],
    ['MALFORMED_FUNCTION_CALL', 'invalid_json'],
    ['UNEXPECTED_TOOL_CALL', 'invalid_json'],
  ] as const)('%s is an error', async ([reason, code]) => {
    const { error, said } = await watch(wire(text, chunk([], reason)))
    expect(error).toMatchObject({ name: 'OutputError', code, retryable: false })
    expect(error.usage).toMatchObject({ inputTokens: 7 })
    expect(said).toBe(output)
  })

  test('a blocked prompt is an error', async () => {
    const { error } = await watch(wire({ promptFeedback: { blockReason: 'SAFETY' }, responseId: 'r1' }))
    expect(error).toMatchObject({ name: 'OutputError', code: 'content_filtered' })
  })

  test('a limit ends a text, and spoils a call', async () => {
    const { response } = await watch(wire(text, chunk([], 'MAX_TOKENS')))
    expect(response).toMatchObject({ text: output, finishReason: 'length' })
    for (const events of [[call], pieces({ jsonPath: '$.message', stringValue: output, willContinue: true })]) {
      const { error } = await watch(wire(...events, chunk([], 'MAX_TOKENS')))
      expect(error).toMatchObject({ code: 'output_truncated', toolName: 'ask' })
    }
    // A number may have been cut, though it looks whole.
    const { events } = await watch(wire(...pieces({ jsonPath: '$.n', numberValue: 1 }), chunk([], 'MAX_TOKENS')))
    expect(events.some(({ type }) => type === 'tool-input-end')).toBe(false)
  })

  test('a reason that is new ends a text; calls it does not vouch for', async () => {
    const { response } = await watch(wire(text, chunk([], 'BRAND_NEW')))
    expect(response).toMatchObject({ text: output, finishReason: 'other', providerFinishReason: 'BRAND_NEW' })
    expect((await watch(wire(call, chunk([], 'BRAND_NEW')))).error).toMatchObject({ code: 'output_truncated' })
  })

  test('parts that only Gemini understands are kept in order, with their signatures', async () => {
    const parts: Json[] = [
      { text: 'Hm.', thought: true },
      { toolCall: { toolType: 'FILE_SEARCH', id: 'a' }, thoughtSignature: 's1' },
      { toolResponse: { toolType: 'FILE_SEARCH', id: 'a' } },
      { executableCode: { code: '1', language: 'PYTHON' } },
      { codeExecutionResult: { outcome: 'OUTCOME_OK', output: '1' } },
      { inlineData: { mimeType: 'image/png', data: 'aGVsbG8=' } },
      { text: 'One' },
      { text: 'two', thoughtSignature: 's2' },
      { functionCall: { id: 'c1', name: 'ask', args: { message: 'a' } }, thoughtSignature: 's3' },
      { functionCall: { name: 'ask', args: {} } },
      { functionCall: { name: 'ask' } },
      { text: '', thoughtSignature: 's4' },
    ]
    const fetch = replayFetch([wire(...parts.map((part) => chunk([part])), end), answer('Fine.')])
    const client = clientOf(fetch)
    const first = await client.stream({ messages, tools: [ask] }).final()
    expect(first.toolCalls.map(({ toolCallId }) => toolCallId)).toEqual(['c1', 'gemini-call-r1-2', 'gemini-call-r1-3'])
    const results: Message = {
      role: 'tool',
      content: first.toolCalls.map(({ toolCallId }) => ({ type: 'tool-result', toolCallId, output: 'Yes.' })),
    }
    await client.stream({ messages: [...messages, ...first.messages, results], tools: [ask] }).final()
    const { contents } = fetch.requests[1]!.body as Body
    const withArguments = parts.map((part) =>
      part['functionCall'] ? { ...part, functionCall: { args: {}, ...part['functionCall'] } } : part,
    )
    expect(contents[1]).toEqual({ role: 'model', parts: withArguments })
    const response = { output: 'Yes.' }
    expect(contents[2]!.parts).toEqual([
      { functionResponse: { id: 'c1', name: 'ask', response } },
      { functionResponse: { name: 'ask', response } },
      { functionResponse: { name: 'ask', response } },
    ])
  })

  test('an answer without an id gives its calls ids of their own', async () => {
    const bare = { ...call, responseId: undefined }
    const ids = new Set<string>()
    for (let i = 0; i < 2; i++) {
      const { response } = await watch(wire(bare, bare, { ...end, responseId: undefined }))
      for (const { toolCallId } of response!.toolCalls) ids.add(toolCallId)
    }
    expect(ids.size).toBe(4)
  })
})

describe('arguments in pieces become the text they stand for', () => {
  const string = (jsonPath: string, stringValue: string, willContinue?: boolean) => ({
    jsonPath,
    stringValue,
    ...(willContinue && { willContinue }),
  })

  test.for<[string, Json[], string]>([
    ['no piece', [], ''],
    ['a string, closed by an empty piece', [string('$.a', 'b', true), string('$.a', '')], '{"a":"b"}'],
    ['a string at once', [string('$.a', 'b')], '{"a":"b"}'],
    ['an empty string', [string('$.a', '')], '{"a":""}'],
    [
      'a string whose end is missing',
      [string('$.a', 'b', true), { jsonPath: '$.c', boolValue: true }],
      '{"a":"b","c":true}',
    ],
    ['an end that comes twice', [string('$.a', 'b'), string('$.a', '')], '{"a":"b"}'],
    ['an end without a value', [string('$.a', 'b', true), { jsonPath: '$.a' }], '{"a":"b"}'],
    [
      'numbers, truth and nothing',
      [
        { jsonPath: '$.a', numberValue: -1.5e-7 },
        { jsonPath: '$.b', boolValue: false },
        { jsonPath: '$.c', nullValue: 'NULL_VALUE' },
        { jsonPath: '$.d', nullValue: null },
        { jsonPath: '$.e', numberValue: 0 },
      ],
      '{"a":-1.5e-7,"b":false,"c":null,"d":null,"e":0}',
    ],
    [
      'lists in lists, and objects after them',
      [
        { jsonPath: '$.a[0][0]', numberValue: 1 },
        { jsonPath: '$.a[0][1]', numberValue: 2 },
        { jsonPath: '$.a[1][0].b.c', numberValue: 3 },
        { jsonPath: '$.a[1][0].b.d', numberValue: 4 },
        { jsonPath: '$.a[1][1].b.c', numberValue: 5 },
        { jsonPath: '$.b.c', numberValue: 6 },
        { jsonPath: '$.c', numberValue: 7 },
      ],
      '{"a":[[1,2],[{"b":{"c":3,"d":4}},{"b":{"c":5}}]],"b":{"c":6},"c":7}',
    ],
    [
      'what JSON escapes, and half characters',
      [string('$.a', '"\n\\\u0001', true), string('$.a', '\ud83c', true), string('$.a', '\udf89', true)],
      '{"a":"\\"\\n\\\\\\u0001\\ud83c\\udf89"}',
    ],
    [
      'names in quotes',
      [
        string(`$['a.b']`, '1'),
        string(`$["c]d"]['it\\'s "x"']`, '2'),
        string(`$["\\u00e9\\n"]`, '3'),
        string(`$['']`, '4'),
      ],
      '{"a.b":"1","c]d":{"it\'s \\"x\\"":"2"},"é\\n":"3","":"4"}',
    ],
    [
      'names that objects have by themselves',
      [string('$.__proto__.constructor', 'a')],
      '{"__proto__":{"constructor":"a"}}',
    ],
    ['a piece that announces more', [{ jsonPath: '$.a', willContinue: true }, string('$.a', 'b')], '{"a":"b"}'],
  ])('%s', async ([, partialArgs, expected]) => {
    const { input, response, error } = await watch(wire(...pieces(...partialArgs), callEnd, end))
    expect(error).toBeUndefined()
    expect(input).toBe(expected)
    expect(response!.toolCalls[0].input).toEqual(JSON.parse(expected || '{}'))
  })

  test.for<[string, Json[]]>([
    ['a list that skips a place', [string('$.a[1]', 'b')]],
    ['a list that goes back', [string('$.a[0]', 'b'), string('$.a[1]', 'b'), string('$.a[0]', 'c')]],
    ['a name that comes again', [string('$.a', 'b'), string('$.c', 'b'), string('$.a', 'd')]],
    ['an object that was left', [string('$.a.b', 'c'), string('$.b', 'c'), string('$.a.d', 'c')]],
    ['a list that becomes an object', [string('$.a[0]', 'c'), string('$.a.d', 'c')]],
    ['a text that becomes an object', [string('$.a', 'c'), string('$.a.d', 'c')]],
    ['no path', [{ stringValue: 'b' }]],
    ['a path to everything', [string('$', 'b')]],
    ['a path to a list of arguments', [string('$[0]', 'b')]],
    ['a path to many places', [string('$.a[*]', 'b')]],
    ['a path that is none', [string('a.b', 'b')]],
    ['a path with a bad escape', [string(`$['\\x']`, 'b')]],
    ['no value', [{ jsonPath: '$.a' }]],
    ['a value of a new kind', [{ jsonPath: '$.a', listValue: [] }]],
    ['a string that is none', [{ jsonPath: '$.a', stringValue: 5 }]],
    ['a number that is none', [{ jsonPath: '$.a', numberValue: 'NaN' }]],
  ])('%s breaks the protocol', async ([, partialArgs]) => {
    const { error, response } = await watch(wire(...pieces(...partialArgs), callEnd, end))
    expect(error).toMatchObject({ name: 'StreamError', code: 'stream_protocol' })
    expect(response).toBeUndefined()
  })

  test('a call whose end is missing ends with the next one, or with the answer', async () => {
    const one = pieces(string('$.message', 'a'))
    const { response } = await watch(wire(...one, ...pieces({ jsonPath: '$.n', numberValue: 1 }), end))
    expect(response!.toolCalls.map(({ input }) => input)).toEqual([{ message: 'a' }, { n: 1 }])
    const isOpen = pieces(string('$.message', 'a', true))
    for (const rest of [one, [end]]) {
      const { error } = await watch(wire(...isOpen, ...rest, end))
      expect(error).toMatchObject({ code: 'stream_protocol' })
    }
  })

  test('a call that repeats its id and name goes on', async () => {
    const more = (piece: Json, willContinue: boolean) =>
      chunk([{ functionCall: { id: 'c1', name: 'ask', partialArgs: [piece], willContinue } }])
    const { response } = await watch(
      wire(more(string('$.message', 'a', true), true), more(string('$.message', 'b'), false), end),
    )
    expect(response!.toolCalls).toEqual([{ toolCallId: 'c1', toolName: 'ask', input: { message: 'ab' } }])
  })

  test('a simulated answer gives the same fields, in pieces and whole', async () => {
    const payload = { message: 'Wie viele? 🎉', options: ['few', 'many'], deep: { n: [1.5, null, true] }, 'a b': 'c' }
    const run = async (options: Partial<GeminiOptions>) => {
      const fetch = replayFetch(answer(payload, { text: 'Gerne: ', reasoning: 'Hm.', deltaChars: 3 }), { delayMs: 1 })
      const { events, response } = await watchClient(clientOf(fetch, options), { fields: { any: '*' } })
      expect(response!.toolCalls[0].input).toEqual(payload)
      expect(response).toMatchObject({ text: 'Gerne: ', reasoning: 'Hm.', finishReason: 'tool-calls' })
      return {
        deltas: events.filter(({ type }) => type === 'field-delta').length,
        ends: events.flatMap((event) => (event.type === 'field-end' ? [[event.path, event.value]] : [])),
      }
    }
    const whole = await run({})
    const inPieces = await run({ vertexai: true, model: 'gemini-3-pro' })
    expect(inPieces.ends).toEqual(whole.ends)
    expect([whole.deltas, inPieces.deltas]).toEqual([2, 5])
  })

  test('a simulated call that is no JSON is one that the service reports', async () => {
    const { error } = await watch(answer('{"message":', { tool: ask }))
    expect(error).toMatchObject({ code: 'invalid_json' })
    expect((await watch(answer({ list: [] }), { vertexai: true, model: 'gemini-3-pro' })).input).toBe('{"list":[]}')
  })
})

function failure(code: number, status: string, details: Json[] = [], headers: Record<string, string> = {}): Recording {
  return {
    status: code,
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify({ error: { code, message: words, status, details } }),
  }
}

describe('an error status is a typed error', () => {
  test('a wrong key is one, whatever the status', async () => {
    const { error } = await watch(failure(400, 'INVALID_ARGUMENT', [{ reason: 'API_KEY_INVALID' }]))
    expect(error).toMatchObject({ code: 'authentication', status: 400, retryable: false })
  })

  test('how long to wait stands in a header, or in the body', async () => {
    const details = [{ '@type': 'type.googleapis.com/google.rpc.RetryInfo', retryDelay: '2.5s' }]
    expect((await watch(failure(429, 'RESOURCE_EXHAUSTED', details))).error.retryAfterMs).toBe(2500)
    const both = failure(429, 'RESOURCE_EXHAUSTED', details, { 'retry-after': '7' })
    expect((await watch(both)).error.retryAfterMs).toBe(7000)
    expect((await watch(failure(429, 'RESOURCE_EXHAUSTED'))).error.retryAfterMs).toBeUndefined()
  })

  test('a body in a list is read, one that is no JSON changes nothing', async () => {
    const inList = { ...failure(503, 'UNAVAILABLE'), body: `[${JSON.stringify(unavailable)}]` }
    expect((await watch(inList)).error.providerCode).toBe('UNAVAILABLE')
    const { error } = await watch({ status: 502, headers: { 'content-type': 'text/html' }, body: `<h1>${output}</h1>` })
    expect(error).toMatchObject({ code: 'server_error', status: 502, retryable: true })
    expect(error.providerMessage).toBeUndefined()
  })
})

describe('what is no stream of an answer is an error, never an empty answer', () => {
  const json = { 'content-type': 'application/json' }
  test('a page', async () => {
    const { error } = await watch({ body: '<html></html>', headers: { 'content-type': 'text/html' } })
    expect(error).toMatchObject({ name: 'StreamError', code: 'unexpected_content_type', retryable: true })
    expect(error.message).toContain('answered with text/html in place of an event stream.')
  })

  test('but chunks in a list are one, as of a gateway that does not stream', async () => {
    const { response } = await watch({ body: JSON.stringify([text, end]), headers: json })
    expect(response).toMatchObject({ text: output, warnings: [{ code: 'not-streamed' }] })
    const { error } = await watch({ body: JSON.stringify([text]), headers: json })
    expect(error).toMatchObject({ name: 'StreamError', code: 'stream_truncated', retryable: true })
  })

  test.for<[string, Recording]>([
    ['as JSON under status 200', { body: JSON.stringify(unavailable), headers: json }],
    ['in a list', { body: JSON.stringify([unavailable]), headers: json }],
    [
      'bare in place of events',
      { body: JSON.stringify(unavailable), headers: { 'content-type': 'text/event-stream' } },
    ],
    ['bare after events', { body: `${wire(text, end)}${JSON.stringify(unavailable, null, 2)}` }],
    ['bare after events, in a list', { body: `${wire(text)}\n[${JSON.stringify(unavailable)}]\n` }],
  ])('an error %s is that error', async ([, recording]) => {
    const body = recording.body as string
    for (const chunks of [body.length, 1, 7]) {
      const { error, response } = await watch(recording, {}, chunks)
      expect(error).toMatchObject({ code: 'overloaded', status: 503, providerCode: 'UNAVAILABLE' })
      expect(error.providerMessage).toBe(words)
      expect(response).toBeUndefined()
    }
  })

  test('an error of many lines is kept up to a bound', async () => {
    const long = (length: number): string =>
      JSON.stringify({ error: { ...unavailable.error, details: Array<string>(length).fill('x') } }, null, 1)
    expect((await watch(wire(text) + long(1_000))).error).toMatchObject({ code: 'overloaded' })
    expect((await watch(wire(text) + long(70_000))).error).toMatchObject({ code: 'stream_protocol' })
  })

  test('what follows the last event and says nothing is no error', async () => {
    const whole = wire(text, end)
    for (const rest of [': bye\r\n\r\n', '\r\n\r\n', '{"done":true}\n', 'data: {"cut', `{"${'x'.repeat(70_000)}`]) {
      for (const chunks of [whole.length + rest.length, 100]) {
        const { response } = await watch(whole + rest, {}, chunks)
        expect(response?.text).toBe(output)
      }
    }
  })
})

describe('an event that breaks the protocol is an error, and what is merely new is not', () => {
  test('new members, events, parts and other candidates are tolerated', async () => {
    const second = { candidates: [{ index: 1, content: { parts: [{ text: 'Another.' }] } }] }
    const news = chunk([{ dream: { story: 1 } }, {}, { functionCall: {} }], undefined, { news: null })
    const { response } = await watch(wire({ heartbeat: 1 }, text, second, news, { candidates: [{}] }, end))
    expect(response).toMatchObject({ text: output, finishReason: 'stop' })
    expect(response!.messages[0]!.content).toContainEqual({
      type: 'provider',
      provider: 'gemini',
      value: { dream: { story: 1 } },
    })
  })

  test('a finish reason in the middle is not the end', async () => {
    const body = wire(chunk([{ text: 'a' }], 'STOP'), chunk([{ text: 'b' }], 'STOP'), call)
    const { response } = await watch(body)
    expect(response).toMatchObject({ text: 'ab', finishReason: 'tool-calls' })
  })
})

function over(client: GeminiClient, options: Partial<GeminiOptions> = {}) {
  return new StreamingLLMClient({ provider: gemini({ model: 'gemini-2.5-flash', client, ...options }) })
}

describe('any client, any way to give a key', () => {
  test('an SDK client that is set up already', async () => {
    const fetch = replayFetch(answer('Fine.'))
    const sdk: GeminiClient = new GoogleGenAI({
      apiKey: 'another',
      apiVersion: 'v1beta',
      httpOptions: { fetch, baseUrl: 'https://gateway.example' },
    })
    expect((await watchClient(over(sdk, { headers: { 'x-a': 'b' } }))).response!.text).toBe('Fine.')
    const { url, headers } = fetch.requests[0]!
    expect(url).toMatch(/^https:\/\/gateway\.example\/v1beta\/models\//)
    expect([headers.get('x-goog-api-key'), headers.get('x-a')]).toEqual(['another', 'b'])
  })

  test('a client of Vertex AI gets its arguments in pieces', async () => {
    const fetch = replayFetch(answer({ message: 'Sure?' }))
    const sdk = new GoogleGenAI({ vertexai: true, apiKey: key, httpOptions: { fetch } })
    const { input, response } = await watchClient(over(sdk, { model: 'gemini-3-flash-preview' }))
    expect(fetch.requests[0]!.url).toContain('aiplatform')
    expect(JSON.parse(input)).toEqual({ message: 'Sure?' })
    expect(response!.finishReason).toBe('tool-calls')
  })

  test('options for Vertex AI', async () => {
    const fetch = replayFetch(answer('Fine.'))
    await watchClient(clientOf(fetch, { project: 'p1', location: 'us-east1' }))
    expect(fetch.requests[0]!.url).toContain('us-east1-aiplatform.googleapis.com')
    vi.stubEnv('GOOGLE_GENAI_USE_VERTEXAI', 'True')
    await watchClient(clientOf(fetch))
    expect(fetch.requests[1]!.url).toContain('aiplatform.googleapis.com')
  })

  test('a client that times out has the name of one that was aborted', async () => {
    const reject = () => Promise.reject(new DOMException('', 'AbortError'))
    const { error } = await watchClient(over({ models: { generateContentStream: reject } }))
    expect(error).toMatchObject({ name: 'TimeoutError', code: 'timeout', phase: 'connect' })
  })

  test('a place of Vertex AI without it is refused at once', () => {
    expect(() => gemini({ model: 'a', vertexai: false, location: 'us' })).toThrow('Vertex')
  })

  test('nothing is ever written to the console', async () => {
    const methods = (['log', 'info', 'warn', 'error', 'debug', 'trace'] as const).map((name) => vi.spyOn(console, name))
    onTestFinished(() => methods.forEach((method) => method.mockRestore()))
    const thought = chunk([{ text: 'Hm.', thought: true }, { functionCall: { name: 'ask' } }])
    for (const body of [wire(text, end), wire(thought, text, end), wire(`{"${output}`), wire(unavailable), '']) {
      await watch(body)
      await watch(body, { apiKey: undefined })
      await watch(body, { vertexai: true, model: 'gemini-3-pro' })
    }
    for (const method of methods) expect(method).not.toHaveBeenCalled()
  })
})

describe('over a real connection', () => {
  test('a timeout of the client itself', async () => {
    const { baseURL, sockets } = await serve(() => undefined)
    // Long enough to connect on a busy machine.
    const sdk = new GoogleGenAI({ apiKey: key, httpOptions: { baseUrl: baseURL, timeout: 500 } })
    const { error } = await watchClient(over(sdk))
    expect(error).toMatchObject({ name: 'TimeoutError', code: 'timeout', retryable: true })
    expect(await untilClosed(sockets[0]!)).toBeLessThan(100)
  })
})
