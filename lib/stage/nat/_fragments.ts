/** The addresses and identifications of later fragments, which have no ports, by those of their packets' first ones. */

import { IPV4_SRC } from "../../wire/header_fields.ts";
import type { Direction, Packet } from "../../core/mod.ts";
import { FlowKey } from "../../table/flow_key.ts";
import { Ipv4 } from "../../wire/ipv4.ts";
import { FirstFragments } from "../../table/first_fragments.ts";

// Implementation
/** Time within which the next fragment must come (ms): Linux's reassembly timeout. */
const TIMEOUT = 30_000;
/** How long later fragments wait for their first one (ms), and how many do at most. */
const EARLY = 1000;
const MAX_EARLY = 64;
/** The most of those from one source, and in one direction. */
const MAX_EARLY_OF_SOURCE = 16;
const MAX_EARLY_OF_DIRECTION = 48;

/** Fragmented packets whose first fragment was translated, and later fragments that have overtaken theirs. */
export class Fragments {
  /** The identification of the packet that {@linkcode Fragments.find} has found. */
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

  /** How many fragments wait for their first one. */
  get waiting(): number {
    return this.#early.length;
  }

  /** Notes that the first fragment, still untranslated, gets this address and identification. */
  note(ip: Ipv4, direction: Direction, address: number, id: number, now: number): void {
    const key = this.#fill(ip, direction);
    let packet = this.#table.find(key, now);
    if (packet < 0) packet = this.#table.note(key, now);
    this.#addresses[packet] = address;
    this.#ids[packet] = id;
    this.#table.touch(packet, now);
  }

  /** The address of a later fragment; -1 when its first one is not known. */
  find(ip: Ipv4, direction: Direction, now: number): number {
    const packet = this.#table.find(this.#fill(ip, direction), now);
    if (packet < 0) return -1;
    this.#table.touch(packet, now);
    this.id = this.#ids[packet]!;
    return this.#addresses[packet]!;
  }

  /** Keeps a later fragment until its first one comes; returns whether there is room for one of its source. */
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
