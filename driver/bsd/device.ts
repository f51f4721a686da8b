/** A device of macOS or FreeBSD: a descriptor of packets, each with four bytes before it that say its family. */

import {
  type Device,
  type DeviceEvent,
  type DeviceStatistics,
  type EndHost,
  ErrorReasons,
  LARGE_ROOM,
  type Packet,
  type PacketBatch,
  SMALL_ROOM,
  type Waitable,
} from "../../lib/core/mod.ts";
import { DeviceEvents } from "../events.ts";
import { addressOf } from "../native_memory.ts";
import type { Bsd } from "./bsd.ts";
import { IFF_UP, type Interface } from "./interface.ts";
import { FAMILY_HEADER_SIZE, FamilyHeaders, type PacketIo } from "./packet_io.ts";
import { readInterfaceState, type RouteSocket } from "./route_socket.ts";
import type { Setup } from "./setup.ts";

/** What a {@linkcode BsdDevice} holds. */
export interface BsdParts {
  readonly bsd: Bsd;
  readonly fd: number;
  readonly io: PacketIo;
  readonly own: Interface;
  readonly setup: Setup;
  readonly news: RouteSocket;
  /** Removes the interface, where closing the descriptor does not. */
  readonly remove?: () => void;
}

/**
 * A device whose packets have a header that says their family.
 *
 * **Limits**: a point-to-point interface, as macOS has them, hands packets to its own IPv4 address to the script, too.
 */
export class BsdDevice implements Device {
  /** The name that the system knows it by. */
  readonly name: string;
  /** No super-packets, no unfinished sums. */
  readonly offload = false;
  /** Nothing waits here: a write hands the packet to the system. */
  readonly queued = 0;
  /** Why it is gone. */
  failure: Error | undefined;

  readonly #parts: BsdParts;
  readonly #io: PacketIo;
  readonly #fd: number;
  readonly #headers: FamilyHeaders;
  readonly #events = new DeviceEvents();
  readonly #errorReasons = new ErrorReasons();
  /** Slots of a call of `receive`. */
  readonly #slots: Packet[] = [];
  #host: EndHost | undefined;
  /** The pool's address. */
  #base = 0;
  /** How many packets the next call asks for: about as many as came last, so that slots are not taken in vain. */
  #ask = 1;
  #mtu: number;
  #up: boolean;
  #closed = false;

  /** For what opens one. */
  constructor(parts: BsdParts) {
    this.#parts = parts;
    this.#io = parts.io;
    this.#fd = parts.fd;
    this.#headers = new FamilyHeaders(parts.bsd);
    this.name = parts.own.name;
    this.#mtu = parts.own.mtu;
    this.#up = parts.own.up;
  }

  /** The longest packet that the system sends through it (bytes). */
  get mtu(): number {
    return this.#mtu;
  }

  /** More than the MTU, so that a packet of before a change of it is not cut. */
  get longestRead(): number {
    return this.#mtu <= SMALL_ROOM ? SMALL_ROOM : LARGE_ROOM;
  }

  /** Its descriptor. */
  get waitable(): Waitable | undefined {
    return this.#closed ? undefined : this.#fd;
  }

