import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Page } from 'playwright-core'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { type Options, start } from '../../examples/agent-chat/server.ts'
import { simulatedUnlessLive } from '../../examples/agent-chat/simulated.ts'
import { replayFetch, simulate } from 'fieldstream/testing'
import { hasBrowser, keepScreenshot, phone, useBrowser } from './browser.ts'

for (const key of ['ANTHROPIC_API_KEY', 'OPENAI_API_KEY', 'OLLAMA_HOST']) vi.stubEnv(key, '')

const quick = simulatedUnlessLive({ delayMs: 8, firstDelayMs: 60 })

/** A server with a folder of its own; `restart` is another process on the same port and folder. */
async function serve(options: Options = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'agent-chat-'))
  const all = { folder, fetchFor: quick, pauseMs: 5, ...options }
  let running = await start({ port: 0, ...all })
  const { address } = running
  onTestFinished(async () => {
    await running.close()
    rmSync(folder, { recursive: true })
  })
  return {
    address,
    stop: () => running.close(),
    restart: async () => (running = await start({ port: Number(new URL(address).port), ...all })),
  }
}

async function ask(page: Page, text: string): Promise<void> {
  await page.getByRole('textbox', { name: 'Message' }).fill(text)
  await page.keyboard.press('Enter')
}

const answers = '.message.assistant'
const settled = (page: Page) => page.locator(`${answers}[aria-busy=false]`).last().waitFor()

