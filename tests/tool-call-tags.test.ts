import { isLLMError, type LLMError, type StreamEvent, tool, ToolStreamAccumulator } from 'fieldstream'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { ToolCallTagReader } from '../src/tool-input/tool-call-tags.ts'
import { finish, pieces, thrownBy } from './support.ts'

// The texts are made from the models' documentation (Hermes, Qwen, Qwen3-Coder, Llama): no recording holds any.

const anyInput = tool({ name: 'answer' })
const weather = tool({
  name: 'get_weather',
  input: {
    properties: {
      city: { type: 'string' },
      note: { anyOf: [{ type: 'string' }, { type: 'null' }] },
      days: { type: 'integer' },
      exact: { type: 'boolean' },
      tags: { type: 'array', items: { type: 'string' } },
      place: { $ref: '#/$defs/place' },
      unit: { enum: ['C', '7'] },
      fixed: { const: '7' },
      both: { allOf: [{ description: 'x' }, { type: 'string' }] },
      either: { oneOf: [{ type: 'string' }, { type: 'integer' }] },
      some: { anyOf: [{ type: 'string' }, {}] },
      loop: { $ref: '#/$defs/loop' },
      street: { $ref: '#/$defs/street~1name%20%C3%A9' },
      share: { $ref: '#/$defs/100%' },
    },
    $defs: {
      place: { type: 'object' },
      loop: { $ref: '#/$defs/loop' },
      'street/name é': { type: 'string' },
      '100%': { type: 'string' },
    },
  },
})

interface Reading {
  readonly text: string
  readonly calls: { readonly id: string; readonly name: string; input: string; ended: boolean }[]
  readonly events: readonly StreamEvent[]
  readonly error: LLMError | undefined
  /** What the reader says of an answer that ends here. */
  readonly cutError: LLMError | undefined
}

/** Reads a text in chunks, as an answer that ends by itself. */
function read(chunks: readonly string[]): Reading {
  const reader = new ToolCallTagReader([anyInput, weather], 1)
  const events: StreamEvent[] = []
  let error: LLMError | undefined
  let cutError: LLMError | undefined
  try {
    for (const chunk of chunks) reader.write(chunk, events)
    cutError = reader.cutError
    reader.release(events)
  } catch (thrown) {
    if (!isLLMError(thrown)) throw thrown
    error = thrown
  }
  let text = ''
  const calls: Reading['calls'] = []
  for (const event of events) {
    if (event.type === 'text-delta') text += event.delta
    else if (event.type === 'tool-input-start')
      calls.push({ id: event.toolCallId, name: event.toolName, input: '', ended: false })
    else if (event.type === 'tool-input-delta') calls.find(({ id }) => id === event.toolCallId)!.input += event.delta
    else if (event.type === 'tool-input-end') calls.find(({ id }) => id === event.toolCallId)!.ended = true
  }
  return { text, calls, events, error, cutError }
}

/** What does not depend on how the text was cut. */
function outcome({ text, calls, error, cutError }: Reading): unknown {
  return {
    text,
    calls: calls.map(({ input, ...call }) => ({ ...call, input: parsed(input) })),
    error: error?.code,
    cutError: cutError?.code,
  }
}

/** Of arguments that are no whole JSON, their text. */
function parsed(input: string): unknown {
  try {
    return JSON.parse(input)
  } catch {
    return input
  }
}

/** Reads a text whole, cut in two everywhere, and in single characters; all must agree. */
function readEveryWay(text: string): Reading {
  const whole = read([text])
  for (const chunks of [text.split(''), ...Array.from(text, (_, i) => [text.slice(0, i), text.slice(i)])])
    expect(outcome(read(chunks)), JSON.stringify(chunks[0])).toEqual(outcome(whole))
  return whole
}

