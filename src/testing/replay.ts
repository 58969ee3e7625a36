import { checkNumbers, checkOptions } from '../check-options.ts'
import { UsageError } from '../errors.ts'

/** A response as it came over the wire. JSON-serializable unless its bytes are no UTF-8. */
export interface Recording {
  /** The whole body as it came: text, or bytes where they are no UTF-8. */
  readonly body: string | Uint8Array
  /** Bytes of each network read; the rest of the body is one more. */
  readonly reads?: readonly number[] | undefined
  /** Milliseconds before each read. */
  readonly delays?: readonly number[] | undefined
  /** HTTP status. Default 200. */
  readonly status?: number | undefined
  /** Default: a content type guessed from the body. */
  readonly headers?: Readonly<Record<string, string>> | undefined
}

/** A request that a replaying `fetch` got. */
export interface ReplayRequest {
  /** The full address. */
  readonly url: string
  /** E.g. `'POST'`. */
  readonly method: string
  /** As they would have been sent, credentials included. */
  readonly headers: Headers
  /** The parsed JSON body; the text where it is none; `undefined` without a body. */
  readonly body: unknown
}

/** What answers a request: a body, a recording, or a function of the request. */
export type ReplaySource =
  string | Uint8Array | Recording | ((request: ReplayRequest) => string | Uint8Array | Recording)

/** How fast, and in what pieces, a replaying `fetch` answers. */
export interface ReplayOptions {
  /**
   * How the body is cut into reads: bytes per read, their sizes in order, or `'random'` sizes up to 64. Default: as recorded,
   * else one event per read.
   */
  readonly chunks?: number | readonly number[] | 'random' | undefined
  /** Makes `'random'` repeatable: a number from which all sizes follow. Default 1. */
  readonly seed?: number | undefined
  /** Milliseconds before each read. Default: as recorded, else none. */
  readonly delayMs?: number | undefined
}

/** A `fetch` that answers from recordings, with the requests it got. */
export type ReplayFetch = typeof globalThis.fetch & { readonly requests: readonly ReplayRequest[] }

/**
 * Makes a `fetch` that answers every request with `source`; of a list, each request with the next. Hand it to a provider or
 * an SDK client. It honours the request's signal as a network would.
 *
 * @throws UsageError where there is nothing to answer with, or an option makes no sense; as a rejection for a request after
 * the last of a list.
 *
 * @example
 * ```ts
 * const fetch = replayFetch([simulate('The first answer.'), { body: '', status: 529 }], { chunks: 16 })
 * const client = new StreamingLLMClient({ provider: anthropic({ model, apiKey: 'none', fetch }) })
 * show(String(fetch.requests.length))
 * ```
 */
export function replayFetch(source: ReplaySource | readonly ReplaySource[], options: ReplayOptions = {}): ReplayFetch {
  for (const item of [source].flat() as unknown[]) checkSource(item)
  checkOptions('replayFetch()', options, ['chunks', 'seed', 'delayMs'] satisfies (keyof ReplayOptions)[])
  const { chunks, delayMs, seed } = options
  if (chunks !== 'random')
    for (const size of [chunks].flat())
      checkNumbers('replayFetch()', { chunks: size }, { min: Array.isArray(chunks) ? 0 : 1, isWhole: true })
  checkNumbers('replayFetch()', { delayMs })
  checkNumbers('replayFetch()', { seed }, { min: -Infinity, max: Infinity })
  const requests: ReplayRequest[] = []
  const fetch = async (input: string | URL | Request, init?: RequestInit): Promise<Response> => {
    const asked = new Request(input, { ...init, signal: null })
    const request = { url: asked.url, method: asked.method, headers: asked.headers, body: parse(await asked.text()) }
    requests.push(request)
    const signal = init?.signal ?? (input instanceof Request ? input.signal : undefined)
    signal?.throwIfAborted()
    const next = Array.isArray(source)
      ? (source as readonly ReplaySource[])[requests.length - 1]
      : (source as ReplaySource)
    if (next === undefined)
      throw new UsageError(
        'invalid_argument',
        `replayFetch has ${(source as readonly unknown[]).length} recordings and got request ${requests.length}.`,
      )
    return respond(toRecording(typeof next === 'function' ? next(request) : next), options, signal)
  }
  return Object.assign(fetch, { requests })
}

