import type { FieldExtractor } from './field-extractor.ts'

/** Questions an assistant asks back: `ask_slots[*].message`. */
export const askMessages = { field: 'ask_message', path: 'ask_slots[*].message' } as const satisfies FieldExtractor

/** A direct answer: `simple_response.message`. */
export const simpleResponses = {
  field: 'simple_response',
  path: 'simple_response.message',
} as const satisfies FieldExtractor

/** A summary in numbered parts, the number in `params.part`: `summary_message_part_{part}`. */
export const summaryParts = {
  field: 'summary_part',
  path: 'summary_message_part_{part}',
} as const satisfies FieldExtractor
