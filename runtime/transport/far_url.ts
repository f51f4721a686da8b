/** URLs of far ends: `udp://192.0.2.1:4500`, `ws://192.0.2.1:80/`, `tun:tun1`. */

import type { DeviceOptions } from "../../driver/options.ts";
import { MAX_DATAGRAM } from "../../driver/udp_socket.ts";
import { fail, parseHostPort, parseListen, parsePeer } from "./host_port.ts";
import type { Payload } from "./_payload.ts";
import { device } from "./device.ts";
import type { EndOpener } from "./end_opener.ts";
import { udp } from "./udp.ts";
import { websocket } from "./websocket.ts";

/**
 * Parses the URL of a far end and returns its opener. The URL contains the address of the other side or, with
 * `?listen`, the address of this machine:
 *
 * | URL | far end |
 * |---|---|
 * | `udp://HOST:PORT` | {@linkcode udp}, to this peer, from a free port |
 * | `udp://HOST:PORT?listen=PORT` | the same, from this port, or from `ADDRESS:PORT` |
 * | `udp://ADDRESS:PORT?listen` | to the sender of the last datagram to this address |
 * | `…?interface=NAME` | by this interface, regardless of the routes |
 * | `…?mtu=BYTES` | with packets up to this length |
 * | `…?payload=any` | with datagrams of any bytes, for a stage that encrypts |
 * | `ws://HOST:PORT/PATH`, `wss://…` | {@linkcode websocket}, to this server |
 * | `ws://ADDRESS:PORT/PATH?listen` | as the server |
 * | `ws://…?payload=any` | with messages of any bytes, for a stage that encrypts; not sent to the server |
 * | `tun:NAME` | another TUN {@linkcode device} |
 * | `tun:NAME?offload=no`, `?uring=no` | the same, without super-packets or io_uring (Linux) |
 *
 * Several options are joined with `&`. IPv6 addresses are in brackets: `udp://[2001:db8::1]:4500`.
 *
 * @throws {SyntaxError} for any other text.
 */
