/** Formats TCP options like tcpdump (its print-tcp.c and print-mptcp.c). */

import { formatIpv4, formatIpv6 } from "./address.ts";
import { END_OF_OPTIONS, NO_OPERATION } from "./header_fields.ts";
import { Tcp } from "./tcp.ts";

// Specification: IANA "TCP Option Kind Numbers"
const NAMES: Readonly<Record<number, string>> = {
  0: "eol",
  1: "nop",
  2: "mss",
  3: "wscale",
  4: "sackOK",
  5: "sack",
  6: "echo",
  7: "echoreply",
  8: "TS",
  11: "cc",
  12: "ccnew",
  13: "",
  19: "md5",
  20: "scps",
  28: "uto",
  29: "tcp-ao",
  30: "mptcp",
  34: "tfo",
  254: "exp",
};
/** Experimental option of TCP Fast Open before it had a kind (RFC 6994, RFC 7413 appendix A). */
const EXPERIMENTAL = 254;
const FAST_OPEN = 0xf989;
// Specification: RFC 8684 section 3, bits of each subtype of Multipath TCP
const CAPABLE_CHECKSUM = 0x80;
const JOIN_BACKUP = 0x01;
const DSS_ACK = 0x01;
const DSS_LONG_ACK = 0x02;
const DSS_MAP = 0x04;
const DSS_LONG_MAP = 0x08;
const DSS_FIN = 0x10;
const ECHO = 0x01;

/** Data of an option: the bytes after its kind and length. */
interface Content {
  readonly view: DataView;
  readonly bytes: Uint8Array;
  readonly at: number;
  readonly length: number;
}

/** Formats the options of a header, separated by commas. */
export function tcpOptionsText(tcp: Tcp): string {
  const { bytes, view } = tcp.packet;
  const end = tcp.payloadOffset;
  const texts: string[] = [];
  for (let at = tcp.optionsOffset; at < end;) {
    const kind = bytes[at]!;
    if (kind === END_OF_OPTIONS || kind === NO_OPERATION) {
      texts.push(NAMES[kind]!);
      if (kind === END_OF_OPTIONS) break;
      at++;
      continue;
    }
    const length = at + 1 < end ? bytes[at + 1]! : 0;
    if (length < 2 || at + length > end) {
      texts.push("bad opt");
      break;
    }
    texts.push(optionText(kind, { view, bytes, at: at + 2, length: length - 2 }, tcp.flags));
    at += length;
  }
  return texts.join(",");
}

/** Formats one option, in hexadecimal if its length is wrong. */
function optionText(kind: number, content: Content, flags: number): string {
  const { length } = content;
  if (kind === EXPERIMENTAL && length >= 2) return experimentText(content);
  const name = NAMES[kind] ?? `unknown-${kind}`;
  const words = kind === 30 ? multipathText(content, flags) : contentText(kind, content);
  if (words !== undefined) return kind === 30 ? `${name} ${length + 2} ${words}` : `${name}${words}`;
  return length === 0 ? name : `${name} 0x${hexOf(content)}`;
}

function contentText(kind: number, content: Content): string | undefined {
  const { view, bytes, at, length } = content;
  switch (kind) {
    case 2:
      return length === 2 ? ` ${view.getUint16(at)}` : undefined;
    case 3:
      return length === 1 ? ` ${bytes[at]!}` : undefined;
    case 4:
      return length === 0 ? "" : undefined;
    case 5: {
      if (length % 8 !== 0) return undefined;
      let blocks = "";
      for (let i = 0; i < length; i += 8) {
        blocks += `{${view.getUint32(at + i)}:${view.getUint32(at + i + 4)}}`;
      }
      return ` ${length / 8} ${blocks}`;
    }
    case 6:
    case 7:
    case 11:
    case 12:
    case 13:
      return length === 4 ? ` ${view.getUint32(at)}` : undefined;
    case 8:
      return length === 8 ? ` val ${view.getUint32(at)} ecr ${view.getUint32(at + 4)}` : undefined;
    case 19:
      return length === 16
        ? ` shared secret not supplied with -M, can't check - ${hexOf(content)}`
        : undefined;
    case 20:
      return length === 2 ? ` cap ${hexOf(content, 0, 1)} id ${bytes[at + 1]!}` : undefined;
    case 28: {
      if (length !== 2) return undefined;
      const value = view.getUint16(at);
      return ` 0x${value.toString(16)} ${(value >> 1) * ((value & 1) === 0 ? 1 : 60)}`;
    }
    case 29: {
      if (length < 2) return undefined;
      const keys = ` keyid ${bytes[at]!} rnextkeyid ${bytes[at + 1]!}`;
      return length === 2 ? keys : `${keys} mac 0x${hexOf(content, 2)}`;
    }
    case 34:
      return ` ${cookieText(content)}`;
  }
  return undefined;
}

function experimentText(content: Content): string {
  const number = content.view.getUint16(content.at);
  if (number !== FAST_OPEN) return `exp-${number.toString(16).padStart(4, "0")}`;
  return `exp-tfo${cookieText({ ...content, at: content.at + 2, length: content.length - 2 })}`;
}

/** Formats a cookie; RFC 7413 section 4.1.1: an even number of bytes from 4 to 16. */
function cookieText(content: Content): string {
  const { length } = content;
  if (length === 0) return " cookiereq";
  return length % 2 !== 0 || length < 4 || length > 16 ? " (invalid)" : ` cookie ${hexOf(content)}`;
}

