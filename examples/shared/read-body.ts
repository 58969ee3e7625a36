import type { Context } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import type { z } from 'zod'

/** Refuses bodies that are too large, in the form of every other refusal. */
export const limitBody = (maxSize: number) =>
  bodyLimit({ maxSize, onError: (context) => context.json({ error: `The body has more than ${maxSize} bytes.` }, 413) })

/** The body of a request as its schema makes it, or the answer that says what is wrong with it. */
export async function readBody<T>(context: Context, schema: z.ZodType<T>): Promise<T | Response> {
  let body: unknown
  try {
    body = await context.req.json()
  } catch {
    return context.json({ error: 'The body is not JSON.' }, 400)
  }
  const { data, error } = schema.safeParse(body)
  return error ? context.json({ error: reasonsOf(error) }, 400) : data
}

/** What a schema found wrong, on one line. */
export function reasonsOf({ issues }: z.ZodError): string {
  return issues.map(({ path, message }) => (path.length > 0 ? `${path.join('.')}: ${message}` : message)).join('; ')
}
