/** Answers the parent's message with the milliseconds that its modules take. `load` stands where their packages are installed. */
export function answerImports(load: (name: string) => Promise<unknown>): void {
  process.once('message', (message) => {
    const { before, modules } = message as { before: string[]; modules: string[] }
    void (async () => {
      for (const name of before) await load(name)
      const start = performance.now()
      for (const name of modules) await load(name)
      process.send!(performance.now() - start)
      process.disconnect()
    })()
  })
}
