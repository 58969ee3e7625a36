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
async function kilobytesOf(
  imports: Readonly<Record<string, string>>,
  without: readonly string[] = sdks,
): Promise<number> {
  const contents = Object.entries(imports).map(([from, names]) => `export { ${names} } from '${from}'`)
  const { outputFiles } = await build({
    stdin: { contents: contents.join('\n'), resolveDir: root },
    bundle: true,
    minify: true,
    format: 'esm',
    platform: 'node',
    write: false,
    logLevel: 'error',
    external: [...without, ...later, 'p-queue', 'lru-cache', '@opentelemetry/api'],
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
for (const name of ['timeout', 'retry', 'fallback', 'nonStreaming', 'rateLimit', 'cache', 'xmlTools']) {
  const both = await kilobytesOf({ './src/index.ts': `StreamingLLMClient, tool, ${name}` })
  rows.push([`client and \`${name}()\``, toFigure(both), toFigure(both - alone)])
}
const withSdk = await kilobytesOf({ ...client, ...anthropic, '@anthropic-ai/sdk': 'Anthropic' }, [])
rows.push(['client, `anthropic()` and the SDK that it needs', toFigure(withSdk), ''])
const aiSdk = await kilobytesOf({ ai: 'streamText, tool, Output', '@ai-sdk/anthropic': 'createAnthropic' })
rows.push([
  `AI SDK ${versionOf('ai')}: \`streamText\` and its Anthropic provider, which need no SDK`,
  toFigure(aiSdk),
  '',
])

const table = [['', 'kB', 'adds, kB'], ...rows]
const note =
  'Bundled by esbuild, minified and gzipped, without the official SDKs but where they are named, and without what is loaded when it is first used. Last: what a provider adds beside `anthropic()`, and all else beside the client.'
console.log(`${note}\n\n${toText(table)}`)
if (flags.write) await writeSections({ 'bench:size': `${note}\n\n${toMarkdown(table)}` })
