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
  const lines = stdout.trim().split('\n')
  // Which of the two comes first is a matter of luck.
  const carls = lines.slice(3, 5)
  expect([...carls].sort()).toEqual([
    `carl: cached, in many deltas: ${answer}`,
    `carl: paid for, in many deltas: ${answer}`,
  ])
  expect(lines).toEqual([
    `anna: paid for, in many deltas: ${answer}`,
    `anna: cached, in one delta: ${answer}`,
    `ben: paid for, in many deltas: ${answer}`,
    ...carls,
    '3 calls for 5 answers',
  ])
})
