import { setTimeout as sleep } from 'node:timers/promises'
import { inspect } from 'node:util'
import {
  isLLMError,
  type LLMError,
  type LLMResponse,
  type ResponseStream,
  retry,
  StreamingLLMClient,
  timeout,
  tool,
} from 'fieldstream'
import { type FaultServer, startFaultServer } from './fault-server.ts'
import {
  type AnswerCase,
  type Case,
  type CheckCase,
  type Lab,
  LateError,
  type Outcome,
  type Row,
  usualFrames,
} from './row.ts'
import { framesOf, planted, usualInput, type Wire, type WireName } from './wires.ts'

/** What came of one case of a row on one wire. */
export interface Result {
  readonly row: number
  readonly wire: WireName
  readonly name: string
  readonly promised: string
  readonly observed: string
  /** What is wrong, if anything is. */
  readonly faults: readonly string[]
  /** Whether all that is wrong is that something took too long, which may be the machine's doing. */
  readonly isOnlyLate?: boolean
}

/** The tool of the usual answer. */
export const ask = tool({
  name: 'ask',
  description: 'Asks the user',
  input: { properties: { message: { type: 'string' }, count: { type: 'number' } } },
})

export const request = {
  messages: [{ role: 'user' as const, content: planted.prompt }],
  tools: [ask],
  fields: { message: 'message' },
}

const closingMs = 100
const patienceMs = 20_000

/** The cases of a row on a wire, with what it takes to run each. */
export function casesOf(row: Row, wire: Wire): { readonly name: string; run(): Promise<Result> }[] {
  const name = (one: Case, i: number): string => one.name ?? (i === 0 ? '' : String(i + 1))
  return (row.cases?.(labOf(wire).lab) ?? []).map((one, i) => ({
    name: name(one, i),
    run: async () => {
      // Made again, so that what one case waits for is not what another saw.
      const { lab, sawText, stop } = labOf(wire)
      const fresh = row.cases!(lab)[i]!
      try {
        const run = 'check' in fresh ? runCheck(fresh, lab) : runAnswer(fresh, lab, sawText)
        const result = await Promise.race([run, hung(fresh)])
        return { row: row.number, wire: wire.name, name: name(fresh, i), ...result }
      } finally {
        await stop()
      }
    },
  }))
}

/** What is observed of a case that does not end. */
async function hung({ promised }: Case): Promise<Omit<Result, 'row' | 'wire' | 'name'>> {
  await sleep(patienceMs, undefined, { ref: false })
  const words = typeof promised === 'string' ? promised : wordsOf(promised, promised)
  return { promised: words, observed: 'hangs', faults: [`no end within ${patienceMs} ms`] }
}

export function labOf(wire: Wire): { lab: Lab; sawText: () => void; stop: () => Promise<void> } {
  const frames = usualFrames(wire)
  const text = frames.findIndex((frame) => frame.includes('plante'))
  const head: Lab['head'] = (headers, rest) => ({
    head: { headers: { 'content-type': wire.contentType, [wire.requestIdHeader]: 'req_1', ...headers }, ...rest },
  })
  const saw = Promise.withResolvers<undefined>()
  const servers: FaultServer[] = []
  return {
    lab: {
      wire,
      frames,
      begun: frames.slice(0, text + 1),
      evidence: frames.slice(0, frames.length - wire.framesAfterEvidence),
      good: [head(), frames.join('')],
      // Not for ever: what is not delivered is to be seen as such.
      seen: { wait: () => Promise.race([saw.promise, sleep(2000, undefined, { ref: false })]) },
      head,
      answer: (...args) => framesOf(wire, ...args),
      provider: (options) => wire.create(options),
      async serve(answer, options) {
        const server = await startFaultServer((_, index) => answer(index), options)
        servers.push(server)
        return server
      },
    },
    sawText: () => saw.resolve(undefined),
    stop: async () => {
      await Promise.all(servers.map((server) => server.stop()))
    },
  }
}

