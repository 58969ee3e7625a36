import {
  AggregationTemporality,
  type HistogramMetricData,
  InMemoryMetricExporter,
  MeterProvider,
  PeriodicExportingMetricReader,
} from '@opentelemetry/sdk-metrics'
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base'
import { retry, StreamingLLMClient } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { telemetry } from 'fieldstream/telemetry'
import { replayFetch, simulate } from 'fieldstream/testing'
import { inspect } from 'node:util'

// An application exports to its collector; here all stays in memory.
const spans = new InMemorySpanExporter()
const metrics = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE)
const reader = new PeriodicExportingMetricReader({ exporter: metrics, exportIntervalMillis: 60_000 })

// Without a key, these answers go through the real SDK: one that fails, then two. A real client needs no `fetch`.
const overloaded = { status: 529, body: '{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}' }
const secret = 'the merger is on Friday'
const answer = simulate(`Yes: ${secret}.`)
const service = replayFetch([overloaded, answer, answer])
const slow: typeof fetch = async (...request) => {
  await new Promise((resolve) => setTimeout(resolve, 200))
  return service(...request)
}

const logged: object[] = []
const client = new StreamingLLMClient({
  provider: anthropic({ model: 'claude-haiku-4-5', apiKey: 'none', fetch: slow }),
  middleware: [
    telemetry({
      tracer: new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(spans)] }).getTracer('shop'),
      meter: new MeterProvider({ readers: [reader] }).getMeter('shop'),
      attributes: ({ metadata }) => ({ 'shop.feature': String(metadata?.['feature']) }),
    }),
    retry({ baseDelay: 1 }),
  ],
  alerts: { timeToFirstByteMs: 50 },
  onAlert: (told) => logged.push({ at: 'alert', ...told }),
  onAttempt: (told) => logged.push({ at: 'attempt', ...told }),
  onError: (error, run) => logged.push({ at: 'error', error, ...run }),
  onFinish: (told) => logged.push({ at: 'finish', ...told }),
  onMetrics: (told) => logged.push({ at: 'metrics', ...told }),
})

const messages = [{ role: 'user' as const, content: `Is it true that ${secret}?` }]
await client.stream({ messages, metadata: { feature: 'rumours' } }).final()
for await (const event of client.stream({ messages })) if (event.type === 'text-delta') break // the reader leaves
await reader.forceFlush()

for (const line of logged as {
  at: string
  code?: string
  outcome?: string
  alert?: string
  error?: { code: string }
}[])
  console.log('hook ', line.at, line.outcome ?? line.alert ?? line.error?.code ?? 'told')
for (const { name, attributes, status } of spans.getFinishedSpans())
  console.log('span ', name, attributes['error.type'] ?? 'ok', attributes['shop.feature'], 'status', status.code)
for (const { scopeMetrics } of metrics.getMetrics())
  for (const { descriptor, dataPoints } of scopeMetrics.flatMap((scope) => scope.metrics as HistogramMetricData[])) {
    const count = dataPoints.reduce((sum, { value }) => sum + value.count, 0)
    console.log('meter', descriptor.name, descriptor.unit, count)
  }
const exported = [logged, spans.getFinishedSpans(), metrics.getMetrics()].map((all) => inspect(all, { depth: 12 }))
console.log('what was asked or answered is in it:', exported.join().includes('merger'))
