/** A progress bar for an answer that nobody can read while it is written, and one that breaks off. */
import { isLLMError, StreamingLLMClient } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { replayFetch, simulate } from 'fieldstream/testing'
import { z } from 'zod'

const palace = z.object({
  name: z.string(),
  stars: z.array(z.string()),
  reading: z.string(),
})
const report = z.object({ palaces: z.array(palace).length(3), verdict: z.string() })

// Without a key, answers in Anthropic's wire format go through the real SDK; the second reaches its token limit.
const reading = 'What was begun in haste is finished in peace, and whoever asked early is answered late.'
const palaces = ['Life', 'Wealth', 'Travel'].map((name) => ({ name, stars: ['Sun', 'Moon'], reading }))
const payload = { palaces, verdict: 'Wait for the spring.' }
const fetch = process.env['ANTHROPIC_API_KEY']
  ? undefined
  : replayFetch([
      simulate(payload, { delayMs: 10 }),
      simulate(JSON.stringify(payload).slice(0, 250), { delayMs: 10, finishReason: 'length' }),
    ])
const client = new StreamingLLMClient({ provider: anthropic({ model: 'claude-haiku-4-5', fetch }) })

/** Redraws its line on a terminal; elsewhere prints every fifth part. */
function draw(ratio: number, before: number): void {
  const bar = `${'█'.repeat(Math.round(ratio * 20)).padEnd(20, '░')} ${Math.round(ratio * 100)} %`
  if (process.stdout.isTTY) process.stdout.write(`\r${bar} `)
  else if (Math.floor(ratio * 5) > Math.floor(before * 5)) console.log(bar)
}

for (const name of ['first', 'second']) {
  const stream = client.stream({
    messages: [{ role: 'user', content: `The ${name} chart, please: three palaces and a verdict` }],
    output: report,
    progress: true,
  })
  let shown = 0
  stream.on('progress', ({ ratio }) => {
    draw(ratio, shown)
    shown = ratio
  })
  try {
    const { output } = await stream.final()
    console.log('\n' + output.verdict) // 100 % was said only now: the answer is complete and valid
  } catch (error) {
    console.log(`\nstopped at ${shown < 1 ? 'less than 100 %' : '100 %'}: ${isLLMError(error) ? error.code : 'bug'}`)
  }
}
