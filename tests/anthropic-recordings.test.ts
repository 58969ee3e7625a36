import Anthropic from '@anthropic-ai/sdk'
import { isLLMError, type LLMError, type Message, StreamingLLMClient, ToolStreamAccumulator } from 'fieldstream'
import { anthropic, toStreamEvents } from 'fieldstream/anthropic'
import { replayFetch, type ReplayOptions, simulate } from 'fieldstream/testing'
import { describe, expect, test } from 'vitest'
import { readAnthropicBody } from './anthropic-oracle.ts'
import { hasRecordings, recordingOf, recordingsOf, type RecordedAnswer } from './recordings.ts'

const question: Message = { role: 'user', content: 'Hello' }
const chunkings: [string, ReplayOptions][] = [
  ['one byte at a time', { chunks: 1 }],
  ['in random pieces', { chunks: 'random', seed: 1 }],
  ['in other random pieces', { chunks: 'random', seed: 2 }],
]

function clientOf(fetch: typeof globalThis.fetch): StreamingLLMClient {
  return new StreamingLLMClient({ provider: anthropic({ model: 'claude-sonnet-4-5', fetch }) })
}

/** Runs one request to its end and keeps all there was to see. */
async function watch(fetch: typeof globalThis.fetch, messages: readonly Message[] = [question]) {
  const stream = clientOf(fetch).stream({ messages, fields: { any: '*' } })
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

/** All deltas of a kind, joined; of one call if named. */
function joined(events: Run['events'], type: 'text-delta' | 'reasoning-delta' | 'tool-input-delta', id?: string) {
  let text = ''
  for (const event of events) {
    if (event.type !== type) continue
    if (event.type !== 'tool-input-delta' || event.toolCallId === id) text += event.delta
  }
  return text
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

describe.skipIf(!hasRecordings)('what the service sent is what the user gets', () => {
  test('every recording is here', () => {
    expect(recordingsOf('anthropic').length).toBeGreaterThanOrEqual(37)
  })

  test.for(recordingsOf('anthropic').map((recording) => [recording.name, recording] as const))(
    '%s',
    async ([, recording]) => {
      const expected = readAnthropicBody(recording.body)
      const run = await watch(replayFetch(recording))
      const { events, response, error } = run

      expect(joined(events, 'text-delta')).toBe(expected.text)
      expect(joined(events, 'reasoning-delta')).toBe(expected.thinking)
      for (const { id, inputText, input } of expected.calls) {
        const isWhole = inputText === '' && Object.keys(input as object).length > 0
        expect(joined(events, 'tool-input-delta', id)).toBe(isWhole ? JSON.stringify(input) : inputText)
        if (input !== undefined) expect(fieldValues(events, id)).toEqual(input)
      }
      events.forEach(({ seq }, i) => expect(seq).toBeGreaterThan(events[i - 1]?.seq ?? 0))
      expect(events[0]).toMatchObject({ type: 'start', model: expected.model, responseId: expected.id })

      const calls = expected.calls.map(({ id, name, input }) => ({ toolCallId: id, toolName: name, input }))
      const isRefused = expected.stopReason === 'refusal'
      if (isRefused || (expected.stopReason === 'max_tokens' && calls.length > 0)) {
        expect(response).toBeUndefined()
        expect(error).toMatchObject({ name: 'OutputError', code: isRefused ? 'refused' : 'output_truncated' })
        expect(error!.partial).toMatchObject({ text: expected.text, reasoning: expected.thinking })
        expect(error!.partial!.toolCalls.map(({ inputText }) => inputText)).toEqual(
          expected.calls.map(({ inputText }) => inputText),
        )
        expect(error!.usage!.raw).toEqual(expected.usage)
        expect(events.filter(({ type }) => type === 'tool-call' || type === 'finish')).toEqual([])
      } else {
        expect(error).toBeUndefined()
        expect(response).toMatchObject({
          text: expected.text,
          reasoning: expected.thinking,
          providerFinishReason: expected.stopReason,
          responseId: expected.id,
          model: expected.model,
        })
        expect(response!.toolCalls).toEqual(calls)
        expect(events.filter(({ type }) => type === 'tool-call')).toMatchObject(calls)
        expect(response!.usage).toMatchObject(countsOf(expected.usage))
        expect(response!.usage.raw).toEqual(expected.usage)
        expect(events.at(-1)).toMatchObject({ type: 'finish', usage: response!.usage })
      }

      for (const [chunking, options] of chunkings) {
        const other = await watch(replayFetch(recording, options))
        expectSameEvents(other.events, events)
        expect(other.error?.code, chunking).toBe(error?.code)
        expect({ ...other.response, metrics: undefined }, chunking).toEqual({ ...response, metrics: undefined })
      }
    },
  )
})

/** Tokens as `Usage` counts them. */
function countsOf(raw: Record<string, unknown>) {
  const count = (name: string) => (raw[name] as number | null | undefined) ?? 0
  const inputTokens = count('input_tokens') + count('cache_read_input_tokens') + count('cache_creation_input_tokens')
  return {
    inputTokens,
    outputTokens: count('output_tokens'),
    totalTokens: inputTokens + count('output_tokens'),
    cacheReadTokens: count('cache_read_input_tokens'),
    cacheWriteTokens: count('cache_creation_input_tokens'),
  }
}

describe.skipIf(!hasRecordings)('the conversation goes on with exactly what the model said', () => {
  const complete = recordingsOf('anthropic').filter(({ name }) => !/truncated|refusal/.test(name))

  test.for(complete.map((recording) => [recording.name, recording] as const))('%s', async ([, recording]) => {
    const fetch = replayFetch([recording, simulate('Fine.')])
    const client = clientOf(fetch)
    const { messages } = await client.stream({ messages: [question] }).final()
    await client.stream({ messages: [question, ...messages, question] }).final()

    const sent = fetch.requests[1]!.body as { messages: { role: string; content: unknown }[] }
    expect(sent.messages.map(({ role }) => role)).toEqual(['user', 'assistant', 'user'])
    expect(sent.messages[1]!.content).toEqual(
      readAnthropicBody(recording.body).content.filter(({ type, text }) => type !== 'text' || text !== ''),
    )
  })
})

describe.skipIf(!hasRecordings)("over the SDK's own stream there are the same calls", () => {
  test.for(recordingsOf('anthropic').map((recording) => [recording.name, recording] as const))(
    '%s',
    async ([, recording]) => {
      const { calls, stopReason } = readAnthropicBody(recording.body)
      const sdk = new Anthropic({ apiKey: 'none', fetch: replayFetch(recording) })
      const stream = await sdk.messages.create({ model: 'any', max_tokens: 1, messages: [], stream: true })
      const accumulator = new ToolStreamAccumulator()
      for await (const event of toStreamEvents(stream)) accumulator.push(event)

      const isUsable = stopReason !== 'refusal' && !(stopReason === 'max_tokens' && calls.length > 0)
      expect(accumulator.isComplete).toBe(isUsable)
      expect(accumulator.error === undefined).toBe(isUsable)
      expect(accumulator.toolCalls.map(({ toolCallId, toolName, input }) => [toolCallId, toolName, input])).toEqual(
        isUsable ? calls.map(({ id, name, input }) => [id, name, input]) : [],
      )
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
    return Promise.resolve(new Response(body, { headers: { 'content-type': 'text/event-stream' } }))
  }
}

function simulatedAnswer(): RecordedAnswer {
  const source = simulate(
    { message: 'Wie viele Gäste? 🎉', options: ['few', 'many'], count: 12 },
    { tool: 'ask', reasoning: 'They want to know.', text: 'Gerne: ', deltaChars: 12 },
  )
  const body = source({ url: '', method: 'POST', headers: new Headers(), body: {} }).body as string
  return { name: 'a simulated answer', body }
}

describe('an answer cut at any byte is an error that keeps what came before, never an answer', () => {
  const answers = hasRecordings
    ? [
        recordingOf('anthropic', 'thinking-then-tool'),
        recordingOf('anthropic', 'tool-parallel-two-after-text'),
        simulatedAnswer(),
      ]
    : [simulatedAnswer()]
  const endings: [string, Error | undefined][] = [
    ['clean end', undefined],
    ['broken connection', new TypeError('terminated')],
  ]
  const cases = answers.flatMap((answer) =>
    endings.map((ending) => [answer.name, ending[0], answer, ending[1]] as const),
  )

  test.for(cases)('%s, %s', async ([, , { body }, breakage]) => {
    const bytes = new TextEncoder().encode(body)
    let expected = readAnthropicBody('')
    for (let length = 0; length <= bytes.length; length++) {
      const prefix = bytes.subarray(0, length)
      // Only a line end can complete an event.
      if (prefix.at(-1) === 0x0a) expected = readAnthropicBody(new TextDecoder().decode(prefix))
      const { events, response, error } = await watch(cutFetch(prefix, breakage))

      const inputs = expected.calls.map(({ id }) => joined(events, 'tool-input-delta', id))
      expect([joined(events, 'text-delta'), joined(events, 'reasoning-delta'), ...inputs]).toEqual([
        expected.text,
        expected.thinking,
        ...expected.calls.map(({ inputText }) => inputText),
      ])
      if (expected.isComplete) {
        expect(response?.toolCalls.map(({ input }) => input)).toEqual(expected.calls.map(({ input }) => input))
        continue
      }
      const isEmpty = expected.id === undefined && !breakage
      expect(error?.code, `after ${length} bytes`).toBe(isEmpty ? 'empty_response' : 'stream_truncated')
      expect(isLLMError(error) && error.retryable).toBe(true)
      expect(response).toBeUndefined()
      expect(events.some(({ type }) => type === 'tool-call' || type === 'finish')).toBe(false)
    }
    expect(expected.isComplete).toBe(true)
  })
})
