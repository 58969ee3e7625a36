import { Ollama } from 'ollama'
import { ollama, toStreamEvents } from 'fieldstream/ollama'

const client = new Ollama()
export const provider = ollama({ model: 'm', client })
export async function use(): Promise<void> {
  const stream = await client.chat({ model: 'm', messages: [], stream: true })
  for await (const event of toStreamEvents(stream)) void event.type
}
