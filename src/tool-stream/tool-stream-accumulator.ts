import { checkLimits, checkOptions } from '../check-options.ts'
import { LimitError, type LLMError, isLLMError, OutputError, StreamError, UsageError } from '../errors.ts'
import type { FieldEvent, ProviderFinishEvent, StreamEvent } from '../events.ts'
import type { PartialToolCall, Snapshot } from '../snapshot.ts'
import type { ScannerLimits } from './argument-scanner.ts'
import { FieldExtractorRegistry } from './field-extractor-registry.ts'
import { OpenPayload, type PayloadCall } from './open-payload.ts'

/** Bounds on the tool calls and the output of one answer. */
export interface AccumulatorLimits extends ScannerLimits {
  /** Most tool calls in one answer. Default 256. */
  readonly maxToolCalls?: number | undefined
}

/** What an accumulator looks for, and how much it takes. */
export interface AccumulatorOptions {
  /** The fields to report. Default: none. */
  readonly fields?: FieldExtractorRegistry | undefined
  /** Bounds on the answer. Default: those of `AccumulatorLimits`. */
  readonly limits?: AccumulatorLimits | undefined
  /**
   * Whether the text of the answer is JSON too: `'required'`, or `'optional'` where tools may be called instead, so that the
   * text is judged at the end only. Default: it is no JSON, and is left alone.
   */
  readonly output?: 'required' | 'optional' | undefined
}

/** A tool call whose arguments are whole: terminal evidence seen, text parsed. Not yet validated against a schema. */
export interface AccumulatedToolCall {
  /** As the provider gave it, or made up where it gives none. */
  readonly toolCallId: string
  /** As the model wrote it; not yet known to be a tool of the request. */
  readonly toolName: string
  /** What `JSON.parse` makes of the text; `{}` where a tool without arguments was called with none. */
  readonly input: unknown
  /** The arguments' JSON text as it came. */
  readonly inputText: string
}

/** What turns a stream's tool calls and output into field events. The client takes any implementation. */
export interface StreamAccumulator {
  /**
   * Takes the next event and returns the field events it brings. The client passes on text, tool calls and the `finish`. Where the
   * event turns out to be wrong, `error` is set and every later push throws it, so that what was found before the fault is not
   * lost. After the last push look at `isComplete` or `error`: where that one was wrong, nothing has thrown.
   */
  push(event: StreamEvent): readonly FieldEvent[]
  /** Why they cannot be had, as soon as that is known. */
  readonly error: LLMError | undefined
  /** True once the terminal evidence was seen and every call, or the output, is whole. */
  readonly isComplete: boolean
  /** The calls, all at once when `isComplete`; empty before, and for good where anything is wrong. */
  readonly toolCalls: readonly AccumulatedToolCall[]
  /** What `JSON.parse` makes of the output, when `isComplete`; `undefined` before, and where tools are called instead. */
  readonly output: unknown
  /** What of them has arrived. */
  snapshot(): Pick<Snapshot, 'toolCalls' | 'output'>
}

/** @throws UsageError where a limit is unknown or no positive number. */
export function checkAccumulatorLimits(limits: AccumulatorLimits | undefined): void {
  checkLimits('`limits`', limits, ['maxDepth', 'maxInputLength', 'maxToolCalls'])
}

const nothing: readonly FieldEvent[] = Object.freeze([])

/**
 * Follows the tool calls of one answer, interleaved or not, and its text where that is JSON, and reports the registered fields
 * while they are written. Works without the client, over any source of `StreamEvent`s.
 *
 * @example
 * ```ts
 * import { FieldExtractorRegistry, type StreamEvent, ToolStreamAccumulator } from 'fieldstream'
 *
 * export async function read(events: AsyncIterable<StreamEvent>) {
 *   const fields = new FieldExtractorRegistry([{ field: 'question', path: 'ask_slots[*].message' }])
 *   const accumulator = new ToolStreamAccumulator({ fields })
 *   for await (const event of events) {
 *     for (const field of accumulator.push(event)) {
 *       if (field.type === 'field-delta') process.stdout.write(field.delta)
 *     }
 *   }
 *   if (!accumulator.isComplete) throw accumulator.error ?? new Error('The stream ended early.')
 *   return accumulator.toolCalls
 * }
 * ```
 */
export class ToolStreamAccumulator implements StreamAccumulator {
  readonly #fields: FieldExtractorRegistry
  readonly #limits: AccumulatorLimits
  readonly #calls = new Map<string, OpenToolCall>()
  readonly #isOutputOptional: boolean
  readonly #openOutput: OpenPayload | undefined
  #error: LLMError | undefined
  /** What is wrong with text that may turn out to be no output. */
  #outputError: LLMError | undefined
  #toolCalls: readonly AccumulatedToolCall[] | undefined
  #output: unknown
  readonly #report = (error: LLMError): void => void (this.#error ??= error)

