import { inspect } from 'node:util'
import type { LLMError, ResponseEvent } from 'fieldstream'

/** A field at one place, as a consumer who only joins deltas has it. */
interface FieldView {
  text: string
  /** Whether this attempt has written any of it. */
  isOfThisAttempt: boolean
  /** Whether every delta of this attempt was well formed. */
  isSound: boolean
}

/** The arguments of a call. */
interface InputView {
  text: string
  hasEnded: boolean
}

/** What may come between `tool-call` and `finish`. */
const afterCall: ReadonlySet<string> = new Set(['tool-call', 'tool-progress', 'tool-result', 'tool-error', 'finish'])

/** Length of a run of characters that is no coincidence. */
const tellingLength = 24
/** Of a long text its beginning and its end are looked for. */
const searchedLength = 20_000

/** Follows what one run tells one consumer, and reports every standing promise that it breaks. */
export class RunTrace {
  readonly #report: (violation: string) => void
  #seq = 0
  #attempt = 1
  #text = ''
  #reasoning = ''
  #textOfThisAttempt = ''
  readonly #fields = new Map<string, FieldView>()
  /** What a `restart` made void. */
  readonly #void = new Map<string, string>()
  /** Calls in the order in which they begin, since a new attempt gives them other ids. */
  readonly #callNumbers = new Map<string, number>()
  readonly #inputs = new Map<string, InputView>()
  readonly #calls = new Set<string>()
  /** The calls whose tools have run, where tools run. */
  readonly #ran = new Set<string>()
  /** Faults of the provider, which are its own as long as the run fails for them. */
  readonly #faults: string[] = []
  #outcome: 'finish' | 'error' | undefined

  constructor(report: (violation: string) => void) {
    this.#report = report
  }

  get hasEnded(): boolean {
    return this.#outcome !== undefined
  }

