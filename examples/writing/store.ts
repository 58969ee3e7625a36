import { rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { cache, type CacheStore, StreamingLLMClient } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { replayFetch, simulate } from 'fieldstream/testing'

export interface SqliteStore extends CacheStore {
  close(): void
}

/** Keeps answers in a file that survives the process, at most so many of them. */
export function sqliteStore(file: string, { most = 10_000 } = {}): SqliteStore {
  const database = new DatabaseSync(file, { timeout: 100 }) // another process may be writing: shorter than cache() waits
  database.exec(`
    PRAGMA journal_mode = WAL;
    CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, value TEXT NOT NULL, expires REAL NOT NULL);
    CREATE INDEX IF NOT EXISTS answers_expire ON answers (expires);
  `)
  const read = database.prepare('SELECT value FROM answers WHERE key = ? AND expires > ?')
  const write = database.prepare('INSERT OR REPLACE INTO answers VALUES (?, ?, ?)')
  const forgetOld = database.prepare('DELETE FROM answers WHERE expires <= ?')
  const forgetMost = database.prepare(
    'DELETE FROM answers WHERE rowid IN (SELECT rowid FROM answers ORDER BY rowid DESC LIMIT -1 OFFSET ?)',
  )
  return {
    get: (key) => read.get(key, Date.now())?.['value'],
    set(key, value, ttl = Infinity) {
      write.run(key, value, Date.now() + ttl)
      forgetOld.run(Date.now())
      forgetMost.run(most)
    },
    close: () => database.close(),
  }
}

if (import.meta.main) {
  // Without a key, answers in Anthropic's wire format go through the real SDK: two of them, for three questions.
  const answers = ['Salt and cold water.', 'Soap.'].map((text) => simulate(text))
  const fetch = process.env['ANTHROPIC_API_KEY'] ? undefined : replayFetch(answers)
  const file = join(tmpdir(), `answers-${process.pid}.sqlite`)

  async function ask(question: string): Promise<void> {
    const store = sqliteStore(file) // as after a restart
    const client = new StreamingLLMClient({
      provider: anthropic({ model: 'claude-haiku-4-5', fetch }),
      middleware: [cache({ store, ttl: 24 * 3_600_000, onError: (error) => console.error(error) })],
    })
    const { text, metrics } = await client.stream({ messages: [{ role: 'user', content: question }] }).final()
    console.log(`${metrics.cached ? 'kept' : 'asked'}: ${text}`)
    await new Promise((resolve) => setTimeout(resolve, 100)) // it is written after the answer was given
    store.close()
  }

  await ask('How do I get rid of red wine?')
  await ask('How do I get rid of ink?')
  await ask('How do I get rid of red wine?')
  for (const ending of ['', '-wal', '-shm']) rmSync(file + ending, { force: true })
}
