/**
 * Packs the library, looks at what is in the tarball and whether another build makes the same, and installs it into an empty
 * folder. There every entry is loaded without its SDK, then with the
 * SDKs the README's example is run and type-checked, and the demo run over every provider.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Consumer, manifest, type Packed, root } from './consumer.ts'

/** A factory of each entry with a provider. */
const factories = { anthropic: 'anthropic', openai: 'openai', ollama: 'ollama', gemini: 'gemini' }

/** A script that loads one entry where no SDK is installed, and prints what else that loaded and how a request ends. */
function aloneScript(entry: string, factory: string, isEsm: boolean): string {
  const load = (name: string): string => (isEsm ? `await import('${name}')` : `require('${name}')`)
  const others = Object.keys(factories).filter((other) => other !== entry)
  const key = entry === 'ollama' ? '' : `apiKey: 'none'`
  return `
    void (async () => {
      const { registerHooks } = ${load('node:module')}
      const loaded = []
      registerHooks({ load: (url, context, next) => (loaded.push(url), next(url, context)) })
      const { StreamingLLMClient } = ${load('fieldstream')}
      const { ${factory} } = ${load(`fieldstream/${entry}`)}
      const client = new StreamingLLMClient({ provider: ${factory}({ model: 'some-model', ${key} }) })
      const stream = client.stream({ messages: [{ role: 'user', content: 'Hello' }] })
      const { code } = await stream.final().catch((error) => error)
      const isNeeded = (url) => /^node:|alone|node_modules.(fieldstream.dist|eventemitter3|eventsource-parser)/.test(url)
      const isOther = (url) => ${JSON.stringify(others)}.some((other) => url.includes('/dist/' + other))
      console.log(JSON.stringify({ code, unneeded: loaded.filter((url) => !isNeeded(url) || isOther(url)) }))
    })()
  `
}

const consumer = new Consumer()

/** Nothing but what is meant to be there, nothing that runs at installation, and nothing of the machine that built it. */
function checkContents({ integrity, files }: Packed): void {
  const isMeant = (path: string): boolean =>
    /^(?:dist\/[\w.-]+\.(?:js|cjs|d\.ts|d\.cts)|package\.json|README\.md|CHANGELOG\.md|LICENSE)$/.test(path)
  const others = files.filter(({ path }) => !isMeant(path))
  if (others.length > 0)
    throw new Error(`In the tarball, but not meant to be: ${others.map(({ path }) => path).join(', ')}`)
  const hooks = Object.keys(manifest.scripts).filter((name) => /^(?:pre|post)?(?:install|prepare)$/.test(name))
  if (hooks.length > 0) throw new Error(`Scripts that would run at installation: ${hooks.join(', ')}`)
  for (const { path } of files) {
    if (readFileSync(join(root, path), 'utf8').includes(root))
      throw new Error(`${path} names the folder it was built in`)
  }
  execFileSync('npm', ['run', 'build'], { cwd: root, stdio: 'ignore' })
  if (consumer.pack().integrity !== integrity) throw new Error('A second build makes another tarball')
  console.log(`the tarball holds its ${files.length} files and no others, and another build makes the same`)
}

/** What the library alone brings with it: nothing that runs at installation, and licences that any application can take. */
function checkInstalled(): void {
  interface Installed {
    readonly license?: string
    readonly hasInstallScript?: boolean
  }
  const lock = readFileSync(join(consumer.folder, 'node_modules/.package-lock.json'), 'utf8')
  const { packages } = JSON.parse(lock) as { readonly packages: Readonly<Record<string, Installed>> }
  const names = Object.keys(packages).map((path) => path.replace('node_modules/', ''))
  const expected = [manifest.name, ...Object.keys(manifest.dependencies)]
  if (names.sort().join() !== expected.sort().join()) throw new Error(`Installed with the library: ${names.join(', ')}`)
  for (const [path, { license, hasInstallScript }] of Object.entries(packages)) {
    if (hasInstallScript) throw new Error(`${path} runs a script at installation`)
    if (!/^(?:MIT|ISC|0BSD|Apache-2\.0|BSD-[23]-Clause)$/.test(license ?? '')) throw new Error(`${path}: ${license}`)
  }
  console.log(`installs ${expected.join(', ')} and nothing else, without a script, under permissive licences`)
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
  const packed = consumer.pack()
  checkContents(packed)
  consumer.install(`./${packed.filename}`)
  checkInstalled()
  for (const [entry, factory] of Object.entries(factories)) {
    for (const type of ['mjs', 'cjs']) {
      consumer.write(`alone.${type}`, aloneScript(entry, factory, type === 'mjs'))
      const found = consumer.run(process.execPath, `alone.${type}`).trim()
      if (found !== '{"code":"missing_dependency","unneeded":[]}')
        throw new Error(`fieldstream/${entry} without its SDK, as ${type}: ${found}`)
    }
    console.log(`fieldstream/${entry} loads nothing else, and says which SDK is missing`)
  }
  for (const [type, load] of [
    ['mjs', `import { telemetry } from 'fieldstream/telemetry'`],
    ['cjs', `const { telemetry } = require('fieldstream/telemetry')`],
  ] as const) {
    const use = `telemetry()(() => [])({ messages: [] }, {})[Symbol.asyncIterator]().next().catch(({ code }) => console.log(code))`
    consumer.write(`alone.${type}`, `${load}\n${use}`)
    const found = consumer.run(process.execPath, `alone.${type}`).trim()
    if (found !== 'missing_dependency') throw new Error(`fieldstream/telemetry alone, as ${type}: ${found}`)
  }
  console.log('fieldstream/telemetry loads nothing else, and says what is missing')
  const { status, stderr } = spawnSync(
    'npx',
    ['fieldstream', 'conformance', '--base-url', 'http://127.0.0.1:9', '--provider', 'openai', '--model', 'some-model'],
    { cwd: consumer.folder, encoding: 'utf8' },
  )
  if (status !== 2 || !stderr.includes('npm install openai@'))
    throw new Error(`The command without an SDK ended with ${String(status)}:\n${stderr}`)
  console.log('the command runs from the tarball, and says which SDK is missing')
  const version = consumer.run('npx', 'fieldstream', '--version').trim()
  if (version !== manifest.version) throw new Error(`fieldstream --version printed ${version}`)
  consumer.install('@anthropic-ai/sdk', 'openai', 'ollama', '@google/genai', 'zod', '@types/node')

  const example = readFileSync(join(root, 'examples/quick-start.ts'), 'utf8')
  consumer.write('example.mjs', example)
  consumer.write('example.cjs', toCommonJs(example))
  consumer.write('types.mts', example)
  for (const file of ['example.mjs', 'example.cjs']) {
    const output = consumer.run(process.execPath, file)
    if (!output.endsWith('How many guests do you expect? 🎉\nShould they be "gluten free"?\nproduct 2\n'))
      throw new Error(`${file} printed:\n${output}`)
    console.log(`${file} runs from the tarball`)
  }
  for (const file of ['demo.ts', 'terminal.ts'])
    consumer.write(file, readFileSync(join(root, 'examples', file), 'utf8'))
  for (const name of [...Object.keys(factories), 'openai-chat']) {
    const output = consumer.run(process.execPath, 'demo.ts', '--fast', '--provider', name)
    if (!output.includes('complete  generate_final_answer_unified, valid'))
      throw new Error(`The demo over ${name} printed:\n${output}`)
  }
  console.log('the demo runs from the tarball over every provider')
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
    consumer.run(
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
  consumer.remove()
}
