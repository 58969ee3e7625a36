import fc from 'fast-check'
import {
  type LLMRequest,
  type Message,
  type Provider,
  type ResponseEvent,
  type StreamEvent,
  type StreamRequest,
  tool,
} from 'fieldstream'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { cutAt, cuts } from './json-corpus.ts'
import {
  call,
  collect,
  collectUntilError,
  finish,
  input,
  inputEnd,
  inputStart,
  reasoning,
  rejectionOf,
  scriptedProvider,
  start,
  streamOf,
  text,
  thrownBy,
} from './support.ts'

const anyString = fc.string({ unit: 'binary' })
const anyPayload = fc.record({ title: anyString, items: fc.array(anyString, { maxLength: 3 }) })
const answer = tool({
  name: 'answer',
  description: 'Answers the user',
  input: z.object({ title: z.string(), items: z.array(z.string()) }),
  strict: true,
})
const other = tool({ name: 'other' })
const forced = { tools: [answer, other], toolChoice: answer, toolInput: 'json' } as const
const fields = { title: 'title', item: 'items[{n}]', items: 'items' }

/** What the provider was sent for a request. */
async function sentFor(request: Partial<StreamRequest>, provider?: Partial<Provider>): Promise<LLMRequest> {
  const scripted = { ...scriptedProvider([[start, finish('stop')]]), ...provider }
  await rejectionOf(streamOf(scripted, request).final())
  return scripted.requests[0]!
}

const json = (events: readonly StreamEvent[], request: Partial<StreamRequest> = {}) =>
  streamOf([events], { ...forced, ...request })

describe('a call through JSON text', () => {
  test('gives what a native call gives, however it is cut', async () => {
    await fc.assert(
      fc.asyncProperty(anyPayload, fc.constantFrom('', ' \n'), cuts, async (payload, space, places) => {
        const whole = JSON.stringify(payload)
        const chunks = cutAt(
          whole,
          places.map((place) => Math.floor(place * whole.length)),
        ).filter((chunk) => chunk !== '')
        const byText = json([start, text(space), ...chunks.map(text), finish('stop')], { fields })
        const byCall = streamOf(
          [
            [
              start,
              inputStart('call_json_1'),
              ...chunks.map((chunk) => input('call_json_1', chunk)),
              inputEnd('call_json_1'),
              finish(),
            ],
          ],
          { tools: [answer], toolChoice: answer, fields },
        )
        const comparable = (events: ResponseEvent[]) =>
          events.flatMap(({ seq: _, ...event }) =>
            event.type === 'field-delta' || event.type === 'field-end' || event.type === 'tool-call' ? [event] : [],
          )
        const textEvents = await collect(byText)
        expect(comparable(textEvents)).toEqual(comparable(await collect(byCall)))
        expect(textEvents[0]).toMatchObject({ type: 'start', toolInput: 'json' })
        const [one, two] = [await byText.final(), await byCall.final()]
        expect(one.toolCalls).toEqual(two.toolCalls)
        expect(one.toolCalls[0]!.input).toEqual(payload)
        expect(one.messages).toEqual(two.messages)
        expect([one.text, one.output, one.finishReason]).toEqual(['', undefined, 'tool-calls'])
      }),
    )
  })

  test('begins with the first character that is no white space, and shows no text', async () => {
    const events = await collect(
      json([
        start,
        text(' '),
        text('\n '),
        reasoning('hm'),
        text('{"title":"a",'),
        text('"items":[]}'),
        finish('stop'),
      ]),
    )
    expect(events.map(({ type }) => type)).toEqual([
      'start',
      'reasoning-delta',
      'tool-input-start',
      'tool-input-delta',
      'tool-input-delta',
      'tool-input-end',
      'tool-call',
      'finish',
    ])
    expect(events[3]).toMatchObject({ delta: ' \n {"title":"a",' })
  })

  test('keeps what a provider attaches to reasoning, and not what it attaches to text', async () => {
    const partEnd = (kind: 'text' | 'reasoning'): StreamEvent => ({
      type: 'part-end',
      kind,
      metadata: { scripted: { of: kind } },
    })
    const { messages } = await json([
      start,
      reasoning('hm'),
      partEnd('reasoning'),
      text('{"title":"a","items":[]}'),
      partEnd('text'),
      finish('stop'),
    ]).final()
    expect(messages[0]!.content).toEqual([
      { type: 'reasoning', text: 'hm', metadata: { scripted: { of: 'reasoning' } } },
      { type: 'tool-call', toolCallId: 'call_json_1', toolName: 'answer', input: { title: 'a', items: [] } },
    ])
  })

  test.each<[string, StreamEvent[], object]>([
    ['cut by the limit', [text('{"title":"a"'), finish('length')], { code: 'output_truncated', toolName: 'answer' }],
    ['cut where it parses', [text('{"title":"a","items":[]}'), finish('length')], { code: 'output_truncated' }],
    ['cut before it began', [finish('length')], { code: 'output_truncated' }],
    ['ended too early', [text('{"title":"a"'), finish('stop')], { code: 'invalid_json', toolName: 'answer' }],
    ['broken off', [text('{"title":"a"')], { code: 'stream_truncated', toolName: 'answer', position: 12 }],
    ['nothing', [finish('stop')], { code: 'no_payload' }],
    ['blank', [text(' \n'), finish('stop')], { code: 'no_payload' }],
    ['prose', [text('Sorry'), finish('stop')], { code: 'invalid_json', position: 0 }],
    ['refused', [text('{"ti'), finish('refusal')], { code: 'refused' }],
    ['filtered', [finish('content-filter')], { code: 'content_filtered' }],
    ['against the schema', [text('{"title":1}'), finish('stop')], { code: 'schema_mismatch', toolName: 'answer' }],
  ])('%s is a typed error', async (_, events, expected) => {
    expect(await rejectionOf(json([start, ...events]).final())).toMatchObject(expected)
  })

  test('is left open at a token limit, though it may parse', async () => {
    const { items, error } = await collectUntilError(json([start, text('{"title":"a","items":[]}'), finish('length')]))
    expect(items.map(({ type }) => type)).toEqual(['start', 'tool-input-start', 'tool-input-delta'])
    expect(error).toMatchObject({ partial: { toolCalls: [{ complete: false }] } })
  })

  test('leaves native calls alone', async () => {
    const events = [start, ...call('native', '{"title":"a","items":[]}'), finish()]
    expect((await json(events).final()).toolCalls).toMatchObject([{ toolCallId: 'native' }])
  })
})

