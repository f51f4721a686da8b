/**
 * A Wintun session: reads and writes packets in the two rings that an adapter shares with the driver.
 *
 *     read:  WintunReceivePacket ──────► copy into a slot ───► WintunReleaseReceivePacket, in the same order
 *     write: WintunAllocateSendPacket ─► copy from the slot ─► WintunSendPacket, always: an allocated packet that is
 *                                                              never sent blocks all later ones
 */

import {
  type EndHost,
  LARGE_ROOM,
  type Packet,
  type PacketBatch,
  type Waitable,
} from "../../lib/core/mod.ts";
import { DriverError } from "../error.ts";
import { setTimeout as delay } from "node:timers/promises";
import { addressOf } from "../native_memory.ts";
import type { Adapter } from "./adapter.ts";
import { kernel32 } from "./kernel32.ts";
import type { PoolAddresses } from "./pool_addresses.ts";
import { Win32 } from "./win32_error.ts";
import { collectErrors, loggedError, wintun } from "./wintun.ts";
import { wintunError } from "./wintun_error.ts";

// Specification
/** Minimum header lengths (bytes; RFC 791 section 3.1, RFC 8200 section 3). */
const MIN_IPV4_LENGTH = 20;
const MIN_IPV6_LENGTH = 40;

// Implementation
/** Time after which packets for a full ring are dropped (milliseconds). */
const FULL_RING_TIMEOUT = 250;
/** Delay before the second attempt (milliseconds): an adapter that is coming up may refuse the first. */
const START_RETRY_AFTER = 1000;
/** A packet that Windows discards, because its IP version is 0. */
const NUDGE = new Uint8Array(MIN_IPV4_LENGTH);
/** Lengths as bigint for RtlMoveMemory, cached so that none is allocated per packet. */
const LENGTHS: bigint[] = [];

function length64(length: number): bigint {
  return LENGTHS[length] ??= BigInt(length);
}

/** A session of an adapter, which is up until the session ends. */
export class Session {
  /** Event that Wintun sets when packets have arrived. */
  readonly readEvent: Waitable;
  /** Number of the Wintun error that stopped the last `read` or `write`, otherwise 0. */
  failed = 0;
  /** Number of packets that the last `write` put into the ring. */
  sent = 0;
  readonly #wintun = wintun();
  readonly #kernel32 = kernel32();
  readonly #handle: Deno.PointerObject;
  readonly #size = new Uint32Array(1);
  /** Address of a received packet that waits for a slot, with its length in `#size`; 0 if there is none. */
  #waiting = 0n;
  /** Time at which the send ring became full; 0 while it has room. */
  #fullSince = 0;

  /** Takes ownership of a WINTUN_SESSION_HANDLE. */
  constructor(handle: Deno.PointerObject) {
    this.#handle = handle;
    this.readEvent = this.#wintun.WintunGetReadWaitEvent(handle);
  }

  /** Length of the received packet that waits for a slot; 0 if there is none. */
  get waitingLength(): number {
    return this.#waiting === 0n ? 0 : this.#size[0]!;
  }

  /** Reads packets until the ring is empty, the batch is full, or the pool is empty; returns their number. */
  read(batch: PacketBatch, host: EndHost, addresses: PoolAddresses): number {
    const { pool } = host;
    const { WintunReceivePacket, WintunReleaseReceivePacket } = this.#wintun;
    const { RtlMoveMemory, SetEvent, GetLastError } = this.#kernel32;
    const handle = this.#handle;
    const size = this.#size;
    let count = 0;
    let refused = 0;
    this.failed = 0;
    while (!batch.full) {
      let source = this.#waiting;
      if (source === 0n) {
        source = WintunReceivePacket(handle, size);
        if (source === 0n) {
          this.failed = GetLastError();
          break;
        }
      }
      const length = size[0]!;
      if (length === 0) {
        WintunReleaseReceivePacket(handle, source);
        host.refuse(0, "empty");
        refused++;
        continue;
      }
      if (length > LARGE_ROOM) {
        this.failed = Win32.ERROR_INVALID_DATA;
        break;
      }
      const packet = pool.take(length);
      if (packet === undefined) {
        this.#waiting = source;
        // The wait reset the event, and Wintun may not set it again for packets already in the ring.
        SetEvent(BigInt(this.readEvent));
        break;
      }
      this.#waiting = 0n;
      RtlMoveMemory(addresses.ofFresh(packet), source, length64(length));
      WintunReleaseReceivePacket(handle, source);
      batch.push(packet);
      count++;
    }
    // A read that found only empty packets returns 0, which would otherwise mean an empty ring.
    if (refused > 0) host.wake();
    return count;
  }

