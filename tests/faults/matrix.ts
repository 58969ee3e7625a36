import type { Row } from './row.ts'
import { casesOf, type Result } from './run-row.ts'
import { type Wire, wires } from './wires.ts'

/** How many cases run at the same time: few, since some of them are about time. */
const width = 6

/** Runs every case of these rows on every wire. */
export async function runMatrix(rows: readonly Row[], among: readonly Wire[] = wires): Promise<Result[]> {
  const cases = rows.flatMap((row) => among.flatMap((wire) => casesOf(row, wire)))
  const results: Result[] = []
  let next = 0
  const work = async (): Promise<void> => {
    while (next < cases.length) {
      const index = next++
      results[index] = await cases[index]!.run()
    }
  }
  await Promise.all(Array.from({ length: width }, work))
  // What was late among many is held to its promise once more, alone.
  for (const [index, { isOnlyLate }] of results.entries()) if (isOnlyLate) results[index] = await cases[index]!.run()
  return results
}
