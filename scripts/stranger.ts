/**
 * What a stranger does: an empty folder, the packed library and one SDK, the README's example copied and run; then each file of
 * `examples/guides/`, alone in a folder where nothing is installed but what it names. All is installed once, in the versions
 * that the project is developed with.
 */
import { execFile, type ExecFileException } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { Consumer, manifest, root } from './consumer.ts'
import { type Sample, samplesIn } from './samples.ts'

const readme = readFileSync(join(root, 'README.md'), 'utf8')

function found(pattern: RegExp, what: string): string {
  const text = pattern.exec(readme)?.[1]
  if (text === undefined) throw new Error(`The README has no ${what}.`)
  return text
}

const installed = found(/^npm install fieldstream (.*)$/m, 'line that begins with `npm install fieldstream`').split(' ')
const example = found(
  /<!-- examples\/quick-start\.ts -->\n\n```ts\n(.*?)```/s,
  'block that shows examples/quick-start.ts',
)

const guides = join(root, 'examples/guides')
const samples = existsSync(guides) ? samplesIn(guides) : []
const needed = [...new Set(samples.flatMap(({ packages }) => packages))]
const { dependencies, devDependencies } = manifest
const strange = needed.filter((name) => !(name in dependencies) && !(name in devDependencies))
if (strange.length > 0) throw new Error(`The guides import ${strange.join(', ')}, which package.json does not name.`)

/** A folder of its own: the library as a copy, so that it finds no more than what is beside it, and links to the rest. */
function prepare({ file, text, packages }: Sample): string {
  const folder = join(consumer.folder, 'guides', file.replaceAll(/[/.]/g, '-'))
  const modules = join(folder, 'node_modules')
  mkdirSync(modules, { recursive: true })
  cpSync(join(consumer.folder, 'node_modules', manifest.name), join(modules, manifest.name), { recursive: true })
  for (const name of new Set([...Object.keys(dependencies), ...packages])) {
    mkdirSync(dirname(join(modules, name)), { recursive: true })
    symlinkSync(join(consumer.folder, 'node_modules', name), join(modules, name), 'junction')
  }
  writeFileSync(join(folder, 'package.json'), '{ "private": true, "type": "module" }')
  writeFileSync(join(folder, basename(file)), text)
  return folder
}

/** Why a sample does not do what it should. */
async function problemOf(sample: Sample): Promise<string | undefined> {
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/_API_KEY$/.test(name)))
  try {
    const options = { cwd: prepare(sample), env, timeout: 60_000 }
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [basename(sample.file)], options)
    if (stderr !== '') return `it writes to stderr:\n${stderr}`
    return stdout === '' ? 'it prints nothing' : undefined
  } catch (error) {
    const { code, killed, stdout = '', stderr = '' } = error as ExecFileException
    return killed ? 'it does not end within a minute' : `it ends with ${code ?? String(error)}:\n${stdout}${stderr}`
  }
}

const consumer = new Consumer()
try {
  const { filename } = consumer.pack()
  consumer.install(`./${filename}`, ...installed)
  consumer.write('quick-start.mts', example)
  const output = consumer.run(process.execPath, 'quick-start.mts')
  if (!output.endsWith('product 2\n')) throw new Error(`The README's example printed:\n${output}`)
  console.log(`the README's example runs in an empty folder after its npm install (${installed.join(', ')})`)

  const more = needed.filter((name) => !installed.includes(name))
  if (more.length > 0) consumer.install(...more)
  const waiting = [...samples]
  const problems: string[] = []
  const work = async (): Promise<void> => {
    for (let sample = waiting.shift(); sample; sample = waiting.shift()) {
      const problem = await problemOf(sample)
      if (problem === undefined)
        console.log(`examples/guides/${sample.file} runs with ${sample.packages.join(', ') || 'nothing else'}`)
      else problems.push(`examples/guides/${sample.file}: ${problem}`)
    }
  }
  await Promise.all([work(), work(), work()])
  if (problems.length > 0) throw new Error(problems.join('\n\n'))
  console.log(`${samples.length} samples of the guides run, each with only what it names`)
} finally {
  consumer.remove()
}
