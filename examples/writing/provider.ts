import { createParser } from 'eventsource-parser'
import {
  ConnectionError,
  type ErrorCode,
  fromBatches,
  HttpError,
  isLLMError,
  type LLMRequest,
  type Message,
  type Provider,
  StreamError,
  type StreamEvent,
  StreamingLLMClient,
  tool,
  UsageError,
} from 'fieldstream'
import { z } from 'zod'
import { startDesk } from './desk-service.ts'

/** What the service writes, one to an event. A whole answer is a list of them. */
export type Frame =
  | { kind: 'begin'; id: string; model: string }
  | { kind: 'text'; text: string }
  | { kind: 'call'; id: string; tool: string }
  | { kind: 'arguments'; id: string; json: string }
  | { kind: 'called'; id: string }
  | { kind: 'fault'; code: string; temporary: boolean }
  | { kind: 'end'; why: 'done' | 'calls' | 'limit'; tokens: { in: number; out: number } }

export interface DeskOptions {
  readonly model: string
  readonly baseURL: string
  readonly key?: string | undefined
}

/** The models of an imagined service within a company. */
export function desk({ model, baseURL, key = '' }: DeskOptions): Provider {
  async function ask(request: LLMRequest, stream: boolean, signal: AbortSignal): Promise<Response> {
    const body = JSON.stringify({ ...toBody(request), model, stream })
    const headers = { 'content-type': 'application/json', authorization: `Bearer ${key}` }
    let response: Response
    try {
      response = await fetch(new URL('answers', baseURL), { method: 'POST', headers, body, signal })
    } catch (cause) {
      throw new ConnectionError('connection', 'The desk cannot be reached.', {
        phase: 'connect',
        retryable: true,
        cause,
      })
    }
    if (!response.ok) throw await toHttpError(response)
    return response
  }

  return {
    name: 'desk',
    model,
    stream: (request, { signal }) =>
      fromBatches(async function* () {
        const response = await ask(request, true, signal)
        yield [] // the service has begun to answer: from here on other limits of time hold
        const texts: string[] = []
        const parser = createParser({ onEvent: ({ data }) => texts.push(data) })
        for await (const piece of piecesOf(response)) {
          parser.feed(piece)
          if (texts.length === 0) yield [] // a sign of life, or a part of an event
          for (const text of texts.splice(0)) {
            const events = toEvents(parse(text) as Frame)
            yield events
            if (events.at(-1)?.type === 'finish') return
          }
        }
        throw cut()
      }),
    generate: (request, { signal }) =>
      fromBatches(async function* () {
        const response = await ask(request, false, signal)
        const events = (parse(await response.text().catch(throwCut)) as Frame[]).flatMap(toEvents)
        if (events.at(-1)?.type !== 'finish') throw cut()
        yield events
      }),
  }
}

/** Each kind of frame is an event of ours; kinds that the service may add later are none. */
export function toEvents(frame: Frame): StreamEvent[] {
  switch (frame.kind) {
    case 'begin':
      return [{ type: 'start', provider: 'desk', model: frame.model, responseId: frame.id, toolInput: 'native' }]
    case 'text':
      return [{ type: 'text-delta', delta: frame.text }]
    case 'call':
      return [{ type: 'tool-input-start', toolCallId: frame.id, toolName: frame.tool }]
    case 'arguments':
      return [{ type: 'tool-input-delta', toolCallId: frame.id, delta: frame.json }]
    case 'called':
      return [{ type: 'tool-input-end', toolCallId: frame.id }]
    case 'fault':
      throw new StreamError('provider_error', 'The desk broke off its answer.', {
        phase: 'stream',
        providerCode: frame.code,
        retryable: frame.temporary,
      })
    case 'end': {
      const { in: inputTokens, out: outputTokens } = frame.tokens
      return [
        {
          type: 'finish',
          finishReason: ({ done: 'stop', calls: 'tool-calls', limit: 'length' } as const)[frame.why],
          providerFinishReason: frame.why,
          usage: {
            inputTokens,
            outputTokens,
            totalTokens: inputTokens + outputTokens,
            cacheReadTokens: 0,
            cacheWriteTokens: 0,
            raw: frame.tokens,
          },
        },
      ]
    }
    default:
      return []
  }
}

