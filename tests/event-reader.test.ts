import { describe, expect, test } from 'vitest'
import { endOfEvents } from '../src/wire/event-reader.ts'
import { jsonLines } from '../src/wire/json-lines.ts'
import { serverSentEvents } from '../src/wire/server-sent-events.ts'
import { collectUntilError } from './support.ts'

/** A body of these network reads. */
function bodyOf(...reads: readonly (string | Uint8Array)[]): ReadableStream<Uint8Array> {
  const bytes = reads.map((read) => (typeof read === 'string' ? new TextEncoder().encode(read) : read))
  return new ReadableStream({
    start(controller) {
      for (const read of bytes) controller.enqueue(read)
      controller.close()
    },
  })
}

/** What each read gives, and how it ends. */
function readAll({ open }: typeof jsonLines, reads: readonly (string | Uint8Array)[], limits = {}) {
  const reader = open(bodyOf(...reads), limits)
  const iterate = async function* () {
    for (let events; (events = await reader.read());)
      yield events.map((event) => (event === endOfEvents ? 'end' : event.data))
  }
  return collectUntilError(iterate())
}

describe('each read of the network is one read of events', () => {
  test('server-sent events', async () => {
    const reads = [': hello\n', '\n', 'data: {"a"', ':1}\n', '\n', 'data: 2\n\ndata: 3\n\nda', 'ta: [DONE]\n\n']
    const { items, error } = await readAll(serverSentEvents, reads)
    expect(items).toEqual([[], [], [], [], ['{"a":1}'], ['2', '3'], ['end'], []])
    expect(error).toBeUndefined()
  })

  test('lines of JSON', async () => {
    const { items } = await readAll(jsonLines, ['\n', '{"a"', ':1}', '\n', '{}\n{}\n{"b":2}'])
    expect(items).toEqual([[], [], [], ['{"a":1}'], ['{}', '{}'], ['{"b":2}']])
  })

  test('what came before a fault counts', async () => {
    const wrong = Uint8Array.of(0xff)
    for (const framing of [serverSentEvents, jsonLines]) {
      const good = framing === jsonLines ? '5\n' : 'data: 5\n\n'
      const { items, error } = await readAll(framing, [good, wrong])
      expect(items).toEqual([['5'], []])
      expect(error).toMatchObject({ code: 'stream_protocol' })
    }
  })
})

describe('a body cut inside its first event is not an empty one', () => {
  const cut = { name: 'StreamError', code: 'stream_truncated', reason: 'end', retryable: true }

  test.for([
    [serverSentEvents, ['d']],
    [serverSentEvents, ['data: {"a":1}']],
    [serverSentEvents, ['data: {"a":1}\n']],
    [serverSentEvents, ['event: message_start\n']],
    [serverSentEvents, [': hello\n\nevent: mess']],
    [serverSentEvents, ['\ufeffda', 'ta: 1\r', '\n']],
    [jsonLines, ['\n\n{"a"']],
    [jsonLines, ['{']],
  ] as const)('%j', async ([framing, reads]) => {
    expect((await readAll(framing, reads)).error).toMatchObject(cut)
  })

  test.for([
    [serverSentEvents, []],
    [serverSentEvents, ['\n\r\n\n']],
    [serverSentEvents, ['\ufeff: hel', 'lo\n\n', ': data: 1\n', ': by']],
    [serverSentEvents, ['data: 1\n\ndata: 2']],
    [jsonLines, []],
    [jsonLines, [' \n \r\n ']],
    [jsonLines, ['{}\n{"a"']],
  ] as const)('these are: %j', async ([framing, reads]) => {
    expect((await readAll(framing, reads)).error).toBeUndefined()
  })
})

describe('lines that are no part of an event', () => {
  const stray = 'x-cache: hit\n'

  test('are ignored, up to a hundred in a row', async () => {
    const { items, error } = await readAll(serverSentEvents, [
      `${stray.repeat(100)}\ndata: 1\n\n${stray.repeat(100)}\ndata: 2\n\n`,
    ])
    expect(items.flat()).toEqual(['1', '2'])
    expect(error).toBeUndefined()
  })

  test('are an error if there are more, after the events before them', async () => {
    for (const reads of [
      [`data: 1\n\n${stray.repeat(101)}data: 2\n\n`],
      ['data: 1\n\n', ...Array<string>(101).fill(stray)],
    ]) {
      const { items, error } = await readAll(serverSentEvents, reads)
      expect(items.flat()).toEqual(['1'])
      expect(error).toMatchObject({ name: 'StreamError', code: 'stream_protocol', retryable: true })
      expect((error as Error).message).toContain('`maxStrayLines`')
    }
  })

  test('are as many as the option says', async () => {
    const limits = { maxStrayLines: 2 }
    expect((await readAll(serverSentEvents, [stray.repeat(2)], limits)).error).toBeUndefined()
    expect((await readAll(serverSentEvents, [stray.repeat(3)], limits)).error).toMatchObject({
      code: 'stream_protocol',
    })
  })
})
