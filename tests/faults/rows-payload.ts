import type { SimulateOptions } from 'fieldstream/testing'
import { type AnswerCase, complete, type Lab, type Outcome, type Row } from './row.ts'
import { ask } from './run-row.ts'
import { planted, usualInput } from './wires.ts'

/** An answer whose one call has this text for its arguments. */
function called(
  { head, answer }: Lab,
  text: string,
  promised: Outcome,
  { options, ...rest }: Partial<AnswerCase> & { options?: SimulateOptions } = {},
): AnswerCase {
  return {
    script: [head(), answer([{ tool: 'ask', input: text }], { text: planted.text, ...options }).join('')],
    expected: promised.code === 'complete' ? { inputs: [JSON.parse(text || '{}')] } : {},
    promised,
    ...rest,
  }
}

/** Whether arguments are sent as text; else as values, which are JSON already. */
const sendsText = ({ wire }: Lab): boolean => wire.name !== 'ollama' && wire.name !== 'gemini'

const invalid: Outcome = { code: 'invalid_json', attempts: 1 }
const cut: Outcome = { code: 'output_truncated', attempts: 1 }

/** 3.4: what is wrong with the arguments. */
export const payloadRows: readonly Row[] = [
  {
    number: 76,
    title: 'arguments that are no JSON',
    cases: (lab) => [called(lab, '{"message": "planted", "count": nope}', invalid)],
  },
  {
    number: 77,
    title: 'arguments that are nearly JSON',
    cases: (lab) =>
      Object.entries({
        'more after it': '{"message":"planted"} planted',
        'two of them': '{"message":"planted"}{"message":"planted"}',
        'a comment': '{"message":"planted"} // planted',
        NaN: '{"message":"planted","count":NaN}',
        'single quotes': "{'message':'planted'}",
        'a control character': '{"message":"planted\n"}',
        'a byte order mark': '\ufeff{"message":"planted"}',
        'a comma too many': '{"message":"planted",}',
      }).map(([name, text]) => called(lab, text, invalid, { name })),
  },
  {
    number: 78,
    title: 'no arguments at all',
    // Gemini has no way to say so: a call without arguments has none.
    cases: (lab) => {
      const validate = () => ({ issues: [{ message: 'planted', path: ['message'] }] })
      return lab.wire.name === 'gemini'
        ? []
        : [
            called(lab, '', complete, { name: 'where none are needed' }),
            called(
              lab,
              '',
              { code: 'schema_mismatch', attempts: 1 },
              { name: 'where some are', request: { tools: [{ ...ask, validate }] } },
            ),
          ]
    },
  },
  {
    number: 79,
    title: 'the token limit is reached in a call',
    cases: (lab) => {
      const options = { finishReason: 'length' } as const
      const whole = called(lab, JSON.stringify(usualInput), cut, { name: 'after its arguments', options })
      // Gemini sends a call whole or not at all.
      return lab.wire.name === 'gemini'
        ? [whole]
        : [
            whole,
            called(lab, '{"message":"planted","exclude":["a","pla', cut, { name: 'in its arguments', options }),
            called(lab, '', cut, { name: 'before its arguments', options }),
          ]
    },
  },
  {
    number: 80,
    title: 'keys that are names of prototypes',
    cases: (lab) => [
      called(
        lab,
        '{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}},"message":"planted"}',
        complete,
      ),
    ],
  },
  {
    number: 81,
    title: 'a key twice',
    cases: (lab) =>
      sendsText(lab)
        ? [
            called(lab, '{"message":"planted a","message":"planted b"}', invalid, { name: 'a field that is streamed' }),
            called(lab, '{"count":1,"message":"planted","count":2}', complete, { name: 'another' }),
          ]
        : [],
  },
  {
    number: 82,
    title: 'deeper than allowed',
    cases: (lab) => [
      called(lab, `{"a":${'['.repeat(300)}${']'.repeat(300)}}`, {
        code: 'limit_exceeded',
        limit: 'maxDepth',
        attempts: 1,
      }),
      ...(sendsText(lab)
        ? [
            called(
              lab,
              `{"a":${'['.repeat(100_000)}`,
              { code: 'limit_exceeded', limit: 'maxDepth', attempts: 1 },
              { name: 'by far', options: { deltaChars: 1000 } },
            ),
          ]
        : []),
    ],
  },
  {
    number: 83,
    title: 'long arguments in small pieces',
    cases: (lab) => [
      called(lab, JSON.stringify({ note: 'planted '.repeat(20_000) }), complete, {
        options: { deltaChars: 16 },
        within: 8000,
      }),
      called(
        lab,
        JSON.stringify({ note: 'planted '.repeat(200) }),
        { code: 'limit_exceeded', limit: 'maxInputLength', attempts: 1 },
        { name: 'longer than allowed', limits: { maxInputLength: 1000 } },
      ),
    ],
  },
  {
    number: 84,
    title: 'numbers of any size',
    cases: (lab) =>
      sendsText(lab)
        ? [
            called(lab, `{"count":1${'0'.repeat(50_000)},"a":1e400,"b":12345678901234567890}`, complete, {
              options: { deltaChars: 100 },
            }),
          ]
        : [],
  },
  {
    number: 85,
    title: 'floods of blanks and backslashes',
    cases: (lab) => [
      called(lab, `{${' '.repeat(100_000)}"message":"planted"}`, complete, {
        options: { deltaChars: 200 },
        within: 2000,
      }),
      called(lab, JSON.stringify({ note: '\\'.repeat(50_000) }), complete, {
        options: { deltaChars: 200 },
        within: 2000,
      }),
    ],
  },
  {
    number: 86,
    title: 'a validator',
    cases: ({ good }) => {
      const never = new Promise<never>(() => undefined)
      const validated = (
        name: string,
        promised: Omit<Outcome, 'attempts'>,
        validate: NonNullable<typeof ask.validate>,
        rest: Partial<AnswerCase> = {},
      ): AnswerCase => ({
        name,
        script: good,
        request: { tools: [{ ...ask, validate }] },
        promised: { ...promised, attempts: 1 },
        ...rest,
      })
      return [
        validated('refuses', { code: 'schema_mismatch' }, () => ({ issues: [{ message: planted.text }] })),
        validated('throws', { code: 'validator_error' }, () => {
          throw new Error('out of order')
        }),
        validated('rejects', { code: 'validator_error' }, () => Promise.reject(new Error('out of order'))),
        validated('hangs', { code: 'timeout', phase: 'validate' }, () => never, { timeouts: { validate: 60 } }),
        validated('changes the value', { code: 'complete' }, () => ({ value: { other: 1 } }), {
          expected: { inputs: [{ other: 1 }] },
        }),
      ]
    },
  },
  {
    number: 87,
    title: 'a text where a call was asked for',
    cases: ({ head, answer, wire }) => [
      {
        script: [head(), answer(planted.text).join('')],
        request: { toolChoice: ask },
        expected: {},
        // Where the call is asked for as JSON text, that is what the text should be.
        promised: { code: sendsText({ wire } as Lab) ? 'no_payload' : 'invalid_json', attempts: 1 },
      },
    ],
  },
  {
    number: 88,
    title: 'a refusal, a filter',
    cases: ({ head, answer, wire }) => {
      const ended = (finishReason: 'refusal' | 'content-filter', code: 'refused' | 'content_filtered'): AnswerCase => ({
        name: finishReason,
        script: [head(), answer(planted.text, { finishReason }).join('')],
        promised: { code, attempts: 1 },
      })
      switch (wire.name) {
        case 'anthropic':
          return [ended('refusal', 'refused')]
        case 'gemini':
          return [ended('content-filter', 'content_filtered')]
        case 'ollama':
          return []
        default:
          return [ended('refusal', 'refused'), ended('content-filter', 'content_filtered')]
      }
    },
  },
]
