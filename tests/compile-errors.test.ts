import { expect, test } from 'vitest'
import { compileProblems } from './documents.ts'

/** What stands before a request that is wrong; two tools, one of which has lists. */
const given = `
import { type Provider, StreamingLLMClient, tool } from 'fieldstream'
import { z } from 'zod'
declare const provider: Provider
const client = new StreamingLLMClient({ provider })
const given = [{ role: 'user', content: 'Hello' }] as const
const classify = tool({
  name: 'classify',
  input: z.object({ route: z.enum(['a', 'b']), ask_slots: z.array(z.object({ message: z.string() })) }),
})
const stream = client.stream({ messages: given, tools: [classify], fields: { ask: 'ask_slots[*].message' } })
void stream
`

const missing = (path: string): string =>
  `The path \\"${path}\\" does not exist in the tools and the output of this request`

const mistakes = {
  'a path of fields': [
    `client.stream({ messages: given, tools: [classify], fields: { ask: 'asks' } })`,
    missing('asks'),
  ],
  'a path of fields, in the long form': [
    `client.stream({ messages: given, tools: [classify], fields: { ask: { path: 'route.name' } } })`,
    missing('route.name'),
  ],
  'a path of fields of a run': [
    `client.run({ messages: given, tools: [classify], fields: { ask: 'ask_slots.message' } })`,
    missing('ask_slots.message'),
  ],
  'a path of a call in one piece': [
    `void client.generate({ messages: given, tools: [classify], fields: { ask: 'Route' } })`,
    missing('Route'),
  ],
  'a path of the output': [
    `client.stream({ messages: given, output: z.object({ title: z.string() }), fields: { title: 'titel' } })`,
    missing('titel'),
  ],
  'a path of field()': [`void stream.field('ask_slots[*].text')`, missing('ask_slots[*].text')],
  'an option of a field': [
    `client.stream({ messages: given, tools: [classify], fields: { ask: { path: 'route', delivery: 'complete' } } })`,
    `A field has no option \\"delivery\\"`,
  ],
  'the value of an option': [
    `client.stream({ messages: given, tools: [classify], fields: { ask: { path: 'route', deliver: 'whole' } } })`,
    `Type '"whole"' is not assignable to type '"delta" | "complete" | undefined'`,
  ],
  'the name of a field': [
    `void stream.fields('aks')`,
    `Argument of type '"aks"' is not assignable to parameter of type '"ask"'`,
  ],
  'an option of a request': [`client.stream({ messages: given, maxToken: 5 })`, `Did you mean to write 'maxTokens'?`],
} as const

const problems = compileProblems(Object.values(mistakes).map(([mistake]) => given + mistake))

test.each(Object.entries(mistakes).map(([name, [, message]], i) => [name, message, i] as const))(
  '%s: the compiler says in words what is wrong',
  (_, message, i) => {
    const found = problems.filter((problem) => problem.includes(`sample-${i}.ts`))
    expect(found).toHaveLength(1)
    expect(found[0]).toContain(message)
    // What a person has to read before the words come.
    expect(found[0]!.indexOf(message)).toBeLessThan(700)
  },
)
