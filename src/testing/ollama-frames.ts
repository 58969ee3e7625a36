import { UsageError } from '../errors.ts'
import {
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

/** The answer as Ollama's `/api/chat` streams it (docs.ollama.com, "Streaming"): a call comes in one piece. */
function frames(answer: SimulatedAnswer): Frame[] {
  const { model, text, reasoning, calls, finishReason, inputTokens, deltaChars } = answer
  if (!['stop', 'length', 'tool-calls'].includes(finishReason)) {
    throw new UsageError('unsupported', `Ollama has no answer that ends with the finish reason '${finishReason}'.`)
  }
  const sent: Frame[] = []
  const send = (message: Record<string, unknown>, isDelta: boolean, rest: Record<string, unknown>): void => {
    const created = new Date(Date.UTC(2026, 0, 1) + sent.length).toISOString()
    const line = { model, created_at: created, message: { role: 'assistant', content: '', ...message }, ...rest }
    sent.push({ frame: `${JSON.stringify(line)}\n`, isDelta })
  }
  for (const thinking of split(reasoning, deltaChars)) send({ thinking }, true, { done: false })
  for (const content of split(text, deltaChars)) send({ content }, true, { done: false })
  calls.forEach(({ tool, inputText }, index) => {
    const called = { index, name: tool, arguments: parsedInput(inputText) }
    send({ tool_calls: [{ id: `call_simulated_${index + 1}`, function: called }] }, true, { done: false })
  })
  send({}, false, {
    done: true,
    // Also after calls.
    done_reason: finishReason === 'length' ? 'length' : 'stop',
    prompt_eval_count: inputTokens,
    eval_count: countTokens(answer),
  })
  return sent
}

function whole(answer: SimulatedAnswer): Json {
  const { text, reasoning, calls } = answer
  const lines = frames({ ...answer, deltaChars: Infinity }).map(({ frame }) => JSON.parse(frame) as Json)
  const tool_calls = lines.flatMap(({ message }) => (membersOf(message)['tool_calls'] as Json[] | undefined) ?? [])
  const message = {
    role: 'assistant',
    content: text,
    ...(reasoning !== '' && { thinking: reasoning }),
    ...(calls.length > 0 && { tool_calls }),
  }
  return { ...lines.at(-1), created_at: lines[0]!['created_at'], message }
}

export const ollamaWire: SimulatedWire = {
  contentType: 'application/x-ndjson',
  requestIdHeader: 'x-request-id',
  frames,
  // It streams unless told not to.
  streams: ({ body }) => membersOf(body)['stream'] !== false,
  whole,
  read({ tools, format }) {
    return { tools: namesOf(undefined, tools), isJson: format !== undefined }
  },
}
