/**
 * A WebSocket that is open: packets in messages, pings, and an end in bounded time (RFC 6455).
 *
 *     send() ──► send queue ──► one write at a time ═══ TCP or TLS ═══ read ──► frames ──► receiver
 *                    ▲                                                           │
 *                    └───────────── pong, close ◄────────────────────────────────┘
 *
 * It owns its socket, and reads no more of it than one buffer in each turn of the event loop.
 */

import { setImmediate, setTimeout as sleep } from "node:timers/promises";
import type { EndHost, Packet } from "../../lib/core/mod.ts";
import { CloseCode, type FrameFault, FrameReader, Opcode } from "./_frames.ts";
import { SendQueue } from "./_send_queue.ts";

// Implementation
/** The time that the peer has for its part of the closing handshake (milliseconds). */
const CLOSE_TIMEOUT = 1000;
/** Pings in a timeout; after all but one of them without an answer, the peer is gone. */
const PINGS = 4;
/**
 * The time for which a peer counts as alive after its last bytes, and the time that it has to answer a probe, as parts
 * of the timeout.
 */
const FRESH = 1 / 30;
const PROBE = 1 / 6;
/** A write that takes so long found the system's buffer full: acknowledgements ended it, and the peer lives (milliseconds). */
const SLOW_WRITE = 10;
/**
 * The wait of messages for a loop without room, before they are dropped: turns of the event loop, then sleeps of so
 * many milliseconds.
 */
const HOLD_TURNS = 8;
const HOLD_SLEEPS = 5;
const HOLD_SLEEP = 10;
/** The bytes that a peer may still send after it broke a rule, until it has read our Close frame. */
const LINGER_BYTES = 1024 * 1024;
/** The most control frames in a second, and the most messages in a row that are no packets. */
const MAX_CONTROL_FRAMES = 1000;
const MAX_REFUSED = 10_000;

/** A transport, as its connections and their source see it. */
export interface ConnectionOwner {
  /** The transport's name. */
  readonly name: string;
  /** The loop, once it is there. */
  readonly host: EndHost | undefined;
  /** The connection in use. */
  readonly connection: WebSocketConnection | undefined;
  /** Uses a connection from now on, instead of the one in use. */
  adopt(connection: WebSocketConnection): void;
  /** True while it has no room for a message. */
  readonly full: boolean;
  /** A message came; returns whether it was a packet. Its bytes are only valid during the call. */
  receive(bytes: Uint8Array, offset: number, length: number): boolean;
  /** There is room for packets again. */
  drained(): void;
  /** A connection carries nothing any more. Not called when the owner closed it. */
  lost(connection: WebSocketConnection): void;
  /** There can be no connection any more. */
  fail(error: Error): void;
  /** There is no connection for this reason; another attempt follows. */
  failToConnect(error: Error): void;
}

/** The maker of a transport's connections. */
export interface ConnectionSource {
  /** A connection carries nothing any more. */
  lost(connection: WebSocketConnection): void;
  /** Makes none any more; settled when nothing is left of it. */
  close(): Promise<void>;
}

/** The connected sides' roles: a client's frames are masked. */
export type Role = "client" | "server";

/** A connection from the end of its handshake on. */
export class WebSocketConnection {
  /** Settled when nothing is left of it. */
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
  /** Our Close frame's code, once there is to be one; whether it was written; whether the peer's came. */
  #closeCode: CloseCode | undefined;
  #sentClose = false;
  #gotClose = false;
  /** True if the peer's bytes are thrown away. */
  #isDeaf = false;
  #isEnded = false;
  #isProven = false;
  #lastHeard = performance.now();
  #wasHeard = true;
  #silentPings = 0;
  #probe: { readonly answer: Promise<boolean>; readonly settle: (lives: boolean) => void } | undefined;
  #second = 0;
  #controlFrames = 0;
  #refused = 0;

  /**
   * Sends and receives from now on.
   *
   * @param first Bytes that came behind the handshake.
   * @param timeout How long the peer may be silent (milliseconds).
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
    this.#pinging = setInterval(() => this.#lookForPeer(), timeout / PINGS);
    this.#ping();
    this.ended = this.#receive(first.length);
  }

  /** The number of packets that have not been handed to the system. */
  get queued(): number {
    return this.#queue.length;
  }

  /** True while it takes no packet. */
  get full(): boolean {
    return this.#queue.full;
  }

  /** True once its peer has answered a ping: it speaks WebSocket, and the path works in both directions. */
  get isProven(): boolean {
    return this.#isProven;
  }

  /** Takes a packet, which {@linkcode WebSocketConnection.flush} sends; there must be room. */
  add(packet: Packet): void {
    this.#queue.add(packet);
  }

