import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { type Provider, StreamingLLMClient, timeout } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { openaiChat } from 'fieldstream/openai'
import { type Recording, replayFetch, type ReplayRequest, simulate, type SimulateOptions } from 'fieldstream/testing'
import { afterEach, describe, expect, test } from 'vitest'
import { codeBlocks, readDocument, root } from './documents.ts'
import { rejectionOf, until } from './support.ts'

const cleanups: (() => unknown)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

// ---------------------------------------------------------------------------------------------------------------- command

interface Started {
  readonly child: ChildProcess
  readonly stdout: string
  readonly stderr: string
  /** Resolves with the exit code. */
  readonly ended: Promise<number | null>
}

/** Starts the command as a person does, in a process of its own. */
function start(args: readonly string[], env: Record<string, string> = {}): Started {
  const command = ['--import', './scripts/use-sources.ts', 'src/cli/index.ts', ...args]
  const child = spawn(process.execPath, command, { cwd: root, env: { PATH: process.env['PATH'], ...env } })
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve))
  const started = { child, stdout: '', stderr: '', ended }
  child.stdout.setEncoding('utf8').on('data', (text: string) => (started.stdout += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (started.stderr += text))
  cleanups.push(async () => {
    child.kill('SIGKILL')
    await ended
  })
  return started
}

async function run(args: readonly string[], env?: Record<string, string>) {
  const started = start(args, env)
  const exitCode = await started.ended
  return { exitCode, stdout: started.stdout, stderr: started.stderr }
}

// ----------------------------------------------------------------------------------------------------------------- server

type Name = NonNullable<SimulateOptions['provider']>
const names: readonly Name[] = ['anthropic', 'openai', 'openai-chat', 'ollama', 'gemini']

/** What a request is about. */
type Kind = 'text' | 'tools' | 'length' | 'output' | 'wrong-model'

interface Asked {
  readonly kind: Kind
  readonly headers: IncomingHttpHeaders
  readonly url: string
  readonly body: string
}

interface Answer {
  readonly status: number
  readonly headers: Record<string, string>
  /** The events of a stream, or the body. */
  readonly frames: readonly (string | Uint8Array)[]
  readonly firstDelayMs: number
  readonly delayMs: number
  /** What happens after the frames. */
  readonly end: 'close' | 'hang' | 'reset'
}

type Spoil = (answer: Answer, asked: Asked) => Partial<Answer> | undefined

const textAnswer = Array.from({ length: 12 }, (_, i) => `${i + 1}. Grüße aus Zürich, 你好, 😀.`).join('\n')
const note = 'A city of some size with a lake, and a river that leaves it. People like it there.'
const noteCalls = ['Zürich', '東京'].map((city) => ({ tool: 'save_note', input: { city, note } }))

function kindOf(url: string, body: string): Kind {
  if (`${url} ${body}`.includes('no-such-model')) return 'wrong-model'
  if (body.includes('save_note')) return 'tools'
  if (body.includes('capital_name')) return 'output'
  return /"(?:max_tokens|max_completion_tokens|max_output_tokens|num_predict|maxOutputTokens)":16\b/.test(body)
    ? 'length'
    : 'text'
}

function wellBehaved(provider: Name, kind: Kind): (request: ReplayRequest) => Recording {
  const timed = { provider, delayMs: 3 }
  switch (kind) {
    case 'tools':
      return simulate(noteCalls, timed)
    case 'output':
      return simulate({ capital_name: 'Bern', letter_count: 4 }, { ...timed, tool: 'any', toolInput: 'json' })
    case 'length':
      return simulate(textAnswer.slice(0, 60), { ...timed, finishReason: 'length' })
    case 'wrong-model':
      return () => {
        const body = JSON.stringify({ error: { message: 'There is no such model.', type: 'not_found_error' } })
        return { status: 404, headers: { 'content-type': 'application/json', 'x-request-id': 'r' }, body, reads: [] }
      }
    case 'text':
      return simulate(textAnswer, timed)
  }
}

/** A gateway that speaks a protocol, or does to it what `spoil` says. */
async function startGateway(provider: Name, spoil: Spoil = () => undefined) {
  const requests: Asked[] = []
  let closedEarly = 0
  const server = createServer((message, response) => {
    void (async () => {
      let body = ''
      for await (const piece of message) body += String(piece)
      const { url = '', headers } = message
      const asked = { kind: kindOf(url, body), headers, url, body }
      requests.push(asked)
      const request = { url, method: 'POST', headers: new Headers(), body: JSON.parse(body) as unknown }
      const recording = wellBehaved(provider, asked.kind)(request)
      const good: Answer = {
        status: recording.status ?? 200,
        headers: { ...recording.headers },
        frames: framesOf(recording),
        firstDelayMs: 0,
        delayMs: 5,
        end: 'close',
      }
      response.on('close', () => {
        if (!response.writableFinished) closedEarly++
      })
      await send({ ...good, ...spoil(good, asked) }, response)
    })()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  cleanups.push(() => {
    server.closeAllConnections()
    return new Promise((resolve) => server.close(resolve))
  })
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return {
    requests,
    baseURL: provider.startsWith('openai') ? `${origin}/v1` : origin,
    get closedEarly() {
      return closedEarly
    },
  }
}

function framesOf({ body, reads = [] }: Recording): string[] {
  const bytes = Buffer.from(body as string)
  let begin = 0
  const frames = reads.map((length) => bytes.subarray(begin, (begin += length)).toString())
  return begin < bytes.length ? [...frames, bytes.subarray(begin).toString()] : frames
}

async function send(
  { status, headers, frames, firstDelayMs, delayMs, end }: Answer,
  response: ServerResponse,
): Promise<void> {
  const pause = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds))
  await pause(firstDelayMs)
  response.writeHead(status, headers)
  response.flushHeaders()
  for (const [i, frame] of frames.entries()) {
    if (response.destroyed) return
    if (i > 0) await pause(delayMs)
    response.write(frame)
  }
  if (end === 'close') response.end()
  if (end === 'reset') {
    await pause(20)
    response.socket?.resetAndDestroy()
  }
}

