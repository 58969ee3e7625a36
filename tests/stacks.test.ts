import { getEventListeners } from 'node:events'
import { inspect } from 'node:util'
import {
  type AttemptFailure,
  type LLMError,
  type LLMRequest,
  type LLMResponse,
  type ResponseEvent,
  type RunResponse,
  type StreamEvent,
  StreamingLLMClient,
  tool,
} from 'fieldstream'
import fc from 'fast-check'
import { afterEach, beforeAll, beforeEach, expect, onTestFinished, test, vi } from 'vitest'
import { z } from 'zod'
import { fakeTime, pace, pass, quiet, realTime, settled } from './stacks/clock.ts'
import { type Account, codeOf, consume } from './stacks/consume.ts'
import { type Expected, Oracle } from './stacks/oracle.ts'
import { type ConsumersPlan, type Input, type Scenario, scenario } from './stacks/scenario.ts'
import { isCut, partsOf, type Script, secret } from './stacks/script.ts'
import { View } from './stacks/view.ts'
import { World } from './stacks/world.ts'
import { finish, rejectionOf, start, streamOf } from './support.ts'

/** More by hand: `STACKS=20000 npx vitest run tests/stacks.test.ts`. */
const cases = Number(process.env['STACKS'] ?? 400)
/** What failed, again: `STACKS_AGAIN='{ "seed": …, "path": … }'`, as it was printed. */
const again = JSON.parse(process.env['STACKS_AGAIN'] ?? '{}') as { seed?: number; path?: string }

beforeAll(async () => {
  // Loaded here, since fake time does not wait for it.
  await Promise.all([import('p-queue'), import('lru-cache'), import('@opentelemetry/api')])
  for (const toolInput of ['json', 'xml'] as const) {
    const answer = tool({ name: 'answer' })
    await rejectionOf(streamOf([[start, finish()]], { tools: [answer], toolChoice: answer, toolInput }).final())
  }
})

beforeEach(fakeTime)
afterEach(realTime)

const payload = z.object({ message: z.string(), items: z.array(z.string()), n: z.number() })
const asyncPayload = payload.refine(async () => {
  await pace()
  return true
})
const fields = { message: 'message', item: 'items[*]', n: 'n' }

/** A client for a scenario, and what was told of its runs. */
function clientOf(world: World) {
  const { hooksThrow, alert, maxToolCalls } = world.scenario
  const told: Record<string, unknown[]> = {}
  const hook =
    (name: string) =>
    (fact: unknown): void => {
      ;(told[name] ??= []).push(fact)
      if (hooksThrow) throw new Error('The hook has a bug.')
    }
  const hooks = ['onStart', 'onFirstDelta', 'onCacheHit', 'onFallback', 'onAttempt', 'onFinish', 'onError', 'onMetrics']
  const client = new StreamingLLMClient({
    provider: world.provider,
    middleware: world.middleware,
    limits: { maxToolCalls },
    ...Object.fromEntries(hooks.map((name) => [name, hook(name)])),
    ...(alert && { alerts: { timeToFirstByteMs: 5 }, onAlert: hook('onAlert') }),
  })
  return { client, told }
}

/** The tool of a scenario, with account of how often each call ran. */
function toolOf({ mode, tool: kind, isValidatedLater }: Scenario) {
  const input = isValidatedLater ? asyncPayload : payload
  const ran = new Map<string, number>()
  const count = (id: string): void => void ran.set(id, (ran.get(id) ?? 0) + 1)
  const options = { name: 'answer', input } as const
  const made =
    mode !== 'run'
      ? tool(options)
      : kind === 'generator'
        ? tool({
            ...options,
            async *execute({ n }, { toolCallId }) {
              count(toolCallId)
              yield 'at work'
              await Promise.resolve()
              return { n }
            },
          })
        : tool({
            ...options,
            needsApproval: kind === 'denied',
            execute: ({ n }, { toolCallId }) => {
              count(toolCallId)
              if (kind === 'throws') throw new Error('The tool has a bug.')
              return { n }
            },
          })
  return { made, ran }
}

