/** A bounded set of the endpoints that packets were recently sent to; it may forget some, and never allocates. */

import { MAX_BYPASSED } from "../../driver/bypass.ts";
import { Endpoint, isAt } from "../../driver/udp_socket.ts";
import type { Packet } from "../../lib/core/mod.ts";

// Implementation
/** Number of places, a power of two. The hash of an endpoint selects its place, where it replaces any other. */
const PLACES = 256;
const SIZE = Endpoint.Ipv6Size;
const WORD = 4;
/** Number of new endpoints after which all are forgotten, so that none is known after the bypass has forgotten it. */
const MAX_NOTED = MAX_BYPASSED / 2;
/** Multiplier of Knuth's multiplicative hash: 2^32 divided by the golden ratio. */
const MULTIPLIER = 0x9e3779b1;

/** Recent endpoints in one address family. */
export class KnownEndpoints {
  readonly #bytes = new Uint8Array(PLACES * SIZE);
  readonly #view = new DataView(this.#bytes.buffer);
  #noted = 0;
  readonly #family: 4 | 6;

  constructor(family: 4 | 6) {
    this.#family = family;
  }

  /** Notes the endpoint of a packet; returns true if it was known. */
  note(packet: Packet): boolean {
    const { view, slotEnd } = packet;
    let hash = view.getUint32(slotEnd);
    for (let at = WORD; at < (this.#family === 4 ? Endpoint.Ipv4Address + WORD : SIZE); at += WORD) {
      hash = Math.imul(hash ^ view.getUint32(slotEnd + at), MULTIPLIER);
    }
    const place = (hash >>> 16 & PLACES - 1) * SIZE;
    if (isAt(packet, this.#view, place, this.#family)) return true;
    if (++this.#noted > MAX_NOTED) {
      this.#bytes.fill(0);
      this.#noted = 1;
    }
    for (let at = 0; at < SIZE; at += WORD) {
      this.#view.setUint32(place + at, view.getUint32(slotEnd + at));
    }
    return false;
  }
}
