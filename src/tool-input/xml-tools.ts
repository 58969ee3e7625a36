import { UsageError } from '../errors.ts'
import type { StreamFunction } from '../middleware.ts'
import type { Provider } from '../provider.ts'
import type { LLMRequest } from '../request.ts'
import { throughChannel } from './channel.ts'

/**
 * A provider whose model calls tools in the text of its answer, for models that have no tool calls of their own:
 * `xmlTools(ollama({ model: 'gemma2' }))`. The tools are described in the instructions, calls are read out of the text while it
 * is written (`<tool_call>` with JSON as Hermes and Qwen write it, `<function=…>` as Qwen3-Coder and Llama do), and the
 * conversation's calls and results are sent as text. Events and results are those of native calls; `start` says
 * `toolInput: 'xml'`. Nothing but the instructions holds the model to a schema or a `toolChoice`.
 *
 * Requests without tools, and with none in their messages, pass as they are. A request to the client that asks for
 * `toolInput: 'json'` gets that, as from any provider.
 *
 * @throws UsageError where the provider is none; when a request is sent, `unsupported` where it asks for native calls, for
 * `output` besides tools, or for tools with a `definition`.
 *
 * @example
 * ```ts
 * import { StreamingLLMClient, xmlTools } from 'fieldstream'
 * import { ollama } from 'fieldstream/ollama'
 *
 * const client = new StreamingLLMClient({ provider: xmlTools(ollama({ model: 'gemma2' })) })
 * ```
 */
export function xmlTools(provider: Provider): Provider {
  if (typeof (provider as Partial<Provider> | undefined)?.stream !== 'function')
    throw new UsageError('invalid_argument', "xmlTools() takes a provider, e.g. xmlTools(ollama({ model: 'gemma2' })).")
  const { name, model } = provider
  return {
    name,
    model,
    timeouts: provider.timeouts,
    members: provider.members,
    stream: withTags(provider.stream.bind(provider)),
    ...(provider.generate && { generate: withTags(provider.generate.bind(provider)) }),
  }
}

function withTags(stream: StreamFunction): StreamFunction {
  const streamWithTools = throughChannel(stream, 'xml')
  return (request, context) => {
    if (!concernsTools(request)) return stream(request, context)
    const { toolInput = 'auto' } = request
    if (toolInput !== 'auto' && toolInput !== 'xml')
      throw new UsageError(
        'unsupported',
        `\`toolInput: '${toolInput}'\` cannot be had of xmlTools(). Leave it out, or ask the provider inside without xmlTools().`,
      )
    return streamWithTools(request, context)
  }
}

function concernsTools({ tools = [], messages }: LLMRequest): boolean {
  const hasCalls = messages.some(
    ({ role, content }) =>
      role === 'assistant' && typeof content !== 'string' && content.some(({ type }) => type === 'tool-call'),
  )
  return tools.length > 0 || messages.some(({ role }) => role === 'tool') || hasCalls
}
