/**
 * Packets as text and back, for golden tests. A line says what differs from an ordinary packet:
 *
 *     udp 10.9.0.1:5000 > 192.0.2.1:53 "hello"
 *     tcp [fd00::1]:5000 > [2001:db8::1]:80 S seq 7 mss 1460 ttl 63
 *     icmp 10.9.0.1 > 192.0.2.1 type 8 id 7 seq 1 payload 56
 *     icmp 192.0.2.9 > 10.9.0.1 type 3 code 4 rest 1400 { udp 10.9.0.1:5000 > 192.0.2.1:53 payload 20 cut 28 }
 *     ip 10.9.0.1 > 192.0.2.1 protocol 17 ident 7 more offset 1480 bytes 0a0b0c
 *     hex 45 00 00 14
 *
 * A payload is text, bytes, so many bytes that count up from 0, or a packet in braces; `cut` is how many bytes
 * of a packet there are. `ident`, `more` and `offset` over IPv6 stand in a fragment header. Checksums are right;
 * where one is not, the formatted text ends in what is wrong, and what the words cannot say is `hex`.
 */

import { parseIpv4, parseIpv6 } from "../../lib/wire/address.ts";
import { checksum } from "../../lib/core/checksum.ts";
import { type Packet, PacketPool } from "../../lib/core/mod.ts";
import { Icmpv4 } from "../../lib/wire/icmpv4.ts";
import { Icmpv6 } from "../../lib/wire/icmpv6.ts";
import { Ip, Protocol } from "../../lib/wire/ip.ts";
import { Ipv4 } from "../../lib/wire/ipv4.ts";
import { Ipv6 } from "../../lib/wire/ipv6.ts";
import { Tcp } from "../../lib/wire/tcp.ts";
import { Udp } from "../../lib/wire/udp.ts";
import { hex, wrongChecksum } from "./packets.ts";

const IPV4_HEADER = 20;
const IPV4_FLAGS = 6;
const IPV4_MORE = 0x2000;
const IPV4_PROTOCOL = 9;
const IPV4_CHECKSUM = 10;
const IPV6_FRAGMENT = 8;
/** A protocol without a checksum. */
const UNKNOWN = 255;
const TCP_FLAGS = "FSRPAUEW";
/** Words with a number behind them, and what they are when they are left out. */
const NUMBERS = {
  ttl: 64,
  dscp: 0,
  ecn: 0,
  label: 0,
  ident: 0,
  offset: 0,
  protocol: 0,
  type: 0,
  code: 0,
  rest: 0,
  id: 0,
  seq: 0,
  ack: 0,
  window: 65_535,
  mss: 0,
  wscale: 0,
};
/** What a slot holds. */
const LONGEST = 65_535;
const SWITCHES = ["more", "nodf", "sackOK"];

type Numbers = typeof NUMBERS;

/** A packet's bytes. */
export function encodePacket(text: string): Uint8Array {
  const words = text.match(/"(?:\\.|[^"\\])*"|\S+/g) ?? [];
  const bytes = readPacket(words);
  if (words.length > 0) throw new SyntaxError(`"${words.join(" ")}" is too much in: ${text}`);
  return bytes;
}

/** Takes a packet off the front of the words. */
function readPacket(words: string[]): Uint8Array {
  const kind = words.shift();
  if (kind === "hex") {
    const end = words.indexOf("}");
    const digits = words.splice(0, end < 0 ? words.length : end);
    return Uint8Array.from(digits, (digit) => parseInt(digit, 16));
  }
  const [src, srcPort] = endpoint(words.shift());
  if (words.shift() !== ">") throw new SyntaxError(`no ">" behind ${src}`);
  const [dst, dstPort] = endpoint(words.shift());
  const numbers: Numbers = { ...NUMBERS };
  const switches = new Set<string>();
  let flags = 0;
  let cut = Infinity;
  let payload: Uint8Array = new Uint8Array();
  while (words.length > 0 && words[0] !== "}") {
    const word = words.shift()!;
    if (word === "cut") cut = number(words);
    else if (word.startsWith('"')) payload = new TextEncoder().encode(JSON.parse(word));
    else if (word === "payload") payload = Uint8Array.from({ length: number(words) }, (_, i) => i);
    else if (word === "bytes") payload = Uint8Array.fromHex(words.shift() ?? "");
    else if (word === "{") {
      payload = readPacket(words);
      if (words.shift() !== "}") throw new SyntaxError(`no "}" behind a packet from ${src}`);
    } else if (SWITCHES.includes(word)) switches.add(word);
    else if (word in numbers) numbers[word as keyof Numbers] = number(words);
    else if (kind === "tcp" && /^[FSRPAUEW]+$/.test(word)) {
      for (const letter of word) flags |= 1 << TCP_FLAGS.indexOf(letter);
    } else throw new SyntaxError(`"${word}" is no word of a packet`);
  }
  const packet = handle(payload);
  const { type, code, id, seq, ack, window, mss, wscale } = numbers;
  const is6 = src.includes(":");
  let { protocol } = numbers;
  switch (kind) {
    case "udp":
      protocol = Protocol.Udp;
      Udp.encode(packet, { srcPort, dstPort });
      break;
    case "tcp": {
      protocol = Protocol.Tcp;
      const options = {
        sackPermitted: switches.has("sackOK"),
        ...mss > 0 ? { mss } : {},
        ...wscale > 0 ? { windowScale: wscale } : {},
      };
      Tcp.encode(packet, { srcPort, dstPort, seq, ack, window, flags, options });
      break;
    }
    case "icmp": {
      protocol = is6 ? Protocol.Icmpv6 : Protocol.Icmp;
      const rest = numbers.rest || id * 0x10000 + seq;
      (is6 ? Icmpv6 : Icmpv4).encode(packet, { type, code, rest });
      break;
    }
    case "ip":
      break;
    default:
      throw new SyntaxError(`"${kind}" is no kind of packet`);
  }
  if (is6) encodeIpv6(packet, src, dst, protocol, numbers, switches);
  else encodeIpv4(packet, src, dst, protocol, numbers, switches);
  return packet.data.slice(0, cut);
}

