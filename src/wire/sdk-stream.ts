import { AbortedError, describeError, isLLMError, type LLMError, StreamError, UsageError } from '../errors.ts'
import { type Batches, fromBatches, notStreamed, type StreamEvents } from '../provider.ts'
import type { LLMWarning } from '../request.ts'
import { type EventMapper, type Json, protocolError } from './event-mapper.ts'
import {
  emptyEvent,
  endOfEvents,
  type EventReader,
  type Framing,
  type WireEvent,
  type WireLimits,
} from './event-reader.ts'
import { jsonBody } from './json-body.ts'
import { MappedReads, type OpenAnswer } from './mapped-reads.ts'
import { readText } from './read-text.ts'
import { serverSentEvents } from './server-sent-events.ts'
import { errorIn, toTransportError } from './transport-errors.ts'

interface Service {
  readonly provider: string
  /** The error for an error object that came after the response had begun. */
  readonly toReportedError: (error: unknown) => LLMError
}

/** What tells one provider's stream from another's, where an official SDK opens the connection. */
export interface SdkStream<Body = Json> extends Service {
  readonly signal: AbortSignal
  readonly limits?: WireLimits | undefined
  /** Whether the answer was asked for as a stream. */
  readonly streaming: boolean
  /** Those that the mapper is given: one may be added before it is made. */
  readonly warnings: LLMWarning[]
  /** Default: server-sent events. */
  readonly framing?: Framing | undefined
  /** Response header with the id of the request. */
  readonly requestIdHeader: string
  /** Puts the request in the service's form. What is wrong here is the caller's mistake, and nothing is sent. */
  toBody(): Body
  /** Sends it. SDKs return a promise that also has `asResponse()`. */
  send(body: Body): Promise<{ readonly call: PromiseLike<unknown> }>
  createMapper(requestId: string | undefined): EventMapper
}

/**
 * Opens an SDK's stream and reads it ourselves where its body can be read: SDK iterators end without an error when a stream is
 * cut or aborted. What comes is read as what it is, a stream or an answer in one piece, whichever was asked for.
 */
export function readSdkStream<Body>(options: SdkStream<Body>): Batches {
  const { provider, signal, requestIdHeader } = options
  let body: Body | undefined
  let response: Response | undefined
  let requestId: string | undefined
  return new MappedReads({
    signal,
    async open() {
      body = bodyOf(options)
      const { call } = await options.send(body)
      response = await rawResponse(call)
      requestId = response?.headers.get(requestIdHeader) ?? undefined
      const mapperOf = (isWhole: boolean): EventMapper => {
        if (isWhole && options.streaming) options.warnings.push(notStreamed)
        return options.createMapper(requestId)
      }
      if (response && !isBinary(response)) {
        const framing = framingOf(response, options)
        return framing === jsonBody
          ? wholeAnswerIn(response, mapperOf(true), options)
          : answerIn(response, framing, mapperOf(false), options)
      }
      // Binary frames (Bedrock), or no response to be had: what the SDK makes of it.
      const answer = await call
      return isIterable(answer) ? iteratedAnswer(answer, mapperOf(false)) : givenAnswer(answer, mapperOf(true))
    },
    toError(error, answer) {
      if (!answer) {
        response?.body?.cancel().catch(() => undefined)
        if (!isLLMError(error) && body !== undefined) checkJson(body, provider)
      }
      return describeError(toError(error, options, signal, answer ? 'stream' : 'connect'), { provider, requestId })
    },
  })
}

function bodyOf<Body>(options: SdkStream<Body>): Body {
  const { provider } = options
  try {
    return options.toBody()
  } catch (cause) {
    if (isLLMError(cause)) throw describeError(cause, { provider })
    const message = `The request cannot be put in the form of ${provider}: something in it is not what it should be. See \`cause\`.`
    throw new UsageError('invalid_argument', message, { provider, cause })
  }
}

/** Throws where a body is no JSON, of which SDKs say no more than of a connection that fails. */
function checkJson(body: unknown, provider: string): void {
  try {
    JSON.stringify(body, (_, value: unknown) => (ArrayBuffer.isView(value) ? null : value))
  } catch (cause) {
    throw new UsageError('invalid_argument', 'The request holds something that is no JSON. See `cause`.', {
      provider,
      cause,
    })
  }
}

/** What tells one SDK's stream from another's, where the user has called it. */
export interface CalledSdkStream extends Service {
  /** The function that takes the stream, and the call that makes it, for messages. */
  readonly caller: string
  readonly call: string
  createMapper(): EventMapper
  /** The stream as it is to be read, where that is not as the SDK gives it. */
  restate?(stream: AsyncIterable<unknown>): AsyncIterable<unknown>
}

/**
 * Maps a raw stream that an SDK decodes.
 *
 * @throws UsageError where `given` is none: the promise of one, or an answer that does not stream.
 */
export function mapSdkStream(given: AsyncIterable<unknown>, options: CalledSdkStream): StreamEvents {
  if (typeof (given as Partial<typeof given> | null | undefined)?.[Symbol.asyncIterator] !== 'function') {
    throw new UsageError(
      'invalid_argument',
      `${options.caller}() takes what \`await ${options.call}\` returns. Is the call awaited, and does it stream?`,
    )
  }
  const stream = options.restate?.(given) ?? given
  const { signal } = controllerOf(stream) ?? new AbortController()
  return fromBatches(
    () =>
      new MappedReads({
        signal,
        open: () => iteratedAnswer(stream, options.createMapper()),
        toError: (error) => {
          // The SDK aborts by itself after any error, so only the reason tells who was first.
          if (signal.aborted && error === signal.reason) return new AbortedError(error, { phase: 'stream' })
          return toError(error, options, new AbortController().signal, 'stream')
        },
      }),
  )
}

