import { spawn } from 'node:child_process'
import { getEventListeners, once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import {
  type LLMError,
  type LLMResponse,
  retry,
  type ResponseStream,
  StreamingLLMClient,
  timeout,
  tool,
} from 'fieldstream'
import { simulate } from 'fieldstream/testing'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { Subject } from './conformance/subject.ts'
import { subjects } from './conformance/subjects/index.ts'
import { type Script, startFaultServer } from './faults/fault-server.ts'
import { collectUntilError, liveResources, timeToClose, until } from './support.ts'

const words = 'The service has a bad day.'
const ask = tool({ name: 'ask', input: { properties: { message: { type: 'string' } } } })

/** A fault, by what the server does, what the consumer does, and how the run then ends. */
interface Fault {
  script(subject: Subject, attempt: number): Script
  consume?(stream: ResponseStream): Promise<unknown>
  /** Facts of the error; `undefined` where the answer is whole nevertheless. */
  expected(subject: Subject): Record<string, unknown> | undefined
}

const headOf = ({ wire }: Subject, framing: 'chunked' | 'close' = 'chunked') => ({
  head: { headers: { 'content-type': wire.contentType }, framing },
})
const begun = ({ wire }: Subject): string => wire.write(...wire.begun)
/** Begins to answer, and stays. */
const stay = (subject: Subject): Script => [headOf(subject), begun(subject), { end: 'stall' }]

/** The whole answer, in pieces that have nothing to do with its events. */
function wholeScript(subject: Subject, n: number): Script {
  const source = simulate({ message: messageOf(n) }, { provider: subject.name, tool: ask, text: `Answer ${n}` })
  const { body } = source({
    url: '/models/m:streamGenerateContent',
    method: 'POST',
    headers: new Headers(),
    body: { stream: true },
  })
  const bytes = Buffer.from(body as string)
  const size = Math.ceil(bytes.length / (2 + (n % 4)))
  const pieces = Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) =>
    bytes.subarray(i * size, (i + 1) * size),
  )
  return [headOf(subject), ...pieces.flatMap((piece): Script => [piece, { wait: n % 7 }])]
}

const messageOf = (n: number): string => `Wie viele Gäste? ${n} 🎉`

async function leave(stream: ResponseStream): Promise<void> {
  for await (const { type } of stream) if (type === 'text-delta') return
}

const faults: Readonly<Record<string, Fault>> = {
  cut: {
    script: (subject) => [headOf(subject, 'close'), begun(subject), { end: 'close' }],
    expected: () => ({ name: 'StreamError', code: 'stream_truncated' }),
  },
  reset: {
    script: (subject) => [headOf(subject), begun(subject), { wait: 20 }, { end: 'reset' }],
    expected: () => ({ name: 'StreamError', code: 'stream_truncated' }),
  },
  'error event': {
    script: (subject) => [headOf(subject), begun(subject) + subject.reported(words)[0]!.body],
    expected: (subject) => ({ name: 'HttpError', ...subject.reported(words)[0]!.expected }),
  },
  stall: {
    script: stay,
    expected: () => ({ name: 'TimeoutError', code: 'timeout', phase: 'idle' }),
  },
  abort: {
    script: stay,
    consume: (stream) => stream.on('text-delta', () => stream.abort('enough')).final(),
    expected: () => ({ name: 'AbortError', code: 'aborted', reason: 'enough' }),
  },
  break: {
    script: stay,
    consume: leave,
    expected: () => ({ name: 'AbortError', code: 'aborted', reason: 'consumer_return' }),
  },
  'error status': {
    script: (subject, attempt) =>
      attempt > 1
        ? wholeScript(subject, 0)
        : [{ head: { status: 500, headers: { 'content-type': 'application/json' }, framing: 2 } }, '{}'],
    expected: () => undefined,
  },
}

const requestNumber = /run (\d+) (\w[\w ]*)\./

function watchRejections(): unknown[] {
  const rejections: unknown[] = []
  const onRejection = (reason: unknown): unknown => rejections.push(reason)
  process.on('unhandledRejection', onRejection)
  onTestFinished(() => void process.off('unhandledRejection', onRejection))
  return rejections
}