  onEvent(event: ResponseEvent): void {
    const { type, seq } = event
    if (this.#outcome) this.#report(`\`${type}\` comes after the run ended with \`${this.#outcome}\``)
    if (!(seq > this.#seq)) this.#report(`\`seq\` of \`${type}\` is ${seq} after ${this.#seq}`)
    this.#seq = seq
    if (type === 'start' && this.#ran.size > 0) this.#onStep()
    if (this.#calls.size > 0 && !afterCall.has(type))
      this.#report(`\`${type}\` comes between \`tool-call\` and \`finish\``)
    switch (event.type) {
      case 'text-delta':
        this.#onText(event)
        return
      case 'reasoning-delta':
        this.#reasoning += event.delta
        return
      case 'tool-input-start':
        if (this.#inputs.has(event.toolCallId)) this.#faults.push(`call ${event.toolCallId} starts twice`)
        this.#inputs.set(event.toolCallId, { text: '', hasEnded: false })
        this.#callNumbers.set(event.toolCallId, this.#callNumbers.size)
        return
      case 'tool-input-delta':
      case 'tool-input-end':
        this.#onInput(event)
        return
      case 'field-delta':
        this.#onFieldDelta(event)
        return
      case 'field-end':
        this.#onFieldEnd(event)
        return
      case 'tool-call':
        this.#onCall(event)
        return
      case 'tool-progress':
      case 'tool-result':
      case 'tool-error':
        this.#onRun(event)
        return
      case 'restart':
        this.#onRestart()
        return
      case 'finish':
        this.#outcome = 'finish'
        for (const fault of this.#faults) this.#report(`the run succeeds although ${fault}`)
    }
  }

  onError(error: unknown): void {
    if (this.#outcome) this.#report(`an error comes after the run ended with \`${this.#outcome}\``)
    const { code, phase, metrics } = (error ?? {}) as Partial<LLMError>
    // Who is behind hears that a run of several steps was cancelled before he hears what the tools gave.
    const isOfLaterStep = code === 'aborted' && (phase !== 'validate' || (metrics?.attempts ?? 0) > 1)
    const isOfTools = this.#ran.size > 0 || phase === 'tool' || isOfLaterStep
    if (this.#calls.size > 0 && !isOfTools) this.#report('a run that delivered a `tool-call` fails')
    this.#outcome = 'error'
    // What a service counts is shown as it wrote it.
    const counts = printed((error as LLMError | undefined)?.usage?.raw)
    const words = this.#shownIn(printed(error), counts)
    if (words !== undefined)
      this.#report(`the error shows what the model wrote: ${JSON.stringify(words)}\n${printed(error)}`)
  }

  /** A loop is through. */
  onEnd(): void {
    if (!this.#outcome) this.#report('a loop ends with neither `finish` nor an error')
  }

  #onText({ delta, length }: Extract<ResponseEvent, { type: 'text-delta' }>): void {
    const start = length - delta.length
    const known = this.#textOfThisAttempt
    const mayRepeat = this.#attempt > 1 && known === ''
    if (mayRepeat ? start > this.#text.length || start < 0 : start !== known.length)
      this.#report(`\`text-delta\` of ${delta.length} has length ${length} after ${known.length}`)
    if (mayRepeat && repeats(this.#text, start, delta)) this.#report('a `text-delta` shows again what was shown before')
    this.#text = this.#textOfThisAttempt = this.#text.slice(0, start) + delta
  }

  #onInput(event: Extract<ResponseEvent, { type: 'tool-input-delta' | 'tool-input-end' }>): void {
    const input = this.#inputs.get(event.toolCallId)
    if (!input || input.hasEnded) {
      this.#faults.push(`\`${event.type}\` belongs to no open call`)
      return
    }
    if (event.type === 'tool-input-end') input.hasEnded = true
    else input.text += event.delta
  }

  #viewOf({ toolCallId, path, field }: Extract<ResponseEvent, { type: 'field-delta' | 'field-end' }>): FieldView {
    const number = toolCallId === undefined ? '' : this.#callNumbers.get(toolCallId)
    const key = `${number}\n${path}\n${field}`
    let view = this.#fields.get(key)
    if (!view)
      this.#fields.set(key, (view = { text: this.#void.get(key) ?? '', isOfThisAttempt: false, isSound: true }))
    return view
  }

  #onFieldDelta(event: Extract<ResponseEvent, { type: 'field-delta' }>): void {
    const { path, delta, length } = event
    const view = this.#viewOf(event)
    const start = length - delta.length
    const mayRepeat = this.#attempt > 1 && !view.isOfThisAttempt
    if (mayRepeat ? start > view.text.length || start < 0 : start !== view.text.length)
      this.#report(`\`field-delta\` of ${delta.length} at ${path} has length ${length} after ${view.text.length}`)
    if (mayRepeat && repeats(view.text, start, delta))
      this.#report(`a \`field-delta\` at ${path} shows again what was shown`)
    if (delta === '' && this.#attempt === 1) this.#report(`a \`field-delta\` at ${path} is empty`)
    view.text = view.text.slice(0, start) + delta
    view.isOfThisAttempt = true
    view.isSound &&= delta.isWellFormed()
  }

  #onFieldEnd(event: Extract<ResponseEvent, { type: 'field-end' }>): void {
    const { path } = event
    const value = event.value
    const view = this.#viewOf(event)
    if (view.isOfThisAttempt) {
      if (value !== view.text)
        this.#report(`the deltas at ${path} make ${inspect(view.text)}, and its value is ${inspect(value)}`)
      if (!view.isSound && typeof value === 'string' && value.isWellFormed())
        this.#report(`a delta at ${path} tears a character that its value has whole`)
      // Without deltas it is a value that closes whole, or one that repeats what an attempt before had shown.
    } else if (view.text !== '' && !(typeof value === 'string' && view.text.startsWith(value)))
      this.#report(`what was shown at ${path} is ${inspect(view.text)}, and its value is ${inspect(value)}`)
  }

  #onCall({ toolCallId }: Extract<ResponseEvent, { type: 'tool-call' }>): void {
    const input = this.#inputs.get(toolCallId)
    if (!input?.hasEnded) this.#report(`call ${toolCallId} is delivered without its end`)
    if (this.#calls.has(toolCallId)) this.#report(`call ${toolCallId} is delivered twice`)
    this.#calls.add(toolCallId)
    if (input && !isJsonObject(input.text.trim() || '{}'))
      this.#report(`call ${toolCallId} is delivered with arguments that are no JSON object: ${inspect(input.text)}`)
  }

  #onRun({ type, toolCallId }: Extract<ResponseEvent, { type: 'tool-progress' | 'tool-result' | 'tool-error' }>): void {
    if (!this.#calls.has(toolCallId)) this.#report(`\`${type}\` belongs to no call that was delivered`)
    if (this.#ran.has(toolCallId)) this.#report(`\`${type}\` comes after the end of call ${toolCallId}`)
    if (type !== 'tool-progress') this.#ran.add(toolCallId)
  }

  /** The model is asked again, with what the tools gave. */
  #onStep(): void {
    for (const toolCallId of this.#calls)
      if (!this.#ran.has(toolCallId)) this.#report(`the model is asked again without a result of call ${toolCallId}`)
    this.#attempt = 1
    this.#text = this.#textOfThisAttempt = this.#reasoning = ''
    for (const seen of [this.#fields, this.#void, this.#callNumbers, this.#inputs, this.#calls, this.#ran]) seen.clear()
  }

  #onRestart(): void {
    this.#attempt++
    this.#textOfThisAttempt = ''
    this.#reasoning = ''
    this.#faults.length = 0
    for (const [key, { text }] of this.#fields) this.#void.set(key, text)
    this.#fields.clear()
    this.#callNumbers.clear()
    this.#inputs.clear()
  }

  /** What of the answer stands in a text. */
  #shownIn(text: string, allowed: string): string | undefined {
    const runs = new Set<string>()
    for (let i = 0; i + tellingLength <= text.length; i++) runs.add(text.slice(i, i + tellingLength))
    const inputs = [...this.#inputs.values()].map((input) => input.text)
    const fields = [...this.#fields.values()].map((view) => view.text)
    for (const written of [this.#text, this.#reasoning, ...inputs, ...fields]) {
      const pieces =
        written.length > 2 * searchedLength
          ? [written.slice(0, searchedLength), written.slice(-searchedLength)]
          : [written]
      for (const piece of pieces) {
        for (let i = 0; i + tellingLength <= piece.length; i++) {
          const run = piece.slice(i, i + tellingLength)
          if (runs.has(run) && !allowed.includes(run)) return run
        }
      }
    }
    return undefined
  }
}

/** Whether a delta begins with what stands at its place already, but for a character whose halves are sent together. */
function repeats(text: string, start: number, delta: string): boolean {
  const known = text.codePointAt(start)
  return known !== undefined && known === delta.codePointAt(0)
}

/** Everything a logger could print of an error. */
export function printed(error: unknown): string {
  return [
    inspect(error, { depth: Infinity }),
    JSON.stringify(error),
    JSON.stringify((error as { toJSON?: () => unknown } | undefined)?.toJSON?.()),
    String(error),
  ].join('\n')
}

function isJsonObject(text: string): boolean {
  try {
    const value = JSON.parse(text) as unknown
    return typeof value === 'object' && value !== null && !Array.isArray(value)
  } catch {
    return false
  }
}
