import {
  AbortedError,
  isLLMError,
  type LLMError,
  type Middleware,
  type ResponseEvent,
  type ResponseStream,
  retry,
  StreamError,
  type StreamAccumulator,
  tool,
  ToolStreamAccumulator,
} from 'fieldstream'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { call, collect, collectUntilError, finish, rejectionOf, start, streamOf, text, turn } from './support.ts'

const unhandled: unknown[] = []
const onUnhandled = (error: unknown): void => void unhandled.push(error)

beforeAll(() => void process.on('unhandledRejection', onUnhandled))
afterAll(() => void process.off('unhandledRejection', onUnhandled))
afterEach(async () => {
  await turn()
  expect(unhandled.splice(0), 'nothing is rejected behind the back of the test').toEqual([])
})

const answer = tool({ name: 'answer' })
const script = [[start, text('a')], call('1', '{"a":"x","b":"y"}'), [finish()]]
const request = { tools: [answer], fields: { a: 'a', b: 'b' } } as const
const fault = new Error('from the application')
const fail = (): never => {
  throw fault
}
// eslint-disable-next-line @typescript-eslint/require-await
const reject = async (): Promise<never> => fail()
const hang = (): Promise<never> => new Promise(() => undefined)
const misbehave: Readonly<Record<string, () => unknown>> = { throws: fail, rejects: reject, hangs: hang }

/** Standard Schema with a validator of one's own. */
const schemaOf = (validate: () => unknown) => ({
  '~standard': {
    version: 1 as const,
    vendor: 'own',
    validate: validate as () => { value: unknown },
    jsonSchema: { input: () => ({ type: 'object' }), output: () => ({ type: 'object' }) },
  },
})

describe.each(Object.entries(misbehave))('what %s', (name, act) => {
  test.each(['start', 'text-delta', 'tool-input-delta', 'field-delta', 'field-end', 'tool-call', 'finish'] as const)(
    'as a listener for "%s" stops nothing',
    async (type) => {
      const onError = vi.fn()
      const heard = vi.fn()
      const stream = streamOf(script, request, { onError }).on(type, act).on(type, heard)
      expect((await stream.final()).toolCalls).toHaveLength(1)
      await turn()
      expect(heard).toHaveBeenCalled()
      expect(onError).toHaveBeenCalledTimes(name === 'hangs' ? 0 : heard.mock.calls.length)
    },
  )

  test('as a listener for errors, or as onError or onAttempt, changes nothing of how a run ends', async () => {
    const error = await rejectionOf(
      streamOf([[start]], {}, { onError: act })
        .on('error', act)
        .final(),
    )
    expect(error).toMatchObject({ code: 'stream_truncated' })
    const stream = streamOf(script, request, { onError: act }).on('text-delta', fail).on('text-delta', reject)
    expect((await stream.final()).toolCalls).toHaveLength(1)
    let attempts = 0
    const again = streamOf(
      // eslint-disable-next-line @typescript-eslint/require-await
      async function* () {
        if (attempts++ === 0) throw new StreamError('stream_truncated', 'Cut.', { retryable: true })
        yield* script
      },
      request,
      { onAttempt: act, middleware: [retry({ baseDelay: 1 })] },
    )
    expect((await again.final()).toolCalls).toHaveLength(1)
  })

  test('as the validator of a tool is an error, and the call is not delivered', async () => {
    const strict = tool({ name: 'answer', input: schemaOf(act) })
    const stream = streamOf(script, { tools: [strict] })
    const heard = vi.fn()
    stream.on('tool-call', heard)
    if (name === 'hangs') {
      await turn()
      stream.abort('enough')
    }
    const error = await rejectionOf(stream.final())
    expect(error).toMatchObject(name === 'hangs' ? { reason: 'enough' } : { code: 'validator_error', cause: fault })
    expect(heard).not.toHaveBeenCalled()
  })

  test('as the schema of a field is an error', async () => {
    const stream = streamOf(script, { tools: [answer], fields: { a: { path: 'a', schema: schemaOf(act) } } })
    expect(await rejectionOf(stream.final())).toMatchObject({ code: 'validator_error' })
  })

  test('as middleware is an error', async () => {
    const middleware: Middleware = () => () => ({
      async *[Symbol.asyncIterator]() {
        yield start
        await act()
      },
    })
    const stream = streamOf(script, {}, { middleware: [middleware] })
    if (name === 'hangs') stream.on('start', () => stream.abort('enough'))
    const error = await rejectionOf(stream.final())
    expect(isLLMError(error)).toBe(true)
    if (name !== 'hangs') expect((error as LLMError).cause).toBe(fault)
  })
})

