import { readEvents } from '../shared/read-events.ts'
import { Speaker } from './speaker.ts'

interface Start {
  readonly provider: string
  readonly cached: boolean
}

interface Chunk {
  readonly chunk: string
  readonly length: number
}

interface End {
  readonly complete: boolean
  readonly fallback_used?: boolean
  readonly error?: string
}

const element = (id: string): HTMLElement => document.getElementById(id)!
const question = element('question') as HTMLInputElement
const askButton = element('ask')
const stopButton = element('stop')
const answer = element('answer')
const said = element('said')
const thinking = element('thinking')
const problem = element('problem')
const badges = element('badges')
const faults = element('faults')
const names: Readonly<Record<string, string>> = { gemini: 'Gemini', ollama: 'Ollama' }
// An application with accounts takes it from the session.
const user = (localStorage['user'] ??= crypto.randomUUID()) as string
const speaker = new Speaker(element('aloud'))

let current = new AbortController()
let emptying: number | undefined

async function ask(text: string): Promise<void> {
  current.abort()
  const { signal } = (current = new AbortController())
  element('asked').textContent = text
  said.replaceChildren()
  badges.replaceChildren()
  speaker.begin()
  show({ isAsking: true, isThinking: true })
  announce('Thinking…')
  answer.hidden = false
  try {
    await follow(text, signal)
  } catch {
    if (!signal.aborted) complain('The connection is gone. Please ask again.')
  }
  // Another question may have taken its place.
  if (current.signal !== signal) return
  if (signal.aborted) addBadge('stopped', true)
  show({ isAsking: false, isThinking: false })
  announce([said.textContent, problem.textContent].filter(Boolean).join(' '))
  await showMetrics()
}

async function follow(text: string, signal: AbortSignal): Promise<void> {
  const askedAt = performance.now()
  const response = await fetch('/assistant/stream', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ user, text }),
    signal,
  })
  if (!response.ok) {
    complain(((await response.json()) as { error: string }).error)
    return
  }
  let hasEnded = false
  for await (const { event, data } of readEvents(response)) {
    if (event === 'stream_start') {
      const { provider, cached } = data as Start
      const name = names[provider] ?? provider
      const before = badges.querySelector('.provider')?.textContent
      if (before) addBadge(`${before} broke off, ${name} began anew`, true)
      else addBadge(`first byte after ${((performance.now() - askedAt) / 1000).toFixed(2)} s`)
      if (cached) addBadge('from the cache')
      badges.querySelector('.provider')?.remove()
      badges.prepend(badge(name, 'provider'))
    } else if (event === 'stream_chunk') write(data as Chunk)
    else if (event === 'stream_end') {
      hasEnded = true
      end(data as End)
    }
  }
  if (!hasEnded) throw new Error('The answer was cut.')
}

/** A chunk begins at `length - chunk.length`. Where that is before the end, a model began anew and what follows there is void. */
function write({ chunk, length }: Chunk): void {
  const from = length - chunk.length
  const text = said.textContent
  if (from < text.length) said.replaceChildren(text.slice(0, from))
  const sentence = document.createElement('span')
  sentence.textContent = chunk
  said.append(sentence)
  thinking.hidden = true
  speaker.follow(said.textContent)
}

function end({ complete, error, fallback_used: isFallback }: End): void {
  speaker.follow(said.textContent, true)
  if (error !== undefined) complain(error)
  else if (!complete) addBadge('cut short', true)
  if (isFallback && !badges.querySelector('.warning')) addBadge('stands in', true)
}

/** Tells screen readers. The text goes when they have it, or who reads on would meet it twice. */
function announce(text: string): void {
  const announced = element('announced')
  announced.textContent = text
  clearTimeout(emptying)
  emptying = window.setTimeout(() => announced.replaceChildren(), 1000)
}

function complain(text: string): void {
  problem.textContent = text
  problem.hidden = false
}

function badge(text: string, ...classes: string[]): HTMLElement {
  const item = document.createElement('li')
  item.textContent = text
  item.classList.add(...classes)
  return item
}

function addBadge(text: string, isWarning = false): void {
  badges.append(badge(text, ...(isWarning ? ['warning'] : [])))
}

function show({ isAsking, isThinking }: { readonly isAsking: boolean; readonly isThinking: boolean }): void {
  const [hidden, shown] = isAsking ? [askButton, stopButton] : [stopButton, askButton]
  const hadFocus = document.activeElement === hidden
  hidden.hidden = true
  shown.hidden = false
  if (hadFocus) shown.focus()
  thinking.hidden = !isThinking
  said.classList.toggle('writing', isAsking && !isThinking)
  answer.setAttribute('aria-busy', String(isAsking))
  if (isAsking) {
    problem.hidden = true
    problem.textContent = ''
  }
}

async function showMetrics(): Promise<void> {
  const response = await fetch('/metrics')
  const lines = (await response.text()).split('\n')
  /** The values of a metric, whatever its labels, added up. */
  const sum = (name: string): number =>
    lines
      .filter((line) => line.startsWith(`${name} `) || line.startsWith(`${name}{`))
      .reduce((total, line) => total + Number(line.slice(line.lastIndexOf(' '))), 0)
  const count = sum('llm_stream_latency_ms_count')
  if (count === 0) return
  element('latency').textContent = `${(sum('llm_stream_latency_ms_sum') / count / 1000).toFixed(2)} s`
  element('length').textContent = `${Math.round(sum('llm_stream_response_length_sum') / count)} chars`
  element('hits').textContent = `${sum('llm_stream_cache_hit')} of ${count}`
}

async function showFaults(): Promise<void> {
  const response = await fetch('/debug/gemini')
  const { fault } = (await response.json()) as { readonly fault: string | null }
  if (fault === null) return
  faults.querySelector<HTMLInputElement>(`[value="${fault}"]`)!.checked = true
  faults.hidden = false
}

element('form').addEventListener('submit', (event) => {
  event.preventDefault()
  const text = question.value.trim()
  if (text === '') return
  question.value = ''
  void ask(text)
})
element('examples').addEventListener('click', ({ target }) => {
  if (target instanceof HTMLButtonElement) void ask(target.textContent)
})
stopButton.addEventListener('click', () => {
  speaker.begin()
  current.abort()
})
faults.addEventListener('change', ({ target }) => {
  const { value } = target as HTMLInputElement
  void fetch('/debug/gemini', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(value === 'never' ? { fails: false } : { fails: true, when: value }),
  })
})
void showMetrics()
void showFaults()
