/** What a command writes, without what must not be seen. */
export class Output {
  readonly #secrets = new Set<string>()
  #isLineOpen = false

  /** Keeps a key out of all that is written from now on. */
  hide(secret: string | undefined): void {
    if (secret === undefined || secret.length < 4) return
    this.#secrets.add(secret)
    // `Authorization: Bearer KEY`: services repeat the key without the word before it.
    const last = secret.split(/\s+/).at(-1)!
    if (last.length >= 8) this.#secrets.add(last)
  }

  /** The result of the command. */
  print(text: string): void {
    this.#closeLine()
    process.stdout.write(`${this.clean(text)}\n`)
  }

  /** What a person may want to know meanwhile. */
  tell(text: string): void {
    this.#closeLine()
    process.stderr.write(`${this.clean(text)}\n`)
  }

  /** What is going on: on a terminal one line that changes, else nothing. */
  show(text: string): void {
    if (!process.stderr.isTTY) return
    process.stderr.write(`\r\u001b[2K${this.clean(text).slice(0, process.stderr.columns - 1)}`)
    this.#isLineOpen = true
  }

  /** What was done: on a terminal in the line that changes, else in a line of its own. */
  step(text: string): void {
    if (process.stderr.isTTY) this.show(text)
    else this.tell(text)
  }

  /** A text without secrets, and without what would move a terminal's cursor. */
  clean(text: string): string {
    let cleaned = text
    for (const secret of [...this.#secrets].sort((a, b) => b.length - a.length))
      cleaned = cleaned.replaceAll(secret, '***')
    return cleaned.replaceAll(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/g, ' ')
  }

  #closeLine(): void {
    if (this.#isLineOpen) process.stderr.write('\r\u001b[2K')
    this.#isLineOpen = false
  }
}

/** The beginning of a text, in one line. */
export function brief(text: string, length = 100): string {
  const line = text.replaceAll(/\s+/g, ' ').trim()
  return line.length > length ? `${line.slice(0, length - 1)}…` : line
}

export function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? '' : 's'}`
}

export function seconds(milliseconds: number): string {
  return milliseconds < 1000 ? `${Math.round(milliseconds)} ms` : `${(milliseconds / 1000).toFixed(1)} s`
}
