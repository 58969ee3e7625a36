import { getEventListeners } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { runInNewContext } from 'node:vm'
import { AbortedError, retry, type ResponseStream, StreamingLLMClient, tool } from 'fieldstream'
import { replayFetch, simulate } from 'fieldstream/testing'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { Subject } from './conformance/subject.ts'
import { subjects } from './conformance/subjects/index.ts'
import { type Script, startFaultServer } from './faults/fault-server.ts'
import { collect, collectUntilError, liveResources, rejectionOf, timeToClose, turn, until } from './support.ts'

const reason = { why: 'enough' }
const question = [{ role: 'user', content: 'Hello' }] as const

/** A tool whose validator never answers, and says when it is asked. */
function slowTool() {
  const asked = Promise.withResolvers<undefined>()
  const slow = tool({
    name: 'ask',
    validate: () => {
      asked.resolve(undefined)
      return new Promise<never>(() => undefined)
    },
  })
  return { slow, asked: asked.promise }
}

function wholeBody(subject: Subject, text = 'Fine.'): string {
  const source = simulate({ message: 'Hello' }, { provider: subject.name, tool: 'ask', text })
  return source({
    url: '/models/m:streamGenerateContent',
    method: 'POST',
    headers: new Headers(),
    body: { stream: true },
  }).body as string
}

const headOf = ({ wire }: Subject) => ({ head: { headers: { 'content-type': wire.contentType } } })

/** A run in some phase: how the server gets it there, and what the error then says. */
interface Phase {
  readonly script: (subject: Subject) => Script
  readonly expected: 'connect' | 'stream' | 'validate'
  /** Whether the connection is to be closed: one whose answer is complete may serve again. */
  readonly closes: boolean
}

const phases = {
  'before the headers': { script: () => [{ end: 'stall' }], expected: 'connect', closes: true },
  'before the first event': {
    script: (subject) => [headOf(subject), { end: 'stall' }],
    expected: 'connect',
    closes: true,
  },
  'in the middle': {
    script: (subject) => [headOf(subject), subject.wire.write(...subject.wire.begun), { end: 'stall' }],
    expected: 'stream',
    closes: true,
  },
  'while it waits to try again': {
    script: () => [{ head: { status: 503, framing: 2 } }, '{}'],
    expected: 'connect',
    closes: false,
  },
  'while a validator takes its time': {
    script: (subject) => [headOf(subject), wholeBody(subject)],
    expected: 'validate',
    closes: false,
  },
} satisfies Record<string, Phase>

/** How a run is cancelled, once its loop asked for the next event. */
const ways: Readonly<Record<string, (run: Started) => unknown>> = {
  'its signal': ({ controller }) => controller.abort(reason),
  'abort()': ({ stream }) => stream.abort(reason),
  'return()': ({ loop }) => loop.return!(),
}

interface Started {
  readonly stream: ResponseStream
  readonly controller: AbortController
  readonly loop: AsyncIterableIterator<unknown>
}

