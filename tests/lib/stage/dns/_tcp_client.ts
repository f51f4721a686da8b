/** TCP client of the resolver, over a network that loses, duplicates and reorders packets. */

import { parseIpv4, parseIpv6 } from "@warren/tunnel/address";
import { Direction } from "@warren/tunnel/core";
import { Ipv4 } from "@warren/tunnel/ipv4";
import { Ipv6 } from "@warren/tunnel/ipv6";
import { Tcp } from "@warren/tunnel/tcp";
import { fail } from "node:assert/strict";
import { packetOf, wrongChecksum } from "../../../kit/packets.ts";
import { RESOLVER, type Rig } from "./_ask.ts";

/** Options of a client. */
export interface ClientOptions {
  src?: string;
  srcPort?: number;
  dst?: string;
  mss?: number;
  window?: number;
}

/** A segment as the client gets it. */
export interface Got {
  seq: number;
  ack: number;
  /** Such as `SA`. */
  flags: string;
  window: number;
  mss: number | undefined;
  payload: Uint8Array;
}

const LETTERS = "FSRPA";

/** A segment's packet, from a client to the resolver. */
export function segmentTo(
  fields: { seq: number; ack?: number; flags: string; payload?: Uint8Array },
  options: ClientOptions = {},
): Uint8Array {
  const { dst = RESOLVER, src = dst.includes(":") ? "fd09::1" : "10.9.0.1", srcPort = 5000 } = options;
  const { mss, window = 65_535 } = options;
  const { seq, ack = 0, flags, payload = new Uint8Array() } = fields;
  const packet = packetOf(payload);
  let bits = 0;
  for (const letter of flags) bits |= 1 << LETTERS.indexOf(letter);
  const isSyn = flags.includes("S") && mss !== undefined;
  Tcp.encode(packet, {
    srcPort,
    dstPort: 53,
    seq: seq >>> 0,
    ack: ack >>> 0,
    flags: bits,
    window,
    options: isSyn ? { mss } : {},
  });
  if (dst.includes(":")) Ipv6.encode(packet, { src: parseIpv6(src), dst: parseIpv6(dst), nextHeader: 6 });
  else Ipv4.encode(packet, { src: parseIpv4(src), dst: parseIpv4(dst), protocol: 6 });
  return packet.data.slice();
}

/** Reads a segment from the resolver, whose checksums must be right. */
export function readSegment(bytes: Uint8Array): Got & { dstPort: number; dst: string } {
  const wrong = wrongChecksum(bytes);
  if (wrong !== "") fail(`wrong checksum: ${wrong}`);
  const tcp = Tcp.of(packetOf(bytes))!;
  const flags = Array.from(LETTERS).filter((_, i) => (tcp.flags & 1 << i) !== 0).join("");
  const { seq, ack, window, mss, dstPort } = tcp;
  return { seq, ack, flags, window, mss, dstPort, dst: tcp.ip.dstText, payload: tcp.payload.slice() };
}

/** Faults of a network: probabilities, from 0 to 1. */
export interface Faults {
  loss: number;
  duplicates: number;
  reordering: number;
  random: () => number;
}

/** A client that sends queries and collects answers, like an unhurried stack. */
export class TcpClient {
  readonly answers: Uint8Array[] = [];
  isReset = false;
  isClosed = false;
  /** Number of packets from the resolver. */
  packets = 0;
  /** Longest payload of these packets (bytes). */
  longest = 0;
  readonly #rig: Rig;
  readonly #options: ClientOptions;
  readonly #faults: Faults | undefined;
  readonly #seq: number;
  #isOpen = false;
  /** All that is to be sent, and how much of it is acknowledged. */
  #data = new Uint8Array();
  #acknowledged = 0;
  #wantsFin = false;
  #expected = 0;
  readonly #early = new Map<number, Uint8Array>();
  #finAt = -1;
  #received: number[] = [];
  #sentAt = -Infinity;
  #late: Uint8Array[] = [];

  constructor(rig: Rig, options: ClientOptions = {}, faults?: Faults) {
    this.#rig = rig;
    this.#options = { mss: 1460, ...options };
    this.#faults = faults;
    this.#seq = 0xffffff00;
  }

  /** Adds queries to what is to be sent. */
  ask(...messages: Uint8Array[]): void {
    const framed = messages.flatMap((message) => [message.length >> 8, message.length & 255, ...message]);
    this.#data = Uint8Array.of(...this.#data, ...framed);
    this.#sentAt = -Infinity;
  }

