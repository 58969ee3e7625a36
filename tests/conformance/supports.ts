/**
 * `'yes'`: sent, and nothing is said. `'warns'`: sent as far as the service goes, and `start` carries an `unsupported` warning.
 * `'no'`: a `UsageError` with the code `unsupported`, before anything is sent.
 */
export type Support = 'yes' | 'warns' | 'no'

/** What a provider does with a request. The suite tests every claim by the request that goes out, or what comes back. */
export interface Supports {
  /** Whether the arguments of a native call arrive while they are written. */
  readonly toolArguments: 'streamed' | 'whole'
  readonly forcedTool: Support
  readonly requiredTool: Support
  readonly strictTool: Support
  /** A tool in the service's own terms, as `definition`. */
  readonly ownTool: Support
  readonly imageBytes: Support
  readonly imageUrl: Support
  readonly reasoningEffort: Support
  readonly reasoningBudget: Support
  readonly maxTokens: Support
  readonly temperature: Support
  readonly topP: Support
  readonly stop: Support
  /** A system message between others. */
  readonly laterSystemMessage: Support
}

const common = {
  toolArguments: 'streamed',
  forcedTool: 'yes',
  requiredTool: 'yes',
  strictTool: 'yes',
  ownTool: 'yes',
  imageBytes: 'yes',
  imageUrl: 'yes',
  reasoningEffort: 'yes',
  reasoningBudget: 'yes',
  maxTokens: 'yes',
  temperature: 'yes',
  topP: 'yes',
  stop: 'yes',
  laterSystemMessage: 'yes',
} as const satisfies Supports

/** By the provider's name. For Gemini, of the Gemini API: Vertex AI streams arguments from Gemini 3 on. */
export const supports = {
  anthropic: common,
  openai: { ...common, reasoningBudget: 'no', stop: 'no' },
  'openai-chat': { ...common, reasoningBudget: 'no' },
  ollama: {
    ...common,
    toolArguments: 'whole',
    forcedTool: 'warns',
    requiredTool: 'warns',
    strictTool: 'warns',
    imageUrl: 'no',
    reasoningEffort: 'warns',
    reasoningBudget: 'warns',
  },
  gemini: { ...common, toolArguments: 'whole', laterSystemMessage: 'no' },
} as const satisfies Record<string, Supports>
