import { checkOptions } from '../check-options.ts'
import { UsageError } from '../errors.ts'
import { isStandardSchema } from '../schema.ts'
import type { FieldExtractor } from './field-extractor.ts'
import { addPath, createPathNode, parseFieldPath, type PathNode } from './field-path.ts'

const extractorOptions: readonly string[] = [
  'field',
  'path',
  'tool',
  'deliver',
  'schema',
  'map',
] satisfies (keyof FieldExtractor)[]

/**
 * The extractors of a client or request, for fields that are used in several places or shared between them.
 *
 * @example
 * ```ts
 * const fields = new FieldExtractorRegistry([
 *   { field: 'question', path: 'ask_slots[*].message' },
 *   { field: 'card', path: 'product_cards[*]', deliver: 'complete' },
 * ])
 * const stream = client.stream({ messages, tools: [answer], fields })
 * ```
 */
export class FieldExtractorRegistry<const Extractors extends readonly FieldExtractor[] = readonly FieldExtractor[]> {
  readonly #extractors: FieldExtractor[] = []
  readonly #compiled = new Map<string | undefined, PathNode>()
  /** Never present at run time: carries the types of the extractors. */
  declare readonly '~extractors'?: Extractors

  /**
   * Registers each of a list. Default: none.
   *
   * @throws UsageError as `register` does.
   */
  constructor(extractors?: Extractors) {
    const list: unknown = extractors ?? []
    if (!Array.isArray(list))
      throw invalid('A FieldExtractorRegistry takes a list of extractors, e.g. [askMessages, { field, path }]')
    for (const extractor of list as readonly FieldExtractor[]) this.register(extractor)
  }

  /** The extractors in the order they were registered. */
  get extractors(): readonly FieldExtractor[] {
    return this.#extractors
  }

  /**
   * Adds an extractor.
   *
   * @throws UsageError where the path is malformed, a value of another option makes no sense, or the same field already reads
   * the same path.
   */
  register(extractor: FieldExtractor): this {
    checkOptions('A field extractor', extractor, extractorOptions)
    const { field, path, tool, deliver, schema, map } = extractor
    if (typeof field !== 'string' || field === '')
      throw invalid(`An extractor needs a \`field\`, the name to report its path ${JSON.stringify(path)} under`)
    if (typeof path !== 'string') throw invalid(`Field "${field}" needs a \`path\`, e.g. 'ask_slots[*].message'`)
    parseFieldPath(path)
    if (deliver !== undefined && deliver !== 'delta' && deliver !== 'complete')
      throw invalid(`\`deliver\` of field "${field}" is 'delta' or 'complete'`)
    if (map !== undefined && typeof map !== 'function') throw invalid(`\`map\` of field "${field}" must be a function`)
    if (map && deliver === 'delta')
      throw invalid(
        `Field "${field}" cannot have both \`map\` and \`deliver: 'delta'\`: deltas are the value itself, piece by piece`,
      )
    if (schema !== undefined && !isStandardSchema(schema))
      throw invalid(`\`schema\` of field "${field}" must be a Standard Schema (zod 4, Valibot, ArkType)`)
    if (this.#extractors.some((known) => known.field === field && known.path === path && known.tool === tool)) {
      throw invalid(`Field "${field}" is already registered for the path "${path}"`)
    }
    this.#extractors.push(extractor)
    this.#compiled.clear()
    return this
  }

  /** The tree of all paths that apply to a tool; without one, to the output. */
  compile(toolName?: string): PathNode {
    const known = this.#compiled.get(toolName)
    if (known) return known
    const root = createPathNode()
    for (const extractor of this.#extractors) {
      if (extractor.tool === undefined || extractor.tool === toolName)
        addPath(root, parseFieldPath(extractor.path), extractor)
    }
    // Only tools of the request are worth keeping: other names are the model's invention, and could be many.
    if (this.#compiled.size < 64) this.#compiled.set(toolName, root)
    return root
  }
}

function invalid(message: string): UsageError {
  return new UsageError('invalid_argument', `${message}.`)
}