function encodeIpv4(
  packet: Packet,
  src: string,
  dst: string,
  protocol: number,
  { ttl, ident, dscp, ecn, offset }: Numbers,
  switches: Set<string>,
): void {
  const addresses = { src: parseIpv4(src), dst: parseIpv4(dst) };
  const isFragment = switches.has("more") || offset > 0;
  const dontFragment = !isFragment && !switches.has("nodf");
  // A fragment's transport sum covers bytes elsewhere: as UNKNOWN, it is left alone.
  const shown = isFragment ? UNKNOWN : protocol;
  Ipv4.encode(packet, { ...addresses, protocol: shown, ttl, id: ident, dscp, ecn, dontFragment });
  if (!isFragment) return;
  const { bytes, view, offset: start } = packet;
  bytes[start + IPV4_PROTOCOL] = protocol;
  view.setUint16(start + IPV4_FLAGS, (switches.has("more") ? IPV4_MORE : 0) | offset >> 3);
  view.setUint16(start + IPV4_CHECKSUM, 0);
  view.setUint16(start + IPV4_CHECKSUM, checksum(bytes, start, IPV4_HEADER));
}

function encodeIpv6(
  packet: Packet,
  src: string,
  dst: string,
  protocol: number,
  { ttl, ident, dscp, ecn, label, offset }: Numbers,
  switches: Set<string>,
): void {
  const hasFragment = switches.has("more") || offset > 0 || ident > 0;
  if (hasFragment) {
    packet.prepend(IPV6_FRAGMENT);
    packet.view.setUint16(packet.offset, protocol << 8);
    packet.view.setUint16(packet.offset + 2, offset | (switches.has("more") ? 1 : 0));
    packet.view.setUint32(packet.offset + 4, ident);
  }
  Ipv6.encode(packet, {
    src: parseIpv6(src),
    dst: parseIpv6(dst),
    nextHeader: hasFragment ? Protocol.Fragment : protocol,
    hopLimit: ttl,
    trafficClass: dscp << 2 | ecn,
    flowLabel: label,
  });
}

/** A packet's text, which {@linkcode encodePacket} turns into the same bytes. */
export function formatPacket(bytes: Uint8Array): string {
  const asHex = `hex ${hex(bytes)}`;
  const text = describe(bytes);
  if (text === undefined) return asHex;
  if (hex(encodePacket(text)) === hex(bytes)) return text;
  const isFragment = Ip.of(handle(bytes))!.isFragment;
  const wrong = isFragment ? "" : wrongChecksum(bytes);
  return wrong === "" ? asHex : `${text} (wrong checksum: ${wrong})`;
}

