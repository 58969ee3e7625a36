import fc from 'fast-check'
import {
  isLLMError,
  type LLMError,
  type Message,
  nonStreaming,
  type Provider,
  type ResponseEvent,
  StreamingLLMClient,
  tool,
  type ToolInputChannel,
  xmlTools,
} from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { gemini } from 'fieldstream/gemini'
import { ollama } from 'fieldstream/ollama'
import { openai, openaiChat } from 'fieldstream/openai'
import { replayFetch, simulate, type SimulateOptions } from 'fieldstream/testing'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'

type Fetch = typeof globalThis.fetch
type Name = NonNullable<SimulateOptions['provider']>

/** Every provider, and every way a tool may be called through it; `native` twice where a service has two ways. */
const ways: readonly (readonly [string, Name, ToolInputChannel, (fetch: Fetch) => Provider])[] = (
  [
    ['anthropic', 'anthropic', (fetch) => anthropic({ model: 'claude-haiku-4-5', fetch })],
    ['openai', 'openai', (fetch) => openai({ model: 'gpt-5-mini', fetch })],
    ['openai-chat', 'openai-chat', (fetch) => openaiChat({ model: 'gpt-5-mini', fetch })],
    ['ollama', 'ollama', (fetch) => ollama({ model: 'llama3.2', fetch })],
    ['gemini', 'gemini', (fetch) => gemini({ model: 'gemini-2.5-flash', fetch })],
    ['Vertex AI', 'gemini', (fetch) => gemini({ model: 'gemini-3-flash', vertexai: true, apiKey: 'none', fetch })],
  ] satisfies [string, Name, (fetch: Fetch) => Provider][]
).flatMap(([label, name, create]) =>
  (['native', 'json', 'xml'] as const).map((channel) => [`${label}, ${channel}`, name, channel, create] as const),
)

const schema = z.object({
  reasoning: z.string(),
  route: z.enum(['product', 'general']),
  ask_slots: z.array(z.object({ slot: z.string(), message: z.string(), options: z.array(z.string()) })),
  price: z.number(),
  sure: z.boolean(),
})
const classify = tool({ name: 'classify_and_assess', description: 'Plan the next step', input: schema })
const fields = { ask: 'ask_slots[*].message', options: 'ask_slots[*].options', any: '*' } as const
const question: Message = { role: 'user', content: 'I want chips for a party' }

type Payload = z.infer<typeof schema>

const scripted: Payload = {
  reasoning: 'Guests and diet decide.\n"Both" are \\ unknown \u2028 🤷🏽‍♀️',
  route: 'product',
  ask_slots: [
    { slot: 'guests', message: 'How many </tool_call> people {come}? 🎉', options: ['<10', '10–30'] },
    { slot: '', message: '', options: [''] },
  ],
  price: -1.5e-7,
  sure: false,
}

interface Seen {
  readonly events: ResponseEvent[]
  readonly error: LLMError | undefined
}

async function collect(stream: AsyncIterable<ResponseEvent>): Promise<Seen> {
  const events: ResponseEvent[] = []
  try {
    for await (const event of stream) events.push(event)
  } catch (error) {
    if (!isLLMError(error)) throw error
    return { events, error }
  }
  return { events, error: undefined }
}

/** What a consumer sees of fields, however they were cut into deltas; ids are the provider's own. */
function fieldsOf(events: readonly ResponseEvent[]): unknown[] {
  const told: Record<string, unknown>[] = []
  for (const event of events) {
    if (event.type === 'field-delta') {
      const { field, path, params, delta, length, toolName } = event
      // Two fields at one place take turns.
      const open = told.findLast((other) => other['path'] === path && other['field'] === field)
      if (open) Object.assign(open, { text: String(open['text']) + delta, length })
      else told.push({ field, path, params, text: delta, length, toolName })
    } else if (event.type === 'field-end') {
      const { field, path, params, value, valid, toolName } = event
      told.push({ field, path, params, value, valid, toolName })
    }
  }
  return told
}

function kindsOf(events: readonly ResponseEvent[]): Set<string> {
  return new Set(events.map(({ type }) => type))
}

