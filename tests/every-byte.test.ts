import { once } from 'node:events'
import { isDeepStrictEqual } from 'node:util'
import { constants, createGzip, gunzipSync } from 'node:zlib'
import { isLLMError, type LLMError, type LLMResponse, type ResponseEvent, StreamingLLMClient, tool } from 'fieldstream'
import { simulate } from 'fieldstream/testing'
import { describe, expect, onTestFinished, test } from 'vitest'
import { subjects } from './conformance/subjects/index.ts'
import type { Subject } from './conformance/subject.ts'
import { startFaultServer } from './faults/fault-server.ts'
import { collectUntilError } from './support.ts'

const string = { type: 'string' } as const
const tools = [
  tool({ name: 'ask', input: { properties: { message: string, options: { type: 'array', items: string } } } }),
  tool({ name: 'note', input: { properties: { message: string, count: { type: 'number' } } } }),
]
const inputs: readonly { readonly message: string }[] = [
  { message: 'Wie "viele" \\ Gäste?\n🎉', ...{ options: ['few', 'mäny'] } },
  { message: 'Später 🤷🏽‍♀️', ...{ count: 12 } },
]
const text = 'Gerne: 3 < 4 🎉'
const reasoning = 'Sie möchten feiern.'

/** Text, reasoning and two calls, as the service sends them; with the places where events end. */
function answerBy({ name }: Subject): { readonly body: Buffer; readonly ends: readonly number[] } {
  const calls = inputs.map((input, i) => ({ tool: tools[i]!.name, input }))
  const source = simulate(calls, { provider: name, reasoning, text, deltaChars: 24 })
  const { body, reads } = source({
    url: '/models/m:streamGenerateContent',
    method: 'POST',
    headers: new Headers(),
    body: { stream: true },
  })
  let end = 0
  return { body: Buffer.from(body as string), ends: reads!.map((length) => (end += length)) }
}

type Ending = 'FIN' | 'RST'

/** How many bytes there are when the terminal evidence has come, where the body then ends (FIN), and where it breaks (RST). */
const evidence: Record<Subject['name'], (body: Buffer) => Readonly<Record<Ending, number>>> = {
  anthropic: ({ length }) => ({ FIN: length, RST: length }),
  openai: ({ length }) => ({ FIN: length, RST: length }),
  'openai-chat': (body) => {
    const end = body.indexOf('\n\n', body.indexOf('"finish_reason":"tool_calls"')) + 2
    return { FIN: end, RST: end }
  },
  // A line is whole without its end, if nothing follows.
  ollama: ({ length }) => ({ FIN: length - 1, RST: length }),
  // The end of the body is the evidence. Events end in CRLF, of which CR is enough.
  gemini: ({ length }) => ({ FIN: length - 1, RST: Infinity }),
}

interface Seen {
  readonly events: readonly ResponseEvent[]
  /** What they hold, by its place. */
  readonly content: Readonly<Record<string, string>>
  readonly response: LLMResponse | undefined
  readonly error: unknown
}

async function run(client: StreamingLLMClient, content = 'Hello'): Promise<Seen> {
  const stream = client.stream({
    messages: [{ role: 'user', content }],
    tools,
    fields: { message: 'message', options: 'options[*]' },
  })
  const { items, error } = await collectUntilError(stream)
  const events = items as ResponseEvent[]
  const response = (await stream.final().catch(() => undefined)) as LLMResponse | undefined
  return { events, content: contentOf(events), response, error }
}

/** What is wrong with an answer that is there; `undefined` where nothing is. */
function faultOfWhole(seen: Seen, whole: Seen): string | undefined {
  if (!seen.response) return `failed after the evidence: ${(seen.error as Error).message}`
  if (!isDeepStrictEqual(answerOf(seen.response), answerOf(whole.response!))) return 'another answer than the uncut one'
  if (!isDeepStrictEqual(seen.content, whole.content)) return 'other events than those of the uncut one'
  return undefined
}

