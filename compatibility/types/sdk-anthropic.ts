import Anthropic from '@anthropic-ai/sdk'
import { anthropic, toStreamEvents } from 'fieldstream/anthropic'

export const client = new Anthropic({ apiKey: 'none' })
export const provider = anthropic({ model: 'm', client })
export async function use(): Promise<void> {
  const stream = await client.messages.create({ model: 'm', max_tokens: 1, messages: [], stream: true })
  for await (const event of toStreamEvents(stream)) void event.type
}
