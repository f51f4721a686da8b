/** What a device asks of its queue, however that speaks with the kernel. */

import type { EndHost, Packet, PacketBatch, Waitable } from "../../../lib/core/mod.ts";
import type { Offload } from "../../share.ts";

/** Why a packet is lost that fills its slot: the kernel has cut it, since the MTU was raised a moment ago. */
export const CUT = "longer than the MTU";

/** What a queue is made of. */
export interface QueueOptions {
  /** A descriptor of the device, which does not block. */
  readonly fd: number;
  /** Whether it has virtio's header before each packet; then whether it takes UDP's super-packets. */
  readonly offload: Offload;
  /** Told of a packet that the kernel does not take, and has dropped it. */
  readonly refused: (packet: Packet, errno: number) => void;
  /** Told when the device is gone. */
  readonly lose: (verb: string, operation: string, errno: number) => void;
}

/** A queue of a TUN device, however it speaks with the kernel. */
export interface DeviceQueue {
  /** What the loop waits for. */
  readonly waitable: Waitable;
  /** Packets taken, and not written yet. */
  readonly queued: number;
  /** Gives it its loop. */
  attach(host: EndHost): void;
  /** Reads packets shorter than `room` until the kernel has no more, the batch is full, or the pool is empty. */
  read(batch: PacketBatch, room: number): number;
  /** Writes packets until the kernel takes no more. */
  write(batch: PacketBatch): number;
  /** Gives back what it holds. */
  close(): void;
}
