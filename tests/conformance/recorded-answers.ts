import { type LLMError, type Message, StreamingLLMClient, ToolStreamAccumulator } from 'fieldstream'
import { replayFetch, type ReplayOptions } from 'fieldstream/testing'
import { describe, expect, test } from 'vitest'
import { hasRecordings, type RecordedAnswer, recordingsIn } from '../recordings.ts'
import { failureOf, joined, over, type Run, simulated, watch } from './run.ts'
import type { ExpectedAnswer, ExpectedCall, Subject, Variant } from './subject.ts'

const question: Message = { role: 'user', content: 'Hello' }
const chunkings: ReplayOptions[] = [{ chunks: 1 }, { chunks: 'random', seed: 1 }, { chunks: 'random', seed: 2 }]
const plain: Variant = { name: 'as it is' }

/** What the service sent is what the user gets. */
export function describeRecordedAnswers(subject: Subject): void {
  const cases = recordingsIn(subject.folders).flatMap((recording) =>
    (subject.variantsOf?.(recording) ?? [plain]).map((variant) => {
      const expected = subject.read(recording.body, { variant, isBroken: false })
      return [recording.name, variant.name, { recording, variant, expected }] as const
    }),
  )
  const run = (recording: RecordedAnswer, variant: Variant, replay?: ReplayOptions) =>
    watch(over(subject, recording, variant.options, replay), { messages: [question], ...variant.request })

  describe.skipIf(!hasRecordings)('what the service sent is what the user gets', () => {
    test.for(cases)('%s, %s', async ([, , { recording, variant, expected }]) => {
      const whole = await run(recording, variant)
      expectContent(whole, expected, subject)
      expectOutcome(whole, expected)
      for (const replay of chunkings) {
        const other = await run(recording, variant, replay)
        expectSameEvents(other.events, whole.events)
        expect(other.error?.code, JSON.stringify(replay)).toBe(whole.error?.code)
        expect({ ...other.response, metrics: undefined }).toEqual({ ...whole.response, metrics: undefined })
      }
    })
  })

  describe.skipIf(!hasRecordings)('the conversation goes on with exactly what the model said', () => {
    const complete = cases.filter(([, , { expected }]) => faultOf(expected) === undefined)

    test.for(complete)('%s, %s', async ([, , { recording, variant, expected }]) => {
      const fetch = replayFetch([recording, simulated(subject)])
      const client = new StreamingLLMClient({ provider: subject.create({ apiKey: 'none', fetch, ...variant.options }) })
      const { messages, toolCalls } = await client.stream({ messages: [question], ...variant.request }).final()
      // As a host would have stored them.
      const stored = JSON.parse(JSON.stringify(messages)) as Message[]
      const { warnings } = await client.stream({ messages: [question, ...stored, question] }).final()
      expect(warnings).toEqual([])
      subject.expectTurn(fetch.requests[1]!.body as Record<string, unknown>, expected, recording, toolCalls)
    })
  })

  describe.skipIf(!hasRecordings)("over the SDK's own stream there is the same answer", () => {
    // What is known of a model beforehand is an option of the provider.
    const once = cases.filter(([name], i) => cases[i - 1]?.[0] !== name)

    test.for(once)('%s, %s', async ([name, , { recording, expected }]) => {
      const accumulator = new ToolStreamAccumulator()
      let text = ''
      let thrown: unknown
      try {
        for await (const event of await subject.sdk.events(
          subject.sdk.create({ fetch: replayFetch(recording) }),
          name,
        )) {
          accumulator.push(event)
          if (event.type === 'text-delta') text += event.delta
        }
      } catch (error) {
        thrown = error
      }
      const fault = faultOf(expected)
      expect(((thrown ?? accumulator.error) as LLMError | undefined)?.code).toBe(fault?.code)
      if (thrown !== undefined) {
        expect(thrown).toMatchObject(fault!)
        expect((thrown as LLMError).providerMessage).toBe(expected.providerMessage)
      }
      expect(accumulator.isComplete).toBe(!fault)
      expect(text).toBe(expected.text)
      expect(accumulator.toolCalls.map(({ toolName, input }) => [toolName, input])).toEqual(
        fault ? [] : expected.calls.map(({ name: toolName, input }) => [toolName, input]),
      )
      if (!fault) expectIds(accumulator.toolCalls, expected.calls)
    })
  })

  describe('an answer cut at any byte is an error that keeps what came before, never an answer', () => {
    const endings = [
      ['clean end', undefined],
      ['broken connection', new TypeError('terminated')],
    ] as const
    const cuts = [...subject.cuts, simulatedAnswer(subject)].flatMap((answer) =>
      endings.map(([ending, breakage]) => [answer.name, ending, answer, breakage] as const),
    )

    test.for(cuts)('%s, %s', async ([, , { body }, breakage]) => {
      const bytes = new TextEncoder().encode(body)
      // In a long body every cut counts around the ends of lines; elsewhere one is like the next.
      const isNear = (i: number) => bytes.subarray(Math.max(0, i - 3), i + 2).includes(0x0a)
      const step = bytes.length > 1500 ? 7 : 1
      const lengths = Array.from({ length: bytes.length }, (_, i) => i).filter((i) => i % step === 0 || isNear(i))
      let expected: ExpectedAnswer | undefined
      for (const length of [...lengths, bytes.length]) {
        const prefix = bytes.subarray(0, length)
        const isBroken = breakage !== undefined
        expected = subject.read(new TextDecoder().decode(prefix), { variant: plain, isBroken })
        const provider = subject.create({ apiKey: 'none', fetch: cutFetch(prefix, subject.wire.contentType, breakage) })
        if (expected.isComplete) {
          const seen = await watch(provider)
          expectContent(seen, expected, subject)
          expectOutcome(seen, expected)
          continue
        }
        const seen = await failureOf(provider)
        if (seen.events.length > 0) expectContent(seen, expected, subject)
        else expect(expected).toMatchObject({ text: '', reasoning: '', calls: [] })
        const code = length === 0 && !isBroken ? 'empty_response' : 'stream_truncated'
        expect(seen.error, `after ${length} bytes`).toMatchObject({ name: 'StreamError', code, retryable: true })
        const reason = isBroken ? 'reset' : 'end'
        if (length > 0) expect(seen.error, `after ${length} bytes`).toMatchObject({ reason })
        expectPartial(seen.error, expected)
      }
      expect(expected?.calls.length).toBeGreaterThan(0)
      expect(expected?.isComplete || !subject.wire.isOverAtEvidence).toBe(true)
    })
  })
}

