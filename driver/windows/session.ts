/**
 * A Wintun session: the two rings of an adapter, from start to end. Each packet is copied once.
 *
 *     read:  ReceivePacket ─► copy into a slot ─► ReleaseReceivePacket, at once and in order
 *     write: AllocateSendPacket ─► copy out of the slot ─► SendPacket, always: an allocation that is never sent
 *            would block all later ones
 */

import {
  type EndHost,
  LARGE_ROOM,
  type Packet,
  type PacketBatch,
  type Waitable,
} from "../../lib/core/mod.ts";
import { DriverError } from "../error.ts";
import { addressOf } from "../native_memory.ts";
import { type Adapter, wintunError } from "./adapter.ts";
import { kernel32 } from "./kernel32.ts";
import type { PoolAddresses } from "./pool_addresses.ts";
import { fromHresult, Win32 } from "./win32_error.ts";
import { codeOf, collectErrors, wintun } from "./wintun.ts";

// Specification
/** Minimum header lengths: RFC 791 section 3.1, RFC 8200 section 3. */
const MIN_IPV4_LENGTH = 20;
const MIN_IPV6_LENGTH = 40;

// Implementation
/** Time for which a ring may be full before packets for it are dropped (milliseconds). */
const FULL_RING_TIMEOUT = 250;
/** Delay before the second attempt at a first session, which an adapter that is coming up may refuse (milliseconds). */
const START_RETRY_AFTER = 1000;
/** Not an IP packet: Windows counts it as discarded and does not deliver it. */
const NUDGE = new Uint8Array(MIN_IPV4_LENGTH);
/** Lengths as bigint for the size_t of RtlMoveMemory: each is created once, not per packet. */
const LENGTHS: bigint[] = [];

function length64(length: number): bigint {
  return LENGTHS[length] ??= BigInt(length);
}

/** The rings of an adapter that is up. */
export class Session {
  /** Event that Windows sets when packets have arrived. */
  readonly readEvent: Waitable;
  /** Error number that stopped the last `read` or `write`; other causes leave it 0. */
  failed = 0;
  /** Packets that the last `write` put into the ring. */
  sent = 0;
  readonly #wintun = wintun();
  readonly #kernel32 = kernel32();
  readonly #handle: Deno.PointerObject;
  readonly #size = new Uint32Array(1);
  /** A received packet that waits for a slot and is not released; its length is in `#size`. */
  #waiting = 0n;
  /** Time at which the write ring became full; 0 while it has room. */
  #fullSince = 0;

  /** Takes over a handle of WintunStartSession. */
  constructor(handle: Deno.PointerObject) {
    this.#handle = handle;
    this.readEvent = this.#wintun.WintunGetReadWaitEvent(handle);
  }

  /** Length of the packet that waits for a slot; 0 if there is none. */
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
        // The wait reset the event; the next one must return as soon as there are slots again.
        SetEvent(BigInt(this.readEvent));
        break;
      }
      this.#waiting = 0n;
      RtlMoveMemory(addresses.ofFresh(packet), source, length64(length));
      WintunReleaseReceivePacket(handle, source);
      batch.push(packet);
      count++;
    }
    // Empty packets alone must not look like an empty ring.
    if (refused > 0) host.wake();
    return count;
  }

  /**
   * Writes packets until the ring is full; returns the number taken off the batch. Packets that Windows would silently
   * discard are dropped with their reason.
   */
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
      // Nothing may fail between here and SendPacket.
      RtlMoveMemory(target, addresses.of(packet), length64(packet.length));
      WintunSendPacket(handle, target);
      packet.pool.give(packet);
      sent++;
    }
    if (sent > 0) this.#fullSince = 0;
    this.sent = sent;
    return count;
  }

  /** Writes the packet that wakes Windows' thread; returns false if the ring is full, and the thread awake. */
  nudge(): boolean {
    const target = this.#wintun.WintunAllocateSendPacket(this.#handle, NUDGE.length);
    if (target === 0n) return false;
    this.#kernel32.RtlMoveMemory(target, BigInt(addressOf(NUDGE)), length64(NUDGE.length));
    this.#wintun.WintunSendPacket(this.#handle, target);
    return true;
  }

  /** Ends the session; packets in its rings are lost. No wait may hold its event any more. */
  end(host: EndHost | undefined): void {
    if (this.#waiting !== 0n) {
      this.#wintun.WintunReleaseReceivePacket(this.#handle, this.#waiting);
      this.#waiting = 0n;
      host!.refuse(this.#size[0]!, "closed");
    }
    this.#wintun.WintunEndSession(this.#handle);
  }

  /** True if the full ring has taken nothing for so long that packets are dropped. */
  #isStuck(sent: number): boolean {
    const now = performance.now();
    if (sent > 0 || this.#fullSince === 0) this.#fullSince = now;
    return now - this.#fullSince >= FULL_RING_TIMEOUT;
  }
}

/** Drop reason of a packet that Windows would not accept. */
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

/** Starts a session, which brings the link up. */
export function startSession(verb: string, adapter: Adapter, capacity: number): Promise<Session> {
  return collectErrors((errors) => {
    const handle = wintun().WintunStartSession(adapter.handle, capacity);
    const failed = handle === null ? kernel32().GetLastError() : 0;
    if (handle === null) {
      const code = fromHresult(codeOf(errors) ?? failed);
      throw wintunError(`${verb} "${adapter.name}"`, `WintunStartSession of ${capacity} bytes`, code, errors);
    }
    return Promise.resolve(new Session(handle));
  });
}

/** Starts the first session of an adapter, with a second attempt after a moment. */
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

/** Resolves after so many milliseconds. */
export function delay(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
