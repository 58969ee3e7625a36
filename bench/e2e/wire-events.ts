import { apiKey, model, schema, toolName, type WireName } from './job.ts'

/** As much of the five protocols' events as brings a piece of the arguments. */
interface AnyEvent {
  readonly type?: string
  readonly delta?: string | { readonly partial_json?: string }
  readonly choices?: readonly {
    readonly delta: { readonly tool_calls?: readonly { readonly function?: { readonly arguments?: string } }[] }
  }[]
  readonly message?: { readonly content?: string }
  readonly candidates?: readonly {
    readonly content?: { readonly parts?: readonly { readonly text?: string }[] }
  }[]
}

/** The piece of the arguments that an event brings, if any. */
export const pieceOf: Readonly<Record<WireName, (event: unknown) => string | undefined>> = {
  anthropic: (event) => {
    const { type, delta } = event as AnyEvent
    return type === 'content_block_delta' ? (delta as { readonly partial_json?: string }).partial_json : undefined
  },
  openai: (event) => {
    const { type, delta } = event as AnyEvent
    return type === 'response.function_call_arguments.delta' ? (delta as string) : undefined
  },
  'openai-chat': (event) => (event as AnyEvent).choices?.[0]?.delta.tool_calls?.[0]?.function?.arguments,
  ollama: (event) => (event as AnyEvent).message?.content,
  gemini: (event) => (event as AnyEvent).candidates?.[0]?.content?.parts?.[0]?.text,
}

const chatTool = { type: 'function', function: { name: toolName, parameters: schema } } as const

/** The bodies of the requests, also for the SDKs. */
export const bodyOf = {
  anthropic: (prompt: string) => ({
    model,
    max_tokens: 8192,
    messages: [{ role: 'user' as const, content: prompt }],
    tools: [{ name: toolName, input_schema: schema, eager_input_streaming: true }],
    tool_choice: { type: 'tool' as const, name: toolName },
  }),
  openai: (prompt: string) => ({
    model,
    input: [{ role: 'user' as const, content: prompt }],
    tools: [{ type: 'function' as const, name: toolName, parameters: schema, strict: false }],
    tool_choice: { type: 'function' as const, name: toolName },
  }),
  'openai-chat': (prompt: string) => ({
    model,
    messages: [{ role: 'user' as const, content: prompt }],
    tools: [chatTool],
    tool_choice: { type: 'function' as const, function: { name: toolName } },
  }),
  ollama: (prompt: string) => ({ model, messages: [{ role: 'user' as const, content: prompt }], format: schema }),
  gemini: (prompt: string) => ({
    contents: [{ role: 'user' as const, parts: [{ text: prompt }] }],
    generationConfig: { responseMimeType: 'application/json', responseJsonSchema: schema },
  }),
}

export const pathOf: Readonly<Record<WireName, string>> = {
  anthropic: '/v1/messages',
  openai: '/v1/responses',
  'openai-chat': '/v1/chat/completions',
  ollama: '/api/chat',
  gemini: `/v1beta/models/${model}:streamGenerateContent?alt=sse`,
}

export const headers = {
  'content-type': 'application/json',
  authorization: `Bearer ${apiKey}`,
  'anthropic-version': '2023-06-01',
}
