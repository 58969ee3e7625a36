import { join, relative } from 'node:path'
import ts from 'typescript'
import { describe, expect, test } from 'vitest'
import { codeBlocks, compileProblems, root } from './documents.ts'

const { compilerOptions } = (
  ts.readConfigFile(join(root, 'tsconfig.json'), (path) => ts.sys.readFile(path)) as {
    config: { compilerOptions: { paths: Record<string, [string]> } }
  }
).config
/** The file of each entry, by what users import. */
const entries = Object.entries(compilerOptions.paths).map(([name, [file]]) => ({ name, file: join(root, file) }))

/** What stands in the reference: an export, or a member of one. */
interface Subject {
  /** As users would say it, e.g. `RetryOptions.attempts`. */
  readonly name: string
  readonly node: ts.Declaration
  readonly text: string
  /** What it is a member of. */
  readonly owner?: ts.Node | undefined
}

/** What the entries show, as the compiler sees it. */
class Reference {
  readonly subjects: readonly Subject[]
  readonly #program: ts.Program
  readonly #checker: ts.TypeChecker
  readonly #throwing = new Map<ts.Node, boolean>()

  /** Of entry files; `text` stands in for a file, where what is not in the project is to be judged. */
  constructor(files: readonly string[], text?: string) {
    const { options } = ts.convertCompilerOptionsFromJson(compilerOptions, root)
    const host = ts.createCompilerHost(options)
    const { readFile, fileExists } = host
    if (text !== undefined) {
      host.readFile = (path) => (path === files[0] ? text : readFile(path))
      host.fileExists = (path) => path === files[0] || fileExists(path)
    }
    const program = ts.createProgram([...files], options, host)
    this.#checker = program.getTypeChecker()
    this.#program = program
    const found = new Map<ts.Node, Subject>()
    for (const file of files) {
      for (const exported of this.#exportsOf(file)) {
        const symbol = this.#resolve(exported)
        for (const node of this.#documentedOf(symbol)) {
          if (isInternal(node)) continue
          found.set(node, { name: symbol.name, node, text: wordsOf(node) })
          for (const member of membersOf(node, symbol.name)) found.set(member.node, member)
        }
      }
    }
    this.subjects = [...found.values()]
  }

  #exportsOf(file: string): ts.Symbol[] {
    const module = this.#checker.getSymbolAtLocation(this.#program.getSourceFile(file)!)
    return module ? this.#checker.getExportsOfModule(module) : []
  }

  #resolve(exported: ts.Symbol): ts.Symbol {
    return exported.flags & ts.SymbolFlags.Alias ? this.#checker.getAliasedSymbol(exported) : exported
  }

  declarationsOf(file: string, name: string): ts.Declaration[] {
    const exported = this.#exportsOf(file).find((symbol) => symbol.name === name)
    return exported ? this.#documentedOf(this.#resolve(exported)) : []
  }

  /** The declarations of a symbol that carry its docstrings: of overloads, those that callers see. */
  #documentedOf({ declarations = [] }: ts.Symbol): ts.Declaration[] {
    const overloads = declarations.filter((node) => ts.isFunctionDeclaration(node) && !node.body)
    const visible = overloads.length > 0 ? overloads : declarations
    return visible.filter((node) => relative(root, node.getSourceFile().fileName).startsWith('src'))
  }

  /** Whether a call of it can throw by itself, or by what it calls of ours, before it gives anything back. */
  canThrowWhenCalled({ node }: Subject): boolean {
    const target = this.#implementationOf(node)
    return target !== undefined && this.#canThrow(target)
  }

  #canThrow(node: ts.Node): boolean {
    const known = this.#throwing.get(node)
    if (known !== undefined) return known
    this.#throwing.set(node, false)
    const body = bodyOf(node)
    const throws = body !== undefined && this.#throwsWithin(body)
    this.#throwing.set(node, throws)
    return throws
  }

  #throwsWithin(node: ts.Node): boolean {
    if (ts.isThrowStatement(node)) return true
    if (ts.isFunctionLike(node) || ts.isClassLike(node)) return false
    if (ts.isTryStatement(node) && node.catchClause) {
      return [node.catchClause, node.finallyBlock].some((part) => part !== undefined && this.#throwsWithin(part))
    }
    if (ts.isCallExpression(node) || ts.isNewExpression(node)) {
      const declaration = this.#checker.getResolvedSignature(node)?.declaration
      const target = declaration && this.#implementationOf(declaration)
      if (target && this.#canThrow(target)) return true
    }
    return ts.forEachChild(node, (child) => this.#throwsWithin(child) || undefined) ?? false
  }

  #implementationOf(node: ts.Node): ts.Node | undefined {
    if (bodyOf(node)) return node
    const name = ts.isFunctionDeclaration(node) ? node.name : undefined
    const symbol = name && this.#checker.getSymbolAtLocation(name)
    return symbol?.declarations?.find((each) => bodyOf(each) !== undefined)
  }

  /** Whether all of its type, or a part of a union, is one of `flags`. */
  isA({ node }: Subject, ...flags: ts.TypeFlags[]): boolean {
    const type = this.#checker.getNonNullableType(this.#checker.getTypeAtLocation(node))
    return (type.isUnion() ? type.types : [type]).some((part) => flags.some((flag) => (part.flags & flag) !== 0))
  }
}

