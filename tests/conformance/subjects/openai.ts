import OpenAI from 'openai'
import type { FinishReason } from 'fieldstream'
import { openai, type OpenAIOptions, toStreamEvents } from 'fieldstream/openai'
import { expect } from 'vitest'
import { recorded } from '../../recordings.ts'
import { key, output } from '../run.ts'
import { closedInput, eventsIn, type ExpectedAnswer, type Json, parsed, sseFramings, type Subject } from '../subject.ts'
import { supports } from '../supports.ts'
import { failureBody, openaiKey, openaiSdk, reportedErrors, statuses, write } from './openai-common.ts'

const finishReasons: Record<string, FinishReason> = { max_output_tokens: 'length', completed: 'stop' }

/** Whole items, which the service repeats at their ends; of one that has not ended, its pieces. */
function itemsIn(events: readonly Json[]): { item: Json; pieces: (type: string) => string }[] {
  const begun = events.filter(({ type }) => type === 'response.output_item.added')
  const ended = events.filter(({ type }) => type === 'response.output_item.done')
  const places = [...new Set([...begun, ...ended].map(({ output_index: index }) => index as number))]
  return places.map((place) => {
    const isHere = ({ output_index: index }: Json) => index === place
    const item = (ended.find(isHere) ?? begun.find(isHere)!)['item'] as Json
    const pieces = (type: string) => {
      const deltas = events.filter((event) => isHere(event) && event['type'] === `response.${type}.delta`)
      return deltas.map(({ delta }) => delta as string).join('')
    }
    return { item, pieces: ended.some(isHere) ? () => '' : pieces }
  })
}

function readBody(body: string): ExpectedAnswer {
  const events = eventsIn(body)
  const items = itemsIn(events)
  const last = events.findLast(({ type }) => /^response\.(completed|incomplete|failed)$/.test(type as string))
  const first = events[0]?.['response'] as Json | undefined
  const response = (last?.['response'] ?? {}) as Json
  const error = events.find(({ type }) => type === 'error')?.['error'] as Json | undefined
  const textsOf = (type: string, member: string, kind: string, delta: string): string =>
    items
      .filter(({ item }) => item['type'] === type)
      .map(({ item, pieces }) => {
        const parts = ((item[member] ?? []) as Json[]).filter((part) => part['type'] === kind)
        return parts.map((part) => (part['text'] ?? part['refusal']) as string).join('\n\n') + pieces(delta)
      })
      .join('')
  const calls = items
    .filter(({ item }) => item['type'] === 'function_call')
    .map(({ item, pieces }) => {
      const inputText = (item['arguments'] as string) + pieces('function_call_arguments')
      return { id: item['call_id'] as string, name: item['name'] as string, inputText, input: parsed(inputText) }
    })
  const refusal = textsOf('message', 'content', 'refusal', 'refusal')
  const reason = ((response['incomplete_details'] as Json | null)?.['reason'] ?? response['status']) as
    string | undefined
  const usage = response['usage'] as Json | undefined
  const finishReason = finishReasons[reason ?? '']
  return {
    text: textsOf('message', 'content', 'output_text', 'output_text'),
    reasoning:
      textsOf('reasoning', 'summary', 'summary_text', 'reasoning_summary_text') +
      textsOf('reasoning', 'content', 'reasoning_text', 'reasoning_text'),
    calls,
    usage: usage ?? (error ? undefined : {}),
    counts: countsOf(usage ?? {}),
    finishReason: finishReason === 'stop' && calls.length > 0 ? 'tool-calls' : finishReason,
    providerFinishReason: reason,
    id: first?.['id'] as string | undefined,
    model: first?.['model'] as string | undefined,
    isComplete: last !== undefined,
    failure: error
      ? { name: 'HttpError', code: 'quota_exhausted' }
      : refusal
        ? { name: 'OutputError', code: 'refused' }
        : reason === 'max_output_tokens' && calls.length > 0
          ? { name: 'OutputError', code: 'output_truncated' }
          : undefined,
    providerMessage: (error?.['message'] as string | undefined) ?? (refusal || undefined),
  }
}

function countsOf(usage: Json) {
  const inputTokens = (usage['input_tokens'] ?? 0) as number
  const totalTokens = (usage['total_tokens'] ?? 0) as number
  return { inputTokens, totalTokens, outputTokens: totalTokens - inputTokens }
}

/** An item as it goes back: without what only an answer has. */
function asSent(item: Json): Json {
  if (item['type'] === 'function_call')
    return { ...item, arguments: JSON.stringify(parsed(item['arguments'] as string)) }
  if (item['type'] !== 'message') return item
  const content = item['content'] as Json[]
  return { ...item, content: content.map(({ type, text, annotations = [] }) => ({ type, text, annotations })) }
}

