/** `npm run example <name>`: starts one of the applications in `examples/` and prints where it is. */
import { existsSync, readdirSync } from 'node:fs'
import { parseArgs } from 'node:util'
import type { Running } from '../examples/shared/serve.ts'

const examples = new URL('../examples/', import.meta.url)
const names = readdirSync(examples).filter((name) => existsSync(new URL(`${name}/server.ts`, examples)))
const usage = `npm run example <name> [-- --port 3000], with one of these names: ${names.join(', ')}`

function fail(message: string): never {
  console.error(`${message}\n${usage}`)
  process.exit(1)
}

function readArguments() {
  try {
    return parseArgs({ allowPositionals: true, options: { port: { type: 'string', default: '3000' } } })
  } catch (error) {
    return fail((error as Error).message)
  }
}

const { positionals, values } = readArguments()
const [name] = positionals
if (name === undefined || !names.includes(name)) fail(name === undefined ? 'Which?' : `There is no example "${name}".`)
const port = Number(values.port)
if (!Number.isInteger(port) || port < 0 || port > 65_535) fail(`"${values.port}" is no port.`)

const application = (await import(new URL(`${name}/server.ts`, examples).href)) as {
  start(options: { readonly port: number }): Promise<Running>
}
try {
  const running = await application.start({ port })
  console.log(`${name} is at ${running.address}   (Ctrl+C ends it)`)
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => void running.close().then(() => process.exit(0)))
} catch (error) {
  if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error
  fail(`Port ${port} is taken. Choose another with --port.`)
}
