/**
 * The connecting side of a WebSocket transport, which reconnects after a connection is lost.
 *
 *     look up ──► TCP to the addresses in turn ──► proxy ──► TLS ──► handshake ──► connected ──► lost
 *        ▲ at most 10 s to here ────────────────────────────────────────────┘                     │
 *        └───────────────── 0.5 s, doubled up to 30 s, with random jitter of up to half ◄─────────┘
 */

import { errorMessage } from "../../driver/error.ts";
import { type ConnectionOwner, type ConnectionSource, WebSocketConnection } from "./_connection.ts";
import { connectingError, StatusError } from "./_connecting_error.ts";
import { dial, step } from "./_dial.ts";
import { isAcceptance, newKey, requestText } from "./_handshake.ts";
import { readHead, statusOf, writeText } from "./_http_head.ts";
import type { HttpProxy } from "./_http_proxy.ts";
import { formatHostPort, type HostPort, requireNet, urlHostPort } from "./host_port.ts";
import type { FarEndContext } from "./end_opener.ts";

// Implementation
/** Default of {@linkcode ConnectorOptions.connectTimeout}. */
const CONNECT_TIMEOUT = 10_000;
/** Maximum time between attempts (milliseconds). */
const MAX_RETRY = 30_000;

/** Options for {@linkcode Connector}. */
export interface ConnectorOptions {
  /** Time before connecting again (milliseconds). */
  readonly retryAfter: number;
  /** Maximum silence of the peer (milliseconds). */
  readonly timeout: number;
  /** Proxy between this machine and the server. */
  readonly proxy: HttpProxy | undefined;
  /** Maximum time to connect (milliseconds). @default {10000} */
  readonly connectTimeout?: number;
}

/** Keeps one connection to a server open. */
export class Connector implements ConnectionSource {
  readonly #url: URL;
  readonly #server: HostPort;
  readonly #proxy: HttpProxy | undefined;
  readonly #options: ConnectorOptions;
  readonly #context: FarEndContext;
  readonly #owner: ConnectionOwner;
  /** Ends the attempt in progress. */
  readonly #closing = new AbortController();
  #retry: number;
  #retryTimer: ReturnType<typeof setTimeout> | undefined;
  #attempt: Promise<void> | undefined;

  /** Creates a connector; {@linkcode Connector.open} connects for the first time. */
  constructor(url: URL, options: ConnectorOptions, context: FarEndContext, owner: ConnectionOwner) {
    this.#url = url;
    this.#server = urlHostPort(url, url.protocol === "wss:" ? 443 : 80);
    this.#proxy = options.proxy;
    this.#options = options;
    this.#context = context;
    this.#retry = options.retryAfter;
    this.#owner = owner;
  }

  /** Makes the first connection; rejects if that fails. */
  async open(): Promise<void> {
    const { signal } = this.#context;
    const stop = () => this.#closing.abort(signal.reason);
    signal.addEventListener("abort", stop);
    try {
      signal.throwIfAborted();
      for (const { host, port } of [this.#server, this.#proxy ?? this.#server]) {
        requireNet(formatHostPort(host, port));
      }
      await this.#connect();
    } catch (error) {
      signal.throwIfAborted();
      throw connectingError(this.#owner.name, error);
    } finally {
      signal.removeEventListener("abort", stop);
    }
  }

  /** Connects again after a delay. */
  lost(connection: WebSocketConnection): void {
    if (connection.isProven) this.#retry = this.#options.retryAfter;
    this.#retryLater();
  }

  /** Ends the attempt in progress. */
  async close(): Promise<void> {
    clearTimeout(this.#retryTimer);
    this.#closing.abort(new Deno.errors.Interrupted("Cannot connect: the transport is closed"));
    await this.#attempt;
  }

  #retryLater(): void {
    if (this.#closing.signal.aborted) return;
    // Jitter prevents all clients of a restarted server from connecting at the same moment.
    const delay = this.#retry * (1 - Math.random() / 2);
    this.#retry = Math.min(this.#retry * 2, MAX_RETRY);
    this.#retryTimer = setTimeout(() => this.#attempt = this.#reconnect(), delay);
  }

  async #reconnect(): Promise<void> {
    try {
      await this.#connect();
    } catch (error) {
      this.#owner.failToConnect(connectingError(this.#owner.name, error));
      this.#retryLater();
    }
  }

  async #connect(): Promise<void> {
    const limit = this.#options.connectTimeout ?? CONNECT_TIMEOUT;
    const late = new AbortController();
    const error = new Deno.errors.TimedOut(`no connection within ${limit / 1000} s`);
    const timer = setTimeout(() => late.abort(error), limit);
    const signal = AbortSignal.any([late.signal, this.#closing.signal]);
    try {
      const socket = await this.#secure(await this.#reach(signal), signal);
      const rest = await step(socket, signal, () => this.#shakeHands(socket));
      const { timeout } = this.#options;
      this.#owner.adopt(new WebSocketConnection(socket, rest, "client", timeout, this.#owner));
    } finally {
      clearTimeout(timer);
    }
  }

  /** Opens a TCP connection to the server, through the proxy if there is one. */
  async #reach(signal: AbortSignal): Promise<Deno.TcpConn> {
    const proxy = this.#proxy;
    const socket = await dial(proxy ?? this.#server, this.#context, signal).catch((error) => {
      if (proxy === undefined || error instanceof Deno.errors.NotCapable) throw error;
      throw proxy.error(`cannot be reached (${errorMessage(error)})`, { cause: error });
    });
    if (proxy !== undefined) await step(socket, signal, () => proxy.connect(socket, this.#server));
    return socket;
  }

  /** Starts TLS on a connection if the URL is `wss:`. */
  async #secure(socket: Deno.TcpConn, signal: AbortSignal): Promise<Deno.Conn> {
    if (this.#url.protocol !== "wss:") return socket;
    const secured = await step(
      socket,
      signal,
      // RFC 7301: a server that prefers HTTP/2 must not choose it.
      () => Deno.startTls(socket, { hostname: this.#server.host, alpnProtocols: ["http/1.1"] }),
    );
    await step(secured, signal, () => secured.handshake());
    return secured;
  }

  /** Performs the handshake; returns the bytes that were read after it. */
  async #shakeHands(socket: Deno.Conn): Promise<Uint8Array> {
    const key = newKey();
    await writeText(socket, requestText(this.#url, key));
    const head = await readHead(socket);
    const status = statusOf(head);
    if (status === undefined) throw new SyntaxError("the server's response is not HTTP");
    if (status !== 101) throw new StatusError(status, head.start);
    if (await isAcceptance(head, key)) return head.rest;
    throw new SyntaxError("the server's response is not a WebSocket handshake");
  }
}