describe.each(subjects)('a run of $name is cancelled', (subject) => {
  /** A run that is in the phase, with everything waiting for it. */
  async function reach(name: keyof typeof phases) {
    const phase: Phase = phases[name]
    const failed = Promise.withResolvers<undefined>()
    const { slow, asked } = slowTool()
    const server = await startFaultServer(() => phase.script(subject))
    onTestFinished(() => server.stop())
    const client = new StreamingLLMClient({
      provider: subject.create({ apiKey: 'none', baseURL: server.baseURL }),
      middleware: [retry({ baseDelay: 60_000, maxDelay: 60_000, random: () => 1 })],
      onAttempt: () => failed.resolve(undefined),
    })
    const controller = new AbortController()
    const stream = client.stream({ messages: question, tools: [slow], signal: controller.signal }) as ResponseStream
    const loop = stream[Symbol.asyncIterator]()
    const final = rejectionOf(stream.final())
    const field = rejectionOf(stream.field('message'))
    const written = Promise.withResolvers<undefined>()
    const errors: unknown[] = []
    stream.on('text-delta', () => written.resolve(undefined)).on('error', (error) => errors.push(error))
    while (server.requests.length === 0) await sleep(1)
    if (name === 'before the first event') await sleep(20)
    if (name === 'in the middle') await written.promise
    if (name === 'while it waits to try again') await failed.promise
    if (name === 'while a validator takes its time') await asked
    // All that has come is taken, so that the loop waits.
    const seen = (async () => {
      for await (const event of loop) if (event === undefined) break
    })()
    await sleep(1)
    return { phase, server, stream, controller, loop, errors, seen: rejectionOf(seen), final, field }
  }

  describe.each(Object.keys(phases) as (keyof typeof phases)[])('%s', (name) => {
    test.each(Object.entries(ways))('by %s', async (way, cancel) => {
      const run = await reach(name)
      const { server, controller, phase } = run
      void cancel(run)
      // At once: nothing is waited for.
      const error = await Promise.race([run.final, turn().then(() => 'late')])
      expect(error).toBeInstanceOf(AbortedError)
      const isLeft = way === 'return()'
      const facts = { name: 'AbortError', code: 'aborted', phase: phase.expected, provider: subject.name }
      expect(error).toMatchObject({ ...facts, retryable: false, attempt: name.includes('try again') ? 2 : 1 })
      expect((error as AbortedError).reason).toBe(isLeft ? 'consumer_return' : reason)
      if (name !== 'while a validator takes its time') expect(await run.field).toBe(error)
      // Who leaves is told nothing.
      expect(await run.seen).toBe(isLeft ? undefined : error)
      expect(run.errors).toEqual([error])
      expect(getEventListeners(controller.signal, 'abort')).toEqual([])
      if (phase.closes) expect(await timeToClose(server.connections[0]!)).toBeLessThan(100)
      expect(server.requests.length).toBe(1)
      await server.stop()
      await until(() => liveResources() === 0, 3000)
      expect(liveResources()).toBe(0)
    })
  })

  describe('in the middle of its loop', () => {
    const fault = new Error('body')
    test.each<[string, () => unknown]>([
      ['break', () => 'break'],
      [
        'an error in its body',
        () => {
          throw fault
        },
      ],
    ])('by %s', async (way, leave) => {
      const server = await startFaultServer(() => phases['in the middle'].script(subject))
      onTestFinished(() => server.stop())
      const provider = subject.create({ apiKey: 'none', baseURL: server.baseURL })
      const { signal } = new AbortController()
      const stream = new StreamingLLMClient({ provider }).stream({ messages: question, signal })
      const thrown = await rejectionOf(
        (async () => {
          for await (const { type } of stream) {
            if (type !== 'text-delta') continue
            if (leave() === 'break') break
          }
        })(),
      )
      expect(thrown).toBe(way === 'break' ? undefined : fault)
      expect(await timeToClose(server.connections[0]!)).toBeLessThan(100)
      expect(await rejectionOf(stream.final())).toMatchObject({ name: 'AbortError', reason: 'consumer_return' })
      expect(getEventListeners(signal, 'abort')).toEqual([])
    })
  })

  test.each(Object.entries(ways))('before its start by %s, and nothing is sent', async (way, cancel) => {
    const fetch = replayFetch(wholeBody(subject))
    const client = new StreamingLLMClient({ provider: subject.create({ apiKey: 'none', fetch }) })
    const controller = new AbortController()
    const stream = client.stream({ messages: question, signal: controller.signal }) as ResponseStream
    const loop = stream[Symbol.asyncIterator]()
    await cancel({ stream, controller, loop })
    const error = await rejectionOf(stream.final())
    const expected = way === 'return()' ? 'consumer_return' : reason
    expect(error).toMatchObject({ name: 'AbortError', code: 'aborted', phase: 'connect', reason: expected })
    expect(await collectUntilError(loop)).toEqual({ items: [], error: way === 'return()' ? undefined : error })
    expect(fetch.requests).toEqual([])
    expect(getEventListeners(controller.signal, 'abort')).toEqual([])
  })

  test('by its own listener, twice, and once more when all is over', async () => {
    const server = await startFaultServer(() => phases['in the middle'].script(subject))
    onTestFinished(() => server.stop())
    const provider = subject.create({ apiKey: 'none', baseURL: server.baseURL })
    const stream = new StreamingLLMClient({ provider }).stream({ messages: question })
    stream.on('text-delta', () => {
      stream.abort(reason)
      stream.abort('again')
    })
    const error = await rejectionOf(stream.final())
    expect((error as AbortedError).reason).toBe(reason)
    expect(await timeToClose(server.connections[0]!)).toBeLessThan(100)
    stream.abort('late')
    expect(await rejectionOf(stream.final())).toBe(error)
  })

  test('in vain once it is complete', async () => {
    const provider = subject.create({ apiKey: 'none', fetch: replayFetch(wholeBody(subject)) })
    const controller = new AbortController()
    const stream = new StreamingLLMClient({ provider }).stream({ messages: question, signal: controller.signal })
    const errors: unknown[] = []
    stream.on('error', (error) => errors.push(error))
    const response = await stream.final()
    controller.abort(reason)
    stream.abort(reason)
    expect(await stream.final()).toBe(response)
    await sleep(1)
    expect(errors).toEqual([])
  })

  test('in a race with the end, and is then one or the other for everybody', async () => {
    const body = wholeBody(subject)
    const { length } = Buffer.from(body)
    for (const chunks of [[length], [length - 8], [length - 90, 82]]) {
      const outcomes: string[] = []
      // Ever later, until it is too late.
      for (let ticks = 0; outcomes.filter((outcome) => outcome === 'fulfilled').length < 20; ticks++) {
        expect(ticks).toBeLessThan(500)
        const provider = subject.create({ apiKey: 'none', fetch: replayFetch(body, { chunks }) })
        const controller = new AbortController()
        const stream = new StreamingLLMClient({ provider }).stream({ messages: question, signal: controller.signal })
        const events = collectUntilError(stream)
        const told: unknown[] = []
        stream.on('finish', () => told.push('finish')).on('error', (error) => told.push(error))
        const final = Promise.allSettled([stream.final()])
        const start = Promise.withResolvers<undefined>()
        stream.on('start', () => start.resolve(undefined))
        await start.promise
        for (let i = 0; i < ticks; i++) await Promise.resolve()
        controller.abort(reason)
        const [end] = await final
        const { items, error } = await events
        await sleep(0)
        if (end.status === 'fulfilled') {
          expect(error).toBeUndefined()
          expect(items.at(-1)!.type).toBe('finish')
          expect(told).toEqual(['finish'])
        } else {
          expect(end.reason).toMatchObject({ name: 'AbortError', reason })
          expect(error).toBe(end.reason)
          expect(items.map(({ type }) => type)).not.toContain('finish')
          expect(told).toEqual([end.reason])
        }
        expect(getEventListeners(controller.signal, 'abort')).toEqual([])
        outcomes.push(end.status)
      }
      // Once it is complete it stays so; where all comes at once there is nothing to race with, but for the end of the body.
      expect(outcomes.lastIndexOf('rejected')).toBeLessThan(outcomes.indexOf('fulfilled'))
      if (chunks[0] !== length) expect(outcomes[0]).toBe('rejected')
    }
  })
})

