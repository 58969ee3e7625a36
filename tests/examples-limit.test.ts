import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

async function run(example: string): Promise<string> {
  const { ANTHROPIC_API_KEY: _, ...env } = process.env
  const { stdout, stderr } = await promisify(execFile)(
    process.execPath,
    ['--import', './scripts/use-sources.ts', `examples/${example}`],
    { cwd: join(import.meta.dirname, '..'), env },
  )
  expect(stderr).toBe('')
  return stdout
}

test('the rate limit lets three begin each second, and refuses whom it has no room for', async () => {
  const lines = (await run('rate-limit.ts')).trim().split('\n')
  // Two are under way and six wait.
  expect(lines.slice(8)).toEqual(['9: queue_full', '10: queue_full'])
  const waits = lines.slice(0, 8).map((line) => Number(/waited (\d+) ms/.exec(line)?.[1]))
  expect(waits[3]).toBeGreaterThan(980)
  expect(waits[6]).toBeGreaterThan(1980)
})

test('the batches are sentences', async () => {
  expect((await run('batch.ts')).trim().split('\n')).toEqual([
    'The shop opens at nine.',
    'Come early!',
    '今天很好。',
    '我们去公园。',
    'यह अच्छा है।',
    'फिर मिलेंगे।',
  ])
})
