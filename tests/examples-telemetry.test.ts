import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

test('the example of telemetry tells of a service that fails, of the one that stands in, and that it is slow', async () => {
  const hook = ['--import', './scripts/use-sources.ts']
  const { stdout, stderr } = await promisify(execFile)(process.execPath, [...hook, 'examples/telemetry.ts'], {
    cwd: join(import.meta.dirname, '..'),
  })
  expect(stderr).toBe('')
  expect(stdout).toBe(`start     a run with an id
failed    anthropic: connection
fallback  openai gpt-5-mini
alert     no answer within 40 ms
first     text
finish    stop, tokens known: true
metrics   success, fallback used: true, 42 characters
span      chat gpt-5-mini, asked of openai
`)
})
