/** TUN devices of Linux: /dev/net/tun, its queues and their setup (Documentation/networking/tuntap.rst). */

import {
  type Device,
  type DeviceEvent,
  type DeviceStatistics,
  type EndHost,
  type EndWait,
  ErrorReasons,
  LARGE_ROOM,
  type Packet,
  type PacketBatch,
  type Rescue,
  SMALL_ROOM,
  type Waitable,
} from "../../lib/core/mod.ts";
import { DeviceEvents } from "../events.ts";
import type { CheckedDeviceOptions } from "../options.ts";
import { cString } from "../posix/libc.ts";
import type { DeviceShare, Offload } from "../share.ts";
import { Errno, errnoName, systemError } from "./errno.ts";
import { O_CLOEXEC, O_NONBLOCK, O_RDWR } from "./fcntl.ts";
import { readSystemFile } from "./files.ts";
import { recover } from "./leftovers.ts";
import { errno, libc } from "./libc.ts";
import { LinkMonitor } from "./netlink/link_monitor.ts";
import type { Link } from "./netlink/links.ts";
import { Netlink } from "./netlink/netlink.ts";
import type { DeviceQueue } from "./queue/queue.ts";
import { TunQueue } from "./queue/tun_queue.ts";
import { UringQueue } from "./queue/uring_queue.ts";
import { VNET_HEADER } from "./queue/virtio_net.ts";
import { ownLinks } from "./own_links.ts";
import { rescue } from "./rescue.ts";
import { checkRoutes, Setup } from "./setup.ts";
import { StateRestorer } from "./state_restorer.ts";

// Specification
/** ioctl(2) request codes, linux/if_tun.h. */
export const TunRequest = {
  /** _IOW('T', 202, int) */
  TUNSETIFF: 0x400454can,
  /** _IOW('T', 208, unsigned int) */
  TUNSETOFFLOAD: 0x400454d0n,
  /** _IOW('T', 216, int) */
  TUNSETVNETHDRSZ: 0x400454d8n,
  /** _IOW('T', 220, int) */
  TUNSETVNETLE: 0x400454dcn,
} as const;
/** Flags of TUNSETIFF, linux/if_tun.h. */
export const TunFlag = {
  IFF_TUN: 0x0001,
  IFF_MULTI_QUEUE: 0x0100,
  IFF_NO_PI: 0x1000,
  IFF_VNET_HDR: 0x4000,
} as const;
/** Flags of TUNSETOFFLOAD, linux/if_tun.h; USO (UDP) since Linux 6.2. */
export const TunOffload = {
  TUN_F_CSUM: 0x01n,
  TUN_F_TSO4: 0x02n,
  TUN_F_TSO6: 0x04n,
  TUN_F_USO4: 0x20n,
  TUN_F_USO6: 0x40n,
} as const;
// struct ifreq { char ifr_name[IFNAMSIZ]; union { short ifr_flags; ... 24 bytes } };   linux/if.h
const IFREQ_SIZE = 40;
const IFR_FLAGS = 16;

// Implementation
export const TUN_PATH = "/dev/net/tun";

/** Parts that a {@linkcode TunDevice} is made of. */
interface TunParts {
  readonly fd: number;
  readonly offload: Offload;
  readonly uring: boolean | "oneshot";
  readonly link: Link;
  readonly netlink: Netlink;
  /** Setup of the device; `undefined` for a queue that {@linkcode joinTunDevice} joins. */
  readonly setup: Setup | undefined;
  readonly monitor: LinkMonitor;
  /** Restores what other programs remove; only the first queue has one. */
  readonly restorer: StateRestorer | undefined;
  /** Requested MTU (bytes). */
  readonly requestedMtu: number | undefined;
}

/** A TUN device, or one of its queues. */
export class TunDevice implements Device {
  /** True if super-packets and partial checksums pass in both directions. */
  readonly offload: boolean;
  /** Reason that the device can no longer be used. */
  failure: Error | undefined;
  /** One descriptor: {@linkcode TunDevice.waitable}. */
  readonly waits: readonly EndWait[] = [this];

  readonly #libc = libc();
  readonly #fd: number;
  readonly #index: number;
  readonly #netlink: Netlink;
  readonly #setup: Setup | undefined;
  readonly #monitor: LinkMonitor;
  readonly #restorer: StateRestorer | undefined;
  readonly #requestedMtu: number | undefined;
  readonly #events = new DeviceEvents();
  readonly #queue: DeviceQueue;
  readonly #errorReasons = new ErrorReasons();
  #mtu: number;
  #host: EndHost | undefined;
  #closed = false;

