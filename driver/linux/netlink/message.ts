/** Encoding and parsing of netlink messages: header, fixed structure, attributes. */

import { checkInteger } from "../../../lib/core/options.ts";
import { viewOf } from "../../native_memory.ts";

// Netlink uses the byte order of the machine, which is little-endian wherever Deno runs.
const LITTLE_ENDIAN = true;

// Specification: include/uapi/linux/netlink.h
/**
 * Header of every message.
 *
 * ```c
 * struct nlmsghdr {
 *   __u32 nlmsg_len;    // including this header, excluding trailing padding
 *   __u16 nlmsg_type;
 *   __u16 nlmsg_flags;
 *   __u32 nlmsg_seq;
 *   __u32 nlmsg_pid;
 * };
 * ```
 */
export const NLMSGHDR = { len: 0, type: 4, flags: 6, seq: 8, pid: 12, size: 16 } as const;
/**
 * Error reply to a request; with error 0, an acknowledgement.
 *
 * ```c
 * struct nlmsgerr {
 *   int error;           // a negative errno
 *   struct nlmsghdr msg; // header of the request; its payload follows unless NLM_F_CAPPED is set; then attributes
 * };
 * ```
 */
const NLMSGERR = { error: 0, msg: 4, size: 20 } as const;
/**
 * Header of an attribute, whose value is padded to four bytes.
 *
 * ```c
 * struct rtattr {
 *   unsigned short rta_len;    // including this header, excluding padding
 *   unsigned short rta_type;
 * };
 * ```
 */
const RTATTR = { len: 0, type: 2, size: 4 } as const;

/** Types of control messages (`NLMSG_*`). */
const Control = { Error: 2, Done: 3 } as const;
/** Flags of a message (`NLM_F_*`). */
export const Flag = {
  Request: 0x001,
  Ack: 0x004,
  DumpInterrupted: 0x010,
  Dump: 0x300,
  Exclusive: 0x200,
  Create: 0x400,
  Capped: 0x100,
  AckAttributes: 0x200,
} as const;
/** Message types of rtnetlink (include/uapi/linux/rtnetlink.h), under their kernel names. */
export const MessageType = {
  RTM_NEWLINK: 16,
  RTM_DELLINK: 17,
  RTM_GETLINK: 18,
  RTM_NEWADDR: 20,
  RTM_DELADDR: 21,
  RTM_GETADDR: 22,
  RTM_NEWROUTE: 24,
  RTM_DELROUTE: 25,
  RTM_GETROUTE: 26,
  RTM_NEWRULE: 32,
  RTM_DELRULE: 33,
  RTM_GETRULE: 34,
} as const;
/** One of {@linkcode MessageType}'s values. */
export type MessageType = typeof MessageType[keyof typeof MessageType];
// NLMSGERR_ATTR_MSG: the error text.
const ATTRIBUTE_MESSAGE = 1;
// NLA_TYPE_MASK: the top two bits are NLA_F_NESTED and NLA_F_NET_BYTEORDER.
const ATTRIBUTE_TYPE_MASK = 0x3fff;
// NLMSG_ALIGNTO and RTA_ALIGNTO.
const ALIGNMENT = 4;

/** Flags of a request that adds an object and fails if it already exists. */
export const CREATE: number = Flag.Request | Flag.Ack | Flag.Create | Flag.Exclusive;
/** Flags of a request that changes or removes something. */
export const CHANGE: number = Flag.Request | Flag.Ack;
/** Flags of a request for one object. */
export const GET: number = Flag.Request;
/** Flags of a request for all objects of a kind. */
export const DUMP: number = Flag.Request | Flag.Dump;

const TYPE_NAMES = new Map<number, string>(Object.entries(MessageType).map(([name, type]) => [type, name]));

/** Name of a message type, such as `RTM_NEWROUTE`. */
export function messageTypeName(type: number): string {
  return TYPE_NAMES.get(type) ?? `message type ${type}`;
}

