import { beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { runMatrix } from './matrix.ts'
import type { Result } from './run-row.ts'
import { casesOf } from './run-row.ts'
import { rows } from './rows.ts'
import { wires } from './wires.ts'

const methods = (['log', 'info', 'warn', 'error', 'debug', 'trace'] as const).map((name) => vi.spyOn(console, name))
let results: readonly Result[]

beforeAll(async () => {
  results = await runMatrix(rows)
}, 120_000)

const resultsOf = (row: number) => results.filter((result) => result.row === row)
const faultsIn = (some: readonly Result[]) =>
  some.flatMap(({ wire, name, faults }) => faults.map((fault) => `${wire}, ${name}: ${fault}`))

test('every row of the matrix is there', () => {
  expect(rows.map(({ number }) => number)).toEqual(Array.from({ length: 117 }, (_, i) => i + 1))
})

describe.for(rows.filter(({ cases }) => cases))('$number $title', (row) => {
  test.for(wires.filter((wire) => casesOf(row, wire).length > 0))('$name', ({ name }) => {
    expect(faultsIn(resultsOf(row.number).filter(({ wire }) => wire === name))).toEqual([])
  })
})

test('nothing is ever written to the console', () => {
  onTestFinished(() => methods.forEach((method) => method.mockRestore()))
  for (const method of methods) expect(method.mock.calls).toEqual([])
})
