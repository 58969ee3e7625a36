/**
 * OpenAI's Responses API, and Chat Completions of any server that speaks them. Needs `openai`.
 *
 * @module fieldstream/openai
 */

export { openai, toStreamEvents } from './openai-responses.ts'
export type { OpenAIClient, OpenAIOptions } from './openai-responses.ts'
export { openaiChat, toChatStreamEvents } from './openai-chat.ts'
export type { OpenAIChatClient, OpenAIChatOptions } from './openai-chat.ts'
export type { OpenAIConnection } from './openai-connection.ts'
export type { WireLimits } from '../wire/event-reader.ts'
