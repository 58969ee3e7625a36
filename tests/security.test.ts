import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { inspect } from 'node:util'
import {
  isLLMError,
  LimitError,
  type LLMError,
  retry,
  StreamError,
  type StreamEvent,
  tool,
  UsageError,
} from 'fieldstream'
import ts from 'typescript'
import { describe, expect, test, vi } from 'vitest'
import { z } from 'zod'
import { over, watch } from './conformance/run.ts'
import { subjects } from './conformance/subjects/index.ts'
import {
  call,
  collect,
  collectUntilError,
  finish,
  input,
  inputEnd,
  inputStart,
  pieces,
  rejectionOf,
  start,
  streamOf,
  text,
  thrownBy,
} from './support.ts'

const root = join(import.meta.dirname, '..')
const inherited = ['__proto__', 'constructor', 'prototype', 'toString', 'valueOf', 'hasOwnProperty', 'then', 'toJSON']

describe('names that every object has', () => {
  const json = `{${inherited.map((name) => `"${name}":{"polluted":"${name}"}`).join(',')},"a":"x"}`
  const parsed = JSON.parse(json) as object

  test.each(inherited)('"%s" is a key, a field, a tool and an id like any other', async (name) => {
    const named = tool({ name })
    const fields = Object.fromEntries([
      [name, `["${name}"].polluted`],
      ['all', `["${name}"]`],
    ])
    const stream = streamOf([[start], call(name, json, name), [finish()]], {
      tools: [named],
      toolChoice: named,
      fields,
    })
    const value = stream.field(`["${name}"].polluted` as never)
    const events = await collect(stream)
    expect((await stream.final()).toolCalls).toEqual([{ toolCallId: name, toolName: name, input: parsed }])
    expect(await value).toBe(name)
    expect(events.filter(({ type }) => type === 'field-end')).toMatchObject([
      { field: name, value: name },
      { field: 'all', value: { polluted: name } },
    ])
    expect(stream.snapshot().toolCalls[0]!.input).toEqual(parsed)
    expect(({} as { polluted?: string }).polluted).toBeUndefined()
    expect(thrownBy(() => stream.on(name as never, () => undefined))).toBeInstanceOf(UsageError)
    expect(thrownBy(() => stream.fields('valueOf2'))).toBeInstanceOf(UsageError)
  })

  test.each(subjects.map((subject) => [subject.name, subject] as const))(
    'said by a service as a reason or a code they are words like any other: %s',
    async (_, subject) => {
      const { wire } = subject
      for (const name of inherited) {
        const reasons = /"(end_turn|max_tokens|stop|length|STOP|MAX_TOKENS|response\.completed|max_output_tokens)"/g
        for (const events of [wire.rest, wire.limit]) {
          const body = wire.write(...wire.begun, ...events).replaceAll(reasons, `"${name}"`)
          const { response, error } = await watch(
            over(subject, { body, headers: { 'content-type': wire.contentType } }),
          )
          if (response) expect(response.finishReason).toBe('other')
          else expect(error!.code).toMatch(/^[a-z_]+$/)
        }
        for (const status of [400, 500]) {
          const named = { type: name, code: name, status: name, message: name }
          const failures = [
            { body: subject.failureBody(status, named, name), status },
            { body: JSON.stringify({ error: named }), headers: { 'content-type': 'application/json' } },
          ]
          for (const failure of failures) {
            const { error } = await watch(over(subject, failure, {}))
            expect(error!.code).toMatch(/^[a-z_]+$/)
            expect(error!.status === undefined || typeof error!.status === 'number').toBe(true)
          }
        }
      }
    },
  )

  /** Runs where prototypes cannot be changed, and says what of the global state differs afterwards. */
  test('are never written to, and no global state is changed', () => {
    const program = `
      import { StreamingLLMClient, tool, retry, fallback } from 'fieldstream'
      import { replayFetch, simulate } from 'fieldstream/testing'
      import Anthropic from '@anthropic-ai/sdk'
      const state = () => [
        Reflect.ownKeys(globalThis).map(String), Object.keys(process.env), Error.stackTraceLimit, process.eventNames().map(String),
        [Object, Array, String, Promise, Map, Error, Response, ReadableStream, AbortSignal].map((one) =>
          Reflect.ownKeys(one.prototype).map(String)),
        [fetch, setTimeout, JSON.parse, console.log].map(String),
      ].flat(2)
      for (const one of [Object, Array, String, Function, Promise, Map, Set, Error]) Object.freeze(one.prototype)
      // The runtime's own, made when first used.
      await fetch('data:,')
      const before = state()
      const { anthropic } = await import('fieldstream/anthropic')
      const answer = tool({ name: 'answer', input: { properties: { a: { type: 'string' } } } })
      const body = simulate({ a: 'x' }, { tool: answer })
      const provider = anthropic({ model: 'm', client: new Anthropic({ apiKey: 'none', fetch: replayFetch(body) }) })
      const client = new StreamingLLMClient({
        provider: fallback(provider, provider),
        middleware: [retry()],
      })
      const stream = client.stream({ messages: [{ role: 'user', content: 'Hi' }], tools: [answer], fields: { a: 'a' } })
      for await (const _ of stream);
      const { toolCalls } = await stream.final()
      const after = state()
      const changed = [...after.filter((one) => !before.includes(one)), ...before.filter((one) => !after.includes(one))]
      console.log(JSON.stringify({ input: toolCalls[0].input.a, changed }))
    `
    const output = execFileSync(
      process.execPath,
      ['--import', './scripts/use-sources.ts', '--input-type=module', '--eval', program],
      { cwd: root, encoding: 'utf8' },
    )
    expect(JSON.parse(output)).toEqual({ input: 'x', changed: [] })
  })
})

