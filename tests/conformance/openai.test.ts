import { describeProvider } from './describe-provider.ts'
import { openaiSubject } from './subjects/openai.ts'

describeProvider(openaiSubject)
