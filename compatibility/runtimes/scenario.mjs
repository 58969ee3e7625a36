/**
 * What `npm run check:runtimes` does with the packed library in every runtime, over real HTTP on the loopback: the server of
 * `scripts/check-runtimes.ts` answers by the model that is asked. Returns what was found right; throws where something is not.
 *
 * @param {object} given the library as this runtime loads it, and where the server is
 */
export async function tryLibrary({ fieldstream, createProvider, serverURL }) {
  const { StreamingLLMClient, tool, isLLMError, retry, timeout } = fieldstream
  const found = []
  const messages = [{ role: 'user', content: 'I want chips for a party' }]
  const order = tool({
    name: 'order',
    input: {
      type: 'object',
      properties: { route: { type: 'string' }, parts: { type: 'array', items: { type: 'string' } } },
      required: ['route', 'parts'],
    },
    execute: ({ parts }) => ({ count: parts.length }),
  })
  const fields = { part: 'parts[*]' }
  const clientOf = (model) =>
    new StreamingLLMClient({
      provider: createProvider({ model, baseURL: serverURL, apiKey: 'none' }),
      middleware: [retry({ attempts: 2 }), timeout({ idle: 5000 })],
    })
  const forced = (model) => clientOf(model).stream({ messages, tools: [order], toolChoice: order, fields })

  const stream = forced('whole')
  const route = stream.on('error', () => undefined).field('route')
  const written = {}
  let deltas = 0
  let isComplete = false
  for await (const event of stream) {
    if (event.type === 'field-delta') {
      deltas++
      written[event.path] = (written[event.path] ?? '') + event.delta
      expect(!isComplete, 'fields are written before the call is complete')
    }
    if (event.type === 'tool-call') isComplete = true
  }
  const { toolCalls, usage, finishReason } = await stream.final()
  const { input } = toolCalls[0]
  expect(input.parts.length === 2 && input.parts[0].includes('🎉'), 'the payload is whole')
  expect(
    input.parts.every((part, i) => written[`parts[${i}]`] === part),
    'the deltas of a field are its value',
  )
  expect(deltas > 5, `fields come in pieces (${deltas})`)
  expect((await route) === 'product', 'field() gives a value')
  expect(usage.outputTokens > 0 && finishReason === 'tool-calls', 'usage and reason are known')
  found.push('forced tool', 'field()', 'final()')

  const lines = await new Response(forced('whole').toReadableStream()).text()
  expect(JSON.parse(lines.trim().split('\n').at(-1)).type === 'finish', 'lines of JSON end with the finish')
  found.push('toReadableStream()')

  const run = clientOf('steps').run({ messages, tools: [order] })
  const { text, steps } = await run.final()
  expect(steps.length === 2 && text === 'Two are ordered.', 'tools run and the model goes on')
  found.push('run()')

  const cut = await failureOf(forced('cut').final())
  expect(isLLMError(cut) && cut.code === 'stream_truncated', `a cut answer rejects (${String(cut?.code)})`)
  expect(cut.partial.toolCalls[0].input.route === 'product', 'the error has what arrived')
  found.push('a cut answer rejects')

  const stopped = forced('endless-abort')
  for await (const event of stopped.subscribe()) {
    if (event.type === 'field-delta') {
      stopped.abort('enough')
      break
    }
  }
  const aborted = await failureOf(stopped.final())
  expect(aborted?.code === 'aborted', `abort() rejects (${String(aborted?.code)})`)
  await expectClosed('endless-abort')
  found.push('abort()')

  for await (const event of forced('endless-break')) if (event.type === 'field-delta') break
  await expectClosed('endless-break')
  found.push('leaving the loop closes the connection')

  const controller = new AbortController()
  const signalled = clientOf('endless-signal').stream({ messages, tools: [order], signal: controller.signal })
  setTimeout(() => controller.abort(), 100)
  expect((await failureOf(signalled.final()))?.code === 'aborted', 'a signal rejects')
  await expectClosed('endless-signal')
  found.push('signal')
  return found

  /** Asks the server whether the connection of an answer that never ends is closed. */
  async function expectClosed(model) {
    const response = await fetch(`${serverURL}/closed/${model}`)
    expect((await response.text()) === 'closed', `the connection of ${model} is closed`)
  }
}

function expect(isSo, what) {
  if (!isSo) throw new Error(`not so: ${what}`)
}

async function failureOf(promise) {
  try {
    await promise
    return undefined
  } catch (error) {
    return error
  }
}

/** Says how it went, in one line that the script can read. */
export async function report(given) {
  try {
    return JSON.stringify({ found: await tryLibrary(given) })
  } catch (error) {
    return JSON.stringify({ error: String(error?.stack ?? error) })
  }
}
