/** What a C compiler makes of a system's headers: numbers of structures and constants, for tables to be held against. */

import { command } from "./system.ts";

/** A compiler, with its objcopy. */
export interface Compiler {
  /** Its program. */
  readonly compiler: string;
  /** The program that takes a section out of an object file. */
  readonly objcopy: string;
  /** Its flags. */
  readonly flags: readonly string[];
  /** The headers to include, in this order. */
  readonly headers: readonly string[];
}

/** Tables of offsets by their structures' names; `Size` or `size` is the structure's. */
export type Structures = Readonly<Record<string, Readonly<Record<string, number>>>>;

/** Each number of the tables under its name, and the expression that is the same in C. */
export function expressionsOf(
  structures: Structures,
  members: Readonly<Record<string, string>>,
  constants: Readonly<Record<string, number>>,
): { expressions: Record<string, string>; expected: Record<string, number> } {
  const expressions: Record<string, string> = {};
  const expected: Record<string, number> = {};
  for (const [structure, table] of Object.entries(structures)) {
    for (const [key, value] of Object.entries(table)) {
      const name = `${structure}.${key}`;
      expressions[name] = key === "Size" || key === "size"
        ? `sizeof(${structure})`
        : `offsetof(${structure}, ${members[name] ?? key})`;
      expected[name] = value;
    }
  }
  for (const [name, value] of Object.entries(constants)) {
    expressions[name] = `(unsigned)${name}`;
    expected[name] = value;
  }
  return { expressions, expected };
}

/** Numbers of C's, each under its name: those of constant expressions, from the data of an object file. */
export async function numbersOf(
  { compiler, objcopy, flags, headers }: Compiler,
  expressions: Record<string, string>,
): Promise<Record<string, number>> {
  const folder = await Deno.makeTempDir();
  try {
    const source = headers.map((header) => `#include <${header}>\n`).join("") +
      `#include <stddef.h>\nconst unsigned long long numbers[] __attribute__((section(".numbers"))) = {\n` +
      Object.values(expressions).map((text) => `(unsigned long long)(${text}),\n`).join("") + "};\n";
    await Deno.writeTextFile(`${folder}/numbers.c`, source);
    await command(compiler, [...flags, "-c", "-o", `${folder}/numbers.o`, `${folder}/numbers.c`]);
    const files = [`${folder}/numbers.o`, `${folder}/numbers.bin`];
    await command(objcopy, ["-O", "binary", "-j", ".numbers", ...files]);
    const bytes = await Deno.readFile(files[1]!);
    const view = new DataView(bytes.buffer);
    return Object.fromEntries(
      Object.keys(expressions).map((name, i) => [name, Number(view.getBigUint64(i * 8, true))]),
    );
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
