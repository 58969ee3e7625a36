import type { FuzzTarget } from '../target.ts'
import { framingTargets } from './framing.ts'
import { providerTargets } from './providers.ts'
import { scannerTarget } from './scanner.ts'
import { tagTargets } from './tags.ts'

export const targets: readonly FuzzTarget[] = [scannerTarget, ...framingTargets, ...tagTargets, ...providerTargets]
