/** No file imports itself by way of others, type imports included. */

import { deepStrictEqual, ok } from "node:assert/strict";

const ROOT = new URL("../../", import.meta.url);
const LAYERS = ["lib", "driver", "runtime"];
/** Static and dynamic imports, exports from, and types by `import()`. */
const SPECIFIER = /(?:\bfrom|\bimport)\s*\(?\s*"(\.{1,2}\/[^"]+)"/g;

/** Their examples import the file that they stand in. */
const DOC_COMMENT = /^ *\/\*\*.*?\*\/$/gms;

/** The files that each file imports, by paths from the root of the repository. */
type Imports = ReadonlyMap<string, readonly string[]>;

async function* sourceFiles(folder: string): AsyncGenerator<string> {
  for await (const { name, isDirectory } of Deno.readDir(new URL(`${folder}/`, ROOT))) {
    const path = `${folder}/${name}`;
    if (isDirectory) yield* sourceFiles(path);
    else if (name.endsWith(".ts")) yield path;
  }
}

function importsOf(path: string, text: string): string[] {
  return Array.from(
    text.replaceAll(DOC_COMMENT, "").matchAll(SPECIFIER),
    ([, specifier]) => new URL(specifier!, `file:///${path}`).pathname.slice(1),
  );
}

/** The files on a cycle, in their order, for each cycle that a walk in depth meets. */
function cycles(imports: Imports): string[][] {
  const found: string[][] = [];
  const done = new Set<string>();
  const path: string[] = [];
  const walk = (file: string): void => {
    const start = path.indexOf(file);
    if (start >= 0) found.push(path.slice(start));
    if (start >= 0 || done.has(file)) return;
    path.push(file);
    for (const target of imports.get(file) ?? []) walk(target);
    path.pop();
    done.add(file);
  };
  for (const file of imports.keys()) walk(file);
  return found;
}

Deno.test("no file of lib, driver or runtime is part of an import cycle", async () => {
  const imports = new Map<string, readonly string[]>();
  for (const layer of LAYERS) {
    for await (const path of sourceFiles(layer)) {
      imports.set(path, importsOf(path, await Deno.readTextFile(new URL(path, ROOT))));
    }
  }
  ok(imports.size > 200, `${imports.size} files were read`);
  deepStrictEqual(cycles(imports), []);
});

Deno.test("an import cycle is found, whatever form its imports have", () => {
  const files = {
    "lib/a.ts": 'import { b } from "./b.ts"; b();',
    "lib/b.ts": 'import type { C } from "./c/c.ts"; export const b: C = () => {};',
    "lib/c/c.ts": 'export type C = import("../d.ts").D;',
    "lib/d.ts": 'export const load = () => import("./b.ts"); export * from "./e.ts";',
    "lib/e.ts": "",
  };
  const imports = new Map(Object.entries(files).map(([path, text]) => [path, importsOf(path, text)]));
  deepStrictEqual(cycles(imports), [["lib/b.ts", "lib/c/c.ts", "lib/d.ts"]]);
});
