/** Translations of first fragments, for later ones, which have no ports. */

import * as field from "../../wire/header_fields.ts";
import type { Direction, Packet } from "../../core/mod.ts";
import { FlowKey } from "../../table/flow_key.ts";
import { Ipv4 } from "../../wire/ipv4.ts";
import { FirstFragments } from "../../table/first_fragments.ts";

// Specification
const { IPV4_SRC } = field;

// Implementation
/** Maximum time between two fragments of a packet (ms): Linux's reassembly timeout. */
const TIMEOUT = 30_000;
/** Time that early fragments wait for their first one (ms), and their maximum number. */
const EARLY_TIMEOUT = 1000;
const MAX_EARLY = 64;
/** Maximum number of early fragments from one source, and in one direction. */
const MAX_EARLY_OF_SOURCE = 16;
const MAX_EARLY_OF_DIRECTION = 48;

/** Packets whose first fragment was translated, and early fragments: later ones that arrived before their first. */
export class Fragments {
  /** The new identification of the packet that {@linkcode Fragments.find} found. */
  id = 0;
  readonly #table: FirstFragments;
  readonly #addresses: Uint32Array;
  readonly #ids: Uint16Array;
  readonly #key = new FlowKey();
  readonly #early: Packet[] = [];
  readonly #directions = new Uint8Array(MAX_EARLY);
  readonly #since = new Float64Array(MAX_EARLY);

  constructor(capacity: number) {
    this.#table = new FirstFragments(capacity, TIMEOUT);
    this.#addresses = new Uint32Array(capacity);
    this.#ids = new Uint16Array(capacity);
    this.#key.length = 4;
  }

  /** Early fragments that wait. */
  get waiting(): number {
    return this.#early.length;
  }

  /** Records the address and identification of a first fragment, which is not yet translated itself. */
  note(ip: Ipv4, direction: Direction, address: number, id: number, now: number): void {
    const key = this.#fill(ip, direction);
    let packet = this.#table.find(key, now);
    if (packet < 0) packet = this.#table.note(key, now);
    this.#addresses[packet] = address;
    this.#ids[packet] = id;
    this.#table.touch(packet, now);
  }

  /** Finds the address of a later fragment; -1 when its first one is unknown. */
  find(ip: Ipv4, direction: Direction, now: number): number {
    const packet = this.#table.find(this.#fill(ip, direction), now);
    if (packet < 0) return -1;
    this.#table.touch(packet, now);
    this.id = this.#ids[packet]!;
    return this.#addresses[packet]!;
  }

  /** Keeps an early fragment; returns whether there is room for one of its source and direction. */
  keep(packet: Packet, ip: Ipv4, direction: Direction, now: number): boolean {
    if (this.#early.length === MAX_EARLY) return false;
    const { src } = ip;
    let ofSource = 0;
    let ofDirection = 0;
    for (let i = 0; i < this.#early.length; i++) {
      const early = this.#early[i]!;
      if (early.view.getUint32(early.offset + IPV4_SRC) === src) ofSource++;
      if (this.#directions[i] === direction) ofDirection++;
    }
    if (ofSource >= MAX_EARLY_OF_SOURCE || ofDirection >= MAX_EARLY_OF_DIRECTION) return false;
    this.#directions[this.#early.length] = direction;
    this.#since[this.#early.length] = now;
    this.#early.push(packet);
    return true;
  }

  /** Index of the next early fragment in this direction whose first one has arrived; -1 for none. */
  findReady(direction: Direction, now: number): number {
    for (let i = 0; i < this.#early.length; i++) {
      const ip = this.#directions[i] === direction ? Ipv4.of(this.#early[i]!) : undefined;
      if (ip !== undefined && this.find(ip, direction, now) >= 0) return i;
    }
    return -1;
  }

  /** Time until the oldest early fragment, at index 0, expires (ms); `Infinity` with none. */
  due(now: number): number {
    return this.#early.length > 0 ? Math.max(0, this.#since[0]! + EARLY_TIMEOUT - now) : Infinity;
  }

  /** Removes the early fragment at an index; the others keep their order. */
  take(index: number): Packet {
    const packet = this.#early[index]!;
    this.#early.copyWithin(index, index + 1);
    this.#early.pop();
    this.#directions.copyWithin(index, index + 1);
    this.#since.copyWithin(index, index + 1);
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
