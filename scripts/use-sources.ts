/** `node --import ./scripts/use-sources.ts x.ts`: the package's own name means its sources, so examples run without a build. */
import { registerHooks } from 'node:module'

const sources: Record<string, string> = {
  fieldstream: '../src/index.ts',
  'fieldstream/anthropic': '../src/providers/anthropic.ts',
  'fieldstream/openai': '../src/providers/openai.ts',
  'fieldstream/ollama': '../src/providers/ollama.ts',
  'fieldstream/gemini': '../src/providers/gemini.ts',
  'fieldstream/testing': '../src/testing/index.ts',
  'fieldstream/telemetry': '../src/telemetry/index.ts',
}

registerHooks({
  resolve(specifier, context, nextResolve) {
    const source = sources[specifier]
    return nextResolve(source === undefined ? specifier : new URL(source, import.meta.url).href, context)
  },
})
