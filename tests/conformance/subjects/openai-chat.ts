import type OpenAI from 'openai'
import type { ErrorCode, FinishReason } from 'fieldstream'
import { openaiChat, type OpenAIChatOptions, toChatStreamEvents } from 'fieldstream/openai'
import { expect } from 'vitest'
import { recorded } from '../../recordings.ts'
import { key, output } from '../run.ts'
import { closedInput, eventsIn, type ExpectedAnswer, type Json, parsed, sseFramings, type Subject } from '../subject.ts'
import { supports } from '../supports.ts'
import { failureBody, openaiKey, openaiSdk, reportedErrors, statuses, write } from './openai-common.ts'

const finishReasons: Record<string, FinishReason> = { length: 'length', stop: 'stop', tool_calls: 'tool-calls' }
const errorCodes: Record<string, ErrorCode> = { '400': 'bad_request', '502': 'server_error' }

/** Puts the chunks together. */
function readBody(body: string): ExpectedAnswer {
  const chunks = eventsIn(body)
  const end = chunks.findIndex((chunk) => chunk['error'])
  const read = end < 0 ? chunks : chunks.slice(0, end + 1)
  const error = chunks[end]?.['error'] as Json | undefined
  const choices = read.flatMap((chunk) => ((chunk['choices'] ?? []) as Json[]).filter(({ index }) => !index))
  const deltas = choices.map(({ delta }) => (delta ?? {}) as Json)
  const parts = deltas.flatMap(({ content }) =>
    Array.isArray(content) ? (content as Json[]) : [{ type: 'text', text: content ?? '' }],
  )
  const content = parts.map(({ text }) => (text ?? '') as string).join('')
  const [, thought, answer] = /^\s*<think>\s*(.*?)<\/think>\s*(.*)$/s.exec(content) ?? [undefined, '', content]
  const reasoning = deltas.map(({ reasoning_content: first, reasoning: second, reasoning_details: details }) => {
    const texts = ((details ?? []) as Json[]).map(({ text, summary }) => (text ?? summary ?? '') as string)
    return ((first || second) as string | undefined) || texts.join('')
  })
  const thoughts = parts.flatMap(({ thinking }) => (thinking ?? []) as Json[]).map(({ text }) => text as string)
  const refusal = deltas.map(({ refusal: words }) => (words ?? '') as string).join('')
  const calls: { id: string; name: string; inputText: string }[] = []
  for (const call of deltas.flatMap(({ tool_calls: toolCalls }) => (toolCalls ?? []) as Json[])) {
    const { name, arguments: text } = call['function'] as { name?: string; arguments?: string | null }
    // In every recording a call begins with an id not seen before, and is written without a break.
    if (call['id'] && !calls.some(({ id }) => id === call['id']))
      calls.push({ id: call['id'] as string, name: name!, inputText: '' })
    calls.at(-1)!.inputText += text ?? ''
  }
  const usages = read.map((chunk) => chunk['usage'] ?? (chunk['x_groq'] as Json | undefined)?.['usage'])
  const usage = usages.findLast((one) => one) as Json | undefined
  const reason = choices.findLast((choice) => choice['finish_reason'])?.['finish_reason'] as string | undefined
  const finishReason = finishReasons[reason ?? '']
  const fault = (): ErrorCode | undefined => {
    if (error) return errorCodes[String(error['status_code'] ?? error['code'])]!
    if (refusal) return 'refused'
    if (reason === 'length') return calls.length > 0 ? 'output_truncated' : undefined
    const isBroken = reason !== undefined && calls.some(({ inputText }) => parsed(inputText) === undefined)
    return isBroken ? 'invalid_json' : undefined
  }
  const code = fault()
  return {
    text: answer,
    reasoning: [thought, ...reasoning, ...thoughts].join(''),
    calls: calls.map((call) => ({ ...call, input: parsed(call.inputText) })),
    usage: usage ?? (error ? undefined : {}),
    counts: countsOf(usage ?? {}),
    finishReason: finishReason === 'stop' && calls.length > 0 ? 'tool-calls' : finishReason,
    providerFinishReason: reason,
    id: chunks.find(({ id }) => id)?.['id'] as string | undefined,
    model: chunks.find(({ model }) => model)?.['model'] as string | undefined,
    isComplete: reason !== undefined,
    failure: code && { name: error ? 'HttpError' : 'OutputError', code },
    providerMessage: (error?.['message'] as string | undefined) ?? (refusal || undefined),
  }
}

function countsOf(usage: Json) {
  const inputTokens = (usage['prompt_tokens'] ?? 0) as number
  const totalTokens = (usage['total_tokens'] ?? 0) as number
  return { inputTokens, totalTokens, outputTokens: totalTokens - inputTokens }
}

const chunk = (delta: object, finishReason: string | null = null) => ({
  id: 'chat_1',
  model: 'm',
  choices: [{ index: 0, delta, finish_reason: finishReason }],
})
const said = chunk({ content: output })
const stop = chunk({}, 'stop')
const usageChunk = {
  id: 'chat_1',
  model: 'm',
  choices: [],
  usage: { prompt_tokens: 7, completion_tokens: 3, total_tokens: 10 },
}
const call = (members: object) => chunk({ tool_calls: [members] })
const named = { index: 0, id: 'call_1', type: 'function', function: { name: 'ask', arguments: '' } }
const written = { index: 0, function: { arguments: `{"message":"${output}"}` } }