async function run(world: World, client: StreamingLLMClient, n: number, plan: ConsumersPlan) {
  const { scenario } = world
  const { ask, mode, onInterrupted, hasFields, isCached, isRaw, progress, batch, replay, keepAlive, isValidatedLater } =
    scenario
  const { made, ran } = toolOf(scenario)
  const signal = new AbortController()
  const hasPayload = ask !== 'text'
  const request = {
    messages: [{ role: 'user', content: 'Hello' }],
    metadata: { run: n },
    signal: signal.signal,
    onInterrupted,
    progress,
    batch,
    ...(ask === 'tools' && { tools: [made] }),
    ...(ask === 'forced' && { tools: [made], toolChoice: { name: 'answer' } }),
    ...(ask === 'output' && { output: isValidatedLater ? asyncPayload : payload }),
    ...(hasPayload && hasFields && { fields }),
    ...(!isCached && { cache: false }),
    ...(isRaw && { raw: true }),
    ...(replay && { replay: { events: Infinity } }),
    ...(keepAlive && { keepAlive }),
  } as unknown as LLMRequest & { messages: [] }
  const options = {
    keepAlive,
    canView: onInterrupted === 'fail',
    canName: hasPayload && hasFields,
    signal,
  }
  let account: Account
  if (mode === 'stream' || mode === 'run') {
    const stream =
      mode === 'stream'
        ? client.stream(request)
        : client.run({
            ...request,
            maxSteps: 3,
            onToolError: scenario.onToolError,
            onToolApproval: () => ({ approved: false, reason: 'not now' }),
          })
    account = await consume(stream, plan, options)
  } else {
    const view = new View()
    let isEnded = false
    const abort = (): void => {
      isEnded = true
      signal.abort('enough')
    }
    const onEvent = (event: ResponseEvent): void => {
      view.take(event)
      if (plan.abort?.on === 'event' && view.events.length === plan.abort.at) abort()
      if (plan.listeners === 'throwing') throw new Error('The listener has a bug.')
    }
    const isWatched = mode === 'generate with onEvent'
    const final = client.generate(request, isWatched ? { onEvent: onEvent } : {}) as Promise<LLMResponse>
    // Its error is looked at after a while.
    final.catch(() => undefined)
    if (plan.abort?.on === 'turn') {
      for (let i = 0; i < plan.abort.at; i++) await pace()
      abort()
    }
    const [outcome] = await Promise.allSettled([final])
    if (outcome.status === 'rejected') view.error = outcome.reason
    account = {
      outcome,
      views: isWatched ? [{ name: 'onEvent', view, hasLeft: false }] : [],
      late: [],
      text: undefined,
      fieldTexts: undefined,
      field: undefined,
      isEnded,
    }
  }
  expect(getEventListeners(signal.signal, 'abort'), 'no listener is left').toEqual([])
  for (const times of ran.values()) expect(times, 'a tool runs once').toBe(1)
  return { ...account, n, ran }
}

/** Whether an attempt that only thought is seen. */
function showsReasoning({ mode, replay }: Scenario, { loop, readers, listeners }: ConsumersPlan): boolean {
  if (mode === 'generate') return false
  return mode === 'generate with onEvent' || replay || loop !== undefined || readers.length > 0 || listeners !== 'none'
}

/** The fields of a payload, in the order in which they close. */
function fieldsOf({ message, items, n }: Input): unknown[] {
  return [
    { path: 'message', value: message },
    ...items.map((value, i) => ({ path: `items[${i}]`, value })),
    { path: 'n', value: n },
  ]
}

type Run = Awaited<ReturnType<typeof run>>

