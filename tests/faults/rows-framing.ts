import { type AnswerCase, beforeAndAfter, complete, type Lab, protocol, type Row } from './row.ts'
import { planted, usualInput } from './wires.ts'

/** The usual answer with something before its last words. */
function beforeEnd({ head, frames, evidence, wire }: Lab, ...inserted: string[]): AnswerCase['script'] {
  const at = evidence.length - (wire.name === 'anthropic' ? 2 : 1)
  return [head(), ...frames.slice(0, at), ...inserted, ...frames.slice(at)]
}

/** The usual answer in a changed form. */
function changed({ head, frames }: Lab, change: (body: string) => string): AnswerCase['script'] {
  return [head(), change(frames.join(''))]
}

const otherInput = { message: 'planted, too', count: 3 }

/** The frames of an answer with two calls, and those of each. */
function twoCalls({ wire, answer }: Lab) {
  const frames = answer(
    [
      { tool: 'ask', input: usualInput },
      { tool: 'ask', input: otherInput },
    ],
    { text: planted.text },
  )
  const marks: Partial<Record<string, readonly [string, string]>> = {
    anthropic: ['"index":1', '"index":2'],
    openai: ['"output_index":1', '"output_index":2'],
    'openai-chat': ['"tool_calls":[{"index":0', '"tool_calls":[{"index":1'],
  }
  const [first, second] = marks[wire.name] ?? ['', '']
  return { frames, first, second }
}

function interleaved(frames: readonly string[], first: string, second: string): string[] {
  const ofFirst = frames.filter((frame) => frame.includes(first))
  const ofSecond = frames.filter((frame) => frame.includes(second))
  const start = frames.indexOf(ofFirst[0]!)
  const mixed = Array.from({ length: Math.max(ofFirst.length, ofSecond.length) }, (_, i) => [ofFirst[i], ofSecond[i]])
  const rest = frames.filter((frame) => !ofFirst.includes(frame) && !ofSecond.includes(frame))
  return [...rest.slice(0, start), ...mixed.flat().filter((frame) => frame !== undefined), ...rest.slice(start)]
}

const bothCalls = { inputs: [usualInput, otherInput] }

const news: Readonly<Record<string, readonly unknown[]>> = {
  anthropic: [
    { type: 'content_block_start', index: 90, content_block: { type: 'news' } },
    { type: 'content_block_delta', index: 90, delta: { type: 'news_delta', news: 1 } },
    { type: 'content_block_stop', index: 90 },
  ],
  openai: [
    { type: 'response.output_item.added', output_index: 9, item: { id: 'n1', type: 'news' } },
    { type: 'response.news.delta', output_index: 9, item_id: 'n1', delta: 'x' },
    { type: 'response.output_item.done', output_index: 9, item: { id: 'n1', type: 'news' } },
  ],
  'openai-chat': [{ choices: [{ index: 0, delta: { news: 1 }, finish_reason: null }] }],
  ollama: [{ message: { role: 'assistant', content: '', news: 1 }, done: false }],
  gemini: [{ candidates: [{ content: { parts: [{ news: {} }] }, index: 0 }] }],
}

const isSse = ({ wire }: Lab): boolean => wire.name !== 'ollama'
const bytesOf = (body: string): Uint8Array[] => Array.from(Buffer.from(body), (byte) => Uint8Array.of(byte))

