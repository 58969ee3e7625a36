import { ArgumentScanner } from './argument-scanner.ts'
import { FieldExtractorRegistry } from './field-extractor-registry.ts'
import type { PathNode } from './field-path.ts'

/** Waits for values at one path, in any call and in the output. Scans on its own, so that it can begin late. */
export class FieldWatcher {
  readonly #root: PathNode
  readonly #found: (value: unknown) => void
  readonly #scanners = new Map<string | undefined, ArgumentScanner>()

  /** @throws UsageError where the path is malformed. */
  constructor(path: string, found: (value: unknown) => void) {
    this.#root = new FieldExtractorRegistry([{ field: 'watched', path }]).compile()
    this.#found = found
  }

  /**
   * Reads the next piece of a call's arguments, or without a call of the output. Goes on when a value was found: should the model repeat a key on the way to it,
   * the value would not be the one that counts, and this throws.
   */
  write(toolCallId: string | undefined, delta: string): void {
    let scanner = this.#scanners.get(toolCallId)
    if (!scanner) this.#scanners.set(toolCallId, (scanner = this.#createScanner()))
    scanner.write(delta)
  }

  /** Forgets what it read: the attempt failed, and another one begins. */
  restart(): void {
    this.#scanners.clear()
  }

  #createScanner(): ArgumentScanner {
    let text = ''
    return new ArgumentScanner(
      this.#root,
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
