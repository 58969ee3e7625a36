import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { brotliCompressSync, deflateSync, gzipSync, zstdCompressSync } from 'node:zlib'
import { StreamingLLMClient } from 'fieldstream'
import { anthropic, type AnthropicOptions } from 'fieldstream/anthropic'
import { ollama } from 'fieldstream/ollama'
import { replayFetch, simulate } from 'fieldstream/testing'
import { describe, expect, onTestFinished, test } from 'vitest'
import { runMatrix } from './faults/matrix.ts'
import { rows } from './faults/rows.ts'
import { type Wire, wires } from './faults/wires.ts'

const messages = [{ role: 'user' as const, content: 'Hello' }]
const textOf = (options: Omit<AnthropicOptions, 'model' | 'apiKey'>) =>
  new StreamingLLMClient({
    provider: anthropic({ model: 'model-a', apiKey: 'none', transport: 'node', ...options }),
  }).stream({ messages })

/** A server of `bytes`, which keeps the requests. */
async function serve(bytes: Uint8Array | string, headers: Record<string, string> = {}) {
  const requests: IncomingMessage[] = []
  const bodies: string[] = []
  const server = createServer((request, response) => {
    requests.push(request)
    void request
      .setEncoding('utf8')
      .toArray()
      .then((pieces) => {
        bodies.push(pieces.join(''))
        response.writeHead(200, { 'content-type': 'text/event-stream', ...headers }).end(bytes)
      })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => server.close().closeAllConnections())
  return { baseURL: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, requests, bodies }
}

const wholeText = 'Grüße, 你好 😀. '.repeat(20)
const body = simulate(wholeText)({ url: '/', method: 'POST', headers: new Headers(), body: { stream: true } })
  .body as string

const some =
  process.env['TRANSPORT'] === 'all' ? wires : wires.filter(({ name }) => name === 'anthropic' || name === 'ollama')
const nodeWires: readonly Wire[] = some.map((wire) => ({
  ...wire,
  create: (options) => wire.create(options.client ? options : ({ ...options, transport: 'node' } as typeof options)),
}))

test('every fault of the matrix ends as it does over fetch', async () => {
  const results = await runMatrix(rows, nodeWires)
  expect(results.length).toBeGreaterThan(nodeWires.length * 50)
  expect(results.flatMap(({ wire, name, faults }) => faults.map((fault) => `${wire}, ${name}: ${fault}`))).toEqual([])
}, 180_000)

describe("Node's transport", () => {
  test('sends what fetch sends, and shares connections', async () => {
    const { baseURL, requests, bodies } = await serve(body)
    for (const transport of ['fetch', 'node', 'node'] as const)
      expect((await textOf({ baseURL, transport }).final()).text).toBe(wholeText)
    const [first, second, third] = requests
    expect(bodies[1]).toBe(bodies[0])
    const ofRuntime = ['connection', 'host', 'sec-fetch-mode', 'accept-language', 'user-agent']
    const own = ({ headers }: IncomingMessage) =>
      Object.fromEntries(Object.entries(headers).filter(([name]) => !ofRuntime.includes(name)))
    expect(own(second!)).toEqual(own(first!))
    expect(third!.socket).toBe(second!.socket)
  })

  test.each([
    ['gzip', gzipSync],
    ['deflate', deflateSync],
    ['br', brotliCompressSync],
    ['zstd', zstdCompressSync],
    ['GZIP', gzipSync],
  ])('reads what a server compresses unasked (%s), and notices where that is cut', async (encoding, compress) => {
    const compressed = compress(body)
    const whole = await serve(compressed, { 'content-encoding': encoding })
    expect((await textOf({ baseURL: whole.baseURL }).final()).text).toBe(wholeText)
    const cut = await serve(compressed.subarray(0, -20), { 'content-encoding': encoding })
    await expect(textOf({ baseURL: cut.baseURL }).final()).rejects.toMatchObject({ code: 'stream_truncated' })
  })

  test('ends a read that is pending when it is left, as fetch does', async () => {
    const server = createServer((_, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' }).write(': alive\n\n')
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    onTestFinished(() => server.close().closeAllConnections())
    const baseURL = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    for (const transport of ['fetch', 'node'] as const) {
      const { signal } = new AbortController()
      const target = { provider: 'anthropic', model: 'model-a' }
      const provider = anthropic({ model: 'model-a', apiKey: 'none', baseURL, transport })
      const ask = () => provider.stream({ messages }, { signal, target, attempt: 1 }).batches!()
      const unopened = ask()
      const opening = unopened.next()
      await unopened.return?.()
      expect(await opening).toEqual({ done: true, value: undefined })
      const reads = ask()
      await reads.next()
      await reads.next()
      const pending = reads.next()
      await reads.return?.()
      expect(await pending).toEqual({ done: true, value: undefined })
    }
  })

  test('a fetch of the application goes before it', async () => {
    const stream = textOf({ fetch: replayFetch(simulate('by its own fetch')), baseURL: 'http://nowhere.invalid' })
    expect((await stream.final()).text).toBe('by its own fetch')
  })

  test('reads no faster than its consumer', async () => {
    let sent = 0
    const server = createServer((_, response) => {
      response.writeHead(200, { 'content-type': 'application/x-ndjson' })
      const write = (): void => {
        const line = `${JSON.stringify({ model: 'm', message: { role: 'assistant', content: 'x'.repeat(10_000) } })}\n`
        do sent += line.length
        while (sent < 50_000_000 && response.write(line))
        response.once('drain', write)
      }
      write()
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    onTestFinished(() => server.close().closeAllConnections())
    const host = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    const client = new StreamingLLMClient({ provider: ollama({ model: 'm', host, transport: 'node' }) })
    for await (const { type } of client.stream({ messages })) {
      if (type !== 'text-delta') continue
      await new Promise((resolve) => setTimeout(resolve, 300))
      break
    }
    expect(sent).toBeLessThan(20_000_000)
  })

  test('anything else is no transport', () => {
    expect(() => textOf({ transport: 'http2' as 'node' })).toThrow(
      /`transport` of anthropic\(\) must be 'fetch' or 'node'/,
    )
    expect(() => textOf({ client: { messages: { create: () => Promise.resolve() } } })).toThrow(/both `client` and/)
  })
})
