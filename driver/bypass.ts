/**
 * Keeps a tunnel's own packets out of the tunnel: adds a host route to each address of the far end, along the path that
 * packets would take without the tunnel. Without the host route, a tunnel with a default route would send its packets
 * into itself, and reverse path filtering (rp_filter=1) would reject packets from the far end.
 */

import { type Address, formatAddress } from "../lib/wire/address.ts";
import type { CheckedDeviceOptions } from "./options.ts";
import { unmapAddress } from "./udp_socket.ts";

// Implementation
/** Maximum number of far-end addresses with a host route; beyond it, the least recently used is removed. */
export const MAX_BYPASSED = 64;

/** An installed host route. */
export interface HostRoute {
  /** Moves the route to the current path, after the system's routes have changed. */
  refresh(): void;
  /** Removes the route. */
  remove(): void;
}

/** An operating system's part of a bypass. */
export interface HostRoutes {
  /** Descriptor that is readable when the system's routes change; `undefined` if the system does not report changes. */
  readonly descriptor: number | undefined;
  /** Data with which the watchdog removes the host routes (see `Rescue`), appended to the device's. */
  readonly rescueData: Uint8Array[];
  /** Adds a host route to each of these routing tables; `interfaceName` restricts its path to one interface. */
  add(address: Address, tables: readonly number[], interfaceName: string | undefined): HostRoute;
  /** Returns the addresses of the system's DNS servers. */
  nameServers(): Address[];
  /** Empties the descriptor; returns true if the system's routes have changed. */
  drain(): boolean;
  /** Releases all resources; called when all host routes are removed. */
  close(): void;
}

/** Prefix and routing table of a route into a tunnel. */
export interface CoveringRoute {
  readonly bytes: Uint8Array;
  readonly length: number;
  readonly table: number;
}

/** An address that packets must reach outside the tunnel. */
interface BypassedAddress {
  readonly address: Address;
  readonly interfaceName: string | undefined;
  /** Number of running DNS look-ups that need the address; 0 for an address of the far end. */
  lookUps: number;
  /** Numbers of the routing tables with its host route, joined; empty while it needs none. */
  tables: string;
  route: HostRoute | undefined;
}

/** The bypass of one tunnel. */
export class Bypass implements Disposable {
  static readonly #all = new Set<Bypass>();
  readonly #system: HostRoutes;
  readonly #covering: readonly CoveringRoute[];
  readonly #kept = new Map<string, BypassedAddress>();
  #isOpen = false;

  /** Creates the bypass of a tunnel before its device gets the covering routes. */
  constructor(system: HostRoutes, covering: readonly CoveringRoute[]) {
    this.#system = system;
    this.#covering = covering;
    Bypass.#all.add(this);
    Bypass.#update();
  }

  /** See {@linkcode HostRoutes.descriptor}. */
  get descriptor(): number | undefined {
    return this.#system.descriptor;
  }

  /** See {@linkcode HostRoutes.rescueData}. */
  get rescueData(): Uint8Array[] {
    return this.#system.rescueData;
  }

  /** Tells the bypass that the tunnel's device now has its routes. */
  opened(): void {
    this.#isOpen = true;
  }

