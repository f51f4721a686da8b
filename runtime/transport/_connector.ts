/**
 * The connecting side of a WebSocket transport: makes a connection, and another one when that has ended.
 *
 *     look up ──► TCP to the addresses in turn ──► TLS ──► handshake ──► connected ──► lost
 *        ▲ 10 s in all                                                                  │
 *        └──────────────── 0.5 s, doubled up to 30 s, less up to a half by chance ◄─────┘
 */

import { lookup } from "node:dns/promises";
import { parseAddress } from "../../lib/address.ts";
import { type ConnectionOwner, type ConnectionSource, WebSocketConnection } from "./_connection.ts";
import { connectingError, StatusError } from "./_connecting_error.ts";
import { isAcceptance, newKey, requestText, statusOf } from "./_handshake.ts";
import { readHead } from "./_http_head.ts";
import { formatHostPort, requireNet } from "./_host_port.ts";
import type { FarEndContext } from "./end_opener.ts";

// Implementation
/** How long a connection may take to open (milliseconds). */
const CONNECT_TIMEOUT = 10_000;
/** RFC 8305 section 5: how long the next address waits for the one before it (milliseconds). */
const ATTEMPT_DELAY = 250;
/** The longest that a connection is waited for before the next one is tried (milliseconds). */
const MAX_RETRY = 30_000;

/** Options for {@linkcode Connector}. */
export interface ConnectorOptions {
  /** How long to wait before connecting again (milliseconds). */
  readonly retryAfter: number;
  /** How long the peer may be silent (milliseconds). */
  readonly timeout: number;
  /** How long a connection may take to open (milliseconds). @default {10000} */
  readonly connectTimeout?: number;
}

/** Keeps one connection to a server. */
export class Connector implements ConnectionSource {
  readonly #url: URL;
  readonly #options: ConnectorOptions;
  readonly #context: FarEndContext;
  readonly #owner: ConnectionOwner;
  /** Ends the attempt that is under way. */
  readonly #closing = new AbortController();
  #retry: number;
  #retryTimer: ReturnType<typeof setTimeout> | undefined;
  #attempt: Promise<void> | undefined;

  /** For a transport; {@linkcode Connector.open} makes the first connection. */
  constructor(url: URL, options: ConnectorOptions, context: FarEndContext, owner: ConnectionOwner) {
    this.#url = url;
    this.#options = options;
    this.#context = context;
    this.#retry = options.retryAfter;
    this.#owner = owner;
  }

