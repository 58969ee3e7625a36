import { type Message, StreamingLLMClient, type StreamRequest, tool } from 'fieldstream'
import { replayFetch } from 'fieldstream/testing'
import { describe, expect, test } from 'vitest'
import { rejectionOf } from '../support.ts'
import { ask, key, messages, over, prompt, simulated, watch } from './run.ts'
import { type Connection, type Json, strictInput, type Subject } from './subject.ts'

const note = tool({ name: 'note' })

/** A request for each claim. */
function requestFor(claim: string, subject: Subject): Partial<StreamRequest> {
  const exact = tool({ name: 'exact', strict: true, input: strictInput })
  const requests: Record<string, Partial<StreamRequest>> = {
    forcedTool: { tools: [ask, note], toolChoice: ask, toolInput: 'native' },
    requiredTool: { tools: [ask, note], toolChoice: 'required' },
    strictTool: { tools: [exact] },
    ownTool: { tools: [tool({ name: 'own', definition: { [subject.name]: subject.ownTool } })] },
    imageBytes: {
      messages: [
        {
          role: 'user',
          content: [
            { type: 'image', data: Uint8Array.of(1, 2, 3), mediaType: 'image/png' },
            { type: 'image', data: 'aGVsbG8=', mediaType: 'image/jpeg' },
          ],
        },
      ],
    },
    imageUrl: { messages: [{ role: 'user', content: [{ type: 'image', url: 'https://example.com/a.png' }] }] },
    reasoningEffort: { reasoning: { effort: 'low' } },
    reasoningBudget: { reasoning: { budgetTokens: 2000 } },
    maxTokens: { maxTokens: 5 },
    temperature: { temperature: 0 },
    topP: { topP: 0.5 },
    stop: { stop: ['END'] },
    laterSystemMessage: { messages: [...messages, { role: 'system', content: 'Be brief.' }] },
  }
  return requests[claim]!
}

/** The request that goes out, with the warnings it comes with. */
export async function sent(subject: Subject, request: Partial<StreamRequest>, options: Connection = {}) {
  const fetch = replayFetch(simulated(subject))
  const { events, error } = await watch(subject.create({ apiKey: key, fetch, ...options }), {
    ...request,
    fields: undefined,
  })
  // An answer without the call that a choice of tool asks for is an error; here only the question counts.
  if (fetch.requests.length === 0) throw error
  const warnings = events.flatMap((event) => (event.type === 'start' ? (event.warnings ?? []) : []))
  return { ...fetch.requests[0]!, body: fetch.requests[0]!.body as Json, warnings }
}

