import { retry, StreamingLLMClient } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { replayFetch, type ReplayRequest, simulate } from 'fieldstream/testing'

const whole = simulate('We open at nine and close at six.', { delayMs: 5 })
/** The same service, that breaks off in the middle of what it says. */
const cut = (request: ReplayRequest) => {
  const recording = whole(request)
  return { ...recording, body: String(recording.body).slice(0, 900) }
}
// Simulated answers. A real client needs no `fetch`, but the environment variable ANTHROPIC_API_KEY.
const fetch = replayFetch([cut, whole])
const client = new StreamingLLMClient({
  provider: anthropic({ model: 'claude-haiku-4-5', fetch }),
  middleware: [retry({ baseDelay: 10 })],
})

const stream = client.stream({
  messages: [{ role: 'user', content: 'When do you open?' }],
  onInterrupted: 'restart',
})
let shown = ''
for await (const event of stream) {
  if (event.type === 'restart') console.log(`begun anew after "${shown}": ${event.reason.code}`)
  // What the new attempt repeats is not sent again.
  if (event.type === 'text-delta') shown = shown.slice(0, event.length - event.delta.length) + event.delta
}
console.log(shown)
console.log(shown === (await stream.final()).text)
