import type { StreamRequest } from './client.ts'
import { checkNumbers, checkOptions } from './check-options.ts'
import type { BatchOptions } from './delta-batcher.ts'
import { UsageError } from './errors.ts'
import type { Tool } from './tool.ts'
import { runOptions } from './tool-steps.ts'

const requestOptions: readonly string[] = [
  'messages',
  'system',
  'tools',
  'toolChoice',
  'output',
  'toolInput',
  'maxTokens',
  'temperature',
  'topP',
  'stop',
  'reasoning',
  'metadata',
  'cache',
  'providerOptions',
  'raw',
  'fields',
  'batch',
  'onInvalid',
  'onInterrupted',
  'replay',
  'keepAlive',
  'progress',
  'signal',
] satisfies (keyof StreamRequest)[]

type Members = Readonly<Record<string, unknown>>

/** What each kind of part needs, by the role that may write it. */
const partsByRole: Readonly<Record<string, Readonly<Record<string, (part: Members) => boolean>>>> = {
  user: { text: hasText, image: hasImage, provider: hasProviderValue },
  assistant: {
    text: hasText,
    reasoning: hasText,
    'tool-call': ({ toolCallId, toolName }) => typeof toolCallId === 'string' && typeof toolName === 'string',
    provider: hasProviderValue,
  },
  tool: { 'tool-result': ({ toolCallId }) => typeof toolCallId === 'string' },
}

const partShapes: Readonly<Record<string, string>> = {
  text: '{ text }',
  reasoning: '{ text }',
  image: '{ data, mediaType } or { url }',
  provider: '{ provider, value }',
  'tool-call': '{ toolCallId, toolName, input }',
  'tool-result': '{ toolCallId, output }',
}

/**
 * Checks a request, of one to `run()` without that method's own options.
 *
 * @throws UsageError that says what to change.
 */
export function checkRequest(request: StreamRequest, provider: string, isRun: boolean): void {
  const hint = ' What only one provider knows goes into `providerOptions`.'
  const ofRun = runOptions.find((name) => Object.hasOwn((request as object | undefined) ?? {}, name))
  if (ofRun !== undefined)
    throw new UsageError(
      'invalid_argument',
      `\`${ofRun}\` is an option of run(), which runs tools: client.run({ ${ofRun}: … }).`,
    )
  checkOptions('A request', request, isRun ? [...requestOptions, ...runOptions] : requestOptions, hint)
  checkMessages(request.messages)
  checkTools(request.tools)
  checkToolChoice(request)
  const {
    system,
    toolInput,
    maxTokens,
    temperature,
    topP,
    stop,
    reasoning,
    metadata,
    cache,
    providerOptions,
    onInvalid,
    onInterrupted,
    replay,
    keepAlive,
    progress,
    signal,
  } = request as unknown as Members
  expect(system === undefined || typeof system === 'string', '`system` must be a string')
  expect(
    toolInput === undefined || ['auto', 'native', 'json', 'xml'].includes(toolInput as string),
    "`toolInput` must be 'auto', 'native', 'json' or 'xml'",
  )
  expect(
    maxTokens === undefined || (Number.isInteger(maxTokens) && Number(maxTokens) > 0),
    '`maxTokens` must be a positive whole number',
  )
  for (const [name, value] of Object.entries({ temperature, topP })) {
    expect(value === undefined || Number.isFinite(value), `\`${name}\` must be a number`)
  }
  const isTexts = Array.isArray(stop) && stop.every((text) => typeof text === 'string')
  expect(stop === undefined || isTexts, "`stop` must be a list of strings, e.g. ['END']")
  expect(
    reasoning === undefined || isReasoning(reasoning),
    "`reasoning` must be { effort: 'low' | 'medium' | 'high' } or { budgetTokens }",
  )
  expect(
    onInvalid === undefined || ['continue', 'abort'].includes(onInvalid as string),
    "`onInvalid` must be 'continue' or 'abort'",
  )
  expect(
    onInterrupted === undefined || ['fail', 'restart'].includes(onInterrupted as string),
    "`onInterrupted` must be 'fail' or 'restart'",
  )
  checkBatch(request.batch)
  checkReplay(replay)
  expect(keepAlive === undefined || typeof keepAlive === 'boolean', '`keepAlive` must be true or false')
  expect(progress === undefined || typeof progress === 'boolean', '`progress` must be true or false')
  expect(signal === undefined || signal instanceof AbortSignal, '`signal` must be an AbortSignal')
  expect(cache === undefined || typeof cache === 'boolean', '`cache` must be true or false')
  expect(metadata === undefined || (typeof metadata === 'object' && metadata !== null), '`metadata` must be an object')
  for (const [name, options] of Object.entries((providerOptions ?? {}) as Members)) {
    const isObject = typeof options === 'object' && options !== null
    expect(isObject, `\`providerOptions\` is keyed by provider name: { ${provider}: { ${name}: … } }`)
  }
}

