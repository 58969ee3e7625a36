/**
 * The public API as text, one report for each entry in `etc/`, made from the declarations in `dist/`. `npm run api` writes them;
 * `npm run check:api` fails where one is not what the declarations say, so that a change of the API is seen in review.
 */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { parseArgs } from 'node:util'
import { Extractor, ExtractorConfig, ExtractorLogLevel } from '@microsoft/api-extractor'

interface Manifest {
  readonly name: string
  readonly exports: Readonly<Record<string, string | { readonly import: { readonly types: string } }>>
}

const root = join(import.meta.dirname, '..')
const folder = join(root, 'etc')
const manifestPath = join(root, 'package.json')
const { name, exports } = JSON.parse(readFileSync(manifestPath, 'utf8')) as Manifest
const { write } = parseArgs({ options: { write: { type: 'boolean', default: false } } }).values

/** The report of one entry. What the tool remarks on style, and on where a docstring is missing, is no part of it. */
function reportOf(declarations: string, reportName: string, reportFolder: string): string {
  const silent = { default: { logLevel: ExtractorLogLevel.None } }
  const config = ExtractorConfig.prepare({
    configObject: {
      projectFolder: root,
      mainEntryPointFilePath: join(root, declarations),
      newlineKind: 'lf',
      compiler: {
        overrideTsconfig: {
          compilerOptions: {
            target: 'es2024',
            lib: ['es2024', 'dom', 'dom.iterable', 'dom.asynciterable'],
            module: 'nodenext',
            moduleResolution: 'nodenext',
            strict: true,
            exactOptionalPropertyTypes: true,
            skipLibCheck: true,
            types: ['node'],
          },
          files: [join(root, declarations)],
        },
      },
      apiReport: {
        enabled: true,
        reportFileName: reportName,
        reportFolder,
        reportTempFolder: reportFolder,
        // Types that are not exported but that exported ones are made of. The other entries would each repeat the core's.
        includeForgottenExports: reportName === name,
      },
      docModel: { enabled: false },
      dtsRollup: { enabled: false },
      tsdocMetadata: { enabled: false },
      messages: {
        compilerMessageReporting: silent,
        extractorMessageReporting: silent,
        tsdocMessageReporting: silent,
      },
    },
    configObjectFullPath: undefined,
    packageJsonFullPath: manifestPath,
  })
  Extractor.invoke(config, { localBuild: true, messageCallback: (message) => (message.handled = true) })
  return readFileSync(join(reportFolder, `${reportName}.api.md`), 'utf8')
    .replaceAll(/^ *\/\/ \(undocumented\)\n/gm, '')
    .replaceAll(' (undocumented)', '')
    .replace(/\n\/\/ \(No @packageDocumentation .*\n/, '')
}

/** The lines that only one of the two has, in the order of each. */
function difference(before: string, after: string): string[] {
  const [old, now] = [before.split('\n'), after.split('\n')]
  const [oldLines, nowLines] = [new Set(old), new Set(now)]
  return [
    ...old.filter((line) => !nowLines.has(line)).map((line) => `  - ${line}`),
    ...now.filter((line) => !oldLines.has(line)).map((line) => `  + ${line}`),
  ]
}

function read(file: string): string {
  try {
    return readFileSync(join(folder, file), 'utf8')
  } catch {
    return ''
  }
}

const scratch = mkdtempSync(join(tmpdir(), 'fieldstream-api-'))
const reports = new Map<string, string>()
try {
  for (const [entry, target] of Object.entries(exports)) {
    if (typeof target === 'string') continue
    const reportName = entry === '.' ? name : basename(entry)
    reports.set(`${reportName}.api.md`, reportOf(target.import.types, reportName, scratch))
  }
} finally {
  rmSync(scratch, { recursive: true, force: true })
}

mkdirSync(folder, { recursive: true })
const gone = readdirSync(folder).filter((file) => file.endsWith('.api.md') && !reports.has(file))
const changed = [...reports].filter(([file, report]) => read(file) !== report)
if (write) {
  for (const [file, report] of changed) writeFileSync(join(folder, file), report)
  for (const file of gone) rmSync(join(folder, file))
  console.log(changed.length + gone.length === 0 ? 'the reports were up to date' : 'written:')
  for (const file of [...changed.map(([changedFile]) => changedFile), ...gone]) console.log(`  etc/${file}`)
} else if (changed.length + gone.length > 0) {
  for (const [file, report] of changed) console.error(`etc/${file}\n${difference(read(file), report).join('\n')}\n`)
  for (const file of gone) console.error(`etc/${file} is of an entry that is gone.\n`)
  console.error(
    'The public API is not what its reports in etc/ say. If that is meant, run `npm run build && npm run api`,',
  )
  console.error('commit the reports with the change, and say in a changeset what it means for users (`npx changeset`).')
  process.exitCode = 1
} else {
  console.log(`the public API of ${reports.size} entries is what its reports in etc/ say`)
}
