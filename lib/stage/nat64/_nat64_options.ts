/** What a NAT64 is asked to be: options as people write them, checked. */

import { formatIpv4, parseIpv4 } from "../../wire/address.ts";
import { isUnicast4 } from "../../wire/unicast.ts";
import { IcmpErrors } from "../../icmp/icmp_error.ts";
import { checkNames, type OptionNames } from "../../core/options.ts";
import { EmbeddingPrefix } from "./embedded_address.ts";

// Specification: RFC 6052 section 2.1
const WELL_KNOWN = "64:ff9b::/96";

// Implementation
const CAPACITY = 65_536;
const MAX_OUTSIDE = 64;

/** Options for {@linkcode Nat64}. */
export interface Nat64Options {
  /** The IPv4 address that inside hosts have outside, or several ones. */
  readonly outside: string | readonly string[];
  /** Where inside hosts find IPv4 addresses (RFC 6052). @default {"64:ff9b::/96"} */
  readonly prefix?: string;
  /** Who may send to an inside host that has sent: those that it sent to, or all. @default {"address-dependent"} */
  readonly filtering?: "endpoint-independent" | "address-dependent";
  /** How many sessions are known, up to 2 to the 24th. @default {65536} */
  readonly capacity?: number;
  /** Answers packets whose hop limit has run out. @default nobody: they are dropped */
  readonly errors?: IcmpErrors;
  /** A whole number from 0 to 2 to the 32nd - 1, anew at each call: for tests. @default {random} */
  readonly random?: () => number;
}

const NAMES: OptionNames<Nat64Options> = {
  outside: "needed",
  prefix: "text",
  filtering: "text",
  capacity: "number",
  errors: "optional",
  random: "function",
};

/** Options that make sense. */
export interface CheckedNat64Options {
  /** Where inside hosts find IPv4 addresses. */
  readonly prefix: EmbeddingPrefix;
  /** The outside addresses. */
  readonly outside: Uint32Array;
  /** Whether all may send to an inside host that has sent. */
  readonly isOpen: boolean;
  /** How many sessions are known. */
  readonly capacity: number;
  /** What answers. */
  readonly errors: IcmpErrors | undefined;
  /** 32 bits by chance. */
  readonly random: () => number;
}

/** Checks options; throws as the constructor of `Nat64` says. */
export function checkNat64Options(options: Nat64Options): CheckedNat64Options {
  checkNames("make a NAT64", options, NAMES);
  const { outside, prefix = WELL_KNOWN, filtering = "address-dependent", capacity = CAPACITY, errors } =
    options;
  const { random = () => crypto.getRandomValues(new Uint32Array(1))[0]! } = options;
  const addresses = new Set([outside].flat().map((text) => parseIpv4(text as string)));
  if (addresses.size === 0) throw new TypeError("Cannot make a NAT64: there is no outside address");
  if (addresses.size > MAX_OUTSIDE) {
    throw new RangeError(`Cannot make a NAT64 with ${addresses.size} outside addresses: 64 is the most`);
  }
  for (const address of addresses) {
    if (isUnicast4(address)) continue;
    throw new RangeError(`Cannot make a NAT64 with outside address ${formatIpv4(address)}: it is no host's`);
  }
  if (errors !== undefined && !(errors instanceof IcmpErrors)) {
    throw new TypeError("Cannot make a NAT64: errors is no IcmpErrors: new IcmpErrors({ ... }) is one");
  }
  if (filtering !== "endpoint-independent" && filtering !== "address-dependent") {
    throw new TypeError(
      `Cannot make a NAT64 with filtering ${
        JSON.stringify(filtering)
      }: "endpoint-independent" or "address-dependent"`,
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
