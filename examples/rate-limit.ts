// Ten questions at once, where the service allows three in a second and two at a time.
import { rateLimit, StreamingLLMClient } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { replayFetch, simulate } from 'fieldstream/testing'

const provider = anthropic({
  model: 'claude-haiku-4-5',
  // Without a key, an answer in Anthropic's wire format goes through the real SDK.
  fetch: process.env['ANTHROPIC_API_KEY'] ? undefined : replayFetch(simulate('Crisps keep best in a dry place.')),
})

const client = new StreamingLLMClient({
  provider,
  // Shared between machines: `limiter: new RateLimiterRedis({ storeClient, points, duration })` instead of the first two.
  middleware: [rateLimit({ requests: 3, per: 1000, concurrency: 2, queue: 6, maxWait: 10_000 })],
})

const question = { messages: [{ role: 'user', content: 'How do I keep crisps?' }], maxTokens: 100 } as const
const answers = Array.from({ length: 10 }, () => client.stream(question).final())
for (const [i, result] of (await Promise.allSettled(answers)).entries()) {
  if (result.status === 'fulfilled') console.log(`${i + 1}: waited ${Math.round(result.value.metrics.queuedMs)} ms`)
  else console.log(`${i + 1}: ${(result.reason as { code: string }).code}`)
}
