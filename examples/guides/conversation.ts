import { type Message, StreamingLLMClient, tool } from 'fieldstream'
import { openai } from 'fieldstream/openai'
import { replayFetch, simulate } from 'fieldstream/testing'
import { z } from 'zod'

const stock = tool({ name: 'check_stock', input: z.object({ product: z.string() }) })
const price = tool({ name: 'check_price', input: z.object({ product: z.string(), pieces: z.number() }) })

// Two simulated answers. A real client needs no `fetch`, but the environment variable OPENAI_API_KEY.
const provider = 'openai'
const calls = [
  { tool: 'check_stock', input: { product: 'chips' } },
  { tool: 'check_price', input: { product: 'chips', pieces: 4 } },
]
const fetch = replayFetch([
  simulate(calls, { provider }),
  simulate('Four bags cost 13.96, and we have 12.', { provider }),
])
const client = new StreamingLLMClient({ provider: openai({ model: 'gpt-5-mini', fetch }) })

const conversation: Message[] = [{ role: 'user', content: 'Four bags of chips: what do they cost?' }]
const first = await client.stream({ messages: conversation, tools: [stock, price] }).final()
conversation.push(...first.messages)

const content = first.toolCalls.map((call) => {
  // The name of the tool tells the type of the input.
  const output = call.toolName === 'check_stock' ? { pieces: 12 } : { total: call.input.pieces * 3.49 }
  return { type: 'tool-result', toolCallId: call.toolCallId, toolName: call.toolName, output } as const
})
conversation.push({ role: 'tool', content })

const second = await client.stream({ messages: conversation, tools: [stock, price] }).final()
conversation.push(...second.messages)
console.log(conversation.map(({ role }) => role).join(' → '))
console.log(second.text)