  /** Called by {@linkcode openTunQueues} and {@linkcode joinTunDevice}. */
  constructor({ fd, offload, uring, link, netlink, setup, monitor, restorer, requestedMtu }: TunParts) {
    this.#fd = fd;
    this.offload = offload.tcp;
    const queue = {
      fd,
      offload,
      refuse: (packet: Packet, errno: number) => this.#refuse(packet, errno),
      fail: (verb: string, operation: string, errno: number) => this.#fail(verb, operation, errno),
    };
    this.#queue = (uring !== false && !offload.tcp ? UringQueue.open(queue, uring === true) : undefined) ??
      new TunQueue(queue);
    this.#index = link.index;
    this.#restorer = restorer;
    this.#requestedMtu = requestedMtu;
    this.#mtu = link.mtu;
    this.#netlink = netlink;
    this.#setup = setup;
    this.#monitor = monitor;
  }

  /** Current name of the link, which may be renamed while it is open. */
  get name(): string {
    return this.#monitor.name;
  }

  /** Current MTU of the link (bytes). */
  get mtu(): number {
    return this.#mtu;
  }

  /** Descriptor that the loop waits for; `undefined` after close. */
  get waitable(): Waitable | undefined {
    return this.#closed ? undefined : this.#queue.waitable;
  }

  /** Longest packet that a read may return (bytes): with offload, any packet may be a super-packet. */
  get maxRead(): number {
    return this.offload ? LARGE_ROOM : this.#room;
  }

  /** Packets accepted by `write` that the kernel has not taken yet. */
  get queued(): number {
    return this.#queue.queued;
  }

  /** Attaches the device to its loop. */
  attach(host: EndHost): void {
    this.#host = host;
    this.#queue.attach(host);
    host.watch(this.#monitor.descriptor, () => this.#drainMonitor());
    const restorer = this.#restorer;
    if (restorer !== undefined) host.watch(restorer.descriptor, () => this.#drainRestorer(restorer));
  }

  /** Reads packets until the kernel has no more, the batch is full, or the pool is empty. */
  read(batch: PacketBatch): number {
    if (this.#closed) return 0;
    return this.#queue.read(batch, this.#room);
  }

  /** Writes packets until the kernel takes no more; packets that it refuses are dropped with its error's name. */
  write(batch: PacketBatch): number {
    return this.#closed ? 0 : this.#queue.write(batch);
  }

  /** Changes of the link, as rtnetlink reports them. */
  events(): AsyncIterable<DeviceEvent> {
    return this.#events.listen();
  }

  /** Counters that the kernel keeps for the link. */
  statistics(): DeviceStatistics | undefined {
    return this.#closed ? undefined : this.#netlink.link(this.#index)?.statistics;
  }

  /** Code and data that let the watchdog thread undo whatever the journal contains when the owner hangs. */
  rescue(): Rescue | undefined {
    const setup = this.#setup;
    return setup && { code: rescue, data: [setup.sharedJournalPath] };
  }

  /** Undoes the setup; the kernel removes a device that is not persistent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#events.end();
    this.#monitor.close();
    this.#restorer?.close();
    this.#queue.close();
    // A persistent device keeps its offload flags, and the next program may not support super-packets.
    if (this.offload && this.#setup !== undefined) {
      this.#libc.ioctlNumber(this.#fd, TunRequest.TUNSETOFFLOAD, 0n);
    }
    try {
      this.#setup?.undo();
    } finally {
      if (this.#setup !== undefined) ownLinks.delete(this.#index);
      this.#netlink.close();
      this.#libc.close(this.#fd);
    }
  }

  /** Same as {@linkcode TunDevice.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** Room for a read (bytes), above the MTU. A packet that fills it was truncated: the MTU has just been raised. */
  get #room(): number {
    return this.#mtu < SMALL_ROOM ? SMALL_ROOM : LARGE_ROOM;
  }

  #drainMonitor(): void {
    for (const event of this.#monitor.drain()) {
      // It may have moved to another network namespace; if it was removed, the next read fails with EBADFD.
      if (event.kind === "gone") continue;
      this.#mtu = event.mtu;
      this.#events.publish(event);
      // Settings of another program are reported, not reverted.
      if (this.#restorer === undefined) continue;
      if (event.kind === "down") {
        console.warn(`warren: "${this.name}" was set down: no packet passes until it is up again`);
      } else if (
        event.kind === "mtu" && this.#requestedMtu !== undefined && event.mtu !== this.#requestedMtu
      ) {
        console.warn(
          `warren: the MTU of "${this.name}" was set to ${event.mtu}: ${this.#requestedMtu} was requested`,
        );
      }
    }
  }

  #drainRestorer(restorer: StateRestorer): void {
    const event = restorer.drain();
    if (event !== undefined) this.#events.publish({ ...event, mtu: this.#mtu });
  }

  #refuse(packet: Packet, failed: number): void {
    this.#host!.finish(
      packet,
      failed === Errno.EIO ? "device down" : this.#errorReasons.of(errnoName(failed)),
    );
  }

  #fail(verb: string, operation: string, failed: number): void {
    if (this.failure !== undefined) return;
    const remedy = failed === Errno.EBADFD ? "the device was removed" : undefined;
    this.failure = systemError(`${verb} "${this.name}"`, operation, failed, remedy);
    this.#events.publish({ kind: "gone", mtu: this.#mtu });
  }
}

