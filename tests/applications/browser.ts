import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core'
import { afterAll, beforeAll, onTestFinished } from 'vitest'

const executablePath = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find((path) =>
  existsSync(path),
)

/** Whether there is a browser to look at pages with; says so where there is none. */
export const hasBrowser = executablePath !== undefined
if (!hasBrowser) process.stderr.write('NOTICE: no chromium is installed, so the tests of pages are skipped.\n')

const screenshots = fileURLToPath(new URL('../../artifacts/screenshots/', import.meta.url))

/** A phone held upright. */
export const phone: BrowserContextOptions = { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true }

/** One browser for a file of tests. `open` fails the test where the page reports an error. */
export function useBrowser(): { open(address: string, options?: BrowserContextOptions): Promise<Page> } {
  let browser: Browser
  beforeAll(async () => {
    browser = await chromium.launch({ executablePath: executablePath!, args: ['--no-sandbox'] })
  })
  afterAll(() => browser.close())
  return {
    async open(address, options = {}) {
      const context = await browser.newContext({ viewport: { width: 900, height: 800 }, ...options })
      const page = await context.newPage()
      const problems: string[] = []
      page.on('pageerror', (error) => problems.push(error.message))
      page.on('console', (message) => {
        if (message.type() === 'error') problems.push(message.text())
      })
      onTestFinished(async () => {
        await context.close()
        if (problems.length > 0) throw new Error(`The page reports errors:\n- ${problems.join('\n- ')}`)
      })
      await page.goto(address)
      return page
    },
  }
}

/** Keeps what the page looks like now in `artifacts/screenshots/`, for a person to look at. */
export async function keepScreenshot(page: Page, name: string): Promise<void> {
  await page.screenshot({ path: `${screenshots}${name}.png`, fullPage: true, animations: 'disabled' })
}

/** The lengths of a text of the page, each time it grew, until `isOver`. */
export async function watchLengths(page: Page, selector: string, isOver: () => Promise<boolean>): Promise<number[]> {
  const lengths: number[] = []
  for (;;) {
    const ended = await isOver()
    const length = (await page.locator(selector).allTextContents()).join('').length
    if (length !== lengths.at(-1)) lengths.push(length)
    if (ended) return lengths
    await page.waitForTimeout(15)
  }
}
