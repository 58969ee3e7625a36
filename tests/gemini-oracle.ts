/** JSON off the wire. */
type Json = Record<string, unknown>

/** What a body of `streamGenerateContent` says, read in the simplest way there is. */
export interface ExpectedAnswer {
  text: string
  thinking: string
  calls: { id: string | undefined; name: string; input: Json }[]
  /** The parts, put together as they are to be sent back. */
  parts: Json[]
  usage: Json
  /** The last one there is, or why the prompt was blocked. */
  finishReason: string | undefined
  id: string | undefined
  model: string | undefined
  /** The error that stands after the events, or in one. */
  error: Json | undefined
}

/** Reads a body, or the beginning of one: what stands after the last blank line is not an event. */
export function readGeminiBody(body: string): ExpectedAnswer {
  const blocks = body.replaceAll('\r\n', '\n').split('\n\n')
  const rest = blocks.pop()!
  const events = blocks.map((block) => JSON.parse(block.replace(/^data:/, '')) as Json)
  if (rest.trim() !== '' && isJson(rest)) events.push(JSON.parse(rest) as Json)
  const answer: ExpectedAnswer = {
    text: '',
    thinking: '',
    calls: [],
    parts: [],
    usage: {},
    finishReason: undefined,
    id: undefined,
    model: undefined,
    error: undefined,
  }
  for (const event of events) {
    if (event['error']) answer.error = event['error'] as Json
    answer.id ??= event['responseId'] as string | undefined
    answer.model ??= event['modelVersion'] as string | undefined
    const usage = (event['usageMetadata'] ?? {}) as Json
    answer.usage = 'totalTokenCount' in usage ? usage : { ...answer.usage, ...usage }
    const { blockReason } = (event['promptFeedback'] ?? {}) as Json
    if (blockReason) answer.finishReason = blockReason as string
    for (const candidate of (event['candidates'] ?? []) as Json[]) {
      if (candidate['finishReason']) answer.finishReason = candidate['finishReason'] as string
      const { parts = [] } = (candidate['content'] ?? {}) as { parts?: Json[] }
      for (const part of parts) add(answer, part)
    }
  }
  return answer
}

function add(answer: ExpectedAnswer, part: Json): void {
  const last = answer.parts.at(-1)
  if (part['functionCall']) {
    const { functionCall, ...signature } = part
    const { id, name, args, partialArgs = [] } = functionCall as Json & { partialArgs?: Json[] }
    if (name) {
      const call = { id: id as string | undefined, name: name as string, input: (args ?? {}) as Json }
      answer.calls.push(call)
      answer.parts.push({ functionCall: { ...(call.id && { id }), name, args: call.input }, ...signature })
    }
    for (const piece of partialArgs) put(answer.calls.at(-1)!.input, piece)
  } else if (typeof part['text'] === 'string') {
    if (part['thought']) answer.thinking += part['text']
    else answer.text += part['text']
    const isPlain = (other: Json | undefined) =>
      typeof other?.['text'] === 'string' && other['thought'] === part['thought'] && !other['thoughtSignature']
    if (isPlain(last) && isPlain(part)) last!['text'] = (last!['text'] as string) + part['text']
    else if (part['text'] !== '' || part['thoughtSignature']) answer.parts.push({ ...part })
  } else answer.parts.push(part)
}

/** Sets what one piece of arguments says, wherever it belongs. */
function put(input: Json, piece: Json): void {
  const steps = (piece['jsonPath'] as string).slice(2).split(/[.[]/)
  let place = input
  steps.slice(0, -1).forEach((step, i) => {
    place = (place[step.replace(']', '')] ??= steps[i + 1]!.endsWith(']') ? [] : {}) as Json
  })
  const key = steps.at(-1)!.replace(']', '')
  if ('stringValue' in piece) place[key] = ((place[key] ?? '') as string) + (piece['stringValue'] as string)
  else place[key] = piece['numberValue'] ?? piece['boolValue'] ?? null
}

function isJson(text: string): boolean {
  try {
    return JSON.parse(text) !== undefined
  } catch {
    return false
  }
}
