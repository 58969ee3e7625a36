import { parseArgs, type ParseArgsConfig } from 'node:util'

export const exitCodes = {
  fine: 0,
  hurt: 1,
  unwritten: 1,
  usage: 2,
  unreachable: 3,
  fault: 70,
  interrupted: 130,
} as const

/** Ends a command with a message instead of a stack. */
export class CommandError extends Error {
  readonly exitCode: number

  constructor(message: string, exitCode: number = exitCodes.usage) {
    super(message)
    this.exitCode = exitCode
  }
}

/** Reads the arguments of a command; what is unknown or lacks its value is wrong usage. */
export function readArguments<const Options extends NonNullable<ParseArgsConfig['options']>>(
  args: readonly string[],
  options: Options,
) {
  try {
    return parseArgs({ args: [...args], options, strict: true, allowPositionals: true })
  } catch (error) {
    // Node explains at length how to pass what begins with a dash; its first sentence is enough.
    const [sentence = ''] = (error as Error).message.split('. ')
    throw new CommandError(sentence.endsWith('.') ? sentence : `${sentence}.`)
  }
}

/** What a command cannot do without, by how it is passed; all that is missing is named at once. */
export function required<Name extends string>(
  command: string,
  values: Readonly<Record<Name, string | undefined>>,
): Record<Name, string> {
  const missing = Object.entries(values).flatMap(([name, value]) => (value ? [] : [name]))
  if (missing.length > 0) throw new CommandError(`Missing: ${missing.join('; ')}. See: fieldstream ${command} --help`)
  return values as Record<Name, string>
}

/** A whole number. */
export function toInteger(name: string, value: string, { min = 0, max = 2 ** 31 - 1 } = {}): number {
  const number = Number(value)
  if (!/^\d+$/.test(value) || number < min || number > max)
    throw new CommandError(`--${name} must be a whole number from ${min} to ${max}; got '${value}'.`)
  return number
}

/** An address without a slash at its end. What is secret belongs into a header, where no log or message shows it. */
export function toBaseURL(value: string): string {
  let url: URL
  try {
    url = new URL(value)
  } catch {
    throw new CommandError('--base-url must be an address, e.g. https://gateway.example/v1.')
  }
  if (!['http:', 'https:'].includes(url.protocol))
    throw new CommandError('--base-url must begin with http:// or https://.')
  if (url.username || url.password || url.search || url.hash)
    throw new CommandError('--base-url takes no user, query or fragment: send what is secret with --header.')
  return (url.origin + url.pathname).replace(/\/+$/, '')
}

/** `'name: value'` of each. */
export function toHeaders(values: readonly string[] = []): Record<string, string> {
  return Object.fromEntries(
    values.map((value) => {
      const [, name, content] = /^([\w!#$%&'*+.^`|~-]+):\s*(\S.*)$/.exec(value) ?? []
      // The value is not repeated: it may be a key.
      if (name === undefined) throw new CommandError("--header takes 'name: value'.")
      return [name.toLowerCase(), content!.trim()]
    }),
  )
}

/** `name=value` of each; a value is JSON where it can be read as such. */
export function toOptions(values: readonly string[] = []): Record<string, unknown> {
  return Object.fromEntries(
    values.map((value) => {
      const [, name, content] = /^(\w+)=(.*)$/s.exec(value) ?? []
      if (name === undefined) throw new CommandError(`--option takes name=value; got '${value}'.`)
      return [name, parsed(content!)]
    }),
  )
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

/** The key in an environment variable that was named. None is looked for elsewhere: it might be another service's. */
export function readKey(variable: string | undefined): string | undefined {
  if (variable === undefined) return undefined
  const key = process.env[variable]
  if (!key) throw new CommandError(`The environment variable ${variable} is not set.`)
  return key
}
