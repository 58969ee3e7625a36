/**
 * A process that starts runs nobody waits for, and has nothing else to do:
 * `node --import ./scripts/use-sources.ts tests/faults/unattended.ts <baseURL> <ending>`.
 */
import { StreamingLLMClient } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { gemini } from 'fieldstream/gemini'
import { ollama } from 'fieldstream/ollama'
import { openai, openaiChat } from 'fieldstream/openai'

const [baseURL = '', ending = ''] = process.argv.slice(2)
const connection = { model: 'model-a', apiKey: 'none' }
const at = (name: string): string => `${baseURL}/${name}/${ending}`

/** Stops in the middle, without a word. */
async function readSome(loop: AsyncIterator<unknown>): Promise<void> {
  for (let i = 0; i < 6; i++) await loop.next()
}

for (const provider of [
  anthropic({ ...connection, baseURL: at('anthropic') }),
  openai({ ...connection, baseURL: at('openai') }),
  openaiChat({ ...connection, baseURL: at('openai-chat') }),
  ollama({ ...connection, host: at('ollama') }),
  gemini({ ...connection, baseURL: at('gemini') }),
]) {
  const client = new StreamingLLMClient({ provider })
  const open = () => {
    const stream = client.stream({ messages: [{ role: 'user', content: 'Hello' }] })
    return ending === 'abort' ? stream.on('text-delta', () => stream.abort('enough')) : stream
  }
  void open().final()
  void open().field('any')
  open().on('text-delta', () => undefined)
  if (ending === 'success') void readSome(open()[Symbol.asyncIterator]())
}
