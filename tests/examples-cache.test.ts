import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

test('the cache example makes three calls for five answers', async () => {
  const { ANTHROPIC_API_KEY: _, ...env } = process.env
  const { stdout, stderr } = await promisify(execFile)(
    process.execPath,
    ['--import', './scripts/use-sources.ts', 'examples/cache.ts'],
    { cwd: join(import.meta.dirname, '..'), env },
  )
  expect(stderr).toBe('')
  const answer = 'Red wine stains come out with salt and cold water.'
  expect(stdout.trim().split('\n')).toEqual([
    `anna: streamed, in many deltas: ${answer}`,
    `anna: from the cache, in one delta: ${answer}`,
    `ben: streamed, in many deltas: ${answer}`,
    `carl: streamed, in many deltas: ${answer}`,
    `carl: streamed, in many deltas: ${answer}`,
    '3 calls for 5 answers',
  ])
})
