import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { root } from './documents.ts'

test('the reference is built without a warning, with a page for every entry and every guide', () => {
  const folder = mkdtempSync(join(tmpdir(), 'reference-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  const { status, stdout, stderr } = spawnSync(process.execPath, ['scripts/make-reference.ts', folder], {
    cwd: root,
    encoding: 'utf8',
  })
  expect(`${stdout}${stderr}`).not.toMatch(/\[(?:warning|error)\]/)
  expect(status).toBe(0)

  const { exports } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { exports: object }
  const entries = Object.keys(exports).filter((entry) => entry !== './package.json')
  for (const entry of entries)
    expect(existsSync(join(folder, 'modules', `fieldstream${entry.slice(1).replace('/', '_')}.html`)), entry).toBe(true)
  const guides = readdirSync(join(root, 'docs')).filter((name) => name.endsWith('.md'))
  expect(readdirSync(join(folder, 'documents'))).toHaveLength(guides.length)
  expect(existsSync(join(folder, 'interfaces', 'fieldstream.ResponseStream.html'))).toBe(true)
})
