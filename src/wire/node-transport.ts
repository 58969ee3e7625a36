import type { ClientRequest, IncomingMessage } from 'node:http'
import type { Readable, Transform } from 'node:stream'
import { UsageError } from '../errors.ts'

/** How much is taken in before anybody reads it. */
const maxBuffered = 65_536

/** What of a body stream is needed to read it. */
type Reader = Pick<ReadableStreamDefaultReader<Uint8Array>, 'read' | 'cancel'>

/**
 * A response's body as Node has it, with what a `ReadableStream` needs for one reader: a web stream around it would double what a
 * paced event costs.
 */
class NodeBody implements Reader {
  readonly #stream: Readable
  #chunks: Uint8Array[] = []
  #length = 0
  #isPaused = true
  #waiter: Pick<PromiseWithResolvers<ReadableStreamReadResult<Uint8Array>>, 'resolve' | 'reject'> | undefined
  #end: { readonly error?: unknown } | undefined

  constructor(stream: Readable) {
    this.#stream = stream
    stream.on('data', this.#onData)
    stream.on('end', () => this.#finish({}))
    stream.on('error', (error) => this.#finish({ error }))
    stream.on('close', () => this.#finish({ error: Object.assign(new Error('closed'), { code: 'ECONNRESET' }) }))
    stream.pause()
  }

  getReader(): Reader {
    return this
  }

  read(): Promise<ReadableStreamReadResult<Uint8Array>> {
    const chunks = this.#chunks
    if (chunks.length > 0) {
      this.#chunks = []
      this.#length = 0
      return Promise.resolve({ done: false, value: chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks) })
    }
    return new Promise((resolve, reject) => {
      this.#waiter = { resolve, reject }
      if (this.#end) this.#finish(this.#end)
      else if (this.#isPaused) {
        this.#isPaused = false
        this.#stream.resume()
      }
    })
  }

  cancel(): Promise<void> {
    this.#finish({})
    this.#stream.destroy()
    return Promise.resolve()
  }

  readonly #onData = (chunk: Uint8Array): void => {
    const waiter = this.#waiter
    this.#waiter = undefined
    if (waiter) {
      waiter.resolve({ done: false, value: chunk })
      return
    }
    this.#chunks.push(chunk)
    this.#length += chunk.length
    if (this.#length < maxBuffered) return
    this.#isPaused = true
    this.#stream.pause()
  }

  #finish(end: { readonly error?: unknown }): void {
    this.#end ??= end
    const waiter = this.#waiter
    this.#waiter = undefined
    if ('error' in this.#end) waiter?.reject(this.#end.error)
    else waiter?.resolve({ done: true, value: undefined })
  }
}

/** A `fetch` over Node's own HTTP client, for requests whose body is at hand. It follows no redirect. */
export const nodeFetch: typeof globalThis.fetch = async (input, init = {}) => {
  const { body, signal } = init
  const isAtHand = body === undefined || body === null || typeof body === 'string' || body instanceof Uint8Array
  if (input instanceof Request || !isAtHand) return globalThis.fetch(input, init)
  signal?.throwIfAborted()
  const url = new URL(input)
  const { request } = module(url.protocol === 'https:' ? 'node:https' : 'node:http')
  const message = await new Promise<IncomingMessage>((resolve, reject) => {
    const sent: ClientRequest = request(url, {
      method: init.method ?? 'GET',
      headers: Object.fromEntries(new Headers(init.headers)),
      ...(signal && { signal }),
    })
    sent.on('response', resolve)
    sent.on('error', (error) => reject(signal?.aborted ? (signal.reason as Error) : toFetchError(error)))
    sent.end(body)
  })
  try {
    return toResponse(message)
  } catch (error) {
    message.destroy()
    throw error
  }
}

/** As `fetch` has it. Node calls it a reset, too, when the other side closes the connection in good order. */
function toFetchError(error: NodeJS.ErrnoException): TypeError {
  const isClosed = error.code === 'ECONNRESET' && error.syscall === undefined
  return new TypeError('fetch failed', {
    cause: isClosed ? Object.assign(new Error('The other side closed the connection.'), { code: 'EPIPE' }) : error,
  })
}

function toResponse(message: IncomingMessage): Response {
  const { statusCode: status = 0, statusMessage: statusText = '', headersDistinct } = message
  const headers = new Headers()
  for (const [name, values = []] of Object.entries(headersDistinct))
    for (const value of values) headers.append(name, value)
  // Of what a `Response` cannot be made with, servers send some.
  const isRegular = status >= 200 && status <= 599
  const response = new Response(null, { status: isRegular ? status : 500, statusText, headers })
  const body = new NodeBody(decoded(message, headers.get('content-encoding')?.toLowerCase()))
  return Object.defineProperties(response, { body: { value: body }, ...(!isRegular && { status: { value: status } }) })
}

/** The body without the compression that a server used unasked. */
function decoded(message: IncomingMessage, encoding: string | undefined): Readable {
  const zlib = module('node:zlib')
  const decoders: Readonly<Record<string, (() => Transform) | undefined>> = {
    gzip: zlib.createGunzip,
    'x-gzip': zlib.createGunzip,
    deflate: zlib.createInflate,
    br: zlib.createBrotliDecompress,
    // Node 22.15 and later.
    zstd: zlib.createZstdDecompress,
  }
  const decoder = decoders[encoding ?? '']?.()
  if (!decoder) return message
  message.on('error', (error) => decoder.destroy(error))
  decoder.on('close', () => message.destroy())
  return message.pipe(decoder)
}

/** Not `import`: bundlers for other platforms would look for it. */
function module<Name extends 'node:http' | 'node:https' | 'node:zlib'>(name: Name) {
  const found = typeof process === 'undefined' ? undefined : process.getBuiltinModule?.(name)
  if (found) return found
  throw new UsageError(
    'unsupported',
    "`transport: 'node'` needs Node 22.3 or later. Leave it out, and `fetch` is used.",
  )
}