/** What the service cannot do is refused before anything is sent, never left out in silence. */
function toBody({ messages, system, tools = [], toolChoice = 'auto', ...rest }: LLMRequest): Record<string, unknown> {
  const { maxTokens, temperature, providerOptions, output, raw, reasoning, stop, topP } = rest
  for (const [name, value] of Object.entries({ output, raw, reasoning, stop, topP }))
    if (value !== undefined && value !== false) throw new UsageError('unsupported', `The desk has no \`${name}\`.`)
  if (tools.some(({ definition, strict }) => definition ?? strict))
    throw new UsageError('unsupported', 'The desk has no tools of its own, and none that are `strict`.')
  return {
    system,
    messages: messages.map(toMessage),
    tools: tools.map(({ name, description, inputSchema }) => ({ name, description, parameters: inputSchema })),
    must_call: typeof toolChoice === 'string' ? toolChoice : toolChoice.name,
    max_tokens: maxTokens,
    temperature,
    ...providerOptions?.['desk'],
  }
}

function toMessage({ role, content }: Message): Record<string, unknown> {
  if (typeof content === 'string') return { role, text: content }
  return {
    role,
    parts: content.map((part) => {
      if (part.type === 'text') return { text: part.text }
      if (part.type === 'tool-call') return { call: part.toolCallId, tool: part.toolName, arguments: part.input }
      if (part.type === 'tool-result') return { result_of: part.toolCallId, value: part.output, failed: part.isError }
      throw new UsageError('unsupported', `The desk takes no ${part.type} parts.`)
    }),
  }
}

const codes: Readonly<Record<number, ErrorCode>> = {
  400: 'bad_request',
  401: 'authentication',
  403: 'permission',
  404: 'not_found',
  413: 'request_too_large',
  429: 'rate_limited',
  503: 'overloaded',
}

async function toHttpError(response: Response): Promise<HttpError> {
  const { status, headers } = response
  const seconds = Number(headers.get('retry-after') ?? NaN)
  return new HttpError(codes[status] ?? (status >= 500 ? 'server_error' : 'http_error'), `The desk said ${status}.`, {
    phase: 'connect',
    status,
    retryable: status === 429 || status >= 500,
    retryAfterMs: Number.isFinite(seconds) ? seconds * 1000 : undefined,
    providerMessage: await response.text().catch(() => undefined),
  })
}

/** The text of the body as it arrives. Leaving the loop closes the connection. */
async function* piecesOf({ body }: Response): AsyncGenerator<string, void, undefined> {
  try {
    for await (const piece of body?.pipeThrough(new TextDecoderStream()) ?? []) yield piece
  } catch (cause) {
    throwCut(cause)
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    // Without a `cause`: it would quote the answer.
    throw new StreamError('stream_protocol', 'The desk sent what is no JSON.', { phase: 'stream', retryable: true })
  }
}

/** What came may look whole, but the service never said that it is. */
function cut(cause?: unknown): StreamError {
  const reason = cause === undefined ? 'end' : 'reset'
  return new StreamError('stream_truncated', 'The answer of the desk was cut.', {
    phase: 'stream',
    retryable: true,
    reason,
    cause,
  })
}

function throwCut(cause: unknown): never {
  throw isLLMError(cause) ? cause : cut(cause)
}

if (import.meta.main) {
  const order = tool({ name: 'order', input: z.object({ product: z.string(), pieces: z.number() }) })
  const frames: Frame[] = [
    { kind: 'begin', id: 'answer-1', model: 'house-2' },
    { kind: 'call', id: 'call-1', tool: 'order' },
    { kind: 'arguments', id: 'call-1', json: '{"product":"salted' },
    { kind: 'arguments', id: 'call-1', json: ' chips","pieces":4}' },
    { kind: 'called', id: 'call-1' },
    { kind: 'end', why: 'calls', tokens: { in: 40, out: 12 } },
  ]
  const service = await startDesk([{ frames }, { frames }, { frames: frames.slice(0, 4), then: 'reset' }])
  const client = new StreamingLLMClient({ provider: desk({ model: 'house-2', baseURL: service.url }) })
  const request = {
    messages: [{ role: 'user', content: 'Four bags of chips, please.' }],
    tools: [order],
    toolChoice: order,
    fields: { product: 'product' },
  } as const

  const stream = client.stream(request)
  for await (const delta of stream.fields('product')) console.log('streamed:', delta)
  const { toolCalls, usage } = await stream.final()
  console.log('complete:', toolCalls[0].input, usage.totalTokens, 'tokens')

  const whole = await client.generate(request)
  console.log('in one piece:', whole.toolCalls[0].input)

  const error: unknown = await client
    .stream(request)
    .final()
    .catch((reason: unknown) => reason)
  if (isLLMError(error)) console.log('cut:', error.code, error.partial?.toolCalls[0]?.input)
  await service.close()
}
