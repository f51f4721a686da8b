/** Translated addresses of first fragments, for later ones, which have no ports. */

import * as field from "../../wire/header_fields.ts";
import { FlowKey } from "../../table/flow_key.ts";
import type { Ip } from "../../wire/ip.ts";
import { FirstFragments } from "../../table/first_fragments.ts";

// Specification: RFC 6146 section 4 (milliseconds)
const { FRAGMENT_ID, IPV6_SRC } = field;
const TIMEOUT = 2000;

// Implementation
const CAPACITY = 1024;
const WORDS = 4;

/** Packets whose first fragment was translated. */
export class Fragments {
  /** Argument of `note` and result of `find`: an IPv6 address, or an IPv4 address in the first word. */
  readonly address = new Uint32Array(WORDS);
  readonly #table = new FirstFragments(CAPACITY, TIMEOUT);
  readonly #addresses = new Uint32Array(WORDS * CAPACITY);
  readonly #key = new FlowKey();

  /** Time until the next packet expires (milliseconds); `Infinity` for none. */
  due(now: number): number {
    return this.#table.due(now);
  }

  /** Records that a first fragment, not yet translated itself, gets `address`. */
  note(ip: Ip, now: number): void {
    const key = this.#fill(ip);
    let packet = this.#table.find(key, now);
    if (packet < 0) packet = this.#table.note(key, now);
    this.#addresses.set(this.address, WORDS * packet);
  }

  /** Sets `address` to that of a later fragment; returns whether its first one is known. */
  find(ip: Ip, now: number): boolean {
    const packet = this.#table.find(this.#fill(ip), now);
    if (packet < 0) return false;
    for (let i = 0; i < WORDS; i++) this.address[i] = this.#addresses[WORDS * packet + i]!;
    return true;
  }

  /** Removes some expired packets. */
  expire(now: number): void {
    this.#table.expire(now);
  }

  #fill(ip: Ip): FlowKey {
    const key = this.#key;
    const { words } = key;
    if (ip.version === 4) {
      key.length = 4;
      words[0] = 4 << 8 | ip.protocol;
      words[1] = ip.src;
      words[2] = ip.dst;
      words[3] = ip.id;
      return key;
    }
    key.length = words.length;
    // RFC 8200 section 4.5: the next header of a fragment does not identify its packet.
    words[0] = 6 << 8;
    for (let i = 0; i < 8; i++) words[1 + i] = ip.packet.view.getUint32(ip.start + IPV6_SRC + 4 * i);
    words[9] = ip.packet.view.getUint32(ip.fragmentHeader + FRAGMENT_ID);
    return key;
  }
}
