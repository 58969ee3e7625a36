import type { Row } from './row.ts'
import { connectionRows } from './rows-connection.ts'
import { streamRows } from './rows-stream.ts'

/** The whole matrix, in order. */
export const rows: readonly Row[] = [...connectionRows, ...streamRows]
