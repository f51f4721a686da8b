/** Parses the addresses, ports and protocols of a filter. */

import { parseIpv6 } from "../wire/address.ts";
import { Protocol } from "../wire/protocol.ts";
import type { Token } from "./_lexer.ts";
import type { Tokens } from "./_tokens.ts";
import { all, type Side, type Test, type Word } from "./_tree.ts";
import { PORT_NAMES, PROTOCOL_NAMES, PROTOCOL_WORDS } from "./_words.ts";

const MAX_PORT = 0xffff;
const MAX_PROTOCOL = 0xff;
const HOST_BITS = "address must have no bits set after the prefix";

/** Qualifiers of an address, port or protocol (pcap-filter(7)), by default those of the previous primitive. */
export interface Qualifier {
  /** `ip`, `ip6`, a protocol keyword, or `""`. */
  readonly protocol: string;
  readonly side: Side;
  readonly kind: string;
}

/** Reads an address, port or protocol, by its qualifier. */
export function readId(tokens: Tokens, qualifier: Qualifier): Test {
  switch (qualifier.kind) {
    case "host":
    case "net":
      return readAddress(tokens, qualifier);
    case "port":
    case "portrange":
      return readPorts(tokens, qualifier);
    default:
      return readProtocol(tokens, qualifier);
  }
}

function readAddress(tokens: Tokens, { protocol, side, kind }: Qualifier): Test {
  const start = tokens.token;
  const { kind: token, text, value } = start;
  if (token === "name") {
    tokens.refuse(`${kind} must be an address, since names are not resolved, got ${JSON.stringify(text)}`);
  }
  if (token !== "number" && token !== "ipv4" && token !== "ipv6") tokens.unexpected("an address");
  if (protocol !== "" && protocol !== (token === "ipv6" ? "ip6" : "ip")) {
    tokens.refuse(`"${protocol}" does not apply to an address of this version`);
  }
  tokens.skip();
  if (token === "ipv6") {
    const length = readPrefixLength(tokens, kind, 128, true) ?? 128;
    const words = wordsOf(tokens, start, length);
    return all([{ kind: "version", version: 6 }, { kind: "net6", side, words }]);
  }
  let address: number;
  let mask = -1;
  if (token === "ipv4") {
    [address, mask] = octetsOf(tokens, start);
    const length = readPrefixLength(tokens, kind, 32, mask === -1);
    if (length !== undefined) mask = length === 0 ? 0 : -1 << 32 - length;
    else if (tokens.accept("mask")) {
      if (kind !== "net") tokens.refuse('a mask needs "net" before the address');
      if (tokens.token.kind !== "ipv4") tokens.unexpected("a mask such as 255.255.0.0");
      mask = octetsOf(tokens, tokens.token)[0];
      tokens.skip();
    }
  } else {
    address = value;
    if (kind === "net") {
      while (address !== 0 && address >>> 24 === 0) {
        address <<= 8;
        mask <<= 8;
      }
    }
  }
  if ((address & ~mask) !== 0) tokens.refuse(HOST_BITS, start);
  return all([{ kind: "version", version: 4 }, { kind: "net4", side, address: address | 0, mask }]);
}

function readPrefixLength(tokens: Tokens, kind: string, max: number, isWhole: boolean): number | undefined {
  if (!tokens.isSign("/")) return undefined;
  const slash = tokens.token;
  tokens.skip();
  const token = tokens.token;
  const length = tokens.number();
  if (length > max) tokens.refuse(`prefix length must be at most ${max}, got ${length}`, token);
  // A full-length prefix is a host.
  if (kind !== "net" && (length < max || !isWhole)) {
    tokens.refuse('a prefix length needs "net" before the address', slash);
  }
  return length;
}

