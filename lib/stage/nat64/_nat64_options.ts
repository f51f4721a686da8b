/** Options of {@linkcode Nat64}, and their checks. */

import { formatIpv4, parseIpv4 } from "../../wire/address.ts";
import { isUnicast4 } from "../../wire/unicast.ts";
import { IcmpErrors } from "../../icmp/icmp_error.ts";
import { checkInteger, checkOptions, type OptionKinds } from "../../core/options.ts";
import { MAX_CAPACITY } from "../../table/flow_limits.ts";
import { EmbeddingPrefix } from "./embedded_address.ts";

// Specification: RFC 6052 section 2.1
const WELL_KNOWN = "64:ff9b::/96";

// Implementation
const CAPACITY = 65_536;
const MAX_OUTSIDE = 64;

/** Options of {@linkcode Nat64}. */
export interface Nat64Options {
  /** Outside IPv4 addresses, at most 64. */
  readonly outside: string | readonly string[];
  /** IPv6 prefix in which inside hosts address IPv4 hosts (RFC 6052). @default {"64:ff9b::/96"} */
  readonly prefix?: string;
  /** Senders that a binding admits: all, or addresses with a session. @default {"address-dependent"} */
  readonly filtering?: "endpoint-independent" | "address-dependent";
  /** Maximum sessions, up to 2^24. @default {65536} */
  readonly capacity?: number;
  /** Sends ICMP errors for packets whose hop limit is exhausted. @default {none, they are dropped} */
  readonly errors?: IcmpErrors;
  /** Source of random integers from 0 to 2^32 - 1, for tests. @default {random} */
  readonly random?: () => number;
}

const NAMES: OptionKinds<Nat64Options> = {
  outside: "texts",
  prefix: "text",
  filtering: ["endpoint-independent", "address-dependent"],
  capacity: "number",
  errors: IcmpErrors,
  random: "function",
};

export interface CheckedNat64Options {
  readonly prefix: EmbeddingPrefix;
  readonly outside: Uint32Array;
  /** Admits all senders: endpoint-independent filtering. */
  readonly isOpen: boolean;
  readonly capacity: number;
  readonly errors: IcmpErrors | undefined;
  readonly random: () => number;
}

/** Checks the options; throws as the constructor of `Nat64` does. */
export function checkNat64Options(options: Nat64Options): CheckedNat64Options {
  checkOptions("create a Nat64", options, NAMES, ["outside"]);
  const { outside, prefix = WELL_KNOWN, filtering = "address-dependent", capacity = CAPACITY, errors } =
    options;
  checkInteger("create a Nat64", "capacity", capacity, 1, MAX_CAPACITY);
  const { random = () => crypto.getRandomValues(new Uint32Array(1))[0]! } = options;
  const addresses = new Set([outside].flat().map((text) => parseIpv4(text as string)));
  if (addresses.size === 0) {
    throw new TypeError("Cannot create a Nat64: outside must be at least one address, got an empty list");
  }
  if (addresses.size > MAX_OUTSIDE) {
    throw new RangeError(
      `Cannot create a Nat64: outside must be at most ${MAX_OUTSIDE} addresses, got ${addresses.size}`,
    );
  }
  for (const address of addresses) {
    if (isUnicast4(address)) continue;
    throw new RangeError(
      `Cannot create a Nat64: outside must be addresses of hosts, got ${formatIpv4(address)}`,
    );
  }
  return {
    prefix: new EmbeddingPrefix(prefix),
    outside: Uint32Array.from(addresses),
    isOpen: filtering === "endpoint-independent",
    capacity,
    errors,
    random,
  };
}
