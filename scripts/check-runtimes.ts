/**
 * `npm run check:runtimes`: tries the packed library in every runtime that it is said to run in, with the one scenario of
 * `compatibility/runtimes/scenario.mjs`, over real HTTP on the loopback. What is not installed is skipped with a notice; `--only`
 * takes the names of some, and `--write` puts the table into `docs/runtimes.md`.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { type AddressInfo, createServer as createSocketServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { parseArgs, promisify } from 'node:util'
import { build } from 'esbuild'
import { chromium } from 'playwright-core'
import { Consumer, installCompatibility, root } from './consumer.ts'

interface Outcome {
  readonly found?: readonly string[]
  readonly error?: string
}

interface Runtime {
  readonly name: string
  /** Undefined where it is not there. */
  readonly version: () => Promise<string | undefined>
  readonly tryIt: (serverURL: string) => Promise<Outcome>
}

interface Row {
  readonly name: string
  readonly version: string | undefined
  readonly outcome: Outcome | undefined
}

const { only = [], write } = parseArgs({
  options: { only: { type: 'string', multiple: true }, write: { type: 'boolean', default: false } },
}).values

const limitMs = 60_000
const compatibility = installCompatibility()
const consumer = new Consumer()
const children = new Set<ChildProcess>()

// ---------------------------------------------------------------------------------------------------------------- the server

const order = { route: 'product', parts: ['A party of twelve 🎉 needs "three" bags.', 'Nine of them are gluten free.'] }

/** Connections that never end by themselves, by model: whether the client has closed them. */
const endless = new Map<string, Promise<unknown>>()

/** Answers in Anthropic's wire format, as the model's name says: whole, in two steps, cut in the middle, or without an end. */
async function answer(request: IncomingMessage, response: ServerResponse, page: () => string): Promise<void> {
  const [, first, second] = (request.url ?? '').split('/')
  if (first === '')
    return void response.setHeader('content-type', 'text/html').end('<script type="module" src="/page.js"></script>')
  if (first === 'page.js') return void response.setHeader('content-type', 'text/javascript').end(page())
  if (first === 'closed') {
    const isClosed = await Promise.race([endless.get(second!), wait(2000, 'open')])
    return void response.end(isClosed === 'open' ? 'open' : 'closed')
  }
  if (first !== 'v1') return void response.writeHead(404).end()

  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  const body = JSON.parse(Buffer.concat(chunks).toString()) as { readonly model: string; readonly messages: unknown[] }
  const { model } = body
  const { simulate } = (await import(join(root, 'dist/testing.js'))) as typeof import('../src/testing/index.ts')
  const isSecondStep = model === 'steps' && body.messages.length > 1
  const recording = simulate(isSecondStep ? 'Two are ordered.' : order)({
    url: 'http://127.0.0.1/v1/messages',
    method: 'POST',
    headers: new Headers(),
    body,
  })
  const bytes = new TextEncoder().encode(recording.body as string)
  response.writeHead(200, { 'content-type': 'text/event-stream', connection: 'close' })
  if (model.startsWith('endless')) endless.set(model, once(response, 'close'))
  // So far the route and the beginning of the first part are written.
  const end = model === 'whole' || model === 'steps' ? bytes.length : Math.floor(bytes.length * 0.6)
  // Cut without regard for characters and events.
  for (let i = 0; i < end && !response.destroyed; i += 97) {
    response.write(bytes.subarray(i, Math.min(i + 97, end)))
    await wait(1)
  }
  if (!model.startsWith('endless')) response.end()
}

