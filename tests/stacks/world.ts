/** The providers and middleware of a scenario, with account of what is asked of them. */
import {
  cache,
  type CacheStore,
  fallback,
  HttpError,
  type LLMRequest,
  type Middleware,
  nonStreaming,
  type Provider,
  type ProviderContext,
  rateLimit,
  retry,
  StreamError,
  type StreamEvent,
  timeout,
  xmlTools,
} from 'fieldstream'
import { telemetry } from 'fieldstream/telemetry'
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base'
import { pace } from './clock.ts'
import type { LayerPlan, LeafPlan, Scenario, Shape, StorePlan } from './scenario.ts'
import { type Channel, readsOf, type Script, scriptOf } from './script.ts'

/** One request to a model. */
export interface Asked {
  readonly run: number
  readonly step: number
  readonly script: Script
}

/** All in one read, if anything comes. */
function wholeOf({ events, count }: Script): (readonly StreamEvent[])[] {
  return count > 0 ? [events.slice(0, count)] : []
}

export class World {
  readonly asked: Asked[] = []
  /** Sources that were begun and not ended. */
  open = 0
  readonly kept: string[] = []
  readonly cacheErrors: string[] = []
  readonly spans = new InMemorySpanExporter()
  spansBegun = 0
  /** Those that middleware was given. */
  readonly signals: AbortSignal[] = []
  readonly scenario: Scenario
  readonly provider: Provider
  readonly middleware: readonly Middleware[]
  readonly #scripts = new Map<string, Script>()
  #leaves = 0

