import { EventSourceParserStream } from 'eventsource-parser/stream'

/** The server-sent events of a response, for a page that had to send something first, which `EventSource` cannot. */
export async function* readEvents(
  response: Response,
): AsyncGenerator<{ readonly event: string; readonly data: unknown }> {
  const events = response.body!.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream())
  const reader = events.getReader()
  try {
    for (;;) {
      const { value, done } = await reader.read()
      if (done) return
      yield { event: value.event ?? 'message', data: JSON.parse(value.data) }
    }
  } finally {
    await reader.cancel()
  }
}
