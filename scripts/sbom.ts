/** `npm run sbom`: what an application gets with the library, as CycloneDX in `artifacts/sbom.cdx.json`; prints the licences. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { manifest, root } from './consumer.ts'

interface Component {
  readonly name: string
  readonly version: string
  readonly licenses?: readonly { readonly license?: { readonly id?: string }; readonly expression?: string }[]
}

interface Bill {
  readonly metadata: { readonly component: Component }
  readonly components: readonly Component[]
}

const text = execFileSync(
  'npm',
  ['sbom', '--omit', 'dev', '--sbom-format', 'cyclonedx', '--sbom-type', 'library', '--package-lock-only'],
  { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] },
)
const bill = JSON.parse(text) as Bill
// npm names the folder.
const { metadata } = bill
const named = { ...bill, metadata: { ...metadata, component: { ...metadata.component, name: manifest.name } } }
mkdirSync(join(root, 'artifacts'), { recursive: true })
writeFileSync(join(root, 'artifacts/sbom.cdx.json'), `${JSON.stringify(named, null, 2)}\n`)

for (const { name, version, licenses = [] } of [named.metadata.component, ...bill.components]) {
  const licence = licenses.map(({ license, expression }) => license?.id ?? expression ?? '').join(', ')
  console.log(`${name} ${version}  ${licence || 'no licence is named'}`)
}
console.log('artifacts/sbom.cdx.json')