/** An answer without the counts, which with some services come after the evidence. */
function answerOf({ usage: _usage, metrics: _metrics, warnings: _warnings, ...answer }: LLMResponse): object {
  return answer
}

/** What is wrong with how a run ended that was cut before the evidence; `undefined` where nothing is. */
function faultOfCut({ events, content, response, error }: Seen, whole: Seen, ending: Ending): string | undefined {
  if (response || error === undefined) return 'was taken for complete'
  if (!isLLMError(error)) return `an error that is none of ours: ${(error as Error).message}`
  const { name, code, retryable, phase, provider, model } = error
  const isEmpty = ending === 'FIN' && events.length === 0 && code === 'empty_response'
  if (name !== 'StreamError' || (code !== 'stream_truncated' && !isEmpty)) return `${name} ${code}`
  if (!retryable || phase !== 'stream' || !provider || !model) return 'an error that does not say what it knows'
  if (events.some(({ type }) => type === 'tool-call' || type === 'finish')) return 'a complete call before the error'
  return faultOfPartial(error, content, whole)
}

/** That what came is in the error as it is in the events, and is the beginning of what was to come. */
function faultOfPartial({ partial }: LLMError, content: Seen['content'], whole: Seen): string | undefined {
  if (!partial) return 'no partial'
  for (const [place, piece] of Object.entries(content))
    if (!whole.content[place]?.startsWith(piece)) return `no beginning: ${place}`
  const kept: Record<string, string> = { text: partial.text, reasoning: partial.reasoning }
  for (const [i, { toolName, inputText, input }] of partial.toolCalls.entries()) {
    if (toolName !== tools[i]!.name) return 'the name of another tool'
    if (!isBeginning(input, inputs[i])) return `a value that is no beginning: ${JSON.stringify(input)}`
    kept[`input ${i}`] = inputText
  }
  for (const place of ['text', 'reasoning', 'input 0', 'input 1'])
    if ((content[place] ?? '') !== (kept[place] ?? '')) return `shown and not kept, or the other way: ${place}`
  return undefined
}

/** All text by its place. */
function contentOf(events: readonly ResponseEvent[]): Record<string, string> {
  const content: Record<string, string> = {}
  const ids: string[] = []
  const add = (place: string, delta: string): unknown => (content[place] = (content[place] ?? '') + delta)
  for (const event of events) {
    if (event.type === 'text-delta') add('text', event.delta)
    else if (event.type === 'reasoning-delta') add('reasoning', event.delta)
    else if (event.type === 'tool-input-start') ids.push(event.toolCallId)
    else if (event.type === 'tool-input-delta') add(`input ${ids.indexOf(event.toolCallId)}`, event.delta)
    else if (event.type === 'field-delta') add(`field ${ids.indexOf(event.toolCallId!)} ${event.path}`, event.delta)
    else if (event.type === 'field-end')
      add(`value ${ids.indexOf(event.toolCallId!)} ${event.path}`, String(event.value))
  }
  return content
}

/** Whether a value is one of which only the end is missing. */
function isBeginning(value: unknown, whole: unknown): boolean {
  if (value === undefined) return true
  if (typeof value === 'string' && typeof whole === 'string') return whole.startsWith(value)
  if (typeof value !== 'object' || value === null) return value === whole
  return Object.entries(value).every(([key, member]) => isBeginning(member, (whole as Record<string, unknown>)[key]))
}

/** A `fetch` whose body is these bytes, in reads of a size, and then ends or breaks. */
function cutFetch({ wire }: Subject, bytes: Uint8Array, readSize: number, ending: Ending): typeof globalThis.fetch {
  return () => {
    let at = 0
    const body = new ReadableStream<Uint8Array>(
      {
        pull(controller) {
          if (at < bytes.length) controller.enqueue(bytes.subarray(at, (at += readSize)))
          else if (ending === 'FIN') controller.close()
          else controller.error(new TypeError('terminated', { cause: { code: 'ECONNRESET' } }))
        },
      },
      { highWaterMark: 0 },
    )
    return Promise.resolve(new Response(body, { headers: { 'content-type': wire.contentType } }))
  }
}

