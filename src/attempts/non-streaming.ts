import { UsageError } from '../errors.ts'
import { leavesOf, type Provider } from '../provider.ts'
import { attemptOf } from './attempt.ts'

/**
 * A provider that always asks for the answer in one piece, for models and gateways that do not stream, or not well:
 * `fallback(anthropic({ … }), nonStreaming(anthropic({ … })))`. The events and the result are the same, all at once. Limits of
 * time for a beginning or for progress do not hold, since there is none to be seen; that of the whole run does.
 *
 * Not needed where a service says that it does not stream: such a request is answered in one piece by itself.
 *
 * @throws UsageError where the provider, or one that it is made of, has no `generate`.
 *
 * @example
 * ```ts
 * import { fallback, nonStreaming, StreamingLLMClient } from 'fieldstream'
 * import { openaiChat } from 'fieldstream/openai'
 *
 * const local = openaiChat({ model: 'qwen3', baseURL: 'http://127.0.0.1:8000/v1', apiKey: 'none' })
 * const client = new StreamingLLMClient({ provider: fallback(local, nonStreaming(local)) })
 * ```
 */
export function nonStreaming(provider: Provider): Provider {
  if (typeof (provider as Partial<Provider> | undefined)?.stream !== 'function') {
    throw new UsageError(
      'invalid_argument',
      "nonStreaming() takes a provider, e.g. nonStreaming(openai({ model: 'gpt-5-mini' })).",
    )
  }
  const unable = leavesOf(provider).find((leaf) => !leaf.generate)
  if (unable) {
    throw new UsageError(
      'unsupported',
      `nonStreaming() needs a provider with \`generate\`, and ${unable.name} has none.`,
    )
  }
  const { name, model } = provider
  const attempt = attemptOf(provider)
  return {
    name,
    model,
    members: [provider],
    stream: (request, context) => attempt(request, { ...context, streaming: false }),
  }
}
