/**
 * The listening side of a WebSocket transport.
 *
 *     accept ──► at most 16 handshakes, 4 of one source, 10 s each ──► 400, 403, 404, 426, 431 ──► closed
 *       ▲ a moment later when the system has no descriptor       │
 *                                                                 ├─► 503: the peer answers its ping
 *                                                                 └─► 101: the peer from now on
 */

import { setImmediate } from "node:timers/promises";
import { unmapAddress } from "../../driver/mod.ts";
import { type Address, parseAddress } from "../../lib/wire/address.ts";
import { type ConnectionOwner, type ConnectionSource, WebSocketConnection } from "./_connection.ts";
import { acceptanceText, type HandshakeRules, type Refusal, refusalOf, refusalText } from "./_handshake.ts";
import { type HttpHead, readHead, writeText } from "./_http_head.ts";
import type { FarEndContext } from "./end_opener.ts";

// Specification
/** accept(2): errors of the system; others are those of a connection that is gone again. */
const EXHAUSTED = ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"];

// Implementation
/** Connections that are not the tunnel's: in all, and of one IPv4 address or IPv6 /64. The oldest makes room for a new one. */
const MAX_HANDSHAKES = 16;
const MAX_HANDSHAKES_OF_SOURCE = 4;
/** The tunnel's connection, and those before it that have not ended: each has buffers of 0.8 MiB. */
const MAX_CONNECTIONS = 8;
/** The time that a connection may take to become the tunnel's (milliseconds). */
const HANDSHAKE_TIMEOUT = 10_000;
/** The time that a refused peer has to read the reason (milliseconds), and what it may still send meanwhile (bytes). */
const LINGER_TIMEOUT = 1000;
const LINGER_BYTES = 65_536;
/**
 * The time that the system has to find descriptors and memory again, and the age from which a handshake is ended for
 * that (milliseconds).
 */
const ACCEPT_PAUSE = 50;
const SLOW_HANDSHAKE = 250;

/** Options for {@linkcode Listener}. */
export interface ListenerOptions extends HandshakeRules {
  /** The time that the peer may be silent (milliseconds). */
  readonly timeout: number;
  /** The time that a connection may take to become the tunnel's (milliseconds). @default {10000} */
  readonly handshakeTimeout?: number;
}

/** A connection that is not the tunnel's. */
interface Handshake {
  readonly socket: Deno.Conn;
  readonly source: string;
  readonly since: number;
}

/** Takes one peer at a time. */
export class Listener implements ConnectionSource {
  readonly #listener: Deno.Listener;
  readonly #options: ListenerOptions;
  readonly #context: FarEndContext;
  readonly #owner: ConnectionOwner;
  /** From the oldest to the newest. */
  readonly #handshakes = new Set<Handshake>();
  /** The tunnel's, which is the newest, and those before it that have a moment to end. */
  readonly #connections = new Set<WebSocketConnection>();
  readonly #running = new Set<Promise<void>>();
  /** The one that is being answered with 101. */
  #accepted: Handshake | undefined;
  #endPause: (() => void) | undefined;
  #isClosed = false;

  /** Accepts connections for a transport from now on. */
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

  /** Waits for the next peer, as it always does. */
  lost(): void {
  }

  /** Accepts none any more, and ends all handshakes. */
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
      // A flood of connections is always ready: the loop breathes in between.
      await setImmediate();
      try {
        const socket = await this.#listener.accept();
        this.#keep(this.#serve(socket));
      } catch (cause) {
        if (this.#isClosed) return;
        if (cause instanceof Deno.errors.BadResource) return this.#fail(cause);
        const { code } = cause as { code?: string };
        // Pauses for connections that were reset would let a few of them a second keep everybody out.
        if (code !== undefined && !EXHAUSTED.includes(code)) continue;
        const [oldest] = this.#handshakes;
        if (oldest !== undefined && performance.now() - oldest.since > SLOW_HANDSHAKE) this.#end(oldest);
        await this.#pause();
      }
    }
  }

  #fail(cause: Error): void {
    this.#owner.fail(new Error(`Cannot use ${this.#owner.name}: its listener is closed`, { cause }));
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
      // The stranger reset it, it took too long, or newer ones needed its room: it is closed below.
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

  /** Closes a connection, unless it is the tunnel's now. */
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
    // Closed, or out of time meanwhile.
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

  /** Takes the place of the tunnel's peer for a valid handshake, or returns the refusal when it is taken. */
  async #taken(handshake: Handshake): Promise<Refusal | undefined> {
    for (let current; (current = this.#owner.connection) !== undefined;) {
      if (this.#accepted !== undefined || await current.isAlive()) return TAKEN;
      if (current === this.#owner.connection) break;
    }
    if (this.#accepted !== undefined) return TAKEN;
    this.#accepted = handshake;
    return undefined;
  }

  /** Says why, and waits until that was read: closing with bytes unread would reset the connection. */
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

/** The unit in which strangers have addresses: an IPv4 address, or an IPv6 /64. */
function sourceOf(socket: Deno.Conn): string {
  const { family, bytes } = remoteAddress(socket);
  return (family === 4 ? bytes : bytes.subarray(0, 8)).join();
}
