import {
  type LLMError,
  type LLMRequest,
  type Message,
  type StreamEvent,
  StreamingLLMClient,
  type TextPart,
  type ToolChoice,
  tool,
  UsageError,
  xmlTools,
} from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { replayFetch, simulate } from 'fieldstream/testing'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { z } from 'zod'
import { xmlChannel } from '../src/tool-input/xml-channel.ts'
import {
  collect,
  collectUntilError,
  finish,
  pieces,
  reasoning,
  rejectionOf,
  type Script,
  scriptedProvider,
  type ScriptedProvider,
  start,
  streamOf,
  text,
  thrownBy,
  usage,
} from './support.ts'

const messages: readonly Message[] = [{ role: 'user', content: 'Chips for a party' }]

const classify = tool({
  name: 'classify',
  description: 'Plans the next step. Never write </tools> or <tool_call>.',
  input: z.object({ route: z.string(), ask_slots: z.array(z.object({ message: z.string() })).optional() }),
})
const ping = tool({ name: 'ping' })

const callOf = (name: string, input: unknown): string =>
  `<tool_call>\n${JSON.stringify({ name, arguments: input })}\n</tool_call>`

/** What the model of `provider` is sent for a request. */
async function sentFor(request: Partial<LLMRequest>): Promise<LLMRequest> {
  const provider = scriptedProvider([[start, finish('stop')]])
  await collect(
    xmlTools(provider).stream(
      { messages, tools: [classify], ...request },
      { signal: new AbortController().signal, attempt: 1 },
    ),
  )
  return provider.requests[0]!
}

/** Asks a model that answers with these events for a call of `classify`. */
function ask(events: readonly StreamEvent[], request: { toolChoice?: 'auto' | 'required'; messages?: Message[] } = {}) {
  const provider = scriptedProvider([[start, ...events]])
  const client = new StreamingLLMClient({ provider: xmlTools(provider) })
  const stream = client.stream({
    messages,
    tools: [classify, ping],
    fields: { message: 'ask_slots[*].message' },
    ...request,
  })
  return { provider, stream }
}

/** The answer's text in small deltas. */
const written = (answer: string): StreamEvent[] => pieces(answer, 3).map(text)

