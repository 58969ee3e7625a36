import { UsageError } from './errors.ts'

/** Throws where `options` is no object, or has a member that nobody would read. */
export function checkOptions(what: string, options: unknown, known: readonly string[], hint = ''): void {
  if (typeof options !== 'object' || options === null || Array.isArray(options)) {
    throw new UsageError('invalid_argument', `${what} takes an object of options: ${known.join(', ')}.${hint}`)
  }
  for (const name of Object.keys(options)) {
    if (known.includes(name)) continue
    throw new UsageError(
      'invalid_argument',
      `${what} has no option \`${name}\`. Its options: ${known.join(', ')}.${hint}`,
    )
  }
}

/** Throws where one of `limits` is unknown, or no positive number. */
export function checkLimits(what: string, limits: unknown, known: readonly string[]): void {
  if (limits === undefined) return
  checkOptions(what, limits, known)
  for (const [name, limit] of Object.entries(limits as Record<string, unknown>)) {
    if (limit !== undefined && !(typeof limit === 'number' && limit > 0))
      throw new UsageError('invalid_argument', `\`${name}\` in ${what} must be a positive number; Infinity for none.`)
  }
}
