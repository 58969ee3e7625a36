import { once } from 'node:events'
import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { replayFetch, simulate } from 'fieldstream/testing'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { WebSocket } from 'ws'
import type { FetchFor } from '../../examples/agent-chat/agents.ts'
import type { ChatMessage, ClientFrame, ServerFrame, StreamFrame } from '../../examples/agent-chat/protocol.ts'
import { Messages } from '../../examples/agent-chat/messages.ts'
import { type Options, start } from '../../examples/agent-chat/server.ts'
import { simulatedUnlessLive } from '../../examples/agent-chat/simulated.ts'

for (const key of ['ANTHROPIC_API_KEY', 'OPENAI_API_KEY', 'OLLAMA_HOST']) vi.stubEnv(key, '')

const instant = simulatedUnlessLive({ delayMs: 0, firstDelayMs: 0 })

async function serve(options: Options = {}) {
  const { folder = mkdtempSync(join(tmpdir(), 'agent-chat-')) } = options
  const all = { port: 0, fetchFor: instant, pauseMs: 0, limitMs: 60_000, ...options, folder }
  let running = await start(all)
  onTestFinished(async () => {
    await running.close()
    rmSync(folder, { recursive: true })
  })
  return {
    get address() {
      return running.address
    },
    connect: (headers?: Readonly<Record<string, string>>) => connect(running.address, headers),
    restart: async () => {
      await running.close()
      running = await start(all)
    },
  }
}

/** A client that keeps what it is sent. */
async function connect(address: string, headers: Readonly<Record<string, string>> = {}) {
  const socket = new WebSocket(`${address.replace('http', 'ws')}/chat`, { headers })
  const frames: ServerFrame[] = []
  let onFrame = (): void => undefined
  socket.on('message', (data: Buffer) => {
    frames.push(JSON.parse(data.toString()) as ServerFrame)
    onFrame()
  })
  onTestFinished(() => socket.terminate())
  await once(socket, 'open')
  return {
    frames,
    send: (frame: ClientFrame) => socket.send(JSON.stringify(frame)),
    sendText: (text: string) => socket.send(text),
    close: async () => {
      socket.close()
      await once(socket, 'close')
    },
    /** What was sent about messages: neither who is there nor how quick they are. */
    get said() {
      return frames.filter(({ type }) => type !== 'agents' && type !== 'latency')
    },
    until: (isSo: (frame: ServerFrame) => boolean): Promise<ServerFrame> =>
      new Promise((resolve) => {
        onFrame = () => {
          const found = frames.find(isSo)
          if (found) resolve(found)
        }
        onFrame()
      }),
  }
}

type Client = Awaited<ReturnType<typeof connect>>

const isChunk = (frame: ServerFrame): frame is StreamFrame => frame.type === 'message_stream'
const chunksOf = ({ frames }: Pick<Client, 'frames'>) => frames.filter(isChunk)
const joined = (client: Pick<Client, 'frames'>) =>
  chunksOf(client)
    .map(({ chunk }) => chunk)
    .join('')

type MessageFrame = Extract<ServerFrame, { readonly message: ChatMessage }>
const isUpdate = (frame: ServerFrame): frame is MessageFrame => frame.type === 'message_update'
const isComplete = (frame: ServerFrame) => isUpdate(frame) && frame.message.status === 'complete'

async function updateOf(client: Client): Promise<ChatMessage> {
  return ((await client.until(isUpdate)) as MessageFrame).message
}

function idOf({ frames }: Client): string {
  const found = frames.find((frame) => 'message' in frame && frame.message.role === 'assistant')
  return (found as MessageFrame).message.message_id
}

const question = (agent: string, content: string, conversation_id = 'c') =>
  ({ type: 'message', conversation_id, agent, content }) as const
const trains = question('planner', 'Trains from Vienna to Rome?')

/** What is saved of answers in a folder, read from a copy of it: a reader counts as the next process. */
function contentsIn(folder: string): string[] {
  const copy = mkdtempSync(join(tmpdir(), 'agent-chat-'))
  cpSync(folder, copy, { recursive: true })
  const messages = new Messages(join(copy, 'messages.sqlite'))
  const contents = messages.after('c').map(({ content }) => content)
  messages.close()
  rmSync(copy, { recursive: true })
  return contents
}

