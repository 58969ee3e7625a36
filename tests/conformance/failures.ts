import { HttpError } from 'fieldstream'
import { type Recording, replayFetch } from 'fieldstream/testing'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { ask, expectQuiet, failureOf, key, messages, output, over, read, simulated, watch, words } from './run.ts'
import type { Json, Subject } from './subject.ts'

const json = { 'content-type': 'application/json' }
const request = { tools: [ask] }

export function describeFailures(subject: Subject): void {
  const { wire } = subject
  const good = wire.write(...wire.begun, ...wire.rest)
  /** A body under the content type of the wire. */
  const answer = (body: string | Uint8Array): Recording => ({
    body,
    headers: { 'content-type': wire.contentType, [wire.requestIdHeader]: 'req_1' },
  })
  const failure = (status: number, error: Json = {}, headers: Readonly<Record<string, string>> = {}): Recording => ({
    status,
    headers: { ...json, [wire.requestIdHeader]: 'req_1', ...headers },
    body: subject.failureBody(status, error, words),
  })

  describe('an error status is an error one can act on', () => {
    test.for(subject.statuses)('%i %j', async ([status, report, code, retryable, providerCode]) => {
      const { error, events } = await failureOf(over(subject, failure(status, report)), request)
      expect(error).toBeInstanceOf(HttpError)
      expect(error).toMatchObject({
        name: 'HttpError',
        code,
        retryable,
        status,
        phase: 'connect',
        provider: subject.name,
        model: subject.model,
        requestId: 'req_1',
        attempt: 1,
      })
      expect(error.providerCode).toBe(providerCode)
      expect(error.providerMessage).toBe(words)
      expect(error.message).toContain(String(status))
      expect(events).toEqual([])
    })

    test('the server has the last word on whether to try again', async () => {
      const retryable = async (status: number, should: string) =>
        (await failureOf(over(subject, failure(status, {}, { 'x-should-retry': should })))).error.retryable
      expect([await retryable(429, 'false'), await retryable(400, 'true')]).toEqual([false, true])
    })

    const inNineSeconds = new Date(Date.UTC(2030, 0, 1, 0, 0, 9)).toUTCString()
    const serverNow = new Date(Date.UTC(2030, 0, 1)).toUTCString()
    test.for([
      [{ 'retry-after-ms': '120' }, 120],
      [{ 'retry-after-ms': '120.5', 'retry-after': '7' }, 120.5],
      [{ 'retry-after-ms': 'soon', 'retry-after': '7' }, 7000],
      [{ 'retry-after': '7' }, 7000],
      [{ 'retry-after': '0' }, 0],
      [{ 'retry-after': '1.5' }, 1500],
      [{ 'retry-after': inNineSeconds, date: serverNow }, 9000],
      [{ 'retry-after': serverNow, date: inNineSeconds }, undefined],
      [{ 'retry-after': '-5' }, undefined],
      [{ 'retry-after': '1e99' }, undefined],
      [{ 'retry-after': 'soon' }, undefined],
      [{}, undefined],
    ] as const)('how long to wait: %j', async ([headers, expected]) => {
      const { error } = await failureOf(over(subject, failure(429, {}, headers)))
      expect(error.retryAfterMs).toBe(expected)
    })

    test('a date without a server clock counts from now', async () => {
      const headers = { 'retry-after': new Date(Date.now() + 60_000).toUTCString() }
      const { error } = await failureOf(over(subject, failure(429, {}, headers)))
      expect(error.retryAfterMs).toBeGreaterThan(50_000)
      expect(error.retryAfterMs).toBeLessThanOrEqual(60_000)
    })

    test('a body that is no JSON, or says nothing, changes nothing', async () => {
      for (const body of [`<h1>${output}</h1>`, 'null', '']) {
        const page = { status: 502, headers: { 'content-type': 'text/html' }, body }
        const { error } = await failureOf(over(subject, page))
        expect(error).toMatchObject({ name: 'HttpError', code: 'server_error', status: 502, retryable: true })
        expect(error.providerMessage).toBeUndefined()
        expect(error.message).not.toContain('providerMessage')
      }
    })

    test('is asked for once, whatever the SDK would do', async () => {
      for (const status of [400, 500]) {
        const fetch = replayFetch(failure(status))
        await failureOf(subject.create({ apiKey: key, fetch }))
        await failureOf(subject.create({ client: subject.sdk.create({ fetch }) }))
        expect(fetch.requests.length).toBe(2)
      }
    })
  })

  describe('an error inside the stream is the same error as its status', () => {
    const reported = subject.reported(words)

    test.for(reported.map((report) => [report.name, report] as const))(
      '%s',
      async ([, { body, expected, overSdk }]) => {
        const { providerMessage, ...facts } = expected
        const whole = wire.write(...wire.begun) + body
        for (const chunks of [whole.length, 1]) {
          const { error, text } = await failureOf(over(subject, answer(whole), {}, { chunks }), request)
          expect(error).toMatchObject({ name: 'HttpError', ...facts, phase: 'stream', requestId: 'req_1' })
          expect(error.providerMessage).toBe(providerMessage)
          expect(text).toBe(output)
          expect(error.partial!.text).toBe(output)
        }
        const alone = await failureOf(over(subject, answer(body)))
        expect(alone.error).toMatchObject({ name: 'HttpError', ...facts })
        if (!overSdk) return
        // The SDK's own iterator throws it.
        const client = subject.sdk.create({ fetch: replayFetch(answer(whole)) })
        const { error } = await read(await subject.sdk.events(client))
        expect(error).toMatchObject({ name: 'HttpError', ...facts })
        expect(error!.providerMessage).toBe(providerMessage)
      },
    )

    test('as JSON under status 200', async () => {
      const [status, report, code, retryable] = subject.statuses.find(([number]) => number === 401)!
      const source = { body: subject.failureBody(status, report, words), headers: { ...answer('').headers, ...json } }
      const { error } = await failureOf(over(subject, source))
      expect(error).toMatchObject({ name: 'HttpError', requestId: 'req_1' })
      expect(error.providerMessage).toBe(words)
      // Where the body does not say what kind it is, it is one of the server.
      if (Object.keys(report).length > 0) expect(error).toMatchObject({ code, retryable })
      else expect(error).toMatchObject({ code: 'server_error', retryable: true })
    })
  })

  describe('what is no stream of an answer is an error, never an empty answer', () => {
    const page = { 'content-type': 'text/html; charset=utf-8' }
    test.for<readonly [string, Recording, string]>([
      ['a page', { body: `<html>${output}</html>`, headers: page }, 'unexpected_content_type'],
      ['JSON that is no error', { body: `{"planted":1}`, headers: json }, wire.jsonCode],
      ['nothing', answer(''), 'empty_response'],
      ['no content', { status: 204, body: '' }, 'empty_response'],
      ...wire.noAnswers.map(([name, body, code]) => [name, answer(body), code] as const),
    ])('%s', async ([, recording, code]) => {
      const { error } = await failureOf(over(subject, recording))
      expect(error).toMatchObject({ name: 'StreamError', code, retryable: true, provider: subject.name })
    })

    test('a content type in capitals, or none, is no reason to refuse a good stream', async () => {
      const bare = () => new Response(new TextEncoder().encode(good))
      expect(bare().headers.get('content-type')).toBeNull()
      const contentType = `${wire.contentType.toUpperCase()}; charset=UTF-8`
      for (const fetch of [
        replayFetch({ body: good, headers: { 'Content-Type': contentType } }),
        () => Promise.resolve(bare()),
      ])
        expect((await watch(subject.create({ apiKey: key, fetch }))).response!.text).toBe(output)
    })
  })

  describe('an event that breaks the protocol is an error, and what is merely new is not', () => {
    const breaches = {
      'an event that is no JSON': [`{"${output}`],
      null: ['null'],
      'a number': ['5'],
      'a string': ['"a"'],
    }

    test.for(Object.entries<readonly unknown[]>({ ...breaches, ...wire.breaches }))('%s', async ([, events]) => {
      const body = wire.write(...wire.begun, ...events)
      for (const chunks of [body.length, 1]) {
        const { error, text } = await failureOf(over(subject, answer(body), {}, { chunks }), request)
        expect(error).toMatchObject({ name: 'StreamError', code: 'stream_protocol', retryable: true })
        expect(text).toBe(output)
        expect(error.partial!.text).toBe(output)
      }
    })

    test('bytes that are no UTF-8', async () => {
      const begun = new TextEncoder().encode(wire.write(...wire.begun))
      const [before, after] = wire
        .write('{"a":"|"}')
        .split('|')
        .map((part) => new TextEncoder().encode(part))
      const body = Uint8Array.of(...begun, ...before!, 0xff, ...after!)
      const { error, text } = await failureOf(over(subject, answer(body), {}, { chunks: begun.length }))
      expect(error).toMatchObject({ name: 'StreamError', code: 'stream_protocol' })
      expect(error.message).toContain('UTF-8')
      expect(text).toBe(output)
    })

    test('an event longer than allowed names the option, after what came before', async () => {
      const limits = { maxEventLength: 400 }
      const facts = { name: 'LimitError', code: 'limit_exceeded', limit: 'maxEventLength', max: 400 }
      const long = wire.write(...wire.begun) + wire.write('x'.repeat(1000)).trimEnd()
      for (const chunks of [long.length, 100]) {
        const { error, text } = await failureOf(over(subject, answer(long), { limits }, { chunks }))
        expect(error).toMatchObject(facts)
        expect(text).toBe(output)
      }
      // It is one of each event, not of them all.
      const many = wire.write(...wire.begun, ...Array<unknown>(20).fill({ news: 'x'.repeat(100) }), ...wire.rest)
      expect((await watch(over(subject, answer(many), { limits }))).response!.text).toBe(output)
    })

    test('framing of any kind the format allows, and events that are new', async () => {
      const body = wire.write(...wire.begun, { type: 'news', news: null }, ...wire.rest)
      for (const framing of [...wire.framings(body), ...wire.framings(good)]) {
        for (const chunks of [100_000, 1]) {
          const { response } = await watch(over(subject, answer(framing), {}, { chunks }))
          expect(response?.text, JSON.stringify(framing.slice(0, 90))).toBe(output)
        }
      }
    })

    test('a character written in two events is shown as one', async () => {
      const simulation = simulated(subject, 'a@#b', { deltaChars: 1 })
      const inHalves = (body: string) => body.replaceAll('@', '\\ud83d').replaceAll('#', '\\ude00')
      const { events } = await watch(
        over(subject, (request) => ({ body: inHalves(simulation(request).body as string) })),
      )
      const deltas = events.flatMap((event) => (event.type === 'text-delta' ? [event.delta] : []))
      expect(deltas).toEqual(['a', '\u{1f600}', 'b'])
    })

    if (wire.isOverAtEvidence)
      test('signs of life after the end are no news', async () => {
        for (const sign of wire.signsOfLife) {
          const { response } = await watch(
            over(subject, answer(good + (wire.farewell ?? '') + sign), {}, { chunks: 10_000 }),
          )
          expect(response!.warnings).toEqual([])
        }
      })

    if (wire.isOverAtEvidence)
      test('nothing after the end counts', async () => {
        const whole = good + (wire.farewell ?? '')
        const errors = subject.reported(words).slice(0, 1)
        for (const rest of [
          ...errors.map(({ body }) => body),
          wire.write(...wire.begun),
          wire.write(`{"${output}`),
          '\xff',
        ]) {
          const isSilent = !rest.endsWith('\n')
          for (const chunks of [10_000, 1]) {
            const { response, events } = await watch(over(subject, answer(whole + rest), {}, { chunks }))
            expect(response).toMatchObject({ text: output, finishReason: 'stop', usage: { inputTokens: 7 } })
            expect(events.at(-1)!.type).toBe('finish')
            // Later reads are not looked at any more.
            const isSeen = chunks > 1 && !isSilent
            expect(response!.warnings.map(({ code }) => code)).toEqual(isSeen ? ['data-after-end'] : [])
            const context = { signal: new AbortController().signal, attempt: 1 }
            const direct = await read(over(subject, answer(whole + rest), {}, { chunks }).stream({ messages }, context))
            expect(direct.error).toBeUndefined()
            expect(direct.events.at(-1)!.type).toBe('finish')
          }
        }
      })
  })

  describe('at the token limit', () => {
    test('a text resolves and says so', async () => {
      const { response } = await watch(over(subject, answer(wire.write(...wire.begun, ...wire.limit))))
      expect(response).toMatchObject({ text: output, finishReason: 'length' })
    })

    test.for(wire.callsAtLimit.map((events, i) => [i, events] as const))(
      'a call is never an answer, even where its arguments parse: %i',
      async ([, events]) => {
        const { error } = await failureOf(over(subject, answer(wire.write(...events))), request)
        const facts = { name: 'OutputError', code: 'output_truncated', toolName: 'ask' }
        expect(error).toMatchObject(facts)
        expect(error.toolCallId).toBe(error.partial!.toolCalls[0]!.toolCallId)
      },
    )
  })

  test('nothing is ever written to the console', async () => {
    const methods = (['log', 'info', 'warn', 'error', 'debug', 'trace'] as const).map((name) => vi.spyOn(console, name))
    onTestFinished(() => methods.forEach((method) => method.mockRestore()))
    const page = { status: 502, headers: { 'content-type': 'text/html' }, body: `<h1>${output}</h1>` }
    const broken = wire.write(...wire.begun, `{"${output}`, ...wire.rest)
    const [reported] = subject.reported(words)
    for (const source of [good, broken, wire.write(...wire.begun), reported!.body, page, failure(401), answer('')])
      for (const options of [{}, { apiKey: undefined }]) {
        const { error } = await watch(over(subject, source, options), request)
        if (error) expectQuiet(error)
      }
    for (const method of methods) expect(method).not.toHaveBeenCalled()
  })
}
