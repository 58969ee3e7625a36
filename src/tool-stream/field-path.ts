import { UsageError } from '../errors.ts'
import type { FieldExtractor } from './field-extractor.ts'

/** One step of a field path. */
export type PathSegment =
  | { readonly kind: 'key'; readonly key: string }
  /** Any key, or any with this beginning and end around at least one character when `capture` is set. */
  | { readonly kind: 'any-key'; readonly prefix: string; readonly suffix: string; readonly capture: string | undefined }
  | { readonly kind: 'index'; readonly index: number }
  | { readonly kind: 'any-index'; readonly capture: string | undefined }

/** A node of the tree that all registered paths of one tool form. Values are matched against it level by level. */
export interface PathNode {
  readonly keys: Map<string, PathNode>
  readonly anyKeys: { readonly segment: Extract<PathSegment, { kind: 'any-key' }>; readonly node: PathNode }[]
  readonly indexes: Map<number, PathNode>
  readonly anyIndexes: { readonly segment: Extract<PathSegment, { kind: 'any-index' }>; readonly node: PathNode }[]
  /** Extractors whose path ends here. */
  readonly extractors: FieldExtractor[]
}

/** A node that a concrete place in a document matches, with what the captures on the way took. */
export interface Match {
  readonly node: PathNode
  readonly params: Readonly<Record<string, string>>
}

const noParams: Readonly<Record<string, string>> = Object.freeze({})

/**
 * Reads a field path: `a.b`, `a[0]`, `a[*].b`, `["any key"]`, `*` for any key, and captures: `part_{n}` of a key,
 * `a[{index}]` of an index.
 *
 * @throws UsageError naming the character at which the path is wrong.
 */
export function parseFieldPath(path: string): PathSegment[] {
  const segments: PathSegment[] = []
  const fail = (position: number, problem: string): never => {
    throw new UsageError(
      'invalid_argument',
      `Invalid field path ${JSON.stringify(path)} at character ${position}: ${problem}. Paths look like \`a.b\`, \`a[0]\`, \`a[*].b\`, \`*\`, \`part_{n}\` or \`["any key"]\`.`,
    )
  }
  if (typeof path !== 'string' || path === '') fail(0, 'a path is a string that is not empty')
  const names = new Set<string>()
  const capture = (name: string, position: number): string => {
    if (!/^[A-Za-z_]\w*$/.test(name)) fail(position, 'a capture is a name in braces, such as {part}')
    if (names.has(name)) fail(position, `the capture {${name}} appears twice`)
    names.add(name)
    return name
  }
  let i = 0
  while (i < path.length) {
    if (path[i] === '[') {
      const start = i
      if (path[i + 1] === '"') {
        const quoted = /^"(?:[^"\\]|\\.)*"/.exec(path.slice(i + 1))?.[0] ?? fail(start, 'the quoted key is not closed')
        let key = ''
        try {
          key = JSON.parse(quoted) as string
        } catch {
          fail(start + 1, 'the quoted key is not a JSON string')
        }
        i += 1 + quoted.length
        if (path[i] !== ']') fail(i, '`]` is missing after the quoted key')
        segments.push({ kind: 'key', key })
      } else {
        const end = path.indexOf(']', i)
        if (end < 0) fail(start, '`[` is not closed')
        const inner = path.slice(i + 1, end)
        i = end
        if (inner === '*') segments.push({ kind: 'any-index', capture: undefined })
        else if (/^(?:0|[1-9]\d{0,8})$/.test(inner)) segments.push({ kind: 'index', index: Number(inner) })
        else if (inner.startsWith('{') && inner.endsWith('}'))
          segments.push({ kind: 'any-index', capture: capture(inner.slice(1, -1), start + 1) })
        else fail(start + 1, 'brackets hold an index, `*`, a capture or a quoted key')
      }
      i++
      continue
    }
    if (segments.length > 0) {
      if (path[i] !== '.') fail(i, 'a `.` or `[` is missing')
      i++
    }
    const start = i
    while (i < path.length && path[i] !== '.' && path[i] !== '[') i++
    const key = path.slice(start, i)
    if (key === '') fail(start, 'a key is missing')
    if (key === '*') {
      segments.push({ kind: 'any-key', prefix: '', suffix: '', capture: undefined })
      continue
    }
    const open = key.indexOf('{')
    if (open >= 0) {
      const close = key.indexOf('}', open)
      if (close < 0) fail(start + open, '`{` is not closed')
      const prefix = key.slice(0, open)
      const suffix = key.slice(close + 1)
      if (/[*{}\]]/.test(prefix + suffix)) fail(start, 'a key holds one capture and no other special character')
      segments.push({ kind: 'any-key', prefix, suffix, capture: capture(key.slice(open + 1, close), start + open) })
      continue
    }
    const special = key.search(/[*}\]"\s]/)
    if (special >= 0) fail(start + special, 'put a key with special characters in brackets and quotes')
    segments.push({ kind: 'key', key })
  }
  return segments
}

export function createPathNode(): PathNode {
  return { keys: new Map(), anyKeys: [], indexes: new Map(), anyIndexes: [], extractors: [] }
}

/** Adds the way to `extractor` to the tree. */
export function addPath(root: PathNode, segments: readonly PathSegment[], extractor: FieldExtractor): void {
  let node = root
  for (const segment of segments) node = childNode(node, segment)
  node.extractors.push(extractor)
}