function checkAnswer(view: View['step'], script: Script, world: World): void {
  const { ask, hasFields } = world.scenario
  expect(view.text).toBe(script.text)
  expect(view.reasoning).toBe(script.reasoning)
  expect(view.toolCalls.map((call) => call.input)).toEqual(script.inputs)
  const ids = [...view.calls.keys()]
  expect(view.toolCalls.map((call) => call.toolCallId)).toEqual(ids)
  for (const [i, { input: written }] of [...view.calls.values()].entries())
    expect(JSON.parse(written)).toEqual(script.inputs[i])
  if (!hasFields || ask === 'text') return
  const ends = (id: string | undefined): unknown[] =>
    view.fieldEnds.filter(({ toolCallId }) => toolCallId === id).map(({ path, value }) => ({ path, value }))
  if (script.output) expect(ends(undefined)).toEqual(fieldsOf(script.output))
  for (const [i, id] of ids.entries()) expect(ends(id)).toEqual(fieldsOf(script.inputs[i]!))
}

/** What a consumer shows after attempts whose texts these are, of which the last goes on or is whole. */
function textAfter(shown: readonly Script[]): string {
  return shown.reduce((seen, script) => {
    const { text } = partsOf(script, script.count)
    return isCut(script) && seen.startsWith(text) ? seen : text
  }, '')
}

function checkViews(run: Run, expected: Expected, world: World): void {
  const isWhole = run.outcome.status === 'fulfilled'
  for (const { name, view, hasLeft } of run.views) {
    expect(view.faults, name).toEqual([])
    if (hasLeft) continue
    if (isWhole) {
      expect(view.hasFinished, name).toBe(true)
      expect(view.steps.length, name).toBe(expected.steps.length)
      for (const [i, { winner, shown, isCached }] of expected.steps.entries()) {
        checkAnswer(view.steps[i]!, winner!, world)
        expect(view.steps[i]!.restarts, name).toBe(shown.length - 1)
        expect(view.steps[i]!.start!.cached, name).toBe(isCached)
        // From a cache each part comes in one delta.
        if (isCached) for (const { deltas } of view.steps[i]!.calls.values()) expect(deltas, name).toBe(1)
      }
      if (world.scenario.progress) expect(view.ratio, name).toBe(1)
      continue
    }
    expect(view.hasFinished, name).toBe(false)
    expect(view.error, name).toBe(run.outcome.status === 'rejected' ? run.outcome.reason : undefined)
    expect(view.ratio, name).toBeLessThan(1)
    const { shown } = expected.steps.at(-1)!
    // What is cut among tags depends on how these are read; what is wrong is found before the rest is shown.
    if (shown.some(({ channel, fault }) => channel === 'xml' || fault === 'invalid JSON')) continue
    if (expected.code === 'limit_exceeded' || expected.code === 'tool_execution_failed') continue
    // Nothing is known of a step that failed before anything of it could be seen.
    if (shown.length === 0 && view.steps.length < expected.steps.length) continue
    expect(view.steps.length, name).toBe(expected.steps.length)
    expect(view.step.restarts, name).toBe(Math.max(0, shown.length - 1))
    expect(view.step.text, name).toBe(textAfter(shown))
    const last = shown.at(-1)
    const asked = world.asked.findLast(({ run: n }) => n === run.n)?.script
    // What the last attempt brought is shown, as if there had been no other, but where time was over for all.
    if (!last && asked && expected.code !== 'timeout')
      expect(view.step.start?.responseId, name).toBe(asked.count > 0 ? asked.id : undefined)
    if (!last) continue
    const parts = partsOf(last, last.count)
    expect(view.step.reasoning, name).toBe(parts.reasoning)
    expect(
      [...view.step.calls.values()].map((call) => call.input),
      name,
    ).toEqual(parts.inputs)
  }
}

function checkLate({ late, views }: Run, { replay }: Scenario): void {
  const whole = views.find(({ name, hasLeft }) => name !== 'listeners' && name !== 'web stream' && !hasLeft)
  for (const { from, view, refusal } of late) {
    if (replay) expect(refusal, 'who returns gets the rest').toBe(undefined)
    else if (refusal !== undefined) {
      expect(refusal).toMatchObject({ code: 'stream_consumed' })
      continue
    }
    expect(view.faults).toEqual([])
    expect(view.events[0]?.seq ?? Infinity).toBeGreaterThan(from)
    if (!replay || !whole) continue
    const rest = whole.view.events.filter(({ seq }) => seq > from)
    // Cancelled, the one may have come further than the other.
    const length = view.error ? Math.min(rest.length, view.events.length) : Infinity
    expect(view.events.slice(0, length)).toEqual(rest.slice(0, length))
  }
}

