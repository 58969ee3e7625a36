import type { Provider } from 'fieldstream'

export type Json = Readonly<Record<string, unknown>>

/** A part of a tool call, as it stands in an event. */
export interface CallPiece {
  /** What tells the calls of one answer apart; `undefined` where it is missing. */
  readonly place: number | undefined
  readonly id?: string | undefined
  readonly name?: string | undefined
  readonly arguments: string
}

/** What one event says. */
export interface EventFacts {
  readonly text?: string | undefined
  readonly finishReason?: string | undefined
  readonly usage?: Json | undefined
  readonly model?: string | undefined
  readonly calls?: readonly CallPiece[] | undefined
  /** Of an event that says that something went wrong. */
  readonly error?: unknown
  /** Which parts of the terminal evidence it holds. */
  readonly ending?: readonly string[] | undefined
}

export interface ConnectionOptions {
  readonly model: string
  readonly apiKey: string
  readonly baseURL: string
  readonly headers: Readonly<Record<string, string>>
  readonly fetch: typeof globalThis.fetch
}

/** One way of answering, as far as it can be looked at from outside. Read apart from the providers, so as to check them too. */
export interface Protocol {
  create(options: ConnectionOptions): Promise<Provider>
  readonly contentType: string
  /** Lines of JSON, instead of server-sent events. */
  readonly isLines: boolean
  readonly requestIdHeader: string | undefined
  /** The parts of its terminal evidence. */
  readonly evidence: readonly string[]
  /** Those without which an answer is not known to be complete. */
  readonly neededEvidence: readonly string[]
  /** Whether nothing but the end of the body ends an answer, so that its evidence may come again. */
  readonly endsWithBody: boolean
  /** Whether arguments are sent while they are written. */
  readonly streamsArguments: boolean
  /** What places the pieces of one call; `undefined` where calls come whole. */
  readonly placeName: string | undefined
  readonly hasCallIds: boolean
  /** `undefined` for what is no JSON, with the text as it stands. */
  read(event: Json | undefined, text: string): EventFacts
}

function membersOf(value: unknown): Json {
  return typeof value === 'object' && value !== null ? (value as Json) : {}
}

function listOf(value: unknown): readonly Json[] {
  return Array.isArray(value) ? value.map(membersOf) : []
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined
}

function placeOf(value: unknown): number | undefined {
  return typeof value === 'number' ? value : undefined
}

function usageOf(value: unknown): Json | undefined {
  return typeof value === 'object' && value !== null ? (value as Json) : undefined
}

const anthropic: Protocol = {
  create: async (options) => (await import('fieldstream/anthropic')).anthropic(options),
  contentType: 'text/event-stream',
  isLines: false,
  requestIdHeader: 'request-id',
  evidence: ['stop_reason', 'message_stop'],
  neededEvidence: ['stop_reason', 'message_stop'],
  endsWithBody: false,
  streamsArguments: true,
  placeName: 'index',
  hasCallIds: true,
  read(event) {
    const { type, message, delta, content_block: block, index, usage, error } = membersOf(event)
    const { stop_reason: reason, text, partial_json: json } = membersOf(delta)
    const { type: kind, id, name } = membersOf(block)
    const calls =
      // Also of tools that the service runs itself.
      textOf(kind)?.endsWith('tool_use')
        ? [{ place: placeOf(index), id: textOf(id), name: textOf(name), arguments: '' }]
        : typeof json === 'string'
          ? [{ place: placeOf(index), arguments: json }]
          : []
    return {
      text: textOf(text),
      finishReason: textOf(reason),
      usage: usageOf(usage) ?? usageOf(membersOf(message)['usage']),
      model: textOf(membersOf(message)['model']),
      calls,
      error: type === 'error' ? (error ?? event) : undefined,
      ending: [...(textOf(reason) ? ['stop_reason'] : []), ...(type === 'message_stop' ? ['message_stop'] : [])],
    }
  },
}

const lastOfResponse: readonly unknown[] = ['response.completed', 'response.incomplete', 'response.failed']

