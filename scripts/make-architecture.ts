// The house in one picture, from what its files import: `npm run script scripts/make-architecture.ts` writes
// `docs/architecture.svg`. A test compares it with the files.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { contracts, house, type Module, root } from './house.ts'

export const picturePath = join(root, 'docs/architecture.svg')

const names = {
  contracts: 'contracts',
  entry: 'index.ts',
  run: 'one request and its run',
  late: 'what few requests ask for',
}

interface Room {
  readonly name: string
  readonly files: string[]
  /** Rooms that it imports at run time; false where only ever by `import()`. */
  readonly imports: Map<string, boolean>
  row: number
}

/** Those that a file brings with it, itself included. */
function broughtBy(name: string, modules: readonly Module[]): Set<string> {
  const found = new Set([name])
  for (const each of found) {
    for (const { target, isOurs, isTypeOnly, isDynamic } of modules.find((module) => module.name === each)?.imports ??
      [])
      if (isOurs && !isTypeOnly && !isDynamic) found.add(target)
  }
  return found
}

function roomsOf(modules: readonly Module[]): Room[] {
  const early = broughtBy('client', modules)
  const dynamic = modules.flatMap(({ imports }) => imports.filter(({ isOurs, isDynamic }) => isOurs && isDynamic))
  const late = new Set(dynamic.flatMap(({ target }) => [...broughtBy(target, modules)]))
  const roomOf = (name: string): string => {
    if (contracts.has(name)) return names.contracts
    if (name.includes('/')) return `${name.split('/')[0]!}/`
    if (name === 'index') return names.entry
    return late.has(name) && !early.has(name) ? names.late : names.run
  }
  const rooms = new Map<string, Room>()
  for (const { name, imports } of modules) {
    const roomName = roomOf(name)
    const room = rooms.get(roomName) ?? { name: roomName, files: [], imports: new Map<string, boolean>(), row: 0 }
    rooms.set(roomName, room)
    room.files.push(name.split('/').at(-1)!)
    for (const { target, isOurs, isTypeOnly, isDynamic } of imports) {
      const other = isOurs ? roomOf(target) : roomName
      if (isTypeOnly || other === roomName || other === names.contracts) continue
      room.imports.set(other, (room.imports.get(other) ?? false) || !isDynamic)
    }
  }
  const all = [...rooms.values()]
  // As far below those that import it as it takes.
  for (let pass = 0; pass <= all.length; pass++) {
    for (const { imports, row } of all)
      for (const name of imports.keys()) {
        const other = rooms.get(name)!
        if (other.row > row) continue
        if (pass === all.length) throw new Error(`${name} imports, by way of others, what imports it.`)
        other.row = row + 1
      }
  }
  return all
}

interface Box {
  readonly room: Room
  readonly lines: readonly string[]
  readonly x: number
  readonly y: number
  readonly width: number
  readonly height: number
}

const width = 940
const gap = 18
const rise = 46
const lineHeight = 16

function wrap(files: readonly string[], boxWidth: number): string[] {
  const lines: string[] = []
  for (const file of files.toSorted()) {
    const longer = lines.length > 0 ? `${lines.at(-1)!}  ${file}` : file
    if (lines.length > 0 && longer.length * 6.2 < boxWidth - 20) lines[lines.length - 1] = longer
    else lines.push(file)
  }
  return lines
}

function layOut(rooms: readonly Room[]): Box[] {
  const boxes: Box[] = []
  const centre = (name: string): number => {
    const box = boxes.find(({ room }) => room.name === name)
    return box ? box.x + box.width / 2 : 0
  }
  let y = 8
  const addRow = (row: readonly Room[]): void => {
    const weights = row.map(({ files }) => 3 + Math.sqrt(files.length) * 1.5)
    const unit = (width - gap * (row.length - 1)) / weights.reduce((sum, weight) => sum + weight, 0)
    let x = 0
    const added = row.map((room, i) => {
      const boxWidth = Math.round(weights[i]! * unit)
      const lines = wrap(room.files, boxWidth)
      const box = { room, lines, x, y, width: boxWidth, height: 34 + lines.length * lineHeight }
      x += boxWidth + gap
      return box
    })
    boxes.push(...added)
    y += Math.max(...added.map(({ height }) => height)) + rise
  }
  const upper = rooms.filter(({ name }) => name !== names.contracts)
  const rows = Map.groupBy(upper, ({ row }) => row)
  for (const [, row] of [...rows].toSorted(([a], [b]) => a - b)) {
    // Beneath those that import it; in the first row the entry of the core comes first.
    const place = ({ name }: Room): number => {
      const above = boxes.filter(({ room }) => room.imports.has(name)).map(({ room }) => centre(room.name))
      return above.length > 0 ? above.reduce((sum, x) => sum + x, 0) / above.length : name === names.entry ? -1 : width
    }
    addRow(row.toSorted((a, b) => place(a) - place(b) || (a.name < b.name ? -1 : 1)))
  }
  addRow(rooms.filter(({ name }) => name === names.contracts))
  return boxes
}

