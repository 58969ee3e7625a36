import { GoogleGenAI } from '@google/genai'
import { gemini, type GeminiOptions, toStreamEvents } from 'fieldstream/gemini'
import { expect } from 'vitest'
import { recorded } from '../../recordings.ts'
import { key, output, words as servicesWords } from '../run.ts'
import {
  eventsIn,
  type ExpectedAnswer,
  type Json,
  parsed,
  type Reading,
  sseFramings,
  type Subject,
} from '../subject.ts'
import { supports } from '../supports.ts'

const model = 'gemini-2.5-flash'

/** The chunks, and the error that may stand after them as bare JSON. */
function chunksIn(body: string): Json[] {
  const rest = parsed(body.replaceAll('\r\n', '\n').split('\n\n').at(-1)!.trim() || 'null') as Json | null | undefined
  return [...eventsIn(body), ...(rest ? [rest] : [])]
}

const partsOf = (chunk: Json): Json[] =>
  ((chunk['candidates'] ?? []) as Json[]).flatMap(
    ({ content }) => (content as { parts?: Json[] } | undefined)?.parts ?? [],
  )

interface Call {
  readonly id: string | undefined
  readonly name: string
  readonly input: Json
  inputText: string | undefined
}

/** The calls, and the parts put together as they are to be sent back. */
function contentOf(parts: readonly Json[]): { calls: Call[]; joined: Json[] } {
  const calls: Call[] = []
  const joined: Json[] = []
  for (const part of parts) {
    const last = joined.at(-1)
    if (part['functionCall']) {
      const { functionCall, ...signature } = part
      const { id, name, args, partialArgs = [] } = functionCall as Json & { partialArgs?: Json[] }
      if (name) {
        const inputText = args === undefined ? '' : JSON.stringify(args)
        calls.push({ id: id as string | undefined, name: name as string, input: (args ?? {}) as Json, inputText })
        joined.push({ functionCall: { ...(id ? { id } : {}), name, args: calls.at(-1)!.input }, ...signature })
      }
      if (partialArgs.length > 0) calls.at(-1)!.inputText = undefined
      for (const piece of partialArgs) put(calls.at(-1)!.input, piece)
    } else if (typeof part['text'] === 'string') {
      const isPlain = (other: Json | undefined) =>
        typeof other?.['text'] === 'string' && other['thought'] === part['thought'] && !other['thoughtSignature']
      if (isPlain(last) && isPlain(part)) last!['text'] = (last!['text'] as string) + part['text']
      else if (part['text'] !== '' || part['thoughtSignature']) joined.push({ ...part })
    } else joined.push(part)
  }
  return { calls, joined }
}

