/** The interfaces of a tunnel's two ends: the device on this machine, and the transport to other machines. */

import type { PacketBatch } from "./batch.ts";
import { checkOption } from "./options.ts";
import type { Packet } from "./packet.ts";
import type { PacketPool } from "./pool.ts";

/** Handle that the loop can wait for: a file descriptor, or a Windows `HANDLE`. */
export type Waitable = number;

/** Services that the loop gives an end. */
export interface EndHost {
  /** Pool that the end's packets come from. */
  readonly pool: PacketPool;
  /** Returns the start time of the current breath, or of the last one (monotonic milliseconds). */
  now(): number;
  /** Requests a breath (turn of the packet loop). Safe in any callback on the loop's thread. */
  wake(): void;
  /**
   * Finishes a packet that `write` took, now or later: gives it back to its pool and, with a reason, counts it as dropped.
   * If `write` itself has sent the bytes, `packet.pool.give` does the same faster.
   */
  finish(packet: Packet, reason?: string): void;
  /** Counts `bytes` that arrived and do not become a packet of the tunnel, so that there is none to finish. */
  refuse(bytes: number, reason: string): void;
  /** Adds a descriptor to the loop's wait; `readable` runs when it has input. Returns a function that removes it. */
  watch(waitable: Waitable, readable: () => void): () => void;
}

/** One descriptor of an end. */
export interface EndWait {
  /** Descriptor, which may change; `undefined` while the end calls {@linkcode EndHost.wake} instead. */
  readonly waitable: Waitable | undefined;
  /** Reports whether packets wait until it is writable. @default {true while `write` leaves packets in the batch} */
  readonly isFull?: boolean;
}

/**
 * One side of a tunnel. `read` and `write` never wait and never throw: an error of one packet is counted through
 * {@linkcode EndHost}, and an error of the end itself becomes its `failure`.
 */
export interface TunnelEnd extends Disposable {
  /** Name in messages, such as `tun0` or `udp 192.0.2.1:4500`. */
  readonly name: string;
  /** Connects the end to its loop: once, before the first read or write. */
  attach(host: EndHost): void;
  /** Appends packets from the host's pool that are ready, until the batch is full; returns their number. */
  read(batch: PacketBatch): number;
  /**
   * Takes as many packets as it can from the front of the batch, removes them with `batch.shift(count)`, and returns
   * their number. The end owns them until it has sent their bytes, then finishes each once. If the number and the batch
   * disagree, the tunnel closes with an error that names the end.
   */
  write(batch: PacketBatch): number;
  /** Descriptors that the loop waits for: always the same elements, and at least one. */
  readonly waits: readonly EndWait[];
  /**
   * Maximum length of a packet in the next read (bytes). While the pool has no slot for it, the end is not read and its
   * input waits in the system. @default {the tunnel's MTU}
   */
  readonly maxRead?: number;
  /** Number of packets that `write` took and that are neither delivered nor given back. */
  readonly queued: number;
  /**
   * Maximum packet length (bytes). Longer packets from a tunnel's device are fragmented, or answered with ICMP errors
   * that report this MTU. It may change. @default {no limit}
   */
  readonly mtu?: number;
  /** Maximum length of this packet, in place of `mtu`, for an end made of several; `Infinity` for no limit. */
  mtuFor?(packet: Packet): number;
  /** Kind of payload: IP packets, or any bytes, which get no fragmentation and no ICMP errors. @default {"ip"} */
  readonly payload?: "ip" | "any";
  /** Waits for the other side to connect, so that a VPN protocol over it listens as well. @default {false} */
  readonly listens?: boolean;
  /** Accepts super-packets; for an end without offload they are segmented. @default {false} */
  readonly offload?: boolean;
  /**
   * Time of the next {@linkcode TunnelEnd.tick}, for an end with timers (monotonic milliseconds). It may change; earlier
   * only during a breath or before {@linkcode EndHost.wake}. @default {none}
   */
  readonly due?: number;
  /** Does timed work, in the first breath (turn of the packet loop) from {@linkcode TunnelEnd.due} on. */
  tick?(): void;
  /** Error that ended it; `undefined` while it works. */
  readonly failure: Error | undefined;
  /** Resolves when the system has released everything, for an end whose `close` does not do so at once. */
  readonly closed?: Promise<void>;
  /** Releases all resources. Further calls do nothing; later reads and writes take nothing. */
  close(): void;
}

