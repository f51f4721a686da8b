/** Names of other machines: the addresses that one has, in the system's order. */

import { lookup } from "node:dns/promises";
import { errorMessage } from "../../driver/error.ts";
import { formatAddress, parseAddress } from "../../lib/wire/address.ts";
import { type AddressPort, type HostPort, isMachine, requireNet } from "./host_port.ts";

// Implementation
/** Addresses of each family that are used: less than a tunnel keeps host routes for. */
const MAX_ADDRESSES = 8;

/**
 * Finds the addresses of a host: itself if it is an address, or else those that its name has, up to eight of each family,
 * in getaddrinfo(3)'s order (RFC 6724), without repetitions.
 *
 * @param family The only family that can be used. @default both
 * @returns at least one.
 * @throws {Deno.errors.NotFound} if the name has none; {@linkcode Deno.errors.NotCapable} without `--allow-net`.
 */
export async function resolveHost(host: HostPort, family?: 4 | 6): Promise<AddressPort[]> {
  if (isAddress(host)) return [host];
  const { port } = host;
  requireNet(host.host);
  try {
    const found = await lookup(host.host, { all: true, order: "verbatim", family: family ?? 0 });
    const addresses = selectAddresses(found.map(({ address }) => address), port);
    if (addresses.length > 0) return addresses;
  } catch (cause) {
    throw new Deno.errors.NotFound(message(host.host, family, errorMessage(cause)), { cause });
  }
  throw new Deno.errors.NotFound(message(host.host, family, "those found are link-local, or no machine's"));
}

/** What is used of the addresses that a name has, with a port. */
export function selectAddresses(found: readonly string[], port: number): AddressPort[] {
  const addresses = new Map<string, AddressPort>();
  const counts = { 4: 0, 6: 0 };
  for (const address of found) {
    // A link-local address has its interface behind "%", which no endpoint here has.
    if (address.includes("%")) continue;
    const { family, bytes } = parseAddress(address);
    const host = formatAddress({ family, bytes });
    // Name servers that block a name answer with 0.0.0.0, which Linux takes for this machine.
    if (!isMachine(host)) continue;
    if (addresses.has(host) || counts[family] === MAX_ADDRESSES) continue;
    counts[family]++;
    addresses.set(host, { host, port, family });
  }
  return [...addresses.values()];
}

function message(name: string, family: 4 | 6 | undefined, why: string): string {
  const kind = family === undefined ? "" : `IPv${family} `;
  return `Cannot reach "${name}": it has no ${kind}address (${why}): check the name, or write its address`;
}

function isAddress(host: HostPort): host is AddressPort {
  return host.family !== undefined;
}
