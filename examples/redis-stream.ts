/**
 * A stream that any machine can serve. One process runs it and keeps its events in a Redis Stream; a client that loses its
 * connection goes on at any other, from the last `seq` it has seen. Needs a Redis at `REDIS_URL`, and `npm install ioredis`.
 */
import { once } from 'node:events'
import { createServer, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { isLLMError, type ResponseEvent, type ResponseStream, StreamingLLMClient, tool } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { replayFetch, simulate } from 'fieldstream/testing'
import { Redis } from 'ioredis'
import { z } from 'zod'

/** An event as Redis keeps it: `after` is the `seq` before it, so that a reader notices what is not kept any more. */
interface Entry {
  readonly seq: number
  readonly after: number
  readonly event: ResponseEvent | { readonly type: 'failed'; readonly code: string; readonly retryable: boolean }
}

const keyOf = (run: string): string => `stream:${run}`
const isLast = ({ event }: Entry): boolean => event.type === 'finish' || event.type === 'failed'

export interface KeepOptions {
  /** About how many events to keep. */
  readonly events?: number
  /** Seconds without a new event after which a run is forgotten, be it over or its writer dead. */
  readonly seconds?: number
}

/** Runs a stream to its end, and keeps its events. Whoever reads them comes and goes; the run does not notice. */
export async function keep(
  stream: Pick<ResponseStream, typeof Symbol.asyncIterator>,
  redis: Redis,
  run: string,
  { events = 10_000, seconds = 600 }: KeepOptions = {},
): Promise<void> {
  const key = keyOf(run)
  let after = 0
  const add = async (seq: number, event: Entry['event']): Promise<void> => {
    const value = JSON.stringify({ seq, after, event } satisfies Entry)
    // The `seq` is the id of the entry: it only grows, as an id has to.
    const write = redis.multi().xadd(key, 'MAXLEN', '~', events, `0-${seq}`, 'entry', value).expire(key, seconds)
    for (const [error] of (await write.exec()) ?? []) if (error) throw error
    after = seq
  }
  try {
    for await (const event of stream) await add(event.seq, event)
  } catch (error) {
    const { code, retryable } = isLLMError(error) ? error : { code: 'unknown', retryable: false }
    await add(after + 1, { type: 'failed', code, retryable })
  }
}

/** The events after `from`, those to come included. Throws where one of them is not kept any more: never a silent gap. */
export async function* entriesAfter(
  from: number,
  redis: Redis,
  run: string,
  signal: AbortSignal,
): AsyncGenerator<Entry, void, undefined> {
  // A connection of its own: one that waits for entries can do nothing else.
  const connection = redis.duplicate()
  const leave = (): void => connection.disconnect()
  signal.addEventListener('abort', leave)
  try {
    let last = from
    const newest = await connection.xrevrange(keyOf(run), '+', '-', 'COUNT', 1)
    for (const entry of newest.map(read)) if (isLast(entry) && entry.seq <= from) return
    while (!signal.aborted) {
      const found = await connection.xread('COUNT', 100, 'BLOCK', 5000, 'STREAMS', keyOf(run), `0-${last}`)
      if (!found && (await connection.exists(keyOf(run))) === 0) throw new Error('The run is not known, or forgotten.')
      for (const entry of (found?.[0]?.[1] ?? []).map(read)) {
        if (entry.after > last) throw new Error('Events that were missed are not kept any more.')
        last = entry.seq
        yield entry
        if (isLast(entry)) return
      }
    }
  } catch (error) {
    // Whoever left has cut the connection by which it waited.
    if (!signal.aborted) throw error
  } finally {
    signal.removeEventListener('abort', leave)
    leave()
  }
}

function read([, fields]: [id: string, fields: string[]]): Entry {
  return JSON.parse(fields[1]!) as Entry
}

/** One node of many: serves `GET /<run>` as server-sent events, from Redis alone. */
export function createNode(redis: Redis): Server {
  return createServer((request, response) => {
    const from = Number(request.headers['last-event-id']) || 0
    const left = new AbortController()
    response.on('close', () => left.abort())
    const entries = entriesAfter(from, redis, request.url!.slice(1), left.signal)
    serve(entries, response, left.signal).catch(() => {
      // An EventSource gives up on 410, and comes again where its connection breaks.
      if (response.headersSent) response.destroy()
      else response.writeHead(410).end()
    })
  })
}

async function serve(entries: AsyncIterable<Entry>, response: ServerResponse, signal: AbortSignal): Promise<void> {
  for await (const { seq, event } of entries) {
    if (!response.headersSent) response.writeHead(200, { 'content-type': 'text/event-stream' })
    const hasRoom = response.write(`id: ${seq}\nevent: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`)
    if (!hasRoom) await once(response, 'drain', { signal })
  }
  // 204 tells an EventSource not to come again.
  if (!response.headersSent) response.writeHead(204)
  response.end()
}

if (import.meta.main) {
  const report = tool({ name: 'write_report', input: z.object({ title: z.string(), body: z.string() }) })
  // Without a key, an answer in Anthropic's wire format goes through the real SDK. Nothing else differs.
  const body = 'The harbour was quiet that morning, and nobody had yet seen the letter.'
  const fetch = process.env['ANTHROPIC_API_KEY']
    ? undefined
    : replayFetch(simulate({ title: 'The letter', body }, { deltaChars: 3, delayMs: 20 }))
  const client = new StreamingLLMClient({ provider: anthropic({ model: 'claude-haiku-4-5', fetch }) })
  const redis = new Redis(process.env['REDIS_URL'] ?? 'redis://localhost:6379')

  const run = crypto.randomUUID()
  const stream = client.stream({
    messages: [{ role: 'user', content: 'Write the report' }],
    tools: [report],
    toolChoice: report,
    fields: { body: 'body' },
  })
  let isWriting = true
  const kept = keep(stream, redis, run).finally(() => (isWriting = false))

  const [nodeA, nodeB] = [createNode(redis), createNode(redis)]
  const urlOf = (node: Server): string => `http://127.0.0.1:${(node.address() as AddressInfo).port}/${run}`
  for (const node of [nodeA, nodeB]) await once(node.listen(0, '127.0.0.1'), 'listening')

  /** What a browser's EventSource does. Returns the text and the last id; leaves when it has `enough` characters. */
  async function listen(node: Server, lastEventId: number, enough = Infinity): Promise<{ text: string; last: number }> {
    let text = ''
    let rest = ''
    let last = lastEventId
    const response = await globalThis.fetch(urlOf(node), { headers: { 'last-event-id': String(lastEventId) } })
    for await (const piece of response.body?.pipeThrough(new TextDecoderStream()) ?? []) {
      const events = (rest + piece).split('\n\n')
      rest = events.pop()!
      for (const event of events) {
        const [, id, data] = /^id: (\d+)\n.*\ndata: (.*)$/.exec(event)!
        const { type, delta = '' } = JSON.parse(data!) as { type: string; delta?: string }
        last = Number(id)
        if (type === 'field-delta') text += delta
        if (text.length >= enough) return { text, last }
      }
    }
    return { text, last }
  }

  const first = await listen(nodeA, 0, 20)
  console.log(`node A: "${first.text}", and the connection is lost while the model ${isWriting ? 'writes' : 'rests'}`)
  const second = await listen(nodeB, first.last)
  console.log(`node B: "${second.text}"`)
  await kept
  const late = await listen(nodeB, 0)
  console.log(`late:   ${late.text === first.text + second.text ? 'the same, from the beginning' : 'something else'}`)
  console.log(`again:  ${late.last === (await listen(nodeA, late.last)).last ? 'nothing more' : 'more'}`)

  nodeA.close()
  nodeB.close()
  await redis.quit()
}
