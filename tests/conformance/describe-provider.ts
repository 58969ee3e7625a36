import { afterEach, beforeEach, describe, vi } from 'vitest'
import { describeClients } from './clients.ts'
import { describeConnections } from './connections.ts'
import { describeFailures } from './failures.ts'
import { describeRecordedAnswers } from './recorded-answers.ts'
import { describeRequests } from './requests.ts'
import type { Subject } from './subject.ts'

/** All that is promised of every provider, tested over its official SDK and the wire it really speaks. */
export function describeProvider(subject: Subject): void {
  describe(subject.name, () => {
    const { environment, others } = subject.key
    beforeEach(() => {
      for (const name of [...environment, ...others]) vi.stubEnv(name, undefined)
    })
    afterEach(() => {
      vi.unstubAllEnvs()
    })
    describeRequests(subject)
    describeRecordedAnswers(subject)
    describeFailures(subject)
    describeClients(subject)
    describeConnections(subject)
  })
}
