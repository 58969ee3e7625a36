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
  expect(samples.length).toBeGreaterThan(10)
  expect(compileProblems(samples)).toEqual([])
})

test('the table of what each provider supports is what the conformance suite tests', () => {
  expect(readme).toContain(supportTable())
})

test('the tables of faults are what the matrix and its last comparison say', () => {
  expect(readDocument('docs/faults.md')).toContain(reliabilitySection())
})

test('CI runs the test command that the README gives', () => {
  const [run, testCommand] = codeBlocks(readme, 'sh').map(({ text }) => text.trim())
  expect(run).toBe('npm ci && npm run demo')
  expect(testCommand).toBe('npm ci && npm test')
  expect(readDocument('.ci/run')).toContain(`\n${testCommand!}\n`)
})
