import { existsSync } from 'node:fs'
import type { ServerResponse } from 'node:http'
import { type LLMError, StreamingLLMClient, type StreamRequest, tool, ToolStreamAccumulator } from 'fieldstream'
import { ollama, type OllamaOptions, toStreamEvents } from 'fieldstream/ollama'
import { type Recording, replayFetch, type ReplaySource, simulate } from 'fieldstream/testing'
import { Ollama } from 'ollama'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { serve, untilClosed } from './conformance/connections.ts'
import { ask, joined, key, messages, output, read, watchClient as watchRun, words } from './conformance/run.ts'

const search = tool({ name: 'search' })
const fine = simulate('Fine.', { provider: 'ollama' })

afterEach(() => {
  vi.unstubAllEnvs()
})

/** A body of JSON lines. */
function wire(...lines: unknown[]): string {
  return lines.map((line) => `${typeof line === 'string' ? line : JSON.stringify(line)}\n`).join('')
}

const createdAt = '2025-06-09T17:58:55.337823Z'
const line = (message: object, rest: object = { done: false }) => ({
  model: 'm',
  created_at: createdAt,
  message: { role: 'assistant', content: '', ...message },
  ...rest,
})
const text = (content = output) => line({ content })
const thought = (thinking: string) => line({ thinking })
const call = (name: unknown, args: unknown, rest: object = {}) =>
  line({ tool_calls: [{ ...rest, function: { name, arguments: args } }] })
const end = (reason: string | null = 'stop') =>
  line({}, { done: true, done_reason: reason ?? undefined, prompt_eval_count: 7, eval_count: 3 })

function clientOf(fetch: typeof globalThis.fetch, options: Partial<OllamaOptions> = {}) {
  return new StreamingLLMClient({ provider: ollama({ model: 'model-a', fetch, ...options }) })
}

/** Runs one request to its end, over whatever the fetch or the source answers. */
async function watch(
  answer: ReplaySource | typeof globalThis.fetch,
  options: Partial<OllamaOptions> = {},
  request: Partial<StreamRequest> = {},
) {
  const isFetch = typeof answer === 'function' && ('requests' in answer || answer.name === 'fetch')
  const client = clientOf(isFetch ? (answer as typeof globalThis.fetch) : replayFetch(answer as ReplaySource), options)
  return watchClient(client, request)
}

async function watchClient(client: StreamingLLMClient, request: Partial<StreamRequest> = {}) {
  const { error, ...run } = await watchRun(client, { tools: [ask], fields: undefined, ...request })
  return { ...run, reasoning: joined(run.events, 'reasoning-delta'), error: error as LLMError }
}

/** The request that goes out, and what `start` warned of. */
async function sent(request: Partial<StreamRequest>, options: Partial<OllamaOptions> = {}) {
  const fetch = replayFetch(fine)
  const stream = clientOf(fetch, options).stream({ messages: [{ role: 'user', content: 'Hello' }], ...request })
  const warnings: unknown[] = []
  stream.on('start', (event) => warnings.push(...(event.warnings ?? [])))
  // An answer without the call that a choice of tool asks for is an error; here only the question counts.
  const failure = await stream.final().then(
    () => undefined,
    (error: unknown) => error,
  )
  if (fetch.requests.length === 0) throw failure
  const body = fetch.requests[0]!.body as Record<string, unknown> & { messages: Record<string, unknown>[] }
  return { ...fetch.requests[0]!, body, warnings: warnings as { code: string; message: string }[] }
}

const bodyOf = async (request: Partial<StreamRequest>) => (await sent(request)).body

