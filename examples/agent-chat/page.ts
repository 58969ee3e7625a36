import type { AgentDescription, AgentLatency, ChatMessage, ClientFrame, ServerFrame, StreamFrame } from './protocol.ts'

const byId = (id: string) => document.getElementById(id)!
const list = byId('messages')
const text = byId('text') as HTMLTextAreaElement

const suggestions: Readonly<Record<string, string>> = {
  planner: 'Trains from Vienna to Rome?',
  accountant: 'What is 120 EUR in DKK?',
  guide: 'How is Lisbon in October?',
  packer: 'Pack for 4 cold nights',
}

function element<Tag extends keyof HTMLElementTagNameMap>(tag: Tag, className = '', content = '') {
  const made = document.createElement(tag)
  made.className = className
  made.textContent = content
  return made
}

// ------------------------------------------------------------------------------------------------------------- messages

/** A message as it is shown. */
class MessageView {
  message: ChatMessage
  /** Of the last chunk. */
  seq = 0
  /** Whether the server is not known to have it. */
  isSending: boolean
  /** Whether the user wants no more of it, which the server is not known to have heard. */
  isStopping = false
  readonly item = element('li')
  readonly #by = element('p', 'by')
  readonly #content = element('div')
  readonly #note = element('p', 'note')
  readonly #tools = new Map<
    string,
    { readonly row: HTMLElement; readonly label: Text; readonly bar: HTMLProgressElement }
  >()

