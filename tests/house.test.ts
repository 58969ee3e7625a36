import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import ts from 'typescript'
import { describe, expect, test } from 'vitest'
import { contracts, house, type Import, type Module, parse, root } from '../scripts/house.ts'

const providers = house.flatMap(({ name }) => (name.startsWith('providers/') ? [name.slice('providers/'.length)] : []))
/** What users install for one part of the library, by the folder that loads it when it is first used. */
const helpers: Readonly<Record<string, string>> = {
  'lru-cache': 'middleware',
  'p-queue': 'middleware',
  '@opentelemetry/api': 'telemetry',
}
const sdks = ['@anthropic-ai/sdk', 'openai', 'ollama', '@google/genai']

type Rule = (module: Module, imported: Import) => boolean

const isIn = (folder: string, name: string): boolean => name.startsWith(`${folder}/`)
/** `providers/x` and `providers/x-y` are one provider in several files, and so with middleware; nothing else is anyone's family. */
const familyOf = (name: string): string => /^(?:providers|middleware)\/[a-z]+/.exec(name)?.[0] ?? name
const isByName = (target: string): boolean => target === 'fieldstream' || isIn('fieldstream', target)
const isSdk = ({ target }: Import): boolean => sdks.some((sdk) => target === sdk || target.startsWith(`${sdk}/`))

/** Each says which imports are wrong. */
const rules: Record<string, Rule> = {
  'contracts know only contracts': ({ name }, { isOurs, target }) =>
    contracts.has(name) && isOurs && !contracts.has(target),
  'the wire knows only contracts and the wire': ({ name }, { isOurs, target }) =>
    isIn('wire', name) && isOurs && !contracts.has(target) && !isIn('wire', target),
  'providers know only contracts and the wire, and not each other': ({ name }, { isOurs, target }) =>
    isIn('providers', name) &&
    isOurs &&
    !contracts.has(target) &&
    !isIn('wire', target) &&
    familyOf(name) !== familyOf(target),
  'middleware knows only contracts, and not each other': ({ name }, { isOurs, target }) =>
    isIn('middleware', name) && isOurs && !contracts.has(target) && familyOf(name) !== familyOf(target),
  'telemetry knows only contracts': ({ name }, { isOurs, target }) =>
    isIn('telemetry', name) && isOurs && !contracts.has(target),
  'the tool stream knows only contracts and itself': ({ name }, { isOurs, target }) =>
    isIn('tool-stream', name) && isOurs && !contracts.has(target) && !isIn('tool-stream', target),
  'the tool channels know only contracts and themselves': ({ name }, { isOurs, target }) =>
    isIn('tool-input', name) && isOurs && !contracts.has(target) && !isIn('tool-input', target),
  'running tools needs only contracts': ({ name }, { isOurs, target }) =>
    isIn('tools', name) && isOurs && !contracts.has(target) && !isIn('tools', target),
  'attempts know only contracts, themselves and how tools are called': ({ name }, { isOurs, target }) =>
    isIn('attempts', name) &&
    isOurs &&
    !contracts.has(target) &&
    !isIn('attempts', target) &&
    target !== 'tool-input/with-tool-input',
  'a channel is loaded when a request first takes it': (_, { isDynamic, isTypeOnly, target }) =>
    /^tool-input\/(json|xml)-channel$/.test(target) && !isDynamic && !isTypeOnly,
  'nothing but the test helpers imports the test helpers': ({ name }, { isOurs, target }) =>
    !isIn('testing', name) && isOurs && isIn('testing', target),
  'the command line knows the library by its name, as its users do, and nobody knows the command line': (
    { name },
    { isOurs, target },
  ) => (isOurs ? isIn('cli', name) !== isIn('cli', target) : isByName(target) && !isIn('cli', name)),
  'only entry files name concrete providers and middleware': ({ name }, { isOurs, target }) =>
    isOurs &&
    (isIn('providers', target) || isIn('middleware', target)) &&
    name !== 'index' &&
    familyOf(name) !== familyOf(target),
  'the core needs no provider and no SDK': ({ name }, imported) =>
    name === 'index' && (isSdk(imported) || isIn('providers', imported.target)),
  'only providers know an SDK, by its types or loaded when first used': ({ name }, imported) =>
    isSdk(imported) && !(isIn('providers', name) && (imported.isTypeOnly || imported.isDynamic)),
  'what only one part needs is loaded by that part, when first used': ({ name }, { target, isTypeOnly, isDynamic }) =>
    target in helpers && !(isIn(helpers[target]!, name) && (isTypeOnly || isDynamic)),
  'nothing else is needed at run time than eventemitter3 and eventsource-parser': ({ name }, imported) =>
    !imported.isOurs &&
    !(isIn('cli', name) && (isByName(imported.target) || imported.target.startsWith('node:'))) &&
    !imported.isTypeOnly &&
    !isSdk(imported) &&
    !(imported.target in helpers) &&
    !['eventemitter3', 'eventsource-parser'].includes(imported.target),
}

