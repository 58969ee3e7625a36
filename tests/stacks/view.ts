/** What one consumer has of a run, who does with its events what the documentation says. */
import type { ResponseEvent } from 'fieldstream'
import { RunTrace } from '../trace/run-trace.ts'

export const eventTypes = [
  'start',
  'text-delta',
  'reasoning-delta',
  'tool-input-start',
  'tool-input-delta',
  'tool-input-end',
  'field-delta',
  'field-end',
  'progress',
  'tool-call',
  'tool-progress',
  'tool-result',
  'tool-error',
  'finish',
  'restart',
  'raw',
] as const satisfies ResponseEvent['type'][]

interface Call {
  readonly toolName: string
  input: string
  deltas: number
}

/** One step of a run. */
export class StepView {
  start: Extract<ResponseEvent, { type: 'start' }> | undefined
  text = ''
  reasoning = ''
  restarts = 0
  /** The last, until it is followed by its `start`. */
  restart: Extract<ResponseEvent, { type: 'restart' }> | undefined
  readonly calls = new Map<string, Call>()
  readonly fieldEnds: { readonly path: string; readonly value: unknown; readonly toolCallId: string | undefined }[] = []
  /** What is whole and valid, and what became of it. */
  readonly toolCalls: { readonly toolCallId: string; readonly toolName: string; readonly input: unknown }[] = []
  readonly toolEvents: Extract<ResponseEvent, { type: 'tool-result' | 'tool-error' | 'tool-progress' }>[] = []
}

export class View {
  readonly #isWhole: boolean
  readonly steps: StepView[] = [new StepView()]
  readonly events: ResponseEvent[] = []
  /** What is wrong with what came, whatever the scripts say. */
  readonly faults: string[] = []
  readonly #trace: RunTrace = new RunTrace((violation) => this.faults.push(violation))
  ratio = 0
  hasFinished = false
  #error: unknown

  constructor(isWhole = true) {
    this.#isWhole = isWhole
  }

  get error(): unknown {
    return this.#error
  }

  set error(error: unknown) {
    this.#error = error
    this.#trace.onError(error)
  }

  get step(): StepView {
    return this.steps.at(-1)!
  }

  take(event: ResponseEvent): void {
    // Who comes late has not seen what deltas go on from.
    if (this.#isWhole) this.#trace.onEvent(event)
    this.events.push(event)
    if (event.type === 'start' && this.step.toolEvents.length > 0) this.steps.push(new StepView())
    const { step } = this
    switch (event.type) {
      case 'start':
        if (step.start && !(event.attempt > step.start.attempt))
          this.faults.push(`attempt ${event.attempt} starts after ${step.start.attempt}`)
        if (step.restart && (event.attempt !== step.restart.attempt || event.provider !== step.restart.to.provider))
          this.faults.push(`a restart to attempt ${step.restart.attempt} is followed by ${event.attempt}`)
        step.start = event
        step.restart = undefined
        return
      case 'text-delta':
        step.text = step.text.slice(0, event.length - event.delta.length) + event.delta
        return
      case 'reasoning-delta':
        step.reasoning += event.delta
        return
      case 'tool-input-start':
        step.calls.set(event.toolCallId, { toolName: event.toolName, input: '', deltas: 0 })
        return
      case 'tool-input-delta':
        if (!this.#isWhole) return
        step.calls.get(event.toolCallId)!.input += event.delta
        step.calls.get(event.toolCallId)!.deltas++
        return
      case 'field-end':
        step.fieldEnds.push({ path: event.path, value: event.value, toolCallId: event.toolCallId })
        return
      case 'restart':
        step.restarts++
        step.restart = event
        if (this.#isWhole && (event.shown.find(({ path }) => path === undefined)?.length ?? 0) !== step.text.length)
          this.faults.push('a restart does not say how much of the text was shown')
        step.reasoning = ''
        step.calls.clear()
        step.fieldEnds.length = 0
        return
      case 'tool-call':
        step.toolCalls.push({ toolCallId: event.toolCallId, toolName: event.toolName, input: event.input })
        return
      case 'tool-progress':
      case 'tool-result':
      case 'tool-error':
        step.toolEvents.push(event)
        return
      case 'progress':
        if (!(event.ratio > this.ratio)) this.faults.push(`progress falls from ${this.ratio} to ${event.ratio}`)
        this.ratio = event.ratio
        return
      case 'finish':
        this.hasFinished = true
    }
  }
}
