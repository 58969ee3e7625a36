import { createServer, type AddressInfo, type Socket } from 'node:net'

/** The status line and the headers, and how the body that follows is marked off. */
export interface Head {
  /** Default 200. */
  readonly status?: number
  readonly headers?: Readonly<Record<string, string>>
  /**
   * Default `'chunked'`; a number is a `content-length`, be it true or not; `'close'` leaves it to the end of the connection;
   * `'none'` is for a status without a body.
   */
  readonly framing?: 'chunked' | 'close' | 'none' | number
}

/** What the server does next. A string or bytes are a piece of the body once there is a head, and go out as they are before. */
export type Step =
  | string
  | Uint8Array
  | { readonly head: Head }
  /** Bytes outside of the body's framing. */
  | { readonly raw: string | Uint8Array }
  /** Milliseconds, or until a promise settles. */
  | { readonly wait: number | (() => Promise<unknown>) }
  /** The same piece until the connection closes, as fast as it is taken or at an interval of milliseconds. */
  | { readonly forever: string | Uint8Array; readonly every?: number }
  | End

/** The last thing that is done with a connection: nothing ever again, a good-bye wherever the body is, or a break. */
export interface End {
  readonly end: 'stall' | 'close' | 'reset'
}

/** What one request is answered with. Where no step keeps or closes the connection, the body ends as its framing says. */
export type Script = readonly Step[]

export interface FaultRequest {
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
  readonly connection: FaultConnection
  /** On the clock of `performance`. */
  readonly at: number
}

export interface FaultConnection {
  readonly socket: Socket
  /** Resolves when the connection is closed, by whichever side; with the time on the clock of `performance`. */
  readonly closed: Promise<number>
  readonly isClosed: boolean
  /** Whether a request waits for the rest of its answer. */
  readonly isAnswering: boolean
}

/** A server that fails as it is told to: raw TCP, so that nothing tidies up after it. */
export interface FaultServer {
  readonly baseURL: string
  readonly port: number
  readonly requests: readonly FaultRequest[]
  readonly connections: readonly FaultConnection[]
  stop(): Promise<void>
}

export interface FaultServerOptions {
  /** How a connection ends before it says anything; `undefined` lets it live. The first has the index 0. */
  readonly onConnection?: (index: number) => End | undefined
}

/** Listens on the loopback. `answer` gives the script of each request, counted from 0. */
export async function startFaultServer(
  answer: (request: FaultRequest, index: number) => Script,
  options: FaultServerOptions = {},
): Promise<FaultServer> {
  const requests: FaultRequest[] = []
  const connections: FaultConnection[] = []
  const server = createServer({ noDelay: true }, (socket) => {
    const connection = watchConnection(socket)
    connections.push(connection)
    const end = options.onConnection?.(connections.length - 1)
    if (end) {
      endConnection(socket, end.end)
      return
    }
    readRequests(socket, (request) => {
      const asked = { ...request, connection, at: performance.now() }
      requests.push(asked)
      connection.isAnswering = true
      void play(socket, answer(asked, requests.length - 1)).then((isWhole) => {
        if (isWhole) connection.isAnswering = false
      })
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    baseURL: `http://127.0.0.1:${port}`,
    port,
    requests,
    connections,
    stop: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve())
        for (const { socket } of connections) socket.destroy()
      }),
  }
}

/** A port of the loopback at which nobody listens. */
export async function unusedPort(): Promise<number> {
  const server = await startFaultServer(() => [])
  await server.stop()
  return server.port
}

function watchConnection(socket: Socket): { -readonly [Name in keyof FaultConnection]: FaultConnection[Name] } {
  const closed = Promise.withResolvers<number>()
  socket.once('close', () => closed.resolve(performance.now()))
  // A client that is gone is what is waited for here, and no failure.
  socket.on('error', () => undefined)
  return {
    socket,
    closed: closed.promise,
    isAnswering: false,
    get isClosed() {
      return socket.destroyed
    },
  }
}

