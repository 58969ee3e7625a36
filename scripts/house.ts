// The files of `src` and what they import, for the test of the house rules and for the picture of the house.
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'

export const root = fileURLToPath(new URL('..', import.meta.url))
const src = join(root, 'src')

export interface Import {
  /** From `src`, without its ending; of a package, its name as written. */
  readonly target: string
  readonly isOurs: boolean
  /** Whether anything of it is left at run time. */
  readonly isTypeOnly: boolean
  /** `import()`, when it is called. */
  readonly isDynamic: boolean
}

export interface Module {
  /** From `src`, without its ending, e.g. `providers/anthropic`. */
  readonly name: string
  readonly source: ts.SourceFile
  readonly imports: readonly Import[]
}

/** Everything a file imports or exports from elsewhere, however it is written. */
function importsOf(source: ts.SourceFile): Import[] {
  const imports: Import[] = []
  const add = (specifier: ts.Node | undefined, isTypeOnly: boolean, isDynamic: boolean): void => {
    if (!specifier || !ts.isStringLiteral(specifier)) return
    const isOurs = specifier.text.startsWith('.')
    const target = isOurs
      ? relative(src, resolve(dirname(source.fileName), specifier.text)).replace(/\.ts$/, '')
      : specifier.text
    imports.push({ target, isOurs, isTypeOnly, isDynamic })
  }
  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node)) {
      const { importClause: clause } = node
      const names = clause?.namedBindings
      const areTypes =
        clause !== undefined &&
        !clause.name &&
        names !== undefined &&
        ts.isNamedImports(names) &&
        names.elements.every((element) => element.isTypeOnly)
      add(node.moduleSpecifier, clause?.phaseModifier === ts.SyntaxKind.TypeKeyword || areTypes, false)
    } else if (ts.isExportDeclaration(node)) {
      const { exportClause: clause } = node
      const areTypes =
        clause !== undefined && ts.isNamedExports(clause) && clause.elements.every((element) => element.isTypeOnly)
      add(node.moduleSpecifier, node.isTypeOnly || areTypes, false)
    } else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      add(node.arguments[0], false, true)
    } else if (ts.isCallExpression(node) && ts.isIdentifier(node.expression) && node.expression.text === 'require') {
      add(node.arguments[0], false, false)
    } else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) {
      add(node.argument.literal, true, false)
    }
    ts.forEachChild(node, visit)
  }
  visit(source)
  return imports
}

export function parse(name: string, text: string): Module {
  const source = ts.createSourceFile(join(src, `${name}.ts`), text, ts.ScriptTarget.ESNext, true)
  return { name, source, imports: importsOf(source) }
}

export const house: readonly Module[] = readdirSync(src, { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.ts'))
  .map((file) => parse(file.replaceAll('\\', '/').replace(/\.ts$/, ''), readFileSync(join(src, file), 'utf8')))

/** Types and small helpers that everything may import, and that import nothing but each other. */
export const contracts: ReadonlySet<string> = new Set([
  'check-options',
  'events',
  'provider',
  'middleware',
  'request',
  'errors',
  'guarded-call',
  'schema',
  'snapshot',
  'timers',
  'tool',
])
