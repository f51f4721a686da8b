/** Far ends over WebSocket: options, checks and opener. */

import { checkOptions, gotValue, type OptionKinds } from "../../lib/core/options.ts";
import { Connector, type ConnectorOptions } from "./_connector.ts";
import { fail, formatHostPort, type HostPort, parseListen, requireNet } from "./host_port.ts";
import { HttpProxy, proxyOf } from "./_http_proxy.ts";
import { handshakeRules } from "./_handshake.ts";
import { Listener, type ListenerOptions } from "./_listener.ts";
import { PAYLOADS } from "./_payload.ts";
import { checkQueueLength } from "./_receive_queue.ts";
import { type FarEndContext, WITHOUT_TUNNEL } from "./end_opener.ts";
import { WebSocketTransport } from "./websocket_transport.ts";

// Implementation
/** Default of `retryAfter` (milliseconds). */
const RETRY_AFTER = 500;
/** Default and range of `timeout` (milliseconds): less would make a flood of four pings, more exceeds any timer. */
const TIMEOUT = 30_000;
const MIN_TIMEOUT = 100;
const MAX_TIMEOUT = 2 ** 31 - 1;
/** Reasons and remedies for errors when listening. */
const LISTEN_ERRORS = [
  [Deno.errors.AddrInUse, "the port is in use: use another one"],
  [Deno.errors.AddrNotAvailable, "this machine does not have that address: use 0.0.0.0 for all"],
  [Deno.errors.PermissionDenied, "the port is privileged: use one above 1023"],
] as const;

/** Options for {@linkcode websocket}: `url` to connect, or `listen` to accept a peer. */
export interface WebSocketOptions {
  /** URL of the server: `ws://HOST:PORT/PATH`, or `wss://HOST:PORT/PATH` with TLS. */
  url?: string;
  /** Local port or `ADDRESS:PORT` to listen on. A port alone listens on all IPv4 addresses. */
  listen?: string | number;
  /**
   * HTTP proxy to the server: `http://HOST:PORT`, or `http://USER:PASSWORD@HOST:PORT`.
   * @default {from `HTTPS_PROXY` (`wss:`), `HTTP_PROXY` (`ws:`), `ALL_PROXY` and `NO_PROXY`, with `--allow-env`}
   */
  proxy?: string;
  /** Path that the listening side accepts; requests for other paths get status 404. @default {"/"} */
  path?: string;
  /** Origins of web pages that may connect to the listening side, such as `https://vpn.example`. @default {[]} */
  origins?: string[];
  /** Content of messages: `"ip"` for IP packets; `"any"` for any bytes, for a stage that encrypts. @default {"ip"} */
  payload?: "ip" | "any";
  /**
   * Time before reconnecting (milliseconds). It doubles after each failure, up to 30 s, and a random part of up to half
   * is subtracted. @default {500}
   */
  retryAfter?: number;
  /** Maximum silence of the peer (milliseconds), during which four pings are sent. @default {30000} */
  timeout?: number;
  /** Maximum received packets that wait for the loop. Further ones are held for 50 ms, then dropped. @default {1024} */
  queueLength?: number;
}

const NAMES: OptionKinds<WebSocketOptions> = {
  url: "text",
  listen: "any",
  proxy: "text",
  path: "text",
  origins: "list",
  payload: PAYLOADS,
  retryAfter: "number",
  timeout: "number",
  queueLength: "number",
};

/**
 * Far end over WebSocket (RFC 6455): joins the tunnel to another machine, with one packet in each binary message.
 * WebSockets pass proxies and firewalls that allow only HTTP.
 *
 * With `url`, the far end connects when the tunnel opens, and reconnects whenever the connection is lost. Each time,
 * the name is looked up and its addresses are tried in turn. With `listen`, it accepts one peer at a time. A second
 * peer gets status 503, or replaces the first if that does not reply to a ping within `timeout / 6`. Both sides send
 * pings, and close a connection that is silent for `timeout`. Closing takes at most one second.
 *
 * **URLs**: `ws://HOST:PORT/PATH`, `wss://HOST/PATH`; to listen, `ws://ADDRESS:PORT/PATH?listen`; `payload=any`.
 *
 * **Encryption**: None with `ws:`, TLS with `wss:`. The listening side has no TLS: put a proxy with TLS in front of it.
 * It has no authentication either: anyone who can connect becomes the peer, except web pages of other `origins`.
 *
 * **Drops**: outbound `not connected`, `connection lost`; inbound `not an IP packet`, `empty`, `not a binary message`,
 * `receive queue full`, and one reason for each kind of protocol error, which also closes the connection.
 *
 * **Limits**: No compression. Messages of more than 65,535 bytes or 1,024 fragments close the connection (code 1009), as
 * do more than 1,000 control frames per second, or 10,000 consecutive messages that are not packets (1008). At most 16
 * handshakes at once, and 4 per IPv4 address or IPv6 /64; a further one ends the oldest. Each may take 10 s and 8,192
 * bytes. The send queue holds 256 packets and 256 KiB. TCP over TCP stalls on lossy paths. If `--allow-net` has a list,
 * only the addresses in it are tried in turn.
 *
 * @throws {SyntaxError} when `url`, `listen`, `proxy`, `path` or `origins` does not parse.
 * @throws {TypeError} with both `url` and `listen`, or neither, and for an unknown option.
 * @throws {RangeError} for a number out of range. The opener rejects with `Deno.errors.NotCapable` without
 * `--allow-net`; `AddrInUse`, `AddrNotAvailable` or `PermissionDenied` if it cannot listen; and, if the first
 * connection fails, an error with the failure as its `cause`, such as `ConnectionRefused` or, for TLS, `InvalidData`.
 *
 * @example Connect to a server
 * ```ts
 * import { script, websocket } from "@warren/tunnel";
 *
 * const far = websocket({ url: "wss://vpn.example/tunnel" });
 * export default script(import.meta, { address: "10.9.0.2/24", far }, (tunnel) => tunnel.run());
 * ```
 */