describe('the same answer is the same on every provider and through every channel', () => {
  const run = async (
    [, name, channel, create]: (typeof ways)[number],
    payload: Payload,
    options: SimulateOptions = {},
    request: object = {},
  ) => {
    const source = simulate(payload, {
      provider: name,
      tool: classify,
      ...(channel === 'xml' && { toolInput: 'xml' }),
      ...options,
    })
    const client = new StreamingLLMClient({ provider: create(replayFetch(source)) })
    const stream = client.stream({
      messages: [question],
      tools: [classify],
      toolChoice: classify,
      toolInput: channel,
      fields,
      ...request,
    })
    return { ...(await collect(stream)), response: await stream.final().catch(() => undefined) }
  }

  const expected = run(ways[0]!, scripted)

  test.each(ways.map((way) => [way[0], way] as const))('%s', async (_, way) => {
    const { events, error, response } = await run(way, scripted)
    expect(error).toBeUndefined()
    const reference = await expected
    expect(fieldsOf(events)).toEqual(fieldsOf(reference.events))
    expect(kindsOf(events)).toEqual(kindsOf(reference.events))
    expect(events.find(({ type }) => type === 'start')).toMatchObject({ toolInput: way[2] })
    expect(response).toMatchObject({
      text: '',
      finishReason: 'tool-calls',
      toolCalls: [{ toolName: 'classify_and_assess', input: scripted }],
    })
    expect(Object.keys(response!)).toEqual(Object.keys(reference.response!))
    expect(events.filter(({ type }) => type === 'tool-call')).toHaveLength(1)
    expect(response!.usage).toMatchObject({ inputTokens: 100, cacheReadTokens: 0, cacheWriteTokens: 0 })
  })

  test('whatever the answer is', async () => {
    const text = fc.string({ unit: 'grapheme', maxLength: 30 })
    const slot = fc.record({ slot: text, message: text, options: fc.array(text, { maxLength: 3 }) })
    const payloads: fc.Arbitrary<Payload> = fc.record({
      reasoning: text,
      route: fc.constantFrom('product', 'general'),
      ask_slots: fc.array(slot, { minLength: 1, maxLength: 3 }),
      price: fc.double({ noNaN: true, noDefaultInfinity: true }).map((number) => number + 0),
      sure: fc.boolean(),
    })
    await fc.assert(
      fc.asyncProperty(payloads, fc.integer({ min: 1, max: 9 }), async (payload, deltaChars) => {
        const [reference, ...others] = await Promise.all(ways.map((way) => run(way, payload, { deltaChars })))
        expect(reference!.response?.toolCalls[0].input).toEqual(payload)
        for (const [i, { events, response }] of others.entries()) {
          expect(fieldsOf(events), ways[i + 1]![0]).toEqual(fieldsOf(reference!.events))
          expect(response?.toolCalls[0].input, ways[i + 1]![0]).toEqual(payload)
        }
      }),
      { numRuns: 25 },
    )
  })

  test.each(ways.map((way) => [way[0], way] as const))('%s: cut by a token limit, it is an error', async (_, way) => {
    const { events, error } = await run(way, scripted, { finishReason: 'length' })
    expect(error).toMatchObject({ name: 'OutputError', code: 'output_truncated', toolName: 'classify_and_assess' })
    expect(kindsOf(events)).not.toContain('tool-call')
    expect(error?.partial?.toolCalls[0]?.input).toEqual(scripted)
  })

  test.each(ways.map((way) => [way[0], way] as const))('%s: broken off anywhere, it is an error', async (_, way) => {
    const [, name, channel, create] = way
    const whole = simulate(scripted, { provider: name, tool: classify, ...(channel === 'xml' && { toolInput: 'xml' }) })
    const all = fieldsOf((await run(way, scripted)).events)
    for (const share of [0.2, 0.5, 0.8, 0.95]) {
      const cut = replayFetch((request) => {
        const { body, headers } = whole(request)
        return { body: String(body).slice(0, body.length * share), ...(headers && { headers }) }
      })
      const stream = new StreamingLLMClient({ provider: create(cut) }).stream({
        messages: [question],
        tools: [classify],
        toolChoice: classify,
        toolInput: channel,
        fields,
      })
      const { events, error } = await collect(stream)
      const code = 'stream_truncated'
      expect(error, String(share)).toMatchObject({ name: 'StreamError', code, retryable: true })
      expect(kindsOf(events)).not.toContain('tool-call')
      // What was shown stays true.
      for (const told of fieldsOf(events) as { path: string; text?: string }[]) {
        const final = all.find((other) => (other as typeof told).path === told.path && 'text' in (other as object))
        if (told.text !== undefined) expect((final as typeof told).text).toContain(told.text)
        else expect(all).toContainEqual(told)
      }
    }
  })

  test.each(ways.map((way) => [way[0], way] as const))('%s: the conversation goes on', async (_, way) => {
    const { response } = await run(way, scripted)
    const { toolCallId, toolName } = response!.toolCalls[0]
    const messages: Message[] = [
      question,
      ...response!.messages,
      { role: 'tool', content: [{ type: 'tool-result', toolCallId, toolName, output: { stock: 'plenty' } }] },
      { role: 'user', content: 'Only crisps, please.' },
    ]
    const next = await run(way, { ...scripted, route: 'general' }, {}, { messages })
    expect(next.error).toBeUndefined()
    expect(next.response?.toolCalls[0].input.route).toBe('general')
    // No id comes twice in one conversation, where it is fieldstream that makes them.
    if (way[2] !== 'native') expect(next.response?.toolCalls[0].toolCallId).not.toBe(toolCallId)
    // And what one channel made goes through any other.
    for (const other of ways.filter(([, name]) => name === way[1])) {
      expect((await run(other, scripted, {}, { messages })).error, other[0]).toBeUndefined()
    }
  })
})

