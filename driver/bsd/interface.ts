/** Configuration and counters of a network interface, through ioctl(2) and sysctl(3). */

import { formatCidr, type Prefix } from "../../lib/wire/address.ts";
import type { DeviceStatistics } from "../../lib/core/mod.ts";
import { cString } from "../posix/libc.ts";
import { AF_INET, SOCK_DGRAM } from "../posix/udp_socket.ts";
import { AF_ROUTE, type Bsd } from "./bsd.ts";
import { netmask, sockaddr } from "./sockaddr.ts";
import { viewOf } from "../native_memory.ts";

// Specification
/** net/if.h: `struct ifreq { char ifr_name[IFNAMSIZ]; union { short ifr_flags; int ifr_mtu; ... 16 bytes }; }`. */
export const Ifreq = { Flags: 16, Mtu: 16, Size: 32 } as const;
/** net/if.h. */
export const IFF_UP = 1;
/** sys/sockio.h: _IOW('i', 16, struct ifreq), _IOWR('i', 17), _IOWR('i', 51), _IOW('i', 52). */
export const Request = {
  SIOCSIFFLAGS: 0x8020_6910n,
  SIOCGIFFLAGS: 0xc020_6911n,
  SIOCGIFMTU: 0xc020_6933n,
  SIOCSIFMTU: 0x8020_6934n,
} as const;
/**
 * net/if.h: `struct ifaliasreq { char ifra_name[IFNAMSIZ]; struct sockaddr ifra_addr, ifra_broadaddr, ifra_mask; }`.
 * On a point-to-point interface, `ifra_broadaddr` is the peer's address.
 */
export const Ifaliasreq = { Address: 16, Destination: 32, Mask: 48 } as const;
/**
 * netinet6/in6_var.h: `struct in6_aliasreq { char ifra_name[IFNAMSIZ]; struct sockaddr_in6 ifra_addr, ifra_dstaddr,
 * ifra_prefixmask; int ifra_flags; struct { time_t expire, preferred; u32 vltime, pltime; } ifra_lifetime; }`.
 */
export const In6Aliasreq = { Address: 16, Mask: 72, Flags: 100, ValidTime: 120, PreferredTime: 124 } as const;
/** netinet6/in6_var.h: skips duplicate address detection, so that the address is usable at once. */
export const IN6_IFF_NODAD = 0x20;
/** netinet6/nd6.h. */
export const ND6_INFINITE_LIFETIME = 0xffff_ffff;
/** sys/sysctl.h. */
const CTL_NET = 4;
/** net/if_var.h, net/if.h: `struct if_data64` on macOS, `struct if_data` on FreeBSD; the counters are u64. */
export const IfData = {
  Mtu: 8,
  InPackets: 24,
  InErrors: 32,
  OutPackets: 40,
  OutErrors: 48,
  InBytes: 64,
  OutBytes: 72,
  InQueueDrops: 96,
} as const;

// Implementation
/** Room for the sysctl(3) result: one message for the interface and one for each of its addresses (bytes). */
const LIST_ROOM = 16 * 1024;

/** A network interface. */
export class Interface {
  readonly name: string;
  readonly index: number;
  readonly #bsd: Bsd;
  readonly #list = new Uint8Array(LIST_ROOM);

  /** Looks up an interface. @throws {Deno.errors.NotFound} when there is no interface of this name. */
  constructor(bsd: Bsd, name: string) {
    this.#bsd = bsd;
    this.name = name;
    this.index = bsd.functions.if_nametoindex(cString(name));
    if (this.index > 0) return;
    const remedy = "there is no interface of this name";
    throw bsd.systemError(`use interface "${name}"`, "if_nametoindex", bsd.errno(), remedy);
  }