function childNode(node: PathNode, segment: PathSegment): PathNode {
  switch (segment.kind) {
    case 'key':
      return getOrInsert(node.keys, segment.key)
    case 'index':
      return getOrInsert(node.indexes, segment.index)
    case 'any-key': {
      const known = node.anyKeys.find(
        ({ segment: s }) => s.prefix === segment.prefix && s.suffix === segment.suffix && s.capture === segment.capture,
      )
      if (known) return known.node
      const child = createPathNode()
      node.anyKeys.push({ segment, node: child })
      return child
    }
    case 'any-index': {
      const known = node.anyIndexes.find(({ segment: s }) => s.capture === segment.capture)
      if (known) return known.node
      const child = createPathNode()
      node.anyIndexes.push({ segment, node: child })
      return child
    }
  }
}

function getOrInsert<Key>(map: Map<Key, PathNode>, key: Key): PathNode {
  let node = map.get(key)
  if (!node) map.set(key, (node = createPathNode()))
  return node
}

/** All of the tree that one place matches. The ways on are worked out once, not for each of a thousand elements. */
export class MatchSet {
  readonly matches: readonly Match[]
  /** Whether a path ends here. */
  readonly isRegistered: boolean
  readonly leadsIntoObjects: boolean
  readonly leadsIntoArrays: boolean
  /** Lengths of the keys that lead on, one bit each, the last for all from 31 on. */
  #keyLengths: number
  /** False where any key at all may lead on: keeping them all would let a document fill the memory. */
  readonly #keepsMembers: boolean
  /** Whether all elements match the same. */
  readonly #keepsElement: boolean
  #members: Map<string, MatchSet> | undefined
  #element: MatchSet | undefined

  constructor(matches: readonly Match[]) {
    this.matches = matches
    const nodes = matches.map(({ node }) => node)
    this.isRegistered = nodes.some(({ extractors }) => extractors.length > 0)
    this.leadsIntoObjects = nodes.some(({ keys, anyKeys }) => keys.size > 0 || anyKeys.length > 0)
    this.leadsIntoArrays = nodes.some(({ indexes, anyIndexes }) => indexes.size > 0 || anyIndexes.length > 0)
    this.#keepsMembers = nodes.every(({ anyKeys }) => anyKeys.length === 0)
    this.#keepsElement = nodes.every(
      ({ indexes, anyIndexes }) =>
        indexes.size === 0 && anyIndexes.every(({ segment }) => segment.capture === undefined),
    )
    this.#keyLengths = -1
    if (this.#keepsMembers) {
      this.#keyLengths = 0
      for (const { keys } of nodes) for (const key of keys.keys()) this.#keyLengths |= lengthBit(key.length)
    }
  }

  /** False where no key of this length leads on. Most keys need no closer look. */
  mayLeadOn(keyLength: number): boolean {
    return (this.#keyLengths & lengthBit(keyLength)) !== 0
  }

  /** What the member `key` matches; `undefined` where that is nothing. */
  member(key: string): MatchSet | undefined {
    const known = this.#members?.get(key)
    if (known) return known
    const matches = matchKey(this.matches, key)
    const member = matches && new MatchSet(matches)
    if (member && this.#keepsMembers) (this.#members ??= new Map()).set(key, member)
    return member
  }

  /** What the element at `index` matches; `undefined` where that is nothing. */
  element(index: number): MatchSet | undefined {
    if (this.#element) return this.#element
    const matches = matchIndex(this.matches, index)
    const element = matches && new MatchSet(matches)
    if (this.#keepsElement) this.#element = element
    return element
  }
}

function lengthBit(length: number): number {
  return 1 << Math.min(length, 31)
}

const rootSets = new WeakMap<PathNode, MatchSet>()

/** What the whole document matches. */
export function rootMatches(root: PathNode): MatchSet {
  let set = rootSets.get(root)
  if (!set) rootSets.set(root, (set = new MatchSet([{ node: root, params: noParams }])))
  return set
}

function matchKey(matches: readonly Match[], key: string): readonly Match[] | undefined {
  let found: Match[] | undefined
  for (let i = 0; i < matches.length; i++) {
    const { node, params } = matches[i]!
    const exact = node.keys.get(key)
    if (exact) found = append(found, exact, params)
    for (let k = 0; k < node.anyKeys.length; k++) {
      const { segment, node: child } = node.anyKeys[k]!
      const { prefix, suffix, capture } = segment
      if (capture === undefined) found = append(found, child, params)
      else if (key.length > prefix.length + suffix.length && key.startsWith(prefix) && key.endsWith(suffix)) {
        found = append(found, child, withParam(params, capture, key.slice(prefix.length, key.length - suffix.length)))
      }
    }
  }
  return found
}

function matchIndex(matches: readonly Match[], index: number): readonly Match[] | undefined {
  let found: Match[] | undefined
  for (let i = 0; i < matches.length; i++) {
    const { node, params } = matches[i]!
    const exact = node.indexes.get(index)
    if (exact) found = append(found, exact, params)
    for (let k = 0; k < node.anyIndexes.length; k++) {
      const { segment, node: child } = node.anyIndexes[k]!
      const { capture } = segment
      found = append(found, child, capture === undefined ? params : withParam(params, capture, String(index)))
    }
  }
  return found
}

function append(found: Match[] | undefined, node: PathNode, params: Match['params']): Match[] {
  if (!found) return [{ node, params }]
  found.push({ node, params })
  return found
}

// Capture names may be anything a user writes, `__proto__` included, so they become own properties.
function withParam(
  params: Readonly<Record<string, string>>,
  name: string,
  value: string,
): Readonly<Record<string, string>> {
  return Object.freeze(Object.fromEntries([...Object.entries(params), [name, value]]))
}

/** The concrete path of a member or element: `.key` where that reads back as the same key, `["key"]` elsewhere. */
export function childPath(parent: string, key: string | number): string {
  if (typeof key === 'number') return `${parent}[${key}]`
  if (/^[^.[\]{}*"\s]+$/.test(key)) return parent === '' ? key : `${parent}.${key}`
  return `${parent}[${JSON.stringify(key)}]`
}
