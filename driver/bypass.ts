/**
 * Has a far end's own packets leave beside the tunnel, whose routes may cover their addresses: by a host route to each,
 * by the way that the system would take without the tunnel. A tunnel that is the way to everywhere needs it, or its
 * packets go into itself; and with reverse path filtering (rp_filter=1), what comes from the far end is accepted by it.
 */

import { type Address, formatAddress } from "../lib/wire/address.ts";
import type { CheckedDeviceOptions } from "./options.ts";
import { unmapAddress } from "./udp_socket.ts";

// Implementation
/** The most addresses of one far end; the one that was told the longest ago gives way. */
export const MAX_BYPASSED = 64;

/** A host route beside the tunnel. */
export interface HostRoute {
  /** Follows the system's routes, which changed. */
  refresh(): void;
  /** Removes it. */
  remove(): void;
}

/** A system's host routes. */
export interface HostRoutes {
  /** Readable when the system's routes change; `undefined` where nothing tells. */
  readonly descriptor: number | undefined;
  /** The part of the watchdog's rescue data that removes them, behind the device's own. */
  readonly rescueData: Uint8Array[];
  /** Adds one, in these routing tables (Linux); by one interface alone where its name is given. */
  add(address: Address, tables: readonly number[], interfaceName: string | undefined): HostRoute;
  /** The addresses of the name servers that the system asks. */
  nameServers(): Address[];
  /** Reads what the descriptor has; returns whether the system's routes changed. */
  drain(): boolean;
  /** Frees what it holds; the host routes are removed before. */
  close(): void;
}

/** Routes of a tunnel that cover addresses. */
export interface Covering {
  readonly bytes: Uint8Array;
  readonly length: number;
  readonly table: number;
}

/** An address that a far end uses. */
interface Kept {
  readonly address: Address;
  readonly interfaceName: string | undefined;
  /** Look-ups that need it now; 0 for the far end's own. */
  lookUps: number;
  /** Its routing tables, and the route in them. */
  tables: string;
  route: HostRoute | undefined;
}

/** The bypass of one tunnel. */
export class Bypass implements Disposable {
  static readonly #all = new Set<Bypass>();
  readonly #system: HostRoutes;
  readonly #covering: readonly Covering[];
  readonly #kept = new Map<string, Kept>();
  #isOpen = false;

  /** For a tunnel with these routes, which the device is about to get. */
  constructor(system: HostRoutes, covering: readonly Covering[]) {
    this.#system = system;
    this.#covering = covering;
    Bypass.#all.add(this);
    Bypass.#update();
  }

  /** Readable when the system's routes change. */
  get descriptor(): number | undefined {
    return this.#system.descriptor;
  }

  /** The part of the watchdog's rescue data that removes its routes. */
  get rescueData(): Uint8Array[] {
    return this.#system.rescueData;
  }

  /** The tunnel's device has its routes. */
  opened(): void {
    this.#isOpen = true;
  }

  /**
   * Has packets to an address leave beside the tunnel; by one interface alone where its name is given. Once closed, it
   * does nothing.
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
   * Looks names up. Where a tunnel's default route stands already, packets to the system's name servers leave beside
   * it for as long as that takes, including those of other programs.
   */
  async lookUp<Result>(look: () => Promise<Result>): Promise<Result> {
    const isCovered = Bypass.#all.has(this) && Bypass.#all.values().some((bypass) => bypass.#isOpen);
    if (!isCovered) return await look();
    const held: [string, Kept][] = [];
    for (const address of this.#system.nameServers()) {
      // What a narrower route covers is a server of the tunnel's own.
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

  /** Follows the system's routes. To be called when the descriptor is readable. */
  drain(): void {
    if (!this.#system.drain()) return;
    for (const kept of this.#kept.values()) attempt(() => kept.route?.refresh());
  }

  /** Removes the host routes; further calls do nothing. */
  close(): void {
    if (!Bypass.#all.delete(this)) return;
    for (const [key, kept] of this.#kept) this.#remove(key, kept);
    this.#system.close();
    Bypass.#update();
  }

  /** {@linkcode Bypass.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** Applies every bypass again: a default route also covers the far ends of the process's other tunnels. */
  static #update(): void {
    for (const bypass of Bypass.#all) for (const kept of bypass.#kept.values()) bypass.#apply(kept);
  }

  #add(key: string, kept: Kept): void {
    this.#kept.set(key, kept);
    this.#apply(kept);
  }

  #remove(key: string, kept: Kept): void {
    this.#kept.delete(key);
    attempt(() => kept.route?.remove());
  }

  /** Makes the host route, or removes it, as the tunnels' routes cover the address or do not. */
  #apply(kept: Kept): void {
    const tables = new Set<number>();
    for (const bypass of Bypass.#all) {
      for (const one of bypass.#covering) {
        if ((bypass === this || isDefault(one)) && covers(one, kept.address)) tables.add(one.table);
      }
    }
    const key = [...tables].sort().join();
    if (key === kept.tables) return;
    kept.tables = key;
    attempt(() => {
      kept.route?.remove();
      kept.route = undefined;
      if (tables.size > 0) kept.route = this.#system.add(kept.address, [...tables], kept.interfaceName);
    });
  }
}

/** The prefixes for which a device with these options is the way. */
export function coveringRoutes(
  { addresses, routes }: CheckedDeviceOptions,
  mainTable: number,
): Covering[] {
  return [...addresses.map((to) => ({ to, table: undefined })), ...routes].map((
    { to, table = mainTable },
  ) => ({
    bytes: to.address.bytes,
    length: to.length,
    table,
  }));
}

/** Tells whether an address has the first bits of another one of its family. */
export function startsWith(bytes: Uint8Array, prefix: Uint8Array, length: number): boolean {
  if (bytes.length !== prefix.length) return false;
  for (let i = 0, left = length; left > 0; i++, left -= 8) {
    const mask = left >= 8 ? 0xff : 0xff << 8 - left;
    if (((bytes[i]! ^ prefix[i]!) & mask) !== 0) return false;
  }
  return true;
}

/** Whether a route is one to everywhere, or half of one, as 0.0.0.0/1 is. */
function isDefault({ length }: Covering): boolean {
  return length <= 1;
}

function covers({ bytes, length }: Covering, address: Address): boolean {
  return startsWith(address.bytes, bytes, length);
}

function isLoopback({ family, bytes }: Address): boolean {
  return family === 4 ? bytes[0] === 127 : bytes.every((byte, i) => byte === (i === 15 ? 1 : 0));
}

/** Warns of a failure, and goes on: a far end may not need its host route, as with a device that root prepared. */
function attempt(step: () => void): void {
  try {
    step();
  } catch (error) {
    console.warn(`warren: ${(error as Error).message}: the tunnel's own packets may go into it`);
  }
}
