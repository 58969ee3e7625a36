import type { Output } from './output.ts'

/** What `fieldstream <name>` does. */
export interface Command {
  /** In the list of commands. */
  readonly summary: string
  readonly help: string
  /** Returns the exit code. The signal fires when the person wants it to stop. */
  run(args: readonly string[], output: Output, signal: AbortSignal): Promise<number>
}