/** Change of a device's state. */
export interface DeviceEvent {
  /**
   * Kind of change. `restored`: another program removed an address, route or rule of the device, which was added again;
   * `lost`: it was not, since that happened too often or failed.
   */
  readonly kind: "up" | "down" | "mtu" | "gone" | "restored" | "lost";
  /** Addresses, routes and rules that were restored or lost. */
  readonly what?: readonly string[];
  /** MTU of the device after the change (bytes). */
  readonly mtu: number;
}

/** Operating system's counters of a device, from the system's side: `tx` is sent to the script. */
export interface DeviceStatistics {
  /** Packets that the system got from the script. */
  readonly rxPackets: number;
  /** Bytes of those packets. */
  readonly rxBytes: number;
  /** Packets from the script that the system dropped. */
  readonly rxDropped: number;
  /** Packets that the system sent to the script. */
  readonly txPackets: number;
  /** Bytes of those packets. */
  readonly txBytes: number;
  /** Packets that the device's queue dropped before the script read them. */
  readonly txDropped: number;
}

/** Code and data with which another thread undoes a device's changes when the device's own thread hangs. */
export interface Rescue {
  /**
   * Undoes the changes described by `data` and ends the process with `status` if it can. Its source text goes to the
   * other thread, so it uses nothing outside itself.
   */
  readonly code: (data: Uint8Array[], status: number) => void;
  /** Argument of `code`. */
  readonly data: Uint8Array[];
}

/** This machine's side of a tunnel. */
export interface Device extends TunnelEnd {
  /** Maximum packet length that the system sends through it (bytes). */
  readonly mtu: number;
  /** Accepts and delivers super-packets. */
  readonly offload: boolean;
  /** Iterates over changes from now on; the newest 64 wait for a slow reader. Ends when the device is gone. */
  events(): AsyncIterable<DeviceEvent>;
  /** Returns the system's counters, or `undefined` where it keeps none. */
  statistics(): DeviceStatistics | undefined;
  /** Returns the watchdog's task for when a script hangs; `undefined` when there is nothing to undo. */
  rescue(): Rescue | undefined;
}

/** A tunnel's link to other machines. */
export interface Transport extends TunnelEnd {
  /** Bytes that it adds to each packet on the wire, including outer headers. */
  readonly overhead: number;
  /** Maximum length of a packet that currently passes unfragmented (bytes). */
  readonly pathMtu: number;
}

/** A descriptor of an end below, for an end that runs over it. */
class WaitBelow implements EndWait {
  readonly #wait: EndWait;
  readonly #isFull: () => boolean;

  constructor(wait: EndWait, isFull: () => boolean) {
    this.#wait = wait;
    this.#isFull = isFull;
  }

  get waitable(): Waitable | undefined {
    return this.#wait.waitable;
  }

  get isFull(): boolean {
    return this.#wait.isFull ?? this.#isFull();
  }
}

/**
 * Returns the descriptors of an end below, for an end that runs over it.
 *
 * @param isFull Reports whether packets wait for the end below.
 */
export function waitsBelow(end: TunnelEnd, isFull: () => boolean): readonly EndWait[] {
  return end.waits.map((wait) => new WaitBelow(wait, isFull));
}

/**
 * Checks the parts of an end that a loop uses, since an error in its wait would end all tunnels.
 *
 * @throws {TypeError} naming the end, when one is missing or of the wrong type.
 */
export function checkEnd(end: TunnelEnd): void {
  checkOption("use an end", "name", end.name, "text");
  const attempt = `use end "${end.name}"`;
  for (const method of ["attach", "read", "write", "close"] as const) {
    checkOption(attempt, method, end[method], "function");
  }
  if (end.tick !== undefined) checkOption(attempt, "tick", end.tick, "function");
  const { waits } = end;
  checkOption(attempt, "waits", waits, "list");
  if (waits.length === 0) throw new TypeError(`Cannot ${attempt}: waits must have at least one element`);
  waits.forEach((wait, i) => {
    checkOption(attempt, `waits[${i}]`, wait, "object");
    if (wait.waitable !== undefined) checkOption(attempt, `waits[${i}].waitable`, wait.waitable, "number");
  });
}
