import {
  asksForStream,
  countTokens,
  type Frame,
  type Json,
  membersOf,
  namesOf,
  parsedInput,
  type SimulatedAnswer,
  type SimulatedWire,
  split,
} from './simulated-answer.ts'

const stopReasons = {
  stop: 'end_turn',
  length: 'max_tokens',
  'tool-calls': 'tool_use',
  refusal: 'refusal',
  'content-filter': 'refusal',
  pause: 'pause_turn',
} as const

/** The answer as the Messages API streams it (docs.anthropic.com, "Streaming Messages"). */
function frames(answer: SimulatedAnswer): Frame[] {
  const { model, text, reasoning, calls, finishReason, inputTokens, deltaChars } = answer
  const sent: Frame[] = []
  const send = (event: Record<string, unknown> & { type: string }, isDelta = false): void => {
    sent.push({ frame: `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`, isDelta })
  }
  let index = 0
  const block = (content: Record<string, unknown>, deltas: Record<string, unknown>[]): void => {
    send({ type: 'content_block_start', index, content_block: content })
    for (const delta of deltas) send({ type: 'content_block_delta', index, delta }, true)
    send({ type: 'content_block_stop', index })
    index++
  }
  const usage = usageOf(inputTokens)
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
      ...split(reasoning, deltaChars).map((thinking) => ({ type: 'thinking_delta', thinking })),
      { type: 'signature_delta', signature: 'simulated-signature' },
    ])
  }
  if (text !== '')
    block(
      { type: 'text', text: '' },
      split(text, deltaChars).map((piece) => ({ type: 'text_delta', text: piece })),
    )
  calls.forEach(({ tool, inputText }, i) => {
    // The service opens every call with an empty delta.
    const pieces = ['', ...split(inputText, deltaChars)]
    const deltas = pieces.map((piece) => ({ type: 'input_json_delta', partial_json: piece }))
    block({ type: 'tool_use', id: `toolu_simulated_${i + 1}`, name: tool, input: {} }, deltas)
  })
  send({
    type: 'message_delta',
    delta: { stop_reason: stopReasons[finishReason], stop_sequence: null },
    usage: { ...usage, output_tokens: countTokens(answer) },
  })
  send({ type: 'message_stop' })
  return sent
}

function usageOf(inputTokens: number): Json {
  return { input_tokens: inputTokens, cache_creation_input_tokens: 0, cache_read_input_tokens: 0 }
}

function whole(answer: SimulatedAnswer): Json {
  const { model, text, reasoning, calls, finishReason, inputTokens } = answer
  return {
    id: 'msg_simulated',
    type: 'message',
    role: 'assistant',
    model,
    content: [
      ...(reasoning === '' ? [] : [{ type: 'thinking', thinking: reasoning, signature: 'simulated-signature' }]),
      ...(text === '' ? [] : [{ type: 'text', text }]),
      ...calls.map(({ tool, inputText }, i) => {
        return { type: 'tool_use', id: `toolu_simulated_${i + 1}`, name: tool, input: parsedInput(inputText) }
      }),
    ],
    stop_reason: stopReasons[finishReason],
    stop_sequence: null,
    usage: { ...usageOf(inputTokens), output_tokens: countTokens(answer) },
  }
}

export const anthropicWire: SimulatedWire = {
  contentType: 'text/event-stream',
  requestIdHeader: 'request-id',
  frames,
  streams: asksForStream,
  whole,
  read({ tools, tool_choice: choice, output_config: output }) {
    return { tools: namesOf(choice, tools), isJson: membersOf(output)['format'] !== undefined }
  },
}
