import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parse } from 'csv-parse/sync'
import { replayFetch, type ReplaySource, simulate } from 'fieldstream/testing'
import { afterAll, describe, expect, onTestFinished, test, vi } from 'vitest'

const root = join(import.meta.dirname, '../..')
const folder = mkdtempSync(join(tmpdir(), 'scripts-'))
afterAll(() => rmSync(folder, { recursive: true }))

const { ANTHROPIC_API_KEY: _, ...keyless } = process.env

function launch(script: string, words: readonly string[], env: NodeJS.ProcessEnv = {}): ChildProcess {
  const path = `examples/scripts/${script}`
  const child = spawn(process.execPath, ['--import', './scripts/use-sources.ts', path, ...words], {
    cwd: root,
    env: { ...keyless, ...env },
  })
  onTestFinished(() => void child.kill('SIGKILL'))
  return child
}

/** What it wrote to standard output and standard error, and its exit code. */
type Ended = readonly [out: string, errors: string, code: number | null]

/** A script from its beginning to its end, as a person runs it. */
async function run(script: string, words: readonly string[], input = '', env: NodeJS.ProcessEnv = {}): Promise<Ended> {
  const child = launch(script, words, env)
  child.stdin!.end(input)
  return ended(child)
}

async function ended(child: ChildProcess): Promise<Ended> {
  let out = ''
  let errors = ''
  child.stdout!.setEncoding('utf8').on('data', (text: string) => (out += text))
  child.stderr!.setEncoding('utf8').on('data', (text: string) => (errors += text))
  const [code] = (await once(child, 'close')) as [number | null]
  return [out, errors, code]
}

/** A service on this machine, by its environment variables, and how many of its answers were given up. */
async function service(source: ReplaySource) {
  const replay = replayFetch(source)
  const seen = { asked: 0, left: 0 }
  const server = createServer((request, response) => {
    seen.asked++
    response.on('close', () => {
      if (!response.writableEnded) seen.left++
    })
    void (async () => {
      const body = (await request.toArray()).join('')
      const answer = await replay(`http://service${request.url!}`, { method: 'POST', body })
      response.writeHead(answer.status, { 'content-type': answer.headers.get('content-type')! })
      for await (const chunk of answer.body!) {
        if (response.destroyed) return
        response.write(chunk)
      }
      response.end()
    })()
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    server.close()
    server.closeAllConnections()
  })
  const { port } = server.address() as AddressInfo
  return { seen, env: { ANTHROPIC_API_KEY: 'test', ANTHROPIC_BASE_URL: `http://127.0.0.1:${port}` } }
}

/** Reads a little of what a child writes, and closes the pipe, as `| head` does. */
async function closeEarly(child: ChildProcess): Promise<Ended> {
  child.stdin!.end()
  const [first] = (await once(child.stdout!.setEncoding('utf8'), 'data')) as [string]
  child.stdout!.destroy()
  const [, errors, code] = await ended(child)
  return [first, errors, code]
}

const words = 'word '.repeat(20_000)
const plan = { route: 'product', questions: Array.from({ length: 2000 }, (_, i) => ({ message: `Question ${i}?` })) }

