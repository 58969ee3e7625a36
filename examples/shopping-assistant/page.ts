import { readEvents } from '../shared/read-events.ts'
import type { ChatEvents, ChatMessage, ProductCard, TextDelta } from './events.ts'

/** Any of the events, with its data. */
type ChatEvent = { [Name in keyof ChatEvents]: { event: Name; data: ChatEvents[Name] } }[keyof ChatEvents]

const welcome = document.querySelector<HTMLElement>('#welcome')!
const messages = document.querySelector<HTMLElement>('#messages')!
const announcements = document.querySelector<HTMLElement>('#announcements')!
const progress = document.querySelector<HTMLProgressElement>('#progress')!
const composer = document.querySelector<HTMLFormElement>('#composer')!
const input = document.querySelector<HTMLInputElement>('#message')!
const send = document.querySelector<HTMLButtonElement>('#send')!
const stop = document.querySelector<HTMLButtonElement>('#stop')!

const session = localStorage.getItem('shopping-session') ?? newSession()
let isAnswering = false
/** How many messages of the conversation this page has, without those that were not kept. */
let seen = 0

const prices = new Intl.NumberFormat('en', { style: 'currency', currency: 'EUR' })

function newSession(): string {
  const id = crypto.randomUUID()
  localStorage.setItem('shopping-session', id)
  return id
}

/** All text of the conversation goes through here, so none of it can be anything but text. */
function element<Name extends keyof HTMLElementTagNameMap>(name: Name, className: string, text = '') {
  const made = document.createElement(name)
  made.className = className
  made.textContent = text
  return made
}

/** Who speaks, for those who cannot see it. */
function speaker(name: string) {
  return element('span', 'unseen', `${name}: `)
}

/** Has a screen reader say something. Only once: it is found in the conversation afterwards. */
function announce(text: string): void {
  const said = element('p', '', text)
  announcements.append(said)
  setTimeout(() => said.remove(), 1000)
}

function idOf(card: Element): string | undefined {
  return (card as HTMLElement).dataset['id']
}

/** Changes the page, and stays at its end where the visitor was there. */
function follow(change: () => void): void {
  const { scrollingElement: view } = document
  const wasAtEnd = view!.scrollHeight - view!.scrollTop - view!.clientHeight < 80
  change()
  if (wasAtEnd) view!.scrollTop = view!.scrollHeight
}

// ---------------------------------------------------------------------------------------------------------------- messages

/** What the assistant says, while it is written or from before. */
class Reply {
  readonly #bubble = element('div', 'message assistant')
  readonly #cards = element('ol', 'cards')
  readonly #options = element('div', 'chips options')
  readonly #texts = new Map<string, HTMLElement>()

