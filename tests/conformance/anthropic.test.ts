import { describeProvider } from './describe-provider.ts'
import { anthropicSubject } from './subjects/anthropic.ts'

describeProvider(anthropicSubject)