/** A simulated planner that writes `chunks` pieces, and then waits for `goOn`. */
function pausing(chunks: number): {
  readonly fetchFor: FetchFor
  readonly goOn: () => void
  readonly asked: () => number
} {
  const gate = Promise.withResolvers<undefined>()
  let asked = 0
  const text = Array.from({ length: 60 }, (_, i) => `word ${i}. `).join('')
  const fetch: typeof globalThis.fetch = async (...call) => {
    asked++
    const response = await replayFetch(simulate(text, { deltaChars: 10 }))(...call)
    let left = chunks
    const gated = new TransformStream<Uint8Array, Uint8Array>({
      async transform(chunk, controller) {
        if (left-- === 0) await gate.promise
        controller.enqueue(chunk)
      },
    })
    return new Response(response.body!.pipeThrough(gated), response)
  }
  return {
    fetchFor: (agent) => (agent === 'planner' ? fetch : instant(agent)),
    goOn: () => gate.resolve(undefined),
    asked: () => asked,
  }
}

describe('an answer', () => {
  test.each([
    ['planner', 'Trains from Vienna to Rome?', 'native', 'find_trains', 'Trains from Vienna to Rome\n06:12', 5],
    ['accountant', '120 EUR in DKK?', 'native', 'convert_currency', '120 EUR = 895.20 DKK', 0],
    ['guide', 'Lisbon in October?', 'native', 'get_climate', 'Lisbon in October: up to 23 °C', 0],
    ['packer', 'Pack for 4 cold nights', 'xml', 'make_packing_list', '5 shirts, 5 pairs of socks, a warm coat', 3],
  ])('of the %s comes as its front end knows it', async (agent, content, tool_input, tool, result, steps) => {
    const client = await (await serve()).connect()
    client.send(question(agent, content))
    const saved = await updateOf(client)
    const { said } = client
    const message_id = idOf(client)
    const common = { conversation_id: 'c', agent, created_at: expect.any(String) as string }
    expect(said.slice(0, 2)).toEqual([
      {
        type: 'message_new',
        message: { ...common, message_id: expect.any(String) as string, role: 'user', content, status: 'complete' },
      },
      { type: 'message_new', message: { ...common, message_id, role: 'assistant', content: '', status: 'streaming' } },
    ])
    const chunks = chunksOf(client)
    expect(said.slice(2, -1)).toEqual(chunks)
    expect(said.at(-1)).toEqual({ type: 'message_update', message: saved })
    for (const frame of chunks)
      expect(frame).toEqual({
        type: 'message_stream',
        message_id,
        chunk: expect.any(String) as string,
        is_final: frame === chunks.at(-1),
        metadata: expect.objectContaining({ seq: expect.any(Number) as number }) as object,
      })
    const seqs = chunks.map(({ metadata }) => metadata.seq)
    expect(seqs).toEqual([...new Set(seqs)].toSorted((a, b) => a - b))
    expect(saved).toEqual({ ...common, message_id, role: 'assistant', content: joined(client), status: 'complete' })

    const kinds = chunks.map(({ metadata }) => metadata.type)
    expect(kinds.filter((kind, i) => kind !== kinds[i - 1])).toEqual([
      'start',
      'text',
      'tool-call',
      ...(steps > 0 ? ['tool-progress'] : []),
      'tool-result',
      'start',
      'text',
      'finish',
    ])
    expect(kinds.filter((kind) => kind === 'tool-progress')).toHaveLength(steps)
    expect(chunks[0]!.metadata).toMatchObject({ type: 'start', tool_input })
    const told = chunks.find(({ metadata }) => metadata.type === 'tool-result')!
    expect(told.metadata).toMatchObject({ tool })
    expect(told.chunk).toContain(result)
    // Small pieces are joined.
    const texts = chunks.filter(({ metadata }) => metadata.type === 'text')
    expect(saved.content.length / texts.length).toBeGreaterThan(10)
  })

  test('knows what was said before, whoever answered it', async () => {
    const bodies: string[] = []
    const spying: FetchFor = (agent) => (input, init) => {
      bodies.push(init?.body as string)
      return instant(agent)!(input, init)
    }
    const client = await (await serve({ fetchFor: spying })).connect()
    for (const [i, agent] of ['planner', 'packer', 'accountant', 'guide'].entries()) {
      client.send(
        question(agent, ['Trains from Vienna to Rome?', 'Pack for 4 nights', '1 USD in EUR', 'And the weather?'][i]!),
      )
      await expect.poll(() => client.frames.filter(({ type }) => type === 'message_update')).toHaveLength(i + 1)
    }
    expect(client.said.filter(isComplete)).toHaveLength(4)
    expect(bodies.at(-1)).toContain('06:12')
    expect(bodies.at(-1)).toContain('sun hat')
  })

  test('of a model that writes frames and markup is text', async () => {
    const text = 'data: {"type":"message_update"}\n\nevent: end\n\n</script><script>alert(1)</script> "}]}'
    const client = await (await serve({ fetchFor: () => replayFetch(simulate(text)) })).connect()
    client.send(trains)
    expect(await updateOf(client)).toMatchObject({ content: text, status: 'complete' })
    expect(client.said.filter(({ type }) => type === 'message_update')).toHaveLength(1)
    expect(joined(client)).toBe(text)
  })
})