function isIterable(answer: unknown): answer is AsyncIterable<unknown> {
  return typeof (answer as Partial<AsyncIterable<unknown>> | undefined)?.[Symbol.asyncIterator] === 'function'
}

const jsonType = /^\w+\/(?:[\w.-]+\+)?json\s*(?:;|$)/

/** How the body is to be read, whatever was asked for. */
function framingOf(
  { headers }: Response,
  { framing = serverSentEvents, streaming }: Pick<SdkStream, 'framing' | 'streaming'>,
): Framing {
  const contentType = headers.get('content-type')?.toLowerCase()
  const mayStream = contentType === undefined || contentType.includes(framing.contentType)
  if (streaming && mayStream) return framing
  return contentType === undefined || jsonType.test(contentType) ? jsonBody : framing
}

/** The answer in a body. */
function answerIn(
  response: Response,
  framing: Framing,
  mapper: EventMapper,
  service: Service & Pick<SdkStream, 'limits'>,
): OpenAnswer<WireEvent> {
  let reader: EventReader | undefined
  const openBody = async (): Promise<readonly WireEvent[] | undefined> => {
    reader = framing.open(await eventBody(response, framing, service), service.limits)
    return reader.read()
  }
  return {
    mapper,
    read: () => (reader ? reader.read() : openBody()),
    parse: (event) => parseEvent(service.provider, event),
    close(isComplete) {
      if (!reader) response.body?.cancel().catch(() => undefined)
      else if (isComplete) reader.drain()
      else reader.cancel()
    },
  }
}

/** As `answerIn`, of an answer in one piece: the one event that it is to its mapper, or, of a list, each of its members. */
function wholeAnswerIn(
  response: Response,
  mapper: EventMapper,
  service: Service & Pick<SdkStream, 'limits'>,
): OpenAnswer {
  const { provider, toReportedError } = service
  const answer = answerIn(response, jsonBody, mapper, service)
  let text: string | undefined
  return {
    mapper,
    async read() {
      const read = await answer.read()
      text ??= read?.[0]?.data
      if (read) return read.flatMap((event) => answer.parse(event))
      if (text === undefined || mapper.hasStarted) return undefined
      const error = errorIn(text)
      throw error === undefined ? unexpectedContent(provider, 'other JSON', jsonBody) : toReportedError(error)
    },
    parse: (event) => event,
    close: (isComplete) => answer.close(isComplete),
  }
}

/** An answer in one piece that an SDK has read. */
function givenAnswer(answer: unknown, mapper: EventMapper): OpenAnswer {
  const pieces = [[answer]]
  return {
    mapper,
    read: () => Promise.resolve(pieces.shift()),
    parse: (event) => event,
    close: () => undefined,
  }
}

/** What an SDK's stream iterates over. */
function iteratedAnswer(stream: AsyncIterable<unknown>, mapper: EventMapper): OpenAnswer {
  const iterator = stream[Symbol.asyncIterator]() as AsyncIterator<unknown, unknown>
  let isReading = false
  return {
    mapper,
    async read() {
      isReading = true
      try {
        const { done, value } = await iterator.next()
        return done ? undefined : [value]
      } finally {
        isReading = false
      }
    },
    parse: (event) => event,
    close() {
      // A generator that waits for its next event would only leave after that.
      if (isReading) controllerOf(stream)?.abort()
      iterator.return?.().catch(() => undefined)
    },
  }
}

/** What an SDK's stream is aborted with. */
function controllerOf(stream: AsyncIterable<unknown>): AbortController | undefined {
  return (stream as { controller?: AbortController }).controller
}

/** The response behind an SDK's promise; `undefined` for clients whose promise has none. */
async function rawResponse(call: PromiseLike<unknown>): Promise<Response | undefined> {
  if (!('asResponse' in call)) return undefined
  return (call as { asResponse(): Promise<Response> }).asResponse()
}

function isBinary(response: Response): boolean {
  return response.headers.get('content-type')?.includes('application/vnd.amazon.eventstream') ?? false
}

/** The body, once it is sure to be an answer: gateways answer with pages and errors under status 200. */
async function eventBody(
  { body, headers }: Response,
  framing: Framing,
  { provider, toReportedError }: Service,
): Promise<ReadableStream<Uint8Array>> {
  const facts = { retryable: true, phase: 'stream', provider } as const
  if (!body) throw new StreamError('empty_response', `${provider} answered without a body.`, facts)
  const contentType = headers.get('content-type')?.toLowerCase()
  if (contentType === undefined || contentType.includes(framing.contentType)) return body
  const error = contentType.includes('json') ? errorIn(await readText(body)) : undefined
  if (error !== undefined) throw toReportedError(error)
  body.cancel().catch(() => undefined)
  throw unexpectedContent(provider, contentType.split(';')[0]!, framing)
}

function unexpectedContent(provider: string, what: string, due: Framing): StreamError {
  return new StreamError(
    'unexpected_content_type',
    `${provider} answered with ${what} in place of ${due.name}. Check the base URL, and any gateway in between.`,
    { retryable: true, phase: 'stream', provider },
  )
}

function parseEvent(provider: string, event: WireEvent): unknown {
  if (event === endOfEvents || event === emptyEvent) return event
  try {
    return JSON.parse(event.data)
  } catch {
    // The parser's own message would quote the answer.
    throw protocolError(provider, 'what it sent is not JSON')
  }
}

/** Wraps what the SDK, its iterator or a body threw. */
function toError(
  error: unknown,
  { provider, toReportedError }: Service,
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
