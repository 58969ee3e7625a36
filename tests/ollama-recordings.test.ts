import {
  isLLMError,
  type LLMError,
  type Message,
  StreamingLLMClient,
  type StreamRequest,
  ToolStreamAccumulator,
} from 'fieldstream'
import { ollama, type OllamaOptions, toStreamEvents } from 'fieldstream/ollama'
import { replayFetch, type ReplayOptions, simulate } from 'fieldstream/testing'
import { Ollama } from 'ollama'
import { describe, expect, test } from 'vitest'
import { readOllamaBody } from './ollama-oracle.ts'
import { hasRecordings, recordingOf, recordingsOf, type RecordedAnswer } from './recordings.ts'

const question: Message = { role: 'user', content: 'Hello' }
const chunkings: [string, ReplayOptions][] = [
  ['one byte at a time', { chunks: 1 }],
  ['in random pieces', { chunks: 'random', seed: 1 }],
  ['in other random pieces', { chunks: 'random', seed: 2 }],
]

function clientOf(fetch: typeof globalThis.fetch, options: Partial<OllamaOptions> = {}): StreamingLLMClient {
  return new StreamingLLMClient({ provider: ollama({ model: 'model-a', fetch, ...options }) })
}

/** Runs one request to its end and keeps all there was to see. */
async function watch(
  fetch: typeof globalThis.fetch,
  options: Partial<OllamaOptions> = {},
  request: Partial<StreamRequest> = {},
) {
  const stream = clientOf(fetch, options).stream({
    messages: [question],
    fields: { any: '*' },
    ...request,
  })
  const seen = []
  let error: unknown
  try {
    for await (const event of stream) seen.push(event)
  } catch (caught) {
    error = caught
  }
  const response = await stream.final().catch((caught: unknown) => {
    expect(caught).toBe(error)
    return undefined
  })
  const events = seen.map((event) => (event.type === 'finish' ? { ...event, metrics: undefined } : event))
  return { events, response, error: error as LLMError | undefined }
}

type Run = Awaited<ReturnType<typeof watch>>

/** All deltas of a kind, joined. */
function joined(events: Run['events'], type: 'text-delta' | 'reasoning-delta') {
  let text = ''
  for (const event of events) if (event.type === type) text += event.delta
  return text
}

/** The arguments of each call in order, as text. */
function inputTexts(events: Run['events']): string[] {
  const texts = new Map<string, string>()
  for (const event of events) {
    if (event.type === 'tool-input-start') texts.set(event.toolCallId, '')
    if (event.type === 'tool-input-delta') texts.set(event.toolCallId, texts.get(event.toolCallId)! + event.delta)
  }
  return [...texts.values()]
}

/** The values that field events tell of: strings from their deltas, anything else from where it closed. */
function fieldValues(events: Run['events'], id: string): Record<string, unknown> {
  const values: Record<string, unknown> = {}
  for (const event of events) {
    if ((event.type !== 'field-delta' && event.type !== 'field-end') || event.toolCallId !== id) continue
    const before = values[event.path]
    if (event.type === 'field-delta') {
      values[event.path] = ((before ?? '') as string) + event.delta
      expect(event.length).toBe((values[event.path] as string).length)
    } else if (before === undefined) values[event.path] = event.value
    else expect(before).toBe(event.value)
  }
  return values
}

function expectSameEvents(actual: Run['events'], expected: Run['events']): void {
  const difference = expected.findIndex((event, i) => JSON.stringify(event) !== JSON.stringify(actual[i]))
  if (difference >= 0) expect(actual[difference]).toEqual(expected[difference])
  expect(actual.length).toBe(expected.length)
}

/** Whether a model ends its thinking in the midst of its text. The server escapes `<` and `>`. */
const hasTag = ({ body }: RecordedAnswer): boolean => /\/think(>|\\u003e)/.test(body)

/** Each recording with what is known of its model beforehand: nothing, that it thinks unannounced, or that it was asked to think. */
const cases = recordingsOf('ollama').flatMap((recording) =>
  (['opened', 'unopened', 'asked'] as const)
    // Where nothing closes it, all content of a model that thinks unannounced would be thinking.
    .filter((known) => known !== 'unopened' || hasTag(recording))
    .map((known) => {
      const options: Partial<OllamaOptions> = known === 'asked' ? {} : { thinkTag: known }
      const request = known === 'asked' ? { providerOptions: { ollama: { think: true } } } : {}
      const tag = known === 'opened' || !hasTag(recording) ? ('opened' as const) : ('unopened' as const)
      return [recording.name, known, { recording, options, request, tag }] as const
    }),
)