describe('an answer that does not end well', () => {
  test('is stopped by its reader, and kept as far as it came', async () => {
    const { fetchFor } = pausing(20)
    const client = await (await serve({ fetchFor })).connect()
    client.send(trains)
    await client.until(() => joined(client).length > 40)
    client.send({ type: 'stream_cancel', message_id: idOf(client) })
    const saved = await updateOf(client)
    expect(saved).toMatchObject({ status: 'cancelled', content: joined(client) })
    expect(chunksOf(client).at(-1)).toMatchObject({ is_final: true, chunk: '', metadata: { type: 'cancelled' } })
    client.send({ type: 'stream_cancel', message_id: saved.message_id }) // too late, which does no harm
    client.send(question('packer', 'Pack for 2 nights'))
    await client.until(isComplete)
  })

  test('is stopped while a tool runs', async () => {
    const client = await (await serve({ pauseMs: 60_000 })).connect()
    client.send(trains)
    await client.until((frame) => isChunk(frame) && frame.metadata.type === 'tool-progress')
    client.send({ type: 'stream_cancel', message_id: idOf(client) })
    expect(await updateOf(client)).toMatchObject({
      status: 'cancelled',
      content: 'From Vienna to Rome: let me ask the railways.',
    })
  })

  test('is cut by its provider, and says so', async () => {
    const log = vi.spyOn(console, 'error').mockReturnValue()
    onTestFinished(() => log.mockRestore())
    const cut: typeof fetch = async (...call) => {
      const text = await (await replayFetch(simulate('It breaks off in the middle of this.'))(...call)).text()
      return new Response(text.slice(0, text.indexOf('middle')), { headers: { 'content-type': 'text/event-stream' } })
    }
    const { connect } = await serve({ fetchFor: (agent) => (agent === 'planner' ? cut : instant(agent)) })
    const client = await connect()
    client.send(trains)
    const saved = await updateOf(client)
    expect(saved).toMatchObject({ status: 'failed', error: { code: 'stream_truncated' } })
    expect(saved.content).toBe(joined(client))
    expect(saved.content).toMatch(/^It breaks off/)
    expect(chunksOf(client).at(-1)).toMatchObject({ is_final: true, metadata: { type: 'failed', error: saved.error } })
    expect(log).toHaveBeenCalledTimes(1)
    // The conversation goes on.
    client.send(question('guide', 'Rome in May'))
    await client.until(isComplete)
  })

  test('of a tool that fails goes on without it', async () => {
    const log = vi.spyOn(console, 'error').mockReturnValue()
    onTestFinished(() => log.mockRestore())
    const asked = replayFetch([
      simulate([{ tool: 'find_trains', input: { from: 'Rome', to: 'Rome' } }]),
      simulate('You are there already.'),
    ])
    const client = await (await serve({ fetchFor: () => asked })).connect()
    client.send(trains)
    expect(await updateOf(client)).toMatchObject({
      status: 'complete',
      content: expect.stringMatching(/failed.*\n\nYou are there already\.$/s) as string,
    })
    expect(JSON.stringify(asked.requests[1]!.body)).toContain('Rome is where you are.')
  })

  test('is marked as such where the server was stopped, and the next one finds it', async () => {
    const { fetchFor } = pausing(20)
    const server = await serve({ fetchFor })
    const before = await server.connect()
    before.send(trains)
    await before.until(() => joined(before).length > 40)
    await server.restart()
    const after = await server.connect()
    after.send({ type: 'join', conversation_id: 'c' })
    await after.until(() => after.said.length === 2)
    expect(after.said[1]).toMatchObject({
      type: 'message_new',
      message: { status: 'failed', error: { code: 'interrupted' }, content: joined(before) },
    })
  })

  test('is kept where the process died, and known to the next one', async () => {
    const [folder, left] = [0, 1].map(() => mkdtempSync(join(tmpdir(), 'agent-chat-'))) as [string, string]
    const { fetchFor } = pausing(20)
    const server = await serve({ fetchFor, folder })
    const before = await server.connect()
    before.send(trains)
    await before.until(() => joined(before).length > 40)
    await expect.poll(() => contentsIn(folder)[1], { timeout: 5000 }).toMatch(/^word 0/)
    cpSync(folder, left, { recursive: true })
    // Who comes only now gets the text once.
    const late = await server.connect()
    late.send({ type: 'join', conversation_id: 'c' })
    await expect.poll(() => late.said).toEqual(before.said)

    const bodies: unknown[] = []
    const spying: FetchFor = () => (input, init) => {
      bodies.push(init?.body)
      return instant('planner')!(input, init)
    }
    const after = await (await serve({ folder: left, fetchFor: spying })).connect()
    after.send({ type: 'join', conversation_id: 'c' })
    await after.until(() => after.said.length === 2)
    expect(after.said[1]).toMatchObject({
      message: { status: 'failed', error: { code: 'interrupted' }, content: joined(before) },
    })
    after.send(question('planner', 'Go on'))
    expect(await updateOf(after)).toMatchObject({ status: 'complete' })
    expect(bodies[0]).toContain(joined(before))
  })
})

