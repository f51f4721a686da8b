/** A host and a port as text: `192.0.2.1:4500`, `[2001:db8::1]:4500`, `vpn.example:4500`. */

import { formatAddress, parseAddress } from "../../lib/wire/address.ts";

// Specification
/** RFC 1035 section 2.3.4: the longest name (characters), with a dot at its end. */
const MAX_NAME = 254;
/** RFC 4291 section 2.5.5.2: an IPv4 address in an IPv6 one. */
const MAPPED = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/;

// Implementation
/** Addresses in their one form that are unspecified, broadcast or multicast (RFC 1122 section 3.2.1.3, RFC 4291). */
const NOBODY = /^(0\.0\.0\.0|::|255\.255\.255\.255|(22[4-9]|23\d)\..*|ff[0-9a-f]{2}:.*)$/;

/** Where a socket is, or leads. */
export interface HostPort {
  /** An address in its one form, or a name. */
  readonly host: string;
  /** The port. */
  readonly port: number;
  /** What `host` is: an IPv4 address, an IPv6 address, or a name. */
  readonly family: 4 | 6 | undefined;
}

/** A host that is an address, with a port. */
export interface AddressPort extends HostPort {
  /** The address's family. */
  readonly family: 4 | 6;
}

/**
 * Reads `HOST:PORT`. The port may be 0.
 *
 * @param subject What an error says could not be parsed.
 * @throws {SyntaxError} when it is anything else.
 */
export function parseHostPort(text: string, subject: string): HostPort {
  const parts = /^(?:\[([^\]]*)\]|([^:[\]]*))(?::([^:]*))?$/.exec(text);
  if (parts === null) {
    fail(subject, "its host has colons", "write an IPv6 address in brackets, as [::1]:4500");
  }
  const [, bracketed, plain, port] = parts;
  if (port === undefined || port === "") {
    fail(subject, "it has no port", `write ${text.replace(/:$/, "") || "192.0.2.1"}:4500`);
  }
  if (port.includes("&")) {
    fail(
      subject,
      `its port "${port}" has "&" in it`,
      'write "?" before the first option, "&" between others',
    );
  }
  if (!/^\d{1,5}$/.test(port) || Number(port) > 65_535) {
    fail(subject, `its port "${port}" is not a number up to 65535`, "write one such as 4500");
  }
  if (bracketed !== undefined) {
    return { host: canonical(bracketed, subject, "IPv6"), port: Number(port), family: 6 };
  }
  const host = plain!;
  if (host === "") fail(subject, "it has no host", `write one, as 192.0.2.1:${port}`);
  // WHATWG URL section 3.5: a host that ends in a number is an IPv4 address; getaddrinfo takes odd ones as such.
  if (/(^|\.)(\d+|0x[0-9a-f]*)\.?$/i.test(host)) {
    return { host: canonical(host, subject, "IPv4"), port: Number(port), family: 4 };
  }
  if (host.length > MAX_NAME || !/^(?!-)[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?$/i.test(host)) {
    fail(subject, `its host "${host}" is no address and no name`, "write one such as 192.0.2.1");
  }
  return { host, port: Number(port), family: undefined };
}

/**
 * Reads where somebody else is: a host and a port to send to.
 *
 * @throws {SyntaxError} when it is anything else.
 */
export function parsePeer(text: string, subject: string): HostPort {
  const peer = parseHostPort(text, subject);
  if (peer.port === 0) fail(subject, "its port is 0", "write the port that the other side listens on");
  const [, mapped] = MAPPED.exec(peer.host) ?? [];
  if (mapped !== undefined) fail(subject, `${peer.host} is an IPv4 address`, `write ${mapped}:${peer.port}`);
  if (!isMachine(peer.host)) {
    fail(
      subject,
      `${peer.host} is no one machine's address`,
      "write the other side's, or ?listen to receive there",
    );
  }
  return peer;
}

/** Whether an address in its one form, or a name, can be one machine's. */
export function isMachine(host: string): boolean {
  return !NOBODY.test(host);
}

/**
 * Reads where to listen: `PORT`, `ADDRESS:PORT`, or a port as a number. A port alone means all IPv4 addresses.
 *
 * @param subject What an error says could not be parsed.
 * @throws {SyntaxError} when it is anything else, a host name too; {@linkcode RangeError} for a number that is no port.
 */
export function parseListen(listen: string | number, subject: string): HostPort {
  if (typeof listen === "number" && !(Number.isInteger(listen) && listen >= 0 && listen <= 65_535)) {
    throw new RangeError(`Cannot listen: port must be an integer from 0 to 65535, got ${listen}`);
  }
  const text = /^\d+$/.test(String(listen)) ? `0.0.0.0:${listen}` : String(listen);
  const local = parseHostPort(text, subject);
  if (local.family === undefined) {
    fail(subject, `"${local.host}" is no address of this machine`, "write one, or 0.0.0.0 for all");
  }
  return local;
}

/** A URL's host, and its port, which is `defaultPort` where it has none. */
export function urlHostPort({ hostname, port: text }: URL, defaultPort: number): HostPort {
  const port = Number(text) || defaultPort;
  if (hostname.startsWith("[")) {
    return { host: formatAddress(parseAddress(hostname.slice(1, -1))), port, family: 6 };
  }
  // WHATWG URL section 3.5: a host that ends in a number is an IPv4 address, of which URL makes four numbers.
  return { host: hostname, port, family: /(^|\.)\d+$/.test(hostname) ? 4 : undefined };
}

/** The text that {@linkcode parseHostPort} reads. */
export function formatHostPort(host: string, port: number): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

/** Throws the error for text that makes no sense. */
export function fail(subject: string, what: string, remedy: string): never {
  throw new SyntaxError(`Cannot parse ${subject}: ${what}: ${remedy}`);
}

function canonical(text: string, subject: string, kind: "IPv4" | "IPv6"): string {
  try {
    const address = parseAddress(text);
    if (address.family === (kind === "IPv4" ? 4 : 6)) return formatAddress(address);
  } catch {
    // Said below, about the whole.
  }
  if (kind === "IPv6" && text.includes("%")) {
    fail(
      subject,
      `its host "${text}" has an interface`,
      "write the address alone; a link-local one cannot be used",
    );
  }
  fail(
    subject,
    `its host "${text}" is no ${kind} address`,
    `write one such as ${kind === "IPv4" ? "192.0.2.1" : "[2001:db8::1]"}`,
  );
}

/** Asks for a missing permission, on a terminal by Deno's prompt; sending without it would drop every packet for an unreadable reason. */
export function requireNet(host: string): void {
  if (Deno.permissions.requestSync({ name: "net", host }).state === "granted") return;
  throw new Deno.errors.NotCapable(`Cannot use ${host}: it needs net access: run again with --allow-net`);
}
