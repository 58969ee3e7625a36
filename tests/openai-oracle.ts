/** JSON off the wire. */
type Json = Record<string, unknown>

/** What a body says, read in the simplest way there is. */
export interface ExpectedAnswer {
  text: string
  reasoning: string
  refusal: string
  calls: { id: string; name: string; inputText: string }[]
  /** Of the Responses API, the whole items. */
  items: Json[]
  usage: Json | undefined
  reason: string | undefined
  id: string | undefined
  model: string | undefined
  /** The error that the service reported. */
  error: Json | undefined
}

function eventsIn(body: string): Json[] {
  const lines = body.split(/\r?\n/).filter((line) => line.startsWith('data: {'))
  return lines.map((line) => JSON.parse(line.slice(6)) as Json)
}

/** Reads the whole items that the Responses API repeats at their ends, where the client reads the pieces. */
export function readResponsesBody(body: string): ExpectedAnswer {
  const events = eventsIn(body)
  const items = events.filter(({ type }) => type === 'response.output_item.done').map(({ item }) => item as Json)
  const last = events.findLast(({ type }) => /^response\.(completed|incomplete|failed)$/.test(type as string))
  const first = events[0]!['response'] as Json
  const response = (last?.['response'] ?? {}) as Json
  const textsOf = (type: string, member: string, kind: string): string[] =>
    items
      .filter((item) => item['type'] === type)
      .map((item) => ((item[member] ?? []) as Json[]).filter((part) => part['type'] === kind))
      .map((parts) => parts.map((part) => (part['text'] ?? part['refusal']) as string).join('\n\n'))
  return {
    text: textsOf('message', 'content', 'output_text').join(''),
    reasoning: [
      ...textsOf('reasoning', 'summary', 'summary_text'),
      ...textsOf('reasoning', 'content', 'reasoning_text'),
    ].join(''),
    refusal: textsOf('message', 'content', 'refusal').join(''),
    calls: items
      .filter(({ type }) => type === 'function_call')
      .map((item) => ({
        id: item['call_id'] as string,
        name: item['name'] as string,
        inputText: item['arguments'] as string,
      })),
    items,
    usage: response['usage'] as Json | undefined,
    reason: ((response['incomplete_details'] as Json | null)?.['reason'] ?? response['status']) as string | undefined,
    id: first['id'] as string,
    model: first['model'] as string,
    error: events.find(({ type }) => type === 'error')?.['error'] as Json | undefined,
  }
}

/** Puts the chunks of Chat Completions together. */
export function readChatBody(body: string): ExpectedAnswer {
  const chunks = eventsIn(body)
  const end = chunks.findIndex(({ error }) => error)
  const read = end < 0 ? chunks : chunks.slice(0, end + 1)
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
  const calls: ExpectedAnswer['calls'] = []
  for (const call of deltas.flatMap(({ tool_calls: toolCalls }) => (toolCalls ?? []) as Json[])) {
    const { name, arguments: text } = call['function'] as { name?: string; arguments?: string | null }
    // In every recording a call begins with an id not seen before, and is written without a break.
    if (call['id'] && !calls.some(({ id }) => id === call['id']))
      calls.push({ id: call['id'] as string, name: name!, inputText: '' })
    calls.at(-1)!.inputText += text ?? ''
  }
  const usages = read.map((chunk) => chunk['usage'] ?? (chunk['x_groq'] as Json | undefined)?.['usage'])
  return {
    text: answer,
    reasoning: [thought, ...reasoning, ...thoughts].join(''),
    refusal: deltas.map(({ refusal }) => (refusal ?? '') as string).join(''),
    calls,
    items: [],
    usage: usages.findLast((usage) => usage) as Json | undefined,
    reason: choices.findLast(({ finish_reason: reason }) => reason)?.['finish_reason'] as string | undefined,
    id: chunks.find(({ id }) => id)?.['id'] as string | undefined,
    model: chunks.find(({ model }) => model)?.['model'] as string | undefined,
    error: chunks[end]?.['error'] as Json | undefined,
  }
}
