import type { StreamEvent } from '../events.ts'

type DeltaEvent = Extract<StreamEvent, { readonly delta: string }>

/** Holds back half a character (UTF-16) at the end of a delta, until its other half, or anything else, follows. */
export class CharacterJoiner {
  #half: DeltaEvent | undefined

  join(events: StreamEvent[]): StreamEvent[] {
    if (!this.#half && !events.some(endsInHalf)) return events
    const joined: StreamEvent[] = []
    for (const event of events) {
      const next = this.#half && !isAside(event) ? this.#complete(this.#half, event, joined) : event
      if (!endsInHalf(next)) joined.push(next)
      else {
        this.#half = { ...next, delta: next.delta.slice(-1) }
        if (next.delta.length > 1) joined.push({ ...next, delta: next.delta.slice(0, -1) })
      }
    }
    return joined
  }

  /** What is held back, where nothing follows. */
  release(): StreamEvent[] {
    const held = this.#half
    this.#half = undefined
    return held ? [held] : []
  }

  #complete(half: DeltaEvent, event: StreamEvent, joined: StreamEvent[]): StreamEvent {
    this.#half = undefined
    if (continues(event, half)) return { ...event, delta: half.delta + event.delta }
    joined.push(half)
    return event
  }
}

/** Whether an event is no part of the answer, so that the answer goes on behind it. */
function isAside({ type }: StreamEvent): boolean {
  return type === 'raw' || type === 'usage' || type === 'warning'
}

function endsInHalf(event: StreamEvent): event is DeltaEvent {
  if (!('delta' in event)) return false
  const last = event.delta.charCodeAt(event.delta.length - 1)
  return last >= 0xd800 && last <= 0xdbff
}

function continues(event: StreamEvent, before: DeltaEvent): event is DeltaEvent {
  if (event.type !== before.type) return false
  return event.type !== 'tool-input-delta' || event.toolCallId === (before as typeof event).toolCallId
}