describe.each(subjects)('an answer of $name', (subject) => {
  const { body } = answerBy(subject)
  let fetch: typeof globalThis.fetch
  const provider = subject.create({ apiKey: 'none', fetch: (...request) => fetch(...request) })
  const client = new StreamingLLMClient({ provider })
  const cut = (length: number, readSize: number, ending: Ending): Promise<Seen> => {
    fetch = cutFetch(subject, body.subarray(0, length), readSize, ending)
    return run(client)
  }

  test('that is not cut is what the model wrote', async () => {
    const { response, content } = await cut(body.length, Infinity, 'FIN')
    expect(response).toMatchObject({ text, reasoning, finishReason: 'tool-calls' })
    expect(response!.toolCalls.map(({ toolName, input }) => [toolName, input])).toEqual(
      inputs.map((input, i) => [tools[i]!.name, input]),
    )
    expect(content).toMatchObject({ text, reasoning, 'field 0 message': inputs[0]!.message })
  })

  test.each(['FIN', 'RST'] as const)('cut at every byte, by %s, is whole or an error', async (ending) => {
    const whole = await cut(body.length, Infinity, 'FIN')
    const enough = evidence[subject.name](body)[ending]
    const faults: string[] = []
    for (let length = 0; length <= body.length; length++) {
      const seen = await cut(length, length % 2 === 0 ? Infinity : 512, ending)
      const fault = length >= enough ? faultOfWhole(seen, whole) : faultOfCut(seen, whole, ending)
      if (fault !== undefined) faults.push(`after ${length} of ${body.length} bytes: ${fault}`)
    }
    expect(faults).toEqual([])
  })
})

/** A cut over the network. */
interface Plan {
  /** What the server sends. */
  readonly sent: Uint8Array
  /** How many bytes of the body that is, decoded. */
  readonly length: number
  readonly way: Way
  /** Settles when all of it was read. */
  readonly arrived: PromiseWithResolvers<undefined>
}

/** How a server ends a connection, and what that looks like to whoever reads the body. */
interface Way {
  readonly framing: 'close' | 'chunked'
  readonly end: 'close' | 'reset'
  readonly ending: Ending
  /** Whether it is tried between events too. */
  readonly isEverywhere: boolean
}

const ways: readonly Way[] = [
  { framing: 'chunked', end: 'reset', ending: 'RST', isEverywhere: true },
  { framing: 'chunked', end: 'close', ending: 'RST', isEverywhere: false },
  { framing: 'close', end: 'close', ending: 'FIN', isEverywhere: true },
  // Node's `fetch` takes whatever ends such a body for its end.
  { framing: 'close', end: 'reset', ending: 'FIN', isEverywhere: false },
]

/** Tells a request's plan. */
const planNumber = /plan (\d+)/

/** The global `fetch`, saying when what was planned has been read: a connection that breaks earlier takes it along. */
function tellingFetch(plans: readonly Plan[]): typeof globalThis.fetch {
  return async (input, init) => {
    const { length, arrived } = plans[Number(planNumber.exec(init?.body as string)![1])]!
    const response = await globalThis.fetch(input, init)
    if (length === 0) arrived.resolve(undefined)
    const reader = response.body!.getReader()
    let read = 0
    const body = new ReadableStream<Uint8Array>(
      {
        async pull(controller) {
          const { done, value } = await reader.read()
          if (done) controller.close()
          else {
            controller.enqueue(value)
            read += value.length
            if (read >= length) setImmediate(arrived.resolve, undefined)
          }
        },
        cancel: (reason) => reader.cancel(reason),
      },
      { highWaterMark: 0 },
    )
    return new Response(body, response)
  }
}