describe('a thousand streams at once, every tenth with a fault', () => {
  const count = 1000
  const kinds = Object.keys(faults)

  test('end each as expected, and leave nothing behind', async () => {
    const rejections = watchRejections()
    const attempts = new Map<number, number>()
    const server = await startFaultServer(({ body }) => {
      const [, number, kind] = requestNumber.exec(body)!
      const n = Number(number)
      const attempt = (attempts.get(n) ?? 0) + 1
      attempts.set(n, attempt)
      const subject = subjectOf(n)
      return faults[kind!]?.script(subject, attempt) ?? wholeScript(subject, n)
    })
    const subjectOf = (n: number): Subject => subjects[Math.floor(n / 10) % subjects.length]!
    const kindOf = (n: number): string => (n % 10 === 3 ? kinds[Math.floor(n / 10) % kinds.length]! : 'none')
    const clients = new Map(
      subjects.map((subject) => {
        const provider = subject.create({ apiKey: 'none', baseURL: server.baseURL })
        const usual = new StreamingLLMClient({ provider, middleware: [retry({ attempts: 1 })] })
        const special: Record<string, StreamingLLMClient> = {
          stall: new StreamingLLMClient({ provider, middleware: [timeout({ idle: 300 })] }),
          'error status': new StreamingLLMClient({ provider, middleware: [retry({ baseDelay: 100 })] }),
        }
        return [subject, { usual, special }]
      }),
    )
    const { signal } = new AbortController()

    async function faultOf(n: number): Promise<string | undefined> {
      const subject = subjectOf(n)
      const kind = kindOf(n)
      const { usual, special } = clients.get(subject)!
      const stream = (special[kind] ?? usual).stream({
        messages: [{ role: 'user', content: `run ${n} ${kind}.` }],
        tools: [ask],
        fields: { message: 'message' },
        signal,
      }) as ResponseStream
      const fault = faults[kind]
      const consumed = fault?.consume ? fault.consume(stream).catch(() => undefined) : collectUntilError(stream)
      const [end] = await Promise.allSettled([stream.final()])
      const response: LLMResponse | undefined = end.status === 'fulfilled' ? end.value : undefined
      const error = end.status === 'rejected' ? (end.reason as LLMError) : undefined
      await consumed
      const expected = fault?.expected(subject)
      const id = `run ${n} (${subject.name}, ${kind})`
      if (expected) {
        const wrong = Object.entries(expected).find(([key, value]) => error?.[key as keyof LLMError] !== value)
        return wrong && `${id}: ${wrong[0]} is not ${String(wrong[1])}, of ${error ? error.message : 'an answer'}`
      }
      const made = kind === 'none' ? n : 0
      if (!response) return `${id}: ${error!.code} ${error!.message}`
      const { text, toolCalls } = response
      const input = toolCalls[0]?.input as { message: string } | undefined
      if (text !== `Answer ${made}` || toolCalls.length !== 1 || input?.message !== messageOf(made))
        return `${id}: another answer`
      return undefined
    }

    const ends = await Promise.all(Array.from({ length: count }, (_, n) => faultOf(n)))
    expect(ends.filter((fault) => fault !== undefined)).toEqual([])

    // One request each, and one more where the first was answered with an error status.
    for (let n = 0; n < count; n++) expect(attempts.get(n), `run ${n}`).toBe(kindOf(n) === 'error status' ? 2 : 1)
    expect(getEventListeners(signal, 'abort')).toEqual([])
    // What failed or was left has no connection any more; the others wait for the next request.
    const isLeft = ({ body }: { readonly body: string }): boolean =>
      ['stall', 'abort', 'break', 'cut', 'reset'].includes(requestNumber.exec(body)![2]!)
    const left = server.requests.filter(isLeft)
    expect(left.length).toBeGreaterThan(count / 20)
    await until(() => left.every(({ connection }) => connection.isClosed))
    expect(left.filter(({ connection }) => !connection.isClosed)).toEqual([])
    await server.stop()
    await until(() => liveResources() === 0)
    expect(liveResources()).toBe(0)
    expect(rejections).toEqual([])
  })
})

describe.each(subjects)('a stalled consumer of an endless answer of $name', (subject) => {
  const views = {
    'the loop': (stream: ResponseStream) => stream[Symbol.asyncIterator](),
    'a view': (stream: ResponseStream) => stream.textStream,
    'a web stream': (stream: ResponseStream) => {
      const reader = stream.toReadableStream().getReader()
      return {
        next: async () => {
          const { done, value } = await reader.read()
          return { done, value }
        },
        return: () => reader.cancel(),
      }
    },
  }

  test.each(Object.entries(views))('by %s costs bounded memory and traffic', async (_, open) => {
    const text = subject.wire.write(subject.wire.begun.at(-1)).repeat(300)
    const server = await startFaultServer(() => [headOf(subject), begun(subject), { forever: text }])
    onTestFinished(() => server.stop())
    const client = new StreamingLLMClient({ provider: subject.create({ apiKey: 'none', baseURL: server.baseURL }) })
    const rss = process.memoryUsage.rss()
    const view = open(client.stream({ messages: [{ role: 'user', content: 'Hello' }] }) as ResponseStream)
    await view.next()
    const { socket } = server.connections[0]!
    // Until the server can write no more.
    for (let taken = -1; taken !== socket.bytesWritten; await sleep(100)) taken = socket.bytesWritten
    expect(socket.bytesWritten).toBeGreaterThan(100_000)
    expect(socket.bytesWritten).toBeLessThan(8 * 2 ** 20)
    expect(process.memoryUsage.rss() - rss).toBeLessThan(50 * 2 ** 20)
    await view.return!()
    expect(await timeToClose(server.connections[0]!)).toBeLessThan(100)
  })
})

describe('a run that nobody waits for', () => {
  const root = fileURLToPath(new URL('..', import.meta.url))

  test.each(['success', 'failure', 'cut', 'abort'])('neither ends the process nor keeps it: %s', async (ending) => {
    const server = await startFaultServer(({ path }): Script => {
      const subject = subjects.find(({ name }) => path.startsWith(`/${name}/${ending}`))!
      if (ending === 'failure') return [{ head: { status: 500, framing: 2 } }, '{}']
      if (ending === 'cut') return [headOf(subject, 'close'), begun(subject), { end: 'close' }]
      return ending === 'abort' ? stay(subject) : wholeScript(subject, 1)
    })
    onTestFinished(() => server.stop())
    const script = [`--import`, `./scripts/use-sources.ts`, 'tests/faults/unattended.ts', server.baseURL, ending]
    const child = spawn(process.execPath, script, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] })
    const killer = setTimeout(() => child.kill(), 30_000)
    onTestFinished(() => clearTimeout(killer))
    let printed = ''
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (piece) => (printed += String(piece)))
    const [code] = (await once(child, 'exit')) as [number | null]
    const over = performance.now()
    expect({ code, printed }).toEqual({ code: 0, printed: '' })
    const asked = subjects.length * (ending === 'success' ? 4 : 3)
    expect(server.requests.length).toBe(asked)
    // Connections that could serve again are kept for some seconds, but not the process with them.
    expect(over - server.requests.at(-1)!.at).toBeLessThan(4000)
  })
})
