/** What must come of a scenario, worked out from its scripts by the documented rules, step by step and without streams. */
import type { ErrorCode } from 'fieldstream'
import type { LeafPlan, Scenario, Shape } from './scenario.ts'
import { isCut, type Script } from './script.ts'
import type { World } from './world.ts'

export interface Fault {
  readonly code: ErrorCode
  readonly retryable: boolean
  /** Whether another target is asked. */
  readonly isCurable: boolean
  /** Whether the run is over, whoever would try again. */
  readonly isFatal?: boolean
}

/** How the attempts at one step end. */
interface Played {
  /** The attempts that could be seen, in order. */
  readonly shown: readonly Script[]
  readonly winner?: Script | undefined
  readonly fault?: Fault | undefined
}

export interface ExpectedStep {
  readonly shown: readonly Script[]
  /** The answer, whole and valid. */
  readonly winner: Script | undefined
  readonly isCached: boolean
  /** How often a provider is asked. */
  readonly asked: number
}

export interface Expected {
  readonly steps: readonly ExpectedStep[]
  /** What the run ends with; `undefined` for success. */
  readonly code: ErrorCode | undefined
}

const faults: Readonly<Record<string, Fault>> = {
  overloaded: { code: 'overloaded', retryable: true, isCurable: true },
  bad_request: { code: 'bad_request', retryable: false, isCurable: false },
  authentication: { code: 'authentication', retryable: false, isCurable: true },
  cut: { code: 'stream_truncated', retryable: true, isCurable: true },
  'no evidence': { code: 'stream_truncated', retryable: true, isCurable: true },
  foreign: { code: 'provider_error', retryable: false, isCurable: true },
  hang: { code: 'timeout', retryable: true, isCurable: true },
}
/** Beyond it, the limit of time for the whole run may come first. */
const longestMs = 200_000
/** How long an attempt that hangs takes. */
const hangMs = 60_000

const empty: Fault = { code: 'empty_response', retryable: true, isCurable: true }
const outOfTime: Fault = { code: 'timeout', retryable: false, isCurable: false, isFatal: true }
const malformed: Fault = { code: 'invalid_json', retryable: false, isCurable: false }

export class Oracle {
  readonly #world: World
  readonly #scenario: Scenario
  /** What the cache has, by the conversation. */
  readonly #kept = new Map<string, Script>()

  constructor(world: World) {
    this.#world = world
    this.#scenario = world.scenario
  }

  /**
   * What a run comes to that nobody ends before; `undefined` where that is not determined. `showsReasoning` says whether an
   * attempt that only thought was seen.
   */
  expect(run: number, showsReasoning: boolean): Expected | undefined {
    const { mode, tool, onToolError, isCached, isRaw } = this.#scenario
    const steps: ExpectedStep[] = []
    let conversation = ''
    for (let step = 0; ; step++) {
      const kept = this.#isKept ? this.#kept.get(conversation) : undefined
      const player = new Player(this.#world, run, step, showsReasoning)
      const played: Played = kept ? { shown: [kept], winner: kept } : player.play()
      // How many calls of it were seen depends on how its tags are read.
      if (
        played.shown.some(
          (one) => isCut(one) && one.channel === 'xml' && one.inputs.length > this.#scenario.maxToolCalls,
        )
      )
        return undefined
      if (player.waitedMs > longestMs) return undefined
      const winner = played.winner
      const code = this.#limitOf(played) ?? played.fault?.code ?? (winner && this.#faultOf(winner, step))
      steps.push({
        shown: played.shown,
        winner: code === undefined ? winner : undefined,
        isCached: kept !== undefined,
        asked: player.asked,
      })
      if (code !== undefined || !winner) return { steps, code }
      const isWorthKeeping = winner.fault !== 'empty' && winner.fault !== 'length'
      if (isCached && !isRaw && isWorthKeeping) this.#kept.set(conversation, winner)
      conversation += `${winner.id} `
      if (mode !== 'run' || winner.inputs.length === 0) return { steps, code: undefined }
      if (tool === 'throws' && onToolError === 'throw') return { steps, code: 'tool_execution_failed' }
    }
  }

  /** Whether equal requests can have to do with each other. */
  get mayShare(): boolean {
    const { stack, isCached, isRaw } = this.#scenario
    return stack.some(({ kind }) => kind === 'cache') && isCached && !isRaw
  }

  get #isKept(): boolean {
    const isGood = this.#scenario.stack.some(
      (layer) => layer.kind === 'cache' && ['memory', 'slow', 'own'].includes(layer.store),
    )
    return isGood && this.mayShare
  }

  /** Whether some attempt that was seen called more tools than are allowed. */
  #limitOf({ shown }: Played): ErrorCode | undefined {
    const isOver = shown.some(
      (script) =>
        script.events.slice(0, script.count).filter(({ type }) => type === 'tool-input-start').length >
        this.#scenario.maxToolCalls,
    )
    const isOverInTags = shown.some(
      (script) => script.channel === 'xml' && !isCut(script) && script.inputs.length > this.#scenario.maxToolCalls,
    )
    return isOver || isOverInTags ? 'limit_exceeded' : undefined
  }

  /** What is wrong with a complete answer. */
  #faultOf({ fault }: Script, step: number): ErrorCode | undefined {
    const { ask } = this.#scenario
    if (fault === 'refusal') return 'refused'
    if (fault === 'invalid JSON') return 'invalid_json'
    if (fault === 'against the schema') return 'schema_mismatch'
    if (fault === 'empty' && step === 0 && (ask === 'forced' || ask === 'output')) return 'no_payload'
    return undefined
  }
}

