import Anthropic from '@anthropic-ai/sdk'
import type { ServerResponse } from 'node:http'
import {
  fallback,
  HttpError,
  nonStreaming,
  type Provider,
  retry,
  type StreamEvent,
  StreamingLLMClient,
  timeout,
  UsageError,
  xmlTools,
} from 'fieldstream'
import { openaiChat } from 'fieldstream/openai'
import { type Recording, replayFetch, type ReplayRequest, type ReplaySource, simulate } from 'fieldstream/testing'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { serve, untilClosed } from './conformance/connections.ts'
import { ask, expectQuiet, failureOf, key, messages, output, watch, watchClient, words } from './conformance/run.ts'
import type { Connection, Json, Subject } from './conformance/subject.ts'
import { subjects } from './conformance/subjects/index.ts'
import { hasRecordings, recordingsIn } from './recordings.ts'
import { finish, rejectionOf, scriptedProvider, start, streamOf, text, thrownBy } from './support.ts'

const json = { 'content-type': 'application/json' }

/** Whether a request asks for a stream. */
function asksForStream({ url, body }: ReplayRequest): boolean {
  return url.includes('/models/') ? url.includes(':streamGenerateContent') : (body as Json)['stream'] === true
}

/** Answers in one piece, whatever is asked for. */
function unstreaming({ name }: Subject, payload: string | object = 'Fine. 🎉'): (request: ReplayRequest) => Recording {
  const answer = simulate(payload, {
    provider: name,
    reasoning: 'Hm.',
    ...(typeof payload === 'object' && { tool: ask }),
  })
  return (request) =>
    answer({
      ...request,
      url: request.url.replace('streamGenerateContent', 'generateContent'),
      body: { ...(request.body as Json), stream: false },
    })
}

/** Refuses to stream, as OpenAI does for organizations that are not verified. */
function refusing(subject: Subject, status = 400, message = 'To stream this model is not supported.'): Recording {
  const error = { type: 'invalid_request_error', param: 'stream', code: 'unsupported_value' }
  return { status, headers: json, body: subject.failureBody(status, error, message) }
}

const notStreamed = [{ code: 'not-streamed', message: expect.any(String) as string }]

