/** The stand-in for libSystem of macOS: built by cc, loaded in place of the library; it records its calls. */

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
/** Functions for tests. */
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

  /** Number of open sockets of devices. */
  get open(): number {
    return this.#symbols.standin_open();
  }

  /** Returns the calls since the last time: a line each, the operation and its bytes. */
  log(): string[] {
    const length = this.#symbols.standin_log(this.#room, this.#room.length);
    return new TextDecoder().decode(this.#room.subarray(0, length)).split("\n").slice(0, -1);
  }

  /** Makes an operation fail with an error number of Darwin; 0 makes a read report the end. */
  fail(operation: string, errno: number, times = 1): void {
    this.#symbols.standin_fail(new TextEncoder().encode(`${operation}\0`), errno, times);
  }

  /** Adds a route of another interface to the first `bits` of a `struct sockaddr`. */
  route(destination: Uint8Array<ArrayBuffer>, bits: number, index: number): void {
    this.#symbols.standin_route(destination, bits, index);
  }

  /** Sends bytes to every routing socket. */
  tell(message: Uint8Array<ArrayBuffer>): void {
    this.#symbols.standin_tell(message, message.length);
  }
}

/** Builds the stand-in, calls back with its path, for WARREN_LIBSYSTEM of another process, and removes it. */
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

/** Opens the stand-in named by WARREN_LIBSYSTEM. It stays open, so this is called outside the tests. */
export function loadStandIn(): StandIn {
  return new StandIn(Deno.dlopen(Deno.env.get("WARREN_LIBSYSTEM")!, SYMBOLS).symbols);
}
