/** Parsing and formatting of a host with a port: `192.0.2.1:4500`, `[2001:db8::1]:4500`, `vpn.example:4500`. */

import { checkInteger } from "../../lib/core/options.ts";
import { formatAddress, parseAddress } from "../../lib/wire/address.ts";

// Specification
/** RFC 1035 section 2.3.4: maximum length of a name, including its final dot (characters). */
const MAX_NAME = 254;
/** RFC 4291 section 2.5.5.2: IPv4-mapped IPv6 address. */
const MAPPED = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/;

// Implementation
/** Unspecified, broadcast and multicast addresses in canonical form (RFC 1122 section 3.2.1.3, RFC 4291). */
const NOT_UNICAST = /^(0\.0\.0\.0|::|255\.255\.255\.255|(22[4-9]|23\d)\..*|ff[0-9a-f]{2}:.*)$/;

/** A host, by address or name, with a port. */
export interface HostPort {
  /** An address in canonical form, or a name. */
  readonly host: string;
  readonly port: number;
  /** Address family of `host`; `undefined` for a name. */
  readonly family: 4 | 6 | undefined;
}

/** A host, by address, with a port. */
export interface AddressPort extends HostPort {
  readonly family: 4 | 6;
}

/**
 * Parses `HOST:PORT`. The port may be 0.
 *
 * @param subject Name of the text in errors, which follows "Cannot parse".
 * @throws {SyntaxError} for any other text.
 */
export function parseHostPort(text: string, subject: string): HostPort {
  const parts = /^(?:\[([^\]]*)\]|([^:[\]]*))(?::([^:]*))?$/.exec(text);
  if (parts === null) {
    fail(subject, "its host has colons", "write an IPv6 address in brackets, such as [::1]:4500");
  }
  const [, bracketed, plain, port] = parts;
  if (port === undefined || port === "") {
    fail(subject, "it has no port", `write ${text.replace(/:$/, "") || "192.0.2.1"}:4500`);
  }
  if (port.includes("&")) {
    fail(
      subject,
      `its port "${port}" contains "&"`,
      'write "?" before the first option, "&" between options',
    );
  }
  if (!/^\d{1,5}$/.test(port) || Number(port) > 65_535) {
    fail(subject, `its port must be an integer from 0 to 65535, got "${port}"`, "write one such as 4500");
  }
  if (bracketed !== undefined) {
    return { host: canonical(bracketed, subject, "IPv6"), port: Number(port), family: 6 };
  }
  const host = plain!;
  if (host === "") fail(subject, "it has no host", `write one such as 192.0.2.1:${port}`);
  // WHATWG URL section 3.5: a host that ends in a number is an IPv4 address; getaddrinfo accepts unusual forms.
  if (/(^|\.)(\d+|0x[0-9a-f]*)\.?$/i.test(host)) {
    return { host: canonical(host, subject, "IPv4"), port: Number(port), family: 4 };
  }
  if (host.length > MAX_NAME || !/^(?!-)[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?$/i.test(host)) {
    fail(subject, `its host must be an address or a name, got "${host}"`, "write one such as 192.0.2.1");
  }
  return { host, port: Number(port), family: undefined };
}

/**
 * Parses the address of a peer: a unicast address or a name, and a port other than 0.
 *
 * @throws {SyntaxError} for any other text.
 */
export function parsePeer(text: string, subject: string): HostPort {
  const peer = parseHostPort(text, subject);
  if (peer.port === 0) fail(subject, "its port is 0", "write the port that the other side listens on");
  const [, mapped] = MAPPED.exec(peer.host) ?? [];
  if (mapped !== undefined) fail(subject, `${peer.host} is an IPv4 address`, `write ${mapped}:${peer.port}`);
  if (!isUnicast(peer.host)) {
    fail(
      subject,
      `${peer.host} is not a unicast address`,
      "write the address of the other side, or add ?listen to receive there",
    );
  }
  return peer;
}

/** Reports whether a host is a unicast address in canonical form, or a name. */
export function isUnicast(host: string): boolean {
  return !NOT_UNICAST.test(host);
}

/**
 * Parses a local address: `PORT`, `ADDRESS:PORT`, or a port as a number. A port alone stands for all IPv4 addresses.
 *
 * @param subject Name of the text in errors, which follows "Cannot parse".
 * @throws {SyntaxError} for any other text, such as a name; {@linkcode RangeError} for a number that is not a port.
 */
export function parseListen(listen: string | number, subject: string): HostPort {
  if (typeof listen === "number") checkInteger("listen", "port", listen, 0, 65_535);
  const text = /^\d+$/.test(String(listen)) ? `0.0.0.0:${listen}` : String(listen);
  const local = parseHostPort(text, subject);
  if (local.family === undefined) {
    fail(subject, `its host must be an address, got "${local.host}"`, "write one, or 0.0.0.0 for all");
  }
  return local;
}

/** Returns the host and port of a URL; the port may default to `defaultPort`. */
export function urlHostPort({ hostname, port: text }: URL, defaultPort: number): HostPort {
  const port = Number(text) || defaultPort;
  if (hostname.startsWith("[")) {
    return { host: formatAddress(parseAddress(hostname.slice(1, -1))), port, family: 6 };
  }
  // WHATWG URL section 3.5: a host that ends in a number is an IPv4 address, which URL writes as four numbers.
  return { host: hostname, port, family: /(^|\.)\d+$/.test(hostname) ? 4 : undefined };
}

/** Formats a host and a port as {@linkcode parseHostPort} reads them. */
export function formatHostPort(host: string, port: number): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

/** @throws {SyntaxError} always, for text that does not parse. */
export function fail(subject: string, fault: string, remedy: string): never {
  throw new SyntaxError(`Cannot parse ${subject}: ${fault}: ${remedy}`);
}

function canonical(text: string, subject: string, kind: "IPv4" | "IPv6"): string {
  try {
    const address = parseAddress(text);
    if (address.family === (kind === "IPv4" ? 4 : 6)) return formatAddress(address);
  } catch {
    // The error below names the whole text.
  }
  if (kind === "IPv6" && text.includes("%")) {
    fail(
      subject,
      `its host "${text}" has an interface`,
      "write the address alone; link-local addresses are not supported",
    );
  }
  fail(
    subject,
    `its host must be an ${kind} address, got "${text}"`,
    `write one such as ${kind === "IPv4" ? "192.0.2.1" : "[2001:db8::1]"}`,
  );
}

/** Requests net access to a host, on a terminal with Deno's prompt. @throws {Deno.errors.NotCapable} if denied. */
export function requireNet(host: string): void {
  if (Deno.permissions.requestSync({ name: "net", host }).state === "granted") return;
  throw new Deno.errors.NotCapable(`Cannot use ${host}: it requires net access: run again with --allow-net`);
}