describe.skipIf(!hasBrowser)('the page of the agents', () => {
  const browser = useBrowser()

  test('shows an answer as it is written, its tool at work, and how long it took to begin', async () => {
    const { address } = await serve({
      pauseMs: 250,
      fetchFor: simulatedUnlessLive({ delayMs: 8, firstDelayMs: 500 }),
      limitMs: 200,
    })
    const page = await browser.open(address)
    const suggestion = page.getByRole('button', { name: 'Trains from Vienna' })
    await suggestion.waitFor()
    await keepScreenshot(page, 'agent-chat-empty')
    await page.evaluate(() => {
      const seen: string[] = []
      Object.assign(globalThis, { seen })
      new MutationObserver(() => {
        const shown = document.querySelector('.message.assistant')?.textContent ?? ''
        if (shown !== seen.at(-1)) seen.push(shown)
      }).observe(document.body, { subtree: true, childList: true, characterData: true })
    })
    await suggestion.click()
    await page.locator('.agent.slow', { hasText: '⚠ 1×' }).waitFor()
    await keepScreenshot(page, 'agent-chat-thinking')
    await page.locator(answers, { hasText: 'seats are sold' }).waitFor()
    await settled(page)
    const seen = await page.evaluate(() => (globalThis as unknown as { readonly seen: string[] }).seen)
    expect(seen.filter((text) => text.includes('thinking…')).length).toBeGreaterThan(0)
    const texts = seen.filter((text) => !text.includes('thinking…') && !text.includes('find_trains'))
    expect(texts.length).toBeGreaterThan(4)
    expect(texts.every((text, i) => i === 0 || text.startsWith(texts[i - 1]!))).toBe(true)
    const notes = seen.map((text) => /find_trains: (.*)/.exec(text)?.[1]).filter((note) => note !== undefined)
    expect([...new Set(notes)]).toEqual([
      'asking ÖBB',
      'asking Trenitalia',
      'asking SNCF',
      'asking Deutsche Bahn',
      '4 trains',
    ])
    expect(await page.locator('#announcement').textContent()).toContain('Planner: From Vienna to Rome')
    expect(await page.locator('.tool').count()).toBe(0)
    await page.locator('.agent', { hasText: /First byte: \d+ ms/ }).waitFor()
    await keepScreenshot(page, 'agent-chat-done')
    await page.getByRole('button', { name: 'Latency' }).click()
    await page.getByRole('row', { name: /^Planner( \d+ ms){3} 1×$/ }).waitFor()
    await keepScreenshot(page, 'agent-chat-latency')
  })

  test('is used with the keyboard alone', async () => {
    const { address } = await serve()
    const page = await browser.open(address)
    await page.locator('.agent').first().waitFor()
    await page.getByRole('textbox', { name: 'Message' }).focus()
    await page.keyboard.press('Shift+Tab') // to the agents
    await page.keyboard.press('ArrowRight')
    await page.keyboard.press('Tab')
    await page.keyboard.type('What is 10 CHF in GBP?')
    await page.keyboard.press('Enter')
    await page.locator(answers, { hasText: '10 CHF = 9.05 GBP' }).waitFor()
    await settled(page)
    expect(await page.locator(answers).textContent()).toContain('Accountant · openai gpt-5-mini')
  })

  test('stops an answer, and keeps what there was of it', async () => {
    const { address } = await serve({ pauseMs: 60_000 })
    const page = await browser.open(address)
    await ask(page, 'Trains from Paris to Lisbon?')
    await page.getByText('find_trains: asking ÖBB').waitFor()
    expect(await page.getByRole('progressbar', { name: 'find_trains' }).getAttribute('value')).toBe('0')
    await keepScreenshot(page, 'agent-chat-tool')
    await page.getByRole('button', { name: 'Stop' }).click()
    await page.getByText('Stopped.').waitFor()
    await settled(page)
    expect(await page.evaluate(() => document.activeElement?.id)).toBe('text')
    const kept = await page.locator(answers).textContent()
    expect(kept).toContain('From Paris to Lisbon: let me ask the railways.')
    await keepScreenshot(page, 'agent-chat-stopped')
    await page.reload()
    await page.getByText('Stopped.').waitFor()
    expect(await page.locator(answers).textContent()).toBe(kept)
    await ask(page, 'Trains from Rome to Vienna?')
    await page.getByText('find_trains: asking ÖBB').waitFor()
    await page.evaluate(() => dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape', isComposing: true })))
    await page.getByRole('button', { name: 'Latency' }).click()
    await page.keyboard.press('Escape') // closes the table
    expect(await page.getByRole('button', { name: 'Stop' }).isVisible()).toBe(true)
    await page.keyboard.press('Escape')
    await expect.poll(() => page.getByText('Stopped.').count()).toBe(2)
  })

  test('finds its way back to an answer that is being written, and shows it once', async () => {
    const { address } = await serve({ fetchFor: simulatedUnlessLive({ delayMs: 25, firstDelayMs: 60 }) })
    const page = await browser.open(address)
    const joins: string[] = []
    page.on('websocket', (socket) => socket.on('framesent', ({ payload }) => joins.push(payload.toString())))
    const second = await browser.open(address)
    await second.goto(page.url())
    await ask(page, 'How is Lisbon in October?')
    for (const tab of [page, second]) await tab.locator(answers, { hasText: 'From where' }).waitFor()
    // The connection is lost without a word of the page's.
    await page.evaluate(() => dispatchEvent(new Event('offline')))
    await page.getByText('Connection lost').waitFor()
    await page.getByText('Connected', { exact: true }).waitFor()
    expect(joins.at(-1)).toMatch(/"type":"join".*"seen":{"message_id":"[\w-]+","seq":[1-9]/)
    await second.reload()
    for (const tab of [page, second]) await settled(tab)
    const [one, other] = await Promise.all([page, second].map((tab) => tab.locator('.messages').textContent()))
    expect(other).toBe(one)
    expect(one!.split('From where to where?')).toHaveLength(2)
    expect(await page.locator('.message').count()).toBe(2)
  })

  test('sends what was written while there was no server, once there is one', async () => {
    const { address, stop, restart } = await serve()
    const page = await browser.open(address)
    await page.clock.install()
    await ask(page, 'Hello')
    await settled(page)
    // It would try again, which the browser reports as an error where there is no server.
    await page.clock.pauseAt(Date.now() + 10_000)
    await stop()
    await page.getByText('Connection lost').waitFor()
    await ask(page, 'Trains from Vienna to Paris?')
    await page.locator('.message.sending').waitFor()
    await keepScreenshot(page, 'agent-chat-lost')
    await restart()
    await page.clock.resume()
    await page.evaluate(() => dispatchEvent(new Event('online')))
    await page.locator(answers, { hasText: 'seats are sold' }).waitFor()
    expect(await page.locator('.message').count()).toBe(4)
  })

  test('stops an answer although the connection is lost, and asks what was asked meanwhile', async () => {
    const { address } = await serve({ pauseMs: 60_000 })
    const page = await browser.open(address)
    await page.clock.install()
    await ask(page, 'Trains from Paris to Lisbon?')
    await page.getByText('find_trains: asking ÖBB').waitFor()
    await ask(page, 'Too early')
    await page.getByRole('alert').getByText('still being written').waitFor()
    await page.clock.pauseAt(Date.now() + 10_000)
    await page.evaluate(() => dispatchEvent(new Event('offline')))
    await page.getByText('Connection lost').waitFor()
    await page.keyboard.press('Escape')
    await page.getByText('Stopping…').waitFor()
    await ask(page, 'Hello')
    await page.locator('.message.sending', { hasText: 'Hello' }).waitFor()
    await ask(page, 'And again')
    await page.getByRole('alert').getByText('still waits to be sent').waitFor()
    await keepScreenshot(page, 'agent-chat-lost-in-the-middle')
    await page.clock.resume()
    await page.evaluate(() => dispatchEvent(new Event('online')))
    await page.getByText('Stopped.').waitFor()
    await page.locator(answers).nth(1).getByText('find_trains: asking ÖBB').waitFor()
    expect(await page.locator('.message').count()).toBe(4)
  })

  test('goes on with a server that was stopped in the middle of an answer', async () => {
    const { address, stop, restart } = await serve({ pauseMs: 60_000 })
    const page = await browser.open(address)
    await page.clock.install()
    await ask(page, 'Trains from Paris to Lisbon?')
    await page.getByText('find_trains: asking ÖBB').waitFor()
    await page.clock.pauseAt(Date.now() + 10_000)
    await stop()
    await page.getByText('Connection lost').waitFor()
    await ask(page, 'Hello')
    await restart()
    await page.clock.resume()
    await page.evaluate(() => dispatchEvent(new Event('online')))
    await page.getByText('The server was stopped while this was being written.').waitFor()
    await page.locator(answers).nth(1).getByText('find_trains: asking ÖBB').waitFor()
    expect(await page.locator(answers).first().textContent()).toContain('let me ask the railways.')
  })

  test('says what went wrong, and shows markup as text', async () => {
    const answer = simulate('<img src=x onerror="document.title=1"> and <b>bold</b>\n\ndata: {"x":1}\n\nevent: end', {
      provider: 'anthropic',
    })
    const breaking: typeof fetch = async (...request) => {
      const response = await replayFetch(answer)(...request)
      const text = await response.text()
      return new Response(text.slice(0, text.indexOf('event: message_delta')), response)
    }
    const { address } = await serve({ fetchFor: (agent) => (agent === 'planner' ? breaking : quick(agent)) })
    const page = await browser.open(address, { ...phone, colorScheme: 'dark' })
    await ask(page, '<i>Hello</i> & goodbye')
    await page.getByText('The answer broke off.').waitFor()
    expect(await page.locator('.message.user').textContent()).toBe('You: <i>Hello</i> & goodbye')
    expect(await page.locator(answers).textContent()).toContain(
      '<img src=x onerror="document.title=1"> and <b>bold</b>',
    )
    expect(await page.title()).toBe('Travel desk')
    await keepScreenshot(page, 'agent-chat-failed-phone-dark')
    await page.locator('.agent', { hasText: 'Packer' }).click()
    await ask(page, 'Pack for 9 nights')
    await page.locator(answers, { hasText: 'put the list on top' }).waitFor()
    await settled(page)
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(390)
    await page.evaluate(() => scrollTo(0, 0))
    await keepScreenshot(page, 'agent-chat-phone-dark')
    for (const width of [375, 320]) {
      await page.setViewportSize({ width, height: 640 })
      const cut = await page
        .locator('.agent .name, .agent .time')
        .evaluateAll((parts) =>
          parts.filter((part) => part.scrollWidth > part.clientWidth).map((part) => part.textContent),
        )
      expect(cut).toEqual([])
      expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(width)
    }
    await keepScreenshot(page, 'agent-chat-phone-narrow')
  })
})
