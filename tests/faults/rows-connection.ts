import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import { retry, StreamingLLMClient } from 'fieldstream'
import { unusedPort } from './fault-server.ts'
import { complete, type AnswerCase, type Lab, type Outcome, type Row } from './row.ts'
import { request } from './run-row.ts'
import { planted } from './wires.ts'

const port = await unusedPort()

/** A `fetch` that fails as Node's does where a name or a connection is no good. */
function failingFetch(code: string): typeof globalThis.fetch {
  const cause = Object.assign(new Error(`${code} example.invalid`), { code })
  return () => Promise.reject(new TypeError('fetch failed', { cause }))
}

/** An answer that is an error status. */
function status(
  { head, wire }: Lab,
  code: number,
  promised: Omit<Outcome, 'attempts'> & { attempts?: number },
  { reason, headers = {}, ...rest }: { reason?: string; headers?: Record<string, string> } & Partial<AnswerCase> = {},
): AnswerCase {
  return {
    name: String(code),
    script: [head({ 'content-type': 'application/json', ...headers }, { status: code }), wire.failure(code, reason)],
    promised: { attempts: 1, phase: 'connect', ...promised },
    ...rest,
  }
}

const again = { attempts: 2 }

/** 3.1: what goes wrong until there is a stream. */
export const connectionRows: readonly Row[] = [
  {
    number: 1,
    title: 'connection refused',
    cases: () => [
      {
        script: [],
        wireOptions: { baseURL: `http://127.0.0.1:${port}` },
        promised: { code: 'connection', reason: 'refused', phase: 'connect', attempts: 2 },
      },
    ],
  },
  {
    number: 2,
    title: 'no address for the name',
    cases: () =>
      (
        [
          ['ENOTFOUND', 1],
          ['EAI_AGAIN', 2],
        ] as const
      ).map(([name, attempts]) => ({
        name,
        script: [],
        wireOptions: { fetch: failingFetch(name) },
        promised: { code: 'connection', reason: 'dns', phase: 'connect', attempts },
      })),
  },
  {
    number: 3,
    title: 'TLS fails',
    cases: ({ good }) => [
      {
        name: 'a server without TLS',
        script: good,
        reach: (server) => ({ baseURL: server.baseURL.replace('http:', 'https:') }),
        promised: { code: 'connection', reason: 'tls', phase: 'connect', attempts: 1 },
      },
      ...['CERT_HAS_EXPIRED', 'DEPTH_ZERO_SELF_SIGNED_CERT'].map((name) => ({
        name,
        script: [],
        wireOptions: { fetch: failingFetch(name) },
        promised: { code: 'connection', reason: 'tls', phase: 'connect', attempts: 1 } as const,
      })),
    ],
  },
  {
    number: 4,
    title: 'the connection ends before headers',
    cases: ({ good }) => [
      {
        name: 'reset at once',
        script: good,
        onConnection: (index) => (index === 0 ? { end: 'reset' } : undefined),
        promised: { ...complete, attempts: 2 },
      },
      {
        name: 'reset after the request',
        script: [{ end: 'reset' }],
        promised: { code: 'connection', reason: 'reset', phase: 'connect', attempts: 2 },
      },
      {
        name: 'closed after the request',
        script: [{ end: 'close' }],
        promised: { code: 'connection', reason: 'closed', phase: 'connect', attempts: 2 },
      },
      {
        name: 'no HTTP',
        script: ['planted\r\n\r\n', { end: 'close' }],
        promised: { code: 'connection', phase: 'connect', attempts: 2 },
      },
    ],
  },
  {
    number: 5,
    title: 'a kept connection is dead when it is used again',
    cases: ({ good }) => [
      {
        promised: 'complete, × 2',
        async check(lab) {
          const server = await lab.serve((index) => (index === 1 ? [{ end: 'close' }] : good))
          const provider = lab.provider({ baseURL: server.baseURL })
          const client = new StreamingLLMClient({ provider, middleware: [retry({ baseDelay: 1 })] })
          await client.stream(request).final()
          // The end of the first answer is read in the background.
          await sleep(20)
          const { text } = await client.stream(request).final()
          assert.equal(text, planted.text)
          assert.equal(server.requests.length, 3)
          assert.equal(server.requests[1]!.connection, server.connections[0], 'the connection was used again')
        },
      },
    ],
  },
  {
    number: 6,
    title: '400, 422: the request is wrong',
    cases: (lab) => [status(lab, 400, { code: 'bad_request' }), status(lab, 422, { code: 'bad_request' })],
  },
  { number: 7, title: '401: the key is wrong', cases: (lab) => [status(lab, 401, { code: 'authentication' })] },
  {
    number: 8,
    title: 'no credit left',
    cases: (lab) => [
      status(lab, 402, { code: 'quota_exhausted' }),
      ...(lab.wire.name.startsWith('openai')
        ? [
            status(
              lab,
              429,
              { code: 'quota_exhausted' },
              { reason: 'insufficient_quota', name: '429 insufficient_quota' },
            ),
          ]
        : []),
    ],
  },
  { number: 9, title: '403: not allowed', cases: (lab) => [status(lab, 403, { code: 'permission' })] },
  { number: 10, title: '404: no such model', cases: (lab) => [status(lab, 404, { code: 'not_found' })] },
  { number: 11, title: '408', cases: (lab) => [status(lab, 408, { code: 'request_timeout', ...again })] },
  { number: 12, title: '409', cases: (lab) => [status(lab, 409, { code: 'conflict', ...again })] },
  { number: 13, title: '413: too large', cases: (lab) => [status(lab, 413, { code: 'request_too_large' })] },
  {
    number: 14,
    title: '429 without a wait',
    cases: (lab) => [status(lab, 429, { code: 'rate_limited', ...again }, { spacing: [0, 1000] })],
  },
  {
    number: 15,
    title: '429 with a wait in seconds',
    cases: (lab) => [
      status(
        lab,
        429,
        { code: 'rate_limited', retryAfterMs: 200, ...again },
        { headers: { 'retry-after': '0.2' }, spacing: [200, 1200] },
      ),
    ],
  },
  {
    number: 16,
    title: '429 with a wait in milliseconds, which wins',
    cases: (lab) => [
      status(
        lab,
        429,
        { code: 'rate_limited', retryAfterMs: 120, ...again },
        { headers: { 'retry-after-ms': '120', 'retry-after': '40' }, spacing: [120, 1120] },
      ),
    ],
  },
  {
    number: 17,
    title: '429 with a wait that is a date, past, nonsense or nothing',
    cases: (lab) => [
      ...[new Date(0).toUTCString(), 'soon', '-5', '1e99', '0'].map((after) =>
        status(
          lab,
          429,
          { code: 'rate_limited', ...again },
          { name: after, headers: { 'retry-after': after }, spacing: [0, 1000] },
        ),
      ),
      status(
        lab,
        429,
        { code: 'rate_limited', retryAfterMs: 1000, ...again },
        {
          name: "a date by the server's own clock",
          headers: {
            date: new Date(Date.UTC(2030, 0, 1)).toUTCString(),
            'retry-after': new Date(Date.UTC(2030, 0, 1, 0, 0, 1)).toUTCString(),
          },
          spacing: [1000, 2000],
        },
      ),
    ],
  },
  {
    number: 18,
    title: '429 with a wait that is too long',
    cases: (lab) => [
      status(
        lab,
        429,
        { code: 'rate_limited', retryAfterMs: 90_000 },
        { name: 'longer than a minute', headers: { 'retry-after': '90' }, within: 1000 },
      ),
      status(
        lab,
        429,
        { code: 'rate_limited', retryAfterMs: 5000 },
        {
          name: 'longer than the run has left',
          headers: { 'retry-after': '5' },
          timeouts: { total: 4000 },
          within: 1000,
        },
      ),
    ],
  },
  {
    number: 19,
    title: 'the server says whether to try again',
    cases: (lab) => [
      status(lab, 500, { code: 'server_error' }, { headers: { 'x-should-retry': 'false' } }),
      status(lab, 400, { code: 'bad_request', ...again }, { headers: { 'x-should-retry': 'true' } }),
    ],
  },
  {
    number: 20,
    title: '500, 502, 504',
    cases: (lab) => [500, 502, 504].map((code) => status(lab, code, { code: 'server_error', ...again })),
  },
  {
    number: 21,
    title: '503, 529: overloaded',
    cases: (lab) => [503, 529].map((code) => status(lab, code, { code: 'overloaded', ...again })),
  },
  {
    number: 22,
    title: 'sent on to another address',
    cases: (lab) => [
      {
        promised: 'unexpected_redirect, and nothing goes there',
        async check() {
          const other = await lab.serve(() => lab.good)
          const server = await lab.serve(() => [lab.head({ location: `${other.baseURL}/v1` }, { status: 307 })])
          const client = new StreamingLLMClient({ provider: lab.provider({ baseURL: server.baseURL }) })
          await assert.rejects(client.stream(request).final(), { code: 'unexpected_redirect', retryable: false })
          assert.equal(other.requests.length, 0)
        },
      },
    ],
  },
  {
    number: 23,
    title: 'an error status with a body that is huge, endless, or no JSON',
    cases: ({ head }) => {
      const failed = (name: string, contentType: string, ...body: AnswerCase['script']): AnswerCase => ({
        name,
        script: [head({ 'content-type': contentType }, { status: 500 }), ...body],
        promised: { code: 'server_error', phase: 'connect', attempts: 2 },
        timeouts: { firstByte: 1500 },
        within: 2000,
      })
      return [
        failed('huge', 'application/json', `{"error":{"message":"${'x'.repeat(10_000_000)}"}}`),
        failed('endless', 'application/json', { forever: 'x'.repeat(10_000) }),
        failed('a page', 'text/html', `<h1>${planted.words}</h1>`),
        failed('bytes', 'application/octet-stream', Uint8Array.of(0, 255, 254)),
        failed('nothing', 'application/json'),
      ]
    },
  },
  {
    number: 24,
    title: '200 with a page',
    cases: ({ head }) => [
      {
        script: [head({ 'content-type': 'text/html' }), `<html>${planted.text}</html>`],
        promised: { code: 'unexpected_content_type', attempts: 2 },
      },
    ],
  },
  {
    number: 25,
    title: '200 with an error in JSON',
    cases: ({ head, wire }) => [
      {
        script: [head({ 'content-type': 'application/json' }), wire.failure(500)],
        promised: { code: 'server_error', attempts: 2 },
      },
    ],
  },
  {
    number: 26,
    title: '200 with nothing',
    cases: ({ head, wire }) => [
      { script: [head()], promised: { code: 'empty_response', attempts: 2 } },
      { name: 'but signs of life', script: [head(), wire.alive], promised: { code: 'empty_response', attempts: 2 } },
    ],
  },
  {
    number: 27,
    title: '204',
    cases: () => [
      {
        script: [{ head: { status: 204, framing: 'none' } }],
        promised: { code: 'empty_response', attempts: 2 },
      },
    ],
  },
  {
    number: 28,
    title: 'the right body under a wrong content type, or none',
    cases: ({ frames }) => [
      { name: 'none', script: [{ head: {} }, frames.join('')], promised: complete },
      {
        name: 'wrong',
        script: [{ head: { headers: { 'content-type': 'text/plain' } } }, frames.join('')],
        promised: { code: 'unexpected_content_type', attempts: 2 },
      },
    ],
  },
  {
    number: 29,
    title: 'headers that come slowly',
    cases: ({ wire, frames }) => [
      {
        script: [
          ...['HTTP/1.1 200 OK\r\n', `content-type: ${wire.contentType}\r\n`, 'connection: close\r\n', '\r\n'].flatMap(
            (line) => [line, { wait: 5 }],
          ),
          frames.join(''),
          { end: 'close' },
        ],
        timeouts: { firstByte: 2000 },
        promised: complete,
      },
    ],
  },
  {
    number: 30,
    title: 'no headers, ever',
    cases: () => [
      {
        script: [{ end: 'stall' }],
        timeouts: { firstByte: 250 },
        promised: { code: 'timeout', phase: 'first_byte', attempts: 2 },
      },
    ],
  },
]