/** A call in a text, and the arguments it stands for. */
const forms: Record<string, readonly [string, unknown]> = {
  Hermes: [
    '<tool_call>\n{"name": "answer", "arguments": {"a": [1, {"b": "}"}]}}\n</tool_call>',
    { a: [1, { b: '}' }] },
  ],
  'no white space': ['<tool_call>{"name":"answer","arguments":{"a":1}}</tool_call>', { a: 1 }],
  parameters: ['<tool_call>{"name": "answer", "parameters": {"a": 1}}</tool_call>', { a: 1 }],
  'arguments first': ['<tool_call>{"arguments": {"a": "\\"name\\""}, "name": "answer"}</tool_call>', { a: '"name"' }],
  'arguments in a string': [
    '<tool_call>{"name": "answer", "arguments": "{\\"a\\": \\"\\\\n\\ud83c\\udf89\\u003c🎉\\"}"}</tool_call>',
    { a: '\n🎉<🎉' },
  ],
  'arguments in a string, first': ['<tool_call>{"arguments": "{\\"a\\":1}", "name": "answer"}</tool_call>', { a: 1 }],
  'other members': [
    '<tool_call>{"id": 7, "type": "function", "x": [{"name": "no"}], "name": "answer", "arguments": {"a":1}, "y": null}</tool_call>',
    { a: 1 },
  ],
  'tags in strings': [
    '<tool_call>{"name": "answer", "arguments": {"a": "</tool_call><tool_call>\\"</tool_call>"}}</tool_call>',
    { a: '</tool_call><tool_call>"</tool_call>' },
  ],
  'escapes in the names': ['<tool_call>{"\\u006eame": "\\u0061nswer", "arguments": {"a": 1}}</tool_call>', { a: 1 }],
  'no arguments': ['<tool_call>{"name": "answer"}</tool_call>', undefined],
  'null as arguments': ['<tool_call>{"name": "answer", "arguments": null}</tool_call>', undefined],
  'empty arguments': ['<tool_call>{"name": "answer", "arguments": {}}</tool_call>', {}],
  Llama: ['<function=answer>{"a": "</function>"}</function>', { a: '</function>' }],
  'Llama, wrapped': ['<tool_call>\n<function=answer>\n{"a": 1}\n</function>\n</tool_call>', { a: 1 }],
  'Qwen3-Coder': [
    '<tool_call>\n<function=answer>\n<parameter=a>\nRome\n</parameter>\n<parameter=b>\n7\n</parameter>\n</function>\n</tool_call>',
    { a: 'Rome', b: 7 },
  ],
  'Qwen3-Coder, no opening tag': [
    '<function=answer>\n<parameter=a>\nRome\n</parameter>\n</function>\n</tool_call>',
    { a: 'Rome' },
  ],
  'Qwen3-Coder, no parameters': ['<tool_call>\n<function=answer>\n</function>\n</tool_call>', undefined],
}