describe('the reason of a cancelled run', () => {
  const subject = subjects[0]!

  async function started(signal?: AbortSignal) {
    const server = await startFaultServer(() => phases['in the middle'].script(subject))
    onTestFinished(() => server.stop())
    const provider = subject.create({ apiKey: 'none', baseURL: server.baseURL })
    const stream = new StreamingLLMClient({ provider }).stream({ messages: question, signal })
    const final = rejectionOf(stream.final())
    await new Promise((resolve) => stream.on('text-delta', resolve))
    return { stream, final, server }
  }

  test.each<[string, unknown]>([
    ['a string', 'user pressed stop'],
    ['an object', reason],
    ['an error', new Error('enough')],
    ['a DOMException', new DOMException('enough', 'TimeoutError')],
    ['an error of another realm', runInNewContext("Object.assign(new Error('enough'), { name: 'AbortError' })")],
    ['an object of another realm', runInNewContext("({ why: 'enough' })")],
    ['null', null],
    ['zero', 0],
    ['a symbol', Symbol('enough')],
    ['a function', () => undefined],
  ])('is what the signal was given: %s', async (_, given) => {
    const controller = new AbortController()
    const { final, server } = await started(controller.signal)
    controller.abort(given)
    const error = (await final) as AbortedError
    expect(error).toMatchObject({ name: 'AbortError', code: 'aborted', retryable: false })
    expect(error.reason).toBe(given)
    expect(await timeToClose(server.connections[0]!)).toBeLessThan(100)
  })

  test('of AbortSignal.timeout() says that time ran out', async () => {
    const signal = AbortSignal.timeout(150)
    const { final, server } = await started(signal)
    const error = (await final) as AbortedError
    expect(error).toMatchObject({ name: 'AbortError', code: 'aborted' })
    expect(error.reason).toBe(signal.reason)
    expect(error.message).toContain('TimeoutError')
    await server.connections[0]!.closed
    expect(getEventListeners(signal, 'abort')).toEqual([])
  })

  test('of AbortSignal.any() is that of the signal that fired', async () => {
    const [one, other] = [new AbortController(), new AbortController()]
    const signal = AbortSignal.any([one.signal, other.signal])
    const { final } = await started(signal)
    other.abort(reason)
    expect(((await final) as AbortedError).reason).toBe(reason)
    expect(getEventListeners(signal, 'abort')).toEqual([])
  })

  test('one signal stops all the runs it was given to', async () => {
    const controller = new AbortController()
    const runs = await Promise.all(Array.from({ length: 20 }, () => started(controller.signal)))
    expect(getEventListeners(controller.signal, 'abort').length).toBe(runs.length)
    controller.abort(reason)
    for (const { final, server } of runs) {
      expect(((await final) as AbortedError).reason).toBe(reason)
      await server.connections[0]!.closed
    }
    expect(getEventListeners(controller.signal, 'abort')).toEqual([])
  })
})

