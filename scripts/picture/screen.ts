interface Cell {
  text: string
  readonly row: number
  readonly column: number
  readonly cells: number
  readonly style: string
  readonly on: number
  off: number | undefined
}

/** Characters side by side that came, and went, at the same time. */
export interface Run {
  readonly row: number
  readonly column: number
  readonly text: string
  /** Columns that it takes. */
  readonly cells: number
  /** The parameters of the escape sequence before it, e.g. `1;36`. */
  readonly style: string
  readonly on: number
  /** When it was erased. */
  readonly off: number | undefined
}

const escape = /^\u001b\[([\d;]*)m/
/** Say how the character before them looks, or join two. */
const isJoining = (character: string): boolean => /^[\ufe0f\u200d]$/.test(character)
const isWide = (character: string): boolean => /^\p{Extended_Pictographic}$/u.test(character)

const widthOf = (text: string): number =>
  Array.from(text).reduce((width, character) => width + (isJoining(character) ? 0 : isWide(character) ? 2 : 1), 0)

/** A terminal as far as the demo needs one: lines, styles, and taking back what was printed. */
export class Screen {
  readonly #now: () => number
  readonly #cells: Cell[] = []
  #row = 0
  #column = 0
  #style = ''
  /** When anything was written last. */
  lastWrite = 0

  constructor(now: () => number) {
    this.#now = now
  }

  write(text: string): void {
    this.lastWrite = this.#now()
    for (let rest = text; rest !== '';) {
      const sequence = escape.exec(rest)
      if (sequence) {
        this.#style = sequence[1] === '0' ? '' : sequence[1]!
        rest = rest.slice(sequence[0].length)
        continue
      }
      const character = String.fromCodePoint(rest.codePointAt(0)!)
      rest = rest.slice(character.length)
      this.#put(character)
    }
  }

  #put(character: string): void {
    if (character === '\n') {
      this.#row++
      this.#column = 0
      return
    }
    if (character === '\b') {
      this.#column--
      return
    }
    const last = this.#cells.at(-1)
    if (isJoining(character) && last) {
      last.text += character
      return
    }
    const [row, column, cells] = [this.#row, this.#column, widthOf(character)]
    for (const cell of this.#cells)
      if (cell.row === row && cell.column === column && cell.off === undefined) cell.off = this.#now()
    this.#cells.push({ text: character, row, column, cells, style: this.#style, on: this.#now(), off: undefined })
    this.#column += cells
  }

  get runs(): Run[] {
    const runs: { -readonly [Name in keyof Run]: Run[Name] }[] = []
    for (const { text, ...cell } of this.#cells.filter(({ on, off }) => on !== off)) {
      const last = runs.at(-1)
      const isNext = last?.row === cell.row && last.column + last.cells === cell.column
      if (last && isNext && last.style === cell.style && last.on === cell.on && last.off === cell.off) {
        last.text += text
        last.cells += cell.cells
      } else runs.push({ text, ...cell })
    }
    // Where spaces follow each other, viewers do not agree on how many to show.
    return runs.flatMap((run) => {
      let column = run.column
      return run.text.split(/( {2,}|^ | $)/).flatMap((text) => {
        const cells = widthOf(text)
        const part = { ...run, text, column, cells }
        column += cells
        return text.trim() === '' ? [] : [part]
      })
    })
  }
}
