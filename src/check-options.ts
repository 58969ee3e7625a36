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

/** The longest delay that timers take; a longer one would fire at once. */
export const maxTimerMs = 2_147_483_647

/**
 * Checks options that are numbers.
 *
 * @throws UsageError `invalid_argument` that names the option and what it may be.
 */
export function checkNumbers(
  caller: string,
  options: object,
  { min = 0, max = maxTimerMs, mayBeOff = false, isWhole = false } = {},
): void {
  for (const [name, value] of Object.entries(options) as [string, unknown][]) {
    if (value === undefined || (mayBeOff && value === false)) continue
    const isNumber = typeof value === 'number' && value >= min && value <= max && (!isWhole || Number.isInteger(value))
    if (isNumber) continue
    throw new UsageError(
      'invalid_argument',
      `\`${name}\` of ${caller} must be a ${isWhole ? 'whole ' : ''}number from ${min} to ${max}${mayBeOff ? ', or false for none' : ''}.`,
    )
  }
}

/** @throws UsageError `invalid_argument` where one of these options is set, and no function. */
export function checkFunctions(caller: string, options: object): void {
  for (const [name, option] of Object.entries(options) as [string, unknown][]) {
    if (option !== undefined && typeof option !== 'function')
      throw new UsageError('invalid_argument', `\`${name}\` of ${caller} must be a function.`)
  }
}
