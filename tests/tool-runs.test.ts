import {
  AbortedError,
  ConsumerError,
  fallback,
  type LLMError,
  LLMTimeoutError,
  type Provider,
  type ResponseEvent,
  retry,
  type RunResponse,
  StreamError,
  type StreamEvent,
  StreamingLLMClient,
  type Tool,
  tool,
  ToolError,
  type ToolRunOptions,
} from 'fieldstream'
import type { ClientOptions, ResponseStream, StreamRequest } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { gemini } from 'fieldstream/gemini'
import { ollama } from 'fieldstream/ollama'
import { openai, openaiChat } from 'fieldstream/openai'
import { replayFetch, simulate, type SimulateOptions } from 'fieldstream/testing'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { z } from 'zod'
import {
  call,
  collect,
  collectUntilError,
  finish,
  rejectionOf,
  type Script,
  scriptedProvider,
  type ScriptedProvider,
  start,
  text,
  thrownBy,
  turn,
  until,
  usage,
} from './support.ts'

/** Plays one script for each request, the last for all that follow. */
function stepsOf(...scripts: Script[]): ScriptedProvider {
  const providers = scripts.map((script) => scriptedProvider(script))
  let count = 0
  const requests: ScriptedProvider['requests'][number][] = []
  return {
    ...providers[0]!,
    requests,
    stream(request, context) {
      requests.push(request)
      return providers[Math.min(count++, providers.length - 1)]!.stream(request, context)
    },
  }
}

const calling = (...calls: (readonly [id: string, name: string, input?: object])[]): Script => [
  [start, ...calls.flatMap(([id, name, input = {}]) => call(id, JSON.stringify(input), name)), finish()],
]
const saying = (words: string): Script => [[start, text(words), finish('stop')]]

type Run = ResponseStream<ResponseEvent, RunResponse['toolCalls'], unknown, string, unknown, RunResponse>

function runOf(
  provider: Provider,
  tools: readonly Tool[],
  request: Partial<StreamRequest> & ToolRunOptions = {},
  options: Partial<ClientOptions> = {},
): Run {
  const client = new StreamingLLMClient({ provider, ...options })
  return client.run({ messages: [{ role: 'user', content: 'Hello' }], tools, ...request })
}

const typesOf = (events: readonly ResponseEvent[]): string[] =>
  events.map(({ type }) => type).filter((type) => !type.startsWith('tool-input'))

const weather = tool({
  name: 'weather',
  input: z.object({ city: z.string() }),
  execute: ({ city }) => ({ city, degrees: 21 }),
})

/** A tool that ends when it is told to. */
function controlled(name = 'slow', options: object = {}) {
  const running: {
    input: unknown
    signal: AbortSignal
    resolve(value: unknown): void
    reject(error: unknown): void
  }[] = []
  const made = tool({
    name,
    execute: (input, { signal }) => {
      const { promise, resolve, reject } = Promise.withResolvers<unknown>()
      running.push({ input, signal, resolve, reject })
      return promise
    },
    ...options,
  })
  return { tool: made, running }
}

/** What the model was told of its calls. */
const resultsIn = (provider: ScriptedProvider, request = 1): unknown =>
  provider.requests[request]?.messages.findLast(({ role }) => role === 'tool')?.content

afterEach(() => {
  vi.useRealTimers()
})