describe('the request of a call through JSON text', () => {
  test('offers no tools, and asks for the arguments as output', async () => {
    const sent = await sentFor({ ...forced, system: 'Be brief.', temperature: 0 })
    expect(sent).toMatchObject({
      temperature: 0,
      toolInput: 'native',
      output: { name: 'answer', description: 'Answers the user', schema: answer.inputSchema, strict: true },
    })
    expect(sent).not.toHaveProperty('tools')
    expect(sent).not.toHaveProperty('toolChoice')
    expect(sent.system).toMatch(/^Be brief\.\n\n.*"answer".*Answers the user$/s)
    expect((await sentFor({ tools: [other], toolChoice: 'required', toolInput: 'json' })).output!.name).toBe('other')
  })

  test('tells the conversation so far as text', async () => {
    const messages: Message[] = [
      { role: 'user', content: 'One' },
      {
        role: 'assistant',
        content: [
          { type: 'reasoning', text: 'hm' },
          { type: 'tool-call', toolCallId: 'a', toolName: 'answer', input: { title: 'x' } },
          { type: 'tool-call', toolCallId: 'b', toolName: 'other', input: {} },
        ],
      },
      {
        role: 'tool',
        content: [
          { type: 'tool-result', toolCallId: 'a', output: { found: 2 }, metadata: { scripted: { cached: true } } },
          { type: 'tool-result', toolCallId: 'b', output: 'down', isError: true },
          { type: 'tool-result', toolCallId: 'unknown', toolName: 'third', output: null },
        ],
      },
      { role: 'user', content: 'Two' },
      { role: 'assistant', content: 'Fine.' },
      { role: 'user', content: 'Three' },
    ]
    const sent = await sentFor({ ...forced, messages })
    expect(sent.messages).toEqual([
      { role: 'user', content: 'One' },
      {
        role: 'assistant',
        content: [
          { type: 'reasoning', text: 'hm' },
          { type: 'text', text: '{"title":"x"}' },
          { type: 'text', text: '\n{}' },
        ],
      },
      {
        role: 'user',
        content: [
          { type: 'text', text: 'Result of tool "answer": {"found":2}\n', metadata: { scripted: { cached: true } } },
          { type: 'text', text: 'Error of tool "other": down\n' },
          { type: 'text', text: 'Result of tool "third": null\n' },
          { type: 'text', text: 'Two' },
        ],
      },
      { role: 'assistant', content: 'Fine.' },
      { role: 'user', content: 'Three' },
    ])
  })

  test('gives its calls ids that the conversation does not have yet', async () => {
    const idAfter = async (...ids: string[]) => {
      const content = ids.map(
        (toolCallId) => ({ type: 'tool-call', toolCallId, toolName: 'answer', input: {} }) as const,
      )
      const messages: Message[] = [
        { role: 'user', content: 'x' },
        { role: 'assistant', content },
      ]
      const stream = json([start, text('{"title":"a","items":[]}'), finish('stop')], { messages })
      return (await stream.final()).toolCalls[0]!.toolCallId
    }
    expect(await idAfter()).toBe('call_json_1')
    expect(await idAfter('call_json_1')).toBe('call_json_2')
    expect(await idAfter('call_json_2')).toBe('call_json_3')
    expect(await idAfter('toolu_1', 'call_json_3')).toBe('call_json_4')
  })

  test("without calls, where the choice is 'none'", async () => {
    const request = { tools: [answer], toolChoice: 'none', toolInput: 'json' } as const
    const sent = await sentFor(request)
    expect(sent).not.toHaveProperty('tools')
    expect(sent).not.toHaveProperty('output')
    expect(sent).not.toHaveProperty('system')
    expect((await streamOf([[start, text(' Hello'), finish('stop')]], request).final()).text).toBe(' Hello')
  })

  test.each<[string, Partial<StreamRequest>, RegExp]>([
    ['a free choice', { toolChoice: 'auto' }, /calls one tool.*Name one, or use `toolInput: 'native'`/],
    ['a choice of several', { toolChoice: 'required' }, /calls one tool/],
    ['a tool of the provider’s own', { tools: [tool({ name: 'answer', definition: {} })] }, /called natively/],
    ['an output beside it', { output: { properties: {} } }, /cannot be an `output` too/],
  ])('cannot be made for %s', async (_, request, message) => {
    const failure = await rejectionOf(json([start], request).final())
    expect(failure).toMatchObject({ name: 'UsageError', code: 'unsupported' })
    expect((failure as Error).message).toMatch(message)
  })
})

