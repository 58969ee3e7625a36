/** The text of a body that is no stream of events; of a long one, the beginning. */
export async function readText(body: ReadableStream<Uint8Array>, maxLength = 65_536): Promise<string> {
  const reader = body.getReader()
  const decoder = new TextDecoder()
  let text = ''
  while (text.length < maxLength) {
    const { done, value } = await reader.read()
    if (done) return text
    text += decoder.decode(value, { stream: true })
  }
  reader.cancel().catch(() => undefined)
  return text
}
