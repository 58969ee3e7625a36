import {
  cache,
  type CacheStore,
  type Provider,
  rateLimit,
  type RateLimitOptions,
  StreamingLLMClient,
} from 'fieldstream'
import type { Log } from './observe.ts'

export interface AssistantOptions {
  readonly provider: Provider
  readonly answers: CacheStore
  readonly limit?: Partial<RateLimitOptions> | undefined
  readonly log: Log
}

export function createAssistant({ provider, answers, limit, log }: AssistantOptions): StreamingLLMClient {
  return new StreamingLLMClient({
    provider,
    middleware: [
      // Nothing of the user is in a prompt, so all share their answers. Where that changes, `scope` must say who may.
      cache({
        store: answers,
        ttl: 24 * 60 * 60_000,
        onError: (error, operation) => log('cache_failed', { operation, message: String(error) }),
      }),
      // Behind the cache: its answers count against nobody.
      rateLimit({
        requests: 30,
        per: 60_000,
        key: ({ metadata }) => String(metadata?.['user']),
        queue: 3,
        maxWait: 10_000,
        ...limit,
      }),
      // No retry(): Ollama is the second try. It would also begin anew where both had broken off in the middle.
    ],
    onCacheHit: ({ runId, provider, model }) => log('cache_hit', { runId, provider, model }),
    onFallback: ({ runId, provider, model, error }) =>
      log('fallback', { runId, provider, model, because: error?.code }),
    onFinish: ({ runId, provider, model, finishReason, metrics }) => {
      const { durationMs, queuedMs, attempts, cached } = metrics
      log('completion', { runId, provider, model, finishReason, durationMs, queuedMs, attempts, cached })
    },
    onError: (error, { runId }) => log('failure', { runId, error }),
  })
}
