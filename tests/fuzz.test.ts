import { describe, expect, test } from 'vitest'
import { readSeeds } from '../fuzz/seeds.ts'
import type { FuzzTarget } from '../fuzz/target.ts'
import { targets } from '../fuzz/targets/index.ts'
import { seededRandom } from './json-corpus.ts'

/** How often each is tried here; `npm run fuzz` tries them for as long as it is told. */
const tries: Readonly<Record<string, number>> = {
  'server-sent-events': 3000,
  'json-lines': 3000,
  'tool-call-tags': 4000,
  'think-tags': 5000,
  scanner: 2000,
}
const providerTries = 150

async function run(target: FuzzTarget, count: number): Promise<void> {
  const random = seededRandom(20_261_121)
  for (let i = 0; i < count; i++) {
    const input = target.generate(random)
    try {
      await target.check(input)
    } catch (error) {
      expect.fail(`${(error as Error).message}\nwith ${JSON.stringify(input)}`)
    }
  }
}

describe('whatever comes, it is read as it should be or refused', () => {
  test.each(targets.map((target) => [target.name, target] as const))('%s', async (name, target) => {
    await run(target, tries[name] ?? providerTries)
  })

  test.each(targets.flatMap((target) => readSeeds(target.name).map((seed) => [target.name, seed, target] as const)))(
    '%s: %j, which once was not',
    async (_, seed, target) => {
      await target.check(seed)
    },
  )
})
