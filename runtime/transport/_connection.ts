/**
 * An open WebSocket connection, which carries packets in messages, sends pings and closes in bounded time (RFC 6455).
 *
 *     send() ──► send queue ──► one write at a time ═══ TCP or TLS ═══ read ──► frames ──► receiver
 *                    ▲                                                           │
 *                    └───────────── pong, close ◄────────────────────────────────┘
 *
 * The connection owns its socket, and reads at most one buffer per turn of the event loop.
 */

import { setImmediate, setTimeout as sleep } from "node:timers/promises";
import type { EndHost, Packet } from "../../lib/core/mod.ts";
import { CloseCode, type FrameFault, FrameReader, Opcode } from "./_frames.ts";
import { SendQueue } from "./_send_queue.ts";

// Implementation
/** Time that the peer has for its part of the closing handshake (milliseconds). */
const CLOSE_TIMEOUT = 1000;
/** Pings per timeout; after three without a reply, the peer is gone. */
const PINGS = 4;
/** Fractions of the timeout: time that a peer counts as alive after its last bytes, and time to reply to a probe. */
const FRESH = 1 / 30;
const PROBE = 1 / 6;
/** Duration of a write that must have waited for an acknowledgement from a living peer (milliseconds). */
const SLOW_WRITE = 10;
/** Time that messages wait while the owner is full, before they are dropped: turns of the event loop, then sleeps. */
const HOLD_TURNS = 8;
const HOLD_SLEEPS = 5;
const HOLD_SLEEP = 10;
/** Maximum bytes to read after a protocol error, while the peer reads our Close frame. */
const LINGER_BYTES = 1024 * 1024;
/** Maximum control frames per second, and maximum consecutive messages that are not packets. */
const MAX_CONTROL_FRAMES = 1000;
const MAX_REFUSED = 10_000;

/** The part of a transport that its connections and their source use. */
export interface ConnectionOwner {
  /** Name of the transport. */
  readonly name: string;
  /** The loop; `undefined` before the transport is attached. */
  readonly host: EndHost | undefined;
  /** The connection in use. */
  readonly connection: WebSocketConnection | undefined;
  /** Replaces the connection in use. */
  adopt(connection: WebSocketConnection): void;
  /** True while a message may not fit. */
  readonly full: boolean;
  /** Takes a message; returns true if it is a packet. The bytes are valid only during the call. */
  receive(bytes: Uint8Array, offset: number, length: number): boolean;
  /** Called when there is room for packets again. */
  drained(): void;
  /** Called when a connection is lost, unless the owner has closed it. */
  lost(connection: WebSocketConnection): void;
  /** Called when no further connection is possible. */
  fail(error: Error): void;
  /** Called after a failed attempt to connect, before the next attempt. */
  failToConnect(error: Error): void;
}

/** Source of a transport's connections. */
export interface ConnectionSource {
  /** Called when a connection is lost. */
  lost(connection: WebSocketConnection): void;
  /** Stops connecting or accepting; resolves when all its sockets are closed. */
  close(): Promise<void>;
}

/** Side of a connection; only clients mask their frames. */
export type Role = "client" | "server";

/** A WebSocket connection after its handshake. */
export class WebSocketConnection {
  /** Resolves when the socket is closed and no operation is in progress. */
  readonly ended: Promise<void>;
  readonly #socket: Deno.Conn;
  readonly #queue: SendQueue;
  readonly #reader: FrameReader;
  readonly #timeout: number;
  readonly #pinging: ReturnType<typeof setInterval>;
  #owner: ConnectionOwner | undefined;
  #isWriting = false;
  #writing: Promise<void> | undefined;
  #closeTimer: ReturnType<typeof setTimeout> | undefined;
  /** Code of our Close frame, once the connection is closing. */
  #closeCode: CloseCode | undefined;
  #sentClose = false;
  #receivedClose = false;
  /** True if received bytes are discarded. */
  #isDiscarding = false;
  #isEnded = false;
  #isProven = false;
  #lastReceived = performance.now();
  #hasReceived = true;
  #silentPings = 0;
  #probe: { readonly reply: Promise<boolean>; readonly settle: (alive: boolean) => void } | undefined;
  #second = 0;
  #controlFrames = 0;
  #refused = 0;

