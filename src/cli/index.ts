#!/usr/bin/env node
import { createRequire } from 'node:module'
import { CommandError, exitCodes } from './arguments.ts'
import type { Command } from './command.ts'
import { Output } from './output.ts'

/** Each is loaded when it is called. */
const commands: Readonly<Record<string, () => Promise<Command>>> = {
  conformance: async () => (await import('./conformance.ts')).conformance,
  record: async () => (await import('./record.ts')).record,
  replay: async () => (await import('./replay.ts')).replay,
}

const output = new Output()

async function main([name, ...args]: readonly string[]): Promise<number> {
  if (name === undefined || name === '--help' || name === '-h' || name === 'help') {
    const lines = await Promise.all(
      Object.entries(commands).map(async ([title, load]) => `  ${title.padEnd(13)}${(await load()).summary}`),
    )
    const text = `Usage: fieldstream <command> [options]\n\n${lines.join('\n')}\n\nfieldstream <command> --help says more, fieldstream --version which one this is.`
    if (name === undefined) throw new CommandError(text)
    output.print(text)
    return exitCodes.fine
  }
  if (name === '--version') {
    // Beside the bundle as beside the sources, the package's own name leads to its manifest.
    const { version } = createRequire(import.meta.url)('fieldstream/package.json') as { version: string }
    output.print(version)
    return exitCodes.fine
  }
  const load = Object.hasOwn(commands, name) ? commands[name] : undefined
  if (!load) throw new CommandError(`There is no command '${name}'. There are: ${Object.keys(commands).join(', ')}.`)
  const command = await load()
  if (args.some((arg) => arg === '--help' || arg === '-h')) {
    output.print(command.help)
    return exitCodes.fine
  }
  const stop = new AbortController()
  const onSignal = (): void => {
    // A second time is for what does not stop.
    if (stop.signal.aborted) process.exit(exitCodes.interrupted)
    stop.abort()
  }
  process.on('SIGINT', onSignal)
  process.on('SIGTERM', onSignal)
  try {
    return await command.run(args, output, stop.signal)
  } finally {
    process.off('SIGINT', onSignal)
    process.off('SIGTERM', onSignal)
  }
}

try {
  process.exitCode = await main(process.argv.slice(2))
} catch (error) {
  const isExpected = error instanceof CommandError
  output.tell(isExpected ? error.message : `This is a fault of fieldstream. ${String((error as Error).stack)}`)
  process.exitCode = isExpected ? error.exitCode : exitCodes.fault
}
