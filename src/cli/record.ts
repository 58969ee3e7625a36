import type { ServerResponse } from 'node:http'
import { finished } from 'node:stream/promises'
import { type Recording, recordFetch } from 'fieldstream/testing'
import { CommandError, exitCodes, readArguments, required, toBaseURL, toInteger } from './arguments.ts'
import type { Command } from './command.ts'
import { checkCanWrite, type Fixture, markOf, writeFixtures } from './fixtures.ts'
import { count, type Output, seconds } from './output.ts'
import { aborted, hopHeaders, type Incoming, respondError, serve, write } from './serve.ts'

const publicServices: Readonly<Record<string, string>> = {
  anthropic: 'https://api.anthropic.com',
  openai: 'https://api.openai.com/v1',
  'openai-chat': 'https://api.openai.com/v1',
  ollama: 'http://127.0.0.1:11434',
  gemini: 'https://generativelanguage.googleapis.com',
}

const help = `Usage: fieldstream record --out FILE (--provider NAME | --base-url URL) [options]

Listens on this machine, passes each request on to the real service and its answer
back as it comes, and writes the answers into a file that replayFetch() of
fieldstream/testing and 'fieldstream replay' take. It prints the address to use as base URL.

  --out FILE        where the recordings go; complete after every answer
  --base-url URL    the real service; default: the public one of --provider
  --provider NAME   ${Object.keys(publicServices).join(', ')}
  --count n         stops after so many answers; default: at Ctrl-C
  --port n          where to listen; default: any free port
  --overwrite       replaces the file where there is one

Requests are not written, but for their path and a hash of their body; keys and other
headers never are. Answers are, in full: look at them before you share the file.

Exit codes: 0 stopped by --count or Ctrl-C; 1 stopped since an answer could not be written;
2 wrong usage, or FILE cannot be written.`

export const record: Command = {
  summary: 'a proxy that keeps the answers of a service as fixtures',
  help,
  async run(args, output, signal) {
    const { values, positionals } = readArguments(args, {
      out: { type: 'string' },
      'base-url': { type: 'string' },
      provider: { type: 'string' },
      count: { type: 'string' },
      port: { type: 'string' },
      overwrite: { type: 'boolean' },
    })
    if (positionals.length > 0) throw new CommandError(`Unexpected argument '${positionals[0]!}'.`)
    if (values.provider !== undefined && !Object.hasOwn(publicServices, values.provider))
      throw new CommandError(`--provider must be one of: ${Object.keys(publicServices).join(', ')}.`)
    const service = values['base-url'] ?? (values.provider === undefined ? undefined : publicServices[values.provider])
    const given = required('record', { '--out': values.out, '--provider or --base-url': service })
    const file = given['--out']
    const base = new URL(toBaseURL(given['--provider or --base-url']))
    const most = values.count === undefined ? Infinity : toInteger('count', values.count, { min: 1 })
    const port = toInteger('port', values.port ?? '0', { max: 65_535 })
    checkCanWrite(file, values.overwrite ?? false)

    // By the order of requests, which is the order in which they are to be answered again.
    const fixtures: (Fixture | undefined)[] = []
    let written = 0
    let exitCode: number = exitCodes.fine
    const done = new AbortController()
    const ends = AbortSignal.any([signal, done.signal])
    const serving = await serve(port, async (request, response) => {
      const index = fixtures.push(undefined) - 1
      await forward(base, request, response, (recording) => {
        // What was under way at the end is half an answer that nobody cut.
        if (ends.aborted) return
        const fixture = toFixture(recording, request)
        if (!fixture) {
          output.tell(`${request.method} ${markOf(request).path}: not written, since it is no text`)
          return
        }
        const kept = fixtures.with(index, fixture).filter((one) => one !== undefined)
        try {
          writeFixtures(file, kept)
        } catch (error) {
          const { message, exitCode: unwritten } = error as CommandError
          output.tell(`${message} The recording ends without this answer.`)
          exitCode = unwritten
          done.abort()
          return
        }
        fixtures[index] = fixture
        written = kept.length
        tellOf(fixture, output)
        if (written >= most) done.abort()
      })
    })
    output.tell(`Forwards to ${base.origin}. Use as base URL:`)
    output.print(serving.origin + (base.pathname === '/' ? '' : base.pathname))
    await aborted(ends)
    serving.close()
    output.tell(written > 0 ? `${count(written, 'answer')} in ${file}` : 'Nothing was recorded.')
    return exitCode
  },
}

function tellOf({ status = 200, body, reads = [], delays = [], request }: Fixture, output: Output): void {
  const time = delays.reduce((total, delay) => total + delay, 0)
  output.tell(
    `${request!.method} ${request!.path}: ${status}, ${count(body.length, 'character')} in ${count(reads.length, 'read')}, ${seconds(time)}`,
  )
}

async function forward(
  base: URL,
  request: Incoming,
  response: ServerResponse,
  onRecording: (recording: Recording) => void,
): Promise<void> {
  const { method, path, headers: asked, body, signal } = request
  const root = base.pathname === '/' ? '/' : `${base.pathname}/`
  if (!path.startsWith(root) && path !== base.pathname) {
    respondError(response, 404, `This proxy passes on what begins with ${root}.`)
    return
  }
  const headers = new Headers(asked)
  for (const name of hopHeaders) headers.delete(name)
  // Compressed, an answer could not be kept as text.
  headers.set('accept-encoding', 'identity')
  const recordings: Recording[] = []
  const fetch = recordFetch({ onRecording: (recording) => void recordings.push(recording) })
  let answer: Response
  try {
    answer = await fetch(base.origin + path, {
      method,
      headers,
      redirect: 'manual',
      signal,
      ...(body.length > 0 && { body: new Uint8Array(body) }),
    })
  } catch {
    if (!signal.aborted) respondError(response, 502, `${base.host} cannot be reached.`)
    return
  }
  for (const [name, value] of answer.headers)
    if (!hopHeaders.includes(name) && name !== 'content-encoding') response.appendHeader(name, value)
  response.writeHead(answer.status)
  response.flushHeaders()
  try {
    for await (const bytes of answer.body ?? []) await write(response, bytes)
    // It has to be out before the connections are closed, should it be the last one.
    await finished(response.end())
  } finally {
    for (const recording of recordings) onRecording(recording)
  }
}

/** As text, and without what the request kept secret, should the service repeat it; `undefined` where it is no text. */
function toFixture({ body, ...rest }: Recording, request: Incoming): Fixture | undefined {
  let text: string
  try {
    // An answer that was left may end within a character, which then is dropped.
    text =
      typeof body === 'string'
        ? body
        : new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(body, { stream: true })
  } catch {
    return undefined
  }
  for (const secret of secretsOf(request)) text = text.replaceAll(secret, '*'.repeat(secret.length))
  return { ...rest, body: text, request: markOf(request) }
}

function secretsOf({ headers, path }: Incoming): string[] {
  const sent = [...headers, ...new URL(`http://localhost${path}`).searchParams]
  const values = sent.flatMap(([name, value]) => (/auth|key|token|cookie/i.test(name) ? [value] : []))
  return values.flatMap((value) => [value, ...value.split(/\s+/)]).filter((secret) => secret.length >= 8)
}
