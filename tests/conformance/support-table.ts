import { type Support, type Supports, supports } from './supports.ts'

const words: Record<Support, string> = { yes: 'yes', warns: 'with a warning', no: 'error' }

const rows: readonly (readonly [string, (of: Supports) => string])[] = [
  ['arguments of a native call', ({ toolArguments }) => toolArguments],
  ['a forced tool streams as', ({ toolArguments }) => (toolArguments === 'streamed' ? 'native call' : 'JSON text')],
  // `tests/same-answer.test.ts` holds these on all of them.
  ['tools through `xmlTools()`', () => 'streamed'],
  ['structured output', () => 'streamed'],
  ['one tool forced natively', ({ forcedTool }) => words[forcedTool]],
  ['some tool required natively', ({ requiredTool }) => words[requiredTool]],
  ['`strict` tools', ({ strictTool }) => words[strictTool]],
  ["the service's own tools", ({ ownTool }) => words[ownTool]],
  ['images as bytes', ({ imageBytes }) => words[imageBytes]],
  ['images by address', ({ imageUrl }) => words[imageUrl]],
  ['`reasoning: { effort }`', ({ reasoningEffort }) => words[reasoningEffort]],
  ['`reasoning: { budgetTokens }`', ({ reasoningBudget }) => words[reasoningBudget]],
  ['`maxTokens`, `temperature`, `topP`', (of) => words[of.maxTokens]],
  ['`stop`', ({ stop }) => words[stop]],
  ['system messages between others', ({ laterSystemMessage }) => words[laterSystemMessage]],
]

/** The README's table of what each provider supports: the claims that the conformance suite tests. */
export function supportTable(): string {
  const columns: Supports[] = Object.values(supports)
  const lines = [['', ...Object.keys(supports)], ...rows.map(([label, cell]) => [label, ...columns.map(cell)])]
  const widths = lines[0]!.map((_, i) => Math.max(3, ...lines.map((line) => line[i]!.length)))
  const [head, ...body] = lines.map((line) => `| ${line.map((cell, i) => cell.padEnd(widths[i]!)).join(' | ')} |`)
  return [head, `| ${widths.map((width) => '-'.repeat(width)).join(' | ')} |`, ...body].join('\n')
}
