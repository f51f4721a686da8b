/**
 * The WebSocket transport, which carries one packet per binary message.
 *
 *     write() ──► send queue, at most 256 packets ──► binary messages ──► receive queue, bounded ──► read()
 *
 * Both sides use this class, with a source that provides connections: the connecting side reconnects after a connection
 * is lost, the listening side waits for the next peer.
 */

import {
  type EndHost,
  type EndWait,
  LARGE_ROOM,
  type PacketBatch,
  type Transport,
} from "../../lib/core/mod.ts";
import type { ConnectionOwner, ConnectionSource, WebSocketConnection } from "./_connection.ts";
import { ReceiveQueue } from "./_receive_queue.ts";

// Specification
/** RFC 8200 section 3 and RFC 9293 section 3.1 with timestamps: 40 and 32 bytes. */
const TCP_OVERHEAD = 72;
/** RFC 6455 section 5.2: a masked header for a packet of up to 65,535 bytes. */
const FRAME_OVERHEAD = 8;
/** RFC 8446 section 5.2: header, content type and tag of one record. */
const TLS_OVERHEAD = 22;

/** Far end over WebSocket with one peer at a time, opened by `websocket()`. It does not use `packet.endpoint`. */
export class WebSocketTransport implements Transport {
  /** Name for messages: `wss://vpn.example/tunnel`, or `ws listening on 0.0.0.0:8080`. */
  readonly name: string;
  /** No descriptor: it calls `wake`. */
  readonly waits: readonly EndWait[] = [{ waitable: undefined }];
  readonly payload: "ip" | "any";
  readonly listens: boolean;
  /** Maximum length of the outer IPv6, TCP, TLS and frame headers (bytes). */
  readonly overhead: number;
  /** Maximum packet length (bytes), regardless of the path, because TCP segments the stream. */
  readonly pathMtu: number = LARGE_ROOM;
  /** Local address of the listening side, such as `0.0.0.0:8080`; `undefined` on the connecting side. */
  readonly local: string | undefined;
  /** Resolves when the transport is closed, at most one second after `close`. */
  readonly closed: Promise<void>;
  /** Failure of the listening socket, which ends the tunnel. */
  failure: Error | undefined;
  /** Error of the last attempt to connect; `undefined` while connected. */
  lastError: Error | undefined;

  readonly #source: ConnectionSource;
  readonly #settleClosed: () => void;
  readonly #incoming: ReceiveQueue;
  #connection: WebSocketConnection | undefined;
  #host: EndHost | undefined;
  #full = false;
  #closed = false;

  /** Creates a transport whose connections come from a source. */
  constructor(
    name: string,
    local: string | undefined,
    { queueLength, payload = "ip" }: { queueLength?: number; payload?: "ip" | "any" },
    source: (owner: ConnectionOwner) => ConnectionSource,
  ) {
    this.name = name;
    this.local = local;
    this.overhead = TCP_OVERHEAD + FRAME_OVERHEAD + (name.startsWith("wss:") ? TLS_OVERHEAD : 0);
    const { promise, resolve } = Promise.withResolvers<void>();
    this.closed = promise;
    this.#settleClosed = resolve;
    this.payload = payload;
    this.listens = local !== undefined;
    this.#incoming = new ReceiveQueue(queueLength, payload);
    this.#source = source(this.#owner());
  }

  /** True while connected. A change wakes the loop. */
  get connected(): boolean {
    return this.#connection !== undefined;
  }

  /** Number of packets not yet written to the socket. */
  get queued(): number {
    return this.#connection?.queued ?? 0;
  }

  attach(host: EndHost): void {
    this.#host = host;
    this.#incoming.host = host;
  }

  read(batch: PacketBatch): number {
    return this.#closed ? 0 : this.#incoming.read(batch);
  }

  /** Without a connection, drops packets with the reason `not connected`. */
  write(batch: PacketBatch): number {
    if (this.#closed) return 0;
    const host = this.#host!;
    const { packets, length } = batch;
    const connection = this.#connection;
    let count = 0;
    for (; count < length; count++) {
      const packet = packets[count]!;
      if (connection === undefined) {
        host.finish(packet, "not connected");
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

  /** Closes the transport. Accepted packets are sent; received packets that were not read are lost. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    const connection = this.#connection;
    this.#connection = undefined;
    connection?.close();
    this.#incoming.clear();
    Promise.all([connection?.ended, this.#source.close()]).then(this.#settleClosed);
  }

  /** Calls {@linkcode WebSocketTransport.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** Returns the part of the transport that its connections and their source use. */
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

  /** Wakes the loop if packets wait for room. */
  #drained(): void {
    if (!this.#full) return;
    this.#full = false;
    this.#host!.wake();
  }
}
