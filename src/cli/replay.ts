import { setTimeout as sleep } from 'node:timers/promises'
import type { ServerResponse } from 'node:http'
import { replayFetch, type ReplayOptions } from 'fieldstream/testing'
import { CommandError, exitCodes, readArguments, required, toInteger } from './arguments.ts'
import type { Command } from './command.ts'
import { type Fixture, markOf, readFixtures } from './fixtures.ts'
import { count } from './output.ts'
import { aborted, type Incoming, respondError, serve, write } from './serve.ts'

const help = `Usage: fieldstream replay FILE… [options]

Answers on this machine with what 'fieldstream record' or recordFetch() recorded, whoever
asks. A file that holds no recordings is the body of one answer. It prints the address to use.

  --port n          where to listen; default: any free port
  --pace original   as it was recorded (default); 'burst' without pauses; or milliseconds
                    before each read
  --match order     each request gets the next answer, after the last the first again (default);
                    'request': the answer to the same request, that is the same method, path and
                    body; 404 where there is none
  --fault cut@N     ends every answer cleanly after N bytes; stall@N says no more after N bytes;
                    reset@N breaks the connection; error, or error@STATUS, answers with an error (500)
  --fault-times n   only the first n answers have the fault
  --cors            lets pages of any origin ask

Exit codes: 0 stopped by Ctrl-C; 2 wrong usage.`

export const replay: Command = {
  summary: 'a service that answers with fixtures, at their pace, or with a fault',
  help,
  async run(args, output, signal) {
    const { values, positionals: files } = readArguments(args, {
      port: { type: 'string' },
      pace: { type: 'string' },
      match: { type: 'string' },
      fault: { type: 'string' },
      'fault-times': { type: 'string' },
      cors: { type: 'boolean' },
    })
    required('replay', { FILE: files[0] })
    const port = toInteger('port', values.port ?? '0', { max: 65_535 })
    const pace = toPace(values.pace ?? 'original')
    const fault = toFault(values.fault)
    let faults = values['fault-times'] === undefined ? Infinity : toInteger('fault-times', values['fault-times'])
    const fixtures = files.flatMap(readFixtures)
    const next = toChooser(values.match ?? 'order', fixtures)

    const serving = await serve(port, async (request, response) => {
      if (values.cors && allowOrigin(request, response)) return
      const fixture = next(request)
      const { method, path } = markOf(request)
      if (!fixture) {
        output.tell(`${method} ${path}: no answer to this request`)
        respondError(response, 404, 'There is no recording of this request.')
        return
      }
      const isFaulty = fault !== undefined && faults-- > 0
      output.tell(`${method} ${path}: answer ${fixtures.indexOf(fixture) + 1}${isFaulty ? `, ${values.fault!}` : ''}`)
      await respond(fixture, request, response, pace, isFaulty ? fault : undefined)
    })
    output.tell(
      `Answers with ${count(fixtures.length, 'recording')}. Use as base URL, with the path that the client needs:`,
    )
    output.print(serving.origin)
    await aborted(signal)
    serving.close()
    return exitCodes.fine
  },
}

interface Fault {
  readonly kind: 'cut' | 'stall' | 'reset' | 'error'
  /** Bytes; of an error its status. */
  readonly at: number
}

function toFault(value: string | undefined): Fault | undefined {
  if (value === undefined) return undefined
  const [, kind, at] = /^(cut|stall|reset)@(\d+)$/.exec(value) ?? /^(error)(?:@([45]\d\d))?$/.exec(value) ?? []
  if (kind === undefined) throw new CommandError('--fault must be cut@N, stall@N, reset@N, error or error@STATUS.')
  return { kind: kind as Fault['kind'], at: Number(at ?? 500) }
}

function toPace(value: string): ReplayOptions {
  if (value === 'original') return {}
  if (value === 'burst') return { delayMs: 0 }
  if (!/^\d+$/.test(value))
    throw new CommandError(`--pace must be 'original', 'burst' or a whole number of milliseconds; got '${value}'.`)
  return { delayMs: toInteger('pace', value) }
}

/** Gives the answer to a request. */
function toChooser(match: string, fixtures: readonly Fixture[]): (request: Incoming) => Fixture | undefined {
  let asked = 0
  if (match === 'order') return () => fixtures[asked++ % fixtures.length]
  if (match !== 'request') throw new CommandError("--match must be 'order' or 'request'.")
  const keyOf = (mark: object | undefined): string => JSON.stringify(mark)
  const answers = Map.groupBy(
    fixtures.filter(({ request }) => request !== undefined),
    ({ request }) => keyOf(request),
  )
  if (answers.size === 0) throw new CommandError("--match request needs recordings made by 'fieldstream record'.")
  return (request) => {
    const answer = answers.get(keyOf(markOf(request)))
    // The last one stays.
    return answer && answer.length > 1 ? answer.shift() : answer?.[0]
  }
}

/** Returns whether that was all that was asked. */
function allowOrigin({ method, headers }: Incoming, response: ServerResponse): boolean {
  response.setHeader('access-control-allow-origin', '*')
  response.setHeader('access-control-expose-headers', '*')
  if (method !== 'OPTIONS') return false
  response.setHeader('access-control-allow-methods', '*')
  response.setHeader('access-control-allow-headers', headers.get('access-control-request-headers') ?? '*')
  response.writeHead(204).end()
  return true
}

async function respond(
  fixture: Fixture,
  { path, signal }: Incoming,
  response: ServerResponse,
  pace: ReplayOptions,
  fault: Fault | undefined,
): Promise<void> {
  if (fault?.kind === 'error') {
    respondError(response, fault.at, 'This is a fault that was asked for.')
    return
  }
  const answer = await replayFetch(fixture, pace)(`http://replay.invalid${path}`, { signal })
  for (const [name, value] of answer.headers) response.setHeader(name, value)
  response.writeHead(answer.status)
  response.flushHeaders()
  let left = fault?.at ?? Infinity
  for await (const bytes of answer.body ?? []) {
    await write(response, bytes.subarray(0, left))
    left -= bytes.length
    if (left <= 0) break
  }
  if (fault && left <= 0) {
    // Else the last bytes may be lost with the connection.
    await sleep(20)
    if (fault.kind === 'reset') response.socket?.resetAndDestroy()
    if (fault.kind !== 'cut') return
  }
  response.end()
}
