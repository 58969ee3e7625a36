// Prints the answer to a question while it is written: print.ts "Why is the sky blue?"
// Without one it is read from standard input.
import { text } from 'node:stream/consumers'
import { isLLMError, retry, StreamingLLMClient } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { replayFetch, simulate } from 'fieldstream/testing'

const words = process.argv.slice(2).join(' ')
const content = words === '' && !process.stdin.isTTY ? await text(process.stdin) : words
if (content.trim() === '') {
  console.error('Usage: print.ts <question>, or a text on standard input')
  process.exit(2)
}

const answer =
  'Air scatters short waves of light more than long ones. So blue reaches the eye from every side, and red does not.'
const client = new StreamingLLMClient({
  provider: anthropic({
    model: 'claude-haiku-4-5',
    // Without a key, an answer in Anthropic's wire format goes through the real SDK. Nothing else differs.
    fetch: process.env['ANTHROPIC_API_KEY'] ? undefined : replayFetch(simulate(answer, { delayMs: 25 })),
  }),
  middleware: [retry()],
})

// Who reads the output has seen enough (`| head`).
process.stdout.on('error', () => process.exit())
try {
  for await (const delta of client.stream({ messages: [{ role: 'user', content }] }).textStream)
    process.stdout.write(delta)
  process.stdout.write('\n')
} catch (error) {
  if (!isLLMError(error)) throw error
  console.error(`\n${error.code}: ${error.message}`)
  process.exitCode = 1
}