describe.skipIf(!hasRecordings)('what the server sent is what the user gets', () => {
  test('every recording is here, and four think without saying so', () => {
    expect(recordingsOf('ollama').length).toBeGreaterThanOrEqual(17)
    expect(cases.filter(([, known]) => known === 'unopened').length).toBeGreaterThanOrEqual(4)
  })

  test.for(cases)('%s, %s', async ([, , { recording, options, request, tag }]) => {
    const expected = readOllamaBody(recording.body, tag)
    const { events, response, error } = await watch(replayFetch(recording), options, request)

    expect(error).toBeUndefined()
    expect(joined(events, 'text-delta')).toBe(expected.text)
    expect(joined(events, 'reasoning-delta')).toBe(expected.thinking)
    expect(inputTexts(events).map((text) => JSON.parse(text) as unknown)).toEqual(
      expected.calls.map(({ input }) => input),
    )
    const ids = response!.toolCalls.map(({ toolCallId }) => toolCallId)
    expect(new Set(ids).size).toBe(expected.calls.length)
    for (const [i, { id, input }] of expected.calls.entries()) {
      expect(ids[i]).toMatch(/^[\w-]{1,40}$/)
      if (id !== undefined) expect(ids[i]).toBe(id)
      expect(fieldValues(events, ids[i]!)).toEqual(input)
    }
    events.forEach(({ seq }, i) => expect(seq).toBeGreaterThan(events[i - 1]?.seq ?? 0))
    expect(events[0]).toMatchObject({ type: 'start', provider: 'ollama', model: expected.model, toolInput: 'native' })

    const calls = expected.calls.map(({ name, input }) => ({ toolName: name, input }))
    const isCut = expected.doneReason === 'length'
    expect(response).toMatchObject({
      text: expected.text,
      reasoning: expected.thinking,
      toolCalls: calls,
      finishReason: isCut ? 'length' : calls.length > 0 ? 'tool-calls' : 'stop',
      providerFinishReason: expected.doneReason,
      model: expected.model,
      usage: {
        inputTokens: expected.counts['prompt_eval_count'],
        outputTokens: expected.counts['eval_count'],
        totalTokens: (expected.counts['prompt_eval_count'] as number) + (expected.counts['eval_count'] as number),
        raw: expected.counts,
      },
    })
    expect(events.filter(({ type }) => type === 'tool-call')).toMatchObject(calls)
    expect(events.at(-1)).toMatchObject({ type: 'finish', usage: response!.usage })
    const isStray = tag === 'opened' && hasTag(recording)
    expect(response!.warnings.length).toBe(isStray ? 1 : 0)

    for (const [chunking, reads] of chunkings) {
      const other = await watch(replayFetch(recording, reads), options, request)
      expectSameEvents(other.events, events)
      expect({ ...other.response, metrics: undefined }, chunking).toEqual({ ...response, metrics: undefined })
    }
  })
})

describe.skipIf(!hasRecordings)('the conversation goes on with exactly what the model said', () => {
  test.for(cases)('%s, %s', async ([, , { recording, options, request, tag }]) => {
    const fetch = replayFetch([recording, simulate('Fine.', { provider: 'ollama' })])
    const client = clientOf(fetch, options)
    const { messages, toolCalls } = await client.stream({ messages: [question], ...request }).final()
    await client.stream({ messages: [question, ...messages, question] }).final()

    const { text, thinking } = readOllamaBody(recording.body, tag)
    const sent = fetch.requests[1]!.body as { messages: Record<string, unknown>[] }
    expect(sent.messages.map(({ role }) => role)).toEqual(['user', 'assistant', 'user'])
    const wireCalls = recording.body
      .split('\n')
      .flatMap((line) => (/"tool_calls"/.test(line) ? [JSON.parse(line) as { message: { tool_calls: object[] } }] : []))
      .flatMap(({ message }) => message.tool_calls)
    expect(sent.messages[1]).toEqual({
      role: 'assistant',
      content: text,
      ...(thinking !== '' && { thinking }),
      ...(wireCalls.length > 0 && {
        tool_calls: wireCalls.map((call, i) => ({ id: toolCalls[i]!.toolCallId, ...call })),
      }),
    })
  })
})

