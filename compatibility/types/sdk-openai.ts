import { AzureOpenAI, OpenAI } from 'openai'
import { openai, openaiChat, toChatStreamEvents, toStreamEvents } from 'fieldstream/openai'

const client = new OpenAI({ apiKey: 'none' })
export const providers = [
  openai({ model: 'm', client }),
  openaiChat({ model: 'm', client }),
  openai({ model: 'm', client: new AzureOpenAI({ apiKey: 'none', apiVersion: 'v', endpoint: 'http://127.0.0.1' }) }),
]
export async function use(): Promise<void> {
  const stream = await client.responses.create({ model: 'm', input: '', stream: true })
  for await (const event of toStreamEvents(stream)) void event.type
  const chat = await client.chat.completions.create({ model: 'm', messages: [], stream: true })
  for await (const event of toChatStreamEvents(chat)) void event.type
}
