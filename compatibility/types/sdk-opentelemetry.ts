import { metrics, trace } from '@opentelemetry/api'
import { telemetry } from 'fieldstream/telemetry'

export const middleware = telemetry({
  tracer: trace.getTracer('app'),
  meter: metrics.getMeter('app'),
  attributes: ({ metadata }) => ({ tenant: String(metadata?.['tenant']) }),
})
