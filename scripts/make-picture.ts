/**
 * `npm run picture`: runs the demo in a terminal of its own making, and writes what it shows, and when, as `docs/demo.svg`.
 * `-- --print` prints the picture instead. The demo's clock is a simulated one, so that every run gives the same picture.
 */
import { writeFileSync } from 'node:fs'
// What takes real time to load would be overtaken by the simulated clock.
import '@anthropic-ai/sdk'
import { Screen, type Run } from './picture/screen.ts'
import { SimulatedClock } from './picture/simulated-clock.ts'

const isPrinted = process.argv.includes('--print')

const columns = 96
const rows = 25
/** Milliseconds for which a scene that is complete stays. */
const rest = 3000

const cell = { width: 8, height: 19 }
const padding = 16
const width = columns * cell.width + 2 * padding
const height = rows * cell.height + 2 * padding

/** How the terminal's styles look, on light and on dark. */
const styles: Readonly<Record<string, readonly [name: string, rules: string, light: string, dark: string]>> = {
  '': ['p', '', '#24292f', '#e6edf3'],
  '1': ['b', 'font-weight:700', '#24292f', '#e6edf3'],
  '2': ['d', '', '#57606a', '#9198a1'],
  '3': ['i', 'font-style:italic', '#24292f', '#e6edf3'],
  '1;36': ['c', 'font-weight:700', '#0b6b75', '#56d4dd'],
  '1;32': ['g', 'font-weight:700', '#116329', '#56d364'],
  '1;33': ['y', 'font-weight:700', '#7d4e00', '#e3b341'],
  '1;35': ['m', 'font-weight:700', '#8250df', '#d2a8ff'],
}

interface Scene {
  readonly start: number
  readonly end: number
  readonly runs: readonly Run[]
}

async function recordDemo(): Promise<Screen> {
  const clock = new SimulatedClock()
  const screen = new Screen(() => clock.now)
  const { stdout, argv } = process
  const write = stdout.write.bind(stdout)
  process.argv = argv.slice(0, 2)
  delete process.env['NO_COLOR']
  Object.assign(stdout, { isTTY: true, columns })
  stdout.write = (text: string | Uint8Array) => {
    screen.write(String(text))
    return true
  }
  try {
    await clock.drive(() => import('../examples/demo.ts'))
  } finally {
    stdout.write = write
  }
  return screen
}

/** Each of the demo's titles begins a scene; what does not fit into the picture is below its edge. */
function scenesOf({ runs, lastWrite }: Screen): Scene[] {
  const titles = runs.filter(({ style, column }) => style === '1;36' && column === 0)
  if (titles.length === 0) throw new Error('The demo has no title.')
  let later = 0
  return titles.map(({ row, on }, i) => {
    const next = titles[i + 1]
    const top = i === 0 ? 0 : row
    const begin = i === 0 ? 0 : on
    const shown = runs
      .filter((run) => run.row >= top && run.row < Math.min(top + rows, next?.row ?? Infinity))
      .map((run) => ({ ...run, row: run.row - top, on: run.on + later, off: run.off && run.off + later }))
    const start = begin + later
    later += rest
    return { start, end: (next?.on ?? lastWrite) + later, runs: shown }
  })
}

function draw(scenes: readonly Scene[]): string {
  const total = scenes.at(-1)!.end
  const names = new Map<string, string>()
  const percent = (time: number): string => `${Number(((100 * time) / total).toFixed(2))}%`
  /** The name of the animation that shows something between two times. */
  const shownFrom = (on: number, off: number | undefined): string => {
    const hidden = on > 0 ? `0%{opacity:0}${percent(on)}{opacity:1}` : '0%{opacity:1}'
    const frames = off === undefined || off >= total ? hidden : `${hidden}${percent(off)}{opacity:0}`
    if (!names.has(frames)) names.set(frames, `k${names.size.toString(36)}`)
    return names.get(frames)!
  }
  const groups = scenes.map(({ start, end, runs }, i) => {
    const byTime = Map.groupBy(runs, ({ on, off }) => `${on} ${off ?? ''}`)
    const texts = [...byTime.values()].map((some) => {
      const { on, off } = some[0]!
      // Without motion, what was taken off the screen again is not there.
      const gone = off === undefined ? '' : ' class="o"'
      return `<g${gone} style="animation-name:${shownFrom(on, off)}">${some.map(drawRun).join('')}</g>`
    })
    return `<g${i > 0 ? ' class="o"' : ''} style="animation-name:${shownFrom(start, end)}">\n${texts.join('\n')}\n</g>`
  })
  const keyframes = [...names].map(([frames, name]) => `@keyframes ${name}{${frames}}`)
  const look = Object.values(styles)
  const description =
    'A terminal. Under each question of a customer, the fields that the customer may see are written character by character, internal ones are held back, and at the end the complete, valid payload is printed.'
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-labelledby="title desc">
<title id="title">npm run demo</title>
<desc id="desc">${description}</desc>
<style>
text{font:13.3px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
rect{fill:#f6f8fa;stroke:#d1d9e0}
g{animation:${total / 1000}s step-end infinite}
.o{opacity:0}
${look.map(([name, rules, light]) => `.${name}{fill:${light};${rules}}`).join('\n')}
@media (prefers-color-scheme:dark){
rect{fill:#0d1117;stroke:#3d444d}
${look.map(([name, , , dark]) => `.${name}{fill:${dark}}`).join('\n')}
}
${keyframes.join('\n')}
@media (prefers-reduced-motion:reduce){g{animation:none!important}}
</style>
<rect x=".5" y=".5" width="${width - 1}" height="${height - 1}" rx="8"/>
${groups.join('\n')}
</svg>
`
}

function drawRun({ row, column, text, cells, style }: Run): string {
  const known = styles[style]
  if (!known) throw new Error(`The picture has no look for the style "${style}".`)
  const x = padding + column * cell.width
  const y = padding + row * cell.height + 14
  const escaped = text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
  // Fonts differ in width; the grid does not.
  return `<text class="${known[0]}" x="${x}" y="${y}" textLength="${cells * cell.width}" lengthAdjust="spacingAndGlyphs">${escaped}</text>`
}

const picture = draw(scenesOf(await recordDemo()))
if (isPrinted) process.stdout.write(picture)
else writeFileSync(new URL('../docs/demo.svg', import.meta.url), picture)
