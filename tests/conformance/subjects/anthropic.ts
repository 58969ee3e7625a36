import Anthropic from '@anthropic-ai/sdk'
import type { FinishReason } from 'fieldstream'
import { anthropic, type AnthropicClient, type AnthropicOptions, toStreamEvents } from 'fieldstream/anthropic'
import { expect } from 'vitest'
import { recorded } from '../../recordings.ts'
import { key, output } from '../run.ts'
import { closedInput, eventsIn, type ExpectedAnswer, type Json, parsed, sseFramings, type Subject } from '../subject.ts'
import { supports } from '../supports.ts'

const finishReasons: Record<string, FinishReason> = {
  end_turn: 'stop',
  stop_sequence: 'stop',
  max_tokens: 'length',
  tool_use: 'tool-calls',
  refusal: 'refusal',
  pause_turn: 'pause',
  compaction: 'pause',
}

/** The content blocks, put together, with the text of arguments where there was some. */
function blocksIn(events: readonly Json[]): { block: Json; inputText: string }[] {
  const blocks: { block: Json; inputText: string }[] = []
  for (const { type, index, content_block: content, delta } of events) {
    if (type === 'content_block_start') blocks[index as number] = { block: { ...(content as Json) }, inputText: '' }
    if (type !== 'content_block_delta') continue
    const { block } = blocks[index as number]!
    const { type: kind, text, thinking, signature, content: summary, partial_json: json, citation } = delta as Json
    if (kind === 'text_delta') block['text'] = (block['text'] as string) + (text as string)
    if (kind === 'thinking_delta') block['thinking'] = (block['thinking'] as string) + (thinking as string)
    if (kind === 'signature_delta') block['signature'] = signature
    if (kind === 'compaction_delta') block['content'] = summary
    if (kind === 'input_json_delta') blocks[index as number]!.inputText += json as string
    if (kind === 'citations_delta') block['citations'] = [...((block['citations'] ?? []) as unknown[]), citation]
  }
  for (const { block, inputText } of blocks) if (inputText !== '') block['input'] = parsed(inputText)
  return blocks
}

function readBody(body: string): ExpectedAnswer {
  const events = eventsIn(body)
  const message = events.find(({ type }) => type === 'message_start')?.['message'] as Json | undefined
  const last = events.findLast(({ type }) => type === 'message_delta')
  const usage = [message, ...events.filter(({ type }) => type === 'message_delta')].reduce(
    (all: Json, one) => ({ ...all, ...(one?.['usage'] as Json | undefined) }),
    {},
  )
  const reason = (last?.['delta'] as Json | undefined)?.['stop_reason'] as string | undefined
  const blocks = blocksIn(events)
  const all = (type: string, member: string) =>
    blocks.map(({ block }) => (block['type'] === type ? (block[member] as string) : '')).join('')
  const calls = blocks
    .filter(({ block }) => block['type'] === 'tool_use')
    .map(({ block: { id, name, input }, inputText }) => ({
      id: id as string,
      name: name as string,
      input,
      // Some come whole, at the beginning.
      inputText: inputText === '' && Object.keys(input as object).length > 0 ? JSON.stringify(input) : inputText,
    }))
  const count = (name: string) => (usage[name] as number | null | undefined) ?? 0
  const inputTokens = count('input_tokens') + count('cache_read_input_tokens') + count('cache_creation_input_tokens')
  const isCut = reason === 'max_tokens' && calls.length > 0
  return {
    text: all('text', 'text'),
    reasoning: all('thinking', 'thinking'),
    calls,
    usage,
    counts: {
      inputTokens,
      outputTokens: count('output_tokens'),
      totalTokens: inputTokens + count('output_tokens'),
      cacheReadTokens: count('cache_read_input_tokens'),
      cacheWriteTokens: count('cache_creation_input_tokens'),
    },
    finishReason: finishReasons[reason ?? ''],
    providerFinishReason: reason,
    id: message?.['id'] as string | undefined,
    model: message?.['model'] as string | undefined,
    isComplete: events.some(({ type }) => type === 'message_stop'),
    failure:
      reason === 'refusal'
        ? { name: 'OutputError', code: 'refused' }
        : isCut
          ? { name: 'OutputError', code: 'output_truncated' }
          : undefined,
  }
}

