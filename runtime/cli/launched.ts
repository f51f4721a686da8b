/** `warren run`'s other half: runs a script in the process that has the script's permissions. */

import { stripVTControlCharacters } from "node:util";
import { exit, takeConsole } from "../script/output.ts";
import { isScript, runScript, type TunnelScript, type TunnelsScript } from "../script/script.ts";
import { report } from "../script/failure.ts";

/**
 * Runs the script of this process, and ends the process.
 *
 * @param load Imports the script: a literal import in the root module needs no permission to read.
 * @param name The script's name on the command line.
 * @param url Its module.
 */
export async function runLaunched(load: () => Promise<unknown>, name: string, url: string): Promise<never> {
  takeConsole();
  return await exit(await run(load, name, url));
}

async function run(load: () => Promise<unknown>, name: string, url: string): Promise<number> {
  let made: TunnelScript | TunnelsScript;
  try {
    made = await loadScript(load, name);
  } catch (error) {
    return report(error, "warren run");
  }
  return await runScript(made, Deno.args, "warren run", name, url);
}

/**
 * @throws {TypeError} when it, or what it imports, does not load, or is no script.
 * @throws what its own code throws.
 */
async function loadScript(load: () => Promise<unknown>, name: string): Promise<TunnelScript | TunnelsScript> {
  let module: { default?: unknown };
  try {
    module = await load() as { default?: unknown };
  } catch (error) {
    throw loadError(name, error);
  }
  if (!isScript(module.default)) {
    throw new TypeError(
      `Cannot run "${name}": its default export is no script: end it with \`export default script(import.meta, …)\``,
    );
  }
  return module.default;
}

/** Deno's own reports of what does not load, in our words; what the script's code threw stays as it is. */
function loadError(name: string, error: unknown): unknown {
  const { code, message } = error as { code?: unknown; message?: unknown };
  if (code !== "ERR_MODULE_NOT_FOUND" || typeof message !== "string") return error;
  // The root module of this process means nothing to the user.
  const lines = stripVTControlCharacters(message).split("\n").filter((line) =>
    !/^\s+(?:hint:|at data:)/.test(line)
  );
  const said = lines.join("\n");
  const remedy = /not a dependency|not prefixed with/.test(said)
    ? `\n\`warren run\` knows Warren's own imports alone: run it by \`deno run --allow-ffi\`, with its own deno.json`
    : /^Requires import access/.test(said)
    ? `\nGrant it: warren run --allow-import=… ${name}`
    : "";
  return new TypeError(`Cannot run "${name}": ${said}${remedy}`);
}
