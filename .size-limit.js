/**
 * What a bundle gains by the library, minified and gzipped: of the sources, as a bundler that drops what is not used makes it. What
 * is loaded when first used counts apart, and optional peers not at all.
 */
const loadedLater = [
  '*/optional-parts.ts',
  '*/node-transport.ts',
  '*/tool-runner.ts',
  '*/json-channel.ts',
  '*/xml-channel.ts',
]
const peers = ['p-queue', 'lru-cache', '@anthropic-ai/sdk', 'openai', 'ollama', '@google/genai', '@opentelemetry/api']

const core = { 'src/index.ts': '{ StreamingLLMClient, tool }' }

/**
 * @param {string} name
 * @param {Record<string, string>} imports what of which file
 * @param {string} limit
 */
function bundle(name, imports, limit) {
  return {
    name,
    import: imports,
    path: Object.keys(imports),
    limit,
    gzip: true,
    /** @param {object} config */
    modifyEsbuildConfig: (config) => ({ ...config, external: [...loadedLater, ...peers, 'node:*'] }),
  }
}

export default [
  bundle('the client', core, '27 kB'),
  bundle('the accumulator alone', { 'src/index.ts': '{ ToolStreamAccumulator, FieldExtractorRegistry }' }, '9 kB'),
  bundle(
    'the client, with every middleware',
    {
      'src/index.ts':
        '{ StreamingLLMClient, tool, retry, fallback, timeout, cache, rateLimit, nonStreaming, xmlTools }',
    },
    '34.5 kB',
  ),
  ...[
    ['anthropic', 'anthropic', '40.5 kB'],
    ['openai-responses', 'openai', '41.5 kB'],
    ['openai-chat', 'openaiChat', '42.5 kB'],
    ['ollama', 'ollama', '40 kB'],
    ['gemini', 'gemini', '43 kB'],
  ].map(([file, name, limit]) =>
    bundle(`the client and ${name}()`, { ...core, [`src/providers/${file}.ts`]: `{ ${name} }` }, limit),
  ),
]
