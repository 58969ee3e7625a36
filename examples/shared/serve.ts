import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import { serve, type ServerType } from '@hono/node-server'
import { build } from 'esbuild'
import { Hono } from 'hono'
import { secureHeaders } from 'hono/secure-headers'
import { serveStatic } from '@hono/node-server/serve-static'

/** An application that runs. */
export interface Running {
  readonly address: string
  /** For what shares its port, such as WebSockets. */
  readonly server: ServerType
  close(): Promise<void>
}

/** An application with its page: `page.html`, `page.css` and `page.ts` of its folder, and the look that all of them share. */
export async function appWithPage(folder: URL): Promise<Hono> {
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL('page.ts', folder))],
    bundle: true,
    format: 'esm',
    target: 'es2022',
    write: false,
  })
  const script = outputFiles[0]!.text
  const app = new Hono()
  // What a model writes must never become a script, whatever the page does with it.
  app.use(secureHeaders({ contentSecurityPolicy: { defaultSrc: ["'self'"], imgSrc: ["'self'", 'data:'] } }))
  app.get('/page.js', (context) => context.body(script, 200, { 'content-type': 'text/javascript; charset=utf-8' }))
  for (const [path, file] of [
    ['/', new URL('page.html', folder)],
    ['/page.css', new URL('page.css', folder)],
    ['/shared.css', new URL('shared.css', import.meta.url)],
  ] as const)
    app.get(path, serveStatic({ path: fileURLToPath(file) }))
  return app
}

/** Listens on this machine only; port 0 is any that is free. */
export async function listen(app: Hono, port: number): Promise<Running> {
  const server = serve({ fetch: app.fetch, port, hostname: '127.0.0.1' })
  await once(server, 'listening')
  return {
    address: `http://localhost:${(server.address() as AddressInfo).port}`,
    server,
    async close() {
      const closed = once(server, 'close')
      server.close()
      if ('closeAllConnections' in server) server.closeAllConnections()
      await closed
    },
  }
}