function checkSource(source: unknown): void {
  const { body } = (source ?? {}) as Partial<Recording>
  const isText = [source, body].some((text) => typeof text === 'string' || text instanceof Uint8Array)
  if (!isText && typeof source !== 'function') {
    throw new UsageError(
      'invalid_argument',
      'replayFetch() takes a body, a recording or a function such as simulate() makes, or a list of them.',
    )
  }
}

function toRecording(answer: string | Uint8Array | Recording): Recording {
  return typeof answer === 'string' || answer instanceof Uint8Array ? { body: answer } : answer
}

function parse(text: string): unknown {
  if (text === '') return undefined
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

function respond(recording: Recording, options: ReplayOptions, signal: AbortSignal | null | undefined): Response {
  const bytes = typeof recording.body === 'string' ? new TextEncoder().encode(recording.body) : recording.body
  const chunks = cut(bytes, recording, options)
  const isLines = bytes[0] === 0x7b // {
  const headers = new Headers(recording.headers)
  if (!headers.has('content-type')) headers.set('content-type', isLines ? 'application/x-ndjson' : 'text/event-stream')
  const status = recording.status ?? 200
  // What `Response` allows no body for.
  if ([204, 205, 304].includes(status)) return new Response(null, { status, headers })
  let index = 0
  let timer: ReturnType<typeof setTimeout> | undefined
  let onAbort: (() => void) | undefined
  const release = (): void => {
    clearTimeout(timer)
    if (onAbort) signal?.removeEventListener('abort', onAbort)
  }
  const body = new ReadableStream<Uint8Array>(
    {
      start(controller) {
        onAbort = () => {
          release()
          controller.error(signal?.reason)
        }
        signal?.addEventListener('abort', onAbort)
      },
      async pull(controller) {
        const delay = options.delayMs ?? recording.delays?.[index] ?? 0
        if (delay > 0 && index < chunks.length) await new Promise((resolve) => (timer = setTimeout(resolve, delay)))
        const chunk = chunks[index++]
        if (signal?.aborted) return
        if (chunk) controller.enqueue(chunk)
        else {
          release()
          controller.close()
        }
      },
      cancel: release,
    },
    { highWaterMark: 0 },
  )
  return new Response(body, { status, headers })
}

/** The body in reads, as the options or the recording say. */
function cut(bytes: Uint8Array, { reads }: Recording, options: ReplayOptions): Uint8Array[] {
  const chunks = options.chunks ?? reads ?? 'event'
  const pieces: Uint8Array[] = []
  const random = randomSizes(options.seed ?? 1)
  for (let start = 0; start < bytes.length;) {
    const size =
      chunks === 'event'
        ? eventEnd(bytes, start) - start
        : chunks === 'random'
          ? random()
          : typeof chunks === 'number'
            ? chunks
            : (chunks[pieces.length] ?? bytes.length)
    pieces.push(bytes.subarray(start, start + Math.max(1, size)))
    start += Math.max(1, size)
  }
  return pieces
}

/** The index after the next blank line (server-sent events), or after the next line (JSON lines). */
function eventEnd(bytes: Uint8Array, start: number): number {
  const isLines = bytes[0] === 0x7b
  for (let i = start; i < bytes.length; i++) {
    if (bytes[i] !== 0x0a) continue
    if (isLines || bytes[i + 1] === 0x0a) return i + (isLines ? 1 : 2)
    if (bytes[i + 1] === 0x0d && bytes[i + 2] === 0x0a) return i + 3
  }
  return bytes.length
}

/** Sizes from 1 to 64, the same for the same seed (mulberry32). */
function randomSizes(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let bits = Math.imul(state ^ (state >>> 15), state | 1)
    bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61)
    return (((bits ^ (bits >>> 14)) >>> 0) % 64) + 1
  }
}
