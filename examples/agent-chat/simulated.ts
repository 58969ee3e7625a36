import { setTimeout as wait } from 'node:timers/promises'
import type { SimulatedCall, SimulateOptions } from 'fieldstream/testing'
import { type Asked, withoutKey } from '../shared/simulated-model.ts'
import type { AgentId, FetchFor } from './agents.ts'
import { placeNames } from './tools.ts'

interface Reply {
  /** What the model says, before its call where it makes one. */
  readonly text: string
  readonly call?: SimulatedCall
}

/** How each agent is simulated: which variable of the environment makes it live, its provider's wire, and how quick it is. */
const models: Record<
  AgentId,
  { readonly key: string; readonly options: SimulateOptions; readonly reply: (asked: Asked) => Reply }
> = {
  planner: {
    key: 'ANTHROPIC_API_KEY',
    options: { provider: 'anthropic', firstDelayMs: 240 },
    reply: ({ said, hasResult }) => {
      const [from = 'Vienna', to] = placesIn(said)
      if (!to)
        return {
          text: `From where to where? I know the trains between ${placeNames.join(', ')}. Tell me two of them and I ask all four railways.`,
        }
      if (hasResult)
        return {
          text: `I would take the first one: it is the cheapest, and it is in ${to} before the shops close. Book it at least three weeks ahead, the price goes up as seats are sold. 🚆`,
        }
      return {
        text: `From ${from} to ${to}: let me ask the railways.`,
        call: { tool: 'find_trains', input: { from, to } },
      }
    },
  },
  accountant: {
    key: 'OPENAI_API_KEY',
    options: { provider: 'openai', firstDelayMs: 380 },
    reply: ({ said, hasResult }) => {
      const [, amount, from, to] =
        /(\d+(?:\.\d+)?)\s*([a-z]{3})\b.*?\b(CHF|CZK|DKK|EUR|GBP|USD)\b/i.exec(said.at(-1) ?? '') ?? []
      if (!amount || !from || !to)
        return {
          text: 'Give me an amount and two currencies, such as “120 EUR in DKK”. I know CHF, CZK, DKK, EUR, GBP and USD, by the rates of this morning.',
        }
      if (hasResult)
        return {
          text: `Your bank will keep two or three percent of that, so plan for a little less. Paying by card is usually cheaper than changing notes at the station, as long as you let the machine charge you in ${to.toUpperCase()}.`,
        }
      const input = { amount: Number(amount), from: from.toUpperCase(), to: to.toUpperCase() }
      return { text: 'One moment, I look at the rates.', call: { tool: 'convert_currency', input } }
    },
  },
  guide: {
    key: 'OLLAMA_HOST',
    // A model that has to be loaded first takes its time.
    options: { provider: 'ollama', firstDelayMs: 900 },
    reply: ({ said, hasResult }) => {
      const city = placesIn(said).at(-1)
      const month = monthIn(said.at(-1) ?? '') ?? 'May'
      if (!city)
        return {
          text: `Which city, and which month? I have lived in ${placeNames.join(', ')}, and I remember the rain.`,
        }
      if (hasResult)
        return {
          text: `${city} is at its best early in the morning, before the groups come. Take the afternoon slowly, and keep a museum in mind for the hour in which it pours.`,
        }
      return {
        text: `${city} in ${month}… let me think back.`,
        call: { tool: 'get_climate', input: { city, month } },
      }
    },
  },
  packer: {
    key: 'OLLAMA_HOST',
    options: { provider: 'ollama', toolInput: 'xml', firstDelayMs: 450 },
    reply: ({ said, hasResult }) => {
      const words = said.at(-1) ?? ''
      const nights = Number(/(\d+)\s+(?:\w+\s+)?(?:nights?|days?)/i.exec(words)?.[1])
      if (!nights) return { text: 'For how many nights do I pack? And is it warm where you go, or cold?' }
      if (hasResult)
        return {
          text: 'It all fits into one bag that goes under the seat. Roll the shirts, they crease less; and put the list on top.',
        }
      const weather = /cold|winter|snow/i.test(words) ? 'cold' : 'warm'
      return {
        text: `${nights} nights, ${weather}: I count.`,
        call: { tool: 'make_packing_list', input: { nights, weather } },
      }
    },
  },
}

/** The network for agents whose key is in the environment, and for the others a model that is not there. */
export function simulatedUnlessLive(pace: SimulateOptions = {}): FetchFor {
  return (agent) => {
    const { key, options, reply } = models[agent]
    const { firstDelayMs = 0, ...rest } = { deltaChars: 5, ...options, ...pace }
    const fetch = withoutKey(
      key,
      (asked) => {
        const { text, call } = reply(asked)
        return call ? [call] : text
      },
      (asked) => {
        const { text, call } = reply(asked)
        return { ...rest, firstDelayMs: 0, ...(call && { text }) }
      },
    )
    if (!fetch) return undefined
    // A service sends nothing at all until its model begins, not even the head of its response.
    return async (input, init) => {
      await wait(firstDelayMs, undefined, { signal: init?.signal ?? undefined })
      return fetch(input, init)
    }
  }
}

/** The cities of the newest message that names any, as they stand there. */
function placesIn(said: readonly string[]): string[] {
  const found = said.map((text) =>
    placeNames.filter((name) => text.includes(name)).toSorted((a, b) => text.indexOf(a) - text.indexOf(b)),
  )
  return found.findLast((names) => names.length > 0) ?? []
}

function monthIn(text: string): string | undefined {
  return /January|February|March|April|May|June|July|August|September|October|November|December/.exec(text)?.[0]
}