function checkTools(run: Run, expected: Expected, { scenario: { mode, tool: kind } }: World): void {
  if (mode !== 'run') {
    expect(run.ran.size).toBe(0)
    return
  }
  const calls = expected.steps.flatMap(({ winner }) => winner?.inputs ?? [])
  expect(run.ran.size, 'each call runs').toBe(kind === 'denied' ? 0 : calls.length)
  for (const { view, hasLeft } of run.views) {
    if (hasLeft || run.outcome.status === 'rejected') continue
    for (const [i, { toolCalls, toolEvents }] of view.steps.entries()) {
      const { winner } = expected.steps[i]!
      const ends = toolEvents.filter(({ type }) => type !== 'tool-progress')
      expect(ends.map(({ toolCallId }) => toolCallId).sort()).toEqual(toolCalls.map((call) => call.toolCallId).sort())
      for (const [j, { toolCallId }] of toolCalls.entries()) {
        const own = toolEvents.filter((event) => event.toolCallId === toolCallId)
        const { n } = winner!.inputs[j]!
        if (kind === 'value') expect(own).toMatchObject([{ output: { n } }])
        if (kind === 'generator') expect(own).toMatchObject([{ value: 'at work' }, { output: { n } }])
        if (kind === 'throws') expect(own).toMatchObject([{ error: { code: 'tool_execution_failed' } }])
        if (kind === 'denied') expect(own).toMatchObject([{ error: { code: 'tool_denied' } }])
      }
    }
  }
}

function checkResponse(response: LLMResponse | RunResponse, expected: Expected, world: World): void {
  const { mode, stack, ask } = world.scenario
  const answers = mode === 'run' ? (response as RunResponse).steps : [response]
  expect(answers.length).toBe(expected.steps.length)
  for (const [i, { winner, isCached }] of expected.steps.entries()) {
    const script = winner!
    const answer = answers[i]!
    expect(answer).toMatchObject({ text: script.text, reasoning: script.reasoning, responseId: script.id })
    expect(answer.toolCalls.map((call) => call.input)).toEqual(script.inputs)
    expect(answer.output).toEqual(script.output)
    expect(answer.finishReason).toBe(
      script.fault === 'length' ? 'length' : script.inputs.length > 0 && ask !== 'text' ? 'tool-calls' : 'stop',
    )
    expect(answer.model === 'renamed').toBe(stack.some(({ kind }) => kind === 'rename'))
    expect(answer.metrics.cached).toBe(isCached)
  }
  // An answer from a cache is an attempt too.
  const attempts = expected.steps.reduce((sum, { asked, isCached }) => sum + (isCached ? 1 : asked), 0)
  expect(response.metrics.attempts).toBe(attempts)
}

function checkMetrics(metrics: LLMResponse['metrics']): void {
  const { timeToFirstByteMs = 0, timeToFirstEventMs = 0, timeToFirstTextMs = 0, durationMs, queuedMs } = metrics
  for (const time of [timeToFirstByteMs, timeToFirstEventMs, timeToFirstTextMs, queuedMs]) {
    expect(time).toBeGreaterThanOrEqual(0)
    expect(time).toBeLessThanOrEqual(durationMs)
  }
  for (const { firstMs, lastMs } of Object.values(metrics.fields)) expect(lastMs).toBeGreaterThanOrEqual(firstMs)
  expect(metrics.chunkGaps?.p50Ms ?? 0).toBeLessThanOrEqual(metrics.chunkGaps?.maxMs ?? 0)
}

