/** Whether a timer keeps the process alive. Browsers have no such thing: there, nothing is kept alive by a timer. */
export function keepAlive(timer: unknown, isWanted: boolean): void {
  const { ref, unref } = timer as { ref?: () => void; unref?: () => void }
  ;(isWanted ? ref : unref)?.call(timer)
}

/** Waits; rejects with the signal's reason as soon as it fires. */
export async function sleep(milliseconds: number, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted()
  if (milliseconds <= 0) return
  await new Promise<void>((resolve, reject) => {
    const onAbort = (): void => {
      clearTimeout(timer)
      reject(signal.reason)
    }
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', onAbort)
      resolve()
    }, milliseconds)
    signal.addEventListener('abort', onAbort, { once: true })
  })
}
