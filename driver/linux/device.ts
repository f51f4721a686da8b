/** A TUN device of Linux, through /dev/net/tun (Documentation/networking/tuntap.rst). */

import {
  type Device,
  type DeviceEvent,
  type DeviceStatistics,
  type EndHost,
  HEADROOM,
  LARGE_ROOM,
  type Packet,
  type PacketBatch,
  Refusals,
  type Rescue,
  SMALL_ROOM,
  type Waitable,
} from "../../lib/core/mod.ts";
import { DeviceEvents } from "../events.ts";
import type { CheckedDeviceOptions } from "../options.ts";
import { cString } from "../posix/libc.ts";
import { Errno, errnoName, systemError } from "./errno.ts";
import { leftovers, repair } from "./journal.ts";
import { errno, libc } from "./libc.ts";
import { LinkMonitor } from "./link_monitor.ts";
import type { Link } from "./links.ts";
import { Netlink } from "./netlink.ts";
import { rescue } from "./rescue.ts";
import { Setup } from "./setup.ts";

// Specification
// fcntl.h
export const O_RDWR = 2;
const O_NONBLOCK = 0o4000;
export const O_CLOEXEC = 0o2000000;
// linux/if_tun.h; _IOW('T', 202, int), _IOR('T', 210, unsigned int)
const TUNSETIFF = 0x400454can;
const IFF_TUN = 0x0001;
const IFF_NO_PI = 0x1000;
// struct ifreq { char ifr_name[IFNAMSIZ]; union { short ifr_flags; ... 24 bytes } };   linux/if.h
const IFREQ_SIZE = 40;
const IFR_FLAGS = 16;
// struct iovec { void *iov_base; size_t iov_len; };   sys/uio.h
const IOVEC_SIZE = 16;

// Implementation
export const TUN_PATH = "/dev/net/tun";
/** Lengths as the size_t that read and write take: made once, not once a packet. Those of large slots are rare. */
const LENGTHS: readonly bigint[] = Array.from({ length: SMALL_ROOM + 1 }, (_, length) => BigInt(length));

function length64(length: number): bigint {
  return length <= SMALL_ROOM ? LENGTHS[length]! : BigInt(length);
}

/** What a {@linkcode TunDevice} holds. */
interface TunParts {
  readonly fd: number;
  readonly link: Link;
  readonly netlink: Netlink;
  readonly setup: Setup;
  readonly monitor: LinkMonitor;
}

/** A TUN device: a descriptor that gives and takes one packet a call. */
export class TunDevice implements Device {
  /** The name that the kernel knows it by. */
  readonly name: string;
  /** No super-packets, no unfinished sums. */
  readonly offload = false;
  /** Nothing waits here: a write hands the packet to the kernel. */
  readonly queued = 0;
  /** Why it is gone. */
  failure: Error | undefined;

  readonly #libc = libc();
  readonly #fd: number;
  readonly #index: number;
  readonly #netlink: Netlink;
  readonly #setup: Setup;
  readonly #monitor: LinkMonitor;
  readonly #events = new DeviceEvents();
  #mtu: number;
  #host: EndHost | undefined;
  #closed = false;
  /** Where each slot's packet starts in this process's memory. */
  #addresses: bigint[] = [];
  /** The pool's address. */
  #base = 0;
  readonly #iovec = new Uint32Array(IOVEC_SIZE / 4);
  readonly #refusals = new Refusals();

  /** For {@linkcode openTunDevice}. */
  constructor({ fd, link, netlink, setup, monitor }: TunParts) {
    this.#fd = fd;
    this.#index = link.index;
    this.name = link.name;
    this.#mtu = link.mtu;
    this.#netlink = netlink;
    this.#setup = setup;
    this.#monitor = monitor;
  }

  /** The longest packet that the kernel sends through it (bytes). */
  get mtu(): number {
    return this.#mtu;
  }

  /** Its descriptor. */
  get waitable(): Waitable | undefined {
    return this.#closed ? undefined : this.#fd;
  }