function breachesOf(rule: Rule, modules: readonly Module[]): string[] {
  return modules.flatMap((module) =>
    module.imports.filter((imported) => rule(module, imported)).map(({ target }) => `${module.name} imports ${target}`),
  )
}

describe('the house', () => {
  test.each(Object.entries(rules))('keeps its rule: %s', (_, rule) => {
    expect(house.length).toBeGreaterThan(20)
    expect(breachesOf(rule, house)).toEqual([])
  })

  test('has all its contracts', () => {
    const names = new Set(house.map(({ name }) => name))
    expect([...contracts].filter((name) => !names.has(name))).toEqual([])
  })

  test("has no provider's name in code that serves them all", () => {
    const named: string[] = []
    for (const { name, source } of house) {
      if (['providers', 'testing', 'cli'].some((room) => isIn(room, name))) continue
      const visit = (node: ts.Node): void => {
        if (ts.isStringLiteralLike(node) && providers.includes(node.text)) named.push(`${name} names ${node.text}`)
        ts.forEachChild(node, visit)
      }
      visit(source)
    }
    expect(providers).toContain('anthropic')
    expect(named).toEqual([])
  })

  test('loads with the client only what each of its runs needs', () => {
    const loaded = new Set(['client'])
    for (const name of loaded) {
      const { imports } = house.find((module) => module.name === name)!
      for (const { target, isOurs, isTypeOnly, isDynamic } of imports)
        if (isOurs && !isTypeOnly && !isDynamic) loaded.add(target)
    }
    expect(loaded).toContain('response-stream')
    const parts = ['delta-batcher', 'progress-estimator', 'shown-text', 'tools/tool-runner', 'attempts/retry']
    const rooms = ['middleware', 'telemetry', 'providers', 'wire', 'testing', 'cli']
    const names = house.map(({ name }) => name)
    expect(parts.filter((part) => !names.includes(part))).toEqual([])
    expect([...loaded].filter((name) => parts.includes(name) || rooms.some((room) => isIn(room, name)))).toEqual([])
  })

  test('goes round in no circle at run time', () => {
    const circles: string[] = []
    const seen = new Set<string>()
    const visit = (name: string, path: readonly string[]): void => {
      if (path.includes(name)) circles.push([...path.slice(path.indexOf(name)), name].join(' → '))
      if (seen.has(name)) return
      seen.add(name)
      for (const { target, isOurs, isTypeOnly } of house.find((module) => module.name === name)!.imports)
        if (isOurs && !isTypeOnly) visit(target, [...path, name])
    }
    for (const { name } of house) visit(name, [])
    expect(circles).toEqual([])
  })

  test('shows its public face by name, and does nothing there', () => {
    const index = house.find(({ name }) => name === 'index')!
    for (const statement of index.source.statements) {
      expect(
        ts.isExportDeclaration(statement) && statement.exportClause && ts.isNamedExports(statement.exportClause),
      ).toBe(true)
    }
  })

  test('asks its users to install what it needs at run time, and no more', () => {
    const { dependencies, peerDependencies, peerDependenciesMeta } = JSON.parse(
      readFileSync(join(root, 'package.json'), 'utf8'),
    ) as Record<string, Record<string, unknown>>
    expect(Object.keys(dependencies!).sort()).toEqual(['eventemitter3', 'eventsource-parser'])
    for (const peer of Object.keys(peerDependencies!)) {
      expect([...sdks, ...Object.keys(helpers)]).toContain(peer)
      expect(peerDependenciesMeta![peer]).toEqual({ optional: true })
    }
  })
})