  /** Writes or drops packets until the ring is full; returns the number of both. The caller shifts the batch. */
  write({ packets, length }: PacketBatch, host: EndHost, addresses: PoolAddresses): number {
    const { WintunAllocateSendPacket, WintunSendPacket } = this.#wintun;
    const { RtlMoveMemory, GetLastError } = this.#kernel32;
    const handle = this.#handle;
    let count = 0;
    let sent = 0;
    this.failed = 0;
    for (; count < length; count++) {
      const packet = packets[count]!;
      const reason = dropReason(packet);
      if (reason !== undefined) {
        host.finish(packet, reason);
        continue;
      }
      packet.finish();
      const target = WintunAllocateSendPacket(handle, packet.length);
      if (target === 0n) {
        this.failed = GetLastError();
        if (this.failed === Win32.ERROR_HANDLE_EOF || !this.#isStuck(sent)) break;
        host.finish(packet, "ring full");
        continue;
      }
      // Nothing may throw before WintunSendPacket.
      RtlMoveMemory(target, addresses.of(packet), length64(packet.length));
      WintunSendPacket(handle, target);
      packet.pool.give(packet);
      sent++;
    }
    if (sent > 0) this.#fullSince = 0;
    this.sent = sent;
    return count;
  }

  /** Wakes the driver's thread with a packet that Windows discards; returns false if the ring has no room for it. */
  nudge(): boolean {
    const target = this.#wintun.WintunAllocateSendPacket(this.#handle, NUDGE.length);
    if (target === 0n) return false;
    this.#kernel32.RtlMoveMemory(target, BigInt(addressOf(NUDGE)), length64(NUDGE.length));
    this.#wintun.WintunSendPacket(this.#handle, target);
    return true;
  }

  /** Ends the session; the packets in its rings are lost. No wait may include `readEvent`. */
  end(host: EndHost | undefined): void {
    if (this.#waiting !== 0n) {
      this.#wintun.WintunReleaseReceivePacket(this.#handle, this.#waiting);
      this.#waiting = 0n;
      host!.refuse(this.#size[0]!, "closed");
    }
    this.#wintun.WintunEndSession(this.#handle);
  }

  /** Called when the ring is full; returns true if it has been full for the whole timeout. */
  #isStuck(sent: number): boolean {
    const now = performance.now();
    if (sent > 0 || this.#fullSince === 0) this.#fullSince = now;
    return now - this.#fullSince >= FULL_RING_TIMEOUT;
  }
}

/** Returns the drop reason of a packet that Windows would discard. */
function dropReason(packet: Packet): string | undefined {
  const { length } = packet;
  if (length > LARGE_ROOM) return "longer than 65535 bytes";
  switch (length === 0 ? 0 : packet.bytes[packet.offset]! >>> 4) {
    case 4:
      return length < MIN_IPV4_LENGTH ? "shorter than its header" : undefined;
    case 6:
      return length < MIN_IPV6_LENGTH ? "shorter than its header" : undefined;
    default:
      return "neither IPv4 nor IPv6";
  }
}

/** Starts a session, which brings the link up. @throws {Error} when Wintun fails: see {@linkcode wintunError}. */
export function startSession(verb: string, adapter: Adapter, capacity: number): Promise<Session> {
  return collectErrors((errors) => {
    const handle = wintun().WintunStartSession(adapter.handle, capacity);
    const failed = handle === null ? kernel32().GetLastError() : 0;
    if (handle === null) {
      const code = loggedError(errors) ?? failed;
      throw wintunError(`${verb} "${adapter.name}"`, `WintunStartSession of ${capacity} bytes`, code, errors);
    }
    return Promise.resolve(new Session(handle));
  });
}

/** Starts the first session of an adapter, in up to two attempts. */
export async function startFirstSession(adapter: Adapter, capacity: number): Promise<Session> {
  try {
    return await startSession("open device", adapter, capacity);
  } catch (error) {
    const isTaken = error instanceof DriverError && error.errno === Win32.ERROR_ALREADY_INITIALIZED;
    if (isTaken || error instanceof Deno.errors.PermissionDenied) throw error;
    await delay(START_RETRY_AFTER);
    return await startSession("open device", adapter, capacity);
  }
}
