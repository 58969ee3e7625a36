import {
  isLLMError,
  type LLMError,
  type LLMResponse,
  type Provider,
  StreamingLLMClient,
  timeout,
  tool,
} from 'fieldstream'
import {
  CommandError,
  exitCodes,
  readArguments,
  readKey,
  required,
  toBaseURL,
  toHeaders,
  toInteger,
  toOptions,
} from './arguments.ts'
import {
  type Check,
  checks,
  type Probe,
  type ProbeName,
  probeNames,
  quoter,
  type Seen,
  type Verdict,
} from './checks.ts'
import type { Command } from './command.ts'
import { bodyOf, type Exchange, Observer } from './observe.ts'
import { count, type Output } from './output.ts'
import { type Protocol, protocols } from './protocols.ts'
import { isComplete, readAnswer } from './read-answer.ts'

const tinyLimit = 16
const defaultLimit = 512
const defaultTimeout = 60_000
const graceMs = 2_000

const help = `Usage: fieldstream conformance --base-url URL --provider NAME --model NAME [options]

Sends a few small, real requests to a service or a gateway, through fieldstream and
by a plain fetch, and lists what it does differently from the protocol, and what it
hides from an application.

  --base-url URL        as the provider takes it: https://gateway.example/v1 for openai and
                        openai-chat, without a version for anthropic, ollama and gemini
  --provider NAME       ${Object.keys(protocols).join(', ')}
  --model NAME          the model to ask
  --api-key-env NAME    the environment variable with the key; without it none is sent
  --header 'k: v'       sent with every request; may be repeated
  --option name=value   an option of the provider, e.g. maxTokensName=max_tokens; may be repeated
  --only id,…           these checks, and the requests that they need
  --max-tokens n        the limit of answers, more for models that think (default ${defaultLimit})
  --timeout ms          for each request (default ${defaultTimeout})
  --json                the report as JSON

It sends ${probeNames.length} requests, of ${Object.values(costOf(probeNames, defaultLimit)).join(' output tokens at most, and about ')} input tokens, all together.
The SDK of the provider must be installed: npx -p fieldstream -p openai@7 fieldstream conformance …

Checks: ${inLines(checks.map(({ id }) => id))}

Results: ok; differs (harmless to who knows of it); hidden (something that an application
needs is taken away); failed; not shown (this run could not tell).

Exit codes: 0 nothing hidden, nothing failed; 1 something an application would be hurt by;
2 wrong usage; 3 could not connect, or the key, the model or the address was refused;
70 a fault of fieldstream itself; 130 stopped by Ctrl-C, after a report of the checks that
were done.`

/** Names, six in a line. */
function inLines(names: readonly string[]): string {
  const lines = Array.from({ length: Math.ceil(names.length / 6) }, (_, i) => names.slice(i * 6, i * 6 + 6).join(', '))
  return lines.join(',\n  ')
}

export const conformance: Command = {
  summary: 'what a gateway does to a protocol, and what it hides',
  help,
  async run(args, output, signal) {
    const { values, positionals } = readArguments(args, {
      'base-url': { type: 'string' },
      provider: { type: 'string' },
      model: { type: 'string' },
      'api-key-env': { type: 'string' },
      header: { type: 'string', multiple: true },
      option: { type: 'string', multiple: true },
      only: { type: 'string', multiple: true },
      'max-tokens': { type: 'string' },
      timeout: { type: 'string' },
      json: { type: 'boolean' },
    })
    if (positionals.length > 0) throw new CommandError(`Unexpected argument '${positionals[0]!}'.`)
    const given = required('conformance', {
      '--base-url': values['base-url'],
      '--provider': values.provider,
      '--model': values.model,
    })
    const name = given['--provider']
    const protocol = Object.hasOwn(protocols, name) ? protocols[name]! : undefined
    if (!protocol) throw new CommandError(`--provider must be one of: ${Object.keys(protocols).join(', ')}.`)
    const headers = toHeaders(values.header)
    const key = readKey(values['api-key-env'])
    for (const secret of [key, ...Object.values(headers)]) output.hide(secret)
    const chosen = chooseChecks(values.only)
    const session: Session = {
      protocol,
      baseURL: toBaseURL(given['--base-url']),
      model: given['--model'],
      key,
      headers,
      options: toOptions(values.option),
      maxTokens: toInteger('max-tokens', values['max-tokens'] ?? String(defaultLimit), { min: tinyLimit }),
      timeoutMs: toInteger('timeout', values.timeout ?? String(defaultTimeout), { min: 100 }),
      signal,
    }
    await checkProvider(session)
    const needed = neededProbes(chosen)
    const { outputTokens } = costOf(needed, session.maxTokens)
    const title = `${name}, ${session.baseURL}, model ${session.model}`
    output.tell(`${title}\n${count(needed.length, 'request')}, ${outputTokens} output tokens at most`)
    const findings = await examine(session, chosen, needed, output)
    const isStopped = signal.aborted
    const hurts = findings.filter(({ result }) => result === 'hidden' || result === 'failed').length
    const exitCode = isStopped ? exitCodes.interrupted : hurts > 0 ? exitCodes.hurt : exitCodes.fine
    if (values.json) {
      const { baseURL, model } = session
      const report = { provider: name, baseURL, model, exitCode, checks: findings }
      output.print(JSON.stringify(report, undefined, 2))
    } else {
      output.print(`${title}\n\n${toTable(findings)}\n\n${summary(findings)}`)
    }
    if (isStopped) output.tell('Stopped.')
    return exitCode
  },
}

