import MiniSearch from 'minisearch'
import type { ProductCard } from './events.ts'
import products from './catalogue.json' with { type: 'json' }

export type Product = (typeof products)[number]

/** What is missing before products can be chosen, in the order in which it is asked. */
export const wanted: Readonly<Record<string, readonly string[]>> = {
  food: ['people', 'diet'],
  personal_care: ['type', 'concern', 'scent', 'budget'],
}

/** Of these, what a customer tells for one category only: dry hair is not dry skin. The others hold for all of a domain. */
const ofCategory = ['type', 'concern', 'scent']

/** What is still known when the customer goes on to another category, of `domain`. */
export function stillKnown(known: Readonly<Record<string, string>>, domain: string): Record<string, string> {
  const lasting = wanted[domain]?.filter((slot) => !ofCategory.includes(slot)) ?? []
  return Object.fromEntries(Object.entries(known).filter(([slot]) => lasting.includes(slot)))
}

export const categories = [...new Set(products.map(({ category }) => category))]

const index = new MiniSearch<Product>({
  fields: ['name', 'category', 'tags', 'description'],
  extractField: (product, field) => [product[field as keyof Product]].flat().join(' '),
  searchOptions: { prefix: true, fuzzy: 0.2, boost: { name: 2, category: 2 } },
})
index.addAll(products)
const byId = new Map(products.map((product) => [product.id, product]))

/** The products that suit `words` best. Asynchronous, as the search of a real shop is. */
export function search(words: string, limit = 8): Promise<Product[]> {
  const hits = index.search(words).slice(0, limit)
  return Promise.resolve(hits.map(({ id }) => byId.get(id as string)!))
}

/** The card of a product that the model names, with nothing on it that the model could invent but the reason. */
export function toCard(named: Pick<ProductCard, 'id' | 'reason'>, found: readonly Product[]): ProductCard | undefined {
  const product = found.find(({ id }) => id === named.id)
  return (
    product && {
      id: product.id,
      name: product.name,
      category: product.category,
      price: product.price,
      reason: named.reason,
    }
  )
}
