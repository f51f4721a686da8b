/** Netlink messages as bytes: header, fixed structure, attributes; built and read without a socket. */

// Numbers in netlink are in the machine's order, which on every system that Deno runs on is little-endian.
const LITTLE_ENDIAN = true;

// Specification: include/uapi/linux/netlink.h
/**
 * The header of every message.
 *
 * ```c
 * struct nlmsghdr {
 *   __u32 nlmsg_len;    // with this header, without the padding behind the message
 *   __u16 nlmsg_type;
 *   __u16 nlmsg_flags;
 *   __u32 nlmsg_seq;
 *   __u32 nlmsg_pid;
 * };
 * ```
 */
export const NLMSGHDR = { len: 0, type: 4, flags: 6, seq: 8, pid: 12, size: 16 } as const;
/**
 * What answers a request that failed, and with error 0 one that did not.
 *
 * ```c
 * struct nlmsgerr {
 *   int error;           // a negative errno
 *   struct nlmsghdr msg; // the request's; then its payload unless NLM_F_CAPPED; then attributes
 * };
 * ```
 */
export const NLMSGERR = { error: 0, msg: 4, size: 20 } as const;
/**
 * The header of an attribute; what follows it is padded to four bytes.
 *
 * ```c
 * struct rtattr {
 *   unsigned short rta_len;    // with this header, without the padding
 *   unsigned short rta_type;
 * };
 * ```
 */
export const RTATTR = { len: 0, type: 2, size: 4 } as const;

/** Messages that are no payload (`NLMSG_*`). */
export const Control = { Error: 2, Done: 3, Overrun: 4 } as const;
/** Flags of a message (`NLM_F_*`). */
export const Flag = {
  Request: 0x001,
  Multi: 0x002,
  Ack: 0x004,
  DumpInterrupted: 0x010,
  Dump: 0x300,
  Exclusive: 0x200,
  Create: 0x400,
  Capped: 0x100,
  AckAttributes: 0x200,
} as const;
/** Messages of rtnetlink (include/uapi/linux/rtnetlink.h), by the names that the kernel gives them. */
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
// NLMSGERR_ATTR_MSG: the kernel's own words for what is wrong.
const ATTRIBUTE_MESSAGE = 1;
// NLA_TYPE_MASK: the two upper bits say nested and big-endian.
const ATTRIBUTE_TYPE_MASK = 0x3fff;
// NLMSG_ALIGNTO and RTA_ALIGNTO.
const ALIGNMENT = 4;

/** The flags of a request that makes something new, and fails when it is there already. */
export const CREATE: number = Flag.Request | Flag.Ack | Flag.Create | Flag.Exclusive;
/** The flags of a request that changes or removes something. */
export const CHANGE: number = Flag.Request | Flag.Ack;
/** The flags of a request for one thing. */
export const GET: number = Flag.Request;
/** The flags of a request for everything of a kind. */
export const DUMP: number = Flag.Request | Flag.Dump;

const TYPE_NAMES = new Map<number, string>(Object.entries(MessageType).map(([name, type]) => [type, name]));

/** The kernel's name for a type of message, such as `RTM_NEWROUTE`. */
export function messageTypeName(type: number): string {
  return TYPE_NAMES.get(type) ?? `message type ${type}`;
}

/** A change of the system's network settings, as messages that only need to be sent. */
export interface Change {
  /** What it does, after *Cannot*: such as `add the route 10.0.0.0/8 to tun0`. */
  readonly description: string;
  /** The message that makes it. */
  readonly request: Uint8Array<ArrayBuffer>;
  /** The message that takes it back; `undefined` for what cannot be taken back. */
  readonly undo: Uint8Array<ArrayBuffer> | undefined;
}

/** An attribute: its type and the bytes of its value. */
export type Attribute = readonly [type: number, value: Uint8Array];

/**
 * An attribute of 32 bits, or of text with a zero byte behind it.
 *
 * @throws {RangeError} when a number does not fit.
 */
