import { createParser } from 'eventsource-parser'
import { FieldExtractorRegistry, ToolStreamAccumulator } from 'fieldstream'
import type { Ask, Contestant, Sink } from './contestant.ts'
import { fieldPaths, toolName, type WireName, wireNames } from './job.ts'
import { bodyOf, headers, pathOf, pieceOf } from './wire-events.ts'

/** Reads an answer over bare `fetch`, and hands on each event, parsed. */
async function readEvents(
  wire: WireName,
  address: string,
  prompt: string,
  onEvent: (event: unknown) => void,
): Promise<void> {
  const response = await fetch(address + pathOf[wire], {
    method: 'POST',
    headers,
    body: JSON.stringify({ ...bodyOf[wire](prompt), stream: true }),
  })
  if (!response.ok) throw new Error(await response.text())
  const reader = response.body!.getReader()
  const decoder = new TextDecoder()
  const parser = createParser({ onEvent: ({ data }) => (data === '[DONE]' ? undefined : onEvent(JSON.parse(data))) })
  let rest = ''
  const feed = (text: string): void => {
    if (wire !== 'ollama') {
      parser.feed(text)
      return
    }
    const lines = (rest + text).split('\n')
    rest = lines.pop()!
    for (const line of lines) onEvent(JSON.parse(line))
  }
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return
    feed(decoder.decode(value, { stream: true }))
  }
}

const fields = new FieldExtractorRegistry(fieldPaths.map((path) => ({ field: path, path })))
const usage = { inputTokens: 0, outputTokens: 0, totalTokens: 0, cacheReadTokens: 0, cacheWriteTokens: 0, raw: {} }

function readFields(wire: WireName, address: string): Ask {
  const toPiece = pieceOf[wire]
  return async (prompt: string, sink: Sink) => {
    const accumulator = new ToolStreamAccumulator({ fields })
    accumulator.push({ type: 'tool-input-start', toolCallId: '1', toolName })
    await readEvents(wire, address, prompt, (event) => {
      const delta = toPiece(event)
      if (delta === undefined) return
      for (const found of accumulator.push({ type: 'tool-input-delta', toolCallId: '1', delta }))
        if (found.type === 'field-delta' && found.field === fieldPaths[0]) sink.onText(found.delta)
    })
    accumulator.push({ type: 'tool-input-end', toolCallId: '1' })
    accumulator.push({ type: 'finish', finishReason: 'tool-calls', providerFinishReason: '', usage })
    return accumulator.toolCalls[0]?.input
  }
}

/** No more than the runtime and small parts of this library. */
const nothing = {}

export const floor: Contestant = {
  name: 'floor: fetch, JSON.parse',
  kind: 'floor',
  givesArguments: wireNames,
  packages: nothing,
  open: (wire, address) => {
    const toPiece = pieceOf[wire]
    return Promise.resolve(async (prompt: string, sink: Sink) => {
      let text = ''
      await readEvents(wire, address, prompt, (event) => {
        const piece = toPiece(event)
        if (piece === undefined) return
        sink.onArguments(piece)
        text += piece
      })
      return JSON.parse(text) as unknown
    })
  },
}

export const floorWithFields: Contestant = {
  name: 'floor + exact fields',
  kind: 'floor',
  packages: nothing,
  open: (wire, address) => Promise.resolve(readFields(wire, address)),
}
