/** Watches every run of every test, without changing it. What breaks a standing promise fails the test it happened in. */
import { fileURLToPath } from 'node:url'
import { EventEmitter } from 'eventemitter3'
import type { ResponseEvent } from 'fieldstream'
import { afterEach } from 'vitest'
// Loaded here, since where other clocks stand in place of these nothing is loaded in time.
import '../../src/optional-parts.ts'
import '../../src/tools/tool-runner.ts'
import { ResponseStream } from '../../src/response-stream.ts'
import { RunTrace } from './run-trace.ts'

const sources = fileURLToPath(new URL('../../src/', import.meta.url))
// Taken before any test puts other clocks in their place.
const { setImmediate, setTimeout, clearTimeout } = globalThis

/** Longest that something may go on after a run: an answer is drained, a source left. */
const graceMs = 1000

let violations = new Set<string>()
let traces = new Set<RunTrace>()

function report(violation: string): void {
  violations.add(violation)
}

function open(): RunTrace {
  const trace = new RunTrace(report)
  traces.add(trace)
  return trace
}

/** The file of the library that calls what calls this; `undefined` where it is not the library. */
function callerInLibrary(): string | undefined {
  const { stackTraceLimit } = Error
  Error.stackTraceLimit = 3
  const frame = new Error().stack?.split('\n')[3] ?? ''
  Error.stackTraceLimit = stackTraceLimit
  const start = frame.indexOf(sources)
  if (start < 0) return undefined
  const place = frame.slice(start + sources.length).replace(/\)$/, '')
  // What stands for a network is not what is tested.
  return place.startsWith('testing/') ? undefined : place
}

// -------------------------------------------------------------------------------------------------------------- listeners

const ofListeners = new WeakMap<object, RunTrace>()

const emit = EventEmitter.prototype.emit
EventEmitter.prototype.emit = function (this: EventEmitter, type, ...values: unknown[]) {
  let trace = ofListeners.get(this)
  if (!trace) ofListeners.set(this, (trace = open()))
  if (type === 'error') trace.onError(values[0])
  else trace.onEvent(values[0] as ResponseEvent)
  return emit.call(this, type, ...values)
} as typeof emit

// ------------------------------------------------------------------------------------------------------------------ loops

const iterate = ResponseStream.prototype[Symbol.asyncIterator]
ResponseStream.prototype[Symbol.asyncIterator] = function (this: ResponseStream) {
  const events = iterate.call(this) as AsyncIterableIterator<ResponseEvent, undefined>
  const trace = open()
  const next = events.next.bind(events)
  const leave = events.return!.bind(events)
  let isOver = false
  events.next = () => {
    const result = next()
    result.then(
      ({ value, done }) => {
        if (isOver) return
        if (!done) trace.onEvent(value)
        else {
          isOver = true
          trace.onEnd()
        }
      },
      (error: unknown) => {
        isOver = true
        trace.onError(error)
      },
    )
    return result
  }
  events.return = () => {
    isOver = true
    traces.delete(trace)
    return leave()
  }
  return events
}

// ---------------------------------------------------------------------------------------------------------- what is left

/** What the library waits for and has not let go of, by what it would be reported as. */
let abortListeners = new Map<AbortSignal, Map<unknown, string>>()
const timers = new Map<unknown, string>()

const { addEventListener, removeEventListener } = AbortSignal.prototype
Object.assign(AbortSignal.prototype, {
  addEventListener(this: AbortSignal, ...rest: Parameters<typeof addEventListener>) {
    const caller = callerInLibrary()
    if (caller !== undefined) {
      const listeners = abortListeners.get(this) ?? new Map<unknown, string>()
      abortListeners.set(this, listeners.set(rest[1], caller))
    }
    addEventListener.apply(this, rest)
  },
  removeEventListener(this: AbortSignal, ...rest: Parameters<typeof removeEventListener>) {
    abortListeners.get(this)?.delete(rest[1])
    removeEventListener.apply(this, rest)
  },
})

globalThis.setTimeout = Object.assign((callback: () => void, delay?: number, ...values: []) => {
  const caller = callerInLibrary()
  const timer = setTimeout(
    (...given: []) => {
      timers.delete(timer)
      callback(...given)
    },
    delay,
    ...values,
  )
  if (caller !== undefined && (delay ?? 0) > graceMs) timers.set(timer, caller)
  return timer
}, setTimeout)

globalThis.clearTimeout = (timer) => {
  timers.delete(timer)
  clearTimeout(timer)
}

// ----------------------------------------------------------------------------------------------------------------- console

for (const method of ['debug', 'error', 'info', 'log', 'trace', 'warn'] as const) {
  const write = console[method]
  console[method] = (...values: unknown[]) => {
    const caller = callerInLibrary()
    if (caller !== undefined) report(`the library writes to the console at ${caller}`)
    write(...values)
  }
}

// ------------------------------------------------------------------------------------------------------------------- tests

afterEach(async () => {
  await new Promise((resolve) => setImmediate(resolve))
  if ([...traces].every(({ hasEnded }) => hasEnded)) {
    for (const [signal, listeners] of abortListeners)
      if (!signal.aborted)
        for (const caller of listeners.values()) report(`a listener is left on a signal by ${caller}`)
    for (const caller of timers.values()) report(`a timer is left running by ${caller}`)
  }
  const found = [...violations]
  violations = new Set()
  traces = new Set()
  abortListeners = new Map()
  timers.clear()
  if (found.length > 0) throw new Error(`The run broke a standing promise:\n- ${found.join('\n- ')}`)
})