describe('a call in a text', () => {
  test.each(Object.entries(forms))('is read however it is cut: %s', (_, [text, input]) => {
    const { calls, text: rest, error, cutError } = readEveryWay(text)
    expect(error ?? cutError).toBeUndefined()
    expect(rest).toBe('')
    expect(calls).toMatchObject([{ id: 'call_xml_1', name: 'answer', ended: true }])
    expect(calls[0]!.input === '' ? undefined : JSON.parse(calls[0]!.input)).toEqual(input)
  })

  test.each(Object.entries(forms))('leaves the text around it as it is: %s', (_, [call, input]) => {
    const { calls, text } = readEveryWay(`  First <b> & \n\n${call}\n\nthen <i>.\n\n${call} \n `)
    expect(text).toBe('  First <b> &\n\nthen <i>.')
    expect(calls.map((read) => [read.id, parsed(read.input)])).toEqual([
      ['call_xml_1', input ?? ''],
      ['call_xml_2', input ?? ''],
    ])
  })

  test('begins what follows it without the white space between', () => {
    const [call] = forms['Hermes']!
    expect(readEveryWay(`\n${call}\n\n Done.`).text).toBe('Done.')
    expect(readEveryWay(`${call}\n${call}\n`)).toMatchObject({ text: '', calls: { length: 2 } })
  })

  test('leaves a tag that ends nothing in the text after it', () => {
    const [call] = forms['Hermes']!
    expect(readEveryWay(`${call} So </tool_call>\n`).text).toBe('So </tool_call>\n')
  })

  test('tears no character of arguments in a string', () => {
    const chunks = ['<tool_call>{"name": "answer", "arguments": "{\\"a\\":\\"x\\ud83c', '\\udf89\\"}"}']
    const deltas = read(chunks).events.flatMap((event) => (event.type === 'tool-input-delta' ? [event.delta] : []))
    expect(deltas).toEqual(['{"a":"x', '🎉"}'])
  })

  test('shares its tags with others', () => {
    const object = '{"name": "answer", "arguments": {"a": 1}}'
    const own = '<function=answer>{"a": 1}</function>'
    expect(readEveryWay(`<tool_call>\n${object}\n${object}${own}\n</tool_call>.`)).toMatchObject({
      text: '.',
      calls: { length: 3 },
    })
    // A model that forgets to close.
    expect(readEveryWay(`<tool_call>${object}<tool_call>${object}`)).toMatchObject({ text: '', calls: { length: 2 } })
  })

  test('hands on the text of its arguments as it is written', () => {
    const chunks = ['<tool_call>{"name": "answer", "arguments": {"a"', ' : "x', '\\n', 'y"} ', '}</tool_call>']
    const deltas = read(chunks).events.flatMap((event) => (event.type === 'tool-input-delta' ? [event.delta] : []))
    expect(deltas).toEqual(['{"a"', ' : "x', '\\n', 'y"}'])
  })

  test('of a tool nobody offered is a call where its tags leave no doubt', () => {
    expect(readEveryWay('<tool_call>{"name": "other", "arguments": {}}</tool_call>').calls).toMatchObject([
      { name: 'other' },
    ])
    expect(readEveryWay('<tool_call><function=other></function></tool_call>').calls).toMatchObject([{ name: 'other' }])
    const bare = '<function=other>{}</function>'
    expect(readEveryWay(bare)).toMatchObject({ calls: [], text: bare })
  })

  test('may have any arguments before its name', () => {
    const big = 'x'.repeat(10_000)
    const { calls, text } = read(pieces(`<tool_call>{"arguments": {"a": "${big}"}, "name": "answer"}</tool_call>`, 7))
    expect(text).toBe('')
    expect(JSON.parse(calls[0]!.input)).toEqual({ a: big })
  })
})