function bodyOf(node: ts.Node): ts.Node | undefined {
  return ts.isFunctionDeclaration(node) || ts.isMethodDeclaration(node) || ts.isConstructorDeclaration(node)
    ? node.body
    : undefined
}

/** The docstring, without its tags. */
function wordsOf(node: ts.Node): string {
  const [comment] = ts.getJSDocCommentsAndTags(node).filter(ts.isJSDoc)
  return (ts.getTextOfJSDocComment(comment?.comment) ?? '').trim()
}

function tagsOf(node: ts.Node, name: string): string[] {
  return ts
    .getJSDocTags(node)
    .filter(({ tagName }) => tagName.text === name)
    .map(({ comment }) => ts.getTextOfJSDocComment(comment) ?? '')
}

/** What its type says: `type: 'text-delta'`, `role: 'user'`. */
function isSaidByItsType(node: ts.Node): boolean {
  return ts.isPropertySignature(node) && node.type !== undefined && ts.isLiteralTypeNode(node.type)
}

/** What stands in one line with what it belongs to is said there: `{ readonly code: string; readonly message: string }`. */
function isOneLine(node: ts.Node): boolean {
  return ts.isTypeLiteralNode(node) && !node.getText().includes('\n')
}

function isInternal(node: ts.Node): boolean {
  return tagsOf(node, 'internal').length > 0
}