async function runCheck(one: CheckCase, lab: Lab): Promise<Omit<Result, 'row' | 'wire' | 'name'>> {
  try {
    await one.check(lab)
    return { promised: one.promised, observed: 'as promised', faults: [] }
  } catch (error) {
    const { message } = error as Error
    const faults = [message.replaceAll(/\s+/g, ' ').slice(0, 500)]
    return { promised: one.promised, observed: 'otherwise', faults, isOnlyLate: error instanceof LateError }
  }
}

async function runAnswer(
  one: AnswerCase,
  lab: Lab,
  sawText: () => void,
): Promise<Omit<Result, 'row' | 'wire' | 'name'>> {
  const { promised } = one
  const persisting = await attempt(one, lab, sawText, () => one.script)
  const faults = [...persisting.faults, ...differences(promised, persisting.outcome)]
  const late = [...persisting.late]
  // A fault that is not the server's does not go away with it.
  if (promised.attempts > 1 && promised.code !== 'complete' && !one.wireOptions) {
    const passing = await attempt(one, lab, sawText, (index) => (index === 0 ? one.script : lab.good))
    const healed = { code: 'complete', attempts: promised.attempts } as const
    const more = [...passing.faults, ...differences(healed, passing.outcome)]
    faults.push(...more.map((fault) => `then healthy: ${fault}`))
    late.push(...passing.late)
  }
  return {
    promised: wordsOf(promised, promised),
    observed: wordsOf(persisting.outcome, promised),
    faults: [...faults, ...late],
    isOnlyLate: late.length > 0 && faults.length === 0,
  }
}

interface Attempted {
  readonly outcome: Outcome
  readonly faults: readonly string[]
  /** What took longer than promised. */
  readonly late: readonly string[]
}

async function attempt(
  one: AnswerCase,
  lab: Lab,
  sawText: () => void,
  script: (index: number) => AnswerCase['script'],
): Promise<Attempted> {
  const server = await lab.serve(script, one.onConnection && { onConnection: one.onConnection })
  const provider = lab.provider({ baseURL: server.baseURL, ...one.wireOptions, ...one.reach?.(server) })
  const client = new StreamingLLMClient({
    provider,
    limits: one.limits,
    middleware: [timeout(one.timeouts), retry({ attempts: 2, baseDelay: 1, random: () => 0, ...one.retry })],
  })
  const startedAt = performance.now()
  const stream = client.stream({ ...request, ...one.request } as never) as unknown as ResponseStream
  const { text: wholeText = planted.text, inputs = [usualInput] } = one.expected ?? {}
  const faults: string[] = []
  let error: LLMError | undefined
  let text = ''
  let message = ''
  let attempts = 0
  let ends = 0
  try {
    for await (const event of stream) {
      if (ends > 0) faults.push(`${event.type} after the end`)
      if (event.type === 'text-delta') {
        text += event.delta
        if (!event.delta.isWellFormed() && wholeText.isWellFormed()) faults.push('a delta ends within a character')
        sawText()
      } else if (event.type === 'field-delta') message += event.delta
      else if (event.type === 'start') attempts = event.attempt
      else if (event.type === 'finish') ends++
    }
  } catch (caught) {
    error = caught as LLMError
    if (ends > 0) faults.push('an error after the end')
    ends++
  }
  const settledAt = performance.now()
  const response = await stream.final().catch((caught: unknown) => {
    if (caught !== error) faults.push('final() fails with another error')
    return undefined
  })
  if (ends !== 1) faults.push(`${ends} ends`)
  if ((response === undefined) === (error === undefined)) faults.push('final() and the loop differ')
  if (response) {
    if (response.text !== wholeText || text !== wholeText) faults.push('the text is not the one that was sent')
    const got = response.toolCalls.map(({ input }) => input)
    if (inspect(got, { depth: 9 }) !== inspect(inputs, { depth: 9 }))
      faults.push('the calls are not those that were sent')
  } else if (!wholeText.startsWith(text)) faults.push('what was seen is no beginning of the text')
  if (one.expected === undefined && !usualInput.message.startsWith(message))
    faults.push('what was seen is no beginning of the field')
  const late = [...(await lateSockets(server, settledAt, response !== undefined)), ...lateRequests(one, server)]
  if (one.within !== undefined && settledAt - startedAt > one.within)
    late.push(`took ${Math.round(settledAt - startedAt)} ms, more than ${one.within}`)
  faults.push(...quietFaults(error), ...earlyRequests(one, server))
  if (error && !isLLMError(error)) return { outcome: { code: String(error) as never, attempts: 0 }, faults, late }
  attempts = error?.attempt ?? attempts
  const isDirect = !one.reach && !one.wireOptions && !one.onConnection
  if (isDirect && server.requests.length !== attempts)
    faults.push(`${server.requests.length} requests in ${attempts} attempts`)
  return { outcome: outcomeOf(error, response, attempts), faults, late }
}