/** The words that come closest. */
function describe(bytes: Uint8Array): string | undefined {
  const packet = handle(bytes);
  const ip = Ip.of(packet);
  if (ip === undefined) return undefined;
  const numbers: Partial<Numbers> = { ttl: ip.ttl, dscp: ip.dscp, ecn: ip.ecn };
  const switches: string[] = [];
  if (ip.version === 4) {
    numbers.ident = ip.id;
    if (!ip.dontFragment && !ip.isFragment) switches.push("nodf");
  } else {
    numbers.label = ip.flowLabel;
    if (ip.nextHeader === Protocol.Fragment) numbers.ident = packet.view.getUint32(ip.payloadOffset - 4);
  }
  numbers.offset = ip.fragmentOffset;
  if (ip.moreFragments) switches.push("more");
  const udp = ip.isFragment ? undefined : Udp.of(packet);
  const tcp = ip.isFragment ? undefined : Tcp.of(packet);
  const icmp = ip.isFragment ? undefined : Icmpv4.of(packet) ?? Icmpv6.of(packet);
  const ports = udp ?? tcp;
  const [src, dst] = [ip.srcText, ip.dstText];
  const ends = ports === undefined
    ? `${src} > ${dst}`
    : `${withPort(src, ports.srcPort)} > ${withPort(dst, ports.dstPort)}`;
  const words: string[] = [];
  let kind = "ip";
  if (udp !== undefined) kind = "udp";
  else if (tcp !== undefined) {
    kind = "tcp";
    words.push(Array.from(TCP_FLAGS).filter((_, bit) => (tcp.flags >> bit & 1) === 1).join(""));
    const { seq, ack, window, mss, windowScale: wscale } = tcp;
    Object.assign(numbers, { seq, ack, window, ...mss && { mss }, ...wscale && { wscale } });
    if (tcp.sackPermitted) switches.push("sackOK");
  } else if (icmp !== undefined) {
    kind = "icmp";
    const { type, code, id, seq, rest } = icmp;
    const isEcho = icmp.quotedOffset < 0;
    Object.assign(numbers, { type, code }, isEcho ? { id, seq } : { rest });
  } else numbers.protocol = ip.protocol;
  for (const [word, value] of Object.entries(numbers)) {
    if (value !== NUMBERS[word as keyof Numbers] || word === "type") words.push(word, String(value));
  }
  words.push(...switches);
  const { payloadOffset, payloadLength } = udp ?? tcp ?? icmp ?? ip;
  const payload = bytes.subarray(
    payloadOffset - packet.offset,
    payloadOffset - packet.offset + payloadLength,
  );
  words.push(...describePayload(payload, icmp !== undefined && icmp.quotedOffset >= 0));
  return [kind, ends, ...words.filter((word) => word !== "")].join(" ");
}

function describePayload(payload: Uint8Array, isPacket: boolean): string[] {
  if (payload.length === 0) return [];
  if (isPacket) return ["{", ...describeQuoted(payload), "}"];
  if (payload.every((byte) => byte >= 0x20 && byte < 0x7f)) {
    return [JSON.stringify(new TextDecoder().decode(payload))];
  }
  if (payload.every((byte, i) => byte === (i & 0xff))) return ["payload", `${payload.length}`];
  return ["bytes", payload.toHex()];
}

/** A packet of which the first bytes are there: the others are taken to count up, as `payload` has them. */
function describeQuoted(quoted: Uint8Array): string[] {
  const asHex = [`hex ${hex(quoted)}`];
  if (quoted.length < IPV4_HEADER) return asHex;
  const view = new DataView(quoted.buffer, quoted.byteOffset);
  const length = quoted[0]! >> 4 === 4 ? view.getUint16(2) : 40 + view.getUint16(4);
  if (length < quoted.length || length > LONGEST) return asHex;
  const whole = new Uint8Array(length);
  whole.set(quoted);
  const packet = handle(whole);
  const upper = Udp.of(packet) ?? Icmpv4.of(packet) ?? Icmpv6.of(packet) ?? Tcp.of(packet) ?? Ip.of(packet);
  if (upper === undefined) return asHex;
  const start = upper.payloadOffset - packet.offset;
  for (let i = Math.max(start, quoted.length); i < length; i++) whole[i] = i - start;
  const text = describe(whole);
  if (text === undefined || hex(encodePacket(text).subarray(0, quoted.length)) !== hex(quoted)) return asHex;
  return [text, ...length > quoted.length ? ["cut", `${quoted.length}`] : []];
}

function handle(bytes: Uint8Array): Packet {
  return new PacketPool({ small: bytes.length > 1700 ? 0 : 1, large: bytes.length > 1700 ? 1 : 0 }).from(
    bytes,
  )!;
}

function number(words: string[]): number {
  const word = words.shift();
  if (word === undefined || !/^\d+$/.test(word)) throw new SyntaxError(`"${word}" is no number`);
  return Number(word);
}

function endpoint(text = ""): [address: string, port: number] {
  const match = /^(?:\[(.*)\]|([0-9.]+)):(\d+)$/.exec(text);
  return match === null ? [text, 0] : [match[1] ?? match[2]!, Number(match[3])];
}

function withPort(address: string, port: number): string {
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}
