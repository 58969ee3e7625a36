import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { Recording } from 'fieldstream/testing'

/** A recorded response body, with the network reads it came in where those were kept. */
export interface RecordedAnswer extends Recording {
  /** Its place among the recordings, without ending, e.g. `anthropic/redacted-thinking`. */
  readonly name: string
  readonly body: string
}

interface IndexEntry {
  readonly file: string
  readonly reads?: readonly number[]
}

const folder = new URL('../../shared/recordings/', import.meta.url)

/** Whether the recordings lie beside this repository. Tests that need them are skipped where they do not. */
export const hasRecordings = existsSync(new URL('index.json', folder))

if (!hasRecordings) {
  console.warn(`No recorded provider streams in ${fileURLToPath(folder)}: the tests that replay them are skipped.`)
}

const index = hasRecordings
  ? (JSON.parse(readFileSync(new URL('index.json', folder), 'utf8')) as readonly IndexEntry[])
  : []

const nameOf = (file: string): string => file.slice(0, file.lastIndexOf('.'))

/** The names of all there are. */
export const recordingNames: readonly string[] = index.map(({ file }) => nameOf(file))

/** All recordings in some folders; none where they are missing. */
export function recordingsIn(folders: readonly string[]): RecordedAnswer[] {
  return index
    .filter(({ file }) => folders.includes(file.slice(0, file.indexOf('/'))))
    .map(({ file, reads }) => ({
      name: nameOf(file),
      body: readFileSync(new URL(file, folder), 'utf8'),
      ...(reads && { reads }),
    }))
}

/** One by its name, in a list; an empty one where they are missing. */
export function recorded(name: string): RecordedAnswer[] {
  if (!hasRecordings) return []
  const found = recordingsIn([name.slice(0, name.indexOf('/'))]).filter((recording) => recording.name === name)
  if (found.length === 0) throw new Error(`There is no recording "${name}".`)
  return found
}
