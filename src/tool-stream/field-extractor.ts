import type { StandardSchema } from '../schema.ts'

/** Names a place in tool arguments, or in the output, whose value is to be handed out before the whole is complete. */
export interface FieldExtractor<Field extends string = string, Path extends string = string> {
  /** Name under which it is reported. Several extractors may share one. */
  readonly field: Field
  /** `a.b`, `a[0]`, `a[*].b`, `*` for any key, `["any key"]`; captures `part_{n}` and `a[{index}]` go into `params`. */
  readonly path: Path
  /** Only in calls of this tool. Default: of any, and in the output. */
  readonly tool?: string | undefined
  /** `'delta'`: strings character by character, anything else when it closes. `'complete'`: strings too when they close. Default `'delta'`. */
  readonly deliver?: 'delta' | 'complete' | undefined
  /** Checks the value when it closes (synchronously); the outcome is `valid` on `field-end`. What it makes of the value is not used: see `map`. */
  readonly schema?: StandardSchema | undefined
  /** Changes the value before it is reported; implies `deliver: 'complete'`. */
  readonly map?: ((value: unknown) => unknown) | undefined
}
