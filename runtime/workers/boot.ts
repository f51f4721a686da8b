/**
 * Starts workers in a program that has no permission but `--allow-ffi`.
 *
 * Deno loads a program's own modules without any permission, but requires `--allow-read` when a worker loads the same
 * modules. Therefore a worker starts from text, the function {@linkcode boot}, whose hooks (`node:module`) read modules
 * through FFI if Deno may not read them. This grants no additional rights, because FFI can read any file anyway.
 */

/** Starts a worker that imports a module. */
export async function startWorker(module: URL, name: string): Promise<Worker> {
  const { readModuleText } = await import("../../driver/linux/module_text.ts");
  const text = `(${boot})(${readModuleText}, ${JSON.stringify(module.href)})`;
  const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
  const worker = new Worker(url, { type: "module", name });
  // The worker fetches the URL after this function has returned.
  worker.addEventListener("message", () => URL.revokeObjectURL(url), { once: true });
  return worker;
}

/** Program of the worker. Only its source text is passed on, so it uses nothing outside itself. */
async function boot(readText: (path: string) => string, module: string): Promise<void> {
  const { registerHooks, stripTypeScriptTypes } = await import("node:module");
  const mayRead = (path: string) => Deno.permissions.querySync({ name: "read", path }).state === "granted";

  /** Compiles a module to JavaScript with a source map, so that errors refer to lines of the module's file. */
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
      // Deno loads packages without a permission.
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
