import { isLLMError, StreamingLLMClient, tool } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { replayFetch, type ReplayRequest, simulate } from 'fieldstream/testing'
import { z } from 'zod'

const answer = tool({ name: 'answer', input: z.object({ message: z.string(), pieces: z.number() }) })
const payload = { message: 'Four bags.', pieces: 4 }
const whole = simulate(payload)

// Simulated answers, most of which are not what they should be. A real client needs no `fetch`.
const fetch = replayFetch([
  whole,
  (request: ReplayRequest) => ({ body: String(whole(request).body).slice(0, 1000) }),
  simulate('{"message":"Four ba', { tool: answer, finishReason: 'length' }),
  simulate({ ...payload, pieces: 'four' }),
  simulate(payload, { delayMs: 20 }),
])
const client = new StreamingLLMClient({ provider: anthropic({ model: 'claude-haiku-4-5', fetch }) })

for (const name of ['whole', 'cut', 'over its limit', 'wrong', 'aborted']) {
  const stream = client.stream({
    messages: [{ role: 'user', content: 'How many bags?' }],
    tools: [answer],
    toolChoice: answer,
    fields: { message: 'message' },
  })
  if (name === 'aborted') stream.on('field-delta', () => stream.abort('user pressed stop'))
  try {
    const { toolCalls } = await stream.final()
    console.log(`${name}: ${toolCalls[0].input.pieces} bags`)
  } catch (error) {
    if (!isLLMError(error)) throw error
    // Unvalidated and unfinished: to look at, not to act on.
    const arrived = error.partial?.toolCalls[0]?.input
    console.log(`${name}: ${error.code}, ${error.retryable ? 'retryable' : 'final'}, ${JSON.stringify(arrived)}`)
  }
}