  /** Makes the first connection; rejects with the reason when that fails. */
  async open(): Promise<void> {
    const { signal } = this.#context;
    const stop = () => this.#closing.abort(signal.reason);
    signal.addEventListener("abort", stop);
    try {
      signal.throwIfAborted();
      requireNet(formatHostPort(this.#host, this.#port));
      await this.#connect();
    } catch (error) {
      signal.throwIfAborted();
      throw connectingError(this.#owner.name, error);
    } finally {
      signal.removeEventListener("abort", stop);
    }
  }

  /** Connects again, after a while. */
  lost(connection: WebSocketConnection): void {
    if (connection.isProven) this.#retry = this.#options.retryAfter;
    this.#retryLater();
  }

  /** Ends what is under way. */
  async close(): Promise<void> {
    clearTimeout(this.#retryTimer);
    this.#closing.abort(new Deno.errors.Interrupted("Cannot connect: the transport is closed"));
    await this.#attempt;
  }

  #retryLater(): void {
    if (this.#closing.signal.aborted) return;
    // Clients of one server that was restarted do not come at the same moment.
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

  /** An address without brackets, or a name. */
  get #host(): string {
    return this.#url.hostname.replace(/^\[(.*)\]$/, "$1");
  }

  get #port(): number {
    return Number(this.#url.port) || (this.#url.protocol === "wss:" ? 443 : 80);
  }

  async #connect(): Promise<void> {
    const limit = this.#options.connectTimeout ?? CONNECT_TIMEOUT;
    const late = new AbortController();
    const error = new Deno.errors.TimedOut(`no answer within ${limit / 1000} s`);
    const timer = setTimeout(() => late.abort(error), limit);
    const signal = AbortSignal.any([late.signal, this.#closing.signal]);
    try {
      signal.throwIfAborted();
      const hosts = await unlessAborted(signal, this.#lookUp());
      const socket = await this.#secure(await this.#dial(hosts, signal), signal);
      const rest = await step(socket, signal, () => this.#shakeHands(socket));
      const { timeout } = this.#options;
      this.#owner.adopt(new WebSocketConnection(socket, rest, "client", timeout, this.#owner));
    } finally {
      clearTimeout(timer);
    }
  }

  /** The server's addresses, in getaddrinfo(3)'s order; or its name, where `--allow-net` has that alone in its list. */
  async #lookUp(): Promise<string[]> {
    const host = this.#host;
    if (isAddress(host) || !mayConnect(host)) return [host];
    const found = await this.#context.lookUp(() => lookup(host, { all: true, order: "verbatim" }));
    const addresses = [...new Set(found.map(({ address }) => address))];
    return addresses.every((address) => mayConnect(formatHostPort(address, this.#port))) ? addresses : [host];
  }

  /** Connects to one after the other, each when those before it failed or take long; the first that answers is used. */
  async #dial(hosts: readonly string[], signal: AbortSignal): Promise<Deno.TcpConn> {
    const { promise, resolve, reject } = Promise.withResolvers<Deno.TcpConn>();
    const rest = new AbortController();
    const stop = () => rest.abort(signal.reason);
    signal.addEventListener("abort", stop);
    let failure: unknown;
    let next = 0;
    let running = 0;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const start = () => {
      clearTimeout(timer);
      const host = hosts[next++]!;
      running++;
      if (next < hosts.length) timer = setTimeout(start, ATTEMPT_DELAY);
      this.#dialOne(host, rest.signal).then((socket) => {
        if (rest.signal.aborted) {
          socket.close();
          return reject(rest.signal.reason);
        }
        rest.abort();
        resolve(socket);
      }, (error) => {
        failure ??= error;
        running--;
        if (rest.signal.aborted) reject(rest.signal.reason);
        else if (next < hosts.length) start();
        else if (running === 0) reject(failure);
      });
    };
    start();
    try {
      const socket = await promise;
      socket.setNoDelay();
      return socket;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", stop);
    }
  }

  async #dialOne(hostname: string, signal: AbortSignal): Promise<Deno.TcpConn> {
    // A name is here only if the addresses that it has may not be used.
    if (isAddress(hostname)) this.#context.bypass(parseAddress(hostname));
    return await Deno.connect({ hostname, port: this.#port, signal });
  }

  /** Has a connection speak TLS, where the URL says so. */
  async #secure(socket: Deno.TcpConn, signal: AbortSignal): Promise<Deno.Conn> {
    if (this.#url.protocol !== "wss:") return socket;
    const secured = await step(
      socket,
      signal,
      // RFC 7301: a server that prefers HTTP/2 must not choose it.
      () => Deno.startTls(socket, { hostname: this.#host, alpnProtocols: ["http/1.1"] }),
    );
    await step(secured, signal, () => secured.handshake());
    return secured;
  }

  /** Returns the bytes that came behind the handshake. */
  async #shakeHands(socket: Deno.Conn): Promise<Uint8Array> {
    const key = newKey();
    const request = new TextEncoder().encode(requestText(this.#url, key));
    for (let at = 0; at < request.length;) at += await socket.write(request.subarray(at));
    const head = await readHead(socket);
    const status = statusOf(head);
    if (status === undefined) throw new SyntaxError("the server answers no HTTP");
    if (status !== 101) throw new StatusError(status, head.start);
    if (await isAcceptance(head, key)) return head.rest;
    throw new SyntaxError("the server's handshake is not that of a WebSocket");
  }
}

function isAddress(host: string): boolean {
  // WHATWG URL section 3.5: a host that ends in a number is an IPv4 address.
  return host.includes(":") || /(^|\.)\d+$/.test(host);
}

function mayConnect(host: string): boolean {
  return Deno.permissions.querySync({ name: "net", host }).state === "granted";
}

/** One step with a socket, which is closed if the step fails or takes too long. */
async function step<Result>(
  socket: Deno.Conn,
  signal: AbortSignal,
  work: () => Promise<Result>,
): Promise<Result> {
  const close = () => closeQuietly(socket);
  signal.addEventListener("abort", close);
  try {
    signal.throwIfAborted();
    const result = await work();
    signal.throwIfAborted();
    return result;
  } catch (error) {
    closeQuietly(socket);
    signal.throwIfAborted();
    throw error;
  } finally {
    signal.removeEventListener("abort", close);
  }
}

function closeQuietly(socket: Deno.Conn): void {
  try {
    socket.close();
  } catch {
    // It is closed already, or another one has been made of it.
  }
}

/** What a promise settles to, or the signal's reason. */
async function unlessAborted<Result>(signal: AbortSignal, work: Promise<Result>): Promise<Result> {
  const { promise, reject } = Promise.withResolvers<never>();
  const stop = () => reject(signal.reason);
  signal.addEventListener("abort", stop);
  try {
    return await Promise.race([work, promise]);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}
