/**
 * The listening side of a WebSocket transport, which accepts one peer at a time.
 *
 *     accept ──► at most 16 handshakes, 4 per source, 10 s each ──► 400, 403, 404, 426, 431 ──► closed
 *       ▲ after a pause if descriptors are exhausted           │
 *                                                              ├─► 503, if the peer in use replies to a ping
 *                                                              └─► 101: the peer in use from now on
 */

import { setImmediate } from "node:timers/promises";
import { unmapAddress } from "../../driver/udp_socket.ts";
import { type Address, parseAddress } from "../../lib/wire/address.ts";
import { type ConnectionOwner, type ConnectionSource, WebSocketConnection } from "./_connection.ts";
import { acceptanceText, type HandshakeRules, type Refusal, refusalOf, refusalText } from "./_handshake.ts";
import { type HttpHead, readHead, writeText } from "./_http_head.ts";
import type { FarEndContext } from "./end_opener.ts";

// Specification
/** Errors of accept(2) for lack of resources; all others mean that a connection was reset. */
const EXHAUSTED = ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"];

// Implementation
/** Maximum handshakes in progress: in total, and per IPv4 address or IPv6 /64. A new handshake replaces the oldest. */
const MAX_HANDSHAKES = 16;
const MAX_HANDSHAKES_OF_SOURCE = 4;
/** Maximum connections: one in use, and earlier ones that are closing. Each has buffers of 0.8 MiB. */
const MAX_CONNECTIONS = 8;
/** Default of {@linkcode ListenerOptions.handshakeTimeout}. */
const HANDSHAKE_TIMEOUT = 10_000;
/** Time that a refused peer has to read the response (milliseconds), and maximum bytes to read from it meanwhile. */
const LINGER_TIMEOUT = 1000;
const LINGER_BYTES = 65_536;
/** Pause while descriptors or memory are exhausted, and age of handshakes that are ended then (milliseconds). */
const ACCEPT_PAUSE = 50;
const SLOW_HANDSHAKE = 250;

/** Options for {@linkcode Listener}. */
export interface ListenerOptions extends HandshakeRules {
  /** Maximum silence of the peer (milliseconds). */
  readonly timeout: number;
  /** Maximum time for a handshake (milliseconds). @default {10000} */
  readonly handshakeTimeout?: number;
}

/** A handshake in progress. */
interface Handshake {
  readonly socket: Deno.Conn;
  readonly source: string;
  readonly since: number;
}

/** Accepts connections, and keeps one of them in use. */
export class Listener implements ConnectionSource {
  readonly #listener: Deno.Listener;
  readonly #options: ListenerOptions;
  readonly #context: FarEndContext;
  readonly #owner: ConnectionOwner;
  /** Handshakes in progress, oldest first. */
  readonly #handshakes = new Set<Handshake>();
  /** The connection in use, and earlier ones that are closing; oldest first. */
  readonly #connections = new Set<WebSocketConnection>();
  readonly #running = new Set<Promise<void>>();
  /** The handshake whose response 101 is being written. */
  #accepted: Handshake | undefined;
  #endPause: (() => void) | undefined;
  #isClosed = false;

  /** Starts to accept connections for a transport. */
  constructor(
    listener: Deno.Listener,
    options: ListenerOptions,
    context: FarEndContext,
    owner: ConnectionOwner,
  ) {
    this.#listener = listener;
    this.#options = options;
    this.#context = context;
    this.#owner = owner;
    this.#keep(this.#accept());
  }

