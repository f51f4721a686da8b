/** What a thread hands to another one, so that it serves a queue of a device: values that can be posted. */

/** What a device takes and gives besides ordinary packets. */
export interface Offload {
  /** Whether it takes super-packets of TCP, and unfinished sums; each packet has virtio's header in front. */
  readonly tcp: boolean;
  /** Whether it takes super-packets of UDP, too. */
  readonly udp: boolean;
}

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
export interface WakeupEnds {
  /** What can be read when it was rung. */
  readonly from: number;
  /** What is written to. */
  readonly to: number;
}
