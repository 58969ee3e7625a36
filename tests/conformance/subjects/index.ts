import type { Subject } from '../subject.ts'
import { anthropicSubject } from './anthropic.ts'
import { geminiSubject } from './gemini.ts'
import { ollamaSubject } from './ollama.ts'
import { openaiChatSubject } from './openai-chat.ts'
import { openaiSubject } from './openai.ts'

/** Every provider there is. */
export const subjects: readonly Subject[] = [
  anthropicSubject,
  openaiSubject,
  openaiChatSubject,
  ollamaSubject,
  geminiSubject,
]
