import type { ProviderContext, StreamEvents } from './provider.ts'
import type { LLMRequest } from './request.ts'

/** The rest of the way to the model. */
export type StreamFunction = (request: LLMRequest, context: ProviderContext) => StreamEvents

/**
 * Anything that stands between client and provider: it may change the request, watch or change the events, answer by itself,
 * or call `next` again. The first listed is the outermost.
 */
export interface Middleware {
  (next: StreamFunction): StreamFunction
  /** Limits of the whole run, which hold from its beginning on, wherever among the middleware they stand. */
  readonly runLimits?: RunLimits | undefined
}

/** In milliseconds; `false` is no limit. */
export interface RunLimits {
  /** For the whole run. Default: that of `timeout()`, 600,000. */
  readonly total?: number | false | undefined
  /** For validators that answer later. Default: that of `timeout()`, 5,000. */
  readonly validate?: number | false | undefined
}

/** Stacks middleware around `stream`. */
export function composeMiddleware(middleware: readonly Middleware[], stream: StreamFunction): StreamFunction {
  const whole = middleware.reduceRight((next, wrap) => wrap(next), stream)
  const limits = middleware.flatMap(({ runLimits }) => runLimits ?? [])
  return (request, context) => {
    for (const each of limits) limitRun(context, each)
    return whole(request, context)
  }
}

export function limitRun({ deadline }: ProviderContext, { total, validate }: RunLimits): void {
  if (total !== undefined) deadline?.limit(total)
  if (validate !== undefined) deadline?.limitValidation(validate)
}