describe.skipIf(!hasRecordings)("over the SDK's own stream there are the same calls", () => {
  test.for(recordingsOf('ollama').map((recording) => [recording.name, recording] as const))(
    '%s',
    async ([, recording]) => {
      const sdk = new Ollama({ fetch: replayFetch(recording) })
      const stream = recording.name.startsWith('generate')
        ? await sdk.generate({ model: 'any', prompt: 'any', stream: true })
        : await sdk.chat({ model: 'any', messages: [], stream: true })
      const accumulator = new ToolStreamAccumulator()
      let text = ''
      for await (const event of toStreamEvents(stream)) {
        accumulator.push(event)
        if (event.type === 'text-delta') text += event.delta
      }
      const expected = readOllamaBody(recording.body)
      expect(accumulator.isComplete).toBe(true)
      expect(text).toBe(expected.text)
      expect(accumulator.toolCalls.map(({ toolName, input }) => [toolName, input])).toEqual(
        expected.calls.map(({ name, input }) => [name, input]),
      )
      expect((sdk as unknown as { ongoingStreamedRequests: unknown[] }).ongoingStreamedRequests).toEqual([])
    },
  )
})

/** A `fetch` whose body ends after `bytes`, cleanly or as a broken connection ends. */
function cutFetch(bytes: Uint8Array, error?: Error): typeof globalThis.fetch {
  return () => {
    let hasSent = bytes.length === 0
    const body = new ReadableStream<Uint8Array>(
      {
        pull(controller) {
          if (!hasSent) controller.enqueue(bytes)
          else if (error) controller.error(error)
          else controller.close()
          hasSent = true
        },
      },
      { highWaterMark: 0 },
    )
    return Promise.resolve(new Response(body, { headers: { 'content-type': 'application/x-ndjson' } }))
  }
}

/** Text, thinking and two calls. */
function simulatedAnswer(): RecordedAnswer {
  const source = simulate(
    [
      { tool: 'ask', input: { message: 'Wie viele Gäste? 🎉', options: ['few', 'many'], count: 12 } },
      { tool: 'search', input: {} },
    ],
    { provider: 'ollama', reasoning: 'They want to know.', text: 'Gerne: 3 < 4 🎉 <', deltaChars: 6 },
  )
  const body = source({ url: '', method: 'POST', headers: new Headers(), body: {} }).body as string
  return { name: 'a simulated answer', body }
}

/** The last lines of a long recording, from where it stops thinking aloud. */
function endOf(name: string, lines: number): RecordedAnswer {
  const { body } = recordingOf('ollama', name)
  return { name: `the end of ${name}`, body: body.split('\n').slice(-lines).join('\n') }
}

describe('an answer cut at any byte is an error that keeps what came before, never an answer', () => {
  const answers = hasRecordings
    ? [
        recordingOf('ollama', 'chat-tools-two-in-two-lines'),
        endOf('chat-text-then-parallel-empty-tools', 12),
        simulatedAnswer(),
      ]
    : [simulatedAnswer()]
  const endings: [string, Error | undefined][] = [
    ['clean end', undefined],
    ['broken connection', new TypeError('terminated')],
  ]
  const cuts = answers.flatMap((answer) =>
    endings.map((ending) => [answer.name, ending[0], answer, ending[1]] as const),
  )

  test.for(cuts)('%s, %s', async ([, , { body }, breakage]) => {
    const bytes = new TextEncoder().encode(body)
    let expected = readOllamaBody('')
    for (let length = 0; length <= bytes.length; length++) {
      const prefix = bytes.subarray(0, length)
      // Only the end of a line or an object can complete an event; a broken connection has no end.
      const last = prefix.at(-1)
      if (last === 0x0a || (last === 0x7d && !breakage)) expected = readOllamaBody(new TextDecoder().decode(prefix))
      const { events, response, error } = await watch(cutFetch(prefix, breakage))

      expect([joined(events, 'text-delta'), joined(events, 'reasoning-delta')]).toEqual([
        expected.text,
        expected.thinking,
      ])
      expect(inputTexts(events)).toEqual(expected.calls.map(({ input }) => JSON.stringify(input)))
      if (expected.isComplete) {
        expect(response?.toolCalls.map(({ input }) => input)).toEqual(expected.calls.map(({ input }) => input))
        continue
      }
      const isEmpty = expected.model === undefined && !breakage
      expect(error?.code, `after ${length} bytes`).toBe(isEmpty ? 'empty_response' : 'stream_truncated')
      expect(isLLMError(error) && error.retryable).toBe(true)
      expect(error!.partial).toMatchObject({ text: expected.text, reasoning: expected.thinking })
      expect(response).toBeUndefined()
      expect(events.some(({ type }) => type === 'tool-call' || type === 'finish')).toBe(false)
    }
    expect(expected.isComplete).toBe(true)
  })
})
