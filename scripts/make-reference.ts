// The API reference, from the docstrings, with the guides beside it: `npm run docs` writes it into `docs/api`.
import { readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { extname, join, relative, resolve } from 'node:path'
import {
  Application,
  Comment,
  CommentTag,
  type Context,
  Converter,
  type DeclarationReflection,
  PageEvent,
} from 'typedoc'

const root = join(import.meta.dirname, '..')
const out = resolve(root, process.argv[2] ?? 'docs/api')

/** Where a reader looks for what these files export, in the order of the page. */
const categories: Readonly<Record<string, readonly string[]>> = {
  'Ask a model': ['client.ts', 'response.ts', 'response-stream.ts'],
  'Requests and messages': ['request.ts'],
  Events: ['events.ts'],
  Fields: ['tool-stream/', 'snapshot.ts'],
  'Tools and output': ['tool.ts', 'tool-steps.ts', 'tools/', 'tool-input/', 'output-format.ts', 'schema.ts'],
  'Retry, fallback and limits of time': ['attempts/'],
  'Cache and rate limit': ['middleware/'],
  Delivery: ['delta-batcher.ts', 'event-log.ts'],
  Errors: ['errors.ts'],
  'Logs and metrics': ['run-hooks.ts'],
  'Write your own': ['provider.ts', 'middleware.ts'],
  'What the compiler works out': ['field-types.ts'],
}

function categoryOf({ sources }: DeclarationReflection): string {
  const file = relative(join(root, 'src'), sources?.[0]?.fullFileName ?? '')
  const found = Object.entries(categories).find(([, places]) => places.some((place) => file.startsWith(place)))
  if (!found) throw new Error(`${file} has no category in scripts/make-reference.ts.`)
  return found[0]
}

const app = await Application.bootstrapWithPlugins({
  name: 'fieldstream',
  includeVersion: true,
  tsconfig: join(root, 'tsconfig.json'),
  entryPoints: [
    'index.ts',
    'providers/anthropic.ts',
    'providers/openai.ts',
    'providers/ollama.ts',
    'providers/gemini.ts',
    'testing/index.ts',
    'telemetry/index.ts',
  ].map((file) => join(root, 'src', file)),
  readme: join(root, 'scripts/reference/front-page.md'),
  projectDocuments: [join(root, 'docs/*.md')],
  customCss: join(root, 'scripts/reference/style.css'),
  // `tsc` has done so.
  skipErrorChecking: true,
  treatWarningsAsErrors: true,
  excludeInternal: true,
  excludePrivate: true,
  excludeExternals: true,
  disableGit: true,
  sourceLinkTemplate: '{path}#L{line}',
  gitRevision: 'main',
  displayBasePath: root,
  // What one calls comes before what it takes.
  sort: ['kind', 'source-order'],
  kindSortOrder: [
    'Document',
    'Module',
    'Class',
    'Constructor',
    'Function',
    'Variable',
    'Accessor',
    'Property',
    'Method',
  ],
  sortEntryPoints: false,
  categorizeByGroup: false,
  categoryOrder: ['Guides', 'Reference', ...Object.keys(categories), '*'],
  navigation: { includeCategories: true, includeGroups: false, includeFolders: false },
  intentionallyNotExported: [
    'FieldEventOf',
    'ValueOf',
    'Callable',
    'InputOf',
    'IsUnknown',
    'Onward',
    'Member',
    'Element',
    'PathNode',
    'UnknownOptions',
    'OutputValue',
    'OutputInput',
    'ToolEventOf',
  ],
})

app.converter.on(Converter.EVENT_CREATE_DOCUMENT, (_, document) => {
  const heading = /^# (.*)\n/.exec(document.content[0]?.text ?? '')
  if (!heading) throw new Error(`${document.name} does not begin with a heading.`)
  document.name = heading[1]!
  document.frontmatter['category'] = 'Guides'
})

app.converter.on(Converter.EVENT_RESOLVE_BEGIN, ({ project }: Context) => {
  for (const module of project.children ?? []) {
    if (module.name === 'fieldstream') for (const each of module.children ?? []) addCategory(each, categoryOf(each))
    addCategory(module, 'Reference')
  }
})

app.converter.on(Converter.EVENT_RESOLVE_END, ({ project }: Context) => {
  // The line is worth knowing; a link to a file that is not there is not.
  for (const reflection of Object.values(project.reflections)) {
    const sources = 'sources' in reflection ? (reflection as DeclarationReflection).sources : undefined
    for (const source of sources ?? []) delete source.url
  }
})

function addCategory(reflection: DeclarationReflection, name: string): void {
  const tag = new CommentTag('@category', [{ kind: 'text', text: name }])
  // A function's docstring belongs to its signatures.
  const carriers: readonly { comment?: Comment }[] = reflection.signatures ?? [reflection]
  for (const carrier of carriers) (carrier.comment ??= new Comment()).blockTags.push(tag)
}

// A line that takes too long to colour is left half done, and the first lines take longest.
let isWarm = false
app.renderer.on(PageEvent.BEGIN, () => {
  if (isWarm) return
  isWarm = true
  const sample =
    "import { a } from 'b'\nconst c = async <D extends E>(f: G = /h/) => { for await (const i of j) `${i}` } // k"
  for (let round = 0; round < 3; round++) app.renderer.markedPlugin.getHighlighted(sample, 'ts')
})

await rm(out, { recursive: true, force: true })
const project = await app.convert()
if (!project) process.exit(1)
app.validate(project)
await app.generateDocs(project, out)
await showLinkedFilesAsText()
if (app.logger.hasErrors() || app.logger.hasWarnings()) process.exit(1)

/** The tests and sources that a page links to are in `media`; a browser would take `.ts` for a film. */
async function showLinkedFilesAsText(): Promise<void> {
  const media = join(out, 'media')
  const names = (await readdir(media).catch(() => [])).filter((name) => extname(name) === '.ts')
  await Promise.all(names.map((name) => rename(join(media, name), join(media, `${name}.txt`))))
  const pages = (await readdir(out, { recursive: true })).filter((name) => name.endsWith('.html'))
  await Promise.all(
    pages.map(async (page) => {
      const text = await readFile(join(out, page), 'utf8')
      await writeFile(join(out, page), text.replaceAll(/(href="[^"]*media\/[^"#]*\.ts)(?=["#])/g, '$1.txt'))
    }),
  )
}