/** Creates or attaches to a TUN device and sets it up; a failure undoes what was done. */
export function openTunDevice(options: CheckedDeviceOptions): TunDevice {
  return openTunQueues(options).device;
}

/**
 * Creates or attaches to a TUN device with `options.queues` queues. The device holds the first one; each other one
 * goes to the thread that gets its share.
 *
 * The kernel picks a packet's queue by a hash of its addresses and ports, which is the same in both directions and
 * for all devices, scaled to the number of queues. It also learns: once a packet was written to a queue, its flow's
 * packets come from that queue until the flow has been idle for about three seconds (tun_automq_select_queue(),
 * tun_flow_update(); drivers/net/tun.c). A worker writes what it reads to the same queue, of this device or of one
 * with as many queues. The learned queue is then the hashed one, and a flow keeps its queue, idle or not, as long as
 * the number of queues does not change. All queues are therefore open before the device is up and before the first
 * read.
 *
 * Fragments are hashed without ports and may take another queue than the flow's whole packets.
 */
export function openTunQueues(options: CheckedDeviceOptions): { device: TunDevice; shares: DeviceShare[] } {
  const { uring, queues } = options;
  checkRoutes(options.routes);
  recover();
  using undo = new DisposableStack();
  const netlink = undo.use(Netlink.open());
  // Any program can attach a queue to a multi-queue device, and would get a part of the flows.
  const refuseShared = (name: string, own: number): void => {
    const held = queues > 1 ? netlink.linkByName(name)?.queues ?? 0 : 0;
    if (held > own) throw attachError(name, Errno.EBUSY, queues);
  };
  refuseShared(options.name, 0);
  const opened: Opened[] = [];
  while (opened.length < queues) {
    // The first one creates the device; the others attach to it.
    const queue = open(opened[0]?.name ?? options.name, options);
    undo.defer(() => libc().close(queue.fd));
    opened.push(queue);
  }
  const [{ fd, name, offload }, ...others] = opened as [Opened, ...Opened[]];
  refuseShared(name, queues);
  const link = netlink.linkByName(name);
  if (link === undefined) throw systemError(`use "${name}"`, "RTM_GETLINK", Errno.ENODEV);
  ownLinks.add(link.index);
  undo.defer(() => ownLinks.delete(link.index));
  const setup = new Setup(netlink, link.name);
  undo.defer(() => setup.undo());
  setup.apply(link, options);
  const { index } = link;
  const restorer = undo.use(new StateRestorer(setup, netlink, index));
  const monitor = LinkMonitor.open(index);
  undo.move();
  return {
    device: new TunDevice({
      fd,
      offload,
      uring,
      link: netlink.link(index) ?? link,
      netlink,
      setup,
      monitor,
      restorer,
      requestedMtu: options.mtu,
    }),
    shares: others.map(({ fd }) => ({ fd, index, name, offload, uring })),
  };
}

/** Joins a queue of a device that another thread has opened and undoes; takes over the share's descriptor. */
export function joinTunDevice({ fd, index, name, offload, uring }: DeviceShare): TunDevice {
  using undo = new DisposableStack();
  undo.defer(() => libc().close(fd));
  const netlink = undo.use(Netlink.open());
  const monitor = undo.use(LinkMonitor.open(index));
  const link = netlink.link(index);
  if (link === undefined) throw systemError(`use "${name}"`, "RTM_GETLINK", Errno.ENODEV);
  undo.move();
  const none = { setup: undefined, restorer: undefined, requestedMtu: undefined };
  return new TunDevice({ fd, offload, uring, link, netlink, monitor, ...none });
}

/** An open queue. */
interface Opened {
  readonly fd: number;
  /** Name of the device. */
  readonly name: string;
  readonly offload: Offload;
}