describe('a request becomes what /api/chat takes', () => {
  test('the least there can be', async () => {
    const { url, method, body, warnings } = await sent({})
    expect([method, url]).toEqual(['POST', 'http://127.0.0.1:11434/api/chat'])
    expect(body).toEqual({ model: 'model-a', messages: [{ role: 'user', content: 'Hello' }], stream: true })
    expect(warnings).toEqual([])
  })

  test('`system` stands first; turns keep their order and their text', async () => {
    const body = await bodyOf({
      system: 'One.',
      messages: [
        { role: 'system', content: 'Two.' },
        { role: 'user', content: 'Hello' },
        { role: 'assistant', content: 'Hi.' },
        { role: 'assistant', content: '' },
        { role: 'assistant', content: [{ type: 'text', text: '' }] },
        {
          role: 'user',
          content: [
            { type: 'text', text: 'Why?' },
            { type: 'text', text: 'How?' },
          ],
        },
      ],
    })
    expect(body.messages).toEqual([
      { role: 'system', content: 'One.' },
      { role: 'system', content: 'Two.' },
      { role: 'user', content: 'Hello' },
      { role: 'assistant', content: 'Hi.' },
      { role: 'user', content: 'Why?\nHow?' },
    ])
  })

  test('pictures go as bytes, whether they came as bytes or base64', async () => {
    const bytes = Uint8Array.from({ length: 20_001 }, (_, i) => i % 256)
    const body = await bodyOf({
      messages: [
        {
          role: 'user',
          content: [
            { type: 'image', data: bytes, mediaType: 'image/png' },
            { type: 'text', text: 'What is this?' },
            { type: 'image', data: 'aGVsbG8=', mediaType: 'image/jpeg' },
          ],
        },
      ],
    })
    expect(body.messages[0]).toEqual({
      role: 'user',
      content: 'What is this?',
      images: [Buffer.from(bytes).toString('base64'), 'aGVsbG8='],
    })
  })

  test('no text is ever taken for the path of a picture, and an address is refused', async () => {
    const picture = (data: string): Partial<StreamRequest> => ({
      messages: [{ role: 'user', content: [{ type: 'image', data, mediaType: 'image/png' }] }],
    })
    // The path of a file, and base64 too.
    const path = 'LICENSE'
    expect(existsSync(path)).toBe(true)
    const base64 = Buffer.from(path, 'base64').toString('base64')
    for (const useClient of [false, true]) {
      const fetch = replayFetch(fine)
      const provider = ollama({ model: 'a', ...(useClient ? { client: new Ollama({ fetch }) } : { fetch }) })
      await new StreamingLLMClient({ provider }).stream(picture(path) as StreamRequest).final()
      expect((fetch.requests[0]!.body as { messages: { images: string[] }[] }).messages[0]!.images).toEqual([base64])
    }
    const fetch = replayFetch(fine)
    const client = new StreamingLLMClient({ provider: ollama({ model: 'a', client: new Ollama({ fetch }) }) })
    const made = { type: 'provider', provider: 'ollama', value: { images: [path] } } as const
    await client.stream({ messages: [{ role: 'assistant', content: [made] }, ...messages] }).final()
    expect((fetch.requests[0]!.body as { messages: unknown[] }).messages[0]).toMatchObject({ images: [base64] })
    for (const data of ['./picture.png', 'C:\\a.png', 'data:image/png;base64,aGVsbG8='])
      await expect(sent(picture(data))).rejects.toMatchObject({ name: 'UsageError', code: 'invalid_argument' })
    await expect(
      sent({ messages: [{ role: 'user', content: [{ type: 'image', url: 'https://example.com/a.png' }] }] }),
    ).rejects.toMatchObject({ name: 'UsageError', code: 'unsupported' })
  })

  test('calls and their results, by name and id', async () => {
    const body = await bodyOf({
      messages: [
        { role: 'user', content: 'Hello' },
        {
          role: 'assistant',
          content: [
            { type: 'reasoning', text: 'They ask.' },
            { type: 'text', text: 'Let me see.' },
            { type: 'tool-call', toolCallId: 'call_1', toolName: 'ask', input: { message: 'Sure?' } },
            {
              type: 'tool-call',
              toolCallId: 'call_2',
              toolName: 'search',
              input: {},
              metadata: { ollama: { function: { index: 1 }, extra: 'x' }, other: { a: 1 } },
            },
          ],
        },
        {
          role: 'tool',
          content: [
            { type: 'tool-result', toolCallId: 'call_1', output: 'Yes.' },
            { type: 'tool-result', toolCallId: 'call_2', output: { answer: ['no'] }, isError: true },
          ],
        },
        { role: 'tool', content: [{ type: 'tool-result', toolCallId: 'x', toolName: 'named', output: undefined }] },
        { role: 'tool', content: [{ type: 'tool-result', toolCallId: 'y', output: 1 }] },
      ],
    })
    expect(body.messages.slice(1)).toEqual([
      {
        role: 'assistant',
        content: 'Let me see.',
        thinking: 'They ask.',
        tool_calls: [
          { id: 'call_1', function: { name: 'ask', arguments: { message: 'Sure?' } } },
          { id: 'call_2', extra: 'x', function: { index: 1, name: 'search', arguments: {} } },
        ],
      },
      { role: 'tool', content: 'Yes.', tool_name: 'ask', tool_call_id: 'call_1' },
      { role: 'tool', content: 'Error: {"answer":["no"]}', tool_name: 'search', tool_call_id: 'call_2' },
      { role: 'tool', content: '', tool_name: 'named', tool_call_id: 'x' },
      { role: 'tool', content: '1', tool_call_id: 'y' },
    ])
  })

  test('what is not for this provider is dropped, and `start` says so', async () => {
    const { body, warnings } = await sent({
      messages: [
        {
          role: 'assistant',
          content: [
            { type: 'reasoning', text: 'Foreign.', metadata: { other: { signature: 'abc' } } },
            { type: 'provider', provider: 'other', value: { type: 'item' } },
            { type: 'provider', provider: 'ollama', value: { images: ['aGVsbG8='], mood: 'glad' } },
            { type: 'text', text: 'Hi.', metadata: { other: { id: 1 }, ollama: { tone: 'low' } } },
          ],
        },
        { role: 'user', content: [{ type: 'provider', provider: 'other', value: {} }] },
      ],
    })
    expect(warnings.map(({ code }) => code)).toEqual(['dropped-content', 'dropped-content', 'dropped-content'])
    expect(body.messages).toEqual([
      { role: 'assistant', content: 'Hi.', images: ['aGVsbG8='], mood: 'glad', tone: 'low' },
      { role: 'user', content: '' },
    ])
  })

  const schema = { type: 'object', properties: { message: { type: 'string' } } }
  const asked = { type: 'function', function: { name: 'ask', description: 'Asks the user', parameters: schema } }
  const searched = { type: 'function', function: { name: 'search', parameters: { type: 'object' } } }

  test.for([
    [undefined, [asked, searched], 0],
    ['auto', [asked, searched], 0],
    ['none', undefined, 0],
    ['required', [asked, searched], 1],
    [ask, [asked], 1],
    [{ name: 'search' }, [searched], 1],
  ] as const)('tool choice %j narrows the tools, and a forced one is a warning', async ([toolChoice, tools, count]) => {
    const { body, warnings } = await sent({ tools: [ask, search], toolChoice, toolInput: 'native' })
    expect(body['tools']).toEqual(tools)
    expect(body).not.toHaveProperty('tool_choice')
    expect(warnings.map(({ code }) => code)).toEqual(Array(count).fill('unsupported'))
  })

  test("tools in the provider's own words, and strict ones, of which `start` warns", async () => {
    const own = tool({ name: 'own', strict: true, definition: { ollama: { type: 'special' } } })
    const strict = tool({ name: 'strict', strict: true })
    expect(await sent({ tools: [own] })).toMatchObject({ body: { tools: [{ type: 'special' }] }, warnings: [] })
    expect((await sent({ tools: [strict] })).warnings).toMatchObject([{ code: 'unsupported' }])
    expect((await sent({ tools: [] })).body).not.toHaveProperty('tools')
  })

  test('the usual settings have their own names', async () => {
    expect((await bodyOf({ maxTokens: 5, temperature: 0, topP: 0.5, stop: ['END'] }))['options']).toEqual({
      num_predict: 5,
      temperature: 0,
      top_p: 0.5,
      stop: ['END'],
    })
    expect(await bodyOf({ stop: [] })).not.toHaveProperty('options')
  })

  test('reasoning is a level for gpt-oss, and on for other models, which `start` says', async () => {
    const low = await sent({ reasoning: { effort: 'low' } }, { model: 'gpt-oss:20b' })
    expect([low.body['think'], low.warnings]).toEqual(['low', []])
    for (const reasoning of [{ effort: 'low' }, { budgetTokens: 2000 }] as const) {
      const { body, warnings } = await sent({ reasoning })
      expect(body['think']).toBe(true)
      expect(warnings).toMatchObject([{ code: 'unsupported' }])
    }
  })

  test("the provider's own options pass as they are, and win, one by one", async () => {
    const body = await bodyOf({
      temperature: 1,
      maxTokens: 5,
      providerOptions: {
        ollama: { keep_alive: '5m', think: false, options: { num_ctx: 4096, temperature: 0.1 } },
        other: { top_k: 9 },
      },
    })
    expect(body).toMatchObject({
      keep_alive: '5m',
      think: false,
      options: { num_predict: 5, num_ctx: 4096, temperature: 0.1 },
    })
    expect(body).not.toHaveProperty('other')
  })
})

