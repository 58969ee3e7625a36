import OpenAI from 'openai'
import { isLLMError, type LLMError, type Message, StreamingLLMClient, ToolStreamAccumulator } from 'fieldstream'
import { openai, openaiChat, toChatStreamEvents, toStreamEvents } from 'fieldstream/openai'
import { replayFetch, type ReplayOptions, simulate } from 'fieldstream/testing'
import { describe, expect, test } from 'vitest'
import { readChatBody, readResponsesBody, type ExpectedAnswer } from './openai-oracle.ts'
import { hasRecordings, recordingOf, recordingsOf, type RecordedAnswer } from './recordings.ts'

const question: Message = { role: 'user', content: 'Hello' }
const chunkings: [string, ReplayOptions][] = [
  ['one byte at a time', { chunks: 1 }],
  ['in random pieces', { chunks: 'random', seed: 1 }],
]

type Api = 'openai' | 'openai-chat'

const folders = [
  ['openai-responses', 'openai'],
  ['openai-chat', 'openai-chat'],
  ['openai-compatible', 'openai-chat'],
] as const
const recordings = folders.flatMap(([folder, api]) =>
  recordingsOf(folder).map((recording) => [`${folder}/${recording.name}`, api, recording] as const),
)

function clientOf(api: Api, fetch: typeof globalThis.fetch): StreamingLLMClient {
  const options = { model: 'gpt-5', fetch }
  return new StreamingLLMClient({ provider: api === 'openai' ? openai(options) : openaiChat(options) })
}

const read = (api: Api, { body }: RecordedAnswer): ExpectedAnswer =>
  api === 'openai' ? readResponsesBody(body) : readChatBody(body)