describe('run()', () => {
  test('runs the tools of a step, tells the model what they gave, and goes on in the same stream', async () => {
    const provider = stepsOf(
      calling(['a', 'weather', { city: 'Rome' }], ['b', 'weather', { city: 'Oslo' }]),
      saying('Warm.'),
    )
    const run = runOf(provider, [weather])
    const events = await collect(run)
    expect(typesOf(events)).toEqual(
      'start tool-call tool-call tool-result tool-result start text-delta finish'.split(' '),
    )
    expect(events.filter(({ type }) => type === 'tool-result')).toMatchObject([
      { toolCallId: 'a', toolName: 'weather', output: { city: 'Rome', degrees: 21 } },
      { toolCallId: 'b', output: { city: 'Oslo', degrees: 21 } },
    ])
    const message = {
      role: 'tool',
      content: [
        { type: 'tool-result', toolCallId: 'a', toolName: 'weather', output: { city: 'Rome', degrees: 21 } },
        { type: 'tool-result', toolCallId: 'b', toolName: 'weather', output: { city: 'Oslo', degrees: 21 } },
      ],
    }
    const answer = await run.final()
    expect(provider.requests).toHaveLength(2)
    expect(provider.requests[1]!.messages).toEqual([
      { role: 'user', content: 'Hello' },
      ...answer.steps[0]!.messages,
      message,
    ])
    expect(answer).toMatchObject({ text: 'Warm.', toolCalls: [], finishReason: 'stop' })
    expect(answer.messages).toEqual([...answer.steps[0]!.messages, message, ...answer.steps[1]!.messages])
    expect(answer.steps.map(({ toolCalls, text }) => [toolCalls.length, text])).toEqual([
      [2, ''],
      [0, 'Warm.'],
    ])
    expect(answer.usage).toEqual({ ...usage, inputTokens: 20, outputTokens: 40, totalTokens: 60 })
    expect(answer.steps[0]!.usage).toEqual(usage)
    expect(events.at(-1)).toMatchObject({ usage: answer.usage, metrics: answer.metrics })
    expect(answer.metrics.attempts).toBe(2)
    expect(answer.metrics.characters).toBe('{"city":"Rome"}{"city":"Oslo"}Warm.'.length)
  })

  test('is one answer where no tool is called', async () => {
    const provider = stepsOf(saying('Hi'))
    const run = runOf(provider, [weather])
    expect(typesOf(await collect(run))).toEqual(['start', 'text-delta', 'finish'])
    const { steps, messages, usage: total } = await run.final()
    expect(steps).toHaveLength(1)
    expect(messages).toEqual(steps[0]!.messages)
    expect(total).toEqual(usage)
  })

  test('gives `execute` what the schema made of the arguments, and the conversation so far', async () => {
    const seen: unknown[] = []
    const count = tool({
      name: 'count',
      input: z.object({ n: z.string().transform(Number) }),
      execute({ n }, { toolCallId, messages, signal }) {
        seen.push(n + 1, toolCallId, messages, signal.aborted)
      },
    })
    const provider = stepsOf(calling(['a', 'count', { n: '4' }]), saying(''))
    await runOf(provider, [count]).final()
    expect(seen).toEqual([5, 'a', [{ role: 'user', content: 'Hello' }], false])
    expect(resultsIn(provider)).toMatchObject([{ output: null }])
  })

  test('runs no tool unless the whole answer is complete and valid', async () => {
    const execute = vi.fn()
    const strict = tool({ name: 'strict', input: z.object({ n: z.number() }), execute })
    const cut: Script = [[start, ...call('a', '{"n":1}', 'strict')]]
    const secondWrong = calling(['a', 'strict', { n: 1 }], ['b', 'strict', { n: 'x' }])
    expect(await rejectionOf(runOf(stepsOf(cut), [strict]).final())).toMatchObject({ code: 'stream_truncated' })
    expect(await rejectionOf(runOf(stepsOf(secondWrong), [strict]).final())).toMatchObject({ code: 'schema_mismatch' })
    const late = tool({ name: 'strict', validate: async (value) => Promise.resolve({ value }), execute })
    const wrong = tool({ name: 'wrong', validate: async () => Promise.resolve({ issues: [{ message: 'no' }] }) })
    const both = runOf(stepsOf(calling(['a', 'strict'], ['b', 'wrong'])), [late, wrong]).final()
    expect(await rejectionOf(both)).toMatchObject({ code: 'schema_mismatch' })
    expect(execute).not.toHaveBeenCalled()
  })

  test('runs no tool before a loop has seen its call, and none where the loop is left there', async () => {
    const execute = vi.fn()
    const provider = stepsOf(calling(['a', 'act'], ['b', 'act']))
    for await (const event of runOf(provider, [tool({ name: 'act', execute })])) if (event.type === 'tool-call') break
    await turn()
    expect(execute).not.toHaveBeenCalled()
    const run = runOf(provider, [tool({ name: 'act', execute })])
    run.on('tool-call', () => run.abort())
    await rejectionOf(run.final())
    await turn()
    expect(execute).not.toHaveBeenCalled()
  })

  test('runs tools side by side, no more at a time than it may, and keeps the order of the calls', async () => {
    const { tool: slow, running } = controlled()
    const provider = stepsOf(calling(['a', 'slow'], ['b', 'slow'], ['c', 'slow'], ['d', 'slow']), saying(''))
    const run = runOf(provider, [slow], { toolConcurrency: 2 })
    const final = run.final()
    await until(() => running.length > 0)
    await turn()
    expect(running).toHaveLength(2)
    running[1]!.resolve('second')
    await turn()
    expect(running).toHaveLength(3)
    running[2]!.reject(new Error('third'))
    await turn()
    expect(running).toHaveLength(4)
    running[3]!.resolve('fourth')
    running[0]!.resolve('first')
    await final
    expect(resultsIn(provider)).toMatchObject([
      { toolCallId: 'a', output: 'first' },
      { toolCallId: 'b', output: 'second' },
      { toolCallId: 'c', output: 'third', isError: true },
      { toolCallId: 'd', output: 'fourth' },
    ])
  })

  test('lets no more run where an approval comes late', async () => {
    const { tool: slow, running } = controlled('slow', { needsApproval: (_: unknown) => true })
    const late = Promise.withResolvers<boolean>()
    const run = runOf(stepsOf(calling(['a', 'slow'], ['b', 'slow'], ['c', 'slow']), saying('')), [slow], {
      toolConcurrency: 1,
      onToolApproval: ({ toolCallId }) => (toolCallId === 'c' ? late.promise : true),
    })
    const final = run.final()
    await until(() => running.length === 1)
    running[0]!.resolve(1)
    await until(() => running.length === 2)
    late.resolve(true)
    await turn()
    expect(running).toHaveLength(2)
    running[1]!.resolve(2)
    await until(() => running.length === 3)
    running[2]!.resolve(3)
    await final
  })

  test('shows what a generator yields as progress, in order, and takes what it returns', async () => {
    const search = tool({
      name: 'search',
      async *execute() {
        yield { done: 0 }
        await turn()
        yield { done: 1 }
        return ['found']
      },
    })
    const provider = stepsOf(calling(['a', 'search']), saying('Done'))
    const events = await collect(runOf(provider, [search]))
    expect(typesOf(events)).toEqual(
      'start tool-call tool-progress tool-progress tool-result start text-delta finish'.split(' '),
    )
    expect(events.filter(({ type }) => type === 'tool-progress')).toMatchObject([
      { toolCallId: 'a', toolName: 'search', value: { done: 0 } },
      { value: { done: 1 } },
    ])
    expect(resultsIn(provider)).toMatchObject([{ output: ['found'] }])
  })

  test('drives a generator that is not async in the same way, promises and its end included', async () => {
    let closed = 0
    const search = tool({
      name: 'search',
      *execute() {
        try {
          yield 'begun'
          yield Promise.resolve('half way')
          return Promise.resolve(['found'])
        } finally {
          closed++
        }
      },
    })
    const provider = stepsOf(calling(['a', 'search']), saying('Done'))
    const events = await collect(runOf(provider, [search]))
    expect(events.flatMap((event) => (event.type === 'tool-progress' ? [event.value] : []))).toEqual([
      'begun',
      'half way',
    ])
    expect(resultsIn(provider)).toMatchObject([{ output: ['found'] }])
    for await (const { type } of runOf(stepsOf(calling(['a', 'search'])), [search])) if (type === 'tool-progress') break
    await turn()
    expect(closed).toBe(2)
  })

  test('tells listeners of tools, and `fields` of every step', async () => {
    const heard: unknown[] = []
    const run = runOf(
      stepsOf(calling(['a', 'weather', { city: 'Rome' }]), calling(['b', 'weather', { city: 'Oslo' }]), saying('')),
      [weather],
      { fields: { city: 'city' } },
    )
    run
      .on('field-end', ({ value }) => heard.push(value))
      .on('tool-result', ({ output }) => heard.push(output))
      .on('finish', () => heard.push('finish'))
    await run.final()
    expect(heard).toEqual(['Rome', { city: 'Rome', degrees: 21 }, 'Oslo', { city: 'Oslo', degrees: 21 }, 'finish'])
  })

  test('field() finds a value in a later step', async () => {
    const run = runOf(stepsOf(calling(['a', 'other']), calling(['b', 'weather', { city: 'Oslo' }]), saying('')), [
      weather,
      tool({ name: 'other', execute: () => 1 }),
    ])
    expect(await run.field('city')).toBe('Oslo')
    await run.final()
  })
})

