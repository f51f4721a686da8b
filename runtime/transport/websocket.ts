/**
 * Packets in WebSocket messages, one each, through proxies and firewalls that let nothing else pass.
 *
 *     write() ──► send, at most 256 under way ──► binary message ──► receive queue, bounded ──► read()
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
import { checkNames, type OptionNames } from "../../lib/options.ts";
import { fail, formatHostPort, type HostPort, parseListen, requireNet } from "./_host_port.ts";
import { checkQueueLength, ReceiveQueue } from "./_receive_queue.ts";
import { SendQueue } from "./_send_queue.ts";

// Specification
/** RFC 8200 section 3 and RFC 9293 section 3.1 with timestamps: 40 and 32 bytes. */
const TCP_OVERHEAD = 72;
/** RFC 6455 section 5.2: a masked header of a packet up to 65,535 bytes. */
const FRAME_OVERHEAD = 8;
/** RFC 8446 section 5.2: header, content type and tag of one record. */
const TLS_OVERHEAD = 22;

// Implementation
/** What a connection may have that it has not handed to the system yet. */
const SENDING_PACKETS = 256;
const SENDING_BYTES = 256 * 1024;
/** How long a connection may take to open (milliseconds). */
const CONNECT_TIMEOUT = 10_000;
/** How long to wait after the first failure, and at most (milliseconds). */
const FIRST_RETRY = 500;
const LAST_RETRY = 30_000;
/** How often to look whether messages have left, while any are under way (milliseconds). */
const DRAIN_INTERVAL = 1;

/** Options for {@linkcode websocket}: `url` to connect, or `listen` to be connected to. */
export interface WebSocketOptions {
  /** Where to connect: `ws://HOST:PORT/PATH`, or `wss://…` with TLS. */
  url?: string;
  /** Where to listen: `ADDRESS:PORT`; a port alone is one of all IPv4 addresses. */
  listen?: string | number;
  /** The only path that the listening side answers. @default {"/"} */
  path?: string;
  /** Web pages that may connect, by their origin, such as `https://vpn.example`. @default {[]} */
  origins?: string[];
  /** How long to wait before connecting anew; doubled each time, up to 30 s (milliseconds). @default {500} */
  retryAfter?: number;
  /** How many packets wait for the loop before further ones are dropped. @default {1024} */
  queueLength?: number;
}

const NAMES: OptionNames<WebSocketOptions> = {
  url: "optional",
  listen: "optional",
  path: "optional",
  origins: "optional",
  retryAfter: "optional",
  queueLength: "optional",
};

/** What makes an end's connections. */
interface ConnectionSource {
  /** The connection ended. */
  lost(): void;
  /** The end is closed; settled when nothing is left of it. */
  close(): Promise<void>;
}

/** What {@linkcode websocket} opens: one peer at a time, reached by messages. `packet.endpoint` stays unused. */
export class WebSocketTransport implements Transport {
  /** Such as `wss://vpn.example/tunnel`, or `ws listening on 0.0.0.0:8080`. */
  readonly name: string;
  /** None: it calls `wake`. */
  readonly waitable: Waitable | undefined = undefined;
  /** The most that IPv6, TCP, TLS and the message's header add (bytes). */
  readonly overhead: number;
  /** TCP cuts a packet as the road needs it: the longest that IP has (bytes). */
  readonly pathMtu: number = LARGE_ROOM;
  /** Where the listening side listens, such as `0.0.0.0:8080`; `undefined` on the connecting side. */
  readonly local: string | undefined;
  /** Settled when `close` has come to its end, which waits for the peer's answer. */
  readonly closed: Promise<void>;
  /** Why it is gone: the listening side can listen no longer. */
  failure: Error | undefined;

  readonly #source: ConnectionSource;
  readonly #settleClosed: () => void;
  readonly #incoming: ReceiveQueue;
  readonly #outgoing = new SendQueue({ packets: SENDING_PACKETS, bytes: SENDING_BYTES });
  #socket: WebSocket | undefined;
  #host: EndHost | undefined;
  #full = false;
  #closed = false;
  #drainTimer: ReturnType<typeof setTimeout> | undefined;