describe('parameters', () => {
  const call = (name: string, parameters: Record<string, string>): string =>
    `<tool_call>\n<function=${name}>\n${Object.entries(parameters)
      .map(([key, value]) => `<parameter=${key}>\n${value}\n</parameter>\n`)
      .join('')}</function>\n</tool_call>`

  test.each([
    ['city', '7', '7'],
    ['city', 'null', 'null'],
    ['city', '"quoted"', '"quoted"'],
    ['city', '', ''],
    ['city', '\n  indented\n\n', '\n  indented\n\n'],
    ['city', 'a </b> < c </parameter', 'a </b> < c </parameter'],
    ['city', '</parameter> and </parameter>\n\n</parameter>', '</parameter> and </parameter>\n\n</parameter>'],
    ['city', '</parameter>\n<parameter', '</parameter>\n<parameter'],
    ['city', '</parameter>\n\n</function', '</parameter>\n\n</function'],
    ['city', '</function></tool_call><tool_call>', '</function></tool_call><tool_call>'],
    ['city', 'a\r\nb\rc', 'a\r\nb\rc'],
    ['city', '\\ "é" \u0000 🎉', '\\ "é" \u0000 🎉'],
    ['unit', '7', '7'],
    ['fixed', '7', '7'],
    ['both', '7', '7'],
    ['either', '7', 7],
    ['either', 'x', 'x'],
    ['some', '7', 7],
    ['loop', '7', 7],
    ['street', '7', '7'],
    ['share', '7', '7'],
    ['note', '"quoted"', '"quoted"'],
    ['note', 'null', null],
    ['note', 'None', null],
    ['note', '7', '7'],
    ['note', 'text\n', 'text\n'],
    ['days', ' 7 ', 7],
    ['exact', 'True', true],
    ['exact', 'false', false],
    ['tags', '["</parameter>\\n<parameter=x>", "b"]', ['</parameter>\n<parameter=x>', 'b']],
    ['tags', '[ ]\n\n', []],
    ['place', '{"a": {"b": [1]}}', { a: { b: [1] } }],
    ['unknown', '{"a": 1}', { a: 1 }],
    ['unknown', 'plain text', 'plain text'],
    ['unknown', 'True', 'True'],
    ['toString', 'x', 'x'],
  ])('are read by their schema: %s as %j', (key, written, value) => {
    const { calls, error, text } = readEveryWay(call('get_weather', { [key]: written, city2: '1' }))
    expect(error).toBeUndefined()
    expect(text).toBe('')
    expect(JSON.parse(calls[0]!.input)).toEqual({ [key]: value, city2: 1 })
  })

  test('may be written without line breaks, or with those of another system', () => {
    for (const newline of ['', '\r\n']) {
      const text = call('get_weather', { city: 'Rome', days: '2' }).replaceAll('\n', newline)
      expect(JSON.parse(readEveryWay(text).calls[0]!.input)).toEqual({ city: 'Rome', days: 2 })
    }
  })

  test.each(['a\nb', 'a\r', '\r\r\nx', '\r', '<', '<b>\n'.trimEnd()])(
    'may begin right after their tag: %j',
    (value) => {
      const text = `<function=get_weather><parameter=city>${value}</parameter></function>`
      expect(JSON.parse(readEveryWay(text).calls[0]!.input)).toEqual({ city: value })
    },
  )

  test('stream while they are written, arrays and objects too', () => {
    const opening = '<tool_call><function=get_weather><parameter=tags>[<parameter=city>\nRo'
    const arrays = opening.replace('[<parameter=city>\nRo', '\n["Ro')
    expect(read([arrays]).calls[0]!.input).toBe('{"tags":["Ro')
    const strings = opening.replace('tags>[<parameter=', '')
    expect(read([strings, 'm"e', '\n', '<']).calls[0]!.input).toBe('{"city":"Rom\\"e')
  })

  test.each([
    ['days', 'seven', 'is not JSON'],
    ['days', '1, "city": "sneaked in"', 'is not JSON'],
    ['tags', '[], "city": ["sneaked in"]', 'goes on after its value'],
    ['days', '', 'is not JSON'],
  ])('that are not what their schema asks for are an error: %s as %j', (key, written, problem) => {
    const { error, calls } = readEveryWay(call('get_weather', { [key]: written }))
    expect(error).toMatchObject({ code: 'invalid_json', toolName: 'get_weather', toolCallId: 'call_xml_1' })
    expect(error!.message).toContain(problem)
    expect(error!.message).not.toContain('sneaked')
    expect(calls[0]!.ended).toBe(false)
  })
})

const lookalikes = [
  'a < b && c > d, <b>bold</b>, <br/>, </tool_call>, </function>',
  '<tool_cal>',
  '<tool_call',
  '<tool_calls>',
  '<tool_call >',
  '<',
  '<<tool_cal',
  ' \n ',
  'Write <tool_call> before a call and </tool_call> after it.',
  '`<tool_call>`\n```\n<tool_call>\n<tool_call>\n</tool_call>\n```',
  '<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>',
  '<tool_call>{}</tool_call>',
  '<tool_call>[{"name": "answer"}]</tool_call>',
  '<tool_call>{"name": 7, "arguments": {}}</tool_call>',
  '<tool_call>{"name": "", "arguments": {}}</tool_call>',
  '<tool_call>{"arguments": {"a": 1}}</tool_call>',
  '<tool_call>{"arguments": {"a": 1}, "arguments": {}, "name": "answer"}</tool_call>',
  '<tool_call>{"a": 1, }</tool_call>',
  '<tool_call>{"name": "answer", }</tool_call>',
  '<tool_call>{"name": "answer", "arguments": }</tool_call>',
  '<tool_call>{"name": "answer", "arguments": , "x": 1}</tool_call>',
  '<tool_call>{name: "answer"}</tool_call>',
  '<tool_call>{"name" "answer"}</tool_call>',
  '<tool_call>{"name": }</tool_call>',
  '<tool_call>{"name": "answer" "arguments": {}}</tool_call>',
  '<tool_call>{"arguments": "\\x", "name": "answer"}</tool_call>',
  '<tool_call>{"arguments": nil, "name": "answer"}</tool_call>',
  '<tool_call><function=></function></tool_call>',
  '<tool_call><function=a b></function></tool_call>',
  '<function=answer> is how it begins',
  '<function=answer>x</function>',
  '<function=answer><param',
  '<function=answer',
  '<function =answer>{}</function>',
  '<function=other>\n<parameter=a>\n1\n</parameter>\n</function>',
]