  /** Does nothing, because peers connect on their own. */
  lost(): void {
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#listener.close();
    this.#endPause?.();
    for (const handshake of this.#handshakes) this.#end(handshake);
    await Promise.all(this.#running);
  }

  #keep(running: Promise<void>): void {
    this.#running.add(running);
    running.finally(() => this.#running.delete(running));
  }

  async #accept(): Promise<void> {
    while (!this.#isClosed) {
      // Under a flood, accept() always completes at once: without this turn, the loop would not run.
      await setImmediate();
      try {
        const socket = await this.#listener.accept();
        this.#keep(this.#serve(socket));
      } catch (cause) {
        if (this.#isClosed) return;
        if (cause instanceof Deno.errors.BadResource) {
          const { name } = this.#owner;
          return this.#owner.fail(new Error(`Cannot use ${name}: its listener is closed`, { cause }));
        }
        const { code } = cause as { code?: string };
        // No pause here: a few resets per second would block all other connections.
        if (code !== undefined && !EXHAUSTED.includes(code)) continue;
        const [oldest] = this.#handshakes;
        if (oldest !== undefined && performance.now() - oldest.since > SLOW_HANDSHAKE) this.#end(oldest);
        await this.#pause();
      }
    }
  }

  async #pause(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, ACCEPT_PAUSE);
    this.#endPause = resolve;
    await promise;
    clearTimeout(timer);
  }

  async #serve(socket: Deno.Conn): Promise<void> {
    const handshake = { socket, source: sourceOf(socket), since: performance.now() };
    this.#makeRoom(handshake.source);
    this.#handshakes.add(handshake);
    const timer = setTimeout(() => this.#end(handshake), this.#options.handshakeTimeout ?? HANDSHAKE_TIMEOUT);
    try {
      await this.#answer(handshake);
    } catch {
      // The handshake was reset, took too long, or was replaced by newer ones. The socket is closed below.
    }
    clearTimeout(timer);
    if (this.#accepted === handshake) this.#accepted = undefined;
    this.#end(handshake);
  }

  #makeRoom(source: string): void {
    const same = [...this.#handshakes].filter((handshake) => handshake.source === source);
    if (same.length >= MAX_HANDSHAKES_OF_SOURCE) this.#end(same[0]!);
    else if (this.#handshakes.size >= MAX_HANDSHAKES) this.#end([...this.#handshakes][0]!);
  }

  /** Closes the socket of a handshake, unless it already belongs to a connection. */
  #end(handshake: Handshake): void {
    if (this.#handshakes.delete(handshake)) handshake.socket.close();
  }

  async #answer(handshake: Handshake): Promise<void> {
    const { socket } = handshake;
    const head = await readHead(socket).catch((error: Error) => {
      if (error instanceof SyntaxError) return { status: 400, text: "not an HTTP request" };
      if (error instanceof RangeError) return { status: 431, text: "too long a head" };
      throw error;
    });
    const refusal = "status" in head ? head : refusalOf(head, this.#options) ?? await this.#taken(handshake);
    if (refusal !== undefined) return await this.#refuse(handshake, refusal);
    this.#context.bypass(remoteAddress(socket));
    await writeText(socket, await acceptanceText(head as HttpHead));
    // The handshake was ended meanwhile.
    if (!this.#handshakes.delete(handshake)) return;
    const { timeout } = this.#options;
    const { rest } = head as HttpHead;
    const connection = new WebSocketConnection(socket, rest, "server", timeout, this.#owner);
    this.#owner.adopt(connection);
    this.#connections.add(connection);
    connection.ended.then(() => this.#connections.delete(connection));
    const [oldest] = this.#connections;
    if (this.#connections.size > MAX_CONNECTIONS) oldest!.abort();
  }

  /** Reserves the tunnel for a valid handshake; returns a refusal if it has a living peer. */
  async #taken(handshake: Handshake): Promise<Refusal | undefined> {
    for (let current; (current = this.#owner.connection) !== undefined;) {
      if (this.#accepted !== undefined || await current.isAlive()) return TAKEN;
      if (current === this.#owner.connection) break;
    }
    if (this.#accepted !== undefined) return TAKEN;
    this.#accepted = handshake;
    return undefined;
  }

  /** Sends a refusal, and reads until the peer closes: closing with unread bytes would reset the connection. */
  async #refuse(handshake: Handshake, refusal: Refusal): Promise<void> {
    const { socket } = handshake;
    await writeText(socket, refusalText(refusal));
    await socket.closeWrite();
    const timer = setTimeout(() => this.#end(handshake), LINGER_TIMEOUT);
    try {
      const bytes = new Uint8Array(4096);
      for (let left = LINGER_BYTES; left > 0;) {
        const count = await socket.read(bytes);
        if (count === null) break;
        left -= count;
      }
    } finally {
      clearTimeout(timer);
    }
  }
}

const TAKEN: Refusal = { status: 503, text: "the tunnel has a peer" };

function remoteAddress(socket: Deno.Conn): Address {
  return unmapAddress(parseAddress((socket.remoteAddr as Deno.NetAddr).hostname));
}

/** Returns the source to which limits apply: an IPv4 address or an IPv6 /64. */
function sourceOf(socket: Deno.Conn): string {
  const { family, bytes } = remoteAddress(socket);
  return (family === 4 ? bytes : bytes.subarray(0, 8)).join();
}