describe('an answer becomes the events every provider has', () => {
  test('calls without ids get the same for the same answer, and others than in another', async () => {
    const idsOf = async (...lines: unknown[]) =>
      (await watch(wire(...lines, end()))).response!.toolCalls.map(({ toolCallId }) => toolCallId)
    const ids = await idsOf(call('ask', {}), call('ask', {}), call('ask', {}, { id: '' }))
    expect(new Set(ids).size).toBe(3)
    expect(await idsOf(call('ask', {}), call('ask', {}), call('ask', {}, { id: '' }))).toEqual(ids)
    const later = JSON.parse(JSON.stringify(call('ask', {})).replace('55.3', '56.3')) as object
    expect(ids).not.toContain((await idsOf(later))[0])
    // One that the server happens to use.
    expect(new Set(await idsOf(call('ask', {}, { id: ids[1] }), call('ask', {}))).size).toBe(2)
  })

  test('arguments may be missing, or text', async () => {
    const inputOf = async (args: unknown) => (await watch(wire(call('ask', args), end()))).response?.toolCalls[0]?.input
    expect(await inputOf({ message: 'Gäste 🎉', deep: [{ a: null }] })).toEqual({
      message: 'Gäste 🎉',
      deep: [{ a: null }],
    })
    expect(await inputOf(undefined)).toEqual({})
    expect(await inputOf(null)).toEqual({})
    expect(await inputOf('')).toEqual({})
    expect(await inputOf('{"a":1}')).toEqual({ a: 1 })
    expect((await watch(wire(call('ask', '{"a":'), end()))).error.code).toBe('invalid_json')
    expect((await watch(wire(call('ask', [1]), end()))).error.code).toBe('schema_mismatch')
  })

  test.for([
    ['stop', false, 'stop'],
    ['stop', true, 'tool-calls'],
    [null, false, 'stop'],
    [null, true, 'tool-calls'],
    ['length', false, 'length'],
    ['load', false, 'other'],
    ['brand_new', true, 'other'],
  ] as const)('done_reason %s, with calls: %s', async ([reason, hasCall, finishReason]) => {
    const { response } = await watch(wire(hasCall ? call('ask', {}) : text(), end(reason)))
    expect(response).toMatchObject({ finishReason, providerFinishReason: reason ?? '' })
  })

  test('a call at the token limit is never an answer', async () => {
    const { error, response } = await watch(wire(call('ask', { message: output }), end('length')))
    expect(response).toBeUndefined()
    expect(error).toMatchObject({ code: 'output_truncated', toolName: 'ask', usage: { inputTokens: 7 } })
  })

  test('tokens, where the server tells them', async () => {
    const { response } = await watch(wire(text(), end()))
    expect(response!.usage).toMatchObject({ inputTokens: 7, outputTokens: 3, totalTokens: 10 })
    const bare = await watch(wire(text(), { done: true }))
    expect(bare.response!.usage).toMatchObject({ inputTokens: 0, outputTokens: 0, totalTokens: 0, raw: {} })
  })

  test('pictures that a model makes go back to it', async () => {
    const fetch = replayFetch([wire(text('See:'), line({ images: ['aGVsbG8='] }), text('.'), end()), fine])
    const client = clientOf(fetch)
    const { messages: answer } = await client.stream({ messages }).final()
    await client.stream({ messages: [...messages, ...answer, ...messages] }).final()
    expect((fetch.requests[1]!.body as { messages: unknown[] }).messages[1]).toEqual({
      role: 'assistant',
      content: 'See:.',
      images: ['aGVsbG8='],
    })
  })

  test('a simulated refusal is nothing that Ollama could send', async () => {
    expect((await watch(simulate('x', { provider: 'ollama', finishReason: 'refusal' }))).error.code).toBe('unsupported')
  })
})

