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

/** Sessions in a Redis (`redis://…`), or in a file of a folder. A Redis that does not answer in `patience` milliseconds has failed. */
export function openSessions(place: string | URL, patience = 2000): Sessions {
  const isFolder = place instanceof URL
  if (isFolder) mkdirSync(place, { recursive: true })
  const store = isFolder
    ? new SqliteStore(fileURLToPath(new URL('sessions.sqlite', place)))
    : new ImpatientRedis(place, patience)
  // A conversation that cannot be read must not be taken for a new one.
  return new Keyv({ store, namespace: 'shopping', ttl: 30 * day, throwOnErrors: true })
}

/** A Redis that is down, or goes away, makes calls fail; they would wait for it otherwise. */
class ImpatientRedis extends KeyvRedis<unknown> {
  readonly #patience: number

  constructor(url: string, patience: number) {
    // What could not be sent in time is not sent later either, when the customer was told that it failed.
    const commandOptions = { timeout: patience }
    super({ url, commandOptions }, { connectionTimeout: patience, throwOnErrors: true })
    this.#patience = patience
  }

  override get<Value>(key: string): Promise<Value | undefined> {
    return this.#inTime(super.get<Value>(key))
  }

  override set(key: string, value: string, ttl?: number): Promise<void> {
    return this.#inTime(super.set(key, value, ttl))
  }

  override disconnect(force?: boolean): Promise<void> {
    if (force) return super.disconnect(force)
    return this.#inTime(super.disconnect()).catch(() => super.disconnect(true))
  }

  #inTime<Value>(answer: Promise<Value>): Promise<Value> {
    const late = Promise.withResolvers<never>()
    // A little more than the client has, whose own reasons say more.
    const timer = setTimeout(() => late.reject(new Error('Redis does not answer')), 1.5 * this.#patience)
    return Promise.race([answer, late.promise]).finally(() => clearTimeout(timer))
  }
}
