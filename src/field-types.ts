import type {
  FieldDeltaEvent,
  FieldEndEvent,
  ResponseEvent,
  ToolCallEvent,
  ToolErrorEvent,
  ToolProgressEvent,
  ToolResultEvent,
} from './events.ts'
import type { OutputDefinition } from './output-format.ts'
import type { OutputFormat, ToolChoice } from './request.ts'
import type { SchemaInput, SchemaOutput, StandardSchema } from './schema.ts'
import type { FieldExtractor } from './tool-stream/field-extractor.ts'
import type { FieldExtractorRegistry } from './tool-stream/field-extractor-registry.ts'
import type { Tool } from './tool.ts'

// What the compiler works out of a request: which paths exist, and what is found at them.

/** A path, or a path with options. */
export type FieldDefinition = string | Omit<FieldExtractor, 'field'>

/** Fields by the name to report them under. */
export type FieldDefinitions = Readonly<Record<string, FieldDefinition>>

/** What `fields` takes. */
export type Fields = FieldDefinitions | FieldExtractorRegistry

type IsAny<T> = 0 extends 1 & T ? true : false
type IsUnknown<T> = IsAny<T> extends true ? true : unknown extends T ? true : false

/** The type at `Path` in `T`; `never` where it cannot exist, `unknown` where `T` does not say, or the path is any text. */
export type ValueAt<T, Path extends string> =
  IsUnknown<T> extends true
    ? unknown
    : string extends Path
      ? unknown
      : Path extends `["${infer Key}"]${infer Rest}`
        ? Onward<Member<T, Key>, Rest>
        : Path extends `[${infer Index}]${infer Rest}`
          ? Onward<Element<T, Index>, Rest>
          : Path extends `${infer Head}.${infer Tail}`
            ? Head extends `${infer Key}[${infer Rest}`
              ? Onward<Member<T, Key>, `[${Rest}.${Tail}`>
              : Onward<Member<T, Head>, `.${Tail}`>
            : Path extends `${infer Key}[${infer Rest}`
              ? Onward<Member<T, Key>, `[${Rest}`>
              : Member<T, Path>

type Onward<T, Rest extends string> = [T] extends [never]
  ? never
  : Rest extends ''
    ? T
    : Rest extends `.${infer Path}`
      ? ValueAt<T, Path>
      : ValueAt<T, Rest>

/** The member `Key` of each object in the union `T`; JSON has no `undefined`. */
type Member<T, Key extends string> =
  IsUnknown<T> extends true
    ? unknown
    : T extends readonly unknown[]
      ? never
      : T extends object
        ? Exclude<T[KeysMatching<T, Key>], undefined>
        : never

type KeysMatching<T, Key extends string> = Key extends '*'
  ? keyof T
  : Key extends `${infer Prefix}{${string}}${infer Suffix}`
    ? string extends keyof T
      ? keyof T
      : Extract<keyof T, `${Prefix}${string}${Suffix}`>
    : Key extends keyof T
      ? Key
      : string extends keyof T
        ? keyof T
        : never

type Element<T, Index extends string> =
  IsUnknown<T> extends true
    ? unknown
    : T extends readonly (infer Item)[]
      ? Index extends keyof T
        ? Exclude<T[Index], undefined>
        : Item
      : never

/** The arguments of any of the tools, as the model writes them; `unknown` where a tool does not say. */
export type ToolInput<Tools extends readonly Tool[]> = number extends Tools['length']
  ? InputOf<Tools[number]>
  : Tools extends readonly []
    ? unknown
    : InputOf<Tools[number]>

type InputOf<T> = T extends Tool<string, infer Input> ? Input : never

/** An output as the model writes it; `unknown` where its schema does not say. */
type OutputInput<Output> = Output extends StandardSchema
  ? SchemaInput<Output>
  : Output extends OutputFormat<infer Input>
    ? Input
    : unknown

/** What fields are read from: the arguments of any of the tools, and the output. */
export type PayloadInput<Tools extends readonly Tool[], Output extends OutputDefinition | undefined> = [
  Output,
] extends [undefined]
  ? ToolInput<Tools>
  : Tools extends readonly []
    ? OutputInput<Output>
    : ToolInput<Tools> | OutputInput<Output>

/** The output of a response, as its schema returns it. */
export type OutputOf<Tools extends readonly Tool[], Choice, Output extends OutputDefinition | undefined> = [
  Output,
] extends [undefined]
  ? undefined
  : Tools extends readonly []
    ? OutputValue<Output>
    : Choice extends 'none'
      ? OutputValue<Output>
      : OutputValue<Output> | undefined

