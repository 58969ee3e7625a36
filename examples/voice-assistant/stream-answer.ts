import { isLLMError, type Metrics, type StartEvent, type StreamingLLMClient } from 'fieldstream'
import { apologyFor } from './apology.ts'

export interface Question {
  readonly user: string
  readonly text: string
}

export interface Answered {
  readonly provider: string
  readonly length: number
  readonly metrics: Metrics
}

export interface FrontEndEvent {
  readonly event: 'stream_start' | 'stream_chunk' | 'stream_end'
  readonly data: object
}

const system =
  'You are a voice assistant. Answer in a few short sentences that are pleasant to hear: no lists, no markup.'

/**
 * What the front end is told of an answer: `stream_start`, a `stream_chunk` for each sentence, `stream_end`. Throws where it
 * fails before its first word, and the response can still have a status of its own.
 */
export async function* streamAnswer(
  client: StreamingLLMClient,
  { user, text }: Question,
  signal: AbortSignal,
  onAnswered: (answer: Answered) => void,
): AsyncGenerator<FrontEndEvent, undefined> {
  const stream = client.stream({
    system,
    messages: [{ role: 'user', content: text }],
    batch: { at: 'sentence' },
    onInterrupted: 'restart', // chunks then say by their `length` where they begin
    metadata: { user },
    signal,
  })
  let start: StartEvent | undefined
  let length = 0
  const end = (): object => ({ total_length: length, provider: start?.provider, cached: start?.cached })
  try {
    for await (const event of stream) {
      if (event.type === 'start') {
        const { provider, model, cached, attempt } = (start = event)
        yield { event: 'stream_start', data: { provider, model, cached, attempt } }
      } else if (event.type === 'text-delta') {
        ;({ length } = event)
        yield { event: 'stream_chunk', data: { chunk: event.delta, length } }
      } else if (event.type === 'finish') {
        const { finishReason, metrics } = event
        onAnswered({ provider: start!.provider, length, metrics })
        const complete = finishReason === 'stop'
        yield { event: 'stream_end', data: { complete, ...end(), fallback_used: metrics.fallbackUsed } }
      }
    }
  } catch (error) {
    if (!start || !isLLMError(error)) throw error
    yield { event: 'stream_end', data: { complete: false, ...end(), error: apologyFor(error).message } }
  }
}