describe('a run ends', () => {
  const again = calling(['a', 'weather', { city: 'Rome' }])

  test('after `maxSteps` answers, with the results of the last', async () => {
    const provider = stepsOf(again)
    const { steps, messages, toolCalls } = await runOf(provider, [weather], { maxSteps: 3 }).final()
    expect([provider.requests.length, steps.length, toolCalls.length]).toEqual([3, 3, 1])
    expect(messages.map(({ role }) => role)).toEqual(['assistant', 'tool', 'assistant', 'tool', 'assistant', 'tool'])
    expect((await runOf(stepsOf(again), [weather]).final()).steps).toHaveLength(5)
  })

  test('where `stopWhen` says so', async () => {
    const provider = stepsOf(again)
    const stopWhen = vi.fn(async (steps: readonly unknown[]) => Promise.resolve(steps.length === 2))
    const { messages } = await runOf(provider, [weather], { stopWhen }).final()
    expect(provider.requests).toHaveLength(2)
    expect(stopWhen).toHaveBeenCalledTimes(2)
    expect(messages.at(-1)!.role).toBe('tool')
    const cause = new Error('no')
    const failing = (): never => {
      throw cause
    }
    const error = await rejectionOf(runOf(stepsOf(again), [weather], { stopWhen: failing }).final())
    expect(error).toBeInstanceOf(ConsumerError)
    expect(error).toMatchObject({ code: 'consumer_error', cause })
  })

  test('where a tool has no `execute`, once the others have run', async () => {
    const ask = tool({ name: 'ask_user' })
    const provider = stepsOf(calling(['a', 'ask_user'], ['b', 'weather', { city: 'Rome' }]))
    const run = runOf(provider, [ask, weather])
    expect(typesOf(await collect(run))).toEqual(['start', 'tool-call', 'tool-call', 'tool-result', 'finish'])
    const { messages, toolCalls } = await run.final()
    expect(toolCalls).toHaveLength(2)
    expect(messages[1]).toMatchObject({ role: 'tool', content: [{ toolCallId: 'b' }] })
    const alone = await runOf(stepsOf(calling(['a', 'ask_user'])), [ask, weather]).final()
    expect(alone.messages).toHaveLength(1)
    expect(provider.requests).toHaveLength(1)
  })

  test('a call that is forced is forced once', async () => {
    const provider = stepsOf(again, saying('Warm'))
    const { text: words } = await runOf(provider, [weather], { toolChoice: weather, toolInput: 'native' }).final()
    expect(words).toBe('Warm')
    expect(provider.requests.map(({ toolChoice }) => toolChoice)).toEqual([weather, 'auto'])
    const required = stepsOf(again, saying(''))
    await runOf(required, [weather], { toolChoice: 'required' }).final()
    expect(required.requests.map(({ toolChoice }) => toolChoice)).toEqual(['required', 'auto'])
  })
})

