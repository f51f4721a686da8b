/**
 * Packets in WebSocket messages, one each, through proxies and firewalls that let nothing else pass.
 *
 *     write() ──► send queue, at most 256 packets ──► binary messages ──► receive queue, bounded ──► read()
 *
 * Both sides are one end with a connection that comes and goes: the connecting side makes a new one, the listening
 * side waits for one.
 */

import {
  type EndHost,
  LARGE_ROOM,
  type PacketBatch,
  type Transport,
  type Waitable,
} from "../../lib/core/mod.ts";
import { checkNames, type OptionNames } from "../../lib/core/options.ts";
import type { ConnectionOwner, ConnectionSource, WebSocketConnection } from "./_connection.ts";
import { Connector, type ConnectorOptions } from "./_connector.ts";
import { fail, formatHostPort, type HostPort, parseListen, requireNet } from "./host_port.ts";
import { HttpProxy, proxyOf } from "./_http_proxy.ts";
import { handshakeRules } from "./_handshake.ts";
import { Listener, type ListenerOptions } from "./_listener.ts";
import { checkPayload } from "./_payload.ts";
import { checkQueueLength, ReceiveQueue } from "./_receive_queue.ts";
import { type FarEndContext, WITHOUT_TUNNEL } from "./end_opener.ts";

// Specification
/** RFC 8200 section 3 and RFC 9293 section 3.1 with timestamps: 40 and 32 bytes. */
const TCP_OVERHEAD = 72;
/** RFC 6455 section 5.2: a masked header of a packet up to 65,535 bytes. */
const FRAME_OVERHEAD = 8;
/** RFC 8446 section 5.2: header, content type and tag of one record. */
const TLS_OVERHEAD = 22;

// Implementation
/** The wait after the first failure (milliseconds). */
const RETRY_AFTER = 500;
/**
 * The time that a peer may be silent (milliseconds); at least so that four pings are no flood, at most what a timer
 * takes.
 */
const TIMEOUT = 30_000;
const MIN_TIMEOUT = 100;
const MAX_TIMEOUT = 2 ** 31 - 1;

/** Options for {@linkcode websocket}: `url` to connect, or `listen` to be connected to. */
export interface WebSocketOptions {
  /** The server: `ws://HOST:PORT/PATH`, or `wss://…` with TLS. */
  url?: string;
  /** The address to listen on: `ADDRESS:PORT`; a port alone is one of all IPv4 addresses. */
  listen?: string | number;
  /**
   * The proxy that connects to the server: `http://HOST:PORT`, or `http://USER:PASSWORD@HOST:PORT`.
   * @default {what `HTTPS_PROXY` (for `wss:`), `HTTP_PROXY` or `ALL_PROXY`, and `NO_PROXY` say, with `--allow-env`}
   */
  proxy?: string;
  /** The only path that the listening side answers. @default {"/"} */
  path?: string;
  /** Web pages that may connect, by their origin, such as `https://vpn.example`. @default {[]} */
  origins?: string[];
  /**
   * The messages that are packets: those that begin with an IP header, or all but empty ones, for a tunnel whose
   * stages encrypt. @default {"ip"}
   */
  payload?: "ip" | "any";
  /**
   * The time to wait before connecting again, after a connection was lost; doubled with each failure, up to 30 s, and
   * shortened at random by up to a half (milliseconds). @default {500}
   */
  retryAfter?: number;
  /**
   * The time after which a silent peer counts as gone; four pings in it keep a living one from being silent
   * (milliseconds). @default {30000}
   */
  timeout?: number;
  /**
   * The most packets that wait for the loop; further ones wait in the system, and are dropped if that takes more than a
   * moment.
   * @default {1024}
   */
  queueLength?: number;
}

const NAMES: OptionNames<WebSocketOptions> = {
  url: "text",
  listen: "optional",
  proxy: "text",
  path: "text",
  origins: "list",
  payload: "text",
  retryAfter: "number",
  timeout: "number",
  queueLength: "number",
};

/** A transport with one peer at a time, reached by messages; {@linkcode websocket} opens it. `packet.endpoint` stays unused. */
export class WebSocketTransport implements Transport {
  /** Such as `wss://vpn.example/tunnel`, or `ws listening on 0.0.0.0:8080`. */
  readonly name: string;
  /** None: it calls `wake`. */
  readonly waitable: Waitable | undefined = undefined;
  /** The most that IPv6, TCP, TLS and the message's header add (bytes). */
  readonly overhead: number;
  /** The longest IP packet: TCP segments it as the path needs (bytes). */
  readonly pathMtu: number = LARGE_ROOM;
  /** Where the listening side listens, such as `0.0.0.0:8080`; `undefined` on the connecting side. */
  readonly local: string | undefined;
  /** Settled when `close` has come to its end, one second later at most. */
  readonly closed: Promise<void>;
  /** Why it is gone: the listening side can listen no longer. */
  failure: Error | undefined;
  /** The reason why the connecting side has found no connection since the last one was lost. */
  lastError: Error | undefined;

