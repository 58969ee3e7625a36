import type { Question, Report } from './interpret.ts'
import type { Stick } from './sticks.ts'

const find = (id: string): HTMLElement => document.getElementById(id)!

const [draw, stickCard, reading] = [find('draw'), find('stick'), find('reading')]
const [status, problem, sections] = [find('status'), find('problem'), find('sections')]
const question = find('question') as HTMLTextAreaElement
const ask = find('ask') as HTMLFormElement
const progress = find('progress') as HTMLProgressElement
const submitButton = ask.querySelector<HTMLButtonElement>('[type=submit]')!
const tube = find('tube')

let stick: Stick | undefined
let taskId: string | undefined
let source: EventSource | undefined

function show(...shown: readonly HTMLElement[]): void {
  for (const part of [draw, stickCard, ask, reading]) part.hidden = !shown.includes(part)
  problem.textContent = ''
}

/** The answer to a request; what the server has against it is shown. */
async function request<Answer>(path: string, init: RequestInit = {}): Promise<Answer | undefined> {
  try {
    const response = await fetch(path, init)
    const answer = (await response.json()) as Answer & { readonly error?: string }
    if (response.ok) return answer
    problem.textContent = answer.error ?? '出了差错，请再试一次。'
  } catch {
    problem.textContent = '连不上服务，请稍后再试。'
  }
  return undefined
}

// ------------------------------------------------------------------------------------------------------ drawing and asking

async function drawStick(): Promise<void> {
  tube.classList.add('shaking')
  const isStill = matchMedia('(prefers-reduced-motion: reduce)').matches
  const pause = new Promise((resolve) => setTimeout(resolve, isStill ? 0 : 900))
  const [drawn] = await Promise.all([request<Stick>('/sticks', { method: 'POST' }), pause])
  tube.classList.remove('shaking')
  if (!drawn) return
  showStick(drawn)
  show(stickCard, ask)
  stickCard.focus()
}

function showStick(drawn: Stick): void {
  stick = drawn
  find('stick-title').textContent = `第${drawn.number}签 ${drawn.title}`
  find('luck').textContent = drawn.luck
  find('poem').replaceChildren(...drawn.poem.map((line) => element('p', line)))
}

async function submit(): Promise<void> {
  // One question is one task, however often it is sent meanwhile.
  if (!stick || submitButton.disabled || !ask.reportValidity()) return
  const body = JSON.stringify({ stick: stick.number, question: question.value })
  submitButton.disabled = true
  const task = await request<{ readonly id: string }>('/tasks', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body,
  })
  submitButton.disabled = false
  if (!task) return
  // So that a reload, or a second window, finds it.
  history.replaceState(null, '', `?task=${task.id}`)
  showReading(task.id, question.value.trim())
}

// ------------------------------------------------------------------------------------------------------------- the reading

interface Events {
  status: { readonly status: 'queued'; readonly position: number } | { readonly status: 'running' }
  progress: { readonly ratio: number }
  section_start: { readonly section: number; readonly title: string }
  llm_streaming: { readonly token: string; readonly section: number }
  section: { readonly section: number; readonly title: string; readonly body: string }
  done: { readonly report: Report }
  failed: { readonly code: string; readonly message: string }
}