interface Report {
  readonly exitCode: number
  readonly checks: readonly {
    readonly id: string
    readonly result: string
    readonly evidence: string
    readonly means: string
  }[]
}

interface Examined {
  readonly exitCode: number | null
  readonly report: Report
  readonly results: Record<string, string>
  readonly evidence: Record<string, string>
  readonly stderr: string
}

async function examine(
  provider: Name,
  { baseURL }: { baseURL: string },
  args: readonly string[] = [],
  env: Record<string, string> = {},
): Promise<Examined> {
  const usual = ['conformance', '--base-url', baseURL, '--provider', provider, '--model', 'model-a', '--json']
  const { exitCode, stdout, stderr } = await run([...usual, ...args], env)
  expect(stdout, stderr).not.toBe('')
  const report = JSON.parse(stdout) as Report
  expect(report.exitCode).toBe(exitCode)
  const pick = (name: 'result' | 'evidence') =>
    Object.fromEntries(report.checks.map((check) => [check.id, check[name]]))
  return { exitCode, report, stderr, results: pick('result'), evidence: pick('evidence') }
}

// ------------------------------------------------------------------------------------------------------------ conformance

/** Where nobody listens. */
const target = ['--base-url', 'http://127.0.0.1:9/v1', '--provider', 'openai-chat', '--model', 'm']

async function allIds(): Promise<string[]> {
  const { stderr } = await run(['conformance', ...target, '--only', 'none'])
  return stderr.replace(/^.*There are: |\.\n$/gs, '').split(', ')
}

describe.each(names)('a gateway that keeps to the protocol of %s', (provider) => {
  test('passes every check', async () => {
    const gateway = await startGateway(provider)
    const args = ['--api-key-env', 'SOME_KEY', '--header', 'x-team: planted-team']
    const env = { SOME_KEY: 'planted-key-0123456789', ANTHROPIC_AUTH_TOKEN: 'other-token', OPENAI_API_KEY: 'other-key' }
    const { exitCode, report, results, stderr } = await examine(provider, gateway, args, env)
    const { 'stream-errors': errors, ...others } = results
    expect(Object.entries(others).filter(([, result]) => result !== 'ok')).toEqual([])
    expect(errors).toBe('not shown')
    expect(exitCode).toBe(0)
    expect(Object.keys(results)).toEqual(await allIds())
    expect(report.checks.every(({ means }) => means.endsWith('.'))).toBe(true)

    expect(gateway.requests.map(({ kind }) => kind)).toEqual([
      'text',
      'text',
      'tools',
      'length',
      'output',
      'wrong-model',
      'text',
    ])
    expect(stderr).toContain('7 requests, 2592 output tokens at most')
    for (const { headers } of gateway.requests) {
      expect(JSON.stringify(headers)).toContain('planted-key-0123456789')
      expect(headers['x-team']).toBe('planted-team')
      expect(JSON.stringify(headers)).not.toContain('other-')
    }
    expect(JSON.stringify(report) + stderr).not.toContain('planted')
    await until(() => gateway.closedEarly === 1)
    expect(gateway.closedEarly, 'the aborted request').toBe(1)
  })
})

const without = (frames: Answer['frames'], part: string): Answer['frames'] =>
  frames.filter((frame) => !String(frame).includes(part))
const replaced = (frames: Answer['frames'], part: string | RegExp, by: string): Answer['frames'] =>
  frames.map((frame) => String(frame).replaceAll(part, by))
const of =
  (kinds: readonly Kind[], spoil: Spoil): Spoil =>
  (answer, asked) =>
    kinds.includes(asked.kind) ? spoil(answer, asked) : undefined
const html = { status: 200, headers: { 'content-type': 'text/html' }, frames: ['<html>Welcome</html>'] }
const inOneRead: Spoil = ({ frames }) => ({ frames: [frames.join('')], firstDelayMs: 300 })

