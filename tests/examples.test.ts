import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, onTestFinished, test, vi } from 'vitest'

const root = join(import.meta.dirname, '..')

/** Runs an example as a person does, in a process of its own without a key. */
async function run(example: string, ...args: string[]): Promise<string> {
  const { ANTHROPIC_API_KEY: _, ...env } = process.env
  const hook = ['--import', './scripts/use-sources.ts']
  const { stdout, stderr } = await promisify(execFile)(process.execPath, [...hook, `examples/${example}`, ...args], {
    cwd: root,
    env,
  })
  expect(stderr).toBe('')
  return stdout
}

test('the quick start prints each question as it is written, then what it knows for sure', async () => {
  expect(await run('quick-start.ts')).toBe(
    'How many guests do you expect? 🎉\nShould they be "gluten free"?\nproduct 2\n',
  )
})

test.each([
  ['anthropic', 'a native tool call'],
  ['openai', 'a native tool call'],
  ['openai-chat', 'a native tool call'],
  ['ollama', 'JSON text'],
  ['gemini', 'JSON text'],
])('the demo on %s shows fields, cards and both payloads, plain where there is no terminal', async (name, channel) => {
  const output = await run('demo.ts', '--fast', '--provider', name)
  expect(output).not.toContain('\u001b')
  const expected = [
    `wire format of ${name}`,
    `arguments travel as ${channel}`,
    'reasoning held back',
    'route     product, known early',
    'ask       How many people are coming? 🎉',
    'ask       Is anybody "gluten free"',
    'reply     A party without chips',
    'complete  classify_and_assess',
    '"data_strategy": "search_then_rank"',
    'part 1    For about twenty guests',
    'part 3    Everything below',
    'card      Lentil Crisps "Sweet Chilli" 🌶️  2.99',
    'complete  generate_final_answer_unified',
  ]
  const places = expected.map((text) => output.indexOf(text))
  expect(places).not.toContain(-1)
  expect(places).toEqual([...places].sort((a, b) => a - b))
})

test('the demo says what it needs', async () => {
  await expect(run('demo.ts', '--provider', 'cohere')).rejects.toMatchObject({
    code: 1,
    stderr: expect.stringContaining('openai-chat, ollama, gemini') as string,
  })
  await expect(run('demo.ts', '--live')).rejects.toMatchObject({
    code: 1,
    stderr: expect.stringContaining('ANTHROPIC_API_KEY') as string,
  })
  await expect(run('demo.ts', '--speed')).rejects.toMatchObject({
    code: 1,
    stderr: expect.stringMatching(/^Unknown option '--speed'.*\nThe demo takes --provider <name>.*\n$/) as string,
  })
})

test('the demo says why nobody answers', async () => {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  // Nobody has this port now.
  await promisify(server.close.bind(server))()
  vi.stubEnv('OLLAMA_HOST', `http://127.0.0.1:${port}`)
  onTestFinished(() => void vi.unstubAllEnvs())
  await expect(run('demo.ts', '--live', '--provider', 'ollama')).rejects.toMatchObject({
    code: 1,
    stdout: expect.stringContaining(`ECONNREFUSED 127.0.0.1:${port}`) as string,
  })
})

test('every example of one file is run here', () => {
  const files = readdirSync(join(root, 'examples')).filter((name) => name.endsWith('.ts'))
  expect(files.sort()).toEqual([
    'batch.ts',
    'cache.ts',
    'demo.ts',
    'quick-start.ts',
    'rate-limit.ts',
    'reconnect.ts',
    'telemetry.ts',
    'terminal.ts',
    'tools.ts',
  ])
})
