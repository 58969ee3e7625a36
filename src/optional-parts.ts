/** What few requests ask for; loaded when the first does. */
export { DeltaBatcher } from './delta-batcher.ts'
export { ProgressEstimator } from './progress-estimator.ts'
export { ShownTexts } from './shown-text.ts'
