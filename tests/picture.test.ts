import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { readDocument, root } from './documents.ts'

const run = async (...args: string[]): Promise<string> => {
  const command = ['--import', './scripts/use-sources.ts', ...args]
  return (await promisify(execFile)(process.execPath, command, { cwd: root })).stdout
}

const picture = readDocument('docs/demo.svg')

test('the picture in the README is what the demo shows, and when', async () => {
  // Else: npm run picture
  expect(await run('scripts/make-picture.ts', '--print')).toBe(picture)
})

test('its text is what the demo prints where there is no terminal', async () => {
  const printed = (await run('examples/demo.ts', '--fast')).replaceAll(/\s/g, '')
  const shown = [...picture.matchAll(/<text [^>]*>([^<]*)/g)].map(([, text]) => text!.replaceAll(/[\s…]/g, ''))
  expect(shown.length).toBeGreaterThan(150)
  // How long it took is another matter without the pauses of a model.
  expect(shown.filter((text) => !printed.includes(text) && !/Firstwordsafter/.test(text))).toEqual([])
})

test('the picture needs no script, is small, has words for who does not see it, and stands still where that is wanted', () => {
  expect(Buffer.byteLength(picture)).toBeLessThan(60_000)
  expect(picture).not.toMatch(/<script|https?:(?!\/\/www\.w3\.org\/2000\/svg)|\bon\w+=/)
  expect(picture).toMatch(/role="img" aria-labelledby="title desc"/)
  expect(picture).toMatch(/<title id="title">.+<\/title>\s*<desc id="desc">.+<\/desc>/)
  expect(picture).toContain('@media (prefers-reduced-motion:reduce){g{animation:none!important}}')
  expect(picture).toContain('@media (prefers-color-scheme:dark)')
})
