import { ollama, type OllamaOptions, toStreamEvents } from 'fieldstream/ollama'
import { Ollama } from 'ollama'
import { expect } from 'vitest'
import { recorded, type RecordedAnswer } from '../../recordings.ts'
import { key, output, words as serversWords } from '../run.ts'
import type { ExpectedAnswer, Json, Reading, Subject, Variant } from '../subject.ts'
import { supports } from '../supports.ts'

interface WireCall {
  readonly id?: string
  readonly function: { readonly name: string; readonly arguments: unknown }
}

interface WireMessage {
  readonly content?: string
  readonly thinking?: string
  readonly tool_calls?: readonly WireCall[]
}

type Line = Json & { readonly message?: WireMessage; readonly response?: string }

/** A last line without its end counts where the body ends, not where it broke off. */
function linesIn(body: string, isBroken: boolean): Line[] {
  const lines = isBroken ? body.split('\n').slice(0, -1) : body.split('\n')
  return lines.flatMap((line) => {
    try {
      return [JSON.parse(line) as Line]
    } catch {
      return []
    }
  })
}

/** Whether a model ends its thinking in the midst of its text. The server escapes `<` and `>`. */
const hasTag = ({ body }: RecordedAnswer): boolean => /\/think(>|\\u003e)/.test(body)

/** Reads a body of `/api/chat` or `/api/generate`. */
function readBody(body: string, { variant, isBroken }: Reading): ExpectedAnswer {
  const lines = linesIn(body, isBroken)
  const messages = lines.map(({ message, response }) => message ?? { content: response ?? '' })
  const last = lines.find(({ done }) => done === true)
  const content = messages.map((message) => message.content ?? '').join('')
  const calls = messages
    .flatMap(({ tool_calls: toolCalls }) => toolCalls ?? [])
    .map(({ id, function: called }) => ({
      id,
      name: called.name,
      input: called.arguments,
      inputText: JSON.stringify(called.arguments),
    }))
  const tag = /<\/think>\s*/.exec(content)
  // Asked to think, a model that closes what it never opened has thought.
  const isThought = tag !== null && (variant.name === 'unopened' || variant.name === 'asked')
  const counts = Object.fromEntries(Object.entries(last ?? {}).filter(([name]) => /_(count|duration)$/.test(name)))
  const count = (name: string) => (counts[name] ?? 0) as number
  const reason = last?.['done_reason'] as string | undefined
  return {
    text: tag ? (isThought ? content.slice(tag.index + tag[0].length) : content.replace(tag[0], '')) : content,
    reasoning: messages.map(({ thinking }) => thinking ?? '').join('') + (isThought ? content.slice(0, tag.index) : ''),
    calls,
    usage: counts,
    counts: {
      inputTokens: count('prompt_eval_count'),
      outputTokens: count('eval_count'),
      totalTokens: count('prompt_eval_count') + count('eval_count'),
    },
    finishReason: reason === 'length' ? 'length' : calls.length > 0 ? 'tool-calls' : 'stop',
    providerFinishReason: reason,
    id: undefined,
    model: lines[0]?.['model'] as string | undefined,
    isComplete: last !== undefined,
    failure: undefined,
    warnings: tag && !isThought ? 1 : 0,
  }
}

const line = (message: object, rest: object = { done: false }) => ({
  model: 'm',
  created_at: '2025-06-09T17:58:55.337823Z',
  message: { role: 'assistant', content: '', ...message },
  ...rest,
})
const text = line({ content: output })
const call = (members: object, id?: string) =>
  line({ tool_calls: [{ ...(id && { id }), function: { arguments: {}, ...members } }] })
const end = (reason: string) => line({}, { done: true, done_reason: reason, prompt_eval_count: 7, eval_count: 3 })

function write(...lines: readonly unknown[]): string {
  return lines.map((one) => `${typeof one === 'string' ? one : JSON.stringify(one)}\n`).join('')
}

