import { prose, workloads } from '../workloads.ts'

/** The wire protocols that the loopback server speaks. */
export const wireNames = ['anthropic', 'openai', 'openai-chat', 'ollama', 'gemini'] as const
export type WireName = (typeof wireNames)[number]

export const wireTitles: Readonly<Record<WireName, string>> = {
  anthropic: 'Anthropic',
  openai: 'OpenAI Responses',
  'openai-chat': 'OpenAI Chat',
  ollama: 'Ollama',
  gemini: 'Gemini',
}

export const deltaChars = 8
/** Milliseconds between the events of a paced answer. */
export const pace = 10

/** The one tool that is forced. */
export const toolName = 'answer'
export const schema = {
  type: 'object',
  properties: {
    summary_message_part_1: { type: 'string' },
    summary_message_part_2: { type: 'string' },
    summary_message_part_3: { type: 'string' },
    product_ids: { type: 'array', items: { type: 'string' } },
    cards: { type: 'array', items: { type: 'object', additionalProperties: true } },
  },
  additionalProperties: true,
} as const

export const textFields = ['summary_message_part_1', 'summary_message_part_2', 'summary_message_part_3'] as const
/** The first is the path of the texts above; only its deltas are compared, since snapshots do not tell when a value is whole. */
export const fieldPaths = ['summary_message_part_{part}', 'product_ids[*]', 'cards[*]'] as const

export const model = 'claude-haiku-4-5'
export const apiKey = 'none'

/** What is asked for: `answer`, 8 KB; `text-N`, N deltas of plain text; `prose-N`, N characters with escapes and other scripts. */
export type JobName = 'answer' | `text-${number}` | `prose-${number}`

/** The JSON text of a job's arguments. */
export function argumentsOf(job: JobName): string {
  if (job === 'answer') return workloads.find(({ name }) => name === 'b')!.text
  const [kind, size] = job.split('-') as [string, string]
  if (kind === 'prose') return JSON.stringify({ summary_message_part_1: prose(Number(size)) })
  const length = Number(size) * deltaChars - JSON.stringify({ [textFields[0]]: '' }).length
  return JSON.stringify({ [textFields[0]]: 'all work and no play '.repeat(length / 21 + 1).slice(0, length) })
}

/** Characters before the text of a `text-N` begins. */
export const textOffset = `{"${textFields[0]}":"`.length

/** The text of the string fields, in the order in which it is written. */
export function fieldTextOf(payload: unknown): string {
  return textFields.map((name) => (payload as Record<string, string | undefined>)[name] ?? '').join('')
}

/** How the server is to answer one request. It reads this in the prompt, which every client sends along. */
export interface Order {
  /** Names the answer, to ask for the times of its events afterwards. */
  readonly id: number
  readonly job: JobName
  /** `burst`: all at once, each event an HTTP chunk; `paced`: the first, then after a `GET /go` one every 10 ms; `hold`: half, and nothing more. */
  readonly pace: 'burst' | 'paced' | 'hold'
}

export function toPrompt({ id, job, pace: speed }: Order): string {
  return `[order ${id} ${job} ${speed}]`
}

export function readOrder(body: string): Order | undefined {
  const found = /\[order (\d+) ([a-z0-9-]+) (\w+)\]/.exec(body)
  if (!found) return undefined
  const [, id, job, speed] = found
  return { id: Number(id), job: job as JobName, pace: speed as Order['pace'] }
}

/** A clock that all processes of one machine share, in milliseconds. */
export function sharedNow(): number {
  const [seconds, nanoseconds] = process.hrtime()
  return seconds * 1000 + nanoseconds / 1e6
}
