import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { Recording } from 'fieldstream/testing'

/** A recorded response body, with the network reads it came in where those were kept. */
export interface RecordedAnswer extends Recording {
  /** The file's name without folder and ending. */
  readonly name: string
  readonly body: string
}

interface IndexEntry {
  readonly file: string
  readonly provider: string
  readonly reads?: readonly number[]
}

const folder = new URL('../../shared/recordings/', import.meta.url)

/** Whether the recordings lie beside this repository. Tests that need them are skipped where they do not. */
export const hasRecordings = existsSync(new URL('index.json', folder))

if (!hasRecordings) {
  console.warn(`No recorded provider streams in ${fileURLToPath(folder)}: the tests that replay them are skipped.`)
}

/** All recordings of one wire protocol; none where they are missing. */
export function recordingsOf(provider: string): RecordedAnswer[] {
  if (!hasRecordings) return []
  const index = JSON.parse(readFileSync(new URL('index.json', folder), 'utf8')) as IndexEntry[]
  return index
    .filter((entry) => entry.provider === provider)
    .map(({ file, reads }) => ({
      name: file.slice(file.indexOf('/') + 1, file.lastIndexOf('.')),
      body: readFileSync(new URL(file, folder), 'utf8'),
      ...(reads && { reads }),
    }))
}

/** One of them by its name. */
export function recordingOf(provider: string, name: string): RecordedAnswer {
  const found = recordingsOf(provider).find((recording) => recording.name === name)
  if (!found) throw new Error(`There is no recording "${name}" of ${provider}.`)
  return found
}
