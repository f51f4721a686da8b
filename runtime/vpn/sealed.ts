/** The opener of sealed ends. */

import { openCryptography } from "../../driver/crypto/mod.ts";
import { checkOption } from "../../lib/core/options.ts";
import { Sealed, type SealedOptions } from "../../lib/vpn/sealed/sealed.ts";
import type { EndOpener, FarEndContext } from "../transport/end_opener.ts";
import { vpn, type VpnOptions } from "./vpn.ts";

/** Options of {@linkcode sealed}: those of the protocol, the end below, and where the key comes from. */
export interface SealedEndOptions extends Omit<SealedOptions, "role" | "key" | "name">, VpnOptions {
  /** Side of the connection. @default {"listen" if the end below listens, such as `udp()` without a peer} */
  role?: SealedOptions["role"];
  /** Pre-shared key, as in {@linkcode SealedOptions}; or the name of a flag of the script, such as `{ flag: "key" }`. */
  key?: SealedOptions["key"] | { readonly flag: string };
  /** Name of this machine, as in {@linkcode SealedOptions}; or the name of a flag of the script. */
  name?: SealedOptions["name"] | { readonly flag: string };
}

/**
 * Far end that encrypts packets with pre-shared keys, without a handshake: the protocol {@linkcode Sealed} over another end.
 *
 * **Keys**: 32 random bytes: `openssl rand -base64 32`. A key on a command line can be seen by other users of the machine.
 *
 * **Peers**: with `peers`, it serves several machines, each with its inner prefixes. From one `key`, each peer's key is
 * derived by its name; that machine gives the same `key` and its `name`.
 *
 * **Limits**: those of {@linkcode Sealed}: no forward secrecy, and clocks must agree within two minutes.
 *
 * @throws {SyntaxError} when a URL does not parse.
 * @throws {TypeError} for an unknown option or one of the wrong type. The opener rejects with the errors of `Sealed`, of
 * `openCryptography` and of the end below; and when the key's flag is missing.
 *
 * @example An encrypted tunnel
 * ```ts
 * import { script, sealed, udp } from "@warren/tunnel";
 *
 * const far = sealed({ key: { flag: "key" }, over: udp({ listen: 4500 }) });
 * const flags = { key: { type: "string" } } as const;
 * export default script(import.meta, { address: "10.9.0.1/24", mtu: 1400, far, flags }, (tunnel) => tunnel.run());
 * ```
 */
export function sealed(options: SealedEndOptions): EndOpener {
  const attempt = "open a sealed end";
  checkOption(attempt, "options", options, "object");
  const { over, role, key, name, ...rest } = options;
  return vpn(async ({ flags }, { listens }) => {
    const side = role ?? (listens === true ? "listen" : "connect");
    const parts = { key: valueOf(key, flags), name: valueOf(name, flags) };
    if (isFlag(key) && parts.key === undefined) throw missingKey(key.flag);
    return new Sealed(await openCryptography(), Date.now, { ...rest, ...parts, role: side });
  }, { over });
}

/** Returns an option's value, or that of the flag which it names. */
function valueOf<Value>(
  option: Value | { readonly flag: string },
  flags: FarEndContext["flags"],
): Value | string | undefined {
  return isFlag(option) ? flags[option.flag] as string | undefined : option;
}

function isFlag(option: unknown): option is { readonly flag: string } {
  return typeof option === "object" && option !== null && "flag" in option;
}

function missingKey(flag: string): TypeError {
  return new TypeError(
    `Cannot open a sealed end: --${flag} is missing: give both sides the same key, from: openssl rand -base64 32`,
  );
}
