import { AbortedError, isLLMError, type Message } from 'fieldstream'
import type { WebSocket } from 'ws'
import { reasonsOf } from '../shared/read-body.ts'
import type { Agent } from './agents.ts'
import { framesOf, type Run, startRun } from './answer.ts'
import { textOf } from './chunks.ts'
import { interrupted, type Messages, saidOf } from './messages.ts'
import {
  type ChatMessage,
  clientFrame,
  type ClientFrame,
  type ErrorFrame,
  type ServerFrame,
  subject,
} from './protocol.ts'

type FrameOf<Type extends ClientFrame['type']> = Extract<ClientFrame, { readonly type: Type }>

const serverStops = 'the server stops'
/** A crash loses no more than was written within this time. */
const saveEveryMs = 1000
const mostConversations = 100

type Refuse = (code: ErrorFrame['code'], reason: string) => void

/** An answer that is being written. */
interface Answer {
  readonly run: Run
  readonly saved: Promise<ChatMessage>
}

/** One connection. */
class Client {
  readonly conversations = new Set<string>()
  /** The answers that are being sent to it. */
  readonly following = new Set<string>()
  readonly #socket: WebSocket

  constructor(socket: WebSocket) {
    this.#socket = socket
  }

  get isOpen(): boolean {
    return this.#socket.readyState === this.#socket.OPEN
  }

  /** Resolves when the frame is on its way, or never will be: who waits for it sends no faster than the client reads. */
  send(frame: ServerFrame): Promise<void> {
    return new Promise((resolve) => this.#socket.send(JSON.stringify(frame), () => resolve()))
  }
}

/** Conversations, who watches them, and the answers that are being written in them. */
export class Chat {
  readonly #agents: ReadonlyMap<string, Agent>
  readonly #messages: Messages
  readonly #clients = new Set<Client>()
  readonly #watchers = new Map<string, Set<Client>>()
  readonly #answers = new Map<string, Answer>()

  constructor(agents: readonly Agent[], messages: Messages) {
    this.#agents = new Map(agents.map((agent) => [agent.id, agent]))
    this.#messages = messages
  }

