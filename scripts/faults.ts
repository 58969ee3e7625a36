/** `npm run faults`: holds every provider to the matrix of faults, and prints what was observed. */
import { notKeptYet, runMatrix } from '../tests/faults/matrix.ts'
import type { Row } from '../tests/faults/row.ts'
import { rows } from '../tests/faults/rows.ts'
import type { Result } from '../tests/faults/run-row.ts'

let unhandled = 0
process.on('unhandledRejection', (error) => {
  unhandled++
  console.error('unhandled rejection:', error)
})

const results = await runMatrix(rows)
for (const row of rows) print(row)
const failed = results.filter(({ faults }) => faults.length > 0)
const kept = `${results.length - failed.length} of ${results.length} cases as promised`
const notYet = rows.filter(({ later }) => later).length
console.log(`\n${kept}, ${notYet} rows about what is not part of the library yet, ${unhandled} unhandled rejections`)
process.exit(failed.length + unhandled > 0 ? 1 : 0)

function print({ number, title, later, heldBy }: Row): void {
  console.log(`\n${String(number).padStart(3)}  ${title}`)
  if (later) console.log(`       not part of the library yet: ${later}`)
  if (heldBy) console.log(`       held by ${heldBy}`)
  const reason = notKeptYet.get(number)
  if (reason) console.log(`       known not to be kept yet: ${reason}`)
  // One line for all providers that do the same.
  const groups = Map.groupBy(
    results.filter(({ row }) => row === number),
    ({ name, promised, observed, faults }) => [name, promised, observed, ...faults].join('\n'),
  )
  for (const group of groups.values()) printGroup(group)
}

function printGroup(group: readonly Result[]): void {
  const { name, promised, observed, faults } = group[0]!
  const isKept = faults.length === 0
  const who = group.map(({ wire }) => wire).join(' ')
  console.log(`    ${isKept ? '✓' : '✗'}  ${who.padEnd(44)} ${name ? `${name}: ` : ''}${isKept ? promised : observed}`)
  if (!isKept) console.log(`       promised: ${promised}`)
  for (const fault of faults) console.log(`       ${fault}`)
}