describe('who loses the connection', () => {
  test('finds the answer finished and saved', async () => {
    const { fetchFor, goOn } = pausing(20)
    const { connect } = await serve({ fetchFor })
    const first = await connect()
    first.send(trains)
    await first.until(() => joined(first).length > 40)
    const message_id = idOf(first)
    const { seq } = chunksOf(first).at(-1)!.metadata
    await first.close()
    goOn()
    await expect
      .poll(async () => {
        const back = await connect()
        back.send({ type: 'join', conversation_id: 'c', seen: { message_id, seq } })
        await back.until(isUpdate)
        await back.close()
        return back.said
      })
      .toEqual([
        { type: 'message_update', message: expect.objectContaining({ message_id, status: 'complete' }) as object },
      ])
  })

  test.each([1, 5, 9])('and comes back after %i chunks gets exactly the rest', async (count) => {
    const { fetchFor, goOn } = pausing(40)
    const { connect } = await serve({ fetchFor })
    const [first, whole] = [await connect(), await connect()]
    whole.send({ type: 'join', conversation_id: 'c' })
    first.send(trains)
    await first.until(() => chunksOf(first).length >= count)
    const before = chunksOf(first).slice(0, count)
    await first.close()
    const back = await connect()
    const { seq } = before.at(-1)!.metadata
    back.send({ type: 'join', conversation_id: 'c', seen: { message_id: idOf(first), seq } })
    await back.until(() => chunksOf(back).length > 0)
    goOn()
    const saved = await updateOf(back)
    await updateOf(whole)
    expect(back.said.every(({ type }) => type !== 'message_new')).toBe(true)
    expect([...before, ...chunksOf(back)]).toEqual(chunksOf(whole))
    expect(joined({ frames: [...before, ...back.frames] })).toBe(saved.content)
  })

  test('and says what nobody sent it gets the message in the end', async () => {
    const { fetchFor, goOn } = pausing(20)
    const { connect } = await serve({ fetchFor })
    const client = await connect()
    client.send(trains)
    await client.until(() => joined(client).length > 40)
    const other = await connect()
    other.send({ type: 'join', conversation_id: 'c', seen: { message_id: idOf(client), seq: 1_000_000 } })
    goOn()
    expect(await updateOf(other)).toEqual(await updateOf(client))
    expect(chunksOf(other)).toEqual([])
  })

  test('and sends again is answered once', async () => {
    const { fetchFor, goOn, asked } = pausing(5)
    goOn()
    const { connect } = await serve({ fetchFor })
    const [first, second] = [await connect(), await connect()]
    first.send({ ...trains, message_id: 'mine' })
    await updateOf(first)
    second.send({ type: 'join', conversation_id: 'c' })
    second.send({ ...trains, message_id: 'mine' })
    second.send({ ...question('packer', 'Hello'), message_id: 'other' })
    await second.until((frame) => frame.type === 'message_update')
    expect(second.said.filter(({ type }) => type === 'message_new')).toHaveLength(4)
    expect(second.said.filter(({ type }) => type === 'error')).toEqual([])
    expect(asked()).toBe(1)
  })
})