/** Runs one request to its end and keeps all there was to see. */
async function watch(api: Api, fetch: typeof globalThis.fetch) {
  const stream = clientOf(api, fetch).stream({ messages: [question], fields: { any: '*' } })
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

/** Arguments that are whole JSON; a call without any is one with none. */
function parsed(text: string): unknown {
  try {
    return text === '' ? {} : (JSON.parse(text) as unknown)
  } catch {
    return undefined
  }
}

/** Why an answer is no answer; `undefined` where it is one. */
function faultOf({ error, refusal, reason, calls }: ExpectedAnswer): string | undefined {
  if (error) {
    const codes: Record<string, string> = { '400': 'bad_request', '502': 'server_error' }
    return codes[String(error['status_code'] ?? error['code'])] ?? 'quota_exhausted'
  }
  if (refusal) return 'refused'
  if (reason === undefined) return 'stream_truncated'
  if (/length|max_output_tokens/.test(reason)) return calls.length > 0 ? 'output_truncated' : undefined
  return calls.some(({ inputText }) => parsed(inputText) === undefined) ? 'invalid_json' : undefined
}

const finishReasons: Record<string, string> = {
  length: 'length',
  max_output_tokens: 'length',
  stop: 'stop',
  completed: 'stop',
  tool_calls: 'tool-calls',
}

describe.skipIf(!hasRecordings)('what the service sent is what the user gets', () => {
  test('every recording is here', () => {
    expect(recordings.length).toBeGreaterThanOrEqual(36 + 26 + 45)
  })

  test.for(recordings)('%s', async ([, api, recording]) => {
    const expected = read(api, recording)
    const { events, response, error } = await watch(api, replayFetch(recording))

    expect(joined(events, 'text-delta')).toBe(expected.text)
    expect(joined(events, 'reasoning-delta')).toBe(expected.reasoning)
    for (const { id, inputText } of expected.calls) {
      expect(joined(events, 'tool-input-delta', id)).toBe(inputText)
      if (parsed(inputText) !== undefined) expect(fieldValues(events, id)).toEqual(parsed(inputText))
    }
    events.forEach(({ seq }, i) => expect(seq).toBeGreaterThan(events[i - 1]?.seq ?? 0))
    expect(events[0]).toMatchObject({ type: 'start', model: expected.model })
    expect(events[0]).toHaveProperty('responseId', expected.id)

    const fault = faultOf(expected)
    const calls = expected.calls.map(({ id, name, inputText }) => ({
      toolCallId: id,
      toolName: name,
      input: parsed(inputText),
    }))
    expect(error?.code).toBe(fault)
    if (fault) {
      expect(response).toBeUndefined()
      expect(error!.partial).toMatchObject({ text: expected.text, reasoning: expected.reasoning })
      expect(error!.partial!.toolCalls.map(({ inputText }) => inputText)).toEqual(
        expected.calls.map(({ inputText }) => inputText),
      )
      expect(error!.usage?.raw).toEqual(expected.usage ?? (expected.error ? undefined : {}))
      const explanation = (expected.error?.['message'] as string | undefined) ?? (expected.refusal || undefined)
      expect(error!.providerMessage).toBe(explanation)
      expect(events.filter(({ type }) => type === 'tool-call' || type === 'finish')).toEqual([])
    } else {
      const finishReason = finishReasons[expected.reason!]
      expect(response).toMatchObject({
        text: expected.text,
        reasoning: expected.reasoning,
        providerFinishReason: expected.reason,
        finishReason: finishReason === 'stop' && calls.length > 0 ? 'tool-calls' : finishReason,
        model: expected.model,
      })
      expect(response!.toolCalls).toEqual(calls)
      expect(events.filter(({ type }) => type === 'tool-call')).toMatchObject(calls)
      expect(response!.usage.raw).toEqual(expected.usage ?? {})
      expect(response!.usage).toMatchObject(countsOf(expected.usage ?? {}))
      expect(events.at(-1)).toMatchObject({ type: 'finish', usage: response!.usage })
    }

    for (const [chunking, options] of chunkings) {
      const other = await watch(api, replayFetch(recording, options))
      expectSameEvents(other.events, events)
      expect(other.error?.code, chunking).toBe(error?.code)
      expect({ ...other.response, metrics: undefined }, chunking).toEqual({ ...response, metrics: undefined })
    }
  })
})

function expectSameEvents(actual: Run['events'], expected: Run['events']): void {
  const difference = expected.findIndex((event, i) => JSON.stringify(event) !== JSON.stringify(actual[i]))
  if (difference >= 0) expect(actual[difference]).toEqual(expected[difference])
  expect(actual.length).toBe(expected.length)
}

/** Tokens as `Usage` counts them, where a service leaves no doubt. */
function countsOf(raw: Record<string, unknown>) {
  const inputTokens = (raw['input_tokens'] ?? raw['prompt_tokens'] ?? 0) as number
  const totalTokens = (raw['total_tokens'] ?? 0) as number
  return { inputTokens, totalTokens, outputTokens: totalTokens - inputTokens }
}

describe.skipIf(!hasRecordings)('the conversation goes on with exactly what the model said', () => {
  const complete = recordings.filter(([, api, recording]) => !faultOf(read(api, recording)))

  test.for(complete)('%s', async ([, api, recording]) => {
    const fetch = replayFetch([recording, simulate('Fine.', { provider: api })])
    const client = clientOf(api, fetch)
    const { messages } = await client.stream({ messages: [question] }).final()
    const next = client.stream({ messages: [question, ...messages, question] })
    expect((await next.final()).warnings).toEqual([])

    const expected = read(api, recording)
    const sent = fetch.requests[1]!.body as Record<'input' | 'messages', Record<string, unknown>[]>
    if (api === 'openai') {
      expect(sent.input.slice(1, -1)).toEqual(expected.items.map(asSent))
      return
    }
    const { content, tool_calls: calls, ...rest } = sent.messages[1]!
    expect(sent.messages.map(({ role }) => role)).toEqual(['user', 'assistant', 'user'])
    const texts = Array.isArray(content) ? (content as { text?: string }[]).map(({ text }) => text ?? '') : [content]
    const isTagged = texts.join('').startsWith('<think>')
    expect(texts.join('')).toBe(isTagged ? `<think>${expected.reasoning}</think>${expected.text}` : expected.text)
    expect(((calls ?? []) as object[]).map((call) => call)).toMatchObject(
      expected.calls.map(({ id, name }) => ({ id, type: 'function', function: { name } })),
    )
    if (expected.reasoning !== '' && !isTagged) {
      const back = [rest['reasoning'], rest['reasoning_content'], JSON.stringify([content, rest['reasoning_details']])]
      expect(back.some((text) => (text as string | undefined)?.includes(expected.reasoning.slice(0, 3)))).toBe(true)
    }
  })
})

/** An item as it goes back: without what only an answer has. */
function asSent(item: Record<string, unknown>): Record<string, unknown> {
  if (item['type'] === 'function_call')
    return { ...item, arguments: JSON.stringify(parsed(item['arguments'] as string)) }
  if (item['type'] !== 'message') return item
  const content = item['content'] as Record<string, unknown>[]
  return {
    ...item,
    content: content.map(({ type, text, annotations = [] }) => ({ type, text, annotations })),
  }
}

describe.skipIf(!hasRecordings)("over the SDK's own stream there are the same calls", () => {
  // Where its stream breaks off, the SDK throws; what it throws is seen in openai.test.ts.
  test.for(recordings)('%s', async ([, api, recording]) => {
    const expected = read(api, recording)
    const fault = faultOf(expected)
    const sdk = new OpenAI({ apiKey: 'none', fetch: replayFetch(recording) })
    const events =
      api === 'openai'
        ? toStreamEvents(await sdk.responses.create({ model: 'any', input: '', stream: true }))
        : toChatStreamEvents(await sdk.chat.completions.create({ model: 'any', messages: [], stream: true }))
    const accumulator = new ToolStreamAccumulator()
    let thrown: unknown
    try {
      for await (const event of events) accumulator.push(event)
    } catch (error) {
      thrown = error
    }
    expect(((thrown ?? accumulator.error) as LLMError | undefined)?.code).toBe(fault)
    expect(accumulator.isComplete).toBe(!fault)
    expect(accumulator.toolCalls.map(({ toolCallId, toolName }) => [toolCallId, toolName])).toEqual(
      // Without the request, what the service echoes of it tells which custom tools are the caller's.
      fault ? [] : expected.calls.map(({ id, name }) => [id, name]),
    )
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

function simulatedAnswer(provider: Api): RecordedAnswer {
  const calls = [
    { tool: 'ask', input: { message: 'Wie viele Gäste? 🎉', options: ['few', 'many'], count: 12 } },
    { tool: 'ask', input: { message: 'Wann?' } },
  ]
  const source = simulate(calls, { provider, reasoning: 'They want to know.', text: 'Gerne: ', deltaChars: 24 })
  const body = source({ url: '', method: 'POST', headers: new Headers(), body: {} }).body as string
  return { name: 'a simulated answer', body }
}

describe('an answer cut at any byte is an error that keeps what came before, never an answer', () => {
  const answers: [Api, RecordedAnswer, RegExp][] = [
    ['openai', simulatedAnswer('openai'), /"type":"response\.completed".*\n\n/],
    ['openai-chat', simulatedAnswer('openai-chat'), /"finish_reason":"\w+".*\n\n/],
  ]
  if (hasRecordings) {
    answers.push(['openai', recordingOf('openai-responses', 'tool-parallel-two'), /"type":"response\.completed".*\n\n/])
    answers.push([
      'openai-chat',
      recordingOf('openai-compatible', 'mistral-incremental-empty-name'),
      /"finish_reason":"\w+".*\n\n/,
    ])
  }
  const endings: [string, Error | undefined][] = [
    ['clean end', undefined],
    ['broken connection', new TypeError('terminated')],
  ]
  const cases = answers.flatMap(([api, answer, evidence], i) =>
    // Both endings for the simulated ones: enough, and quick.
    endings
      .slice(0, i < 2 ? 2 : 1)
      .map((ending) => [api, answer.name, ending[0], answer, evidence, ending[1]] as const),
  )

  test.for(cases)('%s: %s, %s', async ([api, , , recording, evidence, breakage]) => {
    const whole = await watch(api, replayFetch(recording))
    const bytes = new TextEncoder().encode(recording.body)
    const match = evidence.exec(recording.body)!
    const isComplete = new TextEncoder().encode(recording.body.slice(0, match.index + match[0].length)).length
    const told = (events: Run['events']) =>
      events.map((event) => ('delta' in event ? event.delta : event.type)).join('|')
    const everything = told(whole.events)
    let before = 0
    for (let length = 0; length <= bytes.length; length++) {
      const { events, response, error } = await watch(api, cutFetch(bytes.subarray(0, length), breakage))
      const seen = told(events)
      expect(seen.length).toBeGreaterThanOrEqual(before)
      before = seen.length
      if (length >= isComplete) {
        expect(response?.toolCalls, `after ${length} bytes`).toEqual(whole.response!.toolCalls)
        expect(seen).toBe(everything)
        continue
      }
      expect(everything.startsWith(seen), `after ${length} bytes`).toBe(true)
      const isEmpty = events.length === 0 && !breakage
      expect(error?.code, `after ${length} bytes`).toBe(isEmpty ? 'empty_response' : 'stream_truncated')
      expect(isLLMError(error) && error.retryable).toBe(true)
      expect(response).toBeUndefined()
      expect(events.some(({ type }) => type === 'tool-call' || type === 'finish')).toBe(false)
    }
    expect(whole.response!.toolCalls.length).toBeGreaterThan(0)
  })
})