test('a `map` that throws is an error, and a field that was delivered before it stays', async () => {
  const stream = streamOf(script, { tools: [answer], fields: { a: 'a', b: { path: 'b', map: fail } } })
  const { items, error } = await collectUntilError(stream)
  expect(error).toMatchObject({ code: 'validator_error', cause: fault })
  expect(items.filter(({ type }) => type === 'field-end')).toMatchObject([{ value: 'x' }])
})

test.each(['push', 'error', 'isComplete', 'toolCalls', 'output', 'snapshot'] as const)(
  'an accumulator that throws in `%s` harms no other run, and ends its own in time',
  async (member) => {
    const accumulator = (options: ConstructorParameters<typeof ToolStreamAccumulator>[0]) =>
      new Proxy(new ToolStreamAccumulator(options), {
        get(target, key) {
          if (key === member) {
            if (key === 'push' || key === 'snapshot') return fail
            fail()
          }
          const value = Reflect.get(target, key, target) as unknown
          return typeof value === 'function' ? (value.bind(target) as unknown) : value
        },
      }) as StreamAccumulator
    const error = await rejectionOf(streamOf(script, request, { accumulator }).final())
    if (error !== undefined) expect(isLLMError(error)).toBe(true)
    else expect(['isComplete', 'output', 'snapshot']).toContain(member)
  },
)

describe('a listener that comes back to its own stream', () => {
  const types = ['start', 'text-delta', 'tool-input-delta', 'field-delta', 'field-end', 'tool-call', 'finish'] as const
  const acts: Readonly<Record<string, (stream: ResponseStream) => unknown>> = {
    'asks for a field': (stream) => stream.field('b'),
    'asks for the answer': (stream) => stream.final(),
    'looks at what there is': (stream) => stream.snapshot(),
    'adds a listener': (stream) => stream.on('finish', () => undefined),
    'adds a listener of its own kind': (stream) => types.map((type) => stream.once(type, () => undefined)),
    'asks for a loop': (stream) => collectUntilError(stream),
    'asks for the text': (stream) => collectUntilError(stream.textStream),
    'asks for a field that is not there': (stream) => stream.fields('nothing'),
    'asks for a path that cannot be': (stream) => stream.field('a[' as never),
  }

  test.each(Object.entries(acts))('and %s gets it or an error, and the run goes on', async (_, act) => {
    for (const type of types) {
      const stream = streamOf(script, request)
      const heard: ResponseEvent['type'][] = []
      for (const each of types) stream.on(each, () => void heard.push(each))
      stream.once(type, () => {
        act(stream)
      })
      expect((await stream.final()).toolCalls).toMatchObject([{ input: { a: 'x', b: 'y' } }])
      expect(new Set(heard)).toEqual(new Set(types))
    }
  })

  test('and takes itself and others off is not called again', async () => {
    const stream = streamOf([[start, text('a'), text('b')], [finish('stop')]])
    const other = vi.fn()
    const own = vi.fn(() => void stream.off('text-delta', own).off('text-delta', other))
    stream.on('text-delta', own).on('text-delta', other)
    await stream.final()
    expect(own).toHaveBeenCalledOnce()
    expect(other.mock.calls.length).toBeLessThanOrEqual(1)
  })

  test.each(types)('and aborts at "%s" ends it there, once', async (type) => {
    const stream = streamOf(script, request)
    const after: string[] = []
    let isAborted = false
    for (const each of types) stream.on(each, () => isAborted && after.push(each))
    stream.on(type, () => {
      stream.abort('enough')
      stream.abort('again')
      isAborted = true
    })
    const errors = vi.fn()
    stream.on('error', errors)
    const error = await rejectionOf(stream.final())
    if (type === 'tool-call' || type === 'finish') {
      // It was complete before anybody heard of it.
      expect(error).toBeUndefined()
      expect(errors).not.toHaveBeenCalled()
    } else {
      expect(error).toBeInstanceOf(AbortedError)
      expect(error).toMatchObject({ reason: 'enough' })
      expect(errors).toHaveBeenCalledOnce()
      expect(after).toEqual([])
    }
  })

  test('and aborts in the listener for errors, or in onError, changes nothing', async () => {
    const stream: ResponseStream = streamOf([[start]], {}, { onError: () => stream.abort('late') })
    stream.on('error', () => stream.abort('late'))
    expect(await rejectionOf(stream.final())).toMatchObject({ code: 'stream_truncated' })
  })

  test('and begins other runs has them all', async () => {
    const stream = streamOf(script, request)
    const others: Promise<unknown>[] = []
    stream.on('field-delta', () => void others.push(collect(streamOf(script, request))))
    await stream.final()
    for (const events of await Promise.all(others))
      expect((events as ResponseEvent[]).at(-1)).toMatchObject({ type: 'finish' })
    expect(others).toHaveLength(2)
  })
})
