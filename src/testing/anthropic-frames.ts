import type { SimulatedAnswer } from './simulated-answer.ts'

/** One server-sent event, and whether it carries a piece of the answer. */
export interface Frame {
  readonly frame: string
  readonly isDelta: boolean
}

/** The API's word for each way an answer may end. */
export const stopReasons = {
  stop: 'end_turn',
  length: 'max_tokens',
  'tool-calls': 'tool_use',
  refusal: 'refusal',
  'content-filter': 'refusal',
  pause: 'pause_turn',
} as const

/** The answer as the Messages API streams it (docs.anthropic.com, "Streaming Messages"). */
export function anthropicFrames(answer: SimulatedAnswer): Frame[] {
  const { model, text, reasoning, calls, finishReason, inputTokens, deltaChars } = answer
  const frames: Frame[] = []
  const send = (event: Record<string, unknown> & { type: string }, isDelta = false): void => {
    frames.push({ frame: `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`, isDelta })
  }
  let index = 0
  const block = (content: Record<string, unknown>, deltas: Record<string, unknown>[]): void => {
    send({ type: 'content_block_start', index, content_block: content })
    for (const delta of deltas) send({ type: 'content_block_delta', index, delta }, true)
    send({ type: 'content_block_stop', index })
    index++
  }
  const split = (whole: string): string[] => {
    const parts: string[] = []
    for (let start = 0, end; start < whole.length; start = end) {
      end = start + deltaChars
      // The service never cuts a character in half.
      if (isHighSurrogate(whole.charCodeAt(end - 1))) end++
      parts.push(whole.slice(start, end))
    }
    return parts
  }
  const usage = { input_tokens: inputTokens, cache_creation_input_tokens: 0, cache_read_input_tokens: 0 }
  send({
    type: 'message_start',
    message: {
      id: 'msg_simulated',
      type: 'message',
      role: 'assistant',
      model,
      content: [],
      stop_reason: null,
      stop_sequence: null,
      usage: { ...usage, output_tokens: 1 },
    },
  })
  send({ type: 'ping' })
  if (reasoning !== '') {
    block({ type: 'thinking', thinking: '', signature: '' }, [
      ...split(reasoning).map((thinking) => ({ type: 'thinking_delta', thinking })),
      { type: 'signature_delta', signature: 'simulated-signature' },
    ])
  }
  if (text !== '')
    block(
      { type: 'text', text: '' },
      split(text).map((piece) => ({ type: 'text_delta', text: piece })),
    )
  calls.forEach(({ tool, inputText }, i) => {
    // The service opens every call with an empty delta.
    const deltas = ['', ...split(inputText)].map((piece) => ({ type: 'input_json_delta', partial_json: piece }))
    block({ type: 'tool_use', id: `toolu_simulated_${i + 1}`, name: tool, input: {} }, deltas)
  })
  const characters =
    text.length + reasoning.length + calls.reduce((total, { inputText }) => total + inputText.length, 0)
  send({
    type: 'message_delta',
    delta: { stop_reason: stopReasons[finishReason], stop_sequence: null },
    // Four characters to a token, as a rule of thumb.
    usage: { ...usage, output_tokens: Math.ceil(characters / 4) },
  })
  send({ type: 'message_stop' })
  return frames
}

function isHighSurrogate(code: number): boolean {
  return (code & 0xfc00) === 0xd800
}