const response = (members: object = {}) => ({ id: 'resp_1', model: 'm', status: 'in_progress', ...members })
const created = { type: 'response.created', response: response() }
const message = { id: 'msg_1', type: 'message', role: 'assistant', status: 'in_progress', content: [] }
const messageAdded = { type: 'response.output_item.added', output_index: 0, item: message }
const textDelta = { type: 'response.output_text.delta', output_index: 0, content_index: 0, delta: output }
const messageDone = {
  type: 'response.output_item.done',
  output_index: 0,
  item: { ...message, status: 'completed', content: [{ type: 'output_text', text: output, annotations: [] }] },
}
const usage = { input_tokens: 7, output_tokens: 3, total_tokens: 10 }
const completed = { type: 'response.completed', response: response({ status: 'completed', usage }) }
const incomplete = (reason: string) => ({
  type: 'response.incomplete',
  response: response({ status: 'incomplete', incomplete_details: { reason }, usage }),
})
const atLimit = incomplete('max_output_tokens')
const callItem = { id: 'fc_1', type: 'function_call', call_id: 'call_1', name: 'ask', arguments: '', status: 'x' }
const callAdded = { type: 'response.output_item.added', output_index: 1, item: callItem }
const callDelta = (delta: unknown) => ({ type: 'response.function_call_arguments.delta', output_index: 1, delta })
const callDone = (text: unknown) => ({
  type: 'response.output_item.done',
  output_index: 1,
  item: { ...callItem, arguments: text, status: 'completed' },
})
const argumentsDone = { type: 'response.function_call_arguments.done', output_index: 1, arguments: '{ }' }
const begun = [created, messageAdded, textDelta]

export const openaiSubject: Subject = {
  name: 'openai',
  model: 'model-a',
  create: (options) => openai({ model: 'model-a', ...(options as Partial<OpenAIOptions>) }),
  supports: supports.openai,
  sends: {
    forcedTool: { tool_choice: { type: 'function', name: 'ask' } },
    requiredTool: { tool_choice: 'required' },
    strictTool: { tools: [{ name: 'exact', strict: true, parameters: closedInput }] },
    ownTool: { tools: [{ type: 'own' }] },
    imageBytes: {
      input: [
        {
          content: [
            { type: 'input_image', image_url: 'data:image/png;base64,AQID' },
            { type: 'input_image', image_url: 'data:image/jpeg;base64,aGVsbG8=' },
          ],
        },
      ],
    },
    imageUrl: { input: [{ content: [{ image_url: 'https://example.com/a.png' }] }] },
    reasoningEffort: { reasoning: { effort: 'low' } },
    maxTokens: { max_output_tokens: 5 },
    temperature: { temperature: 0 },
    topP: { top_p: 0.5 },
    laterSystemMessage: { input: [{ role: 'user' }, { role: 'developer', content: 'Be brief.' }] },
  },
  ownTool: { type: 'own' },
  folders: ['openai-responses'],
  read: readBody,
  expectTurn(sent, _, { body }) {
    const items = itemsIn(eventsIn(body)).map(({ item }) => item)
    expect((sent['input'] as unknown[]).slice(1, -1)).toEqual(items.map(asSent))
  },
  cuts: recorded('openai-responses/tool-parallel-two'),
  wire: {
    contentType: 'text/event-stream',
    requestIdHeader: 'x-request-id',
    write,
    begun,
    rest: [messageDone, completed],
    limit: [messageDone, atLimit],
    callsAtLimit: [
      [created, callAdded, atLimit],
      [created, callAdded, callDelta('{}'), atLimit],
      [created, callAdded, callDelta('{}'), callDone('{}'), atLimit],
    ],
    framings: sseFramings,
    isOverAtEvidence: true,
    breaches: {
      'text for an item that never began': [{ ...textDelta, output_index: 5 }],
      'text for an item that has ended': [messageDone, textDelta],
      'an item that begins twice': [messageAdded],
      'an item that never ends': [completed],
      'a call that never ends': [messageDone, callAdded, callDelta('{}'), completed],
      'text that is no string': [{ ...textDelta, delta: 5 }],
      'arguments that are no string': [callAdded, callDelta(5)],
      'a call without id': [{ ...callAdded, item: { ...callItem, call_id: undefined } }],
      'a call without name': [{ ...callAdded, item: { ...callItem, name: undefined } }],
      'two calls with one id': [callAdded, callDone('{}'), callAdded],
      'an item that is none': [{ type: 'response.output_item.added', output_index: 9 }],
      'arguments that are not what their pieces were': [callAdded, callDelta('{}'), callDone('{"a":1}')],
      'arguments that end otherwise than their pieces': [callAdded, callDelta('{}'), argumentsDone],
      'an end for a reason not known': [messageDone, incomplete('steered')],
      'an end without a response': [messageDone, { type: 'response.completed' }],
    },
    signsOfLife: [': here\n\n', write({ type: 'keepalive' }), 'data: [DONE]\n\n'],
    jsonCode: 'unexpected_content_type',
    noAnswers: [
      ['only comments and a farewell', ': hello\n\ndata: [DONE]\n\n', 'empty_response'],
      ['somebody else without JSON', 'data: hello\n\n', 'stream_protocol'],
    ],
  },
  failureBody,
  statuses,
  reported: (words) =>
    reportedErrors(words, (error) => [
      ...('code' in error ? [write({ ...error, type: 'error' })] : []),
      write({ type: 'response.failed', response: response({ error }) }),
    ]),
  sdk: {
    ...openaiSdk,
    fake: (create) => ({ responses: { create } }),
    events: async (client) =>
      toStreamEvents(await (client as OpenAI).responses.create({ model: 'a', input: '', stream: true })),
    mapped: toStreamEvents,
  },
  key: openaiKey,
  makesClient: { apiKey: key, baseURL: 'https://example.com', fetch: globalThis.fetch },
}
