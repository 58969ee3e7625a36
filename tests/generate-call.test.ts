import { isLLMError, retry, StreamError, StreamingLLMClient, tool } from 'fieldstream'
import type { LLMError, ResponseEvent } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { gemini } from 'fieldstream/gemini'
import { ollama } from 'fieldstream/ollama'
import { openai, openaiChat } from 'fieldstream/openai'
import { replayFetch, simulate } from 'fieldstream/testing'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { finish, reasoning, rejectionOf, scriptedProvider, start, text } from './support.ts'

const messages = [{ role: 'user', content: 'Chips?' }] as const
const answer = tool({ name: 'answer', input: z.object({ route: z.string(), parts: z.array(z.string()) }) })
const payload = { route: 'product', parts: ['One 🎉', 'Two'] }

describe.each([
  ['anthropic', anthropic],
  ['openai', openai],
  ['openai-chat', openaiChat],
  ['ollama', ollama],
  ['gemini', gemini],
] as const)('generate() on %s', (name, create) => {
  const asked: boolean[] = []
  const replay = replayFetch(simulate(payload, { provider: name }))
  const fetch: typeof globalThis.fetch = (input, init) => {
    const body = typeof init?.body === 'string' ? (JSON.parse(init.body) as { stream?: boolean }) : {}
    const url = input instanceof Request ? input.url : String(input)
    asked.push(name === 'gemini' ? url.includes('stream') : body.stream === true)
    return replay(input, init)
  }
  const provider = create({ model: 'some-model', fetch, ...(name !== 'ollama' && { apiKey: 'none' }) })
  const client = new StreamingLLMClient({ provider })
  const request = { messages, tools: [answer], toolChoice: answer, fields: { part: 'parts[*]' } } as const

  test('has the same result with a callback, which streams, and without one, which does not', async () => {
    const events: ResponseEvent[] = []
    const streamed = await client.generate(request, { onEvent: (event) => events.push(event) })
    const whole = await client.generate(request)
    expect(asked).toEqual([true, false])
    const { metrics: _, messages: said, responseId: __, ...one } = streamed
    const { metrics: ___, messages: saidToo, responseId: ____, ...other } = whole
    expect(other).toEqual({ ...one, toolCalls: [{ ...one.toolCalls[0], toolCallId: other.toolCalls[0].toolCallId }] })
    expect(saidToo).toHaveLength(said.length)
    expect(whole.toolCalls[0].input).toEqual(payload)
    expect(events.filter(({ type }) => type === 'field-end')).toMatchObject(payload.parts.map((value) => ({ value })))
    expect(events.at(-1)).toMatchObject({ type: 'finish' })
  })

  test.each<[string, BodyInit | null]>([
    ['missing', null],
    ['empty', ''],
    ['cut', '{"id":"1","model":'],
    ['no JSON', 'oops'],
    ['another object', '{}'],
    ['an error', '{"error":{"type":"overloaded_error","message":"Busy."}}'],
    ['a list', '[{}]'],
    ['no UTF-8', new Uint8Array([123, 255, 255, 125])],
  ])('does not speak of a stream where the answer in one piece is %s', async (_, body) => {
    const fetch = (): Promise<Response> =>
      Promise.resolve(new Response(body, { headers: { 'content-type': 'application/json' } }))
    const broken = create({ model: 'some-model', fetch, ...(name !== 'ollama' && { apiKey: 'none' }) })
    const error = (await rejectionOf(new StreamingLLMClient({ provider: broken }).generate({ messages }))) as LLMError
    expect(isLLMError(error)).toBe(true)
    expect(error.message).not.toMatch(/stream|event/i)
  })
})

describe('generate()', () => {
  const hello = [
    [start, text('Hel')],
    [text('lo'), finish('stop')],
  ]

  test('does not speak of a stream where a provider of your own leaves out the end', async () => {
    const client = new StreamingLLMClient({ provider: scriptedProvider([[start, text('Hello')]]) })
    const error = (await rejectionOf(client.generate({ messages }))) as LLMError
    expect(error.message).toBe('scripted ended its answer without saying that it is complete.')
  })

  test('goes on where its callback throws, and tells of it', async () => {
    const told: string[] = []
    const client = new StreamingLLMClient({
      provider: scriptedProvider(hello),
      onError: ({ code }) => told.push(code),
    })
    const fails = (): never => {
      throw new Error('no')
    }
    expect(await client.generate({ messages }, { onEvent: fails })).toMatchObject({ text: 'Hello' })
    expect(new Set(told)).toEqual(new Set(['consumer_error']))
  })

  test('repeats an attempt that only thought, whatever the client keeps for those who come late', async () => {
    let asked = 0
    const provider = scriptedProvider(async function* () {
      await Promise.resolve()
      if (++asked === 2) yield* hello
      yield [start, reasoning('Hm')]
      throw new StreamError('stream_truncated', 'Cut.', { retryable: true })
    })
    const client = new StreamingLLMClient({
      provider,
      middleware: [retry({ baseDelay: 0 })],
      replay: { events: Infinity },
    })
    expect(await client.generate({ messages })).toMatchObject({ text: 'Hello' })
  })

  test('streams where the provider can do no other', async () => {
    const client = new StreamingLLMClient({ provider: scriptedProvider(hello) })
    expect(await client.generate({ messages })).toMatchObject({ text: 'Hello' })
  })

  test('rejects what is wrong with a request', async () => {
    const client = new StreamingLLMClient({ provider: scriptedProvider(hello) })
    expect(await rejectionOf(client.generate({ messages: [] }))).toMatchObject({ code: 'invalid_argument' })
    expect(await rejectionOf(client.generate({ messages }, { onEvent: 'x' as never }))).toMatchObject({
      message: '`onEvent` of generate() must be a function.',
    })
  })
})