export const openaiChatSubject: Subject = {
  name: 'openai-chat',
  model: 'model-a',
  create: (options) => openaiChat({ model: 'model-a', ...(options as Partial<OpenAIChatOptions>) }),
  supports: supports['openai-chat'],
  sends: {
    forcedTool: { tool_choice: { type: 'function', function: { name: 'ask' } } },
    requiredTool: { tool_choice: 'required' },
    strictTool: { tools: [{ function: { name: 'exact', strict: true, parameters: closedInput } }] },
    ownTool: { tools: [{ type: 'own' }] },
    imageBytes: {
      messages: [
        {
          content: [
            { type: 'image_url', image_url: { url: 'data:image/png;base64,AQID' } },
            { type: 'image_url', image_url: { url: 'data:image/jpeg;base64,aGVsbG8=' } },
          ],
        },
      ],
    },
    imageUrl: { messages: [{ content: [{ image_url: { url: 'https://example.com/a.png' } }] }] },
    reasoningEffort: { reasoning_effort: 'low' },
    maxTokens: { max_completion_tokens: 5 },
    temperature: { temperature: 0 },
    topP: { top_p: 0.5 },
    stop: { stop: ['END'] },
    laterSystemMessage: { messages: [{ role: 'user' }, { role: 'system', content: 'Be brief.' }] },
  },
  ownTool: { type: 'own' },
  folders: ['openai-chat', 'openai-compatible'],
  read: readBody,
  expectTurn(body, expected) {
    const messages = body['messages'] as Json[]
    const { content, tool_calls: calls, ...rest } = messages[1]!
    expect(messages.map(({ role }) => role)).toEqual(['user', 'assistant', 'user'])
    const texts = Array.isArray(content) ? (content as { text?: string }[]).map(({ text }) => text ?? '') : [content]
    const isTagged = texts.join('').startsWith('<think>')
    expect(texts.join('')).toBe(isTagged ? `<think>${expected.reasoning}</think>${expected.text}` : expected.text)
    expect(calls ?? []).toMatchObject(
      expected.calls.map(({ id, name, input }) => ({
        id,
        type: 'function',
        function: { name, arguments: JSON.stringify(input) },
      })),
    )
    if (expected.reasoning !== '' && !isTagged) {
      const back = [rest['reasoning'], rest['reasoning_content'], JSON.stringify([content, rest['reasoning_details']])]
      expect(back.some((text) => (text as string | undefined)?.includes(expected.reasoning.slice(0, 3)))).toBe(true)
    }
  },
  cuts: recorded('openai-compatible/mistral-incremental-empty-name'),
  wire: {
    contentType: 'text/event-stream',
    requestIdHeader: 'x-request-id',
    write,
    begun: [said],
    rest: [stop, usageChunk],
    farewell: 'data: [DONE]\n\n',
    limit: [chunk({}, 'length'), usageChunk],
    callsAtLimit: [
      [call(named), chunk({}, 'length')],
      [call(named), call(written), chunk({}, 'length')],
    ],
    framings: sseFramings,
    isOverAtEvidence: true,
    breaches: {
      'choices that are no list': [{ ...said, choices: 5 }],
      'a choice that is none': [{ ...said, choices: [5] }],
      'a delta that is none': [{ ...said, choices: [{ index: 0, delta: 5 }] }],
      'text that is no string': [chunk({ content: 5 })],
      'a refusal that is no string': [chunk({ refusal: 5 })],
      'an end for calls that never came': [chunk({}, 'tool_calls'), usageChunk],
      'an end for a call that never came': [chunk({}, 'function_call'), usageChunk],
      'a function call that is none': [chunk({ function_call: 5 })],
      'calls that are no list': [chunk({ tool_calls: 5 })],
      'a call that is none': [chunk({ tool_calls: [5] })],
      'arguments that are no string': [call(named), call({ index: 0, function: { arguments: 5 } })],
      'a call without a name': [call({ index: 0, id: 'call_1', function: { arguments: '{}' } }), stop, usageChunk],
    },
    signsOfLife: [': here\n\n', 'data:\n\n', 'data: [DONE]\n\n'],
    jsonCode: 'unexpected_content_type',
    noAnswers: [
      ['only comments and a farewell', ': hello\n\ndata: [DONE]\n\n', 'empty_response'],
      ['somebody else without JSON', 'data: hello\n\n', 'stream_protocol'],
    ],
  },
  failureBody,
  statuses,
  reported: (words) => reportedErrors(words, (error) => [write({ ...said, choices: [], error })]),
  sdk: {
    ...openaiSdk,
    fake: (create) => ({ chat: { completions: { create } } }),
    events: async (client) =>
      toChatStreamEvents(await (client as OpenAI).chat.completions.create({ model: 'a', messages: [], stream: true })),
    mapped: toChatStreamEvents,
  },
  key: openaiKey,
  makesClient: { apiKey: key, baseURL: 'https://example.com', fetch: globalThis.fetch },
}
