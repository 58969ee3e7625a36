import { fallback, type Provider } from 'fieldstream'
import { gemini } from 'fieldstream/gemini'
import { ollama } from 'fieldstream/ollama'
import type { SimulateOptions } from 'fieldstream/testing'
import { withoutKey } from '../shared/simulated-model.ts'
import { simulatedAnswer } from './simulated.ts'
import { FaultSwitch } from './fault-switch.ts'

export interface Models {
  readonly provider: Provider
  /** Makes the simulated Gemini fail; absent where the real one is asked. */
  readonly faults: FaultSwitch | undefined
}

/** Gemini, and Ollama where that fails: the real ones where the environment has `GEMINI_API_KEY`. */
export function createModels(pace?: SimulateOptions): Models {
  const simulate = (provider: 'gemini' | 'ollama'): typeof fetch | undefined =>
    withoutKey('GEMINI_API_KEY', ({ said }) => simulatedAnswer(provider, said.at(-1)!), { provider, ...pace })
  const geminiFetch = simulate('gemini')
  const faults = geminiFetch && new FaultSwitch(geminiFetch)
  return {
    provider: fallback(
      [
        gemini({
          model: process.env['GEMINI_MODEL'] ?? 'gemini-2.5-flash',
          fetch: faults?.fetch,
          apiKey: faults && 'none',
        }),
        ollama({ model: process.env['OLLAMA_MODEL'] ?? 'llama3.2', fetch: simulate('ollama') }),
      ],
      { coolDown: 10_000 },
    ),
    faults,
  }
}
