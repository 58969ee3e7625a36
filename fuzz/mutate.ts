import { pick, type Random } from './target.ts'

/** Changes a text a few times: cuts, doubles, moves and replaces pieces of it, and puts in `tokens`. */
export function mutate(text: string, tokens: readonly string[], random: Random): string {
  for (let changes = random(4); changes >= 0; changes--) text = change(text, tokens, random)
  return text
}

function change(text: string, tokens: readonly string[], random: Random): string {
  const i = random(text.length + 1)
  const j = Math.min(text.length, i + 1 + random(pick(random, [2, 8, 100])))
  switch (random(7)) {
    case 0:
      return text.slice(0, i) + text.slice(j)
    case 1:
      return text.slice(0, j) + text.slice(i)
    case 2:
      return text.slice(0, i) + pick(random, tokens) + text.slice(i)
    case 3:
      return text.slice(0, i) + pick(random, tokens) + text.slice(j)
    case 4: {
      const k = random(text.length + 1)
      return text.slice(0, i) + text.slice(k, k + random(40)) + text.slice(i)
    }
    case 5:
      return text.slice(0, i)
    default:
      return text.slice(0, i) + text.charAt(i + 1) + text.charAt(i) + text.slice(i + 2)
  }
}

/** What does not stand where a service writes something else. */
const strangers: readonly ((random: Random) => unknown)[] = [
  () => null,
  () => true,
  () => '',
  () => 'x',
  () => '__proto__',
  () => 'constructor',
  () => '\ud83d',
  () => '{"a":',
  () => 0,
  () => -1,
  () => 1e9,
  () => 0.5,
  () => [],
  () => [null],
  () => ({}),
  () => JSON.parse('{"__proto__":{"polluted":true},"constructor":{"prototype":{"polluted":true}}}') as unknown,
  () => ({ toString: 1, toJSON: 1, then: 1, length: -1 }),
  (random) => nested(random(20_000)),
]

function nested(depth: number): unknown {
  let value: object = {}
  for (let i = 0; i < depth; i++) value = i % 2 ? [value] : { error: value }
  return value
}

/** A copy of a JSON value in which something is missing, doubled, renamed, moved, or something else. */
export function mutateJson(value: unknown, random: Random): unknown {
  const copy = structuredClone(value)
  const places = placesIn(copy)
  if (places.length === 0) return pick(random, strangers)(random)
  const { parent, key } = pick(random, places)
  const holder = parent as Record<string | number, unknown>
  switch (random(8)) {
    case 0:
      if (Array.isArray(parent)) parent.splice(Number(key), 1)
      else Reflect.deleteProperty(parent, key)
      break
    case 1:
      if (Array.isArray(parent)) parent.splice(Number(key), 0, structuredClone(holder[key]))
      else holder[`${String(key)}x`] = holder[key]
      break
    case 2:
    case 3: {
      const other = pick(random, places)
      holder[key] = structuredClone((other.parent as Record<string | number, unknown>)[other.key])
      break
    }
    default:
      holder[key] = pick(random, strangers)(random)
  }
  return copy
}

interface JsonPlace {
  readonly parent: object
  readonly key: string | number
}

function placesIn(value: unknown): JsonPlace[] {
  if (typeof value !== 'object' || value === null) return []
  return Object.entries(value).flatMap(([key, child]) => [{ parent: value, key }, ...placesIn(child)])
}