describe('a limit', () => {
  const nested = (depth: number) => '{"a":'.repeat(depth - 1) + '{}' + '}'.repeat(depth - 1)
  const long = (length: number) => `{"a":"${'x'.repeat(length - 8)}"}`
  const many = (count: number) => Array.from({ length: count }, (_, i) => call(String(i), '{}')).flat()

  test.each<[string, number, (size: number) => StreamEvent[]]>([
    ['maxDepth', 7, (size) => call('1', nested(size))],
    ['maxInputLength', 30, (size) => call('1', long(size))],
    ['maxToolCalls', 3, many],
  ])('%s holds at its number and not at one more, and can be raised', async (limit, max, events) => {
    const run = (size: number, limits: object) =>
      rejectionOf(
        streamOf([[start, ...events(size), finish()]], { tools: [tool({ name: 'answer' })] }, { limits }).final(),
      )
    expect(await run(max, { [limit]: max })).toBeUndefined()
    const error = await run(max + 1, { [limit]: max })
    expect(error).toBeInstanceOf(LimitError)
    expect(error).toMatchObject({ code: 'limit_exceeded', limit, max })
    expect((error as LLMError).message).toContain(limit)
    expect(await run(max + 1, { [limit]: max + 1 })).toBeUndefined()
  })
})

describe('time grows with the length of an answer, and no faster', () => {
  const x = (size: number) => 'x'.repeat(size)
  const deltas = (size: number, length: number) => [
    [start, inputStart('1')],
    ...pieces(`{"a":"${x(length)}"}`, size).map((piece) => [input('1', piece)]),
    [inputEnd('1'), finish()],
  ]
  const whole = (json: string) => [[start, ...call('1', json), finish()]]
  const workloads: Readonly<Record<string, readonly [number, (size: number) => (readonly StreamEvent[])[]]>> = {
    'deltas of one character': [8000, (size) => deltas(1, size)],
    'one large delta': [1_000_000, (size) => deltas(1e9, size)],
    depth: [60_000, (size) => whole('{"a":'.repeat(size) + '1' + '}'.repeat(size))],
    keys: [20_000, (size) => whole(`{${Array.from({ length: size }, (_, i) => `"k${i}":"v"`).join(',')}}`)],
    escapes: [50_000, (size) => whole(`{"a":"${'\\n\\u00e9'.repeat(size)}"}`)],
    'white space': [500_000, (size) => whole(`{"a":${' '.repeat(size)}1}`)],
    backslashes: [200_000, (size) => whole(`{"a":"${'\\\\'.repeat(size)}"}`)],
    digits: [400_000, (size) => whole(`{"b":${'1'.repeat(size)}}`)],
    'calls side by side': [
      1000,
      (size) => [
        [start, ...Array.from({ length: size }, (_, i) => inputStart(String(i)))],
        Array.from({ length: size }, (_, i) => input(String(i), '{"a":"x"}')),
        [...Array.from({ length: size }, (_, i) => inputEnd(String(i))), finish()],
      ],
    ],
    'elements of a list': [30_000, (size) => whole(`{"a":[${Array.from({ length: size }, () => '"x"').join(',')}]}`)],
    text: [8000, (size) => [[start], ...Array.from({ length: size }, () => [text('x')]), [finish('stop')]]],
  }
  const limits = { maxDepth: 1e6, maxToolCalls: 1e6, maxInputLength: 1e8 }

  test.each(Object.entries(workloads))('%s', async (_, [size, script]) => {
    const time = async (n: number): Promise<number> => {
      const played = script(n)
      const tools = [tool({ name: 'answer' })]
      const fields = { a: 'a', each: 'a[*]', any: '{key}' }
      // What this thread computed, not how long it took: other work on the machine is none of it.
      const begun = process.threadCpuUsage()
      const stream = streamOf(played, { tools, fields }, { limits })
      await stream.final()
      const { user, system } = process.threadCpuUsage(begun)
      return user + system
    }
    await time(size / 10)
    // Four times as much takes four times as long, or sixteen times where the cost grows with the length.
    let ratio = Infinity
    for (let tries = 0; tries < 5 && ratio > 8; tries++) {
      const once = Math.min(await time(size), await time(size))
      ratio = Math.min(await time(4 * size), await time(4 * size)) / once
    }
    expect(ratio).toBeLessThan(8)
  })
})

