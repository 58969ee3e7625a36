import { fork } from 'node:child_process'
import { mkdirSync, rmSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { median } from '../report.ts'
import type { Contestant } from './contestant.ts'
import type { WireName } from './job.ts'
import { sdkPackages } from './sdks.ts'

export interface ImportTime {
  readonly name: string
  readonly wire: WireName
  readonly milliseconds: number
}

const entries: Readonly<Record<WireName, string>> = {
  anthropic: 'anthropic',
  openai: 'openai',
  'openai-chat': 'openai',
  ollama: 'ollama',
  gemini: 'gemini',
}

/** What to import for each, after what. */
interface Job {
  readonly name: string
  readonly wire: WireName
  readonly before: readonly string[]
  readonly modules: readonly string[]
  readonly isPeer: boolean
}

function timeOf({ before, modules, isPeer }: Job): Promise<number> {
  const file = isPeer ? '../peers/import-modules.ts' : 'import-modules.ts'
  const child = fork(fileURLToPath(new URL(file, import.meta.url)), {
    execArgv: [],
    env: { PATH: process.env['PATH'], NODE_NO_WARNINGS: '1' },
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  })
  return new Promise((resolve, reject) => {
    child.once('message', (milliseconds) => resolve(milliseconds as number))
    child.once('exit', () => reject(new Error(`${modules.join(', ')} cannot be imported.`)))
    child.send({ before, modules })
  })
}

/** How long it takes to load each in a fresh process. Ours is bundled first, as it is published. */
export async function importTimes(
  contestants: ReadonlyMap<string, Contestant>,
  wires: readonly WireName[],
  rounds: number,
  onProgress: (name: string) => void,
): Promise<ImportTime[]> {
  const root = fileURLToPath(new URL('../..', import.meta.url))
  const outdir = `${root}/dist/bench`
  mkdirSync(outdir, { recursive: true })
  await build({
    absWorkingDir: root,
    entryPoints: {
      index: 'src/index.ts',
      ...Object.fromEntries([...new Set(Object.values(entries))].map((name) => [name, `src/providers/${name}.ts`])),
    },
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    packages: 'external',
    outdir,
  })
  const jobs: Job[] = wires.flatMap((wire) => {
    const sdk = sdkPackages[wire]
    const ours = [`${outdir}/index.js`, `${outdir}/${entries[wire]}.js`]
    const other = [...contestants.values()].filter(({ kind, packages }) => kind === 'other' && packages[wire])
    return [
      { name: 'the SDK', wire, before: [], modules: sdk, isPeer: false },
      { name: 'fieldstream, after the SDK', wire, before: sdk, modules: ours, isPeer: false },
      ...other
        .filter(({ givesArguments, packages }) => !givesArguments && packages[wire] !== sdk)
        .map(({ name, packages }) => ({
          name: name.split(',')[0]!,
          wire,
          before: [],
          modules: packages[wire]!,
          isPeer: !packages[wire]!.includes('ai'),
        })),
    ]
  })
  const times = new Map(jobs.map((job) => [job, [] as number[]]))
  for (let round = 0; round < rounds; round++) {
    for (const job of jobs) {
      onProgress(`round ${round + 1} of ${rounds}: ${job.name}, ${job.wire}`)
      times.get(job)!.push(await timeOf(job))
    }
  }
  rmSync(outdir, { recursive: true })
  return jobs.map((job) => ({ name: job.name, wire: job.wire, milliseconds: median(times.get(job)!) }))
}