describe('what only looks like a call', () => {
  test.each(lookalikes)('is text, every character of it: %j', (text) => {
    for (const around of [text, `${text} and ${text}\n`, ` \n${text}x`]) {
      const { error, cutError, calls, text: given } = readEveryWay(around)
      expect(error ?? cutError).toBeUndefined()
      expect(calls).toEqual([])
      expect(given).toBe(around)
    }
  })

  test.each(lookalikes.filter((text) => !text.endsWith('<tool_call')))('does not hide a call after it: %j', (text) => {
    const { calls, text: given } = readEveryWay(`${text}.<tool_call>{"name": "answer"}</tool_call>`)
    expect(given).toBe(`${text}.`)
    expect(calls).toMatchObject([{ name: 'answer', ended: true }])
  })

  test('is not held for longer than a bounded text', () => {
    const long = '<tool_call>{"thought": "'.padEnd(4095, 'x')
    expect(read([long, 'y', 'z']).events.map((event) => event.type === 'text-delta' && event.delta.length)).toEqual([
      4096, 1,
    ])
    const late = (length: number) => `${long.slice(0, length)}", "name": "answer"}`
    for (const length of [4000, 4040, 4060, 4095]) readEveryWayAt(late(length), 4096)
    expect(read([late(4000)]).calls).toHaveLength(1)
    expect(read([late(4095)]).calls).toHaveLength(0)
    const afterSpace = ['<tool_call>'.padEnd(5000), `{"name": "answer", "arguments": {"a": "${'x'.repeat(5000)}"}}`]
    for (const chunks of [afterSpace, [afterSpace.join('')], afterSpace.join('').split('')])
      expect(read(chunks)).toMatchObject({ text: afterSpace.join(''), calls: [] })
    expect(read([`<tool_call>${' '.repeat(5000)}`, '<function=other></function>.']).text).toHaveLength(5039)
  })

  /** As `readEveryWay`, for a long text cut near one place. */
  function readEveryWayAt(text: string, place: number): void {
    for (let i = place - 40; i < place + 40; i++)
      expect(outcome(read([text.slice(0, i), text.slice(i)])), String(i)).toEqual(outcome(read(text.split(''))))
  }
})

describe('a call that breaks its form once it has begun', () => {
  test.each([
    '<tool_call>{"name": "answer", "arguments": {"a": 1} oops}</tool_call>',
    '<tool_call>{"name": "answer", "arguments": {"a": 1}}}</tool_call>',
    '<tool_call>{"name": "answer", "arguments": {"a": 1}, "parameters": {}}</tool_call>',
    '<tool_call>{"name": "answer", "arguments": {"a": 1}, "name": "other"}</tool_call>',
    '<tool_call>{"name": "answer", "arguments": none}</tool_call>',
    '<function=answer>{"a": 1}<parameter=b>2</parameter></function>',
    '<tool_call>{"name": "answer", "arguments": "\\x"}</tool_call>',
    '<tool_call>{"name": "answer", "arguments": {}} and more',
    '<tool_call>{"name": "answer", "arguments": {}}<b>',
    '<tool_call>{"name": "answer", "arguments": {}}\n{"oops": 1}</tool_call>',
    '<function=answer>{"a": 1} oops</function>',
    '<function=answer>{"a": 1}<oops></function>',
    '<function=answer><parameter=a\n>1</parameter></function>',
  ])('is an error: %j', (text) => {
    const { error, text: given } = readEveryWay(text)
    expect(error).toMatchObject({ code: 'invalid_json', name: 'OutputError', toolName: 'answer' })
    expect(error!.message).not.toContain('oops')
    expect(given).toBe('')
  })

  test('leaves arguments that are no JSON to who reads them', () => {
    for (const text of ['{"a": 1]', '{"a": oops}', '7', '"oops"']) {
      const { events } = readEveryWay(`<tool_call>{"name": "answer", "arguments": ${text}}</tool_call>`)
      const accumulator = new ToolStreamAccumulator()
      const error = thrownBy(() => {
        for (const event of [...events, finish()]) accumulator.push(event)
        if (accumulator.error) throw accumulator.error
      })
      expect(error).toMatchObject({ name: 'OutputError', toolName: 'answer' })
    }
  })
})