describe('a tool that fails', () => {
  const cause = new Error('no such city')
  const failing = tool({
    name: 'failing',
    execute: () => {
      throw cause
    },
  })

  test('is told to the model by its words, and to everybody else without them', async () => {
    const onError = vi.fn<(error: LLMError) => void>()
    const provider = stepsOf(calling(['a', 'failing'], ['b', 'weather', { city: 'Rome' }]), saying('Sorry'))
    const events = await collect(runOf(provider, [failing, weather], {}, { onError }))
    expect(events.find(({ type }) => type === 'tool-error')).toMatchObject({
      toolCallId: 'a',
      toolName: 'failing',
      error: { code: 'tool_execution_failed', message: 'Tool "failing" failed. See `cause`.' },
    })
    expect(resultsIn(provider)).toMatchObject([
      { toolCallId: 'a', output: 'no such city', isError: true },
      { toolCallId: 'b', output: { degrees: 21 } },
    ])
    expect(onError).toHaveBeenCalledTimes(1)
    const [error] = onError.mock.calls[0]!
    expect(error).toBeInstanceOf(ToolError)
    expect(error).toMatchObject({ cause, toolName: 'failing', toolCallId: 'a', retryable: false, phase: 'tool' })
  })

  test("ends the run with `onToolError: 'throw'`, and stops those beside it", async () => {
    const { tool: slow, running } = controlled()
    const onError = vi.fn()
    const provider = stepsOf(calling(['a', 'slow'], ['b', 'failing']))
    const run = runOf(provider, [slow, failing], { onToolError: 'throw' }, { onError })
    const { items, error } = await collectUntilError(run)
    expect(items.at(-1)).toMatchObject({ type: 'tool-error', toolCallId: 'b' })
    expect(error).toBeInstanceOf(ToolError)
    expect(error).toMatchObject({
      code: 'tool_execution_failed',
      cause,
      provider: 'scripted',
      usage: { inputTokens: 10 },
    })
    expect(running[0]!.signal.aborted).toBe(true)
    expect(onError).toHaveBeenCalledTimes(1)
    expect(provider.requests).toHaveLength(1)
  })

  test('in the middle of its progress is closed', async () => {
    let isClosed = false
    const broken = tool({
      name: 'broken',
      async *execute() {
        try {
          yield await Promise.resolve(1)
          yield 2n
        } finally {
          isClosed = true
        }
      },
    })
    const provider = stepsOf(calling(['a', 'broken']), saying(''))
    expect(typesOf(await collect(runOf(provider, [broken])))).toEqual(
      'start tool-call tool-progress tool-error start text-delta finish'.split(' '),
    )
    expect(isClosed).toBe(true)
  })

  class Secret {
    readonly #value = 1
    readonly hint = undefined
    get value(): number {
      return this.#value
    }
  }
  const cycle: Record<string, unknown> = {}
  cycle['self'] = { cycle }
  test.each<[string, unknown]>([
    ['a bigint', { n: 1n }],
    ['a cycle', cycle],
    ['a function', { f: () => 1 }],
    ['a function in a list', [() => 1]],
    ['a function alone', () => 1],
    ['a symbol', Symbol('s')],
    ['a Map', { map: new Map([[1, 2]]) }],
    ['what is not finite', [NaN]],
    ['a Response', new Response('text')],
    ['a promise within', { later: Promise.resolve(1) }],
    ['an iterator', [1].values()],
    ['a generator within', { items: (function* () {})() }],
    ['an error', new Error('no')],
    ['what keeps all to itself', new Secret()],
  ])('since it gives %s, says so', async (_, output) => {
    const odd = tool({ name: 'odd', execute: () => output })
    const provider = stepsOf(calling(['a', 'odd']), saying(''))
    const events = await collect(runOf(provider, [odd]))
    expect(events.find(({ type }) => type === 'tool-error')).toMatchObject({
      error: { code: 'tool_output_not_serializable' },
    })
    expect(events.some(({ type }) => type === 'tool-result')).toBe(false)
    expect(resultsIn(provider)).toMatchObject([
      { isError: true, output: expect.stringContaining('not JSON') as string },
    ])
    const thrown = await rejectionOf(runOf(stepsOf(calling(['a', 'odd'])), [odd], { onToolError: 'throw' }).final())
    expect(thrown).toMatchObject({ code: 'tool_output_not_serializable', retryable: false })
  })

  test.each<[string, unknown, unknown]>([
    ['an empty object', {}, {}],
    ['an object without a prototype', Object.create(null), {}],
    ['an empty list', [], []],
    ['what is undefined', { a: undefined }, {}],
    ['an instance with members', new (class Point { x = 1 })(), { x: 1 }], // prettier-ignore
    ['what says itself what it is', new (class { toJSON = () => ({}) })(), {}], // prettier-ignore
    ['a boxed text', new String('text'), 'text'],
  ])('is none for %s', async (_, output, told) => {
    const provider = stepsOf(calling(['a', 'odd']), saying(''))
    await runOf(provider, [tool({ name: 'odd', execute: () => output })]).final()
    expect(resultsIn(provider)).toMatchObject([{ output: told }])
    expect(resultsIn(provider)).not.toMatchObject([{ isError: true }])
  })

  test('tells the model what its output was when it gave it', async () => {
    const kept = { when: new Date(0), n: 1, gone: undefined }
    const provider = stepsOf(calling(['a', 'keeper']), saying(''))
    const run = runOf(provider, [tool({ name: 'keeper', execute: () => kept })])
    run.on('tool-result', () => void (kept.n = 2))
    const final = run.final()
    await final
    expect(resultsIn(provider)).toEqual([
      { type: 'tool-result', toolCallId: 'a', toolName: 'keeper', output: { when: '1970-01-01T00:00:00.000Z', n: 1 } },
    ])
  })
})

