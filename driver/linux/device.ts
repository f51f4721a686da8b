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
import { ownLinks } from "./host_routes.ts";
import { rescue } from "./rescue.ts";
import { Setup } from "./setup.ts";
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

/** Parts of a {@linkcode TunDevice}. Only the first queue has a setup, a restorer and a requested MTU (bytes). */
interface TunParts {
  readonly fd: number;
  readonly offload: Offload;
  readonly uring: boolean | "oneshot";
  readonly link: Link;
  readonly netlink: Netlink;
  readonly monitor: LinkMonitor;
  readonly setup?: Setup;
  readonly restorer?: StateRestorer;
  readonly requestedMtu?: number | undefined;
}

/** A TUN device, or one of its queues. */
export class TunDevice implements Device {
  /** True if super-packets and partial checksums pass in both directions. */
  readonly offload: boolean;
  /** Reason that the device can no longer be used. */
  failure: Error | undefined;
  /** One descriptor: {@linkcode TunDevice.waitable}. */
  readonly waits: readonly EndWait[] = [this];

  readonly #parts: TunParts;
  readonly #events = new DeviceEvents();
  readonly #queue: DeviceQueue;
  readonly #errorReasons = new ErrorReasons();
  #mtu: number;
  #host: EndHost | undefined;
  #closed = false;

  /** Called by {@linkcode openTunQueues} and {@linkcode joinTunDevice}. */
  constructor(parts: TunParts) {
    const { fd, offload, uring, link } = parts;
    this.#parts = parts;
    this.offload = offload.tcp;
    this.#mtu = link.mtu;
    const queue = {
      fd,
      offload,
      onWriteError: (packet: Packet, errno: number) => this.#onWriteError(packet, errno),
      onGone: (verb: string, operation: string, errno: number) => this.#onGone(verb, operation, errno),
    };
    this.#queue = (uring !== false && !offload.tcp ? UringQueue.open(queue, uring === true) : undefined) ??
      new TunQueue(queue);
  }

  /** Current name of the link, which may be renamed while the device is open. */
  get name(): string {
    return this.#parts.monitor.name;
  }

  /** Current MTU of the link (bytes). */
  get mtu(): number {
    return this.#mtu;
  }

  /** Descriptor that the loop waits for; `undefined` after `close`. */
  get waitable(): Waitable | undefined {
    return this.#closed ? undefined : this.#queue.waitable;
  }

  /** Maximum length of a packet that a read returns (bytes): with offload, any packet may be a super-packet. */
  get maxRead(): number {
    return this.offload ? LARGE_ROOM : this.#room;
  }

  /** Number of packets accepted by `write` but not written yet. */
  get queued(): number {
    return this.#queue.queued;
  }

