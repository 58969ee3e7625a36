import { type ReplayRequest, replayFetch, simulate, type SimulateOptions } from 'fieldstream/testing'

/** What a simulated model is asked, whichever provider's wire it came over. */
export interface Asked {
  /** What the user said, oldest first. */
  readonly said: readonly string[]
  /** The names of the tools that are offered. */
  readonly tools: readonly string[]
  /** Whether the last message is the result of a tool. */
  readonly hasResult: boolean
}

type Members = Readonly<Record<string, unknown>>

/**
 * Lets an application run without a key: a `fetch` that answers as a model would, over the wire of `options.provider`, and at its
 * pace. `undefined`, which is the network, where the environment has the key. Options may depend on what is asked, such as the
 * `text` before a call.
 */
export function withoutKey(
  key: string,
  answer: (asked: Asked) => string | object,
  options: SimulateOptions | ((asked: Asked) => SimulateOptions) = {},
): typeof globalThis.fetch | undefined {
  if (process.env[key]) return undefined
  return replayFetch((request) => {
    const asked = readRequest(request)
    const chosen = typeof options === 'function' ? options(asked) : options
    return simulate(answer(asked), { delayMs: 20, firstDelayMs: 400, ...chosen })(request)
  })
}

function readRequest({ body }: ReplayRequest): Asked {
  const { messages, input, contents, tools } = body as Record<string, unknown>
  const all = [messages ?? input ?? contents].flat() as Members[]
  const results = all.map((message) => isResult(message))
  return {
    said: all.filter(({ role }, i) => role === 'user' && !results[i]).map((message) => textOf(message)),
    tools: namesIn(tools),
    hasResult: results.at(-1) ?? false,
  }
}

/** Each wire has its own way to give back what a tool returned, and `xmlTools()` one for all. */
function isResult(message: Members): boolean {
  return (
    message['role'] === 'tool' ||
    /"(tool_result|function_call_output|functionResponse)"|<tool_response>/.test(JSON.stringify(message))
  )
}

function textOf({ content, parts }: Members): string {
  return [content ?? parts]
    .flat()
    .map((part) => (typeof part === 'string' ? part : ((part as { readonly text?: string }).text ?? '')))
    .join('\n')
}

function namesIn(tools: unknown): string[] {
  return [...JSON.stringify(tools ?? []).matchAll(/"name":"([^"]+)"/g)].map(([, name]) => name!)
}