/** A change to the system's network settings, as netlink messages. */
export interface Change {
  /** The action, which follows *Cannot* in errors, such as `add the route 10.0.0.0/8 to tun0`. */
  readonly description: string;
  /** Message that applies the change. */
  readonly request: Uint8Array<ArrayBuffer>;
  /** Message that undoes the change. */
  readonly undo: Uint8Array<ArrayBuffer>;
}

/** An attribute: type and value. */
type Attribute = readonly [type: number, value: Uint8Array];

/**
 * Returns an attribute with a 32-bit number, a NUL-terminated string or bytes; none for `undefined`.
 *
 * @throws {RangeError} when a number does not fit 32 bits.
 */
export function attribute(type: number, value: number | string | Uint8Array | undefined): Attribute[] {
  if (value === undefined) return [];
  if (typeof value === "string") return [[type, new TextEncoder().encode(`${value}\0`)]];
  if (typeof value !== "number") return [[type, value]];
  checkInteger("encode a netlink attribute", "value", value, 0, 0xffff_ffff);
  const bytes = new Uint8Array(4);
  viewOf(bytes).setUint32(0, value, LITTLE_ENDIAN);
  return [[type, bytes]];
}

function align(length: number): number {
  return (length + ALIGNMENT - 1) & -ALIGNMENT;
}

/** Encodes a message with sequence number 0: the header, the structure `fixed`, the attributes in order. */
export function encodeMessage(
  type: MessageType,
  flags: number,
  fixed: Uint8Array,
  attributes: readonly Attribute[],
): Uint8Array<ArrayBuffer> {
  let length = NLMSGHDR.size + align(fixed.length);
  for (const [, value] of attributes) length += align(RTATTR.size + value.length);
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  view.setUint32(NLMSGHDR.len, length, LITTLE_ENDIAN);
  view.setUint16(NLMSGHDR.type, type, LITTLE_ENDIAN);
  view.setUint16(NLMSGHDR.flags, flags, LITTLE_ENDIAN);
  bytes.set(fixed, NLMSGHDR.size);
  let offset = NLMSGHDR.size + align(fixed.length);
  for (const [type, value] of attributes) {
    view.setUint16(offset + RTATTR.len, RTATTR.size + value.length, LITTLE_ENDIAN);
    view.setUint16(offset + RTATTR.type, type, LITTLE_ENDIAN);
    bytes.set(value, offset + RTATTR.size);
    offset += align(RTATTR.size + value.length);
  }
  return bytes;
}

/** Returns a copy of a message with a different type and flags, such as a deletion from an addition. */
export function withType(message: Uint8Array, type: MessageType, flags: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(message);
  const view = new DataView(bytes.buffer);
  view.setUint16(NLMSGHDR.type, type, LITTLE_ENDIAN);
  view.setUint16(NLMSGHDR.flags, flags, LITTLE_ENDIAN);
  return bytes;
}

/**
 * Joins requests into one datagram with consecutive sequence numbers. Clears NLM_F_ACK in all but the last request, so
 * that the kernel replies to the others only if they fail.
 */
export function joinRequests(requests: readonly Uint8Array[], sequence: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(requests.reduce((length, request) => length + align(request.length), 0));
  const view = new DataView(bytes.buffer);
  let offset = 0;
  requests.forEach((request, i) => {
    bytes.set(request, offset);
    view.setUint32(offset + NLMSGHDR.seq, (sequence + i) >>> 0, LITTLE_ENDIAN);
    if (i < requests.length - 1) {
      const flags = view.getUint16(offset + NLMSGHDR.flags, LITTLE_ENDIAN);
      view.setUint16(offset + NLMSGHDR.flags, flags & ~Flag.Ack, LITTLE_ENDIAN);
    }
    offset += align(request.length);
  });
  return bytes;
}

/** A received message. */
export interface Message {
  /** {@linkcode MessageType}, or the type of a control message. */
  readonly type: number;
  /** {@linkcode Flag}s. */
  readonly flags: number;
  /** Sequence number of the request that the message replies to. */
  readonly sequence: number;
  /** Bytes after the header. */
  readonly body: Uint8Array;
}

