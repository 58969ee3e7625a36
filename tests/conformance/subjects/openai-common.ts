import OpenAI from 'openai'
import type { ErrorCode } from 'fieldstream'
import { expect } from 'vitest'
import { key } from '../run.ts'
import type { Json, ReportedError, Sdk, Subject } from '../subject.ts'

/** What the two APIs of OpenAI have in common. */
export function write(...events: readonly unknown[]): string {
  return events.map((event) => `data: ${typeof event === 'string' ? event : JSON.stringify(event)}\n\n`).join('')
}

export const failureBody: Subject['failureBody'] = (_, error, words) =>
  JSON.stringify({ error: { message: words, ...error } })

export const statuses: Subject['statuses'] = [
  [
    400,
    { type: 'invalid_request_error', code: 'context_length_exceeded' },
    'bad_request',
    false,
    'context_length_exceeded',
  ],
  [401, { type: 'invalid_request_error', code: 'invalid_api_key' }, 'authentication', false, 'invalid_api_key'],
  [403, { type: 'permission_error', code: null }, 'permission', false, 'permission_error'],
  [404, { type: 'invalid_request_error', code: 'model_not_found' }, 'not_found', false, 'model_not_found'],
  [429, { type: 'tokens', code: 'rate_limit_exceeded' }, 'rate_limited', true, 'rate_limit_exceeded'],
  [429, { type: 'insufficient_quota', code: 'insufficient_quota' }, 'quota_exhausted', false, 'insufficient_quota'],
  [500, { type: 'server_error', code: null }, 'server_error', true, 'server_error'],
  [503, { type: 'server_error', code: 'overloaded' }, 'overloaded', true, 'overloaded'],
]

/** Errors in a stream, in every shape that services and gateways give them. */
export function reportedErrors(words: string, shapesOfOne: (error: Json) => string[]): ReportedError[] {
  const reports: [Json, ErrorCode, number][] = [
    [{ code: 'rate_limit_exceeded' }, 'rate_limited', 429],
    [{ code: 'insufficient_quota', type: 'insufficient_quota' }, 'quota_exhausted', 429],
    [{ type: 'invalid_request_error', code: 'tool_use_failed', status_code: 400 }, 'bad_request', 400],
    [{ type: 'invalid_request_error', code: 'invalid_api_key' }, 'authentication', 401],
    [{ code: 502 }, 'server_error', 502],
    [{ code: '503' }, 'overloaded', 503],
    [{ type: 'server_error' }, 'server_error', 500],
    [{}, 'server_error', 500],
  ]
  return reports.flatMap(([report, code, status]) => {
    const error = { ...report, message: words }
    const shapes = [
      write({ type: 'error', error }),
      write({ error }),
      `event: error\n${write({ error })}`,
      `event: error\n${write({ type: 'error', error })}`,
      `error: ${JSON.stringify(error)}\n\n`,
      `${JSON.stringify({ error })}\n`,
      ...shapesOfOne(error),
    ]
    return shapes.map((body, i) => ({
      name: `${JSON.stringify(report)}, shape ${i + 1}`,
      body,
      expected: { code, status, providerMessage: words },
      overSdk: i === 0,
    }))
  })
}

export const openaiSdk: Pick<Sdk, 'module' | 'install' | 'create' | 'called' | 'throws'> = {
  module: 'openai',
  install: 'openai@7',
  create: ({ fetch }) => new OpenAI({ apiKey: key, fetch, maxRetries: 5 }),
  called: [
    { model: 'model-a', stream: true },
    { maxRetries: 0, headers: { 'x-a': 'b' }, signal: expect.any(AbortSignal) as AbortSignal },
  ],
  throws: [],
}

export const openaiKey: Subject['key'] = {
  environment: ['OPENAI_API_KEY'],
  others: ['OPENAI_BASE_URL'],
  neededWith: {},
  header: 'authorization',
  prefix: 'Bearer ',
}
