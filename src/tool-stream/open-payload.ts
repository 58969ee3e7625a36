import { isLLMError, type LLMError, OutputError, type OutputIssue } from '../errors.ts'
import type { FieldEvent } from '../events.ts'
import { issuePath } from '../schema.ts'
import { ArgumentScanner, type Place, type ScannerLimits, type ScannerSink } from './argument-scanner.ts'
import type { FieldExtractor } from './field-extractor.ts'
import type { PathNode } from './field-path.ts'

/** The call whose arguments a payload is; without members, it is the output. */
export interface PayloadCall {
  readonly toolCallId?: string
  readonly toolName?: string
}

const nothing: readonly FieldEvent[] = Object.freeze([])

/** One JSON text of an answer: its scanner, and the events of the delta being read. */
export class OpenPayload implements ScannerSink {
  readonly #toolCallId: string | undefined
  readonly #toolName: string | undefined
  readonly #scanner: ArgumentScanner
  readonly #report: (error: LLMError) => void
  #events: FieldEvent[] | undefined
  /** The registered string being read. */
  #string = ''

  constructor(
    { toolCallId, toolName }: PayloadCall,
    root: PathNode,
    limits: ScannerLimits,
    report: (error: LLMError) => void,
  ) {
    this.#toolCallId = toolCallId
    this.#toolName = toolName
    this.#report = report
    this.#scanner = new ArgumentScanner(root, this, limits)
  }

  /** All that was written. */
  get text(): string {
    return this.#scanner.text
  }

  /** Whether the text is a whole value. */
  get isComplete(): boolean {
    return this.#scanner.isComplete
  }

  /** Reads the next piece, and returns the field events it brings; what is wrong with it is reported. */
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
          toolCallId: this.#toolCallId,
          toolName: this.#toolName,
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
          toolCallId: this.#toolCallId,
          toolName: this.#toolName,
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
          toolName: this.#toolName,
          toolCallId: this.#toolCallId,
        }),
      )
      return undefined
    }
  }

  truncated(): OutputError {
    return new OutputError(
      'output_truncated',
      `The answer reached its token limit in or after the ${this.#noun}. Raise \`maxTokens\`, or ask for less.`,
      { phase: 'finalize', ...this.#call, position: this.text.length },
    )
  }

  /** Says that the text is whole, and returns the object it is. Throws where it is none. */
  complete(): unknown {
    let value: unknown
    try {
      value = this.#scanner.end()
    } catch (error) {
      throw isLLMError(error) ? this.#named(error) : error
    }
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value
    const kind = value === null ? 'null' : Array.isArray(value) ? 'an array' : `a ${typeof value}`
    throw new OutputError('schema_mismatch', `The ${this.#noun} must be a JSON object, and ${this.#is} ${kind}.`, {
      phase: 'finalize',
      ...this.#call,
    })
  }

  /** What is there of the value. */
  partialValue(): unknown {
    try {
      const closed = this.#scanner.closedText()
      return closed === undefined ? undefined : JSON.parse(closed)
    } catch {
      return undefined
    }
  }

  get #call(): { toolCallId: string | undefined; toolName: string | undefined } {
    return { toolCallId: this.#toolCallId, toolName: this.#toolName }
  }

  get #noun(): string {
    return this.#toolName === undefined ? 'output' : `arguments of tool "${this.#toolName}"`
  }

  get #is(): string {
    return this.#toolName === undefined ? 'is' : 'are'
  }

  /** The same error, with what it belongs to. */
  #named(error: LLMError): LLMError {
    if (!(error instanceof OutputError)) return error
    return new OutputError(error.code, error.message.replace('The text is', `The ${this.#noun} ${this.#is}`), {
      phase: error.phase,
      position: error.position,
      ...this.#call,
    })
  }
}
