import { type LLMRequest, type Message, outputFormat, type Provider, StreamingLLMClient, tool } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { gemini } from 'fieldstream/gemini'
import { ollama } from 'fieldstream/ollama'
import { openai, openaiChat } from 'fieldstream/openai'
import { replayFetch, simulate, type SimulateOptions } from 'fieldstream/testing'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'

type Json = Record<string, unknown>
type Name = NonNullable<SimulateOptions['provider']>
type Fetch = typeof globalThis.fetch

const providers = {
  anthropic: (fetch, options) => anthropic({ model: 'claude-haiku-4-5', fetch, ...options }),
  openai: (fetch, options) => openai({ model: 'gpt-5-mini', fetch, ...options }),
  'openai-chat': (fetch, options) => openaiChat({ model: 'gpt-5-mini', fetch, ...options }),
  ollama: (fetch, options) => ollama({ model: 'llama3.2', fetch, ...options }),
  gemini: (fetch, options) => gemini({ model: 'gemini-2.5-flash', fetch, ...options }),
} satisfies Record<Name, (fetch: Fetch, options: Json) => Provider>

const question: Message = { role: 'user', content: 'Hello' }
const answer = { title: 'Chips', note: 'Salty' }

/** Sends one request, and returns its body and what came of it. */
async function send(name: Name, request: object, options: Json = {}) {
  let body: Json = {}
  const fetch = replayFetch((asked) => {
    body = asked.body as Json
    // Without tools to call, what is written is text.
    const isText = !('tools' in body)
    return isText
      ? simulate(JSON.stringify(answer), { provider: name })(asked)
      : simulate(answer, { provider: name, tool: 'describe' })(asked)
  })
  const client = new StreamingLLMClient({ provider: providers[name](fetch, options) })
  const response = await client.stream({ messages: [question], ...request }).final()
  return { body, ...response }
}

const closed = {
  type: 'object',
  properties: { title: { type: 'string' }, note: { type: 'string' } },
  required: ['title', 'note'],
  additionalProperties: false,
}
const { additionalProperties: _, ...open } = closed

/** Where each service takes a format. */
const formatIn: Record<Name, (body: Json) => unknown> = {
  anthropic: ({ output_config: config }) => config,
  openai: ({ text }) => text,
  'openai-chat': ({ response_format: format }) => format,
  ollama: ({ format }) => format,
  gemini: ({ generationConfig }) => generationConfig,
}

describe.each(Object.keys(providers) as Name[])('%s: structured output', (name) => {
  const expected: Record<Name, (schema: Json, strict?: boolean) => unknown> = {
    anthropic: (schema) => ({ format: { type: 'json_schema', schema } }),
    openai: (schema, strict = true) => ({ format: { type: 'json_schema', name: 'dish', schema, strict } }),
    'openai-chat': (schema, strict = true) => ({ type: 'json_schema', json_schema: { name: 'dish', schema, strict } }),
    ollama: (schema) => schema,
    gemini: (schema) => ({ responseMimeType: 'application/json', responseJsonSchema: schema }),
  }

  test('is asked for by schema, closed where the service wants that said', async () => {
    const { body, output, warnings } = await send(name, { output: outputFormat({ name: 'dish', schema: open }) })
    expect(formatIn[name](body)).toEqual(expected[name](name === 'ollama' ? open : closed))
    expect(output).toEqual(answer)
    expect(warnings).toEqual([])
  })

  test('has a description that reaches the model', async () => {
    const format = outputFormat({ name: 'dish', description: 'What the card says', schema: closed })
    const { body } = await send(name, { output: format })
    expect(JSON.stringify(body)).toContain('What the card says')
  })

  test('with a schema that cannot be held to is still sent, with a warning, and refused if it must be', async () => {
    const schema = { ...open, properties: { ...open.properties, more: {} } }
    const { body, warnings } = await send(name, { output: outputFormat({ name: 'dish', schema }) })
    expect(JSON.stringify(body).replaceAll('\\"', '"')).toContain(JSON.stringify(schema))
    const isUnbounded = name === 'ollama'
    expect(warnings).toMatchObject(isUnbounded ? [] : [{ code: 'unsupported' }])
    const strict = send(name, { output: outputFormat({ name: 'dish', strict: true, schema }) })
    if (isUnbounded) expect((await strict).output).toEqual(answer)
    else
      await expect(strict).rejects.toMatchObject({
        name: 'UsageError',
        code: 'unsupported',
        message: expect.stringContaining('properties.more') as string,
      })
  })

  test('is checked by us whatever the service promised', async () => {
    await expect(send(name, { output: z.object({ title: z.number() }) })).rejects.toMatchObject({
      name: 'OutputError',
      code: 'schema_mismatch',
    })
  })

  test('goes with reasoning', async () => {
    const { body, output } = await send(name, {
      output: z.object({ title: z.string(), note: z.string() }),
      reasoning: { effort: 'low' },
    })
    expect(output).toEqual(answer)
    expect(JSON.stringify(formatIn[name](body))).toContain('"title"')
  })
})

