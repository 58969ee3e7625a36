/**
 * The client, and what works with every provider.
 *
 * @module fieldstream
 */

export { StreamingLLMClient } from './client.ts'
export type { ClientOptions, StreamRequest } from './client.ts'
export type { BatchOptions } from './delta-batcher.ts'
export type { Listenable, ResponseStream, SubscribeOptions } from './response-stream.ts'
export type { LLMResponse, RunResponse } from './response.ts'
export type { ReplayOptions } from './event-log.ts'
export { tool } from './tool.ts'
export type { Tool, ToolContext, ToolExecution, ToolOptions, ToolOutput } from './tool.ts'
export type { ToolRunOptions } from './tool-steps.ts'
export type { ToolApproval } from './tools/tool-runner.ts'
export { outputFormat } from './output-format.ts'
export type { OutputDefinition, OutputOptions } from './output-format.ts'
export type {
  JsonSchema,
  SchemaInput,
  SchemaOutput,
  StandardIssue,
  StandardResult,
  StandardSchema,
  Validate,
} from './schema.ts'

export { FieldExtractorRegistry } from './tool-stream/field-extractor-registry.ts'
export type { FieldExtractor } from './tool-stream/field-extractor.ts'
export { askMessages, simpleResponses, summaryParts } from './tool-stream/extractors.ts'
export type {
  CheckedFields,
  CheckedPath,
  EventOf,
  FieldDefinition,
  FieldDefinitions,
  FieldEventsOf,
  FieldName,
  Fields,
  OutputOf,
  PayloadInput,
  RunEventOf,
  ToolCallOf,
  ToolCallResult,
  ToolCallsOf,
  ToolInput,
  ValueAt,
} from './field-types.ts'
export { ToolStreamAccumulator } from './tool-stream/tool-stream-accumulator.ts'
export type {
  AccumulatedToolCall,
  AccumulatorLimits,
  AccumulatorOptions,
  StreamAccumulator,
} from './tool-stream/tool-stream-accumulator.ts'
export type { ScannerLimits } from './tool-stream/argument-scanner.ts'
export type { PartialToolCall, Snapshot } from './snapshot.ts'
export { xmlTools } from './tool-input/xml-tools.ts'

export { nonStreaming } from './attempts/non-streaming.ts'
export { fallback } from './attempts/fallback.ts'
export type { FallbackOptions } from './attempts/fallback.ts'
export { retry } from './attempts/retry.ts'
export type { RetryOptions } from './attempts/retry.ts'
export { timeout } from './attempts/timeout.ts'
export type { TimeoutOptions } from './attempts/timeout.ts'
export { cache } from './middleware/cache.ts'
export type { CacheKeyParts, CacheOptions, CacheStore } from './middleware/cache.ts'
export { rateLimit } from './middleware/rate-limit.ts'
export type { Limiter, RateLimitOptions } from './middleware/rate-limit.ts'
export { batchesOf, fromBatches } from './provider.ts'
export type {
  AskedTarget,
  AttemptFailure,
  AttemptTimeouts,
  Batches,
  Deadline,
  Provider,
  ProviderContext,
  StreamEvents,
} from './provider.ts'
export type { Middleware, RunLimits, StreamFunction } from './middleware.ts'
export type {
  Alerts,
  ClientHooks,
  FallbackUse,
  FirstDelta,
  RunAlert,
  RunFinish,
  RunIdentity,
  RunMeasured,
} from './run-hooks.ts'

export {
  AbortedError,
  ConnectionError,
  ConsumerError,
  HttpError,
  isLLMError,
  LimitError,
  LLMError,
  LLMTimeoutError,
  OutputError,
  PolicyError,
  StreamError,
  ToolError,
  UsageError,
} from './errors.ts'
export type { ConnectionFailure, ErrorCode, ErrorPhase, LLMErrorOptions, OutputIssue } from './errors.ts'

export type {
  ChunkGaps,
  FieldDeltaEvent,
  FieldEndEvent,
  FieldEvent,
  FieldTimes,
  FinishEvent,
  FinishReason,
  Metrics,
  PartEndEvent,
  PartEvent,
  ProgressEvent,
  ProviderFinishEvent,
  RawEvent,
  ReasoningDeltaEvent,
  ResponseEvent,
  RestartEvent,
  Sequenced,
  ShownText,
  StartEvent,
  StreamEvent,
  Target,
  TextDeltaEvent,
  ToolCallEvent,
  ToolErrorEvent,
  ToolEvent,
  ToolInputChannel,
  ToolInputDeltaEvent,
  ToolInputEndEvent,
  ToolInputStartEvent,
  ToolProgressEvent,
  ToolResultEvent,
  Usage,
  UsageEvent,
  WarningEvent,
} from './events.ts'
export type {
  AssistantMessage,
  ImagePart,
  LLMRequest,
  LLMWarning,
  Message,
  OutputFormat,
  ProviderMetadata,
  ProviderPart,
  Reasoning,
  ReasoningPart,
  SystemMessage,
  TextPart,
  ToolCallPart,
  ToolChoice,
  ToolMessage,
  ToolResultPart,
  UserMessage,
} from './request.ts'
