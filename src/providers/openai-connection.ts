import { type LLMError, UsageError } from '../errors.ts'
import type { StreamEvent } from '../events.ts'
import type { ImagePart, LLMRequest, LLMWarning, OutputFormat, ProviderMetadata, ToolResultPart } from '../request.ts'
import type { JsonSchema } from '../schema.ts'
import type { Tool } from '../tool.ts'
import { type Json, toText } from '../wire/event-mapper.ts'
import type { WireLimits } from '../wire/event-reader.ts'
import { guardedFetch } from '../wire/guarded-fetch.ts'
import { toBase64, toJsonText, toResultText } from '../wire/request-body.ts'
import { environment, loadSdk, requireApiKey } from '../wire/sdk-client.ts'
import { type StrictRules, strictSchemaFor } from '../wire/strict-schema.ts'
import { messageIn, parameterIn, toHttpError } from '../wire/transport-errors.ts'

/** How to reach a service: with a client of the SDK, or with what one is made of. */
export interface OpenAIConnection<Client> {
  /** E.g. `'gpt-5-mini'`; passed on as it is. */
  readonly model: string
  /**
   * An SDK client that is already set up (`OpenAI`, `AzureOpenAI` …). Without one, `openai` is loaded at the first request. Its
   * `fetch` stays as it is, so that redirects, compression and the length of error bodies are its own affair.
   */
  readonly client?: Client | undefined
  /** Default: the environment variable `OPENAI_API_KEY`. */
  readonly apiKey?: string | undefined
  /** Default: `OPENAI_BASE_URL`, else the public service. */
  readonly baseURL?: string | undefined
  /** Used instead of the global `fetch`, for proxies and tests. */
  readonly fetch?: typeof globalThis.fetch | undefined
  /**
   * `'node'` sends requests with Node's own HTTP client and its global agents, not with `fetch`: less CPU for each event where many
   * answers stream at once, but other settings for proxies and TLS. A `fetch` given here goes before. Default `'fetch'`.
   */
  readonly transport?: 'fetch' | 'node' | undefined
  /** Sent with every request. */
  readonly headers?: Readonly<Record<string, string>> | undefined
  /** Bounds on what is read. Default: those of `WireLimits`. */
  readonly limits?: WireLimits | undefined
}

/** What an `OpenAIConnection` is made of, as names of options. */
export const connectionOptions = [
  'model',
  'client',
  'apiKey',
  'baseURL',
  'fetch',
  'transport',
  'headers',
  'limits',
] as const

/** Options of which a client is made. */
export const makesClient = ['apiKey', 'baseURL', 'fetch', 'transport'] as const

export async function loadClient<Client>(
  caller: string,
  { apiKey, baseURL, fetch, transport }: OpenAIConnection<Client>,
): Promise<Client> {
  const { OPENAI_API_KEY, OPENAI_BASE_URL } = environment()
  const isOwnServer = Boolean(fetch || baseURL || OPENAI_BASE_URL)
  const key = requireApiKey(caller, 'OpenAI', 'OPENAI_API_KEY', apiKey ?? OPENAI_API_KEY, isOwnServer)
  const sdk = await loadSdk<{ OpenAI: new (options: object) => unknown }>(caller, 'openai@7', () => import('openai'))
  return new sdk.OpenAI({
    apiKey: key,
    ...(baseURL && { baseURL }),
    fetch: guardedFetch({ fetch, transport }),
  }) as Client
}

/** HTTP statuses of the errors that may arrive inside a stream without one. */
const errorStatuses: ReadonlyMap<unknown, number> = new Map(
  Object.entries({
    invalid_request_error: 400,
    invalid_prompt: 400,
    bad_request: 400,
    context_length_exceeded: 400,
    tool_use_failed: 400,
    authentication_error: 401,
    invalid_api_key: 401,
    insufficient_quota: 429,
    permission_error: 403,
    permission_denied: 403,
    not_found_error: 404,
    model_not_found: 404,
    rate_limit_error: 429,
    rate_limit_exceeded: 429,
    too_many_requests: 429,
    server_error: 500,
    overloaded: 503,
    overloaded_error: 503,
    server_overloaded: 503,
    slow_down: 503,
    service_unavailable: 503,
    timeout: 504,
  } as const),
)

/** The error for an error object, or its bare text, that came after the response had begun. */
export function toReportedError(provider: string, error: unknown): LLMError {
  const report = (typeof error === 'object' && error !== null ? error : {}) as Json
  const words = [report['code'], report['type']].filter((word) => typeof word === 'string' && word !== '') as string[]
  // Gateways give the status of the service behind them, as a number or in digits.
  const status = [report['status'], report['status_code'], report['code']]
    .map(Number)
    .find((number) => Number.isInteger(number) && number >= 400 && number < 600)
  return toHttpError({
    provider,
    status: status ?? words.map((word) => errorStatuses.get(word)).find((known) => known !== undefined) ?? 500,
    providerCode: words.find((word) => !/^\d+$/.test(word)),
    providerMessage: typeof error === 'string' ? error : messageIn(error),
    parameter: parameterIn(error),
    inStream: true,
  })
}

