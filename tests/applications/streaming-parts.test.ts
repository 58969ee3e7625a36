import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import ts from 'typescript'
import { expect, test } from 'vitest'

const examples = join(import.meta.dirname, '../../examples')
const mostLines = 40

/** How many lines of code the functions have that a file exports, without comments and blank lines. */
function linesOfFunctions(file: string): number {
  const source = ts.createSourceFile(file, readFileSync(file, 'utf8'), ts.ScriptTarget.ESNext, true)
  const functions = source.statements.filter(
    (node) =>
      ts.isFunctionDeclaration(node) && node.modifiers?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword),
  )
  const lines = functions.flatMap((node) => node.getText(source).split('\n'))
  return lines.filter((line) => line.trim() !== '' && !line.trim().startsWith('//')).length
}

test.each([
  'shopping-assistant/stream-to-events.ts',
  'agent-chat/answer.ts',
  'voice-assistant/stream-answer.ts',
  'fortune-teller/interpret.ts',
])('%s has as many lines as the table says, and no more than a screen', (file) => {
  const lines = linesOfFunctions(join(examples, file))
  expect(lines).toBeGreaterThan(10)
  expect(lines).toBeLessThanOrEqual(mostLines)
  expect(readFileSync(join(examples, 'README.md'), 'utf8')).toContain(`(${file}): ${lines} lines`)
})