describe('thinking is told from text, and not one character of a tag is in either', () => {
  type Known = 'opened' | 'unopened' | 'asked'
  test.for<[string, Known, string, string, number]>([
    // content, what is known, text, reasoning, warnings
    ['<think>a</think>b', 'opened', 'b', 'a', 0],
    [' \n<think>\na < b\n</think>\n\n b </think>', 'opened', 'b </think>', 'a < b\n', 0],
    ['<think>\n\n</think>\n\nb', 'opened', 'b', '', 0],
    ['<think>a', 'opened', '', 'a', 0],
    ['<think>a</thi', 'opened', '', 'a</thi', 0],
    ['<thinking>a</thinking>', 'opened', '<thinking>a</thinking>', '', 0],
    ['a <think>b</think> c', 'opened', 'a <think>b</think> c', '', 0],
    ['</think>\n\na</think>', 'opened', 'a</think>', '', 0],
    ['a</think>b</think>c', 'opened', 'ab</think>c', '', 1],
    ['  a < b <', 'opened', '  a < b <', '', 0],
    ['  ', 'opened', '  ', '', 0],
    ['a\n</think>\n\nb', 'unopened', 'b', 'a\n', 0],
    ['<think>a</think>b', 'unopened', 'b', 'a', 0],
    ['a', 'unopened', '', 'a', 0],
    ['a\n</think>\n\nb</think>', 'asked', 'b</think>', 'a\n', 0],
    [' a', 'asked', ' a', '', 0],
    ['<think>a</think>b', 'asked', 'b', 'a', 0],
  ])('%j, %s', async ([content, known, text, reasoning, warnings]) => {
    const request = known === 'asked' ? { reasoning: { budgetTokens: 1 } } : {}
    const thinkTag = known === 'asked' ? undefined : known
    for (let size = 1; size <= content.length; size++) {
      const pieces = Array.from({ length: Math.ceil(content.length / size) }, (_, i) =>
        line({ content: content.slice(i * size, (i + 1) * size) }),
      )
      const seen = await watch(wire(...pieces, end()), { thinkTag }, request)
      expect([seen.text, seen.reasoning], `in pieces of ${size}`).toEqual([text, reasoning])
      expect(seen.response!.warnings.filter(({ code }) => code === 'dropped-content').length).toBe(warnings)
      // The same where the end does not come, save that nothing was an answer.
      const cut = await watch(wire(...pieces), { thinkTag }, request)
      expect([cut.text, cut.reasoning]).toEqual([text, reasoning])
      expect(cut.error.code).toBe('stream_truncated')
    }
  })

  test('where the server tells thinking apart, tags in the text are text', async () => {
    const lines = [thought('a'), text('Write </think>, '), text('then <think>.'), end()]
    expect(await watch(wire(...lines), {}, { reasoning: { budgetTokens: 1 } })).toMatchObject({
      reasoning: 'a',
      text: 'Write </think>, then <think>.',
    })
    const leaked = await watch(wire(thought('a'), text('</thi'), text('nk>\n\nb'), end()))
    expect([leaked.reasoning, leaked.text]).toEqual(['a', 'b'])
    const late = await watch(wire(text('</think> '), thought('a'), text('\n b'), end()))
    expect([late.reasoning, late.text]).toEqual(['a', 'b'])
  })

  test('text comes at once, and is held back only where thinking was asked for and does not come apart', async () => {
    const deltas = async (think: unknown, ...lines: unknown[]) => {
      const { events } = await watch(wire(...lines, end()), {}, { providerOptions: { ollama: { think } } })
      return events.flatMap((event) => ('delta' in event ? [event.delta] : [event.type]))
    }
    expect(await deltas(undefined, text('a'), text('b'))).toEqual(['start', 'a', 'b', 'finish'])
    expect(await deltas('low', text('a'), text('b'))).toEqual(['start', 'a', 'b', 'finish'])
    expect(await deltas(true, text('a'), text('b'))).toEqual(['start', 'ab', 'finish'])
    expect(await deltas(true, thought('a'), text('b'), text('c'))).toEqual(['start', 'a', 'b', 'c', 'finish'])
    const called = await deltas(true, text('a'), call('ask', {}), text('b'), text('c'))
    expect(called).toEqual(['start', 'a', 'tool-input-start', '{}', 'tool-input-end', 'b', 'c', 'tool-call', 'finish'])
  })
})

