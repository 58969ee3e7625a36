// Every entry as CommonJS loads it.
import fieldstream = require('fieldstream')
import anthropic = require('fieldstream/anthropic')
import gemini = require('fieldstream/gemini')
import ollama = require('fieldstream/ollama')
import openai = require('fieldstream/openai')
import telemetry = require('fieldstream/telemetry')
import testing = require('fieldstream/testing')

const fetch = testing.replayFetch(testing.simulate('Hello'))
export const providers: fieldstream.Provider[] = [
  anthropic.anthropic({ model: 'm', fetch }),
  gemini.gemini({ model: 'm' }),
  ollama.ollama({ model: 'm' }),
  openai.openai({ model: 'm' }),
  openai.openaiChat({ model: 'm' }),
]
export const client = new fieldstream.StreamingLLMClient({
  provider: providers[0]!,
  middleware: [telemetry.telemetry()],
})
const stream = client.stream({ messages: [{ role: 'user', content: 'Hello' }], output: { type: 'object' } })
export const output: Promise<Record<string, unknown>> = stream.final().then((response) => response.output)
// @ts-expect-error -- no such option
client.stream({ messages: [], maxToken: 5 })