function endConnection(socket: Socket, end: End['end']): void {
  if (end === 'reset') socket.resetAndDestroy()
  if (end === 'close') socket.end()
}

/** Finds the requests in what a client sends; their bodies have a `content-length`, or are chunked. */
function readRequests(
  socket: Socket,
  onRequest: (request: Pick<FaultRequest, 'path' | 'headers' | 'body'>) => void,
): void {
  let received = ''
  socket.setEncoding('latin1')
  socket.on('data', (text) => {
    received += text as unknown as string
    if (received.startsWith('\x16')) {
      // The greeting of TLS, answered as servers do that do not know it.
      socket.end('HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n')
      return
    }
    for (;;) {
      const headEnd = received.indexOf('\r\n\r\n')
      if (headEnd < 0) return
      const [requestLine = '', ...lines] = received.slice(0, headEnd).split('\r\n')
      const headers = Object.fromEntries(
        lines.map((line) => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 1).trim()]),
      )
      const isChunked = headers['transfer-encoding'] === 'chunked'
      const lastChunk = isChunked ? received.indexOf('\r\n0\r\n\r\n', headEnd) : -1
      if (isChunked && lastChunk < 0) return
      const bodyStart = headEnd + 4
      const bodyEnd = isChunked ? lastChunk + 7 : bodyStart + Number(headers['content-length'] ?? 0)
      if (received.length < bodyEnd) return
      const body = Buffer.from(received.slice(bodyStart, bodyEnd), 'latin1').toString()
      received = received.slice(bodyEnd)
      onRequest({ path: requestLine.split(' ')[1] ?? '', headers, body })
    }
  })
}

/** Returns whether the answer is whole, as far as HTTP goes. */
async function play(socket: Socket, script: Script): Promise<boolean> {
  let framing: Head['framing'] = 'none'
  const frame = (piece: string | Uint8Array): Uint8Array => {
    const bytes = Buffer.from(piece as string)
    if (framing !== 'chunked') return bytes
    return Buffer.concat([Buffer.from(`${bytes.length.toString(16)}\r\n`), bytes, Buffer.from('\r\n')])
  }
  for (const step of script) {
    if (socket.destroyed) return false
    if (typeof step === 'string' || step instanceof Uint8Array) {
      // An empty chunk would be the last.
      if (step.length > 0) await write(socket, frame(step))
    } else if ('head' in step) {
      framing = step.head.framing ?? 'chunked'
      await write(socket, headOf(step.head))
    } else if ('raw' in step) {
      await write(socket, step.raw)
    } else if ('wait' in step) {
      await (typeof step.wait === 'number' ? sleep(step.wait) : step.wait())
    } else if ('end' in step) {
      endConnection(socket, step.end)
      return false
    } else {
      while (!socket.destroyed) {
        await write(socket, frame(step.forever))
        if (step.every !== undefined) await sleep(step.every)
      }
    }
  }
  if (framing === 'chunked') socket.write('0\r\n\r\n')
  if (framing === 'close') socket.end()
  return true
}

function headOf({ status = 200, headers = {}, framing = 'chunked' }: Head): string {
  const framed = {
    ...headers,
    ...(framing === 'chunked' && { 'transfer-encoding': 'chunked' }),
    ...(framing === 'close' && { connection: 'close' }),
    ...(typeof framing === 'number' && { 'content-length': String(framing) }),
  }
  const lines = Object.entries(framed).map(([name, value]) => `${name}: ${value}\r\n`)
  return `HTTP/1.1 ${status} Scripted\r\n${lines.join('')}\r\n`
}

/** Resolves once the client's side has taken it, or is gone. */
function write(socket: Socket, bytes: string | Uint8Array): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      socket.off('close', done)
      resolve()
    }
    socket.once('close', done)
    socket.write(bytes, done)
  })
}

function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds))
}