describe('an answer cut anywhere', () => {
  const isTag = (text: string): boolean => /^<(tool_call>\s*(<(f.*|$)|\{.*|$)|t|f)/s.test(text)

  test.each(Object.entries(forms))('has no whole call that is not there, and loses no text: %s', (_, [text, input]) => {
    const answer = `Before.\n${text}`
    const whole = read([answer])
    for (let length = 0; length < answer.length; length++) {
      const { text: given, calls, cutError, error } = read(answer.slice(0, length).split(''))
      expect(error).toBeUndefined()
      const [call] = calls
      if (!call) {
        expect(given).toBe(answer.slice(0, length))
        expect(given === 'Before.\n' || length < 9 || isTag(given.slice(8)) || given.endsWith('<')).toBe(true)
        expect(cutError).toBeUndefined()
        continue
      }
      expect(given).toBe('Before.')
      expect(whole.calls[0]!.input.startsWith(call.input)).toBe(true)
      // Only the closing tag may be missing.
      if (call.ended) {
        expect(answer.slice(length)).toMatch(/^\s*<?\/?(t?o?o?l?_?c?a?l?l?>?)$/)
        expect(call.input === '' ? undefined : JSON.parse(call.input)).toEqual(input)
        expect(cutError).toBeUndefined()
      } else
        expect(cutError).toMatchObject({ code: 'output_truncated', toolName: 'answer', position: call.input.length })
    }
  })

  test('in a second call of the same tags is an error too', () => {
    const one = '<tool_call>{"name": "answer"}'
    expect(read([`${one}\n{"na`]).cutError).toMatchObject({ code: 'output_truncated' })
    expect(read([`${one}\n{"na`]).text).toBe('')
    expect(read([`${one}\n<fun`]).cutError).toMatchObject({ code: 'output_truncated' })
    expect(read([`${one}\n</tool_c`])).toMatchObject({ cutError: undefined, text: '', calls: { length: 1 } })
    expect(read([`<function=answer></function>\n</tool_c`])).toMatchObject({ cutError: undefined, text: '' })
  })
})

/** Keys without backslashes: `JSON.parse` may read keys wrongly once it has met one. */
const anyArguments = fc
  .dictionary(
    fc.string({ unit: 'grapheme' }).map((key) => key.replaceAll(/[\\<>\r\n]/g, '')),
    fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.jsonValue(),
      fc.constantFrom('</tool_call>', '</parameter>\n', '<tool_call>{'),
    ),
    { maxKeys: 4 },
  )
  .filter((value) => !JSON.stringify(value).includes('\\\\'))

const anyWriting = fc.constantFrom<(input: Record<string, unknown>) => string>(
  (input) => `<tool_call>\n${JSON.stringify({ name: 'answer', arguments: input }, undefined, 1)}\n</tool_call>`,
  (input) => `<tool_call>${JSON.stringify({ arguments: input, name: 'answer' })}</tool_call>`,
  (input) => `<tool_call>${JSON.stringify({ name: 'answer', parameters: JSON.stringify(input) })}</tool_call>`,
  (input) => `<function=answer>${JSON.stringify(input)}</function>`,
  (input) =>
    `<tool_call>\n<function=answer>\n${Object.entries(input)
      // As JSON, so that text which reads as JSON is no question; see the tables above for those.
      .map(([key, value]) => `<parameter=${key}>\n${JSON.stringify(value)}\n</parameter>\n`)
      .join('')}</function>\n</tool_call>`,
)

