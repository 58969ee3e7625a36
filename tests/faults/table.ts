import compared from './compared.json' with { type: 'json' }
import { comparedRows, type Observed } from './compare.ts'
import type { Row } from './row.ts'
import { casesOf } from './run-row.ts'
import { rows } from './rows.ts'
import { wires } from './wires.ts'

const groups: readonly (readonly [title: string, from: number, to: number])[] = [
  ['connection and HTTP', 1, 30],
  ['timing and truncation', 31, 54],
  ['framing and protocol', 55, 75],
  ['arguments and output', 76, 88],
  ['the application, and what lies around a run', 89, 117],
]

const marks: Readonly<Record<Observed, string>> = {
  right: '✓',
  silent: 'silent',
  flagged: 'flagged',
  'wrong value': '**wrong value**',
  hangs: 'hangs',
  fails: 'fails',
}

/** The table of the faults that the tests try. */
function faultTable(): string {
  const count = (some: readonly Row[], name: string): string => {
    const wire = wires.find((one) => one.name === name)!
    return String(some.flatMap((row) => casesOf(row, wire)).length)
  }
  return tableOf([
    ['faults', 'rows', ...wires.map(({ name }) => name)],
    ...groups.map(([title, from, to]) => {
      const some = rows.filter(({ number }) => number >= from && number <= to)
      return [title, String(some.length), ...wires.map(({ name }) => count(some, name))]
    }),
  ])
}

/** The columns: what is recorded under these names, side by side where it differs. */
const columns: Readonly<Record<string, readonly string[]>> = {
  'Anthropic SDK': ['Anthropic', 'Anthropic, helper'],
  'OpenAI SDK, Responses': ['OpenAI Responses', 'OpenAI Responses, helper'],
  'OpenAI SDK, Chat': ['OpenAI Chat', 'OpenAI Chat, helper'],
  'Ollama SDK': ['Ollama'],
  'Google SDK': ['Gemini'],
  'AI SDK': ['AI SDK, Anthropic', 'AI SDK, OpenAI', 'AI SDK, Google'],
}

/** The table of what the same faults do to other ways of reading a stream, as recorded. */
function comparisonTable(): string {
  const observed: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>> = compared.observed
  const cell = (names: readonly string[], row: number): string => {
    const seen = names.flatMap((name) => {
      const found = observed[name]![row]
      if (!found) return []
      const wrong = found.filter((one) => one !== 'right')
      return [(wrong.length > 0 ? wrong : found).map((one) => marks[one as Observed]).join(', ')]
    })
    return [...new Set(seen)].join(' / ')
  }
  return tableOf([
    ['fault', 'fieldstream', ...Object.keys(columns)],
    ...rows
      .filter(({ number }) => comparedRows.includes(number))
      .map(({ number, title }) => [
        title,
        // The tests run each row and fail where it is not kept.
        '✓',
        ...Object.values(columns).map((names) => cell(names, number)),
      ]),
  ])
}

/** What `docs/faults.md` says of them. */
export function reliabilitySection(): string {
  const versions = Object.entries(compared.versions).map(([name, version]) => `${name} ${version}`)
  return [
    'Faults that were tried on every provider, through the official SDKs over real sockets; in how many ways each:',
    faultTable(),
    'The same streams, read without this library, by SDKs with the settings they come with. Where an SDK also has a helper that collects the answer, what it does stands after the slash; so do the providers of the AI SDK where they differ. ✓: an error where the answer is not complete, and the answer where it is. _Silent_: no error, no complete answer. _Flagged_: no error, but a finish reason or a status that says so. _Wrong value_: text or arguments that the model did not write so. _Hangs_: no end within 2 s, and no limit that would bring one, but for the five minutes of Node’s `fetch`, which signs of life prolong. _Fails_: a complete answer becomes an error.',
    comparisonTable(),
    `Recorded with ${versions.join(', ')}.`,
  ].join('\n\n')
}

function tableOf(lines: readonly (readonly string[])[]): string {
  const widths = lines[0]!.map((_, i) => Math.max(3, ...lines.map((line) => line[i]!.length)))
  const [head, ...body] = lines.map((line) => `| ${line.map((cell, i) => cell.padEnd(widths[i]!)).join(' | ')} |`)
  return [head, `| ${widths.map((width) => '-'.repeat(width)).join(' | ')} |`, ...body].join('\n')
}
