/** What a provider says in one attempt, by what is planned for it, asked of it, and the channel that carries calls. */
import type { StreamEvent } from 'fieldstream'
import { finish, input, inputEnd, inputStart, pieces, reasoning, start, text } from '../support.ts'
import type { AttemptPlan, FaultKind, Input, Scenario } from './scenario.ts'

export type Channel = 'native' | 'json' | 'xml'

/** Begins every text of the model, so that it is known again where it must not be. */
export const secret = 'Zqx'

export interface Script {
  /** Also the response's. */
  readonly id: string
  readonly plan: AttemptPlan
  readonly channel: Channel
  /** What a consumer has of it in the end. */
  readonly text: string
  readonly reasoning: string
  readonly inputs: readonly Input[]
  readonly output: Input | undefined
  /** As the provider yields them: those of a whole answer, and how many come. */
  readonly events: readonly StreamEvent[]
  readonly count: number
  readonly fault: FaultKind | undefined
}

const cuts: readonly (FaultKind | undefined)[] = [
  'overloaded',
  'bad_request',
  'authentication',
  'cut',
  'no evidence',
  'foreign',
  'hang',
]

/** Whether the attempt fails before its evidence. */
export function isCut({ fault }: Pick<Script, 'fault'>): boolean {
  return cuts.includes(fault)
}

export function scriptOf(
  plan: AttemptPlan,
  { id, run, channel, ask }: { id: string; run: number; channel: Channel; ask: Scenario['ask'] },
): Script {
  const fault =
    ask === 'text' && ['invalid JSON', 'against the schema'].includes(plan.fault ?? '') ? undefined : plan.fault
  const calls = ask === 'tools' ? plan.inputs : ask === 'forced' ? plan.inputs.slice(0, 1) : []
  // Another run must not come to the same conversation by chance.
  const inputs = calls.map((call) => ({ ...call, message: secret + call.message, n: call.n + 100 * run }))
  const output = ask === 'output' ? { ...plan.inputs[0]!, message: secret + plan.inputs[0]!.message } : undefined
  // Before a tag there is text, so that it is known from when on something can be seen.
  const hasText = ask === 'text' || (ask === 'tools' && plan.text !== '') || channel === 'xml'
  const words = output ? broken(output, fault) : hasText ? secret + plan.text : ''
  const whole: Omit<Script, 'events' | 'count'> = {
    id,
    plan,
    channel,
    text: words,
    reasoning: plan.reasoning,
    inputs,
    output,
    fault: fault === 'length' && ask !== 'text' ? undefined : fault,
  }
  if (fault === 'empty') {
    const events = [{ ...start, responseId: id }, finish('stop')]
    return { ...whole, text: '', reasoning: '', inputs: [], output: undefined, events, count: events.length }
  }
  const events = [{ ...start, responseId: id }, ...eventsOf(whole), finish(reasonOf(whole))]
  const count = isCut(whole) ? Math.floor((events.length * plan.at) / 101) : events.length
  // Calls count in the order in which they begin.
  const begun = events.flatMap((event) =>
    event.type === 'tool-input-start' ? [Number(event.toolCallId.split(' ')[1])] : [],
  )
  return { ...whole, ...(begun.length > 0 && { inputs: begun.map((i) => inputs[i]!) }), events, count }
}

function reasonOf({ fault, inputs, channel }: Omit<Script, 'events' | 'count'>) {
  if (fault === 'refusal') return 'refusal'
  if (fault === 'length') return 'length'
  return inputs.length > 0 && channel === 'native' ? 'tool-calls' : 'stop'
}

function broken(value: Input, fault: FaultKind | undefined): string {
  if (fault === 'against the schema') return JSON.stringify({ ...value, n: 'many' })
  return JSON.stringify(value).slice(0, fault === 'invalid JSON' ? -1 : undefined)
}

function eventsOf({ id, plan, channel, text: words, inputs, fault }: Omit<Script, 'events' | 'count'>): StreamEvent[] {
  const { size, order } = plan
  const jsons = inputs.map((value, i) => (i === inputs.length - 1 ? broken(value, fault) : broken(value, undefined)))
  const thoughts = pieces(plan.reasoning, size).map(reasoning)
  if (channel === 'xml') {
    const tags = jsons.map((json) => `<tool_call>\n{"name":"answer","arguments":${json}}\n</tool_call>`)
    return [...thoughts, ...pieces([words, ...tags].join(''), size).map(text)]
  }
  const lanes =
    channel === 'json'
      ? [thoughts, pieces(jsons.join(''), size).map(text)]
      : [
          thoughts,
          pieces(words, size).map(text),
          ...jsons.map((json, i) => [
            inputStart(`${id} ${i}`),
            ...pieces(json, size).map((delta) => input(`${id} ${i}`, delta)),
            inputEnd(`${id} ${i}`),
          ]),
        ]
  const events: StreamEvent[] = []
  for (let turn = 0; lanes.some((lane) => lane.length > 0); turn++) {
    const open = lanes.filter((lane) => lane.length > 0)
    events.push(open[order[turn % order.length]! % open.length]!.shift()!)
  }
  return events
}

/** What comes of a script, in reads; some are empty. */
export function readsOf({ events, count, plan: { reads } }: Script): StreamEvent[][] {
  const batches: StreamEvent[][] = []
  for (let from = 0, turn = 0; from < count; turn++) {
    const size = turn >= 2 * reads.length ? Math.max(1, reads[turn % reads.length]!) : reads[turn % reads.length]!
    batches.push(events.slice(from, Math.min(count, from + size)))
    from += size
  }
  return batches
}

/** What a consumer has by a number of its events. Of calls in tags it cannot be told without reading them. */
export interface Parts {
  readonly text: string
  readonly reasoning: string
  /** The text of each call's arguments, in the order in which they begin. */
  readonly inputs: readonly string[]
}

export function partsOf({ channel, events }: Script, count: number): Parts {
  let words = ''
  let thoughts = ''
  const inputs = new Map<string, string>()
  for (const event of events.slice(0, count)) {
    if (event.type === 'reasoning-delta') thoughts += event.delta
    else if (event.type === 'tool-input-start') inputs.set(event.toolCallId, '')
    else if (event.type === 'tool-input-delta')
      inputs.set(event.toolCallId, inputs.get(event.toolCallId)! + event.delta)
    else if (event.type !== 'text-delta') continue
    else if (channel === 'json') inputs.set('', (inputs.get('') ?? '') + event.delta)
    else words += event.delta
  }
  return { text: words, reasoning: thoughts, inputs: [...inputs.values()] }
}
