/** One job for an extractor: a JSON text, and the fields to stream from it. */
export interface Workload {
  readonly name: string
  readonly text: string
  /** Paths whose text or value is to be handed out. */
  readonly paths: readonly string[]
}

const english = 'A light, crunchy snack that goes well with dips and keeps a party going. '
const mixed =
  'He said "crisp\u00e9" \u2014 \u4e0b\u5348\u8336\u7684\u597d\u642d\u6863 \ud83c\udf89\nand \u0938\u094d\u0935\u093e\u0926\u093f\u0937\u094d\u091f too. '

export function prose(length: number, start = 0): string {
  let text = ''
  for (let i = start; text.length < length; i++) text += i % 3 === 2 ? mixed : english
  return text.slice(0, length).toWellFormed()
}

function repeat<T>(count: number, make: (index: number) => T): T[] {
  return Array.from({ length: count }, (_, index) => make(index))
}

/** The four jobs: 1 KB classification, 8 KB answer with product cards, 100 KB in one string, 1 MB of objects. */
export const workloads: readonly Workload[] = [
  {
    name: 'a',
    text: JSON.stringify({
      reasoning: prose(260),
      route: 'product',
      domain: 'food',
      category: 'snacks',
      product_intent: 'discover',
      data_strategy: 'search',
      ask_slots: [
        { slot: 'budget', message: prose(90, 1), options: ['under 100', '100 to 300', 'any'] },
        { slot: 'diet', message: prose(90, 2), options: ['vegan', 'gluten free', 'none'] },
      ],
      simple_response: { message: prose(170, 2) },
    }),
    paths: ['ask_slots[*].message', 'simple_response.message', 'route'],
  },
  {
    name: 'b',
    text: JSON.stringify({
      summary_message_part_1: prose(1300),
      summary_message_part_2: prose(1300, 1),
      summary_message_part_3: prose(900, 2),
      product_ids: repeat(20, (i) => `sku-${1000 + i}`),
      cards: repeat(20, (i) => ({
        id: `sku-${1000 + i}`,
        title: `Party chips no. ${i} \ud83c\udf7f`,
        price: 49.5 + i,
        currency: 'INR',
        tags: ['snack', 'party'],
        blurb: prose(60, i),
        in_stock: i % 4 !== 0,
      })),
    }),
    paths: ['summary_message_part_{part}', 'product_ids[*]', 'cards[*]'],
  },
  { name: 'c', text: JSON.stringify({ title: 'Report', message: prose(96_000) }), paths: ['message'] },
  {
    name: 'd',
    text: JSON.stringify({
      items: repeat(5200, (i) => ({
        id: i,
        name: `Item ${i} \u54c1`,
        message: prose(110, i),
        price: i * 1.25,
        available: i % 2 === 0,
        note: null,
      })),
    }),
    paths: ['items[*].message'],
  },
]

/** `text` in pieces of `size` characters, each a string of its own as it would be off the wire. */
export function inDeltas(text: string, size: number): string[] {
  const deltas: string[] = []
  for (let i = 0; i < text.length; i += size) deltas.push(JSON.parse(JSON.stringify(text.slice(i, i + size))) as string)
  return deltas
}
