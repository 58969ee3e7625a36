import { setTimeout as wait } from 'node:timers/promises'
import { tool } from 'fieldstream'
import { z } from 'zod'

/**
 * The tools of the agents. What they know is made up here; yours would ask a service. `summary` is what the user sees of a result,
 * the model gets all of it.
 */
const places = {
  Copenhagen: { east: 12.6, north: 55.7, highs: [4, 4, 7, 12, 17, 20, 23, 22, 18, 13, 8, 5], wetDays: 10 },
  Lisbon: { east: -9.1, north: 38.7, highs: [15, 16, 19, 20, 23, 26, 28, 29, 27, 23, 18, 15], wetDays: 6 },
  Paris: { east: 2.4, north: 48.9, highs: [8, 9, 13, 16, 20, 24, 26, 26, 22, 17, 11, 8], wetDays: 9 },
  Rome: { east: 12.5, north: 41.9, highs: [12, 13, 16, 19, 24, 28, 31, 31, 27, 22, 17, 13], wetDays: 6 },
  Vienna: { east: 16.4, north: 48.2, highs: [4, 6, 11, 17, 21, 25, 27, 27, 21, 15, 9, 4], wetDays: 8 },
}
const rates = { CHF: 0.95, CZK: 24.9, DKK: 7.46, EUR: 1, GBP: 0.86, USD: 1.08 }
const railways = ['ÖBB', 'Trenitalia', 'SNCF', 'Deutsche Bahn']

type Place = keyof typeof places
export type Currency = keyof typeof rates
export const placeNames = Object.keys(places) as [Place, ...Place[]]
const currencies = Object.keys(rates) as [Currency, ...Currency[]]
const months = [
  'January',
  'February',
  'March',
  'April',
  'May',
  'June',
  'July',
  'August',
  'September',
  'October',
  'November',
  'December',
] as const

/** How far a tool is, for a bar and a line of text. */
export interface ToolProgress {
  readonly ratio: number
  readonly note: string
}

/** `pauseMs` is what a service would take to answer. */
export function createTools(pauseMs: number) {
  const findTrains = tool({
    name: 'find_trains',
    description: 'Finds the quickest trains of a day between two cities, asking one railway after the other.',
    input: z.object({ from: z.enum(placeNames), to: z.enum(placeNames) }),
    async *execute({ from, to }, { signal }) {
      if (from === to) throw new Error(`${from} is where you are.`)
      const trains: { railway: string; departs: string; arrives: string; euros: number }[] = []
      for (const [i, railway] of railways.entries()) {
        yield { ratio: i / railways.length, note: `asking ${railway}` } satisfies ToolProgress
        await wait(pauseMs, undefined, { signal })
        const departs = 6 * 60 + 12 + i * 95
        const minutes = Math.round(kilometres(from, to) * (0.62 + i * 0.05)) + i * 25
        trains.push({ railway, departs: time(departs), arrives: time(departs + minutes), euros: 39 + i * 14 })
      }
      yield { ratio: 1, note: `${trains.length} trains` } satisfies ToolProgress
      const lines = trains.map(
        ({ departs, arrives, railway, euros }) => `${departs} – ${arrives}  ${railway}, €${euros}`,
      )
      return { trains, summary: [`Trains from ${from} to ${to}`, ...lines].join('\n') }
    },
  })

  const convert = tool({
    name: 'convert_currency',
    description: "Converts an amount by the bank's rates of this morning.",
    input: z.object({ amount: z.number().positive(), from: z.enum(currencies), to: z.enum(currencies) }),
    async execute({ amount, from, to }, { signal }) {
      await wait(pauseMs, undefined, { signal })
      const converted = Math.round(((amount / rates[from]) * rates[to] + Number.EPSILON) * 100) / 100
      return { converted, summary: `${amount} ${from} = ${converted.toFixed(2)} ${to}` }
    },
  })

  const getClimate = tool({
    name: 'get_climate',
    description: 'What the weather of a city is usually like in a month.',
    input: z.object({ city: z.enum(placeNames), month: z.enum(months) }),
    async execute({ city, month }, { signal }) {
      await wait(pauseMs, undefined, { signal })
      const { highs, wetDays } = places[city]
      const high = highs[months.indexOf(month)]!
      return { high, wetDays, summary: `${city} in ${month}: up to ${high} °C, rain on ${wetDays} days` }
    },
  })

  const makePackingList = tool({
    name: 'make_packing_list',
    description: 'Makes a packing list for a number of nights, for warm or cold weather.',
    input: z.object({ nights: z.int().min(1).max(30), weather: z.enum(['warm', 'cold']) }),
    async *execute({ nights, weather }, { signal }) {
      const days = Math.min(nights + 1, 7)
      const parts = [
        ['clothes', `${days} shirts, ${days} pairs of socks, ${weather === 'warm' ? 'a sun hat' : 'a warm coat'}`],
        ['bathroom', `toothbrush, ${weather === 'warm' ? 'sun cream' : 'lip balm'}`],
        ['papers', 'passport, tickets, a card that works abroad'],
      ] as const
      for (const [i, [name]] of parts.entries()) {
        yield { ratio: i / parts.length, note: `counting ${name}` } satisfies ToolProgress
        await wait(pauseMs, undefined, { signal })
      }
      const list = parts.map(([, things]) => `☐ ${things}`)
      return { list, summary: [`For ${nights} nights`, ...list].join('\n') }
    },
  })

  return { findTrains, convert, getClimate, makePackingList }
}

/** Along the surface, near enough for Europe. */
function kilometres(a: Place, b: Place): number {
  const north = (places[a].north - places[b].north) * 111
  const east = (places[a].east - places[b].east) * 73
  return Math.hypot(north, east)
}

function time(minutes: number): string {
  const hours = Math.floor(minutes / 60)
  const clock = [hours % 24, minutes % 60].map((part) => String(part).padStart(2, '0')).join(':')
  return hours >= 24 ? `${clock} (next day)` : clock
}
