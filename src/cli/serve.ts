import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { Buffer } from 'node:buffer'
import type { AddressInfo } from 'node:net'
import { CommandError } from './arguments.ts'

export interface Incoming {
  readonly method: string
  /** With its query. */
  readonly path: string
  readonly headers: Headers
  readonly body: Buffer
  /** Fires when the client is gone. */
  readonly signal: AbortSignal
}

export interface Serving {
  readonly origin: string
  close(): void
}

/** Listens on the loopback only: what passes is nobody else's business. */
export async function serve(
  port: number,
  answer: (request: Incoming, response: ServerResponse) => Promise<void>,
): Promise<Serving> {
  const server = createServer((message, response) => {
    void (async () => {
      try {
        await answer(await readRequest(message, response), response)
      } catch {
        // The client, or who is behind, is gone; half an answer must not look whole.
        response.destroy()
      }
    })()
  })
  server.listen(port, '127.0.0.1')
  try {
    await once(server, 'listening')
  } catch (error) {
    throw new CommandError(`Cannot listen on port ${port}: ${(error as { code?: string }).code ?? 'unknown'}.`)
  }
  return {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: () => {
      server.close()
      server.closeAllConnections()
    },
  }
}

async function readRequest(message: IncomingMessage, response: ServerResponse): Promise<Incoming> {
  const gone = new AbortController()
  response.on('close', () => gone.abort())
  const pieces: Buffer[] = []
  for await (const piece of message) pieces.push(piece as Buffer)
  const headers = new Headers()
  for (const [name, value] of Object.entries(message.headers))
    for (const one of [value ?? []].flat()) headers.append(name, one)
  const { method = 'GET', url: path = '/' } = message
  return { method, path, headers, body: Buffer.concat(pieces), signal: gone.signal }
}

/** Sends a piece, and resolves when the client's side has taken it or is gone. */
export async function write(response: ServerResponse, bytes: Uint8Array): Promise<void> {
  if (response.destroyed || response.write(bytes)) return
  const over = new AbortController()
  const { signal } = over
  try {
    await Promise.race([once(response, 'drain', { signal }), once(response, 'close', { signal })])
  } finally {
    // Takes the listeners of the other away; the race has caught how that one ends.
    over.abort()
  }
}

/** Resolves when a signal has fired. */
export async function aborted(signal: AbortSignal): Promise<void> {
  if (!signal.aborted) await once(signal, 'abort')
}

/** What belongs to one connection, and not to what is said over it. */
export const hopHeaders: readonly string[] = [
  'connection',
  'content-length',
  'expect',
  'host',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]

export function respondError(response: ServerResponse, status: number, message: string): void {
  // Each service has a form of its own; this has what most look for.
  const body = JSON.stringify({ type: 'error', error: { type: 'api_error', code: status, message, status: 'ERROR' } })
  response.writeHead(status, { 'content-type': 'application/json' })
  response.end(body)
}
