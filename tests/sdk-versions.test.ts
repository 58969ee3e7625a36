import { readFileSync } from 'node:fs'
import { Anthropic } from '@anthropic-ai/sdk'
import { GoogleGenAI } from '@google/genai'
import { type Provider, StreamingLLMClient } from 'fieldstream'
import { anthropic, toStreamEvents as fromAnthropic } from 'fieldstream/anthropic'
import { gemini, toStreamEvents as fromGemini } from 'fieldstream/gemini'
import { ollama, toStreamEvents as fromOllama } from 'fieldstream/ollama'
import { openai, openaiChat, toChatStreamEvents, toStreamEvents as fromOpenAI } from 'fieldstream/openai'
import { replayFetch, type ReplaySource, simulate } from 'fieldstream/testing'
import { Anthropic as LowestAnthropic } from 'lowest-anthropic'
import { GoogleGenAI as LowestGenAI } from 'lowest-genai'
import { Ollama as LowestOllama } from 'lowest-ollama'
import { OpenAI as LowestOpenAI } from 'lowest-openai'
import { Ollama } from 'ollama'
import { OpenAI } from 'openai'
import { describe, expect, test } from 'vitest'
import { recordingsIn } from './recordings.ts'

const apiKey = 'none'

type Fetch = typeof globalThis.fetch

interface Sdk {
  /** The provider over a client of the SDK's lowest supported version, and of its newest. */
  readonly providers: readonly [lowest: (fetch: Fetch) => Provider, newest: (fetch: Fetch) => Provider]
  /** The raw stream of the lowest version's own call, mapped. */
  readonly mapped: (fetch: Fetch) => Promise<AsyncIterable<unknown>>
  readonly recordings: readonly string[]
}

const messages = [{ role: 'user' as const, content: 'Hello' }]
const model = 'some-model'

const sdks: Record<string, Sdk> = {
  anthropic: {
    providers: [
      (fetch) => anthropic({ model, client: new LowestAnthropic({ apiKey, fetch }) }),
      (fetch) => anthropic({ model, client: new Anthropic({ apiKey, fetch }) }),
    ],
    mapped: async (fetch) =>
      fromAnthropic(
        await new LowestAnthropic({ apiKey, fetch }).messages.create({ model, max_tokens: 9, messages, stream: true }),
      ),
    recordings: ['anthropic'],
  },
  openai: {
    providers: [
      (fetch) => openai({ model, client: new LowestOpenAI({ apiKey, fetch }) }),
      (fetch) => openai({ model, client: new OpenAI({ apiKey, fetch }) }),
    ],
    mapped: async (fetch) =>
      fromOpenAI(await new LowestOpenAI({ apiKey, fetch }).responses.create({ model, input: 'Hello', stream: true })),
    recordings: ['openai-responses'],
  },
  'openai-chat': {
    providers: [
      (fetch) => openaiChat({ model, client: new LowestOpenAI({ apiKey, fetch }) }),
      (fetch) => openaiChat({ model, client: new OpenAI({ apiKey, fetch }) }),
    ],
    mapped: async (fetch) =>
      toChatStreamEvents(
        await new LowestOpenAI({ apiKey, fetch }).chat.completions.create({ model, messages, stream: true }),
      ),
    recordings: ['openai-chat', 'openai-compatible'],
  },
  ollama: {
    providers: [
      (fetch) => ollama({ model, client: new LowestOllama({ fetch }) }),
      (fetch) => ollama({ model, client: new Ollama({ fetch }) }),
    ],
    mapped: async (fetch) => fromOllama(await new LowestOllama({ fetch }).chat({ model, messages, stream: true })),
    recordings: ['ollama'],
  },
  gemini: {
    providers: [
      (fetch) => gemini({ model, client: new LowestGenAI({ apiKey, httpOptions: { fetch } }) }),
      (fetch) => gemini({ model, client: new GoogleGenAI({ apiKey, httpOptions: { fetch } }) }),
    ],
    mapped: async (fetch) =>
      fromGemini(
        await new LowestGenAI({ apiKey, httpOptions: { fetch } }).models.generateContentStream({
          model,
          contents: 'Hello',
        }),
      ),
    recordings: ['gemini'],
  },
}

