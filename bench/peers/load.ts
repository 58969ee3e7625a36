/** A package of this folder. Not known to the compiler, since it need not be installed. */
export async function load(name: string): Promise<Record<string, Loaded>> {
  return (await import(name)) as Record<string, Loaded>
}

/** Something of such a package: a function or a class. */
export type Loaded = ((...args: unknown[]) => unknown) & (new (...args: unknown[]) => unknown)