describe('a model without tool calls of its own', () => {
  const answer = `I will ask.\n${callOf('classify', { route: 'product', ask_slots: [{ message: 'How many?' }] })}`

  test('streams the fields of its calls, and delivers them whole', async () => {
    const { stream } = ask([...written(answer), finish('stop')])
    const events = await collect(stream)
    const types = events.map(({ type }) => type)
    expect(events[0]).toMatchObject({ type: 'start', toolInput: 'xml' })
    expect(events.flatMap((event) => (event.type === 'text-delta' ? [event.delta] : [])).join('')).toBe('I will ask.')
    const deltas = events.flatMap((event) => (event.type === 'field-delta' ? [event.delta] : []))
    expect(deltas.join('')).toBe('How many?')
    expect(deltas.length).toBeGreaterThan(2)
    expect(types.indexOf('tool-input-start')).toBeLessThan(types.indexOf('field-delta'))
    expect(types.slice(-3)).toEqual(['tool-input-end', 'tool-call', 'finish'])
    expect(await stream.final()).toMatchObject({
      text: 'I will ask.',
      finishReason: 'tool-calls',
      providerFinishReason: 'stop',
      toolCalls: [{ toolCallId: 'call_xml_1', toolName: 'classify', input: { route: 'product' } }],
    })
  })

  test('calls tools behind a real provider, its text cut into deltas of any size', async () => {
    for (const deltaChars of [1, 2, 5, 1000]) {
      const fetch = replayFetch(simulate(`${answer}\n`, { deltaChars }))
      const provider = xmlTools(anthropic({ model: 'claude-haiku-4-5', apiKey: 'test', fetch }))
      const client = new StreamingLLMClient({ provider })
      const stream = client.stream({ messages, tools: [classify], fields: { message: 'ask_slots[*].message' } })
      expect((await collect(stream.fields('message'))).join('')).toBe('How many?')
      const response = await stream.final()
      expect(response).toMatchObject({ text: 'I will ask.', finishReason: 'tool-calls', provider: 'anthropic' })
      expect(fetch.requests[0]!.body).not.toHaveProperty('tools')
      expect(JSON.stringify(fetch.requests[0]!.body)).toContain('<tools>')
    }
  })

  test('sees its calls and their results as text, and gets new ids', async () => {
    const { stream } = ask([...written(answer), finish('stop')])
    const [assistant] = (await stream.final()).messages
    expect(assistant!.content).toEqual([
      { type: 'text', text: 'I will ask.' },
      {
        type: 'tool-call',
        toolCallId: 'call_xml_1',
        toolName: 'classify',
        input: { route: 'product', ask_slots: [{ message: 'How many?' }] },
      },
    ])
    const next: Message[] = [
      ...messages,
      assistant!,
      { role: 'tool', content: [{ type: 'tool-result', toolCallId: 'call_xml_1', output: 'asked' }] },
    ]
    const second = ask([...written(callOf('ping', {}) + callOf('ping', {})), finish('stop')], { messages: next })
    const { toolCalls } = await second.stream.final()
    expect(toolCalls.map(({ toolCallId }) => toolCallId)).toEqual(['call_xml_2', 'call_xml_3'])
    expect(second.provider.requests[0]!.messages).toEqual([
      ...messages,
      {
        role: 'assistant',
        content: [
          { type: 'text', text: 'I will ask.' },
          {
            type: 'text',
            text: '\n<tool_call>\n{"name":"classify","arguments":{"route":"product","ask_slots":[{"message":"How many?"}]}}\n</tool_call>',
          },
        ],
      },
      {
        role: 'user',
        content: [{ type: 'text', text: '<tool_response>\n{"name":"classify","content":"asked"}\n</tool_response>' }],
      },
    ])
    // Earlier messages may have been left out, so counting alone would not do.
    const cut = ask([...written(callOf('ping', {})), finish('stop')], {
      messages: [
        {
          role: 'assistant',
          content: [{ type: 'tool-call', toolCallId: 'call_xml_7', toolName: 'ping', input: {} }],
        },
        { role: 'tool', content: [{ type: 'tool-result', toolCallId: 'call_xml_7', output: '' }] },
      ],
    })
    expect((await cut.stream.final()).toolCalls[0].toolCallId).toBe('call_xml_8')
  })

  test('may think in tags, and mark its text, without harm', async () => {
    const events: StreamEvent[] = [
      reasoning('<tool_call>{"name": "ping"}</tool_call>'),
      { type: 'part-end', kind: 'reasoning', metadata: { scripted: { signature: 's' } } },
      text('Hello <tool'),
      { type: 'part-end', kind: 'text', metadata: { scripted: { citation: 1 } } },
      text(`World\n${callOf('ping', {})}\n`),
      { type: 'part-end', kind: 'text', metadata: { scripted: { citation: 2 } } },
      { type: 'part', part: { type: 'provider', provider: 'scripted', value: {} } },
      finish('stop'),
    ]
    const {
      reasoning: thought,
      messages: [message],
    } = await ask(events).stream.final()
    expect(thought).toBe('<tool_call>{"name": "ping"}</tool_call>')
    expect(message!.content).toEqual([
      { type: 'reasoning', text: thought, metadata: { scripted: { signature: 's' } } },
      { type: 'text', text: 'Hello <tool', metadata: { scripted: { citation: 1 } } },
      { type: 'text', text: 'World' },
      { type: 'tool-call', toolCallId: 'call_xml_1', toolName: 'ping', input: {} },
      { type: 'provider', provider: 'scripted', value: {} },
    ])
  })

  test('keeps its text and its thoughts in order', async () => {
    const events = [text('a <tool'), reasoning('hm'), text('_call> b'), finish('stop')]
    const {
      messages: [message],
    } = await ask(events).stream.final()
    expect(message!.content).toMatchObject([{ text: 'a <tool' }, { text: 'hm' }, { text: '_call> b' }])
  })

  test('that says no more than that it is there is waited for, be it silent between', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
    onTestFinished(() => void vi.useRealTimers())
    const silence = () => new Promise((resolve) => setTimeout(resolve, 40_000))
    const provider = scriptedProvider(async function* () {
      yield [] // the head of the response
      await silence()
      yield [] // a sign of life
      await silence()
      yield [start, text('Well.'), finish('stop')]
    })
    const final = new StreamingLLMClient({ provider: xmlTools(provider) })
      .stream({ messages, tools: [classify] })
      .final()
    await vi.advanceTimersByTimeAsync(80_000)
    expect(await final).toMatchObject({ text: 'Well.', metrics: { timeToFirstByteMs: 0 } })
  })

  test('answers without a call as ever', async () => {
    const { stream } = ask([...written('Use <tool_call> \n'), finish('stop')])
    expect(await stream.final()).toMatchObject({ text: 'Use <tool_call> \n', finishReason: 'stop', toolCalls: [] })
    const error = await rejectionOf(ask([text('No.'), finish('stop')], { toolChoice: 'required' }).stream.final())
    expect(error).toMatchObject({ code: 'no_payload' })
  })

  test('that calls what it was not offered is told from one that writes about it', async () => {
    const error = await rejectionOf(ask([text(callOf('rm', {})), finish('stop')]).stream.final())
    expect(error).toMatchObject({ code: 'tool_not_found' })
  })

  test.each([
    ['stop', 'output_truncated'],
    ['other', 'output_truncated'],
    ['length', 'output_truncated'],
    ['refusal', 'refused'],
    ['content-filter', 'content_filtered'],
  ] as const)('that ends in the middle of a call, for the reason %s, fails', async (reason, code) => {
    for (const cut of [60, 75, answer.length - 14]) {
      const error = (await rejectionOf(
        ask([...written(answer.slice(0, cut)), finish(reason)]).stream.final(),
      )) as LLMError
      expect(error).toMatchObject({ name: 'OutputError', code, usage })
      expect(error.partial!.toolCalls).toMatchObject([{ toolName: 'classify', complete: false }])
      expect(error.message).not.toContain('How')
    }
  })

  test('that reaches its token limit after a whole call is not taken for done', async () => {
    const error = await rejectionOf(ask([...written(answer), finish('length')]).stream.final())
    expect(error).toMatchObject({ code: 'output_truncated' })
  })

  test('that breaks a call is told where, after all that came before', async () => {
    const { stream } = ask([
      text(`Hi.${callOf('classify', { route: 'x' }).replace('}\n', '} oops\n')}`),
      finish('stop'),
    ])
    const { items, error } = await collectUntilError(stream)
    expect(items.map(({ type }) => type)).toEqual([
      'start',
      'text-delta',
      'tool-input-start',
      'tool-input-delta',
      'tool-input-end',
    ])
    expect(error).toMatchObject({ code: 'invalid_json', toolName: 'classify', toolCallId: 'call_xml_1', position: 13 })
    expect(String(error)).not.toContain('oops')
  })

  test('whose connection breaks leaves what it had written', async () => {
    const failure = new Error('cut')
    const script: Script = async function* () {
      yield [start, text('Hi. <tool')]
      await Promise.resolve()
      throw failure
    }
    const client = new StreamingLLMClient({ provider: xmlTools(scriptedProvider(script)) })
    const error = (await rejectionOf(client.stream({ messages, tools: [ping] }).final())) as LLMError
    expect(error.cause).toBe(failure)
    expect(error.partial!.text).toBe('Hi. <tool')
  })

  test('is not held to a schema, and says so', async () => {
    const strict = tool({ name: 'strict', strict: true })
    const client = new StreamingLLMClient({
      provider: xmlTools(scriptedProvider([[start, text('Hi'), finish('stop')]])),
    })
    const { warnings } = await client.stream({ messages, tools: [strict, ping] }).final()
    expect(warnings).toEqual([
      { code: 'unsupported', message: expect.stringContaining('`strict` of strict ') as string },
    ])
  })
})