  get mtu(): number {
    return viewOf(this.#query("read the MTU", "SIOCGIFMTU")).getInt32(Ifreq.Mtu, true);
  }

  /** Sets the MTU (bytes). @throws {DriverError} when the system refuses. */
  setMtu(mtu: number): void {
    const request = this.#request(Ifreq.Size);
    viewOf(request).setInt32(Ifreq.Mtu, mtu, true);
    this.#ioctl(AF_INET, `set MTU ${mtu} on "${this.name}"`, "SIOCSIFMTU", Request.SIOCSIFMTU, request);
  }

  get up(): boolean {
    return (viewOf(this.#query("read the flags", "SIOCGIFFLAGS")).getInt16(Ifreq.Flags, true) & IFF_UP) !== 0;
  }

  /** Brings the interface up or down. @throws {Deno.errors.PermissionDenied} when the process is not root. */
  setUp(up: boolean): void {
    const request = this.#query("read the flags", "SIOCGIFFLAGS");
    const view = viewOf(request);
    const flags = view.getInt16(Ifreq.Flags, true);
    view.setInt16(Ifreq.Flags, up ? flags | IFF_UP : flags & ~IFF_UP, true);
    const attempt = `set "${this.name}" ${up ? "up" : "down"}`;
    this.#ioctl(AF_INET, attempt, "SIOCSIFFLAGS", Request.SIOCSIFFLAGS, request);
  }

  /**
   * Adds an address. A point-to-point interface also needs the IPv4 address of its peer: the interface's own address is
   * used, because any other address could belong to a host.
   *
   * @throws {DriverError} when the system refuses.
   */
  addAddress(prefix: Prefix, pointToPoint: boolean): void {
    const { address } = prefix;
    const local = sockaddr(this.#bsd, address);
    const mask = sockaddr(this.#bsd, netmask(prefix));
    const attempt = `add address ${formatCidr(prefix)} to "${this.name}"`;
    if (address.family === 4) {
      const request = this.#request(this.#bsd.sizes.ifaliasreq);
      request.set(local, Ifaliasreq.Address);
      if (pointToPoint) request.set(local, Ifaliasreq.Destination);
      request.set(mask, Ifaliasreq.Mask);
      this.#ioctl(AF_INET, attempt, "SIOCAIFADDR", this.#bsd.SIOCAIFADDR, request);
    } else {
      const request = this.#request(this.#bsd.sizes.in6_aliasreq);
      request.set(local, In6Aliasreq.Address);
      request.set(mask, In6Aliasreq.Mask);
      const view = viewOf(request);
      view.setInt32(In6Aliasreq.Flags, IN6_IFF_NODAD, true);
      view.setUint32(In6Aliasreq.ValidTime, ND6_INFINITE_LIFETIME, true);
      view.setUint32(In6Aliasreq.PreferredTime, ND6_INFINITE_LIFETIME, true);
      this.#ioctl(this.#bsd.AF_INET6, attempt, "SIOCAIFADDR_IN6", this.#bsd.SIOCAIFADDR_IN6, request);
    }
  }

  /** Returns the counters, or `undefined` when the interface is gone. */
  statistics(): DeviceStatistics | undefined {
    const { functions, counters: { list, data, queueDrops, queueDropsSize } } = this.#bsd;
    const name = Int32Array.of(CTL_NET, AF_ROUTE, 0, 0, list, this.index);
    const size = BigUint64Array.of(BigInt(LIST_ROOM));
    if (functions.sysctl(name, name.length, this.#list, size, null, 0n) < 0) return undefined;
    if (Number(size[0]!) < data + IfData.InQueueDrops + 8) return undefined;
    const view = viewOf(this.#list);
    const count = (offset: number) => Number(view.getBigUint64(data + offset, true));
    const dropped = queueDropsSize === 8
      ? Number(view.getBigUint64(queueDrops, true))
      : view.getUint32(queueDrops, true);
    return {
      rxPackets: count(IfData.InPackets),
      rxBytes: count(IfData.InBytes),
      rxDropped: count(IfData.InQueueDrops) + count(IfData.InErrors),
      txPackets: count(IfData.OutPackets),
      txBytes: count(IfData.OutBytes),
      txDropped: dropped + count(IfData.OutErrors),
    };
  }

  /** Removes the interface with a request that takes only its name. @throws {DriverError} when the system refuses. */
  destroy(operation: string, request: bigint): void {
    this.#ioctl(AF_INET, `remove "${this.name}"`, operation, request, this.#request(Ifreq.Size));
  }

  #request(size: number): Uint8Array<ArrayBuffer> {
    const request = new Uint8Array(size);
    new TextEncoder().encodeInto(this.name, request);
    return request;
  }

  #query(what: string, operation: "SIOCGIFMTU" | "SIOCGIFFLAGS"): Uint8Array<ArrayBuffer> {
    const request = this.#request(Ifreq.Size);
    this.#ioctl(AF_INET, `${what} of "${this.name}"`, operation, Request[operation], request);
    return request;
  }

  /** Calls ioctl(2) on a temporary socket; any socket of the address family will do. */
  #ioctl(
    family: number,
    attempt: string,
    operation: string,
    request: bigint,
    argument: Uint8Array<ArrayBuffer>,
  ): void {
    const { functions, systemError, Errno, asRoot } = this.#bsd;
    const fd = functions.socket(family, SOCK_DGRAM, 0);
    if (fd < 0) throw systemError(attempt, "socket", this.#bsd.errno());
    const failed = this.#bsd.ioctl(fd, request, argument) < 0 ? this.#bsd.errno() : 0;
    functions.close(fd);
    if (failed === 0) return;
    throw systemError(attempt, operation, failed, failed === Errno.EPERM ? asRoot : undefined);
  }
}
