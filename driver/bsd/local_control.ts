/** Layout of the control messages with a datagram's local address on macOS and FreeBSD (ip(4), ip6(4)). */

import { Socket } from "./udp_socket.ts";
import { type CmsgLayout, In6Pktinfo, InPktinfo, type LocalControl } from "../posix/local_control.ts";

// Specification
/**
 * sys/socket.h, the same on both systems.
 *
 * ```c
 * struct cmsghdr { socklen_t cmsg_len; int cmsg_level; int cmsg_type; };
 * ```
 */
export const Cmsghdr = { length: 0, level: 4, type: 8, size: 12 } as const;
/** bsd/netinet/in.h 436; IP_RECVPKTINFO has the same value. */
const DARWIN_IP_PKTINFO = 26;
/** bsd/netinet6/in6.h 443, with __APPLE_USE_RFC_3542. */
const DARWIN_IPV6_RECVPKTINFO = 61;
/** netinet/in.h; IP_SENDSRCADDR has the same value. */
const FREEBSD_IP_RECVDSTADDR = 7;
/** netinet6/in6.h */
const FREEBSD_IPV6_RECVPKTINFO = 36;
/** The same on both systems. */
const IPV6_PKTINFO = 46;

const { length, level, type } = Cmsghdr;
/** bsd/sys/socket.h: CMSG_DATA rounds the header up to 4 bytes (__DARWIN_ALIGN32). */
const DARWIN_LAYOUT: CmsgLayout = { length, level, type, data: 12, alignment: 4 };
/** sys/socket.h: CMSG_DATA rounds the header up to 8 bytes (_ALIGN). */
const FREEBSD_LAYOUT: CmsgLayout = { length, level, type, data: 16, alignment: 8 };

/**
 * Control messages of macOS. IPv4 messages are sent with interface index 0; with any other index, the system would
 * ignore the address (bsd/netinet/udp_usrreq.c).
 */
export const DARWIN_LOCAL_CONTROL: LocalControl = {
  layout: DARWIN_LAYOUT,
  4: {
    level: Socket.IPPROTO_IP,
    option: DARWIN_IP_PKTINFO,
    receivedType: DARWIN_IP_PKTINFO,
    receivedAddress: InPktinfo.ipi_addr,
    sentType: DARWIN_IP_PKTINFO,
    sentAddress: InPktinfo.ipi_spec_dst,
    interface: InPktinfo.ipi_ifindex,
    size: InPktinfo.size,
  },
  6: ipv6(DARWIN_IPV6_RECVPKTINFO),
};

/** Control messages of FreeBSD. */
export const FREEBSD_LOCAL_CONTROL: LocalControl = {
  layout: FREEBSD_LAYOUT,
  4: {
    level: Socket.IPPROTO_IP,
    option: FREEBSD_IP_RECVDSTADDR,
    receivedType: FREEBSD_IP_RECVDSTADDR,
    receivedAddress: 0,
    sentType: FREEBSD_IP_RECVDSTADDR,
    sentAddress: 0,
    interface: 0,
    size: 4,
  },
  6: ipv6(FREEBSD_IPV6_RECVPKTINFO),
};

function ipv6(option: number): LocalControl[6] {
  return {
    level: Socket.IPPROTO_IPV6,
    option,
    receivedType: IPV6_PKTINFO,
    receivedAddress: In6Pktinfo.ipi6_addr,
    sentType: IPV6_PKTINFO,
    sentAddress: In6Pktinfo.ipi6_addr,
    interface: In6Pktinfo.ipi6_ifindex,
    size: In6Pktinfo.size,
  };
}
