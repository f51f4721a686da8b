/** Values posted to another thread so that it can serve a queue of an open device. */

/** Offloads of a device. */
export interface Offload {
  /** True for TCP super-packets and partial checksums; a virtio-net header precedes each packet. */
  readonly tcp: boolean;
  /** True for UDP super-packets as well. */
  readonly udp: boolean;
}

/** A queue of an open device. */
export interface DeviceShare {
  /** Descriptor of the queue, owned by the holder of the share. */
  readonly fd: number;
  /** Interface index. */
  readonly index: number;
  /** Interface name. */
  readonly name: string;
  /** Offloads of the device. */
  readonly offload: Offload;
  /** Use of io_uring. */
  readonly uring: boolean | "oneshot";
}

/** The two ends of a pipe that wakes another thread. */
export interface WakeupEnds {
  /** Read end, readable after a signal. */
  readonly from: number;
  /** Write end. */
  readonly to: number;
}
