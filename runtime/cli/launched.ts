/** Second part of `warren run`: the program of the process that has the script's permissions. */

import { stripVTControlCharacters } from "node:util";
import { exit, takeConsole } from "../script/output.ts";
import { isScript, runScript, type TunnelScript, type TunnelsScript } from "../script/script.ts";
import { report } from "../script/failure.ts";

/**
 * Runs a script, then ends the process.
 *
 * @param load Imports the script. The root module passes it, because its literal imports need no permission to read.
 * @param name Name of the script on the command line.
 * @param url URL of the script's module.
 */
export async function runLaunched(load: () => Promise<unknown>, name: string, url: string): Promise<never> {
  takeConsole();
  return await exit(await run(load, name, url));
}

async function run(load: () => Promise<unknown>, name: string, url: string): Promise<number> {
  let script: TunnelScript | TunnelsScript;
  try {
    script = await loadScript(load, name);
  } catch (error) {
    return report(error, "warren run");
  }
  return await runScript(script, Deno.args, "warren run", name, url);
}

/**
 * @throws {TypeError} when a module cannot be loaded, or the default export is not a script.
 * @throws {Error} when the script's own code throws.
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
      `Cannot run "${name}": its default export must be a script: end it with \`export default script(import.meta, …)\``,
    );
  }
  return module.default;
}

/** Converts Deno's error for a module that cannot be loaded; returns other errors unchanged. */
function loadError(name: string, error: unknown): unknown {
  const { code, message } = error as { code?: unknown; message?: unknown };
  if (code !== "ERR_MODULE_NOT_FOUND" || typeof message !== "string") return error;
  // Lines about the root module, which the user does not know, are left out.
  const lines = stripVTControlCharacters(message).split("\n").filter((line) =>
    !/^\s+(?:hint:|at data:)/.test(line)
  );
  const text = lines.join("\n");
  const remedy = /not a dependency|not prefixed with/.test(text)
    ? `\n\`warren run\` resolves only Warren's own imports: use \`deno run --allow-ffi\` with a deno.json for the script`
    : /^Requires import access/.test(text)
    ? `\nGrant it: warren run --allow-import=… ${name}`
    : "";
  return new TypeError(`Cannot run "${name}": ${text}${remedy}`);
}
