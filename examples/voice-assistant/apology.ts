import type { LLMError } from 'fieldstream'

/** What a person is told of an error, and the status of a response that has none yet. */
export function apologyFor({ code, phase }: LLMError): {
  readonly status: 422 | 429 | 499 | 503
  readonly message: string
} {
  if (code === 'aborted') return { status: 499, message: 'You left.' }
  if (phase === 'queue')
    return { status: 429, message: 'You have asked a lot in the last minute. Give me a moment, then ask again.' }
  if (code === 'refused' || code === 'content_filtered')
    return { status: 422, message: 'I would rather not answer that. Is there something else?' }
  return { status: 503, message: 'Sorry, I cannot think just now. Please ask again in a moment.' }
}
