import { inspect } from 'node:util'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { toConnectionError } from '../src/wire/connection-errors.ts'
import { guardedFetch } from '../src/wire/guarded-fetch.ts'

const address = 'http://localhost/'
const answering = (response: Response) => guardedFetch({ fetch: () => Promise.resolve(response) })

describe('an error body', () => {
  beforeEach(() => {
    vi.useFakeTimers()
  })
  afterEach(() => {
    vi.useRealTimers()
  })

  test('that never ends is waited for for five seconds', async () => {
    const cancel = vi.fn()
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => controller.enqueue(new TextEncoder().encode('begun')),
      cancel,
    })
    const answer = answering(new Response(body, { status: 500, headers: { 'x-a': 'b' } }))(address)
    await vi.advanceTimersByTimeAsync(4900)
    expect(cancel).not.toHaveBeenCalled()
    await vi.advanceTimersByTimeAsync(200)
    const response = await answer
    expect([response.status, response.headers.get('x-a'), await response.text()]).toEqual([500, 'b', 'begun'])
    expect(cancel).toHaveBeenCalledOnce()
    expect(vi.getTimerCount()).toBe(0)
  })

  test('that breaks is what came of it', async () => {
    let reads = 0
    const body = new ReadableStream<Uint8Array>({
      pull(controller) {
        if (reads++ === 0) controller.enqueue(new TextEncoder().encode('begun'))
        else controller.error(new TypeError('terminated'))
      },
    })
    expect(await (await answering(new Response(body, { status: 502 }))(address)).text()).toBe('begun')
  })

  test('that is long is cut', async () => {
    const response = await answering(new Response('x'.repeat(1_000_000), { status: 400 }))(address)
    expect((await response.text()).length).toBe(65_536)
  })

  test('of a status that cannot be is an error all the same', async () => {
    const response = Object.defineProperty(new Response('x', { status: 500 }), 'status', { value: 999 })
    await expect(answering(response)(address)).rejects.toMatchObject({ name: 'HttpError', status: 999 })
  })
})

test('an answer is handed through as it is', async () => {
  const response = new Response('fine')
  expect(await answering(response)(address)).toBe(response)
})

test('a redirect that was followed, or that cannot be seen, is refused too', async () => {
  for (const [name, value] of [
    ['redirected', true],
    ['type', 'opaqueredirect'],
  ] as const) {
    const response = Object.defineProperty(new Response('x'), name, { value })
    await expect(answering(response)(address)).rejects.toMatchObject({ code: 'unexpected_redirect' })
  }
})

describe('why there is no connection', () => {
  test.for([
    ['ECONNREFUSED', 'refused', true],
    ['ENOTFOUND', 'dns', false],
    ['EAI_AGAIN', 'dns', true],
    ['ERR_TLS_CERT_ALTNAME_INVALID', 'tls', false],
    ['CERT_HAS_EXPIRED', 'tls', false],
    ['DEPTH_ZERO_SELF_SIGNED_CERT', 'tls', false],
    ['SELF_SIGNED_CERT_IN_CHAIN', 'tls', false],
    ['UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'tls', false],
    ['ERR_SSL_WRONG_VERSION_NUMBER', 'tls', false],
    ['ECONNRESET', 'reset', true],
    ['EPIPE', 'closed', true],
    ['UND_ERR_SOCKET', 'closed', true],
    ['ETIMEDOUT', 'unknown', true],
  ] as const)('%s', ([code, reason, retryable]) => {
    const root = Object.assign(new Error('deep'), { code })
    for (const error of [
      new TypeError('fetch failed', { cause: root }),
      new Error('Connection error.', { cause: new TypeError('fetch failed', { cause: new AggregateError([root]) }) }),
    ]) {
      const made = toConnectionError(error, 'here', true)
      expect(made).toMatchObject({ code: 'connection', reason, retryable })
      expect(inspect(made, { depth: Infinity })).toContain(code)
    }
  })

  test('the cause holds no secrets', () => {
    const planted = 'planted-secret'
    const words = [
      `cannot use http://user:${planted}@host/v1?key=${planted}#${planted}`,
      `https://host/v1?api_key=${planted}&b=${planted} failed`,
      `Headers.append: "Bearer ${planted}" is an invalid header value`,
      `x-api-key: ${planted}`,
      `{"x-goog-api-key":"${planted}"}`,
      `Authorization=${planted}`,
      `set-cookie: a=${planted}`,
    ]
    for (const word of words) {
      const cause = Object.assign(new Error(word), { headers: { a: planted }, config: { body: planted }, code: 'E' })
      const error = toConnectionError(
        Object.assign(new TypeError(word, { cause }), { request: planted, errors: [cause, planted] }),
        'here',
        true,
      )
      const printed = [inspect(error, { depth: Infinity, showHidden: true }), JSON.stringify(error.cause)].join()
      expect(printed).not.toContain(planted)
      expect((error.cause as Error).name).toBe('TypeError')
    }
  })

  test('a cause that leads back to itself has an end', () => {
    const error = new Error('round')
    error.cause = error
    expect(toConnectionError(error, 'here', false)).toMatchObject({ reason: 'unknown', retryable: false })
  })
})
