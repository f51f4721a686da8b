/** Common base of the ICMPv4 and ICMPv6 views: the header's layout, without the meaning of types and codes. */

import { checkInteger } from "../core/options.ts";
import type { Packet } from "../core/packet.ts";
import * as field from "./header_fields.ts";
import type { Ip } from "./ip.ts";
import { TransportView } from "./transport_view.ts";

// Specification: RFC 792, RFC 4443 section 2.1
const { ICMP_TYPE: TYPE, ICMP_CODE: CODE, ICMP_CHECKSUM: CHECKSUM, ICMP_HEADER: HEADER } = field;
const { ICMP_REST: REST, ICMP_ID: ID, ICMP_SEQ: SEQ } = field;

/** Header fields for `Icmpv4.encode` and `Icmpv6.encode`. */
export interface IcmpFields {
  /** Type of the message, such as `Icmpv4.EchoRequest`. */
  type: number;
  /** Code: the subtype. @default {0} */
  code?: number;
  /** Identifier, which distinguishes senders of echo requests. @default {0} */
  id?: number;
  /** Sequence number of an echo request. @default {0} */
  seq?: number;
  /** Replaces `id` and `seq` (unsigned 32 bits), for messages with other fields in their place. */
  rest?: number;
}

/** Prepends a header; `attempt` is the text after "Cannot" in errors. */
export function encodeIcmp(packet: Packet, attempt: string, fields: IcmpFields): void {
  const { type, code = 0, id = 0, seq = 0 } = fields;
  checkInteger(attempt, "type", type, 0, 0xff);
  checkInteger(attempt, "code", code, 0, 0xff);
  checkInteger(attempt, "id", id, 0, 0xffff);
  checkInteger(attempt, "seq", seq, 0, 0xffff);
  const rest = fields.rest ?? id * 0x10000 + seq;
  checkInteger(attempt, "rest", rest, 0, 0xffffffff);
  packet.prepend(HEADER);
  const { view, offset } = packet;
  view.setUint16(offset + TYPE, type << 8 | code);
  view.setUint16(offset + CHECKSUM, 0);
  view.setUint32(offset + REST, rest);
}

/** ICMP message over IPv4 or IPv6. */
export abstract class IcmpView<Header extends Ip> extends TransportView<Header> {
  /** Type of the message, such as `EchoRequest`, a constant of the version's class. */
  get type(): number {
    return this.packet.bytes[this.start + TYPE]!;
  }
  set type(value: number) {
    this.setWord(TYPE, (value & 0xff) << 8 | this.code);
  }

  /** Code: the subtype. */
  get code(): number {
    return this.packet.bytes[this.start + CODE]!;
  }
  set code(value: number) {
    this.setWord(TYPE, this.type << 8 | value & 0xff);
  }

  /** Identifier of echo and ICMPv4 timestamp messages; otherwise the upper half of `rest`. */
  get id(): number {
    return this.packet.view.getUint16(this.start + ID);
  }
  set id(value: number) {
    this.setWord(ID, value);
  }

  /** Sequence number of echo and ICMPv4 timestamp messages; otherwise the lower half of `rest`, such as an MTU. */
  get seq(): number {
    return this.packet.view.getUint16(this.start + SEQ);
  }
  set seq(value: number) {
    this.setWord(SEQ, value);
  }

  /** Bytes 4 to 7, whose meaning depends on the type (unsigned 32 bits). */
  get rest(): number {
    return this.packet.view.getUint32(this.start + REST);
  }
  set rest(value: number) {
    this.setDoubleWord(REST, value);
  }
}