  constructor() {
    this.#cards.ariaLabel = 'Products'
    this.#options.role = 'group'
    this.#options.ariaLabel = 'Answers to choose from'
    const item = element('li', 'reply')
    item.append(speaker('Assistant'), this.#bubble, this.#cards, this.#options)
    messages.append(item)
  }

  /** What is being done, as long as there is no text. */
  setStatus(message: string): void {
    this.#bubble.ariaBusy = 'true'
    announce(message)
    if (this.#texts.size === 0) this.#bubble.replaceChildren(element('p', 'typing', message))
  }

  write(name: string, { delta, offset, complete }: TextDelta): void {
    if (this.#texts.size === 0) this.#bubble.replaceChildren()
    const text = this.#texts.get(name) ?? element('p', 'text')
    if (!this.#texts.has(name)) this.#bubble.append(text)
    this.#texts.set(name, text)
    text.textContent = text.textContent.slice(0, offset) + delta
    text.classList.toggle('writing', !complete)
  }

  addCard({ id, name, category, price, reason }: ProductCard): void {
    const card = element('li', 'card')
    card.dataset['id'] = id
    card.append(
      element('span', 'quiet', category),
      element('h3', '', name),
      element('p', 'reason', reason),
      element('span', 'price', prices.format(price)),
    )
    const shown = [...this.#cards.children].find((other) => idOf(other) === id)
    if (!shown) this.#cards.append(card)
    else if (shown.textContent !== card.textContent) shown.replaceWith(card)
  }

  addOption(text: string): void {
    if ([...this.#options.children].some((other) => other.textContent === text)) return
    const option = element('button', '', text)
    option.type = 'button'
    option.onclick = () => void ask(text)
    this.#options.append(option)
  }

  /** The message as it is kept, whatever of it was shown while it was written. */
  show({ text, product_cards = [], options = [] }: Omit<ChatMessage, 'role'>): void {
    this.setText(text)
    this.#bubble.ariaBusy = 'false'
    for (const card of [...this.#cards.children]) if (!product_cards.some(({ id }) => id === idOf(card))) card.remove()
    for (const card of product_cards) this.addCard(card)
    for (const option of [...this.#options.children]) if (!options.includes(option.textContent)) option.remove()
    for (const option of options) this.addOption(option)
  }

  /** The text as it is to stay. */
  setText(text: string): void {
    this.#texts.clear()
    this.#bubble.replaceChildren(...text.split('\n\n').map((paragraph) => element('p', 'text', paragraph)))
  }

  read(): void {
    const texts = (parent: Element, selector: string) =>
      [...parent.querySelectorAll(selector)].map(({ textContent }) => textContent)
    announce(texts(this.#bubble, '.text').join(' '))
    const cards = [...this.#cards.children].map((card) => texts(card, 'h3, .price').join(', '))
    if (cards.length > 0) announce(`Products: ${cards.join('; ')}.`)
    const options = texts(this.#options, 'button')
    if (options.length > 0) announce(`Answers to choose from: ${options.join('; ')}.`)
  }

  /** Nothing of it was kept. */
  drop(): void {
    this.#bubble.ariaBusy = 'false'
    if (this.#texts.size === 0) this.#bubble.parentElement!.remove()
    this.#bubble.classList.add('dropped')
    this.#cards.remove()
    this.#options.remove()
    for (const text of this.#texts.values()) text.classList.remove('writing')
  }
}

function say(text: string): HTMLElement {
  const item = element('li', 'message user')
  item.append(speaker('You'), text)
  messages.append(item)
  return item
}

function note(text: string): void {
  follow(() => messages.append(element('li', 'message note error', text)))
  announce(text)
}

// -------------------------------------------------------------------------------------------------------------------- turns

/** Sends a message and shows what comes back. */
async function ask(text: string): Promise<void> {
  if (isAnswering) return
  setAnswering(true)
  welcome.hidden = true
  const choices = [...messages.querySelectorAll<HTMLElement>('.options')]
  for (const group of choices) group.hidden = true
  const said = say(text)
  const reply = new Reply()
  reply.setStatus('One moment')
  scrollTo({ top: document.body.scrollHeight })
  const problem = await receive(text, reply).catch(() => 'The connection was lost. Please try again.')
  if (problem === undefined) {
    for (const group of choices) group.replaceChildren()
    reply.read()
  } else {
    said.classList.add('dropped')
    reply.drop()
    // The question is still open.
    for (const group of choices) group.hidden = false
    await refresh()
    note(problem)
    input.value ||= text
  }
  setAnswering(false)
}

/** Shows an answer as it comes. Returns what kept it from being complete. */
async function receive(message: string, reply: Reply): Promise<string | undefined> {
  const response = await fetch('/rs/chat/stream', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ session_id: session, message, turn: seen }),
  })
  if (!response.ok) return ((await response.json()) as { readonly error: string }).error
  for await (const event of readEvents(response) as AsyncGenerator<ChatEvent>) {
    if (event.event === 'end') {
      if (event.data.saved) seen += 2
      return problems[event.data.outcome]
    }
    follow(() => show(event, reply))
  }
  return 'The answer was cut off. Please try again.'
}

const problems: Partial<Record<ChatEvents['end']['outcome'], string>> = {
  stopped: 'Stopped. Nothing of it was kept.',
  failed: 'Something went wrong. Please try again.',
}

function show({ event, data }: ChatEvent, reply: Reply): void {
  switch (event) {
    case 'status':
      reply.setStatus(data.message)
      break
    case 'classification_progress':
      progress.value = data.ratio
      break
    case 'ask_message_delta':
    case 'simple_response_delta':
      reply.write(event, data)
      break
    case 'classification_complete': {
      const [question] = data.ask_slots
      if (question) reply.show({ text: question.message, options: question.options })
      else if (data.simple_response) reply.show({ text: data.simple_response.message })
      break
    }
    case 'final_answer.start':
      progress.hidden = true
      break
    case 'final_answer.delta':
      reply.write(`part ${data.part}`, data)
      break
    case 'final_answer.product_card':
      reply.addCard(data)
      break
    case 'final_answer.quick_reply':
      reply.addOption(data.text)
      break
    case 'final_answer.complete':
      reply.show({ text: data.summary_message, product_cards: data.product_cards, options: data.quick_replies })
      break
    // Of no interest to the customer.
    case 'ack':
    case 'classification_start':
    case 'classification_reasoning':
    case 'final_answer.product_id':
    case 'end':
  }
}

function setAnswering(value: boolean): void {
  isAnswering = value
  send.hidden = value
  stop.hidden = !value
  progress.hidden = !value
  progress.value = 0
  // Where what had the focus is gone, one can write on. On a touch screen the keyboard would come up.
  const { activeElement, body } = document
  const isLost = !activeElement || activeElement === body || !activeElement.checkVisibility()
  if (isLost && matchMedia('(hover: hover)').matches) input.focus()
}

composer.onsubmit = (event) => {
  event.preventDefault()
  const text = input.value.trim()
  if (text === '' || isAnswering) return
  input.value = ''
  void ask(text)
}
stop.onclick = () => void fetch(`/rs/chat/${session}/stop`, { method: 'POST' })
for (const idea of welcome.querySelectorAll('button')) idea.onclick = () => void ask(idea.textContent)
document.querySelector<HTMLElement>('#new')!.onclick = () => {
  localStorage.removeItem('shopping-session')
  location.reload()
}

// ------------------------------------------------------------------------------------------------------------- as it is kept

/** Shows the conversation as it is kept, where the page has another. Returns whether it could be read. */
async function refresh(): Promise<boolean> {
  const wasAnswering = isAnswering
  const kept = await fetch(`/rs/chat/${session}`).catch(() => undefined)
  if (!kept?.ok) return false
  const { messages: list } = (await kept.json()) as { readonly messages: readonly ChatMessage[] }
  // What is being said now shows by itself.
  if (list.length !== seen && isAnswering === wasAnswering) {
    messages.replaceChildren()
    for (const [i, message] of list.entries()) {
      if (message.role === 'user') say(message.text)
      // Only the last may still be answered.
      else new Reply().show(i === list.length - 1 ? message : { ...message, options: [] })
    }
    seen = list.length
    scrollTo({ top: document.body.scrollHeight })
  }
  welcome.hidden = messages.childElementCount > 0
  return true
}

// Another tab may have gone on.
document.onvisibilitychange = () => {
  if (!document.hidden && !isAnswering) void refresh()
}
if (!(await refresh())) note('The conversation from before cannot be shown.')
