/** When the simulated service fails. */
export type Fault = 'never' | 'before' | 'middle'

/** Stands before a simulated service, and breaks it on demand. */
export class FaultSwitch {
  fault: Fault = 'never'
  readonly #fetch: typeof globalThis.fetch

  constructor(fetch: typeof globalThis.fetch) {
    this.#fetch = fetch
  }

  readonly fetch: typeof globalThis.fetch = async (...request) => {
    if (this.fault === 'before') {
      const error = { code: 503, message: 'The model is overloaded.', status: 'UNAVAILABLE' }
      return Response.json({ error }, { status: 503 })
    }
    const response = await this.#fetch(...request)
    return this.fault === 'middle' ? new Response(response.body!.pipeThrough(cutAfter(20)), response) : response
  }
}

/** A connection that is lost after some reads. */
function cutAfter(reads: number): TransformStream<Uint8Array, Uint8Array> {
  let count = 0
  return new TransformStream({
    transform(bytes, controller) {
      if (count++ < reads) controller.enqueue(bytes)
      else controller.error(new TypeError('terminated'))
    },
  })
}
