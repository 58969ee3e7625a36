import type { Asked } from '../shared/simulated-model.ts'
import { stillKnown, wanted } from './catalogue.ts'
import type { Need } from './prompts.ts'

const topics = [
  { domain: 'food', category: 'snacks', about: /chip|crisp|snack|party|dip|nuts|almond/i, intent: 'chips dip party' },
  { domain: 'food', category: 'drinks', about: /drink|coffee|tea\b|soda|lemonade/i, intent: 'drinks coffee tea soda' },
  { domain: 'food', category: 'breakfast', about: /breakfast|porridge|muesli|granola|jam/i, intent: 'breakfast oats' },
  { domain: 'food', category: 'sweets', about: /sweet|chocolate|biscuit|gift|dessert/i, intent: 'chocolate sweets' },
  { domain: 'food', category: 'dinner', about: /dinner|pasta|rice|curry|cook/i, intent: 'dinner pasta sauce' },
  { domain: 'personal_care', category: 'hair', about: /hair|shampoo|conditioner|curl/i, intent: 'hair shampoo' },
  { domain: 'personal_care', category: 'skin', about: /skin|cream|face|sun ?screen|lotion/i, intent: 'skin cream' },
  { domain: 'personal_care', category: 'oral', about: /tooth|teeth|mouth|floss/i, intent: 'toothpaste teeth' },
  { domain: 'personal_care', category: 'bath', about: /bath|shower|soap|deodorant/i, intent: 'bath shower soap' },
]

interface Answers {
  readonly message: string
  readonly options: readonly string[]
}

const questions: Readonly<Record<string, Answers>> = {
  people: {
    message: 'With pleasure! How many people are to be looked after? Then I can think of the right sizes. 🎉',
    options: ['Just me', '2 to 4', '5 to 10', 'More than 10'],
  },
  diet: {
    message: 'And is anybody vegan, or does it have to be "gluten free"? Otherwise I look at everything.',
    options: ['Vegan', 'Gluten free', 'Vegetarian', 'Everything'],
  },
  type: {
    message: 'Let us find something that does you good. Would you call it dry, oily, sensitive, or nothing special?',
    options: ['Dry', 'Oily', 'Sensitive', 'Normal'],
  },
  concern: {
    message: 'Is there something that bothers you, or should it simply keep things as they are?',
    options: ['Hydrating', 'Repair', 'Redness', 'Just care'],
  },
  scent: {
    message: 'How should it smell? Some like it fresh, some warm, and some not at all.',
    options: ['Fresh scent', 'Warm scent', 'Unscented'],
  },
  budget: {
    message: 'Last question, I promise: is there a budget you have in mind?',
    options: ['Budget', 'Mid range', 'Premium'],
  },
}

/** What is asked otherwise in some categories. */
const ofCategory: Readonly<Record<string, typeof questions>> = {
  oral: {
    type: {
      message: 'Let us find something that suits your teeth. Are they sensitive, or nothing special?',
      options: ['Sensitive', 'Normal'],
    },
    concern: {
      message: 'Is there something it should do above all, or simply keep things as they are?',
      options: ['Whitening', 'Cavities', 'Just care'],
    },
    scent: { message: 'How should it taste?', options: ['Mint', 'Mild', 'No taste'] },
  },
}

const responses = [
  {
    route: 'support',
    about: /return|refund|deliver|shipping|order|broken/i,
    message:
      'You can send anything back within 30 days, opened or not, and we pay the postage. Orders placed before 4 p.m. leave us the same day. Is there something I can look up for you?',
  },
  {
    route: 'general',
    about: /thank|great|perfect/i,
    message: 'You are most welcome! I am here whenever something runs out.',
  },
  {
    route: 'general',
    about: /./,
    message:
      'Hello! I know every shelf of this shop: snacks, drinks, breakfast, sweets and dinner, and what is good for hair, skin, teeth and bath. What may I find for you?',
  },
]