describe('an error status is an error one can act on', () => {
  const failure = (status: number, headers: Record<string, string> = {}): Recording => ({
    status,
    headers: { 'content-type': 'application/json', 'x-request-id': 'req_1', ...headers },
    body: JSON.stringify({ error: words }),
  })

  test('headers and bodies of other kinds', async () => {
    expect((await watch(failure(429, { 'retry-after': '7' }))).error.retryAfterMs).toBe(7000)
    const page = { status: 502, headers: { 'content-type': 'text/html' }, body: `<h1>${output}</h1>` }
    expect((await watch(page)).error).toMatchObject({ code: 'server_error', status: 502 })
    expect((await watch(page)).error.providerMessage).toBeUndefined()
    const nested = { status: 400, body: JSON.stringify({ error: { message: words } }) }
    expect((await watch(nested)).error.providerMessage).toBe(words)
    expect((await watch({ status: 500, body: 'null' })).error.code).toBe('server_error')
    expect((await watch({ status: 304, body: '' })).error.code).toBe('http_error')
  })
})

describe('an error inside the stream', () => {
  test('is one of the server, also where it says nothing about itself', async () => {
    const { error } = await watch(wire({ error: 5 }))
    expect(error).toMatchObject({ code: 'server_error', status: 500 })
    expect(error.providerMessage).toBeUndefined()
  })

  test('what was held back comes before it', async () => {
    const request = { reasoning: { budgetTokens: 1 } }
    const seen = await watch(wire(text(), { error: words }), {}, request)
    expect([seen.error.code, seen.text, seen.error.partial!.text]).toEqual(['server_error', output, output])
  })
})

