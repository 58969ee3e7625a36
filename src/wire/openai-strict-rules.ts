import type { StrictRules } from './strict-schema.ts'

const enforced = new Set([
  'pattern',
  'multipleOf',
  'minimum',
  'maximum',
  'exclusiveMinimum',
  'exclusiveMaximum',
  'minItems',
  'maxItems',
])
const formats = ['date-time', 'time', 'date', 'duration', 'email', 'hostname', 'ipv4', 'ipv6', 'uuid']

/** The strict mode of the Responses and Chat Completions APIs (platform.openai.com, "Structured outputs", supported schemas). */
export const openaiStrictRules: StrictRules = {
  enforces: (keyword, value) => enforced.has(keyword) || (keyword === 'format' && formats.includes(value as string)),
  needsAllRequired: true,
  takesRecursion: true,
}