  /** Attaches the device to its loop. */
  attach(host: EndHost): void {
    this.#host = host;
    this.#queue.attach(host);
    const { monitor, restorer } = this.#parts;
    host.watch(monitor.descriptor, () => this.#drainMonitor());
    if (restorer !== undefined) host.watch(restorer.descriptor, () => this.#drainRestorer(restorer));
  }

  /** Reads packets until the kernel has no more, the batch is full, or the pool is empty. */
  read(batch: PacketBatch): number {
    return this.#closed ? 0 : this.#queue.read(batch, this.#room);
  }

  /** Writes packets until the kernel accepts no more. Rejected packets are dropped, with the error as the reason. */
  write(batch: PacketBatch): number {
    return this.#closed ? 0 : this.#queue.write(batch);
  }

  /** Returns the link's changes, as rtnetlink reports them. */
  events(): AsyncIterable<DeviceEvent> {
    return this.#events.listen();
  }

  /** Returns the kernel's counters of the link. */
  statistics(): DeviceStatistics | undefined {
    const { netlink, link } = this.#parts;
    return this.#closed ? undefined : netlink.link(link.index)?.statistics;
  }

  /** Returns the code and data with which the watchdog thread undoes the changes in the journal. */
  rescue(): Rescue | undefined {
    const { setup } = this.#parts;
    return setup && { code: rescue, data: [setup.sharedJournalPath] };
  }

  /** Undoes the setup. The kernel then removes the device, unless it is persistent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    const { fd, link, netlink, setup, monitor, restorer } = this.#parts;
    this.#events.end();
    monitor.close();
    restorer?.close();
    this.#queue.close();
    // A persistent device keeps its offload flags, and the next program may not support super-packets.
    if (this.offload && setup !== undefined) libc().ioctlNumber(fd, TunRequest.TUNSETOFFLOAD, 0n);
    try {
      setup?.undo();
    } finally {
      if (setup !== undefined) ownLinks.delete(link.index);
      netlink.close();
      libc().close(fd);
    }
  }

  /** Calls {@linkcode TunDevice.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** Room for a read (bytes), which exceeds the MTU. */
  get #room(): number {
    return this.#mtu < SMALL_ROOM ? SMALL_ROOM : LARGE_ROOM;
  }

  #drainMonitor(): void {
    const { monitor, restorer, requestedMtu } = this.#parts;
    for (const event of monitor.drain()) {
      // The link may only have moved to a different network namespace. If it was removed, the next read fails with
      // EBADFD.
      if (event.kind === "gone") continue;
      this.#mtu = event.mtu;
      this.#events.publish(event);
      // The first queue reports settings changed by other programs, but does not revert them.
      if (restorer === undefined) continue;
      if (event.kind === "down") {
        console.warn(`warren: "${this.name}" was set down: no packet passes until it is up again`);
      } else if (event.kind === "mtu" && requestedMtu !== undefined && event.mtu !== requestedMtu) {
        console.warn(
          `warren: the MTU of "${this.name}" was set to ${event.mtu}: ${requestedMtu} was requested`,
        );
      }
    }
  }

  #drainRestorer(restorer: StateRestorer): void {
    const event = restorer.drain();
    if (event !== undefined) this.#events.publish({ ...event, mtu: this.#mtu });
  }

  #onWriteError(packet: Packet, failed: number): void {
    this.#host!.finish(
      packet,
      failed === Errno.EIO ? "device down" : this.#errorReasons.of(errnoName(failed)),
    );
  }

  #onGone(verb: string, operation: string, failed: number): void {
    if (this.failure !== undefined) return;
    const remedy = failed === Errno.EBADFD ? "the device was removed" : undefined;
    this.failure = systemError(`${verb} "${this.name}"`, operation, failed, remedy);
    this.#events.publish({ kind: "gone", mtu: this.#mtu });
  }
}

/**
 * Creates or attaches to a TUN device with `options.queues` queues and sets it up. The device holds the first queue;
 * each share hands one of the other queues to a different thread. A failure undoes all changes.
 *
 * The kernel selects a packet's queue by a hash of its addresses and ports, which is the same in both directions and
 * for all devices. It also learns: after a packet has been written to a queue, further packets of its flow are read
 * from that queue until the flow has been idle for about three seconds (tun_automq_select_queue(), tun_flow_update();
 * drivers/net/tun.c). A worker writes packets to the same queue that it read them from, in this device or in one with
 * the same number of queues. The learned queue thus equals the hashed queue, and a flow keeps it even when idle, as
 * long as the number of queues does not change. This is why all queues are opened before the device is up and the first
 * packet is read.
 *
 * Fragments are hashed without ports, so that their queue may differ from that of the flow's whole packets.
 *
 * @throws {Deno.errors.PermissionDenied} without the privilege to open or set up the device.
 * @throws {DriverError} when the device is in use (`EBUSY`) or of a different kind (`EINVAL`), or the kernel rejects a
 *   setting.
 */
