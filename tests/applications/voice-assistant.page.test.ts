import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gemini } from 'fieldstream/gemini'
import { replayFetch, simulate } from 'fieldstream/testing'
import type { Page } from 'playwright-core'
import { beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import type { Running } from '../../examples/shared/serve.ts'
import { type Options, start } from '../../examples/voice-assistant/server.ts'
import { simulatedAnswer } from '../../examples/voice-assistant/simulated.ts'
import { hasBrowser, keepScreenshot, phone, useBrowser } from './browser.ts'

const sky = 'Why is the sky blue?'
const egg = 'How long do I boil an egg?'

/** A Gemini that waits before its answer, and once more in it. */
function pausingGemini() {
  const { promise: begun, resolve: begin } = Promise.withResolvers<undefined>()
  const { promise: going, resolve: goOn } = Promise.withResolvers<undefined>()
  const replay = replayFetch((request) => {
    const { contents } = request.body as { readonly contents: unknown }
    return simulate(simulatedAnswer('gemini', JSON.stringify(contents)), { provider: 'gemini' })(request)
  })
  const fetch: typeof globalThis.fetch = async (...request) => {
    await begun
    const whole = await replay(...request)
    let reads = 0
    const pausing = new TransformStream<Uint8Array, Uint8Array>({
      async transform(bytes, controller) {
        if (reads++ === 20) await going
        controller.enqueue(bytes)
      },
    })
    return new Response(whole.body!.pipeThrough(pausing), whole)
  }
  return {
    provider: gemini({ model: 'gemini-2.5-flash', apiKey: 'none', fetch }),
    begin: () => begin(undefined),
    goOn: () => goOn(undefined),
  }
}

describe.skipIf(!hasBrowser)('the page of the voice assistant', () => {
  const { open } = useBrowser()
  beforeEach(() => {
    vi.stubEnv('GEMINI_API_KEY', undefined)
  })

  async function run(options: Options = {}): Promise<Running> {
    const folder = mkdtempSync(join(tmpdir(), 'voice-page-'))
    const pace = { firstDelayMs: 50, delayMs: 5 }
    const running = await start({ port: 0, folder, pace, log: () => undefined, ...options })
    onTestFinished(async () => {
      await running.close()
      rmSync(folder, { recursive: true })
    })
    return running
  }

  const badges = (page: Page): Promise<string[]> => page.locator('#badges li').allTextContents()
  const said = (page: Page): Promise<string> => page.locator('#said').innerText()
  const isOver = async (page: Page): Promise<boolean> =>
    (await page.locator('#answer').getAttribute('aria-busy')) === 'false'
  const untilOver = (page: Page): Promise<void> => page.locator('#answer[aria-busy=false]').waitFor()

  /** Notes each text that an element has. */
  async function watchTexts(page: Page, id = 'said'): Promise<() => Promise<string[]>> {
    await page.evaluate(`{
      const watched = document.getElementById('${id}')
      const texts = globalThis.texts_${id} = []
      new MutationObserver(() => texts.push(watched.textContent)).observe(watched, { childList: true })
    }`)
    return () => page.evaluate<string[]>(`texts_${id}`)
  }

  async function chooseFault(page: Page, label: string): Promise<void> {
    const told = page.waitForResponse((response) => response.url().endsWith('/debug/gemini'))
    await page.getByLabel(label).check()
    await told
  }

  test('shows an answer sentence by sentence while it is written', async () => {
    const { provider, begin, goOn } = pausingGemini()
    const paused = await run({ provider })
    const page = await open(paused.address)
    const texts = await watchTexts(page)
    const announced = await watchTexts(page, 'announced')
    await page.getByLabel('Your question').fill(sky)
    await page.keyboard.press('Enter')
    await page.locator('#thinking').waitFor()
    expect(await isOver(page)).toBe(false)
    await keepScreenshot(page, 'voice-2-thinking')
    begin()
    await page.locator('#said span').first().waitFor()
    expect(await page.locator('#thinking').isVisible()).toBe(false)
    await keepScreenshot(page, 'voice-3-writing')
    const begun = await said(page)
    expect(simulatedAnswer('gemini', sky).startsWith(begun.trim())).toBe(true)
    expect(begun.length).toBeLessThan(simulatedAnswer('gemini', sky).length)
    goOn()
    await untilOver(page)
    const lengths = (await texts()).map(({ length }) => length)
    expect(lengths.length).toBeGreaterThan(3)
    expect(lengths).toEqual([...lengths].sort((a, b) => a - b))
    expect(await said(page)).toBe(simulatedAnswer('gemini', sky))
    // Told to screen readers, and then gone, so that who reads on does not meet it twice.
    await page.locator('#announced:empty').waitFor({ state: 'attached' })
    expect((await announced()).filter(Boolean)).toEqual(['Thinking…', simulatedAnswer('gemini', sky)])
  })

  test('tells who answered, how soon, and what came from the cache', async () => {
    const running = await run()
    const page = await open(running.address)
    await page.locator('#faults').waitFor()
    await keepScreenshot(page, 'voice-1-empty')
    await page.getByRole('button', { name: sky }).click()
    await untilOver(page)
    expect(await badges(page)).toEqual(['Gemini', expect.stringMatching(/^first byte after \d+\.\d\d s$/)])
    await page.getByText('0 of 1').waitFor()
    await keepScreenshot(page, 'voice-4-answered')

    await page.getByRole('button', { name: sky }).click()
    await page.getByText('from the cache', { exact: true }).waitFor()
    await page.getByText('1 of 2').waitFor()
    expect(await page.locator('#said span').count()).toBe(1)
    expect(await said(page)).toBe(simulatedAnswer('gemini', sky))
    await keepScreenshot(page, 'voice-5-cached')
  })

  test('replaces what was said when Gemini breaks off, and says who stands in', async () => {
    const running = await run()
    const page = await open(running.address)
    const texts = await watchTexts(page)
    await chooseFault(page, 'breaks off')
    await page.getByRole('button', { name: egg }).click()
    await untilOver(page)
    expect(simulatedAnswer('gemini', egg).startsWith((await texts())[0]!)).toBe(true)
    expect(await said(page)).toBe(simulatedAnswer('ollama', egg))
    expect(await badges(page)).toEqual([
      'Ollama',
      expect.stringContaining('first byte'),
      'Gemini broke off, Ollama began anew',
    ])
    await keepScreenshot(page, 'voice-6-began-anew')
    await page.reload()
    await page.getByLabel('breaks off').and(page.locator(':checked')).waitFor()

    await chooseFault(page, 'fails at once')
    await page.getByRole('button', { name: 'Help me fall asleep' }).click()
    await untilOver(page)
    expect(await badges(page)).toEqual(['Ollama', expect.stringContaining('first byte'), 'stands in'])
  })

  test('can be used by keyboard alone, and stopped', async () => {
    const { provider, begin, goOn } = pausingGemini()
    begin()
    const paused = await run({ provider })
    const page = await open(paused.address)
    await page.locator('#question:focus').waitFor()
    await page.keyboard.type('Tell me about the sky')
    await page.keyboard.press('Enter')
    await page.locator('#said span').first().waitFor()
    await page.keyboard.press('Tab')
    await page.locator('#stop:focus').waitFor()
    await page.keyboard.press('Enter')
    await untilOver(page)
    expect(await badges(page)).toContain('stopped')
    await keepScreenshot(page, 'voice-7-stopped')
    // Who pressed the button stays there; the first example is next.
    await page.locator('#ask:focus').waitFor()
    await page.keyboard.press('Tab')
    await page.keyboard.press('Enter')
    await page.locator('#asked', { hasText: sky }).waitFor()
    await page.locator('#said span').first().waitFor()
    // Another question takes the place of the one under way.
    await page.getByRole('button', { name: egg }).click()
    await page.locator('#asked', { hasText: egg }).waitFor()
    await page.locator('#said span').first().waitFor()
    expect(await isOver(page)).toBe(false)
    goOn()
    await untilOver(page)
    expect(await said(page)).toBe(simulatedAnswer('gemini', egg))
    expect(await badges(page)).toEqual(['Gemini', expect.stringContaining('first byte')])
  })

  test('says what went wrong, and that a user asks too much', async () => {
    const refused = { body: '{"error":{"code":401}}', status: 401, headers: { 'content-type': 'application/json' } }
    const replay = replayFetch(refused)
    const broken = await run({
      provider: gemini({ model: 'g', apiKey: 'none', fetch: replay }),
      limit: { requests: 1, queue: 0 },
    })
    const page = await open(broken.address, {}, /status of (503|429)/)
    const announced = await watchTexts(page, 'announced')
    const problems: string[] = []
    for (const question of [sky, egg]) {
      await page.getByLabel('Your question').fill(question)
      await page.getByRole('button', { name: 'Ask', exact: true }).click()
      await page.locator('#problem:not([hidden])').waitFor()
      await untilOver(page)
      problems.push(await page.locator('#problem').innerText())
    }
    expect(problems).toEqual([
      'Sorry, I cannot think just now. Please ask again in a moment.',
      'You have asked a lot in the last minute. Give me a moment, then ask again.',
    ])
    expect(await announced()).toContain(problems[1])
    expect(await page.locator('#faults').isVisible()).toBe(false)
    await keepScreenshot(page, 'voice-8-problem')
  })

  test('shows what a model writes as text, whatever it is', async () => {
    const evil = '<img src=x onerror="document.title=1"> is a tag.\n\ndata: no event.'
    const fetch = replayFetch(simulate(evil, { provider: 'gemini' }))
    const other = await run({ provider: gemini({ model: 'g', apiKey: 'none', fetch }) })
    const page = await open(other.address)
    await page.getByLabel('Your question').fill('<b>Hello</b>')
    await page.keyboard.press('Enter')
    await untilOver(page)
    expect(await page.locator('#said').textContent()).toBe(evil)
    expect(await page.locator('#asked').textContent()).toBe('<b>Hello</b>')
    expect(await page.locator('#answer img, #answer b').count()).toBe(0)
  })

  test('reads whole sentences aloud when asked to, and stops speaking of what is void', async () => {
    const running = await run()
    const page = await open(running.address)
    await page.addInitScript(() => {
      const spoken: string[] = []
      Object.assign(window, { spoken })
      Object.defineProperty(window, 'speechSynthesis', {
        value: {
          speak: ({ text }: SpeechSynthesisUtterance) => spoken.push(text),
          cancel: () => spoken.push('(silence)'),
        },
      })
    })
    await page.reload()
    const spoken = (): Promise<string[]> => page.evaluate<string[]>('spoken.splice(0)')
    await page.getByRole('button', { name: 'A toast for a friend' }).click()
    await untilOver(page)
    expect(await spoken()).toEqual(['(silence)'])

    await page.getByRole('switch', { name: 'Read aloud' }).click()
    await page.reload()
    await page.getByRole('switch', { name: 'Read aloud', checked: true }).waitFor()
    await chooseFault(page, 'breaks off')
    await page.getByRole('button', { name: 'My Wi-Fi keeps dropping' }).click()
    await untilOver(page)
    const [silence, ...words] = await spoken()
    expect(silence).toBe('(silence)')
    const anew = words.indexOf('(silence)')
    expect(anew).toBeGreaterThan(0)
    for (const sentence of words.slice(0, anew)) expect(sentence).toMatch(/[.!?] $/)
    expect(words.slice(anew + 1).join('')).toBe(simulatedAnswer('ollama', 'Wi-Fi'))
  })

  test('is good on a phone, and in the dark', async () => {
    const running = await run()
    for (const [name, options] of [
      ['voice-9-phone', phone],
      ['voice-10-phone-dark', { ...phone, colorScheme: 'dark' }],
      ['voice-11-dark', { colorScheme: 'dark' }],
    ] as const) {
      const page = await open(running.address, options)
      await page.getByRole('button', { name: 'Red wine on my shirt!' }).click()
      await untilOver(page)
      await page.getByText(/\d of \d/).waitFor()
      expect(await page.evaluate('document.documentElement.scrollWidth <= innerWidth')).toBe(true)
      await keepScreenshot(page, name)
    }
  })

  test('fits small phones', async () => {
    const running = await run()
    const page = await open(running.address, { ...phone, viewport: { width: 320, height: 640 } })
    await page.getByRole('button', { name: 'Red wine on my shirt!' }).click()
    await untilOver(page)
    for (const width of [320, 360, 375]) {
      await page.setViewportSize({ width, height: 640 })
      expect(await page.evaluate('document.documentElement.scrollWidth')).toBe(width)
      const { x, width: wide } = (await page.locator('#ask').boundingBox())!
      expect(x + wide).toBeLessThanOrEqual(width)
      if (width === 320) await keepScreenshot(page, 'voice-12-small-phone')
    }
  })
})