/** Whether `name` comes with something else that a room imports. */
function isBroughtAlong(name: string, { imports }: Room, rooms: readonly Room[]): boolean {
  return [...imports].some(([other, isStatic]) => {
    const room = rooms.find((each) => each.name === other)!
    return other !== name && isStatic && (room.imports.get(name) === true || isBroughtAlong(name, room, rooms))
  })
}

const escape = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')

/** The picture of these files, as SVG. */
export function drawHouse(modules: readonly Module[] = house): string {
  const rooms = roomsOf(modules)
  const boxes = layOut(rooms)
  const height = Math.max(...boxes.map((box) => box.y + box.height)) + 34
  const arrows = boxes.flatMap((from) =>
    [...from.room.imports].flatMap(([name, isStatic]) => {
      if (isBroughtAlong(name, from.room, rooms)) return []
      const to = boxes.find(({ room }) => room.name === name)!
      const [x1, y1] = [from.x + from.width / 2, from.y + from.height]
      const [x2, y2] = [to.x + to.width / 2, to.y - 5]
      const bend = (y2 - y1) / 2
      const path = `M${x1} ${y1}C${x1} ${y1 + bend} ${x2} ${y2 - bend} ${x2} ${y2}`
      return `<path class="arrow${isStatic ? '' : ' late'}" d="${path}" marker-end="url(#head)"/>`
    }),
  )
  const drawn = boxes.map(({ room, lines, x, y, ...size }) => {
    const files = lines.map(
      (line, i) => `<text class="file" x="${x + 10}" y="${y + 40 + i * lineHeight}">${escape(line)}</text>`,
    )
    return [
      `<rect class="${room.name === names.contracts ? 'room ground' : 'room'}" x="${x}" y="${y}" width="${size.width}" height="${size.height}" rx="6"/>`,
      `<text class="name" x="${x + 10}" y="${y + 21}">${escape(room.name)}</text>`,
      ...files,
    ].join('\n')
  })
  const words = rooms.flatMap(({ name, imports }) =>
    imports.size > 0 ? [`${name} imports ${[...imports.keys()].join(', ')}.`] : [],
  )
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="-4 0 ${width + 8} ${height}" role="img" aria-labelledby="title words">
<title id="title">The files of src, by room, and which room imports which</title>
<desc id="words">${escape(words.join(' '))} All import contracts.</desc>
<style>
text { font: 12px system-ui, sans-serif; fill: #24292f }
.name { font-weight: 600; font-size: 13px }
.file, .note { fill: #57606a; font-size: 11.5px; white-space: pre }
.room { fill: #f6f8fa; stroke: #8c959f }
.ground { fill: #ddf4ff; stroke: #54aeff }
.arrow { fill: none; stroke: #0969da; stroke-width: 1.4 }
.late { stroke-dasharray: 5 4 }
.tip { fill: #0969da }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 }
.file, .note { fill: #9da7b3 }
.room { fill: #161b22; stroke: #6e7681 }
.ground { fill: #0c2d4d; stroke: #388bfd }
.arrow { stroke: #58a6ff }
.tip { fill: #58a6ff }
}
</style>
<defs><marker id="head" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path class="tip" d="M0 0L8 4L0 8z"/></marker></defs>
${arrows.join('\n')}
${drawn.join('\n')}
<text class="note" x="0" y="${height - 10}">An arrow: imports at run time; broken: only when first used. Not drawn: what an import brings along, types, and contracts, which all import.</text>
</svg>
`
}

if (import.meta.main) writeFileSync(picturePath, drawHouse())