function showReading(id: string, asked: string): void {
  taskId = id
  show(stickCard, reading)
  find('asked').textContent = `「${asked}」`
  sections.replaceChildren()
  progress.value = 0
  setRunning(true)
  find('asked').focus()
  source?.close()
  source = new EventSource(`/tasks/${id}/events`)
  let said = ''
  const say = (text: string): void => {
    said = status.textContent = text
  }
  source.onopen = () => say(said)
  source.onerror = () => {
    // It comes back by itself, with the number of the last event, unless the server refuses.
    if (source?.readyState === EventSource.CONNECTING) status.textContent = '连接断了，正在接上……'
    else fail('这次解签已经找不到了。')
  }
  listen('status', (data) => {
    status.classList.toggle('writing', data.status === 'running')
    if (data.status === 'running') say('正在解签……')
    else
      status.textContent = data.position > 1 ? `前面还有 ${data.position - 1} 位，请稍候。` : '下一位就是你，请稍候。'
  })
  listen('progress', ({ ratio }) => {
    progress.value = ratio
    say('正在解签……')
  })
  listen('section_start', ({ section, title }) => {
    status.classList.remove('writing')
    sectionAt(section).title.textContent = title
  })
  listen('llm_streaming', ({ section, token }) => {
    sectionAt(section).body.append(token)
  })
  listen('section', ({ section, title, body }) => showSection(section, title, body))
  listen('done', ({ report }) => {
    for (const [i, { title, body }] of report.sections.entries()) showSection(i, title, body)
    find('verdict').textContent = report.verdict
    find('advice').replaceChildren(...report.advice.map((deed) => element('li', deed)))
    find('end').hidden = false
    progress.value = 1
    end('解签已成。')
  })
  listen('failed', ({ code, message }) => {
    if (code !== 'cancelled') return fail(message)
    end('已停止。')
    find('retry').hidden = false
  })
}

function listen<Name extends keyof Events>(name: Name, listener: (data: Events[Name]) => void): void {
  source!.addEventListener(name, (event) => listener(JSON.parse(event.data as string) as Events[Name]))
}

function setRunning(isRunning: boolean): void {
  find('cancel').hidden = progress.hidden = !isRunning
  find('again').hidden = isRunning
  if (isRunning) find('end').hidden = find('retry').hidden = true
}

function fail(message: string): void {
  end(sections.hasChildNodes() ? '没有写完，以下只是一部分。' : '没有写成。')
  problem.textContent = message
  find('retry').hidden = false
}

function end(outcome: string): void {
  source?.close()
  status.textContent = outcome
  status.classList.remove('writing')
  for (const section of sections.children) setWriting(section, false)
  // Its button is about to go.
  if (document.activeElement === find('cancel')) find('asked').focus()
  setRunning(false)
}

/** One section of the report, made when first spoken of. Screen readers hear of it when it is whole. */
function sectionAt(index: number): { readonly title: Element; readonly body: Element } {
  while (sections.children.length <= index) {
    const section = element('section')
    section.className = 'card'
    section.append(element('h3'), element('p'))
    setWriting(section, true)
    sections.append(section)
  }
  const [title, body] = sections.children[index]!.children as unknown as [Element, Element]
  return { title, body }
}

function showSection(index: number, title: string, body: string): void {
  const section = sectionAt(index)
  section.title.textContent = title
  if (section.body.textContent !== body) section.body.textContent = body
  setWriting(sections.children[index]!, false)
}

function setWriting(section: Element, isWriting: boolean): void {
  section.setAttribute('aria-busy', String(isWriting))
  section.lastElementChild!.classList.toggle('writing', isWriting)
}

function element(name: string, text = ''): HTMLElement {
  const made = document.createElement(name)
  made.textContent = text
  return made
}

function startOver(): void {
  source?.close()
  taskId = undefined
  history.replaceState(null, '', '/')
  question.value = ''
  show(draw)
  find('shake').focus()
}

// ------------------------------------------------------------------------------------------------------------------ wiring

find('shake').addEventListener('click', () => void drawStick())
find('redraw').addEventListener('click', startOver)
find('again').addEventListener('click', startOver)
find('retry').addEventListener('click', () => void submit())
find('cancel').addEventListener('click', () => void fetch(`/tasks/${taskId!}`, { method: 'DELETE' }))
ask.addEventListener('submit', (event) => {
  event.preventDefault()
  void submit()
})
question.addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) void submit()
})

const opened = new URLSearchParams(location.search).get('task')
if (opened !== null) {
  const task = await request<Question>(`/tasks/${encodeURIComponent(opened)}`)
  if (task) {
    showStick(task.stick)
    question.value = task.question
    showReading(opened, task.question)
  }
}