/** What a gateway does, and what the checks must make of it. */
const faults: readonly (readonly [string, Name, Spoil, Record<string, string>])[] = [
  [
    'redirects',
    'openai-chat',
    () => ({ status: 307, headers: { location: '/elsewhere?key=secret' }, frames: [] }),
    { redirect: 'failed', answer: 'not shown', 'tool-calls': 'not shown' },
  ],
  [
    'sends another content type',
    'openai-chat',
    ({ headers }) => ({ headers: { ...headers, 'content-type': 'text/plain' } }),
    { 'content-type': 'failed', terminal: 'ok' },
  ],
  ['answers with a page', 'openai', () => html, { answer: 'failed', 'content-type': 'failed', streaming: 'not shown' }],
  [
    'holds the answer back',
    'anthropic',
    of(['text'], inOneRead),
    { streaming: 'hidden', answer: 'ok', abort: 'not shown' },
  ],
  [
    'sends the whole text in one event',
    'ollama',
    of(['text'], ({ frames }) => ({
      frames: [
        `${JSON.stringify({ model: 'model-a', message: { role: 'assistant', content: textAnswer }, done: false })}\n`,
        frames.at(-1)!,
      ],
    })),
    { streaming: 'hidden', answer: 'ok' },
  ],
  [
    'collects events into blocks',
    'openai-chat',
    of(['text'], ({ frames }) => ({ frames: [frames.slice(0, 22).join(''), frames.slice(22).join('')], delayMs: 200 })),
    { streaming: 'differs', answer: 'ok' },
  ],
  [
    'leaves out the last blank line',
    'anthropic',
    of(['text'], ({ frames }) => ({ frames: [...frames.slice(0, -1), String(frames.at(-1)).trimEnd()] })),
    { framing: 'hidden' },
  ],
  [
    'puts lines of its own between events',
    'openai-chat',
    ({ frames }) => ({ frames: frames.flatMap((frame) => ['keep going\n', frame]) }),
    { framing: 'differs', answer: 'ok' },
  ],
  [
    'sends an event that is no JSON',
    'openai-chat',
    ({ frames }) => ({ frames: [...frames.slice(0, 5), 'data: {"choices":\n\n', ...frames.slice(5)] }),
    { framing: 'failed', answer: 'failed' },
  ],
  [
    'damages characters',
    'openai',
    of(['text'], ({ frames }) => ({ frames: replaced(frames, /[ü你]/g, '\ufffd') })),
    { 'utf-8': 'failed' },
  ],
  [
    'cuts the answer off',
    'openai-chat',
    ({ frames }) => ({ frames: frames.slice(0, -4) }),
    { terminal: 'hidden', answer: 'failed', closing: 'not shown', length: 'hidden' },
  ],
  [
    'leaves out the farewell',
    'openai-chat',
    ({ frames }) => ({ frames: without(frames, '[DONE]') }),
    { terminal: 'differs', answer: 'ok' },
  ],
  [
    'leaves out the last event',
    'anthropic',
    ({ frames }) => ({ frames: without(frames, 'message_stop') }),
    { terminal: 'hidden', answer: 'failed' },
  ],
  [
    'leaves out the last event',
    'openai',
    ({ frames }) => ({ frames: without(frames, 'response.completed') }),
    { terminal: 'hidden', answer: 'failed' },
  ],
  [
    'leaves out the last line',
    'ollama',
    ({ frames }) => ({ frames: without(frames, '"done":true') }),
    { terminal: 'hidden', answer: 'failed' },
  ],
  [
    'leaves out the last event',
    'gemini',
    ({ frames }) => ({ frames: frames.slice(0, -1) }),
    { terminal: 'hidden', answer: 'failed' },
  ],
  [
    'breaks the connection',
    'openai-chat',
    ({ frames }) => ({ frames: frames.slice(0, 9), end: 'reset' }),
    { terminal: 'failed' },
  ],
  [
    'goes on after the end',
    'anthropic',
    ({ frames }) => ({ frames: [...frames, ...frames.slice(0, 4)] }),
    { 'data-after-end': 'failed' },
  ],
  [
    'says farewell twice',
    'openai',
    ({ frames }) => ({ frames: [...frames, 'data: [DONE]\n\n'] }),
    { 'data-after-end': 'differs', framing: 'ok' },
  ],
  [
    'never closes',
    'openai-chat',
    of(['text'], () => ({ end: 'hang' })),
    { closing: 'failed', answer: 'ok', terminal: 'ok' },
  ],
  [
    'keeps the usage for itself',
    'openai-chat',
    ({ frames }) => ({ frames: without(frames, 'prompt_tokens') }),
    { usage: 'hidden', answer: 'ok' },
  ],
  [
    'names no request id',
    'openai',
    ({ headers }) => ({ headers: { 'content-type': headers['content-type']! } }),
    { 'request-id': 'differs' },
  ],
  [
    'compresses unasked',
    'openai-chat',
    ({ headers, frames }) => ({
      headers: { ...headers, 'content-encoding': 'gzip' },
      frames: [gzipSync(frames.join(''))],
      firstDelayMs: 250,
    }),
    { compression: 'differs', streaming: 'hidden', answer: 'ok' },
  ],
  [
    'compresses where that is offered',
    'anthropic',
    ({ headers, frames }, { headers: asked }) =>
      String(asked['accept-encoding']).includes('gzip')
        ? { headers: { ...headers, 'content-encoding': 'gzip' }, frames: [gzipSync(frames.join(''))] }
        : undefined,
    { compression: 'differs', streaming: 'ok' },
  ],
  [
    'answers none but the SDK',
    'openai-chat',
    (_, { headers }) => (headers['x-stainless-lang'] === undefined ? { ...html, status: 403 } : undefined),
    { 'plain-client': 'differs', answer: 'ok' },
  ],
  [
    'knows no tools',
    'openai-chat',
    of(['tools'], () => ({
      frames: framesOf(
        simulate('No.', { provider: 'openai-chat' })({
          url: '',
          method: '',
          headers: new Headers(),
          body: { stream: true },
        }),
      ),
    })),
    { 'tool-calls': 'failed', 'tool-index': 'not shown' },
  ],
  [
    'gives all calls one index',
    'openai-chat',
    of(['tools'], ({ frames }) => ({
      frames: replaced(frames, '"tool_calls":[{"index":1', '"tool_calls":[{"index":0'),
    })),
    { 'tool-index': 'hidden' },
  ],
  [
    'merges two calls',
    'openai-chat',
    of(['tools'], ({ frames }) => ({
      frames: replaced(without(frames, 'call_simulated_2'), '"tool_calls":[{"index":1', '"tool_calls":[{"index":0'),
    })),
    { 'tool-index': 'hidden', 'tool-calls': 'failed' },
  ],
  [
    'leaves out the index',
    'openai-chat',
    of(['tools'], ({ frames }) => ({ frames: replaced(frames, /"tool_calls":\[\{"index":\d,/g, '"tool_calls":[{') })),
    { 'tool-index': 'hidden' },
  ],
  [
    'gives a block the index of another',
    'anthropic',
    of(['tools'], ({ frames }) => ({ frames: replaced(frames, '"index":1', '"index":0') })),
    { 'tool-index': 'hidden' },
  ],
  [
    'gives calls no id',
    'openai-chat',
    of(['tools'], ({ frames }) => ({ frames: replaced(frames, /"id":"call_simulated_\d"/g, '"id":""') })),
    { 'tool-ids': 'hidden' },
  ],
  [
    'gives two calls one id',
    'openai',
    of(['tools'], ({ frames }) => ({ frames: replaced(frames, 'call_simulated_2', 'call_simulated_1') })),
    { 'tool-ids': 'hidden' },
  ],
  [
    'sends arguments whole',
    'anthropic',
    of(['tools'], (_, { body }) => ({
      frames: framesOf(
        simulate(noteCalls, { deltaChars: 1000 })({
          url: '',
          method: '',
          headers: new Headers(),
          body: JSON.parse(body) as unknown,
        }),
      ),
    })),
    { 'tool-streaming': 'hidden', 'tool-calls': 'ok' },
  ],
  [
    'calls a limit an end',
    'openai-chat',
    of(['length'], ({ frames }) => ({ frames: replaced(frames, '"length"', '"stop"') })),
    { length: 'hidden' },
  ],
  [
    'keeps to no limit',
    'anthropic',
    of(['length'], ({ frames }) => ({
      frames: replaced(replaced(frames, '"max_tokens"', '"end_turn"'), /"output_tokens":\d+/g, '"output_tokens":700'),
    })),
    { length: 'failed' },
  ],
  [
    'passes over the schema',
    'openai',
    of(['output'], () => ({
      frames: framesOf(
        simulate('Bern has four letters.', { provider: 'openai' })({
          url: '',
          method: '',
          headers: new Headers(),
          body: { stream: true },
        }),
      ),
    })),
    { 'structured-output': 'failed' },
  ],
  [
    'writes JSON of another schema',
    'gemini',
    of(['output'], ({ frames }) => ({ frames: replaced(frames, 'letter', 'lettre') })),
    { 'structured-output': 'failed' },
  ],
  [
    'answers an error with 200',
    'openai-chat',
    of(['wrong-model'], () => ({ status: 200 })),
    { 'error-status': 'hidden', 'stream-errors': 'not shown' },
  ],
  [
    'answers for a model that does not exist',
    'ollama',
    of(['wrong-model'], (_, { body }) => {
      const { headers, ...recording } = simulate('Hello.', { provider: 'ollama' })({
        url: '',
        method: '',
        headers: new Headers(),
        body: JSON.parse(body) as unknown,
      })
      return { status: 200, headers: { ...headers }, frames: framesOf(recording) }
    }),
    { 'error-status': 'differs', 'error-body': 'not shown' },
  ],
  [
    'makes every error its own',
    'anthropic',
    of(['wrong-model'], () => ({ ...html, status: 502 })),
    { 'error-status': 'differs', 'error-body': 'differs' },
  ],
  [
    'says nothing about errors',
    'anthropic',
    of(['wrong-model'], () => ({ status: 404, headers: {}, frames: [] })),
    { 'error-status': 'ok', 'error-body': 'hidden' },
  ],
  [
    'reports an error in the stream',
    'openai-chat',
    of(['text'], ({ frames }) => ({
      frames: [...frames.slice(0, 5), 'data: {"error":{"type":"server_error","message":"upstream"}}\n\n'],
    })),
    { 'stream-errors': 'ok', answer: 'failed' },
  ],
  [
    'reports an error, and then an end as if there were none',
    'openai-chat',
    of(['text'], ({ frames }) => ({
      frames: [
        ...frames.slice(0, 5),
        'data: {"error":{"type":"server_error","message":"upstream"}}\n\n',
        ...frames.slice(-3),
      ],
    })),
    { 'stream-errors': 'hidden', answer: 'failed' },
  ],
]

describe('a gateway that', () => {
  test.each(faults)('%s (%s) is found out', async (_, provider, spoil, expected) => {
    const gateway = await startGateway(provider, spoil)
    const { exitCode, results, evidence } = await examine(provider, gateway, ['--only', Object.keys(expected).join()])
    expect(results, JSON.stringify(evidence)).toEqual(expected)
    const isHurt = Object.values(expected).some((result) => ['hidden', 'failed'].includes(result))
    expect(exitCode).toBe(isHurt ? 1 : 0)
  })

  test('does any of these is found out by a check of its own', async () => {
    const caught = new Set(
      faults.flatMap(([, , , expected]) =>
        Object.entries(expected)
          .filter(([, result]) => result !== 'ok')
          .map(([id]) => id),
      ),
    )
    const ids = await allIds()
    expect(ids.length).toBeGreaterThan(20)
    expect(ids.filter((id) => !caught.has(id))).toEqual([])
  })
})

test('the report is a table, with what it means where something is wrong', async () => {
  const { baseURL } = await startGateway('openai-chat', ({ frames }) => ({ frames: without(frames, 'prompt_tokens') }))
  const args = ['--base-url', baseURL, '--provider', 'openai-chat', '--model', 'model-a', '--only', 'usage,terminal']
  const { exitCode, stdout, stderr } = await run(['conformance', ...args])
  expect(exitCode).toBe(1)
  expect(stdout.split('\n')).toEqual([
    `openai-chat, ${baseURL}, model model-a`,
    '',
    'ok         terminal  finish_reason and [DONE]',
    'hidden     usage     none',
    '                     Without the count of tokens nobody knows what an answer costs.',
    '',
    '1 ok, 1 hidden',
    '',
  ])
  expect(stderr).toContain('1 request, 512 output tokens at most\nok         terminal\nhidden     usage\n')
})

test('its page shows a report as it is, and every check', async () => {
  const page = readDocument('docs/cli.md')
  const gateway = await startGateway('openai-chat', (answer, asked) => {
    if (asked.kind === 'wrong-model') return { status: 200 }
    if (asked.kind === 'tools')
      return { frames: replaced(answer.frames, '"tool_calls":[{"index":1', '"tool_calls":[{"index":0') }
    return { frames: without(without(answer.frames, 'prompt_tokens'), '[DONE]') }
  })
  const args = ['--base-url', gateway.baseURL, '--provider', 'openai-chat', '--model', 'model-a']
  const { exitCode, stdout } = await run(['conformance', ...args])
  expect(exitCode).toBe(1)
  const lines = (text: string): string[] =>
    text.split('\n').map((line) =>
      line
        .replaceAll(/https?:\S+,/g, 'ADDRESS,')
        .replaceAll(/, [\d.]+ in a read/g, '')
        .replaceAll(/\b\d+(?:\.\d+)? m?s\b|\d+/g, 'N')
        .trimEnd(),
    )
  const shown = codeBlocks(page, 'text').map(({ text }) => lines(text.trim()))
  expect(shown).toContainEqual(lines(stdout.trim()))
  for (const id of await allIds()) expect(page).toContain(`\n| \`${id}\``)
})

test('the key is not printed, even where the service repeats it', async () => {
  const spoil: Spoil = (_, { headers }) => ({
    status: 404,
    headers: {},
    frames: [JSON.stringify({ error: { message: `\u001b[2J${'x'.repeat(70)} ${headers.authorization!}` } })],
  })
  const gateway = await startGateway('openai-chat', of(['wrong-model'], spoil))
  const args = ['--only', 'error-body', '--api-key-env', 'SOME_KEY']
  const { report, stderr } = await examine('openai-chat', gateway, args, { SOME_KEY: 'planted-key-0123456789' })
  expect(gateway.requests.at(-1)!.headers.authorization).toContain('planted-key')
  const printed = JSON.stringify(report) + stderr
  expect(printed).toContain('***')
  expect(printed).not.toMatch(/planted|\\u001b/)
})

test('a key that nobody named is not sent', async () => {
  const gateway = await startGateway('anthropic')
  const env = { ANTHROPIC_API_KEY: 'other-key', ANTHROPIC_AUTH_TOKEN: 'other-token' }
  await examine('anthropic', gateway, ['--only', 'answer,compression'], env)
  expect(gateway.requests).toHaveLength(2)
  for (const { headers } of gateway.requests) {
    expect(headers['x-api-key']).toBeUndefined()
    expect(headers.authorization).toBeUndefined()
  }
})

describe('the exit code is', () => {
  const usual = ['conformance', ...target]

  test.each([
    ['no command', [], 'Usage: fieldstream <command>'],
    ['an unknown command', ['conform'], "There is no command 'conform'. There are: conformance, record, replay."],
    ['an unknown option', [...usual, '--loud'], "Unknown option '--loud'."],
    [
      'nothing to go by',
      ['conformance'],
      'Missing: --base-url; --provider; --model. See: fieldstream conformance --help',
    ],
    ['no address', ['conformance', '--provider', 'openai', '--model', 'm'], 'Missing: --base-url. See'],
    ['a password in the address', [...usual, '--base-url', 'https://a:b@gateway.example'], 'takes no user'],
    [
      'an unknown provider',
      [...usual, '--provider', 'other'],
      '--provider must be one of: anthropic, openai, openai-chat',
    ],
    ['an unknown check', [...usual, '--only', 'colour'], "There is no check 'colour'. There are: redirect,"],
    ['an unknown option of a provider', [...usual, '--option', 'colour=red'], '`colour`'],
    ['an option that the command sets', [...usual, '--option', 'client=1'], '--option cannot set `client`.'],
    ['a variable that is not set', [...usual, '--api-key-env', 'NO_SUCH_KEY'], 'NO_SUCH_KEY is not set'],
    ['a malformed header', [...usual, '--header', 'planted'], "--header takes 'name: value'."],
    ['a limit that is no number', [...usual, '--timeout', 'soon'], '--timeout must be a whole number'],
    ['nothing to record', ['record'], 'Missing: --out; --provider or --base-url. See: fieldstream record --help'],
    ['no file', ['record', '--provider', 'openai'], 'Missing: --out. See'],
    [
      'a file in no folder',
      ['record', '--provider', 'openai', '--out', 'no-such-folder/answers.json'],
      'Cannot write no-such-folder/answers.json: ENOENT. --out needs a folder that exists',
    ],
    [
      'a folder as file',
      ['record', '--provider', 'openai', '--out', 'tests', '--overwrite'],
      'tests is a folder; --out names a file.',
    ],
    ['nothing to replay', ['replay'], 'Missing: FILE. See: fieldstream replay --help'],
    [
      'an unknown pace',
      ['replay', 'package.json', '--pace', 'foo'],
      "--pace must be 'original', 'burst' or a whole number of milliseconds; got 'foo'.",
    ],
    ['no fixtures', ['replay', 'no-such-file.json'], 'Cannot read no-such-file.json: ENOENT.'],
    ['an unknown fault', ['replay', 'package.json', '--fault', 'slow'], '--fault must be cut@N'],
  ])('2 for wrong usage: %s', async (_, args, message) => {
    const { exitCode, stdout, stderr } = await run(args)
    expect(stderr).toContain(message)
    expect(stderr).not.toContain('planted')
    expect({ exitCode, stdout }).toEqual({ exitCode: 2, stdout: '' })
  })

  test('2 for what the provider would refuse, before anything is announced, with nothing in the words that only code can pass', async () => {
    const option = await run([...usual, '--option', 'colour=red'])
    expect(option.exitCode).toBe(2)
    expect(option.stderr).toMatch(/^openaiChat\(\) has no option `colour`\. Its options: [\w, ]+\.\n$/)
    expect(option.stderr).toContain('maxTokensName')
    expect(option.stderr).not.toMatch(/\b(client|fetch|baseURL)\b/)
    const hook = `import { registerHooks } from 'node:module'
      registerHooks({
        resolve(specifier, context, next) {
          if (specifier === 'openai') throw Object.assign(new Error('none'), { code: 'ERR_MODULE_NOT_FOUND' })
          return next(specifier, context)
        },
      })`
    const imported = `--import=data:text/javascript,${encodeURIComponent(hook)}`
    const sdk = await run(usual, { NODE_OPTIONS: imported })
    expect(sdk.exitCode).toBe(2)
    expect(sdk.stderr).toMatch(/^openaiChat\(\) needs the official SDK: `npm install openai@\S+`\.\n$/)
  })

  test('3 where nobody listens, or the key or the model is refused', async () => {
    const refused = await run(usual)
    expect(refused.exitCode).toBe(3)
    expect(refused.stderr).toContain('Could not connect to 127.0.0.1:9: ')
    const status = { value: 401 }
    const { baseURL } = await startGateway('openai-chat', () => ({
      status: status.value,
      headers: {},
      frames: ['{"error":{"message":"Who?"}}'],
    }))
    const unauthorized = await run([...usual, '--base-url', baseURL])
    expect(unauthorized.exitCode).toBe(3)
    expect(unauthorized.stderr).toContain('answered with status 401: the key was refused')
    expect(unauthorized.stderr).toContain('It said: “Who?”')
    status.value = 404
    const unknown = await run([...usual, '--base-url', baseURL])
    expect(unknown.exitCode).toBe(3)
    expect(unknown.stderr).toContain('check --base-url and --model')
  })

  test('3 where no answer comes in time', async () => {
    const { baseURL } = await startGateway('openai-chat', () => ({ firstDelayMs: 5000 }))
    const { exitCode, stderr } = await run([...usual, '--base-url', baseURL, '--timeout', '300'])
    expect(exitCode).toBe(3)
    expect(stderr).toContain('no answer within the time')
  })

  test('130 after Ctrl-C, with a report of what was done', async () => {
    const { baseURL } = await startGateway(
      'openai-chat',
      of(['tools'], () => ({ firstDelayMs: 20_000 })),
    )
    const command = start([...usual, '--base-url', baseURL])
    await until(() => command.stderr.includes('plain-client'), 20_000)
    command.child.kill('SIGINT')
    expect(await command.ended).toBe(130)
    expect(command.stdout).toMatch(/^ok +plain-client +the same$/m)
    expect(command.stdout).not.toContain('tool-calls')
    expect(command.stderr).toContain('Stopped.')
  })

  test('0 for help, which says them all', async () => {
    const all = await run(['--help'])
    expect(all).toMatchObject({ exitCode: 0, stderr: '' })
    expect(all.stdout).toContain('fieldstream --version')
    for (const name of ['conformance', 'record', 'replay']) {
      expect(all.stdout).toContain(`  ${name}`)
      const { exitCode, stdout } = await run([name, '--help'])
      expect(exitCode).toBe(0)
      expect(stdout).toContain(`Usage: fieldstream ${name}`)
      expect(stdout).toMatch(/Exit codes: 0 .*2\s+wrong usage/s)
      if (name === 'conformance') {
        const codes = [...readDocument('docs/cli.md').matchAll(/^\| (\d+) +\|/gm)].map(([, code]) => code!)
        expect(codes).toContain('70')
        for (const code of codes) expect(stdout).toMatch(new RegExp(`[ \\n]${code} \\w`))
        expect(stdout).toContain('7 requests')
        for (const id of await allIds()) expect(stdout).toContain(id)
      }
    }
  })
})

test('--version prints that of the package', async () => {
  const { version } = JSON.parse(readDocument('package.json')) as { version: string }
  expect(await run(['--version'])).toEqual({ exitCode: 0, stdout: `${version}\n`, stderr: '' })
})

// ------------------------------------------------------------------------------------------------------- record and replay

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), 'fieldstream-cli-'))
  cleanups.push(() => rmSync(path, { recursive: true }))
  return path
}

