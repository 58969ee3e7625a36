import type { Row } from './row.ts'
import type { Result } from './run-row.ts'

/** A row of the matrix for people to read, with what was observed. */
export function printRow({ number, title, heldBy }: Row, results: readonly Result[]): string {
  // One line for all providers that do the same.
  const groups = Map.groupBy(
    results.filter(({ row }) => row === number),
    ({ name, promised, observed, faults }) => [name, promised, observed, ...faults].join('\n'),
  )
  return [
    `${String(number).padStart(3)}  ${title}`,
    ...(heldBy ? [`       held by ${heldBy}`] : []),
    ...[...groups.values()].flatMap(printGroup),
    '',
  ].join('\n')
}

function printGroup(group: readonly Result[]): string[] {
  const { name, promised, observed, faults } = group[0]!
  const isKept = faults.length === 0
  const who = group.map(({ wire }) => wire).join(' ')
  return [
    `    ${isKept ? '✓' : '✗'}  ${who.padEnd(44)} ${name ? `${name}: ` : ''}${isKept ? promised : observed}`,
    ...(isKept ? [] : [`       promised: ${promised}`, ...faults.map((fault) => `       ${fault}`)]),
  ]
}
