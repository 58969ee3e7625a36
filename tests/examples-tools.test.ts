import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

test('the example of tools that run shows progress, results, a refusal and the final answer', async () => {
  const { ANTHROPIC_API_KEY: _, ...env } = process.env
  const { stdout, stderr } = await promisify(execFile)(
    process.execPath,
    ['--import', './scripts/use-sources.ts', 'examples/tools.ts'],
    { cwd: join(import.meta.dirname, '..'), env },
  )
  expect(stderr).toBe('')
  expect(stdout).toBe(`Let me see.
[check_stock] {"product":"chips"}
 … asking Rome
 … asking Oslo
 → {"product":"chips","pieces":12}

[place_order] {"product":"chips","pieces":4}

[place_order] {"product":"chips","pieces":40}
 ✗ The call of tool "place_order" was not approved: place_order of more than 10 is for the boss
 → {"ordered":"4 × chips"}
Four bags are on their way; forty were too many.
3 steps, 5 messages to append
`)
})
