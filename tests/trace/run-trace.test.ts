import { OutputError, type ResponseEvent, StreamError } from 'fieldstream'
import { expect, test } from 'vitest'
import { RunTrace } from './run-trace.ts'

let seq = 0
const numbered = (event: object): ResponseEvent => ({ seq: ++seq, ...event }) as ResponseEvent

const textDelta = (delta: string, length: number) => numbered({ type: 'text-delta', delta, length })
const fieldDelta = (delta: string, length: number, toolCallId = '1') =>
  numbered({ type: 'field-delta', field: 'a', path: 'a', delta, length, toolCallId })
const fieldEnd = (value: unknown, toolCallId = '1') =>
  numbered({ type: 'field-end', field: 'a', path: 'a', value, toolCallId })
const inputStart = () => numbered({ type: 'tool-input-start', toolCallId: '1', toolName: 'answer' })
const inputDelta = (delta: string) => numbered({ type: 'tool-input-delta', toolCallId: '1', delta })
const inputEnd = () => numbered({ type: 'tool-input-end', toolCallId: '1' })
const toolCall = () => numbered({ type: 'tool-call', toolCallId: '1', toolName: 'answer', input: {} })
const start = () => numbered({ type: 'start' })
const toolResult = () => numbered({ type: 'tool-result', toolCallId: '1', toolName: 'answer', output: 1 })
const restart = () => numbered({ type: 'restart', attempt: 2 })
const finish = () => numbered({ type: 'finish' })

const written = 'Nobody but the user may read this sentence.'
const failure = new StreamError('stream_truncated', 'It broke off.')

function violationsOf(...told: (ResponseEvent | Error)[]): string[] {
  const violations: string[] = []
  const trace = new RunTrace((violation) => violations.push(violation))
  for (const item of told) {
    if (item instanceof Error) trace.onError(item)
    else trace.onEvent(item)
  }
  trace.onEnd()
  return violations
}

test.each<[string, readonly (ResponseEvent | Error)[]]>([
  ['text', [textDelta('ab', 2), textDelta('c', 3), finish()]],
  ['a field', [fieldDelta('ab', 2), fieldDelta('c', 3), fieldEnd('abc'), finish()]],
  ['a value that comes whole', [fieldEnd({ b: 1 }), finish()]],
  ['half a character where the value is one', [fieldDelta('\ud83d', 1), fieldEnd('\ud83d'), finish()]],
  ['a call', [inputStart(), inputDelta('{}'), inputEnd(), toolCall(), finish()]],
  [
    'a step that follows tools',
    [
      ...[textDelta('ab', 2), inputStart(), inputEnd(), toolCall(), toolResult(), start()],
      ...[textDelta('c', 1), inputStart(), inputEnd(), toolCall(), toolResult(), finish()],
    ],
  ],
  ['a failure after tools', [inputStart(), inputEnd(), toolCall(), toolResult(), failure]],
  ['a failure', [textDelta(written, written.length), failure]],
  ['the same field again', [fieldDelta('ab', 2), restart(), fieldDelta('c', 3, '2'), fieldEnd('abc', '2'), finish()]],
  ['another field', [fieldDelta('ab', 2), restart(), fieldDelta('cd', 2, '2'), fieldEnd('cd', '2'), finish()]],
  ['a field that repeats a part', [fieldDelta('abc', 3), restart(), fieldDelta('d', 3), fieldEnd('abd'), finish()]],
  ['the beginning of a field', [fieldDelta('ab', 2), restart(), fieldEnd('a', '2'), finish()]],
  ['the same text again', [textDelta('ab', 2), restart(), textDelta('c', 3), finish()]],
  ['a fault of the provider that is an error', [inputDelta('{}'), failure]],
])('a trace accepts %s', (_, told) => {
  expect(violationsOf(...told)).toEqual([])
})

