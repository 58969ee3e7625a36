/** The loopback server: answers as the services do, at the pace that is asked for, and keeps the time at which it sent each event. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { simulate } from 'fieldstream/testing'
import {
  argumentsOf,
  deltaChars,
  type JobName,
  type Order,
  pace,
  readOrder,
  sharedNow,
  toolName,
  type WireName,
} from './job.ts'

/** One answer, its events each as an HTTP chunk. */
interface Answer {
  readonly headers: Readonly<Record<string, string>>
  readonly chunks: readonly Buffer[]
  /** For each chunk, which piece of the arguments it brings; -1 for others. */
  readonly pieces: readonly number[]
  /** Chunks that come at once in a paced answer: those before the arguments, and the first of theirs. */
  readonly head: number
}

/** A paced answer under way. */
interface Paced {
  readonly response: ServerResponse
  readonly answer: Answer
  readonly times: Float64Array
  next: number
}

const paths: readonly (readonly [RegExp, WireName])[] = [
  [/\/messages$/, 'anthropic'],
  [/\/responses$/, 'openai'],
  [/\/chat\/completions$/, 'openai-chat'],
  [/\/api\/chat$/, 'ollama'],
  [/:streamGenerateContent$/, 'gemini'],
]
/** Pieces of the arguments that begin a paced answer, so that a client can tell that it has begun. */
const piecesAtOnce = 6

const answers = new Map<string, Answer>()
const times = new Map<number, Float64Array>()
/** Paced answers that have begun, and go on when all are told to. */
const waiting: Paced[] = []
/** One every millisecond, so that not all events of all answers come at the same time. */
const slots: Paced[][] = Array.from({ length: pace }, () => [])

function toChunk(bytes: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from(`${bytes.length.toString(16)}\r\n`), bytes, Buffer.from('\r\n')])
}

function answerOf(wire: WireName, job: JobName, url: string, body: string): Answer {
  const key = `${wire} ${job}`
  const known = answers.get(key)
  if (known) return known
  const text = argumentsOf(job)
  const isJson = wire === 'ollama' || wire === 'gemini'
  const answer = simulate(text, {
    provider: wire,
    tool: toolName,
    ...(isJson && { toolInput: 'json' }),
    deltaChars,
    // Tells which events are deltas; the pace is kept here.
    delayMs: 1,
  })({ url, method: 'POST', headers: new Headers(), body: JSON.parse(body) as unknown })
  const bytes = Buffer.from(answer.body as string)
  let offset = 0
  const frames = answer.reads!.map((length) => bytes.subarray(offset, (offset += length)))
  const isDelta = answer.delays!.map((delay) => delay > 0)
  // Some services begin with an empty one.
  let piece = Math.ceil(text.length / deltaChars) - isDelta.filter(Boolean).length
  const pieces = isDelta.map((is) => (is ? Math.max(-1, piece++) : -1))
  const made: Answer = {
    headers: { ...answer.headers, 'transfer-encoding': 'chunked' },
    chunks: frames.map(toChunk),
    pieces,
    head: pieces.findIndex((number) => number === piecesAtOnce) + 1 || frames.length,
  }
  answers.set(key, made)
  return made
}

/** Straight to the socket: what is written is framed already. */
function send({ socket }: ServerResponse, chunks: readonly Buffer[]): void {
  if (!socket || socket.destroyed) return
  socket.cork()
  for (const chunk of chunks) socket.write(chunk)
  socket.uncork()
}

function begin(response: ServerResponse, order: Order, answer: Answer): void {
  response.writeHead(200, answer.headers)
  response.flushHeaders()
  switch (order.pace) {
    case 'burst':
      send(response, answer.chunks)
      response.end()
      return
    case 'hold':
      send(response, answer.chunks.slice(0, answer.chunks.length >> 1))
      return
    case 'paced': {
      const sent = new Float64Array(Math.max(...answer.pieces) + 1)
      times.set(order.id, sent)
      const paced: Paced = { response, answer, times: sent, next: 0 }
      while (paced.next < answer.head) stamp(paced)
      send(response, answer.chunks.slice(0, answer.head))
      waiting.push(paced)
    }
  }
}

function stamp(paced: Paced): void {
  const piece = paced.answer.pieces[paced.next++]!
  if (piece >= 0) paced.times[piece] = sharedNow()
}

/** Sends the next event of each answer of a slot. */
function tick(slot: Paced[]): void {
  for (let i = slot.length - 1; i >= 0; i--) {
    const paced = slot[i]!
    const { response, answer } = paced
    const chunk = answer.chunks[paced.next]!
    stamp(paced)
    response.socket?.write(chunk)
    // What is not a delta comes with what is before it.
    while (paced.next < answer.chunks.length && answer.pieces[paced.next] === -1)
      response.socket?.write(answer.chunks[paced.next++]!)
    if (paced.next < answer.chunks.length && response.socket?.destroyed === false) continue
    response.end()
    slot[i] = slot.at(-1)!
    slot.pop()
  }
}

let slot = 0
let due = performance.now()
setInterval(() => {
  const now = performance.now()
  // Who falls behind goes on from there: bunching up would be no pace.
  if (now - due > pace) due = now - pace
  for (; due <= now; due++) tick(slots[slot++ % slots.length]!)
}, 1)

function answerRequest(request: IncomingMessage, response: ServerResponse): void {
  const path = new URL(request.url!, 'http://localhost').pathname
  if (request.method === 'GET') {
    const [, kind, id] = path.split('/')
    if (kind === 'go') for (const [i, paced] of waiting.splice(0).entries()) slots[i % slots.length]!.push(paced)
    const sent = kind === 'times' ? times.get(Number(id)) : undefined
    times.delete(Number(id))
    response.end(JSON.stringify([...(sent ?? [])]))
    return
  }
  const body: Buffer[] = []
  request.on('data', (bytes: Buffer) => body.push(bytes))
  request.on('end', () => {
    const text = Buffer.concat(body).toString()
    const order = readOrder(text)
    const wire = paths.find(([pattern]) => pattern.test(path))?.[1]
    if (order && wire) begin(response, order, answerOf(wire, order.job, request.url!, text))
    else response.writeHead(404, { 'content-type': 'text/plain' }).end(`Nothing is served at ${path}.`)
  })
}

const server = createServer({ keepAliveTimeout: 60_000, noDelay: true }, answerRequest)
server.listen({ port: 0, host: '127.0.0.1', backlog: 4096 }, () => {
  process.send!(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
})
process.on('disconnect', () => process.exit())
