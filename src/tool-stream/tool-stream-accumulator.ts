import { checkOptions } from '../check-options.ts'
import {
  LimitError,
  type LLMError,
  isLLMError,
  OutputError,
  type OutputIssue,
  StreamError,
  UsageError,
} from '../errors.ts'
import type { FieldEvent, ProviderFinishEvent, StreamEvent } from '../events.ts'
import { issuePath } from '../schema.ts'
import type { PartialToolCall, Snapshot } from '../snapshot.ts'
import { ArgumentScanner, type Place, type ScannerLimits, type ScannerSink } from './argument-scanner.ts'
import type { FieldExtractor } from './field-extractor.ts'
import { FieldExtractorRegistry } from './field-extractor-registry.ts'

/** Bounds on the tool calls of one answer. */
export interface AccumulatorLimits extends ScannerLimits {
  /** Most tool calls in one answer. Default 256. */
  readonly maxToolCalls?: number | undefined
}

export interface AccumulatorOptions {
  /** The fields to report. Default: none. */
  readonly fields?: FieldExtractorRegistry | undefined
  readonly limits?: AccumulatorLimits | undefined
}

/** A tool call whose arguments are whole: terminal evidence seen, text parsed. Not yet validated against a schema. */
export interface AccumulatedToolCall {
  readonly toolCallId: string
  readonly toolName: string
  /** What `JSON.parse` makes of the text; `{}` where a tool without arguments was called with none. */
  readonly input: unknown
  readonly inputText: string
}

/** What turns a stream's tool calls into field events. The client takes any implementation. */
export interface StreamAccumulator {
  /**
   * Takes the next event and returns the field events it brings. Where the event turns out to be wrong, `error` is set and
   * every later push throws it, so that what was found before the fault is not lost.
   */
  push(event: StreamEvent): readonly FieldEvent[]
  /** Why the calls cannot be had, as soon as that is known. */
  readonly error: LLMError | undefined
  /** True once the terminal evidence was seen and every call is whole. */
  readonly isComplete: boolean
  /** The calls, all at once when `isComplete`; empty before, and for good where anything is wrong. */
  readonly toolCalls: readonly AccumulatedToolCall[]
  /** What of the calls has arrived. */
  snapshot(): Pick<Snapshot, 'toolCalls'>
}

/** @throws UsageError where a limit is unknown or no positive number. */
export function checkLimits(limits: AccumulatorLimits | undefined): void {
  if (limits === undefined) return
  checkOptions('`limits`', limits, ['maxDepth', 'maxInputLength', 'maxToolCalls'])
  for (const [name, limit] of Object.entries(limits) as [string, unknown][]) {
    if (limit !== undefined && !(typeof limit === 'number' && limit > 0))
      throw new UsageError('invalid_argument', `\`limits.${name}\` must be a positive number; Infinity for none.`)
  }
}

const nothing: readonly FieldEvent[] = Object.freeze([])

/**
 * Follows the tool calls of one answer, interleaved or not, and reports the registered fields of their arguments while those
 * are written. Works without the client, over any source of `StreamEvent`s.
 */
export class ToolStreamAccumulator implements StreamAccumulator {
  readonly #fields: FieldExtractorRegistry
  readonly #limits: AccumulatorLimits
  readonly #calls = new Map<string, OpenToolCall>()
  #error: LLMError | undefined
  #toolCalls: readonly AccumulatedToolCall[] | undefined
  readonly #report = (error: LLMError): void => void (this.#error ??= error)

  /** @throws UsageError where an option is malformed. */
  constructor(options: AccumulatorOptions = {}) {
    checkOptions('ToolStreamAccumulator', options, ['fields', 'limits'])
    if (options.fields !== undefined && typeof options.fields.compile !== 'function')
      throw new UsageError('invalid_argument', '`fields` of a ToolStreamAccumulator must be a FieldExtractorRegistry.')
    checkLimits(options.limits)
    this.#fields = options.fields ?? new FieldExtractorRegistry()
    this.#limits = options.limits ?? {}
  }

  get error(): LLMError | undefined {
    return this.#error
  }

