import { checkFunctions, checkNumbers, checkOptions } from '../check-options.ts'
import { asLLMError, LLMTimeoutError, UsageError } from '../errors.ts'
import type { StreamEvent, Target } from '../events.ts'
import type { Middleware } from '../middleware.ts'
import { fromBatches, isVisible, type ProviderContext, type StreamEvents, batchesOf } from '../provider.ts'
import type { LLMRequest } from '../request.ts'
import { fromEntry, replay, toEntry } from './cache-entry.ts'
import { Flight } from './cache-flight.ts'
import { type CacheKeyParts, hashOf, keyPartsOf } from './cache-key.ts'

export type { CacheKeyParts } from './cache-key.ts'

/** What keeps answers; a Keyv fits as it is. May answer at once or with a promise. */
export interface CacheStore {
  get(key: string): unknown
  /** `ttl` in milliseconds; unset for no end. */
  set(key: string, value: string, ttl?: number): unknown
}

/** Times in milliseconds. */
export interface CacheOptions {
  /** Where answers are kept. Default: in this process, with `lru-cache`, at most 1,000 of them and 50 million characters. */
  readonly store?: CacheStore | undefined
  /** How long an answer is good. Default 3,600,000 (an hour); `false` is for as long as the store keeps it. */
  readonly ttl?: number | false | undefined
  /**
   * What tells answers apart. Gets all that does by itself; return it with something added (`{ ...parts, prompt: 'v2' }`), or
   * something else in its place. `undefined` keeps a request out of the cache.
   */
  readonly key?: ((parts: CacheKeyParts, request: LLMRequest) => unknown) | undefined
  /**
   * Who may see each other's answers, e.g. `({ metadata }) => metadata?.tenant`. A request for which it returns nothing is kept
   * out of the cache. Default: all who use this store.
   */
  readonly scope?: string | ((request: LLMRequest) => unknown) | undefined
  /** How long one request may wait for the store, reading and writing together; it then goes on without. Default 250. */
  readonly timeout?: number | undefined
  /** Most characters of an answer that is kept, or shared while it is written. Default 1,000,000. */
  readonly maxLength?: number | undefined
  /** Hears of what failed in the store, in `key` and in `scope`. The request goes on without a cache. */
  readonly onError?: ((error: unknown, operation: 'get' | 'set' | 'key') => void) | undefined
}

const names: readonly string[] = [
  'store',
  'ttl',
  'key',
  'scope',
  'timeout',
  'maxLength',
  'onError',
] satisfies (keyof CacheOptions)[]

/**
 * Gives an answer that was given before to an equal request, marked `cached` and each part in one delta; it is validated like
 * any other. Only answers that are complete and valid are kept: none that was cut, refused or cancelled. Equal means: the same
 * target, messages, tools, schemas and options; who may share answers is for `scope` to say. Two targets of one name on
 * different servers need stores, or a `key`, of their own.
 *
 * Equal requests at the same time share one call. Where it fails before any of it was seen, each of the others makes its own;
 * it is cancelled when all have left.
 *
 * A store that fails, hangs or holds junk costs no answer: see `onError`. Requests with `cache: false` or `raw` pass it by.
 *
 * @throws UsageError for options that make no sense.
 */