/** 3.3: what is wrong with the form. */
export const framingRows: readonly Row[] = [
  {
    number: 55,
    title: 'lines of garbage',
    cases: (lab) => {
      if (!isSse(lab)) return []
      const { head, begun, seen } = lab
      return [
        { script: beforeEnd(lab, 'garbage\nnews: planted\n\n'), promised: complete },
        {
          name: 'and no end of it',
          script: [head(), ...begun, seen, 'garbage\n'.repeat(200)],
          promised: { ...protocol, attempts: 1 },
        },
      ]
    },
  },
  {
    number: 56,
    title: 'an event that is no JSON',
    cases: (lab) => beforeAndAfter(lab, [lab.wire.event(`{"${planted.words}`)], protocol),
  },
  {
    number: 57,
    title: 'an event of a new type',
    cases: (lab) => [{ script: beforeEnd(lab, lab.wire.event({ type: 'news', news: 1 })), promised: complete }],
  },
  {
    number: 58,
    title: 'a part of a new type',
    cases: (lab) => [
      {
        script: beforeEnd(lab, ...news[lab.wire.name]!.map((event) => lab.wire.event(event))),
        promised: complete,
      },
    ],
  },
  {
    number: 59,
    title: 'the answer begins twice',
    cases: ({ wire, head, begun, seen, frames }) =>
      wire.name === 'anthropic'
        ? [{ script: [head(), ...begun, seen, frames[0]!], promised: { ...protocol, attempts: 1 } }]
        : [],
  },
  {
    number: 60,
    title: 'an index or an id is used again',
    cases: (lab) => {
      const { head, wire } = lab
      const { frames } = twoCalls(lab)
      const sameId: Partial<Record<string, readonly [string, string]>> = {
        anthropic: ['toolu_simulated_2', 'toolu_simulated_1'],
        openai: ['_simulated_2', '_simulated_1'],
        gemini: ['simulated_2', 'simulated_1'],
      }
      const ids = sameId[wire.name]
      return [
        ...(wire.name === 'anthropic'
          ? [
              {
                name: 'index',
                script: [head(), frames.join('').replaceAll('"index":2', '"index":1')],
                expected: bothCalls,
                promised: complete,
              },
            ]
          : []),
        ...(ids
          ? [
              {
                name: 'id',
                script: [head(), frames.join('').replaceAll(...ids)],
                expected: bothCalls,
                promised: { ...protocol, attempts: 1 } as const,
              },
            ]
          : []),
      ]
    },
  },
  {
    number: 61,
    title: 'a piece of a part that was never begun',
    cases: ({ wire, head, begun, seen }) => {
      const strays: Partial<Record<string, unknown>> = {
        anthropic: {
          type: 'content_block_delta',
          index: 77,
          delta: { type: 'input_json_delta', partial_json: '{"planted' },
        },
        openai: {
          type: 'response.function_call_arguments.delta',
          item_id: 'nobody',
          output_index: 77,
          delta: '{"planted',
        },
        gemini: { candidates: [{ content: { parts: [{ functionCall: { args: { planted: 1 } } }] }, index: 0 }] },
      }
      const stray = strays[wire.name]
      return stray
        ? [{ script: [head(), ...begun, seen, wire.event(stray)], promised: { ...protocol, attempts: 1 } }]
        : []
    },
  },
  {
    number: 62,
    title: 'indexes that do not begin at 0, or are huge',
    cases: (lab) => {
      const { first } = twoCalls(lab)
      if (first === '') return []
      return ['7', '1000000000'].map((index) => ({
        name: index,
        script: changed(lab, (body) => body.replaceAll(first, first.replace(/\d$/, index))),
        promised: complete,
      }))
    },
  },
  {
    number: 63,
    title: 'two calls written by turns',
    cases: (lab) => {
      const { frames, first, second } = twoCalls(lab)
      if (first === '') return []
      return [
        {
          script: [lab.head(), ...interleaved(frames, first, second)],
          expected: bothCalls,
          promised: complete,
        },
      ]
    },
  },
  {
    number: 64,
    title: 'two calls under one index',
    cases: (lab) => {
      const { frames, first, second } = twoCalls(lab)
      if (lab.wire.name !== 'openai-chat') return []
      return [
        {
          script: [lab.head(), frames.join('').replaceAll(second, first)],
          expected: bothCalls,
          promised: complete,
        },
      ]
    },
  },
  {
    number: 65,
    title: 'calls without an index',
    cases: (lab) => {
      const { frames } = twoCalls(lab)
      if (lab.wire.name !== 'openai-chat') return []
      return [
        {
          script: [lab.head(), frames.join('').replaceAll(/"tool_calls":\[\{"index":\d,/g, '"tool_calls":[{')],
          expected: bothCalls,
          promised: complete,
        },
      ]
    },
  },
  {
    number: 66,
    title: 'a call is never ended',
    cases: ({ wire, head, frames }) => {
      const ends: Partial<Record<string, readonly string[]>> = {
        anthropic: ['"type":"content_block_stop","index":1'],
        openai: ['"response.function_call_arguments.done"', '"response.output_item.done","sequence_number"'],
      }
      const dropped = ends[wire.name]
      if (!dropped) return []
      const isEnd = (frame: string): boolean =>
        dropped.some((mark) => frame.includes(mark)) && (wire.name !== 'openai' || frame.includes('"output_index":1'))
      return [{ script: [head(), ...frames.filter((frame) => !isEnd(frame))], promised: { ...protocol, attempts: 1 } }]
    },
  },
  {
    number: 67,
    title: 'the arguments as a whole are not their pieces',
    cases: ({ wire, head, frames }) =>
      wire.name === 'openai'
        ? [
            {
              script: [
                head(),
                ...frames.map((frame) =>
                  frame.includes('arguments.done') ? frame.replace('\\"count\\":12', '\\"count\\":13') : frame,
                ),
              ],
              promised: { ...protocol, attempts: 1 },
            },
          ]
        : [],
  },
  {
    number: 68,
    title: 'lines that end in another way',
    cases: (lab) => {
      const lines = (body: string): string => body.replaceAll('\r\n', '\n')
      const crlf = lines(lab.frames.join('')).replaceAll('\n', '\r\n')
      const other: [string, (body: string) => string][] = isSse(lab)
        ? [
            ['CR', (body) => lines(body).replaceAll('\n', '\r')],
            ['mixed', (body) => lines(body).replaceAll(/\n(?=event|data)/g, '\r')],
          ]
        : []
      return [
        { name: 'CRLF', script: [lab.head(), crlf], promised: complete },
        { name: 'CR and LF apart', script: [lab.head(), ...crlf.split(/(?<=\r)/)], promised: complete },
        ...other.map(([name, change]) => ({ name, script: changed(lab, change), promised: complete })),
      ]
    },
  },
  {
    number: 69,
    title: 'a byte order mark at the start',
    cases: (lab) => [{ script: changed(lab, (body) => `\ufeff${body}`), promised: complete }],
  },
  {
    number: 70,
    title: 'one byte at a time',
    cases: ({ head, frames }) => [{ script: [head(), ...bytesOf(frames.join(''))], promised: complete }],
  },
  {
    number: 71,
    title: 'bytes that are no UTF-8',
    cases: (lab) => {
      const [before, after] = lab.wire.event('{"a":"|"}').split('|')
      return beforeAndAfter(
        lab,
        [Buffer.concat([Buffer.from(before!), Uint8Array.of(0xff), Buffer.from(after!)])],
        protocol,
      )
    },
  },
  {
    number: 72,
    title: 'half a character',
    cases: (lab) => {
      const { head, answer } = lab
      const split = answer('plantedAB', { deltaChars: 8 })
        .join('')
        .replaceAll('plantedAB', 'planted😀')
        .replaceAll('plantedA', String.raw`planted\ud83d`)
        .replaceAll('"B"', String.raw`"\ude00"`)
      const lone = answer('plantedA', { deltaChars: 8 })
        .join('')
        .replaceAll('plantedA', String.raw`planted\ud83d`)
      return [
        {
          name: 'in each of two pieces',
          script: [head(), split],
          expected: { text: 'planted😀', inputs: [] },
          promised: complete,
        },
        {
          name: 'and no other half',
          script: [head(), lone],
          expected: { text: 'planted\ud83d', inputs: [] },
          promised: complete,
        },
      ]
    },
  },
  {
    number: 73,
    title: 'data over several lines, empty data, ids, comments',
    cases: (lab) =>
      isSse(lab)
        ? [
            {
              script: changed(lab, (body) =>
                body
                  .replaceAll('\r\n', '\n')
                  .replaceAll(/^data: \{/gm, ': comment\nid: 1\nretry: 5\ndata: {\ndata:  ')
                  .replaceAll('\n\n', '\n\ndata\n\nevent: ping\ndata:\n\n'),
              ),
              promised: complete,
            },
          ]
        : [],
  },
  {
    number: 74,
    title: 'one event of four million characters',
    cases: ({ head, answer }) => {
      const text = `planted ${'x'.repeat(4_000_000)}`
      return [
        {
          script: [head(), answer(text, { deltaChars: 5_000_000 }).join('')],
          expected: { text, inputs: [] },
          promised: complete,
          within: 4000,
        },
      ]
    },
  },
  {
    number: 75,
    title: 'an event that is longer than allowed',
    cases: ({ head, begun, wire, seen }) => [
      {
        script: [head(), ...begun, seen, wire.event('{"x').trimEnd(), { forever: 'x'.repeat(1000), every: 1 }],
        wireOptions: { limits: { maxEventLength: 10_000 } },
        promised: { code: 'limit_exceeded', limit: 'maxEventLength', attempts: 1 },
        within: 2000,
      },
    ],
  },
]
