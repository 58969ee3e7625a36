/** What is tried: answers, faults, stacks and consumers, all at random. */
import fc from 'fast-check'

/** How one attempt goes wrong, or does not. */
export const faultKinds = [
  'overloaded',
  'bad_request',
  'authentication',
  'cut',
  'no evidence',
  'foreign',
  'hang',
  'empty',
  'refusal',
  'length',
  'invalid JSON',
  'against the schema',
  'late error',
  'late hang',
] as const
export type FaultKind = (typeof faultKinds)[number]

/** The arguments of a call, and what an output is. */
export interface Input {
  readonly message: string
  readonly items: readonly string[]
  readonly n: number
}

/** What one attempt is to say, before it is known how it is carried. */
export interface AttemptPlan {
  readonly reasoning: string
  readonly text: string
  readonly inputs: readonly Input[]
  /** Characters of a delta. */
  readonly size: number
  /** Which of the parts is written on next, and how many events each read has; used in turns. */
  readonly order: readonly number[]
  readonly reads: readonly number[]
  readonly pause: 'none' | 'turn' | 'timer'
  readonly fault: FaultKind | undefined
  /** How much of the answer comes before the fault, of 100. */
  readonly at: number
}

/** The attempts at one provider in one step of one run; the last is repeated. */
export type Attempts = readonly AttemptPlan[]

export interface LeafPlan {
  readonly kind: 'leaf'
  /** By run, then by step. */
  readonly attempts: readonly (readonly Attempts[])[]
  readonly wantsJson: boolean
  readonly refusesToStream: boolean
  /** Whether it hands out single events, not reads. */
  readonly isSingle: boolean
}

export type Shape =
  | LeafPlan
  | { readonly kind: 'fallback'; readonly members: readonly Shape[]; readonly coolDown: number }
  | { readonly kind: 'nonStreaming' | 'xmlTools'; readonly of: Shape }

export type StorePlan = 'memory' | 'slow' | 'own' | 'throws' | 'hangs' | 'junk'

export type LayerPlan =
  | { readonly kind: 'cache'; readonly store: StorePlan }
  | { readonly kind: 'rateLimit'; readonly options: { concurrency?: number; requests?: number; per?: number } }
  | { readonly kind: 'retry'; readonly attempts: number; readonly baseDelay: number | undefined }
  | { readonly kind: 'timeout'; readonly idle: number }
  | { readonly kind: 'telemetry' | 'passThrough' | 'rename' }

export interface ConsumersPlan {
  readonly loop:
    { readonly leavesAfter: number | undefined; readonly isSlow: boolean; readonly isWeb: boolean } | undefined
  /** Those that begin with the run, and those that come after so many events, back to an event before. */
  readonly readers: readonly { readonly leavesAfter: number | undefined; readonly isSlow: boolean }[]
  readonly late: readonly { readonly after: number; readonly back: number }[]
  readonly listeners: 'none' | 'plain' | 'throwing'
  readonly view: 'none' | 'text' | 'fields'
  readonly field: boolean
  readonly isFinalFirst: boolean
  readonly abort: { readonly by: 'signal' | 'abort()'; readonly on: 'event' | 'turn'; readonly at: number } | undefined
}

export interface Scenario {
  readonly ask: 'text' | 'tools' | 'forced' | 'output'
  readonly mode: 'stream' | 'generate' | 'generate with onEvent' | 'run'
  /** How two equal requests are made. */
  readonly runs: 'one after the other' | 'at once'
  readonly shape: Shape
  readonly stack: readonly LayerPlan[]
  readonly onInterrupted: 'fail' | 'restart'
  readonly isCached: boolean
  readonly isRaw: boolean
  readonly hasFields: boolean
  readonly progress: boolean
  readonly batch: { chars?: number; deltas?: number; at?: 'word' | 'sentence'; maxWait?: number } | undefined
  readonly replay: boolean
  readonly keepAlive: boolean
  readonly maxToolCalls: number
  readonly isValidatedLater: boolean
  readonly hooksThrow: boolean
  readonly alert: boolean
  readonly tool: 'value' | 'throws' | 'generator' | 'denied'
  readonly onToolError: 'send' | 'throw'
  readonly consumers: readonly ConsumersPlan[]
}

