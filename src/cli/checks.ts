import type { LLMError, LLMResponse } from 'fieldstream'
import { brief, count, seconds } from './output.ts'
import { bodyOf, type Exchange } from './observe.ts'
import type { Protocol } from './protocols.ts'
import { isComplete, timeOf, type WireAnswer } from './read-answer.ts'

/**
 * `'ok'`: as the protocol says. `'differs'`: not so, and it does no harm as long as one knows. `'hidden'`: something an application
 * needs is taken away. `'failed'`: what was asked for did not come. `'not shown'`: this run could not tell.
 */
export type Result = 'ok' | 'differs' | 'hidden' | 'not shown' | 'failed'

export interface Verdict {
  readonly result: Result
  readonly evidence: string
}

export const probeNames = ['text', 'plain', 'tools', 'length', 'output', 'wrong-model', 'abort'] as const
export type ProbeName = (typeof probeNames)[number]

/** One request, what came over the wire, and what the library made of it. */
export interface Probe {
  readonly exchange: Exchange
  readonly answer: WireAnswer
  readonly response: LLMResponse | undefined
  readonly error: LLMError | undefined
  /** Of the request that is aborted: how many milliseconds after it the reader's side was over. */
  readonly abortMs?: number | undefined
}

export interface Seen {
  readonly protocol: Protocol
  readonly model: string
  readonly graceMs: number
  readonly probes: Readonly<Partial<Record<ProbeName, Probe>>>
  /** The beginning of what a service wrote, without what must not be seen. */
  readonly quote: (text: string) => string
}

export interface Check {
  readonly id: string
  /** The request that it looks at. */
  readonly probe: ProbeName
  /** What it means for an application where it is not ok. */
  readonly means: string
  judge(probe: Probe, seen: Seen): Verdict
}

const ok = (evidence: string): Verdict => ({ result: 'ok', evidence })
const differs = (evidence: string): Verdict => ({ result: 'differs', evidence })
const hidden = (evidence: string): Verdict => ({ result: 'hidden', evidence })
const failed = (evidence: string): Verdict => ({ result: 'failed', evidence })
const notShown = (evidence: string): Verdict => ({ result: 'not shown', evidence })

const isGood = ({ exchange: { status = 0 } }: Probe): boolean => status >= 200 && status < 300
const contentTypeOf = ({ headers }: Exchange): string =>
  (headers.get('content-type') ?? '').split(';')[0]!.trim().toLowerCase()

function errorText({ error }: Probe, { quote }: Seen): string {
  if (!error) return 'no answer'
  const { code, status, providerMessage } = error
  const words = providerMessage ?? error.message
  return `${code}${status === undefined ? '' : ` (status ${status})`}: ${quote(words)}`
}

/** Says so where a request was refused, or brought no events to look at. */
function unreadable(probe: Probe, seen: Seen): Verdict | undefined {
  if (!isGood(probe)) return failed(`the request was refused: ${errorText(probe, seen)}`)
  if (probe.answer.events.every(({ data }) => data === undefined)) return notShown('no events came')
  return undefined
}