describe('a breach of the house rules is noticed', () => {
  test.each([
    ['errors', "import { toHttpError } from './wire/transport-errors.ts'", 'contracts know only contracts'],
    [
      'events',
      "export type { FieldExtractor } from './tool-stream/field-extractor-registry.ts'",
      'contracts know only contracts',
    ],
    ['provider', "type X = import('./client.ts').ClientOptions", 'contracts know only contracts'],
    [
      'wire/lines',
      "import { anthropic } from '../providers/anthropic.ts'",
      'the wire knows only contracts and the wire',
    ],
    [
      'providers/other',
      "import { anthropic } from './anthropic.ts'",
      'providers know only contracts and the wire, and not each other',
    ],
    [
      'providers/other',
      "import type { Snapshot } from '../client.ts'",
      'providers know only contracts and the wire, and not each other',
    ],
    [
      'middleware/retry',
      "import { simulate } from '../testing/simulate.ts'",
      'middleware knows only contracts, and not each other',
    ],
    ['middleware/cache', "import { retry } from './retry.ts'", 'middleware knows only contracts, and not each other'],
    ['telemetry/index', "import { RunMetrics } from '../run-metrics.ts'", 'telemetry knows only contracts'],
    [
      'telemetry/index',
      "import { trace } from '@opentelemetry/api'",
      'what only one part needs is loaded by that part, when first used',
    ],
    [
      'tool-stream/x',
      "import { EventQueue } from '../event-queue.ts'",
      'the tool stream knows only contracts and itself',
    ],
    ['tools/x', "import { ResponseStream } from '../response-stream.ts'", 'running tools needs only contracts'],
    [
      'attempts/retry',
      "import { anthropic } from '../providers/anthropic.ts'",
      'attempts know only contracts, themselves and how tools are called',
    ],
    [
      'client',
      "import { xmlChannel } from './tool-input/xml-channel.ts'",
      'a channel is loaded when a request first takes it',
    ],
    [
      'client',
      "const { simulate } = await import('./testing/index.ts')",
      'nothing but the test helpers imports the test helpers',
    ],
    [
      'client',
      "import { anthropic } from './providers/anthropic.ts'",
      'only entry files name concrete providers and middleware',
    ],
    [
      'client',
      "const { Output } = await import('./cli/output.ts')",
      'the command line knows the library by its name, as its users do, and nobody knows the command line',
    ],
    [
      'cli/record',
      "import { toHttpError } from '../wire/transport-errors.ts'",
      'the command line knows the library by its name, as its users do, and nobody knows the command line',
    ],
    [
      'providers/other',
      "import type { Provider } from 'fieldstream'",
      'the command line knows the library by its name, as its users do, and nobody knows the command line',
    ],
    [
      'cli/record',
      "import yargs from 'yargs'",
      'nothing else is needed at run time than eventemitter3 and eventsource-parser',
    ],
    ['index', "export { anthropic } from './providers/anthropic.ts'", 'the core needs no provider and no SDK'],
    [
      'providers/other',
      "import OpenAI from 'openai'",
      'only providers know an SDK, by its types or loaded when first used',
    ],
    [
      'providers/other',
      "import { type A, b } from 'openai/streaming'",
      'only providers know an SDK, by its types or loaded when first used',
    ],
    [
      'client',
      "import type OpenAI from 'openai'",
      'only providers know an SDK, by its types or loaded when first used',
    ],
    [
      'middleware/cache',
      "import { LRUCache } from 'lru-cache'",
      'what only one part needs is loaded by that part, when first used',
    ],
    [
      'middleware/other',
      "import PQueue from 'p-queue'",
      'what only one part needs is loaded by that part, when first used',
    ],
    ['client', "await import('p-queue')", 'what only one part needs is loaded by that part, when first used'],
    [
      'schema',
      "import { z } from 'zod'",
      'nothing else is needed at run time than eventemitter3 and eventsource-parser',
    ],
    [
      'client',
      "import { readFile } from 'node:fs/promises'",
      'nothing else is needed at run time than eventemitter3 and eventsource-parser',
    ],
    [
      'client',
      "const z = require('zod')",
      'nothing else is needed at run time than eventemitter3 and eventsource-parser',
    ],
  ])('%s: %s', (name, code, rule) => {
    expect(breachesOf(rules[rule]!, [parse(name, code)])).toHaveLength(1)
  })

  test.each([
    ['errors', "import type { Usage } from './events.ts'"],
    [
      'providers/other',
      "import type OpenAI from 'openai'\nimport { LLMError } from '../errors.ts'\nawait import('openai')",
    ],
    ['providers/other', "import { type A, type B } from '@anthropic-ai/sdk'"],
    ['providers/other', "export { other } from './other-chat.ts'"],
    ['tool-input/other', "await import('./json-channel.ts')"],
    ['middleware/other', "import type PQueue from 'p-queue'\nawait import('p-queue')"],
    ['client', "import { EventEmitter } from 'eventemitter3'"],
    [
      'cli/record',
      "import { once } from 'node:events'\nimport { tool } from 'fieldstream'\nimport { brief } from './output.ts'\nawait import('fieldstream/openai')",
    ],
  ])('and what is allowed is not: %s: %s', (name, code) => {
    for (const rule of Object.values(rules)) expect(breachesOf(rule, [parse(name, code)])).toEqual([])
  })
})