const letters = ['Gast', 'é', '🎉', '. Ja', '。', ' und ', '\n', 'x', '4 %']
const word = fc.array(fc.constantFrom(...letters), { maxLength: 8 }).map((parts) => parts.join('').trim())
const value = fc.array(fc.constantFrom(...letters, '"', '\\', '</tool_call>', '\u2028', '{'), { maxLength: 8 })
const input: fc.Arbitrary<Input> = fc.record({
  message: value.map((parts) => parts.join('')),
  items: fc.array(
    value.map((parts) => parts.join('')),
    { maxLength: 3 },
  ),
  n: fc.nat(99),
})

const often = <Value>(usual: Value, other: fc.Arbitrary<Value>, weight = 3): fc.Arbitrary<Value> =>
  fc.oneof({ weight, arbitrary: fc.constant(usual) }, { weight: 1, arbitrary: other })

const attempt = (faults: readonly FaultKind[]): fc.Arbitrary<AttemptPlan> =>
  fc.record({
    reasoning: fc.oneof(fc.constant(''), word),
    text: word,
    inputs: fc.array(input, { minLength: 1, maxLength: 3 }),
    size: fc.integer({ min: 1, max: 9 }),
    order: fc.array(fc.nat(4), { minLength: 1, maxLength: 12 }),
    reads: fc.array(fc.integer({ min: 0, max: 6 }), { minLength: 1, maxLength: 6 }),
    pause: fc.constantFrom('none' as const, 'turn' as const, 'timer' as const),
    fault: faults.length > 0 ? fc.constantFrom(...faults) : fc.constant(undefined),
    at: often(0, fc.nat(100), 1),
  })

/** The last is repeated for ever, so it must not hang, or the run would come to its limit of time. */
const lasting = faultKinds.filter((kind) => kind !== 'hang')
const attempts: fc.Arbitrary<Attempts> = fc
  .tuple(
    fc.array(attempt(faultKinds), { maxLength: 2 }),
    fc.oneof({ weight: 3, arbitrary: attempt([]) }, { weight: 1, arbitrary: attempt(lasting) }),
  )
  .map(([failing, last]) => [...failing, last])

const leaf: fc.Arbitrary<Shape> = fc.record({
  kind: fc.constant('leaf' as const),
  attempts: fc.array(fc.array(attempts, { minLength: 2, maxLength: 2 }), { minLength: 2, maxLength: 2 }),
  wantsJson: fc.boolean(),
  refusesToStream: often(false, fc.boolean()),
  isSingle: fc.boolean(),
})

const fallbackOf = (member: fc.Arbitrary<Shape>): fc.Arbitrary<Shape> =>
  fc.record({
    kind: fc.constant('fallback' as const),
    members: fc.array(member, { minLength: 2, maxLength: 3 }),
    coolDown: often(0, fc.constant(30_000), 5),
  })
const wrapped = (of: fc.Arbitrary<Shape>): fc.Arbitrary<Shape> =>
  fc.record({ kind: fc.constantFrom('nonStreaming' as const, 'xmlTools' as const), of })

const simple = fc.oneof({ weight: 4, arbitrary: leaf }, { weight: 1, arbitrary: wrapped(leaf) })
const shape = fc.oneof(
  { weight: 3, arbitrary: simple },
  { weight: 4, arbitrary: fallbackOf(simple) },
  { weight: 1, arbitrary: wrapped(fallbackOf(leaf)) },
  { weight: 1, arbitrary: fallbackOf(fc.oneof(leaf, fallbackOf(leaf))) },
)

