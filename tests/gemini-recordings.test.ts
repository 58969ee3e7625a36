import { GoogleGenAI } from '@google/genai'
import { isLLMError, type LLMError, type Message, StreamingLLMClient, ToolStreamAccumulator } from 'fieldstream'
import { gemini, toStreamEvents } from 'fieldstream/gemini'
import { replayFetch, type ReplayOptions, simulate } from 'fieldstream/testing'
import { describe, expect, test } from 'vitest'
import { type ExpectedAnswer, readGeminiBody } from './gemini-oracle.ts'
import { hasRecordings, recordingOf, recordingsOf, type RecordedAnswer } from './recordings.ts'

const question: Message = { role: 'user', content: 'Hello' }
const chunkings: [string, ReplayOptions][] = [
  ['one byte at a time', { chunks: 1 }],
  ['in random pieces', { chunks: 'random', seed: 1 }],
  ['in other random pieces', { chunks: 'random', seed: 2 }],
]
const recordings = recordingsOf('gemini').map((recording) => [recording.name, recording] as const)
const isFiltered = ({ finishReason }: ExpectedAnswer) => ['SAFETY', 'RECITATION'].includes(finishReason!)

function clientOf(fetch: typeof globalThis.fetch): StreamingLLMClient {
  return new StreamingLLMClient({ provider: gemini({ model: 'gemini-2.5-flash', apiKey: 'none', fetch }) })
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

/** The calls with the ids they get: the service's, or else one made of the answer's. */
function callsOf({ calls, id }: ExpectedAnswer) {
  return calls.map((call, i) => ({
    toolCallId: call.id ?? `gemini-call-${id}-${i + 1}`,
    toolName: call.name,
    input: call.input,
  }))
}

function expectSameEvents(actual: Run['events'], expected: Run['events']): void {
  const difference = expected.findIndex((event, i) => JSON.stringify(event) !== JSON.stringify(actual[i]))
  if (difference >= 0) expect(actual[difference]).toEqual(expected[difference])
  expect(actual.length).toBe(expected.length)
}

describe.skipIf(!hasRecordings)('what the service sent is what the user gets', () => {
  test('every recording is here', () => {
    expect(recordings.length).toBeGreaterThanOrEqual(29)
    expect(recordings.filter(([name]) => name.startsWith('streaming-args'))).toHaveLength(3)
  })

  test.for(recordings)('%s', async ([, recording]) => {
    const expected = readGeminiBody(recording.body)
    const { events, response, error } = await watch(replayFetch(recording))
    const calls = callsOf(expected)

    expect(joined(events, 'text-delta')).toBe(expected.text)
    expect(joined(events, 'reasoning-delta')).toBe(expected.thinking)
    for (const { toolCallId, input } of calls) {
      const text = joined(events, 'tool-input-delta', toolCallId)
      // Pieces too are written in the order and without the space that `JSON.stringify` would have it.
      expect(text).toBe(text === '' ? '' : JSON.stringify(input))
      expect(fieldValues(events, toolCallId)).toEqual(input)
    }
    events.forEach(({ seq }, i) => expect(seq).toBeGreaterThan(events[i - 1]?.seq ?? 0))
    expect(events[0]).toMatchObject({
      type: 'start',
      model: expected.model ?? 'gemini-2.5-flash',
      responseId: expected.id,
    })

    if (expected.error || isFiltered(expected)) {
      expect(response).toBeUndefined()
      if (expected.error) {
        const { code, status, message } = expected.error
        expect(error).toMatchObject({ name: 'HttpError', status: code, providerCode: status, phase: 'stream' })
        expect(error!.providerMessage).toBe(message)
      } else expect(error).toMatchObject({ name: 'OutputError', code: 'content_filtered' })
      expect(error!.partial).toMatchObject({ text: expected.text, reasoning: expected.thinking })
      expect(error!.usage?.raw ?? {}).toEqual(expected.usage)
      expect(events.filter(({ type }) => type === 'tool-call' || type === 'finish')).toEqual([])
    } else {
      expect(error).toBeUndefined()
      const isCut = expected.finishReason === 'MAX_TOKENS'
      expect(response).toMatchObject({
        text: expected.text,
        reasoning: expected.thinking,
        finishReason: isCut ? 'length' : calls.length > 0 ? 'tool-calls' : 'stop',
        providerFinishReason: expected.finishReason,
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
  })
})

/** Tokens as `Usage` counts them. The service's own sum, where it gives one, is of the same. */
function countsOf(raw: Record<string, unknown>) {
  const count = (name: string) => (raw[name] as number | undefined) ?? 0
  const inputTokens = count('promptTokenCount') + count('toolUsePromptTokenCount')
  const outputTokens = count('candidatesTokenCount') + count('thoughtsTokenCount')
  return {
    inputTokens,
    outputTokens,
    totalTokens: (raw['totalTokenCount'] as number | undefined) ?? 0,
    cacheReadTokens: count('cachedContentTokenCount'),
    cacheWriteTokens: 0,
  }
}

describe.skipIf(!hasRecordings)('the conversation goes on with exactly what the model said', () => {
  const complete = recordings.filter(([name]) => !/safety|recitation|error/.test(name))

  test.for(complete)('%s', async ([, recording]) => {
    const fetch = replayFetch([recording, simulate('Fine.', { provider: 'gemini' })])
    const client = clientOf(fetch)
    const { messages } = await client.stream({ messages: [question] }).final()
    // As a host would have stored them.
    const stored = JSON.parse(JSON.stringify(messages)) as Message[]
    await client.stream({ messages: [question, ...stored, question] }).final()

    const sent = fetch.requests[1]!.body as { contents: { role: string; parts: unknown }[] }
    const { parts } = readGeminiBody(recording.body)
    expect(sent.contents.map(({ role }) => role)).toEqual(['user', 'model', 'user'])
    expect(sent.contents[1]!.parts).toEqual(parts)
  })
})

describe.skipIf(!hasRecordings)("over the SDK's own stream there are the same calls", () => {
  test.for(recordings)('%s', async ([name, recording]) => {
    const expected = readGeminiBody(recording.body)
    const sdk = new GoogleGenAI({ apiKey: 'none', vertexai: false, httpOptions: { fetch: replayFetch(recording) } })
    const stream = await sdk.models.generateContentStream({ model: 'any', contents: 'Hello' })
    const accumulator = new ToolStreamAccumulator()
    const run = async () => {
      for await (const event of toStreamEvents(stream)) accumulator.push(event)
    }
    if (expected.error) {
      const { code, message } = expected.error
      await expect(run(), name).rejects.toMatchObject({ name: 'HttpError', status: code, providerMessage: message })
      return
    }
    await run()
    expect(accumulator.isComplete).toBe(!isFiltered(expected))
    expect(accumulator.toolCalls).toMatchObject(isFiltered(expected) ? [] : callsOf(expected))
  })
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

function simulatedAnswer(name: string, streamFunctionCallArguments: boolean): RecordedAnswer {
  const source = simulate(
    [
      { tool: 'ask', input: { message: 'Wie viele Gäste? 🎉', options: ['few', 'many'], count: 12 } },
      { tool: 'note', input: { text: 'wichtig', isUrgent: true, by: null } },
    ],
    { provider: 'gemini', reasoning: 'They want to know.', text: 'Gerne: ', deltaChars: 12 },
  )
  const request = { toolConfig: { functionCallingConfig: { streamFunctionCallArguments } } }
  const { body } = source({ url: '', method: 'POST', headers: new Headers(), body: request })
  return { name, body: body as string }
}

/** The text of arguments, with the string, lists and objects ended that are open in it. */
function closed(text: string): string {
  let isInString = false
  const ends: string[] = []
  for (const [found] of text.matchAll(/\\.|["[\]{}]/gs)) {
    if (found === '"') isInString = !isInString
    else if (isInString || found.length > 1) continue
    else if (found === '{' || found === '[') ends.unshift(found === '{' ? '}' : ']')
    else ends.shift()
  }
  return (text === '' ? '{}' : text) + (isInString ? '"' : '') + ends.join('')
}

describe('an answer cut at any byte is an error that keeps what came before, never an answer', () => {
  const answers = [
    ...(hasRecordings
      ? [recordingOf('gemini', 'thinking-then-tool'), recordingOf('gemini', 'streaming-args-no-args-call')]
      : []),
    simulatedAnswer('simulated, whole calls', false),
    simulatedAnswer('simulated, calls in pieces', true),
  ]
  const endings: [string, Error | undefined][] = [
    ['clean end', undefined],
    ['broken connection', new TypeError('terminated')],
  ]
  const cases = answers.flatMap((answer) =>
    endings.map((ending) => [answer.name, ending[0], answer, ending[1]] as const),
  )

  test.for(cases)('%s, %s', async ([, , { body }, breakage]) => {
    const bytes = new TextEncoder().encode(body)
    // Signatures are long, and one cut in them is like another.
    const step = bytes.length > 5000 ? 5 : 1
    const lengths = Array.from(bytes.keys()).filter((length) => length % step === 0 || bytes[length - 1]! < 0x20)
    let expected = readGeminiBody('')
    for (const length of [...lengths, bytes.length]) {
      const prefix = bytes.subarray(0, length)
      // Only a line end can complete an event; the carriage return of a blank line does.
      const text = new TextDecoder().decode(prefix)
      if (/[\r\n]$/.test(text)) expected = readGeminiBody(text.endsWith('\n\r') ? `${text}\n` : text)
      const { events, response, error } = await watch(cutFetch(prefix, breakage))

      expect(joined(events, 'text-delta')).toBe(expected.text)
      expect(joined(events, 'reasoning-delta')).toBe(expected.thinking)
      if (expected.finishReason !== undefined && !breakage) {
        expect(response?.toolCalls).toEqual(callsOf(expected))
        continue
      }
      const isEmpty = expected.id === undefined && !breakage
      expect(error?.code, `after ${length} bytes`).toBe(isEmpty ? 'empty_response' : 'stream_truncated')
      expect(isLLMError(error) && error.retryable).toBe(true)
      const texts = error!.partial!.toolCalls.map(({ inputText }) => inputText)
      expect(texts.map((text) => JSON.parse(closed(text)) as unknown)).toEqual(expected.calls.map(({ input }) => input))
      expect(response).toBeUndefined()
      expect(events.some(({ type }) => type === 'tool-call' || type === 'finish')).toBe(false)
    }
    expect(expected.finishReason).toBe('STOP')
  })
})
