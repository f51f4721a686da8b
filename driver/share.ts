/** Values that a thread posts to another thread, which then serves a queue of the same device. */

/** Offloads of a device. */
export interface Offload {
  /** True for TCP super-packets and partial checksums. Each packet then has a virtio-net header. */
  readonly tcp: boolean;
  /** True for UDP super-packets as well. */
  readonly udp: boolean;
}

/** A queue of an open device. */
export interface DeviceShare {
  /** Descriptor of the queue; the thread that receives the share closes it. */
  readonly fd: number;
  /** Index of the interface. */
  readonly index: number;
  /** Name of the interface. */
  readonly name: string;
  /** Offloads that the device uses. */
  readonly offload: Offload;
  /** The device's `linux.uring` option. */
  readonly uring: boolean | "oneshot";
}

/** Descriptors of the pipe with which threads wake each other's loops. */
export interface WakeupEnds {
  /** Read end: readable after a signal. */
  readonly from: number;
  /** Write end. */
  readonly to: number;
}
