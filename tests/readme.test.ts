import { expect, test } from 'vitest'
import { supportTable } from './conformance/support-table.ts'
import { codeBlocks, compileProblems, readDocument, staleBlocks } from './documents.ts'
import { reliabilitySection } from './faults/table.ts'

const readme = readDocument('README.md')

test('the first example is the one in examples/, which is run', () => {
  expect(codeBlocks(readme, 'ts')[0]?.file).toBe('examples/quick-start.ts')
  expect(staleBlocks(readme)).toEqual([])
})

test('every sample compiles', () => {
  const samples = codeBlocks(readme, 'ts').map(({ text }) => text)
  expect(samples.length).toBeGreaterThan(1)
  expect(compileProblems(samples)).toEqual([])
})

test('the table of what each provider supports is what the conformance suite tests', () => {
  expect(readme).toContain(supportTable())
})

test('the figures of the comparison are those of the benchmarks', () => {
  const columns: Record<string, string> = {
    fieldstream: 'fieldstream, for await',
    'AI SDK': 'AI SDK, partial objects',
    'TanStack AI': 'TanStack AI, partial objects',
    'pi-ai': 'pi-ai, partial objects',
    LangChain: 'LangChain, partial objects',
    'raw SDKs': 'raw SDK, no fields',
  }
  const benchmarks = readDocument('docs/benchmarks.md')
  const head = cellsOf(readme, String.raw`\| fieldstream`)
  for (const [part, title] of [
    ['burst', String.raw`\[CPU per event\]`],
    ['growth', String.raw`\[300 KB against`],
    ['memory', String.raw`\[memory\]`],
  ] as const) {
    const measured = benchmarks.split(`<!-- bench:e2e ${part} -->`)[1]!.split('<!-- /bench')[0]!
    const said = cellsOf(readme, title)
    for (const [name, contestant] of Object.entries(columns)) {
      const found = new RegExp(`^\\| ${contestant} +\\| +([^|]+)`, 'm').exec(measured)?.[1]
      // Where it took too long with partial objects, it was measured without.
      const other = new RegExp(`^\\| ${name}, [^|]*\\| +([^|]+)`, 'm').exec(measured)?.[1]
      const figure = (found ?? other)?.replace('(t) ', '').split(/[,;]/)[0]!.trim()
      const cell = said[head.indexOf(name)]!
      expect(cell.startsWith(figure || 'given up'), `${part}, ${name}: "${cell}" is said of ${figure}`).toBe(true)
    }
  }
})

/** The cells of the first row of a table that begins so. */
function cellsOf(document: string, start: string): string[] {
  const [row] = new RegExp(`^\\| *${start}.*$`, 'm').exec(document)!
  return row.split('|').map((cell) => cell.trim())
}

test('the tables of faults are what the matrix and its last comparison say', () => {
  expect(readDocument('docs/faults.md')).toContain(reliabilitySection())
})

test('CI runs the test command that the README gives', () => {
  const [run, testCommand] = codeBlocks(readme, 'sh').map(({ text }) => text.trim())
  expect(run).toBe('npm ci && npm run demo')
  expect(testCommand).toBe('npm ci && npm test')
  expect(readDocument('.ci/run')).toContain(`\n${testCommand!}\n`)
})
