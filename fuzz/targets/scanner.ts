import { isDeepStrictEqual } from 'node:util'
import { isLLMError } from 'fieldstream'
import {
  type Delivery,
  exactPath,
  hardDocuments,
  parses,
  readAll,
  recordingScanner,
  seededRandom,
  testSuite,
  wildcardPaths,
} from '../../tests/json-corpus.ts'
import { mutate } from '../mutate.ts'
import { cut, type FuzzTarget, pick } from '../target.ts'

const documents = [...hardDocuments, ...testSuite.accepted].filter((text) => text.length < 400)
const tokens = [
  ...'{}[]",:\\/ubnfrt0159-+.eE \t\n\r\u0000\u001f\u00a0\ufeff\ud83c\udf89\'aAlsx'.split(''),
  ...['true', 'null', '\\u', '\\ud83d', '\\ude00', '1e400', '-0', '"__proto__":', '{"a":', '[[[['],
]
const depth = 4
const everywhere = wildcardPaths(depth)

/** Every value that `JSON.parse` finds at up to `depth` steps, by its place. */
function valuesIn(root: unknown): Map<string, unknown> {
  const values = new Map<string, unknown>()
  const visit = (value: unknown, steps: readonly (string | number)[]): void => {
    if (steps.length > 0) values.set(exactPath(steps), value)
    if (steps.length === depth || typeof value !== 'object' || value === null) return
    for (const key of Object.keys(value)) {
      const step = Array.isArray(value) ? Number(key) : key
      visit(Object.getOwnPropertyDescriptor(value, key)!.value, [...steps, step])
    }
  }
  visit(root, [])
  return values
}

/** That a string which is open so far is the beginning of what it becomes. */
function expectBeginnings(before: readonly Delivery[], whole: readonly Delivery[]): void {
  for (const [i, { path, deltas, value }] of before.entries()) {
    const after = whole[i]
    const isBeginning =
      after?.path === path &&
      (deltas ? after.deltas!.join('').startsWith(deltas.join('')) : isDeepStrictEqual(value, after.value))
    if (!isBeginning) throw new Error(`what was handed out at ${path} is not what came of it`)
  }
}

/** Arguments and output: what is accepted, and what is handed out, is what `JSON.parse` makes of the whole text. */
export const scannerTarget: FuzzTarget = {
  name: 'scanner',
  generate(random) {
    const text = pick(random, documents)
    // Some whole ones among them, to be cut.
    return { text: random(4) === 0 ? text : mutate(text, tokens, random), seed: random(1e9) }
  },
  check({ text, seed }) {
    const random = seededRandom(seed)
    const isValid = parses(text)
    const bare = readAll(recordingScanner([]).scanner, cut(text, random))
    if ('value' in bare !== isValid) throw new Error(isValid ? 'valid JSON is refused' : 'invalid JSON is accepted')
    if ('error' in bare && !isLLMError(bare.error)) throw bare.error
    const { scanner, closed, deliveries } = recordingScanner(everywhere)
    const observed = readAll(scanner, cut(text, random))
    if ('error' in observed) {
      if (!isLLMError(observed.error)) throw observed.error
      if (isValid && !observed.error.message.endsWith('is repeated')) throw observed.error
    } else {
      const root = JSON.parse(text) as unknown
      if (!isDeepStrictEqual(observed.value, root)) throw new Error('the value is not that of JSON.parse')
      const values = valuesIn(root)
      if (closed.length !== values.size) throw new Error(`${closed.length} values are handed out of ${values.size}`)
      const found = new Map(closed.map(({ path, value }) => [path, value]))
      if (found.size !== closed.length) throw new Error('a place is handed out twice')
      // Both walk the document, but in another order and with other names for the places.
      for (const value of values.values())
        if (![...found.values()].some((other) => isDeepStrictEqual(other, value)))
          throw new Error('a value is not handed out')
    }
    // Cut anywhere, nothing that was handed out is taken back.
    const partial = recordingScanner(everywhere)
    readAll(partial.scanner, cut(text.slice(0, random(text.length + 1)), random))
    expectBeginnings(partial.deliveries, deliveries)
  },
}
