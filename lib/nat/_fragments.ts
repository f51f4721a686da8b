/** The addresses of later fragments, which have no ports, by those of their packets' first ones. */

import type { Direction, Packet } from "../core/mod.ts";
import { FlowKey } from "../flow_key.ts";
import { FlowTable } from "../flow_table.ts";
import { Ipv4 } from "../ipv4.ts";

// Implementation
/** How long fragments may come after each other (ms): what Linux gives a reassembly. */
const PATIENCE = 30_000;
/** How long later fragments wait for their first one (ms), and how many do at most. */
const EARLY = 1000;
const MOST_EARLY = 64;

/** Fragmented packets whose first fragment was translated, and later fragments that have overtaken theirs. */
export class Fragments {
  readonly #table: FlowTable;
  readonly #addresses: Uint32Array;
  readonly #key = new FlowKey();
  readonly #early: Packet[] = [];
  readonly #directions = new Uint8Array(MOST_EARLY);
  readonly #since = new Float64Array(MOST_EARLY);

  constructor(capacity: number) {
    this.#table = new FlowTable({ timeouts: [PATIENCE], capacity });
    this.#addresses = new Uint32Array(capacity);
    this.#key.length = 4;
  }

  /** How many fragments wait for their first one. */
  get waiting(): number {
    return this.#early.length;
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

  /** Keeps a later fragment until its first one comes; returns whether there is room. */
  keep(packet: Packet, direction: Direction, now: number): boolean {
    if (this.#early.length === MOST_EARLY) return false;
    this.#directions[this.#early.length] = direction;
    this.#since[this.#early.length] = now;
    this.#early.push(packet);
    return true;
  }

  /** The place of the next fragment in this direction whose first one has come; -1 for none. */
  findReady(direction: Direction, now: number): number {
    for (let i = 0; i < this.#early.length; i++) {
      const ip = this.#directions[i] === direction ? Ipv4.of(this.#early[i]!) : undefined;
      if (ip !== undefined && this.find(ip, direction, now) >= 0) return i;
    }
    return -1;
  }

  /** In how many milliseconds the next fragment will have waited for long enough; `Infinity` with none. */
  due(now: number): number {
    return this.#early.length > 0 ? Math.max(0, this.#since[0]! + EARLY - now) : Infinity;
  }

  /** The place of the next fragment that has waited for long enough; -1 for none. */
  findLate(now: number): number {
    return this.due(now) === 0 ? 0 : -1;
  }

  /** Takes the fragment at a place out; the others keep their order. */
  take(place: number): Packet {
    const packet = this.#early[place]!;
    this.#early.copyWithin(place, place + 1);
    this.#early.pop();
    this.#directions.copyWithin(place, place + 1);
    this.#since.copyWithin(place, place + 1);
    return packet;
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
