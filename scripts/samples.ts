/** The files of `examples/guides/`, each of which stands alone, and what it needs installed. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import ts from 'typescript'

export interface Sample {
  /** From the folder, with `/`. */
  readonly file: string
  readonly text: string
  /** Beside the library itself. */
  readonly packages: readonly string[]
}

/** What an import loads when first used, so that it is to be installed, too. */
const loadedLater: Readonly<Record<string, string>> = {
  'fieldstream/anthropic': '@anthropic-ai/sdk',
  'fieldstream/gemini': '@google/genai',
  'fieldstream/ollama': 'ollama',
  'fieldstream/openai': 'openai',
  'fieldstream/telemetry': '@opentelemetry/api',
  '@nestjs/core': '@nestjs/platform-express',
}
const loadedByFunctions: Readonly<Record<string, string>> = { cache: 'lru-cache', rateLimit: 'p-queue' }

export function samplesIn(folder: string): Sample[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .map((file) => file.replaceAll('\\', '/'))
    .filter((file) => /\.m?ts$/.test(file))
    .sort()
    .map((file) => {
      const text = readFileSync(join(folder, file), 'utf8')
      return { file, text, packages: packagesOf(text, file) }
    })
}

/** @throws Error where it imports a file. */
export function packagesOf(text: string, file: string): string[] {
  const found = new Set<string>()
  for (const { fileName: specifier } of ts.preProcessFile(text).importedFiles) {
    if (/^[./]/.test(specifier)) throw new Error(`${file} does not stand alone: it imports ${specifier}.`)
    if (specifier.startsWith('node:')) continue
    const loaded = loadedLater[specifier]
    if (loaded !== undefined) found.add(loaded)
    if (!/^fieldstream(?:\/|$)/.test(specifier)) found.add(/^(?:@[^/]+\/)?[^/]+/.exec(specifier)![0])
  }
  const ofTheCore = /import \{([^}]*)\} from 'fieldstream'/.exec(text)?.[1] ?? ''
  for (const [name, loaded] of Object.entries(loadedByFunctions))
    if (ofTheCore.split(/[\s,]+/).includes(name)) found.add(loaded)
  return [...found].sort()
}
