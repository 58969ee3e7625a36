import { gzipSync } from 'node:zlib'
import { ask } from './run-row.ts'
import type { Script } from './fault-server.ts'
import { type AnswerCase, beforeAndAfter, complete, type Row, truncated } from './row.ts'

const close: Script = [{ end: 'close' }]
const reset: Script = [{ end: 'reset' }]
/** Compressed, and let out as far as it goes. */
const zip = (text: string): Uint8Array => gzipSync(text)

/** 3.2: when what comes, and where it stops. */
export const streamRows: readonly Row[] = [
  {
    number: 31,
    title: 'headers, then silence',
    cases: ({ head }) => [
      {
        script: [head(), { end: 'stall' }],
        timeouts: { firstOutput: 250 },
        promised: { code: 'timeout', phase: 'first_output', attempts: 2 },
      },
    ],
  },
  {
    number: 32,
    title: 'silence in the middle',
    cases: ({ head, begun }) => [
      {
        script: [head(), ...begun, { end: 'stall' }],
        timeouts: { idle: 250 },
        promised: { code: 'timeout', phase: 'idle', attempts: 1 },
      },
    ],
  },
  {
    number: 33,
    title: 'nothing but signs of life, before anything else',
    cases: ({ head, wire }) => [
      {
        script: [head(), { forever: wire.alive, every: 5 }],
        timeouts: { firstOutput: 250, idle: 2000 },
        promised: { code: 'timeout', phase: 'first_output', attempts: 2 },
      },
    ],
  },
  {
    number: 34,
    title: 'nothing but signs of life, in the middle',
    cases: ({ head, wire, begun }) => [
      {
        script: [head(), ...begun, { forever: wire.alive, every: 5 }],
        timeouts: { progress: 250, idle: 2000 },
        promised: { code: 'timeout', phase: 'progress', attempts: 1 },
      },
    ],
  },
  {
    number: 35,
    title: 'a slow answer, a few bytes at a time',
    cases: ({ head, frames }) => [
      {
        script: [head(), ...(frames.join('').match(/.{1,40}/gsu) ?? []).flatMap((piece) => [piece, { wait: 1 }])],
        timeouts: { idle: 2000 },
        promised: complete,
      },
    ],
  },
  {
    number: 36,
    title: 'a slow event that never ends',
    cases: ({ head, wire, begun }) => [
      {
        script: [head(), ...begun, wire.event('{"x').trimEnd(), { forever: 'x', every: 5 }],
        timeouts: { progress: 250, idle: 2000 },
        promised: { code: 'timeout', phase: 'progress', attempts: 1 },
      },
    ],
  },
  {
    number: 37,
    title: 'the time for the whole run is over',
    cases: ({ head, wire, begun, good }) => [
      {
        name: 'before headers',
        script: [{ end: 'stall' }],
        timeouts: { total: 250 },
        promised: { code: 'timeout', phase: 'total', attempts: 1 },
      },
      {
        name: 'in the stream',
        script: [head(), ...begun, { forever: wire.alive, every: 5 }],
        timeouts: { total: 250 },
        promised: { code: 'timeout', phase: 'total', attempts: 1 },
      },
      {
        name: 'no attempt is begun that cannot end',
        script: [head({ 'content-type': 'application/json' }, { status: 500 }), wire.failure(500)],
        timeouts: { total: 400 },
        retry: { baseDelay: 800, random: () => 0.999 },
        promised: { code: 'server_error', attempts: 1 },
        within: 390,
      },
      {
        name: 'in validation',
        script: good,
        timeouts: { total: 300 },
        request: { tools: [{ ...ask, validate: () => new Promise(() => undefined) }] },
        promised: { code: 'timeout', phase: 'total', attempts: 1 },
      },
    ],
  },
  {
    number: 38,
    title: 'the body ends within an event, in good order',
    cases: (lab) => [
      ...beforeAndAfter(lab, [lab.frames.at(-1)!.slice(0, 20)], truncated),
      {
        name: 'within the last event of the evidence',
        script: [lab.head(), lab.evidence.join('').slice(0, -8)],
        promised: { ...truncated, attempts: 1 },
      },
      { name: 'after the evidence', script: [lab.head(), lab.evidence.join('')], promised: complete },
    ],
  },
  {
    number: 39,
    title: 'the connection is reset',
    cases: (lab) => [
      ...beforeAndAfter(lab, [{ wait: 5 }, ...reset], truncated),
      {
        name: 'after the evidence',
        script: [lab.head(), ...lab.evidence, lab.seen, ...reset],
        promised: lab.wire.isOverAtEvidence ? complete : { ...truncated, attempts: 1 },
      },
    ],
  },
  {
    number: 40,
    title: 'the body ends between two events',
    cases: (lab) => [
      ...beforeAndAfter(lab, [], truncated),
      {
        name: 'before the evidence',
        script: [lab.head(), ...lab.evidence.slice(0, -1)],
        promised: { ...truncated, attempts: 1 },
      },
    ],
  },
  {
    number: 41,
    title: 'the last event lacks its end',
    cases: ({ head, evidence, wire }) => [
      {
        script: [head(), evidence.join('').trimEnd()],
        // A line that is whole JSON is whole; an event of server-sent events is whole with its blank line.
        promised: wire.name === 'ollama' ? complete : { ...truncated, attempts: 1 },
      },
      ...(wire.framesAfterEvidence > 0
        ? [{ name: 'the farewell', script: [head(), ...evidence, 'data: [DONE]'], promised: complete }]
        : []),
    ],
  },
  {
    number: 42,
    title: 'all content, but no evidence',
    cases: ({ head, evidence, wire }) => [
      {
        script: [head(), ...evidence.slice(0, wire.name === 'anthropic' ? -2 : -1)],
        promised: { ...truncated, attempts: 1 },
      },
    ],
  },
  {
    number: 43,
    title: 'only the last event is missing',
    cases: ({ head, frames, wire }) => [
      {
        script: [head(), ...frames.slice(0, -1)],
        promised: wire.framesAfterEvidence > 0 ? complete : { ...truncated, attempts: 1 },
      },
      ...(wire.framesAfterEvidence > 0
        ? [{ name: 'and the count of tokens', script: [head(), ...frames.slice(0, -2)], promised: complete }]
        : []),
    ],
  },
  {
    number: 44,
    title: 'the body is shorter than its framing says',
    cases: ({ head, begun, seen, evidence, wire }) => {
      const afterEvidence = wire.isOverAtEvidence ? complete : ({ ...truncated, attempts: 1 } as const)
      const length = { framing: 100_000 }
      return [
        { name: 'chunks', script: [head(), ...begun, seen, ...close], promised: { ...truncated, attempts: 1 } },
        {
          name: 'length',
          script: [head({}, length), ...begun, seen, ...close],
          promised: { ...truncated, attempts: 1 },
        },
        { name: 'chunks, after the evidence', script: [head(), ...evidence, ...close], promised: afterEvidence },
        {
          name: 'length, after the evidence',
          script: [head({}, length), ...evidence, ...close],
          promised: afterEvidence,
        },
      ]
    },
  },
  {
    number: 45,
    title: 'a body without a length is cut',
    cases: ({ head, begun, seen, evidence }) => [
      {
        script: [head({}, { framing: 'close' }), ...begun, seen, ...close],
        promised: { ...truncated, attempts: 1 },
      },
      {
        name: 'after the evidence',
        script: [head({}, { framing: 'close' }), ...evidence, ...close],
        promised: complete,
      },
    ],
  },
  {
    number: 46,
    title: 'a compressed body',
    cases: ({ head, frames }) => [
      { script: [head({ 'content-encoding': 'gzip' }), zip(frames.join(''))], promised: complete },
    ],
  },
  {
    number: 47,
    title: 'a compressed body is cut',
    cases: ({ head, frames }) => {
      const bytes = zip(frames.join(''))
      return [
        {
          script: [head({ 'content-encoding': 'gzip' }), bytes.subarray(0, Math.floor(bytes.length * 0.8))],
          promised: { ...truncated, attempts: 1 },
        },
      ]
    },
  },
  {
    number: 48,
    title: 'the connection stays open after the end',
    cases: ({ head, frames, wire }) => [
      {
        script: [head(), ...frames, { end: 'stall' }],
        ...(wire.isOverAtEvidence
          ? { promised: complete, within: 500 }
          : // The end of the body is the evidence.
            { promised: { code: 'timeout', phase: 'idle', attempts: 1 }, timeouts: { idle: 250 } }),
      },
    ],
  },
  {
    number: 49,
    title: 'the connection is reset after the end',
    cases: ({ head, frames, wire, seen }) => [
      {
        script: [head(), ...frames, seen, { wait: 10 }, ...reset],
        promised: wire.isOverAtEvidence ? complete : { ...truncated, attempts: 1 },
      },
    ],
  },
  {
    number: 50,
    title: 'an error after the end',
    cases: ({ head, frames, wire }) => [
      {
        // With Chat Completions the end is the farewell, where there is one.
        script: [head(), frames.join('') + wire.overloaded],
        promised: wire.isOverAtEvidence
          ? { ...complete, warnings: ['data-after-end'] }
          : { code: 'overloaded', phase: 'stream', attempts: 1 },
      },
    ],
  },
  {
    number: 51,
    title: 'content after the end',
    cases: ({ head, frames, wire, answer }) => {
      const more = answer('planted, more').slice(wire.prelude.length, -1).join('')
      return wire.isOverAtEvidence
        ? [{ script: [head(), frames.join('') + more], promised: { ...complete, warnings: ['data-after-end'] } }]
        : []
    },
  },
  {
    number: 52,
    title: 'an error as the first event',
    cases: ({ head, wire }) => [
      {
        script: [head(), wire.overloaded],
        // Ollama's errors in a stream have no code.
        promised: { code: wire.name === 'ollama' ? 'server_error' : 'overloaded', phase: 'stream', attempts: 2 },
      },
    ],
  },
  {
    number: 53,
    title: 'an error in the middle',
    cases: ({ head, wire, begun, seen }) => [
      {
        script: [head(), ...begun, seen, wire.overloaded],
        promised: { code: wire.name === 'ollama' ? 'server_error' : 'overloaded', phase: 'stream', attempts: 1 },
      },
    ],
  },
  {
    number: 54,
    title: 'an error in one piece with content',
    cases: ({ head, wire, begun }): AnswerCase[] => [
      {
        script: [head(), begun.join('') + wire.overloaded],
        promised: { code: wire.name === 'ollama' ? 'server_error' : 'overloaded', phase: 'stream', attempts: 1 },
      },
    ],
  },
]
