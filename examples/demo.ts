/**
 * `npm run demo`: two answers of a shopping assistant, written field by field. Simulated, unless `--live` is given and the
 * provider's key is set. `-- --provider openai` (openai-chat, ollama, gemini) shows another's wire format, `--fast` leaves out
 * the pauses of a model.
 */
import { parseArgs } from 'node:util'
import { isLLMError, StreamingLLMClient, summaryParts, tool, FieldExtractorRegistry } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { gemini } from 'fieldstream/gemini'
import { ollama } from 'fieldstream/ollama'
import { openai, openaiChat } from 'fieldstream/openai'
import { replayFetch, simulate } from 'fieldstream/testing'
import { z } from 'zod'
import { Terminal } from './terminal.ts'

function readFlags() {
  try {
    return parseArgs({
      options: {
        provider: { type: 'string', default: 'anthropic' },
        live: { type: 'boolean', default: false },
        fast: { type: 'boolean', default: false },
      },
    }).values
  } catch (error) {
    console.error(`${(error as Error).message}\nThe demo takes --provider <name>, --live and --fast.`)
    process.exit(1)
  }
}

const flags = readFlags()

/** To change provider is to change this line. */
const providers = {
  anthropic: { create: anthropic, model: 'claude-haiku-4-5', key: 'ANTHROPIC_API_KEY' },
  openai: { create: openai, model: 'gpt-5-mini', key: 'OPENAI_API_KEY' },
  'openai-chat': { create: openaiChat, model: 'gpt-5-mini', key: 'OPENAI_API_KEY' },
  ollama: { create: ollama, model: 'llama3.2', key: undefined },
  gemini: { create: gemini, model: 'gemini-2.5-flash', key: 'GEMINI_API_KEY' },
}

function isProvider(name: string): name is keyof typeof providers {
  return Object.hasOwn(providers, name)
}

const classify = tool({
  name: 'classify_and_assess',
  description:
    'Classify what the customer wants and plan the next step. Ask for exactly two details that are missing, each as a friendly question with options.',
  input: z.object({
    reasoning: z.string().describe('Internal: two sentences on why'),
    route: z.enum(['product', 'general', 'support']),
    domain: z.string(),
    category: z.string(),
    product_intent: z.string(),
    data_strategy: z.string(),
    ask_slots: z.array(z.object({ slot: z.string(), message: z.string(), options: z.array(z.string()) })),
    simple_response: z.object({ message: z.string().describe('One warm sentence to the customer') }),
  }),
})

const answer = tool({
  name: 'generate_final_answer_unified',
  description: 'Answer the customer: three short summary paragraphs, then two or three product cards.',
  input: z.object({
    summary_message_part_1: z.string(),
    summary_message_part_2: z.string(),
    summary_message_part_3: z.string(),
    product_ids: z.array(z.string()),
    product_cards: z.array(z.object({ id: z.string(), title: z.string(), price: z.number(), reason: z.string() })),
  }),
})

const classification = {
  reasoning:
    'The customer plans a party and names a category but neither the number of guests nor a diet. Both decide the pack.',
  route: 'product',
  domain: 'food',
  category: 'snacks/chips',
  product_intent: 'discover',
  data_strategy: 'search_then_rank',
  ask_slots: [
    {
      slot: 'guests',
      message: 'How many people are coming? 🎉 Then I can suggest the right pack size.',
      options: ['Under 10', '10 to 30', 'More than 30'],
    },
    {
      slot: 'diet',
      message: 'Is anybody "gluten free" or vegan, or may I look at everything?',
      options: ['Gluten free', 'Vegan', 'Everything'],
    },
  ],
  simple_response: { message: 'A party without chips is only a meeting, so let us find good ones.' },
}

const finalAnswer = {
  summary_message_part_1:
    'For about twenty guests, three large sharing bags and two dips are plenty, with one bag kept back for latecomers.',
  summary_message_part_2:
    'I looked for gluten-free bags with short ingredient lists; the lentil crisps stay crunchy longest once they are open.',
  summary_message_part_3: 'Everything below is in stock and arrives tomorrow, well before the doorbell rings. 🚪',
  product_ids: ['chips-102', 'chips-217', 'dip-031'],
  product_cards: [
    { id: 'chips-102', title: 'Sea Salt Sharing Bag, 500 g', price: 3.49, reason: 'the one everybody likes' },
    { id: 'chips-217', title: 'Lentil Crisps "Sweet Chilli" 🌶️', price: 2.99, reason: 'gluten free, stays crunchy' },
    { id: 'dip-031', title: 'Guacamole, 2 × 200 g', price: 4.25, reason: 'vegan, made this week' },
  ],
}