describe('the channel of a request', () => {
  const tools = { tools: [answer], toolChoice: answer } as const
  const chooses = (channel: 'native' | 'json'): Partial<Provider> => ({ toolInput: () => channel })

  test('is the one it names', async () => {
    expect(await sentFor({ ...tools, toolInput: 'json' }, chooses('native'))).toHaveProperty('output')
    const native = await sentFor({ ...tools, toolInput: 'native' }, chooses('json'))
    expect(native).toMatchObject({ toolInput: 'native', tools: [answer], toolChoice: answer })
  })

  test('is else what the provider thinks best, which hears the whole request', async () => {
    const heard: LLMRequest[] = []
    const toolInput = (request: LLMRequest) => {
      heard.push(request)
      return 'json' as const
    }
    for (const request of [tools, { ...tools, toolInput: 'auto' } as const])
      expect(await sentFor(request, { toolInput })).toHaveProperty('output')
    expect(heard).toMatchObject([tools, tools])
    expect(await sentFor(tools, chooses('native'))).toMatchObject({ ...tools, toolInput: 'native' })
  })

  test('is left open where the provider has no opinion, or there are no tools', async () => {
    expect(await sentFor(tools)).not.toHaveProperty('toolInput')
    expect(await sentFor({ ...tools, toolInput: 'auto' })).toMatchObject({ toolInput: 'auto' })
    expect(await sentFor({ toolInput: 'json' })).toMatchObject({ toolInput: 'json' })
    expect(await sentFor({ tools: [], toolInput: 'json' })).not.toHaveProperty('output')
  })

  test('is chosen inside of middleware, which sees calls', async () => {
    const seen: string[] = []
    const requests: LLMRequest[] = []
    const stream = streamOf([[start, text('{"title":"a","items":[]}'), finish('stop')]], forced, {
      middleware: [
        (next) => (request, context) => {
          requests.push(request)
          return (async function* () {
            for await (const event of next(request, context)) {
              seen.push(event.type)
              yield event
            }
          })()
        },
      ],
    })
    await stream.final()
    expect(requests).toMatchObject([{ tools: [answer, other], toolInput: 'json' }])
    expect(seen).toEqual(['start', 'tool-input-start', 'tool-input-delta', 'tool-input-end', 'finish'])
  })

  test('must be one there is', () => {
    expect(String(thrownBy(() => streamOf([], { toolInput: 'yaml' as never })))).toContain(
      "`toolInput` must be 'auto', 'native', 'json' or 'xml'",
    )
  })

  test('lets the field events of a fault out before the error', async () => {
    const { items, error } = await collectUntilError(json([start, text('{"title":"a",,')], { fields }))
    expect(items.filter(({ type }) => type === 'field-end')).toHaveLength(1)
    expect(error).toMatchObject({ code: 'invalid_json', toolCallId: 'call_json_1' })
  })
})