  /** Closes its side when all is sent. */
  close(): void {
    this.#wantsFin = true;
    this.#sentAt = -Infinity;
  }

  /** Lets time pass in steps until that is so; returns whether it became so. */
  async until(isSo: () => boolean, limit = 120_000, step = 50): Promise<boolean> {
    for (let time = 0; time <= limit; time += step) {
      await this.step();
      if (isSo()) return true;
      this.#rig.after(step);
    }
    return false;
  }

  /** Sends what is due, and takes what has come. */
  async step(): Promise<void> {
    const { now } = this.#rig.test;
    if (now - this.#sentAt >= 400 && !this.isReset) {
      this.#sentAt = now;
      this.#sendAll();
    }
    await this.#rig.turns();
    for (let i = 0; i < 20; i++) {
      const { device } = this.#rig.test.receive();
      const arrived = this.#pass([...this.#late.splice(0), ...device]);
      if (arrived.length === 0) return;
      for (const bytes of arrived) this.#take(readSegment(bytes));
      await this.#rig.turns();
    }
  }

  #sendAll(): void {
    if (!this.#isOpen) return this.#send({ seq: this.#seq, flags: "S" });
    for (let at = this.#acknowledged; at < this.#data.length; at += 100) {
      this.#send({
        seq: this.#seq + 1 + at,
        flags: "PA",
        payload: this.#data.slice(at, at + 100),
      });
    }
    if (this.#wantsFin && this.#acknowledged <= this.#data.length) {
      this.#send({ seq: this.#seq + 1 + this.#data.length, flags: "FA" });
    }
  }

  #send(fields: { seq: number; flags: string; payload?: Uint8Array }): void {
    const ack = this.#isOpen ? this.#expected : 0;
    for (const bytes of this.#pass([segmentTo({ ack, ...fields }, this.#options)])) {
      this.#rig.test.send(Direction.Outbound, bytes);
      this.#rig.test.settle();
    }
  }

  #pass(packets: Uint8Array[]): Uint8Array[] {
    if (this.#faults === undefined) return packets;
    const { loss, duplicates, reordering, random } = this.#faults;
    const passed: Uint8Array[] = [];
    for (const packet of packets) {
      if (random() < loss) continue;
      if (random() < reordering) passed.unshift(packet);
      else passed.push(packet);
      if (random() < duplicates) passed.push(packet);
    }
    return passed;
  }

  #take(got: Got): void {
    this.packets++;
    this.longest = Math.max(this.longest, got.payload.length);
    if (got.flags.includes("R")) {
      this.isReset = true;
      return;
    }
    if (got.flags.includes("S")) {
      if (this.#isOpen) return this.#acknowledge();
      if (got.ack !== (this.#seq + 1 >>> 0)) fail("the SYN is not acknowledged");
      this.#isOpen = true;
      this.#expected = got.seq + 1 >>> 0;
      this.#acknowledge();
      this.#sendAll();
      return;
    }
    const acknowledged = (got.ack - this.#seq | 0) - 1;
    if (acknowledged > this.#acknowledged) this.#acknowledged = acknowledged;
    if (got.payload.length > 0) this.#early.set(got.seq, got.payload);
    if (got.flags.includes("F")) this.#finAt = got.seq + got.payload.length >>> 0;
    const isNew = got.payload.length > 0 || got.flags.includes("F");
    this.#readOn();
    if (isNew) this.#acknowledge();
  }

  #readOn(): void {
    for (let found = true; found;) {
      found = false;
      for (const [seq, payload] of this.#early) {
        const known = this.#expected - seq | 0;
        if (known < 0) continue;
        this.#early.delete(seq);
        if (known >= payload.length) continue;
        this.#received.push(...payload.subarray(known));
        this.#expected = this.#expected + payload.length - known >>> 0;
        found = true;
      }
    }
    if (this.#finAt === this.#expected && !this.isClosed) {
      this.#expected = this.#expected + 1 >>> 0;
      this.isClosed = true;
    }
    for (;;) {
      const length = this.#received[0]! << 8 | this.#received[1]!;
      if (this.#received.length < 2 || this.#received.length < 2 + length) return;
      this.answers.push(Uint8Array.from(this.#received.slice(2, 2 + length)));
      this.#received = this.#received.slice(2 + length);
    }
  }

  #acknowledge(): void {
    const isDone = this.#acknowledged > this.#data.length;
    this.#send({
      seq: this.#seq + 1 + Math.min(this.#acknowledged, this.#data.length) + (isDone ? 1 : 0),
      flags: "A",
    });
  }
}