/** Plays the model of both steps. */
export function simulatedAnswer({ said, tools }: Asked): object {
  const [message = '', ...facts] = said.at(-1)!.split('\n')
  const fact = (name: string): unknown =>
    JSON.parse(facts.findLast((line) => line.startsWith(`${name}: `))?.slice(name.length + 2) ?? 'null')
  const need = fact('known') as Need | null
  return tools.includes('classify_and_assess')
    ? classify(message, need, fact('asked') as string | null)
    : recommend(message, need!, fact('products') as readonly Found[])
}

function classify(message: string, need: Need | null, asked: string | null): object {
  const response = responses.find(({ about }) => about.test(message))
  const topic =
    response?.route === 'support'
      ? undefined
      : (topics.find(({ about }) => about.test(message)) ??
        (response?.message === responses[1]?.message
          ? undefined
          : topics.find(({ category }) => category === need?.category)))
  if (!topic || !response) {
    return {
      reasoning: 'No product is looked for. A friendly answer is enough, and nothing has to be searched.',
      route: response?.route ?? 'general',
      domain: 'none',
      category: 'none',
      product_intent: '',
      data_strategy: 'none',
      ask_slots: [],
      simple_response: { message: response?.message ?? '' },
    }
  }
  const { domain, category, intent } = topic
  const isAnswer = need?.category === category
  const known = isAnswer ? need.known : stillKnown(need?.known ?? {}, domain)
  const missing = wanted[domain]!.find((slot) => !(slot in known) || (slot === asked && !isAnswer))
  return {
    reasoning: `The customer looks for ${category}. ${missing === undefined ? 'All details are known, so products can be chosen.' : `The detail "${missing}" is missing.`}`,
    route: 'product',
    domain,
    category,
    product_intent: intent,
    data_strategy: 'search',
    ask_slots:
      missing === undefined ? [] : [{ slot: missing, ...(ofCategory[category]?.[missing] ?? questions[missing]) }],
  }
}

interface Found {
  readonly id: string
  readonly name: string
  readonly price: number
  readonly tags: readonly string[]
  readonly description: string
}

function recommend(message: string, { category, known }: Need, found: readonly Found[]): object {
  const details = Object.values(known).map((detail) => detail.toLowerCase())
  const suits = ({ tags }: Found): number => details.filter((detail) => tags.includes(detail)).length
  const wantsCheap = /cheap|less/i.test(message)
  const chosen = found
    .filter(({ id }) => id.startsWith(category))
    .sort((a, b) => (wantsCheap ? a.price - b.price : suits(b) - suits(a)))
    .slice(0, 3)
  const [first, second] = chosen
  if (!first) return nothingFits(category)
  const cheapest = chosen.toSorted((a, b) => a.price - b.price)[0]!
  return {
    summary_message_part_1: `I looked along our ${category} shelf with what you told me in mind: ${details.join(', ')}.`,
    summary_message_part_2: `My first choice is ${first.name}. ${first.description}${second ? ` If you would like something else: ${second.name}. ${second.description}` : ''}`,
    summary_message_part_3: `The gentlest on your purse is ${cheapest.name}. All of them are in stock and leave us today. 🚚`,
    product_ids: chosen.map(({ id }) => id),
    product_cards: chosen.map((product, i) => ({
      id: product.id,
      reason: `${['My first choice', 'A good second', 'For a change'][i]!}: ${product.tags.slice(0, 2).join(', ')}`,
    })),
    quick_replies: [
      'Something cheaper, please',
      category === 'snacks' ? 'Something to drink too' : 'And snacks for a party',
      'How does delivery work?',
    ],
  }
}

function nothingFits(category: string): object {
  return {
    summary_message_part_1: `I looked along our ${category} shelf, and nothing there fits what you told me.`,
    summary_message_part_2: 'I would rather say so than talk you into something.',
    summary_message_part_3: 'Shall we try with fewer conditions?',
    product_ids: [],
    product_cards: [],
    quick_replies: ['Show me chocolate', 'How does delivery work?'],
  }
}
