import { checkOptions } from '../check-options.ts'
import { UsageError } from '../errors.ts'

interface Connection<Client> {
  readonly model: string
  /** An SDK client that is already set up. */
  readonly client?: Client | undefined
}

/** What tells how one SDK's client is come by. */
export interface SdkClientSource<Client, Options> {
  /** The function that the user called, for messages. */
  readonly caller: string
  readonly exampleModel: string
  /** All options there are. */
  readonly known: readonly (keyof Options & string)[]
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
  let loading: Promise<Client> | undefined
  if (client === undefined) {
    return () =>
      (loading ??= source.load().catch((error: unknown) => {
        // The next request may find the key or the SDK that this one missed.
        loading = undefined
        throw error
      }))
  }
  if (!source.isClient(client)) {
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
