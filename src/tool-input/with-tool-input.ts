import type { StreamFunction } from '../middleware.ts'
import type { Provider } from '../provider.ts'
import { throughChannel } from './channel.ts'

/**
 * `stream`, which asks a provider, with tools called through the channel that the request names, or that `'auto'` means to the
 * provider. One that has no opinion gets the request as it is: it may be made of others that have.
 */
export function withToolInput(provider: Provider, stream: StreamFunction): StreamFunction {
  return (request, context) => {
    const { tools = [], toolInput = 'auto' } = request
    const channel = toolInput === 'auto' ? provider.toolInput?.(request) : toolInput
    if (tools.length === 0 || channel === undefined) return stream(request, context)
    if (channel === 'native') return stream({ ...request, toolInput: 'native' }, context)
    return throughChannel(stream, channel)(request, context)
  }
}