export interface Finding extends Verdict {
  readonly id: string
  readonly means: string
}

interface Session {
  readonly protocol: Protocol
  readonly baseURL: string
  readonly model: string
  readonly key: string | undefined
  readonly headers: Readonly<Record<string, string>>
  readonly options: Readonly<Record<string, unknown>>
  readonly maxTokens: number
  readonly timeoutMs: number
  readonly signal: AbortSignal
}

function chooseChecks(only: readonly string[] | undefined): readonly Check[] {
  if (!only) return checks
  const ids = only.flatMap((list) => list.split(',')).map((id) => id.trim())
  const unknown = ids.find((id) => !checks.some((check) => check.id === id))
  if (unknown !== undefined)
    throw new CommandError(`There is no check '${unknown}'. There are: ${checks.map(({ id }) => id).join(', ')}.`)
  return checks.filter(({ id }) => ids.includes(id))
}

/** The first request shows whether there is anything to examine. */
function neededProbes(chosen: readonly Check[]): ProbeName[] {
  return probeNames.filter((name) => name === 'text' || chosen.some(({ probe }) => probe === name))
}

function costOf(probes: readonly ProbeName[], maxTokens: number): { outputTokens: number; inputTokens: number } {
  const limits = probes.map((name) => (name === 'length' || name === 'wrong-model' ? tinyLimit : maxTokens))
  return { outputTokens: limits.reduce((total, limit) => total + limit, 0), inputTokens: 100 * probes.length }
}

async function examine(
  session: Session,
  chosen: readonly Check[],
  needed: readonly ProbeName[],
  output: Output,
): Promise<Finding[]> {
  const probes: Partial<Record<ProbeName, Probe>> = {}
  const quote = quoter((text) => output.clean(text))
  const seen: Seen = { protocol: session.protocol, model: session.model, graceMs, probes, quote }
  const findings: Finding[] = []
  const judge = (of: readonly Check[], verdict: (check: Check) => Verdict): void => {
    for (const check of of) {
      const { result, evidence } = verdict(check)
      const finding = { id: check.id, result, evidence: output.clean(evidence), means: check.means }
      findings.push(finding)
      output.step(`${result.padEnd(9)}  ${check.id}`)
    }
  }
  for (const [i, name] of needed.entries()) {
    output.show(`request ${i + 1} of ${needed.length}: ${name}`)
    const probe = await runProbe(name, session, probes)
    if (session.signal.aborted) return findings
    probes[name] = probe
    const { status = 0 } = probe.exchange
    if (name === 'text') checkReached(probe, quote)
    const isRedirected = name === 'text' && status >= 300 && status < 400
    judge(
      chosen.filter((check) => check.probe === name),
      (check) =>
        isRedirected && check.id !== 'redirect'
          ? { result: 'not shown', evidence: 'redirected' }
          : check.judge(probe, seen),
    )
    if (!isRedirected) continue
    judge(
      chosen.filter((check) => check.probe !== name),
      () => ({ result: 'not shown', evidence: 'redirected' }),
    )
    break
  }
  const order = chosen.map(({ id }) => id)
  return findings.sort((a, b) => order.indexOf(a.id) - order.indexOf(b.id))
}

