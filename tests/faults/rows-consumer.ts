import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import { fallback, type LLMError, retry, StreamingLLMClient, timeout } from 'fieldstream'
import type { FaultConnection, Script } from './fault-server.ts'
import { type Case, type Lab, LateError, type Row } from './row.ts'
import { ask, quietFaults, request } from './run-row.ts'
import { planted, usualInput } from './wires.ts'

type Client = StreamingLLMClient
type Middleware = NonNullable<ConstructorParameters<typeof StreamingLLMClient>[0]['middleware']>

/** A client of a server that answers so. */
async function connect(lab: Lab, script: Script | ((index: number) => Script), middleware: Middleware = []) {
  const server = await lab.serve(typeof script === 'function' ? script : () => script)
  const errors: LLMError[] = []
  const client: Client = new StreamingLLMClient({
    provider: lab.provider({ baseURL: server.baseURL }),
    middleware,
    onError: (error) => errors.push(error),
  })
  return { server, client, errors }
}

/** An answer that begins, and no more. */
const stalled = ({ head, begun }: Lab): Script => [head(), ...begun, { end: 'stall' }]

async function assertCloses(connection: FaultConnection | undefined): Promise<void> {
  const from = performance.now()
  const at = await Promise.race([connection!.closed, sleep(1000, Infinity, { ref: false })])
  if (at - from > 100) throw new LateError('the connection is not closed within 100 ms')
}

async function errorOf(promise: Promise<unknown>): Promise<LLMError & { readonly reason?: unknown }> {
  const error: unknown = await promise.then(
    () => assert.fail('it succeeds'),
    (caught: unknown) => caught,
  )
  assert.deepEqual(quietFaults(error), [])
  return error as LLMError
}

function firstText(stream: ReturnType<Client['stream']>): Promise<unknown> {
  return new Promise((resolve) => stream.once('text-delta', resolve))
}

/** Aborts a run once `ready`, and holds that to what is promised. */
function aborted(
  name: string,
  script: (lab: Lab) => Script,
  ready: (run: {
    readonly stream: ReturnType<Client['stream']>
    readonly server: Awaited<ReturnType<Lab['serve']>>
  }) => Promise<unknown>,
  { middleware, validate }: { middleware?: Middleware; validate?: typeof ask.validate } = {},
): Case {
  return {
    name,
    promised: 'aborted with its reason, at once',
    async check(lab) {
      const { client, server } = await connect(lab, script(lab), middleware)
      const controller = new AbortController()
      const tools = [validate ? { ...ask, validate } : ask]
      const stream = client.stream({ ...request, tools, signal: controller.signal })
      const final = errorOf(stream.final())
      await ready({ stream: stream, server })
      const from = performance.now()
      controller.abort('enough')
      const error = await final
      if (performance.now() - from > 50) throw new LateError('it does not settle within 50 ms')
      assert.equal(error.code, 'aborted')
      assert.equal(error.reason, 'enough')
      const open = server.connections.find(({ isAnswering }) => isAnswering)
      if (open) await assertCloses(open)
    },
  }
}

const untilAsked = async ({ server }: { readonly server: { readonly requests: readonly unknown[] } }) => {
  while (server.requests.length === 0) await sleep(2)
}