describe.each(subjects.map((subject) => [subject.name, subject] as const))('%s', (name, subject) => {
  const over = (source: ReplaySource | readonly ReplaySource[], options: Connection = {}) => {
    const fetch = replayFetch(source)
    return { fetch, provider: subject.create({ apiKey: key, fetch, ...options }) }
  }
  const wholeBody = (payload: string | object = 'Fine. 🎉'): string => {
    const request = { url: '/models/model-a:generateContent', method: 'POST', headers: new Headers(), body: {} }
    return unstreaming(subject, payload)(request).body as string
  }

  describe('a gateway that does not stream', () => {
    test.each([
      ['text', 'Fine. 🎉', {}],
      ['a call', { message: 'How many?' }, { tools: [ask], toolInput: 'native' }],
      ['a call as JSON text', { message: 'How many?' }, { tools: [ask], toolChoice: ask, toolInput: 'json' }],
    ] as const)('is answer enough: %s', async (_, payload, request) => {
      const streamed = await watch(over(simulate(payload, { provider: name, reasoning: 'Hm.' })).provider, request)
      const { fetch, provider } = over(unstreaming(subject, payload))
      const { response, events, error } = await watch(provider, request)
      expect(error).toBeUndefined()
      expect(response!.warnings).toEqual([...streamed.response!.warnings, ...notStreamed])
      const comparable = { warnings: [], metrics: undefined }
      expect({ ...response, ...comparable }).toEqual({ ...streamed.response, ...comparable })
      expect(new Set(events.map(({ type }) => type))).toEqual(new Set(streamed.events.map(({ type }) => type)))
      expect(fetch.requests.map(asksForStream)).toEqual([true])
    })

    test('that calls itself no JSON is none', async () => {
      const body = { body: '<html>planted output</html>', headers: { 'content-type': 'text/html' } }
      for (const wrap of [nonStreaming, (provider: Provider) => provider]) {
        const { error } = await failureOf(wrap(over(body).provider))
        expect(error).toMatchObject({ name: 'StreamError', code: 'unexpected_content_type', retryable: true })
      }
    })
  })

  describe('a service that refuses to stream', () => {
    const refuses = (request: ReplayRequest) =>
      asksForStream(request) ? refusing(subject) : unstreaming(subject)(request)

    test('answers the same request in one piece, within the same attempt, and is not asked to stream again', async () => {
      const { fetch, provider } = over(refuses)
      const onAttempt = vi.fn()
      const client = new StreamingLLMClient({ provider, middleware: [retry()], onAttempt })
      const { response, events } = await watchClient(client)
      expect(response).toMatchObject({ text: 'Fine. 🎉', reasoning: 'Hm.', warnings: notStreamed })
      expect(response!.metrics.attempts).toBe(1)
      expect(events.filter(({ type }) => type === 'start')).toMatchObject([{ attempt: 1, warnings: notStreamed }])
      expect(onAttempt).not.toHaveBeenCalled()
      expect(fetch.requests.map(asksForStream)).toEqual([true, false])
      const [asked, again] = fetch.requests.map(({ body }) => body as Json)
      const { stream: _, stream_options: __, ...rest } = asked!
      expect(again).toEqual(subject.name === 'gemini' ? rest : { ...rest, stream: false })

      const second = await watchClient(client)
      expect(second.response).toMatchObject({ text: 'Fine. 🎉', warnings: notStreamed })
      const other = await watch(provider)
      expect(other.response!.text).toBe('Fine. 🎉')
      expect(fetch.requests.map(asksForStream)).toEqual([true, false, false, false])
    })

    test('does so through the channels for calls too', async () => {
      const answer = unstreaming(subject, { message: 'How many?' })
      const called = await watch(
        over((request) => (asksForStream(request) ? refusing(subject) : answer(request))).provider,
        { tools: [ask], toolChoice: ask, toolInput: 'json' },
      )
      expect(called.response).toMatchObject({ toolCalls: [{ input: { message: 'How many?' } }] })
      const tags = simulate({ message: 'Who?' }, { provider: name, tool: 'ask', toolInput: 'xml' })
      const inTags = over((request) => (asksForStream(request) ? refusing(subject) : tags(request)))
      const { response } = await watch(xmlTools(inTags.provider), { tools: [ask] })
      expect(response).toMatchObject({ toolCalls: [{ input: { message: 'Who?' } }], warnings: notStreamed })
      expect(inTags.fetch.requests.map(asksForStream)).toEqual([true, false])
    })

    test('and fails all the same is not taken for one that cannot stream', async () => {
      const { fetch, provider } = over([
        refusing(subject),
        refusing(subject, 422),
        simulate('Fine.', { provider: name }),
      ])
      const { error } = await failureOf(provider)
      expectQuiet(error)
      expect(error).toMatchObject({ name: 'HttpError', code: 'streaming_unsupported', status: 422, attempt: 1 })
      expect((await watch(provider)).response).toMatchObject({ text: 'Fine.', warnings: [] })
      expect(fetch.requests.map(asksForStream)).toEqual([true, false, true])
    })

    test('leaves its error where the provider has no `generate`', async () => {
      const { generate: _, ...provider } = over(refuses).provider
      const { error } = await failureOf(provider)
      expect(error).toMatchObject({ code: 'streaming_unsupported', status: 400, retryable: false, phase: 'connect' })
      expect(error.message).toContain('nonStreaming()')
      const other = over(simulate('Fine.', { provider: name })).provider
      expect((await watch(fallback(provider, other))).response!.text).toBe('Fine.')
    })
  })

  describe('nonStreaming()', () => {
    test('a body that is cut is an error, never an answer', async () => {
      const body = wholeBody({ message: output })
      for (const share of [0.02, 0.3, 0.6, 0.9, 0.99]) {
        const { provider } = over({ body: body.slice(0, Math.max(1, body.length * share)), headers: json })
        const { error, events } = await failureOf(nonStreaming(provider), { tools: [ask] })
        expect(error).toMatchObject({ name: 'StreamError', code: 'stream_truncated', retryable: true })
        expect(events).toEqual([])
      }
      const nothing = await failureOf(nonStreaming(over({ body: '', headers: json }).provider))
      expect(nothing.error).toMatchObject({ code: 'empty_response', retryable: true })
    })

    test.each([
      ['other JSON', '{"planted":1}', 'unexpected_content_type'],
      ['a list of nothing', '[]', 'unexpected_content_type'],
      ['a number', '5', 'stream_protocol'],
      ['no JSON', 'planted output', 'stream_protocol'],
    ])('what is no answer is an error: %s', async (_, body, code) => {
      const { error } = await failureOf(nonStreaming(over({ body, headers: json }).provider))
      expect(error).toMatchObject({ name: 'StreamError', code })
    })

    test('an answer without its end is an error', async () => {
      const end = /"(?:stop_reason|finish_reason|finishReason)":"[^"]*"|"status":"completed","model"|"done":true/
      const body = wholeBody()
      expect(body).toMatch(end)
      const unfinished = body.replace(end, (found) =>
        found.endsWith('"model"') ? '"status":"queued","model"' : '"x":1',
      )
      const { error } = await failureOf(nonStreaming(over({ body: unfinished, headers: json }).provider))
      expect(error.name).toBe('StreamError')
      expect(error.code).toMatch(/stream_truncated|stream_protocol/)
    })

    test('an error is the same error as that of a stream', async () => {
      const [status, report, code, retryable] = subject.statuses.find(([number]) => number === 429)!
      const body = subject.failureBody(status, report, words)
      const headers = { ...json, 'retry-after': '7', [subject.wire.requestIdHeader]: 'req_1' }
      const { error } = await failureOf(nonStreaming(over({ status, body, headers }).provider))
      expect(error).toMatchObject({ name: 'HttpError', code, retryable, status, phase: 'connect', retryAfterMs: 7000 })
      expect(error).toMatchObject({ provider: name, model: subject.model, requestId: 'req_1', providerMessage: words })
      // Under status 200.
      const reported = await failureOf(nonStreaming(over({ body, headers }).provider))
      expect(reported.error).toMatchObject({ name: 'HttpError', requestId: 'req_1', providerMessage: words })
    })

    test('a body that is too long is an error that says what to raise', async () => {
      const body = wholeBody()
      const limits = { maxEventLength: body.length }
      expect((await watch(nonStreaming(over({ body, headers: json }, { limits }).provider))).response!.text).not.toBe(
        '',
      )
      const tooLow = { limits: { maxEventLength: body.length - 1 } }
      const { error } = await failureOf(nonStreaming(over({ body, headers: json }, tooLow).provider))
      expect(error).toMatchObject({ name: 'LimitError', limit: 'maxEventLength' })
    })

    test('a server that streams all the same is read as what it is', async () => {
      const { wire } = subject
      const body = wire.write(...wire.begun, ...wire.rest) + (wire.farewell ?? '')
      const { provider } = over({ body, headers: { 'content-type': wire.contentType } })
      expect((await watch(nonStreaming(provider))).response).toMatchObject({ text: output, warnings: [] })
    })

    test('any client: what its SDK parsed is the answer', async () => {
      const asked: unknown[] = []
      const client = subject.sdk.fake((body) => {
        asked.push(body)
        return Promise.resolve(JSON.parse(wholeBody()) as unknown)
      })
      const { response } = await watch(nonStreaming(subject.create({ client })))
      expect(response).toMatchObject({ text: 'Fine. 🎉', reasoning: 'Hm.', warnings: [] })
      if (name !== 'gemini') expect(asked).toMatchObject([{ stream: false }])
      // And where it was to stream.
      if (name !== 'gemini') expect((await watch(subject.create({ client }))).response!.warnings).toEqual(notStreamed)
      const none = await failureOf(nonStreaming(subject.create({ client: subject.sdk.fake(() => Promise.resolve()) })))
      expect(none.error).toMatchObject({ code: 'stream_protocol' })
    })

    test.skipIf(!hasRecordings)('what the services wrote is the same in one piece', async () => {
      let compared = 0
      for (const recording of recordingsIn(subject.folders)) {
        const { body } = recording
        const whole = await wholeOf[name]?.(body)
        if (whole === undefined) continue
        const headers = { 'content-type': subject.wire.contentType }
        const run = async (provider: Provider) => {
          const { response, error } = await watch(provider)
          const told = { ...response, metrics: undefined, error: error?.code }
          return JSON.stringify(told, (member, value: unknown) => (differing.has(member) ? undefined : value))
        }
        const streamed = await run(over({ body, headers }).provider)
        const inOnePiece = await run(nonStreaming(over({ body: JSON.stringify(whole), headers: json }).provider))
        expect(JSON.parse(inOnePiece), recording.name).toEqual(JSON.parse(streamed))
        compared++
      }
      expect(compared).toBeGreaterThanOrEqual(wholeOf[name] ? 5 : 0)
    })

    describe('over a real connection', () => {
      const connect = async (answer: (response: ServerResponse) => unknown) => {
        const { baseURL, sockets } = await serve(answer)
        return { sockets, provider: nonStreaming(subject.create({ apiKey: key, baseURL })) }
      }

      test('an answer', async () => {
        const { provider } = await connect((response) => response.writeHead(200, json).end(wholeBody()))
        expect((await watch(provider)).response).toMatchObject({ text: 'Fine. 🎉', reasoning: 'Hm.' })
      })

      test.each(['end', 'destroy'] as const)('one that breaks off: %s', async (how) => {
        const { provider } = await connect((response) => {
          response.writeHead(200, json).write(wholeBody().slice(0, -20), () => {
            if (how === 'end') response.end()
            else setTimeout(() => response.socket?.destroy(), 10)
          })
        })
        expect((await failureOf(provider)).error).toMatchObject({ code: 'stream_truncated', retryable: true })
      })

      test.each(['before the head', 'in the body'])('an abort %s closes it', async (where) => {
        const reached = Promise.withResolvers<undefined>()
        const { provider, sockets } = await connect((response) => {
          if (where === 'in the body') response.writeHead(200, json).write(wholeBody().slice(0, 20))
          setTimeout(reached.resolve, 30, undefined)
        })
        const stream = new StreamingLLMClient({ provider }).stream({ messages })
        const failure = rejectionOf(stream.final())
        await reached.promise
        stream.abort('enough')
        expect(await failure).toMatchObject({ name: 'AbortError', reason: 'enough' })
        expect(await untilClosed(sockets[0]!)).toBeLessThan(100)
      })
    })
  })
})

