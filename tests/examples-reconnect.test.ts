import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

test('who loses the connection comes back and misses nothing, as does who comes late', async () => {
  const { ANTHROPIC_API_KEY: _, ...env } = process.env
  const { stdout, stderr } = await promisify(execFile)(
    process.execPath,
    ['--import', './scripts/use-sources.ts', 'examples/reconnect.ts'],
    { cwd: join(import.meta.dirname, '..'), env },
  )
  const body = 'The harbour was quiet that morning, and nobody had yet seen the letter.'
  expect([stdout, stderr]).toEqual([`100 %\ncame back - ${body}\ncame late - ${body}\n`, ''])
})
