import { UsageError } from '../errors.ts'
import {
  asksForStream,
  countTokens,
  type Frame,
  type Json,
  membersOf,
  namesOf,
  type SimulatedAnswer,
  type SimulatedWire,
  split,
} from './simulated-answer.ts'

/** The answer as the Responses API streams it (platform.openai.com, "Streaming events"). */
function responsesFrames(answer: SimulatedAnswer): Frame[] {
  const { model, text, reasoning, calls, finishReason, inputTokens } = answer
  const frames: Frame[] = []
  const output: Record<string, unknown>[] = []
  const send = (type: string, members: Record<string, unknown>, isDelta = false): void => {
    const event = { type, sequence_number: frames.length, ...members }
    frames.push({ frame: `event: ${type}\ndata: ${JSON.stringify(event)}\n\n`, isDelta })
  }
  const response = (status: string): Record<string, unknown> => ({
    id: 'resp_simulated',
    object: 'response',
    created_at: Date.UTC(2026, 0, 1) / 1000,
    status,
    model,
    output: [...output],
    error: null,
    incomplete_details: null,
    usage: null,
  })
  /** One item: its beginning, what comes in between, and the whole. */
  const item = (
    begun: Record<string, unknown>,
    whole: Record<string, unknown>,
    between: (place: { item_id: string; output_index: number }) => void,
  ): void => {
    const place = { item_id: whole['id'] as string, output_index: output.length }
    send('response.output_item.added', { output_index: place.output_index, item: { ...whole, ...begun } })
    between(place)
    send('response.output_item.done', { output_index: place.output_index, item: whole })
    output.push(whole)
  }
  send('response.created', { response: response('in_progress') })
  send('response.in_progress', { response: response('in_progress') })
  if (reasoning !== '') {
    const summary = { type: 'summary_text', text: reasoning }
    const whole = { id: 'rs_simulated', type: 'reasoning', summary: [summary], encrypted_content: 'simulated' }
    item({ summary: [] }, whole, (position) => {
      const place = { ...position, summary_index: 0 }
      send('response.reasoning_summary_part.added', { ...place, part: { ...summary, text: '' } })
      for (const delta of split(reasoning, answer.deltaChars))
        send('response.reasoning_summary_text.delta', { ...place, delta }, true)
      send('response.reasoning_summary_text.done', { ...place, text: reasoning })
      send('response.reasoning_summary_part.done', { ...place, part: summary })
    })
  }
  const isRefused = finishReason === 'refusal'
  if (text !== '' || isRefused) {
    const part = isRefused
      ? { type: 'refusal', refusal: text || 'No.' }
      : { type: 'output_text', text, annotations: [] }
    const [kind, name] = isRefused ? ['refusal', 'refusal'] : ['output_text', 'text']
    const said = isRefused ? text || 'No.' : text
    const whole = { id: 'msg_simulated', type: 'message', status: 'completed', role: 'assistant', content: [part] }
    item({ status: 'in_progress', content: [] }, whole, (position) => {
      const place = { ...position, content_index: 0 }
      send('response.content_part.added', { ...place, part: { ...part, [name]: '' } })
      for (const delta of split(said, answer.deltaChars)) send(`response.${kind}.delta`, { ...place, delta }, true)
      send(`response.${kind}.done`, { ...place, [name]: said })
      send('response.content_part.done', { ...place, part })
    })
  }
  calls.forEach(({ tool, inputText }, i) => {
    const isCut = finishReason === 'length' && i === calls.length - 1
    const whole = {
      id: `fc_simulated_${i + 1}`,
      type: 'function_call',
      status: isCut ? 'incomplete' : 'completed',
      call_id: `call_simulated_${i + 1}`,
      name: tool,
      arguments: inputText,
    }
    item({ status: 'in_progress', arguments: '' }, whole, (place) => {
      for (const delta of split(inputText, answer.deltaChars))
        send('response.function_call_arguments.delta', { ...place, delta }, true)
      send('response.function_call_arguments.done', { ...place, arguments: inputText })
    })
  })
  const outputTokens = countTokens(answer)
  const usage = {
    input_tokens: inputTokens,
    input_tokens_details: { cached_tokens: 0 },
    output_tokens: outputTokens,
    output_tokens_details: { reasoning_tokens: Math.ceil(reasoning.length / 4) },
    total_tokens: inputTokens + outputTokens,
  }
  const reason = incompleteReasons[finishReason]
  const status = reason ? 'incomplete' : 'completed'
  send(`response.${status}`, {
    response: { ...response(status), usage, incomplete_details: reason ? { reason } : null },
  })
  return frames
}

