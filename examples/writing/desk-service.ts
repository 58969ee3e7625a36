/** A service for the provider in `provider.ts`, on this machine. It stands in for what a company runs itself. */
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Frame } from './provider.ts'

/** How one request is answered. */
export interface DeskAnswer {
  readonly frames: readonly Frame[]
  /** Default 200. */
  readonly status?: number
  readonly headers?: Readonly<Record<string, string>>
  /** What becomes of the connection after the frames. Default `'end'`. */
  readonly then?: 'end' | 'reset' | 'silence' | 'signs of life'
}

export interface DeskService {
  readonly url: string
  /** The bodies of the requests it got. */
  readonly requests: readonly Record<string, unknown>[]
  /** How many answers are under way. */
  readonly open: number
  close(): Promise<void>
}

/** Answers each request with the next of the answers. */
export async function startDesk(answers: readonly DeskAnswer[]): Promise<DeskService> {
  const requests: Record<string, unknown>[] = []
  let open = 0
  const server = createServer((request, response) => {
    open++
    response.on('close', () => open--)
    const pieces: Buffer[] = []
    request.on('data', (piece: Buffer) => pieces.push(piece))
    request.on('end', () => {
      const body = JSON.parse(Buffer.concat(pieces).toString()) as Record<string, unknown>
      const { frames, status = 200, headers = {}, then = 'end' } = answers[requests.length]!
      requests.push(body)
      response.writeHead(status, headers)
      const text = body['stream']
        ? frames.map((frame) => `: alive\n\ndata: ${JSON.stringify(frame)}\n\n`).join('')
        : JSON.stringify(frames)
      response.write(text, () => {
        if (then === 'end') response.end()
        if (then === 'reset') response.socket?.resetAndDestroy()
        if (then === 'signs of life') {
          const timer = setInterval(() => response.write(': alive\n\n'), 50)
          response.on('close', () => clearInterval(timer))
        }
      })
    })
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    get open() {
      return open
    },
    async close() {
      server.close()
      server.closeAllConnections()
      await once(server, 'close')
    },
  }
}