  /** For {@linkcode websocket}. */
  constructor(
    name: string,
    local: string | undefined,
    queueLength: number | undefined,
    source: ConnectionSource,
  ) {
    this.name = name;
    this.local = local;
    this.overhead = TCP_OVERHEAD + FRAME_OVERHEAD + (name.startsWith("wss:") ? TLS_OVERHEAD : 0);
    this.#source = source;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.closed = promise;
    this.#settleClosed = resolve;
    this.#incoming = new ReceiveQueue(queueLength);
  }

  /** Whether there is a connection. `wake` is called when that changes. */
  get connected(): boolean {
    return this.#socket !== undefined;
  }

  /** Messages that the connection has not handed to the system yet. */
  get queued(): number {
    this.#settle();
    return this.#outgoing.length;
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
    const socket = this.#socket;
    this.#settle();
    let count = 0;
    for (; count < length; count++) {
      const packet = packets[count]!;
      if (socket?.readyState !== WebSocket.OPEN) {
        host.drop(packet, "not connected");
        continue;
      }
      if (this.#outgoing.full) {
        this.#full = true;
        break;
      }
      packet.finish();
      socket.send(packet.data as Uint8Array<ArrayBuffer>);
      this.#outgoing.push(packet);
    }
    batch.shift(count);
    if (this.#outgoing.length > 0) this.#drainTimer ??= setTimeout(() => this.#drain(), DRAIN_INTERVAL);
    return count;
  }

  /** Closes the connection, which sends what is under way first; what was not read is gone. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    const socket = this.#socket;
    this.#socket = undefined;
    const ended = socket === undefined ? undefined : endOf(socket);
    clearTimeout(this.#drainTimer);
    // Deno copies a message when it is sent: the bytes are free, and closing sends them.
    this.#outgoing.settle(0);
    this.#incoming.clear();
    Promise.all([ended, this.#source.close()]).then(this.#settleClosed);
  }

  /** The same as {@linkcode WebSocketTransport.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** Takes a connection that is open. For what makes connections. */
  adopt(socket: WebSocket): void {
    if (this.#closed) return socket.close();
    this.#socket = socket;
    socket.onmessage = ({ data }) => this.#receive(data);
    socket.onclose = () => this.#lose(socket);
    this.#host?.wake();
  }

  /** It can have no connection any more. For what makes connections. */
  fail(error: Error): void {
    if (this.#closed) return;
    this.failure ??= error;
    this.#host?.wake();
  }

  #receive(data: unknown): void {
    if (this.#closed) return;
    if (data instanceof ArrayBuffer) this.#incoming.accept(new Uint8Array(data));
    else this.#host?.refuse(String(data).length, "not a binary message");
  }

  #lose(socket: WebSocket): void {
    if (this.#socket !== socket) return;
    this.#socket = undefined;
    this.#outgoing.clear(this.#host, "connection lost");
    this.#source.lost();
    this.#host?.wake();
  }

  /** Gives back the packets whose messages have left. */
  #settle(): void {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#outgoing.settle(this.#socket.bufferedAmount);
  }

  /** A WebSocket does not say when it has room again. */
  #drain(): void {
    this.#settle();
    this.#drainTimer = this.#outgoing.length === 0
      ? undefined
      : setTimeout(() => this.#drain(), DRAIN_INTERVAL);
    if (!this.#full || this.#outgoing.full) return;
    this.#full = false;
    this.#host!.wake();
  }
}

/** Closes a connection; settled when it has ended. */
function endOf(socket: WebSocket): Promise<void> {
  return new Promise((resolve) => {
    socket.onclose = () => resolve();
    socket.close();
  });
}

/** The connecting side: makes a connection anew when one has ended. */
class Connector implements ConnectionSource {
  readonly transport: WebSocketTransport;
  readonly #url: string;
  readonly #firstRetry: number;
  #retry: number;
  #retryTimer: ReturnType<typeof setTimeout> | undefined;
  #connecting: WebSocket | undefined;
  #closed = false;

  constructor(url: URL, firstRetry: number, queueLength: number | undefined) {
    this.#url = url.href;
    this.#firstRetry = this.#retry = firstRetry;
    // A query may be a secret, and names are shown.
    this.transport = new WebSocketTransport(`${url.origin}${url.pathname}`, undefined, queueLength, this);
  }

  async open(): Promise<WebSocketTransport> {
    const { hostname, port, protocol } = new URL(this.#url);
    requireNet(`${hostname}:${port || (protocol === "wss:" ? 443 : 80)}`);
    const said = await new Promise<string | undefined>((resolve) =>
      this.#connect(() => resolve(undefined), resolve)
    );
    if (said === undefined) return this.transport;
    this.transport.close();
    throw new Error(
      `Cannot connect to ${this.transport.name}: ${said}: check the address, and start the other side first`,
    );
  }

  lost(): void {
    if (this.#closed) return;
    this.#retryTimer = setTimeout(() => this.#reconnect(), this.#retry);
    this.#retry = Math.min(this.#retry * 2, LAST_RETRY);
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#retryTimer);
    const socket = this.#connecting;
    if (socket === undefined) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    socket.addEventListener("close", () => resolve());
    socket.close();
    await promise;
  }

  #reconnect(): void {
    try {
      this.#connect(() => this.#retry = this.#firstRetry, () => this.lost());
    } catch (error) {
      this.transport.fail(error as Error);
    }
  }

  #connect(opened: () => void, failed: (said: string) => void): void {
    const socket = this.#connecting = new WebSocket(this.#url);
    const timer = setTimeout(() => socket.close(), CONNECT_TIMEOUT);
    let said = `no answer within ${CONNECT_TIMEOUT / 1000} s`;
    socket.binaryType = "arraybuffer";
    socket.onerror = (event) =>
      said = (event as ErrorEvent).message.replace(/^.*failed to connect to WebSocket: /, "");
    socket.onclose = () => {
      clearTimeout(timer);
      this.#connecting = undefined;
      failed(said);
    };
    socket.onopen = () => {
      clearTimeout(timer);
      this.#connecting = undefined;
      socket.onerror = null;
      this.transport.adopt(socket);
      opened();
    };
  }
}

/** The listening side: takes one connection at a time. */
class Listener implements ConnectionSource {
  readonly transport: WebSocketTransport;
  readonly #path: string;
  readonly #origins: readonly string[];
  readonly #closing = new AbortController();
  readonly #server: Deno.HttpServer<Deno.NetAddr>;
  /** A connection that is about to open. */
  #opening: WebSocket | undefined;

  constructor(
    { host, port }: HostPort,
    path: string,
    origins: readonly string[],
    queueLength: number | undefined,
  ) {
    this.#path = new URL(path, "http://host/").pathname;
    this.#origins = origins;
    this.#server = Deno.serve(
      { hostname: host, port, signal: this.#closing.signal, onListen: () => {} },
      (request) => this.#answer(request),
    );
    const local = formatHostPort(this.#server.addr.hostname, this.#server.addr.port);
    this.transport = new WebSocketTransport(`ws listening on ${local}`, local, queueLength, this);
    this.#server.finished.then(() => this.#ended(undefined), (error) => this.#ended(error));
  }

  lost(): void {
  }

  async close(): Promise<void> {
    this.#closing.abort();
    const opening = this.#opening;
    await Promise.all([this.#server.finished, opening === undefined ? undefined : endOf(opening)]);
  }

  #answer(request: Request): Response {
    const origin = request.headers.get("origin");
    if (new URL(request.url).pathname !== this.#path) return refusal(404, "no tunnel at this path");
    if (request.headers.get("upgrade")?.toLowerCase() !== "websocket") {
      return refusal(426, "a WebSocket is needed");
    }
    // Browsers let any page connect to any WebSocket, this machine's own too, and say only which page it is.
    if (origin !== null && !this.#origins.includes(origin)) return refusal(403, `not for pages of ${origin}`);
    if (this.transport.connected || this.#opening !== undefined) return refusal(503, "the tunnel has a peer");
    try {
      const { socket, response } = Deno.upgradeWebSocket(request);
      this.#open(socket);
      return response;
    } catch {
      return refusal(400, "not a WebSocket handshake");
    }
  }

  #open(socket: WebSocket): void {
    this.#opening = socket;
    socket.binaryType = "arraybuffer";
    socket.onclose = () => this.#opening = undefined;
    socket.onopen = () => {
      this.#opening = undefined;
      this.transport.adopt(socket);
    };
  }

  #ended(cause: unknown): void {
    const said = cause instanceof Error ? cause.message : "its listener ended";
    this.transport.fail(new Error(`Cannot use ${this.transport.name}: ${said}`, { cause }));
  }
}

function refusal(status: number, said: string): Response {
  return new Response(`${said}\n`, { status, headers: status === 426 ? { upgrade: "websocket" } : {} });
}

/**
 * Joins the tunnel to another machine by WebSocket. With `url` it connects, when the tunnel opens and again
 * whenever the connection is lost; packets are dropped as `not connected` meanwhile. With `listen` it is connected
 * to: by one peer at a time, others get status 503. As URLs: `ws://HOST:PORT/PATH`, `wss://…`, and to listen
 * `ws://ADDRESS:PORT/PATH?listen`.
 *
 * **Limits**: Whoever can connect is the peer; only web pages are refused, by their `Origin`. The listening side
 * speaks no TLS: put a proxy before it. TCP within TCP stalls on a road that loses packets. A peer that vanishes
 * without a word is noticed by the listening side after about 30 s, by the connecting side when TCP gives up, which
 * takes many minutes; closing waits in the background for the peer's answer.
 *
 * @throws {SyntaxError} when `url` or `listen` does not parse; {@linkcode TypeError} with neither or both;
 * {@linkcode RangeError} for a bound out of range. What it returns rejects with `Deno.errors.NotCapable` without
 * `--allow-net`, with `AddrInUse` or `PermissionDenied` for a port that it cannot have, and with an `Error` when the
 * first connection fails.
 *
 * @example
 * ```ts
 * import { script, websocket } from "@warren/tunnel";
 *
 * const far = websocket({ url: "wss://vpn.example/tunnel" });
 * export default script(import.meta, { address: "10.9.0.2/24", far }, (tunnel) => tunnel.run());
 * ```
 */
export function websocket(options: WebSocketOptions): () => Promise<WebSocketTransport> {
  checkNames("open a WebSocket transport", options, NAMES);
  const { url: text, listen, path = "/", origins = [], retryAfter = FIRST_RETRY, queueLength } = options;
  if ((text === undefined) === (listen === undefined)) {
    throw new TypeError("Cannot use websocket(): it connects or it listens: give either url or listen");
  }
  checkQueueLength(queueLength);
  if (!(retryAfter >= 0)) {
    throw new RangeError(`Cannot connect anew after ${retryAfter} ms: it is not at least 0`);
  }
  if (text !== undefined) {
    const url = parseUrl(text);
    return () => new Connector(url, retryAfter, queueLength).open();
  }
  const local = parseListen(listen!, `listen "${listen}"`);
  return () => listenOn(local, path, origins, queueLength);
}

function parseUrl(text: string): URL {
  const subject = `url "${text}"`;
  const url = URL.parse(text);
  if (url === null || !/^wss?:$/.test(url.protocol)) {
    fail(subject, "it is no WebSocket's", "write one such as wss://vpn.example/tunnel");
  }
  if (url.hash !== "") fail(subject, "it has a fragment", `leave ${url.hash} out`);
  if (url.username !== "" || url.password !== "") fail(subject, "it has a user name", "leave it out");
  return url;
}

// deno-lint-ignore require-await -- what goes wrong is a rejection, as with every opener.
async function listenOn(
  local: HostPort,
  path: string,
  origins: readonly string[],
  queueLength: number | undefined,
): Promise<WebSocketTransport> {
  const where = formatHostPort(local.host, local.port);
  requireNet(where);
  try {
    return new Listener(local, path, origins, queueLength).transport;
  } catch (cause) {
    if (cause instanceof Deno.errors.AddrInUse) {
      throw new Deno.errors.AddrInUse(
        `Cannot listen on ${where}: another program has this port: use another one`,
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