test('each script is of one file that can be copied, and of 60 lines at most', () => {
  const scripts = readdirSync(join(root, 'examples/scripts')).filter((name) => name.endsWith('.ts'))
  expect(scripts.sort()).toEqual(['csv.ts', 'json-lines.ts', 'own-sdk.ts', 'print.ts'])
  for (const script of scripts) {
    const text = readFileSync(join(root, 'examples/scripts', script), 'utf8')
    expect(text.split('\n').length - 1).toBeLessThanOrEqual(60)
    expect(text).not.toMatch(/from '\./)
  }
})

describe('print.ts', () => {
  test('prints the answer to the question on the command line, and to one on standard input', async () => {
    const { env } = await service((request) => {
      const { messages } = request.body as { readonly messages: readonly { readonly content: unknown }[] }
      return simulate(`You asked: ${JSON.stringify(messages[0]!.content)}`)(request)
    })
    const [argued, piped] = await Promise.all([
      run('print.ts', ['Why', 'is it so?'], '', env),
      run('print.ts', [], 'Line 1\nLine 2', env),
    ])
    expect(argued).toEqual([expect.stringMatching(/^You asked: .*Why is it so\?.*\n$/), '', 0])
    expect(piped).toEqual([expect.stringMatching(/^You asked: .*Line 1\\nLine 2.*\n$/), '', 0])
  })

  test('needs no key, and writes in pieces', async () => {
    const child = launch('print.ts', ['Why?'])
    let pieces = 0
    child.stdout!.on('data', () => pieces++)
    const [out, errors, code] = await ended(child)
    expect([out, errors, code]).toEqual([expect.stringMatching(/^Air .* not\.\n$/), '', 0])
    expect(pieces).toBeGreaterThan(3)
  })

  test('ends quietly when its reader leaves, and says how it is used', async () => {
    const { env, seen } = await service(simulate(words, { delayMs: 2 }))
    const [left, wrong] = await Promise.all([closeEarly(launch('print.ts', ['Why?'], env)), run('print.ts', [])])
    expect(left).toEqual([expect.stringMatching(/^word/), '', 0])
    await vi.waitFor(() => expect(seen).toEqual({ asked: 1, left: 1 }))
    expect(wrong).toEqual(['', expect.stringMatching(/^Usage/), 2])
  })

  test('keeps what was written, and says what failed', async () => {
    const { env } = await service((request) => {
      const { body, ...rest } = simulate('Half an answer')(request)
      return { ...rest, body: (body as string).slice(0, -400), reads: [] }
    })
    const [out, errors, code] = await run('print.ts', ['Why?'], '', env)
    expect([out, code]).toEqual([expect.stringMatching(/^Half/), 1])
    expect(errors).toMatch(/^\nstream_truncated: /)
  })
})

describe('json-lines.ts', () => {
  test('writes each event as a line of JSON', async () => {
    const [out, errors, code] = await run('json-lines.ts', ['Chips'])
    expect([errors, code]).toEqual(['', 0])
    const events = out
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as Readonly<Record<string, unknown>>)
    expect(events.map(({ seq }) => seq)).toEqual(events.map((_, i) => i + 1))
    expect(events.at(0)!['type']).toBe('start')
    expect(events.at(-1)!['type']).toBe('finish')
    const values = events.filter(({ type }) => type === 'field-end').map(({ value }) => value)
    expect(values).toEqual(['product', 'How many guests?', 'Salty or\n"sweet"?'])
  })

  test('ends quietly when its reader leaves, and gives up the answer', async () => {
    const { env, seen } = await service(simulate(plan, { delayMs: 2 }))
    const [out, errors, code] = await closeEarly(launch('json-lines.ts', ['Chips'], env))
    expect([errors, code]).toEqual(['', 0])
    expect(out).toMatch(/^\{"type":"start"/)
    await vi.waitFor(() => expect(seen).toEqual({ asked: 1, left: 1 }))
  })

  test('writes an error as JSON to standard error, and nothing else there', async () => {
    const { env } = await service((request) => {
      const { body, ...rest } = simulate({ route: 'product', questions: [{ message: 'How many?' }] })(request)
      return { ...rest, body: (body as string).slice(0, -500), reads: [] }
    })
    const [out, errors, code] = await run('json-lines.ts', ['Chips'], '', env)
    expect(code).toBe(1)
    expect(JSON.parse(errors)).toMatchObject({ code: 'stream_truncated', provider: 'anthropic' })
    for (const line of out.trimEnd().split('\n')) expect(JSON.parse(line)).toHaveProperty('seq')
    expect(await run('json-lines.ts', [])).toEqual(['', expect.stringMatching(/^Usage/), 2])
  })
})

describe('csv.ts', () => {
  const rowsOf = (file: string): Readonly<Record<string, string>>[] => parse(readFileSync(file), { columns: true })
  const idsIn = (file: string): string[] =>
    rowsOf(file)
      .map(({ id }) => id!)
      .sort()

  test('classifies each row once, and does nothing when all is done', async () => {
    const output = join(folder, 'classified.csv')
    expect(await run('csv.ts', ['examples/scripts/reviews.csv', output])).toEqual(['', '', 0])
    expect(idsIn(output)).toEqual(['r1', 'r2', 'r3', 'r4', 'r5', 'r6', 'r7', 'r8'])
    expect(rowsOf(output).find(({ id }) => id === 'r2')).toEqual({ id: 'r2', topic: 'delivery', positive: 'false' })
    const before = readFileSync(output, 'utf8')
    expect(await run('csv.ts', ['examples/scripts/reviews.csv', output])).toEqual(['', '', 0])
    expect(readFileSync(output, 'utf8')).toBe(before)
  })

  test('lists the rows that failed, goes on with the others, and tries those again', async () => {
    const input = join(folder, 'bad.csv')
    const output = join(folder, 'bad-classified.csv')
    const rows = ['a,Crisp', 'b,one,too many', ',no id', 'd,', '"e, ""quoted""",Stale', 'f,unlucky', 'g,Late']
    writeFileSync(input, `\uFEFFid,text\n${rows.join('\n')}\n`)
    let isUnlucky = true
    const { env } = await service((request) => {
      const isBad = isUnlucky && JSON.stringify(request.body).includes('unlucky')
      return simulate(isBad ? 'no JSON' : '{"topic":"taste","isPositive":true}')(request)
    })
    const [, errors, code] = await run('csv.ts', [input, output], '', env)
    expect(code).toBe(1)
    expect(errors.trimEnd().split('\n').sort()).toEqual([
      expect.stringContaining('Invalid Record Length'),
      'a row without id: needs an id and a text',
      'd: needs an id and a text',
      'f: invalid_json',
    ])
    expect(idsIn(output)).toEqual(['a', 'e, "quoted"', 'g'])
    isUnlucky = false
    await run('csv.ts', [input, output], '', env)
    expect(idsIn(output)).toEqual(['a', 'e, "quoted"', 'f', 'g'])
  })

  test('goes on where it was killed, and loses and repeats nothing', async () => {
    const input = join(folder, 'many.csv')
    const output = join(folder, 'many-classified.csv')
    const ids = Array.from({ length: 60 }, (_, i) => `r${i}`)
    writeFileSync(input, `id,text\n${ids.map((id) => `${id},Crisp`).join('\n')}\n`)
    const child = launch('csv.ts', [input, output])
    await vi.waitFor(() => expect(existsSync(output) && idsIn(output).length > 5).toBe(true), { timeout: 30_000 })
    child.kill('SIGKILL')
    await once(child, 'close')
    const before = readFileSync(output, 'utf8')
    expect(idsIn(output).length).toBeLessThan(60)
    expect(await run('csv.ts', [input, output])).toEqual(['', '', 0])
    expect(readFileSync(output, 'utf8').startsWith(before)).toBe(true)
    expect(idsIn(output)).toEqual(ids.sort())
  })

  test('stops at once where the key is wrong, and says how it is used', async () => {
    const body = '{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}'
    const { env, seen } = await service({ body, status: 401, headers: { 'content-type': 'application/json' } })
    const input = join(folder, 'refused.csv')
    writeFileSync(input, `id,text\n${Array.from({ length: 60 }, (_, i) => `r${i},Crisp`).join('\n')}\n`)
    const [, errors, code] = await run('csv.ts', [input, join(folder, 'refused-classified.csv')], '', env)
    expect([errors, code]).toEqual([expect.stringContaining('authentication'), 1])
    expect(seen.asked).toBeLessThan(20)
    const wrong = await run('csv.ts', ['no-such-file.csv', 'x.csv'])
    expect(wrong).toEqual(['', expect.stringMatching(/^Usage/), 2])
    expect(existsSync(join(root, 'x.csv'))).toBe(false)
  })
})

describe('own-sdk.ts', () => {
  test("streams the fields of the SDK's own call, and then has it whole", async () => {
    const [out, errors, code] = await run('own-sdk.ts', [])
    expect([errors, code]).toEqual(['', 0])
    expect(out).toMatch(/^How many guests\?\nSalty or sweet\?\n\{\n {2}reasoning: 'Quantity decides\.'/)
  })

  test('fails where the stream ends before the end of the answer', async () => {
    const { env } = await service((request) => {
      const { body, ...rest } = simulate({ reasoning: '', ask_slots: [{ message: 'How many?' }] })(request)
      return { ...rest, body: (body as string).slice(0, (body as string).indexOf('event: message_stop')), reads: [] }
    })
    const [out, errors, code] = await run('own-sdk.ts', [], '', env)
    expect(out).toBe('How many?\n')
    expect(errors).toContain('Error')
    expect(code).toBe(1)
  })

  test('fails where the arguments are no JSON', async () => {
    const { env } = await service(simulate('{"ask_slots":[{"message":"How many?"}]', { tool: 'classify' }))
    const [out, errors, code] = await run('own-sdk.ts', [], '', env)
    expect([out, code]).toEqual(['How many?\n', 1])
    expect(errors).toContain('invalid_json')
  })
})
