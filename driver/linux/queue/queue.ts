/** Interface between a device and its queues. */

import type { EndHost, Packet, PacketBatch, Waitable } from "../../../lib/core/mod.ts";
import type { Offload } from "../../share.ts";

/** Drop reason of a packet that fills its room: the kernel truncated it, as the MTU has just been raised. */
export const TRUNCATED = "longer than the MTU";

/** Parts that a queue is made of. */
export interface QueueOptions {
  /** Non-blocking descriptor of the device. */
  readonly fd: number;
  /** Offload of the device; with `tcp`, a virtio header precedes each packet. */
  readonly offload: Offload;
  /** Called with a packet that the kernel refused; drops it. */
  readonly refuse: (packet: Packet, errno: number) => void;
  /** Called when the device is gone. */
  readonly fail: (verb: string, operation: string, errno: number) => void;
}

/** A queue of a TUN device. */
export interface DeviceQueue {
  /** Descriptor that the loop waits for. */
  readonly waitable: Waitable;
  /** Packets accepted but not written yet. */
  readonly queued: number;
  /** Attaches the queue to its loop. */
  attach(host: EndHost): void;
  /** Reads packets shorter than `room` until the kernel has no more, the batch is full, or the pool is empty. */
  read(batch: PacketBatch, room: number): number;
  /** Writes packets until the kernel takes no more. */
  write(batch: PacketBatch): number;
  /** Returns the packets and memory that it holds. */
  close(): void;
}
