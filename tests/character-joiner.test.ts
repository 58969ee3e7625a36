import fc from 'fast-check'
import type { StreamEvent } from 'fieldstream'
import { describe, expect, test } from 'vitest'
import { CharacterJoiner } from '../src/wire/character-joiner.ts'
import { finish, input, inputEnd, inputStart, reasoning, text } from './support.ts'

const [high, low] = ['\ud83d', '\ude00']

/** All that comes of these batches. */
function join(...batches: readonly (readonly StreamEvent[])[]): StreamEvent[] {
  const joiner = new CharacterJoiner()
  return [...batches.flatMap((batch) => joiner.join([...batch])), ...joiner.release()]
}

describe('a character that two deltas share is in the second', () => {
  test.for([text, reasoning, (delta: string) => input('a', delta)])('%o', (delta) => {
    const joined = [delta('a'), delta(`${high}${low}b`)]
    expect(join([delta(`a${high}`), delta(`${low}b`)])).toEqual(joined)
    expect(join([delta(`a${high}`)], [], [delta(`${low}b`)])).toEqual(joined)
    expect(join([delta('a'), delta(high)], [delta(`${low}b`)])).toEqual(joined)
  })

  test('across what is no part of the answer', () => {
    const raw: StreamEvent = { type: 'raw', value: 1 }
    expect(join([text(high), raw], [raw, text(low)])).toEqual([raw, raw, text(high + low)])
  })

  test('not across another part', () => {
    const others = [reasoning('b'), inputStart('a'), inputEnd('a'), finish()]
    for (const other of others) expect(join([text(`a${high}`), other])).toEqual([text('a'), text(high), other])
    expect(join([input('a', high), input('b', low)])).toEqual([input('a', high), input('b', low)])
  })

  test('half a character that stays alone is the text', () => {
    expect(join([text(`a${high}`)])).toEqual([text('a'), text(high)])
    expect(join([text(high), text('b')])).toEqual([text(`${high}b`)])
  })

  test('whatever the text and its pieces', () => {
    const piece = fc.string({ unit: fc.constantFrom('a', high, low), minLength: 1, maxLength: 3 })
    fc.assert(
      fc.property(fc.array(fc.array(piece)), (batches) => {
        const joined = join(...batches.map((batch) => batch.map(text))) as { delta: string }[]
        expect(joined.map(({ delta }) => delta).join('')).toBe(batches.flat().join(''))
        joined.forEach(({ delta }, i) => {
          if (delta.endsWith(high)) expect(joined[i + 1]?.delta.startsWith(low) ?? false).toBe(false)
        })
      }),
    )
  })
})