/** Why an answer is none; `undefined` where it is one. */
function faultOf({ failure, isComplete }: ExpectedAnswer): ExpectedAnswer['failure'] {
  return failure ?? (isComplete ? undefined : { name: 'StreamError', code: 'stream_truncated' })
}

/** Text, reasoning, arguments and fields, however the answer ends. */
function expectContent({ events }: Run, expected: ExpectedAnswer, subject: Subject): void {
  expect(joined(events, 'text-delta')).toBe(expected.text)
  expect(joined(events, 'reasoning-delta')).toBe(expected.reasoning)
  const started = events.flatMap((event) =>
    event.type === 'tool-input-start' ? [{ toolCallId: event.toolCallId, toolName: event.toolName }] : [],
  )
  expect(started.map(({ toolName }) => toolName)).toEqual(expected.calls.map(({ name }) => name))
  expectIds(started, expected.calls)
  for (const [i, call] of expected.calls.entries()) {
    const { toolCallId } = started[i]!
    expectInputText(joined(events, 'tool-input-delta', toolCallId), call)
    const isWhole = expected.isComplete || call.inputText !== undefined
    if (isWhole && call.input !== undefined) expect(fieldValues(events, toolCallId)).toEqual(call.input)
  }
  events.forEach(({ seq }, i) => expect(seq).toBeGreaterThan(events[i - 1]?.seq ?? 0))
  expect(events[0]).toMatchObject({
    type: 'start',
    provider: subject.name,
    model: expected.model ?? subject.model,
    responseId: expected.id,
    toolInput: 'native',
  })
}

