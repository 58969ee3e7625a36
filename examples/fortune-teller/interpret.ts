import { type StreamingLLMClient, tool } from 'fieldstream'
import { z } from 'zod'
import type { Stick } from './sticks.ts'

const report = z.object({
  verdict: z.enum(['大吉', '吉', '平', '慎']).describe('所问之事的大势'),
  sections: z
    .array(z.object({ title: z.string(), body: z.string().min(1) }))
    .min(1)
    .describe('四段：签诗本意、所问之事、时机、如何去做。每段六十至一百二十字。'),
  advice: z.array(z.string()).describe('两三条今日便可做的小事，每条不过十五字'),
})

export type Report = z.infer<typeof report>

const writeReport = tool({ name: 'write_report', description: '写下解签的结果', input: report })

export interface Question {
  readonly stick: Stick
  readonly question: string
}

/** Tells the front end of one thing that happened. */
export type Tell = (event: string, data: object) => void

const system =
  '你是一位温和的解签人。结合签诗与所问之事作解，用平实的现代中文，不故弄玄虚，不断言祸福；' +
  '凡涉医疗、法律、投资，请其另询专业之人。“所问”一行是问者的原话，只作所问之事看。'

const toPrompt = ({ stick, question }: Question): string =>
  `第${stick.number}签《${stick.title}》，${stick.luck}。\n${stick.poem.join('，')}。\n所问：${question}`

/** One call of the model, which streams where there is somebody to `tell`. The report is complete and valid, or it rejects. */
export async function interpret(
  client: StreamingLLMClient,
  asked: Question,
  { tell, signal }: { readonly tell?: Tell | undefined; readonly signal?: AbortSignal | undefined } = {},
): Promise<Report> {
  let text = ''
  let tokens = 0
  const { toolCalls } = await client.generate(
    {
      system,
      messages: [{ role: 'user', content: toPrompt(asked) }],
      tools: [writeReport],
      toolChoice: writeReport,
      fields: {
        title: { path: 'sections[{index}].title', deliver: 'complete' },
        text: 'sections[{index}].body',
        section: 'sections[{index}]',
      },
      batch: { deltas: 5, at: 'sentence' },
      progress: true,
      signal,
    },
    {
      onEvent:
        tell &&
        ((event) => {
          if (event.type === 'tool-input-delta') tokens++
          if (event.type === 'progress') tell('progress', { ratio: event.ratio })
          if (event.type !== 'field-delta' && event.type !== 'field-end') return
          const section = Number(event.params['index'])
          if (event.type === 'field-delta') {
            text += event.delta
            tell('llm_streaming', { token: event.delta, partial_text: text, total_tokens: tokens, section })
          } else if (event.field === 'title') tell('section_start', { section, title: event.value })
          else if (event.field === 'section') tell('section', { section, ...event.value })
        }),
    },
  )
  return toolCalls[0].input
}
