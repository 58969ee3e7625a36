import type { Contestant } from './contestant.ts'

/** Loaded one by one, so that each process holds what it measures and no more. */
const loaders: Readonly<Record<string, () => Promise<Contestant>>> = {
  floor: async () => (await import('./floor.ts')).floor,
  fields: async () => (await import('./floor.ts')).floorWithFields,
  raw: async () => (await import('./sdks.ts')).rawSdk,
  helper: async () => (await import('./sdks.ts')).sdkHelper,
  loop: async () => (await import('./fieldstream.ts')).loop,
  listener: async () => (await import('./fieldstream.ts')).listener,
  node: async () => (await import('./fieldstream.ts')).listenerOverNode,
  'over-sdk': async () => (await import('./fieldstream.ts')).overSdk,
  'pi-ai': async () => (await import('../peers/pi-ai.ts')).piAi,
  'ai-sdk-deltas': async () => (await import('./ai-sdk.ts')).aiSdkDeltas,
  'ai-sdk': async () => (await import('./ai-sdk.ts')).aiSdk,
  tanstack: async () => (await import('../peers/tanstack.ts')).tanstack,
  langchain: async () => (await import('../peers/langchain.ts')).langchain,
}

export const contestantIds = Object.keys(loaders)

export function loadContestant(id: string): Promise<Contestant> {
  const load = loaders[id]
  if (!load) throw new Error(`There is no contestant "${id}". There are: ${contestantIds.join(', ')}.`)
  return load()
}
