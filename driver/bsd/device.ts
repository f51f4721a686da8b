/** A TUN device of macOS or FreeBSD, where a 4-byte header with the address family precedes each packet. */

import {
  type Device,
  type DeviceEvent,
  type DeviceStatistics,
  type EndHost,
  type EndWait,
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

/** Parts of a {@linkcode BsdDevice}, which closes them. */
export interface BsdParts {
  readonly bsd: Bsd;
  readonly fd: number;
  readonly io: PacketIo;
  readonly link: Interface;
  readonly setup: Setup;
  readonly routeSocket: RouteSocket;
  /** Removes the interface where closing the descriptor does not. */
  readonly remove?: () => void;
}

/**
 * A TUN device of macOS or FreeBSD.
 *
 * **Limits**: on macOS, whose devices are point-to-point interfaces, the script also receives packets that this machine
 * sends to the device's own IPv4 address.
 */
export class BsdDevice implements Device {
  readonly name: string;
  /** Always false: these devices support neither super-packets nor partial checksums. */
  readonly offload = false;
  /** Always 0: the system takes over each packet as it is written. */
  readonly queued = 0;
  failure: Error | undefined;
  /** One descriptor: {@linkcode BsdDevice.waitable}. */
  readonly waits: readonly EndWait[] = [this];

  readonly #parts: BsdParts;
  readonly #io: PacketIo;
  readonly #fd: number;
  readonly #headers: FamilyHeaders;
  readonly #events = new DeviceEvents();
  readonly #errorReasons = new ErrorReasons();
  /** Slots for one call of `PacketIo.receive`. */
  readonly #slots: Packet[] = [];
  #host: EndHost | undefined;
  /** Address of the pool's memory. */
  #base = 0;
  /** Packets to request in the next call: slightly more than the last call received, so that few slots are returned. */
  #request = 1;
  #mtu: number;
  #up: boolean;
  #closed = false;

  /** For the functions that open a device. */
  constructor(parts: BsdParts) {
    this.#parts = parts;
    this.#io = parts.io;
    this.#fd = parts.fd;
    this.#headers = new FamilyHeaders(parts.bsd);
    this.name = parts.link.name;
    this.#mtu = parts.link.mtu;
    this.#up = parts.link.up;
  }

  get mtu(): number {
    return this.#mtu;
  }

  /** Slot size (bytes), not the MTU: packets queued before the MTU was lowered are not truncated. */
  get maxRead(): number {
    return this.#mtu <= SMALL_ROOM ? SMALL_ROOM : LARGE_ROOM;
  }

  get waitable(): Waitable | undefined {
    return this.#closed ? undefined : this.#fd;
  }

  attach(host: EndHost): void {
    this.#host = host;
    this.#base = addressOf(host.pool.bytes);
    host.watch(this.#parts.routeSocket.descriptor, () => this.#publishChanges());
  }

  read(batch: PacketBatch): number {
    if (this.#closed) return 0;
    const io = this.#io;
    const room = this.maxRead;
    let count = 0;
    while (!batch.full) {
      const slots = this.#takeSlots(Math.min(this.#request, io.maxPackets, batch.roomFor(room)), room);
      if (slots === 0) break;
      const received = io.receive(this.#fd, slots);
      const failed = received < 0 ? this.#parts.bsd.errno() : 0;
      for (let i = slots - 1; i >= Math.max(0, received); i--) this.#slots[i]!.pool.give(this.#slots[i]!);
      if (received <= 0) {
        this.#readFailed(received, failed);
        break;
      }
      for (let i = 0; i < received; i++) {
        this.#push(batch, this.#slots[i]!, io.length(i) - FAMILY_HEADER_SIZE);
      }
      count += received;
      this.#request = received < slots ? received + 1 : 2 * slots;
      if (received < slots) break;
    }
    return count;
  }

  /** Drops refused packets, with the name of the error as the reason. */
  write(batch: PacketBatch): number {
    if (this.#closed) return 0;
    const io = this.#io;
    const { packets, length } = batch;
    let count = 0;
    while (count < length) {
      let run = 0;
      while (run < io.maxPackets && count + run < length && this.#setVectors(run, packets[count + run]!)) {
        run++;
      }
      if (run === 0) {
        this.#host!.finish(packets[count++]!, "neither IPv4 nor IPv6");
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

  events(): AsyncIterable<DeviceEvent> {
    return this.#events.listen();
  }

  /**
   * Returns the counters of the system. On macOS, the byte counters include the 4-byte headers, are rounded down to KiB
   * and wrap at 4 GiB (bsd/net/rtsock.c, ALIGN_BYTES).
   */
  statistics(): DeviceStatistics | undefined {
    return this.#closed ? undefined : this.#parts.link.statistics();
  }

  /** Always `undefined`: when the process ends, the system removes addresses and routes. */
  rescue(): undefined {
  }

  /** @throws {AggregateError} when routes could not be removed; the device is closed nevertheless. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#events.end();
    const { routeSocket, setup, bsd, remove } = this.#parts;
    routeSocket.close();
    try {
      setup.undo();
    } finally {
      bsd.functions.close(this.#fd);
      remove?.();
    }
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** Takes up to `count` slots from the pool and points the vectors at them; returns their number. */
  #takeSlots(count: number, room: number): number {
    const { pool } = this.#host!;
    const { vectors } = this.#io;
    for (let i = 0; i < count; i++) {
      const packet = pool.take(room);
      if (packet === undefined) return i;
      this.#slots[i] = packet;
      vectors.set(i, this.#headers.received, this.#base + packet.offset, room);
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

  /** Points the vectors at a packet and its header; returns false if the packet is neither IPv4 nor IPv6. */
  #setVectors(i: number, packet: Packet): boolean {
    const header = this.#headers.of(packet.bytes[packet.offset]!);
    if (header === undefined) return false;
    packet.finish();
    this.#io.vectors.set(i, header, this.#base + packet.offset, packet.length);
    return true;
  }

  #publishChanges(): void {
    const { routeSocket, link } = this.#parts;
    for (let message = routeSocket.receive(); message !== undefined; message = routeSocket.receive()) {
      const state = readInterfaceState(message, link.index);
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

  #readFailed(received: number, failed: number): void {
    const { EAGAIN, EINTR, ENOBUFS, ENXIO } = this.#parts.bsd.Errno;
    // ENOBUFS reports a temporary lack of memory.
    if (received < 0 && (failed === EAGAIN || failed === EINTR || failed === ENOBUFS)) return;
    this.#fail("read from", "read", received === 0 ? ENXIO : failed);
  }

  /** Drops the packet and returns true if the error concerns only this packet. */
  #writeFailed(packet: Packet, failed: number): boolean {
    const { Errno, errnoName } = this.#parts.bsd;
    switch (failed) {
      case Errno.EAGAIN:
      case Errno.EINTR:
        return false;
      case Errno.ENXIO:
      case Errno.EBADF:
        this.#fail("write to", "write", failed);
        return false;
      default:
        this.#host!.finish(packet, this.#errorReasons.of(errnoName(failed)));
        return true;
    }
  }

  #fail(verb: string, operation: string, failed: number): void {
    if (this.failure !== undefined) return;
    const { bsd } = this.#parts;
    const remedy = failed === bsd.Errno.ENXIO ? "the device was removed" : undefined;
    this.failure = bsd.systemError(`${verb} "${this.name}"`, operation, failed, remedy);
    this.#events.publish({ kind: "gone", mtu: this.#mtu });
  }
}
