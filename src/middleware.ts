import type { ProviderContext, StreamEvents } from './provider.ts'
import type { LLMRequest } from './request.ts'

/** The rest of the way to the model. */
export type StreamFunction = (request: LLMRequest, context: ProviderContext) => StreamEvents

/**
 * Anything that stands between client and provider: it may change the request, watch or change the events, answer by itself,
 * or call `next` again. The first listed is the outermost.
 */
export type Middleware = (next: StreamFunction) => StreamFunction

/** Stacks middleware around `stream`. */
export function composeMiddleware(middleware: readonly Middleware[], stream: StreamFunction): StreamFunction {
  return middleware.reduceRight((next, wrap) => wrap(next), stream)
}
