import { ConnectionError, HttpError } from '../errors.ts'
import { readText } from './read-text.ts'

/** What a client that is made here can be given for its connections. */
export interface OwnConnection {
  readonly fetch?: typeof globalThis.fetch | undefined
  /** What carries requests without a `fetch` of the application's own. Default `'fetch'`. */
  readonly transport?: 'fetch' | 'node' | undefined
}

let loaded: typeof import('./node-transport.ts') | undefined

async function nodeFetch(...given: Parameters<typeof globalThis.fetch>): Promise<Response> {
  loaded ??= await import('./node-transport.ts')
  return loaded.nodeFetch(...given)
}

/**
 * The `fetch` of a client that is made here. It follows no redirect, which would take the key along; asks for no compression,
 * since a compressed body that is cut looks whole; and gives an error status a body that is short and at hand, since SDKs read
 * it without bound.
 */
export function guardedFetch({ fetch, transport }: OwnConnection): typeof globalThis.fetch {
  return async (input, init) => {
    // Looked up late: whoever replaces the global one later means this, too.
    const send = fetch ?? (transport === 'node' ? nodeFetch : globalThis.fetch)
    // Those of an SDK are made for this request alone: no need of a copy.
    const headers = init?.headers instanceof Headers ? init.headers : new Headers(init?.headers)
    if (!headers.has('accept-encoding')) headers.set('accept-encoding', 'identity')
    // Not `'error'`: it cannot be told from other failures, and some runtimes do not have it.
    const response = await send(input, { ...init, headers, redirect: 'manual' })
    if (isRedirect(response)) {
      response.body?.cancel().catch(() => undefined)
      throw new ConnectionError(
        'unexpected_redirect',
        'The service redirects to another address, which is not followed, since the request holds the key. Check the base URL.',
        { phase: 'connect' },
      )
    }
    return response.ok || !response.body ? response : withShortBody(response, response.body)
  }
}

function isRedirect({ type, status, redirected }: Response): boolean {
  return type === 'opaqueredirect' || redirected || [301, 302, 303, 307, 308].includes(status)
}

async function withShortBody(
  { status, statusText, headers }: Response,
  body: ReadableStream<Uint8Array>,
): Promise<Response> {
  const text = await readText(body)
  // No `Response` can be made with such a status, but servers can send one.
  if (status > 599) {
    throw new HttpError('server_error', `The service answered with an error: ${status}.`, {
      retryable: true,
      phase: 'connect',
      status,
    })
  }
  return new Response(text, { status, statusText, headers })
}