export function describeRequests(subject: Subject): void {
  describe('a request is sent as far as the service goes, and nothing is dropped in silence', () => {
    const { toolArguments, ...claims } = subject.supports

    test.for(Object.entries(claims))('%s: %s', async ([claim, support]) => {
      const request = requestFor(claim, subject)
      if (support === 'no') {
        const fetch = replayFetch(simulated(subject))
        const { error } = await watch(subject.create({ apiKey: key, fetch }), request)
        expect(error).toMatchObject({ name: 'UsageError', code: 'unsupported', retryable: false })
        expect(fetch.requests).toEqual([])
        return
      }
      const { body, warnings } = await sent(subject, request)
      const expected = (subject.sends as Record<string, object | undefined>)[claim]
      expect(expected, `\`sends.${claim}\` of the subject`).toBeDefined()
      expect(body).toMatchObject(expected!)
      expect(warnings.map(({ code }) => code)).toEqual(support === 'warns' ? ['unsupported'] : [])
      // It is not what is sent anyway.
      const { body: bare } = await sent(subject, {})
      if (claim !== 'requiredTool') expect(bare).not.toMatchObject(expected!)
    })

    test(`tool arguments arrive ${toolArguments}`, async () => {
      const source = simulated(subject, { message: 'How many guests?' }, { deltaChars: 4 })
      const { events } = await watch(over(subject, source), { tools: [ask] })
      const deltas = events.filter(({ type }) => type === 'tool-input-delta').length
      expect(deltas > 1 ? 'streamed' : 'whole').toBe(toolArguments)
    })

    test('lists that are empty are left out', async () => {
      const { body } = await sent(subject, {})
      expect((await sent(subject, { tools: [], stop: [] })).body).toEqual(body)
    })

    test("the provider's own options pass, those of another do not", async () => {
      const { body } = await sent(subject, {
        providerOptions: { [subject.name]: { seed: 5 }, other: { seed: 9, topK: 7 } },
      })
      expect(JSON.stringify(body)).toContain('"seed":5')
      expect(JSON.stringify(body)).not.toMatch(/"seed":9|other|topK/)
    })

    test('what is for somebody else is dropped, and `start` says so', async () => {
      const turn: Message = {
        role: 'assistant',
        content: [
          { type: 'reasoning', text: 'Foreign.', metadata: { other: { signature: 'abc' } } },
          { type: 'provider', provider: 'other', value: { type: 'foreign' } },
          { type: 'text', text: 'Hi.', metadata: { other: { foreign: 1 } } },
        ],
      }
      const provider = over(subject, simulated(subject))
      const request = { messages: [...messages, turn, { role: 'user', content: 'Why?' }] as Message[] }
      const { body, warnings } = await sent(subject, request)
      expect(warnings.map(({ code }) => code)).toEqual(['dropped-content', 'dropped-content'])
      expect(warnings[1]!.message).toContain('other')
      expect(JSON.stringify(body)).toContain('Hi.')
      expect(JSON.stringify(body)).not.toMatch(/foreign/i)
      expect((await watch(provider, request)).response!.warnings).toEqual(warnings)
    })

    test('without anything dropped there are no warnings', async () => {
      const { events, response } = await watch(over(subject, simulated(subject)))
      expect(events[0]).not.toHaveProperty('warnings')
      expect(response!.warnings).toEqual([])
    })

    test('calls and their results go back by their ids', async () => {
      const { body } = await sent(subject, {
        messages: [
          ...messages,
          {
            role: 'assistant',
            content: [
              { type: 'tool-call', toolCallId: 'call_1', toolName: 'ask', input: { message: 'Sure?' } },
              { type: 'tool-call', toolCallId: 'call_2', toolName: 'note', input: {} },
            ],
          },
          {
            role: 'tool',
            content: [
              { type: 'tool-result', toolCallId: 'call_2', output: { answer: ['no'] }, isError: true },
              { type: 'tool-result', toolCallId: 'call_1', output: 'Yes.' },
            ],
          },
        ],
      })
      const text = JSON.stringify(body).replaceAll('\\', '')
      for (const said of ['call_1', 'call_2', 'Sure?', '{"answer":["no"]}', 'Yes.']) expect(text).toContain(said)
    })

    test('a tool result that JSON cannot say is named, and nothing is sent', async () => {
      const circular: Record<string, unknown> = {}
      circular['self'] = circular
      for (const output of [{ count: 1n }, circular]) {
        const content = [{ type: 'tool-result', toolCallId: 'call_1', toolName: 'ask', output } as const]
        const failure = await rejectionOf(sent(subject, { messages: [...messages, { role: 'tool', content }] }))
        expect(failure).toMatchObject({ name: 'UsageError', code: 'invalid_argument' })
        expect((failure as Error).message).toContain('call_1')
      }
    })

    test.for(['native', 'json', 'xml'] as const)(
      'earlier arguments that JSON cannot say are named, and nothing is sent: %s',
      async (toolInput) => {
        const part = { type: 'tool-call', toolCallId: 'call_1', toolName: 'ask', input: { count: 1n } } as const
        const history: Message[] = [...messages, { role: 'assistant', content: [part] }]
        const request = { messages: history, tools: [ask], toolChoice: ask, toolInput }
        const failure = await rejectionOf(sent(subject, request))
        expect(failure).toMatchObject({ name: 'UsageError', code: 'invalid_argument', phase: 'request' })
        expect((failure as Error).message).toContain('The input of tool call "call_1"')
      },
    )

    test('anything else that JSON cannot say is a mistake in the request, not a connection that fails', async () => {
      const failure = await rejectionOf(sent(subject, { providerOptions: { [subject.name]: { seed: 5n } } }))
      expect(failure).toMatchObject({
        name: 'UsageError',
        code: 'invalid_argument',
        phase: 'request',
        retryable: false,
      })
      expect((failure as Error).cause).toBeInstanceOf(TypeError)
      const mistake = {
        get type(): never {
          throw new TypeError('broken')
        },
      }
      const unreadable = rejectionOf(
        sent(subject, {
          messages: [{ role: 'user', content: [{ type: 'text', text: 'x', metadata: { [subject.name]: mistake } }] }],
        }),
      )
      expect(await unreadable).toMatchObject({ name: 'UsageError', code: 'invalid_argument', phase: 'request' })
    })

    test('an answer that said nothing is no turn', async () => {
      const fetch = replayFetch([simulated(subject, ''), simulated(subject)])
      const client = new StreamingLLMClient({ provider: subject.create({ apiKey: key, fetch }) })
      const response = await client.stream({ messages }).final()
      expect(response).toMatchObject({ text: '', finishReason: 'stop' })
      const after: Message = { role: 'user', content: 'And?' }
      await client.stream({ messages: [...messages, ...response.messages, after] }).final()
      const { body } = await sent(subject, { messages: [...messages, after] })
      expect(fetch.requests[1]!.body).toEqual(body)
      expect(JSON.stringify(body)).toContain(prompt)
    })

    test('`raw` brings every event of the wire, in order', async () => {
      const { write, begun, rest, farewell = '' } = subject.wire
      const all = [...begun, { news: 1 }, ...rest]
      const { events } = await watch(over(subject, write(...all) + farewell), { raw: true })
      const raw = events.flatMap((event) => (event.type === 'raw' ? [event.value] : []))
      expect(raw).toEqual(JSON.parse(JSON.stringify(all)))
    })

    test('headers and the id of the request', async () => {
      const source = simulated(subject)
      const { headers, method } = await sent(subject, {}, { headers: { 'x-a': 'b' } })
      expect([method, headers.get('x-a')]).toEqual(['POST', 'b'])
      const { events } = await watch(over(subject, source))
      expect(events[0]).toMatchObject({ requestId: 'req_simulated' })
    })
  })

  describe('a simulated answer is the same as any other provider’s', () => {
    test('text, reasoning, calls and fields', async () => {
      const calls = [
        { tool: 'ask', input: { message: 'Wie viele Gäste? 🎉', count: 3 } },
        { tool: 'note', input: {} },
      ]
      const source = simulated(subject, calls, { text: 'Gerne.', reasoning: 'Hm.', deltaChars: 3 })
      const { response, events } = await watch(over(subject, source), { tools: [ask, note] })
      expect(response).toMatchObject({
        text: 'Gerne.',
        reasoning: 'Hm.',
        finishReason: 'tool-calls',
        requestId: 'req_simulated',
        toolCalls: calls.map(({ tool: toolName, input }) => ({ toolName, input })),
      })
      const told = events.flatMap((event) => (event.type === 'field-end' ? [[event.path, event.value]] : []))
      expect(told).toEqual([
        ['message', 'Wie viele Gäste? 🎉'],
        ['count', 3],
      ])
    })

    test('a forced call', async () => {
      const { response } = await watch(over(subject, simulated(subject, { message: 'Sure?' })), {
        tools: [ask, note],
        toolChoice: ask,
      })
      expect(response!.toolCalls).toMatchObject([{ toolName: 'ask', input: { message: 'Sure?' } }])
    })

    test('a forced call that does not come', async () => {
      const request = { tools: [ask], toolChoice: 'required', toolInput: 'native' } as const
      const { error } = await watch(over(subject, simulated(subject)), request)
      expect(error).toMatchObject({ name: 'OutputError', code: 'no_payload' })
    })

    test('arguments that are no JSON', async () => {
      const { error } = await watch(over(subject, simulated(subject, '{"a', { tool: 'ask' })), { tools: [ask] })
      expect(error).toMatchObject({ code: 'invalid_json' })
    })

    test('an end at the token limit', async () => {
      const { response } = await watch(over(subject, simulated(subject, 'Text.', { finishReason: 'length' })))
      expect(response).toMatchObject({ text: 'Text.', finishReason: 'length' })
    })
  })
}
