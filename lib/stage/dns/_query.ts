/** Queries of clients over either transport, and the return path of their answers. */

import type { DnsDrop } from "./_dns_drop.ts";
import { type Direction, opposite, type Packet, type StageContext } from "../../core/mod.ts";
import type { Ip } from "../../wire/ip.ts";
import { Udp } from "../../wire/udp.ts";
import type { Question } from "./_message.ts";
import type { Route } from "./_route.ts";

// Implementation
/** Share of all places that a client keeps even if others have fewer. */
export const SMALL_SHARE = 1 / 16;
/** RFC 4291 section 2.5.4: a host may use all addresses of a /64. */
const IPV6_SUBNET = 8; // bytes

/** Query that is being answered. */
export interface Query {
  /** Client that it is counted for, from {@linkcode sourceOf}. */
  readonly source: string;
  /** Reads its question; returns the result of {@linkcode Question.read}. */
  read(question: Question): number;
  /** Reports whether it is a retransmission of the other query. */
  repeats(other: Query): boolean;
  /** Holds it until it is answered. */
  hold(context: StageContext): void;
  /** Ends it without an answer. */
  drop(reason: DnsDrop, context: StageContext): void;
  /** Returns the maximum length of an answer to its client (bytes). */
  room(question: Question): number;
  /** Returns memory for {@linkcode Query.room} bytes of answer at `start`; it overwrites the query. */
  open(): { readonly bytes: Uint8Array; readonly start: number };
  /** Sends the answer of this length. */
  send(length: number, context: StageContext): void;
}

/** Returns the client that a packet comes from: an IPv4 address, or the /64 of an IPv6 address. */
export function sourceOf(ip: Ip): string {
  if (ip.version === 4) return String.fromCharCode(ip.src >>> 16, ip.src & 0xffff);
  return String.fromCharCode(...ip.src.subarray(0, IPV6_SUBNET));
}

/** Query over UDP; its packet becomes the answer. */
export class UdpQuery implements Query {
  #source: string | undefined;
  readonly #packet: Packet;
  readonly #direction: Direction;
  readonly #limit: number;
  readonly #route: Route;

  /** @param limit Maximum length of the answer (bytes). */
  constructor(udp: Udp, direction: Direction, limit: number, route: Route) {
    this.#packet = udp.packet;
    this.#direction = direction;
    this.#limit = limit;
    this.#route = route;
  }

  get source(): string {
    return this.#source ??= sourceOf(Udp.of(this.#packet)!.ip);
  }

  read(question: Question): number {
    const udp = Udp.of(this.#packet)!;
    return question.read(this.#packet.bytes, udp.payloadOffset, udp.payloadLength);
  }

  repeats(other: Query): boolean {
    if (!(other instanceof UdpQuery)) return false;
    const [packet, before] = [this.#packet, other.#packet];
    const udp = Udp.of(packet)!;
    const held = Udp.of(before)!;
    return held.srcPort === udp.srcPort &&
      packet.view.getUint16(udp.payloadOffset) === before.view.getUint16(held.payloadOffset) &&
      isSame(held.ip.src, udp.ip.src);
  }

  hold(context: StageContext): void {
    context.hold(this.#packet);
  }

  drop(reason: DnsDrop, context: StageContext): void {
    context.drop(this.#packet, reason);
  }

  room(question: Question): number {
    return Math.min(question.limit, this.#limit);
  }

  open(): { bytes: Uint8Array; start: number } {
    const packet = this.#packet;
    this.#route.read(Udp.of(packet)!);
    this.#route.swap();
    const { from, mark } = packet;
    packet.reset(0);
    packet.from = packet.to = from;
    packet.mark = mark;
    return { bytes: packet.bytes, start: packet.offset };
  }

  send(length: number, context: StageContext): void {
    this.#packet.length = length;
    this.#route.encodeUdp(this.#packet);
    context.emit(this.#packet, opposite(this.#direction));
  }
}

function isSame(a: number | Uint8Array, b: number | Uint8Array): boolean {
  if (typeof a === "number" || typeof b === "number") return a === b;
  let i = 0;
  while (i < a.length && a[i] === b[i]) i++;
  return i === a.length;
}