/** Members that a service, or its SDK, does not write the same at the end: ids, what is sealed, counts under their own names. */
const differing = new Set(['id', 'responseId', 'encrypted_content', 'fingerprint', 'raw'])

/** A recorded stream as the one answer it tells, told by others than us. */
const wholeOf: Partial<Record<string, (body: string) => unknown>> = {
  // As the SDK puts it together.
  anthropic: (body) =>
    new Anthropic({ apiKey: key, fetch: replayFetch(body) }).beta.messages
      .stream({ model: 'm', max_tokens: 1, messages: [] })
      .finalMessage(),
  openai: (body) => {
    const last = body.split('\n').findLast((line) => /^data: .*"type":\s*"response\.(completed|incomplete)"/.test(line))
    return last && (JSON.parse(last.slice(6)) as Json)['response']
  },
}

describe('what says that a service does not stream', () => {
  const codeOf = async (status: number, error: object) => {
    const body = { status, headers: json, body: JSON.stringify({ error }) }
    const { generate: _, ...provider } = openaiChat({ model: 'm', fetch: replayFetch(body) })
    return (await failureOf(provider)).error.code
  }

  test.each([
    [
      400,
      {
        message: 'Your organization must be verified to stream this model. Please go to: https://x.y',
        param: 'stream',
      },
    ],
    [400, { message: "Unsupported value: 'stream' does not support true with this model.", code: 'unsupported_value' }],
    [400, { message: 'No.', param: 'stream', code: 'unsupported_value' }],
    [400, { message: 'The model is unsupported for streaming.' }],
    [400, { message: "This model doesn't support tool use in streaming mode." }],
    [400, { message: 'This model does not currently support streaming' }],
    [422, { message: 'stream=true is not supported' }],
    [404, { message: 'Streaming is not available for this deployment.' }],
    [403, { message: 'Streamed responses are disabled by your administrator.' }],
    [501, { message: 'Streaming is not yet implemented' }],
    [400, { message: 'No.', code: 'streaming_not_supported' }],
  ])('%i %j', async (status, error) => {
    expect(await codeOf(status, error)).toBe('streaming_unsupported')
  })

  test.each([
    [400, { message: 'Unsupported parameter: stream_options', param: 'stream_options' }, 'bad_request'],
    [400, { message: 'Non-streaming requests are not supported. Set stream to true.' }, 'bad_request'],
    [400, { message: 'Image URLs are not supported. The stream was fine.' }, 'bad_request'],
    [404, { message: 'models/x is not found, or is not supported for streamGenerateContent.' }, 'not_found'],
    [429, { message: 'Streaming is not available: slow down.' }, 'rate_limited'],
    [500, { message: 'Streaming is not available.' }, 'server_error'],
    [401, { message: 'No.', param: 'stream' }, 'authentication'],
  ])('and what does not: %i %j', async (status, error, code) => {
    expect(await codeOf(status, error)).toBe(code)
  })

  test('is found in time, however long the explanation', async () => {
    const from = performance.now()
    expect(await codeOf(400, { message: 'not stream '.repeat(100_000) })).toBe('bad_request')
    expect(performance.now() - from).toBeLessThan(500)
  })
})