describe('time and cancellation', () => {
  test('a tool that runs too long is given up, its signal fires, and the model is told', async () => {
    vi.useFakeTimers()
    const { tool: slow, running } = controlled('slow', { timeout: 1000 })
    const onError = vi.fn<(error: LLMError) => void>()
    const provider = stepsOf(calling(['a', 'slow']), saying(''))
    const events: ResponseEvent[] = []
    const run = runOf(provider, [slow], {}, { onError }).on('tool-error', (event) => events.push(event))
    const final = run.final()
    await vi.advanceTimersByTimeAsync(999)
    expect(events).toEqual([])
    expect(running[0]!.signal.aborted).toBe(false)
    await vi.advanceTimersByTimeAsync(1)
    await final
    expect(events).toMatchObject([{ error: { code: 'timeout' } }])
    expect(running[0]!.signal.reason).toBeInstanceOf(LLMTimeoutError)
    expect(onError.mock.calls[0]![0]).toMatchObject({
      phase: 'tool',
      timeoutMs: 1000,
      toolName: 'slow',
      retryable: false,
    })
    expect(resultsIn(provider)).toMatchObject([{ isError: true }])
    // What comes too late is nobody's.
    running[0]!.resolve('late')
    await vi.advanceTimersByTimeAsync(1)
    expect(vi.getTimerCount()).toBe(0)
  })

  test('the limit is a minute where the tool has none of its own, and none with `false`', async () => {
    vi.useFakeTimers()
    const usual = controlled('usual')
    const endless = controlled('endless', { timeout: false })
    const errors: unknown[] = []
    const run = runOf(stepsOf(calling(['a', 'usual'], ['b', 'endless']), saying('')), [usual.tool, endless.tool])
    run.on('tool-error', ({ toolName }) => errors.push(toolName))
    const final = run.final()
    await vi.advanceTimersByTimeAsync(59_999)
    expect(errors).toEqual([])
    await vi.advanceTimersByTimeAsync(1)
    expect(errors).toEqual(['usual'])
    await vi.advanceTimersByTimeAsync(3_600_000)
    endless.running[0]!.resolve('at last')
    expect((await final).steps).toHaveLength(2)
  })

  test.each(['abort()', 'signal', 'leaving the loop'])('%s while a tool hangs ends the run at once', async (way) => {
    const { tool: slow, running } = controlled()
    const waiting = controlled('waiting')
    const controller = new AbortController()
    const provider = stepsOf(calling(['a', 'slow'], ['b', 'waiting']))
    const run = runOf(provider, [slow, waiting.tool], { signal: controller.signal, toolConcurrency: 1 })
    if (way === 'leaving the loop') {
      const events = run[Symbol.asyncIterator]()
      for (let i = 0; i < 9; i++) await events.next()
      const next = events.next()
      await until(() => running.length === 1)
      await events.return?.()
      await rejectionOf(next)
    } else {
      const final = rejectionOf(run.final())
      await until(() => running.length === 1)
      if (way === 'abort()') run.abort('enough')
      else controller.abort('enough')
      expect(await final).toBeInstanceOf(AbortedError)
      expect(await final).toMatchObject({ reason: 'enough', phase: 'tool' })
    }
    expect(running[0]!.signal.aborted).toBe(true)
    running[0]!.resolve('late')
    await turn()
    expect(waiting.running).toHaveLength(0)
    expect(provider.requests).toHaveLength(1)
  })

  test('a generator is not asked for more once the run is over', async () => {
    const seen: number[] = []
    const counting = tool({
      name: 'counting',
      async *execute() {
        for (let i = 1; i < 5; i++) {
          seen.push(i)
          yield await Promise.resolve(i)
        }
      },
    })
    const run = runOf(stepsOf(calling(['a', 'counting'])), [counting])
    run.on('tool-progress', ({ value }) => value === 2 && run.abort())
    await rejectionOf(run.final())
    await turn()
    expect(seen).toEqual([1, 2])
  })

  test('a tool that hangs in its generator is left', async () => {
    const hanging = tool({
      name: 'hanging',
      async *execute() {
        yield 1
        await new Promise(() => undefined)
      },
    })
    const run = runOf(stepsOf(calling(['a', 'hanging'])), [hanging])
    run.on('tool-progress', () => setImmediate(() => run.abort()))
    expect(await rejectionOf(run.final())).toBeInstanceOf(AbortedError)
  })

  test('the limits of a step do not reach into its tools and the next', async () => {
    vi.useFakeTimers()
    const { tool: slow, running } = controlled('slow', {
      timeout: false,
      validate: async (value: unknown) => Promise.resolve({ value }),
    })
    const final = runOf(stepsOf(calling(['a', 'slow']), saying('')), [slow]).final()
    await vi.advanceTimersByTimeAsync(700_000)
    running[0]!.resolve(1)
    expect((await final).steps).toHaveLength(2)
  })
})

