/** How long the end of a body that is no stream of events is waited for. */
const maxWaitMs = 5000

/** The text of a body that is no stream of events; of one that is long, slow or broken, the beginning. */
export async function readText(body: ReadableStream<Uint8Array>, maxLength = 65_536): Promise<string> {
  const reader = body.getReader()
  const decoder = new TextDecoder()
  let text = ''
  let timer: ReturnType<typeof setTimeout> | undefined
  const tooLate = new Promise<undefined>((resolve) => (timer = setTimeout(resolve, maxWaitMs, undefined)))
  try {
    while (text.length < maxLength) {
      const read = await Promise.race([reader.read(), tooLate])
      if (!read || read.done) break
      text += decoder.decode(read.value, { stream: true })
    }
  } catch {
    // The connection broke: what came is all there is.
  } finally {
    clearTimeout(timer)
    reader.cancel().catch(() => undefined)
  }
  return text.slice(0, maxLength)
}
