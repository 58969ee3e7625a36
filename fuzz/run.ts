/**
 * `npm run fuzz -- [seconds] [target] [seed]`: feeds mutated inputs to everything that reads what it does not control, until the
 * time is over. An input that breaks a promise is made small and kept in `fuzz/seeds/`, where the tests find it.
 */
import { readSeeds, writeSeeds } from './seeds.ts'
import type { FuzzInput, FuzzTarget } from './target.ts'
import { targets } from './targets/index.ts'
import { seededRandom } from '../tests/json-corpus.ts'

const [seconds = '600', only, seed = String(Date.now() % 1e9)] = process.argv.slice(2)
const chosen = targets.filter(({ name }) => only === undefined || name === only)
if (chosen.length === 0)
  throw new Error(`There is no target "${only!}". Targets: ${targets.map(({ name }) => name).join(', ')}.`)

/** What is wrong with an input; `undefined` where nothing is. */
async function faultOf(target: FuzzTarget, input: FuzzInput): Promise<Error | undefined> {
  try {
    await target.check(input)
    return undefined
  } catch (error) {
    return error as Error
  }
}

/** The same fault with less text, as far as that is found in half a minute. */
async function shrink(target: FuzzTarget, input: FuzzInput): Promise<FuzzInput> {
  const end = performance.now() + 30_000
  let best = input
  for (let size = Math.ceil(input.text.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let start = 0; start < best.text.length && performance.now() < end;) {
      const smaller = { ...best, text: best.text.slice(0, start) + best.text.slice(start + size) }
      if (await faultOf(target, smaller)) best = smaller
      else start += size
    }
  }
  return best
}

console.log(`Seed ${seed}, ${seconds} seconds for ${chosen.map(({ name }) => name).join(', ')}.`)
let hasFailed = false
for (const target of chosen) {
  const random = seededRandom(Number(seed))
  const end = performance.now() + (Number(seconds) * 1000) / chosen.length
  let tries = 0
  let failure: FuzzInput | undefined
  while (!failure && performance.now() < end) {
    const input = target.generate(random)
    tries++
    if (await faultOf(target, input)) failure = input
  }
  if (failure) {
    hasFailed = true
    // Without all of its parts a body is not sound.
    const small = failure.variant === 'sound' ? failure : await shrink(target, failure)
    writeSeeds(target.name, [...readSeeds(target.name), small])
    console.error(`${target.name}: try ${tries} fails, and is kept: ${JSON.stringify(small)}`)
    console.error(await faultOf(target, small))
  } else console.log(`${target.name}: ${tries} tries, no fault.`)
}
process.exitCode = hasFailed ? 1 : 0