  /** Has the system take what it can, and the rest as soon as there is room. */
  flush(): void {
    if (!this.#isWriting) this.#writing = this.#write();
  }

  /** Asks the peer whether it is there, unless it showed that just now. */
  isAlive(): Promise<boolean> {
    if (this.#owner === undefined) return Promise.resolve(false);
    if (performance.now() - this.#lastHeard < this.#timeout * FRESH) return Promise.resolve(true);
    if (this.#probe === undefined) {
      const { promise, resolve } = Promise.withResolvers<boolean>();
      const settle = (lives: boolean) => {
        clearTimeout(timer);
        this.#probe = undefined;
        resolve(lives);
      };
      const timer = setTimeout(settle, this.#timeout * PROBE, false);
      this.#probe = { answer: promise, settle };
      this.#ping();
    }
    return this.#probe.answer;
  }

  /** Sends what it has taken, and ends in bounded time. The owner hears no more of it. */
  close(): void {
    this.#owner = undefined;
    this.#queue.release();
    this.#shut(CloseCode.Normal);
  }

  /** Ends at once. What it has taken is lost, and so is the connection to its owner. */
  abort(): void {
    this.#lose();
    this.#end();
  }

  /** Reads until the connection has ended. */
  async #receive(count: number): Promise<void> {
    // The first bytes come when the owner knows of the connection.
    await setImmediate();
    try {
      let unread = 0;
      for (let read: number | null = count; read !== null && unread < LINGER_BYTES && !this.#isEnded;) {
        if (this.#isDeaf) unread += read;
        else await this.#take(read);
        read = await this.#socket.read(this.#reader.room);
        if (read !== null) this.#hear();
        // The loop breathes, and timers and signals come: reads of what is there already would go on without end.
        await setImmediate();
      }
    } catch {
      // Reset by the peer, or closed here: it has ended.
    }
    this.abort();
    await this.#writing;
  }

  /** Hands on what came; while the loop has no room for it, it stays here for a moment, and what follows in the system. */
  async #take(count: number): Promise<void> {
    let fault = this.#reader.take(count, true);
    while (fault === undefined && this.#reader.isHeld && !this.#isDeaf && !this.#isEnded) {
      for (let turns = 0; turns < HOLD_TURNS + HOLD_SLEEPS && this.#owner?.full; turns++) {
        await (turns < HOLD_TURNS ? setImmediate() : sleep(HOLD_SLEEP));
      }
      fault = this.#reader.take(0, !this.#owner?.full);
    }
    if (fault !== undefined) this.#fail(fault);
  }

  /** Writes until nothing is left to write. */
  async #write(): Promise<void> {
    this.#isWriting = true;
    try {
      for (let bytes; (bytes = this.#next()) !== undefined;) {
        for (let at = 0; at < bytes.length;) {
          const start = performance.now();
          const count = await this.#socket.write(at === 0 ? bytes : bytes.subarray(at));
          if (performance.now() - start > SLOW_WRITE) this.#hear();
          this.#queue.settle(count);
          at += count;
        }
        this.#owner?.drained();
      }
      if (this.#sentClose && this.#gotClose) this.#end();
    } catch {
      this.abort();
    }
    this.#isWriting = false;
  }

  /** The next bytes to write: our Close frame comes last. */
  #next(): Uint8Array<ArrayBuffer> | undefined {
    const bytes = this.#queue.next();
    if (bytes !== undefined || this.#closeCode === undefined || this.#sentClose) return bytes;
    this.#sentClose = true;
    this.#queue.addControl(Opcode.Close, Uint8Array.of(this.#closeCode >> 8, this.#closeCode & 0xff));
    return this.#queue.next();
  }

  #control(opcode: Opcode, payload: Uint8Array): void {
    if (this.#isDeaf) return;
    const second = Math.floor(this.#lastHeard / 1000);
    if (second !== this.#second) this.#controlFrames = 0;
    this.#second = second;
    if (++this.#controlFrames > MAX_CONTROL_FRAMES) {
      this.#fail({ code: CloseCode.Policy, reason: "too many control frames", length: payload.length });
    } else if (opcode === Opcode.Pong) this.#isProven = true;
    else if (opcode === Opcode.Ping) {
      this.#queue.addControl(Opcode.Pong, payload.slice());
      this.flush();
    } else {
      this.#gotClose = this.#isDeaf = true;
      if (this.#sentClose) return this.#end();
      this.#lose();
      this.#shut(CloseCode.Normal);
    }
  }

  /** Counts messages in a row that were no packets. */
  #count(isPacket: boolean): void {
    if (isPacket) this.#refused = 0;
    else if (++this.#refused > MAX_REFUSED) {
      this.#fail({ code: CloseCode.Policy, reason: "too many messages that are no packets", length: 0 });
    }
  }

  /** The peer broke a rule. What it has sent is read to the end: closing before would reset the connection, and lose our Close frame. */
  #fail({ code, reason, length }: FrameFault): void {
    if (this.#isDeaf) return;
    this.#isDeaf = true;
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

  #lookForPeer(): void {
    this.#silentPings = this.#wasHeard ? 0 : this.#silentPings + 1;
    this.#wasHeard = false;
    if (this.#silentPings === PINGS - 1) this.abort();
    else this.#ping();
  }

  #ping(): void {
    this.#queue.addControl(Opcode.Ping);
    this.flush();
  }

  #hear(): void {
    this.#lastHeard = performance.now();
    this.#wasHeard = true;
    this.#probe?.settle(true);
  }
}
