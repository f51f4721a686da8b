/**
 * Starts a worker with a module of its own, though the program may have `--allow-ffi` alone.
 *
 * Deno lets a program load its own modules, and asks for `--allow-read` when a worker loads the same ones. So the
 * worker starts from a text, {@linkcode boot}, and has its modules' text read as everything else here is, through
 * FFI: by hooks of `node:module`, for files that Deno refuses to the worker. What may load code by FFI anyway gets
 * nothing new by that. Where the program may read, Deno loads the modules itself.
 */

import { moduleReader } from "../../driver/mod.ts";

/** Starts a worker that imports a module. */
export async function startWorker(module: URL, name: string): Promise<Worker> {
  const text = `(${boot})(${await moduleReader()}, ${JSON.stringify(module.href)})`;
  const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
  const worker = new Worker(url, { type: "module", name });
  // The worker fetches it later than this returns.
  worker.addEventListener("message", () => URL.revokeObjectURL(url), { once: true });
  return worker;
}

/** The worker's first program: its text is all that there is, so it uses nothing from outside of itself. */
async function boot(readText: (path: string) => string, module: string): Promise<void> {
  const { registerHooks, stripTypeScriptTypes } = await import("node:module");
  const mayRead = (path: string) => Deno.permissions.querySync({ name: "read", path }).state === "granted";

  /** A module as JavaScript, whose errors name the lines of its file. */
  function compile(url: string, text: string): string {
    const code = stripTypeScriptTypes(text, { mode: "transform", sourceMap: true, sourceUrl: url });
    const marker = "//# sourceMappingURL=data:application/json;base64,";
    const at = code.lastIndexOf(marker);
    if (at < 0) return code;
    const map = JSON.parse(
      new TextDecoder().decode(Uint8Array.fromBase64(code.slice(at + marker.length).trim())),
    );
    map.sources = [url];
    return code.slice(0, at) + marker + new TextEncoder().encode(JSON.stringify(map)).toBase64();
  }

  registerHooks({
    load(url, context, next) {
      const kind = /^file:.*\.(?:(m?ts)|m?js|(json))$/.exec(url);
      // Packages are Deno's own to load, and it lets everybody have them.
      if (kind === null || url.includes("/node_modules/")) return next(url, context);
      const path = decodeURIComponent(new URL(url).pathname);
      if (mayRead(path)) return next(url, context);
      const text = readText(path);
      return kind[2] !== undefined
        ? { format: "json", source: text, shortCircuit: true }
        : { format: "module", source: kind[1] === undefined ? text : compile(url, text), shortCircuit: true };
    },
  });
  await import(module);
}
