import { existsSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import ts from 'typescript'

export const root = join(import.meta.dirname, '..')

/** A block of code in a Markdown file. */
export interface CodeBlock {
  readonly text: string
  /** The file it shows, where the comment before it names one: `<!-- examples/quick-start.ts -->`. */
  readonly file: string | undefined
}

export function readDocument(path: string): string {
  return readFileSync(join(root, path), 'utf8')
}

export function codeBlocks(markdown: string, language: string): CodeBlock[] {
  const pattern = new RegExp('(?:<!-- (examples/\\S+) -->\n\n)?```' + language + '\n(.*?)```', 'gs')
  return [...markdown.matchAll(pattern)].map(([, file, text]) => ({ text: text!, file }))
}

/** The blocks that are not what their file is. */
export function staleBlocks(markdown: string): string[] {
  return codeBlocks(markdown, 'ts').flatMap(({ file, text }) =>
    file === undefined || text === readDocument(file) ? [] : [file],
  )
}

/** What fragments of a document take as given. */
const preamble = `
import { FieldExtractorRegistry, isLLMError, type Message, StreamingLLMClient, tool } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { recordFetch, replayFetch, simulate } from 'fieldstream/testing'
import { z } from 'zod'
const model = 'claude-haiku-4-5'
const messages: { role: 'user'; content: string }[] = []
const show = (text: string): void => void text
const answer = tool({
  name: 'answer',
  input: z.object({
    route: z.string(),
    title: z.string(),
    price: z.number(),
    summary_message_part_1: z.string(),
    product_cards: z.array(z.object({ id: z.string() })),
    ask_slots: z.array(z.object({ message: z.string() })),
  }),
})
const tools: never[] = []
const client = new StreamingLLMClient({ provider: anthropic({ model }) })
const stream = client.stream({ messages, tools: [answer], fields: { ask_message: 'ask_slots[*].message' } })
void [FieldExtractorRegistry, isLLMError, recordFetch, replayFetch, simulate, tools, show, stream, {} as Message]
`

/** Why samples do not compile. One that imports the library stands alone; any other is a fragment. */
export function compileProblems(samples: readonly string[]): string[] {
  const files = new Map(
    samples.map((sample, i) => {
      const isWhole = sample.includes("from 'fieldstream'")
      const given = 'declare const model: string, messages: never[], tools: never[];\n'
      const text = isWhole ? `${sample}\n${given}` : `${preamble}\n{\n${sample}\n}\nexport {}`
      return [join(root, `sample-${i}.ts`), text]
    }),
  )
  const { config } = ts.readConfigFile(join(root, 'tsconfig.json'), (path) => ts.sys.readFile(path)) as {
    config: { compilerOptions: object }
  }
  const { options } = ts.convertCompilerOptionsFromJson(config.compilerOptions, root)
  // As those of Nest are compiled.
  options.experimentalDecorators = true
  const host = ts.createCompilerHost(options)
  const { fileExists, readFile } = host
  host.fileExists = (path) => files.has(path) || fileExists(path)
  host.readFile = (path) => files.get(path) ?? readFile(path)
  return ts
    .getPreEmitDiagnostics(ts.createProgram([...files.keys()], options, host))
    .map(({ file, messageText }) => `${file?.fileName ?? ''}: ${ts.flattenDiagnosticMessageText(messageText, '\n')}`)
}

/** The relative links of a document, from the project's folder. */
export function linksOf(document: string): string[] {
  const text = readDocument(document)
  return [...text.matchAll(/\]\(([^)\s]+)\)/g), ...text.matchAll(/^\[[^\]]+\]: (\S+)$/gm)]
    .map(([, target]) => target!)
    .filter((target) => !/^[a-z]+:/.test(target))
    .map((target) => {
      const [path, anchor] = target.split('#')
      const file = path === '' ? document : relative(root, resolve(root, dirname(document), path!))
      return anchor === undefined ? file : `${file}#${anchor}`
    })
}

/** Whether the file, and in it the heading, is there. */
export function linkHolds(link: string): boolean {
  const [path, anchor] = link.split('#') as [string, string | undefined]
  if (!existsSync(join(root, path))) return false
  if (anchor === undefined) return true
  const headings = [...readDocument(path).matchAll(/^#+ (.*)$/gm)].map(([, text]) => text!)
  const names = headings.map((text) =>
    text
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-'),
  )
  return names.includes(anchor)
}
