import { StreamingLLMClient, UsageError } from 'fieldstream'
import { replayFetch } from 'fieldstream/testing'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { thrownBy } from '../support.ts'
import { failureOf, key, messages, output, over, read, simulated, watch } from './run.ts'
import type { Connection, Subject } from './subject.ts'

// eslint-disable-next-line @typescript-eslint/require-await
async function* iterate(...events: readonly unknown[]): AsyncGenerator {
  yield* events
}

export function describeClients(subject: Subject): void {
  const { wire, sdk, key: keys } = subject
  const fake = (events: () => AsyncIterable<unknown>) => sdk.fake(() => Promise.resolve(events()))
  async function* broken(error: unknown): AsyncGenerator {
    yield* wire.begun
    await Promise.resolve()
    throw error
  }

  describe('any client', () => {
    test('an SDK client that is set up already', async () => {
      const fetch = replayFetch(simulated(subject))
      const client = sdk.create({ fetch })
      const { response } = await watch(subject.create({ client, headers: { 'x-a': 'b' } }))
      expect(response!.text).toBe('Fine.')
      expect(fetch.requests[0]!.headers.get('x-a')).toBe('b')
    })

    test('anything with the same method', async () => {
      const answer = vi.fn((..._: unknown[]) => Promise.resolve(iterate(...wire.begun, ...wire.rest)))
      const { response } = await watch(subject.create({ client: sdk.fake(answer), headers: { 'x-a': 'b' } }))
      expect(response!.text).toBe(output)
      expect(answer).toHaveBeenCalledOnce()
      expect(answer.mock.calls[0]!.slice(0, sdk.called.length)).toMatchObject(sdk.called)
    })

    test('a cut or broken iterator is an error as over our own reading', async () => {
      const cases: [() => AsyncIterable<unknown>, string][] = [
        [() => iterate(), 'empty_response'],
        [() => iterate(...wire.begun), 'stream_truncated'],
        [() => broken(new TypeError('terminated')), 'stream_truncated'],
        [() => broken(undefined), 'stream_truncated'],
        [() => iterate(...wire.begun, null), 'stream_protocol'],
        ...sdk.throws.map(([error, code]): [() => AsyncIterable<unknown>, string] => [() => broken(error), code]),
      ]
      for (const [events, code] of cases) {
        const { error, text } = await failureOf(subject.create({ client: fake(events) }))
        expect(error.code).toBe(code)
        expect(text).toBe(code === 'empty_response' ? '' : output)
        expect((await read(sdk.mapped(events() as AsyncIterable<{ type: string }>))).error!.code).toBe(code)
      }
    })

    test('a client that cannot send is a connection error, worth another try where the network is to blame', async () => {
      for (const [cause, retryable] of [
        [new TypeError('fetch failed'), true],
        [new Error('out of order'), false],
        [undefined, false],
      ] as const) {
        const { error } = await failureOf(subject.create({ client: sdk.fake(() => Promise.reject(cause)) }))
        expect(error).toMatchObject({ name: 'ConnectionError', code: 'connection', retryable, phase: 'connect' })
        // A copy: what else is on it may hold anything.
        expect((error.cause as Error | undefined)?.message).toBe(cause?.message)
      }
    })

    test('an iterator that just ends when it is aborted is an abort, not a cut', async () => {
      const controller = new AbortController()
      const ending = async function* () {
        yield* wire.begun
        await Promise.resolve()
        controller.abort('enough')
      }
      const provider = subject.create({ client: fake(ending) })
      const { error } = await read(provider.stream({ messages }, { signal: controller.signal, attempt: 1 }))
      expect(error).toMatchObject({ name: 'AbortError', code: 'aborted', reason: 'enough' })
    })

    test('without the SDK the first request says what to install', async () => {
      vi.doMock(sdk.module, () => {
        throw new Error('Cannot find package')
      })
      onTestFinished(() => {
        vi.doUnmock(sdk.module)
      })
      const { error } = await failureOf(over(subject, simulated(subject)))
      expect(error).toMatchObject({ name: 'UsageError', code: 'missing_dependency', retryable: false })
      expect(error.message).toContain(`\`npm install ${sdk.install}\``)
    })
  })

  describe('any way to give a key', () => {
    test('as an option', async () => {
      const fetch = replayFetch(simulated(subject))
      await watch(subject.create({ apiKey: key, fetch }))
      expect(fetch.requests[0]!.headers.get(keys.header)).toBe(keys.prefix + key)
    })

    test.for(keys.environment)('%s; without one the first request says so, and the next may have it', async (name) => {
      const fetch = replayFetch(simulated(subject))
      const spy = vi.spyOn(globalThis, 'fetch').mockImplementation(fetch)
      onTestFinished(() => spy.mockRestore())
      const provider = subject.create(keys.neededWith)
      const { error } = await failureOf(provider)
      expect(error).toMatchObject({ name: 'UsageError', code: 'invalid_argument', retryable: false })
      expect(error.message).toContain(keys.environment.at(-1))
      expect(spy).not.toHaveBeenCalled()
      vi.stubEnv(name, 'from-environment')
      expect((await watch(provider)).response!.text).toBe('Fine.')
      expect(fetch.requests[0]!.headers.get(keys.header)).toBe(`${keys.prefix}from-environment`)
    })

    test('a server of your own needs none', async () => {
      const fetch = replayFetch(simulated(subject))
      const provider = subject.create({ fetch, baseURL: 'http://localhost:1/v1' })
      expect((await watch(provider)).response!.text).toBe('Fine.')
      expect(fetch.requests[0]!.url).toContain('http://localhost:1/')
    })

    test('one that HTTP cannot carry, and such a header, are named, not printed', async () => {
      const wrong: Connection[] = [{ apiKey: `${key}\nx` }, { apiKey: `${key}’` }, { headers: { 'x-a': `${key}\0` } }]
      for (const options of wrong) {
        const { error } = await failureOf(over(subject, simulated(subject), options))
        expect(error).toMatchObject({ name: 'UsageError', code: 'invalid_argument', retryable: false })
      }
    })
  })

  test('a wrong call is refused at once', () => {
    const client = fake(() => iterate())
    const complaint = (options: Connection): string => {
      const error = thrownBy(() => subject.create(options))
      expect(error).toBeInstanceOf(UsageError)
      return (error as Error).message
    }
    for (const stream of [Promise.resolve(), undefined, null, {}]) {
      const error = thrownBy(() => sdk.mapped(stream as never))
      expect(error).toMatchObject({ name: 'UsageError', code: 'invalid_argument' })
      expect((error as Error).message).toMatch(/^to\w+\(\) takes what `await client\..*` returns\. Is the call awaited/)
    }
    expect(complaint({ model: '' })).toContain('`model`')
    expect(complaint({ model: undefined as never })).toContain('`model`')
    for (const wrong of [{}, null, 'x', { chat: {}, messages: {}, models: {}, responses: {} }])
      expect(complaint({ client: wrong as object })).toContain('must be an SDK client')
    expect(complaint({ fetch: 'x' as never })).toContain('`fetch`')
    for (const headers of ['x', null, new Headers({ a: 'b' }), [['a', 'b']], { a: 5 }])
      expect(complaint({ headers: headers as never })).toContain('must be an object of texts')
    expect(complaint({ limits: { maxEventLenght: 1 } as never })).toContain('no option `maxEventLenght`')
    expect(complaint({ limits: { maxEventLength: -1 } })).toContain('positive number')
    expect(complaint({ timeout: 5 })).toContain('no option `timeout`')
    for (const [option, value] of Object.entries(subject.makesClient))
      expect(complaint({ client, [option]: value })).toContain(`\`${option}\``)
  })

  test('no listener is left on the signal of the caller', async () => {
    const controller = new AbortController()
    const add = vi.spyOn(controller.signal, 'addEventListener')
    const remove = vi.spyOn(controller.signal, 'removeEventListener')
    const body = wire.write(...wire.begun, ...wire.rest)
    const client = new StreamingLLMClient({ provider: over(subject, body) })
    for (let i = 0; i < 5; i++) await client.stream({ messages, signal: controller.signal }).final()
    expect(remove.mock.calls.length).toBeGreaterThanOrEqual(add.mock.calls.length)
  })
}
