/** What packets come from and go to: a device, a transport, a piece of a script. */

import type { PacketBatch } from "./batch.ts";
import type { Packet } from "./packet.ts";
import type { PacketPool } from "./pool.ts";

/** What the loop can wait for: a file descriptor, or a Windows `HANDLE`. */
export type Waitable = number;

/** What an end gets from the loop that it joins. */
export interface EndHost {
  /** Where packets live. */
  readonly pool: PacketPool;
  /** Asks for a breath. Safe from any callback of the loop's thread. */
  wake(): void;
  /** Throws away a packet that `write` took, now or later, and counts it under this reason. */
  drop(packet: Packet, reason: string): void;
  /** Gives back a packet that `write` took and a script has looked at since. */
  done(packet: Packet): void;
  /** Counts a packet of so many bytes that arrived and could not be taken in. */
  refuse(bytes: number, reason: string): void;
  /** Has the loop's wait look at another descriptor, and calls back when it can be read. Returns what ends it. */
  watch(waitable: Waitable, readable: () => void): () => void;
}

/** What the loop waits for at one of an end's descriptors. */
export interface EndWait {
  /** The descriptor; `undefined` where there is none, and {@linkcode EndHost.wake} is called instead. */
  readonly waitable: Waitable | undefined;
  /** Whether packets wait for it that it did not take. */
  readonly isFull: boolean;
}

/**
 * One side of a tunnel. `read` and `write` never wait and never throw: what goes wrong with one packet is
 * counted through {@linkcode EndHost}, and what goes wrong with the end is its `failure`.
 */
export interface TunnelEnd extends Disposable {
  /** What messages call it, such as `tun0` or `udp 192.0.2.1:4500`. */
  readonly name: string;
  /** Gives the end its loop, once, before the first read or write. */
  attach(host: EndHost): void;
  /** Appends the packets that are ready, of its host's pool, until the batch is full; returns how many. */
  read(batch: PacketBatch): number;
  /**
   * Takes packets from the front of the batch, as many as it can, and off it by `batch.shift(count)`; returns how many.
   * They are the end's until their bytes are free; then it gives them back to their pool, once each. An end that does
   * something else than it returns ends its tunnel, with an error that names it.
   */
  write(batch: PacketBatch): number;
  /** What the loop's one wait waits for; `undefined` when the end calls {@linkcode EndHost.wake} instead. */
  readonly waitable: Waitable | undefined;
  /** The same for an end with several descriptors, in place of `waitable`. */
  readonly waits?: readonly EndWait[];
  /**
   * The longest packet that its next read may bring (bytes): while the pool has no slot for that, the end is not read,
   * and what comes waits where it is. @default {the tunnel's MTU}
   */
  readonly longestRead?: number;
  /** Packets accepted by `write` and not yet delivered or given back. */
  readonly queued: number;
  /**
   * The longest packet that it takes (bytes). Longer ones from a tunnel's device do not come to it: they are fragmented,
   * or answered with ICMP errors that tell this MTU. It may change. @default {no limit}
   */
  readonly mtu?: number;
  /** The same for one packet, in place of `mtu`, for an end that is made of several; `Infinity` for no limit. */
  mtuFor?(packet: Packet): number;
  /**
   * Its payload: IP packets, or bytes of any kind, which are neither fragmented nor answered with ICMP errors.
   * @default {"ip"}
   */
  readonly payload?: "ip" | "any";
  /** Tells whether it takes super-packets; for another end they are segmented. @default {false} */
  readonly offload?: boolean;
  /** Why it is gone; `undefined` while it works. */
  readonly failure: Error | undefined;
  /** Settled when the system has everything back after `close`; for an end whose `close` does not do that at once. */
  readonly closed?: Promise<void>;
  /** Frees what it holds. Further calls do nothing; reads and writes after it take nothing. */
  close(): void;
}

/** What happened to a device: `up`, `down`, `mtu` (it changed) or `gone`. */
export interface DeviceEvent {
  /**
   * The change. `restored`: something else had removed an address, route or rule of the device, which was made again;
   * `lost`: it was not, since that came too often or failed.
   */
  readonly kind: "up" | "down" | "mtu" | "gone" | "restored" | "lost";
  /** The addresses, routes and rules that were restored or lost. */
  readonly what?: readonly string[];
  /** The device's MTU after it (bytes). */
  readonly mtu: number;
}

/** The operating system's own counters of a device, seen from the system: `tx` is what it sent to the script. */
export interface DeviceStatistics {
  /** Packets that the system got from the script. */
  readonly rxPackets: number;
  /** Bytes of those. */
  readonly rxBytes: number;
  /** Packets from the script that the system dropped. */
  readonly rxDropped: number;
  /** Packets that the system handed to the script. */
  readonly txPackets: number;
  /** Bytes of those. */
  readonly txBytes: number;
  /** Packets that its queue dropped before the script could read them. */
  readonly txDropped: number;
}

/** How another thread puts back what a device changed, when the device's own thread no longer can. */
export interface Rescue {
  /**
   * A function that uses nothing from outside of itself: its text goes to the other thread. It undoes what
   * `data` says and ends the process with `status`, if it can.
   */
  readonly code: (data: Uint8Array[], status: number) => void;
  /** What it needs. */
  readonly data: Uint8Array[];
}

/** This machine's side of a tunnel. */
export interface Device extends TunnelEnd {
  /** The longest packet that the system sends through it (bytes). */
  readonly mtu: number;
  /** Whether it takes and gives super-packets. */
  readonly offload: boolean;
  /** Changes, from the moment of asking; the newest 64 wait for a slow reader. Ends when the device is gone. */
  events(): AsyncIterable<DeviceEvent>;
  /** The system's counters, or `undefined` where it keeps none. */
  statistics(): DeviceStatistics | undefined;
  /** What the watchdog does for it when a script hangs; `undefined` when there is nothing to put back. */
  rescue(): Rescue | undefined;
}

/** A road to other machines. */
export interface Transport extends TunnelEnd {
  /** The bytes that it adds to each packet on the wire, outer headers included. */
  readonly overhead: number;
  /** The longest packet that now passes in one piece (bytes). */
  readonly pathMtu: number;
}
