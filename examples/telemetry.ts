/** What hooks, metrics and OpenTelemetry tell of an answer: the first service fails, and the one that stands in is slow. */
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base'
import { fallback, StreamingLLMClient } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { openai } from 'fieldstream/openai'
import { telemetry } from 'fieldstream/telemetry'
import { replayFetch, simulate } from 'fieldstream/testing'

// Without keys: the first service is not there, the second takes its time. An application exports spans to its collector.
const unreachable = () => Promise.reject(new TypeError('fetch failed'))
const answering = replayFetch(simulate('A party of twelve needs six bags of chips.', { provider: 'openai' }))
const slow: typeof fetch = async (...request) => {
  await new Promise((resolve) => setTimeout(resolve, 150))
  return answering(...request)
}
const spans = new InMemorySpanExporter()
const tracer = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(spans)] }).getTracer('example')

const client = new StreamingLLMClient({
  provider: fallback(
    anthropic({ model: 'claude-haiku-4-5', apiKey: 'none', fetch: unreachable }),
    openai({ model: 'gpt-5-mini', apiKey: 'none', fetch: slow }),
  ),
  middleware: [telemetry({ tracer })],
  alerts: { timeToFirstByteMs: 40 },
  onStart: ({ runId }) => console.log('start     a run', runId.length === 36 ? 'with an id' : ''),
  onAttempt: ({ provider, error }) => console.log(`failed    ${provider}: ${error.code}`),
  onFallback: ({ provider, model }) => console.log(`fallback  ${provider} ${model}`),
  onAlert: ({ limitMs }) => console.log(`alert     no answer within ${limitMs} ms`),
  onFirstDelta: ({ kind }) => console.log(`first     ${kind}`),
  onFinish: ({ finishReason, usage }) =>
    console.log(`finish    ${finishReason}, tokens known: ${usage.outputTokens > 0}`),
  onMetrics: ({ outcome, metrics }) =>
    console.log(`metrics   ${outcome}, fallback used: ${metrics.fallbackUsed}, ${metrics.characters} characters`),
})

await client.stream({ messages: [{ role: 'user', content: 'How many chips?' }], maxTokens: 100 }).final()

for (const { name, attributes } of spans.getFinishedSpans()) {
  console.log(`span      ${name}, asked of ${String(attributes['gen_ai.provider.name'])}`)
}