describe('approval', () => {
  const risky = vi.fn((_: unknown) => 'done')
  const pay = tool({
    name: 'pay',
    input: z.object({ amount: z.number() }),
    needsApproval: ({ amount }) => amount > 10,
    execute: risky,
  })
  const asking = calling(['a', 'pay', { amount: 5 }], ['b', 'pay', { amount: 50 }])

  test('is asked for where a tool needs it, and what is refused does not run', async () => {
    risky.mockClear()
    const provider = stepsOf(asking, saying(''))
    const signal = expect.any(AbortSignal) as AbortSignal
    const onToolApproval = vi.fn(() => ({ approved: false, reason: 'too much' }))
    const onError = vi.fn()
    const run = runOf(provider, [pay], { onToolApproval, onToolError: 'throw' }, { onError })
    const events = await collect(run)
    expect(onToolApproval.mock.calls).toEqual([
      [{ toolCallId: 'b', toolName: 'pay', input: { amount: 50 } }, { signal }],
    ])
    expect(risky.mock.calls.map(([input]) => input)).toEqual([{ amount: 5 }])
    const message = 'The call of tool "pay" was not approved: too much'
    expect(events.find(({ type }) => type === 'tool-error')).toMatchObject({ error: { code: 'tool_denied', message } })
    expect(resultsIn(provider)).toMatchObject([{ output: 'done' }, { isError: true, output: message }])
    expect(onError).not.toHaveBeenCalled()
  })

  test.each<[unknown, boolean]>([
    [true, true],
    [{ approved: true }, true],
    [Promise.resolve(true), true],
    [false, false],
    [undefined, false],
    ['yes', false],
    [{ approved: 'yes' }, false],
  ])('of %j', async (answer, isRun) => {
    risky.mockClear()
    const onToolApproval = (): never => answer as never
    await runOf(stepsOf(calling(['b', 'pay', { amount: 50 }]), saying('')), [pay], { onToolApproval }).final()
    expect(risky).toHaveBeenCalledTimes(isRun ? 1 : 0)
  })

  test('that is long in coming holds up no other tool, and not the end of the run', async () => {
    risky.mockClear()
    const run = runOf(stepsOf(calling(['b', 'pay', { amount: 50 }], ['a', 'pay', { amount: 5 }])), [pay], {
      onToolApproval: () => new Promise<boolean>(() => undefined),
      toolConcurrency: 1,
    })
    run.on('tool-result', () => run.abort('enough'))
    expect(await rejectionOf(run.final())).toMatchObject({ code: 'aborted' })
  })

  test.each<[string, (run: Run) => void]>([
    ['aborted', (run) => run.abort('enough')],
    ['ended by another tool', () => undefined],
  ])('is told when nobody needs it any more, since the run was %s', async (how, end) => {
    let asked: AbortSignal | undefined
    const asks = Promise.withResolvers<undefined>()
    const fails = tool({
      name: 'fails',
      async execute() {
        await asks.promise
        if (how === 'aborted') return new Promise(() => undefined)
        throw new Error('down')
      },
    })
    const script = calling(['b', 'pay', { amount: 50 }], ['c', 'fails'])
    const run = runOf(stepsOf(script), [pay, fails], {
      onToolError: 'throw',
      onToolApproval: (_, { signal }) => {
        asked = signal
        asks.resolve(undefined)
        return new Promise<boolean>(() => undefined)
      },
    })
    const failed = rejectionOf(run.final())
    await asks.promise
    expect(asked!.aborted).toBe(false)
    end(run)
    expect(await failed).toMatchObject({ code: how === 'aborted' ? 'aborted' : 'tool_execution_failed' })
    expect(asked!.aborted).toBe(true)
  })

  test('that fails ends the run, and is asked of nobody at the latest before anything is sent', async () => {
    risky.mockClear()
    const onToolApproval = (): never => {
      throw new Error('database')
    }
    const error = await rejectionOf(runOf(stepsOf(asking), [pay], { onToolApproval }).final())
    expect(error).toBeInstanceOf(ConsumerError)
    expect(thrownBy(() => runOf(stepsOf(asking), [pay]))).toMatchObject({
      code: 'invalid_argument',
      message: expect.stringContaining('`onToolApproval`') as string,
    })
  })
})