const start = {
  type: 'message_start',
  message: { id: 'msg_1', type: 'message', role: 'assistant', model: 'm', content: [], usage: { input_tokens: 7 } },
}
const textStart = { type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } }
const textDelta = { type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: output } }
const blockStop = { type: 'content_block_stop', index: 0 }
const callBlock = { type: 'tool_use', id: 'call_1', name: 'ask', input: {} }
const callStart = { type: 'content_block_start', index: 0, content_block: callBlock }
const callDelta = {
  type: 'content_block_delta',
  index: 0,
  delta: { type: 'input_json_delta', partial_json: `{"message":"${output}"}` },
}
const stopped = (reason: string | null) => ({ type: 'message_delta', delta: { stop_reason: reason }, usage: {} })
const end = { type: 'message_stop' }
const atLimit = [stopped('max_tokens'), end]

function write(...events: readonly unknown[]): string {
  return events
    .map((event) => {
      const { type } = (event ?? {}) as { type?: string }
      return `event: ${type ?? 'message'}\ndata: ${typeof event === 'string' ? event : JSON.stringify(event)}\n\n`
    })
    .join('')
}

export const anthropicSubject: Subject = {
  name: 'anthropic',
  model: 'model-a',
  create: (options) => anthropic({ model: 'model-a', ...(options as Partial<AnthropicOptions>) }),
  supports: supports.anthropic,
  sends: {
    forcedTool: { tool_choice: { type: 'tool', name: 'ask' } },
    requiredTool: { tool_choice: { type: 'any' } },
    strictTool: { tools: [{ name: 'exact', strict: true, input_schema: closedInput }] },
    ownTool: { tools: [{ type: 'own' }] },
    imageBytes: {
      messages: [
        {
          content: [
            { type: 'image', source: { type: 'base64', media_type: 'image/png', data: 'AQID' } },
            { type: 'image', source: { type: 'base64', media_type: 'image/jpeg', data: 'aGVsbG8=' } },
          ],
        },
      ],
    },
    imageUrl: { messages: [{ content: [{ source: { type: 'url', url: 'https://example.com/a.png' } }] }] },
    reasoningEffort: { thinking: { type: 'adaptive' }, output_config: { effort: 'low' } },
    reasoningBudget: { thinking: { type: 'enabled', budget_tokens: 2000 } },
    maxTokens: { max_tokens: 5 },
    temperature: { temperature: 0 },
    topP: { top_p: 0.5 },
    stop: { stop_sequences: ['END'] },
    laterSystemMessage: { messages: [{ role: 'user' }, { role: 'system', content: 'Be brief.' }] },
  },
  ownTool: { type: 'own' },
  folders: ['anthropic'],
  read: readBody,
  expectTurn(sent, _, { body }) {
    const messages = sent['messages'] as { role: string; content: unknown }[]
    const blocks = blocksIn(eventsIn(body)).map(({ block }) => block)
    expect(messages.map(({ role }) => role)).toEqual(['user', 'assistant', 'user'])
    expect(messages[1]!.content).toEqual(blocks.filter(({ type, text }) => type !== 'text' || text !== ''))
  },
  cuts: recorded('anthropic/tool-parallel-two-after-text'),
  wire: {
    contentType: 'text/event-stream',
    requestIdHeader: 'request-id',
    write,
    begun: [start, textStart, textDelta],
    rest: [blockStop, stopped('end_turn'), end],
    limit: [blockStop, ...atLimit],
    callsAtLimit: [
      [start, callStart, blockStop, ...atLimit],
      [start, callStart, callDelta, blockStop, ...atLimit],
      [start, callStart, callDelta, ...atLimit],
    ],
    framings: sseFramings,
    isOverAtEvidence: true,
    breaches: {
      'a second answer': [start],
      'a delta for a block that never began': [{ ...textDelta, index: 3 }],
      'a delta for a block that has ended': [blockStop, textDelta],
      'the end of a block that never began': [{ ...blockStop, index: 3 }],
      'a block that begins twice': [textStart],
      'a block that never ends': [stopped('end_turn'), end],
      'an end for a call that never came': [blockStop, stopped('tool_use'), end],
      'an end without a stop reason': [blockStop, stopped(null), end],
      'a block without content': [{ type: 'content_block_start', index: 1 }],
      'a delta without content': [{ type: 'content_block_delta', index: 0 }],
      'text that is no string': [{ ...textDelta, delta: { type: 'text_delta', text: 5 } }],
      'an end of the message without a delta': [blockStop, { type: 'message_delta' }],
      'arguments that are no string': [blockStop, callStart, { ...callDelta, delta: { type: 'input_json_delta' } }],
      'a call without id': [blockStop, { ...callStart, content_block: { ...callBlock, id: undefined } }],
      'a call without name': [blockStop, { ...callStart, content_block: { ...callBlock, name: undefined } }],
      'two calls with one id': [blockStop, callStart, callDelta, blockStop, callStart],
    },
    signsOfLife: [': here\n\n', write({ type: 'ping' }), 'data: [DONE]\n\n'],
    jsonCode: 'unexpected_content_type',
    noAnswers: [
      ['only comments and pings', `: hello\n\n${write({ type: 'ping' })}`, 'empty_response'],
      ['the protocol of somebody else', 'data: hello\n\n', 'stream_protocol'],
      ['a beginning without its message', write({ type: 'message_start' }), 'stream_protocol'],
    ],
  },
  failureBody: (_, error, words) => JSON.stringify({ type: 'error', error: { ...error, message: words } }),
  statuses: (
    [
      [400, 'invalid_request_error', 'bad_request', false],
      [401, 'authentication_error', 'authentication', false],
      [402, 'billing_error', 'quota_exhausted', false],
      [403, 'permission_error', 'permission', false],
      [404, 'not_found_error', 'not_found', false],
      [408, 'timeout_error', 'request_timeout', true],
      [409, 'conflict_error', 'conflict', true],
      [413, 'request_too_large', 'request_too_large', false],
      [418, 'teapot_error', 'http_error', false],
      [422, 'invalid_request_error', 'bad_request', false],
      [429, 'rate_limit_error', 'rate_limited', true],
      [500, 'api_error', 'server_error', true],
      [502, 'api_error', 'server_error', true],
      [503, 'api_error', 'overloaded', true],
      [504, 'timeout_error', 'server_error', true],
      [529, 'overloaded_error', 'overloaded', true],
    ] as const
  ).map(([status, type, code, isRetryable]) => [status, { type }, code, isRetryable, type] as const),
  reported: (words) =>
    (
      [
        ['invalid_request_error', 'bad_request', 400, false],
        ['authentication_error', 'authentication', 401, false],
        ['billing_error', 'quota_exhausted', 402, false],
        ['permission_error', 'permission', 403, false],
        ['not_found_error', 'not_found', 404, false],
        ['request_too_large', 'request_too_large', 413, false],
        ['rate_limit_error', 'rate_limited', 429, true],
        ['api_error', 'server_error', 500, true],
        ['timeout_error', 'server_error', 504, true],
        ['overloaded_error', 'overloaded', 529, true],
        ['brand_new_error', 'server_error', 500, true],
      ] as const
    ).map(([type, code, status, retryable]) => ({
      name: type,
      body: write({ type: 'error', error: { type, message: words } }),
      expected: { code, status, retryable, providerCode: type, providerMessage: words },
      overSdk: true,
    })),
  sdk: {
    module: '@anthropic-ai/sdk',
    install: '@anthropic-ai/sdk@1',
    create: ({ fetch }): AnthropicClient => new Anthropic({ apiKey: key, fetch, maxRetries: 5 }),
    fake: (create) => ({ messages: { create } }),
    called: [
      { model: 'model-a', stream: true },
      { maxRetries: 0, headers: { 'x-a': 'b' }, signal: expect.any(AbortSignal) as AbortSignal },
    ],
    events: async (client) => {
      const request = { model: 'model-a', max_tokens: 1, messages: [], stream: true } as const
      return toStreamEvents(await (client as Anthropic).messages.create({ ...request, messages: [] }))
    },
    mapped: toStreamEvents,
    // The SDK's iterator fails so on an event that is no JSON, and the message quotes it.
    throws: [[new SyntaxError(`Unexpected token in "${output}"`), 'stream_protocol']],
  },
  key: {
    environment: ['ANTHROPIC_API_KEY'],
    others: ['ANTHROPIC_BASE_URL', 'ANTHROPIC_AUTH_TOKEN'],
    neededWith: {},
    header: 'authorization',
    prefix: 'Bearer ',
  },
  makesClient: { apiKey: key, baseURL: 'https://example.com', fetch: globalThis.fetch },
}