describe.each(Object.keys(providers) as Name[])('%s: a forced tool as JSON text', (name) => {
  const describeTool = tool({
    name: 'describe',
    description: 'Describes a dish',
    input: z.object({ title: z.string(), note: z.string() }),
  })
  const forced = { tools: [describeTool], toolChoice: describeTool, toolInput: 'json' as const }

  test('offers no tool, and tells the model which one it is', async () => {
    const { body, toolCalls } = await send(name, forced)
    expect(toolCalls).toMatchObject([{ toolName: 'describe', input: answer }])
    for (const member of ['tools', 'tool_choice', 'toolConfig']) expect(body).not.toHaveProperty(member)
    expect(JSON.stringify(formatIn[name](body))).toContain('"title"')
    expect(JSON.stringify(body)).toContain('Describes a dish')
  })

  test('can be switched off', async () => {
    const native = await send(name, { ...forced, toolInput: 'native' })
    expect(native.body).toHaveProperty('tools')
    expect(JSON.stringify(formatIn[name](native.body)) ?? '').not.toContain('"title"')
    expect(native.toolCalls).toMatchObject([{ toolName: 'describe', input: answer }])
  })

  test('is not chosen for a tool of the provider, or where the text has another format', async () => {
    const own = tool({
      name: 'describe',
      definition: { [name]: { type: 'function', name: 'describe', function: { name: 'describe' } } },
    })
    const { body } = await send(name, { tools: [own], toolChoice: own })
    expect(body).toHaveProperty('tools')
    const both: Partial<LLMRequest> = { ...forced, output: outputFormat({ schema: closed }) }
    const { body: bodyOfBoth } = await send(name, { ...both, toolInput: 'auto' })
    expect(bodyOfBoth).toHaveProperty('tools')
    await expect(send(name, both)).rejects.toMatchObject({ code: 'unsupported' })
  })
})

describe('what one service does its own way', () => {
  test('Anthropic: a model that refuses forced tools is asked for JSON', async () => {
    const one = tool({ name: 'describe', input: closed })
    const { body } = await send('anthropic', { tools: [one], toolChoice: one }, { forcedTools: false })
    expect(body).not.toHaveProperty('tool_choice')
    expect(body['output_config']).toMatchObject({ format: { type: 'json_schema' } })
    const { body: free } = await send('anthropic', { tools: [one] }, { forcedTools: false })
    expect(free).toHaveProperty('tools')
  })

  test('Chat Completions: a server without JSON Schema is told in words', async () => {
    const output = outputFormat({ name: 'dish', schema: open })
    const { body, output: received } = await send('openai-chat', { output, system: 'Be kind.' }, { jsonSchema: false })
    expect(body['response_format']).toEqual({ type: 'json_object' })
    const [system] = body['messages'] as { role: string; content: string }[]
    expect(system).toMatchObject({ role: 'system', content: expect.stringMatching(/^Be kind\.\n\n.*JSON/s) as string })
    expect(system!.content).toContain(JSON.stringify(open))
    expect(received).toEqual(answer)
    const strict = { output: outputFormat({ strict: true, schema: open }) }
    await expect(send('openai-chat', strict, { jsonSchema: false })).rejects.toMatchObject({ code: 'unsupported' })
  })

  test('OpenAI: a schema that must not be strict is sent as it is, without a warning', async () => {
    const output = outputFormat({ name: 'dish', strict: false, schema: open })
    const { body, warnings } = await send('openai', { output })
    expect(body['text']).toEqual({ format: { type: 'json_schema', name: 'dish', schema: open, strict: false } })
    expect(warnings).toEqual([])
  })

  test.each(['openai', 'openai-chat'] as const)(
    '%s: the schema of a strict tool is made to fit, or refused',
    async (name) => {
      const strict = tool({ name: 'describe', strict: true, input: open })
      const { body } = await send(name, { tools: [strict] })
      expect(JSON.stringify(body['tools'])).toContain(JSON.stringify(closed))
      const optional = tool({ name: 'describe', strict: true, input: { ...open, required: ['title'] } })
      await expect(send(name, { tools: [optional] })).rejects.toMatchObject({
        code: 'unsupported',
        message: expect.stringContaining('make it nullable') as string,
      })
    },
  )

  test('Gemini 3: a call it did not make itself is signed as such, its own keep their signatures', async () => {
    const call = (toolCallId: string, metadata?: object) => ({
      type: 'tool-call' as const,
      toolCallId,
      toolName: 'describe',
      input: {},
      ...(metadata && { metadata }),
    })
    const messages = [
      question,
      { role: 'assistant', content: [call('a'), call('b')] },
      { role: 'assistant', content: [call('c', { gemini: { thoughtSignature: 's' } }), call('d')] },
    ]
    const partsOf = async (model: string) => {
      const { body } = await send('gemini', { messages }, { model })
      return (body['contents'] as { parts: Json[] }[])
        .slice(1)
        .flatMap(({ parts }) => parts.map((part) => part['thoughtSignature']))
    }
    expect(await partsOf('gemini-3-flash')).toEqual(['skip_thought_signature_validator', undefined, 's', undefined])
    expect(await partsOf('gemini-2.5-flash')).toEqual([undefined, undefined, 's', undefined])
  })
})

test.each([
  ['ollama', 400, { error: 'model "gemma2" does not support tools' }, 'xmlTools()'],
  ['openai-chat', 404, { error: { message: 'No endpoints found that support tool use.' } }, 'xmlTools()'],
  [
    'anthropic',
    400,
    { error: { message: 'Thinking may not be enabled when tool_choice forces tool use.' } },
    "toolInput: 'json'",
  ],
  ['openai-chat', 400, { error: { message: 'This model does not support image inputs' } }, 'leave them out'],
  ['openai', 400, { error: { message: 'Something else' } }, 'in `providerMessage`'],
] as const)('%s %s %j says what to do', async (name, status, body, hint) => {
  const fetch = replayFetch({ status, body: JSON.stringify(body) })
  const client = new StreamingLLMClient({ provider: providers[name](fetch, {}) })
  const error = await client
    .stream({ messages: [question] })
    .final()
    .catch((caught: unknown) => caught as Error)
  expect(error).toMatchObject({ name: 'HttpError', message: expect.stringContaining(hint) as string })
})