describe.each(subjects)('a consumer that leaves a shared stream of $name', (subject) => {
  const open = () => {
    const fetch = replayFetch(wholeBody(subject, 'A long text to read.'), { chunks: 32 })
    const provider = subject.create({ apiKey: 'none', fetch })
    return new StreamingLLMClient({ provider }).stream({ messages: question }) as ResponseStream
  }

  test('does not stop the others, be it a view or a listener', async () => {
    const stream = open()
    const view = stream.textStream
    const loop = collect(stream)
    const heard: string[] = []
    const listener = (): void => {
      heard.push('once')
      stream.off('text-delta', listener)
    }
    stream.on('text-delta', listener)
    await view.next()
    await view.return!()
    expect((await loop).at(-1)!.type).toBe('finish')
    expect((await stream.final()).text).toBe('A long text to read.')
    expect(heard).toEqual(['once'])
  })

  test('stops the run where it was the only one', async () => {
    const stream = open()
    for await (const delta of stream.textStream) if (delta) break
    expect(await rejectionOf(stream.final())).toMatchObject({ name: 'AbortError', reason: 'consumer_return' })
  })

  test('stops it, as the loop, for whoever still listens', async () => {
    const stream = open()
    const view = collectUntilError(stream.textStream)
    for await (const { type } of stream) if (type === 'text-delta') break
    expect((await view).error).toMatchObject({ name: 'AbortError', reason: 'consumer_return' })
  })
})
