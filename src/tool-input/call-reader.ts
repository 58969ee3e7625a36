import type { OutputError } from '../errors.ts'

/** Where a call goes while it is read. */
export interface CallOutput {
  start(toolName: string): void
  /** The next piece of the arguments' JSON text. */
  input(text: string): void
  end(): void
  /** The error for a call that has started and breaks its form. */
  malformed(problem: string): OutputError
}

/** Reads one call in one of the forms in which models write them. */
export interface CallReader {
  /** `'no-call'` where it only looked like one; once started it is a call, well-formed or an error. */
  readonly state: 'undecided' | 'started' | 'ended' | 'no-call'
  /** Whether it keeps arguments back because the tool's name follows them. */
  readonly holdsInput: boolean
  /**
   * Reads on from an index, and returns that of the first character it did not use.
   *
   * @throws OutputError where a call that has started breaks its form.
   */
  read(chunk: string, from: number): number
}

export function isWhiteSpace(character: string): boolean {
  return character === ' ' || character === '\n' || character === '\r' || character === '\t'
}
