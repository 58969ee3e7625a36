/** A stick of bamboo, and the poem on it. */
export interface Stick {
  readonly number: number
  readonly title: string
  readonly luck: '上上' | '上吉' | '中吉' | '中平' | '下下'
  readonly poem: readonly string[]
}

const poems: readonly (readonly [title: string, luck: Stick['luck'], poem: string])[] = [
  ['云开见月', '上上', '云收雨歇见青天，一轮明月照前川。莫嫌行路三更晚，渡口灯红已有船。'],
  ['春水行舟', '上吉', '春来水涨好行舟，不费篙橹自在流。两岸桃花迎远客，顺风一日到西楼。'],
  ['竹破新泥', '中吉', '新笋穿泥未见天，根深不怕雨连绵。且待东风三两日，拔节凌云在眼前。'],
  ['隔岸观灯', '中平', '隔岸渔灯看得明，欲行无渡且消停。潮平月落风回转，一橹摇来到浅汀。'],
  ['雪拥山门', '下下', '雪拥山门鸟不飞，樵夫冒冷暂须归。炉中留得三分火，自有梅开报晓晖。'],
  ['老树新花', '上吉', '老树经霜又著花，故人千里寄新茶。当年插下无心柳，今日成荫绿到家。'],
  ['棋局未终', '中平', '一局残棋日影斜，局中常是看时差。让他三子心先定，闲处一着胜万家。'],
  ['夜雨归人', '中吉', '夜雨敲窗点滴迟，归人尚在路边祠。鸡鸣便有天光到，莫向灯前枉皱眉。'],
  ['风折高枝', '下下', '高枝最惹北风寒，折去一枝心未安。若肯低头培旧土，来年依旧绿千竿。'],
  ['金鲤化龙', '上上', '三年水底暗潜藏，一夜春雷破大荒。莫问龙门高几许，回头已是浪花香。'],
  ['雾里寻梅', '中平', '雾里寻梅不见枝，暗香来处是佳期。行人莫急穿云看，日上三竿自得知。'],
  ['井水同甘', '中吉', '一井清泉众口甘，朝朝汲取不曾干。与人方便人还我，门外春风日日宽。'],
]

export const sticks: readonly Stick[] = poems.map(([title, luck, poem], i) => {
  return { number: i + 1, title, luck, poem: poem.split(/[，。]/).filter(Boolean) }
})

export function drawStick(): Stick {
  return sticks[Math.floor(Math.random() * sticks.length)]!
}
