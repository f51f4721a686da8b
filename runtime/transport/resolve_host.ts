/** Look-up of host names, whose addresses keep the order of the system. */

import { lookup } from "node:dns/promises";
import { errorMessage } from "../../driver/error.ts";
import { formatAddress, parseAddress } from "../../lib/wire/address.ts";
import { type AddressPort, type HostPort, isUnicast, requireNet } from "./host_port.ts";

// Implementation
/** Maximum addresses per family; less than the number of host routes that the bypass of a tunnel may add. */
const MAX_ADDRESSES = 8;

/**
 * Returns the addresses of a host: the host itself if it is an address, otherwise up to eight of each family, in the
 * order of getaddrinfo(3) (RFC 6724), without duplicates.
 *
 * @param family The only family to use. @default both
 * @returns at least one address.
 * @throws {Deno.errors.NotFound} if the name has no address; {@linkcode Deno.errors.NotCapable} without `--allow-net`.
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
  throw new Deno.errors.NotFound(
    message(host.host, family, "only link-local or non-unicast addresses were found"),
  );
}

/** Returns the usable addresses of a name, with a port. */
export function selectAddresses(found: readonly string[], port: number): AddressPort[] {
  const addresses = new Map<string, AddressPort>();
  const counts = { 4: 0, 6: 0 };
  for (const address of found) {
    // Link-local addresses end with "%" and an interface, which endpoints cannot express.
    if (address.includes("%")) continue;
    const { family, bytes } = parseAddress(address);
    const host = formatAddress({ family, bytes });
    // Name servers that block a name return 0.0.0.0, which Linux treats as this machine.
    if (!isUnicast(host)) continue;
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
