/** The packed library as its users get it: a tarball, installed into an empty folder. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export const root = join(import.meta.dirname, '..')

export interface Packed {
  readonly filename: string
  /** A hash of the tarball. */
  readonly integrity: string
  readonly files: readonly { readonly path: string }[]
}

export interface Manifest {
  readonly name: string
  readonly version: string
  readonly exports: Readonly<Record<string, unknown>>
  readonly scripts: Readonly<Record<string, string>>
  readonly dependencies: Readonly<Record<string, string>>
  readonly peerDependencies: Readonly<Record<string, string>>
  readonly devDependencies: Readonly<Record<string, string>>
}

export const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as Manifest

export class Consumer {
  readonly folder = mkdtempSync(join(tmpdir(), 'fieldstream-package-'))

  constructor() {
    writeFileSync(join(this.folder, 'package.json'), '{ "private": true, "type": "module" }')
  }

  /** Packs what is in `dist/`. */
  pack(): Packed {
    const printed = execFileSync('npm', ['pack', '--json', '--pack-destination', this.folder], {
      cwd: root,
      encoding: 'utf8',
    })
    return (JSON.parse(printed) as [Packed])[0]
  }

  /** Installs packages in the versions that the project itself is developed with. */
  install(...names: string[]): void {
    const pinned = names.map((name) => {
      const version = manifest.devDependencies[name]
      return version === undefined ? name : `${name}@${version}`
    })
    this.run('npm', 'install', '--silent', '--prefer-offline', '--no-audit', '--no-fund', ...pinned)
  }

  write(file: string, text: string): void {
    writeFileSync(join(this.folder, file), text)
  }

  /** Runs a program in the folder, without any key of a service, and returns what it prints. */
  run(command: string, ...args: string[]): string {
    const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/_API_KEY$/.test(name)))
    return execFileSync(command, args, {
      cwd: this.folder,
      env,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'inherit'],
      timeout: 120_000,
    })
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true })
  }
}

/** Installs the runtimes and compilers of `compatibility/`, once. */
export function installCompatibility(): string {
  const folder = join(root, 'compatibility')
  const lock = readFileSync(join(folder, 'package-lock.json'), 'utf8')
  const marker = join(folder, 'node_modules', '.installed')
  try {
    if (readFileSync(marker, 'utf8') === lock) return folder
  } catch {
    // Not installed yet.
  }
  console.log('installing runtimes and compilers (compatibility/) …')
  // Not `npm ci`, which refuses a lockfile without the binaries of platforms that it was not made on.
  execFileSync('npm', ['install', '--no-save', '--prefix', folder, '--no-audit', '--no-fund'], {
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  writeFileSync(marker, lock)
  return folder
}
