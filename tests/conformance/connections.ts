import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { inspect } from 'node:util'
import { type ConnectionError, type Provider, StreamingLLMClient } from 'fieldstream'
import { replayFetch } from 'fieldstream/testing'
import { describe, expect, onTestFinished, test } from 'vitest'
import { failureOf, key, messages, output, read, simulated, watch, words } from './run.ts'
import type { Subject } from './subject.ts'

type Answer = (response: ServerResponse, request: IncomingMessage) => unknown

/** A real server on the loopback. */
export async function serve(answer: Answer) {
  const sockets: Socket[] = []
  const server = createServer((request, response) => {
    request.resume()
    answer(response, request)
  })
  server.on('connection', (socket: Socket) => sockets.push(socket))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  return { baseURL: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, server, sockets }
}

/** Resolves with the milliseconds from now until a socket is closed. */
export async function untilClosed(socket: Socket): Promise<number> {
  const from = performance.now()
  if (!socket.destroyed) await new Promise((resolve) => socket.once('close', resolve))
  return performance.now() - from
}

const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

export function describeConnections(subject: Subject): void {
  const { wire } = subject
  const begun = wire.write(...wire.begun)
  const good = wire.write(...wire.begun, ...wire.rest) + (wire.farewell ?? '')
  const headers = { 'content-type': wire.contentType, [wire.requestIdHeader]: 'req_1' }
  /** Begins to answer, and stays. */
  const begin: Answer = (response) => response.writeHead(200, headers).write(begun)

  async function connect(answer: Answer) {
    const { baseURL, ...rest } = await serve(answer)
    const provider: Provider = subject.create({ apiKey: key, baseURL })
    return { ...rest, provider, client: new StreamingLLMClient({ provider }) }
  }

  describe('over a real connection', () => {
    const noConnection = { name: 'ConnectionError', code: 'connection', retryable: true, phase: 'connect' }
    const cut = { name: 'StreamError', code: 'stream_truncated', retryable: true, phase: 'stream', requestId: 'req_1' }

    test('nobody there', async () => {
      const { provider, server } = await connect(() => undefined)
      await new Promise((resolve) => server.close(resolve))
      const { error } = await failureOf(provider)
      expect(error).toMatchObject({ ...noConnection, reason: 'refused' })
      expect(inspect(error, { depth: Infinity })).toContain('ECONNREFUSED')
    })

    test('one that dies before the answer', async () => {
      const { provider } = await connect((_, request) => request.socket.destroy())
      const { error } = await failureOf(provider)
      expect(error).toMatchObject(noConnection)
      expect(['reset', 'closed']).toContain((error as Partial<ConnectionError>).reason)
    })

    test('one that is not secure', async () => {
      const { baseURL } = await serve(() => undefined)
      const { error } = await failureOf(subject.create({ apiKey: key, baseURL: baseURL.replace('http:', 'https:') }))
      expect(error).toMatchObject({ ...noConnection, reason: 'tls', retryable: false })
    })

    test('an address with secrets is in no error', async () => {
      const { baseURL, server } = await serve(() => undefined)
      await new Promise((resolve) => server.close(resolve))
      const secret = baseURL.replace('http://', 'http://user:planted@')
      for (const address of [secret, `${baseURL}/?key=planted`, `${secret}/?key=planted`]) {
        const { error } = await failureOf(subject.create({ apiKey: key, baseURL: address }))
        // `fetch` takes no address with a password.
        expect(['ConnectionError', 'UsageError']).toContain(error.name)
      }
    })

    test('a redirect is not followed, and nothing is compressed', async () => {
      const other = await serve((response) => response.writeHead(200, headers).end(good))
      for (const status of [301, 302, 303, 307, 308]) {
        const { provider } = await connect((response, request) => {
          expect(request.headers['accept-encoding']).toBe('identity')
          response.writeHead(status, { location: other.baseURL }).end(words)
        })
        const { error } = await failureOf(provider)
        expect(error).toMatchObject({
          name: 'ConnectionError',
          code: 'unexpected_redirect',
          retryable: false,
          phase: 'connect',
          provider: subject.name,
        })
      }
      expect(other.sockets.length).toBe(0)
    })

    test('the body of an error status is read no further than it is needed', async () => {
      let isClosed = false
      const { provider, sockets } = await connect((response) => {
        response.writeHead(503, { 'content-type': 'text/html' })
        response.on('close', () => (isClosed = true))
        // Without end.
        const write = (): void => {
          while (!isClosed && response.write(`<p>${words}</p>`.repeat(1000)));
          if (!isClosed) response.once('drain', write)
        }
        write()
      })
      const from = performance.now()
      const { error } = await failureOf(provider)
      expect(error).toMatchObject({ name: 'HttpError', code: 'overloaded', status: 503 })
      expect(performance.now() - from).toBeLessThan(2000)
      expect(await untilClosed(sockets[0]!)).toBeLessThan(100)
    })

    test('one that dies in the middle', async () => {
      const { provider } = await connect((response, request) => {
        response.writeHead(200, headers).write(begun, () => setTimeout(() => request.socket.destroy(), 10))
      })
      const { error, text } = await failureOf(provider)
      expect(error).toMatchObject(cut)
      expect(text).toBe(output)
      expect(error.partial!.text).toBe(output)
    })

    test('one that is lost after the last event changes nothing where that is the end', async () => {
      const { provider } = await connect((response, request) => {
        response.writeHead(200, headers).write(good, () => setTimeout(() => request.socket.destroy(), 10))
      })
      if (wire.isOverAtEvidence) expect((await watch(provider)).response!.text).toBe(output)
      else expect((await failureOf(provider)).error).toMatchObject(cut)
    })

    test('a body that ends early, by the rules', async () => {
      const { provider } = await connect((response) => response.writeHead(200, headers).end(begun))
      const { error, text } = await failureOf(provider)
      expect(error).toMatchObject(cut)
      expect(text).toBe(output)
    })

    test('an error status is asked for once', async () => {
      let requests = 0
      const { provider } = await connect((response) => {
        requests++
        response.writeHead(500, { 'content-type': 'application/json', 'retry-after': '0' }).end('{}')
      })
      expect((await failureOf(provider)).error).toMatchObject({ code: 'server_error', retryAfterMs: 0 })
      expect(requests).toBe(1)
    })

    test('an error that came together with text does not wait for more to come', async () => {
      const { body, expected } = subject.reported(words)[0]!
      const { provider, sockets } = await connect((response) => response.writeHead(200, headers).write(begun + body))
      const from = performance.now()
      const { error, text } = await failureOf(provider)
      expect(performance.now() - from).toBeLessThan(500)
      expect(error).toMatchObject({ code: expected.code, requestId: 'req_1' })
      expect(text).toBe(output)
      expect(await untilClosed(sockets[0]!)).toBeLessThan(100)
    })

    test('the head of the response, and each read without an event, are told', async () => {
      const next = Promise.withResolvers<ServerResponse>()
      const { provider } = await connect((response) => {
        response.writeHead(200, headers).flushHeaders()
        next.resolve(response)
      })
      const context = { signal: new AbortController().signal, attempt: 1 }
      const batches = provider.stream({ messages }, context).batches!()
      const read = async () => (await batches.next()).value as unknown[]
      expect(await read()).toEqual([])
      const response = await next.promise
      for (const piece of [wire.signsOfLife[0]!, begun.slice(0, 10)]) {
        response.write(piece)
        expect(await read()).toEqual([])
      }
      response.write(begun.slice(10))
      expect((await read()).length).toBeGreaterThan(0)
      await batches.return!()
    })

    test('leaving it with the head of the response closes it', async () => {
      const { provider, sockets } = await connect(begin)
      const batches = provider.stream({ messages }, { signal: new AbortController().signal, attempt: 1 }).batches!()
      await batches.next()
      await batches.return!()
      expect(await untilClosed(sockets[0]!)).toBeLessThan(100)
    })

    test('leaving the loop closes it', async () => {
      const { client, sockets } = await connect(begin)
      const stream = client.stream({ messages })
      for await (const event of stream) if (event.type === 'text-delta') break
      expect(await untilClosed(sockets[0]!)).toBeLessThan(100)
      await expect(stream.final()).rejects.toMatchObject({ name: 'AbortError', reason: 'consumer_return' })
    })

    test('leaving before the head of the response closes it', async () => {
      const arrived = Promise.withResolvers<undefined>()
      const { client, sockets } = await connect(() => arrived.resolve(undefined))
      const events = client.stream({ messages })[Symbol.asyncIterator]()
      const first = events.next()
      await arrived.promise
      await events.return!()
      expect(await untilClosed(sockets[0]!)).toBeLessThan(100)
      expect((await first).done).toBe(true)
    })

    test('leaving a provider without a client closes it too', async () => {
      const { provider, sockets } = await connect(begin)
      const context = { signal: new AbortController().signal, attempt: 1 }
      for await (const event of provider.stream({ messages }, context)) if (event.type === 'text-delta') break
      expect(await untilClosed(sockets[0]!)).toBeLessThan(100)
    })

    test.for(['before headers', 'before the first event', 'in the middle'])(
      'an aborted signal closes it %s',
      async (when) => {
        const arrived = Promise.withResolvers<undefined>()
        const { client, sockets } = await connect((response) => {
          if (when !== 'before headers') response.writeHead(200, headers).flushHeaders()
          if (when === 'in the middle') response.write(begun)
          arrived.resolve(undefined)
        })
        const controller = new AbortController()
        const stream = client.stream({ messages, signal: controller.signal })
        const final = stream.final()
        await (when === 'in the middle' ? new Promise((resolve) => stream.on('text-delta', resolve)) : arrived.promise)
        if (when === 'before the first event') await wait(20)
        controller.abort('user pressed stop')
        const from = performance.now()
        await expect(final).rejects.toMatchObject({ name: 'AbortError', reason: 'user pressed stop' })
        expect(performance.now() - from).toBeLessThan(50)
        expect(await untilClosed(sockets[0]!)).toBeLessThan(100)
      },
    )

    test('aborted from the start, nothing is sent', async () => {
      const fetch = replayFetch(simulated(subject))
      const provider = subject.create({ apiKey: key, fetch })
      const { error } = await read(provider.stream({ messages }, { signal: AbortSignal.abort('early'), attempt: 1 }))
      expect(error).toMatchObject({ name: 'AbortError', reason: 'early' })
      expect(fetch.requests.length).toBe(0)
    })

    if (wire.isOverAtEvidence)
      test('the answer is there with its last event, though the server keeps the connection open', async () => {
        const { client, sockets } = await connect((response) => response.writeHead(200, headers).write(good))
        const from = performance.now()
        expect((await client.stream({ messages }).final()).text).toBe(output)
        expect(performance.now() - from).toBeLessThan(500)
        expect(sockets[0]!.destroyed).toBe(false)
        // A body that never ends is not waited for longer than a second.
        expect(await untilClosed(sockets[0]!)).toBeLessThan(1500)
      })

    test('it serves the next request', async () => {
      let ended = Promise.withResolvers<undefined>()
      const { client, sockets } = await connect((response) => {
        response.writeHead(200, headers).write(good)
        // The end of the body comes in a packet of its own.
        setTimeout(() => response.end(() => ended.resolve(undefined)), 20)
      })
      for (let i = 0; i < 3; i++) {
        ended = Promise.withResolvers()
        expect((await client.stream({ messages }).final()).text).toBe(output)
        await ended.promise
        // Until the client has read it too.
        await wait(100)
      }
      expect(sockets.length).toBe(1)
    })
  })
}
