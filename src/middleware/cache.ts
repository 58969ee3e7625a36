import { checkFunctions, checkNumbers, checkOptions } from '../check-options.ts'
import { asLLMError, LLMTimeoutError, OutputError, UsageError } from '../errors.ts'
import { callGuarded } from '../guarded-call.ts'
import type { StreamEvent } from '../events.ts'
import type { Middleware } from '../middleware.ts'
import { fromBatches, isVisible, type ProviderContext, type StreamEvents, batchesOf } from '../provider.ts'
import type { LLMRequest } from '../request.ts'
import { asCached, fromEntry, toEntry } from './cache-entry.ts'
import { Flight } from './cache-flight.ts'
import { type CacheKeyParts, hashOf, keyPartsOf } from './cache-key.ts'

export type { CacheKeyParts } from './cache-key.ts'

/** What keeps answers; a Keyv fits as it is. May answer at once or with a promise. */
export interface CacheStore {
  /** What was kept under `key`; `undefined` or `null` where nothing is. */
  get(key: string): unknown
  /**
   * `ttl` in milliseconds as Keyv takes it; unset for no end. A store that wants something else there (an `LRUCache`, a Redis
   * client) needs a wrapper: `{ get: (key) => lru.get(key), set: (key, value, ttl) => lru.set(key, value, { ttl }) }`. One that
   * ignores it, as a Map does, never gives an answer that is too old, but keeps it.
   */
  set(key: string, value: string, ttl?: number): unknown
  /** For answers that their validator refuses by now. Without it they are overwritten with an empty text. */
  delete?(key: string): unknown
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
  /**
   * Hears of what failed in the store, be it that it holds junk, in `key` and in `scope`, as the client's `onError` does. The
   * request goes on without a cache.
   */
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
 * any other, and forgotten where its validator refuses it by now. Only answers that are complete and valid are kept: none that
 * was cut, refused or cancelled. Equal means: the same target, messages, tools, schemas and options; who may share answers is
 * for `scope` to say. Two targets of one name on different servers need stores, or a `key`, of their own. The target is the
 * client's provider: a `fallback()` has one answer for all its targets, whichever gave it.
 *
 * Equal requests at the same time share one call, and those that did not begin it are marked `cached` too: nobody pays for them
 * again. Where it fails before any of it was seen, each of the others makes its own; it is cancelled when all have left.
 * `generate()` without `onEvent` and `stream()` do not share one call, since the one is not streamed, but one kept answer.
 *
 * A store that fails, hangs or holds junk costs no answer: see `onError`. Requests with `cache: false` or `raw` pass it by.
 *
 * @throws UsageError for options that make no sense.
 *
 * @example
 * ```ts
 * import { cache, StreamingLLMClient } from 'fieldstream'
 * import { anthropic } from 'fieldstream/anthropic'
 *
 * const client = new StreamingLLMClient({
 *   provider: anthropic({ model: 'claude-haiku-4-5' }),
 *   middleware: [cache({ ttl: 600_000, scope: ({ metadata }) => metadata?.['tenant'] })],
 * })
 * ```
 */
export function cache(options: CacheOptions = {}): Middleware {
  if (isStore(options))
    throw new UsageError('invalid_argument', 'The store is an option of cache(): cache({ store: … }).')
  checkOptions('cache()', options, names)
  const { ttl = 3_600_000, timeout = 250, maxLength = 1_000_000, store, key, scope, onError } = options
  checkNumbers('cache()', { ttl }, { min: 1, max: Number.MAX_SAFE_INTEGER, mayBeOff: true })
  checkNumbers('cache()', { timeout })
  checkNumbers('cache()', { maxLength }, { min: 1, max: Number.MAX_SAFE_INTEGER })
  checkFunctions('cache()', { key, onError })
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

  function report({ onConsumerError }: ProviderContext, error: unknown, operation: 'get' | 'set' | 'key'): void {
    onConsumerError?.(`${operation === 'key' ? 'key' : `store.${operation}`} of cache()`, error)
    // A hook that fails has nobody left to tell.
    callGuarded(
      (cause) => onError?.(cause, operation),
      error,
      () => undefined,
    )
  }

  async function keyOf(request: LLMRequest, context: ProviderContext): Promise<string | undefined> {
    const { target } = context
    if (!target) return undefined
    try {
      const tenant = typeof scope === 'function' ? scope(request) : scope
      if (scope !== undefined && (tenant === undefined || tenant === null)) return undefined
      if (scope !== undefined && !isName(tenant))
        throw new UsageError('invalid_argument', '`scope` of cache() must return a text that is not empty.')
      const parts = keyPartsOf(request, target)
      const whole = key ? await key(parts, request) : parts
      return whole === undefined ? undefined : `fieldstream:${await hashOf([tenant, whole])}`
    } catch (error) {
      report(context, error, 'key')
      return undefined
    }
  }

  return (next) => {
    async function* read(
      request: LLMRequest,
      context: ProviderContext,
    ): AsyncGenerator<readonly StreamEvent[], void, undefined> {
      const open = (flightContext: ProviderContext): StreamEvents => next(request, flightContext)
      const hash = await keyOf(request, context)
      if (hash === undefined) {
        yield* batchesOf(open(context))
        return
      }
      const answers = await openStore()
      const limited = withinBudget(timeout)
      const change = async (action: () => unknown): Promise<void> => {
        try {
          await limited(action)
        } catch (error) {
          report(context, error, 'set')
        }
      }
      const forget = (): Promise<void> =>
        change(() => (answers.delete ? answers.delete(hash) : answers.set(hash, '', 1)))
      // What the one may see must be for the other too.
      const shared = `${hash} ${request.onInterrupted ?? 'fail'} ${context.streaming ?? true}`
      if (!flights.has(shared)) {
        let events: StreamEvent[] | undefined
        try {
          events = fromEntry(await limited(() => answers.get(hash)), request)
        } catch (error) {
          report(context, error, 'get')
        }
        if (events) {
          // Its validator may have changed since.
          context.afterEnd?.((error) => void (error instanceof OutputError && forget()))
          yield asCached(events, { attempt: context.attempt })
          return
        }
      }

      const keep = async (flight: Flight): Promise<void> => {
        const entry = kept.has(flight) ? undefined : toEntry(flight.events, ttl)
        if (entry === undefined) return
        kept.add(flight)
        await change(() => answers.set(hash, entry, ttl === false ? undefined : ttl))
      }
      const leading = flights.get(shared)
      let own = context
      if (leading) {
        // Who began it may have left.
        context.afterEnd?.((error) => void (error ?? keep(leading)))
        let held: StreamEvent[] | undefined = []
        try {
          for await (const batch of leading.read(context)) {
            if (held) {
              held.push(...batch)
              if (!batch.some((event) => isVisible(event, context))) continue
            }
            const events: readonly StreamEvent[] = held ?? batch
            held = undefined
            yield asCached(events)
          }
          return
        } catch (cause) {
          if (!held || context.signal.aborted) throw cause
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
      context.afterEnd?.((error) => void (error ?? keep(flight)))
      yield* flight.read(own)
    }

    return (request, context) =>
      request.cache === false || request.raw ? next(request, context) : fromBatches(() => read(request, context))
  }
}

/** Runs what may hang, all of it together within a time. */
function withinBudget(timeoutMs: number): (action: () => unknown) => Promise<unknown> {
  let left = timeoutMs
  const expired = (): LLMTimeoutError =>
    new LLMTimeoutError('timeout', `The store of cache() did not answer within ${timeoutMs} ms.`, { timeoutMs })
  return async (action) => {
    if (left <= 0) throw expired()
    const startedAt = performance.now()
    let timer: ReturnType<typeof setTimeout> | undefined
    try {
      const answer = action()
      // Also a promise that is not of this realm or not the engine's own may hang.
      if (typeof (answer as { then?: unknown } | undefined | null)?.then !== 'function') return answer
      const limit = new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(expired()), left)
      })
      return await Promise.race([answer, limit])
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
    delete: (name) => answers.delete(name),
  }
}

function isName(value: unknown): value is string {
  return typeof value === 'string' && value !== ''
}

function isStore(store: unknown): store is CacheStore {
  const { get, set } = (store ?? {}) as Partial<CacheStore>
  return typeof get === 'function' && typeof set === 'function'
}
