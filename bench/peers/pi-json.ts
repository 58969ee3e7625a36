/**
 * The parser of pi-ai 1.5. That version has dependencies which not every registry holds, but the parser needs none of them: the
 * package is unpacked, not installed.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

export const piVersion = '1.5.2'

export interface JsonChange {
  readonly kind: 'set' | 'append'
  readonly path: readonly (string | number)[]
  readonly value?: unknown
  readonly text?: string
}

export type StreamingJsonParserClass = new () => { append(text: string): readonly JsonChange[] }

/** `undefined` where the package cannot be had. */
export async function loadStreamingJsonParser(): Promise<StreamingJsonParserClass | undefined> {
  const folder = fileURLToPath(new URL('node_modules/.pi-ai', import.meta.url))
  const file = `${folder}/package/dist/utils/streaming-json.js`
  if (!existsSync(file)) {
    mkdirSync(folder, { recursive: true })
    const options = { cwd: folder, encoding: 'utf8', shell: process.platform === 'win32' } as const
    const packed = spawnSync('npm', ['pack', '--silent', `@earendil-works/pi-ai@${piVersion}`], options)
    const unpacked = spawnSync('tar', ['-xzf', packed.stdout.trim()], options)
    if (unpacked.status !== 0) {
      console.error(`pi-ai ${piVersion} is left out, since it could not be had: ${packed.stderr.trim()}`)
      return undefined
    }
  }
  const { StreamingJsonParser } = (await import(file)) as { StreamingJsonParser: StreamingJsonParserClass }
  return StreamingJsonParser
}