describe('beneath retry() and fallback()', () => {
  const broken: Script = () => ({
    // eslint-disable-next-line @typescript-eslint/require-await
    async *[Symbol.asyncIterator](): AsyncGenerator<readonly StreamEvent[]> {
      throw new StreamError('stream_truncated', 'cut', { retryable: true })
    },
  })

  test('a step that is tried again runs no tool twice', async () => {
    const execute = vi.fn(() => 'done')
    const act = tool({ name: 'act', execute })
    const provider = stepsOf(broken, calling(['a', 'act']), broken, saying('Done'))
    const onAttempt = vi.fn()
    const options = { middleware: [retry({ baseDelay: 0 })], onAttempt }
    const { text: words, metrics, steps } = await runOf(provider, [act], {}, options).final()
    expect([words, execute.mock.calls.length, provider.requests.length]).toEqual(['Done', 1, 4])
    expect(metrics.attempts).toBe(4)
    expect(steps[0]!.metrics.attempts).toBe(2)
    expect(onAttempt).toHaveBeenCalledTimes(2)
  })

  test('nor one that another provider takes over', async () => {
    const execute = vi.fn(() => 'done')
    const first = stepsOf(calling(['a', 'act']), broken)
    const second = stepsOf(saying('Done'))
    await runOf(fallback(first, second), [tool({ name: 'act', execute })]).final()
    expect(execute).toHaveBeenCalledTimes(1)
    expect(second.requests[0]!.messages).toHaveLength(3)
  })

  test('a step that begins anew after it was seen says so, and shows the new answer', async () => {
    const seenThenCut: Script = async function* () {
      yield [start, text('Half')]
      await turn()
      throw new StreamError('stream_truncated', 'cut', { retryable: true })
    }
    const act = tool({ name: 'act', execute: () => 1 })
    const first: Script = [[start, text('I will act.'), ...call('a', '{}', 'act'), finish()]]
    const provider = stepsOf(first, seenThenCut, saying('Half and whole'))
    const run = runOf(provider, [act], { onInterrupted: 'restart' }, { middleware: [retry({ baseDelay: 0 })] })
    const events = await collect(run)
    expect(typesOf(events)).toEqual(
      'start text-delta tool-call tool-result start text-delta restart start text-delta finish'.split(' '),
    )
    expect(events.find(({ type }) => type === 'restart')).toMatchObject({ shown: [{ length: 4 }] })
    expect((await run.final()).text).toBe('Half and whole')
  })

  test('a tool that fails or runs out of time is not tried again', async () => {
    const execute = vi.fn(() => {
      throw new StreamError('stream_truncated', 'of a client within the tool', { retryable: true })
    })
    const provider = stepsOf(calling(['a', 'act']))
    const run = runOf(
      provider,
      [tool({ name: 'act', execute })],
      { onToolError: 'throw' },
      { middleware: [retry({ baseDelay: 0 })] },
    )
    expect(await rejectionOf(run.final())).toMatchObject({ code: 'tool_execution_failed', retryable: false })
    expect([execute.mock.calls.length, provider.requests.length]).toEqual([1, 1])
  })

  test('the error of a later step has the attempts of that step', async () => {
    const provider = stepsOf(broken, calling(['a', 'weather', { city: 'Rome' }]), broken, broken, broken)
    const run = runOf(provider, [weather], {}, { middleware: [retry({ baseDelay: 0 })] })
    const error = (await rejectionOf(run.final())) as LLMError
    expect(error).toMatchObject({ code: 'stream_truncated', attempt: 3 })
    expect(error.attempts).toHaveLength(2)
  })

  test('the error of a later step has what is to be appended to go on from there, so that no tool runs twice', async () => {
    const messages = [{ role: 'user' as const, content: 'Weather?' }]
    const first = runOf(stepsOf(calling(['a', 'weather', { city: 'Rome' }]), [[start, text('It')]]), [weather], {
      messages,
    })
    const { partial } = (await rejectionOf(first.final())) as LLMError
    expect(partial).toMatchObject({ text: 'It', toolCalls: [] })
    expect(partial!.messages.map(({ role }) => role)).toEqual(['assistant', 'tool'])
    const second = stepsOf(saying('It is sunny.'))
    expect(await runOf(second, [weather], { messages: [...messages, ...partial!.messages] }).final()).toMatchObject({
      text: 'It is sunny.',
    })
    expect(second.requests[0]!.messages).toHaveLength(3)
  })

  test('progress never goes back from step to step, and is 1 at the end only', async () => {
    const provider = stepsOf(calling(['a', 'weather', { city: 'Rome' }]), saying('It is sunny.'))
    const events = await collect(runOf(provider, [weather], { progress: true }))
    const ratios = events.flatMap((event) => (event.type === 'progress' ? [event.ratio] : []))
    expect(ratios.length).toBeGreaterThan(1)
    expect(ratios).toEqual([...new Set(ratios)].sort((a, b) => a - b))
    expect(events.at(-2)).toMatchObject({ type: 'progress', ratio: 1 })
    expect(ratios.indexOf(1)).toBe(ratios.length - 1)
  })

  test('the time until the next step begins to answer is no gap between chunks', async () => {
    const oneRead = calling(['a', 'weather', { city: 'Rome' }])
    const { metrics } = await runOf(stepsOf(oneRead, saying('It is sunny.')), [weather]).final()
    expect([metrics.chunks, metrics.chunkGaps]).toEqual([2, undefined])
  })

  test('the error of a later step has the tokens of all', async () => {
    const provider = stepsOf(calling(['a', 'weather', { city: 'Rome' }]), [[start, { type: 'usage', usage }]])
    expect(await rejectionOf(runOf(provider, [weather]).final())).toMatchObject({
      code: 'stream_truncated',
      attempt: 1,
      usage: { inputTokens: 20 },
    })
  })

  test('middleware hears of each answer that is valid, and no connection of a step is cut by the next', async () => {
    const valid: number[] = []
    const signals: AbortSignal[] = []
    const provider = stepsOf(calling(['a', 'weather', { city: 'Rome' }]), [[start]])
    let count = 0
    const middleware: ClientOptions['middleware'] = [
      (next) => (request, context) => {
        const step = ++count
        signals.push(context.signal)
        context.afterEnd?.((error) => {
          if (!error) valid.push(step)
        })
        return next(request, context)
      },
    ]
    await rejectionOf(runOf(provider, [weather], {}, { middleware }).final())
    await turn()
    expect(valid).toEqual([1])
    expect(signals.map(({ aborted }) => aborted)).toEqual([false, true])
  })
})

