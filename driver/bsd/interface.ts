/** A network interface: MTU, up or down, addresses, counters. */

import { formatCidr, type Prefix } from "../../lib/wire/address.ts";
import type { DeviceStatistics } from "../../lib/core/mod.ts";
import { cString } from "../posix/libc.ts";
import { AF_INET, AF_ROUTE, type Bsd, SOCK_DGRAM, viewOf } from "./bsd.ts";
import { netmask, sockaddr } from "./sockaddr.ts";

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
/** netinet6/in6_var.h: no duplicate address detection; the address is usable at once. */
export const IN6_IFF_NODAD = 0x20;
/** netinet6/nd6.h. */
export const ND6_INFINITE_LIFETIME = 0xffff_ffff;
/** sys/sysctl.h. */
const CTL_NET = 4;
/** net/if_var.h, net/if.h: `struct if_data64` of macOS, `struct if_data` of FreeBSD; counters are u64. */
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
/** Room for the message of an interface and those of its addresses (bytes). */
const LIST_ROOM = 16 * 1024;

/** A network interface, by name. */
export class Interface {
  /** Name. */
  readonly name: string;
  /** Interface index. */
  readonly index: number;
  readonly #bsd: Bsd;
  readonly #list = new Uint8Array(LIST_ROOM);

  /** Looks up the interface. @throws {Error} the system's, when there is none of this name. */
  constructor(bsd: Bsd, name: string) {
    this.#bsd = bsd;
    this.name = name;
    this.index = bsd.functions.if_nametoindex(cString(name));
    if (this.index === 0) throw bsd.systemError(`use "${name}"`, "if_nametoindex", bsd.errno());
  }

  /** MTU (bytes). */
  get mtu(): number {
    return viewOf(this.#query("read the MTU", "SIOCGIFMTU")).getInt32(Ifreq.Mtu, true);
  }

  /** Sets the MTU. @throws {Error} the system's. */
  setMtu(mtu: number): void {
    const request = this.#request(Ifreq.Size);
    viewOf(request).setInt32(Ifreq.Mtu, mtu, true);
    this.#control(AF_INET, `set MTU ${mtu} on "${this.name}"`, "SIOCSIFMTU", Request.SIOCSIFMTU, request);
  }

  /** True if the interface is up. */
  get up(): boolean {
    return (viewOf(this.#query("read the flags", "SIOCGIFFLAGS")).getInt16(Ifreq.Flags, true) & IFF_UP) !== 0;
  }

  /** Brings the interface up or down. @throws {Error} the system's. */
  setUp(up: boolean): void {
    const request = this.#query("read the flags", "SIOCGIFFLAGS");
    const view = viewOf(request);
    const flags = view.getInt16(Ifreq.Flags, true);
    view.setInt16(Ifreq.Flags, up ? flags | IFF_UP : flags & ~IFF_UP, true);
    const what = `set "${this.name}" ${up ? "up" : "down"}`;
    this.#control(AF_INET, what, "SIOCSIFFLAGS", Request.SIOCSIFFLAGS, request);
  }

  /**
   * Adds an address. A point-to-point interface needs an IPv4 peer address; its own address serves as that, since any
   * other could belong to a host.
   *
   * @throws {Error} the system's.
   */
  addAddress(prefix: Prefix, pointToPoint: boolean): void {
    const { address } = prefix;
    const local = sockaddr(this.#bsd, address);
    const mask = sockaddr(this.#bsd, netmask(prefix));
    const what = `add address ${formatCidr(prefix)} to "${this.name}"`;
    if (address.family === 4) {
      const request = this.#request(this.#bsd.sizes.ifaliasreq);
      request.set(local, Ifaliasreq.Address);
      if (pointToPoint) request.set(local, Ifaliasreq.Destination);
      request.set(mask, Ifaliasreq.Mask);
      this.#control(AF_INET, what, "SIOCAIFADDR", this.#bsd.SIOCAIFADDR, request);
    } else {
      const request = this.#request(this.#bsd.sizes.in6_aliasreq);
      request.set(local, In6Aliasreq.Address);
      request.set(mask, In6Aliasreq.Mask);
      const view = viewOf(request);
      view.setInt32(In6Aliasreq.Flags, IN6_IFF_NODAD, true);
      view.setUint32(In6Aliasreq.ValidTime, ND6_INFINITE_LIFETIME, true);
      view.setUint32(In6Aliasreq.PreferredTime, ND6_INFINITE_LIFETIME, true);
      this.#control(this.#bsd.AF_INET6, what, "SIOCAIFADDR_IN6", this.#bsd.SIOCAIFADDR_IN6, request);
    }
  }

  /** Returns the system's counters; `undefined` when the interface is gone. */
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

  /** Removes the interface by a request that takes only its name. @throws {Error} the system's. */
  destroy(operation: string, request: bigint): void {
    this.#control(AF_INET, `remove "${this.name}"`, operation, request, this.#request(Ifreq.Size));
  }

  #request(size: number): Uint8Array<ArrayBuffer> {
    const request = new Uint8Array(size);
    new TextEncoder().encodeInto(this.name, request);
    return request;
  }

  #query(what: string, operation: "SIOCGIFMTU" | "SIOCGIFFLAGS"): Uint8Array<ArrayBuffer> {
    const request = this.#request(Ifreq.Size);
    this.#control(AF_INET, `${what} of "${this.name}"`, operation, Request[operation], request);
    return request;
  }

  /** Makes a request through a temporary socket; any socket of the family will do. */
  #control(
    family: number,
    what: string,
    operation: string,
    request: bigint,
    argument: Uint8Array<ArrayBuffer>,
  ): void {
    const { functions, systemError, Errno, asRoot } = this.#bsd;
    const fd = functions.socket(family, SOCK_DGRAM, 0);
    if (fd < 0) throw systemError(what, "socket", this.#bsd.errno());
    const failed = this.#bsd.ioctl(fd, request, argument) < 0 ? this.#bsd.errno() : 0;
    functions.close(fd);
    if (failed === 0) return;
    throw systemError(what, operation, failed, failed === Errno.EPERM ? asRoot : undefined);
  }
}
