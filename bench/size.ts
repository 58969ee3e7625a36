/**
 * `npm run bench:size`: what a client and one provider add to a bundle, and what others add for the same: minified and gzipped,
 * the SDKs apart, which all but the AI SDK need.
 */
import { gzipSync } from 'node:zlib'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { build } from 'esbuild'
import { toFigure, toMarkdown, toText, versionOf, writeSections } from './report.ts'

const { values: flags } = parseArgs({ options: { write: { type: 'boolean', default: false } } })
const root = fileURLToPath(new URL('..', import.meta.url))
const sdks = ['@anthropic-ai/sdk', 'openai', 'ollama', '@google/genai']
/** Loaded when first used. */
const later = [
  '*/optional-parts.ts',
  '*/tool-runner.ts',
  '*/json-channel.ts',
  '*/xml-channel.ts',
  '*/node-transport.ts',
]

/** Kilobytes of a bundle of what `imports` names, and of what of it is loaded at once. */
async function kilobytesOf(imports: Readonly<Record<string, string>>): Promise<number> {
  const contents = Object.entries(imports).map(([from, names]) => `export { ${names} } from '${from}'`)
  const { outputFiles } = await build({
    stdin: { contents: contents.join('\n'), resolveDir: root },
    bundle: true,
    minify: true,
    format: 'esm',
    platform: 'node',
    write: false,
    logLevel: 'error',
    external: [...sdks, ...later, 'p-queue', 'lru-cache', '@opentelemetry/api'],
  })
  return gzipSync(outputFiles[0]!.contents, { level: 9 }).length / 1000
}

const client = { './src/index.ts': 'StreamingLLMClient, tool' }
const provider = (file: string, name: string): Record<string, string> => ({ [`./src/providers/${file}.ts`]: name })
const anthropic = provider('anthropic', 'anthropic')
const providers: readonly (readonly [string, Record<string, string>])[] = [
  ['anthropic()', anthropic],
  ['openai()', provider('openai-responses', 'openai')],
  ['openaiChat()', provider('openai-chat', 'openaiChat')],
  ['ollama()', provider('ollama', 'ollama')],
  ['gemini()', provider('gemini', 'gemini')],
]

const alone = await kilobytesOf(client)
const withAnthropic = await kilobytesOf({ ...client, ...anthropic })
const rows: [string, string, string][] = [
  ['`ToolStreamAccumulator` alone', toFigure(await kilobytesOf({ './src/index.ts': 'ToolStreamAccumulator' })), ''],
  ['client', toFigure(alone), ''],
]
for (const [name, imports] of providers) {
  const both = await kilobytesOf({ ...client, ...imports })
  const beside = await kilobytesOf({ ...client, ...anthropic, ...imports })
  rows.push([`client and \`${name}\``, toFigure(both), name === 'anthropic()' ? '' : toFigure(beside - withAnthropic)])
}
const all = Object.assign({}, client, ...providers.map(([, imports]) => imports)) as Record<string, string>
rows.push(['client and all five', toFigure(await kilobytesOf(all)), ''])
const middleware = 'StreamingLLMClient, tool, retry, fallback, timeout, cache, rateLimit, nonStreaming, xmlTools'
rows.push(['client and all middleware', toFigure(await kilobytesOf({ './src/index.ts': middleware })), ''])
const aiSdk = await kilobytesOf({ ai: 'streamText, tool, Output', '@ai-sdk/anthropic': 'createAnthropic' })
rows.push([`AI SDK ${versionOf('ai')}: \`streamText\` and its Anthropic provider`, toFigure(aiSdk), ''])

const table = [['', 'kB', 'beside `anthropic()`, kB'], ...rows]
const note =
  'Bundled by esbuild, minified and gzipped, without the official SDKs and without what is loaded when it is first used. Last: what a second provider adds.'
console.log(`${note}\n\n${toText(table)}`)
if (flags.write) await writeSections({ 'bench:size': `${note}\n\n${toMarkdown(table)}` })
