import { type Provider, retry, StreamingLLMClient, type Tool, xmlTools } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { ollama } from 'fieldstream/ollama'
import { openai } from 'fieldstream/openai'
import type { LatencyMonitor } from './latency.ts'
import { createTools } from './tools.ts'

export type AgentId = 'planner' | 'accountant' | 'guide' | 'packer'
type Fetch = typeof globalThis.fetch | undefined

/** How an agent reaches its provider; `undefined` is the network. */
export type FetchFor = (agent: AgentId) => Fetch

export interface Agent {
  readonly id: AgentId
  readonly name: string
  readonly task: string
  readonly provider: Provider
  readonly isSimulated: boolean
  readonly client: StreamingLLMClient
  readonly instructions: string
  readonly tools: readonly Tool[]
}

interface Role extends Pick<Agent, 'id' | 'name' | 'task' | 'tools'> {
  readonly provider: (fetch: Fetch) => Provider
}

/** Each agent with its provider and its tool. */
export function createAgents(fetchFor: FetchFor, pauseMs: number, latency: LatencyMonitor): Agent[] {
  const { findTrains, convert, getClimate, makePackingList } = createTools(pauseMs)
  const { env } = process
  const roles: Role[] = [
    {
      id: 'planner',
      name: 'Planner',
      task: 'finds trains',
      tools: [findTrains],
      provider: (fetch) => anthropic({ model: env['ANTHROPIC_MODEL'] ?? 'claude-haiku-4-5', fetch }),
    },
    {
      id: 'accountant',
      name: 'Accountant',
      task: 'converts money',
      tools: [convert],
      provider: (fetch) => openai({ model: env['OPENAI_MODEL'] ?? 'gpt-5-mini', fetch }),
    },
    {
      id: 'guide',
      name: 'Guide',
      task: 'knows the weather',
      tools: [getClimate],
      provider: (fetch) => ollama({ model: env['OLLAMA_MODEL'] ?? 'llama3.2', fetch }),
    },
    {
      id: 'packer',
      name: 'Packer',
      task: 'packs your bag',
      tools: [makePackingList],
      // A model that has no tool calls of its own.
      provider: (fetch) => xmlTools(ollama({ model: env['OLLAMA_XML_MODEL'] ?? 'gemma2', fetch })),
    },
  ]
  return roles.map(({ id, name, task, tools, provider: create }) => {
    const fetch = fetchFor(id)
    const provider = create(fetch)
    const client = new StreamingLLMClient({
      provider,
      middleware: [retry()],
      alerts: { timeToFirstByteMs: latency.limitMs },
      onAlert: () => latency.onAlert(id),
      onMetrics: ({ metrics }) => latency.onMetrics(id, metrics),
      onError: ({ code, message }, { runId }) => console.error(`${id} ${runId}: ${code}. ${message}`),
    })
    const instructions = `You are the ${name} of a travel desk: the one who ${task}. Use your tool where it helps, and say briefly what you do before. The user is shown what it gives: do not repeat it, say what follows from it. Answer in two or three plain sentences, without Markdown.`
    return { id, name, task, provider, isSimulated: fetch !== undefined, client, instructions, tools }
  })
}
