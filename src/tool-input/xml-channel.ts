import { UsageError } from '../errors.ts'
import type { TextChannel } from './channel.ts'

const missing = (): never => {
  throw new UsageError('unsupported', "`toolInput: 'xml'` is not there yet.")
}

export const xmlChannel: TextChannel = { name: 'xml', toRequest: missing, createReader: missing }
