/**
 * `npm run faults`: holds every provider to the matrix of faults, and prints what was observed. `--compare` holds SDKs to the
 * same rows, and with `--write` records what they do for `docs/faults.md`.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { compare, comparedRows } from '../tests/faults/compare.ts'
import { runMatrix } from '../tests/faults/matrix.ts'
import { printRow } from '../tests/faults/print.ts'
import { rivals } from '../tests/faults/rivals.ts'
import { rows } from '../tests/faults/rows.ts'

const { compare: isComparison, write } = parseArgs({
  options: { compare: { type: 'boolean', default: false }, write: { type: 'boolean', default: false } },
}).values

let unhandled = 0
process.on('unhandledRejection', () => unhandled++)
if (isComparison) await compareOthers()
else await holdOurs()

async function holdOurs(): Promise<void> {
  const results = await runMatrix(rows)
  for (const row of rows) console.log(printRow(row, results))
  const failed = results.filter(({ faults }) => faults.length > 0)
  console.log(`${results.length - failed.length} of ${results.length} cases as promised`)
  console.log(`${unhandled} unhandled rejections`)
  process.exit(failed.length + unhandled > 0 ? 1 : 0)
}

async function compareOthers(): Promise<void> {
  const { log } = console
  // Some SDKs print what they read.
  for (const name of ['log', 'info', 'warn', 'error', 'debug'] as const) console[name] = () => undefined
  const observed = await compare(rows.filter(({ number }) => comparedRows.includes(number)))
  const packages = [...new Set(rivals.flatMap((rival) => rival.packages))].sort()
  const versions = Object.fromEntries(packages.map((name) => [name, versionOf(name)]))
  if (write) {
    const file = new URL('../tests/faults/compared.json', import.meta.url)
    writeFileSync(file, `${JSON.stringify({ versions, observed }, null, 2)}\n`)
    const { reliabilitySection } = await import('../tests/faults/table.ts')
    const page = new URL('../docs/faults.md', import.meta.url)
    const [begin, end] = ['<!-- faults: npm run faults -- --compare --write -->', '<!-- /faults -->']
    const [before, rest] = readFileSync(page, 'utf8').split(begin)
    writeFileSync(page, `${before!}${begin}\n\n${reliabilitySection()}\n\n${end}${rest!.split(end)[1]!}`)
  }
  for (const [name, version] of Object.entries(versions)) log(`${name} ${version}`)
  for (const { number, title } of rows.filter((row) => comparedRows.includes(row.number))) {
    log(`\n${String(number).padStart(3)}  ${title}`)
    for (const [name, found] of Object.entries(observed)) {
      const seen = found[number]
      if (seen) log(`       ${name.padEnd(28)} ${seen.join(', ')}`)
    }
  }
  process.exit(0)
}

function versionOf(name: string): string {
  const manifest = readFileSync(new URL(`../node_modules/${name}/package.json`, import.meta.url), 'utf8')
  return (JSON.parse(manifest) as { version: string }).version
}
