import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { inspect } from 'node:util'
import { type Provider, StreamingLLMClient } from 'fieldstream'
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
      expect(error).toMatchObject(noConnection)
      expect(inspect(error, { depth: Infinity })).toContain('ECONNREFUSED')
    })

    test('one that dies before the answer', async () => {
      const { provider } = await connect((_, request) => request.socket.destroy())
      expect((await failureOf(provider)).error).toMatchObject(noConnection)
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
      const { client, sockets } = await connect((response) => {
        response.writeHead(200, headers).write(good)
        // The end of the body comes in a packet of its own.
        setTimeout(() => response.end(), 20)
      })
      for (let i = 0; i < 3; i++) {
        expect((await client.stream({ messages }).final()).text).toBe(output)
        await wait(60)
      }
      expect(sockets.length).toBe(1)
    })
  })
}
