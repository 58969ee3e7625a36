import { describeProvider } from './describe-provider.ts'
import { openaiChatSubject } from './subjects/openai-chat.ts'

describeProvider(openaiChatSubject)