  readonly #source: ConnectionSource;
  readonly #settleClosed: () => void;
  readonly #incoming: ReceiveQueue;
  #connection: WebSocketConnection | undefined;
  #host: EndHost | undefined;
  #full = false;
  #closed = false;

  /** For {@linkcode websocket}. */
  constructor(
    name: string,
    local: string | undefined,
    { queueLength, payload }: WebSocketOptions,
    source: (owner: ConnectionOwner) => ConnectionSource,
  ) {
    this.name = name;
    this.local = local;
    this.overhead = TCP_OVERHEAD + FRAME_OVERHEAD + (name.startsWith("wss:") ? TLS_OVERHEAD : 0);
    const { promise, resolve } = Promise.withResolvers<void>();
    this.closed = promise;
    this.#settleClosed = resolve;
    this.#incoming = new ReceiveQueue(queueLength, payload);
    this.#source = source(this.#owner());
  }

  /** Whether there is a connection. `wake` is called when that changes. */
  get connected(): boolean {
    return this.#connection !== undefined;
  }

  /** Messages that the connection has not handed to the system yet. */
  get queued(): number {
    return this.#connection?.queued ?? 0;
  }

  /** Gives it its loop. */
  attach(host: EndHost): void {
    this.#host = host;
    this.#incoming.host = host;
  }

  /** Appends what arrived. */
  read(batch: PacketBatch): number {
    return this.#closed ? 0 : this.#incoming.read(batch);
  }

  /** Sends packets while the connection takes them; without one they are dropped. */
  write(batch: PacketBatch): number {
    if (this.#closed) return 0;
    const host = this.#host!;
    const { packets, length } = batch;
    const connection = this.#connection;
    let count = 0;
    for (; count < length; count++) {
      const packet = packets[count]!;
      if (connection === undefined) {
        host.drop(packet, "not connected");
        continue;
      }
      if (connection.full) {
        this.#full = true;
        break;
      }
      packet.finish();
      connection.add(packet);
    }
    batch.shift(count);
    connection?.flush();
    return count;
  }

  /** Closes the connection, which sends what it has taken first; packets that were not read are gone. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    const connection = this.#connection;
    this.#connection = undefined;
    connection?.close();
    this.#incoming.clear();
    Promise.all([connection?.ended, this.#source.close()]).then(this.#settleClosed);
  }

  /** The same as {@linkcode WebSocketTransport.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** The transport as its connections, and their source, see it. */
  #owner(): ConnectionOwner {
    const host = () => this.#host;
    const connection = () => this.#connection;
    const incoming = this.#incoming;
    return {
      name: this.name,
      get host() {
        return host();
      },
      get connection() {
        return connection();
      },
      get full() {
        return incoming.full;
      },
      adopt: (connection) => this.#adopt(connection),
      receive: (bytes, offset, length) => incoming.accept(bytes, offset, length),
      drained: () => this.#drained(),
      lost: (connection) => this.#lost(connection),
      fail: (error) => this.#fail(error),
      failToConnect: (error) => this.lastError = error,
    };
  }

  #adopt(connection: WebSocketConnection): void {
    if (this.#closed) return connection.abort();
    const before = this.#connection;
    this.#connection = connection;
    before?.abort();
    this.lastError = undefined;
    this.#drained();
    this.#host?.wake();
  }

  #lost(connection: WebSocketConnection): void {
    if (this.#connection !== connection) return;
    this.#connection = undefined;
    this.#source.lost(connection);
    this.#host?.wake();
  }

  #fail(error: Error): void {
    if (this.#closed) return;
    this.failure ??= error;
    this.#host?.wake();
  }

  /** The connection has room: packets may wait for it. */
  #drained(): void {
    if (!this.#full) return;
    this.#full = false;
    this.#host!.wake();
  }
}

