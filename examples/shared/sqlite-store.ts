import { DatabaseSync } from 'node:sqlite'

/** Keeps what a Keyv is given in a table of one SQLite file (`':memory:'` for none), with the SQLite that comes with Node. */
export class SqliteStore {
  /** Keyv keeps its settings here. */
  readonly opts = { dialect: 'sqlite' }
  readonly #database: DatabaseSync

  constructor(file: string) {
    this.#database = new DatabaseSync(file)
    // With a log of its own, SQLite need not wait for the disk each time to keep the file whole.
    this.#database.exec(
      'PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value TEXT)',
    )
  }

  get(key: string): unknown {
    return this.#database.prepare('SELECT value FROM entries WHERE key = ?').get(key)?.['value']
  }

  set(key: string, value: string): void {
    this.#database
      .prepare('INSERT INTO entries VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value')
      .run(key, value)
  }

  delete(key: string): boolean {
    return this.#database.prepare('DELETE FROM entries WHERE key = ?').run(key).changes > 0
  }

  clear(): void {
    this.#database.exec('DELETE FROM entries')
  }

  disconnect(): void {
    this.#database.close()
  }
}