const { provider: name } = flags
if (!isProvider(name)) {
  console.error(`--provider takes one of: ${Object.keys(providers).join(', ')}.`)
  process.exit(1)
}
const { create, model, key } = providers[name]
if (flags.live && key && !process.env[key]) {
  console.error(`--live needs ${key} in the environment. Without --live the demo needs no key.`)
  process.exit(1)
}

const pace = { provider: name, deltaChars: 6, ...(!flags.fast && { delayMs: 45, firstDelayMs: 600 }) }
const simulated = { fetch: replayFetch([simulate(classification, pace), simulate(finalAnswer, pace)]) }
// Whoever reads the demo through a pipe may stop reading.
process.stdout.on('error', () => process.exit())
const client = new StreamingLLMClient({ provider: create({ model, ...(!flags.live && simulated) }) })
const terminal = new Terminal(process.stdout)

/** Where a provider would send a call's arguments in one piece, they come as text that streams. */
const channels = {
  native: 'a native tool call',
  json: "JSON text, held to the tool's schema",
  xml: 'tags in plain text',
}

/** Step 1: what the customer may see appears as it is written; everything else stays inside until it is complete. */
async function classifyQuery(query: string): Promise<void> {
  terminal.title('1  What does the customer want?', query)
  const stream = client.stream({
    messages: [{ role: 'user', content: query }],
    tools: [classify],
    toolChoice: classify,
    fields: {
      ask_message: 'ask_slots[*].message',
      options: 'ask_slots[*].options',
      simple_response: 'simple_response.message',
    },
  })
  void stream.field('reasoning').then(
    () => terminal.note('reasoning', 'held back: not for the customer'),
    () => undefined,
  )
  void stream.field('route').then(
    (route) => terminal.note('route', `${String(route)}, known early: the search can start`),
    () => undefined,
  )
  for await (const event of stream) {
    if (event.type === 'start') terminal.note('arguments', `travel as ${channels[event.toolInput]}`)
    if (event.type === 'field-delta')
      terminal.text(event.field === 'ask_message' ? 'ask' : 'reply', event.path, event.delta)
    if (event.type === 'field-end' && event.field === 'options')
      terminal.note('', event.value.map((option) => `[ ${option} ]`).join(' '))
  }
  const { toolCalls, metrics } = await stream.final()
  terminal.payload(toolCalls[0].toolName, toolCalls[0].input, metrics)
}

/** Step 2: three parts of one summary as they are written, each product card at the moment it is complete. */
async function answerQuery(query: string): Promise<void> {
  terminal.title('2  The answer', query)
  const fields = new FieldExtractorRegistry([summaryParts, { field: 'card', path: 'product_cards[*]' }])
  const stream = client.stream({
    messages: [{ role: 'user', content: query }],
    tools: [answer],
    toolChoice: answer,
    fields,
  })
  for await (const event of stream) {
    if (event.type === 'field-delta') terminal.text(`part ${event.params['part'] ?? ''}`, event.path, event.delta)
    if (event.type === 'field-end' && event.field === 'card') {
      terminal.card(event.value.title, event.value.price.toFixed(2), event.value.reason)
    }
  }
  const { toolCalls, metrics } = await stream.final()
  terminal.payload(toolCalls[0].toolName, toolCalls[0].input, metrics)
}

/** What is said to be in `cause`, from the outside in. */
function causesOf({ cause }: Error): string | undefined {
  const words: string[] = []
  for (let error = cause; error instanceof Error; error = error.cause) words.push(error.message)
  return words.length > 0 ? words.join(': ') : undefined
}

try {
  terminal.intro(
    flags.live
      ? `Live: ${model} through ${name}.`
      : `Simulated: no key, no network. The wire format of ${name} through the official SDK.`,
  )
  await classifyQuery('I want chips for a party')
  await answerQuery('About twenty people, gluten free please')
} catch (error) {
  if (!isLLMError(error)) throw error
  // What had been shown stays; a cut or invalid answer is never passed off as a complete one.
  terminal.failed(`${error.code}: ${error.message}`, error.providerMessage ?? causesOf(error))
  process.exitCode = 1
}
