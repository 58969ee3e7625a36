import { checkLimits, checkOptions } from '../check-options.ts'
import { UsageError } from '../errors.ts'
import type { WireLimits } from './event-reader.ts'
import type { OwnConnection } from './guarded-fetch.ts'

interface Connection<Client> extends OwnConnection {
  readonly model: string
  /** An SDK client that is already set up. */
  readonly client?: Client | undefined
  readonly headers?: Readonly<Record<string, string>> | undefined
  readonly limits?: WireLimits | undefined
}

/** What tells how one SDK's client is come by. */
export interface SdkClientSource<Client, Options> {
  /** The function that the user called, for messages. */
  readonly caller: string
  readonly exampleModel: string
  /** All options there are. */
  readonly known: readonly (keyof Options & string)[]
  /** What an option may be, where that is one of a few words. */
  readonly choices?: Partial<Record<keyof Options & string, readonly string[]>>
  /** Options of which a client is made, so that they cannot come beside one. */
  readonly makesClient: readonly (keyof Options & string)[]
  /** Whether a client can be used. */
  isClient(client: Client): boolean
  /** What a client is, for the message. */
  readonly clientExample: string
  load(): Promise<Client>
}

/**
 * Returns what gives the client, the same for every request.
 *
 * @throws UsageError where an option is unknown, `model` is missing, or `client` comes with options that only a client made
 * here would use.
 */
export function clientOf<Client, Options extends Connection<Client>>(
  options: Options,
  source: SdkClientSource<Client, Options>,
): () => Promise<Client> {
  const { caller, exampleModel, makesClient } = source
  checkOptions(`${caller}()`, options, source.known)
  const { model, client } = options
  if (typeof model !== 'string' || model === '') {
    throw new UsageError(
      'invalid_argument',
      `${caller}() needs a \`model\`, e.g. ${caller}({ model: '${exampleModel}' }).`,
    )
  }
  checkConnection(caller, options)
  for (const [option, words] of Object.entries(source.choices ?? {}) as [keyof Options & string, readonly string[]][]) {
    const value: unknown = options[option]
    if (value !== undefined && !words.includes(value as string)) {
      const allowed = words.map((word) => `'${word}'`).join(' or ')
      throw new UsageError('invalid_argument', `\`${option}\` of ${caller}() must be ${allowed}.`)
    }
  }
  let loading: Promise<Client> | undefined
  if (client === undefined) {
    return () =>
      (loading ??= source.load().catch((error: unknown) => {
        // The next request may find the key or the SDK that this one missed.
        loading = undefined
        throw error
      }))
  }
  if ((client as unknown) === null || !source.isClient(client)) {
    throw new UsageError(
      'invalid_argument',
      `\`client\` of ${caller}() must be an SDK client, e.g. ${source.clientExample}.`,
    )
  }
  const name = makesClient.find((option) => options[option] !== undefined)
  if (name !== undefined) {
    throw new UsageError(
      'invalid_argument',
      `${caller}() got both \`client\` and \`${name}\`: set \`${name}\` on the client.`,
    )
  }
  return () => Promise.resolve(client)
}

function checkConnection(
  caller: string,
  { fetch, transport, headers, limits }: Omit<Connection<unknown>, 'model'>,
): void {
  if (fetch !== undefined && typeof fetch !== 'function')
    throw new UsageError(
      'invalid_argument',
      `\`fetch\` of ${caller}() must be a function such as the global \`fetch\`.`,
    )
  if (transport !== undefined && (transport as string) !== 'fetch' && (transport as string) !== 'node')
    throw new UsageError('invalid_argument', `\`transport\` of ${caller}() must be 'fetch' or 'node'.`)
  // `Headers` and lists of pairs have no members of their own, and would be sent as none.
  const isRecord = typeof headers === 'object' && (headers as unknown) !== null && !(Symbol.iterator in headers)
  if (headers !== undefined && !(isRecord && Object.values(headers).every((value) => typeof value === 'string')))
    throw new UsageError('invalid_argument', `\`headers\` of ${caller}() must be an object of texts: { name: value }.`)
  checkLimits(`\`limits\` of ${caller}()`, limits, ['maxEventLength', 'maxStrayLines'] satisfies (keyof WireLimits)[])
}

/** The key for a client made here. `needsNone`: a gateway, or a `fetch` of one's own, may need none. */
export function requireApiKey(
  caller: string,
  service: string,
  variable: string,
  key: string | undefined,
  needsNone: boolean,
): string {
  if (key) return key
  // SDKs insist on one, and left to themselves look for it elsewhere.
  if (needsNone) return 'none'
  throw new UsageError(
    'invalid_argument',
    `No API key for ${service}: set ${variable}, or pass \`apiKey\` or \`client\` to ${caller}().`,
  )
}

/** The SDK's module, loaded when first needed. `install` is what npm is to install where it is missing. */
export async function loadSdk<Module>(caller: string, install: string, load: () => Promise<Module>): Promise<Module> {
  try {
    return await load()
  } catch (cause) {
    const { code } = (cause ?? {}) as { code?: unknown }
    const isMissing = code === 'ERR_MODULE_NOT_FOUND' || code === 'MODULE_NOT_FOUND'
    throw new UsageError(
      'missing_dependency',
      isMissing
        ? `${caller}() needs the official SDK: \`npm install ${install}\`, or pass \`client\`.`
        : `${caller}() found the official SDK, but it fails to load: see \`cause\`. Try \`npm install ${install}\`, or pass \`client\`.`,
      { cause },
    )
  }
}

export function environment(): Partial<Record<string, string>> {
  return typeof process === 'undefined' ? {} : process.env
}