async function startServer(page: () => string): Promise<{ server: Server; url: string }> {
  const server = createServer(
    (request, response) => void answer(request, response, page).catch(() => response.destroy()),
  )
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return { server, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` }
}

// -------------------------------------------------------------------------------------------------------------- the runtimes

function bin(...path: string[]): string {
  return join(compatibility, 'node_modules', ...path)
}

async function printed(
  command: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<string> {
  const { stdout } = await promisify(execFile)(command, args, {
    cwd: consumer.folder,
    env: { ...process.env, DENO_NO_UPDATE_CHECK: '1', ...env },
    timeout: limitMs,
  })
  return stdout
}

/** A program that runs a file and has a `--version`. */
function program(name: string, path: string, args: readonly string[], file: string): Runtime {
  return {
    name,
    version: async () => (existsSync(path) ? /\d[\w.-]*/.exec(await printed(path, ['--version']))?.[0] : undefined),
    tryIt: async (serverURL) => JSON.parse(await printed(path, [...args, file], { SERVER_URL: serverURL })) as Outcome,
  }
}

function programs(name: string, path: string, ...args: string[]): Runtime[] {
  return [program(`${name}, ESM`, path, args, 'as-esm.mjs'), program(`${name}, CommonJS`, path, args, 'as-cjs.cjs')]
}

/** One file of an entry and all that it needs. Optional peers that nobody uses are not installed, and must not be missed. */
async function bundle(file: string, conditions: string[]): Promise<string> {
  const { outputFiles } = await build({
    entryPoints: [join(consumer.folder, file)],
    bundle: true,
    format: 'esm',
    platform: 'browser',
    conditions,
    target: 'es2022',
    write: false,
    logLevel: 'error',
  })
  return outputFiles[0]!.text
}

const chromiumPath = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find((path) =>
  existsSync(path),
)

const browser: Runtime = {
  name: 'Chromium',
  version: async () =>
    chromiumPath === undefined ? undefined : /\d[\d.]*/.exec(await printed(chromiumPath, ['--version']))?.[0],
  async tryIt(serverURL) {
    const launched = await chromium.launch({ executablePath: chromiumPath!, args: ['--no-sandbox'] })
    try {
      const page = await launched.newPage()
      await page.goto(serverURL)
      await page.waitForFunction('globalThis.result !== undefined', undefined, { timeout: limitMs })
      return JSON.parse(await page.evaluate<string>('globalThis.result')) as Outcome
    } finally {
      await launched.close()
    }
  },
}

async function freePort(): Promise<number> {
  const server = createSocketServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  await promisify(server.close.bind(server))()
  return port
}

async function untilAnswers(url: string, child: ChildProcess): Promise<Response> {
  for (const begin = Date.now(); ;) {
    try {
      return await fetch(url, { signal: AbortSignal.timeout(limitMs) })
    } catch (error) {
      if (child.exitCode !== null || Date.now() - begin > limitMs) throw error
      await wait(50)
    }
  }
}

const workerdPath = bin('workerd/bin/workerd')
const workerd: Runtime = {
  name: 'workerd',
  version: async () =>
    existsSync(workerdPath) ? (await printed(workerdPath, ['--version'])).replace('workerd ', '').trim() : undefined,
  async tryIt(serverURL) {
    consumer.write('worker.js', await bundle('worker.mjs', ['workerd', 'worker', 'browser']))
    const port = await freePort()
    consumer.write(
      'workerd.capnp',
      `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = .main), (name = "internet", network = (allow = ["local", "private"]))],
  sockets = [(name = "http", address = "127.0.0.1:${port}", http = (), service = "main")],
);
const main :Workerd.Worker = (
  modules = [(name = "worker.js", esModule = embed "worker.js")],
  bindings = [(name = "SERVER_URL", text = "${serverURL}")],
  compatibilityDate = "2026-01-01",
);
`,
    )
    const child = spawn(workerdPath, ['serve', 'workerd.capnp'], {
      cwd: consumer.folder,
      stdio: ['ignore', 'ignore', 'inherit'],
    })
    children.add(child)
    try {
      const url = `http://127.0.0.1:${port}`
      const lines = (await (await untilAnswers(url, child)).text()).trim().split('\n')
      const types = lines.map((line) => (JSON.parse(line) as { type: string }).type)
      if (types.at(-1) !== 'finish' || types.filter((type) => type === 'text-delta').length < 2)
        return { error: `a simulated answer is not streamed: ${types.join(' ')}` }
      const outcome = (await (await fetch(`${url}/scenario`)).json()) as Outcome
      return outcome.found ? { found: ['a simulated answer', ...outcome.found] } : outcome
    } finally {
      child.kill('SIGKILL')
      children.delete(child)
    }
  },
}

const runtimes: readonly Runtime[] = [
  ...['22.12', '22', '24', '26'].flatMap((version) => programs(`Node ${version}`, bin(`node-${version}`, 'bin/node'))),
  ...programs('Bun', bin('bun/bin/bun.exe')),
  ...programs(
    'Deno',
    bin('deno/deno'),
    'run',
    '--no-lock',
    '--allow-net',
    '--allow-env',
    '--allow-read',
    '--node-modules-dir=manual',
  ),
  browser,
  workerd,
]

// ------------------------------------------------------------------------------------------------------------------ the table

const wrong = only.filter((word) => !runtimes.some(({ name }) => name.toLowerCase().includes(word.toLowerCase())))
if (wrong.length > 0)
  throw new Error(`--only ${wrong.join(', ')}: choose from ${runtimes.map(({ name }) => name).join('; ')}.`)

const rows: Row[] = []
let page = ''
const { server, url } = await startServer(() => page)
try {
  const { filename } = consumer.pack()
  consumer.install(`./${filename}`, '@anthropic-ai/sdk')
  cpSync(join(root, 'compatibility/runtimes'), consumer.folder, { recursive: true })
  page = await bundle('in-page.mjs', ['browser'])
  for (const { name, version, tryIt } of runtimes) {
    if (only.length > 0 && !only.some((word) => name.toLowerCase().includes(word.toLowerCase()))) continue
    const found = await version().catch(() => undefined)
    endless.clear()
    const outcome =
      found === undefined ? undefined : await tryIt(url).catch((error: unknown): Outcome => ({ error: String(error) }))
    rows.push({ name, version: found, outcome })
    const result =
      outcome === undefined ? 'SKIPPED: it is not installed' : (outcome.error ?? `ok (${outcome.found!.length} things)`)
    console.log(`${name.padEnd(20)} ${(found ?? '').padEnd(16)} ${result}`)
  }
} finally {
  for (const child of children) child.kill('SIGKILL')
  server.closeAllConnections()
  server.close()
  consumer.remove()
}

if (rows.some(({ outcome }) => outcome?.error !== undefined)) process.exitCode = 1
console.log(`\nin each: ${rows.find(({ outcome }) => outcome?.found)?.outcome?.found?.join(', ') ?? 'nothing'}`)

if (write && process.exitCode !== 1) {
  const file = join(root, 'docs/runtimes.md')
  const [begin, end] = ['<!-- npm run check:runtimes -- --write -->', '<!-- /runtimes -->']
  const [before, rest] = readFileSync(file, 'utf8').split(begin) as [string, string]
  const tried = rows.filter(({ version }) => version !== undefined)
  const lines = tried.map(({ name, version }) => `| ${name} | ${version!} |`)
  const table = ['| runtime | version |', '| --- | --- |', ...lines].join('\n')
  writeFileSync(file, `${before}${begin}\n\n${table}\n\n${end}${rest.split(end)[1]!}`)
  await promisify(execFile)('npx', ['prettier', '--write', file], { cwd: root })
}