async function watch(provider: Provider) {
  const stream = new StreamingLLMClient({ provider }).stream({ messages, fields: { any: '*' } })
  const events: unknown[] = []
  let error: unknown
  try {
    for await (const event of stream) events.push(event.type === 'finish' ? { ...event, metrics: undefined } : event)
  } catch (caught) {
    error = caught
  }
  return { events, error: error && { ...error, message: (error as Error).message } }
}

async function watchAll(sdk: Sdk, source: ReplaySource) {
  const [lowest, newest] = sdk.providers
  return { lowest: await watch(lowest(replayFetch(source))), newest: await watch(newest(replayFetch(source))) }
}

test('the versions tried are the lowest that `peerDependencies` allows', () => {
  const { peerDependencies } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
    peerDependencies: Record<string, string>
  }
  const names = { 'lowest-anthropic': '@anthropic-ai/sdk', 'lowest-genai': '@google/genai' } as Record<string, string>
  for (const alias of ['lowest-anthropic', 'lowest-genai', 'lowest-ollama', 'lowest-openai']) {
    const name = names[alias] ?? alias.replace('lowest-', '')
    const installed = JSON.parse(
      readFileSync(new URL(`../node_modules/${alias}/package.json`, import.meta.url), 'utf8'),
    ) as { name: string; version: string }
    const lowest = /^>=([\d.]+) /.exec(peerDependencies[name]!)![1]!
    expect(installed.name).toBe(name)
    expect(installed.version).toBe([...lowest.split('.'), '0', '0'].slice(0, 3).join('.'))
  }
})

describe.each(Object.entries(sdks))('%s: the lowest supported version of the SDK', (name, sdk) => {
  const whole = simulate([{ tool: 'greet', input: { message: 'Good morning' } }], {
    provider: name as 'anthropic',
    text: 'Well then.',
  })

  test('streams the same events as the newest', async () => {
    const { lowest, newest } = await watchAll(sdk, whole)
    expect(lowest).toEqual(newest)
    expect(lowest.error).toBeUndefined()
    expect(lowest.events).toContainEqual(expect.objectContaining({ type: 'tool-call', toolName: 'greet' }))
  })

  test('makes the same errors of statuses and of streams that break off', async () => {
    const error = { error: { message: 'No.', type: 'rate_limit_error', code: 429 } }
    const refused = { status: 429, headers: { 'retry-after': '7' }, body: JSON.stringify(error) }
    const statuses = await watchAll(sdk, refused)
    expect(statuses.lowest).toEqual(statuses.newest)
    expect(statuses.lowest.error).toMatchObject({ code: 'rate_limited', retryAfterMs: 7000, status: 429 })
    const cut = await watchAll(sdk, (request) => {
      const { body } = whole(request)
      return String(body).slice(0, Math.floor(body.length * 0.7))
    })
    expect(cut.lowest).toEqual(cut.newest)
    expect(cut.lowest.error).toMatchObject({ code: 'stream_truncated' })
  })

  test('can be cancelled', async () => {
    const controller = new AbortController()
    const slow = replayFetch((request) => ({ ...whole(request), delays: [0, 60_000] }))
    const client = new StreamingLLMClient({ provider: sdk.providers[0](slow) })
    const stream = client.stream({ messages, signal: controller.signal })
    stream.on('start', () => controller.abort('enough'))
    setTimeout(() => controller.abort('enough'), 50)
    await expect(stream.final()).rejects.toMatchObject({ name: 'AbortError', reason: 'enough' })
  })

  test('can bring its own stream', async () => {
    const events: unknown[] = []
    for await (const event of await sdk.mapped(replayFetch(whole))) events.push((event as { type: string }).type)
    expect(events).toContain('tool-input-start')
    expect(events.at(-1)).toBe('finish')
  })

  const recordings = recordingsIn(sdk.recordings)
  test.runIf(recordings.length > 0)(`reads all ${recordings.length} recordings as the newest does`, async () => {
    for (const recording of recordings) {
      const { lowest, newest } = await watchAll(sdk, recording)
      expect(lowest, recording.name).toEqual(newest)
    }
  })
})
