import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { house, parse, root } from '../scripts/house.ts'
import { drawHouse, picturePath } from '../scripts/make-architecture.ts'
import { linksOf, readDocument } from './documents.ts'

test('the picture of the house is what its files import', () => {
  const remedy = 'npm run script scripts/make-architecture.ts'
  expect(readFileSync(picturePath, 'utf8') === drawHouse(), `docs/architecture.svg is stale: ${remedy}`).toBe(true)
  for (const { name } of house) expect(drawHouse()).toContain(name.split('/').at(-1))
})

test('a new file, a new arrow, and one that is not needed any more change it', () => {
  const words = (code: string, name = 'middleware/other'): string => drawHouse([...house, parse(name, code)])
  expect(words('')).toContain('cache-key  other')
  expect(words("import './anything.ts'")).toBe(words(''))
  expect(words("import { anthropic } from '../providers/anthropic.ts'")).toContain('middleware/ imports providers/.')
  expect(words("import type { A } from '../wire/x.ts'")).toBe(words(''))
  const late = words("await import('../wire/x.ts')")
  expect(late.split('arrow late')).toHaveLength(words('').split('arrow late').length + 1)
  expect(() => words("import { client } from '../client.ts'", 'attempts/other')).toThrow('imports, by way of others')
})

test('the page names a test for every invariant', () => {
  const page = readDocument('docs/architecture.md')
  const [table] = /\| invariant[^]*?\n\n/.exec(page) ?? ['']
  const rows = table.trim().split('\n').slice(2)
  expect(rows.length).toBeGreaterThan(10)
  for (const row of rows) expect(row).toMatch(/\]\(\.\.\/tests\/[\w/.-]+\.ts\) *\|$/)
  expect(linksOf('docs/architecture.md')).toContain('docs/architecture.svg')
})

test('the files that the page names are there', () => {
  const named = [...readDocument('docs/architecture.md').matchAll(/`([\w/-]+\.ts)`/g)].map(([, name]) => name!)
  const files = new Set(house.map(({ name }) => `${name}.ts`))
  const known = (name: string): boolean =>
    files.has(name.replace(/^src\//, '')) ||
    [...files].some((file) => file.endsWith(`/${name}`)) ||
    existsSync(join(root, name))
  expect(named.length).toBeGreaterThan(30)
  expect(named.filter((name) => !name.includes('/x.ts') && !known(name))).toEqual([])
})
