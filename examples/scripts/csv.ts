// Classifies the rows of a CSV file: csv.ts reviews.csv classified.csv. Started again, it does what is not done yet.
import { appendFileSync, existsSync, readFileSync } from 'node:fs'
import { Readable } from 'node:stream'
import { SingleBar } from 'cli-progress'
import { parse } from 'csv-parse/sync'
import { isLLMError, rateLimit, retry, StreamingLLMClient } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { replayFetch, simulate } from 'fieldstream/testing'
import { z } from 'zod'

const [input, output] = process.argv.slice(2)
if (input === undefined || output === undefined || !existsSync(input)) {
  console.error('Usage: csv.ts <input.csv, with the columns id and text> <output.csv>')
  process.exit(2)
}

// Without a key, answers in Anthropic's wire format go through the real SDK. Nothing else differs.
const fetch = replayFetch((request) => {
  const asked = JSON.stringify((request.body as { readonly messages: unknown }).messages)
  const topic = /late|parcel/i.test(asked) ? 'delivery' : /price|expensive/i.test(asked) ? 'price' : 'taste'
  const answer = { topic, isPositive: !/late|broken|expensive|stale/i.test(asked) }
  return simulate(JSON.stringify(answer), { firstDelayMs: 100 })(request)
})
const client = new StreamingLLMClient({
  provider: anthropic({ model: 'claude-haiku-4-5', fetch: process.env['ANTHROPIC_API_KEY'] ? undefined : fetch }),
  middleware: [retry(), rateLimit({ concurrency: 4, requests: 300, per: 60_000 })],
})

const rowOf = z.object({ id: z.string().min(1), text: z.string().min(1) })
const classification = z.object({ topic: z.enum(['taste', 'delivery', 'price']), isPositive: z.boolean() })
const failures: string[] = []
const onSkip = (error?: Error): undefined => void failures.push(error!.message)
const read = (file: string): { readonly id: string }[] =>
  parse(readFileSync(file), { bom: true, columns: true, skip_records_with_error: true, on_skip: onSkip })
const write = (...values: unknown[]): void =>
  appendFileSync(output, `${values.map((value) => `"${String(value).replaceAll('"', '""')}"`).join(',')}\n`)

if (!existsSync(output)) write('id', 'topic', 'positive')
const done = new Set(read(output).map(({ id }) => id))
const rows = read(input).filter(({ id }) => !done.has(id))
const bar = new SingleBar({ format: '{bar} {value}/{total}, {eta_formatted} left', gracefulExit: false })
process.once('SIGINT', () => (bar.stop(), process.exit(130))) // what is done is written
bar.start(rows.length, 0)
// A few more than run at a time: the wait for a place counts toward the time that a request may take.
const classify = async (row: { readonly id: string }): Promise<void> => {
  try {
    const { id, text } = rowOf.parse(row)
    const messages = [{ role: 'user', content: `Classify this review:\n${text}` }] as const
    const { output: found } = await client.generate({ messages, output: classification })
    write(id, found.topic, found.isPositive)
  } catch (error) {
    if (!(error instanceof z.ZodError) && (!isLLMError(error) || error.code === 'authentication')) throw error
    failures.push(`${row.id || 'a row without id'}: ${isLLMError(error) ? error.code : 'needs an id and a text'}`)
  }
  bar.increment()
}
await Readable.from(rows).forEach(classify, { concurrency: 8 })
bar.stop()
for (const failure of failures) console.error(failure)
process.exitCode = failures.length > 0 ? 1 : 0
