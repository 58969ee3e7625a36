import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { readDocument, root } from './documents.ts'
import { hasRedis, startRedis } from './redis-server.ts'

/** Runs an example with these arguments, and returns what it prints. */
type Run = (...args: string[]) => Promise<string>

const tried = new Set<string>()

/** What one example promises. It is run as a person runs it, in a process of its own without a key. */
function example(file: string, promise: string, check: (run: Run) => Promise<void>, canRun = true): void {
  tried.add(file)
  test.skipIf(!canRun)(`${file} ${promise}`, async () => {
    const run = vi.fn<Run>(async (...args) => {
      const { ANTHROPIC_API_KEY: _, ...env } = process.env
      const command = ['--import', './scripts/use-sources.ts', `examples/${file}`, ...args]
      const { stdout, stderr } = await promisify(execFile)(process.execPath, command, { cwd: root, env })
      expect(stderr).toBe('')
      return stdout
    })
    await check(run)
    expect(run).toHaveBeenCalled()
  })
}

afterEach(() => void vi.unstubAllEnvs())

example('quick-start.ts', 'prints each question as it is written, then what it knows for sure', async (run) => {
  expect(await run()).toBe('How many guests do you expect? 🎉\nShould they be "gluten free"?\nproduct 2\n')
})

describe.each([
  ['anthropic', 'a native tool call'],
  ['openai', 'a native tool call'],
  ['openai-chat', 'a native tool call'],
  ['ollama', 'JSON text'],
  ['gemini', 'JSON text'],
])('on %s', (name, channel) => {
  example('demo.ts', 'shows fields, cards and both payloads, plain where there is no terminal', async (run) => {
    const output = await run('--fast', '--provider', name)
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
})

example('demo.ts', 'says what it needs', async (run) => {
  await expect(run('--provider', 'cohere')).rejects.toMatchObject({
    code: 1,
    stderr: expect.stringContaining('openai-chat, ollama, gemini') as string,
  })
  await expect(run('--live')).rejects.toMatchObject({
    code: 1,
    stderr: expect.stringContaining('ANTHROPIC_API_KEY') as string,
  })
  await expect(run('--speed')).rejects.toMatchObject({
    code: 1,
    stderr: expect.stringMatching(/^Unknown option '--speed'.*\nThe demo takes --provider <name>.*\n$/) as string,
  })
})

example('demo.ts', 'says why nobody answers', async (run) => {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  // Nobody has this port now.
  await promisify(server.close.bind(server))()
  vi.stubEnv('OLLAMA_HOST', `http://127.0.0.1:${port}`)
  await expect(run('--live', '--provider', 'ollama')).rejects.toMatchObject({
    code: 1,
    stdout: expect.stringContaining(`ECONNREFUSED 127.0.0.1:${port}`) as string,
  })
})

example('cache.ts', 'makes three calls for five answers', async (run) => {
  const answer = 'Red wine stains come out with salt and cold water.'
  const lines = (await run()).trim().split('\n')
  // Which of the two comes first is a matter of luck.
  const carls = lines.slice(3, 5)
  expect([...carls].sort()).toEqual([
    `carl: cached, in many deltas: ${answer}`,
    `carl: paid for, in many deltas: ${answer}`,
  ])
  expect(lines).toEqual([
    `anna: paid for, in many deltas: ${answer}`,
    `anna: cached, in one delta: ${answer}`,
    `ben: paid for, in many deltas: ${answer}`,
    ...carls,
    '3 calls for 5 answers',
  ])
})

example('rate-limit.ts', 'lets three begin each second, and refuses whom it has no room for', async (run) => {
  const lines = (await run()).trim().split('\n')
  // Two are under way and six wait.
  expect(lines.slice(8)).toEqual(['9: queue_full', '10: queue_full'])
  const waits = lines.slice(0, 8).map((line) => Number(/waited (\d+) ms/.exec(line)?.[1]))
  expect(waits[3]).toBeGreaterThan(980)
  expect(waits[6]).toBeGreaterThan(1980)
})

example('batch.ts', 'prints sentences', async (run) => {
  expect((await run()).trim().split('\n')).toEqual([
    'The shop opens at nine.',
    'Come early!',
    '今天很好。',
    '我们去公园。',
    'यह अच्छा है।',
    'फिर मिलेंगे।',
  ])
})

example('reconnect.ts', 'lets who lost the connection come back and miss nothing, as who comes late', async (run) => {
  const body = 'The harbour was quiet that morning, and nobody had yet seen the letter.'
  expect(await run()).toBe(`100 %\ncame back - ${body}\ncame late - ${body}\n`)
})

example(
  'telemetry.ts',
  'tells of a service that fails, of the one that stands in, and that it is slow',
  async (run) => {
    expect(await run()).toBe(`start     a run with an id
failed    anthropic: connection
fallback  openai gpt-5-mini
alert     no answer within 40 ms
first     text
finish    stop, tokens known: true
metrics   success, fallback used: true, 42 characters
span      chat gpt-5-mini, asked of openai
`)
  },
)

example('tools.ts', 'shows progress, results, a refusal and the final answer', async (run) => {
  expect(await run()).toBe(`Let me see.
[check_stock] {"product":"chips"}
 … asking Rome
 … asking Oslo
 → {"product":"chips","pieces":12}

[place_order] {"product":"chips","pieces":4}

[place_order] {"product":"chips","pieces":40}
 ✗ The call of tool "place_order" was not approved: place_order of more than 10 is for the boss
 → {"ordered":"4 × chips"}
Four bags are on their way; forty were too many.
3 steps, 5 messages to append
`)
})

example('writing/middleware.ts', 'masks addresses, and sees each attempt', async (run) => {
  const lines = (await run()).trim().split('\n')
  // That the second attempt is over may be seen before or after the answer is.
  expect(lines.sort()).toEqual([
    'I have written to them.',
    'attempt 1: failed, no event',
    'attempt 2: complete, begun',
    'sent: [{"role":"user","content":"Tell [address] and [address] that we open."}]',
  ])
})

example('writing/provider.ts', 'streams, answers in one piece, and says when it was cut', async (run) => {
  expect(await run()).toBe(`streamed: salted
streamed:  chips
complete: { product: 'salted chips', pieces: 4 } 52 tokens
in one piece: { product: 'salted chips', pieces: 4 }
cut: stream_truncated { product: 'salted chips', pieces: 4 }
`)
})

example('writing/extractor.ts', 'reports its fields with captures, checked and changed', async (run) => {
  expect((await run()).trim().split('\n')).toEqual([
    'headline {} Chips for twelve ',
    "summary_part { part: '1' } Three large bags will do. ",
    "reason { index: '0' } Crunchy. ",
    'picture {} https://shop.example/1.png ',
    'price {} 2.99 € ',
    "reason { index: '1' } Mild. ",
    'picture {} to follow (against its schema)',
    'price {} 3.50 € ',
    "choice { label: 'size' } large ",
    "choice { label: 'diet' } any",
  ])
})

example('writing/accumulator.ts', 'reads fields alone, and sections with the client', async (run) => {
  const lines = (await run()).trim().split('\n')
  expect(lines.slice(0, -4).join('')).toBe('How many guests?')
  expect(lines.slice(-4)).toEqual([
    "alone: { ask_slots: [ { message: 'How many guests?' } ] }",
    'Chips: 4 words',
    'Dips: 2 words',
    '47 characters',
  ])
})

example('writing/store.ts', 'finds an answer again when it is opened again', async (run) => {
  expect(await run()).toBe('asked: Salt and cold water.\nasked: Soap.\nkept: Salt and cold water.\n')
})

describe.each(['anthropic', 'ollama'])('on %s', (provider) => {
  example('generate.ts', 'gives the same answer with a callback, without, and in one piece', async (run) => {
    vi.stubEnv('OLLAMA_HOST', undefined)
    const fortune = 'The cup stands for a friend who has been silent. Write first.'
    const output = await run(provider)
    expect(output.replace(' (consumer_error) \n', '').split('\n')).toEqual([
      `in one piece: ${fortune}`,
      fortune,
      'streamed: many deltas, the same text: true',
      fortune,
      'not streamed: one delta, the same text: true',
      '',
    ])
    expect(output, 'the callback threw').toContain('(consumer_error)')
  })
})

example('act-early.ts', 'searches while the reply is written, and stops what is wrong or enough', async (run) => {
  const [search, found, reply, wrong, stopped] = (await run()).split('\n')
  expect(search).toBe('product: searching, with nothing of the reply written')
  expect(found).toBe('found while the reply was being written')
  expect(reply).toMatch(/^A party without .* goes with it\. \[ 'party chips, large', 'party chips, small' \]$/)
  expect(wrong).toBe('schema_mismatch at guests, nothing of the reply was paid for')
  expect(stopped).toBe('The run was aborted: long enough, with the words "party chips"')
})

example('progress.ts', 'draws a bar that is full only where the answer is complete', async (run) => {
  const [first, second] = (await run()).split('\nWait for the spring.\n')
  const percents = (text: string): number[] => [...text.matchAll(/(\d+) %$/gm)].map(([, number]) => Number(number))
  expect(percents(first!).length).toBeGreaterThan(2)
  expect(percents(first!)).toEqual(percents(first!).sort((a, b) => a - b))
  expect(percents(first!).at(-1)).toBe(100)
  expect(percents(second!).length).toBeGreaterThan(0)
  expect(Math.max(...percents(second!))).toBeLessThan(100)
  expect(second).toContain('stopped at less than 100 %: output_truncated')
})

example(
  'redis-stream.ts',
  'goes on at another node where the first was left',
  async (run) => {
    const redis = await startRedis()
    vi.stubEnv('REDIS_URL', redis.url)
    try {
      const [first, second, ...rest] = (await run()).trim().split('\n')
      const body = 'The harbour was quiet that morning, and nobody had yet seen the letter.'
      expect(first).toMatch(/^node A: "(The harbour .+)", and the connection is lost while the model writes$/)
      expect(`${/"(.*)"/.exec(first!)![1]!}${/"(.*)"/.exec(second!)![1]!}`).toBe(body)
      expect(rest).toEqual(['late:   the same, from the beginning', 'again:  nothing more'])
    } finally {
      await redis.stop()
    }
  },
  hasRedis,
)

example('guides/first-text.ts', 'prints text as it is written', async (run) => {
  expect(await run()).toBe('Salted crisps, made this morning.\nstop, tokens counted\n')
})

example('guides/fields.ts', 'streams strings, and gives all else when it closes', async (run) => {
  expect(await run()).toBe(`part 1 to 5: "Three"
part 1 to 16: " bags \\"Swee"
part 1 to 28: "t Chilli\\" 🌶"
part 1 to 40: "\ufe0f are plenty"
part 1 to 41: "."
summary summary_part_1 {"part":"1"} is "Three bags \\"Sweet Chilli\\" 🌶️ are plenty."
part 2 to 3: "Dip"
part 2 to 15: "s beside the"
part 2 to 17: "m."
summary summary_part_2 {"part":"2"} is "Dips beside them."
price cards[0].price {} not valid: -1
reason cards[0].reason {"index":"0"} is "stays crunchy"
card cards[0] {} is {"id":"chips-1","price":-1,"reason":"stays crunchy"}
tags tags {} is "party, snacks"
`)
})

example('guides/conversation.ts', 'answers two calls, and goes on', async (run) => {
  expect(await run()).toBe('user → assistant → tool → assistant\nFour bags cost 13.96, and we have 12.\n')
})

example('guides/structured-output.ts', 'takes schemas of three kinds', async (run) => {
  expect(await run()).toBe('Salted ones sell.Paprika follows.\nzod: 2\nvalibot: Crisps\nJSON Schema: Crisps\n')
})

example('guides/every-provider.ts', 'streams a forced call on all of them', async (run) => {
  expect(await run()).toBe(`anthropic native streamed product
openai native streamed product
groq native streamed product
ollama json streamed product
gemini json streamed product
ollama xml streamed product
`)
})

example('guides/own-stream.ts', 'reads the fields of an SDK stream', async (run) => {
  expect(await run()).toBe("Which size?\n{ message: 'Which size?', route: 'product' }\n")
})

example('guides/fallback.ts', 'is answered by the second service', async (run) => {
  expect(await run()).toBe('attempt 1: anthropic overloaded, fallback\nAt nine. ollama 2 true\n')
})

example('guides/restart.ts', 'begins anew, and ends with the text of the answer', async (run) => {
  const [begun, ...rest] = (await run()).split('\n')
  expect(begun).toMatch(/^begun anew after "We open .*[^.]": stream_truncated$/)
  expect(rest).toEqual(['We open at nine and close at six.', 'true', ''])
})

example('guides/errors.ts', 'tells what is wrong, with what had arrived', async (run) => {
  const lines = (await run()).trim().split('\n')
  expect(lines.slice(0, 4)).toEqual([
    'whole: 4 bags',
    'cut: stream_truncated, retryable, {"message":"Four"}',
    'over its limit: output_truncated, final, {"message":"Four ba"}',
    'wrong: schema_mismatch, final, {"message":"Four bags.","pieces":"four"}',
  ])
  expect(lines[4]).toMatch(/^aborted: aborted, final, \{"message":"F.*"\}$/)
})

example('guides/readers.ts', 'has one run read by several, and the next from the cache', async (run) => {
  const lines = (await run()).trim().split('\n')
  expect(lines.slice(0, 2).sort()).toEqual(['leaves: Salt takes the water.', 'stays: Salt takes the water.'])
  expect(lines.slice(2)).toEqual([
    'stays: Cold water takes the salt.',
    'comes back: Cold water takes the salt.',
    'cached: true, requests: 1',
  ])
})

example('guides/testing.ts', 'tests an application and what may befall it', async (run) => {
  const output = await run()
  expect(output).toContain('pass 8\n')
  expect(output).toContain('fail 0\n')
})

example('guides/observability.ts', 'tells all of a run but what was asked and answered', async (run) => {
  const output = await run()
  expect(output).toMatch(/^hook {2}attempt overloaded$/m)
  // As the page says.
  expect(readDocument('docs/observability.md')).toContain(`\`\`\`\n${output}\`\`\``)
  expect(output.trim().split('\n').at(-1)).toBe('what was asked or answered is in it: false')
})

describe.each(['ai-sdk', 'sdks', 'regex'])('migrating from %s', (from) => {
  example(`guides/migrating-${from}.ts`, 'prints what the page says of before and after', async (run) => {
    const output = await run()
    expect(readDocument('docs/migrating.md')).toContain(`\`\`\`\n${output}\`\`\``)
    const results = output.trim().split('\n')
    const [before, after] = [/before +["[]/i, /after +["[]/i].map((side) => results.filter((line) => side.test(line)))
    expect(after).toHaveLength(results.length / 2)
    expect(before).toHaveLength(results.length / 2)
    // After, whatever is not whole and valid is an error.
    for (const line of after!)
      expect(line.includes(' error ')).toBe(!/^(?:whole|plain|quotes|other|the key)/.test(line))
  })
})

describe('to the browser', () => {
  const reply = 'Six bags for "twelve":\n<3 kinds>, and dips 🎉'

  describe.each(['next-route', 'worker', 'express', 'fastify', 'hono', 'nest'])('by %s', (name) => {
    example(`guides/web/${name}.ts`, 'shows the reply alone, and stops when the client leaves', async (run) => {
      const output = await run()
      expect(output).toMatch(/^run: success$/m)
      expect(output).toContain(`finish {}\n${reply}\n`)
      // Which of the two comes first is a matter of luck.
      const [left, stopped] = output.slice(output.indexOf(reply) + reply.length).match(/left early|run: aborted/g) ?? []
      expect([left, stopped].sort()).toEqual(['left early', 'run: aborted'])
      expect(output.trim().split('\n')).toHaveLength(6)
    })
  })

  example('guides/web/sse.ts', 'goes on for who comes back, and stops for who does not', async (run) => {
    const output = await run()
    expect(output).toContain(`lost the connection and came back\n${reply}\n`)
    expect(output).toContain('a second time, whole: true\n')
    expect(output).toContain('unknown: 204\nnot kept: 204\n')
    expect(output.match(/run: .*/g)).toEqual(['run: success', 'run: aborted'])
    expect(output.match(/finish .*/g)).toEqual(['finish {}', 'finish {}'])
  })

  example('guides/web/websocket.ts', 'answers, and stops when it is told to or the client leaves', async (run) => {
    const output = await run()
    expect(output).toContain(`finish ${reply}\n`)
    expect(output).toContain('failed aborted\n')
    expect(output.match(/run: .*/g)).toEqual(['run: success', 'run: aborted', 'run: aborted'])
  })

  example('guides/web/lambda.ts', 'answers, and says so when the time is over', async (run) => {
    const output = await run()
    expect(output).toContain(`finish {}\n${reply}\n`)
    expect(output).toContain('failed {"code":"aborted"}\n')
    expect(output.match(/run: .*/g)).toEqual(['run: success', 'run: aborted'])
  })
})

test('every example is run here, or is a part of one that is', () => {
  const folder = join(root, 'examples')
  const parts = [...tried].flatMap((file) =>
    [...readFileSync(join(folder, file), 'utf8').matchAll(/ from '(\.[^']+)'/g)].map(([, path]) =>
      join(dirname(file), path!),
    ),
  )
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts'))
  const [applications, scripts] = [isOfApplication, (file: string) => !isOfApplication(file)].map((is) =>
    files.filter(is),
  )
  expect(scripts!.sort()).toEqual([...new Set([...tried, ...parts])].sort())
  const names = new Set(applications!.map((file) => dirname(file)).filter((name) => name !== 'shared'))
  for (const name of names) expect(existsSync(join(root, `tests/applications/${name}.test.ts`))).toBe(true)
})

/** Those have tests of their own. */
function isOfApplication(file: string): boolean {
  return !/^(?:\.|writing|guides|guides\/.+)$/.test(dirname(file))
}
