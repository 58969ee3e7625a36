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