describe('what is no stream of an answer is an error, never an empty answer', () => {
  test('the protocol of somebody else', async () => {
    const { error } = await watch('data: {}\n\n')
    expect(error).toMatchObject({ name: 'StreamError', code: 'unexpected_content_type', retryable: true })
    expect(error.message).toContain('answered with text/event-stream in place of lines of JSON.')
  })

  test('any content type that says JSON, or none', async () => {
    const body = wire(text(), end())
    const bare = () => new Response(new TextEncoder().encode(body))
    for (const fetch of [
      replayFetch({ body, headers: { 'content-type': 'Application/JSON; charset=utf-8' } }),
      replayFetch({ body, headers: { 'content-type': 'application/jsonl' } }),
      Object.assign(() => Promise.resolve(bare()), { requests: [] }),
    ])
      expect((await watch(fetch)).response!.text).toBe(output)
  })
})

describe('a line that breaks the protocol is an error, and what is merely new is not', () => {
  test('only `done: true` is the end', async () => {
    for (const done of ['true', 1, null])
      expect((await watch(wire(text(), { ...end(), done }))).error.code).toBe('stream_truncated')
  })

  test('a long line in short reads costs no more than its length', async () => {
    const time = async (length: number) => {
      const body = wire(call('ask', { message: 'x'.repeat(length) }), end())
      const from = performance.now()
      const { response } = await watch(replayFetch(body, { chunks: 512 }))
      expect((response!.toolCalls[0].input as { message: string }).message.length).toBe(length)
      return performance.now() - from
    }
    // Of three, since the machine may be busy with something else; what grew with the square would take 16 times as long.
    const best = async (length: number) => Math.min(await time(length), await time(length), await time(length))
    await time(500_000)
    expect(await best(4_000_000)).toBeLessThan(8 * Math.max(50, await best(1_000_000)))
  })

  test('lines of any kind the format allows', async () => {
    const body = wire(text('Gäste 🎉\u2028\u0085'), end())
    const framings = [
      body.replaceAll('\n', '\r\n'),
      `\ufeff${body}`,
      body.replaceAll('\n', '\n\n \n'),
      body.replaceAll('{"model"', '  { "model"'),
      body.trimEnd(),
      wire({ heartbeat: true }) + body,
      wire(text('Gäste 🎉\u2028\u0085'), { message: { role: 'assistant' } }, { done: true }),
    ]
    for (const framing of framings) {
      for (const chunks of [100_000, 1]) {
        const answer = { body: framing, headers: { 'content-type': 'application/x-ndjson' } }
        expect((await watch(replayFetch(answer, { chunks }))).response?.text, framing.slice(0, 50)).toBe(
          'Gäste 🎉\u2028\u0085',
        )
      }
    }
  })
})