/** Starts a command that listens, and returns the address it prints. */
async function listen(args: readonly string[]): Promise<Started & { readonly address: string }> {
  const command = start(args)
  await until(() => command.stdout.includes('\n'), 20_000)
  expect(command.stdout, command.stderr).toMatch(/^http:\/\/127\.0\.0\.1:\d+\S*\n$/)
  return Object.assign(command, { address: command.stdout.trim() })
}

const chat = (options: { baseURL?: string; fetch?: typeof globalThis.fetch }) =>
  openaiChat({ model: 'model-a', apiKey: 'planted-key-0123456789', ...options })

const ask = (provider: Provider, content = 'Hello', limits = {}) =>
  new StreamingLLMClient({ provider, middleware: [timeout(limits)] }).stream({ messages: [{ role: 'user', content }] })

describe('record', () => {
  test('passes answers on as they come, and keeps them for replayFetch', async () => {
    const file = join(folder(), 'answers.json')
    const gateway = await startGateway('openai-chat')
    const { address, ...command } = await listen([
      'record',
      '--out',
      file,
      '--base-url',
      gateway.baseURL,
      '--count',
      '2',
    ])
    expect(address).toMatch(/\/v1$/)
    let seenBeforeTheEnd = 0
    for await (const { type } of ask(chat({ baseURL: address }))) if (type === 'text-delta') seenBeforeTheEnd++
    expect(seenBeforeTheEnd).toBeGreaterThan(20)
    const second = await ask(chat({ baseURL: address }), 'Again').final()
    expect(await command.ended).toBe(0)

    expect(gateway.requests).toHaveLength(2)
    for (const { headers, url } of gateway.requests) {
      expect(url).toBe('/v1/chat/completions')
      expect(headers.authorization).toContain('planted-key')
    }
    const written = readFileSync(file, 'utf8')
    expect(written).not.toMatch(/planted|authorization|Hello|Again/)
    const recordings = JSON.parse(written) as Recording[]
    expect(recordings).toHaveLength(2)
    expect(recordings[0]!.reads!.length).toBeGreaterThan(10)
    const fetch = replayFetch(recordings, { delayMs: 0 })
    expect((await ask(chat({ fetch })).final()).text).toBe(textAnswer)
    expect((await ask(chat({ fetch })).final()).text).toBe(second.text)
  })

  test('keeps answers in the order of their requests', async () => {
    const file = join(folder(), 'answers.json')
    const slow: Spoil = ({ frames }, { body }) =>
      body.includes('slow') ? { firstDelayMs: 400, frames: replaced(frames, 'Gr', 'SLOW') } : undefined
    const { baseURL } = await startGateway('openai-chat', slow)
    const { address, ended } = await listen(['record', '--out', file, '--base-url', baseURL, '--count', '2'])
    const first = ask(chat({ baseURL: address }), 'slow').final()
    await new Promise((resolve) => setTimeout(resolve, 100))
    await Promise.all([first, ask(chat({ baseURL: address })).final()])
    expect(await ended).toBe(0)
    const recordings = JSON.parse(readFileSync(file, 'utf8')) as Recording[]
    expect(recordings.map(({ body }) => String(body).includes('SLOW'))).toEqual([true, false])
  })

  test('keeps errors too, without a key that they repeat, and stops at Ctrl-C', async () => {
    const file = join(folder(), 'answers.json')
    const { baseURL } = await startGateway('openai-chat', (_, { headers }) => ({
      status: 401,
      headers: { 'content-type': 'application/json', 'set-cookie': 'planted=1' },
      frames: [JSON.stringify({ error: { message: `No such key: ${headers.authorization!.replace('Bearer ', '')}` } })],
    }))
    const command = await listen(['record', '--out', file, '--base-url', baseURL])
    const { address, child, ended } = command
    expect(await rejectionOf(ask(chat({ baseURL: address })).final())).toMatchObject({ code: 'authentication' })
    await until(() => command.stderr.includes('chat/completions') || child.exitCode !== null, 1000)
    child.kill('SIGINT')
    expect(await ended).toBe(0)
    const written = readFileSync(file, 'utf8')
    expect(written).not.toContain('planted')
    const fetch = replayFetch(JSON.parse(written) as Recording[])
    expect(await rejectionOf(ask(chat({ fetch })).final())).toMatchObject({ code: 'authentication', status: 401 })
  })

  test('goes nowhere but to its service, and replaces no file unasked', async () => {
    const file = join(folder(), 'answers.json')
    const gateway = await startGateway('openai-chat')
    const { address } = await listen(['record', '--out', file, '--base-url', gateway.baseURL])
    const { status } = await fetch(new URL('/admin', address))
    expect(status).toBe(404)
    expect(gateway.requests).toEqual([])
    writeFileSync(file, '[]')
    const again = await run(['record', '--out', file, '--base-url', gateway.baseURL])
    expect(again.exitCode).toBe(2)
    expect(again.stderr).toContain('--overwrite')
  })

  test('leaves nothing behind where nothing was recorded', async () => {
    const path = folder()
    const { child, ended } = await listen(['record', '--out', join(path, 'a.json'), '--provider', 'openai'])
    child.kill('SIGINT')
    expect(await ended).toBe(0)
    expect(readdirSync(path)).toEqual([])
  })

  test('says at once that an answer could not be written, and keeps those before it', async () => {
    const file = join(folder(), 'answers.json')
    const { baseURL } = await startGateway('openai-chat')
    const command = await listen(['record', '--out', file, '--base-url', baseURL, '--count', '3'])
    const { address } = command
    expect((await ask(chat({ baseURL: address })).final()).text).toBe(textAnswer)
    await until(() => command.stderr.includes('200'), 1000)
    // In the way of the next write.
    mkdirSync(`${file}.part`)
    expect((await ask(chat({ baseURL: address })).final()).text).toBe(textAnswer)
    expect(await command.ended).toBe(1)
    const [failure, kept] = command.stderr.trim().split('\n').slice(-2)
    expect(failure).toBe(`Cannot write ${file}: EISDIR. The recording ends without this answer.`)
    expect(kept).toBe(`1 answer in ${file}`)
    expect(JSON.parse(readFileSync(file, 'utf8'))).toHaveLength(1)
  })

  test('keeps what came from a path that is no address by itself', async () => {
    const file = join(folder(), 'answers.json')
    const { baseURL } = await startGateway('anthropic')
    const { address, ended } = await listen(['record', '--out', file, '--base-url', baseURL, '--count', '1'])
    await fetch(`${address}//`, { method: 'POST', body: '{"stream":true}' }).then((response) => response.text())
    expect(await ended).toBe(0)
    expect(JSON.parse(readFileSync(file, 'utf8'))).toMatchObject([{ request: { path: '//' } }])
  })

  test('breaks off where the service does', async () => {
    const file = join(folder(), 'answers.json')
    const { baseURL } = await startGateway('openai-chat', ({ frames }) => ({
      frames: frames.slice(0, 9),
      end: 'reset',
    }))
    const { address } = await listen(['record', '--out', file, '--base-url', baseURL])
    const response = await fetch(`${address}/chat/completions`, { method: 'POST', body: '{"stream":true}' })
    expect(await rejectionOf(response.text())).toBeInstanceOf(TypeError)
    await until(() => existsSync(file))
    const [recording] = JSON.parse(readFileSync(file, 'utf8')) as Recording[]
    expect(String(recording!.body).split('\n\n')).toHaveLength(10)
  })

  test('says so where the service cannot be reached', async () => {
    const file = join(folder(), 'answers.json')
    const { address } = await listen(['record', '--out', file, '--base-url', 'http://127.0.0.1:9/v1'])
    expect(await rejectionOf(ask(chat({ baseURL: address })).final())).toMatchObject({ status: 502 })
  })
})

