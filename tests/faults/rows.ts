import { consumerRows } from './rows-consumer.ts'
import type { Row } from './row.ts'
import { connectionRows } from './rows-connection.ts'
import { framingRows } from './rows-framing.ts'
import { payloadRows } from './rows-payload.ts'
import { streamRows } from './rows-stream.ts'

/** The whole matrix, in order. */
export const rows: readonly Row[] = [...connectionRows, ...streamRows, ...framingRows, ...payloadRows, ...consumerRows]