  get isComplete(): boolean {
    return this.#toolCalls !== undefined
  }

  get toolCalls(): readonly AccumulatedToolCall[] {
    return this.#toolCalls ?? []
  }

  push(event: StreamEvent): readonly FieldEvent[] {
    if (this.#error) throw this.#error
    // Nothing can undo the evidence.
    if (this.#toolCalls) return nothing
    switch (event.type) {
      case 'tool-input-start':
        this.#start(event.toolCallId, event.toolName)
        return nothing
      case 'tool-input-delta': {
        const call = this.#calls.get(event.toolCallId)
        if (!call || call.isClosed) {
          this.#error = protocolError('arguments arrived for a tool call that is not open')
          return nothing
        }
        return call.write(event.delta)
      }
      case 'tool-input-end': {
        const call = this.#calls.get(event.toolCallId)
        if (call) call.isClosed = true
        else this.#error = protocolError('a tool call ended that had not begun')
        return nothing
      }
      case 'finish':
        try {
          this.#toolCalls = this.#finish(event)
        } catch (error) {
          if (!isLLMError(error)) throw error
          this.#error = error
        }
        return nothing
      default:
        return nothing
    }
  }

  snapshot(): { toolCalls: readonly PartialToolCall[] } {
    return { toolCalls: [...this.#calls.values()].map((call) => call.snapshot()) }
  }

  #start(toolCallId: string, toolName: string): void {
    const { maxToolCalls = 256 } = this.#limits
    if (this.#calls.has(toolCallId)) this.#error = protocolError('two tool calls have the same id')
    else if (this.#calls.size === maxToolCalls) {
      this.#error = new LimitError('maxToolCalls', maxToolCalls, 'The answer holds too many tool calls', {
        phase: 'stream',
      })
    } else this.#calls.set(toolCallId, new OpenToolCall(toolCallId, toolName, this.#fields, this.#limits, this.#report))
  }

  #finish({ finishReason, explanation: providerMessage }: ProviderFinishEvent): AccumulatedToolCall[] {
    if (finishReason === 'refusal') {
      throw new OutputError('refused', 'The model refused to answer. Change the prompt, or ask another model.', {
        phase: 'finalize',
        providerMessage,
      })
    }
    if (finishReason === 'content-filter') {
      throw new OutputError('content_filtered', "The provider's content filter stopped the answer.", {
        phase: 'finalize',
        providerMessage,
      })
    }
    const calls = [...this.#calls.values()]
    // Even arguments that parse may have been cut: a prefix of JSON can be JSON, and no text at all reads as `{}`.
    if (finishReason === 'length' && calls.length > 0)
      throw (calls.find(({ isClosed }) => !isClosed) ?? calls.at(-1)!).truncated()
    return calls.map((call) => call.complete(finishReason === 'tool-calls'))
  }
}

/** One call: its scanner, and the events of the delta being read. */
class OpenToolCall implements ScannerSink {
  readonly #id: string
  readonly #name: string
  readonly #scanner: ArgumentScanner
  #events: FieldEvent[] | undefined
  readonly #report: (error: LLMError) => void
  /** The registered string being read. */
  #string = ''
  isClosed = false

  constructor(
    toolCallId: string,
    toolName: string,
    fields: FieldExtractorRegistry,
    limits: ScannerLimits,
    report: (error: LLMError) => void,
  ) {
    this.#id = toolCallId
    this.#name = toolName
    this.#report = report
    this.#scanner = new ArgumentScanner(fields.compile(toolName), this, limits)
  }

  write(delta: string): readonly FieldEvent[] {
    this.#events = undefined
    try {
      this.#scanner.write(delta)
    } catch (error) {
      if (!isLLMError(error)) throw error
      this.#report(this.#named(error))
    }
    return this.#events ?? nothing
  }

  onText(place: Place, delta: string): void {
    this.#string += delta
    const length = this.#string.length
    const events = (this.#events ??= [])
    for (const { node, params } of place.matches) {
      for (const extractor of node.extractors) {
        if (extractor.deliver === 'complete' || extractor.map) continue
        const { field } = extractor
        events.push({
          type: 'field-delta',
          field,
          path: place.path,
          params,
          delta,
          length,
          toolCallId: this.#id,
          toolName: this.#name,
        })
      }
    }
  }

  onTextEnd(place: Place): void {
    const value = this.#string
    this.#string = ''
    this.onValue(place, value)
  }

  onValue(place: Place, parsed: unknown): void {
    const events = (this.#events ??= [])
    for (const { node, params } of place.matches) {
      for (const extractor of node.extractors) {
        const checked = this.#check(extractor, parsed)
        if (!checked) continue
        const { field } = extractor
        events.push({
          type: 'field-end',
          field,
          path: place.path,
          params,
          ...checked,
          toolCallId: this.#id,
          toolName: this.#name,
        })
      }
    }
  }

  #check(
    { field, schema, map }: FieldExtractor,
    parsed: unknown,
  ): { value: unknown; valid: boolean | undefined; issues?: readonly OutputIssue[] } | undefined {
    try {
      const result = schema?.['~standard'].validate(parsed)
      if (result instanceof Promise) {
        result.catch(() => undefined)
        throw new TypeError('a field is checked while the model writes, so its schema must validate synchronously')
      }
      if (result?.issues) {
        const issues = result.issues.map((issue) => ({ path: issuePath(issue), message: issue.message }))
        return { value: parsed, valid: false, issues }
      }
      return { value: map ? map(parsed) : parsed, valid: result && true }
    } catch (cause) {
      const message = `The \`schema\` or \`map\` of field "${field}" failed. See \`cause\`.`
      this.#report(
        new OutputError('validator_error', message, {
          phase: 'validate',
          cause,
          toolName: this.#name,
          toolCallId: this.#id,
        }),
      )
      return undefined
    }
  }

  truncated(): OutputError {
    return new OutputError(
      'output_truncated',
      `The answer reached its token limit in or after the arguments of tool "${this.#name}". Raise \`maxTokens\`, or ask for less.`,
      { phase: 'finalize', toolName: this.#name, toolCallId: this.#id, position: this.#scanner.text.length },
    )
  }

  complete(endedForTools: boolean): AccumulatedToolCall {
    const inputText = this.#scanner.text
    if (!this.isClosed) throw protocolError(`the answer ended before the arguments of tool "${this.#name}"`)
    let input: unknown
    try {
      // No provider sends `{}` for a tool without arguments: it sends no text.
      input = inputText === '' && endedForTools ? {} : this.#scanner.end()
    } catch (error) {
      throw isLLMError(error) ? this.#named(error) : error
    }
    if (typeof input !== 'object' || input === null || Array.isArray(input)) {
      const kind = input === null ? 'null' : Array.isArray(input) ? 'an array' : `a ${typeof input}`
      throw new OutputError(
        'schema_mismatch',
        `The arguments of tool "${this.#name}" must be a JSON object, and are ${kind}.`,
        {
          phase: 'finalize',
          toolName: this.#name,
          toolCallId: this.#id,
        },
      )
    }
    return { toolCallId: this.#id, toolName: this.#name, input, inputText }
  }

  snapshot(): PartialToolCall {
    const inputText = this.#scanner.text
    let input: unknown
    try {
      const closed = this.#scanner.closedText()
      input = closed === undefined ? undefined : JSON.parse(closed)
    } catch {
      input = undefined
    }
    const complete = this.isClosed && (inputText === '' || this.#scanner.isComplete)
    return { toolCallId: this.#id, toolName: this.#name, inputText, input, complete }
  }

  /** The same error, with the call it belongs to. */
  #named(error: LLMError): LLMError {
    if (!(error instanceof OutputError)) return error
    return new OutputError(
      error.code,
      error.message.replace('The text is', `The arguments of tool "${this.#name}" are`),
      {
        phase: error.phase,
        position: error.position,
        toolName: this.#name,
        toolCallId: this.#id,
      },
    )
  }
}

function protocolError(problem: string): StreamError {
  return new StreamError('stream_protocol', `The provider broke its protocol: ${problem}.`, {
    retryable: true,
    phase: 'stream',
  })
}