describe('the same output is the same on every provider', () => {
  const providers = ways.filter(([, , channel]) => channel === 'native')

  test.each(providers.map((way) => [way[0].replace(', native', ''), way] as const))('%s', async (_, way) => {
    const run = async (create: (fetch: Fetch) => Provider, name: Name) => {
      const client = new StreamingLLMClient({ provider: create(replayFetch(simulate(scripted, { provider: name }))) })
      const stream = client.stream({ messages: [question], output: schema, fields })
      return { ...(await collect(stream)), response: await stream.final() }
    }
    const reference = await run(ways[0]![3], ways[0]![1])
    const { events, error, response } = await run(way[3], way[1])
    expect(error).toBeUndefined()
    expect(response.output).toEqual(scripted)
    expect(JSON.parse(response.text)).toEqual(scripted)
    expect(response.finishReason).toBe('stop')
    expect(fieldsOf(events)).toEqual(fieldsOf(reference.events))
    expect(kindsOf(events)).toEqual(kindsOf(reference.events))
  })
})

describe('a forced tool goes through the channel that streams', () => {
  test.each([
    ['anthropic', 'anthropic', {}, 'native'],
    ['anthropic', 'anthropic', { reasoning: { effort: 'low' } }, 'json'],
    ['openai', 'openai', {}, 'native'],
    ['openai-chat', 'openai-chat', {}, 'native'],
    ['ollama', 'ollama', {}, 'json'],
    ['ollama', 'ollama', { toolChoice: 'required' }, 'json'],
    ['ollama', 'ollama', { toolChoice: 'auto' }, 'native'],
    ['gemini', 'gemini', {}, 'json'],
    ['gemini', 'gemini', { toolChoice: 'auto' }, 'native'],
    ['Vertex AI', 'gemini', {}, 'native'],
  ] as const)('%s %j', async (label, name, request, channel) => {
    const [, , , create] = ways.find(([way]) => way === `${label}, native`)!
    const client = new StreamingLLMClient({ provider: create(replayFetch(simulate(scripted, { provider: name }))) })
    const options: object = request
    const stream = client.stream({ messages: [question], tools: [classify], toolChoice: classify, fields, ...options })
    const { events, error } = await collect(stream)
    expect(error).toBeUndefined()
    expect(events.find(({ type }) => type === 'start')).toMatchObject({ toolInput: channel })
    expect(events.filter(({ type }) => type === 'tool-call')).toMatchObject([{ input: scripted }])
    // It really streams: a message comes in several pieces, unless the model may as well not call.
    const deltas = events.filter((event) => event.type === 'field-delta' && event.path === 'ask_slots[0].message')
    if (channel !== 'native' || ['anthropic', 'openai', 'openai-chat', 'Vertex AI'].includes(label))
      expect(deltas.length).toBeGreaterThan(3)
  })

  test('xmlTools() gives any provider tools', async () => {
    for (const [label, name, channel, create] of ways.filter(([, , used]) => used === 'native')) {
      const fetch = replayFetch(simulate(scripted, { provider: name, tool: classify, toolInput: 'xml' }))
      const client = new StreamingLLMClient({ provider: xmlTools(create(fetch)) })
      const stream = client.stream({ messages: [question], tools: [classify], fields })
      const { events, error } = await collect(stream)
      expect(error, `${label} ${channel}`).toBeUndefined()
      expect(events.find(({ type }) => type === 'start')).toMatchObject({ toolInput: 'xml' })
      expect((await stream.final()).toolCalls).toMatchObject([{ input: scripted }])
    }
  })
})

