/** Packs the library, installs the tarball into an empty folder, and runs and type-checks the README's example there. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

interface Manifest {
  readonly devDependencies: Readonly<Record<string, string>>
}

const root = join(import.meta.dirname, '..')
const { devDependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as Manifest
const folder = mkdtempSync(join(tmpdir(), 'fieldstream-package-'))

function run(command: string, ...args: string[]): string {
  return execFileSync(command, args, { cwd: folder, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })
}

/** The example as CommonJS: `require` for `import`, and a function around its top-level `await`. */
function toCommonJs(source: string): string {
  const imports: string[] = []
  const body = source.replace(/^import (\{[^}]*\}) from ('[^']+')$/gm, (_, names: string, from: string) => {
    imports.push(`const ${names} = require(${from})`)
    return ''
  })
  return `${imports.join('\n')}\nasync function main() {${body}}\nmain()\n`
}

try {
  const [packed] = JSON.parse(
    execFileSync('npm', ['pack', '--json', '--pack-destination', folder], { cwd: root, encoding: 'utf8' }),
  ) as [{ filename: string }]
  writeFileSync(join(folder, 'package.json'), '{ "private": true }')
  const pinned = ['@anthropic-ai/sdk', 'zod', '@types/node'].map((name) => `${name}@${devDependencies[name] ?? ''}`)
  run('npm', 'install', '--silent', '--prefer-offline', `./${packed.filename}`, ...pinned)

  const example = readFileSync(join(root, 'examples/quick-start.ts'), 'utf8')
  writeFileSync(join(folder, 'example.mjs'), example)
  writeFileSync(join(folder, 'example.cjs'), toCommonJs(example))
  writeFileSync(join(folder, 'types.mts'), example)
  for (const file of ['example.mjs', 'example.cjs']) {
    const output = run(process.execPath, file)
    if (!output.endsWith('How many guests do you expect? 🎉\nShould they be "gluten free"?\nproduct 2\n'))
      throw new Error(`${file} printed:\n${output}`)
    console.log(`${file} runs from the tarball`)
  }
  for (const resolution of ['nodenext', 'bundler']) {
    const module = resolution === 'bundler' ? 'esnext' : resolution
    const options = [
      '--noEmit',
      '--strict',
      '--exactOptionalPropertyTypes',
      '--skipLibCheck',
      'false',
      '--target',
      'es2024',
      '--types',
      'node',
    ]
    run(
      process.execPath,
      join(root, 'node_modules/typescript/bin/tsc'),
      ...options,
      '--module',
      module,
      '--moduleResolution',
      resolution,
      'types.mts',
    )
    console.log(`the example type-checks from the tarball (moduleResolution ${resolution}, skipLibCheck false)`)
  }
} finally {
  rmSync(folder, { recursive: true, force: true })
}
