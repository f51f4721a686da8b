/** Recently sent packets by flow, to validate the ICMP errors about them (RFC 5927 section 4). */

import * as field from "../../wire/header_fields.ts";
import { sipHash } from "../../core/sip_hash.ts";
import type { Packet } from "../../core/packet.ts";
import type { FlowKey } from "../../table/flow_key.ts";
import type { Ip } from "../../wire/ip.ts";
import { Protocol } from "../../wire/protocol.ts";
import { Tcp } from "../../wire/tcp.ts";

// Specification
const { TCP_ACK, TCP_FLAGS, TCP_SEQ } = field;

// Implementation
/** Number of flows; a new flow replaces one with the same hash. */
const FLOWS = 16_384;
/** Maximum time from a packet to the error about it (milliseconds). */
const RECENT = 10_000;
/** Maximum distance of a segment behind the oldest byte in flight (bytes); one further behind is of a new connection. */
const MAX_REORDERING = 2 ** 20;

/** Flows by hash: the longest packet of each, and the sequence numbers in flight of TCP. */
export class SentPackets {
  readonly #hashes = new Int32Array(FLOWS);
  readonly #times = new Float64Array(FLOWS).fill(-Infinity);
  readonly #longest = new Uint16Array(FLOWS);
  /** TCP sequence numbers of the oldest byte in flight, and after the newest. */
  readonly #oldest = new Int32Array(FLOWS);
  readonly #ends = new Int32Array(FLOWS);
  readonly #hashKey: ArrayLike<number>;
  #lastTcp = -Infinity;

  /** @param hashKey Key of the hash (two 32-bit numbers), for tests. */
  constructor(hashKey: ArrayLike<number> = crypto.getRandomValues(new Uint32Array(2))) {
    this.#hashKey = hashKey;
  }

  /** Notes a packet of the key's flow; `length` is that of the packet, or of a super-packet's longest segment. */
  note(key: FlowKey, ip: Ip, length: number, now: number): void {
    const hash = this.#hash(key);
    const flow = hash & FLOWS - 1;
    const isNew = this.#hashes[flow] !== hash || now - this.#times[flow]! >= RECENT;
    this.#hashes[flow] = hash;
    this.#times[flow] = now;
    if (isNew || length > this.#longest[flow]!) this.#longest[flow] = length;
    if (key.protocol !== Protocol.Tcp) return;
    this.#lastTcp = now;
    const { packet, payloadOffset } = ip;
    const headerLength = packet.bytes[payloadOffset + TCP_FLAGS]! >> 4 << 2;
    const seq = packet.view.getInt32(payloadOffset + TCP_SEQ);
    const end = seq + ip.payloadLength - headerLength | 0;
    const ahead = end - this.#ends[flow]! | 0;
    if (isNew || (this.#oldest[flow]! - end | 0) > MAX_REORDERING || ahead > 2 ** 30) {
      this.#oldest[flow] = seq;
      this.#ends[flow] = end;
    } else if (ahead > 0) this.#ends[flow] = end;
  }

  /** Reports whether any TCP segment may be in flight, so that acknowledgments must be noted. */
  awaits(now: number): boolean {
    return now - this.#lastTcp < RECENT;
  }

  /** Notes the acknowledgment of a TCP segment; the key is that of its flow, reversed. */
  acknowledge(key: FlowKey, { packet, payloadOffset }: Ip): void {
    if ((packet.view.getUint16(payloadOffset + TCP_FLAGS) & Tcp.Ack) === 0) return;
    const hash = this.#hash(key);
    const flow = hash & FLOWS - 1;
    if (this.#hashes[flow] !== hash) return;
    const ack = packet.view.getInt32(payloadOffset + TCP_ACK);
    if ((ack - this.#oldest[flow]! | 0) <= 0) return;
    this.#oldest[flow] = ack;
    if ((ack - this.#ends[flow]! | 0) > 0) this.#ends[flow] = ack;
  }

  /** Reports whether the packet that an error quotes, of the key's flow, was sent recently and is not acknowledged. */
  has({ view }: Packet, key: FlowKey, now: number): boolean {
    const { quoted } = key;
    const hash = this.#hash(key);
    const flow = hash & FLOWS - 1;
    if (this.#hashes[flow] !== hash || now - this.#times[flow]! >= RECENT) return false;
    if (quoted.totalLength > this.#longest[flow]!) return false;
    if (key.protocol !== Protocol.Tcp) return true;
    const seq = view.getInt32(quoted.upperOffset + TCP_SEQ);
    return (seq - this.#oldest[flow]! | 0) >= 0 && (this.#ends[flow]! - seq | 0) > 0;
  }

  #hash(key: FlowKey): number {
    return sipHash(key.words, key.length, this.#hashKey[0]!, this.#hashKey[1]!);
  }
}