/** A provider that plays `whole` when asked for an answer in one piece, and fails to stream. */
function scripted(whole: Parameters<typeof scriptedProvider>[0], error?: Error) {
  const streamed = scriptedProvider(async function* () {
    await Promise.resolve()
    if (error) throw error
    yield [start, text('streamed'), finish('stop')]
  })
  const generated = scriptedProvider(whole)
  const generate: Provider['generate'] = (request, context) => generated.stream(request, context)
  return Object.assign(streamed, { generate, asked: generated.requests })
}

const answer: StreamEvent[][] = [[start, text('whole'), finish('stop')]]
const refused = () => new HttpError('streaming_unsupported', 'No.', { status: 400 })

describe('nonStreaming() composes', () => {
  test('as the second of fallback()', async () => {
    const broken = scripted(answer, new HttpError('server_error', 'No.', { retryable: true }))
    const stream = streamOf(fallback(broken, nonStreaming(broken)))
    expect(await stream.final()).toMatchObject({ text: 'whole', warnings: [], metrics: { attempts: 2 } })
    expect([broken.requests.length, broken.asked.length]).toEqual([1, 1])
  })

  test('around providers made of others, and around itself', async () => {
    const broken = async function* () {
      yield [start]
      await Promise.resolve()
      throw new HttpError('server_error', 'No.')
    }
    const [first, second] = [scripted(broken), scripted(answer)]
    const provider = nonStreaming(fallback(first, nonStreaming(second)))
    expect(await streamOf(provider).final()).toMatchObject({ text: 'whole', metrics: { attempts: 2 } })
    expect([first, second].map(({ requests, asked }) => [requests.length, asked.length])).toEqual([
      [0, 1],
      [0, 1],
    ])
    expect((await streamOf(fallback(second, first)).final()).text).toBe('streamed')
  })

  test('not with what cannot answer in one piece', () => {
    const able = scripted(answer)
    for (const unable of [scriptedProvider([]), fallback(able, fallback(able, scriptedProvider([]))), undefined, {}]) {
      const error = thrownBy(() => nonStreaming(unable as Provider))
      expect(error).toBeInstanceOf(UsageError)
      expect((error as UsageError).message).toContain('nonStreaming()')
    }
  })

  test('a refusal after the answer had begun is an error', async () => {
    const late = Object.assign(
      scriptedProvider(async function* () {
        yield [start]
        await Promise.resolve()
        throw refused()
      }),
      { generate: scripted(answer).generate },
    )
    expect(await rejectionOf(streamOf(late).final())).toMatchObject({ code: 'streaming_unsupported' })
  })
})