  /** Gives it its loop. */
  attach(host: EndHost): void {
    this.#host = host;
    const { pool } = host;
    this.#base = Number(Deno.UnsafePointer.value(Deno.UnsafePointer.of(pool.bytes)));
    this.#addresses = pool.packets.map((packet) => BigInt(this.#base + packet.slotStart + HEADROOM));
    host.watch(this.#monitor.descriptor, () => this.#hear());
  }

  /** Reads packets until the kernel has no more, the batch is full, or the pool is empty. */
  read(batch: PacketBatch): number {
    if (this.#closed) return 0;
    const { pool } = this.#host!;
    const { read } = this.#libc;
    const fd = this.#fd;
    // A slot takes more than the MTU, so that a packet of before a change of it is not cut.
    const room = this.#mtu <= SMALL_ROOM ? SMALL_ROOM : LARGE_ROOM;
    const room64 = length64(room);
    let count = 0;
    while (!batch.full) {
      const packet = pool.take(room);
      if (packet === undefined) break;
      const length = read(fd, this.#addresses[packet.slot]!, room64);
      if (length <= 0) {
        const failed = errno();
        pool.give(packet);
        this.#readFailed(failed);
        break;
      }
      packet.length = length;
      batch.push(packet);
      count++;
    }
    return count;
  }

  /** Writes packets until the kernel takes no more; those that it refuses are dropped with its reason. */
  write(batch: PacketBatch): number {
    if (this.#closed) return 0;
    const { packets, length } = batch;
    const { write } = this.#libc;
    const fd = this.#fd;
    let count = 0;
    for (; count < length; count++) {
      const packet = packets[count]!;
      packet.finish();
      const written = packet.offset === packet.slotStart + HEADROOM
        ? write(fd, this.#addresses[packet.slot]!, length64(packet.length))
        : this.#writeMoved(packet);
      if (written >= 0) packet.pool.give(packet);
      else if (!this.#writeFailed(packet, errno())) break;
    }
    batch.shift(count);
    return count;
  }

  /** Changes of its link, as rtnetlink reports them. */
  events(): AsyncIterable<DeviceEvent> {
    return this.#events.listen();
  }

  /** The kernel's own counters. */
  statistics(): DeviceStatistics | undefined {
    return this.#closed ? undefined : this.#netlink.link(this.#index)?.statistics;
  }

  /** Replays the undo messages; there are some for a persistent device and for rules. */
  rescue(): Rescue {
    return { code: rescue, data: [cString(this.#setup.journalPath), ...this.#setup.undos] };
  }

  /** Puts everything back; the kernel removes a device that is not persistent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#events.end();
    this.#monitor.close();
    try {
      this.#setup.undo();
    } finally {
      this.#netlink.close();
      this.#libc.close(this.#fd);
    }
  }

  /** The same as {@linkcode TunDevice.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  /**
   * Writes a packet that does not start where its slot's packets do: by writev, whose address is two numbers
   * in memory and no bigint. It costs 90 ns more than write (`deno task bench relay`), so it is the exception.
   */
  #writeMoved(packet: Packet): number {
    const address = this.#base + packet.offset;
    this.#iovec[0] = address >>> 0;
    this.#iovec[1] = address / 2 ** 32;
    this.#iovec[2] = packet.length;
    return this.#libc.writev(this.#fd, this.#iovec, 1);
  }

  #hear(): void {
    for (const event of this.#monitor.drain()) {
      // A device that is gone from this network namespace may live on in another; its descriptor tells.
      if (event.kind === "gone") continue;
      this.#mtu = event.mtu;
      this.#events.publish(event);
    }
  }

  #readFailed(failed: number): void {
    if (failed === Errno.EAGAIN || failed === Errno.EINTR) return;
    this.#lose("read from", "read", failed);
  }

  /** Whether the packet is dealt with, and the next one may be tried. */
  #writeFailed(packet: Packet, failed: number): boolean {
    switch (failed) {
      case Errno.EAGAIN:
      case Errno.EINTR:
        return false;
      case Errno.EBADFD:
      case Errno.EBADF:
        this.#lose("write to", "write", failed);
        return false;
      case Errno.EIO:
        this.#host!.drop(packet, "device down");
        return true;
      default:
        this.#host!.drop(packet, this.#refusals.of(errnoName(failed)));
        return true;
    }
  }

  #lose(verb: string, operation: string, failed: number): void {
    if (this.failure !== undefined) return;
    const remedy = failed === Errno.EBADFD ? "the device was removed" : undefined;
    this.failure = systemError(`${verb} "${this.name}"`, operation, failed, remedy);
    this.#events.publish({ kind: "gone", mtu: this.#mtu });
  }
}

/** Creates or attaches to a TUN device and sets it up; what fails undoes what was done. */
export function openTunDevice(options: CheckedDeviceOptions): TunDevice {
  // What cannot be repaired stays in the journal, and `warren doctor` says why.
  for (const leftover of leftovers().found) repair(leftover);
  const fd = open(options.name);
  using undo = new DisposableStack();
  undo.defer(() => libc().close(fd.descriptor));
  const netlink = undo.use(Netlink.open());
  const link = netlink.linkByName(fd.name);
  if (link === undefined) throw systemError(`use "${fd.name}"`, "RTM_GETLINK", Errno.ENODEV);
  const setup = new Setup(netlink, link.name);
  undo.defer(() => setup.undo());
  setup.apply(link, options);
  const monitor = LinkMonitor.open(link.index);
  undo.move();
  return new TunDevice({
    fd: fd.descriptor,
    link: netlink.link(link.index) ?? link,
    netlink,
    setup,
    monitor,
  });
}

function open(name: string): { descriptor: number; name: string } {
  const { open, ioctl, close } = libc();
  const descriptor = open(cString(TUN_PATH), O_RDWR | O_NONBLOCK | O_CLOEXEC, 0);
  if (descriptor < 0) throw openError(errno());
  const request = new Uint8Array(IFREQ_SIZE);
  new TextEncoder().encodeInto(name, request);
  new DataView(request.buffer).setUint16(IFR_FLAGS, IFF_TUN | IFF_NO_PI, true);
  if (ioctl(descriptor, TUNSETIFF, request) < 0) {
    const failed = errno();
    close(descriptor);
    throw attachError(name, failed);
  }
  return { descriptor, name: new TextDecoder().decode(request.subarray(0, request.indexOf(0))) };
}

function openError(failed: number): Error {
  const remedies: Record<number, string> = {
    [Errno.ENOENT]: "load the kernel module by `modprobe tun`, or give the container this device",
    [Errno.ENODEV]: "load the kernel module by `modprobe tun`",
    [Errno.EACCES]: "run as root, or let this user read and write it",
    [Errno.EPERM]: "run as root, or give the container this device",
  };
  return systemError(`open "${TUN_PATH}"`, "open", failed, remedies[failed]);
}

function attachError(name: string, failed: number): Error {
  const remedies: Record<number, string> = {
    [Errno.EPERM]: "run as root, grant CAP_NET_ADMIN to deno, or prepare the device by " +
      `\`ip tuntap add ${name.includes("%") ? "NAME" : name} mode tun user USER\``,
    [Errno.EBUSY]: "another program has this device open",
    [Errno.EINVAL]: "there is a device of this name that is no TUN device",
  };
  return systemError(`open device "${name}"`, "TUNSETIFF", failed, remedies[failed]);
}
