import type { Usage } from '../events.ts'
import type { Json } from './event-mapper.ts'

/** The first that is a number; 0 where none is. */
export function count(...values: unknown[]): number {
  return values.find((value) => typeof value === 'number') ?? 0
}

/** Usage from a service's counts, and `raw`, all that it said. */
export function toUsage(
  counts: Pick<Usage, 'inputTokens' | 'outputTokens'> & {
    readonly totalTokens?: number
    readonly cacheReadTokens?: number
    readonly cacheWriteTokens?: number
    /** Left out unless it is a number. */
    readonly reasoningTokens?: unknown
  },
  raw: Json,
): Usage {
  const { inputTokens, outputTokens, totalTokens, cacheReadTokens = 0, cacheWriteTokens = 0, reasoningTokens } = counts
  return {
    inputTokens,
    outputTokens,
    totalTokens: totalTokens || inputTokens + outputTokens,
    cacheReadTokens,
    cacheWriteTokens,
    ...(typeof reasoningTokens === 'number' && { reasoningTokens }),
    raw: { ...raw },
  }
}