describe('wrong options', () => {
  test.each<[object, string]>([
    [{ maxSteps: 0 }, '`maxSteps` of run()'],
    [{ maxSteps: 1.5 }, '`maxSteps` of run()'],
    [{ toolConcurrency: 0 }, '`toolConcurrency` of run()'],
    [{ stopWhen: 3 }, '`stopWhen` of run()'],
    [{ onToolApproval: true }, '`onToolApproval` of run()'],
    [{ onToolError: 'ignore' }, '`onToolError` of run()'],
    [{ maxStep: 3 }, 'no option `maxStep`'],
  ])('of run() are refused: %j', (wrong, words) => {
    expect(thrownBy(() => runOf(stepsOf([]), [weather], wrong))).toMatchObject({
      code: 'invalid_argument',
      message: expect.stringContaining(words) as string,
    })
  })

  test.each<[object, string]>([
    [{ execute: 'x' }, '`execute` of tool "t"'],
    [{ execute: () => 1, timeout: 0 }, '`timeout` of tool "t"'],
    [{ execute: () => 1, timeout: Infinity }, '`timeout` of tool "t"'],
    [{ execute: () => 1, needsApproval: 'yes' }, '`needsApproval` of tool "t"'],
    [{ timeout: 5 }, 'for a tool with `execute`'],
    [{ needsApproval: true }, 'for a tool with `execute`'],
  ])('of tool() are refused: %j', (wrong, words) => {
    expect(thrownBy(() => tool({ name: 't', ...wrong }))).toMatchObject({
      code: 'invalid_argument',
      message: expect.stringContaining(words) as string,
    })
  })
})

describe('through the official SDKs', () => {
  type Fetch = typeof globalThis.fetch
  const providers: readonly [NonNullable<SimulateOptions['provider']>, (fetch: Fetch) => Provider][] = [
    ['anthropic', (fetch) => anthropic({ model: 'claude-haiku-4-5', fetch })],
    ['openai', (fetch) => openai({ model: 'gpt-5-mini', fetch })],
    ['openai-chat', (fetch) => openaiChat({ model: 'gpt-5-mini', fetch })],
    ['ollama', (fetch) => ollama({ model: 'llama3.2', fetch })],
    ['gemini', (fetch) => gemini({ model: 'gemini-2.5-flash', fetch })],
  ]

  test.each(
    providers.flatMap(([name, create]) =>
      (['auto', 'forced', 'xml'] as const).map((how) => [name, how, create] as const),
    ),
  )('%s, %s: the service gets the results and the answer goes on', async (provider, how, create) => {
    const fetch = replayFetch([
      simulate(
        [
          { tool: 'weather', input: { city: 'Rome' } },
          ...(how === 'forced' ? [] : [{ tool: 'failing', input: { city: 'Atlantis' } }]),
        ],
        { provider, ...(how === 'xml' && { toolInput: 'xml' }) },
      ),
      simulate('It is warm in Rome.', { provider }),
    ])
    const failing = tool({
      name: 'failing',
      input: z.object({ city: z.string() }),
      execute: () => Promise.reject(new Error('no such city')),
    })
    const client = new StreamingLLMClient({ provider: create(fetch) })
    const run = client.run({
      messages: [{ role: 'user', content: 'How is the weather?' }],
      tools: [weather, failing],
      ...(how === 'forced' && { toolChoice: weather }),
      ...(how === 'xml' && { toolInput: 'xml' }),
      fields: { city: 'city' },
    })
    const types = (await collect(run)).map(({ type }) => type)
    expect(types.filter((type) => ['start', 'tool-result', 'tool-error', 'finish'].includes(type)).sort()).toEqual(
      ['finish', 'start', 'start', ...(how === 'forced' ? [] : ['tool-error']), 'tool-result'].sort(),
    )
    const { text: words, steps } = await run.final()
    expect(words).toBe('It is warm in Rome.')
    expect(steps).toHaveLength(2)
    const sent = JSON.stringify(fetch.requests[1]!.body)
    expect(sent).toMatch(/degrees\W+21/)
    if (how !== 'forced') expect(sent).toContain('no such city')
  })
})