export function cache(options: CacheOptions = {}): Middleware {
  checkOptions('cache()', options, names)
  const { ttl = 3_600_000, timeout = 250, maxLength = 1_000_000, store, key, scope, onError } = options
  checkNumbers('cache', { ttl }, { min: 1, max: Number.MAX_SAFE_INTEGER, mayBeOff: true })
  checkNumbers('cache', { timeout })
  checkNumbers('cache', { maxLength }, { min: 1, max: Number.MAX_SAFE_INTEGER })
  checkFunctions('cache', { key, onError })
  if (scope !== undefined && typeof scope !== 'function' && !isName(scope))
    throw new UsageError('invalid_argument', '`scope` of cache() must be a text, or a function that returns one.')
  if (store !== undefined && !isStore(store)) {
    throw new UsageError(
      'invalid_argument',
      '`store` of cache() must have `get` and `set`, e.g. cache({ store: new Keyv() }).',
    )
  }
  let memory: Promise<CacheStore> | undefined
  const openStore = (): CacheStore | Promise<CacheStore> => store ?? (memory ??= inMemory())
  const flights = new Map<string, Flight>()
  const kept = new WeakSet<Flight>()

  function report(error: unknown, operation: 'get' | 'set' | 'key'): void {
    try {
      const result: unknown = onError?.(error, operation)
      if (result instanceof Promise) result.catch(() => undefined)
    } catch {
      // A hook that fails has nobody left to tell.
    }
  }

  async function keyOf(request: LLMRequest, target: Target): Promise<string | undefined> {
    try {
      const tenant = typeof scope === 'function' ? scope(request) : scope
      if (scope !== undefined && (tenant === undefined || tenant === null)) return undefined
      if (scope !== undefined && !isName(tenant))
        throw new UsageError('invalid_argument', '`scope` of cache() must return a text that is not empty.')
      const parts = keyPartsOf(request, target)
      const whole = key ? await key(parts, request) : parts
      return whole === undefined ? undefined : `fieldstream:${await hashOf([tenant, whole])}`
    } catch (error) {
      report(error, 'key')
      return undefined
    }
  }

  return (next) => {
    async function* read(
      request: LLMRequest,
      context: ProviderContext,
    ): AsyncGenerator<readonly StreamEvent[], void, undefined> {
      const { target, signal } = context
      const open = (flightContext: ProviderContext): StreamEvents => next(request, flightContext)
      const hash = target && (await keyOf(request, target))
      if (hash === undefined) {
        yield* batchesOf(open(context))
        return
      }
      const answers = await openStore()
      const limited = withinBudget(timeout)
      // What the one may see must be for the other too.
      const shared = `${hash} ${request.onInterrupted ?? 'fail'} ${context.streaming ?? true}`
      if (!flights.has(shared)) {
        let entry: unknown
        try {
          entry = await limited(() => answers.get(hash))
        } catch (error) {
          report(error, 'get')
        }
        const events = fromEntry(entry, request)
        if (events) {
          yield replay(events, context.attempt)
          return
        }
      }

      const keep = async (flight: Flight): Promise<void> => {
        const entry = kept.has(flight) ? undefined : toEntry(flight.events)
        if (entry === undefined) return
        kept.add(flight)
        try {
          await limited(() => answers.set(hash, entry, ttl === false ? undefined : ttl))
        } catch (error) {
          report(error, 'set')
        }
      }
      const leading = flights.get(shared)
      let own = context
      if (leading) {
        // Who began it may have left.
        context.afterSuccess?.(() => void keep(leading))
        let held: StreamEvent[] | undefined = []
        try {
          for await (const batch of leading.read(context)) {
            if (held) {
              held.push(...batch)
              if (!batch.some((event) => isVisible(event, context))) continue
            }
            const events: readonly StreamEvent[] = held ?? batch
            held = undefined
            yield events
          }
          return
        } catch (cause) {
          if (!held || signal.aborted) throw cause
          const error = asLLMError(cause, 'stream')
          const { attempt = context.attempt, provider, model } = error
          context.onAttemptFailed?.({ attempt, provider, model, error, next: 'retry', delayMs: 0 })
          // The attempts so far were made for this run, too.
          own = { ...context, attempt: attempt + 1 }
        }
      }
      const flight: Flight = new Flight(open, own, maxLength, () => {
        if (flights.get(shared) === flight) flights.delete(shared)
      })
      if (!leading) flights.set(shared, flight)
      context.afterSuccess?.(() => void keep(flight))
      yield* flight.read(own)
    }

    return (request, context) =>
      request.cache === false || request.raw ? next(request, context) : fromBatches(() => read(request, context))
  }
}

/** Runs what may hang, all of it together within a time. */
function withinBudget(timeoutMs: number): (action: () => unknown) => Promise<unknown> {
  let left = timeoutMs
  return async (action) => {
    const expired = new LLMTimeoutError('timeout', `The store of cache() did not answer within ${timeoutMs} ms.`, {
      timeoutMs,
    })
    if (left <= 0) throw expired
    const startedAt = performance.now()
    let timer: ReturnType<typeof setTimeout> | undefined
    try {
      const limit = new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(expired), left)
      })
      return await Promise.race([action(), limit])
    } finally {
      clearTimeout(timer)
      left -= performance.now() - startedAt
    }
  }
}

async function inMemory(): Promise<CacheStore> {
  let module: typeof import('lru-cache')
  try {
    module = await import('lru-cache')
  } catch (cause) {
    throw new UsageError(
      'missing_dependency',
      'cache() without a `store` needs lru-cache: `npm install lru-cache`, or pass `store`, e.g. new Keyv().',
      { cause },
    )
  }
  const answers = new module.LRUCache<string, string>({
    max: 1000,
    maxSize: 50_000_000,
    sizeCalculation: ({ length }) => Math.max(length, 1),
  })
  return {
    get: (name) => answers.get(name),
    set: (name, value, ttl) => answers.set(name, value, ttl === undefined ? {} : { ttl }),
  }
}

function isName(value: unknown): value is string {
  return typeof value === 'string' && value !== ''
}

function isStore(store: unknown): store is CacheStore {
  const { get, set } = (store ?? {}) as Partial<CacheStore>
  return typeof get === 'function' && typeof set === 'function'
}
