import type { StreamEvent } from './events.ts'
import type { AssistantMessage, ProviderMetadata, ProviderPart } from './request.ts'

type Part =
  | { readonly type: 'text' | 'reasoning'; text: string; metadata?: ProviderMetadata | undefined }
  | {
      readonly type: 'tool-call'
      readonly toolCallId: string
      readonly toolName: string
      metadata?: ProviderMetadata | undefined
    }
  | ProviderPart

/** Puts an answer together, part by part in the order the parts began, in the form that continues the conversation. */
export class AssistantMessageBuilder {
  readonly #parts: Part[] = []
  readonly #calls = new Map<string, Extract<Part, { type: 'tool-call' }>>()
  /** The text or reasoning being written. */
  #open: Extract<Part, { text: string }> | undefined

  get text(): string {
    return this.#join('text')
  }

  get reasoning(): string {
    return this.#join('reasoning')
  }

  push(event: StreamEvent): void {
    switch (event.type) {
      case 'text-delta':
        this.#openPart('text').text += event.delta
        return
      case 'reasoning-delta':
        this.#openPart('reasoning').text += event.delta
        return
      case 'part-end':
        if (event.metadata) this.#openPart(event.kind).metadata = event.metadata
        if (this.#open?.type === event.kind) this.#open = undefined
        return
      case 'tool-input-start': {
        const { toolCallId, toolName } = event
        const call = { type: 'tool-call', toolCallId, toolName } as const
        this.#open = undefined
        this.#parts.push(call)
        this.#calls.set(toolCallId, call)
        return
      }
      case 'tool-input-end': {
        const call = this.#calls.get(event.toolCallId)
        if (call) call.metadata = event.metadata
        return
      }
      case 'part':
        this.#open = undefined
        this.#parts.push(event.part)
        return
      default:
        return
    }
  }

  /** The message, with the parsed arguments of each call. */
  build(inputs: ReadonlyMap<string, unknown>): AssistantMessage {
    return {
      role: 'assistant',
      content: this.#parts.map((part) => {
        if (part.type === 'provider') return part
        const { metadata, ...rest } = part
        const metadataIfAny = metadata && { metadata }
        return rest.type === 'tool-call'
          ? { ...rest, input: inputs.get(rest.toolCallId), ...metadataIfAny }
          : { ...rest, ...metadataIfAny }
      }),
    }
  }

  #openPart(type: 'text' | 'reasoning'): Extract<Part, { text: string }> {
    if (this.#open?.type !== type) {
      this.#open = { type, text: '' }
      this.#parts.push(this.#open)
    }
    return this.#open
  }

  #join(type: 'text' | 'reasoning'): string {
    let text = ''
    for (const part of this.#parts) if (part.type === type) text += part.text
    return text
  }
}