  /**
   * Starts to send and receive.
   *
   * @param first Bytes that were read after the handshake.
   * @param timeout Maximum silence of the peer (milliseconds).
   */
  constructor(socket: Deno.Conn, first: Uint8Array, role: Role, timeout: number, owner: ConnectionOwner) {
    this.#socket = socket;
    this.#timeout = timeout;
    this.#owner = owner;
    this.#queue = new SendQueue(role === "client");
    const full = () => this.#owner?.full ?? false;
    this.#reader = new FrameReader({
      get full() {
        return full();
      },
      binary: (bytes, offset, length) => this.#count(this.#owner?.receive(bytes, offset, length) ?? true),
      text: (length) => {
        this.#owner?.host?.refuse(length, "not a binary message");
        this.#count(false);
      },
      control: (opcode, payload) => this.#control(opcode, payload),
    }, role === "server");
    this.#reader.room.set(first);
    this.#pinging = setInterval(() => this.#checkPeer(), timeout / PINGS);
    this.#ping();
    this.ended = this.#receive(first.length);
  }

  /** Number of packets not yet written to the socket. */
  get queued(): number {
    return this.#queue.length;
  }

  /** True while {@linkcode WebSocketConnection.add} has no room for a packet. */
  get full(): boolean {
    return this.#queue.full;
  }

  /** True after the first pong, which shows that the peer speaks WebSocket and the path works in both directions. */
  get isProven(): boolean {
    return this.#isProven;
  }

  /** Adds a packet to the send queue, which must not be full. {@linkcode WebSocketConnection.flush} sends it. */
  add(packet: Packet): void {
    this.#queue.add(packet);
  }

  /** Starts to write the send queue to the socket. */
  flush(): void {
    if (!this.#isWriting) this.#writing = this.#write();
  }

  /** Reports whether the peer is alive: if it has sent bytes recently, or replies to a ping. */
  isAlive(): Promise<boolean> {
    if (this.#owner === undefined) return Promise.resolve(false);
    if (performance.now() - this.#lastReceived < this.#timeout * FRESH) return Promise.resolve(true);
    if (this.#probe === undefined) {
      const { promise, resolve } = Promise.withResolvers<boolean>();
      const settle = (alive: boolean) => {
        clearTimeout(timer);
        this.#probe = undefined;
        resolve(alive);
      };
      const timer = setTimeout(settle, this.#timeout * PROBE, false);
      this.#probe = { reply: promise, settle };
      this.#ping();
    }
    return this.#probe.reply;
  }

  /** Sends the queued packets and closes in bounded time. The owner is not called after that. */
  close(): void {
    this.#owner = undefined;
    this.#queue.release();
    this.#shut(CloseCode.Normal);
  }

  /** Closes at once, drops the queued packets, and reports the loss to the owner. */
  abort(): void {
    this.#lose();
    this.#end();
  }

  /** Reads until the connection ends. */
  async #receive(count: number): Promise<void> {
    // The owner must know the connection before its first bytes.
    await setImmediate();
    try {
      let unread = 0;
      for (let read: number | null = count; read !== null && unread < LINGER_BYTES && !this.#isEnded;) {
        if (this.#isDiscarding) unread += read;
        else await this.#take(read);
        read = await this.#socket.read(this.#reader.room);
        if (read !== null) this.#noteAlive();
        // Without this turn, a series of reads that complete at once would starve the loop, timers and signals.
        await setImmediate();
      }
    } catch {
      // The peer has reset the connection, or it was closed here.
    }
    this.abort();
    await this.#writing;
  }

  /** Parses the bytes that were read. While the owner is full, their messages wait here for a bounded time. */
  async #take(count: number): Promise<void> {
    let fault = this.#reader.take(count, true);
    while (fault === undefined && this.#reader.isHeld && !this.#isDiscarding && !this.#isEnded) {
      for (let turns = 0; turns < HOLD_TURNS + HOLD_SLEEPS && this.#owner?.full; turns++) {
        await (turns < HOLD_TURNS ? setImmediate() : sleep(HOLD_SLEEP));
      }
      fault = this.#reader.take(0, !this.#owner?.full);
    }
    if (fault !== undefined) this.#fail(fault);
  }

  /** Writes until the queue is empty. */
  async #write(): Promise<void> {
    this.#isWriting = true;
    try {
      for (let bytes; (bytes = this.#next()) !== undefined;) {
        for (let at = 0; at < bytes.length;) {
          const start = performance.now();
          const count = await this.#socket.write(at === 0 ? bytes : bytes.subarray(at));
          if (performance.now() - start > SLOW_WRITE) this.#noteAlive();
          this.#queue.settle(count);
          at += count;
        }
        this.#owner?.drained();
      }
      if (this.#sentClose && this.#receivedClose) this.#end();
    } catch {
      this.abort();
    }
    this.#isWriting = false;
  }

  /** Returns the next bytes to write; the last of them are our Close frame. */
  #next(): Uint8Array<ArrayBuffer> | undefined {
    const bytes = this.#queue.next();
    if (bytes !== undefined || this.#closeCode === undefined || this.#sentClose) return bytes;
    this.#sentClose = true;
    this.#queue.addControl(Opcode.Close, Uint8Array.of(this.#closeCode >> 8, this.#closeCode & 0xff));
    return this.#queue.next();
  }

  #control(opcode: Opcode, payload: Uint8Array): void {
    if (this.#isDiscarding) return;
    const second = Math.floor(this.#lastReceived / 1000);
    if (second !== this.#second) this.#controlFrames = 0;
    this.#second = second;
    if (++this.#controlFrames > MAX_CONTROL_FRAMES) {
      this.#fail({ code: CloseCode.Policy, reason: "too many control frames", length: payload.length });
    } else if (opcode === Opcode.Pong) this.#isProven = true;
    else if (opcode === Opcode.Ping) {
      this.#queue.addControl(Opcode.Pong, payload.slice());
      this.flush();
    } else {
      this.#receivedClose = this.#isDiscarding = true;
      if (this.#sentClose) return this.#end();
      this.#lose();
      this.#shut(CloseCode.Normal);
    }
  }

  /** Counts consecutive messages that are not packets. */
  #count(isPacket: boolean): void {
    if (isPacket) this.#refused = 0;
    else if (++this.#refused > MAX_REFUSED) {
      this.#fail({ code: CloseCode.Policy, reason: "too many messages that are not packets", length: 0 });
    }
  }

  /** Closes after a protocol error. Reading continues, since a reset for unread bytes could discard our Close frame. */
  #fail({ code, reason, length }: FrameFault): void {
    if (this.#isDiscarding) return;
    this.#isDiscarding = true;
    this.#owner?.host?.refuse(length, reason);
    this.#lose();
    this.#shut(code);
  }

  #shut(code: CloseCode): void {
    if (this.#closeCode !== undefined) return;
    this.#closeCode = code;
    clearInterval(this.#pinging);
    this.#closeTimer = setTimeout(() => this.#end(), CLOSE_TIMEOUT);
    this.flush();
  }

  #lose(): void {
    const owner = this.#owner;
    if (owner === undefined) return;
    this.#owner = undefined;
    this.#queue.clear(owner.host, "connection lost");
    owner.lost(this);
  }

  #end(): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    clearInterval(this.#pinging);
    clearTimeout(this.#closeTimer);
    this.#probe?.settle(false);
    this.#socket.close();
  }

  #checkPeer(): void {
    this.#silentPings = this.#hasReceived ? 0 : this.#silentPings + 1;
    this.#hasReceived = false;
    if (this.#silentPings === PINGS - 1) this.abort();
    else this.#ping();
  }

  #ping(): void {
    this.#queue.addControl(Opcode.Ping);
    this.flush();
  }

  #noteAlive(): void {
    this.#lastReceived = performance.now();
    this.#hasReceived = true;
    this.#probe?.settle(true);
  }
}
