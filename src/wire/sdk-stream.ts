import { AbortedError, describeError, isLLMError, type LLMError, StreamError } from '../errors.ts'
import type { StreamEvent } from '../events.ts'
import { fromBatches, type StreamEvents } from '../provider.ts'
import { type EventMapper, type Json, protocolError } from './event-mapper.ts'
import { readText } from './read-text.ts'
import { ServerSentEventReader, type WireLimits } from './server-sent-events.ts'
import { toTransportError } from './transport-errors.ts'

/** What tells one provider's stream from another's, where an official SDK opens the connection. */
export interface SdkStream {
  readonly provider: string
  readonly signal: AbortSignal
  readonly limits?: WireLimits | undefined
  /** Response header with the id of the request. */
  readonly requestIdHeader: string
  /** Sends the request. SDKs return a promise that also has `asResponse()`. */
  send(): Promise<{ readonly call: PromiseLike<unknown> }>
  createMapper(requestId: string | undefined): EventMapper
  /** The error for an error object that came after the response had begun. */
  readonly toReportedError: (error: unknown) => LLMError
}

/**
 * Opens an SDK's stream and reads it ourselves where it is server-sent events: SDK iterators end without an error when a
 * stream is cut or aborted.
 */
export async function* readSdkStream(options: SdkStream): AsyncGenerator<StreamEvent[], void, undefined> {
  const { provider, signal, limits, requestIdHeader } = options
  let reader: ServerSentEventReader | undefined
  let mapper: EventMapper | undefined
  let requestId: string | undefined
  try {
    const { call } = await options.send()
    const response = await rawResponse(call)
    requestId = response?.headers.get(requestIdHeader) ?? undefined
    // Not server-sent events (Bedrock's frames), or no response to be had: the SDK's own iterator.
    const iterable = !response || isBinary(response) ? ((await call) as AsyncIterable<unknown>) : undefined
    mapper = options.createMapper(requestId)
    if (iterable) {
      for await (const event of iterable) {
        yield mapper.push([event])
        if (mapper.hasEnded()) return
      }
    } else if (response) {
      reader = new ServerSentEventReader(await eventBody(response, options), limits)
      for (let events; (events = await reader.read());) {
        yield mapper.push(parsed(provider, events))
        if (mapper.hasEnded()) return
      }
    }
    // Aborted, the SDK's iterator just ends.
    signal.throwIfAborted()
    throw mapper.truncated()
  } catch (error) {
    throw describeError(toError(error, options, signal, mapper ? 'stream' : 'connect'), { requestId })
  } finally {
    if (mapper?.isFinished) reader?.drain()
    else reader?.cancel()
  }
}

/** Maps a raw stream that an SDK decodes. */
export function mapSdkStream(
  stream: AsyncIterable<unknown>,
  options: Pick<SdkStream, 'provider' | 'toReportedError'> & { createMapper(): EventMapper },
): StreamEvents {
  return fromBatches(async function* () {
    const mapper = options.createMapper()
    const { signal } = (stream as { controller?: AbortController }).controller ?? new AbortController()
    try {
      for await (const event of stream) {
        yield mapper.push([event])
        if (mapper.hasEnded()) return
      }
      signal.throwIfAborted()
      throw mapper.truncated()
    } catch (error) {
      // The SDK aborts by itself after any error, so only the reason tells who was first.
      if (signal.aborted && error === signal.reason) throw new AbortedError(error, { phase: 'stream' })
      throw toError(error, options, new AbortController().signal, 'stream')
    }
  })
}

/** The response behind an SDK's promise; `undefined` for clients whose promise has none. */
async function rawResponse(call: PromiseLike<unknown>): Promise<Response | undefined> {
  if (!('asResponse' in call)) return undefined
  return (call as { asResponse(): Promise<Response> }).asResponse()
}

function isBinary(response: Response): boolean {
  return response.headers.get('content-type')?.includes('application/vnd.amazon.eventstream') ?? false
}

/** The body, once it is sure to be an event stream: gateways answer with pages and errors under status 200. */
async function eventBody(
  { body, headers }: Response,
  { provider, toReportedError }: SdkStream,
): Promise<ReadableStream<Uint8Array>> {
  const facts = { retryable: true, phase: 'stream', provider } as const
  if (!body) throw new StreamError('empty_response', `${provider} answered without a body.`, facts)
  const contentType = headers.get('content-type')?.toLowerCase()
  if (contentType === undefined || contentType.includes('text/event-stream')) return body
  const { error } = contentType.includes('json') ? toMembers(await readText(body)) : {}
  if (error !== undefined) throw toReportedError(error)
  body.cancel().catch(() => undefined)
  throw new StreamError(
    'unexpected_content_type',
    `${provider} answered with ${contentType.split(';')[0] ?? ''} where an event stream was due. Check the base URL, and any gateway in between.`,
    facts,
  )
}

/** The members of an object in JSON; none of anything else. */
function toMembers(text: string): Json {
  try {
    return (JSON.parse(text) as Json | null) ?? {}
  } catch {
    return {}
  }
}

/** Parses one by one, so that what stands before a fault still counts. */
function* parsed(provider: string, events: readonly { readonly data: string }[]): Generator<unknown, void, undefined> {
  for (const { data } of events) {
    // An empty event is how some gateways keep a connection alive.
    if (data === '') continue
    let event: unknown
    try {
      event = JSON.parse(data)
    } catch {
      // The parser's own message would quote the answer.
      throw protocolError(provider, 'an event is not JSON')
    }
    yield event
  }
}

/** Wraps what the SDK, its iterator or a body threw. */
function toError(
  error: unknown,
  { provider, toReportedError }: Pick<SdkStream, 'provider' | 'toReportedError'>,
  signal: AbortSignal,
  phase: 'connect' | 'stream',
): LLMError {
  const { status, error: body, requestID } = (error ?? {}) as { status?: unknown; error?: unknown; requestID?: unknown }
  // What a service reports inside a stream, the SDK's iterator throws without a status.
  const isReported = status === undefined && body !== undefined && !isLLMError(error) && !signal.aborted
  if (isReported) {
    const { error: reported = body } = (body ?? {}) as Json
    return describeError(toReportedError(reported), {
      requestId: typeof requestID === 'string' ? requestID : undefined,
    })
  }
  return toTransportError(error, provider, signal, phase)
}
