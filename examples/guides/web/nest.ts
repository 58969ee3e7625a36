/** NestJS 12. Node runs no decorator syntax, so they are called here; a Nest project writes them as `@Post()`. */
import { BadRequestException, Body, Controller, Header, HttpCode, Logger, Module, Post, Res } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import type { NestExpressApplication } from '@nestjs/platform-express'
import { EventSourceParserStream } from 'eventsource-parser/stream'
import { isLLMError, type ResponseEvent, StreamingLLMClient } from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { replayFetch, simulate } from 'fieldstream/testing'
import type { ServerResponse } from 'node:http'
import 'reflect-metadata'
import { z } from 'zod'

// Without a key, this answer goes through the real SDK in Anthropic's wire format. A real client needs no `fetch`.
const simulated = { reasoning: 'Twelve guests.', reply: 'Six bags for "twelve":\n<3 kinds>, and dips 🎉' }
const client = new StreamingLLMClient({
  provider: anthropic({
    model: 'claude-haiku-4-5',
    fetch: process.env['ANTHROPIC_API_KEY'] ? undefined : replayFetch(simulate(simulated, { delayMs: 20 })),
  }),
  onMetrics: ({ outcome }) => console.log('run:', outcome),
})
const asked = z.object({ question: z.string().min(1).max(2000) })
const answer = z.object({ reasoning: z.string(), reply: z.string() })

class AnswerController {
  answer(body: unknown, response: ServerResponse): AsyncIterable<string> {
    const { data, success } = asked.safeParse(body)
    if (!success) throw new BadRequestException()
    const left = new AbortController()
    response.on('close', () => left.abort('the client left'))
    const messages = [{ role: 'user' as const, content: data.question }]
    const stream = client.stream({ messages, output: answer, fields: { reply: 'reply' }, signal: left.signal })
    return serverSentEvents(stream) // Nest 12 reads what is async iterable, no faster than the client
  }
}

/** What the user may see, and how it ended. */
async function* serverSentEvents(stream: AsyncIterable<ResponseEvent>): AsyncGenerator<string> {
  const line = (event: string, data: object) => `event: ${event}\ndata: ${JSON.stringify(data)}\n\n`
  try {
    for await (const event of stream) {
      if (event.type === 'field-delta') yield line('delta', { field: event.field, text: event.delta })
      if (event.type === 'finish') yield line('finish', {})
    }
  } catch (error) {
    yield line('failed', { code: isLLMError(error) ? error.code : 'unknown' })
  }
}

// What `@Controller()` and the others do where they stand before a class, its method and its parameters.
const method = [AnswerController.prototype, 'answer'] as const
const descriptor = Object.getOwnPropertyDescriptor(...method)!
Controller()(AnswerController)
Post('answer')(...method, descriptor)
HttpCode(200)(...method, descriptor)
Header('content-type', 'text/event-stream')(...method, descriptor)
Header('cache-control', 'no-cache, no-transform')(...method, descriptor)
Body()(...method, 0)
Res({ passthrough: true })(...method, 1)

// eslint-disable-next-line @typescript-eslint/no-extraneous-class -- a module of Nest is what its decorator says
class AppModule {}
Module({ controllers: [AnswerController] })(AppModule)

// -------------------------------------------------------------------------------------------- what follows only tries it

Logger.overrideLogger(false)
const app = await NestFactory.create<NestExpressApplication>(AppModule)
await app.listen(0, '127.0.0.1')
const address = (await app.getUrl()).replace('localhost', '127.0.0.1')
await ask('How many chips?')
await ask('And if I leave?', 1)
await app.close()

/** What a page does; leaves after so many deltas. */
async function ask(question: string, leaveAfter = Infinity): Promise<void> {
  const response = await fetch(`${address}/answer`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ question }),
  })
  let reply = ''
  let deltas = 0
  const events = response.body!.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream())
  for await (const { event, data } of events) {
    if (event !== 'delta') console.log(event, data)
    else reply += (JSON.parse(data) as { text: string }).text
    if (event === 'delta' && ++deltas === leaveAfter) break
  }
  console.log(leaveAfter < Infinity ? 'left early' : reply)
}