/** Without an answer to the plainest request there is nothing to examine. */
function checkReached({ exchange, error }: Probe, quote: Seen['quote']): void {
  const { status, failure, end, url } = exchange
  const { host } = new URL(url)
  if (status === undefined) {
    const why = end === 'timeout' ? 'no answer within the time of a request' : (failure ?? 'no answer')
    throw new CommandError(`Could not connect to ${host}: ${why}.`, exitCodes.unreachable)
  }
  if (status < 400) return
  const words = error?.providerMessage ?? bodyOf(exchange).toString()
  const hint =
    status === 401 || status === 403
      ? 'the key was refused; --api-key-env names the variable that holds it'
      : status === 404
        ? 'check --base-url and --model'
        : 'it does not answer a plain request'
  throw new CommandError(
    `${host} answered with status ${status}: ${hint}. It said: ${quote(words)}`,
    exitCodes.unreachable,
  )
}

const line = 'Grüße aus Zürich, 你好, 😀.'
const textQuestion = `Write this line twelve times, numbered, and nothing else: ${line}`

const notes = tool({
  name: 'save_note',
  description: 'Saves a note about one city.',
  input: {
    type: 'object',
    properties: {
      city: { type: 'string' },
      note: { type: 'string', description: 'Two sentences about the city.' },
    },
    required: ['city', 'note'],
    additionalProperties: false,
  },
})

const capital = {
  type: 'object',
  properties: { capital_name: { type: 'string' }, letter_count: { type: 'integer' } },
  required: ['capital_name', 'letter_count'],
  additionalProperties: false,
}

function isCapital(value: unknown): boolean {
  const { capital_name: name, letter_count: letters, ...others } = (value ?? {}) as Record<string, unknown>
  return typeof name === 'string' && Number.isInteger(letters) && Object.keys(others).length === 0
}

async function runProbe(
  name: ProbeName,
  session: Session,
  probes: Readonly<Partial<Record<ProbeName, Probe>>>,
): Promise<Probe> {
  const { maxTokens } = session
  const ask = (content: string) => ({ messages: [{ role: 'user' as const, content }], maxTokens })
  switch (name) {
    case 'text':
      return askThrough(session, (client) => client.stream(ask(textQuestion)).final())
    case 'plain':
      return askPlainly(session, probes.text!.exchange)
    case 'tools':
      return askThrough(session, (client) =>
        client
          .stream({
            ...ask(
              'Save a note about Zürich and another about 東京: call the tool once for each, both at the same time.',
            ),
            tools: [notes],
            toolChoice: 'required',
            toolInput: 'native',
          })
          .final(),
      )
    case 'length':
      return askThrough(session, (client) => client.stream({ ...ask(textQuestion), maxTokens: tinyLimit }).final())
    case 'output':
      return askThrough(session, async (client) => {
        // Nothing but the schema says that it is to be JSON.
        const question = ask('What is the capital of Switzerland, and how many letters does its name have?')
        const output = {
          name: 'capital',
          schema: capital,
          validate: (value: unknown) =>
            isCapital(value) ? { value } : { issues: [{ message: 'is not what the schema says' }] },
        }
        return client.stream({ ...question, output }).final()
      })
    case 'wrong-model':
      return askThrough({ ...session, model: 'fieldstream-no-such-model' }, (client) =>
        client.stream({ ...ask('Hello'), maxTokens: tinyLimit }).final(),
      )
    case 'abort': {
      let abortMs: number | undefined
      const probe = await askThrough(
        session,
        async (client) => {
          const stream = client.stream(ask(textQuestion))
          let abortedAt: number | undefined
          try {
            for await (const { type } of stream) {
              if (type !== 'text-delta' && type !== 'reasoning-delta') continue
              abortedAt = performance.now()
              stream.abort()
            }
            return await stream.final()
          } catch (error) {
            if (abortedAt !== undefined && isLLMError(error) && error.code === 'aborted')
              abortMs = performance.now() - abortedAt
            throw error
          }
        },
        true,
      )
      return { ...probe, abortMs }
    }
  }
}

function observe({ protocol, timeoutMs, signal }: Session, closesWithReader = false): Observer {
  const isOver = (exchange: Exchange): boolean => isComplete(protocol, readAnswer(protocol, exchange))
  return new Observer({ timeoutMs, graceMs, signal, isOver, closesWithReader })
}

/** Options of providers that are made of others of this command, or hold code. */
const unsettable: readonly string[] = [
  'model',
  'client',
  'apiKey',
  'baseURL',
  'host',
  'fetch',
  'transport',
  'headers',
  'vertexai',
  'project',
  'location',
]

