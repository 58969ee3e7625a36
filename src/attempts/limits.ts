import { UsageError } from '../errors.ts'

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
      `\`${name}\` of ${caller}() must be a ${isWhole ? 'whole ' : ''}number from ${min} to ${max}${mayBeOff ? ', or false for none' : ''}.`,
    )
  }
}