export function attribute(type: number, value: number | string): Attribute {
  if (typeof value === "string") return [type, new TextEncoder().encode(`${value}\0`)];
  if (value !== value >>> 0) throw new RangeError(`Cannot use ${value}: it is not a number of 32 bits`);
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, LITTLE_ENDIAN);
  return [type, bytes];
}

function align(length: number): number {
  return (length + ALIGNMENT - 1) & -ALIGNMENT;
}

/** A message of this type: header, then `fixed`, then the attributes, in their order. Its sequence is 0. */
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

/** The same message as another type, with other flags: what is added by one is removed by the other. */
export function withType(message: Uint8Array, type: MessageType, flags: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(message);
  const view = new DataView(bytes.buffer);
  view.setUint16(NLMSGHDR.type, type, LITTLE_ENDIAN);
  view.setUint16(NLMSGHDR.flags, flags, LITTLE_ENDIAN);
  return bytes;
}

/** The same message with this sequence number. */
export function withSequence(message: Uint8Array, sequence: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(message);
  new DataView(bytes.buffer).setUint32(NLMSGHDR.seq, sequence, LITTLE_ENDIAN);
  return bytes;
}

/** Requests to be sent at once, numbered from `sequence`; only the last one asks for an acknowledgement. */
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

/** A message that was received. */
export interface Message {
  /** Its {@linkcode MessageType} or {@linkcode Control}. */
  readonly type: number;
  /** Its {@linkcode Flag}s. */
  readonly flags: number;
  /** The number of the request that it answers. */
  readonly sequence: number;
  /** What follows its header. */
  readonly body: Uint8Array;
}

/** The messages of a datagram. What follows a length that cannot be is not read. */
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

/** Attributes by type, of which the last of a type counts, and whether they filled their bytes exactly. */
export class Attributes {
  readonly #values = new Map<number, Uint8Array>();
  /** Whether every length was possible and no byte was left over. */
  readonly whole: boolean;

  /** Reads the attributes from `start`. What follows a length that cannot be is not read. */
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

  /** The types that are there. */
  get types(): number[] {
    return [...this.#values.keys()];
  }

  /** A value's bytes. */
  bytes(type: number): Uint8Array | undefined {
    return this.#values.get(type);
  }

  /** A value of 8 bits; `undefined` also when it is shorter. */
  u8(type: number): number | undefined {
    return this.#values.get(type)?.[0];
  }

  /** A value of 32 bits; `undefined` also when it is shorter. */
  u32(type: number): number | undefined {
    const value = this.#values.get(type);
    return value === undefined || value.length < 4 ? undefined : viewOf(value).getUint32(0, LITTLE_ENDIAN);
  }

  /** The 64 bits at an offset into a value, exact up to 2⁵³; `undefined` also when it is shorter. */
  u64(type: number, offset: number): number | undefined {
    const value = this.#values.get(type);
    if (value === undefined || value.length < offset + 8) return undefined;
    return Number(viewOf(value).getBigUint64(offset, LITTLE_ENDIAN));
  }

  /** A value of text, up to its first zero byte. */
  text(type: number): string | undefined {
    const value = this.#values.get(type);
    if (value === undefined) return undefined;
    const end = value.indexOf(0);
    return new TextDecoder().decode(new Uint8Array(end < 0 ? value : value.subarray(0, end)));
  }

  /** The attributes within one; none when it is not there. */
  nested(type: number): Attributes {
    return new Attributes(this.#values.get(type) ?? new Uint8Array(), 0);
  }
}

/** How a request ended. */
export interface Outcome {
  /** The error number; 0: it was done. */
  readonly errno: number;
  /** What the kernel says about it, in its own words. */
  readonly text: string | undefined;
}

/** Reads an acknowledgement, a failure, or the end of a dump; `undefined` for any other message. */
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

/** A look at the same bytes as numbers, which netlink has in the machine's order. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
