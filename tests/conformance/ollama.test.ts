import { describeProvider } from './describe-provider.ts'
import { ollamaSubject } from './subjects/ollama.ts'

describeProvider(ollamaSubject)
