/**
 * `npm run check:types`: compiles what stands in `compatibility/types/` against the packed library, with each TypeScript that is
 * supported and each way to resolve modules; strict, and with declarations checked too (`skipLibCheck: false`). Where the
 * declarations of an SDK itself do not compile, that SDK is left out, and the table says so.
 */
import { execFile, type ExecFileException } from 'node:child_process'
import { cpSync, copyFileSync, readdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { Consumer, installCompatibility, root } from './consumer.ts'

const compilers = ['typescript-5.9', 'typescript-6.0', 'typescript-7.0']

interface Setting {
  readonly name: string
  readonly options: Readonly<Record<string, unknown>>
  /** Whether SDKs are tried, too; some need the types of Node and of the DOM. Without them, one compiler is enough. */
  readonly hasSdks: boolean
  /** Whether a `.cts` file with `import` loads CommonJS. */
  readonly hasCommonJs: boolean
}

const everywhere = { lib: ['es2024', 'dom', 'dom.iterable', 'dom.asynciterable'], types: ['node'] }
const nodenext = { module: 'nodenext', moduleResolution: 'nodenext' }

const settings: readonly Setting[] = [
  {
    name: 'node16',
    options: { ...everywhere, module: 'node16', moduleResolution: 'node16' },
    hasSdks: true,
    hasCommonJs: true,
  },
  { name: 'nodenext', options: { ...everywhere, ...nodenext }, hasSdks: true, hasCommonJs: true },
  {
    name: 'bundler',
    options: { ...everywhere, module: 'preserve', moduleResolution: 'bundler' },
    hasSdks: true,
    hasCommonJs: false,
  },
  {
    name: 'without the DOM',
    options: { ...nodenext, lib: ['es2024'], types: ['node'] },
    hasSdks: false,
    hasCommonJs: true,
  },
  {
    name: 'without Node',
    options: { ...nodenext, lib: everywhere.lib, types: [] },
    hasSdks: false,
    hasCommonJs: true,
  },
]

/** The package that each file with an SDK is about. */
const sdks: Readonly<Record<string, string>> = {
  'sdk-anthropic.ts': '@anthropic-ai/sdk',
  'sdk-gemini.ts': '@google/genai',
  'sdk-ollama.ts': 'ollama',
  'sdk-openai.ts': 'openai',
  'sdk-opentelemetry.ts': '@opentelemetry/api',
}

const sources = join(root, 'compatibility/types')
const unknown = readdirSync(sources).filter((file) => file.startsWith('sdk-') && !(file in sdks))
if (unknown.length > 0)
  throw new Error(`scripts/check-types.ts does not know which package is tried by ${unknown.join(', ')}`)

const compatibility = installCompatibility()
const consumer = new Consumer()
let failed = 0

async function compile(compiler: string, { name, options }: Setting, files: readonly string[]): Promise<string[]> {
  const compilerOptions = {
    ...options,
    target: 'es2024',
    strict: true,
    exactOptionalPropertyTypes: true,
    noUncheckedIndexedAccess: true,
    skipLibCheck: false,
    noEmit: true,
  }
  const project = `${compiler}-${name.replaceAll(' ', '-')}.json`
  consumer.write(project, JSON.stringify({ compilerOptions, files }))
  const tsc = join(compatibility, 'node_modules', compiler, 'bin/tsc')
  try {
    await promisify(execFile)(process.execPath, [tsc, '-p', project, '--pretty', 'false'], { cwd: consumer.folder })
    return []
  } catch (error) {
    const { stdout = '', stderr = '' } = error as ExecFileException
    const problems = stdout.split('\n').filter((line) => /^\S.*error TS\d+/.test(line))
    if (problems.length === 0) throw new Error(`${compiler} failed:\n${stdout}${stderr}`, { cause: error })
    return problems
  }
}

function versionOf(compiler: string): string {
  const require = createRequire(import.meta.url)
  return (require(join(compatibility, 'node_modules', compiler, 'package.json')) as { version: string }).version
}

async function check(compiler: string, setting: Setting): Promise<void> {
  const own = ['consumer.ts', 'required.cts', ...(setting.hasCommonJs ? ['consumer.cts'] : [])]
  let tried = setting.hasSdks ? Object.keys(sdks) : []
  let problems = await compile(compiler, setting, [...own, ...tried])
  const broken = tried.filter((file) => problems.some((problem) => problem.startsWith(`node_modules/${sdks[file]!}/`)))
  if (broken.length > 0) {
    tried = tried.filter((file) => !broken.includes(file))
    problems = await compile(compiler, setting, [...own, ...tried])
  }
  const without = broken.map((file) => sdks[file]!).join(', ')
  const note = without === '' ? '' : `, without ${without}, whose own declarations do not compile`
  const result = problems.length === 0 ? `ok${note}` : `${problems.length} errors${note}`
  console.log(`${`TypeScript ${versionOf(compiler)}`.padEnd(18)} ${setting.name.padEnd(16)} ${result}`)
  for (const problem of problems) console.log(`    ${problem}`)
  failed += problems.length
}

try {
  const { filename } = consumer.pack()
  consumer.install(`./${filename}`, ...Object.values(sdks), 'zod', '@types/node')
  cpSync(sources, consumer.folder, { recursive: true })
  copyFileSync(join(sources, 'consumer.ts'), join(consumer.folder, 'consumer.cts'))
  const waiting = compilers.flatMap((compiler) =>
    settings
      .filter(({ hasSdks }) => hasSdks || compiler === compilers.at(-1))
      .map((setting) => () => check(compiler, setting)),
  )
  const work = async (): Promise<void> => {
    for (let next = waiting.shift(); next; next = waiting.shift()) await next()
  }
  await Promise.all(Array.from({ length: Math.min(availableParallelism(), 4) }, work))
} finally {
  consumer.remove()
}
process.exitCode = failed > 0 ? 1 : 0
