import { ConsumerError } from '../errors.ts'
import type { ProviderFinishEvent, StartEvent, StreamEvent } from '../events.ts'
import type { LLMRequest } from '../request.ts'

/** Raised where entries of before can no longer be read. */
const version = 1

type Delta = Extract<StreamEvent, { delta: string }>
type Writable<Event> = { -readonly [Key in keyof Event]: Event[Key] }

export function isDelta(event: StreamEvent): event is Delta {
  return 'delta' in event
}

/** Whether `event` goes on with the text that `before` ends with. */
export function continues(before: StreamEvent | undefined, event: Delta): before is Delta {
  if (before?.type !== event.type) return false
  return event.type !== 'tool-input-delta' || event.toolCallId === (before as typeof event).toolCallId
}

/**
 * The text to keep of an answer, with each part's deltas joined and each call's; `undefined` for one that is not to be given
 * again: cut, refused, empty, or not to be had back from JSON as it is. It says itself how long it is good, since not every store
 * keeps to what it is told.
 */
export function toEntry(events: readonly StreamEvent[], ttl: number | false): string | undefined {
  const finish = events.at(-1)
  if (finish?.type !== 'finish' || !isWhole(finish) || !events.some(({ type }) => type === 'start')) return undefined
  const joined: StreamEvent[] = []
  /** Calls may be written in turns. */
  const inputs = new Map<string, Writable<Delta>>()
  for (const event of events) {
    if (!isDelta(event)) {
      joined.push(event)
      continue
    }
    const last = joined.at(-1)
    const before = event.type === 'tool-input-delta' ? inputs.get(event.toolCallId) : last
    if (continues(before, event)) {
      ;(before as Writable<Delta>).delta += event.delta
      continue
    }
    const copy = { ...event }
    joined.push(copy)
    if (copy.type === 'tool-input-delta') inputs.set(copy.toolCallId, copy)
  }
  if (!joined.some((event) => isDelta(event) || event.type === 'tool-input-start')) return undefined
  const expires = ttl === false ? undefined : Date.now() + ttl
  return isJson(joined) ? JSON.stringify({ version, expires, events: joined }) : undefined
}

/**
 * The events of an entry; `undefined` where there is none, or it is too old, or of another version.
 *
 * @throws ConsumerError for anything that `toEntry` did not make, or not for such a request.
 */
export function fromEntry(entry: unknown, request: LLMRequest): StreamEvent[] | undefined {
  // A store that cannot delete was given an empty text.
  if (entry === undefined || entry === null || entry === '') return undefined
  const content = typeof entry === 'string' ? parsed(entry) : undefined
  if (!isObject(content) || typeof content['version'] !== 'number') throw junk()
  if (content['version'] !== version) return undefined
  const { events, expires = Infinity } = content
  if (typeof expires !== 'number' || !Array.isArray(events) || !isAnswer(events, request)) throw junk()
  return Date.now() < expires ? events : undefined
}

function junk(): ConsumerError {
  const message =
    'What the store of cache() has for a request is no answer to it: something else wrote it, changed it, or made the same key.'
  return new ConsumerError('consumer_error', message, { phase: 'consume' })
}

function isWhole({ finishReason }: Pick<ProviderFinishEvent, 'finishReason'>): boolean {
  return finishReason === 'stop' || finishReason === 'tool-calls'
}

/** Whether it can be played: what holds of every stream of a provider holds of it. */
function isAnswer(events: readonly unknown[], { tools = [] }: LLMRequest): events is StreamEvent[] {
  const names = new Set<unknown>(tools.map(({ name }) => name))
  /** The arguments of each call so far; `undefined` once they are whole. */
  const inputs = new Map<unknown, string | undefined>()
  let starts = 0
  const isNext = (event: unknown, i: number): boolean => {
    if (!isObject(event)) return false
    const { type, delta, toolCallId } = event
    switch (type as StreamEvent['type']) {
      case 'start':
        return ++starts === 1 && isStart(event)
      case 'text-delta':
      case 'reasoning-delta':
        return typeof delta === 'string'
      case 'tool-input-start': {
        const isNew = typeof toolCallId === 'string' && !inputs.has(toolCallId) && names.has(event['toolName'])
        inputs.set(toolCallId, '')
        return isNew
      }
      case 'tool-input-delta': {
        const input = inputs.get(toolCallId)
        if (input === undefined || typeof delta !== 'string') return false
        inputs.set(toolCallId, input + delta)
        return true
      }
      case 'tool-input-end': {
        const input = inputs.get(toolCallId)
        inputs.set(toolCallId, undefined)
        return (
          input !== undefined && (input.trim() === '' || parsed(input) !== undefined) && isOptional(event['metadata'])
        )
      }
      case 'part-end':
        return (event['kind'] === 'text' || event['kind'] === 'reasoning') && isOptional(event['metadata'])
      case 'part':
        return isObject(event['part']) && isObject(event['part']['value'])
      case 'warning':
        return isObject(event['warning']) && typeof event['warning']['message'] === 'string'
      case 'finish':
        return i === events.length - 1 && isFinish(event)
      default:
        return false
    }
  }
  const last = events.at(-1)
  return (
    events.every(isNext) &&
    starts === 1 &&
    isObject(last) &&
    last['type'] === 'finish' &&
    [...inputs.values()].every((input) => input === undefined)
  )
}

function isStart({ provider, model, toolInput, warnings }: Readonly<Record<string, unknown>>): boolean {
  const isChannel = toolInput === 'native' || toolInput === 'json' || toolInput === 'xml'
  return (
    typeof provider === 'string' &&
    typeof model === 'string' &&
    isChannel &&
    (warnings === undefined || Array.isArray(warnings))
  )
}

function isFinish(event: Readonly<Record<string, unknown>>): boolean {
  const { usage, providerFinishReason } = event
  const tokens = ['inputTokens', 'outputTokens', 'totalTokens', 'cacheReadTokens', 'cacheWriteTokens']
  return (
    isWhole(event as Pick<ProviderFinishEvent, 'finishReason'>) &&
    typeof providerFinishReason === 'string' &&
    isObject(usage) &&
    isObject(usage['raw']) &&
    tokens.every((name) => typeof usage[name] === 'number')
  )
}

/** `undefined` for what is no JSON. */
function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function isOptional(value: unknown): boolean {
  return value === undefined || isObject(value)
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Whether a value comes back from JSON as it went in, but for members that are `undefined`. */
function isJson(value: unknown): boolean {
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return true
    case 'number':
      return Number.isFinite(value)
    case 'object': {
      if (value === null) return true
      if (Array.isArray(value)) return value.every(isJson)
      const prototype: unknown = Object.getPrototypeOf(value)
      const isPlain = prototype === null || Object.getPrototypeOf(prototype) === null
      return isPlain && Object.values(value).every((member) => member === undefined || isJson(member))
    }
    default:
      return false
  }
}

/** An answer that others paid for, as it is given to this request. */
export function asCached(events: readonly StreamEvent[], facts: Partial<StartEvent> = {}): readonly StreamEvent[] {
  return events.map((event) => (event.type === 'start' ? { ...event, ...facts, cached: true } : event))
}
