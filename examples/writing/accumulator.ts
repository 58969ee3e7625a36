import Anthropic from '@anthropic-ai/sdk'
import {
  askMessages,
  type FieldEvent,
  FieldExtractorRegistry,
  type StreamAccumulator,
  type StreamEvent,
  StreamingLLMClient,
  ToolStreamAccumulator,
} from 'fieldstream'
import { anthropic, toStreamEvents } from 'fieldstream/anthropic'
import { replayFetch, simulate } from 'fieldstream/testing'

/** Reads fields in a loop of your own, over the SDK's own stream. */
export async function askAlone(sdk: Anthropic, model: string, show: (text: string) => void): Promise<unknown> {
  const accumulator = new ToolStreamAccumulator({ fields: new FieldExtractorRegistry([askMessages]) })
  const sdkStream = await sdk.messages.create({
    model,
    max_tokens: 1024,
    stream: true,
    messages: [{ role: 'user', content: 'I want chips for a party' }],
    tools: [{ name: 'ask', input_schema: { type: 'object', properties: { ask_slots: { type: 'array' } } } }],
    tool_choice: { type: 'tool', name: 'ask' },
  })
  for await (const event of toStreamEvents(sdkStream)) {
    for (const found of accumulator.push(event)) if (found.type === 'field-delta') show(found.delta)
    if (accumulator.error) throw accumulator.error
  }
  return accumulator.toolCalls[0]?.input // parsed; to validate it is yours
}

/** An accumulator of one's own: reads Markdown, and reports each section when it is over, with its number of words. */
export class SectionWords implements StreamAccumulator {
  readonly error = undefined
  readonly toolCalls = []
  readonly output = undefined
  isComplete = false
  #heading = ''
  #words = 0
  /** The line that is being written. */
  #line = ''

  push(event: StreamEvent): readonly FieldEvent[] {
    const found: FieldEvent[] = []
    if (event.type === 'text-delta') {
      const lines = (this.#line + event.delta).split('\n')
      // The last one may go on in the next delta: a delta ends anywhere.
      this.#line = lines.pop()!
      for (const line of lines) this.#read(line, found)
    }
    if (event.type === 'finish') {
      this.#read(this.#line, found)
      this.#close(found)
      this.isComplete = true
    }
    return found
  }

  snapshot() {
    return { toolCalls: [], output: undefined }
  }

  #read(line: string, found: FieldEvent[]): void {
    const heading = /^#+ (.*)/.exec(line)?.[1]
    if (heading === undefined) this.#words += line.split(/\s+/).filter(Boolean).length
    else {
      this.#close(found)
      this.#heading = heading
    }
  }

  #close(found: FieldEvent[]): void {
    if (this.#heading !== '') {
      found.push({
        type: 'field-end',
        field: 'section',
        path: this.#heading,
        params: { heading: this.#heading },
        value: this.#words,
        valid: undefined,
        toolCallId: undefined,
        toolName: undefined,
      })
    }
    this.#words = 0
  }
}

if (import.meta.main) {
  // Without a key, answers in Anthropic's wire format go through the real SDK. Nothing else differs.
  const slots = { ask_slots: [{ message: 'How many guests?' }] }
  const report = '# Chips\nAre crunchy and salty.\n\n# Dips\nAre\nnot.'
  const isLive = Boolean(process.env['ANTHROPIC_API_KEY'])
  const fetch = replayFetch([simulate(slots, { deltaChars: 4 }), simulate(report, { deltaChars: 4 })])
  const model = 'claude-haiku-4-5'

  const sdk = isLive ? new Anthropic() : new Anthropic({ apiKey: 'none', fetch })
  console.log('alone:', await askAlone(sdk, model, (text) => console.log(text)))

  const client = new StreamingLLMClient({
    provider: anthropic({ model, client: sdk }),
    accumulator: () => new SectionWords(),
  })
  const stream = client.stream({
    messages: [{ role: 'user', content: 'A short report on chips and dips, in Markdown' }],
    fields: { section: '{heading}' }, // names what it reports; the path is the accumulator's own matter
  })
  stream.on('field-end', ({ path, value }) => console.log(`${path}: ${Number(value)} words`))
  console.log((await stream.final()).text.length, 'characters')
}