  /** Keeps packets to an address of the far end out of the tunnel; `interfaceName` restricts them to one interface. */
  keep(address: Address, interfaceName?: string): void {
    if (!Bypass.#all.has(this)) return;
    const plain = unmapAddress(address);
    const key = formatAddress(plain);
    const known = this.#kept.get(key);
    if (known !== undefined && known.lookUps === 0) {
      this.#kept.delete(key);
      this.#kept.set(key, known);
      return;
    }
    known?.route?.remove();
    this.#kept.delete(key);
    this.#add(key, plain, interfaceName);
    const farEnds = [...this.#kept].filter(([, { lookUps }]) => lookUps === 0);
    if (farEnds.length > MAX_BYPASSED) this.#remove(...farEnds[0]!);
  }

  /**
   * Runs a DNS look-up of the far end's name. If a tunnel of this process has its routes already, all packets to the
   * system's DNS servers bypass it until the look-up ends, including those of other programs.
   */
  async lookUp<Result>(look: () => Promise<Result>): Promise<Result> {
    const isCovered = Bypass.#all.has(this) && Bypass.#all.values().some((bypass) => bypass.#isOpen);
    if (!isCovered) return await look();
    const held: [string, BypassedAddress][] = [];
    for (const address of this.#system.nameServers()) {
      // A DNS server that a route other than the default route covers is meant to be reached through the tunnel.
      if (
        isLoopback(address) || this.#covering.some((route) => !isDefault(route) && covers(route, address))
      ) {
        continue;
      }
      const key = formatAddress(address);
      const known = this.#kept.get(key);
      if (known?.lookUps === 0) continue;
      const kept = known ?? this.#add(key, address, undefined);
      kept.lookUps++;
      held.push([key, kept]);
    }
    try {
      return await look();
    } finally {
      for (const [key, kept] of held) {
        if (--kept.lookUps === 0 && this.#kept.get(key) === kept) this.#remove(key, kept);
      }
    }
  }

  /** Updates the host routes if the system's routes have changed; called when the descriptor is readable. */
  drain(): void {
    if (!this.#system.drain()) return;
    for (const kept of this.#kept.values()) warnOnFailure(() => kept.route?.refresh());
  }

  /** Removes the host routes; later calls of any method do nothing. */
  close(): void {
    if (!Bypass.#all.delete(this)) return;
    for (const [key, kept] of this.#kept) this.#remove(key, kept);
    this.#system.close();
    Bypass.#update();
  }

  /** Calls {@linkcode Bypass.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** Updates the host routes of all bypasses, because a default route also covers the far ends of other tunnels. */
  static #update(): void {
    for (const bypass of Bypass.#all) for (const kept of bypass.#kept.values()) bypass.#apply(kept);
  }

  #add(key: string, address: Address, interfaceName: string | undefined): BypassedAddress {
    const kept = { address, interfaceName, lookUps: 0, tables: "", route: undefined };
    this.#kept.set(key, kept);
    this.#apply(kept);
    return kept;
  }

  #remove(key: string, kept: BypassedAddress): void {
    this.#kept.delete(key);
    warnOnFailure(() => kept.route?.remove());
  }

  /** Adds the host route if a tunnel's routes cover the address; otherwise removes it. */
  #apply(kept: BypassedAddress): void {
    const tables = new Set<number>();
    for (const bypass of Bypass.#all) {
      for (const route of bypass.#covering) {
        if ((bypass === this || isDefault(route)) && covers(route, kept.address)) tables.add(route.table);
      }
    }
    const key = [...tables].sort().join();
    if (key === kept.tables) return;
    kept.tables = key;
    warnOnFailure(() => {
      kept.route?.remove();
      kept.route = undefined;
      if (tables.size > 0) kept.route = this.#system.add(kept.address, [...tables], kept.interfaceName);
    });
  }
}

/** Returns the routes that a device with these options gets, including those to its addresses' prefixes. */
export function coveringRoutes(
  { addresses, routes }: CheckedDeviceOptions,
  mainTable: number,
): CoveringRoute[] {
  const all = [...addresses.map((to) => ({ to, table: undefined })), ...routes];
  return all.map(({ to, table = mainTable }) => ({ bytes: to.address.bytes, length: to.length, table }));
}

/** Reports whether an address and a prefix have the same family and agree in the first `length` bits. */
export function startsWith(bytes: Uint8Array, prefix: Uint8Array, length: number): boolean {
  if (bytes.length !== prefix.length) return false;
  for (let i = 0, left = length; left > 0; i++, left -= 8) {
    const mask = left >= 8 ? 0xff : 0xff << 8 - left;
    if (((bytes[i]! ^ prefix[i]!) & mask) !== 0) return false;
  }
  return true;
}

/** Reports whether a prefix is a default route, or half of one, such as 0.0.0.0/1. */
function isDefault({ length }: CoveringRoute): boolean {
  return length <= 1;
}

function covers({ bytes, length }: CoveringRoute, address: Address): boolean {
  return startsWith(address.bytes, bytes, length);
}

function isLoopback({ family, bytes }: Address): boolean {
  return family === 4 ? bytes[0] === 127 : bytes.every((byte, i) => byte === (i === 15 ? 1 : 0));
}

/** Turns a failure into a warning, because the tunnel may work without the host route. */
function warnOnFailure(step: () => void): void {
  try {
    step();
  } catch (error) {
    console.warn(`warren: ${(error as Error).message}: the tunnel's own packets may go into it`);
  }
}
