import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { codeBlocks, compileProblems, linkHolds, linksOf, readDocument, root, staleBlocks } from './documents.ts'

const pages = readdirSync(join(root, 'docs'))
  .filter((name) => name.endsWith('.md'))
  .map((name) => `docs/${name}`)

const writingPages = pages.filter((page) => page.startsWith('docs/writing-'))

test.each(writingPages)('%s shows its example as the file that is run', (page) => {
  const blocks = codeBlocks(readDocument(page), 'ts')
  expect(blocks.some(({ file }) => file !== undefined)).toBe(true)
  expect(staleBlocks(readDocument(page))).toEqual([])
})

test.each(pages)('%s shows files as they are', (page) => {
  expect(staleBlocks(readDocument(page))).toEqual([])
})

test('every other sample of the pages compiles', () => {
  const blocks = pages.flatMap((page) => codeBlocks(readDocument(page), 'ts'))
  const samples = blocks.filter(({ file }) => file === undefined)
  expect(compileProblems(samples.map(({ text }) => text))).toEqual([])
})

test('every part that one may write has its page', () => {
  const parts = ['accumulator', 'extractor', 'middleware', 'provider', 'store']
  expect(pages).toEqual(
    expect.arrayContaining(parts.map((part) => `docs/writing-${/^[aeiou]/.test(part) ? 'an' : 'a'}-${part}.md`)),
  )
})

const readmes = readdirSync(join(root, 'examples'), { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('README.md'))
  .map((name) => `examples/${name}`)

test.each(['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', ...pages, ...readmes])(
  'the links of %s lead somewhere',
  (document) => {
    expect(linksOf(document).filter((link) => !linkHolds(link))).toEqual([])
  },
)

test('what is broken in a document is noticed', () => {
  expect(linksOf('README.md').length).toBeGreaterThan(10)
  expect(['README.md#no-such-heading', 'docs/none.md'].some(linkHolds)).toBe(false)
  expect(staleBlocks('<!-- examples/batch.ts -->\n\n```ts\nsomething else\n```')).toEqual(['examples/batch.ts'])
  expect(compileProblems(['nothing.of(this)', "import { no } from 'fieldstream'"])).toHaveLength(2)
})