describe('an answer in one piece is the same as its stream', () => {
  const run = async (
    [, name, channel, create]: (typeof ways)[number],
    payload: Parameters<typeof simulate>[0],
    options: SimulateOptions,
    request: object,
    isWhole: boolean,
  ) => {
    const fetch = replayFetch(simulate(payload, { provider: name, ...options }))
    const provider = create(fetch)
    const client = new StreamingLLMClient({ provider: isWhole ? nonStreaming(provider) : provider })
    const stream = client.stream({ messages: [question], toolInput: channel, fields, ...request })
    const { events, error } = await collect(stream)
    const { metrics: _, ...response } = (await stream.final().catch(() => undefined)) ?? {}
    const { code, finishReason } = {
      code: error?.code,
      finishReason: (error as { finishReason?: string })?.finishReason,
    }
    const told = [fieldsOf(events), [...kindsOf(events)].sort()]
    return {
      told,
      response: error ? undefined : response,
      error: { code, finishReason },
      events,
      requests: fetch.requests,
      raw: error,
    }
  }

  /** Runs it both ways; what is streamed serves as the reference. */
  const runBoth = async (
    way: (typeof ways)[number],
    payload: Parameters<typeof simulate>[0],
    options: SimulateOptions = {},
    request: object = { tools: [classify], toolChoice: classify },
  ) => {
    const streamed = await run(way, payload, options, request, false)
    const whole = await run(way, payload, options, request, true)
    expect(whole.raw?.message).toBe(streamed.raw?.message)
    expect([whole.told, whole.response, whole.error]).toEqual([streamed.told, streamed.response, streamed.error])
    expect(whole.requests).toHaveLength(1)
    expect(JSON.stringify(whole.response ?? {})).not.toContain('not-streamed')
    const [{ url, body }] = whole.requests as unknown as [{ url: string; body: { stream?: boolean } }]
    expect(way[1] === 'gemini' ? url.includes(':generateContent') : body.stream === false).toBe(true)
    return whole
  }

  test.each(ways.map((way) => [way[0], way] as const))('%s', async (_, way) => {
    const xml: SimulateOptions = way[2] === 'xml' ? { toolInput: 'xml' } : {}
    const called = await runBoth(way, scripted, {
      tool: classify,
      text: way[2] === 'json' ? undefined : 'Let me see.',
      ...xml,
    })
    expect(called.response).toMatchObject({
      finishReason: 'tool-calls',
      toolCalls: [{ input: scripted }],
    })
    const thought = await runBoth(way, 'Guests decide. 🎉', { reasoning: 'Hm.\n\nWell.' }, {})
    expect(thought.response).toMatchObject({
      text: 'Guests decide. 🎉',
      reasoning: 'Hm.\n\nWell.',
      finishReason: 'stop',
    })
    const cut = await runBoth(way, scripted, { tool: classify, finishReason: 'length', ...xml })
    expect(cut.error.code).toBe('output_truncated')
    if (way[1] === 'ollama') return
    const refused = await runBoth(way, 'No.', { finishReason: 'refusal' }, {})
    expect(refused.error.code).toMatch(/refused|content_filtered/)
    const filtered = await runBoth(way, 'No', { finishReason: 'content-filter' }, {})
    expect(filtered.error.code).toMatch(/refused|content_filtered/)
  })

  const natively = ways.filter(([, , channel]) => channel === 'native')

  test.each(natively.map((way) => [way[0].replace(', native', ''), way] as const))('%s: output', async (_, way) => {
    const { response } = await runBoth(way, scripted, {}, { output: schema })
    expect(response).toMatchObject({ output: scripted, finishReason: 'stop' })
    const cut = await runBoth(way, scripted, { finishReason: 'length' }, { output: schema })
    expect(cut.error.code).toBe('output_truncated')
  })

  test('whatever the answer is', async () => {
    const text = fc.string({ unit: 'grapheme', maxLength: 20 })
    const payload = fc.record({
      reasoning: text,
      route: fc.constantFrom('product', 'general'),
      ask_slots: fc.array(fc.record({ slot: text, message: text, options: fc.array(text, { maxLength: 2 }) }), {
        maxLength: 2,
      }),
      price: fc.integer(),
      sure: fc.boolean(),
    })
    const call = payload.map((input) => ({ tool: 'classify_and_assess', input }))
    const options = fc.record({
      text: fc.option(
        text.filter((said) => said.trim() === said && !said.includes('<')),
        { nil: undefined },
      ),
      reasoning: text,
      deltaChars: fc.integer({ min: 1, max: 9 }),
    })
    await fc.assert(
      fc.asyncProperty(fc.array(call, { minLength: 1, maxLength: 2 }), options, async (calls, said) => {
        for (const way of natively) await runBoth(way, calls, said, { tools: [classify] })
      }),
      { numRuns: 20 },
    )
  })
})
