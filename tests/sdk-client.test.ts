import { UsageError } from 'fieldstream'
import { describe, expect, test } from 'vitest'
import { loadSdk } from '../src/wire/sdk-client.ts'
import { rejectionOf } from './support.ts'

describe('an SDK', () => {
  const load = (cause: unknown): Promise<unknown> =>
    rejectionOf(loadSdk('anthropic', '@anthropic-ai/sdk@1', () => Promise.reject(cause as Error)))

  test('that is not installed is asked for with a command', async () => {
    const required = Object.assign(new Error('Cannot find module'), { code: 'MODULE_NOT_FOUND' })
    for (const cause of [Object.assign(new Error('x'), { code: 'ERR_MODULE_NOT_FOUND' }), required]) {
      const error = await load(cause)
      expect(error).toBeInstanceOf(UsageError)
      expect(error).toMatchObject({ code: 'missing_dependency', phase: 'request', cause })
      expect((error as Error).message).toBe(
        'anthropic() needs the official SDK: `npm install @anthropic-ai/sdk@1`, or pass `client`.',
      )
    }
  })

  test('that is installed but fails is not called missing', async () => {
    for (const cause of [new SyntaxError('Unexpected token'), undefined]) {
      const error = await load(cause)
      expect(error).toBeInstanceOf(UsageError)
      expect((error as Error).message).toContain('found the official SDK, but it fails to load: see `cause`')
      expect((error as Error).cause).toBe(cause)
    }
  })
})