const incompleteReasons: Partial<Record<SimulatedAnswer['finishReason'], string>> = {
  length: 'max_output_tokens',
  'content-filter': 'content_filter',
  pause: 'max_messages',
}

/** The answer as Chat Completions streams it. Reasoning comes in `reasoning_content`, as most servers that have it send it. */
function chatFrames(answer: SimulatedAnswer): Frame[] {
  const { model, text, reasoning, calls, finishReason } = answer
  if (finishReason === 'pause')
    throw new UsageError('unsupported', "Chat Completions has no answer that ends with 'pause'.")
  const frames: Frame[] = []
  const chunk = (members: Record<string, unknown>, isDelta = false): void => {
    const event = { id: 'chatcmpl-simulated', object: 'chat.completion.chunk', created: 0, model, ...members }
    frames.push({ frame: `data: ${JSON.stringify(event)}\n\n`, isDelta })
  }
  const send = (delta: Record<string, unknown>, isDelta = true, reason: string | null = null): void =>
    chunk({ choices: [{ index: 0, delta, finish_reason: reason }], usage: null }, isDelta)
  const isRefused = finishReason === 'refusal'
  send({ role: 'assistant', content: null }, false)
  for (const piece of split(reasoning, answer.deltaChars)) send({ reasoning_content: piece })
  for (const piece of split(isRefused ? text || 'No.' : text, answer.deltaChars))
    send(isRefused ? { refusal: piece } : { content: piece })
  calls.forEach(({ tool, inputText }, index) => {
    const id = `call_simulated_${index + 1}`
    send({ tool_calls: [{ index, id, type: 'function', function: { name: tool, arguments: '' } }] }, false)
    for (const piece of split(inputText, answer.deltaChars))
      send({ tool_calls: [{ index, function: { arguments: piece } }] })
  })
  send({}, false, chatReasons[finishReason])
  chunk({ choices: [], usage: chatUsage(answer) })
  frames.push({ frame: 'data: [DONE]\n\n', isDelta: false })
  return frames
}

const chatReasons = {
  stop: 'stop',
  length: 'length',
  'tool-calls': 'tool_calls',
  refusal: 'stop',
  'content-filter': 'content_filter',
} as const

/** The last event of a stream has all of it. */
function wholeResponse(answer: SimulatedAnswer): Json {
  const { frame } = responsesFrames(answer).at(-1)!
  return membersOf((JSON.parse(frame.slice(frame.indexOf('{'))) as Json)['response'])
}

function wholeCompletion(answer: SimulatedAnswer): Json {
  const { model, text, reasoning, calls, finishReason } = answer
  const isRefused = finishReason === 'refusal'
  const message = {
    role: 'assistant',
    content: isRefused || text === '' ? null : text,
    refusal: isRefused ? text || 'No.' : null,
    ...(reasoning !== '' && { reasoning_content: reasoning }),
    ...(calls.length > 0 && {
      tool_calls: calls.map(({ tool, inputText }, i) => {
        return { id: `call_simulated_${i + 1}`, type: 'function', function: { name: tool, arguments: inputText } }
      }),
    }),
  }
  return {
    id: 'chatcmpl-simulated',
    object: 'chat.completion',
    created: 0,
    model,
    choices: [{ index: 0, message, finish_reason: chatReasons[finishReason as keyof typeof chatReasons] }],
    usage: chatUsage(answer),
  }
}

function chatUsage(answer: SimulatedAnswer): Json {
  const { inputTokens, reasoning } = answer
  const outputTokens = countTokens(answer)
  return {
    prompt_tokens: inputTokens,
    completion_tokens: outputTokens,
    total_tokens: inputTokens + outputTokens,
    prompt_tokens_details: { cached_tokens: 0 },
    completion_tokens_details: { reasoning_tokens: Math.ceil(reasoning.length / 4) },
  }
}

export const openaiWire: SimulatedWire = {
  contentType: 'text/event-stream',
  requestIdHeader: 'x-request-id',
  frames: responsesFrames,
  streams: asksForStream,
  whole: wholeResponse,
  read({ tools, tool_choice: choice, text }) {
    return { tools: namesOf(choice, tools), isJson: isJsonFormat(membersOf(text)['format']) }
  },
}

export const openaiChatWire: SimulatedWire = {
  contentType: 'text/event-stream',
  requestIdHeader: 'x-request-id',
  frames: chatFrames,
  streams: asksForStream,
  whole: wholeCompletion,
  read({ tools, tool_choice: choice, response_format: format }) {
    return { tools: namesOf(choice, tools), isJson: isJsonFormat(format) }
  },
}

function isJsonFormat(format: unknown): boolean {
  return ['json_schema', 'json_object'].includes(membersOf(format)['type'] as string)
}
