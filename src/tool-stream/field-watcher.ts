import { ArgumentScanner } from './argument-scanner.ts'
import { FieldExtractorRegistry } from './field-extractor-registry.ts'

/** Waits for the first value at one path, in any call. Scans on its own, so that it can begin late and stop early. */
export class FieldWatcher {
  readonly #path: string
  readonly #found: (value: unknown) => void
  readonly #scanners = new Map<string, ArgumentScanner | undefined>()

  /** @throws UsageError where the path is malformed. */
  constructor(path: string, found: (value: unknown) => void) {
    this.#path = path
    this.#found = found
    new FieldExtractorRegistry([{ field: 'watched', path }])
  }

  write(toolCallId: string, delta: string): void {
    if (!this.#scanners.has(toolCallId)) this.#scanners.set(toolCallId, this.#scanner())
    try {
      this.#scanners.get(toolCallId)?.write(delta)
    } catch {
      // The accumulator meets the same fault and reports it.
      this.#scanners.set(toolCallId, undefined)
    }
  }

  #scanner(): ArgumentScanner {
    let text = ''
    const root = new FieldExtractorRegistry([{ field: 'watched', path: this.#path }]).compile('')
    return new ArgumentScanner(
      root,
      {
        onText: (_, delta) => void (text += delta),
        onTextEnd: () => {
          this.#found(text)
          text = ''
        },
        onValue: (_, parsed) => this.#found(parsed),
      },
      // The accumulator guards the limits.
      { maxDepth: Infinity, maxInputLength: Infinity },
    )
  }
}
