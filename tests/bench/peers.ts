/** The peers that are programs of C: `peers/NAME.c`, compiled to `peers/build/NAME`. */

const SOURCES = new URL("peers/", import.meta.url);
const BUILD = new URL("peers/build/", import.meta.url);

/**
 * Compiles a peer when it has not been, or its source is newer, and returns the program's path.
 *
 * @throws {Deno.errors.NotFound} when there is no gcc.
 * @throws {Error} with what gcc says, when it refuses.
 */
export async function buildPeer(name: string): Promise<string> {
  const source = new URL(`${name}.c`, SOURCES).pathname;
  const program = new URL(name, BUILD).pathname;
  if (modified(program) >= modified(source)) return program;
  await Deno.mkdir(BUILD, { recursive: true });
  const compiler = new Deno.Command("gcc", { args: ["-O2", "-o", program, source], stderr: "piped" });
  const { success, stderr } = await compiler.output();
  if (!success) throw new Error(`Cannot compile ${source}:\n${new TextDecoder().decode(stderr)}`);
  return program;
}

/** Compiles every peer; returns their programs. */
export async function buildPeers(): Promise<string[]> {
  const names: string[] = [];
  for await (const { name } of Deno.readDir(SOURCES)) {
    if (name.endsWith(".c")) names.push(name.slice(0, -".c".length));
  }
  return Promise.all(names.sort().map(buildPeer));
}

/** When a file was last written; 0 when there is none. */
function modified(path: string): number {
  try {
    return Deno.statSync(path).mtime!.getTime();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return 0;
    throw error;
  }
}
