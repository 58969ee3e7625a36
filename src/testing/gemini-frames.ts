import type { ReplayRequest } from './replay.ts'
import {
  type Frame,
  type Json,
  membersOf,
  namesOf,
  type SimulatedAnswer,
  type SimulatedWire,
  split,
} from './simulated-answer.ts'

const finishReasons = {
  stop: 'STOP',
  length: 'MAX_TOKENS',
  'tool-calls': 'STOP',
  refusal: 'SAFETY',
  'content-filter': 'SAFETY',
  pause: 'OTHER',
} as const

/**
 * The answer as `streamGenerateContent` streams it: each call whole, or in pieces where the request asks for that, as Vertex AI
 * sends it. Arguments that are no JSON object the service never sends; it reports a malformed call.
 */
function frames(answer: SimulatedAnswer, { url, body }: ReplayRequest): Frame[] {
  const { text, reasoning, calls, inputTokens, deltaChars } = answer
  const model = /\/models\/([^/:]+):/.exec(url)?.[1] ?? answer.model
  const { functionCallingConfig } = callingOf(body)
  const isPiecewise = functionCallingConfig['streamFunctionCallArguments'] === true
  const sent: Frame[] = []
  const send = (parts: Json[], isDelta: boolean, finishReason?: string, usage?: Json): void => {
    const chunk = {
      candidates: [{ content: { parts, role: 'model' }, ...(finishReason && { finishReason }), index: 0 }],
      usageMetadata: { promptTokenCount: inputTokens, totalTokenCount: inputTokens, ...usage },
      modelVersion: model,
      responseId: 'simulated',
    }
    sent.push({ frame: `data: ${JSON.stringify(chunk)}\r\n\r\n`, isDelta })
  }
  for (const piece of split(reasoning, deltaChars)) send([{ text: piece, thought: true }], true)
  for (const piece of split(text, deltaChars)) send([{ text: piece }], true)
  let finishReason: string = finishReasons[answer.finishReason]
  calls.forEach(({ tool: name, inputText }, i) => {
    const args = parseObject(inputText)
    if (!args) {
      finishReason = 'MALFORMED_FUNCTION_CALL'
      return
    }
    const id = `simulated_${i + 1}`
    const signature = i === 0 && { thoughtSignature: 'c2ltdWxhdGVk' }
    const pieces = isPiecewise ? piecesOf(args, '$', deltaChars) : undefined
    if (!pieces) {
      send([{ functionCall: { id, name, args }, ...signature }], true)
      return
    }
    send([{ functionCall: { id, name, willContinue: true }, ...signature }], false)
    for (const piece of pieces) send([{ functionCall: { partialArgs: [piece], willContinue: true } }], true)
    send([{ functionCall: {} }], false)
  })
  const lengthOfCalls = calls.reduce((total, { inputText }) => total + inputText.length, 0)
  // Four characters to a token, as a rule of thumb.
  const candidatesTokenCount = Math.ceil((text.length + lengthOfCalls) / 4)
  const thoughtsTokenCount = Math.ceil(reasoning.length / 4)
  send([{ text: '' }], false, finishReason, {
    candidatesTokenCount,
    ...(thoughtsTokenCount > 0 && { thoughtsTokenCount }),
    totalTokenCount: inputTokens + candidatesTokenCount + thoughtsTokenCount,
  })
  return sent
}

/** The parts of all chunks; what the last says of reason and tokens holds for all. */
function whole(answer: SimulatedAnswer, request: ReplayRequest): Json {
  const chunks = frames({ ...answer, deltaChars: Infinity }, request).map(
    ({ frame }) => JSON.parse(frame.slice('data: '.length)) as Json,
  )
  const candidates = chunks.map(({ candidates }) => membersOf((candidates as unknown[])[0]))
  const parts = candidates.flatMap(({ content }) => membersOf(content)['parts'] as Json[])
  const said = parts.filter(({ text }) => text !== '')
  return { ...chunks.at(-1), candidates: [{ ...candidates.at(-1), content: { parts: said, role: 'model' } }] }
}

export const geminiWire: SimulatedWire = {
  contentType: 'text/event-stream',
  requestIdHeader: 'x-request-id',
  frames,
  streams: ({ url }) => !url.includes(':generateContent'),
  whole,
  read(body) {
    const { functionCallingConfig, declarations } = callingOf(body)
    const allowed = functionCallingConfig['allowedFunctionNames']
    const { responseJsonSchema, responseSchema } = membersOf(body['generationConfig'])
    return {
      tools: Array.isArray(allowed) ? (allowed as string[]) : namesOf(undefined, declarations),
      isJson: (responseJsonSchema ?? responseSchema) !== undefined,
    }
  },
}

function callingOf(body: unknown): { functionCallingConfig: Json; declarations: unknown[] } {
  const { toolConfig, tools } = membersOf(body)
  return {
    functionCallingConfig: membersOf(membersOf(toolConfig)['functionCallingConfig']),
    declarations: (Array.isArray(tools) ? tools : []).flatMap((tool) => membersOf(tool)['functionDeclarations'] ?? []),
  }
}

function parseObject(text: string): Json | undefined {
  try {
    const value = JSON.parse(text) as unknown
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : undefined
  } catch {
    return undefined
  }
}

/** A value as pieces of arguments; `undefined` where it holds what pieces cannot say: an empty list or object. */
function piecesOf(value: unknown, jsonPath: string, size: number): Json[] | undefined {
  if (typeof value === 'string') {
    return [
      ...split(value, size).map((stringValue) => ({ jsonPath, stringValue, willContinue: true })),
      { jsonPath, stringValue: '' },
    ]
  }
  if (typeof value === 'number') return [{ jsonPath, numberValue: value }]
  if (typeof value === 'boolean') return [{ jsonPath, boolValue: value }]
  if (value === null || typeof value !== 'object') return [{ jsonPath, nullValue: 'NULL_VALUE' }]
  const members = Object.entries(value).map(([key, member]) => {
    const step = Array.isArray(value) ? `[${key}]` : /^[a-z_]\w*$/i.test(key) ? `.${key}` : `[${JSON.stringify(key)}]`
    return piecesOf(member, `${jsonPath}${step}`, size)
  })
  return members.length === 0 || members.includes(undefined) ? undefined : (members.flat() as Json[])
}
