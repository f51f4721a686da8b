/** The choice of a cryptographic library for each algorithm. */

import { type AeadName, KEY_LENGTHS } from "../../lib/vpn/aead.ts";
import { type Check, check } from "../check.ts";
import { errorMessage } from "../error.ts";
import type { Backend } from "./backend.ts";
import { checkBackend } from "./vectors.ts";

/** Names of the back ends. */
export type BackendName = "bcrypt" | "libcrypto" | "node" | "noble";

// Implementation
/** All algorithms. */
export const AEADS: readonly AeadName[] = Object.keys(KEY_LENGTHS) as AeadName[];
/** Openers of the back ends. A library is loaded when it is tried. */
export const BACKENDS: Readonly<Record<BackendName, () => Promise<Backend>>> = {
  bcrypt: async () => (await import("./bcrypt.ts")).openBcrypt(),
  libcrypto: async () => (await import("./libcrypto.ts")).openLibcrypto(),
  node: async () => (await import("./node_crypto.ts")).openNodeCrypto(),
  noble: async () => (await import("./noble.ts")).openNoble(),
};

/** Returns the back ends to try on a system, the fastest first. */
export function backendsOf(os: typeof Deno.build.os): readonly BackendName[] {
  return [os === "windows" ? "bcrypt" : "libcrypto", "node", "noble"];
}

/** Chooses a back end for each algorithm; returns also why others were not chosen. */
export async function chooseBackends(
  names: readonly BackendName[],
): Promise<{ chosen: Map<AeadName, Backend>; failures: unknown[] }> {
  const chosen = new Map<AeadName, Backend>();
  const failures: unknown[] = [];
  for (const name of names) {
    if (chosen.size === AEADS.length) break;
    try {
      const backend = await BACKENDS[name]();
      for (const aead of AEADS) {
        if (chosen.has(aead)) continue;
        try {
          checkBackend(backend, aead);
          chosen.set(aead, backend);
        } catch (error) {
          failures.push(error);
        }
      }
    } catch (error) {
      failures.push(error);
    }
  }
  return { chosen, failures };
}

/** Checks for `warren doctor` which back ends are in use. */
export function examineCryptography(): Promise<Check[]> {
  return check("cryptography", async () => {
    const { chosen, failures } = await chooseBackends(backendsOf(Deno.build.os));
    const uses = AEADS.map((aead) => `${aead} by ${chosen.get(aead)?.name ?? "nothing"}`).join(", ");
    if (failures.length === 0) return [{ name: "cryptography", state: "ok", text: uses }];
    return [{
      name: "cryptography",
      state: "warn",
      text: `${uses}; ${failures.map(errorMessage).join("; ")}`,
      remedy: "encrypted tunnels work, with a fifth of the speed",
    }];
  });
}
