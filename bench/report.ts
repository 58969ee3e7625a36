import { readFileSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { format, resolveConfig } from 'prettier'

const page = new URL('../docs/benchmarks.md', import.meta.url)

export type Table = readonly (readonly string[])[]

export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN
}

/** A number as short as it can be said. */
export function toFigure(value: number): string {
  if (Number.isNaN(value)) return '–'
  return value.toFixed(value < 1 ? 2 : value < 100 ? 1 : 0)
}

export function toText(table: Table): string {
  const widths = table[0]!.map((_, column) => Math.max(...table.map((row) => row[column]!.length)))
  return table
    .map((row) =>
      row
        .map((cell, column) => (column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!)))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

export function toMarkdown([head, ...rows]: Table): string {
  const rule = head!.map((_, column) => (column === 0 ? '---' : '--:'))
  return [head!, rule, ...rows].map((row) => `| ${row.join(' | ')} |`).join('\n')
}

/** What a figure depends on, besides the code. */
export function machine(): string {
  return `Node ${process.versions.node}, ${cpus().length} cores, ${new Date().toISOString().slice(0, 10)}`
}

/** Replaces sections of docs/benchmarks.md by their names; each stands between `<!-- name -->` and `<!-- /name -->`. */
export async function writeSections(sections: Readonly<Record<string, string>>): Promise<void> {
  let text = readFileSync(page, 'utf8')
  for (const [name, content] of Object.entries(sections)) {
    const [begin, end] = [`<!-- ${name} -->`, `<!-- /${name} -->`]
    const [before, rest] = text.split(begin) as [string, string | undefined]
    const after = rest?.split(end)[1]
    if (after === undefined) throw new Error(`docs/benchmarks.md has no section "${name}".`)
    text = `${before}${begin}\n\n${content}\n\n${end}${after}`
  }
  const options = await resolveConfig(page)
  writeFileSync(page, await format(text, { ...options, parser: 'markdown' }))
}

/** Says on stderr what is under way. */
export function showProgress(text: string): void {
  process.stderr.write(process.stderr.isTTY ? `\r\u001b[K${text}` : `${text}\n`)
}

export function endProgress(): void {
  if (process.stderr.isTTY) process.stderr.write('\r\u001b[K')
}

export function versionOf(packageName: string, folder = '..'): string {
  const manifest = new URL(`${folder}/node_modules/${packageName}/package.json`, import.meta.url)
  return (JSON.parse(readFileSync(manifest, 'utf8')) as { version: string }).version
}
