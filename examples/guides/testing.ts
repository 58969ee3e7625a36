import { isLLMError, retry, StreamingLLMClient, timeout, tool } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { type Recording, recordFetch, replayFetch, type ReplayRequest, simulate } from 'fieldstream/testing'
import assert from 'node:assert/strict'
import test from 'node:test'
import { z } from 'zod'

// ----------------------------------------------------------------------------------------- the application, as it always is

const plan = tool({
  name: 'plan_party',
  input: z.object({ reasoning: z.string(), questions: z.array(z.string()), guests: z.number() }),
})

/** Shows the questions as they are written, and saves the plan once it is complete. */
async function planParty(client: StreamingLLMClient, page: Page, signal?: AbortSignal): Promise<void> {
  const stream = client.stream({
    messages: [{ role: 'user', content: 'A party for twelve' }],
    tools: [plan],
    toolChoice: plan,
    fields: { question: 'questions[*]' },
    signal,
  })
  for await (const event of stream) if (event.type === 'field-delta') page.shown += event.delta
  page.saved = (await stream.final()).toolCalls[0].input
}

interface Page {
  shown: string
  saved: object | undefined
}

// ------------------------------------------------------------------------------------------------------------- its tests

const payload = { reasoning: 'Twelve eat a lot.', questions: ['Any allergies? 🥜', 'Indoors?'], guests: 12 }
const allQuestions = payload.questions.join('')

/** The application, with a client whose network is `fetch`. */
async function run(fetch: typeof globalThis.fetch, signal?: AbortSignal) {
  const page: Page = { shown: '', saved: undefined }
  const client = new StreamingLLMClient({
    provider: anthropic({ model: 'claude-haiku-4-5', apiKey: 'none', fetch }),
    middleware: [retry({ attempts: 2, baseDelay: 1 }), timeout({ idle: 200 })],
  })
  const error = await planParty(client, page, signal).then(
    () => undefined,
    (thrown: unknown) => thrown,
  )
  assert(error === undefined || isLLMError(error))
  return { page, code: error?.code, error }
}

await test('questions are shown, the plan is saved', async () => {
  const fetch = replayFetch(simulate(payload))
  assert.deepEqual((await run(fetch)).page, { shown: allQuestions, saved: payload })
  // What the model was asked.
  const { messages } = fetch.requests[0]!.body as { messages: unknown }
  assert.match(JSON.stringify(messages), /A party for twelve/)
})

await test('an answer that is cut anywhere shows a part of the questions, and saves nothing', async () => {
  for (let part = 0; part < 1; part += 0.02) {
    const cut = (request: ReplayRequest): Recording => {
      const { body, headers } = simulate(payload)(request)
      return { body: String(body).slice(0, body.length * part), headers }
    }
    const { page, code } = await run(replayFetch(cut))
    assert.match(String(code), /^(empty_response|stream_truncated|attempts_exhausted)$/)
    assert(allQuestions.startsWith(page.shown))
    assert.equal(page.saved, undefined)
  }
})

await test('a service that falls silent is not waited for', async () => {
  const silent = (request: ReplayRequest): Recording => {
    const whole = simulate(payload)(request)
    return { ...whole, delays: whole.reads!.map((_, i, all) => (i === Math.floor(all.length / 2) ? 60_000 : 0)) }
  }
  const { code, error } = await run(replayFetch(silent))
  assert.equal(code, 'timeout')
  assert.equal(error?.phase, 'idle')
})

await test('a service that is overloaded is asked again', async () => {
  const body = JSON.stringify({ type: 'error', error: { type: 'overloaded_error', message: 'Overloaded' } })
  const overloaded = { status: 529, body, headers: { 'content-type': 'application/json' } }
  const fetch = replayFetch([overloaded, simulate(payload)])
  assert.deepEqual((await run(fetch)).page.saved, payload)
  assert.equal(fetch.requests.length, 2)
})

await test('an error in the middle of a stream is one', async () => {
  const failing = (request: ReplayRequest): Recording => {
    const whole = String(simulate(payload)(request).body)
    const error = { type: 'error', error: { type: 'api_error', message: 'Internal server error' } }
    return {
      body: `${whole.slice(0, whole.indexOf('event: message_delta'))}event: error\ndata: ${JSON.stringify(error)}\n\n`,
    }
  }
  const { page, code } = await run(replayFetch(failing))
  assert.equal(code, 'server_error')
  assert.deepEqual(page, { shown: allQuestions, saved: undefined })
})

await test('what the model got wrong is not saved', async () => {
  const wrong = {
    schema_mismatch: simulate({ ...payload, guests: 'twelve' }),
    invalid_json: simulate('{"questions": [what?]}', { tool: plan }),
    output_truncated: simulate('{"questions": ["Any all', { tool: plan, finishReason: 'length' }),
    refused: simulate('I would rather not.', { finishReason: 'refusal' }),
    no_payload: simulate('Just some text.'),
  }
  for (const [expected, answer] of Object.entries(wrong)) {
    const { page, code } = await run(replayFetch(answer))
    assert.deepEqual([code, page.saved], [expected, undefined])
  }
})

await test('Stop ends it at once', async () => {
  const stop = new AbortController()
  setTimeout(() => stop.abort('the user pressed stop'), 50)
  const { page, code } = await run(replayFetch(simulate(payload, { delayMs: 100 })), stop.signal)
  assert.deepEqual([code, page.saved], ['aborted', undefined])
})

await test('a recorded answer does, in whatever pieces it arrives', async () => {
  const service = replayFetch(simulate(payload)) // stands for the real one: `recordFetch()` alone records that
  const recorder = recordFetch({ fetch: service })
  await run(recorder)
  const file = JSON.stringify(recorder.recordings[0])
  for (const chunks of [1, 7, 'random'] as const) {
    const { page } = await run(replayFetch(JSON.parse(file) as Recording, { chunks }))
    assert.deepEqual(page, { shown: allQuestions, saved: payload })
  }
})