describe('replay', () => {
  const request = { url: '', method: 'POST', headers: new Headers(), body: { stream: true } }
  const recordingOf = (text: string, delayMs = 0) => simulate(text, { provider: 'openai-chat', delayMs })(request)

  function fixtures(value: unknown): string {
    const file = join(folder(), 'answers.json')
    writeFileSync(file, typeof value === 'string' ? value : JSON.stringify(value))
    return file
  }

  test('answers in order, and begins again', async () => {
    const { address, child, ended } = await listen(['replay', fixtures([recordingOf('One.'), recordingOf('Two.')])])
    const texts: string[] = []
    for (let i = 0; i < 3; i++) texts.push((await ask(chat({ baseURL: address })).final()).text)
    expect(texts).toEqual(['One.', 'Two.', 'One.'])
    child.kill('SIGINT')
    expect(await ended).toBe(0)
  })

  test('takes a body as it is, and serves pages of any origin', async () => {
    const { address } = await listen(['replay', fixtures(recordingOf('As it is.').body), '--cors'])
    expect((await ask(chat({ baseURL: address })).final()).text).toBe('As it is.')
    const preflight = await fetch(address, {
      method: 'OPTIONS',
      headers: { 'access-control-request-headers': 'authorization' },
    })
    expect(preflight.status).toBe(204)
    expect(preflight.headers.get('access-control-allow-headers')).toBe('authorization')
    expect((await fetch(address)).headers.get('access-control-allow-origin')).toBe('*')
  })

  test('listens for each piece only until the client has taken it', async () => {
    const reads = Array.from({ length: 30 }, () => 100_000)
    const body = 'x'.repeat(30 * 100_000)
    const command = await listen(['replay', fixtures([{ body, reads }])])
    expect((await fetch(command.address).then((response) => response.text())).length).toBe(body.length)
    command.child.kill('SIGINT')
    await command.ended
    expect(command.stderr).not.toContain('MaxListenersExceededWarning')
  })

  test('finds the answer to the same request', async () => {
    const file = join(folder(), 'answers.json')
    const byQuestion: Spoil = ({ frames }, { body }) => ({
      frames: replaced(frames, 'Gr', body.includes('red') ? 'RED' : 'BLUE'),
    })
    const { baseURL } = await startGateway('anthropic', byQuestion)
    const recorder = await listen(['record', '--out', file, '--base-url', baseURL, '--count', '2'])
    const claude = (address: string) => anthropic({ model: 'model-a', apiKey: 'planted', baseURL: address })
    for (const question of ['red', 'blue']) await ask(claude(recorder.address), question).final()
    await recorder.ended
    const { address } = await listen(['replay', file, '--match', 'request', '--pace', 'burst'])
    for (const question of ['blue', 'red', 'blue'])
      expect((await ask(claude(address), question).final()).text).toContain(question.toUpperCase())
    expect(await rejectionOf(ask(claude(address), 'green').final())).toMatchObject({ code: 'not_found' })
  })

  test('keeps the pace of the recording, or another', async () => {
    const file = fixtures([recordingOf('x'.repeat(8 * 10), 60)])
    const timeFor = async (...args: string[]): Promise<{ total: number; first: number }> => {
      const { address } = await listen(['replay', file, ...args])
      await fetch(address).then((response) => response.text())
      const from = performance.now()
      const response = await fetch(address)
      let first: number | undefined
      for await (const _ of response.body!) first ??= performance.now() - from
      return { total: performance.now() - from, first: first! }
    }
    const original = await timeFor()
    expect(original.total).toBeGreaterThan(590)
    expect(original.first).toBeLessThan(original.total / 2)
    expect((await timeFor('--pace', 'burst')).total).toBeLessThan(original.total / 2)
    expect((await timeFor('--pace', '80')).total).toBeGreaterThan(800)
  })

  test.each([
    ['cut@300', 'stream_truncated'],
    ['reset@300', 'stream_truncated'],
    ['stall@300', 'timeout'],
    ['error', 'server_error'],
    ['error@429', 'rate_limited'],
  ])('fails as it is told to: %s', async (fault, code) => {
    const file = fixtures([recordingOf('A text that is long enough to be cut somewhere.')])
    const { address } = await listen(['replay', file, '--fault', fault, '--fault-times', '1'])
    const first = ask(chat({ baseURL: address }), 'Hello', { idle: 300 })
    expect(await rejectionOf(first.final())).toMatchObject({ code })
    expect((await ask(chat({ baseURL: address })).final()).text).toContain('long enough')
  })

  test.each([
    ['cut@300', 300],
    ['reset@300', undefined],
  ])('%s can be told from other ends', async (fault, length) => {
    const file = fixtures([recordingOf('A text that is long enough to be cut somewhere.')])
    const { address } = await listen(['replay', file, '--fault', fault])
    const body = fetch(address).then((response) => response.bytes())
    expect(await body.then((bytes) => bytes.length).catch(() => undefined)).toBe(length)
  })
})