const retry = fc.record({
  kind: fc.constant('retry' as const),
  attempts: fc.integer({ min: 1, max: 4 }),
  baseDelay: fc.constantFrom(0, 10, undefined),
})
const stack = fc
  .tuple(
    fc.record({
      kind: fc.constant('cache' as const),
      store: fc.constantFrom<StorePlan[]>('memory', 'slow', 'own', 'memory', 'throws', 'hangs', 'junk'),
    }),
    fc.record({
      kind: fc.constant('rateLimit' as const),
      options: fc.constantFrom(
        { concurrency: 1 },
        { requests: 1, per: 1000 },
        { requests: 2, per: 500, concurrency: 2 },
      ),
    }),
    retry,
    retry,
    fc.record({ kind: fc.constant('timeout' as const), idle: fc.integer({ min: 500, max: 5000 }) }),
    fc.constant({ kind: 'telemetry' as const }),
    fc.constant({ kind: 'passThrough' as const }),
    fc.constant({ kind: 'rename' as const }),
  )
  .chain((layers) => fc.shuffledSubarray<LayerPlan>(layers))

const leavesAfter = often<number | undefined>(undefined, fc.oneof(fc.constant(0), fc.nat(12)), 4)
const several: fc.Arbitrary<ConsumersPlan> = fc.record({
  loop: fc.option(fc.record({ leavesAfter, isSlow: fc.boolean(), isWeb: often(false, fc.boolean(), 5) }), {
    nil: undefined,
  }),
  readers: often<ConsumersPlan['readers']>(
    [],
    fc.array(fc.record({ leavesAfter, isSlow: fc.boolean() }), { maxLength: 3 }),
    1,
  ),
  late: fc.array(fc.record({ after: fc.integer({ min: 1, max: 20 }), back: fc.nat(20) }), { maxLength: 2 }),
  listeners: fc.constantFrom('none' as const, 'plain' as const, 'throwing' as const),
  view: fc.constantFrom('none' as const, 'text' as const, 'fields' as const),
  field: fc.boolean(),
  isFinalFirst: fc.boolean(),
  abort: often<ConsumersPlan['abort']>(
    undefined,
    fc.record({
      by: fc.constantFrom('signal' as const, 'abort()' as const),
      on: fc.constantFrom('event' as const, 'turn' as const),
      at: fc.nat(20),
    }),
    5,
  ),
})

/** A loop that has the run to itself. */
const alone: fc.Arbitrary<ConsumersPlan> = fc.record({
  loop: fc.record({ leavesAfter, isSlow: fc.boolean(), isWeb: fc.constant(false) }),
  readers: fc.constant([]),
  late: fc.constant([]),
  listeners: fc.constant('none' as const),
  view: fc.constant('none' as const),
  field: fc.constant(false),
  isFinalFirst: fc.constant(false),
  abort: fc.constant(undefined),
})
const consumers = fc.oneof({ weight: 4, arbitrary: several }, { weight: 1, arbitrary: alone })

export const scenario: fc.Arbitrary<Scenario> = fc.record({
  ask: fc.constantFrom('text' as const, 'tools' as const, 'forced' as const, 'output' as const),
  mode: fc.constantFrom(
    'stream' as const,
    'stream' as const,
    'run' as const,
    'generate' as const,
    'generate with onEvent' as const,
  ),
  runs: often('one after the other' as const, fc.constant('at once' as const), 2),
  shape,
  stack,
  onInterrupted: fc.constantFrom('fail' as const, 'restart' as const),
  isCached: often(true, fc.boolean(), 5),
  isRaw: often(false, fc.boolean(), 5),
  hasFields: fc.boolean(),
  progress: fc.boolean(),
  batch: often<Scenario['batch']>(
    undefined,
    fc.constantFrom<Scenario['batch'][]>(
      { chars: 7 },
      { deltas: 3 },
      { at: 'word' },
      { at: 'sentence', maxWait: 60_000 },
      { maxWait: 30 },
    ),
    1,
  ),
  replay: fc.boolean(),
  keepAlive: often(false, fc.constant(true)),
  maxToolCalls: often(256, fc.constant(1), 9),
  isValidatedLater: fc.boolean(),
  hooksThrow: fc.boolean(),
  alert: fc.boolean(),
  tool: fc.constantFrom('value' as const, 'throws' as const, 'generator' as const, 'denied' as const),
  onToolError: fc.constantFrom('send' as const, 'throw' as const),
  consumers: fc.array(consumers, { minLength: 2, maxLength: 2 }),
})
