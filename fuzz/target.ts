/** What one try is made of: JSON, so that one that fails can be kept. */
export interface FuzzInput {
  /** What is read; of bytes, one character for each. */
  readonly text: string
  /** Decides how it is cut into pieces. */
  readonly seed: number
  /** Which of several ways of reading it. */
  readonly variant?: string
}

/** Gives whole numbers from zero to below its argument. */
export type Random = (below: number) => number

/** Something that reads what it does not control. */
export interface FuzzTarget {
  readonly name: string
  generate(random: Random): FuzzInput
  /** Throws, or rejects, where a promise is broken. */
  check(input: FuzzInput): void | Promise<void>
}

export function pick<Item>(random: Random, items: readonly Item[]): Item {
  return items[random(items.length)]!
}

/** Throws where two readings of the same input differ. */
export function expectSame(actual: unknown, expected: unknown, what: string): void {
  const [found, due] = [JSON.stringify(actual), JSON.stringify(expected)]
  if (found !== due) throw new Error(`${what}: ${found.slice(0, 500)} is not ${due.slice(0, 500)}`)
}

/** Pieces of every size, some empty, some of one character. */
export function cut(text: string, random: Random): string[] {
  const largest = pick(random, [1, 3, 20, 200, 5000])
  const chunks: string[] = []
  for (let start = 0, size; start < text.length; start += size) {
    size = random(largest + 1)
    chunks.push(text.slice(start, start + size))
  }
  return chunks
}

/** Each character a byte. */
export function toBytes(text: string): Uint8Array {
  return Uint8Array.from(text, (character) => character.charCodeAt(0))
}

/** A character for each byte of the text in UTF-8. */
export function toByteText(text: string): string {
  return Buffer.from(text).toString('latin1')
}

/** A body that arrives in pieces. */
export function toBody(text: string, random: Random): ReadableStream<Uint8Array> {
  const chunks = cut(text, random).map(toBytes)
  let next = 0
  return new ReadableStream({
    pull(controller) {
      const chunk = chunks[next++]
      if (chunk) controller.enqueue(chunk)
      else controller.close()
    },
  })
}
