import type { Asked } from '../shared/simulated-model.ts'
import type { Report } from './interpret.ts'

interface Reading {
  readonly verdict: Report['verdict']
  readonly meaning: string
  readonly time: string
}

/** By the luck of the stick. */
const readings: Readonly<Record<string, Reading>> = {
  上上: {
    verdict: '大吉',
    meaning: '说的是久候之后，天光自现。前面那段晦暗并没有白走，你在其中攒下的耐心，正是今日的底气。',
    time: '时机已到，不必再等旁人点头。月内把第一步走出去，后面的事会一件接一件地跟上来。',
  },
  上吉: {
    verdict: '吉',
    meaning: '说的是水到渠成。有些缘分早已种下，你未必记得，它却一直在长；如今只须认得它，接住它。',
    time: '顺势就好。入春前后最宜动身；若有人来邀，多半不是偶然，不妨先应下来再细谈。',
  },
  中吉: {
    verdict: '吉',
    meaning: '说的是力在暗处。看着没有动静，根却一寸一寸地扎；别人看不见的功夫，恰是将来最稳的那一部分。',
    time: '还差一点火候。再守两三个月，先把手边的事做到自己满意，消息会比你预想的早些到。',
  },
  中平: {
    verdict: '平',
    meaning: '说的是看得见而尚未够得着。并非不成，是路要绕一绕；心里先静下来，脚下的路就清楚了。',
    time: '此时宜缓。眼下的信息还不够你做决定，等雾散一些再看；缓不是退，是让自己看清楚。',
  },
  下下: {
    verdict: '慎',
    meaning: '说的是严寒里的守。这并不是坏消息：它提醒你此刻最该护住的，是那一点不灭的火，而不是外面的热闹。',
    time: '近来不宜大动。守过这一季，把损耗降到最少，转机会从你已经忘记的一处小事上来。',
  },
}

/** What is asked, by the words in the question. */
const topics: readonly (readonly [words: RegExp, answer: string, deed: string, advice: readonly string[]])[] = [
  [
    /工作|事业|跳槽|升职|面试|创业|同事|老板/,
    '你问的是事业。签中景象落在“位置”二字：你担心的不是能力，而是有没有人看见。先把手上最要紧的一件事做成样子，看见是迟早的。',
    '列出你真正想要的三样东西，再看眼前这条路给得了哪几样。给得了两样，便值得走；一样也没有，就不必恋栈。',
    ['写下本周最要紧的一件事', '约一位前辈喝杯茶', '今晚早睡，不看消息'],
  ],
  [
    /感情|恋爱|喜欢|结婚|分手|对象|缘分/,
    '你问的是情。签中有人也在路上，只是彼此都怕先开口。与其揣测，不如把一句平常的问候说得真一些：“近来可好？”就够了。',
    '不必一次说尽，也不必句句周全。让对方看见你寻常的样子，比看见你最好的样子更要紧。',
    ['给那个人发一句问候', '独自散步半个时辰'],
  ],
  [
    /学|考|论文|读书|留学/,
    '你问的是学业。签意在“根”不在“花”。你会的比你以为的多，只是散着；把错过的题、没懂的章节收成一页纸，心就定了一半。',
    '每日留出一段谁也不打扰的时间，哪怕只有四十分钟。先难后易，做完便歇，不与旁人比快慢。',
    ['整理一页错题', '把手机放到另一间屋里', '睡前默想今日所学'],
  ],
  [
    /钱|财|投资|买房|股/,
    '你问的是财。签中所示，不在多得，而在少失。看得懂的再伸手，看不懂的便放过；大事还请问过专业的人，签诗只能安你的心。',
    '先记一个月的账，看清钱从哪里去。守住该守的，再谈添。急着翻本的念头一起，就先放一夜。',
    ['记下今天的每一笔花销', '退订一样用不着的东西'],
  ],
  [
    /身体|健康|病|睡|焦虑|累/,
    '你问的是身心。签中让你歇一歇。身子的事请先去看医生，签只说心：你并不是不够努力，是太久没有好好停下来了。',
    '把一日三餐和睡眠放回原处，其余的事都可以往后挪一挪。有人愿意听你说话时，就说出来，不算麻烦别人。',
    ['预约一次体检', '午后晒一会儿太阳', '十一点前熄灯'],
  ],
  [
    /./s,
    '你问的这件事，其实心里已有六七分答案，来求签，是想听见有人说出来。签中并没有拦你，只是请你把最怕的那个结果先想清楚。',
    '把这件事分成今天能做的和今天做不了的。前者做一件，后者先放下。三日之后再看，多半已不是原来的样子。',
    ['把心里的两个选项写在纸上', '向一位旁观的朋友说说'],
  ],
]

/** What a model might write, without one. */
export function simulatedReport({ said }: Asked): Report {
  const [, title, luck, poem] = /《(.+?)》，(.+?)。\n(.+?)，/.exec(said.at(-1)!)!
  const question = said.at(-1)!.split('所问：').at(-1)!
  const { verdict, meaning, time } = readings[luck!]!
  const [, answer, deed, advice] = topics.find(([words]) => words.test(question))!
  return {
    verdict,
    sections: [
      { title: '签诗本意', body: `「${title!}」起句“${poem!}”，${meaning}` },
      { title: '所问之事', body: answer },
      { title: '时机', body: time },
      { title: '如何去做', body: deed },
    ],
    advice: [...advice],
  }
}
