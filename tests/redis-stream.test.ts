import { once } from 'node:events'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type ResponseStream, StreamError, type StreamEvent } from 'fieldstream'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { createNode, entriesAfter, keep, type KeepOptions } from '../examples/redis-stream.ts'
import { hasRedis, startRedis } from './redis-server.ts'
import { collectUntilError, finish, rejectionOf, start, streamOf, text, until } from './support.ts'

describe.skipIf(!hasRedis)('a stream that is kept in Redis', () => {
  let server: Awaited<ReturnType<typeof startRedis>>
  let redis: Redis
  beforeAll(async () => {
    server = await startRedis()
    redis = server.connect()
  })
  afterAll(() => server.stop())

  const words = ['one ', 'two ', 'three ', 'four ', 'five ']

  /** A stream that writes a word each time it is told to, and ends or fails. */
  function slowly(end?: Error): { stream: ResponseStream; write: (count?: number) => void } {
    let allowed = 0
    let wake = (): void => undefined
    const script = async function* (): AsyncGenerator<StreamEvent[]> {
      yield [start]
      for (const [i, word] of words.entries()) {
        while (i >= allowed) await new Promise<void>((resolve) => (wake = resolve))
        yield [text(word)]
      }
      if (end) throw end
      yield [finish('stop')]
    }
    const write = (count = 1): void => {
      allowed += count
      wake()
    }
    return { stream: streamOf(script), write }
  }

  let runs = 0
  function begin(end?: Error, options?: KeepOptions) {
    const { stream, write } = slowly(end)
    const run = `run-${++runs}`
    return { run, write, kept: keep(stream, redis, run, options) }
  }

  async function nodeUrl(): Promise<string> {
    const node: Server = createNode(redis)
    await once(node.listen(0, '127.0.0.1'), 'listening')
    onTestFinished(() => {
      node.closeAllConnections()
      node.close()
    })
    return `http://127.0.0.1:${(node.address() as AddressInfo).port}/`
  }

  /** Reads like an EventSource, until there are `count` events or the stream ends. */
  async function read(
    url: string,
    lastEventId = 0,
    count = Infinity,
  ): Promise<{ status: number; events: [number, string, string][] }> {
    const response = await fetch(url, { headers: { 'last-event-id': String(lastEventId) } })
    const events: [number, string, string][] = []
    let rest = ''
    for await (const piece of response.body?.pipeThrough(new TextDecoderStream()) ?? []) {
      const blocks = (rest + piece).split('\n\n')
      rest = blocks.pop()!
      for (const block of blocks) {
        const [, id, type, data] = /^id: (\d+)\nevent: (.*)\ndata: (.*)$/.exec(block)!
        events.push([Number(id), type!, (JSON.parse(data!) as { delta?: string }).delta ?? ''])
        if (events.length === count) return { status: response.status, events }
      }
    }
    return { status: response.status, events }
  }

  const connections = async (): Promise<number> =>
    Number(/connected_clients:(\d+)/.exec(await redis.info('clients'))![1])

  test('who comes back at another node gets exactly the rest, while the model still writes', async () => {
    const { run, write, kept } = begin()
    const [a, b] = [await nodeUrl(), await nodeUrl()]
    write(2)
    const first = await read(a + run, 0, 3)
    const second = read(b + run, first.events.at(-1)![0])
    write(3)
    const rest = await second
    await kept
    const all = [...first.events, ...rest.events]
    expect(all.map(([id]) => id)).toEqual([1, 2, 3, 4, 5, 6, 7])
    expect(all.map(([, type]) => type)).toEqual(['start', ...words.map(() => 'text-delta'), 'finish'])
    expect(all.map(([, , delta]) => delta).join('')).toBe(words.join(''))
    // And when it has ended, from anywhere in it.
    for (let from = 0; from < 7; from++) expect((await read(a + run, from)).events).toEqual(all.slice(from))
    expect(await read(b + run, 7)).toEqual({ status: 204, events: [] })
  })

  test('an error ends it for readers too, those who come late as well', async () => {
    const { run, write, kept } = begin(new StreamError('stream_truncated', 'Cut.', { retryable: true }))
    const url = await nodeUrl()
    const live = read(url + run)
    write(5)
    await kept
    for (const { events } of [await live, await read(url + run)]) {
      expect(events).toHaveLength(7)
      expect(events.at(-1)).toEqual([7, 'failed', ''])
    }
    expect((await read(url + run, 7)).status).toBe(204)
  })

  test('a client that leaves stops nothing, and leaves no connection', async () => {
    const { run, write, kept } = begin()
    const url = await nodeUrl()
    const before = await connections()
    write(1)
    await read(url + run, 0, 2)
    let open = Infinity
    await until(() => {
      void connections().then((count) => (open = count))
      return open === before
    })
    expect(open).toBe(before)
    write(4)
    await kept
    expect((await read(url + run)).events).toHaveLength(7)
  })

  test('what is not kept any more is an error, never a gap', async () => {
    const { run, write, kept } = begin()
    write(5)
    await kept
    await redis.xtrim(`stream:${run}`, 'MAXLEN', 3)
    const url = await nodeUrl()
    expect((await read(url + run)).status).toBe(410)
    expect((await read(url + run, 3)).status).toBe(410)
    expect((await read(url + run, 4)).events.map(([id]) => id)).toEqual([5, 6, 7])
  })

  test('keeps about as much, and as long, as it is told', async () => {
    const { run, write, kept } = begin(undefined, { seconds: 30 })
    write(5)
    await kept
    expect(await redis.ttl(`stream:${run}`)).toBeGreaterThan(25)
    expect(await redis.ttl(`stream:${run}`)).toBeLessThanOrEqual(30)
    const long = `run-${++runs}`
    await keep(streamOf([[start], ...Array.from({ length: 1000 }, () => [text('x')]), [finish('stop')]]), redis, long, {
      events: 100,
    })
    // Redis trims by whole blocks of a hundred entries.
    expect(await redis.xlen(`stream:${long}`)).toBeLessThan(300)
  })

  test('a writer that died leaves nobody waiting', { timeout: 30_000 }, async () => {
    const { run, write, kept } = begin(undefined, { seconds: 1 })
    write(1)
    const { signal } = new AbortController()
    const { items, error } = await collectUntilError(entriesAfter(0, redis, run, signal))
    expect(items).toHaveLength(2)
    expect(error).toMatchObject({ message: 'The run is not known, or forgotten.' })
    write(4)
    await kept
  })

  test('a Redis that fails ends the run', async () => {
    const gone = new Redis(1, '127.0.0.1', { maxRetriesPerRequest: 0, retryStrategy: () => null })
    gone.on('error', () => undefined)
    const { stream, write } = slowly()
    write(5)
    expect(await rejectionOf(keep(stream as never, gone, 'none'))).toBeInstanceOf(Error)
    expect(await rejectionOf(stream.final())).toMatchObject({ code: 'aborted' })
    gone.disconnect()
  })
})
