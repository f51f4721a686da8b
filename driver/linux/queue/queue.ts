/** Interface between a device and its queues. */

import type { EndHost, Packet, PacketBatch, Waitable } from "../../../lib/core/mod.ts";
import type { Offload } from "../../share.ts";

/**
 * Drop reason of a packet that fills the room for a read. The room exceeds the MTU, so the MTU has just been raised
 * and the kernel has truncated the packet.
 */
export const TRUNCATED = "longer than the MTU";

/** Options of a queue. */
export interface QueueOptions {
  /** Non-blocking descriptor of the device. */
  readonly fd: number;
  /** Offload of the device; if `tcp` is true, a virtio header precedes each packet. */
  readonly offload: Offload;
  /** Called when the kernel rejects a packet, to drop it. */
  readonly onWriteError: (packet: Packet, errno: number) => void;
  /** Called when the device no longer exists. */
  readonly onGone: (verb: string, operation: string, errno: number) => void;
}

/** A queue of a TUN device. */
export interface DeviceQueue {
  /** Descriptor that the loop waits for. */
  readonly waitable: Waitable;
  /** Number of packets accepted by `write` but not written yet. */
  readonly queued: number;
  /** Attaches the queue to its loop. */
  attach(host: EndHost): void;
  /** Reads packets shorter than `room` until the kernel has no more, the batch is full, or the pool is empty. */
  read(batch: PacketBatch, room: number): number;
  /** Writes packets until the kernel accepts no more. */
  write(batch: PacketBatch): number;
  /** Returns packets to the pool and frees memory. */
  close(): void;
}