export function websocket(
  options: WebSocketOptions,
): (context?: FarEndContext) => Promise<WebSocketTransport> {
  checkOptions("open a WebSocket transport", options, NAMES);
  const { url: text, listen, retryAfter = RETRY_AFTER, timeout = TIMEOUT } = options;
  if ((text === undefined) === (listen === undefined)) {
    throw new TypeError("Cannot open a WebSocket transport: either url or listen must be given");
  }
  checkQueueLength(options.queueLength);
  checkTime("retryAfter", retryAfter, 0);
  checkTime("timeout", timeout, MIN_TIMEOUT);
  if (options.proxy !== undefined && text === undefined) {
    throw new TypeError("Cannot open a WebSocket transport: proxy must not be given with listen");
  }
  if (text !== undefined) {
    const url = parseUrl(text);
    const proxy = options.proxy === undefined ? undefined : new HttpProxy(options.proxy);
    return (context = WITHOUT_TUNNEL) =>
      connect(url, optionsIn(context, options), { retryAfter, timeout, proxy }, context);
  }
  const local = parseListen(listen!, `listen "${listen}"`);
  const rules = handshakeRules(options.path, options.origins);
  return (context = WITHOUT_TUNNEL) =>
    listenOn(local, optionsIn(context, options), { ...rules, timeout }, context);
}

/** Completes the options with the payload that the context asks for. */
function optionsIn({ payload }: FarEndContext, options: WebSocketOptions): WebSocketOptions {
  return { ...options, payload: options.payload ?? payload };
}

/** Checks a time; with a longer time, a timer would fire at once. */
function checkTime(name: string, time: number, min: number): void {
  if (time >= min && time <= MAX_TIMEOUT) return;
  throw new RangeError(
    `Cannot open a WebSocket transport: ${name} must be from ${min} to ${MAX_TIMEOUT} ms, ${gotValue(time)}`,
  );
}

function parseUrl(text: string): URL {
  const subject = `url "${text}"`;
  const url = URL.parse(text);
  if (url === null || !/^wss?:$/.test(url.protocol)) {
    fail(subject, "it is not a WebSocket URL", "write one such as wss://vpn.example/tunnel");
  }
  if (url.port === "0") fail(subject, "its port is 0", "write the port that the server listens on");
  if (url.hash !== "") fail(subject, "it has a fragment", `leave ${url.hash} out`);
  if (url.username !== "" || url.password !== "") fail(subject, "it has a user name", "leave it out");
  return url;
}

async function connect(
  url: URL,
  options: WebSocketOptions,
  given: ConnectorOptions,
  context: FarEndContext,
): Promise<WebSocketTransport> {
  const connecting = { ...given, proxy: given.proxy ?? proxyOf(url) };
  let connector: Connector;
  // The query is omitted, because names are printed and it may contain a secret.
  const name = `${url.origin}${url.pathname}`;
  const transport = new WebSocketTransport(
    name,
    undefined,
    options,
    (owner) => connector = new Connector(url, connecting, context, owner),
  );
  try {
    await connector!.open();
  } catch (error) {
    transport.close();
    throw error;
  }
  return transport;
}

// deno-lint-ignore require-await -- an opener rejects; it does not throw.
async function listenOn(
  local: HostPort,
  options: WebSocketOptions,
  rules: ListenerOptions,
  context: FarEndContext,
): Promise<WebSocketTransport> {
  const where = formatHostPort(local.host, local.port);
  requireNet(where);
  const listener = listenTcp(local, where);
  const { hostname, port } = listener.addr as Deno.NetAddr;
  const bound = formatHostPort(hostname, port);
  return new WebSocketTransport(
    `ws listening on ${bound}`,
    bound,
    options,
    (owner) => new Listener(listener, rules, context, owner),
  );
}

function listenTcp({ host, port }: HostPort, where: string): Deno.Listener {
  try {
    return Deno.listen({ hostname: host, port });
  } catch (cause) {
    const [Class, reason] = LISTEN_ERRORS.find(([known]) => cause instanceof known) ?? [];
    throw Class === undefined ? cause : new Class(`Cannot listen on ${where}: ${reason}`, { cause });
  }
}
