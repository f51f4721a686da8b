/** The stand-in for macOS's libSystem: built by cc, loaded in place of the library, and asked what it was told. */

import { fileURLToPath } from "node:url";
import { command } from "../../kit/system.ts";

const SOURCE = fileURLToPath(new URL("./libsystem.c", import.meta.url));
const FLAGS = [
  "-std=gnu11",
  "-O2",
  "-Wall",
  "-Wextra",
  "-Werror",
  "-fno-builtin",
  "-shared",
  "-fPIC",
  "-Wl,-Bsymbolic",
];
/** What it has for tests. */
const SYMBOLS = {
  // int standin_log(char *buffer, uint32_t size);
  standin_log: { parameters: ["buffer", "u32"], result: "i32" },
  // void standin_fail(const char *operation, int number, int times);
  standin_fail: { parameters: ["buffer", "i32", "i32"], result: "void" },
  // int standin_open(void);
  standin_open: { parameters: [], result: "i32" },
  // void standin_route(const uint8_t *key, int bits, int index);
  standin_route: { parameters: ["buffer", "i32", "i32"], result: "void" },
  // void standin_tell(const uint8_t *bytes, uint32_t length);
  standin_tell: { parameters: ["buffer", "u32"], result: "void" },
} as const satisfies Deno.ForeignLibraryInterface;

/** The stand-in, while this process uses it. */
export class StandIn {
  readonly #symbols: Deno.DynamicLibrary<typeof SYMBOLS>["symbols"];
  readonly #room = new Uint8Array(1 << 16);

  /** For {@linkcode loadStandIn}. */
  constructor(symbols: Deno.DynamicLibrary<typeof SYMBOLS>["symbols"]) {
    this.#symbols = symbols;
  }

  /** How many sockets of a device are open. */
  get open(): number {
    return this.#symbols.standin_open();
  }

  /** What it was told since the last call: a line each, the operation and its bytes. */
  log(): string[] {
    const length = this.#symbols.standin_log(this.#room, this.#room.length);
    return new TextDecoder().decode(this.#room.subarray(0, length)).split("\n").slice(0, -1);
  }

  /** Has an operation fail with a number of Darwin's; 0 has a read say that nothing comes any more. */
  fail(operation: string, errno: number, times = 1): void {
    this.#symbols.standin_fail(new TextEncoder().encode(`${operation}\0`), errno, times);
  }

  /** Adds a route of another interface: to so many bits of a `struct sockaddr`. */
  route(destination: Uint8Array<ArrayBuffer>, bits: number, index: number): void {
    this.#symbols.standin_route(destination, bits, index);
  }

  /** Tells every routing socket some bytes. */
  tell(message: Uint8Array<ArrayBuffer>): void {
    this.#symbols.standin_tell(message, message.length);
  }
}

/** Builds it, runs with its path, and removes it. The path is to be told to another process by WARREN_LIBSYSTEM. */
export async function withStandIn(defines: string[], use: (path: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "warren-libsystem-" });
  try {
    const path = `${folder}/libsystem.so`;
    await command("cc", [...FLAGS, ...defines.map((define) => `-D${define}`), "-o", path, SOURCE]);
    await use(path);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** The stand-in that WARREN_LIBSYSTEM names. Opened for good, so not within a test. */
export function loadStandIn(): StandIn {
  return new StandIn(Deno.dlopen(Deno.env.get("WARREN_LIBSYSTEM")!, SYMBOLS).symbols);
}