  constructor(scenario: Scenario) {
    this.scenario = scenario
    this.provider = this.#build(scenario.shape, false)
    this.middleware = scenario.stack.map((layer) => this.#layer(layer))
  }

  /** The scripts of a leaf, by its place. The last is repeated. */
  script(plan: LeafPlan, place: number, run: number, step: number, n: number, isXml: boolean): Script {
    const id = `${place}.${run}.${step}.${n}`
    let script = this.#scripts.get(id)
    if (script) return script
    const attempts = plan.attempts[run]![step]!
    const ask = step === 0 ? this.scenario.ask : 'text'
    const channel: Channel = isXml && ask !== 'output' ? 'xml' : ask === 'forced' && plan.wantsJson ? 'json' : 'native'
    script = scriptOf(attempts[Math.min(n, attempts.length - 1)]!, { id, run, channel, ask })
    this.#scripts.set(id, script)
    return script
  }

  #build(shape: Shape, isXml: boolean): Provider {
    switch (shape.kind) {
      case 'fallback': {
        const members = shape.members.map((member) => this.#build(member, isXml))
        return fallback(members, { coolDown: shape.coolDown })
      }
      case 'nonStreaming':
        return nonStreaming(this.#build(shape.of, isXml))
      case 'xmlTools':
        return xmlTools(this.#build(shape.of, true))
      case 'leaf':
        return this.#leaf(shape, this.#leaves++, isXml)
    }
  }

  #leaf(plan: LeafPlan, place: number, isXml: boolean): Provider {
    const counts = new Map<string, number>()
    const play = async function* (
      this: World,
      request: LLMRequest,
      { signal }: ProviderContext,
      isWhole: boolean,
    ): AsyncGenerator<readonly StreamEvent[]> {
      const run = Number(request.metadata?.['run'])
      const step = request.messages.filter(({ role }) => role === 'assistant').length
      const key = `${run}.${step}`
      const n = counts.get(key) ?? 0
      counts.set(key, n + 1)
      const script = this.script(plan, place, run, step, n, isXml)
      this.asked.push({ run, step, script })
      this.open++
      const pause = script.plan.pause
      const aborted = new Promise<never>((_, reject) => {
        const onAbort = (): void => reject(signal.reason as Error)
        if (signal.aborted) onAbort()
        else signal.addEventListener('abort', onAbort)
      })
      aborted.catch(() => undefined)
      try {
        for (const read of isWhole ? wholeOf(script) : readsOf(script)) {
          if (pause === 'turn') await Promise.race([pace(), aborted])
          if (pause === 'timer') await Promise.race([new Promise((resolve) => setTimeout(resolve, 3)), aborted])
          yield read
        }
        switch (script.fault) {
          case 'overloaded':
            throw new HttpError('overloaded', 'Busy.', { retryable: true, status: 529 })
          case 'bad_request':
            throw new HttpError('bad_request', 'No.', { status: 400 })
          case 'authentication':
            throw new HttpError('authentication', 'Who?', { status: 401 })
          case 'cut':
            throw new StreamError('stream_truncated', 'Cut.', { retryable: true })
          case 'foreign':
          case 'late error':
            throw new TypeError('A bug.')
          case 'hang':
          case 'late hang':
            await aborted
        }
      } finally {
        this.open--
      }
    }.bind(this)
    const source = (batches: () => AsyncGenerator<readonly StreamEvent[]>) =>
      plan.isSingle
        ? (async function* () {
            for await (const batch of batches()) yield* batch
          })()
        : {
            batches,
            async *[Symbol.asyncIterator]() {
              for await (const batch of batches()) yield* batch
            },
          }
    return {
      name: `scripted-${place}`,
      model: `model-${place}`,
      toolInput: ({ toolChoice }) => (plan.wantsJson && typeof toolChoice === 'object' ? 'json' : 'native'),
      stream: (request, context) => {
        if (plan.refusesToStream)
          // eslint-disable-next-line @typescript-eslint/require-await -- fails at once
          return source(async function* () {
            throw new HttpError('streaming_unsupported', 'Not as a stream.', { status: 400 })
          })
        return source(() => play(request, context, false))
      },
      generate: (request, context) => source(() => play(request, context, true)),
    }
  }

  #layer(layer: LayerPlan): Middleware {
    switch (layer.kind) {
      case 'cache': {
        const onError = (_: unknown, operation: string): unknown => this.cacheErrors.push(operation)
        if (layer.store === 'own') return cache({ onError })
        return cache({ store: this.#store(layer.store), onError })
      }
      case 'rateLimit':
        return rateLimit(layer.options)
      case 'retry':
        return retry({ attempts: layer.attempts, baseDelay: layer.baseDelay })
      case 'timeout':
        return timeout({ idle: layer.idle, firstByte: layer.idle, firstOutput: layer.idle })
      case 'telemetry': {
        const tracer = new BasicTracerProvider({
          spanProcessors: [new SimpleSpanProcessor(this.spans)],
        }).getTracer('test')
        const begin = tracer.startSpan.bind(tracer)
        tracer.startSpan = (...given) => {
          this.spansBegun++
          return begin(...given)
        }
        return telemetry({ tracer })
      }
      case 'passThrough':
      case 'rename': {
        const { signals } = this
        const isRenamed = layer.kind === 'rename'
        return (next) =>
          async function* (request, context) {
            signals.push(context.signal)
            for await (const event of next(isRenamed ? { ...request, system: 'Be kind.' } : request, context))
              yield isRenamed && event.type === 'start' ? { ...event, model: 'renamed' } : event
          }
      }
    }
  }

  #store(kind: Exclude<StorePlan, 'own'>): CacheStore {
    const answers = new Map<string, string>()
    const keep = (key: string, entry: string): void => {
      this.kept.push(entry)
      answers.set(key, entry)
    }
    const never = new Promise<never>(() => undefined)
    const fail = (): never => {
      throw new Error('The store is down.')
    }
    switch (kind) {
      case 'memory':
        return { get: (key) => answers.get(key), set: keep }
      case 'slow':
        return {
          get: (key) => new Promise((resolve) => setTimeout(() => resolve(answers.get(key)), 20)),
          set: async (key, entry) => {
            await pace()
            keep(key, entry)
          },
        }
      case 'throws':
        return { get: fail, set: () => Promise.reject(new Error('The store is down.')) }
      case 'hangs':
        return { get: () => never, set: () => never }
      case 'junk':
        return { get: (key) => answers.get(key)?.slice(0, -2) ?? 7, set: keep }
    }
  }
}