/** Reads an address of two to four octets; omitted octets match any value. */
function octetsOf(tokens: Tokens, token: Token): [address: number, mask: number] {
  const octets = token.text.split(".");
  let address = 0;
  for (const octet of octets) {
    if (octet.length > 1 && octet.startsWith("0")) {
      tokens.refuse(`octet must have no leading zero, got ${octet}`, token);
    }
    if (Number(octet) > 255) tokens.refuse(`octet must be from 0 to 255, got ${octet}`, token);
    address = address << 8 | Number(octet);
  }
  const missing = 32 - 8 * octets.length;
  return [address << missing, -1 << missing];
}

function wordsOf(tokens: Tokens, token: Token, length: number): Word[] {
  let bytes: Uint8Array;
  try {
    bytes = parseIpv6(token.text);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    tokens.refuse(`address must be an IPv6 address, got ${JSON.stringify(token.text)}`, token);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const words: Word[] = [];
  for (let at = 0; at < 16; at += 4) {
    const bits = Math.max(0, Math.min(32, length - 8 * at));
    const mask = bits === 0 ? 0 : -1 << 32 - bits;
    const address = view.getInt32(at);
    if ((address & ~mask) !== 0) tokens.refuse(HOST_BITS, token);
    words.push({ at, address, mask });
  }
  return words;
}

function readPorts(tokens: Tokens, { protocol, side, kind }: Qualifier): Test {
  const { kind: token, text, value } = tokens.token;
  const wanted = protocol === "" ? 0 : PROTOCOL_WORDS.get(protocol)?.protocol;
  if (wanted !== 0 && wanted !== Protocol.Tcp && wanted !== Protocol.Udp && wanted !== Protocol.Sctp) {
    tokens.refuse(`"${protocol}" has no ports`);
  }
  if (token !== "number" && token !== "name") tokens.unexpected("a port");
  const range = kind === "portrange" && token === "name" ? /^([^-]+)-([^-].*)$/.exec(text) : null;
  const ends: [number, number][] = range === null
    ? [token === "number" ? [value, 0] : portOf(tokens, text)]
    : [portOf(tokens, range[1]!), portOf(tokens, range[2]!)];
  for (const [port] of ends) {
    if (port > MAX_PORT) tokens.refuse(`port must be from 0 to ${MAX_PORT}, got ${port}`);
  }
  const only = ends[0]![1] === ends.at(-1)![1] ? ends[0]![1] : 0;
  if (wanted !== 0 && only !== 0 && only !== wanted) tokens.refuse(`"${text}" is not a port of ${protocol}`);
  tokens.skip();
  const ports = ends.map(([port]) => port);
  const low = Math.min(...ports);
  const high = Math.max(...ports);
  return { kind: "ports", side, protocol: wanted !== 0 ? wanted : only, low, high };
}

function portOf(tokens: Tokens, name: string): [port: number, protocol: number] {
  if (/^[0-9]+$/.test(name)) return [Number(name), 0];
  const known = PORT_NAMES.get(name);
  if (known === undefined) tokens.refuse(`unknown port ${JSON.stringify(name)}`);
  return [...known];
}

function readProtocol(tokens: Tokens, { protocol: word, kind }: Qualifier): Test {
  const { kind: token, text, value } = tokens.token;
  if (word !== "" && word !== "ip" && word !== "ip6") tokens.refuse(`"${word} ${kind}" has no meaning`);
  if (token === "sign" && PROTOCOL_NAMES.has(text)) {
    tokens.refuse(`"${text}" is a keyword: write "\\${text}"`);
  }
  if (token !== "number" && token !== "name") tokens.unexpected("a protocol");
  const protocol = token === "number" ? value : PROTOCOL_NAMES.get(text);
  if (protocol === undefined) tokens.refuse(`unknown protocol ${JSON.stringify(text)}`);
  if (protocol > MAX_PROTOCOL) {
    tokens.refuse(`protocol must be from 0 to ${MAX_PROTOCOL}, got ${protocol}`);
  }
  tokens.skip();
  const version = word === "ip" ? 4 : word === "ip6" ? 6 : 0;
  return { kind: kind === "proto" ? "protocol" : "chained", version, protocol };
}
