import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import type { FuzzInput } from './target.ts'

const fileOf = (target: string): URL => new URL(`seeds/${target}.json`, import.meta.url)

/** The inputs that once broke a promise. */
export function readSeeds(target: string): FuzzInput[] {
  const file = fileOf(target)
  return existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as FuzzInput[]) : []
}

export function writeSeeds(target: string, seeds: readonly FuzzInput[]): void {
  writeFileSync(fileOf(target), `${JSON.stringify(seeds, undefined, 2)}\n`)
}