/** How the answer ends. */
function expectOutcome({ events, response, error }: Run, expected: ExpectedAnswer): void {
  const fault = faultOf(expected)
  if (fault) {
    expect(error).toMatchObject(fault)
    expect(error!.providerMessage).toBe(expected.providerMessage)
    expectPartial(error!, expected)
    expect(error!.usage?.raw).toEqual(expected.usage)
    return
  }
  expect(error).toBeUndefined()
  expect(response).toMatchObject({
    text: expected.text,
    reasoning: expected.reasoning,
    finishReason: expected.finishReason,
    providerFinishReason: expected.providerFinishReason,
    responseId: expected.id,
    ...(expected.model !== undefined && { model: expected.model }),
  })
  const calls = expected.calls.map(({ name, input }) => ({ toolName: name, input }))
  expect(response!.toolCalls.map(({ toolName, input }) => ({ toolName, input }))).toEqual(calls)
  expectIds(response!.toolCalls, expected.calls)
  expect(events.filter(({ type }) => type === 'tool-call')).toMatchObject(response!.toolCalls)
  expect(response!.usage).toMatchObject(expected.counts)
  expect(response!.usage.raw).toEqual(expected.usage)
  expect(response!.warnings.length).toBe(expected.warnings ?? 0)
  expect(events.at(-1)).toMatchObject({ type: 'finish', usage: response!.usage })
}

function expectPartial(error: LLMError, expected: ExpectedAnswer): void {
  expect(error.partial).toMatchObject({ text: expected.text, reasoning: expected.reasoning })
  expect(error.partial!.toolCalls.length).toBe(expected.calls.length)
  for (const [i, call] of expected.calls.entries()) expectInputText(error.partial!.toolCalls[i]!.inputText, call)
}

function expectInputText(text: string, { inputText, input }: ExpectedCall): void {
  if (inputText !== undefined) expect(text).toBe(inputText)
  else expect(JSON.parse(closed(text))).toEqual(input)
}

/** Ids are the service's, or made up where it gives none: each once, and of a form that every service takes back. */
function expectIds(actual: readonly { toolCallId: string }[], calls: readonly ExpectedCall[]): void {
  const ids = actual.map(({ toolCallId }) => toolCallId)
  expect(new Set(ids).size).toBe(calls.length)
  for (const [i, { id }] of calls.entries()) {
    if (id !== undefined) expect(ids[i]).toBe(id)
    else expect(ids[i]).toMatch(/^[\w-]{1,40}$/)
  }
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

function expectSameEvents(actual: Run['events'], expected: Run['events']): void {
  const difference = expected.findIndex((event, i) => JSON.stringify(event) !== JSON.stringify(actual[i]))
  if (difference >= 0) expect(actual[difference]).toEqual(expected[difference])
  expect(actual.length).toBe(expected.length)
}

/** A `fetch` whose body ends after `bytes`, cleanly or as a broken connection ends. */
function cutFetch(bytes: Uint8Array, contentType: string, error?: Error): typeof globalThis.fetch {
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
    return Promise.resolve(new Response(body, { headers: { 'content-type': contentType } }))
  }
}

/** Reasoning, text and two calls. */
function simulatedAnswer(subject: Subject): RecordedAnswer {
  const calls = [
    { tool: 'ask', input: { message: 'Wie viele Gäste? 🎉', options: ['few', 'many'], count: 12 } },
    { tool: 'note', input: {} },
  ]
  const source = simulated(subject, calls, { reasoning: 'They want.', text: 'Gerne: 3 < 4 🎉 <', deltaChars: 16 })
  const { body } = source({
    url: '/models/m:streamGenerateContent',
    method: 'POST',
    headers: new Headers(),
    body: { stream: true },
  })
  return { name: 'a simulated answer', body: body as string }
}