const enforced = new Set([
  'pattern',
  'multipleOf',
  'minimum',
  'maximum',
  'exclusiveMinimum',
  'exclusiveMaximum',
  'minItems',
  'maxItems',
])
const formats = ['date-time', 'time', 'date', 'duration', 'email', 'hostname', 'ipv4', 'ipv6', 'uuid']

/** The strict mode of both APIs (platform.openai.com, "Structured outputs", supported schemas). */
export const strictRules: StrictRules = {
  enforces: (keyword, value) => enforced.has(keyword) || (keyword === 'format' && formats.includes(value as string)),
  needsAllRequired: true,
  takesRecursion: true,
}

/** An output's format: strict where the schema can be, unless that is not wanted. */
export function toJsonFormat(provider: string, output: OutputFormat, warnings: LLMWarning[]): Json {
  const { name, description, schema, strict } = output
  const strictSchema = strict === false ? undefined : strictSchemaFor(output, strictRules, provider, warnings)
  return {
    name,
    ...(description !== undefined && { description }),
    schema: strictSchema ?? schema,
    strict: strictSchema !== undefined,
  }
}

/** The schema to send of a tool's arguments. */
export function toParameters(provider: string, { inputSchema: schema, strict }: Tool): JsonSchema {
  return (strict && strictSchemaFor({ schema, strict }, strictRules, provider, [])) || schema
}

/** The definition to send for a tool instead of the usual one. */
export function ownDefinition(provider: string, tool: Tool): Json | undefined {
  return tool.definition?.[provider]
}

/** Throws where a request asks for what neither API has. */
export function checkReasoning(provider: string, reasoning: LLMRequest['reasoning']): void {
  if (reasoning && 'budgetTokens' in reasoning) {
    throw new UsageError(
      'unsupported',
      `${provider} takes an effort, not a number of tokens: set \`reasoning: { effort }\`, and \`maxTokens\` as the bound.`,
    )
  }
}

export function toImageUrl(part: ImagePart): string {
  if ('url' in part) return part.url
  return `data:${part.mediaType};base64,${toBase64(part.data)}`
}

/** A result as text. The API has no other place to say that it is an error. */
export function toOutputText(part: ToolResultPart): string {
  return toResultText(part.isError ? { ...part, output: { error: part.output } } : part)
}

/** The free text that a custom tool was called with. */
export function toCustomInput(input: unknown): string {
  const { input: text } = (input ?? {}) as Json
  return typeof text === 'string' ? text : toJsonText(input, 'The input of a custom tool')
}

/** Sets a member whose name came off the wire; `__proto__` too is then nothing but a name. */
export function setOwn(target: Json, name: string, value: unknown): void {
  Object.defineProperty(target, name, { value, enumerable: true, configurable: true, writable: true })
}

/**
 * The arguments of one call as they grow. The free text of a custom tool is told as JSON, `{"input":"…"}`, so that its
 * fields stream as any other's.
 */
export class CallInput {
  readonly #provider: string
  readonly #isCustom: boolean
  #toolCallId: string | undefined
  #waiting: string | undefined
  /** The text as the service sent it. */
  text = ''

  constructor(provider: string, isCustom: boolean) {
    this.#provider = provider
    this.#isCustom = isCustom
  }

  /** Tells the beginning, and what came before the call had a name. */
  start(toolCallId: string, toolName: string, out: StreamEvent[]): void {
    this.#toolCallId = toolCallId
    out.push({ type: 'tool-input-start', toolCallId, toolName })
    if (this.#isCustom) out.push({ type: 'tool-input-delta', toolCallId, delta: '{"input":"' })
    if (this.#waiting !== undefined) this.#tell(this.#waiting, out)
  }

  write(piece: unknown, out: StreamEvent[]): void {
    const delta = toText(this.#provider, piece, 'a piece of arguments')
    if (delta === '') return
    this.text += delta
    if (this.#toolCallId === undefined) this.#waiting = (this.#waiting ?? '') + delta
    else this.#tell(delta, out)
  }

  end(metadata: ProviderMetadata | undefined, out: StreamEvent[]): void {
    if (this.#toolCallId === undefined) return
    if (this.#isCustom) out.push({ type: 'tool-input-delta', toolCallId: this.#toolCallId, delta: '"}' })
    out.push({ type: 'tool-input-end', toolCallId: this.#toolCallId, metadata })
  }

  #tell(delta: string, out: StreamEvent[]): void {
    const toolCallId = this.#toolCallId!
    out.push({
      type: 'tool-input-delta',
      toolCallId,
      delta: this.#isCustom ? JSON.stringify(delta).slice(1, -1) : delta,
    })
  }
}
