import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import ts from 'typescript'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { supportTable } from './conformance/support-table.ts'
import { reliabilitySection } from './faults/table.ts'

const root = join(import.meta.dirname, '..')
const readme = readFileSync(join(root, 'README.md'), 'utf8')
const blocks = (language: string): string[] =>
  [...readme.matchAll(new RegExp('```' + language + '\n(.*?)```', 'gs'))].map(([, text]) => text!)

/** What the fragments of the README take as given. */
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

const folder = join(root, '.readme-samples')
beforeAll(() => mkdirSync(folder, { recursive: true }))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

test('the first example is the one in examples/, which is run', () => {
  expect(blocks('ts')[0]).toBe(readFileSync(join(root, 'examples/quick-start.ts'), 'utf8'))
})

test('every sample compiles', () => {
  const files = blocks('ts').map((sample, i) => {
    // A sample stands alone, or it is a fragment that goes on where the first example ends.
    const isWhole = sample.includes("from 'fieldstream'")
    const given = isWhole ? 'declare const model: string, messages: never[], tools: never[];\n' : preamble
    const text = i === 0 ? sample : isWhole ? `${sample}\n${given}` : `${given}\n{\n${sample}\n}\nexport {}`
    const file = join(folder, `sample-${i}.ts`)
    writeFileSync(file, text)
    return file
  })
  const { config } = ts.readConfigFile(join(root, 'tsconfig.json'), (path) => ts.sys.readFile(path)) as {
    config: { compilerOptions: object }
  }
  const { options } = ts.convertCompilerOptionsFromJson(config.compilerOptions, root)
  const program = ts.createProgram(files, { ...options, skipLibCheck: true })
  const problems = ts
    .getPreEmitDiagnostics(program)
    .map(({ file, messageText }) => `${file?.fileName ?? ''}: ${ts.flattenDiagnosticMessageText(messageText, '\n')}`)
  expect(problems).toEqual([])
})

test('the table of what each provider supports is what the conformance suite tests', () => {
  expect(readme).toContain(supportTable())
})

test('the tables of faults are what the matrix and its last comparison say', () => {
  expect(readme).toContain(reliabilitySection())
})

test('CI runs the test command that the README gives', () => {
  const [run, testCommand] = blocks('sh').map((text) => text.trim())
  expect(run).toBe('npm ci && npm run demo')
  expect(testCommand).toBe('npm ci && npm test')
  expect(readFileSync(join(root, '.ci/run'), 'utf8')).toContain(`\n${testCommand!}\n`)
})

test('the tests that the README names exist', () => {
  const names = [...readme.matchAll(/\]\((tests\/[^)]+)\)/g)].map(([, path]) => path!)
  expect(names.length).toBeGreaterThan(5)
  for (const name of names) expect(() => readFileSync(join(root, name))).not.toThrow()
})