export function openTunQueues(options: CheckedDeviceOptions): { device: TunDevice; shares: DeviceShare[] } {
  const { uring, queues } = options;
  recover();
  using undo = new DisposableStack();
  const netlink = undo.use(Netlink.open());
  // If another program attaches a queue to a multi-queue device, it receives some of the flows.
  const checkNotShared = (name: string, own: number): void => {
    const attached = queues > 1 ? netlink.link(name)?.queues ?? 0 : 0;
    if (attached > own) throw attachError(name, Errno.EBUSY, queues);
  };
  checkNotShared(options.name, 0);
  const opened: OpenQueue[] = [];
  while (opened.length < queues) {
    // The first iteration creates the device; the others attach to it.
    const queue = open(opened[0]?.name ?? options.name, options);
    undo.defer(() => libc().close(queue.fd));
    opened.push(queue);
  }
  const [{ fd, name, offload }, ...others] = opened as [OpenQueue, ...OpenQueue[]];
  checkNotShared(name, queues);
  const link = netlink.link(name);
  if (link === undefined) throw systemError(`use "${name}"`, "RTM_GETLINK", Errno.ENODEV);
  ownLinks.add(link.index);
  undo.defer(() => ownLinks.delete(link.index));
  const setup = new Setup(netlink, link.name);
  undo.defer(() => setup.undo());
  setup.apply(link, options);
  const { index } = link;
  const restorer = new StateRestorer(setup, netlink, index);
  undo.defer(() => restorer.close());
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

/** Opens a queue of a device that a different thread has set up and will undo. Takes over the share's descriptor. */
export function joinTunDevice({ fd, index, name, offload, uring }: DeviceShare): TunDevice {
  using undo = new DisposableStack();
  undo.defer(() => libc().close(fd));
  const netlink = undo.use(Netlink.open());
  const monitor = undo.use(LinkMonitor.open(index));
  const link = netlink.link(index);
  if (link === undefined) throw systemError(`use "${name}"`, "RTM_GETLINK", Errno.ENODEV);
  undo.move();
  return new TunDevice({ fd, offload, uring, link, netlink, monitor });
}

/** An open queue. */
interface OpenQueue {
  readonly fd: number;
  /** Name of the device. */
  readonly name: string;
  readonly offload: Offload;
}

function open(name: string, { offload: wanted, queues }: CheckedDeviceOptions): OpenQueue {
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

/** Sets the offload flags, which a persistent device keeps from its last use; returns the supported offload. */
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
  // A kernel before Linux 6.2 segments UDP itself.
  if (!udp) ioctlNumber(fd, TunRequest.TUNSETOFFLOAD, tcp);
  return { tcp: true, udp };
}

/** Returns the remedy for an error when opening {@linkcode TUN_PATH}. */
export function tunRemedy(failed: number): string | undefined {
  const isRoot = libc().geteuid() === 0;
  const container = `start the container with --device ${TUN_PATH}`;
  const remedies: Record<number, string> = {
    [Errno.ENOENT]: `load the kernel module with \`modprobe tun\`, or ${container}`,
    [Errno.ENODEV]: "load the kernel module with `modprobe tun`, outside any container",
    // On a file system mounted with nodev, even root gets EACCES (may_open_dev(), fs/namei.c).
    [Errno.EACCES]: isRoot
      ? "its file system is mounted with nodev: mount it without nodev, or bind-mount a node from elsewhere"
      : "run as root, or allow this user to read and write it",
    [Errno.EPERM]: isRoot ? container : `run as root, or ${container}`,
  };
  return remedies[failed];
}

function attachError(name: string, failed: number, queues: number): Error {
  const many = queues > 1 ? " multi_queue" : "";
  const remedies: Record<number, string> = {
    [Errno.EPERM]: "run as root, grant CAP_NET_ADMIN to deno, or prepare the device with " +
      `\`ip tuntap add ${name.includes("%") ? "NAME" : name} mode tun user USER${many}\``,
    [Errno.EBUSY]: "another program has this device open",
    [Errno.EINVAL]: mismatch(name, queues),
  };
  return systemError(`open device "${name}"`, "TUNSETIFF", failed, remedies[failed]);
}

/** Returns the reason that an existing device cannot be opened, from its flags in sysfs. */
function mismatch(name: string, queues: number): string {
  const flags = Number(readSystemFile(`/sys/class/net/${name}/tun_flags`)?.trim() ?? 0);
  const hasSeveral = (flags & TunFlag.IFF_MULTI_QUEUE) !== 0;
  if ((flags & TunFlag.IFF_TUN) === 0 || hasSeveral === queues > 1) {
    return "there is a device of this name that is not a TUN device";
  }
  return hasSeveral
    ? "it was created with multi_queue: use it with --workers 2, or recreate it without multi_queue"
    : `it was created without multi_queue: recreate it with \`ip tuntap add ${name} mode tun multi_queue\``;
}
