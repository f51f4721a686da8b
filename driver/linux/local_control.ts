/** Control messages that carry a datagram's local address on Linux: IP_PKTINFO (ip(7)) and IPV6_PKTINFO (ipv6(7)). */

import { In6Pktinfo, InPktinfo, type LocalControl } from "../posix/local_control.ts";

// Specification
/**
 * sys/socket.h
 *
 * ```c
 * struct cmsghdr { size_t cmsg_len; int cmsg_level; int cmsg_type; };
 * ```
 */
export const Cmsghdr = { length: 0, level: 8, type: 12, size: 16 } as const;
/** linux/in.h, linux/in6.h */
export const PacketInfo = {
  IPPROTO_IP: 0,
  IP_PKTINFO: 8,
  IPPROTO_IPV6: 41,
  IPV6_RECVPKTINFO: 49,
  IPV6_PKTINFO: 50,
} as const;

/** Control messages of Linux. Those of an IPv6 socket carry `::ffff:a.b.c.d` for IPv4 peers. */
export const LOCAL_CONTROL: LocalControl = {
  layout: {
    length: Cmsghdr.length,
    level: Cmsghdr.level,
    type: Cmsghdr.type,
    data: Cmsghdr.size,
    alignment: 8,
  },
  4: {
    level: PacketInfo.IPPROTO_IP,
    option: PacketInfo.IP_PKTINFO,
    receivedType: PacketInfo.IP_PKTINFO,
    // For a datagram to a broadcast address, this is the interface's own address.
    receivedAddress: InPktinfo.ipi_spec_dst,
    sentType: PacketInfo.IP_PKTINFO,
    sentAddress: InPktinfo.ipi_spec_dst,
    interface: InPktinfo.ipi_ifindex,
    size: InPktinfo.size,
  },
  6: {
    level: PacketInfo.IPPROTO_IPV6,
    option: PacketInfo.IPV6_RECVPKTINFO,
    receivedType: PacketInfo.IPV6_PKTINFO,
    receivedAddress: In6Pktinfo.ipi6_addr,
    sentType: PacketInfo.IPV6_PKTINFO,
    sentAddress: In6Pktinfo.ipi6_addr,
    interface: In6Pktinfo.ipi6_ifindex,
    size: In6Pktinfo.size,
  },
};
