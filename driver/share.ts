/** What a thread hands to another one, so that it serves a queue of a device: values that can be posted. */

import type { Offload } from "./linux/queue/queue.ts";

/** A queue of a device that is open. */
export interface DeviceShare {
  /** Its descriptor, which is whoever's who has the share. */
  readonly fd: number;
  /** The device's number. */
  readonly index: number;
  /** The device's name. */
  readonly name: string;
  /** Which super-packets and unfinished sums pass. */
  readonly offload: Offload;
  /** Whether io_uring is tried. */
  readonly uring: boolean | "oneshot";
}

/** The two ends of a pipe that wakes another thread. */
export interface BellEnds {
  /** What can be read when it was rung. */
  readonly from: number;
  /** What is written to. */
  readonly to: number;
}
