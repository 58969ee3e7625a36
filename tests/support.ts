import { StreamingLLMClient } from 'fieldstream'
import type {
  ClientOptions,
  FinishReason,
  LLMRequest,
  Provider,
  ProviderContext,
  ResponseStream,
  StreamEvent,
  StreamRequest,
  Usage,
} from 'fieldstream'

/** What a scripted provider plays: its reads in order, or a generator of them. */
export type Script =
  readonly (readonly StreamEvent[])[] | ((context: ProviderContext) => AsyncIterable<readonly StreamEvent[]>)

/** A provider that plays a script, and keeps account of what was asked of it. */
export interface ScriptedProvider extends Provider {
  readonly requests: readonly LLMRequest[]
  /** How often the next read was asked for. */
  readonly pulls: number
  /** Whether its connection is closed, be it at the end or by leaving early. */
  readonly isClosed: boolean
  readonly signal: AbortSignal | undefined
}

export function scriptedProvider(script: Script): ScriptedProvider {
  const requests: LLMRequest[] = []
  const state = { pulls: 0, isClosed: false, signal: undefined as AbortSignal | undefined }
  async function* play(context: ProviderContext): AsyncGenerator<readonly StreamEvent[]> {
    try {
      yield* typeof script === 'function' ? script(context) : script
    } finally {
      state.isClosed = true
    }
  }
  return {
    name: 'scripted',
    model: 'scripted-1',
    requests,
    get pulls() {
      return state.pulls
    },
    get isClosed() {
      return state.isClosed
    },
    get signal() {
      return state.signal
    },
    stream(request, context) {
      requests.push(request)
      state.signal = context.signal
      const batches = (): AsyncIterator<readonly StreamEvent[], unknown, undefined> => {
        const reads = play(context)
        return {
          next: () => {
            state.pulls++
            return reads.next()
          },
          return: () => reads.return(undefined),
        }
      }
      return {
        batches,
        async *[Symbol.asyncIterator]() {
          for await (const batch of play(context)) yield* batch
        },
      }
    },
  }
}

/** The stream of one request to a scripted provider. */
export function streamOf(
  script: Script | Provider,
  request: Partial<StreamRequest> = {},
  options: Partial<ClientOptions> = {},
): ResponseStream {
  const provider = typeof script === 'object' && 'stream' in script ? script : scriptedProvider(script)
  const client = new StreamingLLMClient({ provider, ...options })
  return client.stream({ messages: [{ role: 'user', content: 'Hello' }], ...request })
}

export const usage: Usage = {
  inputTokens: 10,
  outputTokens: 20,
  totalTokens: 30,
  cacheReadTokens: 0,
  cacheWriteTokens: 0,
  raw: {},
}

export const start: StreamEvent = {
  type: 'start',
  provider: 'scripted',
  model: 'scripted-1',
  responseId: 'response-1',
  toolInput: 'native',
}

export const text = (delta: string): StreamEvent => ({ type: 'text-delta', delta })

export const reasoning = (delta: string): StreamEvent => ({ type: 'reasoning-delta', delta })

export const inputStart = (toolCallId: string, toolName = 'answer'): StreamEvent => ({
  type: 'tool-input-start',
  toolCallId,
  toolName,
})

export const input = (toolCallId: string, delta: string): StreamEvent => ({
  type: 'tool-input-delta',
  toolCallId,
  delta,
})

export const inputEnd = (toolCallId: string): StreamEvent => ({ type: 'tool-input-end', toolCallId })

export const finish = (finishReason: FinishReason = 'tool-calls'): StreamEvent => ({
  type: 'finish',
  finishReason,
  providerFinishReason: finishReason,
  usage,
})

/** All events of one call with these arguments. */
export const call = (toolCallId: string, inputText: string, toolName = 'answer'): StreamEvent[] => [
  inputStart(toolCallId, toolName),
  ...(inputText === '' ? [] : [input(toolCallId, inputText)]),
  inputEnd(toolCallId),
]

export async function collect<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const all: Item[] = []
  for await (const item of items) all.push(item)
  return all
}

/** Collects until the end, be it an error. */
export async function collectUntilError<Item>(items: AsyncIterable<Item>): Promise<{ items: Item[]; error: unknown }> {
  const all: Item[] = []
  try {
    for await (const item of items) all.push(item)
  } catch (error) {
    return { items: all, error }
  }
  return { items: all, error: undefined }
}

/** What a promise rejects with; `undefined` where it does not. */
export async function rejectionOf(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise
  } catch (error) {
    return error
  }
  return undefined
}

/** What a function throws; `undefined` where it does not. */
export function thrownBy(action: () => unknown): unknown {
  try {
    action()
  } catch (error) {
    return error
  }
  return undefined
}

/** Resolves once all promises that are ready are through. */
export const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** `text` in pieces of `size` characters. */
export function pieces(text: string, size: number): string[] {
  return Array.from({ length: Math.ceil(text.length / size) }, (_, i) => text.slice(i * size, (i + 1) * size))
}

/** How many timers and sockets keep the process alive. The test runner has none for longer than a moment. */
export function liveResources(): number {
  return process.getActiveResourcesInfo().filter((name) => /Timeout|TCP/.test(name)).length
}

/** Waits until something is so, or time is up. */
export async function until(isSo: () => boolean, milliseconds = 5000): Promise<void> {
  const deadline = performance.now() + milliseconds
  while (!isSo() && performance.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 10))
}

/** Resolves with the milliseconds until a connection is closed, without those in which the machine did not let this process run. */
export async function timeToClose(connection: { readonly isClosed: boolean }): Promise<number> {
  let passed = 0
  for (let from = performance.now(); !connection.isClosed && passed < 5000; from = performance.now()) {
    await new Promise((resolve) => setTimeout(resolve, 2))
    passed += Math.min(performance.now() - from, 10)
  }
  return passed
}
