import { GoogleGenAI } from '@google/genai'
import { gemini, toStreamEvents } from 'fieldstream/gemini'

const client = new GoogleGenAI({ apiKey: 'none' })
export const provider = gemini({ model: 'm', client })
export async function use(): Promise<void> {
  const stream = await client.models.generateContentStream({ model: 'm', contents: '' })
  for await (const event of toStreamEvents(stream)) void event.type
}
