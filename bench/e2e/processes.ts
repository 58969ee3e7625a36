import { type ChildProcess, fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { Commands } from './measure.ts'

const execArgv = ['--import', fileURLToPath(new URL('../../scripts/use-sources.ts', import.meta.url))]
// SDKs look for keys and addresses there, and some libraries report on themselves.
const env = {
  PATH: process.env['PATH'],
  NODE_NO_WARNINGS: '1',
  LANGSMITH_TRACING: 'false',
  DO_NOT_TRACK: '1',
}

function start(file: string, more: readonly string[] = []): ChildProcess {
  return fork(fileURLToPath(new URL(file, import.meta.url)), {
    execArgv: [...execArgv, ...more],
    env,
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
  })
}

/** Starts the server. It ends with this process. */
export async function startServer(): Promise<{ readonly address: string; stop(): void }> {
  const child = start('server.ts')
  child.stderr!.pipe(process.stderr)
  const address = await new Promise<string>((resolve, reject) => {
    child.once('message', (message) => resolve(message as string))
    child.once('exit', () => reject(new Error('The server ended.')))
  })
  return { address, stop: () => void child.kill() }
}

export class TookTooLong extends Error {}

/** A contestant in its own process. */
export class Runner {
  readonly #child: ChildProcess
  #errors = ''

  constructor(more: readonly string[] = []) {
    this.#child = start('measure.ts', ['--expose-gc', ...more])
    this.#child.stderr!.on('data', (text: Buffer) => (this.#errors = (this.#errors + text.toString()).slice(-2000)))
  }

  /** Has it do something. One that takes longer than `patience` is ended. */
  ask<Name extends keyof Commands>(
    command: Name,
    given: Parameters<Commands[Name]>,
    patience = 120_000,
  ): ReturnType<Commands[Name]> {
    return new Promise((resolve, reject) => {
      const child = this.#child
      const finish = (): void => {
        clearTimeout(timer)
        child.off('message', onMessage)
        child.off('exit', onExit)
      }
      const onMessage = (message: unknown): void => {
        finish()
        const { result, error } = message as { result?: unknown; error?: string }
        if (error === undefined) resolve(result as never)
        else reject(new Error(error))
      }
      const onExit = (): void => {
        finish()
        reject(new Error(`The process ended. ${this.#errors}`))
      }
      const timer = setTimeout(() => {
        finish()
        this.stop()
        reject(new TookTooLong(`${command} took longer than ${patience / 1000} s.`))
      }, patience)
      child.on('message', onMessage)
      child.once('exit', onExit)
      child.send({ command, given })
    }) as ReturnType<Commands[Name]>
  }

  stop(): void {
    this.#child.kill('SIGKILL')
  }
}