type OutputValue<Output> = Output extends StandardSchema
  ? SchemaOutput<Output>
  : Output extends OutputFormat<unknown, infer Value>
    ? Value
    : Record<string, unknown>

/** `Path` itself where it can exist in `Input`; else a type whose name says what is wrong. */
export type CheckedPath<Path extends string, Input> = string extends Path
  ? Path
  : [ValueAt<Input, Path>] extends [never]
    ? { readonly error: `The path "${Path}" does not exist in the tools and the output of this request` }
    : Path

/** Field definitions with a compile error at each path that cannot exist. */
export type CheckedFields<Definitions, Input> = Definitions extends FieldExtractorRegistry
  ? Definitions
  : {
      readonly [Name in keyof Definitions]: Definitions[Name] extends string
        ? CheckedPath<Definitions[Name], Input>
        : Definitions[Name] extends { readonly path: infer Path extends string }
          ? Definitions[Name] & { readonly path: CheckedPath<Path, Input> } & UnknownOptions<Definitions[Name]>
          : Definitions[Name]
    }

/** What a field definition has that nobody would read, as a type whose name says so. */
type UnknownOptions<Definition> = {
  readonly [Name in Exclude<keyof Definition, keyof FieldExtractor> & string]: {
    readonly error: `A field has no option "${Name}"`
  }
}

type ValueOf<Definition, Input> = Definition extends string
  ? ValueAt<Input, Definition>
  : Definition extends { readonly map: (value: never) => infer Mapped }
    ? Mapped
    : Definition extends { readonly path: infer Path extends string }
      ? ValueAt<Input, Path>
      : unknown

type FieldEventOf<Name extends string, Value> =
  FieldDeltaEvent<Name> | FieldEndEvent<Name, [Value] extends [never] ? unknown : Value>

/** The field events of a request. */
export type FieldEventsOf<Definitions, Input> =
  Definitions extends FieldExtractorRegistry<infer Extractors>
    ? Extractors[number] extends infer Extractor
      ? Extractor extends FieldExtractor<infer Name>
        ? FieldEventOf<Name, ValueOf<Extractor, Input>>
        : never
      : never
    : string extends keyof Definitions
      ? FieldDeltaEvent | FieldEndEvent
      : {
          [Name in keyof Definitions & string]: FieldEventOf<Name, ValueOf<Definitions[Name], Input>>
        }[keyof Definitions & string]

/** The names of a request's fields. */
export type FieldName<Definitions> =
  Definitions extends FieldExtractorRegistry<infer Extractors>
    ? Extractors[number]['field']
    : keyof Definitions & string

/** The tools a request lets the model call. */
type Callable<Tools extends readonly Tool[], Choice> = Choice extends { readonly name: infer Name }
  ? Extract<Tools[number], { readonly name: Name }>
  : Tools[number]

/** A call of one of the tools, its input as the tool's schema returns it. */
export type ToolCallOf<Tools extends readonly Tool[], Choice = 'auto'> = Tools extends readonly []
  ? ToolCallEvent
  : Callable<Tools, Choice> extends infer T
    ? T extends Tool<infer Name, unknown, infer Output>
      ? ToolCallEvent<Name, Output>
      : never
    : never

/** A call as it stands in a response. */
export type ToolCallResult<Call extends ToolCallEvent> = Call extends ToolCallEvent ? Omit<Call, 'type'> : never

/** The calls of a response: at least one where the request forces a call. */
export type ToolCallsOf<Tools extends readonly Tool[], Choice> = Choice extends 'required' | { readonly name: string }
  ? readonly [ToolCallResult<ToolCallOf<Tools, Choice>>, ...ToolCallResult<ToolCallOf<Tools, Choice>>[]]
  : readonly ToolCallResult<ToolCallOf<Tools, Choice>>[]

/** The events of a request. */
export type EventOf<
  Tools extends readonly Tool[],
  Definitions,
  Choice extends ToolChoice,
  Output extends OutputDefinition | undefined = undefined,
> = ResponseEvent<FieldEventsOf<Definitions, PayloadInput<Tools, Output>>, ToolCallOf<Tools, Choice>, never>

/** The events of a request whose tools run. Later steps may call any of them. */
export type RunEventOf<
  Tools extends readonly Tool[],
  Definitions,
  Output extends OutputDefinition | undefined = undefined,
> = ResponseEvent<
  FieldEventsOf<Definitions, PayloadInput<Tools, Output>>,
  ToolCallOf<Tools>,
  ToolEventOf<Tools[number]>
>

/** What is heard of a tool that runs. */
type ToolEventOf<T> =
  T extends Tool<infer Name, unknown, unknown, infer Result>
    ? ToolProgressEvent<Name> | ToolResultEvent<Name, Result> | ToolErrorEvent<Name>
    : never