test.each<[string, readonly (ResponseEvent | Error)[], RegExp]>([
  ['a number that does not grow', [textDelta('a', 1), { ...finish(), seq: 1 }], /`seq` of `finish` is 1 after/],
  ['an event after the end', [finish(), textDelta('a', 1)], /after the run ended with `finish`/],
  ['an event after an error', [failure, textDelta('a', 1)], /after the run ended with `error`/],
  ['two ends', [finish(), finish()], /after the run ended/],
  ['an error after the end', [finish(), failure], /error comes after the run ended/],
  ['no end', [textDelta('a', 1)], /neither/],
  ['text that lacks some', [textDelta('a', 1), textDelta('c', 3), finish()], /`text-delta` of 1 has length 3 after 1/],
  ['a result without a call', [toolResult(), finish()], /`tool-result` belongs to no call/],
  [
    'two results of a call',
    [inputStart(), inputEnd(), toolCall(), toolResult(), toolResult(), finish()],
    /after the end of call 1/,
  ],
  [
    'a step without the tools before it',
    [inputStart(), inputEnd(), toolCall(), start(), finish()],
    /`start` comes between/,
  ],
  ['text twice', [textDelta('a', 1), textDelta('a', 1), finish()], /`text-delta` of 1 has length 1 after 1/],
  ['text beyond what was shown', [textDelta('a', 1), restart(), textDelta('c', 3), finish()], /`text-delta` of 1/],
  ['a field that lacks some', [fieldDelta('b', 2), finish()], /`field-delta` of 1 at a has length 2 after 0/],
  ['a field beyond what was shown', [restart(), fieldDelta('c', 3), finish()], /`field-delta` of 1 at a has length 3/],
  ['an empty delta', [fieldDelta('', 0), finish()], /is empty/],
  ['a value that its deltas are not', [fieldDelta('a', 1), fieldEnd('ab'), finish()], /the deltas at a make 'a'/],
  [
    'a void text as part of a value',
    [fieldDelta('ab', 2), restart(), fieldDelta('c', 3), fieldEnd('xbc'), finish()],
    /the deltas at a make 'abc'/,
  ],
  [
    'a value that was not shown',
    [fieldDelta('ab', 2), restart(), fieldEnd('b'), finish()],
    /what was shown at a is 'ab'/,
  ],
  ['a delta after its value', [fieldDelta('a', 1), fieldEnd('a'), fieldDelta('b', 1), finish()], /length 1 after 1/],
  [
    'a torn character',
    [fieldDelta('\ud83d', 1), fieldDelta('\ude00', 2), fieldEnd('😀'), finish()],
    /a delta at a tears a character/,
  ],
  ['a call without its end', [inputStart(), inputDelta('{}'), toolCall(), finish()], /delivered without its end/],
  ['a call that was never written', [toolCall(), finish()], /delivered without its end/],
  ['a call twice', [inputStart(), inputEnd(), toolCall(), toolCall(), finish()], /delivered twice/],
  ['a call that is cut', [inputStart(), inputDelta('{"a":'), inputEnd(), toolCall(), finish()], /no JSON object/],
  ['a call of another attempt', [inputStart(), inputEnd(), restart(), toolCall(), finish()], /without its end/],
  ['a call before more', [inputStart(), inputEnd(), toolCall(), textDelta('a', 1), finish()], /between `tool-call`/],
  ['a call of a run that fails', [inputStart(), inputEnd(), toolCall(), failure], /delivered a `tool-call` fails/],
  ['a fault that nobody minds', [inputStart(), inputStart(), finish()], /succeeds although call 1 starts twice/],
  [
    'an error whose message quotes the text',
    [textDelta(written, written.length), new Error(`Not JSON: ${written}`)],
    /the error shows what the model wrote: "Nobody but the user may /,
  ],
  [
    'an error whose cause quotes arguments',
    [
      inputStart(),
      inputDelta(`{"a":"${written}`),
      new OutputError('invalid_json', 'No.', { cause: { got: written.slice(3, 30) } }),
    ],
    /the error shows/,
  ],
  [
    'an error whose JSON quotes a field',
    [fieldDelta(written, written.length), Object.assign(new Error('No.'), { toJSON: () => written })],
    /the error shows/,
  ],
])('a trace notices %s', (_, told, violation) => {
  expect(violationsOf(...told).join('\n')).toMatch(violation)
})
