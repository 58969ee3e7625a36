import { mkdirSync } from 'node:fs'
import type { IncomingMessage } from 'node:http'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { type WebSocket, WebSocketServer } from 'ws'
import { appWithPage, listen, type Running } from '../shared/serve.ts'
import { createAgents, type FetchFor } from './agents.ts'
import { Chat } from './chat.ts'
import { LatencyMonitor } from './latency.ts'
import { Messages } from './messages.ts'
import type { AgentDescription } from './protocol.ts'
import { simulatedUnlessLive } from './simulated.ts'

export interface Options {
  readonly port?: number | undefined
  /** Where messages are kept. Default: `.data/` beside this file. */
  readonly folder?: string | undefined
  /** How agents reach their models. Default: simulated, but for those whose key is in the environment. */
  readonly fetchFor?: FetchFor | undefined
  /** How long each service that a tool asks takes. */
  readonly pauseMs?: number | undefined
  /** From how long on the first byte of a model is overdue. */
  readonly limitMs?: number | undefined
}

const heartbeatMs = 30_000

export async function start(options: Options = {}): Promise<Running> {
  const {
    port = 3000,
    folder = fileURLToPath(new URL('.data/', import.meta.url)),
    fetchFor = simulatedUnlessLive(),
    pauseMs = 700,
    limitMs = 500,
  } = options
  mkdirSync(folder, { recursive: true })
  const messages = new Messages(join(folder, 'messages.sqlite'))
  const latency = new LatencyMonitor(limitMs, () => chat.tellAll({ type: 'latency', agents: latency.report() }))
  const agents = createAgents(fetchFor, pauseMs, latency)
  const chat = new Chat(agents, messages)
  const descriptions = agents.map(({ id, name, task, provider, isSimulated }): AgentDescription => {
    return { id, name, task, provider: provider.name, model: provider.model, is_simulated: isSimulated }
  })

  const running = await listen(await appWithPage(new URL('.', import.meta.url)), port)
  const sockets = new WebSocketServer({ noServer: true, maxPayload: 64 * 1024 })
  running.server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    const refusal = refusalOf(request)
    socket.on('error', () => socket.destroy()) // nobody else listens to it by now
    if (refusal) socket.end(`HTTP/1.1 ${refusal}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`)
    else
      sockets.handleUpgrade(request, socket, head, (webSocket) => {
        keepChecking(webSocket)
        chat.connect(webSocket, [
          { type: 'agents', agents: descriptions, limit_ms: limitMs },
          { type: 'latency', agents: latency.report() },
        ])
      })
  })

  return {
    ...running,
    async close() {
      for (const socket of sockets.clients) socket.terminate()
      await running.close()
      await chat.close()
      messages.close()
    },
  }
}

/** Browsers let any page open a WebSocket to any host, with its cookies; only ours may. What is no browser sends no origin. */
function refusalOf({ url, headers }: IncomingMessage): string | undefined {
  if (url !== '/chat') return '404 Not Found'
  const { origin, host } = headers
  return origin === undefined || (URL.canParse(origin) && new URL(origin).host === host) ? undefined : '403 Forbidden'
}

/** Ends connections whose other side is gone without a word. */
function keepChecking(socket: WebSocket): void {
  let isAlive = true
  const timer = setInterval(() => {
    if (!isAlive) return socket.terminate()
    isAlive = false
    socket.ping()
  }, heartbeatMs)
  socket.on('pong', () => (isAlive = true))
  socket.on('close', () => clearInterval(timer))
}