/** Whether the SDK is there and the options are taken, by a request that goes nowhere. */
async function checkProvider(session: Session): Promise<void> {
  const reserved = Object.keys(session.options).find((name) => unsettable.includes(name))
  if (reserved !== undefined) throw new CommandError(`--option cannot set \`${reserved}\`.`)
  let isSent = false
  try {
    const client = await createClient(session, () => {
      isSent = true
      return Promise.reject(new TypeError('This request goes nowhere.'))
    })
    await client.stream({ messages: [{ role: 'user', content: 'Hello' }] }).final()
  } catch (error) {
    if (isSent) return
    if (!isLLMError(error)) throw error
    throw new CommandError(withoutCode(error.message))
  }
}

/** The library's words, without what only code can pass. */
function withoutCode(message: string): string {
  return message.replace(', or pass `client`', '').replace(/(?<= Its options: )[\w, ]+/, (names) =>
    names
      .split(', ')
      .filter((name) => !unsettable.includes(name))
      .join(', '),
  )
}

async function createClient(session: Session, fetch: typeof globalThis.fetch): Promise<StreamingLLMClient> {
  const { protocol, model, baseURL, key, headers, options, timeoutMs } = session
  const whole = await protocol.create({ ...options, model, apiKey: key ?? 'none', baseURL, headers, fetch })
  // What is refused as a stream is not asked for in one piece.
  const provider: Provider = { ...whole, generate: undefined! }
  const limits = timeout({
    firstByte: false,
    firstOutput: false,
    idle: false,
    progress: false,
    total: timeoutMs + 1000,
  })
  return new StreamingLLMClient({ provider, middleware: [limits] })
}

/** One request by the library. */
async function askThrough(
  session: Session,
  ask: (client: StreamingLLMClient) => Promise<LLMResponse>,
  closesWithReader = false,
): Promise<Probe> {
  const { protocol, key, headers } = session
  const observer = observe(session, closesWithReader)
  const fetch = withoutOtherKeys(observer.fetch, key, headers)
  let response: LLMResponse | undefined
  let error: LLMError | undefined
  try {
    response = await ask(await createClient(session, fetch))
  } catch (caught) {
    if (!isLLMError(caught)) throw caught
    error = caught
  }
  await observer.settled()
  const exchange = observer.exchanges.at(-1)
  if (!exchange) {
    if (session.signal.aborted) throw new CommandError('Stopped.', exitCodes.interrupted)
    throw new CommandError(error?.message ?? 'Nothing was sent.')
  }
  return { exchange, answer: readAnswer(protocol, exchange), response, error }
}

const keyHeaders: readonly string[] = ['authorization', 'x-api-key', 'x-goog-api-key', 'api-key']

/** SDKs take credentials from variables that nobody named here; those are another service's. */
function withoutOtherKeys(
  fetch: typeof globalThis.fetch,
  key: string | undefined,
  own: Readonly<Record<string, string>>,
): typeof globalThis.fetch {
  return (input, init) => {
    const headers = new Headers(init?.headers ?? (input instanceof Request ? input.headers : undefined))
    for (const name of keyHeaders) {
      const value = headers.get(name)
      if (value === null || name in own) continue
      if (key === undefined || !value.includes(key)) headers.delete(name)
    }
    return fetch(input, { ...init, headers })
  }
}

/** The same bytes as a client without an SDK sends them. */
async function askPlainly(session: Session, { url, requestBody, requestHeaders }: Exchange): Promise<Probe> {
  const { protocol, headers: own } = session
  const kept = ['accept', 'content-type', 'anthropic-version', ...keyHeaders, ...Object.keys(own)]
  const headers = [...requestHeaders].filter(([name]) => kept.includes(name))
  const observer = observe(session)
  try {
    const response = await observer.fetch(url, { method: 'POST', headers, body: requestBody })
    await response.text()
  } catch {
    // What broke stands in the exchange.
  }
  await observer.settled()
  const exchange = observer.exchanges.at(-1)!
  return { exchange, answer: readAnswer(protocol, exchange), response: undefined, error: undefined }
}

function toTable(findings: readonly Finding[]): string {
  const width = Math.max(0, ...findings.map(({ id }) => id.length))
  return findings
    .flatMap(({ id, result, evidence, means }) => [
      `${result.padEnd(9)}  ${id.padEnd(width)}  ${evidence}`,
      ...(result === 'ok' || result === 'not shown' ? [] : [`${' '.repeat(9)}  ${' '.repeat(width)}  ${means}`]),
    ])
    .join('\n')
}

function summary(findings: readonly Finding[]): string {
  const results = ['ok', 'differs', 'hidden', 'failed', 'not shown'] as const
  const numbers = results.map(
    (result) => [findings.filter((finding) => finding.result === result).length, result] as const,
  )
  return numbers.flatMap(([number, result]) => (number > 0 ? [`${number} ${result}`] : [])).join(', ')
}
