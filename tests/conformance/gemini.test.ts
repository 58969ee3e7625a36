import { describeProvider } from './describe-provider.ts'
import { geminiSubject } from './subjects/gemini.ts'

describeProvider(geminiSubject)
