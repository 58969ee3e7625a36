import { UsageError } from '../errors.ts'
import type { Target } from '../events.ts'
import type { LLMRequest } from '../request.ts'

/** What an answer depends on: everything of a request that a model, or what checks its answer, gets to see. */
export interface CacheKeyParts {
  /** The client's provider and its model. */
  readonly target: Target
  /**
   * The request without what no answer depends on: `metadata`, `onInterrupted`, `raw` and `cache`, and the functions of
   * tools.
   */
  readonly request: Readonly<Record<string, unknown>>
}

export function keyPartsOf(request: LLMRequest, { provider, model }: Target): CacheKeyParts {
  // Whatever a later version adds to requests is part of the key.
  const { metadata: _, onInterrupted: _1, raw: _2, cache: _3, tools, toolChoice, output, ...rest } = request
  return {
    target: { provider, model },
    request: {
      ...rest,
      tools: tools?.map(({ name, description, inputSchema, strict, definition }) => ({
        name,
        description,
        inputSchema,
        strict,
        definition,
      })),
      toolChoice: typeof toolChoice === 'object' ? { name: toolChoice.name } : toolChoice,
      output: output && {
        name: output.name,
        description: output.description,
        schema: output.schema,
        strict: output.strict,
      },
    },
  }
}

/**
 * SHA-256 over a text in which equal values are equal, in whatever order their members were written.
 *
 * @throws UsageError for values of which it cannot be said whether they are equal.
 */
export async function hashOf(value: unknown): Promise<string> {
  const bytes: Uint8Array[] = []
  const text = new TextEncoder().encode(canonical(value, bytes))
  // The text has the length of each, so that none can pass for a part of another.
  const whole = new Uint8Array(text.length + bytes.reduce((sum, { length }) => sum + length, 0))
  let offset = 0
  for (const part of [text, ...bytes]) {
    whole.set(part, offset)
    offset += part.length
  }
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', whole))
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('')
}

function canonical(value: unknown, bytes: Uint8Array[]): string {
  switch (typeof value) {
    case 'string':
      return JSON.stringify(value)
    case 'number':
    case 'boolean':
    case 'undefined':
      return String(value)
    case 'bigint':
      return `${value}n`
    case 'object':
      break
    default:
      throw unknown(typeof value)
  }
  if (value === null) return 'null'
  if (value instanceof Uint8Array) {
    bytes.push(value)
    return `bytes(${value.length})`
  }
  if (Array.isArray(value)) return `[${value.map((item) => canonical(item, bytes)).join(',')}]`
  if ('toJSON' in value && typeof value.toJSON === 'function')
    return canonical((value as { toJSON(): unknown }).toJSON(), bytes)
  const prototype: unknown = Object.getPrototypeOf(value)
  // Of another realm, plain objects have another prototype, which has none itself.
  if (prototype !== null && Object.getPrototypeOf(prototype) !== null) throw unknown('class instance')
  const members = Object.entries(value)
    .filter(([, member]) => member !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1))
  return `{${members.map(([name, member]) => `${JSON.stringify(name)}:${canonical(member, bytes)}`).join(',')}}`
}

function unknown(kind: string): UsageError {
  return new UsageError(
    'invalid_argument',
    `cache() makes no key of a request that holds a ${kind}: whether two are equal cannot be seen. Return what tells them apart from \`key\`.`,
  )
}