function checkError(error: LLMError, expected: Expected): void {
  expect(inspect(error, { depth: 9 }) + JSON.stringify(error) + String(error)).not.toContain(secret)
  const asked = expected.steps.reduce((sum, step) => sum + (step.isCached ? 1 : step.asked), 0)
  if (expected.code !== 'limit_exceeded') expect(error.metrics!.attempts).toBe(asked)
  checkMetrics(error.metrics!)
  const { shown } = expected.steps.at(-1)!
  const last = shown.at(-1)
  if (!last || last.channel === 'xml' || !isCut(last) || expected.code === 'limit_exceeded') return
  const parts = partsOf(last, last.count)
  expect(error.partial?.text).toBe(parts.text)
  expect(error.partial?.toolCalls.map(({ inputText }) => inputText)).toEqual(parts.inputs)
}

/** A run that may have been ended early: what is whole is right all the same, and nothing else than the end is wrong. */
function checkLoosely(run: Run, world: World): void {
  const { outcome } = run
  for (const { view, name } of run.views) expect(view.faults, name).toEqual([])
  if (outcome.status === 'rejected') {
    const error = outcome.reason as LLMError
    expect(codeOf(run)).not.toContain('no LLMError')
    expect(inspect(error, { depth: 9 }) + JSON.stringify(error) + String(error)).not.toContain(secret)
    return
  }
  const { responseId, text, reasoning, toolCalls, output } = outcome.value
  const script = world.asked.find((asked) => asked.script.id === responseId)?.script
  expect(script, 'the answer is one that was given').toBeDefined()
  expect(isCut(script!), 'no attempt that failed is an answer').toBe(false)
  expect({ text, reasoning, inputs: toolCalls.map((call) => call.input), output }).toEqual({
    text: script!.text,
    reasoning: script!.reasoning,
    inputs: script!.inputs,
    output: script!.output,
  })
  for (const { view, hasLeft } of run.views) if (!hasLeft) checkAnswer(view.step, script!, world)
}

/** Runs that may share calls: each ends as one of them would by itself, where no more is known. */
function checkShared(run: Run, expected: readonly (Expected | undefined)[], world: World): void {
  const { mode, stack } = world.scenario
  const cached = stack.findIndex(({ kind }) => kind === 'cache')
  // Who tries again, or goes on to another step, may share one call and not the next.
  const isMixed = mode === 'run' || stack.slice(0, cached).some(({ kind }) => kind === 'retry')
  checkLoosely(run, world)
  if (isMixed || expected.includes(undefined) || codeOf(run) === 'aborted') return
  expect(expected.map((one) => one!.code)).toContain(codeOf(run))
  if (run.outcome.status === 'rejected') return
  const winners = expected.map((one) => one!.steps.at(-1)!.winner?.id)
  expect(winners).toContain(run.outcome.value.responseId)
}

/** What a cache keeps is whole, and was given to somebody. */
function checkKept(world: World, outcomes: readonly Run[]): void {
  const given = outcomes.flatMap(({ outcome }) => (outcome.status === 'fulfilled' ? [outcome.value.responseId] : []))
  for (const entry of world.kept) {
    const { events } = JSON.parse(entry) as { events: StreamEvent[] }
    expect(events.at(-1)).toMatchObject({ type: 'finish' })
    const id = events.flatMap((event) => (event.type === 'start' ? [event.responseId] : []))
    const script = world.asked.find((asked) => asked.script.id === id[0])!.script
    const joined = (type: string): string[] =>
      events.flatMap((event) => (event.type === type && 'delta' in event ? [event.delta] : []))
    expect(joined('text-delta').join('')).toBe(script.text)
    expect(joined('reasoning-delta').join('')).toBe(script.reasoning)
    if (world.scenario.mode !== 'run') expect(given).toContain(script.id)
  }
}

/** Whether the only consumer was a loop that was left before it began. */
function isLeftAlone({ loop, readers, listeners, view, field, isFinalFirst }: ConsumersPlan): boolean {
  const hasOthers = readers.length > 0 || listeners !== 'none' || view !== 'none' || field || isFinalFirst
  return loop?.leavesAfter === 0 && !loop.isWeb && !hasOthers
}

