/** JSON off the wire. */
type Json = Record<string, unknown>

/** What a body of `/api/chat` or `/api/generate` says, read in the simplest way there is. */
export interface ExpectedAnswer {
  text: string
  thinking: string
  /** `id` is `undefined` where the server gives none. */
  calls: { id: string | undefined; name: string; input: unknown }[]
  /** Tokens and durations of the last line. */
  counts: Json
  doneReason: string | undefined
  model: string | undefined
  /** Whether a line with `done: true` is there. */
  isComplete: boolean
}

interface WireMessage {
  readonly content?: string
  readonly thinking?: string
  readonly tool_calls?: readonly { readonly id?: string; readonly function: { name: string; arguments: unknown } }[]
}

/** Reads a body, or the beginning of one: a last line that is cut says nothing. */
export function readOllamaBody(body: string, thinkTag: 'opened' | 'unopened' = 'opened'): ExpectedAnswer {
  const answer: ExpectedAnswer = {
    text: '',
    thinking: '',
    calls: [],
    counts: {},
    doneReason: undefined,
    model: undefined,
    isComplete: false,
  }
  let content = ''
  for (const line of body.split('\n')) {
    let event: Json & { message?: WireMessage; response?: string }
    try {
      event = JSON.parse(line) as Json
    } catch {
      continue
    }
    const message: WireMessage = event.message ?? { content: event.response ?? '' }
    answer.model ??= event['model'] as string
    answer.thinking += message.thinking ?? ''
    content += message.content ?? ''
    for (const { id, function: called } of message.tool_calls ?? [])
      answer.calls.push({ id, name: called.name, input: called.arguments })
    if (event['done'] === true) {
      answer.isComplete = true
      answer.doneReason = event['done_reason'] as string
      answer.counts = Object.fromEntries(Object.entries(event).filter(([name]) => /_(count|duration)$/.test(name)))
    }
  }
  const tag = /<\/think>\s*/.exec(content)
  if (tag && thinkTag === 'unopened') {
    answer.thinking += content.slice(0, tag.index)
    answer.text = content.slice(tag.index + tag[0].length)
  } else answer.text = tag ? content.replace(tag[0], '') : content
  return answer
}
