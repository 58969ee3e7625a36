import { mkdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import KeyvRedis from '@keyv/redis'
import { Keyv } from 'keyv'
import { SqliteStore } from '../shared/sqlite-store.ts'
import type { ChatMessage } from './events.ts'
import type { Need } from './prompts.ts'

export interface Session {
  readonly messages: readonly ChatMessage[]
  /** What the customer looks for at present. */
  readonly need?: Need | undefined
  /** The detail that was asked for last, which the next message may tell. */
  readonly asked?: string | undefined
}

export type Sessions = Keyv<Session>

const day = 86_400_000

/** Sessions in a Redis (`redis://…`), or in a file of a folder. */
export function openSessions(place: string | URL): Sessions {
  const isFolder = place instanceof URL
  if (isFolder) mkdirSync(place, { recursive: true })
  const store = isFolder ? new SqliteStore(fileURLToPath(new URL('sessions.sqlite', place))) : new KeyvRedis(place)
  // A conversation that cannot be read must not be taken for a new one.
  const sessions: Sessions = new Keyv({ store, namespace: 'shopping', ttl: 30 * day, throwOnErrors: true })
  // Whoever asked is told, by what is thrown.
  return sessions.on('error', () => undefined)
}