function check(run: Run, expected: Expected, world: World): void {
  const { outcome } = run
  checkLate(run, world.scenario)
  if (run.isEnded && codeOf(run) === 'aborted') {
    checkLoosely(run, world)
    return
  }
  expect(codeOf(run)).toBe(expected.code)
  checkTools(run, expected, world)
  checkViews(run, expected, world)
  if (outcome.status === 'rejected') {
    checkError(outcome.reason as LLMError, expected)
    return
  }
  checkResponse(outcome.value, expected, world)
  checkMetrics(outcome.value.metrics)
  const last = expected.steps.at(-1)!.winner!
  if (run.text !== undefined) expect(run.text).toBe(expected.steps.map(({ winner }) => winner!.text).join(''))
  const payloads = expected.steps.flatMap(({ winner }) => winner!.output ?? winner!.inputs)
  if (run.fieldTexts !== undefined && payloads.length === 1) expect(run.fieldTexts).toBe(payloads[0]!.message)
  if (run.field?.status === 'fulfilled') {
    const values = [...expected.steps.flatMap(({ winner }) => winner!.inputs), ...(last.output ? [last.output] : [])]
    const messages = values.map(({ message }) => message)
    // After a restart it may be one of an attempt that failed.
    if (expected.steps.every(({ shown }) => shown.length === 1))
      expect(messages.length > 0 ? messages : [undefined]).toContain(run.field.value)
  }
}

const sumOf = (asked: World['asked'], n: number): number => asked.filter((one) => one.run === n).length

/** A shape without its scripts. */
function outline(shape: Scenario['shape']): unknown {
  if (shape.kind === 'leaf') {
    const { attempts: _, kind: _1, ...leaf } = shape
    return (
      Object.entries(leaf)
        .flatMap(([name, is]) => (is ? [name] : []))
        .join(' ') || 'plain'
    )
  }
  if (shape.kind === 'fallback') return { fallback: shape.members.map(outline), coolDown: shape.coolDown }
  return { [shape.kind]: outline(shape.of) }
}

/** Checks one scenario; what is wrong comes with what was asked. */
async function checkScenario(scenario: Scenario): Promise<void> {
  // Of a case that failed before.
  vi.clearAllTimers()
  const world = new World(scenario)
  try {
    await checkWorld(world)
  } catch (error) {
    const { shape, ...others } = scenario
    const asked = world.asked.map(
      ({ script: { id, channel, fault = 'whole', count, events, plan } }) =>
        `${id} ${channel} ${fault} ${count}/${events.length} ${plan.pause}`,
    )
    const told = inspect({ shape: outline(shape), ...others }, { depth: 9, breakLength: 160 })
    throw new Error(`${(error as Error).message}\nasked: ${asked.join(', ')}\n${told}`, { cause: error })
  }
}

