import { defineConfig } from 'tsup'

export default defineConfig([
  {
    entry: {
      index: 'src/index.ts',
      anthropic: 'src/providers/anthropic.ts',
      openai: 'src/providers/openai.ts',
      ollama: 'src/providers/ollama.ts',
      gemini: 'src/providers/gemini.ts',
      testing: 'src/testing/index.ts',
      telemetry: 'src/telemetry/index.ts',
    },
    format: ['esm', 'cjs'],
    target: 'node22',
    dts: { compilerOptions: { ignoreDeprecations: '6.0' } },
    // One copy of the errors and the scanner for all entries, in ESM and in CJS.
    splitting: true,
    // The command is built at the same time.
    clean: ['!cli.js'],
    sourcemap: false,
  },
  {
    // Uses the library by its name, as everybody does, so that nothing of it is in there a second time.
    entry: { cli: 'src/cli/index.ts' },
    format: 'esm',
    target: 'node22',
    external: [/^fieldstream/],
    splitting: false,
    sourcemap: false,
  },
])