describe('an answer in one piece comes late', () => {
  beforeEach(() => {
    vi.useFakeTimers()
  })
  afterEach(() => {
    vi.useRealTimers()
  })
  const after = (milliseconds: number, ...batches: StreamEvent[][]) =>
    async function* () {
      await new Promise((resolve) => setTimeout(resolve, milliseconds))
      yield* batches
    }
  const limits = timeout({ firstByte: 100, firstOutput: 100, progress: 100, idle: 1000, total: 500_000 })
  const settle = async (provider: Provider) => {
    const outcome = streamOf(provider, {}, { middleware: [limits] })
      .final()
      .catch((error: unknown) => error)
    await vi.runAllTimersAsync()
    return outcome
  }

  test.each([
    ['asked for', (provider: Provider) => nonStreaming(provider), undefined],
    ['after a refusal', (provider: Provider) => provider, refused()],
  ])('and nothing but the run has a limit for it: %s', async (_, wrap, error) => {
    expect(await settle(wrap(scripted(after(400_000, ...answer), error)))).toMatchObject({ text: 'whole' })
    expect(await settle(wrap(scripted(after(600_000, ...answer), error)))).toMatchObject({
      code: 'timeout',
      phase: 'total',
    })
    expect(vi.getTimerCount()).toBe(0)
  })

  test('but its body must not stand still', async () => {
    const stalled = scripted(async function* () {
      yield []
      await new Promise((resolve) => setTimeout(resolve, 900))
      yield []
      await new Promise(() => undefined)
    })
    expect(await settle(nonStreaming(stalled))).toMatchObject({ code: 'timeout', phase: 'idle', timeoutMs: 1000 })
    expect(vi.getTimerCount()).toBe(0)
  })
})
