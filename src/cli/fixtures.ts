import { createHash } from 'node:crypto'
import { existsSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import type { Recording } from 'fieldstream/testing'
import { CommandError, exitCodes } from './arguments.ts'

/** A recording, with what tells its request from others but not what it said. `replayFetch` takes it as any other. */
export type Fixture = Recording & { readonly request?: RequestMark }

export interface RequestMark {
  readonly method: string
  /** Without its query, which may hold a key. */
  readonly path: string
  /** The SHA-256 of its body. */
  readonly body: string
}

export function markOf({ method, path, body }: { method: string; path: string; body: Uint8Array }): RequestMark {
  return { method, path: path.replace(/\?.*$/s, ''), body: createHash('sha256').update(body).digest('hex') }
}

/** Writes all of them anew, so that the file is whole at any time. */
export function writeFixtures(file: string, fixtures: readonly Fixture[]): void {
  try {
    writeFileSync(partOf(file), `${JSON.stringify(fixtures, undefined, 2)}\n`)
    renameSync(partOf(file), file)
  } catch (error) {
    throw new CommandError(`Cannot write ${file}: ${codeOf(error)}.`, exitCodes.unwritten)
  }
}

/** Throws where the recordings could not be written, before there are any. Leaves what is there as it is. */
export function checkCanWrite(file: string, mayReplace: boolean): void {
  if (!mayReplace && existsSync(file)) throw new CommandError(`${file} exists; --overwrite replaces it.`)
  let isFolder: boolean
  try {
    isFolder = statSync(file, { throwIfNoEntry: false })?.isDirectory() ?? false
    writeFileSync(partOf(file), '')
    rmSync(partOf(file))
  } catch (error) {
    throw new CommandError(
      `Cannot write ${file}: ${codeOf(error)}. --out needs a folder that exists and that you may write to.`,
    )
  }
  if (isFolder) throw new CommandError(`${file} is a folder; --out names a file.`)
}

function partOf(file: string): string {
  return `${file}.part`
}

function codeOf(error: unknown): string {
  return (error as { code?: string }).code ?? 'unknown'
}

/** The recordings of a file; what is none is taken for the body of an answer. */
export function readFixtures(file: string): readonly Fixture[] {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    throw new CommandError(`Cannot read ${file}: ${codeOf(error)}.`)
  }
  if (text.trim() === '') throw new CommandError(`${file} is empty.`)
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return [{ body: text }]
  }
  const items: readonly unknown[] = Array.isArray(value) ? value : [value]
  if (items.length > 0 && items.every(isFixture)) return items
  if (Array.isArray(value)) throw new CommandError(`${file} holds a list, but not of recordings.`)
  return [{ body: text, headers: { 'content-type': 'application/json' } }]
}

function isFixture(value: unknown): value is Fixture {
  const { body, reads = [], delays = [], status = 200 } = (value ?? {}) as Partial<Recording>
  const areNumbers = (list: unknown): boolean =>
    Array.isArray(list) && list.every((number) => typeof number === 'number' && number >= 0)
  return (
    typeof body === 'string' &&
    areNumbers(reads) &&
    areNumbers(delays) &&
    Number.isInteger(status) &&
    status >= 200 &&
    status <= 599
  )
}
