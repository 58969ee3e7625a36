// Sentences, for a voice or a slow transport, of an answer that comes in small pieces.
import { StreamingLLMClient } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { replayFetch, simulate } from 'fieldstream/testing'

const story = 'The shop opens at nine. Come early! 今天很好。我们去公园。 यह अच्छा है। फिर मिलेंगे।'

const client = new StreamingLLMClient({
  provider: anthropic({
    model: 'claude-haiku-4-5',
    // Without a key, an answer in Anthropic's wire format goes through the real SDK.
    fetch: process.env['ANTHROPIC_API_KEY'] ? undefined : replayFetch(simulate(story, { deltaChars: 3 })),
  }),
  batch: { at: 'sentence', maxWait: 2000 },
})

const stream = client.stream({ messages: [{ role: 'user', content: 'Say something in three languages.' }] })
for await (const sentence of stream.textStream) console.log(sentence.trim())