describe('every regular expression', () => {
  /** Those that read no more than so many characters, of more. */
  const bounded: Readonly<Record<string, number>> = {
    // An explanation.
    '/tool_choice|forc\\w+ tool/i': 1000,
    '/support\\w* (?:\\w+ )?tools?\\b|tools? .*not support/i': 1000,
    // The words of an error of the runtime.
    '/\\b([a-z][a-z0-9+.-]{0,20}:\\/\\/)[^\\s/?#"\']*@/gi': 10_000,
    '/(\\b[a-z][a-z0-9+.-]{0,20}:\\/\\/[^\\s?#"\']*)[?#][^\\s"\']*/gi': 10_000,
    '/\\b([\\w-]{0,40}(?:api-?key|authorization|token|cookie)["\']?\\s*[:=]\\s*)[^\\s]+/gi': 10_000,
    // What a runtime says of a header that the application set.
    '/headers?\\b.*invalid|invalid.*\\bheader|bytestring/is': 1000,
  }
  const found = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts') && !file.startsWith('testing'))
    .flatMap((file) => {
      const literals: string[] = []
      const visit = (node: ts.Node): void => {
        if (ts.isRegularExpressionLiteral(node)) literals.push(node.text)
        // What is put together cannot be tried here.
        if (ts.isNewExpression(node) && node.expression.getText() === 'RegExp') literals.push('/new RegExp/')
        ts.forEachChild(node, visit)
      }
      visit(ts.createSourceFile(file, readFileSync(join(root, 'src', file), 'utf8'), ts.ScriptTarget.ESNext, true))
      return literals
    })

  const million = 1_000_000
  /** Long texts made of what an expression looks for. */
  const attacksOn = (literal: string, length: number): string[] => {
    const words = literal.match(/[A-Za-z_]{2,}/g) ?? []
    const units = [
      ' ',
      'a',
      'a-',
      '1',
      '.',
      '\\',
      '"',
      '{',
      '}',
      '}]',
      '} ',
      '\\"',
      '\n',
      '\r\n',
      '😀',
      ...words,
      ...words.map((word) => `${word} `),
    ]
    return units.flatMap((unit) => {
      const long = unit.repeat(Math.floor(length / unit.length))
      return [long, `${long}!`, `x${long}`, `"${long}`, `}${long}x`, `data:${long}`, `.${long}`]
    })
  }

  test.each([...new Set(found)])('%s reads all it may get in no time', (literal) => {
    const end = literal.lastIndexOf('/')
    const expression = new RegExp(literal.slice(1, end), literal.slice(end + 1))
    for (const attack of attacksOn(literal, bounded[literal] ?? million)) {
      let best = Infinity
      for (let tries = 0; tries < 3 && best > 200; tries++) {
        const begun = performance.now()
        expression.exec(attack)
        best = Math.min(best, performance.now() - begun)
      }
      expect(best, `${literal} on ${JSON.stringify(attack.slice(0, 20))}…`).toBeLessThan(200)
    }
  })

  test('that takes longer is still in the code, and none is put together where it cannot be tried', () => {
    expect(found.length).toBeGreaterThan(15)
    expect(Object.keys(bounded).filter((literal) => !found.includes(literal))).toEqual([])
    expect(found).not.toContain('/new RegExp/')
  })
})

