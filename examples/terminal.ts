import type { Metrics } from 'fieldstream'

const gutter = 10

/** Prints fields as they grow: wrapped and coloured on a terminal, plain anywhere else. */
export class Terminal {
  readonly #out: NodeJS.WriteStream
  readonly #isTerminal: boolean
  #openPath: string | undefined
  #column = 0
  #word = ''

  constructor(out: NodeJS.WriteStream) {
    this.#out = out
    this.#isTerminal = out.isTTY && !process.env['NO_COLOR']
  }

  intro(text: string): void {
    this.#line(this.#style('1', 'fieldstream'))
    this.#line(this.#style('2', text))
  }

  title(title: string, query: string): void {
    this.#line('')
    this.#line(this.#style('1;36', title))
    this.#label('customer', '2')
    this.#line(this.#style('3', `“${query}”`))
  }

  /** The next characters of the field at `path`. A new path begins a new paragraph. */
  text(label: string, path: string, delta: string): void {
    if (path !== this.#openPath) {
      this.#end()
      this.#label(label, '1;32')
      this.#openPath = path
    }
    for (const character of delta) {
      if (character !== ' ' && character !== '\n') {
        // On a terminal every character shows at once; a word that does not fit moves to the next line.
        this.#put(character)
        continue
      }
      this.#word = ''
      if (character === '\n' || this.#column >= this.#width) this.#newLine()
      else {
        this.#out.write(' ')
        this.#column++
      }
    }
  }

  note(label: string, text: string): void {
    this.#end()
    this.#label(label, '2')
    this.#line(this.#style('2', text))
  }

  card(title: string, price: string, reason: string): void {
    this.#end()
    this.#label('card', '1;33')
    this.#line(`${this.#style('1', title)}  ${price}  ${this.#style('2', reason)}`)
  }

  payload(toolName: string, input: unknown, { timeToFirstFieldMs = 0, durationMs }: Metrics): void {
    this.#end()
    this.#label('complete', '1;35')
    const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`
    this.#line(
      `${toolName}, valid. First words after ${seconds(timeToFirstFieldMs)}, all of it after ${seconds(durationMs)}.`,
    )
    const width = this.#isTerminal ? Math.max(this.#width - gutter, 20) : Infinity
    for (const line of JSON.stringify(input, null, 2).split('\n')) {
      this.#line(this.#style('2', ' '.repeat(gutter) + (line.length > width ? `${line.slice(0, width - 1)}…` : line)))
    }
  }

  failed(message: string, details: string | undefined): void {
    this.#end()
    this.#label('failed', '1;31')
    this.#line(message)
    if (details !== undefined) this.#line(' '.repeat(gutter) + details)
  }

  get #width(): number {
    return this.#isTerminal ? Math.min(this.#out.columns - 1, 96) : 96
  }

  #put(character: string): void {
    this.#word += character
    if (this.#column >= this.#width && this.#word.length < this.#width - gutter) {
      const moved = this.#word
      // What of the word was printed is taken off the line again; without a terminal it stays and the line runs on.
      if (this.#isTerminal) {
        this.#out.write('\b \b'.repeat(moved.length - 1))
        this.#newLine()
        this.#out.write(moved)
        this.#column += moved.length
        this.#word = moved
        return
      }
    }
    this.#out.write(character)
    this.#column++
  }

  #newLine(): void {
    this.#out.write(`\n${' '.repeat(gutter)}`)
    this.#column = gutter
    this.#word = ''
  }

  #label(label: string, style: string): void {
    this.#out.write(this.#style(style, label.padEnd(gutter)))
    this.#column = gutter
  }

  /** Ends the paragraph being written. */
  #end(): void {
    if (this.#openPath !== undefined) this.#out.write('\n')
    this.#openPath = undefined
    this.#word = ''
  }

  #line(text: string): void {
    this.#out.write(`${text}\n`)
    this.#column = 0
  }

  #style(codes: string, text: string): string {
    return this.#isTerminal && text !== '' ? `\u001b[${codes}m${text}\u001b[0m` : text
  }
}
