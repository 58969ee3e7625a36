import { DatabaseSync } from 'node:sqlite'
import type { Message } from 'fieldstream'
import type { ChatMessage } from './protocol.ts'

export const interrupted = { code: 'interrupted', message: 'The server was stopped while this was being written.' }

/** What the next answer is to know of one that was not completed: what the user saw of it. */
export function saidOf(content: string): Message[] {
  return content === '' ? [] : [{ role: 'assistant', content }]
}

/** The messages of all conversations, in one SQLite file. */
export class Messages {
  readonly #database: DatabaseSync

  constructor(file: string) {
    this.#database = new DatabaseSync(file)
    this.#database.exec(`
      PRAGMA journal_mode = WAL;
      PRAGMA synchronous = NORMAL;
      CREATE TABLE IF NOT EXISTS messages (
        position INTEGER PRIMARY KEY,
        message_id TEXT NOT NULL UNIQUE,
        conversation_id TEXT NOT NULL,
        message TEXT NOT NULL, -- as clients see it
        said TEXT NOT NULL -- as the model sees it
      );
      CREATE INDEX IF NOT EXISTS by_conversation ON messages (conversation_id, position);
    `)
    // Who was writing when the process ended will not go on.
    const left = this.#read("WHERE message ->> 'status' = 'streaming'")
    for (const message of left)
      this.update({ ...message, status: 'failed', error: interrupted }, saidOf(message.content))
  }

  add(message: ChatMessage, said: readonly Message[]): void {
    this.#database
      .prepare('INSERT INTO messages (message_id, conversation_id, message, said) VALUES (?, ?, ?, ?)')
      .run(message.message_id, message.conversation_id, JSON.stringify(message), JSON.stringify(said))
  }

  update(message: ChatMessage, said: readonly Message[]): void {
    this.#database
      .prepare('UPDATE messages SET message = ?, said = ? WHERE message_id = ?')
      .run(JSON.stringify(message), JSON.stringify(said), message.message_id)
  }

  get(messageId: string): ChatMessage | undefined {
    return this.#read('WHERE message_id = ?', messageId)[0]
  }

  last(conversationId: string): ChatMessage | undefined {
    return this.#read('WHERE conversation_id = ? ORDER BY position DESC LIMIT 1', conversationId)[0]
  }

  /** Those of a conversation that follow a message; all, where it has no such message. */
  after(conversationId: string, messageId = ''): ChatMessage[] {
    const position = 'SELECT position FROM messages WHERE message_id = ? AND conversation_id = ?'
    const condition = `WHERE conversation_id = ? AND position > coalesce((${position}), 0) ORDER BY position`
    return this.#read(condition, conversationId, messageId, conversationId)
  }

  /** The conversation as a model is told of it: with the calls and results of tools, and what only its provider understands. */
  history(conversationId: string): Message[] {
    return this.#database
      .prepare('SELECT said FROM messages WHERE conversation_id = ? ORDER BY position')
      .all(conversationId)
      .flatMap(({ said }) => JSON.parse(said as string) as Message[])
  }

  close(): void {
    this.#database.close()
  }

  #read(condition: string, ...values: string[]): ChatMessage[] {
    const rows = this.#database.prepare(`SELECT message FROM messages ${condition}`).all(...values)
    return rows.map(({ message }) => JSON.parse(message as string) as ChatMessage)
  }
}