export const ollamaSubject: Subject = {
  name: 'ollama',
  model: 'model-a',
  create: ({ baseURL, ...options }) =>
    ollama({ model: 'model-a', ...(baseURL && { host: baseURL }), ...(options as Partial<OllamaOptions>) }),
  supports: supports.ollama,
  sends: {
    forcedTool: { tools: [{ function: { name: 'ask' } }] },
    requiredTool: { tools: [{ function: { name: 'ask' } }, { function: { name: 'note' } }] },
    strictTool: { tools: [{ function: { name: 'exact' } }] },
    ownTool: { tools: [{ type: 'own' }] },
    imageBytes: { messages: [{ images: ['AQID', 'aGVsbG8='] }] },
    reasoningEffort: { think: true },
    reasoningBudget: { think: true },
    maxTokens: { options: { num_predict: 5 } },
    temperature: { options: { temperature: 0 } },
    topP: { options: { top_p: 0.5 } },
    stop: { options: { stop: ['END'] } },
    laterSystemMessage: { messages: [{ role: 'user' }, { role: 'system', content: 'Be brief.' }] },
  },
  ownTool: { type: 'own' },
  folders: ['ollama'],
  variantsOf: (recording) => {
    const variants: Variant[] = [
      { name: 'opened', options: { thinkTag: 'opened' } },
      { name: 'unopened', options: { thinkTag: 'unopened' } },
      { name: 'asked', request: { providerOptions: { ollama: { think: true } } } },
    ]
    // Where nothing closes it, all content of a model that thinks unannounced would be thinking.
    return variants.filter(({ name }) => name !== 'unopened' || hasTag(recording))
  },
  read: readBody,
  expectTurn(sent, { text: said, reasoning }, { body }, toolCalls) {
    const messages = sent['messages'] as Json[]
    const calls = linesIn(body, false).flatMap(({ message }) => message?.tool_calls ?? [])
    expect(messages.map(({ role }) => role)).toEqual(['user', 'assistant', 'user'])
    expect(messages[1]).toEqual({
      role: 'assistant',
      content: said,
      ...(reasoning !== '' && { thinking: reasoning }),
      ...(calls.length > 0 && { tool_calls: calls.map((one, i) => ({ id: toolCalls[i]!.toolCallId, ...one })) }),
    })
  },
  // Of the long one its last lines, from where it stops thinking aloud.
  cuts: [
    ...recorded('ollama/chat-tools-two-in-two-lines'),
    ...recorded('ollama/chat-text-then-parallel-empty-tools').map(({ name, body }) => ({
      name: `the end of ${name}`,
      body: body.split('\n').slice(-8).join('\n'),
    })),
  ],
  wire: {
    contentType: 'application/x-ndjson',
    requestIdHeader: 'x-request-id',
    write,
    begun: [text],
    rest: [end('stop')],
    limit: [end('length')],
    callsAtLimit: [[call({ name: 'ask', arguments: { message: output } }, 'call_1'), end('length')]],
    framings: (body) => [
      body.replaceAll('\n', '\r\n'),
      `\ufeff${body}`,
      body.replaceAll('\n', '\n\n \n'),
      body.replaceAll('{"model"', '  { "model"'),
      body.trimEnd(),
      write({ heartbeat: true }) + body,
    ],
    isOverAtEvidence: true,
    breaches: {
      'a message that is none': [{ message: 5 }],
      'null for a message': [{ message: null }],
      'content that is no text': [line({ content: 5 })],
      'thinking that is no text': [line({ thinking: {} })],
      'a response that is no text': [{ response: 5 }],
      'calls that are no list': [line({ tool_calls: {} })],
      'a call that is none': [line({ tool_calls: [5] })],
      'a call without function': [line({ tool_calls: [{ id: 'a' }] })],
      'a call without name': [call({})],
      'two calls with one id': [call({ name: 'ask' }, 'a'), call({ name: 'ask' }, 'a'), end('stop')],
    },
    signsOfLife: ['\n', '\r\n'],
    jsonCode: 'empty_response',
    noAnswers: [
      ['a page under a false name', `<html>\n${output}</html>`, 'stream_protocol'],
      ['only empty lines', '\n\r\n \n', 'empty_response'],
      ['something else', write({ status: 'pulling' }), 'empty_response'],
    ],
  },
  failureBody: (_, __, words) => JSON.stringify({ error: words }),
  statuses: (
    [
      [400, 'bad_request', false],
      [401, 'authentication', false],
      [402, 'quota_exhausted', false],
      [403, 'permission', false],
      [404, 'not_found', false],
      [408, 'request_timeout', true],
      [413, 'request_too_large', false],
      [418, 'http_error', false],
      [429, 'rate_limited', true],
      [500, 'server_error', true],
      [502, 'server_error', true],
      [503, 'overloaded', true],
    ] as const
  ).map(([status, code, isRetryable]) => [status, {}, code, isRetryable] as const),
  reported: (words) =>
    [words, { message: words }].map((error) => ({
      name: typeof error,
      body: write({ error }),
      expected: { code: 'server_error', status: 500, retryable: true, providerMessage: words },
      overSdk: typeof error === 'string',
    })),
  sdk: {
    // The SDK's other entry can read files.
    module: 'ollama/browser',
    install: 'ollama@0.6',
    create: ({ fetch }) => new Ollama({ fetch }),
    fake: (chat) => ({ chat }),
    called: [{ model: 'model-a', stream: true }],
    events: async (client, name) => {
      const sdk = client as Ollama
      return toStreamEvents(
        name?.startsWith('ollama/generate')
          ? await sdk.generate({ model: 'any', prompt: 'any', stream: true })
          : await sdk.chat({ model: 'any', messages: [], stream: true }),
      )
    },
    mapped: toStreamEvents,
    throws: [
      [new Error('Did not receive done or success response in stream.'), 'stream_truncated'],
      [new Error(serversWords), 'server_error'],
    ],
  },
  key: {
    environment: ['OLLAMA_API_KEY'],
    others: ['OLLAMA_HOST'],
    neededWith: { baseURL: 'https://ollama.com' },
    header: 'authorization',
    prefix: 'Bearer ',
  },
  makesClient: { apiKey: key, host: 'https://example.com', fetch: globalThis.fetch },
}
