/**
 * Calls something of the application's, for which nobody waits. What it throws, or what its promise, of whatever library, rejects
 * with, goes to `onFailure` and nowhere else.
 */
export function callGuarded<Argument>(
  callback: (argument: Argument) => unknown,
  argument: Argument,
  onFailure: (cause: unknown) => void,
): void {
  try {
    const result = callback(argument) as Partial<PromiseLike<unknown>> | null | undefined
    if (typeof result?.then === 'function') Promise.resolve(result).catch(onFailure)
  } catch (cause) {
    onFailure(cause)
  }
}
