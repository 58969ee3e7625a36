import type { Recording } from './replay.ts'

/** What is recorded, and who is told. */
export interface RecordOptions {
  /** The `fetch` to record. Default: the global one. */
  readonly fetch?: typeof globalThis.fetch | undefined
  /** Called with each recording when its body has ended, or was left. */
  readonly onRecording?: ((recording: Recording) => void) | undefined
}

/** A `fetch` that keeps what came back. */
export type RecordFetch = typeof globalThis.fetch & { readonly recordings: readonly Recording[] }

/** Headers that say something about an answer and nothing about an account. */
const keptHeaders = ['content-type', 'request-id', 'x-request-id', 'retry-after', 'retry-after-ms']

/**
 * Makes a `fetch` that passes everything through and keeps each response, its reads and their timing, for `replayFetch`.
 * Requests and credentials are not kept.
 *
 * @example
 * ```ts
 * const fetch = recordFetch()
 * const client = new StreamingLLMClient({ provider: anthropic({ model, fetch }) })
 * await client.generate({ messages })
 * const replayed = replayFetch(fetch.recordings)
 * ```
 */
export function recordFetch({ fetch = globalThis.fetch, onRecording }: RecordOptions = {}): RecordFetch {
  const recordings: Recording[] = []
  const recording = async (input: string | URL | Request, init?: RequestInit): Promise<Response> => {
    const response = await fetch(input, init)
    const reads: Uint8Array[] = []
    const delays: number[] = []
    let last = performance.now()
    const headers = Object.fromEntries(
      keptHeaders.flatMap((name) => (response.headers.has(name) ? [[name, response.headers.get(name)!]] : [])),
    )
    const finish = (): void => {
      const recorded = {
        status: response.status,
        headers,
        body: toBody(reads),
        reads: reads.map(({ length }) => length),
        delays,
      }
      recordings.push(recorded)
      onRecording?.(recorded)
    }
    if (!response.body) {
      finish()
      return response
    }
    const reader = response.body.getReader()
    const body = new ReadableStream<Uint8Array>(
      {
        async pull(controller) {
          try {
            const { done, value } = await reader.read()
            if (done) {
              finish()
              controller.close()
              return
            }
            reads.push(value.slice())
            delays.push(Math.round(performance.now() - last))
            last = performance.now()
            controller.enqueue(value)
          } catch (error) {
            finish()
            throw error
          }
        },
        async cancel(reason) {
          finish()
          await reader.cancel(reason)
        },
      },
      { highWaterMark: 0 },
    )
    const { status, statusText } = response
    return new Response(body, { status, statusText, headers: response.headers })
  }
  return Object.assign(recording, { recordings })
}

/** Text where it is UTF-8, so that a recording can be saved as JSON; else the bytes. */
function toBody(reads: readonly Uint8Array[]): string | Uint8Array {
  const bytes = new Uint8Array(reads.reduce((total, { length }) => total + length, 0))
  let offset = 0
  for (const read of reads) {
    bytes.set(read, offset)
    offset += read.length
  }
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    return bytes
  }
}