  constructor(message: ChatMessage, isSending = false) {
    this.message = message
    this.isSending = isSending
    this.item.append(message.role === 'assistant' ? this.#by : element('span', 'unseen', 'You: '))
    this.item.append(this.#content, this.#note)
    this.show()
  }

  update(message: ChatMessage): void {
    this.message = message
    this.isSending = false
    this.show()
  }

  add({ chunk, metadata }: StreamFrame): void {
    this.seq = metadata.seq
    this.message = { ...this.message, content: this.message.content + chunk }
    if (metadata.type === 'tool-call') this.#showTool(metadata.tool_call_id, metadata.tool)
    else if (metadata.type === 'tool-progress') {
      const { ratio, note } = metadata.value as { readonly ratio: number; readonly note: string }
      const { label, bar } = this.#showTool(metadata.tool_call_id, metadata.tool)
      label.data = `${metadata.tool}: ${note}`
      bar.value = ratio
    } else if (metadata.type === 'tool-result' || metadata.type === 'tool-error')
      this.#tools.get(metadata.tool_call_id)?.row.remove()
    this.show()
  }

  show(): void {
    const { role, content, status, error, agent } = this.message
    const isWriting = status === 'streaming'
    const shown = content.trim().replace(/\n{3,}/g, '\n\n')
    this.item.className = `message ${role}`
    this.item.classList.toggle('sending', this.isSending)
    this.item.ariaBusy = String(isWriting)
    const { name = agent, provider = '', model = '' } = agents.get(agent) ?? {}
    this.#by.replaceChildren(element('b', '', name), ` · ${provider} ${model}`)
    const isThinking = isWriting && shown === ''
    this.#content.className = isThinking ? 'thinking' : isWriting ? 'writing' : ''
    this.#content.textContent = isThinking ? `${name} is thinking…` : shown
    this.#content.hidden = !isWriting && shown === ''
    this.#note.className = `note ${status}`
    const notes = {
      streaming: this.isStopping ? 'Stopping…' : '',
      complete: '',
      cancelled: 'Stopped.',
      failed: `The answer broke off. ${error?.message ?? ''}`,
    }
    this.#note.textContent = notes[status]
    this.#note.hidden = this.#note.textContent === ''
    if (!isWriting) for (const { row } of this.#tools.values()) row.remove()
  }

  #showTool(id: string, name: string) {
    let tool = this.#tools.get(id)
    if (!tool) {
      const row = element('div', 'tool')
      const label = new Text(name)
      const bar = element('progress')
      bar.ariaLabel = name
      row.append(label, bar)
      this.#note.before(row)
      this.#tools.set(id, (tool = { row, label, bar }))
    }
    return tool
  }
}

const agents = new Map<string, AgentDescription>()
const views = new Map<string, MessageView>()

function keepAtBottom(change: () => void): void {
  const page = document.documentElement
  const isAtBottom = page.scrollHeight - page.clientHeight - page.scrollTop < 80
  change()
  if (isAtBottom) page.scrollTop = page.scrollHeight
}

function put(message: ChatMessage, isSending = false): void {
  const known = views.get(message.message_id)
  if (known) {
    // Said once, when it is whole.
    if (known.message.status === 'streaming' && message.status !== 'streaming')
      byId('announcement').textContent = `${agents.get(message.agent)?.name ?? ''}: ${message.content}`
    // What others said meanwhile stands before what had to be sent again.
    if (known.isSending) list.append(known.item)
    known.update(message)
  } else {
    const view = new MessageView(message, isSending)
    views.set(message.message_id, view)
    list.append(view.item)
  }
  showState()
}

/** The answer that is being written in this conversation. */
function writing(): MessageView | undefined {
  return [...views.values()].findLast(({ message }) => message.status === 'streaming')
}

function showState(): void {
  const answer = writing()
  byId('empty').hidden = views.size > 0
  byId('send').hidden = answer !== undefined && isOpen()
  byId('stop').hidden = answer === undefined || answer.isStopping
}

function complain(problem: string): void {
  byId('problem').textContent = problem
  byId('problem').hidden = problem === ''
}

// --------------------------------------------------------------------------------------------------------------- agents

let limitMs = 500
/** Since when an agent is waited for; how long it was, until the server has measured it. */
const waitingSince = new Map<string, number>()
const waited = new Map<string, number>()
let latencies = new Map<string, AgentLatency>()

function showAgents(described: readonly AgentDescription[]): void {
  if (agents.size > 0) return
  for (const agent of described) {
    agents.set(agent.id, agent)
    const { id, name, task, provider, model } = agent
    const card = element('label', 'agent')
    card.id = `agent-${id}`
    const input = element('input')
    Object.assign(input, { type: 'radio', name: 'agent', value: id, checked: agents.size === 1 })
    card.title = task
    const time = element('span', 'time')
    time.append(element('span', 'what', 'First byte: '), element('b'))
    const bar = element('progress')
    bar.ariaHidden = 'true'
    card.append(
      input,
      element('b', 'name', name),
      element('span', 'alerts'),
      element('span', 'provider', provider),
      element('span', 'model', model),
      time,
      bar,
    )
    byId('agents').append(card)
    const question = suggestions[id] ?? task
    const suggestion = element('button', '', question)
    suggestion.type = 'button'
    suggestion.onclick = () => {
      input.checked = true
      ask(question)
    }
    byId('suggestions').append(suggestion)
  }
  for (const view of views.values()) view.show()
}

function inMs(time: number | undefined): string {
  return time === undefined ? '–' : `${Math.round(time)} ms`
}

/** What was measured, as a table. */
function showMeasured(): void {
  byId('limit').textContent = inMs(limitMs)
  const rows = Array.from(agents.values(), ({ id, name }) => {
    const { first_byte_ms, first_byte_median_ms, chunk_p95_ms, alerts = 0 } = latencies.get(id) ?? {}
    const row = element('tr')
    const head = element('th', '', name)
    head.scope = 'row'
    const cells = [...[first_byte_ms, first_byte_median_ms, chunk_p95_ms].map(inMs), `${alerts}×`]
    row.append(head, ...cells.map((cell) => element('td', '', cell)))
    return row
  })
  byId('measured').replaceChildren(...rows)
}

function showLatency(): void {
  const now = performance.now()
  for (const id of agents.keys()) {
    const { first_byte_ms, alerts = 0 } = latencies.get(id) ?? {}
    const time = waitingSince.has(id) ? now - waitingSince.get(id)! : (waited.get(id) ?? first_byte_ms)
    const card = byId(`agent-${id}`)
    card.classList.toggle('slow', time !== undefined && time > limitMs)
    card.querySelector('.time b')!.textContent = inMs(time)
    card.querySelector('.alerts')!.textContent = alerts > 0 ? `⚠ ${alerts}×` : ''
    card.querySelector('progress')!.value = Math.min((time ?? 0) / (2 * limitMs), 1)
  }
  if (waitingSince.size > 0) setTimeout(showLatency, 100)
}

function chosenAgent(): string {
  return byId('agents').querySelector<HTMLInputElement>('input:checked')?.value ?? ''
}

// ----------------------------------------------------------------------------------------------------------- connection

const conversation = location.hash.slice(1) || crypto.randomUUID()
history.replaceState(null, '', `#${conversation}`)
addEventListener('hashchange', () => location.reload())

let socket: WebSocket
let failures = 0
let retryTimer: ReturnType<typeof setTimeout> | undefined
/** What the server is not known to have. */
let unsent: (Extract<ClientFrame, { type: 'message' }> & { readonly message_id: string }) | undefined

function connect(): void {
  clearTimeout(retryTimer)
  const opened = new WebSocket(`${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/chat`)
  socket = opened
  opened.onopen = () => {
    failures = 0
    document.body.classList.remove('lost')
    byId('connection').textContent = 'Connected'
    const last = [...views.values()].findLast(({ isSending }) => !isSending)
    const seen = last && { message_id: last.message.message_id, seq: last.seq }
    send({ type: 'join', conversation_id: conversation, ...(seen && { seen }) })
    const answer = writing()
    if (answer?.isStopping) sendStop(answer)
    sendUnsent()
    showState()
  }
  opened.onmessage = ({ data }) => {
    if (opened === socket) keepAtBottom(() => receive(JSON.parse(data as string) as ServerFrame))
  }
  opened.onclose = () => {
    if (opened !== socket) return
    // All who were cut off at once should not come back at once.
    const delay = Math.min(500 * 2 ** failures++, 15_000) * (0.5 + Math.random() / 2)
    document.body.classList.add('lost')
    byId('connection').textContent = `Connection lost. Trying again in ${Math.ceil(delay / 1000)} s…`
    retryTimer = setTimeout(connect, delay)
    showState()
  }
}

function isOpen(): boolean {
  return socket.readyState === WebSocket.OPEN
}

function send(frame: ClientFrame): void {
  if (isOpen()) socket.send(JSON.stringify(frame))
}

function sendStop({ message }: MessageView): void {
  send({ type: 'stream_cancel', message_id: message.message_id })
}

/** A question that was asked without a connection waits until the page knows that the answer before it is over. */
function sendUnsent(): void {
  if (unsent && !writing()) send(unsent)
}

function receive(frame: ServerFrame): void {
  switch (frame.type) {
    case 'agents':
      limitMs = frame.limit_ms
      showAgents(frame.agents)
      showMeasured()
      showLatency()
      showState()
      return
    case 'latency':
      for (const { agent, runs } of frame.agents) if (runs !== latencies.get(agent)?.runs) waited.delete(agent)
      latencies = new Map(frame.agents.map((latency) => [latency.agent, latency]))
      showMeasured()
      showLatency()
      return
    case 'message_new':
    case 'message_update': {
      const { message } = frame
      if (message.message_id === unsent?.message_id) unsent = undefined
      if (message.status === 'streaming') waitingSince.set(message.agent, performance.now())
      else if (message.role === 'assistant') waitingSince.delete(message.agent)
      put(message)
      if (frame.type === 'message_update') sendUnsent()
      showLatency()
      return
    }
    case 'message_stream': {
      const view = views.get(frame.message_id)
      const since = view && waitingSince.get(view.message.agent)
      if (view && since !== undefined) {
        waitingSince.delete(view.message.agent)
        waited.set(view.message.agent, performance.now() - since)
      }
      view?.add(frame)
      return
    }
    case 'error':
      complain(frame.reason)
      if (!unsent || frame.message_id !== unsent.message_id) return
      // Given back, to be sent again.
      views.get(unsent.message_id)?.item.remove()
      views.delete(unsent.message_id)
      text.value = [unsent.content, text.value].filter(Boolean).join('\n')
      unsent = undefined
      showState()
      return
    default:
      frame satisfies never
  }
}

// ----------------------------------------------------------------------------------------------------------------- user

function ask(content: string): void {
  if (content === '') return
  if (unsent) return complain('Your last question still waits to be sent.')
  if (writing() && isOpen())
    return complain('The answer before this one is still being written. Wait for it, or stop it.')
  complain('')
  const frame = {
    type: 'message',
    conversation_id: conversation,
    agent: chosenAgent(),
    content,
    message_id: crypto.randomUUID(),
  } as const
  unsent = frame
  put({ ...frame, role: 'user', status: 'complete', created_at: new Date().toISOString() }, true)
  scrollTo(0, document.documentElement.scrollHeight)
  sendUnsent()
  text.value = ''
  text.focus()
}

function stop(): void {
  const view = writing()
  if (view) {
    view.isStopping = true
    view.show()
    sendStop(view)
    showState()
  }
  text.focus()
}

byId('composer').onsubmit = (event) => {
  event.preventDefault()
  ask(text.value.trim())
}
byId('stop').onclick = stop
text.onkeydown = (event) => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return
  event.preventDefault()
  ask(text.value.trim())
}
addEventListener('keydown', (event) => {
  // Escape also ends the choice of an input method, and closes the table.
  if (event.key === 'Escape' && !event.isComposing && !byId('latency').matches(':popover-open')) stop()
})
byId('new').onclick = () => (location.hash = crypto.randomUUID())
addEventListener('online', connect)
addEventListener('offline', () => socket.close())

connect()