describe('a request of tools as text', () => {
  test('describes the tools, and asks for no others', async () => {
    const sent = await sentFor({ system: 'Be brief.', tools: [classify, ping], stop: ['END'], maxTokens: 7 })
    expect(sent).toMatchObject({ toolInput: 'native', stop: ['END'], maxTokens: 7, messages })
    expect(sent).not.toHaveProperty('tools')
    expect(sent).not.toHaveProperty('toolChoice')
    expect(sent.system).toMatch(/^Be brief\.\n\n# Tools\n/)
    const [, ...lines] = /<tools>\n(.*)\n<\/tools>/s.exec(sent.system!)![0].split('\n').slice(0, -1)
    const signatures = lines.map((line) => JSON.parse(line) as unknown)
    expect(signatures).toEqual(
      [classify, ping].map(({ name, description, inputSchema }) => ({
        type: 'function',
        function: {
          name,
          ...(description && { description }),
          parameters: JSON.parse(JSON.stringify(inputSchema)) as unknown,
        },
      })),
    )
    // What a description says of tags is no tag.
    expect(sent.system!.split('</tools>')).toHaveLength(3)
    expect(sent.system!).toContain('\\u003c/tools>')
  })

  test.each<[ToolChoice | undefined, string, string[]]>([
    [undefined, 'where it helps', ['classify', 'ping']],
    ['auto', 'where it helps', ['classify', 'ping']],
    ['required', 'must call at least one', ['classify', 'ping']],
    [{ name: 'ping' }, 'must call the function "ping"', ['ping']],
  ])('says what toolChoice %j asks', async (toolChoice, words, names) => {
    const { system } = await sentFor({ tools: [classify, ping], toolChoice })
    expect(system).toContain(words)
    expect([...system!.matchAll(/"function":\{"name":"(\w+)"/g)].map(([, name]) => name)).toEqual(names)
  })

  test('describes none where none may be called, and takes tags for text then', async () => {
    const sent = await sentFor({ system: 'Be brief.', toolChoice: 'none', output: { name: 'o', schema: {} } })
    expect(sent).toMatchObject({ system: 'Be brief.' })
    expect(sent).not.toHaveProperty('tools')
    const provider = scriptedProvider([[start, text(callOf('ping', {})), finish('stop')]])
    const stream = new StreamingLLMClient({ provider: xmlTools(provider) }).stream({
      messages,
      tools: [ping],
      toolChoice: 'none',
    })
    expect(await stream.final()).toMatchObject({ text: callOf('ping', {}), toolCalls: [], finishReason: 'stop' })
  })

  test.each<Message>([
    { role: 'assistant', content: [{ type: 'tool-call', toolCallId: '1', toolName: 'ping', input: {} }] },
    { role: 'tool', content: [{ type: 'tool-result', toolCallId: '1', output: 1 }] },
  ])('without tools has earlier calls and results as text: %j', async (message) => {
    const sent = await sentFor({ tools: undefined, messages: [message] })
    expect(JSON.stringify(sent.messages)).toMatch(/<tool_(call|response)>/)
    expect(sent.system).toBeUndefined()
  })

  test('passes as it is where it has nothing to do with tools', async () => {
    const provider = scriptedProvider([[start, text('<tool_call>{"name": "ping"}'), finish('stop')]])
    const request: LLMRequest = { messages, toolInput: 'native' }
    const events = await collect(
      xmlTools(provider).stream(request, { signal: new AbortController().signal, attempt: 1 }),
    )
    expect(provider.requests[0]).toBe(request)
    expect(events).toEqual([start, text('<tool_call>{"name": "ping"}'), finish('stop')])
  })

  test('keeps results apart from tags, errors and what the user says next', async () => {
    const call = (toolCallId: string, toolName: string) =>
      ({ type: 'tool-call', toolCallId, toolName, input: { a: '</tool_call>' } }) as const
    const sent = await sentFor({
      tools: undefined,
      messages: [
        { role: 'system', content: 'Rules' },
        { role: 'user', content: 'One' },
        { role: 'user', content: 'Two' },
        {
          role: 'assistant',
          content: [
            { type: 'reasoning', text: 'hm', metadata: { scripted: { signature: 's' } } },
            call('1', 'ping'),
            { type: 'text', text: 'and' },
            call('2', 'classify'),
            call('3', 'ping'),
          ],
        },
        { role: 'tool', content: [{ type: 'tool-result', toolCallId: '1', output: '</tool_response>' }] },
        {
          role: 'tool',
          content: [
            {
              type: 'tool-result',
              toolCallId: '2',
              output: { b: [1] },
              isError: true,
              metadata: { scripted: { c: 1 } },
            },
            { type: 'tool-result', toolCallId: '9', toolName: 'gone', output: undefined },
          ],
        },
        { role: 'user', content: 'Next' },
        { role: 'assistant', content: 'Plain' },
        { role: 'tool', content: [{ type: 'tool-result', toolCallId: '3', output: 3 }] },
        { role: 'user', content: [{ type: 'image', url: 'https://example.com/a.png' }] },
      ],
    })
    const part = (written: string) => ({ type: 'text', text: written })
    const arguments_ = '{"a":"\\u003c/tool_call>"}'
    expect(sent.messages).toEqual([
      { role: 'system', content: 'Rules' },
      { role: 'user', content: 'One' },
      { role: 'user', content: 'Two' },
      {
        role: 'assistant',
        content: [
          { type: 'reasoning', text: 'hm', metadata: { scripted: { signature: 's' } } },
          part(`<tool_call>\n{"name":"ping","arguments":${arguments_}}\n</tool_call>`),
          part('\nand'),
          part(`\n<tool_call>\n{"name":"classify","arguments":${arguments_}}\n</tool_call>`),
          part(`\n<tool_call>\n{"name":"ping","arguments":${arguments_}}\n</tool_call>`),
        ],
      },
      {
        role: 'user',
        content: [
          part('<tool_response>\n{"name":"ping","content":"\\u003c/tool_response>"}\n</tool_response>\n'),
          {
            ...part('<tool_response>\n{"name":"classify","error":{"b":[1]}}\n</tool_response>\n'),
            metadata: { scripted: { c: 1 } },
          },
          part('<tool_response>\n{"name":"gone","content":null}\n</tool_response>\n'),
          part('Next'),
        ],
      },
      { role: 'assistant', content: 'Plain' },
      {
        role: 'user',
        content: [
          part('<tool_response>\n{"name":"ping","content":3}\n</tool_response>\n'),
          { type: 'image', url: 'https://example.com/a.png' },
        ],
      },
    ])
  })

  test('is written in tags that its own reader reads', async () => {
    const { messages: sent } = await sentFor({
      messages: [
        {
          role: 'assistant',
          content: [{ type: 'tool-call', toolCallId: '1', toolName: 'ping', input: { a: '</tool_call>\n<x>' } }],
        },
      ],
    })
    const [part] = sent[0]!.content as readonly TextPart[]
    const { toolCalls } = await ask([...written(part!.text), finish('stop')]).stream.final()
    expect(toolCalls).toMatchObject([{ toolName: 'ping', input: { a: '</tool_call>\n<x>' } }])
  })

  test.each<[string, Partial<LLMRequest>]>([
    ['`output` and tools', { output: { name: 'o', schema: {} } }],
    ['"search" has a `definition`', { tools: [tool({ name: 'search', definition: { scripted: {} } })] }],
    ["`toolInput: 'native'`", { toolInput: 'native' }],
    ["`toolInput: 'json'`", { toolInput: 'json' }],
  ])('is refused where it asks for what text cannot do: %s', async (words, request) => {
    const provider: ScriptedProvider = scriptedProvider([])
    const send = async (): Promise<unknown> =>
      collect(
        xmlTools(provider).stream(
          { messages, tools: [ping], ...request },
          { signal: new AbortController().signal, attempt: 1 },
        ),
      )
    const error = (await rejectionOf(send())) as LLMError
    expect(error).toBeInstanceOf(UsageError)
    expect(error).toMatchObject({ code: 'unsupported', retryable: false })
    expect(error.message).toContain(words)
    expect(provider.requests).toEqual([])
  })

  test('may ask the client for JSON text, but not for native calls', async () => {
    const provider = scriptedProvider([[start, text('{}'), finish('stop')]])
    const run = (toolInput: 'json' | 'native') =>
      streamOf(xmlTools(provider), { tools: [ping], toolChoice: ping, toolInput })
    const [first] = await collect(run('json'))
    expect(first).toMatchObject({ type: 'start', toolInput: 'json' })
    expect(provider.requests[0]!.output).toMatchObject({ name: 'ping' })
    expect(await rejectionOf(run('native').final())).toMatchObject({ name: 'UsageError', code: 'unsupported' })
  })

  test('is refused where a result is no JSON', () => {
    const error = thrownBy(() =>
      xmlChannel.toRequest({
        messages: [{ role: 'tool', content: [{ type: 'tool-result', toolCallId: '1', output: 1n }] }],
      }),
    )
    expect(error).toMatchObject({ name: 'UsageError', code: 'invalid_argument' })
  })
})

test.each([undefined, {}, 'ollama'])('xmlTools(%j) says what it takes', (provider) => {
  expect(thrownBy(() => xmlTools(provider as never))).toMatchObject({ name: 'UsageError', code: 'invalid_argument' })
})