describe('no error shows a secret', () => {
  const secret = 'planted-secret'
  const printed = (error: unknown): string => {
    const texts: string[] = []
    for (let one = error; one !== undefined && one !== null; one = (one as Error).cause)
      texts.push(inspect(one, { depth: Infinity }), JSON.stringify(one), String((one as Error).stack))
    return texts.join('\n')
  }

  test.each(subjects.map((subject) => [subject.name, subject] as const))(
    'that stands in an address or a header: %s',
    async (_, subject) => {
      const address = `127.0.0.1:9/path?key=${secret}`
      for (const baseURL of [
        `http://${address}`,
        `http://user:${secret}@${address}`,
        `${secret}://x`,
        `http://${secret}:x`,
      ]) {
        const headers = { cookie: `a=${secret}`, 'x-goog-api-key': secret, authorization: `Bearer ${secret}` }
        const error = await watch(subject.create({ apiKey: secret, baseURL, headers }))
          .then((run) => run.error)
          .catch((thrown: unknown) => thrown)
        expect(isLLMError(error), String(error)).toBe(true)
        expect(printed(error)).not.toContain(secret)
      }
    },
  )
})

describe('a call is delivered only whole, valid and offered', () => {
  const answer = tool({ name: 'answer', input: z.object({ a: z.string() }) })
  const good = '{"a":"x"}'
  const cases: Readonly<Record<string, readonly StreamEvent[]>> = {
    'with a name that was not offered': [...call('1', good, 'other'), finish()],
    'with a name that every object has': [...call('1', good, 'constructor'), finish()],
    'against its schema': [...call('1', '{"a":1}'), finish()],
    'beside one against its schema': [...call('1', good), ...call('2', '{}'), finish()],
    'that is cut': [inputStart('1'), input('1', '{"a":"x'), inputEnd('1'), finish()],
    'that was not ended': [inputStart('1'), input('1', good), finish()],
    'that reached the token limit': [...call('1', good), finish('length')],
    'that was refused after all': [...call('1', good), finish('refusal')],
    'without the evidence': call('1', good),
    'with something after it': [...call('1', `${good}x`), finish()],
    'that is a list': [...call('1', `[${good}]`), finish()],
  }

  test.each(Object.entries(cases))('never %s', async (_, events) => {
    const heard = vi.fn()
    const stream = streamOf([[start, ...events]], { tools: [answer] }).on('tool-call', heard)
    const { items } = await collectUntilError(stream)
    expect(isLLMError(await rejectionOf(stream.final()))).toBe(true)
    expect(items.map(({ type }) => type)).not.toContain('tool-call')
    expect(heard).not.toHaveBeenCalled()
  })

  test('never after an abort', async () => {
    const heard = vi.fn()
    const stream = streamOf([[start], [...call('1', good)], [finish()]], { tools: [answer] }).on('tool-call', heard)
    stream.on('tool-input-end', () => stream.abort())
    expect(await rejectionOf(stream.final())).toMatchObject({ code: 'aborted' })
    expect(heard).not.toHaveBeenCalled()
  })

  test('never of an attempt that failed', async () => {
    let attempts = 0
    const stream = streamOf(
      // eslint-disable-next-line @typescript-eslint/require-await
      async function* () {
        yield [start, ...call(String(++attempts), good)]
        if (attempts === 1) throw new StreamError('stream_truncated', 'Cut.', { retryable: true })
        yield [finish()]
      },
      { tools: [answer], onInterrupted: 'restart' },
      { middleware: [retry({ baseDelay: 1 })] },
    )
    const events = await collect(stream)
    expect(events.filter(({ type }) => type === 'tool-call')).toMatchObject([{ toolCallId: '2' }])
  })
})

test('errors nested thousands deep are an error', async () => {
  for (const subject of subjects) {
    const body = '{"error":'.repeat(5000) + '{}' + '}'.repeat(5000)
    for (const status of [200, 500]) {
      const { error } = await watch(over(subject, { body, status, headers: { 'content-type': 'application/json' } }))
      expect(error!.code).toMatch(/^[a-z_]+$/)
    }
  }
})
