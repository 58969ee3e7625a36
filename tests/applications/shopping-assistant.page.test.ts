import { anthropic } from 'fieldstream/anthropic'
import { replayFetch, simulate } from 'fieldstream/testing'
import { Keyv } from 'keyv'
import type { Page } from 'playwright-core'
import { describe, expect, onTestFinished, test } from 'vitest'
import { start } from '../../examples/shopping-assistant/server.ts'
import type { Session } from '../../examples/shopping-assistant/sessions.ts'
import { simulatedAnswer } from '../../examples/shopping-assistant/simulated.ts'
import { withoutKey } from '../../examples/shared/simulated-model.ts'
import { hasBrowser, keepScreenshot, phone, useBrowser } from './browser.ts'

describe.skipIf(!hasBrowser)('the page', () => {
  const browser = useBrowser()

  const modelOf = (fetch: typeof globalThis.fetch | undefined) => anthropic({ model: 'claude-haiku-4-5', fetch })
  const simulated = () => modelOf(withoutKey('NO_SUCH_KEY', simulatedAnswer, { delayMs: 1, firstDelayMs: 1 }))

  /** A model that pauses after each of the marks in what it writes, until it is told to go on. */
  function pausing(payloads: Readonly<Record<string, object>>, marks: readonly string[]) {
    const deltaChars = 4
    const gates = marks.map(() => Promise.withResolvers<undefined>())
    const fetch = replayFetch((request) => simulate(payloadFor(request), { deltaChars })(request))
    const payloadFor = ({ body }: { readonly body: unknown }): object =>
      payloads[(body as { tool_choice: { name: string } }).tool_choice.name]!
    const provider = modelOf(async (input, init) => {
      const response = await fetch(input, init)
      const text = JSON.stringify(payloadFor(fetch.requests.at(-1)!))
      // The first frames carry none of the text.
      const stops = marks.map((mark) =>
        text.includes(mark) ? Math.ceil((text.indexOf(mark) + mark.length) / deltaChars) + 4 : 0,
      )
      let reads = 0
      const wait = new TransformStream<Uint8Array, Uint8Array>({
        async transform(chunk, controller) {
          controller.enqueue(chunk)
          const stop = stops.indexOf(++reads)
          if (stop >= 0) await gates[stop]!.promise
        },
      })
      return new Response(response.body!.pipeThrough(wait), response)
    })
    let next = 0
    return { provider, goOn: () => gates[next++]!.resolve(undefined) }
  }

  const asking = {
    reasoning: 'SECRET',
    route: 'product',
    domain: 'food',
    category: 'snacks',
    product_intent: 'chips dip',
    data_strategy: 'search',
    ask_slots: [
      {
        slot: 'people',
        message: 'With pleasure! How many people are coming, and shall there be something to dip into?',
        options: ['Just me', '2 to 4', '5 to 10'],
      },
    ],
  }
  const recommending = {
    summary_message_part_1: 'For five to ten people I looked for chips that are vegan, and for dips.',
    summary_message_part_2: 'The plain bag is empty first at every party. Corn chips carry a thick dip better.',
    summary_message_part_3: 'Take one bag of each, and a guacamole.',
    product_ids: ['snacks-01', 'snacks-03', 'snacks-04'],
    product_cards: [
      { id: 'snacks-01', reason: 'The one everybody likes' },
      { id: 'snacks-03', reason: 'Sturdy, vegan, gluten free' },
      { id: 'snacks-04', reason: 'Avocado, made for corn chips' },
    ],
    quick_replies: ['Something cheaper, please', 'Something to drink too', 'How does delivery work?'],
  }

  async function open(provider = simulated(), options: Parameters<typeof browser.open>[1] = {}, expected = /$^/) {
    const sessions = new Keyv<Session>()
    const { address, close } = await start({ port: 0, provider, sessions, log: () => undefined })
    onTestFinished(close)
    return { page: await browser.open(address, options, expected), address }
  }

  const bubbles = '.message.assistant'

  /** What a screen reader is told from now on. */
  async function listen(page: Page): Promise<() => Promise<string[]>> {
    const told = await page.evaluateHandle(() => {
      const texts: string[] = []
      const hear = (changes: MutationRecord[]) =>
        texts.push(...changes.flatMap(({ addedNodes }) => [...addedNodes].map(({ textContent }) => textContent ?? '')))
      new MutationObserver(hear).observe(document.querySelector('[aria-live]')!, { childList: true })
      return texts
    })
    return () => told.jsonValue()
  }

  /** How far the text of an element stands out against its background, as WCAG measures it. */
  function contrastOf(page: Page, selector: string): Promise<number> {
    return page.locator(selector).evaluate((element) => {
      const style = getComputedStyle(element)
      const luminance = (color: string): number => {
        const [red, green, blue] = color.match(/[\d.]+/g)!.map((part) => {
          const share = Number(part) / 255
          return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4
        })
        return 0.2126 * red! + 0.7152 * green! + 0.0722 * blue!
      }
      const [dark, light] = [luminance(style.color), luminance(style.backgroundColor)].sort((a, b) => a - b)
      return style.opacity === '1' ? (light! + 0.05) / (dark! + 0.05) : 0
    })
  }

  async function ask(page: Page, text: string): Promise<void> {
    await page.getByLabel('Your message').fill(text)
    await page.getByRole('button', { name: 'Send' }).click()
    await page.locator('#send').waitFor()
  }

  async function choose(page: Page, option: string): Promise<void> {
    await page.getByRole('button', { name: option, exact: true }).click()
    await page.locator('#send').waitFor()
  }

  test('a question grows while it is written, and can be answered with an option', async () => {
    const model = pausing({ classify_and_assess: asking }, ['category', 'pleasure', 'are coming', 'to dip'])
    const { page } = await open(model.provider)
    await page.getByRole('heading', { name: 'What are you looking for?' }).waitFor()
    await keepScreenshot(page, 'shopping-assistant-welcome')
    const told = await listen(page)
    await page.getByRole('button', { name: 'Chips for a party' }).click()
    await page.locator('.typing').getByText('Reading your message').waitFor()
    await keepScreenshot(page, 'shopping-assistant-typing')
    for (const written of [/^With pleasure/, /people are coming/, /something to dip/]) {
      model.goOn()
      await page.locator('.text.writing').filter({ hasText: written }).waitFor()
      expect(await page.locator(bubbles).getAttribute('aria-busy')).toBe('true')
    }
    expect(await page.getByRole('progressbar').evaluate((bar: HTMLProgressElement) => bar.value)).toBeGreaterThan(0)
    await keepScreenshot(page, 'shopping-assistant-question-written')
    model.goOn()
    await page.locator('#send').waitFor()
    expect(await page.locator(bubbles).getAttribute('aria-busy')).toBe('false')
    const { message, options } = asking.ask_slots[0]!
    expect(await told()).toEqual([
      ...['One moment', 'Reading your message', expect.stringMatching(/^\d products may fit$/) as string],
      ...[message, `Answers to choose from: ${options.join('; ')}.`],
    ])
    // It is found in the conversation, and nowhere else.
    await page.locator('[aria-live]:empty').waitFor({ state: 'attached' })
    expect(await page.locator('.reply').textContent()).toContain(`Assistant: ${message}`)
    await keepScreenshot(page, 'shopping-assistant-question')
    await page.getByRole('button', { name: '5 to 10' }).click()
    await page.locator('.message.user').filter({ hasText: '5 to 10' }).waitFor()
    // What was answered cannot be answered again.
    expect(await page.getByRole('button', { name: '2 to 4' }).count()).toBe(0)
  })

  test('products come one by one, and are there again after a reload', async () => {
    const payloads = { classify_and_assess: { ...asking, ask_slots: [] }, generate_final_answer_unified: recommending }
    const model = pausing(payloads, ['empty first', 'Sturdy', 'made for', 'to drink'])
    const { page } = await open(model.provider)
    const told = await listen(page)
    await page.getByLabel('Your message').fill('Vegan chips for a party of eight')
    await page.getByLabel('Your message').press('Enter')
    await page.locator('.text.writing').filter({ hasText: 'The plain bag' }).waitFor()
    await keepScreenshot(page, 'shopping-assistant-answer-written')
    for (const count of [1, 2]) {
      model.goOn()
      await page
        .locator('.card')
        .nth(count - 1)
        .waitFor()
      expect(await page.locator('.card').count()).toBe(count)
    }
    await keepScreenshot(page, 'shopping-assistant-cards')
    model.goOn()
    await page.getByRole('button', { name: 'Something cheaper, please' }).waitFor()
    expect(await page.locator('#stop').isVisible()).toBe(true)
    model.goOn()
    await page.locator('#send').waitFor()
    expect(await page.getByRole('list', { name: 'Products' }).getByRole('listitem').count()).toBe(3)
    expect((await told()).slice(-2)).toEqual([
      expect.stringMatching(/^Products: Sea Salt Sharing Bag, 500 g, €3.49; .*; .*\.$/) as string,
      `Answers to choose from: ${recommending.quick_replies.join('; ')}.`,
    ])
    await keepScreenshot(page, 'shopping-assistant-products')
    const before = await page.locator('#messages').textContent()

    await page.reload()
    await page.locator('.card').first().waitFor()
    expect(await page.locator('#messages').textContent()).toBe(before)
    await page.getByRole('button', { name: 'New chat' }).click()
    await page.getByRole('heading', { name: 'What are you looking for?' }).waitFor()
    expect(await page.locator('.message').count()).toBe(0)
  })

  test('stop keeps nothing, gives the message back, and the next one is answered', async () => {
    const model = pausing({ classify_and_assess: asking }, ['are coming'])
    const { page } = await open(model.provider)
    const told = await listen(page)
    await page.getByLabel('Your message').fill('Chips')
    await page.getByLabel('Your message').press('Enter')
    await page.locator('.text.writing').waitFor()
    await page.getByRole('button', { name: 'Stop' }).click()
    await page.locator('.note').filter({ hasText: 'Stopped. Nothing of it was kept.' }).waitFor()
    expect(await page.getByLabel('Your message').inputValue()).toBe('Chips')
    expect((await told()).at(-1)).toContain('Stopped')
    for (const colorScheme of ['light', 'dark'] as const) {
      await page.emulateMedia({ colorScheme })
      expect(await contrastOf(page, '.user.dropped')).toBeGreaterThanOrEqual(4.5)
      expect(await contrastOf(page, '.assistant.dropped')).toBeGreaterThanOrEqual(4.5)
    }
    await page.emulateMedia({ colorScheme: 'light' })
    await keepScreenshot(page, 'shopping-assistant-stopped')
    model.goOn()
    await page.getByRole('button', { name: 'Send' }).click()
    await page.getByRole('button', { name: '5 to 10' }).waitFor()
    await page.reload()
    await page.getByRole('button', { name: '5 to 10' }).waitFor()
    expect(await page.locator('.message').count()).toBe(2)
  })

  test('with the keyboard alone', async () => {
    const { page } = await open()
    // New chat, four ideas, the message.
    for (let i = 0; i < 6; i++) await page.keyboard.press('Tab')
    await page.keyboard.type('Chips')
    await page.keyboard.press('Enter')
    await page.getByRole('button', { name: 'Just me' }).waitFor()
    await page.locator('#send').waitFor()
    for (let i = 0; i < 4; i++) await page.keyboard.press('Shift+Tab')
    expect(await page.evaluate(() => document.activeElement?.textContent)).toBe('Just me')
    await keepScreenshot(page, 'shopping-assistant-keyboard')
    await page.keyboard.press('Enter')
    await page.getByRole('button', { name: 'Vegan', exact: true }).waitFor()
    await page.locator('#send').waitFor()
    // The focus is where one can go on.
    expect(await page.evaluate(() => document.activeElement?.id)).toBe('message')
    await page.keyboard.type('Everything')
    await page.keyboard.press('Enter')
    await page.locator('.card').nth(2).waitFor()
  })

  test('on a phone, in the dark', async () => {
    const { page } = await open(simulated(), { ...phone, colorScheme: 'dark' })
    await page.getByRole('heading', { name: 'What are you looking for?' }).waitFor()
    await keepScreenshot(page, 'shopping-assistant-phone-welcome')
    await choose(page, 'A shampoo for me')
    await choose(page, 'Dry')
    await choose(page, 'Repair')
    await choose(page, 'Warm scent')
    await choose(page, 'Premium')
    await page.locator('.card').first().waitFor()
    await keepScreenshot(page, 'shopping-assistant-phone-products')
    const width = await page.evaluate(() => document.documentElement.scrollWidth)
    expect(width).toBeLessThanOrEqual(390)
    // Nothing to choose from hides behind what one writes with.
    const composer = (await page.locator('#composer').boundingBox())!
    const option = (await page.locator('.options button').last().boundingBox())!
    expect(option.y + option.height).toBeLessThanOrEqual(composer.y)
  })

  test('what a model or a customer writes is text, whatever it looks like', async () => {
    const evil = '<img src=x onerror="document.title=1"><script>document.title=2</script>\n\nevent: end'
    const answer = { ...asking, ask_slots: [{ slot: 'diet', message: evil, options: [evil] }] }
    const { page } = await open(modelOf(replayFetch(simulate(answer))))
    await ask(page, evil)
    await page.locator('.options button').waitFor()
    expect(await page.locator(`${bubbles} p`).allTextContents()).toEqual(evil.split('\n\n'))
    expect(await page.locator('.message.user').textContent()).toBe(`You: ${evil.replace('\n\n', '  ')}`)
    expect(await page.locator('main img, main script').count()).toBe(0)
    expect(await page.content()).not.toContain('SECRET')
    expect(await page.title()).toBe('Shopping assistant')
    await keepScreenshot(page, 'shopping-assistant-text-only')
  })

  test('a second tab is told why it has to wait', async () => {
    const model = pausing({ classify_and_assess: asking }, ['are coming'])
    const { page, address } = await open(model.provider)
    const other = await page.context().newPage()
    await other.goto(address)
    await page.getByLabel('Your message').fill('Chips for a party')
    await page.getByLabel('Your message').press('Enter')
    await page.locator('.text.writing').waitFor()
    await other.getByLabel('Your message').fill('And shampoo')
    await other.getByLabel('Your message').press('Enter')
    await other.locator('.note').waitFor()
    expect(await other.locator('.note').textContent()).toContain('perhaps in another tab')
    expect(await other.getByLabel('Your message').inputValue()).toBe('And shampoo')
    await keepScreenshot(other, 'shopping-assistant-second-tab')
    model.goOn()
    await page.locator('#send').waitFor()
    await other.reload()
    await other.getByText('How many people').first().waitFor()
  })

  test('a tab that fell behind answers nothing, and shows how the conversation stands', async () => {
    const { page, address } = await open(simulated(), {}, /409/)
    await choose(page, 'Chips for a party')
    const other = await page.context().newPage()
    await other.goto(address)
    await choose(other, '5 to 10')
    await choose(page, '2 to 4')
    expect(await page.locator('.note').textContent()).toContain('went on elsewhere')
    expect(await page.locator('.message.user').allTextContents()).toEqual(['You: Chips for a party', 'You: 5 to 10'])
    await choose(page, 'Vegan')
    // Who comes back to a tab finds what was said in another.
    expect(await other.locator('.card').count()).toBe(0)
    await other.evaluate(() => document.dispatchEvent(new Event('visibilitychange')))
    await other.locator('.card').first().waitFor()
  })

  test('choices are there again after an answer that failed, and the focus stays where it is', async () => {
    const { page } = await open()
    await choose(page, 'Chips for a party')
    await page.route('**/rs/chat/stream', (route) =>
      route.fulfill({ status: 200, contentType: 'text/event-stream', body: '' }),
    )
    await choose(page, '5 to 10')
    await page.locator('.note').waitFor()
    await page.getByRole('button', { name: '5 to 10' }).waitFor()
    expect(await page.evaluate(() => document.activeElement?.id)).toBe('message')
    await page.unroute('**/rs/chat/stream')
    await page.getByLabel('Your message').fill('2 to 4')
    await page.getByLabel('Your message').press('Enter')
    await page.locator('#new').focus()
    await page.getByRole('button', { name: 'Vegan', exact: true }).waitFor()
    await page.locator('#send').waitFor()
    expect(await page.evaluate(() => document.activeElement?.id)).toBe('new')
    expect(await page.getByRole('button', { name: '5 to 10' }).count()).toBe(0)
  })

  test('a model that is down is an apology, a server that is gone a reason', async () => {
    const isDown = replayFetch({ body: '{"error":{"type":"overloaded_error"}}', status: 529 })
    const { page } = await open(modelOf(isDown))
    await ask(page, 'Chips')
    await page.getByText('I am sorry').first().waitFor()
    await page.route('**/rs/chat/stream', (route) =>
      route.fulfill({ status: 200, contentType: 'text/event-stream', body: '' }),
    )
    await ask(page, 'Chips')
    await page.getByText('The answer was cut off.').first().waitFor()
    await keepScreenshot(page, 'shopping-assistant-errors')
  })
})
