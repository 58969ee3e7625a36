import { expect, test } from 'vitest'
import { hasRecordings, recordingNames, recordingsIn } from '../recordings.ts'
import { subjects } from './subjects/index.ts'
import { supports } from './supports.ts'

test.skipIf(!hasRecordings)('every recording is replayed, by one provider', () => {
  const claimed = subjects.flatMap(({ folders }) => recordingsIn(folders).map(({ name }) => name))
  expect(recordingNames.length).toBeGreaterThanOrEqual(191)
  expect(claimed.toSorted()).toEqual(recordingNames.toSorted())
})

test('every provider is a subject, and says what it supports', () => {
  expect(subjects.map(({ name }) => name).toSorted()).toEqual(Object.keys(supports).toSorted())
})
