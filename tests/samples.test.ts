import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { packagesOf, samplesIn } from '../scripts/samples.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'fieldstream-samples-'))
})
afterEach(() => rmSync(folder, { recursive: true }))

test('a sample that is added is run, with what it names and what that loads', () => {
  writeFileSync(join(folder, 'notes.md'), 'no sample')
  writeFileSync(join(folder, 'a.ts'), `import { StreamingLLMClient } from 'fieldstream'\n`)
  expect(samplesIn(folder).map(({ file }) => file)).toEqual(['a.ts'])
  mkdirSync(join(folder, 'web'))
  writeFileSync(
    join(folder, 'web/b.ts'),
    [
      `import { once } from 'node:events'`,
      `import { cache, StreamingLLMClient } from 'fieldstream'`,
      `import { openai } from 'fieldstream/openai'`,
      `import { serve } from '@hono/node-server'`,
      `import { streamSSE } from 'hono/streaming'`,
      `import type { Request } from 'express'`,
      `const { z } = await import('zod')`,
    ].join('\n'),
  )
  const [alone, added] = samplesIn(folder)
  expect(alone!.packages).toEqual([])
  expect(added).toMatchObject({
    file: 'web/b.ts',
    packages: ['@hono/node-server', 'express', 'hono', 'lru-cache', 'openai', 'zod'],
  })
})

test('a sample that imports a file of the project is refused', () => {
  expect(() => packagesOf(`import { serve } from '../shared/serve.ts'`, 'x.ts')).toThrow(
    'x.ts does not stand alone: it imports ../shared/serve.ts.',
  )
})