describe('any call, in any form, cut in any way', () => {
  test('comes out as it went in, with the text around it', () => {
    const word = fc.string({ unit: 'grapheme', minLength: 1 }).map((text) => `.${text.replaceAll('<', '< ')}.`)
    fc.assert(
      fc.property(
        fc.array(fc.tuple(anyArguments, anyWriting, word), { minLength: 1, maxLength: 3 }),
        word,
        fc.integer({ min: 1, max: 12 }),
        (calls, before, size) => {
          const answer = before + calls.map(([input, write, after]) => `\n${write(input)}${after}`).join('')
          const { text, calls: found, error, events } = read(pieces(answer, size))
          expect(error).toBeUndefined()
          expect(text).toBe(before + calls.map(([, , after]) => after).join(''))
          expect(found.map(({ input }) => (input === '' ? {} : parsed(input)))).toEqual(
            calls.map(([input]) => parsed(JSON.stringify(input))),
          )
          for (const event of events) if ('delta' in event) expect(event.delta).not.toBe('')
        },
      ),
      { numRuns: 500 },
    )
  })

  test('keeps string parameters as they are, whatever they hold', () => {
    const part = fc.constantFrom(
      '</parameter>',
      '\n',
      '\r\n',
      '<parameter',
      '</function',
      '<',
      '/',
      'x',
      '"',
      '\\',
      ' ',
      '🎉',
    )
    fc.assert(
      fc.property(
        fc.array(part).map((parts) => parts.join('')),
        fc.integer({ min: 1, max: 5 }),
        (value, size) => {
          const text = `<function=get_weather>\n<parameter=city>\n${value}\n</parameter>\n</function>`
          expect(JSON.parse(read(pieces(text, size)).calls[0]!.input)).toEqual({ city: value })
        },
      ),
      { numRuns: 2000 },
    )
  })

  test('any text without a call stays as it is', () => {
    const part = fc.constantFrom(
      ...[
        '<tool_call>',
        '</tool_call>',
        '<tool_',
        '<function=',
        'answer',
        'other',
        '>',
        '<',
        '\n',
        ' ',
        '{',
        '"name"',
        ':',
        'x',
        '🎉',
      ],
    )
    fc.assert(
      fc.property(
        fc.array(part).map((parts) => parts.join('')),
        fc.integer({ min: 1, max: 5 }),
        (text, size) => {
          const { calls, text: given } = read(pieces(text, size))
          fc.pre(calls.length === 0)
          expect(given).toBe(text)
        },
      ),
      { numRuns: 2000 },
    )
  })
})

describe('a long text that comes character by character', () => {
  const x = 'x'.repeat(200_000)

  // Work that grew with what came before would not end within the time a test has.
  test.each([
    ['a JSON argument', `<tool_call>{"name": "answer", "arguments": {"a": "${x}"}}</tool_call>`],
    ['an argument before the name', `<tool_call>{"arguments": {"a": "${x}"}, "name": "answer"}</tool_call>`],
    ['an argument in a string', `<tool_call>{"name": "answer", "arguments": "{\\"a\\":\\"${x}\\"}"}</tool_call>`],
    ['a string parameter', `<function=get_weather><parameter=a>${x}</parameter></function>`],
    ['a parameter of any type', `<function=answer><parameter=a>${x}</parameter></function>`],
  ])('is read once: %s', (_, text) => {
    expect(JSON.parse(read(text.split('')).calls[0]!.input)).toEqual({ a: x })
  })

  test.each([
    ['white space', `.${' '.repeat(200_000)}.`],
    ['lookalikes', '<tool_call>{"'.repeat(10_000)],
    ['tags', '<function=<tool_call>'.repeat(10_000)],
    ['nested lookalikes', '<tool_call>{"arguments": {"a": "'.repeat(5_000)],
  ])('is given back once: %s', (_, text) => {
    expect(read(text.split('')).text).toBe(text)
  })
})