/** Formats a Multipath TCP option; `undefined` for a length that its subtype does not have. */
function multipathText(content: Content, flags: number): string | undefined {
  const { bytes, view, at, length } = content;
  if (length === 0) return undefined;
  switch (bytes[at]! >> 4) {
    case 0:
      return capableText(content);
    case 1:
      return joinText(content, flags);
    case 2:
      return length < 2 ? undefined : sequenceText(content);
    case 3:
      return length < 2 ? undefined : addressText(content);
    case 4:
      if (length < 2) return undefined;
      return `rem-addr id${Array.from(bytes.subarray(at + 1, at + length), (id) => ` ${id}`).join("")}`;
    case 5: {
      if (length > 2) return undefined;
      const role = (bytes[at]! & JOIN_BACKUP) !== 0 ? "backup" : "non-backup";
      return length === 1 ? `prio ${role}` : `prio ${role} id ${bytes[at + 1]!}`;
    }
    case 6:
      return length === 10 ? `fail seq ${view.getBigUint64(at + 2)}` : undefined;
    case 7:
      return length === 10 ? `fast-close key ${longHex(view, at + 2)}` : undefined;
    default:
      return "unknown";
  }
}

function capableText({ bytes, view, at, length }: Content): string | undefined {
  if (![2, 10, 18, 20, 22].includes(length)) return undefined;
  const checksum = (bytes[at + 1]! & CAPABLE_CHECKSUM) !== 0 ? " csum" : "";
  let keys = "";
  if (length >= 18) keys = ` {${longHex(view, at + 2)},${longHex(view, at + 10)}}`;
  else if (length >= 10) keys = ` {${longHex(view, at + 2)}}`;
  return `capable v${bytes[at]! & 0x0f}${checksum}${keys}`;
}

function joinText(content: Content, flags: number): string | undefined {
  const { bytes, view, at, length } = content;
  if (length === 22) return `join hmac 0x${hexOf(content, 2)}`;
  const isReply = (flags & Tcp.Ack) !== 0;
  if ((flags & Tcp.Syn) === 0 || length !== (isReply ? 14 : 10)) return undefined;
  const path = `join${(bytes[at]! & JOIN_BACKUP) !== 0 ? " backup" : ""} id ${bytes[at + 1]!}`;
  const number = (where: number): string => `0x${view.getUint32(at + where).toString(16)}`;
  return isReply
    ? `${path} hmac ${longHex(view, at + 2)} nonce ${number(10)}`
    : `${path} token ${number(2)} nonce ${number(6)}`;
}

/** Formats a Data Sequence Signal: connection-level acknowledgment and mapping of the segment's bytes. */
function sequenceText({ bytes, view, at, length }: Content): string | undefined {
  const bits = bytes[at + 1]!;
  let place = at + 2;
  const ackBytes = (bits & DSS_ACK) === 0 ? 0 : (bits & DSS_LONG_ACK) === 0 ? 4 : 8;
  const seqBytes = (bits & DSS_MAP) === 0 ? 0 : (bits & DSS_LONG_MAP) === 0 ? 4 : 8;
  const needed = 2 + ackBytes + (seqBytes === 0 ? 0 : seqBytes + 6);
  const hasChecksum = seqBytes > 0 && length === needed + 2;
  if (length !== needed && !hasChecksum) return undefined;
  const take = (size: number): string => {
    const at = place;
    place += size;
    if (size === 8) return `${view.getBigUint64(at)}`;
    return `${size === 4 ? view.getUint32(at) : view.getUint16(at)}`;
  };
  let text = "dss";
  if ((bits & DSS_FIN) !== 0) text += " fin";
  if (ackBytes > 0) text += ` ack ${take(ackBytes)}`;
  if (seqBytes > 0) text += ` seq ${take(seqBytes)} subseq ${take(4)} len ${take(2)}`;
  if (hasChecksum) text += ` csum 0x${view.getUint16(place).toString(16)}`;
  return text;
}

/** Formats an additional address of a host; version 0 of the protocol states the family, version 1 adds an HMAC. */
function addressText({ bytes, view, at, length }: Content): string | undefined {
  const bits = bytes[at]! & 0x0f;
  const isFirstVersion = bits === 4 || bits === 6;
  const signed = isFirstVersion || (bits & ECHO) !== 0 ? 0 : 8;
  const rest = length - 2 - signed;
  const size = rest === 4 || rest === 6 ? 4 : rest === 16 || rest === 18 ? 16 : 0;
  if (size === 0 || isFirstVersion && (bits === 4) !== (size === 4)) return undefined;
  const version = isFirstVersion ? `v0-ip${bits}` : signed === 0 ? "v1-echo" : "v1";
  const address = size === 4 ? formatIpv4(view.getUint32(at + 2)) : formatIpv6(bytes, at + 2);
  const port = rest > size ? `:${view.getUint16(at + 2 + size)}` : "";
  const hmac = signed > 0 ? ` hmac ${longHex(view, at + length - 8)}` : "";
  return `add-addr ${version} id ${bytes[at + 1]!} ${address}${port}${hmac}`;
}

function longHex(view: DataView, at: number): string {
  return `0x${view.getBigUint64(at).toString(16)}`;
}

function hexOf({ bytes, at, length }: Content, from = 0, to = length): string {
  return bytes.subarray(at + from, at + to).toHex();
}