/** As a server compresses a stream: each event can be read when it has come. With the places where they end. */
async function compressed(body: Buffer, ends: readonly number[]): Promise<{ body: Buffer; ends: number[] }> {
  const gzip = createGzip()
  const pieces: Buffer[] = []
  gzip.on('data', (piece: Buffer) => pieces.push(piece))
  const compressedEnds: number[] = []
  let start = 0
  for (const end of ends) {
    gzip.write(body.subarray(start, end))
    await new Promise<void>((resolve) => gzip.flush(resolve))
    compressedEnds.push(Buffer.concat(pieces).length)
    start = end
  }
  gzip.end()
  await once(gzip, 'end')
  return { body: Buffer.concat(pieces), ends: compressedEnds }
}

/** How much of the body the beginning of a compressed one holds. */
function decodedLength(bytes: Uint8Array): number {
  return bytes.length === 0 ? 0 : gunzipSync(bytes, { finishFlush: constants.Z_SYNC_FLUSH }).length
}

/** Around the ends of events, and here and there between them. */
function placesIn({ length }: Uint8Array, ends: readonly number[]): number[] {
  const near = ends.flatMap((end) => [end - 2, end - 1, end, end + 1, end + 2])
  const between = Array.from({ length: Math.floor(length / 37) }, (_, i) => i * 37)
  const places = new Set([0, 1, ...near, ...between, length - 8, length - 1, length])
  return [...places].filter((place) => place >= 0 && place <= length).sort((a, b) => a - b)
}

async function inParallel<Item>(items: readonly Item[], count: number, act: (item: Item, i: number) => Promise<void>) {
  let next = 0
  const work = async (): Promise<void> => {
    for (let i = next++; i < items.length; i = next++) await act(items[i]!, i)
  }
  await Promise.all(Array.from({ length: count }, work))
}

describe.each(subjects)('an answer of $name over a real connection', (subject) => {
  const { body, ends } = answerBy(subject)

  async function faultsOf(plans: readonly Plan[], headers: Readonly<Record<string, string>>): Promise<string[]> {
    const server = await startFaultServer(({ body: request }) => {
      const { sent, way, arrived } = plans[Number(planNumber.exec(request)![1])]!
      const head = { headers: { 'content-type': subject.wire.contentType, ...headers }, framing: way.framing }
      return [{ head }, sent, { wait: () => arrived.promise }, { end: way.end }]
    })
    onTestFinished(() => server.stop())
    const provider = subject.create({ apiKey: 'none', baseURL: server.baseURL, fetch: tellingFetch(plans) })
    const client = new StreamingLLMClient({ provider })
    const enough = evidence[subject.name](body)
    const faults: string[] = []
    const whole = await run(client, `plan ${plans.length - 1}`)
    await inParallel(plans, 24, async ({ sent, length, way }, i) => {
      const { framing, end, ending } = way
      const seen = await run(client, `plan ${i}`)
      const fault = length >= enough[ending] ? faultOfWhole(seen, whole) : faultOfCut(seen, whole, ending)
      if (fault !== undefined) faults.push(`${framing}, ${end} after ${sent.length} bytes, decoded ${length}: ${fault}`)
    })
    expect(server.requests.length).toBe(plans.length + 1)
    return faults
  }

  const plansFor = (bytes: Buffer, eventEnds: readonly number[], lengthOf: (sent: Uint8Array) => number): Plan[] =>
    ways.flatMap((way) =>
      (way.isEverywhere ? placesIn(bytes, eventEnds) : eventEnds).map((place) => {
        const sent = bytes.subarray(0, place)
        return { sent, length: lengthOf(sent), way, arrived: Promise.withResolvers<undefined>() }
      }),
    )

  test('cut anywhere is whole or an error', async () => {
    const plans = plansFor(body, ends, ({ length }) => length)
    expect(await faultsOf(plans, {})).toEqual([])
  })

  test('cut anywhere in its compressed bytes is whole or an error', async () => {
    const gzip = await compressed(body, ends)
    expect(decodedLength(gzip.body)).toBe(body.length)
    const plans = plansFor(gzip.body, gzip.ends, decodedLength)
    expect(await faultsOf(plans, { 'content-encoding': 'gzip' })).toEqual([])
  })
})
