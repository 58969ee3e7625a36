import { inspect } from 'node:util'
import {
  isLLMError,
  type LLMError,
  type Message,
  type Provider,
  type StreamEvent,
  StreamingLLMClient,
  type StreamRequest,
  tool,
} from 'fieldstream'
import { replayFetch, type ReplayOptions, type ReplaySource, simulate, type SimulateOptions } from 'fieldstream/testing'
import { expect } from 'vitest'
import { collectUntilError } from '../support.ts'
import type { Connection, Subject } from './subject.ts'

// What no error may say. Each holds the word `planted`.
export const key = 'planted-key'
export const prompt = 'planted prompt'
export const output = 'planted output'
export const words = `planted words that quote: ${prompt}`

export const messages: Message[] = [{ role: 'user', content: prompt }]
export const ask = tool({
  name: 'ask',
  description: 'Asks the user',
  input: { properties: { message: { type: 'string' } } },
})

/** The subject's simulated answer. */
export function simulated(
  { name }: Subject,
  payload: Parameters<typeof simulate>[0] = 'Fine.',
  options: SimulateOptions = {},
): ReturnType<typeof simulate> {
  return simulate(payload, { provider: name, ...options })
}

/** The subject's provider over a fetch that gives this answer. */
export function over(
  subject: Subject,
  source: ReplaySource,
  options: Connection = {},
  replay: ReplayOptions = {},
): Provider {
  return subject.create({ apiKey: key, fetch: replayFetch(source, replay), ...options })
}

/** Runs one request to its end and keeps all there was to see. */
export function watch(provider: Provider, request: Partial<StreamRequest> = {}) {
  return watchClient(new StreamingLLMClient({ provider }), request)
}

export async function watchClient(client: StreamingLLMClient, request: Partial<StreamRequest> = {}) {
  const stream = client.stream({ messages, fields: { any: '*' }, ...request })
  const seen = await collectUntilError(stream)
  const { error } = seen
  const response = await stream.final().catch((caught: unknown) => {
    expect(caught).toBe(error)
    return undefined
  })
  const events = seen.items.map((event) => (event.type === 'finish' ? { ...event, metrics: undefined } : event))
  if (error !== undefined) {
    expectQuiet(error)
    expect(response).toBeUndefined()
    expect(events.some(({ type }) => type === 'tool-call' || type === 'finish')).toBe(false)
  }
  return { events, text: joined(events, 'text-delta'), response, error: error as LLMError | undefined }
}

export type Run = Awaited<ReturnType<typeof watch>>
type Told = { readonly type: string; readonly delta?: string; readonly toolCallId?: string | undefined }

/** A run that must have failed. */
export async function failureOf(provider: Provider, request: Partial<StreamRequest> = {}) {
  const { error, ...run } = await watch(provider, request)
  expect(error, 'an error').toBeDefined()
  return { ...run, error: error! }
}

/** Runs a provider without the client. */
export async function read(events: AsyncIterable<StreamEvent>) {
  const { items, error } = await collectUntilError(events)
  if (error !== undefined) expectQuiet(error)
  return { events: items, error: error as LLMError | undefined }
}

/** All deltas of a kind, joined; of one call if named. */
export function joined(
  events: readonly Told[],
  type: 'text-delta' | 'reasoning-delta' | 'tool-input-delta',
  id?: string,
): string {
  let text = ''
  for (const event of events) {
    if (event.type === type && (id === undefined || event.toolCallId === id)) text += event.delta ?? ''
  }
  return text
}

/** That an error can be logged: nothing planted is in it, save in what loggers do not print. */
export function expectQuiet(error: unknown): void {
  expect(isLLMError(error), String(error)).toBe(true)
  const { message, stack } = error as LLMError
  const printed = [message, stack, inspect(error, { depth: Infinity }), JSON.stringify(error)].join('\n')
  expect(printed).not.toContain('planted')
}
