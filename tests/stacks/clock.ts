/** Fake time, which passes only where nothing else is left to do. */
import { vi } from 'vitest'
import { turn } from '../support.ts'

const real = crypto.subtle.digest.bind(crypto.subtle)
/** Work outside this thread, and how often somebody took his time. */
let hashing = 0
let paces = 0

export function fakeTime(): void {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'performance', 'Date'] })
  vi.spyOn(crypto.subtle, 'digest').mockImplementation(async (...given) => {
    hashing++
    try {
      return await real(...given)
    } finally {
      hashing--
    }
  })
}

export function realTime(): void {
  vi.restoreAllMocks()
  vi.useRealTimers()
}

/** Takes a turn, in which no fake time passes. */
export async function pace(): Promise<void> {
  paces++
  await turn()
}

/** Resolves once nothing happens any more by itself. */
export async function quiet(): Promise<void> {
  let before = paces
  for (let turns = 0; turns < 4; turns++) {
    await turn()
    if (hashing > 0 || paces !== before) turns = 0
    before = paces
  }
}

/** Lets time pass from timer to timer until a promise settles. */
export async function settled<Value>(promise: Promise<Value>): Promise<Value> {
  let isDone = false
  const done = promise.finally(() => (isDone = true))
  done.catch(() => undefined)
  for (let steps = 0; ; steps++) {
    await quiet()
    if (isDone) return done
    if (vi.getTimerCount() === 0) throw new Error('It hangs, and no timer is left that could end it.')
    if (steps > 5000) throw new Error('It does not end.')
    await vi.advanceTimersToNextTimerAsync()
  }
}

/** Lets so much time pass. */
export async function pass(milliseconds: number): Promise<void> {
  for (let passed = 0; passed < milliseconds && vi.getTimerCount() > 0; passed += 50) {
    await vi.advanceTimersByTimeAsync(50)
    await quiet()
  }
}