/**
 * Joins the tunnel to another machine by WebSocket (RFC 6455). With `url` it connects, when the tunnel opens and again
 * whenever the connection is lost; packets are dropped as `not connected` meanwhile. The name is looked up each time,
 * and its addresses are tried in turn. With `listen` it accepts one peer at a time: others get status 503, unless the
 * peer does not answer a ping within a sixth of `timeout` (5 s), and is replaced. As URLs: `ws://HOST:PORT/PATH`,
 * `wss://…`, and to listen `ws://ADDRESS:PORT/PATH?listen`; `?payload=any` is the other option.
 *
 * Both sides send pings, and give a peer up that has been silent for `timeout`. Closing takes one second at the most.
 *
 * **Bounds**: Messages up to 65,535 bytes in at most 1,024 fragments, without compression; a longer one ends its
 * connection (close code 1009), as do more than 1,000 control frames a second and 10,000 messages in a row that are no
 * packets (1008). 16 connections that are not the tunnel's yet, 4 of one IPv4 address or IPv6 /64, the oldest of which
 * makes room for a new one; 10 s and 8,192 bytes for each handshake. 256 packets and 256 KiB on their way to the system.
 *
 * **Limits**: Anyone who can connect is the peer; only web pages are refused, by their `Origin`. The listening side
 * speaks no TLS: put a proxy before it. Packets travel in plain text without TLS. TCP within TCP stalls on a path that
 * loses packets. Where `--allow-net` has a list, the server's addresses are tried in turn only if they are in it.
 *
 * @throws {SyntaxError} when `url`, `listen`, `proxy`, `path` or one of `origins` does not parse; {@linkcode TypeError} with neither or both;
 * {@linkcode RangeError} for a bound out of range. What it returns rejects with `Deno.errors.NotCapable` without
 * `--allow-net`, with `AddrInUse`, `AddrNotAvailable` or `PermissionDenied` for a port that it cannot have, and when the first connection
 * fails with the error of the step that failed as `cause`, such as `ConnectionRefused` or, for TLS, `InvalidData`.
 *
 * @example
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
  checkNames("open a WebSocket transport", options, NAMES);
  const { url: text, listen, payload = "ip", retryAfter = RETRY_AFTER, timeout = TIMEOUT } = options;
  if ((text === undefined) === (listen === undefined)) {
    throw new TypeError("Cannot use websocket(): it connects or it listens: give either url or listen");
  }
  checkQueueLength(options.queueLength);
  checkPayload("WebSocket", payload);
  checkTime("retryAfter", retryAfter, 0);
  checkTime("timeout", timeout, MIN_TIMEOUT);
  if (options.proxy !== undefined && text === undefined) {
    throw new TypeError("Cannot use websocket(): proxy is for connecting: leave it out beside listen");
  }
  if (text !== undefined) {
    const url = parseUrl(text);
    const proxy = options.proxy === undefined ? undefined : new HttpProxy(options.proxy);
    return (context = WITHOUT_TUNNEL) => connect(url, options, { retryAfter, timeout, proxy }, context);
  }
  const local = parseListen(listen!, `listen "${listen}"`);
  const rules = handshakeRules(options.path, options.origins);
  return (context = WITHOUT_TUNNEL) => listenOn(local, options, { ...rules, timeout }, context);
}

/** A longer time than a timer takes would be none. */
function checkTime(name: string, time: number, least: number): void {
  if (typeof time === "number" && time >= least && time <= MAX_TIMEOUT) return;
  throw new RangeError(
    `Cannot open a WebSocket transport: ${name} must be from ${least} to ${MAX_TIMEOUT} ms, got ${time}`,
  );
}

function parseUrl(text: string): URL {
  const subject = `url "${text}"`;
  const url = URL.parse(text);
  if (url === null || !/^wss?:$/.test(url.protocol)) {
    fail(subject, "it is no WebSocket's", "write one such as wss://vpn.example/tunnel");
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
  // A query may be a secret, and names are shown.
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

// deno-lint-ignore require-await -- what goes wrong is a rejection, as with every opener.
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
    if (cause instanceof Deno.errors.AddrInUse) {
      throw new Deno.errors.AddrInUse(
        `Cannot listen on ${where}: another program has this port: use another one`,
        { cause },
      );
    }
    if (cause instanceof Deno.errors.AddrNotAvailable) {
      throw new Deno.errors.AddrNotAvailable(
        `Cannot listen on ${where}: this machine does not have that address: write one that it has, or 0.0.0.0 for all`,
        { cause },
      );
    }
    if (cause instanceof Deno.errors.PermissionDenied) {
      throw new Deno.errors.PermissionDenied(
        `Cannot listen on ${where}: ${cause.message}: use a port above 1023`,
        { cause },
      );
    }
    throw cause;
  }
}