/** Sets what one piece of arguments says, wherever it belongs. */
function put(input: Json, piece: Json): void {
  const steps = (piece['jsonPath'] as string).slice(2).split(/[.[]/)
  let place = input
  steps.slice(0, -1).forEach((step, i) => {
    place = (place[step.replace(']', '')] ??= steps[i + 1]!.endsWith(']') ? [] : {}) as Json
  })
  const name = steps.at(-1)!.replace(']', '')
  if ('stringValue' in piece) place[name] = ((place[name] ?? '') as string) + (piece['stringValue'] as string)
  else place[name] = piece['numberValue'] ?? piece['boolValue'] ?? null
}

function readBody(body: string, { isBroken }: Reading): ExpectedAnswer {
  const chunks = chunksIn(body)
  const parts = chunks.flatMap(partsOf)
  const { calls } = contentOf(parts)
  const id = chunks.find(({ responseId }) => responseId)?.['responseId'] as string | undefined
  const texts = (isThought: boolean) =>
    parts
      .map(({ text, thought }) => ((thought === true) === isThought && typeof text === 'string' ? text : ''))
      .join('')
  let usage: Json | undefined
  for (const { usageMetadata } of chunks) {
    // One with a sum is whole; others add to what was known.
    if (usageMetadata)
      usage =
        'totalTokenCount' in (usageMetadata as Json)
          ? (usageMetadata as Json)
          : { ...usage, ...(usageMetadata as Json) }
  }
  const reasons = chunks.flatMap(({ promptFeedback, candidates }) => [
    (promptFeedback as Json | undefined)?.['blockReason'],
    ...((candidates ?? []) as Json[]).map(({ finishReason }) => finishReason),
  ])
  const reason = reasons.findLast((one) => one) as string | undefined
  const error = chunks.find((chunk) => chunk['error'])?.['error'] as Json | undefined
  return {
    text: texts(false),
    reasoning: texts(true),
    calls: calls.map((call, i) => ({ ...call, id: call.id ?? `gemini-call-${id}-${i + 1}` })),
    usage: usage ?? (error ? undefined : {}),
    counts: countsOf(usage ?? {}),
    finishReason: reason === 'MAX_TOKENS' ? 'length' : calls.length > 0 ? 'tool-calls' : 'stop',
    providerFinishReason: reason,
    id,
    model: chunks.find(({ modelVersion }) => modelVersion)?.['modelVersion'] as string | undefined,
    // A finish reason may be followed by more: only the end of the body is the end.
    isComplete: reason !== undefined && !isBroken,
    failure: error
      ? {
          name: 'HttpError',
          code: statuses.find(([status]) => status === error['code'])![2],
          status: error['code'],
          providerCode: error['status'],
          phase: 'stream',
        }
      : ['SAFETY', 'RECITATION'].includes(reason!)
        ? { name: 'OutputError', code: 'content_filtered' }
        : undefined,
    providerMessage: error?.['message'] as string | undefined,
  }
}

/** The service's own sum, where it gives one, is of the same. */
function countsOf(usage: Json) {
  const count = (name: string) => (usage[name] as number | undefined) ?? 0
  return {
    inputTokens: count('promptTokenCount') + count('toolUsePromptTokenCount'),
    outputTokens: count('candidatesTokenCount') + count('thoughtsTokenCount'),
    totalTokens: count('totalTokenCount'),
    cacheReadTokens: count('cachedContentTokenCount'),
    cacheWriteTokens: 0,
  }
}

/** Framed as the service does. */
function write(...events: readonly unknown[]): string {
  return events.map((event) => `data: ${typeof event === 'string' ? event : JSON.stringify(event)}\r\n\r\n`).join('')
}

const chunk = (parts: unknown, finishReason?: string) => ({
  candidates: [{ content: { role: 'model', parts }, ...(finishReason && { finishReason }), index: 0 }],
  usageMetadata: { promptTokenCount: 7, totalTokenCount: 7 },
  modelVersion: 'm',
  responseId: 'r1',
})
const text = chunk([{ text: output }])
const end = chunk([{ text: '' }], 'STOP')
const call = chunk([{ functionCall: { id: 'call_1', name: 'ask', args: { message: output } } }])
/** Vertex AI's pieces of one call. */
const callBegun = (name: string) => chunk([{ functionCall: { name, willContinue: true } }])
const piece = (partialArg: Json) => chunk([{ functionCall: { partialArgs: [partialArg], willContinue: true } }])
const callEnd = chunk([{ functionCall: {} }])
const pieces = [callBegun('ask'), piece({ jsonPath: '$.message', stringValue: output, willContinue: true })]
const atLimit = chunk([], 'MAX_TOKENS')
const unavailable = { error: { code: 503, message: servicesWords, status: 'UNAVAILABLE' } }
const apiError = (status: number, message: string) => Object.assign(new Error(message), { name: 'ApiError', status })
const statuses = [
  [400, 'INVALID_ARGUMENT', 'bad_request', false],
  [401, 'UNAUTHENTICATED', 'authentication', false],
  [403, 'PERMISSION_DENIED', 'permission', false],
  [404, 'NOT_FOUND', 'not_found', false],
  [409, 'ABORTED', 'conflict', true],
  [429, 'RESOURCE_EXHAUSTED', 'rate_limited', true],
  [499, 'CANCELLED', 'http_error', false],
  [500, 'INTERNAL', 'server_error', true],
  [503, 'UNAVAILABLE', 'overloaded', true],
  [504, 'DEADLINE_EXCEEDED', 'server_error', true],
] as const

export const geminiSubject: Subject = {
  name: 'gemini',
  model,
  create: (options) => gemini({ model, ...(options as Partial<GeminiOptions>) }),
  supports: supports.gemini,
  sends: {
    forcedTool: { toolConfig: { functionCallingConfig: { mode: 'ANY', allowedFunctionNames: ['ask'] } } },
    requiredTool: { toolConfig: { functionCallingConfig: { mode: 'ANY' } } },
    strictTool: { toolConfig: { functionCallingConfig: { mode: 'VALIDATED' } } },
    ownTool: { tools: [{ googleSearch: {} }] },
    imageBytes: {
      contents: [
        {
          parts: [
            { inlineData: { mimeType: 'image/png', data: 'AQID' } },
            { inlineData: { mimeType: 'image/jpeg', data: 'aGVsbG8=' } },
          ],
        },
      ],
    },
    imageUrl: {
      contents: [{ parts: [{ fileData: { fileUri: 'https://example.com/a.png', mimeType: 'image/png' } }] }],
    },
    reasoningEffort: { generationConfig: { thinkingConfig: { includeThoughts: true } } },
    reasoningBudget: { generationConfig: { thinkingConfig: { includeThoughts: true, thinkingBudget: 2000 } } },
    maxTokens: { generationConfig: { maxOutputTokens: 5 } },
    temperature: { generationConfig: { temperature: 0 } },
    topP: { generationConfig: { topP: 0.5 } },
    stop: { generationConfig: { stopSequences: ['END'] } },
  },
  ownTool: { googleSearch: {} },
  folders: ['gemini'],
  read: readBody,
  expectTurn(sent, _, { body }) {
    const contents = sent['contents'] as { role: string; parts: unknown }[]
    expect(contents.map(({ role }) => role)).toEqual(['user', 'model', 'user'])
    expect(contents[1]!.parts).toEqual(contentOf(chunksIn(body).flatMap(partsOf)).joined)
  },
  cuts: [
    ...recorded('gemini/streaming-args-two-calls'),
    {
      name: 'calls in pieces',
      body: write(
        chunk([{ text: 'Hm.', thought: true }, { text: 'Gerne 🎉' }]),
        callBegun('ask'),
        piece({ jsonPath: '$.message', stringValue: 'Wann "', willContinue: true }),
        piece({ jsonPath: '$.message', stringValue: 'genau"?' }),
        piece({ jsonPath: '$.slots[0].n', numberValue: 12 }),
        piece({ jsonPath: '$.slots[1].n', nullValue: 'NULL_VALUE' }),
        callEnd,
        callBegun('note'),
        callEnd,
        end,
      ),
    },
  ],
  wire: {
    contentType: 'text/event-stream',
    requestIdHeader: 'x-request-id',
    write,
    begun: [text],
    rest: [end],
    limit: [atLimit],
    callsAtLimit: [
      [call, atLimit],
      [...pieces, atLimit],
    ],
    framings: sseFramings,
    isOverAtEvidence: false,
    breaches: {
      'candidates that are no list': [{ candidates: {} }],
      'a candidate that is none': [{ candidates: [5] }],
      'content that is none': [{ candidates: [{ content: 5 }] }],
      'parts that are no list': [chunk('parts')],
      'a part that is none': [chunk([null])],
      'text that is none': [chunk([{ text: 5 }])],
      'a call that is none': [chunk([{ functionCall: 5 }])],
      'a name that is none': [chunk([{ functionCall: { name: 5 } }])],
      'arguments that are none': [chunk([{ functionCall: { name: 'ask', args: '{}' } }])],
      'arguments of no call': [chunk([{ functionCall: { args: {} } }])],
      'pieces of no call': [chunk([{ functionCall: { partialArgs: [{}] } }])],
      'pieces that are no list': [chunk([{ functionCall: { name: 'ask', partialArgs: {} } }])],
      'arguments both in pieces and whole': [...pieces, chunk([{ functionCall: { args: {} } }]), end],
      'a count that is none': [{ usageMetadata: 5 }],
      'two calls with one id': [chunk(Array(2).fill({ functionCall: { id: 'a', name: 'ask' } }))],
    },
    signsOfLife: [': here\n\n'],
    jsonCode: 'unexpected_content_type',
    noAnswers: [
      ['a page that says it is a stream', `<html>${output}\n\n</html>\n`, 'empty_response'],
      ['only comments', ': hello\n\n: hello\n\n', 'empty_response'],
      ['the protocol of somebody else', write({ choices: [] }), 'empty_response'],
      ['somebody else without JSON', 'data: hello\n\n', 'stream_protocol'],
    ],
  },
  failureBody: (status, error, words) =>
    JSON.stringify({ error: { code: status, message: words, details: [], ...error } }),
  statuses: statuses.map(([code, status, ...rest]) => [code, { status }, ...rest, status] as const),
  // Known by number or by name.
  reported: (words) =>
    statuses.flatMap(([status, providerCode, code, retryable]) =>
      [status, undefined].map((number) => ({
        name: `${String(number)} ${providerCode}`,
        body: write({ error: { code: number, message: words, status: providerCode } }),
        expected: { code, status, retryable, providerCode, providerMessage: words },
        overSdk: number !== undefined,
      })),
    ),
  sdk: {
    module: '@google/genai',
    install: '@google/genai@3',
    create: ({ fetch }) => {
      const retryOptions = { attempts: 5, initialDelay: 0.001 }
      return new GoogleGenAI({ apiKey: key, vertexai: false, httpOptions: { fetch, retryOptions } })
    },
    fake: (answer) => ({ models: { generateContentStream: answer, generateContent: answer } }),
    called: [
      {
        model,
        contents: [{ role: 'user' }],
        config: {
          automaticContinuation: false,
          abortSignal: expect.any(AbortSignal) as AbortSignal,
          httpOptions: { headers: { 'x-a': 'b' } },
        },
      },
    ],
    events: async (client) =>
      toStreamEvents(await (client as GoogleGenAI).models.generateContentStream({ model: 'any', contents: 'Hello' })),
    mapped: toStreamEvents,
    throws: [
      [new SyntaxError(`Unexpected token in "${output}"`), 'stream_protocol'],
      [apiError(503, `got status: 503. ${JSON.stringify(unavailable)}`), 'overloaded'],
      [apiError(429, output), 'rate_limited'],
    ],
  },
  key: {
    environment: ['GOOGLE_API_KEY', 'GEMINI_API_KEY'],
    others: ['GOOGLE_GENAI_USE_VERTEXAI', 'GOOGLE_GENAI_USE_ENTERPRISE', 'GOOGLE_GEMINI_BASE_URL'],
    neededWith: {},
    header: 'x-goog-api-key',
    prefix: '',
  },
  makesClient: { apiKey: key, baseURL: 'https://example.com', fetch: globalThis.fetch, vertexai: true, project: 'p' },
}
