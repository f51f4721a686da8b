/** Benches that need no privilege measure in a process without permissions, whose heap is theirs alone. */

/** Runs a module in such a process, and returns what it printed, parsed as JSON. */
export async function runPure<Figures>(
  module: URL,
  args: readonly number[],
  signal: AbortSignal,
): Promise<Figures> {
  const flags = ["--quiet", "--no-prompt", "--v8-flags=--expose-gc"];
  const process = new Deno.Command(Deno.execPath(), {
    args: ["run", ...flags, decodeURI(module.pathname), ...args.map(String)],
    stdout: "piped",
    stderr: "inherit",
    signal,
  });
  const { success, stdout } = await process.output();
  signal.throwIfAborted();
  if (!success) throw new Error("Cannot bench: the process that measures failed");
  return JSON.parse(new TextDecoder().decode(stdout));
}