function open(name: string, { offload: wanted, queues }: CheckedDeviceOptions): Opened {
  const { open, ioctl, close } = libc();
  const descriptor = open(cString(TUN_PATH), O_RDWR | O_NONBLOCK | O_CLOEXEC, 0);
  if (descriptor < 0) {
    const failed = errno();
    throw systemError(`open "${TUN_PATH}"`, "open", failed, tunRemedy(failed));
  }
  const { IFF_TUN, IFF_MULTI_QUEUE, IFF_NO_PI, IFF_VNET_HDR } = TunFlag;
  const request = new Uint8Array(IFREQ_SIZE);
  new TextEncoder().encodeInto(name, request);
  new DataView(request.buffer).setUint16(
    IFR_FLAGS,
    IFF_TUN | IFF_NO_PI | (wanted ? IFF_VNET_HDR : 0) | (queues > 1 ? IFF_MULTI_QUEUE : 0),
    true,
  );
  if (ioctl(descriptor, TunRequest.TUNSETIFF, request) < 0) {
    const failed = errno();
    close(descriptor);
    throw attachError(name, failed, queues);
  }
  const text = new TextDecoder().decode(request.subarray(0, request.indexOf(0)));
  return { fd: descriptor, name: text, offload: setOffload(descriptor, wanted) };
}

/** Sets the offload flags, replacing those of another program on a persistent device; returns what passes. */
function setOffload(fd: number, wanted: boolean): Offload {
  const { ioctl, ioctlNumber } = libc();
  if (!wanted) {
    ioctlNumber(fd, TunRequest.TUNSETOFFLOAD, 0n);
    return { tcp: false, udp: false };
  }
  ioctl(fd, TunRequest.TUNSETVNETHDRSZ, Int32Array.of(VNET_HEADER));
  ioctl(fd, TunRequest.TUNSETVNETLE, Int32Array.of(1));
  const { TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, TUN_F_USO4, TUN_F_USO6 } = TunOffload;
  const tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
  const udp = ioctlNumber(fd, TunRequest.TUNSETOFFLOAD, tcp | TUN_F_USO4 | TUN_F_USO6) >= 0;
  // A kernel without these flags segments and computes checksums itself, as for every device.
  if (!udp) ioctlNumber(fd, TunRequest.TUNSETOFFLOAD, tcp);
  return { tcp: true, udp };
}

/** Remedy when {@linkcode TUN_PATH} cannot be opened, by error number. */
export function tunRemedy(failed: number): string | undefined {
  const isRoot = libc().geteuid() === 0;
  const container = `start the container with --device ${TUN_PATH}`;
  const remedies: Record<number, string> = {
    [Errno.ENOENT]: `load the kernel module by \`modprobe tun\`, or ${container}`,
    [Errno.ENODEV]: "load the kernel module by `modprobe tun`, outside of a container",
    // may_open_dev(), fs/namei.c: a mount with nodev refuses root as well.
    [Errno.EACCES]: isRoot
      ? "its file system is mounted with nodev: mount it without nodev, or bind-mount a node from elsewhere"
      : "run as root, or let this user read and write it",
    [Errno.EPERM]: isRoot ? container : `run as root, or ${container}`,
  };
  return remedies[failed];
}

function attachError(name: string, failed: number, queues: number): Error {
  const many = queues > 1 ? " multi_queue" : "";
  const remedies: Record<number, string> = {
    [Errno.EPERM]: "run as root, grant CAP_NET_ADMIN to deno, or prepare the device by " +
      `\`ip tuntap add ${name.includes("%") ? "NAME" : name} mode tun user USER${many}\``,
    [Errno.EBUSY]: "another program has this device open",
    [Errno.EINVAL]: mismatch(name, queues),
  };
  return systemError(`open device "${name}"`, "TUNSETIFF", failed, remedies[failed]);
}

/** Reason that the kernel refused an existing device, from its flags in sysfs. */
function mismatch(name: string, queues: number): string {
  const flags = Number(readSystemFile(`/sys/class/net/${name}/tun_flags`)?.trim() ?? 0);
  const hasSeveral = (flags & TunFlag.IFF_MULTI_QUEUE) !== 0;
  if ((flags & TunFlag.IFF_TUN) === 0 || hasSeveral === queues > 1) {
    return "there is a device of this name that is not a TUN device";
  }
  return hasSeveral
    ? "it was made with multi_queue: use it with --workers 2, or make it without multi_queue"
    : `it was made without multi_queue: make it by \`ip tuntap add ${name} mode tun multi_queue\``;
}