describe('any client, any way to reach a server', () => {
  test.for([
    [undefined, undefined, 'http://127.0.0.1:11434/api/chat'],
    [undefined, 'gpu.local:8080', 'http://gpu.local:8080/api/chat'],
    ['https://gateway.example/base/', 'gpu.local:8080', 'https://gateway.example/base/api/chat'],
    [':1234', undefined, 'http://127.0.0.1:1234/api/chat'],
  ] as const)('host %s, OLLAMA_HOST %s', async ([host, environment, expected]) => {
    vi.stubEnv('OLLAMA_HOST', environment)
    const { url } = await sent({}, { host })
    expect(new URL(url).href).toBe(new URL(expected).href)
  })

  test('key and headers go where they belong', async () => {
    const { headers } = await sent({}, { apiKey: key, headers: { 'x-a': 'b' } })
    expect([headers.get('authorization'), headers.get('x-a')]).toEqual([`Bearer ${key}`, 'b'])
    expect((await sent({})).headers.get('authorization')).toBeNull()
    expect((await sent({}, { headers: { authorization: 'Own' }, apiKey: key })).headers.get('authorization')).toBe(
      'Own',
    )
  })

  test('a password in the address becomes a header, since `fetch` refuses it', async () => {
    const { url, headers } = await sent({}, { host: `http://me:${key}%C3%A4@gpu.local` })
    expect(url).toBe('http://gpu.local/api/chat')
    expect(headers.get('authorization')).toBe(`Basic ${Buffer.from(`me:${key}ä`).toString('base64')}`)
  })

  test('a host that is no address is named, not printed', async () => {
    const { error } = await watch(fine, { host: `http://me:${key}@:x` })
    expect(error).toMatchObject({ name: 'UsageError', code: 'invalid_argument' })
    expect(error.message).toContain('OLLAMA_HOST')
  })

  test('an SDK client that is set up already keeps its host, headers and fetch, and its other streams', async () => {
    const fetch = replayFetch(fine)
    class OwnOllama extends Ollama {}
    const sdk = new OwnOllama({ fetch, host: 'https://gateway.example', headers: { 'x-a': 'b' } })
    const other = await sdk.chat({ model: 'a', messages: [], stream: true })
    const provider = ollama({ model: 'model-a', client: sdk, headers: { 'x-c': 'd' } })
    const { response } = await watchClient(new StreamingLLMClient({ provider }))
    expect(response!.text).toBe('Fine.')
    expect(fetch.requests[1]!.url).toBe('https://gateway.example/api/chat')
    expect(fetch.requests[1]!.headers.get('x-a')).toBe('b')
    expect(fetch.requests[1]!.headers.get('x-c')).toBe('d')
    const state = sdk as unknown as { fetch: unknown; ongoingStreamedRequests: unknown[] }
    expect(state.fetch).toBe(fetch)
    expect(state.ongoingStreamedRequests).toEqual([other])
  })

  test('a client that cannot send may name a status', async () => {
    const facts = { name: 'ResponseError', status_code: 404, error: words }
    const client = { chat: () => Promise.reject(Object.assign(new Error(words), facts)) }
    const { error } = await watchClient(new StreamingLLMClient({ provider: ollama({ model: 'a', client }) }))
    expect(error).toMatchObject({ name: 'HttpError', code: 'not_found', status: 404, phase: 'connect' })
  })

  test('an abort reaches a client that hangs before its answer, and one that hangs within', async () => {
    const abort = vi.fn()
    const hanging = { chat: () => new Promise(() => undefined) }
    const endless = {
      abort,
      [Symbol.asyncIterator]: () => {
        let step = 0
        return {
          next: () =>
            step++ === 0
              ? Promise.resolve({ value: text(), done: false })
              : new Promise((_, reject) => abort.mockImplementation(() => reject(new Error('aborted')))),
        }
      },
    }
    for (const client of [hanging, { chat: () => Promise.resolve(endless) }]) {
      const controller = new AbortController()
      setTimeout(() => controller.abort('enough'), 10)
      const provider = ollama({ model: 'a', client })
      const { error } = await read(provider.stream({ messages }, { signal: controller.signal, attempt: 1 }))
      expect(error).toMatchObject({ name: 'AbortError', reason: 'enough' })
    }
  })
})

const streamHeaders = { 'content-type': 'application/x-ndjson' }

/** Begins to answer, and stays. */
const begin = (response: ServerResponse) => response.writeHead(200, streamHeaders).write(wire(text()))

describe('over a real connection', () => {
  test("leaving the SDK's own stream closes it", async () => {
    const { baseURL, sockets } = await serve(begin)
    const stream = await new Ollama({ host: baseURL }).chat({ model: 'a', messages: [], stream: true })
    for await (const event of toStreamEvents(stream)) if (event.type === 'text-delta') break
    expect(await untilClosed(sockets[0]!)).toBeLessThan(100)
  })

  test("aborting one's own SDK stream is an abort, not a cut", async () => {
    const { baseURL } = await serve(begin)
    const stream = await new Ollama({ host: baseURL }).chat({ model: 'a', messages: [], stream: true })
    const accumulator = new ToolStreamAccumulator()
    const run = async () => {
      for await (const event of toStreamEvents(stream)) {
        accumulator.push(event)
        if (event.type === 'text-delta') stream.abort()
      }
    }
    await expect(run()).rejects.toMatchObject({ name: 'AbortError', code: 'aborted' })
    expect(accumulator.isComplete).toBe(false)
  })
})
