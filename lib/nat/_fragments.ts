/** The addresses of later fragments, which have no ports, by those of their packets' first ones. */

import { FlowKey } from "../flow_key.ts";
import { FlowTable } from "../flow_table.ts";
import type { Direction } from "../core/mod.ts";
import type { Ipv4 } from "../ipv4.ts";

// Implementation
/** How long fragments may come after each other (ms): what Linux gives a reassembly. */
const PATIENCE = 30_000;

/** Fragmented packets whose first fragment was translated. */
export class Fragments {
  readonly #table: FlowTable;
  readonly #addresses: Uint32Array;
  readonly #key = new FlowKey();

  constructor(capacity: number) {
    this.#table = new FlowTable({ timeouts: [PATIENCE], capacity });
    this.#addresses = new Uint32Array(capacity);
    this.#key.length = 4;
  }

  /** Says that the first fragment, still untranslated, gets this address. */
  note(ip: Ipv4, direction: Direction, address: number, now: number): void {
    const key = this.#fill(ip, direction);
    let packet = this.#table.find(key, now);
    if (packet < 0) packet = this.#table.add(key, 0, now);
    this.#addresses[packet] = address;
    this.#table.touch(packet, now);
  }

  /** The address of a later fragment; -1 when its first one is not known. */
  find(ip: Ipv4, direction: Direction, now: number): number {
    const packet = this.#table.find(this.#fill(ip, direction), now);
    if (packet < 0) return -1;
    this.#table.touch(packet, now);
    return this.#addresses[packet]!;
  }

  #fill(ip: Ipv4, direction: Direction): FlowKey {
    const { words } = this.#key;
    words[0] = 4 << 8 | ip.protocol;
    words[1] = ip.src;
    words[2] = ip.dst;
    words[3] = direction << 16 | ip.id;
    return this.#key;
  }
}
