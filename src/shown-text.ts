import type { FieldDeltaEvent, FieldEndEvent, ShownText, TextDeltaEvent } from './events.ts'

interface Shown {
  readonly field: string | undefined
  readonly path: string | undefined
  text: string
}

/** No field has it. */
const textKey = ''

type TextDelta = TextDeltaEvent & { readonly length: number }

/**
 * What a consumer has seen of the text and of each field, so that an attempt that begins anew need not show again what it
 * repeats. Used only where attempts may begin anew.
 */
export class ShownTexts {
  #now = new Map<string, Shown>()
  #before = new Map<string, Shown>()
  /** Calls in the order in which they begin, which whoever follows can see too: another attempt gives them other ids. */
  readonly #calls = new Map<string, number>()

  /** The next call begins. */
  startCall(toolCallId: string): void {
    this.#calls.set(toolCallId, this.#calls.size)
  }

  /** Returns what is to be shown of a delta: nothing where all of it was shown before. */
  show<Delta extends TextDelta | FieldDeltaEvent>(event: Delta): Delta | undefined {
    const isField = event.type === 'field-delta'
    const key = isField ? this.#keyOf(event) : textKey
    let shown = this.#now.get(key)
    if (!shown) {
      shown = { field: isField ? event.field : undefined, path: isField ? event.path : undefined, text: '' }
      this.#now.set(key, shown)
    }
    const start = shown.text.length
    shown.text += event.delta
    const before = this.#before.get(key)
    if (!before) return event
    const repeated = commonLength(before.text, event.delta, start)
    // Once it differs, it differs for good.
    if (repeated < event.delta.length) this.#before.delete(key)
    if (repeated === 0) return event
    return repeated === event.delta.length ? undefined : { ...event, delta: event.delta.slice(repeated) }
  }

  /** The delta that cuts a field that closed, or without one the text, where more of it was shown before than there is now. */
  end(closed?: FieldEndEvent): TextDelta | FieldDeltaEvent | undefined {
    const key = closed ? this.#keyOf(closed) : textKey
    const length = this.#now.get(key)?.text.length ?? 0
    if ((this.#before.get(key)?.text.length ?? 0) <= length) return undefined
    this.#before.delete(key)
    if (!closed) return { type: 'text-delta', delta: '', length }
    const { field, path, params, toolCallId, toolName } = closed
    return { type: 'field-delta', field, path, params, delta: '', length, toolCallId, toolName }
  }

  /** Begins anew; returns what was shown. */
  restart(): ShownText[] {
    // What a failed attempt repeated in part is still to be seen in full.
    for (const [key, shown] of this.#before) {
      if (shown.text.length > (this.#now.get(key)?.text.length ?? 0)) this.#now.set(key, shown)
    }
    this.#before = this.#now
    this.#now = new Map()
    this.#calls.clear()
    return [...this.#before.values()].map(({ field, path, text }) => ({ field, path, length: text.length }))
  }

  #keyOf({ toolCallId, field, path }: Pick<FieldDeltaEvent, 'toolCallId' | 'field' | 'path'>): string {
    const call = toolCallId === undefined ? '' : this.#calls.get(toolCallId)
    return `${call}\n${field}\n${path}`
  }
}

/** How many characters at the beginning of `delta` stand at `start` in `text`; no surrogate pair is taken apart. */
function commonLength(text: string, delta: string, start: number): number {
  let length = 0
  while (length < delta.length && text.charCodeAt(start + length) === delta.charCodeAt(length)) length++
  const isPairBroken = length > 0 && length < delta.length && (delta.charCodeAt(length - 1) & 0xfc00) === 0xd800
  return isPairBroken ? length - 1 : length
}
