/** JSON off the wire. */
type Json = Record<string, unknown>

/** What a body of the Messages API says, read in the simplest way there is. */
export interface ExpectedAnswer {
  text: string
  thinking: string
  /** `input` is `undefined` where its text is no JSON. */
  calls: { id: string; name: string; inputText: string; input: unknown }[]
  /** The content blocks, put together. */
  content: Json[]
  usage: Json
  stopReason: string | undefined
  id: string | undefined
  model: string | undefined
  /** Whether `message_stop` is there, blank line and all. */
  isComplete: boolean
}

/** Reads a body, or the beginning of one: what stands after the last blank line is not an event. */
export function readAnthropicBody(body: string): ExpectedAnswer {
  const frames = body.split('\n\n').slice(0, -1)
  const events = frames.map((frame) => JSON.parse(/^data:(.*)$/m.exec(frame)![1]!) as Json)
  const answer: ExpectedAnswer = {
    text: '',
    thinking: '',
    calls: [],
    content: [],
    usage: {},
    stopReason: undefined,
    id: undefined,
    model: undefined,
    isComplete: false,
  }
  const jsonTexts: string[] = []
  for (const event of events) {
    const index = event['index'] as number
    const block = answer.content[index]
    const delta = (event['delta'] ?? {}) as Record<string, string>
    if (event['type'] === 'message_start') {
      const { id, model, usage } = event['message'] as { id: string; model: string; usage: Json }
      Object.assign(answer, { id, model, usage: { ...usage } })
    }
    if (event['type'] === 'content_block_start') {
      answer.content[index] = structuredClone(event['content_block']) as Json
      jsonTexts[index] = ''
    }
    if (delta['type'] === 'text_delta') block!['text'] = (block!['text'] as string) + delta['text']!
    if (delta['type'] === 'thinking_delta') block!['thinking'] = (block!['thinking'] as string) + delta['thinking']!
    if (delta['type'] === 'signature_delta') block!['signature'] = delta['signature']
    if (delta['type'] === 'compaction_delta') block!['content'] = delta['content']
    if (delta['type'] === 'input_json_delta') jsonTexts[index] = jsonTexts[index]! + delta['partial_json']!
    if (delta['type'] === 'citations_delta')
      block!['citations'] = [...((block!['citations'] ?? []) as unknown[]), delta['citation']]
    if (event['type'] === 'message_delta') {
      answer.stopReason = delta['stop_reason']
      Object.assign(answer.usage, event['usage'])
    }
    if (event['type'] === 'message_stop') answer.isComplete = true
  }
  for (const [index, block] of answer.content.entries()) {
    const inputText = jsonTexts[index]!
    if (inputText !== '') block['input'] = parseOrNothing(inputText)
    if (block['type'] === 'text') answer.text += block['text'] as string
    if (block['type'] === 'thinking') answer.thinking += block['thinking'] as string
    if (block['type'] === 'tool_use')
      answer.calls.push({ id: block['id'] as string, name: block['name'] as string, inputText, input: block['input'] })
  }
  return answer
}

function parseOrNothing(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
