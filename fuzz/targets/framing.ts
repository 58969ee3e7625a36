import { isLLMError } from 'fieldstream'
import { endOfEvents, type EventReader, type Framing } from '../../src/wire/event-reader.ts'
import { jsonLines } from '../../src/wire/json-lines.ts'
import { serverSentEvents } from '../../src/wire/server-sent-events.ts'
import { parses, seededRandom } from '../../tests/json-corpus.ts'
import { mutate } from '../mutate.ts'
import { expectSame, type FuzzTarget, pick, toBody, toByteText, toBytes } from '../target.ts'

interface Read {
  readonly events: readonly string[]
  /** The code of the error that ended it. */
  readonly error: string | undefined
}

async function readAll(reader: EventReader): Promise<Read> {
  const events: string[] = []
  try {
    for (let read; (read = await reader.read());) {
      const end = read.indexOf(endOfEvents)
      events.push(...read.slice(0, end < 0 ? read.length : end).map(({ data }) => data))
      if (end >= 0) break
    }
    return { events, error: undefined }
  } catch (error) {
    if (!isLLMError(error)) throw error
    // A body that ends inside an event has no event there.
    return { events, error: error.code === 'stream_truncated' ? undefined : error.code }
  }
}

/** The text of the bytes up to the first that are no UTF-8. */
function decoded(bytes: Uint8Array): { text: string; isWhole: boolean } {
  const decoder = new TextDecoder('utf-8', { fatal: true })
  let text = ''
  try {
    for (const byte of bytes) text += decoder.decode(Uint8Array.of(byte), { stream: true })
    return { text, isWhole: true }
  } catch {
    return { text, isWhole: false }
  }
}

/** The data of each event, by the letter of the standard, as far as it says anything (WHATWG HTML, section 9.2.6). */
function eventsOf(text: string): string[] {
  const events: string[] = []
  let data: string[] = []
  const lines = text.split(/\r\n|\r|\n/)
  // What no line end follows is a line, but no blank one.
  const open = lines.pop()!
  for (const line of open === '' ? lines : [...lines, open]) {
    if (line === '') {
      if (data.length > 0) events.push(data.join('\n'))
      data = []
      continue
    }
    const colon = line.indexOf(':')
    const [field, value] = colon < 0 ? [line, ''] : [line.slice(0, colon), line.slice(colon + 1)]
    if (field === 'data') data.push(value.startsWith(' ') ? value.slice(1) : value)
  }
  const end = events.findIndex((event) => event.startsWith('[DONE]'))
  return end < 0 ? events : events.slice(0, end)
}

function linesOf(text: string): string[] {
  const lines = text.split('\n')
  const open = lines.pop()!
  return [...lines, ...(parses(open) ? [open] : [])].map((line) => line.trim()).filter((line) => line !== '')
}

function framingTarget(
  name: string,
  framing: Framing,
  eventsIn: (text: string) => string[],
  bodies: readonly string[],
  tokens: readonly string[],
): FuzzTarget {
  return {
    name,
    generate: (random) => ({
      text: mutate(toByteText(pick(random, bodies)), tokens, random),
      seed: random(1e9),
    }),
    async check({ text, seed }) {
      const random = seededRandom(seed)
      // A second byte order mark is no part of any stream, and is taken off like the first.
      if (text.startsWith('\xef\xbb\xbf'.repeat(2))) return
      const { text: sound, isWhole } = decoded(toBytes(text))
      const read = await readAll(framing.open(toBody(text, random), undefined))
      const expected = eventsIn(sound)
      if (isWhole) expectSame(read, { events: expected }, 'events')
      else if (read.error === 'stream_protocol') {
        // Of a read that holds them, nothing counts.
        expectSame(read.events, expected.slice(0, read.events.length), 'events before bytes that are no UTF-8')
      } else if (!sound.includes('[DONE]')) throw new Error('bytes that are no UTF-8 are accepted')
    },
  }
}

const wild = ['\xff', '\xc3', '\xe2\x82', '\xed\xa0\x80', '\xf0\x9f\x98\x80', '\xef\xbb\xbf', '\0']

export const framingTargets: readonly FuzzTarget[] = [
  framingTarget(
    'server-sent-events',
    serverSentEvents,
    eventsOf,
    [
      'data: {"a":1}\n\ndata: {"b":"ü😀"}\n\n',
      'event: x\r\ndata: {"a":\r\ndata: 1}\r\n\r\n: comment\r\ndata:x\r\n\r\n',
      'id: 1\rretry: 5\rdata: a\rdata\rdata:  b\r\rdata: [DONE]\r\rdata: c\r\r',
      '\ufeffdata: a\n\n\ufeffdata: b\n\ndata: c',
      'data: a\n\n\n\ndata\n\ndata: \n\nevent: only\n\n',
    ],
    [
      '\n',
      '\r',
      '\r\n',
      '\n\n',
      '\r\r',
      'data',
      'data:',
      'data: x',
      ':',
      ' ',
      'x',
      '[DONE]',
      ': c\n',
      'id:1\n',
      ...wild,
    ],
  ),
  framingTarget(
    'json-lines',
    jsonLines,
    linesOf,
    [
      '{"a":1}\n{"b":"ü😀"}\n',
      '{"a":1}\r\n\r\n {"b":2} \r\n',
      '{"a":{"b":[1,2]}}\n\n\n{"done":true}',
      '1\n"x"\nnull\n',
    ],
    ['\n', '\r\n', '\r', '{', '}', '{}', '"', ' ', '1', ...wild],
  ),
]
