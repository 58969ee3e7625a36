import { Buffer } from 'node:buffer'

/** One read of a body, in milliseconds since the request was sent. */
export interface Read {
  readonly at: number
  readonly bytes: Uint8Array
}

/**
 * How a body ended: as HTTP says it should, by a broken connection, not within the time of a request, because whoever read it
 * left, or not at all though the answer was over.
 */
export type BodyEnd = 'clean' | 'broken' | 'timeout' | 'left' | 'open'

/** One request, and all that came back. */
export interface Exchange {
  readonly url: string
  readonly requestHeaders: Headers
  readonly requestBody: string
  readonly status: number | undefined
  readonly headers: Headers
  readonly reads: readonly Read[]
  readonly end: BodyEnd
  readonly endedAt: number
  /** A word for what broke, e.g. `'ECONNREFUSED'`. */
  readonly failure: string | undefined
}

export interface ObserverOptions {
  /** Milliseconds for one request. */
  readonly timeoutMs: number
  /** Milliseconds without a word after which an answer that is over is left. */
  readonly graceMs: number
  readonly isOver: (exchange: Exchange) => boolean
  /** Stops everything. */
  readonly signal: AbortSignal
  /** Whether the connection is closed as soon as whoever reads it leaves. Else what follows is still looked at. */
  readonly closesWithReader?: boolean | undefined
}

/** Of one body. No answer to these questions is as long. */
const mostBytes = 16 * 2 ** 20

type Mutable<Type> = { -readonly [Name in keyof Type]: Type[Name] }

/** A `fetch` that writes down what passes, at what time. */
export class Observer {
  readonly exchanges: Exchange[] = []
  readonly #options: ObserverOptions
  readonly #pumps: Promise<void>[] = []

  constructor(options: ObserverOptions) {
    this.#options = options
  }

  readonly fetch: typeof globalThis.fetch = async (input, init) => {
    const { timeoutMs, signal: stop, closesWithReader = false } = this.#options
    const asked = new Request(input, { ...init, signal: null })
    const startedAt = performance.now()
    const requestBody = await asked.text()
    const exchange: Mutable<Exchange> & { reads: Read[] } = {
      url: asked.url,
      requestHeaders: asked.headers,
      requestBody,
      status: undefined,
      headers: new Headers(),
      reads: [],
      end: 'broken',
      endedAt: 0,
      failure: undefined,
    }
    this.exchanges.push(exchange)
    const connection = new AbortController()
    const close = (end: BodyEnd): void => {
      if (!connection.signal.aborted) exchange.end = end
      connection.abort()
    }
    const deadline = setTimeout(() => close('timeout'), timeoutMs)
    const onStop = (): void => close('left')
    stop.addEventListener('abort', onStop)
    const readerSignal = init?.signal ?? undefined
    if (closesWithReader) readerSignal?.addEventListener('abort', onStop)
    const finish = (): void => {
      exchange.endedAt = performance.now() - startedAt
      clearTimeout(deadline)
      stop.removeEventListener('abort', onStop)
      readerSignal?.removeEventListener('abort', onStop)
    }
    let response: Response
    try {
      stop.throwIfAborted()
      response = await globalThis.fetch(asked.url, {
        method: asked.method,
        headers: asked.headers,
        redirect: 'manual',
        signal: connection.signal,
        ...(requestBody !== '' && { body: requestBody }),
      })
    } catch (error) {
      exchange.failure = failureOf(error)
      finish()
      throw error
    }
    exchange.status = response.status
    exchange.headers = response.headers
    let reader: ReadableStreamDefaultController<Uint8Array> | undefined
    let leave: () => void = () => undefined
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => void (reader = controller),
      cancel: () => {
        reader = undefined
        leave()
      },
    })
    const left = new Promise<void>((resolve) => (leave = resolve))
    const pump = async (): Promise<void> => {
      let idle: ReturnType<typeof setTimeout> | undefined
      let hasLeft = false
      let received = 0
      const wait = (): void => {
        clearTimeout(idle)
        idle = setTimeout(() => {
          if (hasLeft || this.#options.isOver(exchange)) close('open')
          else wait()
        }, this.#options.graceMs)
      }
      void left.then(() => {
        hasLeft = true
        if (closesWithReader) close('left')
        // What keeps on coming after the end is not waited for without bound.
        else setTimeout(() => close('open'), 2 * this.#options.graceMs).unref()
      })
      readerSignal?.addEventListener('abort', () => leave(), { once: true })
      wait()
      try {
        for await (const bytes of response.body ?? []) {
          exchange.reads.push({ at: performance.now() - startedAt, bytes })
          reader?.enqueue(bytes)
          wait()
          if ((received += bytes.length) > mostBytes) close('open')
        }
        if (!connection.signal.aborted) exchange.end = 'clean'
        reader?.close()
      } catch (error) {
        if (!connection.signal.aborted) exchange.failure = failureOf(error)
        try {
          reader?.error(error)
        } catch {
          // Whoever read it has closed it.
        }
      } finally {
        clearTimeout(idle)
        connection.abort()
        finish()
      }
    }
    this.#pumps.push(pump())
    const { status, statusText, headers } = response
    const hasBody = response.body && ![204, 205, 304].includes(status)
    return new Response(hasBody ? body : null, { status, statusText, headers })
  }

  /** Resolves when nothing comes any more. */
  async settled(): Promise<void> {
    await Promise.all(this.#pumps)
  }
}

/** The most telling code in an error's causes. */
function failureOf(error: unknown): string {
  let word = 'unknown'
  for (let cause: unknown = error, depth = 0; cause instanceof Error && depth < 5; cause = cause.cause, depth++) {
    const { code } = cause as { code?: unknown }
    word = typeof code === 'string' ? code : cause.message
  }
  return word
}

export function bodyOf({ reads }: Exchange): Buffer {
  return Buffer.concat(reads.map(({ bytes }) => bytes))
}
