/**
 * Models and services that are not there, for tests without a key or a network.
 *
 * @module fieldstream/testing
 */

export { recordFetch } from './record.ts'
export type { RecordFetch, RecordOptions } from './record.ts'
export { replayFetch } from './replay.ts'
export type { Recording, ReplayFetch, ReplayOptions, ReplayRequest, ReplaySource } from './replay.ts'
export { simulate } from './simulate.ts'
export type { SimulatedCall, SimulateOptions } from './simulate.ts'