/** Plays the attempts at one step. */
class Player {
  asked = 0
  waitedMs = 0
  readonly #world: World
  readonly #run: number
  readonly #step: number
  readonly #showsReasoning: boolean
  readonly #counts = new Map<number, number>()
  #places = new Map<Shape, number>()

  constructor(world: World, run: number, step: number, showsReasoning: boolean) {
    this.#world = world
    this.#run = run
    this.#step = step
    this.#showsReasoning = showsReasoning
    let place = 0
    const count = (shape: Shape): void => {
      if (shape.kind === 'leaf') this.#places.set(shape, place++)
      else if (shape.kind === 'fallback') shape.members.forEach(count)
      else count(shape.of)
    }
    count(world.scenario.shape)
  }

  play(): Played {
    const { shape, mode, stack } = this.#world.scenario
    let open = (): Played => this.#ask(shape, false, mode === 'generate')
    for (const layer of stack.toReversed()) {
      if (layer.kind !== 'retry') continue
      const inner = open
      open = () => {
        let failures = 0
        return this.#attempts(
          inner,
          () => false,
          ({ retryable }) => retryable && ++failures < layer.attempts,
        )
      }
    }
    return open()
  }

  #ask(shape: Shape, isXml: boolean, isWhole: boolean): Played {
    switch (shape.kind) {
      case 'nonStreaming':
        return this.#ask(shape.of, isXml, true)
      case 'xmlTools':
        return this.#ask(shape.of, true, isWhole)
      case 'leaf':
        return this.#leaf(shape, isXml, isWhole || shape.refusesToStream)
      case 'fallback': {
        const waiting = [...shape.members]
        return this.#attempts(
          () => this.#ask(waiting.shift()!, isXml, isWhole),
          () => waiting.length > 0,
          ({ isCurable }) => isCurable && waiting.length > 0,
          true,
        )
      }
    }
  }

  #leaf(plan: LeafPlan, isXml: boolean, isWhole: boolean): Played {
    const place = this.#places.get(plan)!
    const n = this.#counts.get(place) ?? 0
    this.#counts.set(place, n + 1)
    this.asked++
    const script = this.#world.script(plan, place, this.#run, this.#step, n, isXml)
    const isSeen = script.events.slice(0, script.count).some(({ type }) => {
      return type === 'reasoning-delta' ? this.#showsReasoning : type !== 'start'
    })
    const shown = isSeen ? [script] : []
    if (script.fault === 'hang' && !this.#world.scenario.stack.some(({ kind }) => kind === 'timeout'))
      this.waitedMs += hangMs
    if (script.fault === 'hang' && isWhole && script.count === 0) return { shown, fault: outOfTime }
    if (isCut(script)) return { shown, fault: faults[script.fault!]! }
    // Who reads tags finds it before anybody else.
    if (script.channel === 'xml' && script.fault === 'invalid JSON' && script.inputs.length > 0)
      return { shown, fault: malformed }
    return { shown, winner: script }
  }

  #attempts(
    open: () => Played,
    refusesEmpty: () => boolean,
    isToGoOn: (fault: Fault) => boolean,
    isFallback = false,
  ): Played {
    const mayRestart = this.#world.scenario.onInterrupted === 'restart'
    const shown: Script[] = []
    const failed: Fault[] = []
    for (;;) {
      const played = open()
      let { fault } = played
      if (played.winner?.fault === 'empty' && (shown.length === 0 || mayRestart) && refusesEmpty()) {
        shown.push(...played.shown.slice(0, -1))
        fault = empty
      } else shown.push(...played.shown)
      if (!fault) return { shown, winner: played.winner }
      failed.push(fault)
      const mayContinue = !fault.isFatal && (shown.length === 0 || mayRestart)
      if (mayContinue && isToGoOn(fault)) continue
      if (!mayContinue || !isFallback || !fault.isCurable) return { shown, fault }
      const retryable = failed.some((one) => one.retryable)
      return { shown, fault: { code: 'attempts_exhausted', retryable, isCurable: true } }
    }
  }
}
