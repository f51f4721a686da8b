/** What ICMP over IPv4 and over IPv6 share: the layout of the header, but not what its numbers mean. */

import { checkField } from "./_encode.ts";
import type { Packet } from "../core/packet.ts";
import * as field from "./header_fields.ts";
import type { Ip } from "./ip.ts";
import { TransportView } from "./transport_view.ts";

// Specification: RFC 792, RFC 4443 section 2.1
const { ICMP_TYPE: TYPE, ICMP_CODE: CODE, ICMP_CHECKSUM: CHECKSUM, ICMP_HEADER: HEADER } = field;
const { ICMP_REST: REST, ICMP_ID: ID, ICMP_SEQ: SEQ } = field;

/** What the `encode` of either version writes. */
export interface IcmpFields {
  /** What the message says, such as `Icmpv4.EchoRequest`. */
  type: number;
  /** Which kind of that. @default {0} */
  code?: number;
  /** Tells one sender of echo requests from another. @default {0} */
  id?: number;
  /** Counts echo requests. @default {0} */
  seq?: number;
  /** The bytes of `id` and `seq` at once (unsigned 32 bits), for messages that have others. */
  rest?: number;
}

/** For the `encode` of either version, which says what it throws; `name` stands in the errors. */
export function encodeIcmp(packet: Packet, name: string, fields: IcmpFields): void {
  const { type, code = 0, id = 0, seq = 0 } = fields;
  checkField(name, "type", type, 0xff);
  checkField(name, "code", code, 0xff);
  checkField(name, "id", id, 0xffff);
  checkField(name, "seq", seq, 0xffff);
  const rest = fields.rest ?? id * 0x10000 + seq;
  checkField(name, "rest", rest, 0xffffffff);
  packet.prepend(HEADER);
  const { view, offset } = packet;
  view.setUint16(offset + TYPE, type << 8 | code);
  view.setUint16(offset + CHECKSUM, 0);
  view.setUint32(offset + REST, rest);
}

/** An ICMP message over either version, seen in place. */
export abstract class IcmpView<Header extends Ip> extends TransportView<Header> {
  /** What the message says, such as `EchoRequest`, one of the numbers that its class names. */
  get type(): number {
    return this.packet.bytes[this.start + TYPE]!;
  }
  set type(value: number) {
    this.setWord(TYPE, (value & 0xff) << 8 | this.code);
  }

  /** Which kind of that. */
  get code(): number {
    return this.packet.bytes[this.start + CODE]!;
  }
  set code(value: number) {
    this.setWord(TYPE, this.type << 8 | value & 0xff);
  }

  /** Tells one sender from another in echo and IPv4's timestamp messages; elsewhere the first half of `rest`. */
  get id(): number {
    return this.packet.view.getUint16(this.start + ID);
  }
  set id(value: number) {
    this.setWord(ID, value);
  }

  /**
   * Counts one sender's echo and IPv4's timestamp messages; elsewhere the second half of `rest`, such as the MTU
   * over IPv4.
   */
  get seq(): number {
    return this.packet.view.getUint16(this.start + SEQ);
  }
  set seq(value: number) {
    this.setWord(SEQ, value);
  }

  /** The second four bytes, whose meaning depends on the type (unsigned 32 bits). */
  get rest(): number {
    return this.packet.view.getUint32(this.start + REST);
  }
  set rest(value: number) {
    this.setDoubleWord(REST, value);
  }
}
