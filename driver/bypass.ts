/**
 * Host routes that keep a far end's own packets out of the tunnel: one to each of its addresses, by the path that the
 * system would use without the tunnel. A tunnel with a default route needs them, or its packets would loop into itself;
 * reverse path filtering (rp_filter=1) needs them to accept packets from the far end.
 */

import { type Address, formatAddress } from "../lib/wire/address.ts";
import type { CheckedDeviceOptions } from "./options.ts";
import { unmapAddress } from "./udp_socket.ts";

// Implementation
/** Maximum addresses of one far end; the least recently used one is removed first. */
export const MAX_BYPASSED = 64;

/** A host route that bypasses the tunnel. */
export interface HostRoute {
  /** Updates the route after a change of the system's routes. */
  refresh(): void;
  /** Removes the route. */
  remove(): void;
}

/** Host routes of a system. */
export interface HostRoutes {
  /** Readable when the system's routes change; `undefined` where the system does not report changes. */
  readonly descriptor: number | undefined;
  /** Watchdog rescue data that removes the routes; it follows the device's own. */
  readonly rescueData: Uint8Array[];
  /** Adds a route, in these routing tables (Linux); `interfaceName` restricts it to one interface. */
  add(address: Address, tables: readonly number[], interfaceName: string | undefined): HostRoute;
  /** Returns the addresses of the system's DNS servers. */
  nameServers(): Address[];
  /** Reads the descriptor; returns true if the system's routes changed. */
  drain(): boolean;
  /** Frees resources, after all host routes are removed. */
  close(): void;
}

/** A prefix that the tunnel's routes cover, with its routing table. */
export interface CoveringRoute {
  readonly bytes: Uint8Array;
  readonly length: number;
  readonly table: number;
}

/** An address kept out of the tunnel. */
interface BypassedAddress {
  readonly address: Address;
  readonly interfaceName: string | undefined;
  /** DNS look-ups that need it now; 0 for an address of the far end. */
  lookUps: number;
  /** Routing tables of its host route, as text. */
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

  /** Creates the bypass of a tunnel whose device is about to get these routes. */
  constructor(system: HostRoutes, covering: readonly CoveringRoute[]) {
    this.#system = system;
    this.#covering = covering;
    Bypass.#all.add(this);
    Bypass.#update();
  }

  /** Descriptor that is readable when the system's routes change. */
  get descriptor(): number | undefined {
    return this.#system.descriptor;
  }

  /** Watchdog rescue data that removes the host routes. */
  get rescueData(): Uint8Array[] {
    return this.#system.rescueData;
  }

  /** Reports that the tunnel's device has its routes. */
  opened(): void {
    this.#isOpen = true;
  }

  /**
   * Keeps packets to an address out of the tunnel; `interfaceName` restricts them to one interface. Does nothing after
   * `close`.
   */
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
    this.#add(key, { address: plain, interfaceName, lookUps: 0, tables: "", route: undefined });
    const oldest = [...this.#kept].find(([, { lookUps }]) => lookUps === 0)!;
    const count = this.#kept.values().filter(({ lookUps }) => lookUps === 0).reduce((sum) => sum + 1, 0);
    if (count > MAX_BYPASSED) this.#remove(...oldest);
  }

  /**
   * Runs a DNS look-up. If a tunnel's default route is already installed, packets to the system's DNS servers bypass it
   * meanwhile, including those of other programs.
   */
  async lookUp<Result>(look: () => Promise<Result>): Promise<Result> {
    const isCovered = Bypass.#all.has(this) && Bypass.#all.values().some((bypass) => bypass.#isOpen);
    if (!isCovered) return await look();
    const held: [string, BypassedAddress][] = [];
    for (const address of this.#system.nameServers()) {
      // A server covered by a more specific route is reached through the tunnel.
      if (isLoopback(address) || this.#covering.some((one) => !isDefault(one) && covers(one, address))) {
        continue;
      }
      const key = formatAddress(address);
      let kept = this.#kept.get(key);
      if (kept !== undefined && kept.lookUps === 0) continue;
      if (kept === undefined) {
        kept = { address, interfaceName: undefined, lookUps: 0, tables: "", route: undefined };
        this.#add(key, kept);
      }
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

  /** Updates the host routes after a change of the system's routes; called when the descriptor is readable. */
  drain(): void {
    if (!this.#system.drain()) return;
    for (const kept of this.#kept.values()) warnOnFailure(() => kept.route?.refresh());
  }

  /** Removes the host routes. Further calls do nothing. */
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

  /** Applies every bypass again: a default route also covers the far ends of other tunnels in this process. */
  static #update(): void {
    for (const bypass of Bypass.#all) for (const kept of bypass.#kept.values()) bypass.#apply(kept);
  }

  #add(key: string, kept: BypassedAddress): void {
    this.#kept.set(key, kept);
    this.#apply(kept);
  }

  #remove(key: string, kept: BypassedAddress): void {
    this.#kept.delete(key);
    warnOnFailure(() => kept.route?.remove());
  }

  /** Adds the host route if a tunnel's routes cover the address, or else removes it. */
  #apply(kept: BypassedAddress): void {
    const tables = new Set<number>();
    for (const bypass of Bypass.#all) {
      for (const one of bypass.#covering) {
        if ((bypass === this || isDefault(one)) && covers(one, kept.address)) tables.add(one.table);
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

/** Returns the prefixes that a device with these options routes. */
export function coveringRoutes(
  { addresses, routes }: CheckedDeviceOptions,
  mainTable: number,
): CoveringRoute[] {
  return [...addresses.map((to) => ({ to, table: undefined })), ...routes].map((
    { to, table = mainTable },
  ) => ({
    bytes: to.address.bytes,
    length: to.length,
    table,
  }));
}

/** Returns true if the first `length` bits of an address equal those of a prefix of its family. */
export function startsWith(bytes: Uint8Array, prefix: Uint8Array, length: number): boolean {
  if (bytes.length !== prefix.length) return false;
  for (let i = 0, left = length; left > 0; i++, left -= 8) {
    const mask = left >= 8 ? 0xff : 0xff << 8 - left;
    if (((bytes[i]! ^ prefix[i]!) & mask) !== 0) return false;
  }
  return true;
}

/** True for a default route or one of its halves, such as 0.0.0.0/1. */
function isDefault({ length }: CoveringRoute): boolean {
  return length <= 1;
}

function covers({ bytes, length }: CoveringRoute, address: Address): boolean {
  return startsWith(address.bytes, bytes, length);
}

function isLoopback({ family, bytes }: Address): boolean {
  return family === 4 ? bytes[0] === 127 : bytes.every((byte, i) => byte === (i === 15 ? 1 : 0));
}

/** Warns of a failure and continues: a far end may not need its host route, as with a device prepared by root. */
function warnOnFailure(step: () => void): void {
  try {
    step();
  } catch (error) {
    console.warn(`warren: ${(error as Error).message}: the tunnel's own packets may go into it`);
  }
}