function outcomeOf(error: LLMError | undefined, response: LLMResponse | undefined, attempts: number): Outcome {
  if (!error) return { code: 'complete', attempts, warnings: response!.warnings.map(({ code }) => code) }
  const { reason, limit } = error as { reason?: unknown; limit?: unknown }
  return {
    code: error.code,
    attempts,
    ...(error.phase !== undefined && { phase: error.phase }),
    ...(typeof reason === 'string' && { reason }),
    ...(typeof limit === 'string' && { limit }),
    ...(error.retryAfterMs !== undefined && { retryAfterMs: error.retryAfterMs }),
  }
}

function differences(promised: Outcome, observed: Outcome): string[] {
  return (Object.keys(promised) as (keyof Outcome)[]).flatMap((name) =>
    inspect(promised[name]) === inspect(observed[name])
      ? []
      : [`${name} is ${inspect(observed[name])}, not ${inspect(promised[name])}`],
  )
}

/** An outcome in words, as far as `promised` speaks of it. */
function wordsOf(outcome: Outcome, promised: Outcome): string {
  const { code, attempts, warnings = [] } = outcome
  const details = (['phase', 'reason', 'limit'] as const).flatMap((name) =>
    promised[name] === undefined ? [] : [outcome[name]],
  )
  const warned = promised.warnings ? warnings : []
  return [
    code,
    ...details,
    ...warned.map((warning) => `warns: ${warning}`),
    ...(attempts > 1 ? [`× ${attempts}`] : []),
  ].join(', ')
}

/** What an error must not say where it is logged. */
export function quietFaults(error: unknown): string[] {
  if (error === undefined) return []
  const { message, stack } = error as Error
  const printed = [message, stack, inspect(error, { depth: Infinity }), JSON.stringify(error)].join('\n')
  return printed.includes('planted') ? ['the error quotes what it must not'] : []
}

function spacingOf({ requests }: FaultServer): number {
  return requests.length < 2 ? 0 : Math.round(requests[1]!.at - requests[0]!.at)
}

function earlyRequests({ spacing }: AnswerCase, server: FaultServer): string[] {
  const waited = spacingOf(server)
  return spacing && server.requests.length > 1 && waited < spacing[0]
    ? [`asked again after ${waited} ms, before ${spacing[0]}`]
    : []
}

function lateRequests({ spacing }: AnswerCase, server: FaultServer): string[] {
  const waited = spacingOf(server)
  return spacing && waited > spacing[1] ? [`asked again after ${waited} ms, more than ${spacing[1]}`] : []
}

/** Connections on which the server is not through with its answer are to be closed by the one who gave up. */
async function lateSockets({ connections }: FaultServer, settledAt: number, isComplete: boolean): Promise<string[]> {
  const failed = isComplete ? connections.slice(0, -1) : connections
  const late = sleep(closingMs + 400, Infinity, { ref: false })
  const closedAt = await Promise.all(
    failed.filter(({ isAnswering }) => isAnswering).map(({ closed }) => Promise.race([closed, late])),
  )
  const latest = Math.max(0, ...closedAt) - settledAt
  return latest > closingMs ? [`a connection was closed after ${Math.round(latest)} ms`] : []
}