/** 3.5: what the host does, and what lies around a run. */
export const consumerRows: readonly Row[] = [
  {
    number: 89,
    title: 'a listener throws, or rejects',
    cases: () => [
      {
        promised: 'complete; onError hears of both',
        async check(lab) {
          const { client, errors } = await connect(lab, lab.good)
          const stream = client.stream(request)
          stream.once('text-delta', () => {
            throw new Error('out of order')
          })
          stream.once('field-delta', () => Promise.reject(new Error('out of order')))
          assert.equal((await stream.final()).text, planted.text)
          assert.deepEqual(
            errors.map(({ code }) => code),
            ['consumer_error', 'consumer_error'],
          )
        },
      },
    ],
  },
  {
    number: 90,
    title: 'the loop is left',
    cases: () => {
      const left = (name: string, leave: () => unknown): Case => ({
        name,
        promised: 'aborted; the connection closed',
        async check(lab) {
          const { client, server } = await connect(lab, stalled(lab))
          const stream = client.stream(request)
          try {
            for await (const event of stream) if (event.type === 'text-delta' && leave() === 'break') break
          } catch (error) {
            assert.equal((error as Error).message, 'out of order')
          }
          await assertCloses(server.connections[0])
          const { code, reason } = await errorOf(stream.final())
          assert.deepEqual([code, reason], ['aborted', 'consumer_return'])
        },
      })
      return [
        left('break', () => 'break'),
        left('throw', () => {
          throw new Error('out of order')
        }),
        {
          name: 'return()',
          promised: 'aborted; the connection closed',
          async check(lab) {
            const { client, server } = await connect(lab, stalled(lab))
            const stream = client.stream(request)
            const events = stream[Symbol.asyncIterator]()
            while ((await events.next()).value?.type !== 'text-delta');
            await events.return!()
            await assertCloses(server.connections[0])
            assert.equal((await errorOf(stream.final())).code, 'aborted')
          },
        },
      ]
    },
  },
  {
    number: 91,
    title: 'nobody reads',
    cases: () => [
      {
        name: 'but final()',
        promised: 'complete',
        async check(lab) {
          const { client } = await connect(lab, lab.good)
          assert.deepEqual((await client.stream(request).final()).toolCalls[0]!.input, usualInput)
        },
      },
      {
        name: 'at all',
        promised: 'nothing is sent',
        async check(lab) {
          const { client, server } = await connect(lab, lab.good)
          client.stream(request)
          await sleep(20)
          assert.equal(server.connections.length, 0)
        },
      },
    ],
  },
  {
    number: 92,
    title: 'a slow consumer of an endless answer',
    cases: () => [
      {
        promised: 'at most 8 MB are taken from the server',
        async check(lab) {
          const { head, begun, wire } = lab
          const piece = begun.at(-1)!.replace('plante', 'x'.repeat(16_000))
          const script: Script = [head(), ...begun, { forever: wire.name === 'openai' ? begun.at(-1)! + piece : piece }]
          const { client, server } = await connect(lab, script)
          const stream = client.stream(request)
          for await (const event of stream) {
            if (event.type !== 'text-delta') continue
            // Until nothing more goes out.
            const { socket } = server.connections[0]!
            let before = -1
            while (socket.bytesWritten - socket.writableLength !== before) {
              before = socket.bytesWritten - socket.writableLength
              await sleep(30)
            }
            assert.ok(before < 8_000_000, `${before} bytes were taken`)
            break
          }
          await assertCloses(server.connections[0])
        },
      },
    ],
  },
  {
    number: 93,
    title: 'aborted before it begins',
    cases: () => [
      {
        promised: 'aborted; nothing is sent',
        async check(lab) {
          const { client, server } = await connect(lab, lab.good)
          const { code, reason } = await errorOf(
            client.stream({ ...request, signal: AbortSignal.abort('early') }).final(),
          )
          assert.deepEqual([code, reason], ['aborted', 'early'])
          assert.equal(server.connections.length, 0)
        },
      },
    ],
  },
  {
    number: 94,
    title: 'aborted on the way',
    cases: () => {
      const hanging = Promise.withResolvers<undefined>()
      return [
        aborted('before headers', () => [{ end: 'stall' }], untilAsked),
        aborted('in the stream', stalled, ({ stream }) => firstText(stream)),
        aborted(
          'between attempts',
          ({ head, wire }) => [head({ 'content-type': 'application/json' }, { status: 500 }), wire.failure(500)],
          async (run) => {
            await untilAsked(run)
            await sleep(30)
          },
          { middleware: [retry({ baseDelay: 8000, random: () => 0.9 })] },
        ),
        aborted(
          'in validation',
          ({ good }) => good,
          () => hanging.promise,
          {
            validate: () => {
              hanging.resolve(undefined)
              return new Promise(() => undefined)
            },
          },
        ),
      ]
    },
  },
  {
    number: 95,
    title: 'aborted after the end, twice, or by a listener',
    cases: () => [
      {
        name: 'after the end, twice',
        promised: 'complete, still',
        async check(lab) {
          const { client } = await connect(lab, lab.good)
          const stream = client.stream(request)
          const response = await stream.final()
          stream.abort('late')
          stream.abort('later')
          assert.equal(await stream.final(), response)
        },
      },
      {
        name: 'by a listener',
        promised: 'aborted',
        async check(lab) {
          const { client, server } = await connect(lab, stalled(lab))
          const stream = client.stream(request)
          stream.on('text-delta', () => stream.abort('heard enough'))
          const { code, reason } = await errorOf(stream.final())
          assert.deepEqual([code, reason], ['aborted', 'heard enough'])
          await assertCloses(server.connections[0])
        },
      },
    ],
  },
  {
    number: 96,
    title: 'aborted at the very end',
    cases: () =>
      (['tool-call', 'finish'] as const).map((type) => ({
        name: `at ${type}`,
        promised: 'one end, and all agree on it',
        async check(lab: Lab) {
          const { client } = await connect(lab, lab.good)
          const stream = client.stream(request)
          let failures = 0
          stream.on(type, () => stream.abort('race')).on('error', () => failures++)
          const [final, loop] = await Promise.allSettled([
            stream.final(),
            (async () => {
              for await (const _ of stream);
            })(),
          ])
          assert.equal(final.status, loop.status)
          assert.equal(failures, final.status === 'rejected' ? 1 : 0)
        },
      })),
  },
  {
    number: 97,
    title: 'signals that time out, or are made of others',
    cases: () => [
      {
        promised: 'aborted, with the reason of the signal',
        async check(lab) {
          const { client, server } = await connect(lab, stalled(lab))
          const signal = AbortSignal.any([AbortSignal.timeout(60), new AbortController().signal])
          const { code, reason } = await errorOf(client.stream({ ...request, signal }).final())
          assert.equal(code, 'aborted')
          assert.equal((reason as Error).name, 'TimeoutError')
          const connection = server.connections.find(({ isAnswering }) => isAnswering)
          if (connection) await assertCloses(connection)
        },
      },
    ],
  },
  {
    number: 98,
    title: 'a listener or a loop that comes late',
    cases: () => [
      {
        promised: 'stream_consumed for the loop; the rest still works',
        async check(lab) {
          const { client } = await connect(lab, lab.good)
          const stream = client.stream(request)
          const response = await stream.final()
          stream.on('text-delta', () => assert.fail('nothing is to be heard any more'))
          assert.throws(() => stream[Symbol.asyncIterator](), { code: 'stream_consumed' })
          assert.equal(await stream.final(), response)
          assert.equal(await stream.field('message'), usualInput.message)
        },
      },
    ],
  },
  {
    number: 99,
    title: 'a second loop',
    cases: () => [
      {
        promised: 'stream_consumed, at once',
        async check(lab) {
          const { client } = await connect(lab, lab.good)
          const stream = client.stream(request)
          const events = stream[Symbol.asyncIterator]()
          assert.throws(() => stream[Symbol.asyncIterator](), { code: 'stream_consumed' })
          await events.return!()
        },
      },
    ],
  },
  {
    number: 100,
    title: 'final() is asked for twice, or never awaited',
    cases: () => [
      {
        promised: 'one promise; onError hears once',
        async check(lab) {
          const { client, errors } = await connect(lab, [{ end: 'reset' }])
          const stream = client.stream(request)
          const ended = new Promise((resolve) => stream.on('error', resolve))
          assert.equal(stream.final(), stream.final())
          await ended
          await sleep(5)
          assert.deepEqual(
            errors.map(({ code }) => code),
            ['connection'],
          )
        },
      },
    ],
  },
  {
    number: 101,
    title: 'many runs at once, one in ten cut',
    cases: () => [
      {
        promised: '27 complete, 3 stream_truncated',
        async check(lab) {
          const cutShort: Script = [lab.head(), ...lab.evidence.slice(0, -1)]
          const { client } = await connect(lab, (index) => (index % 10 === 3 ? cutShort : lab.good))
          const ends = await Promise.all(
            Array.from({ length: 30 }, () =>
              client
                .stream(request)
                .final()
                .then(
                  () => 'complete',
                  (error: unknown) => (error as LLMError).code,
                ),
            ),
          )
          assert.equal(ends.filter((end) => end === 'complete').length, 27)
          assert.equal(ends.filter((end) => end === 'stream_truncated').length, 3)
        },
      },
    ],
  },
  { number: 102, title: 'a cache that cannot be read', heldBy: 'tests/cache.test.ts' },
  { number: 103, title: 'a cache that cannot be written', heldBy: 'tests/cache.test.ts' },
  { number: 104, title: 'a cache that holds what it should not', heldBy: 'tests/cache.test.ts' },
  { number: 105, title: 'a tool throws', heldBy: 'tests/tool-runs.test.ts' },
  { number: 106, title: 'a tool hangs', heldBy: 'tests/tool-runs.test.ts' },
  { number: 107, title: 'a tool returns what is no JSON', heldBy: 'tests/tool-runs.test.ts' },
  { number: 108, title: 'a limiter: aborted in the queue, a full queue', heldBy: 'tests/rate-limit.test.ts' },
  {
    number: 109,
    title: 'no retry is left in reserve',
    cases: () => [
      {
        promised: 'retry_budget_exhausted at once; the failure is its cause',
        async check(lab) {
          const failed = [lab.head({ 'content-type': 'application/json' }, { status: 500 }), lab.wire.failure(500)]
          const { client, server } = await connect(lab, failed, [retry({ budget: 0 })])
          const error = await errorOf(client.stream(request).final())
          assert.equal(error.code, 'retry_budget_exhausted')
          assert.equal((error.cause as LLMError).code, 'server_error')
          assert.equal(server.requests.length, 1)
        },
      },
    ],
  },
  {
    number: 110,
    title: 'every provider of a fallback fails',
    cases: () => [
      {
        promised: 'attempts_exhausted, with the status of the last',
        async check(lab) {
          const failing = (status: number): Script => [
            lab.head({ 'content-type': 'application/json' }, { status }),
            lab.wire.failure(status),
          ]
          const [first, second] = await Promise.all([lab.serve(() => failing(500)), lab.serve(() => failing(503))])
          const provider = fallback(lab.provider({ baseURL: first.baseURL }), lab.provider({ baseURL: second.baseURL }))
          const error = await errorOf(new StreamingLLMClient({ provider }).stream(request).final())
          assert.equal(error.code, 'attempts_exhausted')
          assert.equal(error.status, 503)
          assert.deepEqual(
            (error as unknown as { errors: readonly LLMError[] }).errors.map(({ code }) => code),
            ['server_error', 'overloaded'],
          )
          assert.deepEqual([first.requests.length, second.requests.length], [1, 1])
        },
      },
    ],
  },
  {
    number: 111,
    title: 'a fallback after something was seen',
    cases: () => {
      const run = async (lab: Lab, onInterrupted: 'fail' | 'restart') => {
        const cut = await lab.serve(() => [lab.head(), ...lab.begun, lab.seen])
        const good = await lab.serve(() => lab.good)
        const provider = fallback(lab.provider({ baseURL: cut.baseURL }), lab.provider({ baseURL: good.baseURL }))
        const stream = new StreamingLLMClient({ provider }).stream({ ...request, onInterrupted })
        return { stream, good }
      }
      return [
        {
          name: 'by default',
          promised: 'stream_truncated; the other is not asked',
          async check(lab) {
            const { stream, good } = await run(lab, 'fail')
            assert.equal((await errorOf(stream.final())).code, 'stream_truncated')
            assert.equal(good.requests.length, 0)
          },
        },
        {
          name: 'where it may begin anew',
          promised: 'a restart event, then complete',
          async check(lab) {
            const { stream } = await run(lab, 'restart')
            const reasons: string[] = []
            stream.on('restart', ({ reason }) => reasons.push(reason.code))
            const { text, toolCalls } = await stream.final()
            assert.deepEqual(reasons, ['stream_truncated'])
            assert.equal(text, planted.text)
            assert.deepEqual(
              toolCalls.map(({ input }) => input),
              [usualInput],
            )
          },
        },
      ]
    },
  },
  {
    number: 112,
    title: 'one of many requests in a batch fails',
    cases: () => [
      {
        promised: 'server_error; the others complete',
        async check(lab) {
          const { head, wire, good } = lab
          const failing: Script = [head({ 'content-type': 'application/json' }, { status: 500 }), wire.failure(500)]
          const server = await lab.serve((index) => (index === 3 ? failing : good))
          const client = new StreamingLLMClient({ provider: lab.provider({ baseURL: server.baseURL }) })
          const outcomes = await Promise.allSettled(Array.from({ length: 8 }, () => client.stream(request).final()))
          const ends = outcomes.map((outcome) =>
            outcome.status === 'fulfilled' ? outcome.value.text : (outcome.reason as LLMError).code,
          )
          assert.deepEqual(ends.sort(), [...Array<string>(7).fill(planted.text), 'server_error'].sort())
        },
      },
    ],
  },
  {
    number: 113,
    title: 'the clock on the wall is set',
    cases: () =>
      [3_600_000, -3_600_000].map((jump) => ({
        name: jump > 0 ? 'forth' : 'back',
        promised: 'complete',
        async check(lab: Lab) {
          const { head, begun, frames } = lab
          const now = Date.now
          const set: Script[number] = {
            wait: () => {
              Date.now = () => now() + jump
              return Promise.resolve()
            },
          }
          const script = [head(), ...begun, set, { wait: 5 }, ...frames.slice(begun.length)]
          const { client } = await connect(lab, script, [timeout({ idle: 2000, total: 20_000 })])
          try {
            assert.equal((await client.stream(request).final()).text, planted.text)
          } finally {
            Date.now = now
          }
        },
      })),
  },
  {
    number: 114,
    title: 'times that no timer can keep',
    cases: () => [
      {
        promised: 'invalid_argument, when it is set up',
        check() {
          for (const time of [NaN, -1, 2 ** 31, Infinity, '5']) {
            const limits = ['firstByte', 'firstOutput', 'idle', 'progress', 'total', 'validate']
            for (const limit of limits) assert.throws(() => timeout({ [limit]: time }), { code: 'invalid_argument' })
            for (const delay of ['baseDelay', 'maxDelay', 'maxRetryAfter'])
              assert.throws(() => retry({ [delay]: time }), { code: 'invalid_argument' })
          }
        },
      },
    ],
  },
  { number: 115, title: 'the process ends while a run is open', heldBy: 'tests/concurrency.test.ts' },
  { number: 116, title: 'errors of another copy of the library', heldBy: 'tests/errors.test.ts' },
  { number: 117, title: 'the oldest SDKs that are supported', heldBy: 'tests/sdk-versions.test.ts' },
]