describe('several who watch', () => {
  test('two tabs see the same, whenever they came', async () => {
    const { fetchFor, goOn } = pausing(20)
    const { connect } = await serve({ fetchFor })
    const [early, late, stranger] = [await connect(), await connect(), await connect()]
    stranger.send({ type: 'join', conversation_id: 'another' })
    early.send(trains)
    await early.until(() => joined(early).length > 40)
    late.send({ type: 'join', conversation_id: 'c' })
    await late.until(() => joined(late).length > 40)
    const eager = await connect()
    for (let i = 0; i < 2; i++) eager.send({ type: 'join', conversation_id: 'c' })
    await eager.until(() => eager.said.filter(({ type }) => type === 'message_new').length === 4)
    goOn()
    await Promise.all([early, late, eager].map((tab) => updateOf(tab)))
    expect(late.said).toEqual(early.said)
    expect(chunksOf(eager)).toEqual(chunksOf(early))
    expect(stranger.said).toEqual([])
  })

  test('are told how quickly each provider begins, and warned at once where it does not', async () => {
    const begun = Promise.withResolvers<undefined>()
    const slow: FetchFor = (agent) => async (input, init) => {
      await begun.promise
      return instant(agent)!(input, init)
    }
    const { connect } = await serve({ fetchFor: slow, limitMs: 20 })
    const client = await connect()
    client.send(trains)
    const latencyOf = (frame: ServerFrame) => (frame.type === 'latency' ? frame.agents[0] : undefined)
    const alert = await client.until((frame) => latencyOf(frame)?.alerts === 1)
    expect(latencyOf(alert)).toMatchObject({ agent: 'planner', runs: 0, is_slow: true })
    begun.resolve(undefined)
    await updateOf(client)
    const measured = await client.until((frame) => latencyOf(frame)?.runs === 1)
    expect(latencyOf(measured)).toEqual({
      agent: 'planner',
      runs: 1,
      alerts: 1,
      is_slow: true,
      first_byte_ms: expect.any(Number) as number,
      first_byte_median_ms: expect.any(Number) as number,
      chunk_p95_ms: expect.any(Number) as number,
    })
  })

  test('two hundred at once are each answered in full', async () => {
    const { connect } = await serve({ fetchFor: simulatedUnlessLive({ delayMs: 1, firstDelayMs: 1, deltaChars: 12 }) })
    const saved = await Promise.all(
      Array.from({ length: 200 }, async (_, i) => {
        const client = await connect()
        const [agent, text] = [
          ['planner', `Trains from Rome to Paris? ${i}`],
          ['accountant', `${i + 1} EUR in DKK`],
          ['guide', `Lisbon in May ${i}`],
          ['packer', `Pack for ${(i % 9) + 1} nights`],
        ][i % 4]!
        client.send(question(agent!, text!, `c${i}`))
        const message = await updateOf(client)
        expect(joined(client)).toBe(message.content)
        expect(client.said.every((frame) => !('message' in frame) || frame.message.conversation_id === `c${i}`)).toBe(
          true,
        )
        return message
      }),
    )
    expect(saved.map(({ status }) => status)).toEqual(saved.map(() => 'complete'))
    expect(saved[197]!.content).toContain('198 EUR = 1477.08 DKK')
  })
})