  /**
   * Makes an accumulator for one answer; it is not used again for another.
   *
   * @throws UsageError where an option is malformed.
   */
  constructor(options: AccumulatorOptions = {}) {
    checkOptions('ToolStreamAccumulator', options, ['fields', 'limits', 'output'])
    const { fields, limits, output } = options
    if (fields !== undefined && typeof fields.compile !== 'function')
      throw new UsageError('invalid_argument', '`fields` of a ToolStreamAccumulator must be a FieldExtractorRegistry.')
    if (output !== undefined && (output as string) !== 'required' && (output as string) !== 'optional')
      throw new UsageError('invalid_argument', "`output` of a ToolStreamAccumulator is 'required' or 'optional'.")
    checkAccumulatorLimits(limits)
    this.#fields = fields ?? new FieldExtractorRegistry()
    this.#limits = limits ?? {}
    this.#isOutputOptional = output === 'optional'
    const report = (error: LLMError): void => void (this.#outputError ??= error)
    this.#openOutput = output && this.#open({}, output === 'optional' ? report : this.#report)
  }

  /** What was wrong with the answer; `undefined` as long as nothing is. Set once, and thrown by every later `push`. */
  get error(): LLMError | undefined {
    return this.#error
  }

  /** True once the terminal evidence was seen and every call, or the output, is whole. */
  get isComplete(): boolean {
    return this.#toolCalls !== undefined
  }

  /** The calls, all at once when `isComplete`; empty before, and for good where anything is wrong. */
  get toolCalls(): readonly AccumulatedToolCall[] {
    return this.#toolCalls ?? []
  }

  /** What `JSON.parse` makes of the output, when `isComplete`; `undefined` before, and where tools are called instead. */
  get output(): unknown {
    return this.#output
  }

  /**
   * Takes the next event and returns the field events it brings. A fault is thrown by the pushes after the one that met it, so
   * that what that one found is not lost: after the last, look at `isComplete` or `error`.
   *
   * @throws LLMError that `error` was set to, at every push after that.
   */
  push(event: StreamEvent): readonly FieldEvent[] {
    if (this.#error) throw this.#error
    // Nothing can undo the evidence.
    if (this.#toolCalls) return nothing
    switch (event.type) {
      case 'text-delta':
        return this.#openOutput && !this.#outputError ? this.#openOutput.write(event.delta) : nothing
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
          this.#finish(event)
        } catch (error) {
          if (!isLLMError(error)) throw error
          this.#error = error
        }
        return nothing
      default:
        return nothing
    }
  }

  /** What has arrived so far, put together on demand and never validated. */
  snapshot(): { toolCalls: readonly PartialToolCall[]; output: unknown } {
    return {
      toolCalls: [...this.#calls.values()].map((call) => call.snapshot()),
      output: this.#openOutput?.partialValue(),
    }
  }

  #start(toolCallId: string, toolName: string): void {
    const { maxToolCalls = 256 } = this.#limits
    if (this.#calls.has(toolCallId)) this.#error = protocolError('two tool calls have the same id')
    else if (this.#calls.size === maxToolCalls) {
      this.#error = new LimitError('maxToolCalls', maxToolCalls, 'The answer holds too many tool calls', {
        phase: 'stream',
      })
    } else {
      const payload = this.#open({ toolCallId, toolName }, this.#report)
      this.#calls.set(toolCallId, new OpenToolCall(toolCallId, toolName, payload))
    }
  }

  #open(call: PayloadCall, report: (error: LLMError) => void): OpenPayload {
    return new OpenPayload(call, this.#fields.compile(call.toolName), this.#limits, report)
  }

  #finish({ finishReason, explanation }: ProviderFinishEvent): void {
    if (finishReason === 'refusal') {
      throw new OutputError('refused', 'The model refused to answer. Change the prompt, or ask another model.', {
        phase: 'finalize',
        providerMessage: explanation,
      })
    }
    if (finishReason === 'content-filter') {
      throw new OutputError('content_filtered', "The provider's content filter stopped the answer.", {
        phase: 'finalize',
        providerMessage: explanation,
      })
    }
    const calls = [...this.#calls.values()]
    const output = this.#isOutputOptional && calls.length > 0 ? undefined : this.#openOutput
    // Even a text that parses may have been cut: a prefix of JSON can be JSON, and no arguments at all read as `{}`.
    if (finishReason === 'length') {
      const cut = calls.find(({ isClosed }) => !isClosed) ?? calls.at(-1) ?? output
      if (cut) throw cut.truncated()
    }
    if (output && this.#outputError) throw this.#outputError
    const toolCalls = calls.map((call) => call.complete(finishReason === 'tool-calls'))
    if (output?.text.trim() === '')
      throw new OutputError('no_payload', 'The model wrote no output.', { phase: 'finalize' })
    this.#output = output?.complete()
    this.#toolCalls = toolCalls
  }
}

/** A call whose arguments are being written. */
class OpenToolCall {
  readonly #id: string
  readonly #name: string
  readonly #arguments: OpenPayload
  isClosed = false

  constructor(toolCallId: string, toolName: string, payload: OpenPayload) {
    this.#id = toolCallId
    this.#name = toolName
    this.#arguments = payload
  }

  write(delta: string): readonly FieldEvent[] {
    return this.#arguments.write(delta)
  }

  truncated(): OutputError {
    return this.#arguments.truncated()
  }

  complete(endedForTools: boolean): AccumulatedToolCall {
    const inputText = this.#arguments.text
    if (!this.isClosed) throw protocolError(`the answer ended before the arguments of tool "${this.#name}"`)
    // No provider sends `{}` for a tool without arguments: it sends no text.
    const input = inputText === '' && endedForTools ? {} : this.#arguments.complete()
    return { toolCallId: this.#id, toolName: this.#name, input, inputText }
  }

  snapshot(): PartialToolCall {
    const inputText = this.#arguments.text
    const complete = this.isClosed && (inputText === '' || this.#arguments.isComplete)
    return { toolCallId: this.#id, toolName: this.#name, inputText, input: this.#arguments.partialValue(), complete }
  }
}

function protocolError(problem: string): StreamError {
  return new StreamError('stream_protocol', `The provider broke its protocol: ${problem}.`, {
    retryable: true,
    phase: 'stream',
  })
}
