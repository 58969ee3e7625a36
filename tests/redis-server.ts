import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { Redis } from 'ioredis'

/** Whether there is a `redis-server` to start; says so where there is none. */
export const hasRedis = ((): boolean => {
  try {
    execFileSync('redis-server', ['--version'], { stdio: 'ignore' })
    return true
  } catch {
    process.stderr.write('NOTICE: no redis-server is installed, so the tests that need one are skipped.\n')
    return false
  }
})()

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  return port
}

/** A Redis of its own, in memory. */
export async function startRedis(): Promise<{ url: string; connect: () => Redis; stop: () => Promise<void> }> {
  const port = await freePort()
  const server: ChildProcess = spawn(
    'redis-server',
    ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no'],
    { stdio: 'ignore' },
  )
  const clients: Redis[] = []
  const connect = (): Redis => {
    const client = new Redis(port, '127.0.0.1', { maxRetriesPerRequest: null, retryStrategy: () => 20 })
    // It tries until the server is up.
    client.on('error', () => undefined)
    clients.push(client)
    return client
  }
  await connect().ping()
  return {
    url: `redis://127.0.0.1:${port}`,
    connect,
    stop: async () => {
      for (const client of clients) client.disconnect()
      if (server.exitCode !== null || server.signalCode !== null) return
      const exit = once(server, 'exit')
      server.kill('SIGKILL')
      await exit
    },
  }
}