  /** `greeting` is what every client is told first. */
  connect(socket: WebSocket, greeting: readonly ServerFrame[]): void {
    const client = new Client(socket)
    this.#clients.add(client)
    socket.on('message', (data, isBinary) => this.#receive(client, isBinary ? '' : (data as Buffer).toString()))
    socket.on('error', () => socket.terminate()) // a frame that is too long, or no UTF-8
    socket.on('close', () => this.#leave(client))
    for (const frame of greeting) void client.send(frame)
  }

  tellAll(frame: ServerFrame): void {
    for (const client of this.#clients) void client.send(frame)
  }

  /** Stops all answers, and keeps what there is of them. */
  async close(): Promise<void> {
    const answers = [...this.#answers.values()]
    for (const { run } of answers) run.abort(serverStops)
    await Promise.all(answers.map(({ saved }) => saved))
  }

  #receive(client: Client, text: string): void {
    const json = parseJson(text)
    const refuse: Refuse = (code, reason) => void client.send({ type: 'error', code, reason, ...subject.parse(json) })
    if (json === undefined) return refuse('bad_request', 'The frame is not JSON.')
    const { success, data: frame, error } = clientFrame.safeParse(json)
    if (!success) return refuse('bad_request', reasonsOf(error))
    try {
      if (frame.type === 'stream_cancel') this.#answers.get(frame.message_id)?.run.abort('the user pressed stop')
      else if (!this.#watch(client, frame.conversation_id))
        refuse('bad_request', `A connection can watch ${mostConversations} conversations.`)
      else if (frame.type === 'join') this.#join(client, frame)
      else this.#answer(frame, refuse)
    } catch (problem) {
      console.error(problem)
      refuse('failed', 'The server could not do that. Try again.')
    }
  }

  /** Sends what the client has not seen of a conversation, each message once, and from now on what is said in it. */
  #join(client: Client, { conversation_id, seen }: FrameOf<'join'>): void {
    const found = seen && this.#messages.get(seen.message_id)
    const known = found?.conversation_id === conversation_id ? found : undefined
    if (known) this.#show(client, known, seen!.seq)
    for (const message of this.#messages.after(conversation_id, known?.message_id)) {
      if (message.status === 'streaming') {
        void client.send({ type: 'message_new', message: { ...message, content: '' } }) // its chunks follow
        this.#show(client, message, 0)
      } else void client.send({ type: 'message_new', message })
    }
  }

  #answer({ conversation_id, agent: agentId, content, message_id }: FrameOf<'message'>, refuse: Refuse): void {
    const agent = this.#agents.get(agentId)
    if (!agent) return refuse('bad_request', `There is no agent "${agentId}".`)
    if (message_id !== undefined && this.#messages.get(message_id)) return // came twice
    if (this.#messages.last(conversation_id)?.status === 'streaming')
      return refuse('busy', 'The answer before this one is still being written.')

    const common = { conversation_id, agent: agentId, created_at: new Date().toISOString() }
    const question: ChatMessage = {
      ...common,
      message_id: message_id ?? crypto.randomUUID(),
      role: 'user',
      content,
      status: 'complete',
    }
    const placeholder: ChatMessage = {
      ...common,
      message_id: crypto.randomUUID(),
      role: 'assistant',
      content: '',
      status: 'streaming',
    }
    this.#messages.add(question, [{ role: 'user', content }])
    const run = startRun(agent, this.#messages.history(conversation_id))
    this.#messages.add(placeholder, [])
    this.#answers.set(placeholder.message_id, { run, saved: this.#save(run, placeholder) })
    for (const watcher of this.#watchers.get(conversation_id) ?? []) {
      void watcher.send({ type: 'message_new', message: question })
      void watcher.send({ type: 'message_new', message: placeholder })
      this.#show(watcher, placeholder, 0)
    }
  }

  async #save(run: Run, placeholder: ChatMessage): Promise<ChatMessage> {
    const { said, ...end } = await read(run, (content) => this.#messages.update({ ...placeholder, content }, []))
    const message = { ...placeholder, ...end }
    try {
      this.#messages.update(message, said)
      return message
    } catch (problem) {
      console.error(problem)
      return { ...message, status: 'failed', error: { code: 'not_saved', message: 'The answer could not be saved.' } }
    } finally {
      this.#answers.delete(message.message_id)
    }
  }

  /** Sends what is to come of an answer behind the chunk `seq`; of one that is over, the message. */
  #show(client: Client, message: ChatMessage, seq: number): void {
    const answer = this.#answers.get(message.message_id)
    if (answer) void this.#follow(client, message.message_id, answer, seq)
    else void client.send({ type: 'message_update', message })
  }

  async #follow(client: Client, messageId: string, { run, saved }: Answer, seq: number): Promise<void> {
    if (client.following.has(messageId)) return
    client.following.add(messageId)
    for await (const frame of framesOf(run, messageId, seq, saved)) {
      if (!client.isOpen) break
      await client.send(frame)
    }
    client.following.delete(messageId)
  }

  /** Whether the client watches the conversation now. */
  #watch(client: Client, conversationId: string): boolean {
    if (client.conversations.has(conversationId)) return true
    if (client.conversations.size >= mostConversations) return false
    client.conversations.add(conversationId)
    const watchers = this.#watchers.get(conversationId)
    if (watchers) watchers.add(client)
    else this.#watchers.set(conversationId, new Set([client]))
    return true
  }

  #leave(client: Client): void {
    this.#clients.delete(client)
    for (const id of client.conversations) {
      const watchers = this.#watchers.get(id)!
      watchers.delete(client)
      if (watchers.size === 0) this.#watchers.delete(id)
    }
  }
}

/** Reads an answer to its end, for the message that is kept of it; `saveSoFar` gets its text now and then. */
async function read(
  run: Run,
  saveSoFar: (content: string) => void,
): Promise<Pick<ChatMessage, 'content' | 'status' | 'error'> & { said: readonly Message[] }> {
  let content = ''
  let timer: ReturnType<typeof setTimeout> | undefined
  const onTimer = (): void => {
    timer = undefined
    try {
      saveSoFar(content)
    } catch (problem) {
      console.error(problem)
    }
  }
  try {
    for await (const event of run.subscribe()) {
      content += textOf(event)
      timer ??= setTimeout(onTimer, saveEveryMs)
    }
    return { content, status: 'complete', said: (await run.final()).messages }
  } catch (cause) {
    const said = saidOf(content)
    if (cause instanceof AbortedError)
      return cause.reason === serverStops
        ? { content, status: 'failed', error: interrupted, said }
        : { content, status: 'cancelled', said }
    const error = isLLMError(cause) ? { code: cause.code, message: cause.message } : { code: 'internal', message: '' }
    return { content, status: 'failed', error, said }
  } finally {
    clearTimeout(timer)
  }
}

/** `undefined`, which no frame is, for what is not JSON. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