async function checkWorld(world: World): Promise<void> {
  const { scenario } = world
  const oracle = new Oracle(world)
  const { client, told } = clientOf(world)
  const { runs, consumers, stack } = scenario
  const outcomes: Run[] = []
  if (runs === 'one after the other') {
    for (const n of [0, 1]) {
      const plan = consumers[n]!
      const done = await settled(run(world, client, n, plan))
      outcomes.push(done)
      const { mode, keepAlive } = scenario
      if ((mode === 'stream' || mode === 'run') && !keepAlive && isLeftAlone(plan))
        expect(codeOf(done), 'leaving cancels the run').toBe('aborted')
      await quiet()
      // Ended early, it may have come any far. Who was asked last for a while is not followed here.
      const isAborted = done.isEnded && codeOf(done) === 'aborted'
      if (isAborted || hasCoolDown(scenario.shape)) {
        checkLoosely(done, world)
        // What the next run may have from the cache is then not known either.
        if (n === 0 && stack.some(({ kind }) => kind === 'cache')) {
          const next = await settled(run(world, client, 1, consumers[1]!))
          outcomes.push(next)
          checkLoosely(next, world)
          break
        }
        continue
      }
      const expected = oracle.expect(n, showsReasoning(scenario, plan))
      if (!expected) {
        checkLoosely(done, world)
        continue
      }
      check(done, expected, world)
      if (expected.code !== 'limit_exceeded')
        expect(sumOf(world.asked, n), 'asked').toBe(expected.steps.reduce((sum, { asked }) => sum + asked, 0))
    }
  } else {
    const both = [0, 1].map((n) => run(world, client, n, consumers[n]!))
    outcomes.push(...(await settled(Promise.all(both))))
    const expected = consumers.map((plan, n) =>
      hasCoolDown(scenario.shape) ? undefined : new Oracle(world).expect(n, showsReasoning(scenario, plan)),
    )
    // Who waits for the turn of one that is never answered comes to the limit of time himself.
    const mayWait =
      stack.some(({ kind }) => kind === 'rateLimit') && expected.some((one) => !one || one.code === 'timeout')
    for (const [n, done] of outcomes.entries()) {
      const own = mayWait ? undefined : expected[n]
      if (oracle.mayShare) checkShared(done, expected, world)
      else if (own) check(done, own, world)
      else checkLoosely(done, world)
    }
  }
  // What is still to come comes within a second or so: a source that does not end, a store that does not answer.
  await pass(2000)
  expect(vi.getTimerCount(), 'no timer is left').toBe(0)
  expect(world.open, 'every source is closed').toBe(0)
  for (const signal of world.signals) expect(getEventListeners(signal, 'abort'), 'no listener is left').toEqual([])
  expect(world.spans.getFinishedSpans().length, 'every span is ended').toBe(world.spansBegun)
  // Put first, telemetry tells how each run ended.
  if (
    stack[0]?.kind === 'telemetry' &&
    scenario.mode !== 'run' &&
    runs === 'one after the other' &&
    outcomes.every(({ isEnded }) => !isEnded)
  ) {
    const types = world.spans.getFinishedSpans().map(({ attributes }) => attributes['error.type'])
    expect(types).toEqual(outcomes.map(codeOf))
  }
  const failures = (told['onAttempt'] ?? []) as readonly (AttemptFailure & { readonly runId: string })[]
  for (const [i, { runId, attempt }] of failures.entries()) {
    const before = failures.slice(0, i).findLast((failure) => failure.runId === runId)
    // Each step counts from one.
    if (before && scenario.mode !== 'run') expect(attempt, 'attempts are counted').toBeGreaterThan(before.attempt)
  }
  expect(told['onMetrics']?.length ?? 0).toBe(told['onStart']?.length ?? 0)
  checkKept(world, outcomes)
  for (const done of outcomes) {
    const { outcome } = done
    if (outcome.status === 'fulfilled') continue
    const heard = (told['onError'] ?? []).filter((error) => error === outcome.reason)
    expect(heard.length, '`onError` hears of what fails').toBe(codeOf(done) === 'aborted' ? 0 : 1)
  }
  const succeeded = outcomes.filter(({ outcome }) => outcome.status === 'fulfilled').length
  expect(told['onFinish']?.length ?? 0).toBe(succeeded)
}

function hasCoolDown(shape: Scenario['shape']): boolean {
  if (shape.kind === 'leaf') return false
  if (shape.kind === 'fallback') return shape.coolDown > 0 || shape.members.some(hasCoolDown)
  return hasCoolDown(shape.of)
}

test(
  'any stack of middleware over any faults keeps every promise',
  async () => {
    const rejections: unknown[] = []
    const onRejection = (reason: unknown): unknown => rejections.push(reason)
    process.on('unhandledRejection', onRejection)
    onTestFinished(() => void process.off('unhandledRejection', onRejection))
    await fc.assert(
      fc.asyncProperty(scenario, async (one) => {
        await checkScenario(one)
        expect(rejections.splice(0)).toEqual([])
      }),
      { numRuns: cases, ...again },
    )
  },
  cases * 100 + 60_000,
)