/** Parses the messages in a datagram, up to the first invalid length. */
export function readMessages(bytes: Uint8Array): Message[] {
  const view = viewOf(bytes);
  const messages: Message[] = [];
  for (let offset = 0; offset + NLMSGHDR.size <= bytes.length;) {
    const length = view.getUint32(offset + NLMSGHDR.len, LITTLE_ENDIAN);
    if (length < NLMSGHDR.size || length > bytes.length - offset) break;
    messages.push({
      type: view.getUint16(offset + NLMSGHDR.type, LITTLE_ENDIAN),
      flags: view.getUint16(offset + NLMSGHDR.flags, LITTLE_ENDIAN),
      sequence: view.getUint32(offset + NLMSGHDR.seq, LITTLE_ENDIAN),
      body: bytes.subarray(offset + NLMSGHDR.size, offset + length),
    });
    offset += align(length);
  }
  return messages;
}

/** Attributes by type. If a type occurs several times, the last one wins. */
export class Attributes {
  readonly #values = new Map<number, Uint8Array>();
  /** True if every length is valid and no bytes are left over. */
  readonly whole: boolean;

  /** Parses attributes from `start`, up to the first invalid length. */
  constructor(bytes: Uint8Array, start: number) {
    const view = viewOf(bytes);
    let offset = align(start);
    while (offset + RTATTR.size <= bytes.length) {
      const length = view.getUint16(offset + RTATTR.len, LITTLE_ENDIAN);
      if (length < RTATTR.size || length > bytes.length - offset) break;
      const type = view.getUint16(offset + RTATTR.type, LITTLE_ENDIAN) & ATTRIBUTE_TYPE_MASK;
      this.#values.set(type, bytes.subarray(offset + RTATTR.size, offset + length));
      offset += align(length);
    }
    this.whole = offset >= bytes.length;
  }

  /** Types of the attributes. */
  get types(): number[] {
    return [...this.#values.keys()];
  }

  /** Returns the bytes of a value. */
  bytes(type: number): Uint8Array | undefined {
    return this.#values.get(type);
  }

  /** Returns an 8-bit value; `undefined` when it is missing or empty. */
  u8(type: number): number | undefined {
    return this.#values.get(type)?.[0];
  }

  /** Returns a 32-bit value; `undefined` when it is missing or too short. */
  u32(type: number): number | undefined {
    const value = this.#values.get(type);
    return value === undefined || value.length < 4 ? undefined : viewOf(value).getUint32(0, LITTLE_ENDIAN);
  }

  /** Returns a value as text, up to the first NUL. */
  text(type: number): string | undefined {
    const value = this.#values.get(type);
    if (value === undefined) return undefined;
    const end = value.indexOf(0);
    return new TextDecoder().decode(new Uint8Array(end < 0 ? value : value.subarray(0, end)));
  }

  /** Returns the attributes nested in a value; none when it is missing. */
  nested(type: number): Attributes {
    return new Attributes(this.#values.get(type) ?? new Uint8Array(), 0);
  }
}

/** Outcome of a request. */
export interface Outcome {
  /** Error number; 0 for success. */
  readonly errno: number;
  /** The kernel's error text (extended ACK). */
  readonly text: string | undefined;
}

/** Parses an acknowledgement, an error or the end of a dump; `undefined` for any other message. */
export function readOutcome(message: Message): Outcome | undefined {
  if (message.type !== Control.Error && message.type !== Control.Done) return undefined;
  const { body } = message;
  if (body.length < 4) return { errno: 0, text: undefined };
  const view = viewOf(body);
  const errno = Math.abs(view.getInt32(NLMSGERR.error, LITTLE_ENDIAN));
  if ((message.flags & Flag.AckAttributes) === 0) return { errno, text: undefined };
  let start = 4;
  if (message.type === Control.Error) {
    if (body.length < NLMSGERR.size) return { errno, text: undefined };
    const capped = (message.flags & Flag.Capped) !== 0;
    const length = view.getUint32(NLMSGERR.msg + NLMSGHDR.len, LITTLE_ENDIAN);
    start = capped ? NLMSGERR.size : NLMSGERR.msg + length;
  }
  return { errno, text: new Attributes(body, start).text(ATTRIBUTE_MESSAGE) };
}
