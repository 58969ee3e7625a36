import { isDeepStrictEqual } from 'node:util'
import { startFaultServer } from './fault-server.ts'
import { rivals, type Rival, type Taken } from './rivals.ts'
import type { AnswerCase, Row } from './row.ts'
import { labOf } from './run-row.ts'
import { planted, usualInput, wires } from './wires.ts'

/** The rows that an SDK can be held to as well: where a stream stops, its form, and its arguments. */
export const comparedRows: readonly number[] = [
  ...[31, 32, 33, 34, 36, 38, 39, 40, 42, 43, 44, 45, 47, 48, 49, 50, 51, 53, 54, 56, 66, 76, 77, 78, 79],
]

/**
 * What somebody sees without this library. `right`: an error where the answer is not complete, the answer where it is. The others:
 * no error and no word of it; no error, but a mark; arguments that are not what the model wrote; no end; a good answer
 * that becomes an error.
 */
export type Observed = 'right' | 'silent' | 'flagged' | 'wrong value' | 'hangs' | 'fails'

/** By rival, by row, what was observed in its cases. */
export type Comparison = Readonly<Record<string, Readonly<Record<string, readonly Observed[]>>>>

/** After how long a reader is said to hang. Nothing that is sent takes as long. */
const patienceMs = 2000
const width = 6

export async function compare(rows: readonly Row[], among: readonly Rival[] = rivals): Promise<Comparison> {
  const jobs = among.flatMap((rival) => rows.flatMap((row) => casesFor(row, rival).map((one) => ({ rival, row, one }))))
  const found = jobs.map((): Observed => 'hangs')
  let next = 0
  const work = async (): Promise<void> => {
    while (next < jobs.length) {
      const index = next++
      const { rival, one } = jobs[index]!
      found[index] = await observe(rival, one)
    }
  }
  await Promise.all(Array.from({ length: width }, work))
  const observed: Record<string, Record<string, Observed[]>> = {}
  for (const [i, { rival, row }] of jobs.entries()) {
    const ofRow = ((observed[rival.name] ??= {})[row.number] ??= [])
    if (!ofRow.includes(found[i]!)) ofRow.push(found[i]!)
  }
  return observed
}

function casesFor(row: Row, { wire: name }: Rival): AnswerCase[] {
  const { lab } = labOf(wires.find((wire) => wire.name === name)!)
  // Whoever reads does not tell when there is text.
  return (row.cases?.({ ...lab, seen: { wait: 20 } }) ?? []).filter(
    // What only this library is asked to do, an SDK is not held to.
    (one): one is AnswerCase => 'script' in one && !one.request?.tools,
  )
}

async function observe(rival: Rival, { script, promised, expected }: AnswerCase): Promise<Observed> {
  const server = await startFaultServer(() => script)
  let timer: ReturnType<typeof setTimeout> | undefined
  try {
    const read = rival.read(server.baseURL).catch(() => 'error' as const)
    const patience = new Promise<'hangs'>((resolve) => (timer = setTimeout(resolve, patienceMs, 'hangs')))
    const seen = await Promise.race([read, patience])
    if (seen === 'hangs') return 'hangs'
    const isComplete = promised.code === 'complete'
    if (seen === 'error') return isComplete ? 'fails' : 'right'
    if (isComplete) return isWhole(seen, expected) && seen.flag === undefined ? 'right' : 'wrong value'
    if (seen.flag !== undefined && seen.inputs.length === 0) return 'flagged'
    // Arguments that nobody wrote so are worse than none.
    const isInvented = seen.inputs.some((input) => !isDeepStrictEqual(input, usualInput))
    if (isInvented) return 'wrong value'
    return seen.flag === undefined ? 'silent' : 'flagged'
  } finally {
    clearTimeout(timer)
    await server.stop()
  }
}

function isWhole({ text, inputs }: Taken, expected: AnswerCase['expected'] = {}): boolean {
  return (
    text === (expected.text ?? planted.text) && isDeepStrictEqual([...inputs], [...(expected.inputs ?? [usualInput])])
  )
}