export function parseFarUrl(text: string): EndOpener {
  const subject = `far end ${JSON.stringify(text)}`;
  const tun = /^tun:(?!\/\/)(.*)$/s.exec(text);
  if (tun !== null) return parseTun(tun[1]!, subject);
  const parts = /^(udp|ws|wss):\/\/([^/?#\s]*)(\/[^?#\s]*)?(?:\?([^#\s]*))?$/.exec(text);
  if (parts === null) {
    fail(
      subject,
      "it is not the URL of a far end",
      "write udp://HOST:PORT, udp://ADDRESS:PORT?listen, ws://HOST:PORT/, wss://HOST/ or tun:NAME",
    );
  }
  const [, scheme, place, path = "/", query] = parts as unknown as [string, string, string, string?, string?];
  return scheme === "udp"
    ? parseUdp(place, path, query, subject)
    : parseWebSocket(text, scheme, place, path, query, subject);
}

/**
 * Returns the opener for a URL, and any other far end unchanged.
 *
 * @throws {SyntaxError} when a URL does not parse.
 */
export function openerOf<Far>(far: Far | string): Far | EndOpener {
  return typeof far === "string" ? parseFarUrl(far) : far;
}

function parseTun(text: string, subject: string): EndOpener {
  const [, name, query] = /^([^?]*)(?:\?(.*))?$/s.exec(text) as unknown as [string, string, string?];
  const linux: DeviceOptions["linux"] = {};
  for (const part of query?.split("&") ?? []) {
    const [, key] = /^(offload|uring)=no$/.exec(part) ??
      fail(subject, `"${part}" is not an option`, 'write "?offload=no" or "?uring=no"');
    if (linux[key as "offload" | "uring"] === false) {
      fail(subject, `${key} is in "?${query}" twice`, "leave one out");
    }
    linux[key as "offload" | "uring"] = false;
  }
  try {
    return device({ name, linux });
  } catch (error) {
    fail(
      subject,
      (error as Error).message.replace(/^Cannot open device ".*": /s, ""),
      "write one such as tun:tun1",
    );
  }
}

function parseUdp(place: string, path: string, query: string | undefined, subject: string): EndOpener {
  if (path !== "/") fail(subject, `it has a path, "${path}"`, "leave it out");
  const { listen, mtu, payload, ...others } = parseUdpQuery(query, subject);
  const rest = {
    ...others,
    mtu: mtu === undefined ? undefined : parseMtu(mtu, subject),
    payload: payload === undefined ? undefined : parsePayload(payload, subject),
  };
  if (listen === "") {
    parseOwn(place, subject);
    return udp({ listen: place, ...rest });
  }
  const { family } = parsePeer(place, subject);
  if (listen === undefined) return udp({ peer: place, ...rest });
  const local = parseListen(listen, subject);
  if (family !== undefined && listen.includes(":") && local.family !== family) {
    fail(subject, "one address is IPv4 and one is IPv6", "write two of one family, or a port alone");
  }
  return udp({ peer: place, listen, ...rest });
}

type UdpQuery = "listen" | "interface" | "mtu" | "payload";

function parseMtu(text: string, subject: string): number {
  if (/^[1-9]\d{0,4}$/.test(text) && Number(text) <= MAX_DATAGRAM) return Number(text);
  fail(
    subject,
    `its mtu must be an integer from 1 to ${MAX_DATAGRAM}, got "${text}"`,
    "write one such as ?mtu=1400",
  );
}

function parsePayload(text: string, subject: string): Payload {
  if (text === "ip" || text === "any") return text;
  fail(subject, `its payload must be ip or any, got "${text}"`, "write ?payload=any, or leave it out");
}

/** Parses `listen`, `listen=PORT`, `interface=NAME`, `mtu=BYTES` and `payload=any`, each at most once. */
function parseUdpQuery(query: string | undefined, subject: string): Partial<Record<UdpQuery, string>> {
  const found: Partial<Record<UdpQuery, string>> = {};
  for (const part of query?.split("&") ?? []) {
    const [key, value] = /^(listen|interface|mtu|payload)(?:=([^?]*))?$/.exec(part)?.slice(1) as
      | [UdpQuery, string?]
      | undefined ??
      fail(
        subject,
        `"${part}" in "?${query}" is not an option`,
        part.includes("?")
          ? 'write "?" before the first option, "&" between options'
          : 'write "?listen" if the address is local, "?listen=PORT", "?interface=NAME", "?mtu=BYTES" or "?payload=any"',
      );
    if (found[key] !== undefined) fail(subject, `${key} is in "?${query}" twice`, "leave one out");
    const text = value === undefined ? "" : decode(value);
    if (text === undefined) {
      fail(subject, `"${part}" is not percent-encoded`, "write a space as %20, % as %25");
    }
    if (key === "interface" && text === "") fail(subject, "interface has no name", "write ?interface=eth0");
    if (key === "listen" && value === "") {
      fail(subject, "listen= has no port", "write ?listen=4500, or ?listen if the address is local");
    }
    found[key] = text;
  }
  return found;
}

function decode(text: string): string | undefined {
  try {
    const decoded = decodeURIComponent(text);
    return decoded.includes("\0") ? undefined : decoded;
  } catch {
    return undefined;
  }
}

function parseWebSocket(
  text: string,
  scheme: string,
  place: string,
  path: string,
  query: string | undefined,
  subject: string,
): EndOpener {
  const parts = query?.split("&") ?? [];
  const [given, twice] = parts.filter((part) => /^payload(=|$)/.test(part));
  if (twice !== undefined) fail(subject, `payload is in "?${query}" twice`, "leave one out");
  const rest = parts.filter((part) => part !== given).join("&");
  const options = given === undefined
    ? {}
    : { payload: parsePayload(given.slice("payload=".length), subject) };
  if (rest === "listen") {
    if (scheme === "wss") {
      fail(subject, "listening with TLS is not supported", "write ws:// and put a proxy with TLS before it");
    }
    parseOwn(place, subject);
    return websocket({ listen: place, path, ...options });
  }
  if (parts.some((part) => /^listen(=|$)/.test(part))) {
    fail(subject, `"?${query}" is not an option`, 'write "?listen" alone, or with "&payload=any"');
  }
  if (place.includes("@")) fail(subject, "it has a user name", "leave it out");
  // The port is optional here: 80 or 443.
  parseHostPort(/:\d*$/.test(place) ? place : `${place}:80`, subject);
  const url = given === undefined ? text : `${scheme}://${place}${path}${rest && `?${rest}`}`;
  return websocket({ url, ...options });
}

function parseOwn(place: string, subject: string): void {
  if (/^\d*$/.test(place)) {
    fail(subject, "it has no address", `write 0.0.0.0:${place || "4500"} for all addresses`);
  }
  parseListen(place, subject);
}
