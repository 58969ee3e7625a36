import { isLLMError, type StreamEvent, tool } from 'fieldstream'
import { ToolCallTagReader } from '../../src/tool-input/tool-call-tags.ts'
import { type ThinkTag, ThinkTagSplitter } from '../../src/wire/think-tags.ts'
import { parses, seededRandom } from '../../tests/json-corpus.ts'
import { mutate } from '../mutate.ts'
import { cut, expectSame, type FuzzTarget, pick } from '../target.ts'

const tools = [
  tool({ name: 'answer' }),
  tool({ name: 'get_weather', input: { properties: { city: { type: 'string' }, days: { type: 'integer' } } } }),
]

interface Read {
  readonly text: string
  readonly calls: readonly (readonly [name: string, input: string, hasEnded: boolean])[]
  readonly error: string | undefined
  readonly cut: string | undefined
}

function read(chunks: readonly string[]): Read {
  const reader = new ToolCallTagReader(tools, 1)
  const out: StreamEvent[] = []
  let error: string | undefined
  let cutCode: string | undefined
  try {
    for (const chunk of chunks) reader.write(chunk, out)
    cutCode = reader.cutError?.code
    reader.release(out)
  } catch (thrown) {
    if (!isLLMError(thrown)) throw thrown
    error = thrown.code
  }
  let text = ''
  const calls: [string, string, boolean][] = []
  for (const event of out) {
    if ('delta' in event && event.delta === '') throw new Error('a delta is empty')
    if (event.type === 'text-delta') text += event.delta
    else if (event.type === 'tool-input-start') calls.push([event.toolName, '', false])
    else if (event.type === 'tool-input-delta') calls.at(-1)![1] += event.delta
    else if (event.type === 'tool-input-end') calls.at(-1)![2] = true
  }
  return {
    text,
    calls: calls.map(([name, input, hasEnded]) => [name, unescaped(input), hasEnded]),
    error,
    cut: cutCode,
  }
}

/** Half a character of a parameter is written as an escape where it comes alone. */
function unescaped(input: string): string {
  return input.replaceAll(/\\u(d[89a-f][0-9a-f]{2})/g, (_, code: string) => String.fromCharCode(parseInt(code, 16)))
}

const answers = [
  'Let me see.\n<tool_call>\n{"name": "answer", "arguments": {"a": [1, {"b": "}"}]}}\n</tool_call>\nDone.',
  '<tool_call>{"arguments": {"a": "</tool_call>"}, "name": "answer"}</tool_call><tool_call>{"name":"answer"}</tool_call>',
  '<tool_call>{"name": "answer", "parameters": "{\\"a\\": \\"\\\\n\\ud83c\\udf89\\u003c🎉\\"}"}</tool_call>',
  '<function=answer>{"a": "</function>"}</function> and <function=other>x</function>',
  '<tool_call>\n<function=get_weather>\n<parameter=city>\nRome\n</parameter>\n<parameter=days>\n7\n</parameter>\n</function>\n</tool_call>',
  'if a <tool_call b and <function=x> or <tool_call>{"name": 1}</tool_call> then < tool_call >',
]
const tokens = [
  ...['<tool_call>', '</tool_call>', '<function=', '<function=answer>', '</function>', '<parameter=a>', '</parameter>'],
  ...[
    '<',
    '>',
    '/',
    '{',
    '}',
    '"',
    '\\',
    '\n',
    ' ',
    ':',
    ',',
    '"name"',
    '"arguments"',
    'answer',
    'x',
    '1',
    'null',
    '🎉',
  ],
]

/** Calls written into text: the same however it is cut, and what is no call is text, every character of it. */
const callTags: FuzzTarget = {
  name: 'tool-call-tags',
  generate: (random) => ({ text: mutate(pick(random, answers), tokens, random), seed: random(1e9) }),
  check({ text, seed }) {
    const random = seededRandom(seed)
    const whole = read([text])
    expectSame(read(cut(text, random)), whole, 'cut otherwise')
    expectSame(read(text.split('')), whole, 'cut into characters')
    const { calls, error } = whole
    if (calls.length === 0 && error === undefined) expectSame(whole.text, text, 'text without calls')
    if (calls.length === 0 && error !== undefined) throw new Error(`text without calls is an error: ${error}`)
    const isCut = error !== undefined || whole.cut !== undefined
    for (const [i, [, input, hasEnded]] of calls.entries())
      if (!hasEnded && (!isCut || i < calls.length - 1)) throw new Error(`a call is left open: ${input}`)
    // What is left of the answer comes in the order in which it was written.
    let at = 0
    for (const character of whole.text) {
      at = text.indexOf(character, at) + character.length
      if (at < character.length) throw new Error('there is text that the model did not write')
    }
    if (!text.includes('\\') && !text.includes('<parameter') && error === undefined)
      for (const [, input, hasEnded] of calls)
        if (hasEnded && input !== '' && parses(input) && !text.includes(input))
          throw new Error(`there are arguments that the model did not write: ${input}`)
  },
}

interface Thought {
  readonly reasoning: string
  readonly text: string
  readonly hasStrayTag: boolean
}

function think(tag: ThinkTag, chunks: readonly string[]): Thought {
  const splitter = new ThinkTagSplitter(tag)
  const out: StreamEvent[] = []
  for (const chunk of chunks) splitter.write(chunk, out)
  splitter.release(out)
  const joined = (type: 'reasoning-delta' | 'text-delta') =>
    out.flatMap((event) => (event.type === type ? [event.delta] : [])).join('')
  return { reasoning: joined('reasoning-delta'), text: joined('text-delta'), hasStrayTag: splitter.hasStrayTag }
}

/** Reasoning written into text: the same however it is cut, and nothing is lost but one pair of tags and the space after. */
const thinkTags: FuzzTarget = {
  name: 'think-tags',
  generate: (random) => ({
    text: mutate(
      pick(random, [
        '<think>Hm.</think>\n\nYes.',
        'Hm.\n</think>\nYes.',
        ' \n<think>\n</think>',
        'a < b </think> c <think> d',
      ]),
      ['<think>', '</think>', '<', '>', '/', 'think', '</thin', '\n', ' ', 'x', '🎉'],
      random,
    ),
    seed: random(1e9),
    variant: pick(random, ['opened', 'unopened', 'either']),
  }),
  check({ text, seed, variant }) {
    const tag = variant as ThinkTag
    const random = seededRandom(seed)
    const whole = think(tag, [text])
    expectSame(think(tag, cut(text, random)), whole, 'cut otherwise')
    expectSame(think(tag, text.split('')), whole, 'cut into characters')
    const count = (part: string) => part.replaceAll(/[\s<>/think]/g, '')
    expectSame(count(whole.reasoning + whole.text), count(text), 'what is neither tag nor space')
    if (text.length - whole.reasoning.length - whole.text.length < 0) throw new Error('there is more than was written')
  },
}

export const tagTargets: readonly FuzzTarget[] = [callTags, thinkTags]
