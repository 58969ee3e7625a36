import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openai } from 'fieldstream/openai'
import { replayFetch, simulate } from 'fieldstream/testing'
import type { Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import type { Report } from '../../examples/fortune-teller/interpret.ts'
import { type Options, providers, start } from '../../examples/fortune-teller/server.ts'
import type { Running } from '../../examples/shared/serve.ts'
import { hasBrowser, keepScreenshot, phone, useBrowser, watchLengths } from './browser.ts'

const folder = mkdtempSync(join(tmpdir(), 'fortune-page-'))
beforeAll(() => void vi.stubEnv('OPENAI_API_KEY', ''))
afterAll(() => {
  vi.unstubAllEnvs()
  rmSync(folder, { recursive: true })
})
let folders = 0

async function application(options: Options = {}): Promise<Running> {
  const running = await start({
    folder: join(folder, String(folders++)),
    provider: providers.openai(2),
    log: () => undefined,
    ...options,
  })
  onTestFinished(() => running.close())
  return running
}

/** A model that stands still in the first section of its report, until let go. */
function halting() {
  const gate = Promise.withResolvers<undefined>()
  const inner = replayFetch(simulate(example, { provider: 'openai', deltaChars: 2 }))
  const fetch: typeof globalThis.fetch = async (input, init) => {
    const { body, headers } = await inner(input, init)
    let sent = 0
    const halt = new TransformStream<Uint8Array, Uint8Array>({
      async transform(chunk, controller) {
        sent += chunk.length
        if (sent > 9000) await gate.promise
        controller.enqueue(chunk)
      },
    })
    return new Response(body!.pipeThrough(halt), { headers })
  }
  return { letGo: () => gate.resolve(undefined), provider: openai({ model: 'gpt-5-mini', fetch }) }
}

const example: Report = {
  verdict: '吉',
  sections: [
    { title: '签诗本意', body: '说的是水到渠成。有些缘分早已种下，你未必记得，它却一直在长；如今只须认得它，接住它。' },
    { title: '所问之事', body: '先把手上最要紧的一件事做成样子，看见是迟早的。' },
  ],
  advice: ['今晚早睡', '约一位前辈喝杯茶'],
}

/** Nothing is shaken for those who do not like it. */
const calm = { reducedMotion: 'reduce' } as const

/** Draws a stick with the mouse, and asks. */
async function askBy(page: Page, question: string): Promise<void> {
  await page.getByRole('button', { name: '求一支签' }).click()
  await page.getByLabel('想问什么？').fill(question)
  await page.getByRole('button', { name: '请解签' }).click()
}

const isDone = (page: Page) => () => page.getByText('解签已成。').isVisible()

describe.skipIf(!hasBrowser)('the page', () => {
  const browser = useBrowser()

  test('lets one draw a stick, ask, and watch the report grow section by section', async () => {
    const page = await browser.open((await application()).address)
    await keepScreenshot(page, 'fortune-teller-empty')
    await page.getByRole('button', { name: '求一支签' }).click()
    await page.getByRole('heading', { name: /^第\d+签 \S{4}$/ }).waitFor()
    expect(await page.locator('#poem p').allTextContents()).toHaveLength(4)
    await keepScreenshot(page, 'fortune-teller-drawn')
    await page.getByLabel('想问什么？').fill('要不要换一份工作？')
    await page.getByRole('button', { name: '请解签' }).click()
    const lengths = await watchLengths(page, '#sections p', isDone(page))
    expect(lengths.filter((length) => length > 0).length).toBeGreaterThan(8)
    expect(lengths).toEqual([...lengths].sort((a, b) => a - b))
    expect(await page.locator('#sections h3').allTextContents()).toEqual(['签诗本意', '所问之事', '时机', '如何去做'])
    expect(await page.locator('#advice li').count()).toBe(3)
    expect(await page.locator('#sections [aria-busy=true], #sections .writing').count()).toBe(0)
    await keepScreenshot(page, 'fortune-teller-done')
    // A reload finds it again.
    const shown = await page.locator('#sections').innerText()
    await page.reload()
    await page.getByText('解签已成。').waitFor()
    expect(await page.locator('#sections').innerText()).toBe(shown)
    await page.getByRole('button', { name: '再求一签' }).click()
    expect(await page.getByRole('button', { name: '求一支签' }).isVisible()).toBe(true)
    expect(new URL(page.url()).search).toBe('')
  })

  test('shows the place in the queue, and what is being written', async () => {
    const { letGo, provider } = halting()
    const { address } = await application({ provider, concurrency: 1 })
    const first = await browser.open(address, calm)
    const second = await browser.open(address, calm)
    const third = await browser.open(address, calm)
    await askBy(first, '今年的考试能过吗？')
    await first.locator('#sections .writing').waitFor()
    expect(await first.locator('#status').textContent()).toBe('正在解签……')
    await first.waitForFunction(() => (document.querySelector('#sections p')?.textContent ?? '').length > 10)
    const section = first.locator('#sections section').first()
    expect(await section.getAttribute('aria-busy')).toBe('true')
    expect(await section.locator('h3').textContent()).toBe('签诗本意')
    await keepScreenshot(first, 'fortune-teller-writing')
    await askBy(second, '他会回信吗？')
    await second.getByText('下一位就是你，请稍候。').waitFor()
    await askBy(third, '远行顺利吗？')
    await third.getByText('前面还有 1 位，请稍候。').waitFor()
    await keepScreenshot(third, 'fortune-teller-queued')
    await second.getByRole('button', { name: '停止' }).click()
    await third.getByText('下一位就是你，请稍候。').waitFor()
    letGo()
    await Promise.all([first, third].map((page) => page.getByText('解签已成。').waitFor()))
    expect(await third.locator('#sections p').allTextContents()).toEqual(example.sections.map(({ body }) => body))
    expect(await second.locator('#status').textContent()).toBe('已停止。')
  })

  test('can be stopped, keeps what was written, and asks again', async () => {
    const { letGo, provider } = halting()
    const page = await browser.open((await application({ provider })).address, calm)
    await askBy(page, '要不要搬家？')
    await page.locator('#sections .writing').waitFor()
    await page.getByRole('button', { name: '停止' }).click()
    await page.getByText('已停止。').waitFor()
    expect(await page.locator('#sections .writing').count()).toBe(0)
    expect((await page.locator('#sections p').first().textContent())!.length).toBeGreaterThan(0)
    await keepScreenshot(page, 'fortune-teller-stopped')
    await page.getByRole('button', { name: '再解一次' }).click()
    await page.locator('#sections .writing').waitFor()
    letGo()
    await page.getByText('解签已成。').waitFor()
    expect(await page.locator('#sections p').allTextContents()).toEqual(example.sections.map(({ body }) => body))
  })

  test('comes back after the connection is lost, and shows nothing twice', async () => {
    const { letGo, provider } = halting()
    const running = await application({ provider })
    const page = await browser.open(running.address, calm)
    await askBy(page, '要不要搬家？')
    await page.waitForFunction(() => (document.querySelector('#sections p')?.textContent ?? '').length > 10)
    // The browser reports the loss itself, as an error.
    page.removeAllListeners('console')
    if ('closeAllConnections' in running.server) running.server.closeAllConnections()
    await page.getByText('连接断了，正在接上……').waitFor()
    await page.getByText('正在解签……').waitFor()
    const written = (await page.locator('#sections p').first().textContent())!
    expect(example.sections[0]!.body.slice(0, written.length)).toBe(written)
    letGo()
    await page.getByText('解签已成。').waitFor()
    expect(await page.locator('#sections p').allTextContents()).toEqual(example.sections.map(({ body }) => body))
    expect(await page.locator('#sections h3').count()).toBe(2)
  })

  test('says what went wrong, and what to do', async () => {
    const cut = replayFetch((request) => {
      const { body, ...rest } = simulate(example, { provider: 'openai', deltaChars: 2 })(request)
      return { ...rest, body: (body as string).slice(0, 9000) }
    })
    const { address } = await application({ provider: openai({ model: 'gpt-5-mini', fetch: cut }) })
    const page = await browser.open(address, calm)
    await askBy(page, '要不要搬家？')
    await page.getByRole('alert').getByText('解签中断了，请稍后再试一次。').waitFor()
    expect(await page.locator('#status').textContent()).toBe('没有写完，以下只是一部分。')
    expect(await page.getByRole('button', { name: '再解一次' }).isVisible()).toBe(true)
    await keepScreenshot(page, 'fortune-teller-failed')
  })

  test('makes one task of one question, however often it is sent', async () => {
    const { provider } = halting()
    const page = await browser.open((await application({ provider })).address, calm)
    const { promise: sent, resolve: send } = Promise.withResolvers<undefined>()
    let posts = 0
    await page.route('**/tasks', async (route) => {
      posts++
      await sent
      await route.continue()
    })
    await page.getByRole('button', { name: '求一支签' }).click()
    await page.getByLabel('想问什么？').fill('要不要搬家？')
    await page.keyboard.press('Control+Enter')
    await page.keyboard.press('Control+Enter')
    send(undefined)
    await page.locator('#sections .writing').waitFor()
    expect(posts).toBe(1)
    await page.getByRole('button', { name: '停止' }).click()
    await page.getByRole('button', { name: '再解一次' }).dblclick()
    await page.locator('#sections .writing').waitFor()
    expect(posts).toBe(2)
  })

  test('says one thing when its task is gone after a restart of the server', async () => {
    const { provider } = halting()
    const first = await start({ folder: join(folder, 'first'), provider, log: () => undefined })
    // The browser reports the loss itself, as an error.
    const page = await browser.open(first.address, calm, /./)
    await askBy(page, '要不要搬家？')
    await page.locator('#sections .writing').waitFor()
    if ('closeAllConnections' in first.server) first.server.closeAllConnections()
    await page.getByText('连接断了，正在接上……').waitFor()
    await first.close()
    // It knows nothing of the task, as after a crash.
    await application({ port: Number(new URL(first.address).port) })
    await page.getByRole('alert').getByText('这次解签已经找不到了。').waitFor()
    expect(await page.locator('#status').textContent()).toBe('没有写完，以下只是一部分。')
    expect(await page.getByRole('button', { name: '再解一次' }).isVisible()).toBe(true)
  })

  test('shows what a model writes as text, never as markup', async () => {
    const body = '<img src=x onerror="document.title=1"><script>document.title=2</script>\n第二行'
    const hostile: Report = { ...example, sections: [{ title: '<b>本意</b>', body }], advice: ['<i>早睡</i>'] }
    const provider = openai({
      model: 'gpt-5-mini',
      fetch: replayFetch(simulate(hostile, { provider: 'openai', deltaChars: 3 })),
    })
    const page = await browser.open((await application({ provider })).address, calm)
    await askBy(page, '<u>安</u>否？')
    await page.getByText('解签已成。').waitFor()
    expect(await page.locator('#sections p').allTextContents()).toEqual([body])
    expect(await page.locator('#reading :is(img, script, b, i, u)').count()).toBe(0)
    expect(await page.title()).toBe('问签')
  })

  test('works by the keyboard alone', async () => {
    const page = await browser.open((await application()).address, calm)
    await page.keyboard.press('Tab')
    await page.keyboard.press('Enter')
    await page.waitForFunction(() => document.activeElement?.id === 'stick')
    await page.keyboard.press('Tab')
    await page.keyboard.type('睡得不好，怎么办？')
    await page.keyboard.press('Tab')
    await page.keyboard.press('Tab')
    await page.keyboard.press('Enter')
    await page.getByText('解签已成。').waitFor()
    expect(await page.locator('#asked').textContent()).toBe('「睡得不好，怎么办？」')
    await page.keyboard.press('Tab')
    await page.keyboard.press('Enter')
    await page.getByRole('button', { name: '求一支签' }).waitFor()
    expect(await page.evaluate(() => document.activeElement?.id)).toBe('shake')
  })

  test('fits a phone, in the dark', async () => {
    const { address } = await application()
    const page = await browser.open(address, { ...phone, ...calm, colorScheme: 'dark' })
    await keepScreenshot(page, 'fortune-teller-phone-empty')
    await askBy(page, '这段缘分还有以后吗？')
    await page.getByText('解签已成。').waitFor()
    await keepScreenshot(page, 'fortune-teller-phone-done')
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBe(390)
  })
})