const openai: Protocol = {
  create: async (options) => (await import('fieldstream/openai')).openai(options),
  contentType: 'text/event-stream',
  isLines: false,
  requestIdHeader: 'x-request-id',
  evidence: ['response.completed'],
  neededEvidence: ['response.completed'],
  endsWithBody: false,
  streamsArguments: true,
  placeName: 'output_index',
  hasCallIds: true,
  read(event) {
    const { type, response, item, delta, output_index: index, error } = membersOf(event)
    const { type: kind, call_id: id, name } = membersOf(item)
    const { usage, model, status, incomplete_details: details, error: failure } = membersOf(response)
    const isLast = lastOfResponse.includes(type)
    const place = placeOf(index)
    const calls =
      type === 'response.output_item.added' && kind === 'function_call'
        ? [{ place, id: textOf(id), name: textOf(name), arguments: '' }]
        : type === 'response.function_call_arguments.delta' && typeof delta === 'string'
          ? [{ place, arguments: delta }]
          : []
    return {
      text: type === 'response.output_text.delta' ? textOf(delta) : undefined,
      finishReason: isLast ? (textOf(membersOf(details)['reason']) ?? textOf(status)) : undefined,
      usage: usageOf(usage),
      model: textOf(model),
      calls,
      error: type === 'error' || (type === undefined && error) ? (error ?? event) : (failure ?? undefined),
      // The others are no less an end, of an answer that is not complete.
      ending: isLast ? ['response.completed'] : [],
    }
  },
}

const openaiChat: Protocol = {
  create: async (options) => (await import('fieldstream/openai')).openaiChat(options),
  contentType: 'text/event-stream',
  isLines: false,
  requestIdHeader: 'x-request-id',
  evidence: ['finish_reason', '[DONE]'],
  neededEvidence: ['finish_reason'],
  endsWithBody: false,
  streamsArguments: true,
  placeName: 'index',
  hasCallIds: true,
  read(event, text) {
    if (event === undefined) return { ending: text.trim() === '[DONE]' ? ['[DONE]'] : [] }
    const choice = listOf(event['choices']).find(({ index }) => !index) ?? {}
    const { content, tool_calls: calls } = membersOf(choice['delta'])
    const reason = textOf(choice['finish_reason'])
    return {
      text: textOf(content),
      finishReason: reason,
      usage: usageOf(event['usage']),
      model: textOf(event['model']),
      calls: listOf(calls).map(({ index, id, function: called }) => {
        const { name, arguments: piece } = membersOf(called)
        return { place: placeOf(index), id: textOf(id), name: textOf(name), arguments: textOf(piece) ?? '' }
      }),
      error: event['error'] ?? undefined,
      ending: reason === undefined ? [] : ['finish_reason'],
    }
  },
}

const ollama: Protocol = {
  create: async ({ baseURL, apiKey, ...options }) =>
    (await import('fieldstream/ollama')).ollama({ host: baseURL, apiKey, ...options }),
  contentType: 'application/x-ndjson',
  isLines: true,
  requestIdHeader: undefined,
  evidence: ['done: true'],
  neededEvidence: ['done: true'],
  endsWithBody: false,
  streamsArguments: false,
  placeName: undefined,
  hasCallIds: false,
  read(event) {
    const { message, model, done, done_reason: reason, prompt_eval_count: read, eval_count: written } = membersOf(event)
    const { content, tool_calls: calls } = membersOf(message)
    return {
      text: textOf(content),
      finishReason: textOf(reason),
      usage: typeof written === 'number' ? { prompt_eval_count: read, eval_count: written } : undefined,
      model: textOf(model),
      calls: listOf(calls).map(({ id, function: called }) => {
        const { name, arguments: input } = membersOf(called)
        return { place: undefined, id: textOf(id), name: textOf(name), arguments: JSON.stringify(input) }
      }),
      error: event?.['error'] ?? undefined,
      ending: done === true ? ['done: true'] : [],
    }
  },
}

const gemini: Protocol = {
  create: async (options) => (await import('fieldstream/gemini')).gemini({ ...options, vertexai: false }),
  contentType: 'text/event-stream',
  isLines: false,
  requestIdHeader: undefined,
  evidence: ['finishReason'],
  neededEvidence: ['finishReason'],
  endsWithBody: true,
  streamsArguments: false,
  placeName: undefined,
  hasCallIds: false,
  read(event) {
    const { candidates, usageMetadata, modelVersion, error } = membersOf(event)
    const [candidate = {}] = listOf(candidates)
    const reason = textOf(candidate['finishReason'])
    const parts = listOf(membersOf(candidate['content'])['parts'])
    const said = parts.filter(({ thought }) => thought !== true)
    return {
      text: textOf(said.map(({ text }) => textOf(text) ?? '').join('')),
      finishReason: reason,
      usage: usageOf(usageMetadata),
      model: textOf(modelVersion),
      calls: parts.flatMap(({ functionCall }) => {
        const { id, name, args } = membersOf(functionCall)
        return textOf(name) === undefined
          ? []
          : [{ place: undefined, id: textOf(id), name: textOf(name), arguments: JSON.stringify(args ?? {}) }]
      }),
      error: error ?? undefined,
      ending: reason === undefined ? [] : ['finishReason'],
    }
  },
}

export const protocols: Readonly<Record<string, Protocol>> = {
  anthropic,
  openai,
  'openai-chat': openaiChat,
  ollama,
  gemini,
}