/** Members that users see, those of members included. */
function membersOf(owner: ts.Node, path: string): Subject[] {
  const subjects: Subject[] = []
  const visit = (node: ts.Node): void => {
    if (ts.isBlock(node) || ts.isParameter(node) || isOneLine(node)) return
    // What the compiler works out is no shape that users write or read.
    if (ts.isConditionalTypeNode(node) || ts.isMappedTypeNode(node) || ts.isTypeParameterDeclaration(node)) return
    const isMember =
      ts.isPropertySignature(node) ||
      ts.isPropertyDeclaration(node) ||
      ts.isMethodSignature(node) ||
      ts.isMethodDeclaration(node) ||
      ts.isConstructorDeclaration(node) ||
      ts.isAccessor(node)
    if (!isMember) {
      ts.forEachChild(node, visit)
      return
    }
    const name = ts.isConstructorDeclaration(node) ? 'constructor' : node.name.getText()
    const isHidden = /^(?:#|\[|'~)/.test(name) || (ts.getCombinedModifierFlags(node) & ts.ModifierFlags.Private) !== 0
    if (isHidden || isInternal(node)) return
    const member = { name: `${path}.${name}`, node, text: wordsOf(node), owner }
    if (!isSaidByItsType(node)) subjects.push(member)
    if (ts.isPropertySignature(node) && node.type) subjects.push(...membersOf(node.type, member.name))
  }
  if (!isOneLine(owner)) ts.forEachChild(owner, visit)
  return subjects
}

const scalars = [ts.TypeFlags.NumberLike, ts.TypeFlags.BooleanLike, ts.TypeFlags.StringLike]

/** Each says what is missing. */
const rules: Record<string, (subject: Subject, reference: Reference) => boolean> = {
  'says more than its name': ({ name, text }) => {
    const said = new Set(text.toLowerCase().match(/[a-z]+/g) ?? [])
    const named = name
      .replaceAll(/([a-z])([A-Z])/g, '$1 $2')
      .toLowerCase()
      .split(/[^a-z]+/)
    for (const word of [...named, 'the', 'a', 'an', 'of', 'its']) said.delete(word)
    return said.size === 0
  },
  'says what a number counts': (subject, reference) => {
    if (!isValue(subject.node) || !reference.isA(subject, ts.TypeFlags.NumberLike)) return false
    const unit =
      /milliseconds|bytes|\btokens|characters|counted from|hundredths|HTTP status|UTF-16|how (?:many|often)|(?:most|deepest) \w+|many (?:deltas|characters|retries)|a number from|tool calls/i
    return (
      !unit.test(`${subject.text} ${wordsOf(subject.owner ?? subject.node)}`) && !/(?:Ms|Tokens)$/.test(subject.name)
    )
  },
  'says what an option is without being set': (subject, reference) => {
    const { node, owner, text, name } = subject
    if (!ts.isPropertySignature(node) || !node.questionToken) return false
    if (!/^[^.]*(?:Options|Limits|Timeouts|Request|Alerts)\./.test(name)) return false
    return reference.isA(subject, ...scalars) && !/default/i.test(`${text} ${wordsOf(owner ?? node)}`)
  },
  'says what it throws': (subject, reference) =>
    reference.canThrowWhenCalled(subject) && tagsOf(subject.node, 'throws').every((words) => words.trim() === ''),
}

const isValue = (node: ts.Node): boolean => ts.isPropertySignature(node) || ts.isPropertyDeclaration(node)

/** What lacks it, with the place to go to. */
function lacking(rule: keyof typeof rules, of: Reference): string[] {
  return of.subjects
    .filter((subject) => rules[rule]!(subject, of))
    .map(({ name, node }) => {
      const { fileName } = node.getSourceFile()
      const { line } = node.getSourceFile().getLineAndCharacterOfPosition(node.getStart())
      return `${name} (${relative(root, fileName)}:${line + 1})`
    })
}

/** What a reader looks up first. */
const mainExports: Readonly<Record<string, readonly string[]>> = {
  fieldstream: [
    'StreamingLLMClient',
    'ResponseStream',
    'tool',
    'outputFormat',
    'ToolStreamAccumulator',
    'FieldExtractorRegistry',
    'retry',
    'fallback',
    'timeout',
    'cache',
    'rateLimit',
    'xmlTools',
    'nonStreaming',
    'isLLMError',
  ],
  'fieldstream/anthropic': ['anthropic', 'toStreamEvents'],
  'fieldstream/openai': ['openai', 'openaiChat', 'toStreamEvents', 'toChatStreamEvents'],
  'fieldstream/ollama': ['ollama', 'toStreamEvents'],
  'fieldstream/gemini': ['gemini', 'toStreamEvents'],
  'fieldstream/testing': ['simulate', 'replayFetch', 'recordFetch'],
  'fieldstream/telemetry': ['telemetry'],
}

const reference = new Reference(entries.map(({ file }) => file))

describe('everything in the reference', () => {
  test.each(Object.keys(rules))('%s', (rule) => {
    expect(reference.subjects.length).toBeGreaterThan(500)
    expect(lacking(rule, reference)).toEqual([])
  })

  test.each(Object.entries(mainExports).flatMap(([entry, names]) => names.map((name) => [entry, name] as const)))(
    '%s: %s has an example',
    (entry, name) => {
      const { file } = entries.find((each) => each.name === entry)!
      const examples = reference.declarationsOf(file, name).flatMap((node) => tagsOf(node, 'example'))
      expect(examples.flatMap((example) => codeBlocks(example, 'ts'))).not.toHaveLength(0)
    },
  )

  test('has examples that compile', () => {
    const examples = reference.subjects.flatMap(({ node }) => tagsOf(node, 'example'))
    const blocks = examples.flatMap((example) => codeBlocks(example, 'ts'))
    expect(blocks.length).toBeGreaterThanOrEqual(examples.length)
    expect(compileProblems(blocks.map(({ text }) => text))).toEqual([])
  })
})

describe('what is missing is noticed:', () => {
  const sample = join(root, 'src/sample-of-a-fault.ts')
  const lackingIn = (rule: keyof typeof rules, text: string): string[] => lacking(rule, new Reference([sample], text))

  test.each([
    ['says more than its name', 'export interface Plan { readonly size: 1 }'],
    ['says more than its name', '/** The plan. */\nexport interface Plan {}'],
    ['says more than its name', '/** What is to be done. */\nexport class Plan {\n  begin(): void {}\n}'],
    [
      'says more than its name',
      '/** What is to be done. */\nexport type Plan = { kind: 1 } & {\n  readonly steps: string[]\n}',
    ],
    [
      'says what a number counts',
      '/** What is to be done. */\nexport interface Plan {\n  /** How long. */\n  readonly length?: number | undefined\n}',
    ],
    [
      'says what an option is without being set',
      "/** What is to be done. */\nexport interface PlanOptions {\n  /** How well. */\n  readonly way?: 'fast' | 'well' | undefined\n}",
    ],
    ['says what it throws', '/** Plans. */\nexport function plan(): void {\n  throw new Error()\n}'],
    [
      'says what it throws',
      '/** Plans. */\nexport function plan(): void {\n  begin()\n}\nfunction begin(): void {\n  throw new Error()\n}',
    ],
    [
      'says what it throws',
      "import { tool } from './tool.ts'\n/** Plans. */\nexport const plans = 1\n/** Plans. */\nexport function plan(): unknown {\n  return tool({ name: '' })\n}",
    ],
  ])('%s: %s', (rule, text) => {
    expect(lackingIn(rule, text)).toHaveLength(1)
  })

  test('and what is there is not', () => {
    const text = `
      /** What is to be done. */
      export interface PlanOptions {
        readonly type: 'plan'
        /** Most steps to take. Default 5. */
        readonly steps?: number | undefined
        /** Where it ends: a place by its name. */
        readonly end: { readonly name: string; readonly size: number }
      }
      /**
       * Plans ahead.
       *
       * @throws Error where there is nothing to plan.
       */
      export function plan(): void {
        throw new Error()
      }
      /** Hands out what fails later, and what is caught. */
      export function later(): () => void {
        try {
          plan()
        } catch {}
        return () => plan()
      }`
    for (const rule of Object.keys(rules)) expect(lackingIn(rule, text)).toEqual([])
  })
})