/** @throws UsageError where it is no `BatchOptions`. */
export function checkBatch(batch: BatchOptions | false | undefined): void {
  if (batch === undefined || batch === false) return
  checkOptions('`batch`', batch, ['chars', 'deltas', 'at', 'maxWait'] satisfies (keyof BatchOptions)[])
  const { chars, deltas, at, maxWait } = batch
  checkNumbers('`batch`', { chars, deltas }, { min: 1, isWhole: true })
  checkNumbers('`batch`', { maxWait }, { min: 1 })
  expect(at === undefined || ['word', 'sentence'].includes(at), "`at` of `batch` must be 'word' or 'sentence'")
  const isEmpty = [chars, deltas, at, maxWait].every((option) => option === undefined)
  expect(!isEmpty, "`batch` must say when: { chars, deltas, at: 'word' | 'sentence', maxWait }")
}

/** @throws UsageError where it is no `ReplayOptions`. */
export function checkReplay(replay: unknown): void {
  if (replay === undefined || replay === false) return
  checkOptions('`replay`', replay, ['events'])
  const { events } = replay as Members
  expect(
    events === Infinity || (Number.isInteger(events) && Number(events) > 0),
    '`events` in `replay` must be a positive whole number; Infinity for all',
  )
}

function expect(isSo: boolean, message: string): void {
  if (!isSo) throw new UsageError('invalid_argument', `${message}.`)
}

function checkMessages(messages: unknown): void {
  const isEmpty = !Array.isArray(messages) || messages.length === 0
  expect(!isEmpty, "`messages` must hold at least one message, e.g. [{ role: 'user', content: 'Hello' }]")
  const roles = new Set<unknown>()
  for (const [i, message] of (messages as unknown[]).entries()) {
    const { role, content } = (message ?? {}) as Members
    roles.add(role)
    const isRole = ['system', 'user', 'assistant', 'tool'].includes(role as string)
    expect(isRole, `The \`role\` of messages[${i}] must be 'system', 'user', 'assistant' or 'tool'`)
    if (role === 'system')
      expect(typeof content === 'string', `The \`content\` of messages[${i}], a system message, must be a string`)
    else if (role === 'tool')
      expect(Array.isArray(content), `The \`content\` of messages[${i}] must be a list of \`tool-result\` parts`)
    else
      expect(
        typeof content === 'string' || Array.isArray(content),
        `The \`content\` of messages[${i}] must be a string or a list of parts`,
      )
    if (Array.isArray(content)) checkParts(content, role as string, `messages[${i}].content`)
  }
  expect(roles.size > 1 || !roles.has('system'), '`messages` must hold more than instructions: add a user message')
}

function checkParts(parts: readonly unknown[], role: string, where: string): void {
  const known = partsByRole[role] ?? {}
  for (const [i, part] of parts.entries()) {
    const { type } = (part ?? {}) as Members
    const isKnown = typeof type === 'string' && Object.hasOwn(known, type)
    const name = typeof type === 'string' ? `the type '${type}'` : 'no type'
    expect(
      isKnown,
      `${where}[${i}] has ${name}; a ${role} message takes ${Object.keys(known)
        .map((key) => `'${key}'`)
        .join(', ')}`,
    )
    const shape = partShapes[type as string] ?? ''
    expect(
      known[type as string]!(part as Members),
      `${where}[${i}], a '${String(type)}' part, must have the form ${shape}`,
    )
  }
}

function hasText({ text }: Members): boolean {
  return typeof text === 'string'
}

function hasImage({ url, data, mediaType }: Members): boolean {
  return (
    typeof url === 'string' ||
    ((typeof data === 'string' || data instanceof Uint8Array) && typeof mediaType === 'string')
  )
}

function hasProviderValue({ provider, value }: Members): boolean {
  return typeof provider === 'string' && typeof value === 'object' && value !== null
}

function isReasoning(reasoning: unknown): boolean {
  const { effort, budgetTokens } = (typeof reasoning === 'object' && reasoning !== null ? reasoning : {}) as Members
  return (
    ['low', 'medium', 'high'].includes(effort as string) || (Number.isInteger(budgetTokens) && Number(budgetTokens) > 0)
  )
}

function checkTools(tools: unknown): void {
  if (tools === undefined) return
  expect(Array.isArray(tools), '`tools` must be a list of tools made with tool()')
  const names = new Set<unknown>()
  for (const item of tools as readonly unknown[]) {
    const { name, inputSchema } = (item ?? {}) as Partial<Tool>
    expect(
      typeof name === 'string' && typeof inputSchema === 'object',
      'Every entry of `tools` must be made with tool()',
    )
    expect(!names.has(name), `Two tools have the name "${String(name)}"`)
    names.add(name)
  }
}

function checkToolChoice({ tools, toolChoice }: StreamRequest): void {
  if (toolChoice === undefined) return
  const offered = (tools ?? []).map(({ name }) => name)
  const forced =
    typeof toolChoice === 'object' ? ((toolChoice as { readonly name: string } | null)?.name ?? '') : undefined
  const isKnown =
    forced === undefined ? ['auto', 'none', 'required'].includes(toolChoice as string) : offered.includes(forced)
  const names =
    offered.length > 0 ? ` (${offered.join(', ')}): the tool itself, or { name }` : ', of which there are none'
  expect(isKnown, `\`toolChoice\` must be 'auto', 'none', 'required' or one of the request's tools${names}`)
  expect(toolChoice !== 'required' || offered.length > 0, "`toolChoice: 'required'` needs `tools`")
}