export const checks: readonly Check[] = [
  {
    id: 'redirect',
    probe: 'text',
    means: 'A redirect is not followed, since the request holds the key: use the address it leads to as base URL.',
    judge({ exchange: { status = 0, headers, url } }) {
      if (status < 300 || status > 399) return ok('none')
      const target = URL.parse(headers.get('location') ?? '', url)
      return failed(`${status} to ${target ? target.origin + target.pathname : 'nowhere'}`)
    },
  },
  {
    id: 'content-type',
    probe: 'text',
    means: 'Clients tell a stream from an error page by it; with another type some read nothing and call it a success.',
    judge(probe, { protocol }) {
      const type = contentTypeOf(probe.exchange) || 'none'
      if (!isGood(probe)) return notShown(`status ${probe.exchange.status ?? 'none'}`)
      if (type === protocol.contentType) return ok(type)
      const wanted = `${type} instead of ${protocol.contentType}`
      return probe.response ? differs(wanted) : failed(wanted)
    },
  },
  {
    id: 'answer',
    probe: 'text',
    means: 'A plain question must be answered, and the answer be read to its end.',
    judge(probe, seen) {
      const { response, answer } = probe
      if (!response) return failed(errorText(probe, seen))
      if (response.text === '' && response.finishReason === 'length')
        return notShown('all tokens went into thinking: raise --max-tokens')
      if (response.text === '') return failed('no text')
      if (answer.text !== '' && !sameText(response.text, answer.text))
        return failed('the text that was read is not the text on the wire')
      return ok(`${count(response.text.length, 'character')}, finish reason ${response.finishReason}`)
    },
  },
  {
    id: 'streaming',
    probe: 'text',
    means: 'What comes in one piece is shown late: users wait as long as without streaming.',
    judge(probe, seen) {
      if (isGood(probe) && probe.answer.whole) return hidden('answered in one piece of JSON')
      const problem = unreadable(probe, seen)
      if (problem) return problem
      const { exchange, answer } = probe
      if (answer.textEvents === 0) return notShown('no text came')
      const said = answer.events.filter(({ facts }) => facts.text !== undefined)
      const times = said.map(({ end }) => timeOf(exchange, end))
      const [first, last] = [times[0]!, times.at(-1)!]
      const reads = new Set(times).size
      const gaps = [...new Set(times)].map((time, i, all) => (i === 0 ? 0 : time - all[i - 1]!))
      const measured = `${count(said.length, 'delta')} in ${count(reads, 'read')} over ${seconds(last - first)}, the first after ${seconds(first)}`
      if (said.length === 1)
        return answer.text.length < 40
          ? notShown('the text is too short')
          : hidden(`the text is one delta, after ${seconds(first)}`)
      if (reads === 1 && said.length > 3) return hidden(`held back: ${measured}`)
      if (last - first < 30 && first > 10 * (last - first) && first > 200 && said.length >= 10)
        return hidden(`held back, then sent at once: ${measured}`)
      const longest = `longest pause ${seconds(Math.max(...gaps))}`
      if (said.length / reads >= 16) return differs(`collected into blocks: ${measured}`)
      return ok(`${measured}, ${longest}`)
    },
  },
  {
    id: 'framing',
    probe: 'text',
    means:
      'Clients differ in what they make of events that are not framed as they should be: some drop them without a word.',
    judge(probe, seen) {
      const problem = unreadable(probe, seen)
      if (problem) return problem
      const { events, comments, strayLines, usesCarriageReturns } = probe.answer
      const { isLines } = seen.protocol
      const unread = events.filter(
        ({ data, facts, text }) => data === undefined && !facts.ending?.length && !['', '[DONE]'].includes(text.trim()),
      ).length
      if (unread > 0) return failed(`${count(unread, 'event')} of ${events.length} are no JSON`)
      if (!events.at(-1)!.isClosed)
        return isLines
          ? differs('the last line has no end')
          : hidden('no blank line after the last event: clients that go by the standard drop it')
      if (strayLines > 0) return differs(`${count(strayLines, 'line')} that are no field of an event`)
      const notes = [
        ...(usesCarriageReturns ? ['lines end in CRLF'] : []),
        ...(comments > 0 ? [count(comments, 'comment')] : []),
        ...packing(probe),
      ]
      return ok([count(events.length, isLines ? 'line' : 'event'), ...notes].join(', '))
    },
  },
  {
    id: 'utf-8',
    probe: 'text',
    means: 'Something on the way decodes piece by piece, and damages every character that is cut in two.',
    judge(probe, seen) {
      const problem = unreadable(probe, seen)
      if (problem) return problem
      const { text, isValidUtf8, splitCharacters } = probe.answer
      if (!isValidUtf8) return failed('the body is no UTF-8')
      if (text.includes('\ufffd')) return failed('characters were replaced by U+FFFD')
      if (/^[\u0000-\u007f]*$/.test(text)) return notShown('the model wrote nothing but ASCII')
      return ok(splitCharacters > 0 ? `whole, ${count(splitCharacters, 'character')} split between reads` : 'whole')
    },
  },
  {
    id: 'terminal',
    probe: 'text',
    means: 'Without the mark of its end an answer that was cut cannot be told from a whole one.',
    judge(probe, seen) {
      const problem = unreadable(probe, seen)
      if (problem) return problem
      const { protocol } = seen
      const { answer, exchange } = probe
      const missing = protocol.evidence.filter((part) => !answer.evidence.includes(part))
      if (missing.length === 0) return ok(answer.evidence.join(' and '))
      const without = `without ${missing.join(' and ')}`
      if (exchange.end === 'broken') return failed(`the connection broke (${exchange.failure ?? 'unknown'}) ${without}`)
      if (exchange.end === 'timeout') return failed(`nothing came any more ${without}`)
      return isComplete(protocol, answer)
        ? differs(`${answer.evidence.join(' and ')}, ${without}`)
        : hidden(`ended cleanly ${without}`)
    },
  },
  {
    id: 'data-after-end',
    probe: 'text',
    means: 'What comes after the end is ignored, or taken for another answer.',
    judge(probe, seen) {
      const problem = unreadable(probe, seen)
      if (problem) return problem
      const { events, lastNeeded } = probe.answer
      if (lastNeeded < 0) return notShown('the end did not come')
      const after = events.slice(lastNeeded + 1)
      const said = after.filter(({ facts }) => facts.text !== undefined || facts.calls?.length)
      // Chat Completions has its count of tokens and its farewell there.
      const strange = after.filter(({ facts }) => !facts.ending?.length && !facts.usage)
      if (said.length > 0) return failed(`${count(said.length, 'event')} of an answer after the end`)
      return strange.length > 0 ? differs(`${count(strange.length, 'event')} after the end`) : ok('none')
    },
  },
  {
    id: 'closing',
    probe: 'text',
    means: 'Clients that wait for the end of the body, as most do, wait as long after every answer.',
    judge(probe, seen) {
      const problem = unreadable(probe, seen)
      if (problem) return problem
      const { answer, exchange } = probe
      const last = answer.events[answer.lastNeeded]
      if (!last) return notShown('the end did not come')
      const waited = exchange.endedAt - timeOf(exchange, last.end)
      if (exchange.end === 'open' || exchange.end === 'timeout')
        return failed(`the body was still open ${seconds(waited)} after the answer's end`)
      if (exchange.end === 'broken')
        return differs(`the connection broke after the end (${exchange.failure ?? 'unknown'})`)
      return waited > 1000
        ? differs(`${seconds(waited)} after the answer's end`)
        : ok(`${seconds(waited)} after the answer's end`)
    },
  },
  {
    id: 'usage',
    probe: 'text',
    means: 'Without the count of tokens nobody knows what an answer costs.',
    judge(probe, seen) {
      const problem = unreadable(probe, seen)
      if (problem) return problem
      const { response, answer } = probe
      if (!answer.usage) return hidden('none')
      if (!response) return ok('on the wire')
      const { inputTokens, outputTokens } = response.usage
      const tokens = `${inputTokens} in, ${outputTokens} out`
      return inputTokens === 0 || outputTokens === 0 ? hidden(tokens) : ok(tokens)
    },
  },
  {
    id: 'request-id',
    probe: 'text',
    means: 'Without an id nobody can tell support which request it was.',
    judge({ exchange: { headers } }, { protocol: { requestIdHeader: usual } }) {
      if (usual !== undefined && headers.has(usual)) return ok(usual)
      const other = [...headers.keys()].find((name) => /request-?id|call-id|trace-?id|cf-ray/.test(name))
      if (other !== undefined) return usual === undefined ? ok(other) : differs(`${other} instead of ${usual}`)
      return usual === undefined ? ok('none, nor has the protocol one') : differs('none')
    },
  },
  {
    id: 'compression',
    probe: 'plain',
    means: 'A compressed body that is cut looks whole, and compressing often holds events back.',
    judge(probe, { probes: { text } }) {
      const unasked = text?.exchange.headers.get('content-encoding') ?? 'identity'
      const asked = probe.exchange.headers.get('content-encoding') ?? 'identity'
      if (unasked !== 'identity') return differs(`${unasked}, though the request asks for none`)
      return asked === 'identity'
        ? ok('none')
        : differs(`${asked} where a client offers it, as fetch does; fieldstream does not`)
    },
  },
  {
    id: 'plain-client',
    probe: 'plain',
    means: 'The same body without the headers of an SDK gets another answer: something looks at who asks.',
    judge(probe, seen) {
      const { text } = seen.probes
      if (!text) return notShown('nothing to compare with')
      const facts = ({ exchange, answer }: Probe): string[] => [
        `status ${exchange.status ?? 'none'}`,
        contentTypeOf(exchange),
        `evidence ${answer.evidence.join(' and ') || 'none'}`,
      ]
      const [usual, plain] = [facts(text), facts(probe)]
      const others = plain.filter((fact, i) => fact !== usual[i])
      return others.length === 0 ? ok('the same') : differs(others.join(', '))
    },
  },
  {
    id: 'tool-calls',
    probe: 'tools',
    means: 'An application that acts through tools gets no calls it can act on.',
    judge(probe, seen) {
      const { response } = probe
      if (!response) return failed(errorText(probe, seen))
      const { toolCalls, finishReason } = response
      if (toolCalls.length === 0 && finishReason === 'length')
        return notShown('the limit was reached: raise --max-tokens')
      if (toolCalls.length === 0) return failed('the model called no tool though it had to')
      return ok(`${count(toolCalls.length, 'call')}, all arguments whole`)
    },
  },
  {
    id: 'tool-index',
    probe: 'tools',
    means: 'Clients put calls together by their index: with one for two calls, arguments run into each other.',
    judge(probe, seen) {
      const problem = unreadable(probe, seen)
      if (problem) return problem
      const { placeName } = seen.protocol
      if (placeName === undefined) return ok('calls come whole in this protocol')
      const { calls, unplaced } = probe.answer
      if (calls.length === 0) return notShown('no call came')
      if (unplaced > 0) return hidden(`${count(unplaced, 'piece')} of calls without ${placeName}`)
      const merged = calls.find(({ ids, names, text }) => ids.length > 1 || names.length > 1 || isSeveral(text))
      if (merged) {
        const told = probe.response ? ', which fieldstream tells apart' : ''
        return hidden(`several calls at ${placeName} ${merged.place ?? 'none'}${told}`)
      }
      if (calls.length === 1) return notShown('the model made only one call')
      return ok(`${placeName} ${calls.map(({ place }) => place).join(', ')}`)
    },
  },
  {
    id: 'tool-ids',
    probe: 'tools',
    means: 'The result of a call is sent back under its id; without one of its own it cannot be.',
    judge(probe, seen) {
      const problem = unreadable(probe, seen)
      if (problem) return problem
      if (!seen.protocol.hasCallIds) return ok('the protocol needs none')
      const { calls } = probe.answer
      if (calls.length === 0) return notShown('no call came')
      const ids = calls.flatMap(({ ids }) => ids)
      const nameless = calls.filter(({ ids }) => ids.length === 0).length
      if (nameless > 0) return hidden(`${count(nameless, 'call')} of ${calls.length} without an id`)
      return new Set(ids).size < ids.length ? hidden('two calls have one id') : ok(count(ids.length, 'id'))
    },
  },
  {
    id: 'tool-streaming',
    probe: 'tools',
    means: 'Arguments that come whole cannot be shown while they are written.',
    judge(probe, seen) {
      const problem = unreadable(probe, seen)
      if (problem) return problem
      if (!seen.protocol.streamsArguments) return ok('calls come whole in this protocol')
      const longest = probe.answer.calls.toSorted((a, b) => b.text.length - a.text.length)[0]
      if (!longest) return notShown('no call came')
      const measured = `${count(longest.text.length, 'character')} in ${count(longest.pieces, 'piece')}`
      if (longest.text.length < 60) return notShown(`the arguments are too short: ${measured}`)
      return longest.pieces < 2 ? hidden(measured) : ok(measured)
    },
  },
  {
    id: 'length',
    probe: 'length',
    means: 'An answer that reached its limit of tokens is taken for a finished one.',
    judge(probe, seen) {
      const problem = unreadable(probe, seen)
      if (problem) return problem
      const { response, answer, error } = probe
      const reason = answer.finishReason ?? 'none'
      if (response?.finishReason === 'length' || error?.code === 'output_truncated') return ok(reason)
      if (!isComplete(seen.protocol, answer)) return hidden('the answer has no end')
      const tokens = response?.usage.outputTokens ?? 0
      if (tokens > 100) return failed(`the limit is not kept: ${count(tokens, 'token')}`)
      return answer.text.length < 20
        ? notShown(`the model stopped by itself: ${reason}`)
        : hidden(`finish reason ${reason} at the limit`)
    },
  },
  {
    id: 'structured-output',
    probe: 'output',
    means: 'The schema is not enforced: what the model writes may be no JSON, or other JSON.',
    judge(probe, seen) {
      const { response, error } = probe
      if (response) return ok('JSON of the schema')
      if (error?.code === 'output_truncated') return notShown('the limit was reached: raise --max-tokens')
      return failed(errorText(probe, seen))
    },
  },
  {
    id: 'error-status',
    probe: 'wrong-model',
    means: 'Errors that come as a success, or as another kind, are not retried as they should be, or retried in vain.',
    judge(probe, seen) {
      const { status = 0 } = probe.exchange
      if (status >= 500) return differs(`status ${status} for a model that does not exist: clients will retry it`)
      if (status >= 400) return ok(`status ${status}`)
      const { answer, response } = probe
      if (answer.errors.length > 0) return hidden(`status ${status} with an error inside`)
      if (!response) return hidden(`status ${status}, and no answer: ${errorText(probe, seen)}`)
      return differs(
        `a model that does not exist is answered for${answer.model === undefined ? '' : ` by ${seen.quote(answer.model)}`}`,
      )
    },
  },
  {
    id: 'error-body',
    probe: 'wrong-model',
    means: 'Without the words of the service nobody can tell what to mend.',
    judge({ exchange, answer, error }, { quote }) {
      const { status = 0 } = exchange
      if (status < 400 && answer.errors.length === 0) return notShown('no error came')
      const body = bodyOf(exchange).toString()
      if (body.trim() === '') return hidden('empty')
      if (error?.providerMessage !== undefined) return ok(quote(error.providerMessage))
      return differs(`${contentTypeOf(exchange) || 'no content type'}: ${quote(body)}`)
    },
  },
  {
    id: 'stream-errors',
    probe: 'wrong-model',
    means: 'An error in the middle of an answer must be told as such, or the answer seems to be over.',
    judge(_, { protocol, probes, quote }) {
      for (const [name, { exchange, answer }] of Object.entries(probes)) {
        if (exchange.status !== 200) continue
        const event = answer.events.find(({ facts }) => facts.error !== undefined)
        if (!event) continue
        const told = `in '${name}': ${quote(JSON.stringify(event.facts.error))}`
        // An event may be both, such as the one of a response that failed.
        const isOver = !event.facts.ending?.length && isComplete(protocol, answer)
        return isOver ? hidden(`${told}, and the mark of the end all the same`) : ok(`told ${told}`)
      }
      return notShown('none came, and none can be called forth from outside')
    },
  },
  {
    id: 'abort',
    probe: 'abort',
    means: 'An application that stops an answer must not wait for it.',
    judge(probe, seen) {
      const { abortMs, exchange } = probe
      if (!isGood(probe)) return failed(`the request was refused: ${errorText(probe, seen)}`)
      if (abortMs === undefined) return notShown('the answer was over before it could be stopped')
      const measured = `our side was over after ${seconds(abortMs)}; whether the service goes on writing cannot be seen from here`
      return abortMs < 1000 && exchange.end !== 'timeout' ? ok(measured) : failed(measured)
    },
  },
]

/** How events lie in reads. */
function packing({ exchange: { reads }, answer: { events } }: Probe): string[] {
  const ends = new Set(events.map(({ end }) => end))
  let length = 0
  let split = 0
  for (const { bytes } of reads) {
    length += bytes.length
    if (!ends.has(length)) split++
  }
  const perRead = events.length / Math.max(1, reads.length)
  return [
    ...(perRead >= 2 ? [`${perRead.toFixed(1)} in a read`] : []),
    ...(split > 0 ? [`${split} of ${reads.length} reads end within one`] : []),
  ]
}

/** Whether a text is several JSON objects in a row. */
function isSeveral(text: string): boolean {
  if (!/\}\s*\{/.test(text)) return false
  try {
    JSON.parse(text)
    return false
  } catch {
    return true
  }
}

/** But for white space at its ends, and for thinking in tags, which the provider tells apart. */
function sameText(read: string, wire: string): boolean {
  const said = wire.replaceAll(/<\/?think>/g, '').trim()
  return wire.includes('</think>') ? said.endsWith(read.trim()) : said === read.trim()
}

export function quoter(clean: (text: string) => string): (text: string) => string {
  return (text) => `“${brief(clean(text), 90)}”`
}
