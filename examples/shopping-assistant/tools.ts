import { summaryParts, tool } from 'fieldstream'
import { z } from 'zod'
import { categories, wanted } from './catalogue.ts'

/** The order of the members is the order in which they are written: what the shop can act on comes before what takes long. */
const classifyAndAssess = tool({
  name: 'classify_and_assess',
  description: 'Classify what the customer wants, and plan the next step.',
  input: z.object({
    reasoning: z.string().describe('Internal: two sentences on why'),
    route: z.enum(['product', 'general', 'support']),
    domain: z.enum([...Object.keys(wanted), 'none']),
    category: z.enum([...categories, 'none']),
    product_intent: z.string().describe('Words to search the catalogue with; empty unless the route is product'),
    data_strategy: z.enum(['search', 'none']),
    ask_slots: z
      .array(
        z.object({
          slot: z.enum(Object.values(wanted).flat()),
          message: z.string().describe('One friendly question'),
          options: z.array(z.string()).describe('Two to five short answers to choose from'),
        }),
      )
      .describe('The next detail that is missing, and only that one; empty where nothing is'),
    simple_response: z
      .object({ message: z.string().describe('Two or three sentences to the customer') })
      .optional()
      .describe('The whole answer, where no product is looked for'),
  }),
})

const generateFinalAnswer = tool({
  name: 'generate_final_answer_unified',
  description: 'Answer the customer with products that were found.',
  input: z.object({
    summary_message_part_1: z.string().describe('What you looked for and why; one or two sentences'),
    summary_message_part_2: z.string().describe('How the products compare; two sentences'),
    summary_message_part_3: z.string().describe('Your advice; one sentence'),
    product_ids: z.array(z.string()).describe('Ids of one to four products, best first'),
    product_cards: z.array(z.object({ id: z.string(), reason: z.string().describe('Up to ten words') })),
    quick_replies: z.array(z.string()).describe('Two or three short things the customer may say next'),
  }),
})

/** What the two steps ask for, and which fields of the answer are reported while it is written. */
export const classification = {
  tools: [classifyAndAssess],
  toolChoice: classifyAndAssess,
  fields: {
    ask_message: 'ask_slots[0].message',
    simple_response: 'simple_response.message',
    reasoning: { path: 'reasoning', deliver: 'complete' },
  },
  progress: true,
} as const

export const finalAnswer = {
  tools: [generateFinalAnswer],
  toolChoice: generateFinalAnswer,
  fields: {
    part: summaryParts.path,
    product_id: { path: 'product_ids[*]', deliver: 'complete' },
    product_card: 'product_cards[*]',
    quick_reply: { path: 'quick_replies[*]', deliver: 'complete' },
  },
} as const