describe('what is refused', () => {
  test.each([
    ['no JSON', 'hello', 'bad_request', /^The frame is not JSON\.$/],
    ['no frame', '{"type":"shout"}', 'bad_request', /Invalid/],
    ['nothing', JSON.stringify({ ...trains, content: '  ' }), 'bad_request', /content/],
    ['too long a text', JSON.stringify({ ...trains, content: 'x'.repeat(4001) }), 'bad_request', /content/],
    ['an id that is none', JSON.stringify({ ...trains, conversation_id: '../c' }), 'bad_request', /conversation_id/],
    [
      'an agent that is none',
      JSON.stringify({ ...trains, agent: 'constructor' }),
      'bad_request',
      /no agent "constructor"/,
    ],
    [
      'a place that is none',
      '{"type":"join","conversation_id":"c","seen":{"message_id":"m","seq":-1}}',
      'bad_request',
      /seq/,
    ],
  ])('%s', async (_, sent, code, reason) => {
    const client = await (await serve()).connect()
    client.sendText(sent)
    const error = await client.until(({ type }) => type === 'error')
    expect(error).toMatchObject({ type: 'error', code, reason: expect.stringMatching(reason) as string })
    client.send(question('packer', 'Hello'))
    await updateOf(client) // and the connection is as good as before
  })

  test('is named by what it was about, as far as that can be told', async () => {
    const client = await (await serve()).connect()
    client.sendText(JSON.stringify({ ...trains, message_id: 'mine', content: '' }))
    client.sendText(JSON.stringify({ type: 'join', conversation_id: 'c', message_id: '../m', seen: 1 }))
    await expect.poll(() => client.said).toHaveLength(2)
    const common = { type: 'error', code: 'bad_request', conversation_id: 'c' }
    expect(client.said).toEqual([
      { ...common, message_id: 'mine', reason: expect.stringMatching(/^content: .+$/) as string },
      { ...common, reason: expect.stringMatching(/^seen: .+$/) as string },
    ])
  })

  test('more conversations than one connection can watch', async () => {
    const client = await (await serve()).connect()
    for (let i = 0; i <= 100; i++) client.send({ type: 'join', conversation_id: `c${i}` })
    client.send({ type: 'join', conversation_id: 'c0' })
    client.send({ ...question('packer', 'Hello'), conversation_id: 'c0' })
    await updateOf(client)
    expect(client.said.filter(({ type }) => type === 'error')).toMatchObject([
      { code: 'bad_request', conversation_id: 'c100' },
    ])
  })

  test('a question while another is answered', async () => {
    const { fetchFor } = pausing(5)
    const client = await (await serve({ fetchFor })).connect()
    client.send(trains)
    client.send({ ...question('packer', 'Hello'), message_id: 'mine' })
    expect(await client.until(({ type }) => type === 'error')).toMatchObject({ code: 'busy', message_id: 'mine' })
    expect(client.frames.filter(({ type }) => type === 'message_new')).toHaveLength(2)
  })

  test('a frame that is larger than any can be, and only who sends it', async () => {
    const { connect } = await serve()
    const [flooding, other] = [await connect(), await connect()]
    flooding.sendText('x'.repeat(100_000))
    await vi.waitFor(() => expect(() => flooding.send(trains)).not.toThrow())
    other.send(question('packer', 'Hello'))
    await updateOf(other)
    expect(flooding.said).toEqual([])
  })

  test('pages of other origins, and other paths', async () => {
    const { address } = await serve()
    const { host } = new URL(address)
    const statusOf = (path: string, origin?: string) =>
      new Promise((resolve, reject) => {
        const headers = {
          connection: 'upgrade',
          upgrade: 'websocket',
          'sec-websocket-version': '13',
          'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
          ...(origin !== undefined && { origin }),
        }
        request(`${address}${path}`, { headers })
          .on('response', ({ statusCode }) => resolve(statusCode))
          .on('upgrade', (_, socket) => {
            socket.destroy()
            resolve(101)
          })
          .on('error', reject)
          .end()
      })
    expect(await statusOf('/chat', `http://${host}`)).toBe(101)
    expect(await statusOf('/chat')).toBe(101)
    expect(await statusOf('/chat', 'https://elsewhere.example')).toBe(403)
    expect(await statusOf('/chat', `http://${host}.elsewhere.example`)).toBe(403)
    expect(await statusOf('/chat', 'null')).toBe(403)
    expect(await statusOf('/other', `http://${host}`)).toBe(404)
  })
})
