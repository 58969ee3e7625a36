import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

const source = (path: string) => fileURLToPath(new URL(`./src/${path}`, import.meta.url))

export default defineConfig({
  resolve: {
    // Tests import the package by its name, as users do, and get the sources.
    alias: [
      { find: /^fieldstream$/, replacement: source('index.ts') },
      { find: /^fieldstream\/anthropic$/, replacement: source('providers/anthropic.ts') },
      { find: /^fieldstream\/openai$/, replacement: source('providers/openai.ts') },
      { find: /^fieldstream\/ollama$/, replacement: source('providers/ollama.ts') },
      { find: /^fieldstream\/gemini$/, replacement: source('providers/gemini.ts') },
      { find: /^fieldstream\/testing$/, replacement: source('testing/index.ts') },
      { find: /^fieldstream\/telemetry$/, replacement: source('telemetry/index.ts') },
    ],
  },
  test: {
    include: ['tests/**/*.test.ts'],
    setupFiles: ['tests/trace/setup.ts'],
    typecheck: { enabled: true, include: ['tests/**/*.test-d.ts'] },
    testTimeout: 60_000,
  },
})