  /** Gives it its loop. */
  attach(host: EndHost): void {
    this.#host = host;
    this.#base = addressOf(host.pool.bytes);
    host.watch(this.#parts.news.descriptor, () => this.#hear());
  }

  /** Reads packets until the system has no more, the batch is full, or the pool is empty. */
  read(batch: PacketBatch): number {
    if (this.#closed) return 0;
    const io = this.#io;
    const room = this.longestRead;
    let count = 0;
    while (!batch.full) {
      const asked = this.#takeSlots(Math.min(this.#ask, io.most, batch.roomFor(room)), room);
      if (asked === 0) break;
      const came = io.receive(this.#fd, asked);
      const failed = came < 0 ? this.#parts.bsd.errno() : 0;
      for (let i = asked - 1; i >= Math.max(0, came); i--) this.#slots[i]!.pool.give(this.#slots[i]!);
      if (came <= 0) {
        this.#readFailed(came, failed);
        break;
      }
      for (let i = 0; i < came; i++) this.#push(batch, this.#slots[i]!, io.length(i) - FAMILY_HEADER_SIZE);
      count += came;
      this.#ask = came < asked ? came + 1 : 2 * asked;
      if (came < asked) break;
    }
    return count;
  }

  /** Writes packets until the system takes no more; those that it refuses are dropped with its reason. */
  write(batch: PacketBatch): number {
    if (this.#closed) return 0;
    const io = this.#io;
    const { packets, length } = batch;
    let count = 0;
    while (count < length) {
      let run = 0;
      while (run < io.most && count + run < length && this.#point(run, packets[count + run]!)) run++;
      if (run === 0) {
        this.#host!.drop(packets[count++]!, "neither IPv4 nor IPv6");
        continue;
      }
      const sent = io.send(this.#fd, run);
      if (sent > 0) {
        for (let i = 0; i < sent; i++) packets[count + i]!.pool.give(packets[count + i]!);
        count += sent;
      } else if (sent === 0 || !this.#writeFailed(packets[count]!, this.#parts.bsd.errno())) break;
      else count++;
    }
    batch.shift(count);
    return count;
  }

  /** Changes of its interface, as the routing socket tells them. */
  events(): AsyncIterable<DeviceEvent> {
    return this.#events.listen();
  }

  /**
   * The system's own counters. macOS counts those headers among the bytes, rounds them down to whole KiB, and starts
   * anew at 4 GiB (bsd/net/rtsock.c, ALIGN_BYTES).
   */
  statistics(): DeviceStatistics | undefined {
    return this.#closed ? undefined : this.#parts.own.statistics();
  }

  /** Nothing: the system takes addresses and routes back with the process. */
  rescue(): undefined {
  }

  /** Puts everything back, and removes the interface where the descriptor does not. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#events.end();
    const { news, setup, bsd, remove } = this.#parts;
    news.close();
    try {
      setup.undo();
    } finally {
      bsd.functions.close(this.#fd);
      remove?.();
    }
  }

  /** The same as {@linkcode BsdDevice.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** Takes slots and says where packets go; returns how many there were. */
  #takeSlots(count: number, room: number): number {
    const { pool } = this.#host!;
    const { vectors } = this.#io;
    for (let i = 0; i < count; i++) {
      const packet = pool.take(room);
      if (packet === undefined) return i;
      this.#slots[i] = packet;
      vectors.set(i, this.#headers.incoming, this.#base + packet.offset, room);
    }
    return count;
  }

  #push(batch: PacketBatch, packet: Packet, length: number): void {
    if (length <= 0) {
      packet.pool.give(packet);
      this.#host!.refuse(0, "no packet behind the header");
      return;
    }
    packet.length = length;
    batch.push(packet);
  }

  /** Says where a packet lies; `false` when it is no IP, which the system has no header for. */
  #point(i: number, packet: Packet): boolean {
    const header = this.#headers.of(packet.bytes[packet.offset]!);
    if (header === undefined) return false;
    packet.finish();
    this.#io.vectors.set(i, header, this.#base + packet.offset, packet.length);
    return true;
  }

  #hear(): void {
    const { news, own } = this.#parts;
    for (let message = news.receive(); message !== undefined; message = news.receive()) {
      const state = readInterfaceState(message, own.index);
      if (state === undefined) continue;
      const { mtu } = state;
      const up = (state.flags & IFF_UP) !== 0;
      const changedMtu = mtu !== this.#mtu;
      this.#mtu = mtu;
      if (changedMtu) this.#events.publish({ kind: "mtu", mtu });
      if (up !== this.#up) this.#events.publish({ kind: up ? "up" : "down", mtu });
      this.#up = up;
    }
  }

  #readFailed(came: number, failed: number): void {
    const { EAGAIN, EINTR, ENOBUFS, ENXIO } = this.#parts.bsd.Errno;
    // ENOBUFS: short of memory for now.
    if (came < 0 && (failed === EAGAIN || failed === EINTR || failed === ENOBUFS)) return;
    this.#lose("read from", "read", came === 0 ? ENXIO : failed);
  }

  /** Whether the packet is dealt with, and the next one may be tried. */
  #writeFailed(packet: Packet, failed: number): boolean {
    const { Errno, errnoName } = this.#parts.bsd;
    switch (failed) {
      case Errno.EAGAIN:
      case Errno.EINTR:
        return false;
      case Errno.ENXIO:
      case Errno.EBADF:
        this.#lose("write to", "write", failed);
        return false;
      default:
        this.#host!.drop(packet, this.#errorReasons.of(errnoName(failed)));
        return true;
    }
  }

  #lose(verb: string, operation: string, failed: number): void {
    if (this.failure !== undefined) return;
    const { bsd } = this.#parts;
    const remedy = failed === bsd.Errno.ENXIO ? "the device was removed" : undefined;
    this.failure = bsd.systemError(`${verb} "${this.name}"`, operation, failed, remedy);
    this.#events.publish({ kind: "gone", mtu: this.#mtu });
  }
}
